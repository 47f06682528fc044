/* tls-alpn-01 at the desk: OpenSSL's client with the right and the wrong hello, strangers without one, floods, proxies. */
#include "desk_stage.h"

#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/un.h>

#define NAME "www.example.org"

static struct {
	uint16_t port;
	struct sockaddr_un local; /* the listener behind a proxy */
	unsigned char der[2048];
	size_t der_len;
	struct kt_secret *key;
} a;

/* --- certificates ------------------------------------------------------------------------------------------------ */

static void make_identity(const char *common_name, unsigned char *der, size_t *der_len, struct kt_secret **key)
{
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x509 = X509_new();
	PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(pkey);
	unsigned char buf[1024], *at = buf;
	struct kt_err err;
	int len;

	assert_non_null(pkey);
	assert_int_equal(X509_set_version(x509, 2), 1);
	ASN1_INTEGER_set(X509_get_serialNumber(x509), 7);
	X509_gmtime_adj(X509_getm_notBefore(x509), 0);
	X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC, (const unsigned char *)common_name, -1, -1,
	                           0);
	X509_set_issuer_name(x509, X509_get_subject_name(x509));
	X509_set_pubkey(x509, pkey);
	assert_true(X509_sign(x509, pkey, EVP_sha256()) > 0);
	len = i2d_X509(x509, NULL);
	assert_true(len > 0 && len <= 2048);
	i2d_X509(x509, &der);
	*der_len = (size_t)len;
	len = i2d_PKCS8_PRIV_KEY_INFO(info, NULL);
	assert_true(len > 0 && len <= (int)sizeof(buf));
	i2d_PKCS8_PRIV_KEY_INFO(info, &at);
	assert_int_equal(kt_secret_create(buf, (size_t)len, key, &err), KT_OK);
	PKCS8_PRIV_KEY_INFO_free(info);
	X509_free(x509);
	EVP_PKEY_free(pkey);
}

/* As the keeper does it; the code of the reply. */
static enum kt_code serve_alpn(const char *name, bool present, struct kt_view der, struct kt_secret *key)
{
	struct kt_msg_serve_alpn msg = {present, kt_view_str(name), der, key};
	unsigned before = t.done;
	int64_t end = clock_ms() + 5000;
	struct kt_err err;

	assert_int_equal(kt_wire_call(t.keeper, KT_SERVE_ALPN, &msg, NULL, 0, 5000, on_served, &t, &err), KT_OK);
	while (t.done == before && clock_ms() < end)
		turn();
	assert_int_equal(t.done, before + 1);
	return t.last.code;
}

static struct kt_view der(void)
{
	return (struct kt_view){(const char *)a.der, a.der_len};
}

/* --- the stage --------------------------------------------------------------------------------------------------- */

static int setup_alpn(void **state)
{
	socklen_t len;
	struct kt_err err;
	int fds[2];

	memset(&a, 0, sizeof(a));
	assert_int_equal(setup(state), 0);
	fds[0] = listener(&a.port);
	fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.local.sun_family = AF_UNIX; /* the kernel gives an abstract name */
	assert_int_equal(bind(fds[1], (struct sockaddr *)&a.local, sizeof(sa_family_t)), 0);
	len = sizeof(a.local);
	assert_int_equal(getsockname(fds[1], (struct sockaddr *)&a.local, &len), 0);
	assert_int_equal(listen(fds[1], 16), 0);
	assert_int_equal(kt_desk_listen(t.desk, KT_VIEW_LIT("tlsAlpn01 127.0.0.1:5\ntlsAlpn01 unix:/x\n"), fds, 2, &err), KT_OK);
	assert_int_equal(fds[0], -1);
	make_identity(NAME, a.der, &a.der_len, &a.key);
	keeper_starts();
	assert_int_equal(serve_alpn(NAME, true, der(), a.key), KT_OK);
	return 0;
}

static int teardown_alpn(void **state)
{
	kt_secret_destroy(a.key);
	return teardown(state);
}

#define STAGED(test) cmocka_unit_test_setup_teardown(test, setup_alpn, teardown_alpn)

/* --- OpenSSL's client -------------------------------------------------------------------------------------------- */

#define ACME "\012acme-tls/1"

struct hello {
	const char *sni;  /* NULL: none */
	const char *alpn; /* in wire format; NULL: none */
	int version;      /* the only one; 0: any from 1.2 */
	int expect;       /* 0: goes through; else the alert */
};

static int last_alert;

static void on_info(const SSL *ssl, int where, int value)
{
	(void)ssl;
	if ((where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && (value & 0xff) != 0)
		last_alert = value & 0xff;
}

static SSL_CTX *client_ctx(const struct hello *hello)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

	assert_non_null(ctx);
	SSL_CTX_set_info_callback(ctx, on_info);
	SSL_CTX_set_security_level(ctx, 0);
	SSL_CTX_set_min_proto_version(ctx, hello->version ? hello->version : TLS1_2_VERSION);
	SSL_CTX_set_max_proto_version(ctx, hello->version);
	if (hello->alpn)
		assert_int_equal(SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)hello->alpn, (unsigned)strlen(hello->alpn)),
		                 0);
	return ctx;
}

static bool turn_until(SSL *ssl, int rc, int64_t end)
{
	int error = SSL_get_error(ssl, rc);

	if ((error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) || clock_ms() > end)
		return false;
	turn();
	return true;
}

/* 0 when it went through and was closed without a byte; else the alert that came, or -1. fd is closed. */
static int shake_fd(int fd, const struct hello *hello, bool check)
{
	SSL_CTX *ctx = client_ctx(hello);
	SSL *ssl = SSL_new(ctx);
	int64_t end = clock_ms() + 5000;
	const unsigned char *alpn;
	unsigned alpn_len;
	char byte;
	int rc;

	last_alert = -1;
	if (hello->sni)
		SSL_set_tlsext_host_name(ssl, hello->sni);
	SSL_set_fd(ssl, fd);
	while ((rc = SSL_connect(ssl)) != 1 && turn_until(ssl, rc, end))
		;
	if (rc == 1) {
		X509 *shown = SSL_get1_peer_certificate(ssl);
		unsigned char *text = NULL;
		int len = i2d_X509(shown, &text);

		SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
		assert_int_equal(alpn_len, 10);
		assert_memory_equal(alpn, "acme-tls/1", 10);
		if (check) {
			assert_int_equal(len, a.der_len);
			assert_memory_equal(text, a.der, a.der_len);
		}
		OPENSSL_free(text);
		X509_free(shown);
		while ((rc = SSL_read(ssl, &byte, 1)) != 1 && turn_until(ssl, rc, end))
			;
		assert_int_equal(rc, 0);
		if (SSL_get_error(ssl, rc) == SSL_ERROR_ZERO_RETURN)
			last_alert = 0;
	}
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	return last_alert;
}

static int shake(const char *from, const struct hello *hello)
{
	return shake_fd(client(from, a.port), hello, true);
}

static const struct hello good = {NAME, ACME, 0, 0};

/* The bytes of a good hello. */
static size_t record_hello(unsigned char *buf, size_t size)
{
	SSL_CTX *ctx = client_ctx(&good);
	SSL *ssl = SSL_new(ctx);
	int len;

	SSL_set_tlsext_host_name(ssl, NAME);
	SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	assert_int_equal(SSL_connect(ssl), -1);
	len = BIO_read(SSL_get_wbio(ssl), buf, (int)size);
	assert_true(len > 100 && len < (int)size);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	return (size_t)len;
}

/* --- what goes through and what does not --------------------------------------------------------------------------- */

static void hellos(void **state)
{
	static const struct hello cases[] = {
		{NAME, ACME, 0, 0},
		{NAME, ACME, TLS1_3_VERSION, 0},
		{NAME, ACME, TLS1_2_VERSION, 0},
		{"WWW.Example.ORG", ACME, 0, 0},
		{NAME, ACME, TLS1_1_VERSION, SSL_AD_PROTOCOL_VERSION},
		{NAME, NULL, 0, SSL_AD_NO_APPLICATION_PROTOCOL},
		{NAME, "\002h2", 0, SSL_AD_NO_APPLICATION_PROTOCOL},
		{NAME, "\002h2\012acme-tls/1", 0, SSL_AD_NO_APPLICATION_PROTOCOL},
		{NAME, "\012acme-tls/1\010http/1.1", 0, SSL_AD_NO_APPLICATION_PROTOCOL},
		{NAME, "\011acme-tls/", TLS1_2_VERSION, SSL_AD_NO_APPLICATION_PROTOCOL},
		{NAME, "\012ACME-TLS/1", 0, SSL_AD_NO_APPLICATION_PROTOCOL},
		{NULL, ACME, 0, SSL_AD_UNRECOGNIZED_NAME},
		{"example.org", ACME, 0, SSL_AD_UNRECOGNIZED_NAME},
		{"x.www.example.org", ACME, TLS1_2_VERSION, SSL_AD_UNRECOGNIZED_NAME},
		{"www.example.org.", ACME, 0, SSL_AD_UNRECOGNIZED_NAME},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int got = shake("127.0.0.1", &cases[i]);

		if (got != cases[i].expect)
			fail_msg("case %zu: %d instead of %d", i, got, cases[i].expect);
	}
	turn_for(20);
	assert_int_equal(kt_desk_alpn_connections(t.desk->alpn), 0);
	assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), 0);
}

static void what_the_keeper_says(void **state)
{
	static const struct hello address = {"1.2.0.192.in-addr.arpa", ACME, 0, 0}, refused = {NAME, ACME, 0, 0};
	static const char *const wrong[] = {"", ".", "a..b", "a b", "*.example.org", "a.", "a/b", "192.0.2.1:443"};
	unsigned char other[2048];
	size_t other_len;
	struct kt_secret *other_key;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(serve_alpn(wrong[i], true, der(), a.key), KT_E_INVALID);
	assert_int_equal(serve_alpn(address.sni, true, der(), a.key), KT_OK);
	assert_int_equal(shake("127.0.0.1", &address), 0);
	assert_int_equal(kt_desk_served_count(t.desk->served), 2);
	make_identity("other", other, &other_len, &other_key);
	assert_int_equal(serve_alpn(NAME, true, der(), other_key), KT_E_CRYPTO);
	assert_int_equal(serve_alpn(NAME, true, KT_VIEW_LIT("no certificate"), a.key), KT_E_CRYPTO);
	assert_int_equal(serve_alpn(NAME, true, (struct kt_view){(char *)a.der, a.der_len - 1}, a.key), KT_E_CRYPTO);
	assert_int_equal(shake("127.0.0.1", &good), 0); /* the former one is still there */
	memcpy(a.der, other, other_len);
	a.der_len = other_len;
	assert_int_equal(serve_alpn("WWW.example.ORG", true, der(), other_key), KT_OK);
	assert_int_equal(shake("127.0.0.1", &good), 0);
	assert_int_equal(serve_alpn(NAME, false, (struct kt_view){NULL, 0}, NULL), KT_OK);
	assert_int_equal(shake("127.0.0.1", &refused), SSL_AD_UNRECOGNIZED_NAME);
	assert_int_equal(serve_alpn(NAME, false, (struct kt_view){NULL, 0}, NULL), KT_OK); /* once more does no harm */
	assert_int_equal(kt_desk_served_count(t.desk->served), 1);
	kt_secret_destroy(other_key);
}

static void many_names(void **state)
{
	struct hello hello = good;
	char name[64];

	(void)state;
	for (int i = 0; i < 1500; i++) {
		struct kt_msg_serve_alpn msg = {true, {name, 0}, der(), a.key};
		struct kt_err err;

		msg.name.len = (size_t)snprintf(name, sizeof(name), "n%d.example.org", i);
		assert_int_equal(kt_desk_served_put_alpn(t.desk->served, &msg, &err), KT_OK);
	}
	hello.sni = "n1499.example.org";
	assert_int_equal(shake("127.0.0.1", &hello), 0);
	hello.sni = "n1500.example.org";
	assert_int_equal(shake("127.0.0.1", &hello), SSL_AD_UNRECOGNIZED_NAME);
}

static void without_listener(void **state)
{
	(void)state;
	keeper_starts();
	make_identity(NAME, a.der, &a.der_len, &a.key);
	assert_int_equal(serve_alpn(NAME, true, der(), a.key), KT_E_UNSUPPORTED);
	kt_secret_destroy(a.key);
}

/* --- strangers --------------------------------------------------------------------------------------------------- */

/* True when the desk closes it within `patience`; what came before is in `answer`. */
static bool is_ended(int fd, int64_t patience)
{
	int64_t end = clock_ms() + patience;
	size_t len = 0;

	while (clock_ms() < end) {
		ssize_t n = recv(fd, answer + len, sizeof(answer) - 1 - len, MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			return true;
		if (n > 0)
			len += (size_t)n;
		turn();
	}
	return false;
}

static void no_hello(void **state)
{
	static const struct kt_view cases[] = {
		KT_VIEW_LIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		KT_VIEW_LIT("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
		KT_VIEW_LIT("\x16\x03\x01\xff\xff\x01\0\0\0"),
		KT_VIEW_LIT("\x80\x03\x01\x03\x01"),
		KT_VIEW_LIT("\x15\x03\x01\0\x02\x02\x28"),
		KT_VIEW_LIT("\x17\x03\x03\0\x05hello"),
		KT_VIEW_LIT("\x16\x03\x01\0\x04\x0b\0\0\0"),
		KT_VIEW_LIT("PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int fd = client("127.0.0.1", a.port);

		say(fd, cases[i].ptr, cases[i].len);
		if (!is_ended(fd, 2000))
			fail_msg("case %zu is still open", i);
		close(fd);
	}
	assert_int_equal(shake("127.0.0.1", &good), 0);
}

static void half_hello(void **state)
{
	unsigned char hello[2048];
	size_t len = record_hello(hello, sizeof(hello));
	int fds[3];
	int64_t began;

	(void)state;
	t.desk->request_ms = 600;
	began = clock_ms();
	for (int i = 0; i < 3; i++)
		fds[i] = client("127.0.0.1", a.port);
	say(fds[0], (const char *)hello, len / 2);
	for (size_t i = 0; i < len && clock_ms() - began < 400; i++) { /* a byte at a time is not more patient */
		say(fds[1], (const char *)hello + i, 1);
		turn_for(10);
	}
	assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), 2);
	assert_int_equal(kt_desk_alpn_connections(t.desk->alpn), 3);
	for (int i = 0; i < 3; i++) {
		assert_false(i == 0 && is_closed(fds[i]));
		assert_true(is_ended(fds[i], 2000));
		close(fds[i]);
	}
	assert_true(clock_ms() - began < 2500);
	assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), 0);
	assert_int_equal(shake("127.0.0.1", &good), 0);
}

/* A hello that goes on and on, in fragments that are each all right. */
static void endless_hello(void **state)
{
	static char record[5 + 1024] = "\x16\x03\x01\x04\x00\x01\xff\xff\x00\x03\x03";
	int fd = client("127.0.0.1", a.port);

	(void)state;
	for (int i = 0; i < 40 && !is_closed(fd); i++)
		say(fd, record, sizeof(record));
	assert_true(is_ended(fd, 1000));
	close(fd);
	assert_int_equal(shake("127.0.0.1", &good), 0);
}

/* Who sends on after the alert is read for a while, not for ever. */
static void after_the_end(void **state)
{
	static char more[4096];
	int fd = client("127.0.0.1", a.port);

	(void)state;
	say(fd, "GET / HTTP/1.1\r\n\r\n", 18);
	turn_for(20);
	for (int i = 0; i < 64 && kt_desk_alpn_connections(t.desk->alpn) > 0; i++)
		say(fd, more, sizeof(more));
	assert_int_equal(kt_desk_alpn_connections(t.desk->alpn), 0);
	close(fd);
}

static void silent_flood(void **state)
{
	static int fds[560];
	unsigned open_ones = 0;

	(void)state;
	for (int i = 0; i < 200; i++) {
		fds[i] = client("127.0.0.1", a.port);
		turn();
	}
	turn_for(50);
	for (int i = 0; i < 200; i++)
		open_ones += !is_closed(fds[i]);
	assert_int_equal(open_ones, KT_DESK_ALPN_PER_ADDRESS);
	assert_int_equal(kt_desk_alpn_connections(t.desk->alpn), KT_DESK_ALPN_PER_ADDRESS);
	assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), 0); /* and no memory of OpenSSL's */
	assert_int_equal(shake("127.0.0.2", &good), 0);
	for (int i = 200; i < 560; i++) {
		char from[32];

		snprintf(from, sizeof(from), "127.0.1.%d", i % 200 + 1);
		fds[i] = client(from, a.port);
		turn();
		assert_true(kt_desk_alpn_connections(t.desk->alpn) <= KT_DESK_ALPN_CONNECTIONS);
	}
	turn_for(KT_DESK_ALPN_CROWDED_MS);
	assert_int_equal(shake("127.0.0.3", &good), 0); /* in the place of the oldest */
	for (int i = 0; i < 560; i++)
		close(fds[i]);
	turn_for(100);
	assert_int_equal(kt_desk_alpn_connections(t.desk->alpn), 0);
}

/* Half a hello on every place: from one address half of the places, from two all; a third one gets in all the same. */
static void places_are_held(void **state)
{
	static int fds[2 * 80];
	unsigned char hello[2048];
	size_t len = record_hello(hello, sizeof(hello));
	int64_t began;

	(void)state;
	for (int i = 0; i < 160; i++) {
		fds[i] = client(i < 80 ? "127.0.0.1" : "127.0.0.2", a.port);
		say(fds[i], (const char *)hello, len / 2);
		turn();
		if (i == 79)
			assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), KT_DESK_ALPN_SHARE);
	}
	for (int i = 0; i < 50 && kt_desk_alpn_handshakes(t.desk->alpn) < KT_DESK_ALPN_HANDSHAKES; i++)
		turn_for(20);
	assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), KT_DESK_ALPN_HANDSHAKES);
	began = clock_ms();
	assert_int_equal(shake("127.0.0.3", &good), 0);
	assert_true(clock_ms() - began < 4000);
	for (int i = 0; i < 160; i++)
		close(fds[i]);
	turn_for(KT_DESK_ALPN_CROWDED_MS + 600);
	assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), 0);
	assert_int_equal(shake("127.0.0.1", &good), 0);
}

/* --- behind a proxy ---------------------------------------------------------------------------------------------- */

static int local_client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a.local.sun_path + 1));

	assert_int_equal(connect(fd, (struct sockaddr *)&a.local, len), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

#define V2(rest) "\r\n\r\n\0\r\nQUIT\n" rest

static void handed_over(void **state)
{
	static const struct kt_view headers[] = {
		KT_VIEW_LIT(""),
		KT_VIEW_LIT("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"),
		KT_VIEW_LIT("PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n"),
		KT_VIEW_LIT("PROXY UNKNOWN\r\n"),
		KT_VIEW_LIT(V2("\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x10\0\x01\xbb")),
		KT_VIEW_LIT(V2("\x20\0\0\0")),
	};
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		fd = local_client();
		say(fd, headers[i].ptr, headers[i].len);
		if (shake_fd(fd, &good, true) != 0)
			fail_msg("header %zu", i);
	}
	fd = local_client();
	for (size_t i = 0; i < headers[4].len; i++) {
		say(fd, headers[4].ptr + i, 1);
		turn();
	}
	assert_int_equal(shake_fd(fd, &good, true), 0);
	fd = local_client();
	say(fd, "PROXY TCP4 here there 1 2\r\n", 27);
	assert_true(is_ended(fd, 1000));
	close(fd);
	/* Everybody comes from the proxy, so they are not one address, unless the proxy says so. */
	for (int i = 0; i < 2; i++) {
		int fds[KT_DESK_ALPN_SHARE + 8];
		unsigned char hello[2048];
		size_t len = record_hello(hello, sizeof(hello));

		for (size_t k = 0; k < sizeof(fds) / sizeof(fds[0]); k++) {
			fds[k] = local_client();
			if (i > 0)
				say(fds[k], headers[i].ptr, headers[i].len);
			say(fds[k], (const char *)hello, len / 2);
		}
		turn_for(20);
		assert_int_equal(kt_desk_alpn_handshakes(t.desk->alpn), i == 0 ? KT_DESK_ALPN_SHARE + 8 : KT_DESK_ALPN_SHARE);
		fd = local_client(); /* waits for a place with its hello read already */
		say(fd, headers[i].ptr, headers[i].len);
		assert_int_equal(shake_fd(fd, &good, true), 0);
		for (size_t k = 0; k < sizeof(fds) / sizeof(fds[0]); k++)
			close(fds[k]);
		turn_for(50);
	}
}

static void proxy_headers(void **state)
{
	static const struct {
		struct kt_view in;
		enum kt_desk_proxy expect;
		size_t len;
		uint8_t address[KT_DESK_ADDRESS];
	} cases[] = {
		{{"", 0}, KT_DESK_PROXY_MORE, 0, {0}},
		{{"P", 1}, KT_DESK_PROXY_MORE, 0, {0}},
		{{"\x16\x03", 2}, KT_DESK_PROXY_NONE, 0, {0}},
		{KT_VIEW_LIT("PROXX"), KT_DESK_PROXY_NONE, 0, {0}},
		{KT_VIEW_LIT("PROXY TCP4 192.0.2.1 1"), KT_DESK_PROXY_MORE, 0, {0}},
		{KT_VIEW_LIT("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nrest"), KT_DESK_PROXY_FOUND, 36, {4, 192, 0, 2, 1}},
		{KT_VIEW_LIT("PROXY TCP6 2001:db8::1 ::1 1 2\r\n"), KT_DESK_PROXY_FOUND, 32, {6, 0x20, 1, 0xd, 0xb8}},
		{KT_VIEW_LIT("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), KT_DESK_PROXY_FOUND, 37, {4, 192, 0, 2, 1}},
		{KT_VIEW_LIT("PROXY UNKNOWN whatever\r\n"), KT_DESK_PROXY_FOUND, 24, {0}},
		{KT_VIEW_LIT("PROXY \r\n"), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT("PROXY TCP4 192.0.2.1\r\n"), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT("PROXY TCP4 192.0.2.256 1.1.1.1 1 1\r\n"), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT("PROXY TCP9 192.0.2.1 1.1.1.1 1 1\r\n"), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT("PROXY TCP4 192.0.2.1 1.1.1.1 1 1\n"), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT(V2("\x21\x11\0\x0c\xc0\0\x02\x01")), KT_DESK_PROXY_MORE, 0, {0}},
		{KT_VIEW_LIT(V2("\x21\x11\0\x04\xc0\0\x02\x01")), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT(V2("\x21\x31\0\x02xx")), KT_DESK_PROXY_FOUND, 18, {0}},
		{KT_VIEW_LIT(V2("\x31\x11\0\x0c")), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT(V2("\x22\x11\0\x0c")), KT_DESK_PROXY_BAD, 0, {0}},
		{KT_VIEW_LIT(V2("\x21\x11\x10\0")), KT_DESK_PROXY_BAD, 0, {0}},
	};
	char line[128] = "PROXY ";
	uint8_t address[KT_DESK_ADDRESS];
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum kt_desk_proxy got = kt_desk_proxy_read(cases[i].in, &len, address);

		if (got != cases[i].expect || len != cases[i].len || memcmp(address, cases[i].address, sizeof(address)) != 0)
			fail_msg("case %zu: %d, %zu bytes", i, got, len);
	}
	memset(line + 6, 'x', sizeof(line) - 6);
	assert_int_equal(kt_desk_proxy_read((struct kt_view){line, sizeof(line)}, &len, address), KT_DESK_PROXY_BAD);
}

/* --- the handshake alone ----------------------------------------------------------------------------------------- */

static bool find_any(const char *name, struct kt_tls_identity *ret, void *arg)
{
	(void)arg;
	*ret = (struct kt_tls_identity){der(), a.key};
	return strcmp(name, NAME) == 0;
}

/* Hellos with one byte changed, in pieces of any size: never a crash, never a step after the end. */
static void changed_hellos(void **state)
{
	struct kt_tls_server *server;
	unsigned char hello[2048], copy[2048];
	size_t len = record_hello(hello, sizeof(hello));
	unsigned refused = 0;
	struct kt_err err;

	(void)state;
	assert_int_equal(kt_tls_server_create(find_any, NULL, &server, &err), KT_OK);
	for (unsigned i = 0; i < 3 * len; i++) {
		struct kt_buf out KT_AUTOBUF = {0};
		struct kt_tls_handshake *handshake;
		enum kt_tls_step step = KT_TLS_MORE;
		size_t piece = i % 7 == 0 ? 1 : i % 5 == 0 ? 100 : len;

		memcpy(copy, hello, len);
		copy[i % len] = (unsigned char)(i < len ? copy[i % len] + 1 : i < 2 * len ? 0xff : 0);
		kt_buf_init(&out, 32768);
		assert_int_equal(kt_tls_handshake_create(server, &handshake, &err), KT_OK);
		for (size_t at = 0; at < len && step == KT_TLS_MORE; at += piece) {
			struct kt_view in = {(char *)copy + at, len - at < piece ? len - at : piece};

			step = kt_tls_handshake_feed(handshake, in, &out, &err);
		}
		refused += step == KT_TLS_REFUSED;
		assert_int_not_equal(step, KT_TLS_DONE);
		assert_int_equal(out.failed, KT_OK);
		if (step == KT_TLS_REFUSED)
			assert_int_equal(kt_tls_handshake_feed(handshake, (struct kt_view){"x", 1}, &out, &err), KT_TLS_REFUSED);
		kt_tls_handshake_destroy(handshake);
	}
	assert_true(refused > len / 4);
	kt_tls_server_destroy(server);
}

/* Name, server and handshake with each allocation missing in turn; the same again with memory goes well. */
static void without_memory(void **state)
{
	struct kt_msg_serve_alpn msg = {true, KT_VIEW_LIT("other.example.org"), der(), a.key};
	unsigned char hello[2048];
	struct kt_view in = {(char *)hello, record_hello(hello, sizeof(hello))};
	unsigned failures = 0;

	(void)state;
	for (int n = 0, ok = 0; ok < 2 && n < 20000; n += n < 64 ? 1 : 13) { /* each would take half a minute */
		struct kt_tls_server *server = NULL;
		struct kt_tls_handshake *handshake = NULL;
		struct kt_buf out KT_AUTOBUF = {0};
		uint64_t before = kt_mem_failures();
		enum kt_tls_step step = KT_TLS_REFUSED;
		struct kt_err err;
		enum kt_code code;

		kt_buf_init(&out, 32768);
		kt_mem_fail_after(n, 0);
		code = kt_desk_served_put_alpn(t.desk->served, &msg, &err);
		if (code == KT_OK)
			code = kt_tls_server_create(find_any, NULL, &server, &err);
		if (code == KT_OK)
			code = kt_tls_handshake_create(server, &handshake, &err);
		if (code == KT_OK)
			step = kt_tls_handshake_feed(handshake, in, &out, &err);
		kt_mem_fail_after(-1, 0);
		failures += code != KT_OK || step == KT_TLS_REFUSED;
		ok = kt_mem_failures() == before ? ok + 1 : 0;
		if (ok > 0) {
			assert_int_equal(code, KT_OK);
			assert_int_equal(step, KT_TLS_MORE);
			assert_true(out.len > 500);
		}
		kt_tls_handshake_destroy(handshake);
		kt_tls_server_destroy(server);
		msg.present = false;
		assert_int_equal(kt_desk_served_put_alpn(t.desk->served, &msg, &err), KT_OK);
		msg.present = true;
	}
	assert_true(failures > 50);
	assert_int_equal(shake("127.0.0.1", &good), 0);
}

static void count_starved(void *arg)
{
	++*(unsigned *)arg;
}

/* OpenSSL remembers what it could not load: the desk asks for a fresh process, once memory was missing in its work. */
static void starved(void **state)
{
	unsigned count = 0;

	(void)state;
	t.desk->starved = count_starved;
	t.desk->starved_arg = &count;
	assert_int_equal(shake("127.0.0.1", &good), 0);
	assert_int_equal(count, 0);
	for (int n = 0; n < 200 && count == 0; n++) {
		int fd = client("127.0.0.1", a.port);

		say(fd, "\x16\x03\x01\x00\x05", 5);
		turn_for(10);
		kt_mem_fail_after(n % 20, 0);
		say(fd, "\x01\x00\x00\x01\x03", 5);
		turn_for(10);
		kt_mem_fail_after(-1, 0);
		close(fd);
	}
	assert_true(count > 0);
	t.desk->starved = NULL;
}

/* No descriptor is left: deaf for a moment, not busy, and there again afterwards. */
static void without_descriptors(void **state)
{
	struct rlimit limit, few;
	int fds[64];
	int count = 0, waiting;

	(void)state;
	waiting = client("127.0.0.1", a.port);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	few = limit;
	while (count < 64 && (fds[count] = fcntl(0, F_DUPFD_CLOEXEC, 3)) >= 0 && fds[count] < 60)
		count++;
	few.rlim_cur = (rlim_t)fds[count > 0 ? count - 1 : 0] + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	turn_for(100);
	assert_int_equal(kt_desk_alpn_connections(t.desk->alpn), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	while (count-- > 0)
		close(fds[count]);
	assert_int_equal(shake_fd(waiting, &good, true), 0);
}

/* --- the program itself, behind its walls ------------------------------------------------------------------------ */

static bool maps_libssl(pid_t pid)
{
	char path[64];
	static char maps[256 * 1024];
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	file = fopen(path, "re");
	assert_non_null(file);
	len = fread(maps, 1, sizeof(maps) - 1, file);
	maps[len] = '\0';
	fclose(file);
	return strstr(maps, "libssl") || strstr(maps, "libcrypto");
}

static void behind_walls(void **state)
{
	static const struct hello wrong = {"x.example.org", ACME, 0, SSL_AD_UNRECOGNIZED_NAME};
	struct program program;
	int fd = listener(&a.port);

	(void)state;
	make_identity(NAME, a.der, &a.der_len, &a.key);
	program_starts(&program, "tlsAlpn01 x\n", &fd, 1);
	assert_true(maps_libssl(program.pid));
	assert_int_equal(shake("127.0.0.1", &wrong), wrong.expect);
	assert_int_equal(serve_alpn(NAME, true, der(), a.key), KT_OK);
	for (int i = 0; i < 20; i++)
		assert_int_equal(shake("127.0.0.1", &good), 0);
	program_ends(&program);
	close(fd);
	kt_secret_destroy(a.key);
}

/* Who has no such listener does not pay for it. */
static void without_openssl(void **state)
{
	struct program program;
	int fd = listener(&a.port);

	(void)state;
	program_starts(&program, "acme x\n", &fd, 1);
	assert_false(maps_libssl(program.pid));
	program_ends(&program);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		STAGED(hellos),
		STAGED(what_the_keeper_says),
		STAGED(many_names),
		LIVE(without_listener),
		STAGED(no_hello),
		STAGED(half_hello),
		STAGED(endless_hello),
		STAGED(after_the_end),
		STAGED(silent_flood),
		STAGED(places_are_held),
		STAGED(handed_over),
		cmocka_unit_test(proxy_headers),
		STAGED(changed_hellos),
		STAGED(without_memory),
		STAGED(starved),
		STAGED(without_descriptors),
		LIVE(behind_walls),
		LIVE(without_openssl),
	};
	struct kt_err err;

	/* Before the test's own OpenSSL: the allocator behind it is chosen once. */
	if (desk_tests_start() != 0 || kt_tls_load(&err) != KT_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
