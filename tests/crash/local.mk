# tests/crash: what kills and fails the programs at a chosen call; built by the tests themselves.
EXTRA_PROGRAMS += tests/crash/killer
tests_crash_killer_SOURCES = tests/crash/killer.c

# A folder of rooms whose keeper has more migrations.
EXTRA_PROGRAMS += tests/crash/newer/keyturn-keeper
tests_crash_newer_keyturn_keeper_SOURCES = tests/crash/newer_keeper.c
tests_crash_newer_keyturn_keeper_CPPFLAGS = $(keyturn_keeper_CPPFLAGS)
tests_crash_newer_keyturn_keeper_LDADD = $(keyturn_keeper_LDADD)

tests/crash/failmalloc.so: $(top_srcdir)/tests/crash/failmalloc.c
	$(AM_V_CCLD)$(MKDIR_P) tests/crash && $(CC) -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -O2 -fPIC -shared -o $@ $<

tests/crash/nosync.so: $(top_srcdir)/tests/crash/nosync.c
	$(AM_V_CCLD)$(MKDIR_P) tests/crash && $(CC) -std=gnu17 -Wall -Wextra -O2 -fPIC -shared -o $@ $<

CLEANFILES += tests/crash/killer tests/crash/newer/keyturn-keeper tests/crash/failmalloc.so tests/crash/nosync.so
EXTRA_DIST += tests/crash/failmalloc.c tests/crash/nosync.c tests/crash/conftest.py tests/crash/common.py tests/crash/scenarios.py \
	tests/crash/matrix.py tests/crash/test_kill.py tests/crash/test_faults.py tests/crash/test_alloc.py tests/crash/test_power.py
