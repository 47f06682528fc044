# src/manifest: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_manifest.a
libkt_manifest_a_CPPFLAGS = $(AM_CPPFLAGS) $(YAML_CFLAGS) $(JANSSON_CFLAGS)
libkt_manifest_a_SOURCES = src/manifest/node.c src/manifest/yaml.c src/manifest/decode.c src/manifest/encode.c \
	src/manifest/value.c src/manifest/report.c src/manifest/manifest.c src/manifest/table_meta.c \
	src/manifest/table_issuer.c src/manifest/table_solver.c src/manifest/table_watch.c src/manifest/table_certificate.c src/manifest/table_token.c \
	src/manifest/table_client.c \
	src/manifest/table_consumer.c src/manifest/table_agent.c src/manifest/set.c src/manifest/load.c src/manifest/doc.c src/manifest/foreign.c
libkt_manifest_a_SOURCES += src/manifest/table_target.c
noinst_HEADERS += include/kt/manifest.h include/kt/manifest_types.h include/kt/manifest_parts.h include/kt/manifest_token.h include/kt/manifest_consumer.h include/kt/foreign.h src/manifest/node.h src/manifest/field.h \
	src/manifest/rows.h src/manifest/doc.h

# Writes the schemas and reference pages into the source tree; a test says when they are out of date.
noinst_PROGRAMS += src/manifest/keyturn-manifest-doc
src_manifest_keyturn_manifest_doc_SOURCES = src/manifest/gen.c
src_manifest_keyturn_manifest_doc_LDADD = libkt_manifest.a libkt_base.a $(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
.PHONY: manifest-doc
manifest-doc: src/manifest/keyturn-manifest-doc$(EXEEXT)
	$(MKDIR_P) $(srcdir)/data $(srcdir)/docs/reference
	src/manifest/keyturn-manifest-doc$(EXEEXT) $(srcdir)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/manifest_test tests/unit/manifest_set_test
TESTS += tests/unit/manifest_test tests/unit/manifest_set_test
manifest_test_cppflags = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS) -DKT_TEST_SRCDIR='"$(abs_top_srcdir)"'
manifest_test_libs = libkt_manifest.a libkt_base.a $(CMOCKA_LIBS) $(YAML_LIBS) $(JANSSON_LIBS) $(SODIUM_LIBS)
tests_unit_manifest_test_SOURCES = tests/unit/manifest_test.c
tests_unit_manifest_test_CPPFLAGS = $(manifest_test_cppflags)
tests_unit_manifest_test_LDADD = $(manifest_test_libs)
tests_unit_manifest_set_test_SOURCES = tests/unit/manifest_set_test.c
tests_unit_manifest_set_test_CPPFLAGS = $(manifest_test_cppflags)
tests_unit_manifest_set_test_LDADD = $(manifest_test_libs)
endif
