# src/cli: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_cli.a
libkt_cli_a_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(UV_CFLAGS) $(SMARTCOLS_CFLAGS)
libkt_cli_a_SOURCES = src/cli/options.c src/cli/say.c src/cli/listing.c src/cli/client.c src/cli/lock.c src/cli/check.c src/cli/run.c \
	src/cli/renew.c src/cli/status.c src/cli/plan.c src/cli/token.c src/cli/invalidate.c src/cli/secret.c src/cli/audit.c src/cli/trace.c src/cli/manage.c \
	src/cli/doctor.c src/cli/account.c src/cli/revoke.c src/cli/dns_record.c src/cli/commands.c
libkt_cli_a_SOURCES += src/cli/import.c src/cli/import_read.c src/cli/import_text.c src/cli/import_cert.c \
	src/cli/import_model.c src/cli/import_docs.c src/cli/import_certbot.c src/cli/import_lego.c src/cli/import_acme_sh.c \
	src/cli/import_dehydrated.c src/cli/import_certmonger.c
noinst_HEADERS += src/cli/cli.h
noinst_HEADERS += src/cli/import.h
libkt_cli_a_SOURCES += src/cli/init.c src/cli/check_align.c src/cli/align/align.c src/cli/align/lint.c src/cli/align/set.c src/cli/align/text.c src/cli/align/rule.c \
	src/cli/align/judge_mesh.c src/cli/align/judge_api.c
noinst_HEADERS += src/cli/check_align.h src/cli/align/align.h src/cli/align/align_internal.h

bin_PROGRAMS += keyturn
keyturn_SOURCES = src/cli/main.c
keyturn_CPPFLAGS = $(AM_CPPFLAGS) $(JANSSON_CFLAGS) $(UV_CFLAGS)
keyturn_LDADD = libkt_cli.a libkt_warden.a libkt_manifest.a libkt_wire.a libkt_loop.a libkt_base.a \
	$(SMARTCOLS_LIBS) $(UV_LIBS) $(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) $(SECCOMP_LIBS)

# cli_test.sh and man_test.sh use the program as it was built.
TESTS += tests/unit/cli_test.sh tests/unit/man_test.sh
EXTRA_DIST += tests/unit/cli_test.sh tests/unit/man_test.sh

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/cli_unit_test
TESTS += tests/unit/cli_unit_test
tests_unit_cli_unit_test_SOURCES = tests/unit/cli_unit_test.c
tests_unit_cli_unit_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS) $(UV_CFLAGS)
tests_unit_cli_unit_test_LDADD = libkt_cli.a libkt_warden.a libkt_manifest.a libkt_wire.a libkt_loop.a libkt_base.a \
	$(CMOCKA_LIBS) $(SMARTCOLS_LIBS) $(UV_LIBS) $(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) $(SECCOMP_LIBS)

check_PROGRAMS += tests/unit/align_test
TESTS += tests/unit/align_test
tests_unit_align_test_SOURCES = tests/unit/align_test.c
tests_unit_align_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_align_test_LDADD = $(tests_unit_cli_unit_test_LDADD)

check_PROGRAMS += tests/unit/import_test
TESTS += tests/unit/import_test
tests_unit_import_test_SOURCES = tests/unit/import_test.c
tests_unit_import_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_import_test_LDADD = $(tests_unit_cli_unit_test_LDADD)
endif
