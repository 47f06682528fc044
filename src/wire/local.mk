# src/wire: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_wire.a
libkt_wire_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS)
libkt_wire_a_SOURCES =
