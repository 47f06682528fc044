# src/manifest: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_manifest.a
libkt_manifest_a_CPPFLAGS = $(AM_CPPFLAGS) $(YAML_CFLAGS) $(JANSSON_CFLAGS)
libkt_manifest_a_SOURCES =
noinst_HEADERS += include/kt/manifest.h include/kt/manifest_types.h
