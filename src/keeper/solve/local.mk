# src/keeper/solve: how challenges are answered, one file a way.
libkt_keeper_a_SOURCES += src/keeper/solve/solve.c src/keeper/solve/choice.c src/keeper/solve/answers.c \
	src/keeper/solve/http.c src/keeper/solve/alpn.c src/keeper/solve/dns.c src/keeper/solve/exec.c \
	src/keeper/solve/persist.c src/keeper/admin_dns.c
noinst_HEADERS += src/keeper/solve/solve.h

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/solve_test
TESTS += tests/unit/solve_test
tests_unit_solve_test_SOURCES = tests/unit/solve_test.c src/keeper/solve/choice.c
tests_unit_solve_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_solve_test_LDADD = libkt_manifest.a libkt_base.a $(CMOCKA_LIBS) $(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
endif
