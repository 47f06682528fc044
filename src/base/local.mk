# src/base: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_base.a
libkt_base_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_base_a_SOURCES = src/base/err.c src/base/escape.c src/base/mem.c src/base/buf.c src/base/secret.c src/base/clock.c \
	src/base/clock_parse.c src/base/log.c src/base/cron.c src/base/zone.c src/base/text.c src/base/json.c src/base/io.c src/base/io_tree.c \
	src/base/base_internal.h src/base/io_internal.h
noinst_HEADERS += include/kt/err.h include/kt/mem.h include/kt/buf.h include/kt/secret.h include/kt/clock.h include/kt/cron.h \
	include/kt/log.h include/kt/text.h include/kt/json.h include/kt/io.h

# The walls: programs that use them link $(SECCOMP_LIBS).
libkt_base_a_SOURCES += src/base/sandbox.c src/base/sandbox_seccomp.c src/base/trim.c
noinst_HEADERS += include/kt/sandbox.h
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/sandbox_test
TESTS += tests/unit/sandbox_test
tests_unit_sandbox_test_SOURCES = tests/unit/sandbox_test.c
tests_unit_sandbox_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_sandbox_test_LDADD = libkt_base.a $(CMOCKA_LIBS) $(SECCOMP_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS) -lpthread
endif
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/base_test tests/unit/cron_test
TESTS += tests/unit/base_test tests/unit/cron_test
tests_unit_cron_test_SOURCES = tests/unit/cron_test.c
tests_unit_cron_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_cron_test_LDADD = libkt_base.a $(CMOCKA_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS) -lpthread
tests_unit_base_test_SOURCES = tests/unit/base_test.c
tests_unit_base_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_base_test_LDADD = libkt_base.a $(CMOCKA_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS) -lpthread
endif
