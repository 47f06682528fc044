# src/keeper: the room of store, keys, plan, delivery and audit; rotate.c, begin.c, commit.c and effect.c are its pipeline.
include $(top_srcdir)/src/keeper/deliver/local.mk
include $(top_srcdir)/src/keeper/plan/local.mk
include $(top_srcdir)/src/keeper/store/local.mk

noinst_LIBRARIES += libkt_keeper.a
libkt_keeper_a_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS) $(SODIUM_CFLAGS) $(SQLITE_CFLAGS) \
	-DPACKAGE_VERSION='"$(PACKAGE_VERSION)"'
libkt_keeper_a_SOURCES = src/keeper/keeper.c src/keeper/load.c src/keeper/spec.c src/keeper/rotate.c src/keeper/share.c \
	src/keeper/flight.c src/keeper/begin.c src/keeper/commit.c src/keeper/effect.c src/keeper/hook.c src/keeper/validate.c src/keeper/publish.c src/keeper/render.c src/keeper/owners.c src/keeper/refused.c src/keeper/remedy.c src/keeper/token_ask.c src/keeper/issuers.c src/keeper/issuer_ca.c \
	src/keeper/issuer_acme.c src/keeper/budget.c src/keeper/fallback.c src/keeper/acme_account.c src/keeper/acme_job.c src/keeper/renewal_info.c src/keeper/issuer_token.c src/keeper/oauth/request.c src/keeper/oauth/answers.c src/keeper/oauth/assertion.c \
	src/keeper/oauth/check.c src/keeper/oauth/binding.c src/keeper/oauth/refresh.c src/keeper/oauth/remedy.c src/keeper/oauth/revoke.c src/keeper/oauth/proof.c src/keeper/jwks.c src/keeper/tasks.c src/keeper/turn.c src/keeper/watch/facts.c src/keeper/watch/show.c src/keeper/watch/watched.c src/keeper/prove.c \
	src/keeper/sweep.c src/keeper/pages.c src/keeper/admin.c src/keeper/admin_show.c src/keeper/admin_renew.c \
	src/keeper/admin_state.c src/keeper/admin_http.c src/keeper/quit.c src/keeper/admin_plan.c src/keeper/admin_audit.c src/keeper/admin_account.c src/keeper/admin_revoke.c src/keeper/admin_import.c src/keeper/admin_refused.c src/keeper/draft.c src/keeper/head.c src/keeper/rehearse.c
libkt_keeper_a_SOURCES += src/keeper/client/pair.c src/keeper/client/server.c src/keeper/client/obtain.c src/keeper/client/key.c
noinst_HEADERS += src/keeper/client/client.h
libkt_keeper_a_SOURCES += src/keeper/aws/request.c src/keeper/aws/session.c src/keeper/aws/ask.c
noinst_HEADERS += src/keeper/aws/aws.h
noinst_HEADERS += src/keeper/keeper.h src/keeper/oauth/oauth.h src/keeper/budget.h src/keeper/fallback.h src/keeper/flight.h src/keeper/refused.h src/keeper/share.h src/keeper/prove.h src/keeper/hook.h src/keeper/admin.h src/keeper/draft.h src/keeper/acme.h

include $(top_srcdir)/src/keeper/solve/local.mk
noinst_HEADERS += src/keeper/watch/watched.h
libkt_keeper_a_SOURCES += src/keeper/target.c src/keeper/target_form.c
noinst_HEADERS += src/keeper/target.h

room_PROGRAMS += keyturn-keeper
keyturn_keeper_SOURCES = src/keeper/main.c
keyturn_keeper_CPPFLAGS = $(libkt_keeper_a_CPPFLAGS)
keyturn_keeper_LDADD = libkt_keeper.a libkt_deliver.a libkt_plan.a libkt_store.a libkt_manifest.a libkt_pki.a \
	libkt_wire.a libkt_loop.a libkt_base.a $(CRYPTO_LIBS) $(SQLITE_LIBS) $(JANSSON_LIBS) $(YAML_LIBS) $(UV_LIBS) \
	$(SODIUM_LIBS) $(SECCOMP_LIBS) -lm

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/draft_test
TESTS += tests/unit/draft_test
tests_unit_draft_test_SOURCES = tests/unit/draft_test.c
tests_unit_draft_test_CPPFLAGS = $(libkt_keeper_a_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_draft_test_LDADD = $(keyturn_keeper_LDADD) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/target_test
TESTS += tests/unit/target_test
tests_unit_target_test_SOURCES = tests/unit/target_test.c tests/unit/pki_helper.h
tests_unit_target_test_CPPFLAGS = $(libkt_keeper_a_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_target_test_LDADD = $(keyturn_keeper_LDADD) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/client_test
TESTS += tests/unit/client_test
tests_unit_client_test_SOURCES = tests/unit/client_test.c
tests_unit_client_test_CPPFLAGS = $(libkt_keeper_a_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_client_test_LDADD = $(keyturn_keeper_LDADD) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/oauth_test
TESTS += tests/unit/oauth_test
tests_unit_oauth_test_SOURCES = tests/unit/oauth_test.c tests/unit/pki_helper.h
tests_unit_oauth_test_CPPFLAGS = $(libkt_keeper_a_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_oauth_test_LDADD = $(keyturn_keeper_LDADD) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/aws_test
TESTS += tests/unit/aws_test
tests_unit_aws_test_SOURCES = tests/unit/aws_test.c
tests_unit_aws_test_CPPFLAGS = $(libkt_keeper_a_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_aws_test_LDADD = $(keyturn_keeper_LDADD) $(CMOCKA_LIBS)
endif
