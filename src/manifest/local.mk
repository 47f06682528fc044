# src/manifest: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_manifest.a
libkt_manifest_a_CPPFLAGS = $(AM_CPPFLAGS) $(YAML_CFLAGS) $(JANSSON_CFLAGS)
libkt_manifest_a_SOURCES = src/manifest/node.c src/manifest/yaml.c src/manifest/decode.c src/manifest/encode.c \
	src/manifest/value.c src/manifest/report.c src/manifest/manifest.c src/manifest/cron.c src/manifest/zone.c \
	src/manifest/table_meta.c src/manifest/table_issuer.c src/manifest/table_certificate.c src/manifest/table_token.c \
	src/manifest/table_consumer.c src/manifest/table_agent.c
noinst_HEADERS += include/kt/manifest.h include/kt/manifest_types.h src/manifest/node.h src/manifest/field.h \
	src/manifest/rows.h src/manifest/cron.h
