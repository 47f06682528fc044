# src/wire: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_wire.a
libkt_wire_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) -DKT_BUILD_ID='"$(PACKAGE_VERSION)"'
libkt_wire_a_SOURCES = src/wire/codec.c src/wire/wire.c src/wire/room.c
noinst_HEADERS += include/kt/msg.h include/kt/wire.h include/kt/room.h include/kt/sandbox.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/wire_test
TESTS += tests/unit/wire_test
tests_unit_wire_test_SOURCES = tests/unit/wire_test.c
tests_unit_wire_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(SODIUM_CFLAGS)
tests_unit_wire_test_LDADD = libkt_wire.a libkt_loop.a libkt_base.a $(CMOCKA_LIBS) $(UV_LIBS) $(JANSSON_LIBS) \
	$(SODIUM_LIBS)
endif
