# tests/bench: figures, never a pass or a fail; `make bench`, `make bench-acme` and `make bench-tokens` build and run them.
EXTRA_PROGRAMS += tests/bench/floor tests/bench/acme_floor tests/bench/token_floor tests/bench/token_server
tests_bench_floor_SOURCES = tests/bench/floor.c
tests_bench_floor_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS)
tests_bench_floor_LDADD = $(CRYPTO_LIBS)
tests_bench_acme_floor_SOURCES = tests/bench/acme_floor.c
tests_bench_acme_floor_CPPFLAGS = $(AM_CPPFLAGS) $(CRYPTO_CFLAGS) $(CURL_CFLAGS) $(JANSSON_CFLAGS)
tests_bench_acme_floor_LDADD = $(CURL_LIBS) $(CRYPTO_LIBS) $(JANSSON_LIBS) -lpthread
tests_bench_token_floor_SOURCES = tests/bench/token_floor.c
tests_bench_token_floor_CPPFLAGS = $(AM_CPPFLAGS) $(CURL_CFLAGS)
tests_bench_token_floor_LDADD = $(CURL_LIBS) -lpthread
tests_bench_token_server_SOURCES = tests/bench/token_server.c
tests_bench_token_server_CPPFLAGS = $(AM_CPPFLAGS) $(SSL_CFLAGS) $(CRYPTO_CFLAGS)
tests_bench_token_server_LDADD = $(SSL_LIBS) $(CRYPTO_LIBS)
EXTRA_DIST += tests/bench/bench.py tests/bench/acme.py tests/bench/tokens.py tests/bench/proxy.py \
	tests/bench/lego/main.go tests/bench/lego/go.mod tests/bench/lego/go.sum \
	tests/bench/oauth-go/main.go tests/bench/oauth-go/go.mod tests/bench/oauth-go/go.sum

bench: all tests/bench/floor
	python3 $(top_srcdir)/tests/bench/bench.py $(abs_builddir)
# Needs the peers of `tests/peers/setup bench`.
bench-acme: all tests/bench/acme_floor
	python3 $(top_srcdir)/tests/bench/acme.py $(abs_builddir) $(BENCH_ARGS)
bench-tokens: all tests/bench/token_floor tests/bench/token_server
	python3 $(top_srcdir)/tests/bench/tokens.py $(abs_builddir) $(BENCH_ARGS)
.PHONY: bench bench-acme bench-tokens
