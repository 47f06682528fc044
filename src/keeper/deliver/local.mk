# src/keeper/deliver: secret volumes, delivery formats, webroot challenges.
noinst_LIBRARIES += libkt_deliver.a
libkt_deliver_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_deliver_a_SOURCES = \
	src/keeper/deliver/challenge.c \
	src/keeper/deliver/drift.c \
	src/keeper/deliver/formats.c \
	src/keeper/deliver/fs.c \
	src/keeper/deliver/open.c \
	src/keeper/deliver/stage.c \
	src/keeper/deliver/sweep.c \
	src/keeper/deliver/switch.c
noinst_HEADERS += src/keeper/deliver/deliver.h src/keeper/deliver/deliver_internal.h
