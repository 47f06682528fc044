# docs: sources, headers and tests of this folder.
dist_doc_DATA = NEWS docs/acme.md docs/alignment.md docs/bench.md docs/challenges.md docs/dependencies.md docs/dns01.md docs/exec-solver.md docs/import.md docs/keystores.md docs/limits.md docs/metrics.md docs/outputs.md docs/problems.md docs/sidecar.md docs/status-json.md docs/token-socket.md docs/rotation.svg
dist_doc_DATA += docs/proofs.md docs/tokens.md
internalsdir = $(docdir)/internals
dist_internals_DATA = docs/internals/rooms.md docs/internals/admin.md

# In docdir what they link to lies beside them, not below docs/ and data/.
doc_DATA = docs/installed/README.md docs/installed/HACKING.md docs/installed/SECURITY.md
installed_doc = $(AM_V_GEN)$(MKDIR_P) docs/installed && $(SED) -e 's,](docs/,](,g' -e 's,](data/,](,g'
docs/installed/README.md: README.md Makefile
	$(installed_doc) $(top_srcdir)/README.md > $@.tmp && mv $@.tmp $@
docs/installed/HACKING.md: HACKING.md Makefile
	$(installed_doc) $(top_srcdir)/HACKING.md > $@.tmp && mv $@.tmp $@
docs/installed/SECURITY.md: SECURITY.md Makefile
	$(installed_doc) $(top_srcdir)/SECURITY.md > $@.tmp && mv $@.tmp $@
CLEANFILES += $(doc_DATA)

# Manual pages, one a command; tests/unit/man_test.sh lints them and compares them with the program.
dist_man_MANS = docs/man/keyturn.1 docs/man/keyturn-account.1 docs/man/keyturn-revoke.1 docs/man/keyturn-audit.1 docs/man/keyturn-check.1 docs/man/keyturn-dns-record.1 docs/man/keyturn-doctor.1 docs/man/keyturn-import.1 docs/man/keyturn-init.1 \
	docs/man/keyturn-master-key.1 docs/man/keyturn-plan.1 docs/man/keyturn-quit.1 docs/man/keyturn-rehearse.1 docs/man/keyturn-reload.1 \
	docs/man/keyturn-renew.1 docs/man/keyturn-run.1 docs/man/keyturn-secret.1 docs/man/keyturn-status.1 \
	docs/man/keyturn-token.1 docs/man/keyturn-trace.1 docs/man/keyturn-version.1 docs/man/keyturn-why.1 \
	docs/man/keyturn-manifests.5
