# src/loop: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_loop.a
libkt_loop_a_CPPFLAGS = $(AM_CPPFLAGS) $(UV_CFLAGS)
libkt_loop_a_SOURCES = src/loop/loop.c src/loop/timer.c src/loop/watch.c src/loop/child.c src/loop/loop_internal.h
noinst_HEADERS += include/kt/loop.h
