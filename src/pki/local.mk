# src/pki: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_pki.a
libkt_pki_a_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS)
libkt_pki_a_SOURCES =
noinst_HEADERS += include/kt/pki.h include/kt/jose.h src/pki/pki_openssl.h
