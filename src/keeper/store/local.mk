# src/keeper/store, keys, audit: the durable state, what seals it and its audit trail.
noinst_LIBRARIES += libkt_store.a
libkt_store_a_CPPFLAGS = $(AM_CPPFLAGS) $(SQLITE_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_store_a_SOURCES = src/keeper/store/store.c src/keeper/store/sql.c src/keeper/store/row.c \
	src/keeper/store/setup.c src/keeper/store/schema.c src/keeper/store/lock.c src/keeper/store/anchor.c \
	src/keeper/store/meta.c src/keeper/store/resource.c src/keeper/store/cred.c src/keeper/store/material.c \
	src/keeper/store/task.c src/keeper/store/account.c src/keeper/store/acme.c src/keeper/store/secret.c src/keeper/store/ledger.c \
	src/keeper/store/reseal.c src/keeper/keys/keys.c src/keeper/keys/source.c src/keeper/audit/audit.c \
	src/keeper/audit/read.c
noinst_HEADERS += src/keeper/store/store.h src/keeper/keys/keys.h src/keeper/audit/audit.h \
	src/keeper/store/store_internal.h src/keeper/store/statements.h src/keeper/keys/keys_internal.h \
	src/keeper/audit/audit_internal.h

auditschemadir = $(datadir)/keyturn
dist_auditschema_DATA = data/audit.schema.json

EXTRA_PROGRAMS += tests/bench/store_bench
tests_bench_store_bench_SOURCES = tests/bench/store_bench.c
tests_bench_store_bench_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS)
tests_bench_store_bench_LDADD = libkt_store.a libkt_base.a $(SQLITE_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) $(SECCOMP_LIBS)

if HAVE_CMOCKA
store_tests = tests/unit/store_test tests/unit/store_rows_test tests/unit/store_fault_test tests/unit/keys_test tests/unit/store_acme_test \
	tests/unit/audit_test
store_test_cppflags = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(SQLITE_CFLAGS) $(SODIUM_CFLAGS)
store_test_libs = libkt_store.a libkt_base.a $(CMOCKA_LIBS) $(SQLITE_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) $(SECCOMP_LIBS)
check_PROGRAMS += $(store_tests)
TESTS += $(store_tests)
noinst_HEADERS += tests/unit/store_helper.h
tests_unit_store_test_SOURCES = tests/unit/store_test.c
tests_unit_store_test_CPPFLAGS = $(store_test_cppflags)
tests_unit_store_test_LDADD = $(store_test_libs)
tests_unit_store_rows_test_SOURCES = tests/unit/store_rows_test.c
tests_unit_store_rows_test_CPPFLAGS = $(store_test_cppflags)
tests_unit_store_rows_test_LDADD = $(store_test_libs)
tests_unit_store_fault_test_SOURCES = tests/unit/store_fault_test.c
tests_unit_store_fault_test_CPPFLAGS = $(store_test_cppflags)
tests_unit_store_fault_test_LDADD = $(store_test_libs)
tests_unit_store_acme_test_SOURCES = tests/unit/store_acme_test.c
tests_unit_store_acme_test_CPPFLAGS = $(store_test_cppflags)
tests_unit_store_acme_test_LDADD = $(store_test_libs)
tests_unit_keys_test_SOURCES = tests/unit/keys_test.c
tests_unit_keys_test_CPPFLAGS = $(store_test_cppflags)
tests_unit_keys_test_LDADD = $(store_test_libs)
tests_unit_audit_test_SOURCES = tests/unit/audit_test.c
tests_unit_audit_test_CPPFLAGS = $(store_test_cppflags)
tests_unit_audit_test_LDADD = $(store_test_libs)
endif
