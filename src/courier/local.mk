# src/courier: sources, headers and tests of this folder.
COURIER_CPPFLAGS = $(AM_CPPFLAGS) $(CURL_CFLAGS) $(SSL_CFLAGS) $(CRYPTO_CFLAGS) $(JANSSON_CFLAGS) $(UV_CFLAGS) \
	$(SODIUM_CFLAGS) $(LDNS_CFLAGS)
COURIER_LIBS = libkt_courier.a libkt_wire.a libkt_loop.a libkt_pki.a libkt_base.a $(CURL_LIBS) $(SSL_LIBS) \
	$(LDNS_LIBS) $(CRYPTO_LIBS) $(JANSSON_LIBS) $(UV_LIBS) $(SODIUM_LIBS) $(SECCOMP_LIBS) -lm

noinst_LIBRARIES += libkt_courier.a
libkt_courier_a_CPPFLAGS = $(COURIER_CPPFLAGS)
libkt_courier_a_SOURCES = src/courier/courier.c src/courier/url.c src/courier/resolve.c src/courier/trust.c \
	src/courier/http_call.c src/courier/http_cert.c src/courier/http.c \
	src/courier/acme/problem.c src/courier/acme/directory.c src/courier/acme/server.c src/courier/acme/account.c \
	src/courier/acme/post.c src/courier/acme/job.c src/courier/acme/order.c src/courier/acme/authz.c \
	src/courier/acme/finalize.c src/courier/acme/manage.c \
	src/courier/grant/table.c src/courier/grant/form.c src/courier/grant/client_credentials.c \
	src/courier/grant/token_exchange.c src/courier/grant/verify.c src/courier/grant/jwt_bearer.c src/courier/grant/refresh_token.c \
	src/courier/grant/client_secret_basic.c src/courier/grant/client_secret_post.c \
	src/courier/grant/client_assertion.c src/courier/grant/tls_client_auth.c src/courier/grant/none.c \
	src/courier/grant/discovery.c src/courier/grant/metadata.c src/courier/grant/server.c \
	src/courier/grant/refusal.c src/courier/grant/answer.c src/courier/grant/ask.c \
	src/courier/grant/exchange.c src/courier/grant/op.c src/courier/grant/grant.c \
	src/courier/probe/json_path.c src/courier/probe/probe.c src/courier/probe/http.c src/courier/probe/tls.c
libkt_courier_a_SOURCES += src/courier/probe/starttls.c src/courier/xml.c src/courier/grant/aws.c src/courier/grant/aws_answer.c
noinst_HEADERS += src/courier/probe/starttls.h src/courier/xml.h src/courier/grant/aws.h
noinst_HEADERS += src/courier/courier.h src/courier/url.h src/courier/resolve.h src/courier/http.h \
	src/courier/http_internal.h src/courier/acme/acme.h src/courier/acme/acme_internal.h src/courier/grant/grant.h \
	src/courier/grant/grant_internal.h src/courier/probe/probe.h src/courier/probe/probe_internal.h \
	src/courier/dns/dns.h src/courier/dns/dns_internal.h src/courier/dns/packet.h src/courier/dns/query.h \
	src/courier/dns/tsig.h
if HAVE_LDNS
libkt_courier_a_SOURCES += src/courier/dns/packet.c src/courier/dns/tsig.c src/courier/dns/query.c \
	src/courier/dns/lookup.c src/courier/dns/watch.c src/courier/dns/job.c src/courier/dns/providers.c \
	src/courier/dns/rfc2136.c src/courier/dns/api.c src/courier/dns/acme_dns.c \
	src/courier/dns/cloudflare.c src/courier/dns/digitalocean.c src/courier/dns/route53.c
endif

room_PROGRAMS += keyturn-courier
keyturn_courier_CPPFLAGS = $(COURIER_CPPFLAGS)
keyturn_courier_SOURCES = src/courier/main.c
keyturn_courier_LDADD = $(COURIER_LIBS)

# Plays warden and keeper to the courier: tests against real and hostile servers drive it.
check_PROGRAMS += tests/peers/courier_drive
tests_peers_courier_drive_SOURCES = tests/peers/courier_drive.c tests/peers/courier_drive_oauth.c
noinst_HEADERS += tests/peers/courier_drive.h
tests_peers_courier_drive_CPPFLAGS = $(COURIER_CPPFLAGS)
tests_peers_courier_drive_LDADD = $(COURIER_LIBS)

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/courier_aws_test
TESTS += tests/unit/courier_aws_test
tests_unit_courier_aws_test_SOURCES = tests/unit/courier_aws_test.c
tests_unit_courier_aws_test_CPPFLAGS = $(COURIER_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_courier_aws_test_LDADD = $(COURIER_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/starttls_test
TESTS += tests/unit/starttls_test
tests_unit_starttls_test_SOURCES = tests/unit/starttls_test.c
tests_unit_starttls_test_CPPFLAGS = $(COURIER_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_starttls_test_LDADD = libkt_courier.a libkt_base.a $(SODIUM_LIBS) $(JANSSON_LIBS) $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/courier_test tests/unit/courier_grant_test
TESTS += tests/unit/courier_test tests/unit/courier_grant_test
tests_unit_courier_test_SOURCES = tests/unit/courier_test.c
tests_unit_courier_test_CPPFLAGS = $(COURIER_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_courier_test_LDADD = $(COURIER_LIBS) $(CMOCKA_LIBS)
tests_unit_courier_grant_test_SOURCES = tests/unit/courier_grant_test.c
tests_unit_courier_grant_test_CPPFLAGS = $(COURIER_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_courier_grant_test_LDADD = $(COURIER_LIBS) $(CMOCKA_LIBS)
if HAVE_LDNS
check_PROGRAMS += tests/unit/courier_dns_test tests/unit/courier_dns_fault_test
TESTS += tests/unit/courier_dns_test tests/unit/courier_dns_fault_test
tests_unit_courier_dns_fault_test_SOURCES = tests/unit/courier_dns_fault_test.c
tests_unit_courier_dns_fault_test_CPPFLAGS = $(COURIER_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_courier_dns_fault_test_LDADD = $(COURIER_LIBS) $(CMOCKA_LIBS)
tests_unit_courier_dns_test_SOURCES = tests/unit/courier_dns_test.c
tests_unit_courier_dns_test_CPPFLAGS = $(COURIER_CPPFLAGS) $(CMOCKA_CFLAGS)
tests_unit_courier_dns_test_LDADD = $(COURIER_LIBS) $(CMOCKA_LIBS)
endif
endif
