# src/loop: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_loop.a
libkt_loop_a_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS)
libkt_loop_a_SOURCES = src/loop/loop.c src/loop/timer.c src/loop/watch.c src/loop/child.c src/loop/loop_internal.h
noinst_HEADERS += include/kt/loop.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/loop_test
TESTS += tests/unit/loop_test
tests_unit_loop_test_SOURCES = tests/unit/loop_test.c
tests_unit_loop_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_loop_test_LDADD = libkt_loop.a libkt_base.a $(CMOCKA_LIBS) $(UV_LIBS) $(SODIUM_LIBS) $(JANSSON_LIBS) -lpthread
endif
