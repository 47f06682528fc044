# docs: sources, headers and tests of this folder.
dist_doc_DATA = README.md NEWS SECURITY.md docs/dependencies.md docs/metrics.md docs/status-json.md
EXTRA_DIST += docs/internals/rooms.md docs/internals/admin.md docs/rotation.svg

# Manual pages, one a command; tests/unit/man_test.sh lints them and compares them with the program.
dist_man_MANS = docs/man/keyturn.1 docs/man/keyturn-audit.1 docs/man/keyturn-check.1 docs/man/keyturn-doctor.1 \
	docs/man/keyturn-master-key.1 docs/man/keyturn-plan.1 docs/man/keyturn-rehearse.1 docs/man/keyturn-reload.1 \
	docs/man/keyturn-renew.1 docs/man/keyturn-run.1 docs/man/keyturn-secret.1 docs/man/keyturn-status.1 \
	docs/man/keyturn-token.1 docs/man/keyturn-trace.1 docs/man/keyturn-version.1 docs/man/keyturn-why.1 \
	docs/man/keyturn-manifests.5
