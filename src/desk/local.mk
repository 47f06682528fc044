# src/desk: sources, headers and tests of this folder.
noinst_LIBRARIES += libkt_desk.a
libkt_desk_a_CPPFLAGS = $(AM_CPPFLAGS) $(MHD_CFLAGS) $(SODIUM_CFLAGS)
libkt_desk_a_SOURCES = src/desk/desk.c src/desk/http.c src/desk/page.c src/desk/pages.c src/desk/route.c src/desk/ask.c src/desk/control.c src/desk/tokens.c \
	src/desk/served.c src/desk/address.c src/desk/alpn.c
noinst_HEADERS += src/desk/desk.h

room_PROGRAMS += keyturn-desk
keyturn_desk_SOURCES = src/desk/main.c
keyturn_desk_CPPFLAGS = $(AM_CPPFLAGS) $(MHD_CFLAGS)
keyturn_desk_LDADD = libkt_desk.a libkt_pki.a libkt_wire.a libkt_loop.a libkt_base.a $(MHD_LIBS) $(UV_LIBS) $(SODIUM_LIBS) \
	$(JANSSON_LIBS) $(SECCOMP_LIBS)

# The status page, as the numbers of a C array.
EXTRA_DIST += data/status.html
BUILT_SOURCES += src/desk/status_page.inc
CLEANFILES += src/desk/status_page.inc
src/desk/status_page.inc: $(top_srcdir)/data/status.html
	@$(MKDIR_P) src/desk
	$(AM_V_GEN)od -An -v -tx1 $(top_srcdir)/data/status.html | \
		$(SED) 's/ *\([0-9a-f][0-9a-f]\)/0x\1,/g' > $@.tmp && mv $@.tmp $@
src/desk/libkt_desk_a-page.$(OBJEXT): src/desk/status_page.inc

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/desk_test tests/unit/desk_limits_test tests/unit/desk_alpn_test
TESTS += tests/unit/desk_test tests/unit/desk_limits_test tests/unit/desk_alpn_test
tests_unit_desk_alpn_test_SOURCES = tests/unit/desk_alpn_test.c
tests_unit_desk_alpn_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(MHD_CFLAGS) $(SSL_CFLAGS)
tests_unit_desk_alpn_test_LDADD = $(keyturn_desk_LDADD) $(SSL_LIBS) $(CRYPTO_LIBS) $(CMOCKA_LIBS)
noinst_HEADERS += tests/unit/desk_stage.h
tests_unit_desk_test_SOURCES = tests/unit/desk_test.c
tests_unit_desk_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(MHD_CFLAGS)
tests_unit_desk_test_LDADD = $(keyturn_desk_LDADD) $(CMOCKA_LIBS)
tests_unit_desk_limits_test_SOURCES = tests/unit/desk_limits_test.c
tests_unit_desk_limits_test_CPPFLAGS = $(AM_CPPFLAGS) $(CMOCKA_CFLAGS) $(MHD_CFLAGS)
tests_unit_desk_limits_test_LDADD = $(keyturn_desk_LDADD) $(CMOCKA_LIBS)
endif
