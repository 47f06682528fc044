# src/loop: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_loop.a
libkt_loop_a_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS)
libkt_loop_a_SOURCES =
noinst_HEADERS += include/kt/loop.h
