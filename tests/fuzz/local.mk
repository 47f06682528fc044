# tests/fuzz: one target an area. Without --enable-fuzzers each is a program that replays its corpus in `make check`; with
# it (and CC=clang) `make fuzzers` builds libFuzzer targets: tests/fuzz/fuzz_json -max_total_time=60 FOLDER
fuzz_targets = tests/fuzz/fuzz_align tests/fuzz/fuzz_import tests/fuzz/fuzz_manifest tests/fuzz/fuzz_json tests/fuzz/fuzz_answers tests/fuzz/fuzz_pki \
	tests/fuzz/fuzz_jose tests/fuzz/fuzz_wire tests/fuzz/fuzz_http tests/fuzz/fuzz_alpn tests/fuzz/fuzz_starttls tests/fuzz/fuzz_url tests/fuzz/fuzz_time \
	tests/fuzz/fuzz_stores tests/fuzz/fuzz_facts tests/fuzz/fuzz_target
if HAVE_LDNS
fuzz_targets += tests/fuzz/fuzz_dns
endif
EXTRA_DIST += tests/fuzz/corpus
noinst_HEADERS += tests/fuzz/fuzz.h

if FUZZERS
AM_CFLAGS += -fsanitize=fuzzer-no-link
fuzz_ldflags = $(AM_LDFLAGS) -fsanitize=fuzzer
fuzz_replay =
EXTRA_PROGRAMS += $(fuzz_targets)
fuzzers: $(fuzz_targets)
else
fuzz_ldflags = $(AM_LDFLAGS)
fuzz_replay = tests/fuzz/replay.c
check_PROGRAMS += $(fuzz_targets)
TESTS += $(fuzz_targets)
endif
fuzz_cppflags = $(COURIER_CPPFLAGS) $(MHD_CFLAGS) $(YAML_CFLAGS) -I$(top_srcdir)/tests/fuzz \
	-DKT_FUZZ_FOLDER='"$(abs_top_srcdir)/tests/fuzz/corpus/"'

tests_fuzz_fuzz_manifest_SOURCES = tests/fuzz/fuzz_manifest.c $(fuzz_replay)
tests_fuzz_fuzz_manifest_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"manifest\"
tests_fuzz_fuzz_manifest_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_manifest_LDADD = libkt_manifest.a libkt_base.a $(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
tests_fuzz_fuzz_json_SOURCES = tests/fuzz/fuzz_json.c $(fuzz_replay)
tests_fuzz_fuzz_json_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"json\"
tests_fuzz_fuzz_json_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_json_LDADD = $(COURIER_LIBS)
tests_fuzz_fuzz_answers_SOURCES = tests/fuzz/fuzz_answers.c $(fuzz_replay)
tests_fuzz_fuzz_answers_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"answers\"
tests_fuzz_fuzz_answers_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_answers_LDADD = $(COURIER_LIBS)
tests_fuzz_fuzz_pki_SOURCES = tests/fuzz/fuzz_pki.c $(fuzz_replay)
tests_fuzz_fuzz_pki_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"pki\"
tests_fuzz_fuzz_pki_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_pki_LDADD = libkt_pki.a libkt_base.a $(CRYPTO_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) -lm
tests_fuzz_fuzz_jose_SOURCES = tests/fuzz/fuzz_jose.c $(fuzz_replay)
tests_fuzz_fuzz_jose_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"jose\"
tests_fuzz_fuzz_jose_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_jose_LDADD = libkt_pki.a libkt_base.a $(CRYPTO_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) -lm
tests_fuzz_fuzz_wire_SOURCES = tests/fuzz/fuzz_wire.c $(fuzz_replay)
tests_fuzz_fuzz_wire_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"wire\"
tests_fuzz_fuzz_wire_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_wire_LDADD = libkt_wire.a libkt_loop.a libkt_base.a $(UV_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) $(SECCOMP_LIBS)
tests_fuzz_fuzz_http_SOURCES = tests/fuzz/fuzz_http.c $(fuzz_replay)
tests_fuzz_fuzz_http_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"http\"
tests_fuzz_fuzz_http_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_http_LDADD = $(keyturn_desk_LDADD)
tests_fuzz_fuzz_alpn_SOURCES = tests/fuzz/fuzz_alpn.c $(fuzz_replay)
tests_fuzz_fuzz_alpn_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"alpn\"
tests_fuzz_fuzz_alpn_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_alpn_LDADD = $(keyturn_desk_LDADD) $(CRYPTO_LIBS)
tests_fuzz_fuzz_starttls_SOURCES = tests/fuzz/fuzz_starttls.c $(fuzz_replay)
tests_fuzz_fuzz_starttls_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"starttls\"
tests_fuzz_fuzz_starttls_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_starttls_LDADD = $(COURIER_LIBS)
tests_fuzz_fuzz_url_SOURCES = tests/fuzz/fuzz_url.c $(fuzz_replay)
tests_fuzz_fuzz_url_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"url\"
tests_fuzz_fuzz_url_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_url_LDADD = $(COURIER_LIBS)
tests_fuzz_fuzz_time_SOURCES = tests/fuzz/fuzz_time.c $(fuzz_replay)
tests_fuzz_fuzz_time_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"time\"
tests_fuzz_fuzz_time_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_time_LDADD = libkt_plan.a libkt_base.a $(JANSSON_LIBS) $(SODIUM_LIBS)
tests_fuzz_fuzz_dns_SOURCES = tests/fuzz/fuzz_dns.c $(fuzz_replay)
tests_fuzz_fuzz_dns_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"dns\"
tests_fuzz_fuzz_dns_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_dns_LDADD = $(COURIER_LIBS)
tests_fuzz_fuzz_import_SOURCES = tests/fuzz/fuzz_import.c $(fuzz_replay)
tests_fuzz_fuzz_import_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"import\"
tests_fuzz_fuzz_import_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_import_LDADD = $(keyturn_LDADD)
tests_fuzz_fuzz_align_SOURCES = tests/fuzz/fuzz_align.c $(fuzz_replay)
tests_fuzz_fuzz_align_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"align\"
tests_fuzz_fuzz_align_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_align_LDADD = $(keyturn_LDADD)
tests_fuzz_fuzz_stores_SOURCES = tests/fuzz/fuzz_stores.c $(fuzz_replay)
tests_fuzz_fuzz_stores_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"stores\"
tests_fuzz_fuzz_stores_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_stores_LDADD = libkt_pki.a libkt_base.a $(CRYPTO_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) -lm
tests_fuzz_fuzz_facts_SOURCES = tests/fuzz/fuzz_facts.c $(fuzz_replay)
tests_fuzz_fuzz_facts_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"facts\"
tests_fuzz_fuzz_facts_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_facts_LDADD = $(keyturn_keeper_LDADD)
tests_fuzz_fuzz_target_SOURCES = tests/fuzz/fuzz_target.c $(fuzz_replay)
tests_fuzz_fuzz_target_CPPFLAGS = $(fuzz_cppflags) -DKT_FUZZ_AREA=\"target\"
tests_fuzz_fuzz_target_LDFLAGS = $(fuzz_ldflags)
tests_fuzz_fuzz_target_LDADD = $(keyturn_keeper_LDADD)
