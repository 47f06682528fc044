# src/keeper/store, keys, audit: the durable state, what seals it and its audit trail.
noinst_LIBRARIES += libkt_store.a
libkt_store_a_CPPFLAGS = $(AM_CPPFLAGS) $(SQLITE_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_store_a_SOURCES =
noinst_HEADERS += src/keeper/store/store.h src/keeper/keys/keys.h src/keeper/audit/audit.h
