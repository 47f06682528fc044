# src/warden: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_warden.a
libkt_warden_a_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(UV_CFLAGS)
libkt_warden_a_SOURCES = src/warden/warden.c src/warden/room.c src/warden/spawn.c src/warden/requests.c \
	src/warden/reload.c src/warden/settings.c src/warden/places.c src/warden/control.c src/warden/local.c src/warden/listen.c \
	src/warden/notify.c src/warden/anchor.c src/warden/hands/hands.c src/warden/hands/run.c src/warden/hands/ids.c \
	src/warden/hands/process.c src/warden/hands/solve.c src/warden/hands/mounts.c
noinst_HEADERS += src/warden/warden.h src/warden/internal.h src/warden/settings.h src/warden/sockets.h \
	src/warden/hands/hands.h src/warden/hands/process.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/hands_test tests/unit/hands_signal_test tests/unit/hands_solve_test
TESTS += tests/unit/hands_test tests/unit/hands_signal_test tests/unit/hands_solve_test
noinst_HEADERS += tests/unit/hands_stage.h
hands_test_libs = libkt_warden.a libkt_loop.a libkt_base.a $(CMOCKA_LIBS) $(UV_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
tests_unit_hands_test_SOURCES = tests/unit/hands_test.c
tests_unit_hands_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_hands_test_LDADD = $(hands_test_libs)
tests_unit_hands_signal_test_SOURCES = tests/unit/hands_signal_test.c
tests_unit_hands_signal_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_hands_signal_test_LDADD = $(hands_test_libs)
tests_unit_hands_solve_test_SOURCES = tests/unit/hands_solve_test.c
tests_unit_hands_solve_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_hands_solve_test_LDADD = $(hands_test_libs)

# Started by the tests of the warden in place of the rooms.
check_PROGRAMS += tests/unit/fake_room
tests_unit_fake_room_SOURCES = tests/unit/fake_room.c
tests_unit_fake_room_LDADD = libkt_wire.a libkt_loop.a libkt_base.a $(UV_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) \
	$(SECCOMP_LIBS)

check_PROGRAMS += tests/unit/warden_test tests/unit/warden_control_test
TESTS += tests/unit/warden_test tests/unit/warden_control_test
noinst_HEADERS += tests/unit/warden_stage.h
warden_test_libs = libkt_warden.a libkt_manifest.a libkt_wire.a libkt_loop.a libkt_base.a $(CMOCKA_LIBS) $(UV_LIBS) \
	$(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
tests_unit_warden_test_SOURCES = tests/unit/warden_test.c
tests_unit_warden_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_warden_test_LDADD = $(warden_test_libs)
tests_unit_warden_control_test_SOURCES = tests/unit/warden_control_test.c
tests_unit_warden_control_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_warden_control_test_LDADD = $(warden_test_libs)
endif
