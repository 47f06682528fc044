# src/keeper/deliver: secret volumes, delivery formats, webroot challenges.
noinst_LIBRARIES += libkt_deliver.a
libkt_deliver_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_deliver_a_SOURCES = \
	src/keeper/deliver/challenge.c \
	src/keeper/deliver/drift.c \
	src/keeper/deliver/formats.c \
	src/keeper/deliver/formats_token.c \
	src/keeper/deliver/fs.c \
	src/keeper/deliver/open.c \
	src/keeper/deliver/stage.c \
	src/keeper/deliver/sweep.c \
	src/keeper/deliver/switch.c
noinst_HEADERS += src/keeper/deliver/deliver.h src/keeper/deliver/deliver_internal.h

if HAVE_CMOCKA
deliver_libs = libkt_deliver.a libkt_pki.a libkt_base.a $(CMOCKA_LIBS) $(CRYPTO_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) -lm

check_PROGRAMS += tests/unit/volume_test
TESTS += tests/unit/volume_test
tests_unit_volume_test_SOURCES = tests/unit/volume_test.c tests/unit/volume_helper.h
tests_unit_volume_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(SODIUM_CFLAGS)
tests_unit_volume_test_LDADD = $(deliver_libs)

# The calls that write go through the test, which lets each of them fail or be the last one.
check_PROGRAMS += tests/unit/volume_fault_test
TESTS += tests/unit/volume_fault_test
tests_unit_volume_fault_test_SOURCES = tests/unit/volume_fault_test.c tests/unit/volume_helper.h
tests_unit_volume_fault_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(SODIUM_CFLAGS)
tests_unit_volume_fault_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=mkdirat,--wrap=openat,--wrap=write,--wrap=fchmod \
	-Wl,--wrap=fchown,--wrap=fsync,--wrap=symlinkat,--wrap=renameat,--wrap=unlinkat
tests_unit_volume_fault_test_LDADD = $(deliver_libs)

check_PROGRAMS += tests/unit/formats_test
TESTS += tests/unit/formats_test
tests_unit_formats_test_SOURCES = tests/unit/formats_test.c
tests_unit_formats_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_formats_test_LDADD = $(deliver_libs)
endif
