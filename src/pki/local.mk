# src/pki: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_pki.a
libkt_pki_a_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS)
libkt_pki_a_SOURCES =
