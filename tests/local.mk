# tests: sources, headers and tests of this folder.
EXTRA_DIST += tests/run tests/house.py dev LICENSE NEWS README.md SECURITY.md HACKING.md .ci/run
include $(top_srcdir)/tests/fuzz/local.mk
