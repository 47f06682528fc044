# src/keeper/store, keys, audit: the durable state, what seals it and its audit trail.
noinst_LIBRARIES += libkt_store.a
libkt_store_a_CPPFLAGS = $(AM_CPPFLAGS) $(SQLITE_CFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_store_a_SOURCES = src/keeper/store/store.c src/keeper/store/sql.c src/keeper/store/row.c \
	src/keeper/store/setup.c src/keeper/store/schema.c src/keeper/store/lock.c src/keeper/store/anchor.c \
	src/keeper/store/meta.c src/keeper/store/resource.c src/keeper/store/cred.c src/keeper/store/material.c \
	src/keeper/store/task.c src/keeper/store/account.c src/keeper/store/secret.c src/keeper/store/ledger.c \
	src/keeper/store/reseal.c src/keeper/keys/keys.c src/keeper/keys/source.c src/keeper/audit/audit.c \
	src/keeper/audit/read.c
noinst_HEADERS += src/keeper/store/store.h src/keeper/keys/keys.h src/keeper/audit/audit.h \
	src/keeper/store/store_internal.h src/keeper/store/statements.h src/keeper/keys/keys_internal.h \
	src/keeper/audit/audit_internal.h
