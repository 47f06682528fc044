# tests: sources, headers and tests of this folder.
include $(top_srcdir)/tests/bench/local.mk
EXTRA_DIST += tests/run tests/house.py dev LICENSE NEWS README.md SECURITY.md HACKING.md .ci/run
include $(top_srcdir)/tests/fuzz/local.mk
include $(top_srcdir)/tests/crash/local.mk
