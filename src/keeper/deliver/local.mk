# src/keeper/deliver: secret volumes, delivery formats, webroot challenges.
noinst_LIBRARIES += libkt_deliver.a
libkt_deliver_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_deliver_a_SOURCES =
noinst_HEADERS += src/keeper/deliver/deliver.h
