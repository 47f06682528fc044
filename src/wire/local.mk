# src/wire: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_wire.a
libkt_wire_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) -DKT_BUILD_ID='"$(PACKAGE_VERSION)"'
libkt_wire_a_SOURCES = src/wire/codec.c src/wire/wire.c src/wire/room.c
noinst_HEADERS += include/kt/msg.h include/kt/wire.h include/kt/room.h include/kt/sandbox.h
