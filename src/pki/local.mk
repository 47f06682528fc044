# src/pki: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_pki.a
libkt_pki_a_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS) $(SODIUM_CFLAGS)
libkt_pki_a_SOURCES = src/pki/acme.c src/pki/cert.c src/pki/chain.c src/pki/check.c src/pki/der.c src/pki/dn.c src/pki/ext.c \
	src/pki/init.c src/pki/issue.c src/pki/key.c src/pki/keyread.c src/pki/jks.c src/pki/keyless.c src/pki/pem.c src/pki/pkcs12.c src/pki/san.c \
	src/pki/sign.c src/pki/store_read.c src/pki/jwk.c src/pki/jwk_private.c src/pki/jws.c src/pki/jwt.c src/pki/tls_server.c
noinst_HEADERS += include/kt/pki.h include/kt/jose.h include/kt/tls.h src/pki/pki_openssl.h src/pki/pki_internal.h src/pki/jose_internal.h

kt_pki_test_libs = libkt_pki.a libkt_base.a $(CRYPTO_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS) -lpthread -lm

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/store_read_test
TESTS += tests/unit/store_read_test
tests_unit_store_read_test_SOURCES = tests/unit/store_read_test.c
tests_unit_store_read_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_store_read_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)
check_PROGRAMS += tests/unit/alpn_test tests/unit/pki_test tests/unit/chain_test tests/unit/jose_test tests/unit/pkcs12_test
TESTS += tests/unit/alpn_test tests/unit/pki_test tests/unit/chain_test tests/unit/jose_test tests/unit/pkcs12_test
noinst_HEADERS += tests/unit/pki_helper.h tests/unit/pki_ca.h
tests_unit_alpn_test_SOURCES = tests/unit/alpn_test.c
tests_unit_alpn_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_alpn_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)
tests_unit_pki_test_SOURCES = tests/unit/pki_test.c
tests_unit_pki_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_pki_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)
tests_unit_chain_test_SOURCES = tests/unit/chain_test.c
tests_unit_chain_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_chain_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)
tests_unit_jose_test_SOURCES = tests/unit/jose_test.c
tests_unit_jose_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_jose_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)
tests_unit_pkcs12_test_SOURCES = tests/unit/pkcs12_test.c
tests_unit_pkcs12_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_pkcs12_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)

check_PROGRAMS += tests/unit/keyless_test
TESTS += tests/unit/keyless_test
tests_unit_keyless_test_SOURCES = tests/unit/keyless_test.c
tests_unit_keyless_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_keyless_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)

check_PROGRAMS += tests/unit/jks_test
TESTS += tests/unit/jks_test
tests_unit_jks_test_SOURCES = tests/unit/jks_test.c
tests_unit_jks_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS)
tests_unit_jks_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)

check_PROGRAMS += tests/unit/jwk_private_test
TESTS += tests/unit/jwk_private_test
tests_unit_jwk_private_test_SOURCES = tests/unit/jwk_private_test.c
tests_unit_jwk_private_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS)
tests_unit_jwk_private_test_LDADD = $(CMOCKA_LIBS) $(kt_pki_test_libs)
endif

EXTRA_PROGRAMS += tests/bench/pki_bench
tests_bench_pki_bench_SOURCES = tests/bench/pki_bench.c
tests_bench_pki_bench_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS)
tests_bench_pki_bench_LDADD = $(kt_pki_test_libs)
