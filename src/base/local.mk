# src/base: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_base.a
libkt_base_a_CPPFLAGS = $(AM_CPPFLAGS) $(SODIUM_CFLAGS) $(JANSSON_CFLAGS)
libkt_base_a_SOURCES =
noinst_HEADERS += include/kt/err.h include/kt/mem.h include/kt/buf.h include/kt/secret.h include/kt/clock.h \
	include/kt/log.h include/kt/text.h include/kt/json.h include/kt/io.h
