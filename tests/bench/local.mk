# tests/bench: figures, never a pass or a fail; `make bench` builds and runs them.
EXTRA_PROGRAMS += tests/bench/floor
tests_bench_floor_SOURCES = tests/bench/floor.c
tests_bench_floor_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS)
tests_bench_floor_LDADD = $(CRYPTO_LIBS)
EXTRA_DIST += tests/bench/bench.py

bench: all tests/bench/floor
	python3 $(top_srcdir)/tests/bench/bench.py $(abs_builddir)
.PHONY: bench
