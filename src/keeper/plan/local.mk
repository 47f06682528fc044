# src/keeper/plan: what is due, when and why; pure functions.
noinst_LIBRARIES += libkt_plan.a
libkt_plan_a_CPPFLAGS = $(AM_CPPFLAGS)
libkt_plan_a_SOURCES = \
	src/keeper/plan/explain.c \
	src/keeper/plan/health.c \
	src/keeper/plan/life.c \
	src/keeper/plan/limits.c \
	src/keeper/plan/plan.c \
	src/keeper/plan/retry.c \
	src/keeper/plan/task.c \
	src/keeper/plan/watch.c \
	src/keeper/plan/window.c
noinst_HEADERS += src/keeper/plan/plan.h src/keeper/plan/limits.h src/keeper/plan/health.h src/keeper/plan/plan_internal.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/plan_test
TESTS += tests/unit/plan_test
tests_unit_plan_test_SOURCES = tests/unit/plan_test.c
tests_unit_plan_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_plan_test_LDADD = libkt_plan.a libkt_base.a $(CMOCKA_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)

check_PROGRAMS += tests/unit/watch_plan_test
TESTS += tests/unit/watch_plan_test
tests_unit_watch_plan_test_SOURCES = tests/unit/watch_plan_test.c
tests_unit_watch_plan_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_watch_plan_test_LDADD = libkt_plan.a libkt_base.a $(CMOCKA_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)

check_PROGRAMS += tests/unit/limits_test
TESTS += tests/unit/limits_test
tests_unit_limits_test_SOURCES = tests/unit/limits_test.c
tests_unit_limits_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) -DSOURCE_DIR='"$(abs_top_srcdir)"'
tests_unit_limits_test_LDADD = libkt_plan.a libkt_base.a $(CMOCKA_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)

check_PROGRAMS += tests/unit/schedule_test
TESTS += tests/unit/schedule_test
tests_unit_schedule_test_SOURCES = tests/unit/schedule_test.c
tests_unit_schedule_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_schedule_test_LDADD = libkt_plan.a libkt_base.a $(CMOCKA_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)

check_PROGRAMS += tests/unit/token_schedule_test
TESTS += tests/unit/token_schedule_test
tests_unit_token_schedule_test_SOURCES = tests/unit/token_schedule_test.c
tests_unit_token_schedule_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_token_schedule_test_LDADD = libkt_plan.a libkt_base.a $(CMOCKA_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
endif
