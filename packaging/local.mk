# packaging: sources, headers and tests of this folder.
systemdsystemunit_DATA = packaging/systemd/keyturn.service
packaging/systemd/keyturn.service: packaging/systemd/keyturn.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) packaging/systemd && $(SED) -e 's|@bindir[@]|$(bindir)|g' \
		$(top_srcdir)/packaging/systemd/keyturn.service.in > $@.tmp && mv $@.tmp $@
EXTRA_DIST += packaging/systemd/keyturn.service.in
CLEANFILES += packaging/systemd/keyturn.service
