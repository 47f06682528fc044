# packaging: sources, headers and tests of this folder.
systemdsystemunit_DATA = packaging/systemd/keyturn.service packaging/systemd/keyturn-renew.service
dist_systemdsystemunit_DATA = packaging/systemd/keyturn-renew.timer
packaging/systemd/keyturn.service: packaging/systemd/keyturn.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) packaging/systemd && $(SED) -e 's|@bindir[@]|$(bindir)|g' \
		$(top_srcdir)/packaging/systemd/keyturn.service.in > $@.tmp && mv $@.tmp $@
packaging/systemd/keyturn-renew.service: packaging/systemd/keyturn-renew.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) packaging/systemd && $(SED) -e 's|@bindir[@]|$(bindir)|g' \
		$(top_srcdir)/packaging/systemd/keyturn-renew.service.in > $@.tmp && mv $@.tmp $@
EXTRA_DIST += packaging/systemd/keyturn.service.in packaging/systemd/keyturn-renew.service.in
CLEANFILES += packaging/systemd/keyturn.service packaging/systemd/keyturn-renew.service

# Users of the rooms; a package runs systemd-sysusers.
sysusersdir = $(prefix)/lib/sysusers.d
dist_sysusers_DATA = packaging/sysusers.d/keyturn.conf

# bash looks for the file under the name of the program.
EXTRA_DIST += packaging/completion/keyturn.bash
install-data-local: install-completion
uninstall-local: uninstall-completion
.PHONY: install-completion uninstall-completion
install-completion:
	$(MKDIR_P) "$(DESTDIR)$(bashcompletiondir)"
	$(INSTALL_DATA) $(top_srcdir)/packaging/completion/keyturn.bash "$(DESTDIR)$(bashcompletiondir)/keyturn"
uninstall-completion:
	rm -f "$(DESTDIR)$(bashcompletiondir)/keyturn"
