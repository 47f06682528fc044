/* What comes in at a tls-alpn-01 listener: a PROXY header, a hello, pieces of any size; nothing but TLS ever goes out. */
#include <string.h>

#include "desk/desk.h"
#include "fuzz.h"
#include "kt/mem.h"
#include "kt/pki.h"

#define NAME "www.example.org"

static struct kt_tls_server *server;
static struct kt_buf certificate;
static struct kt_secret *key;

static bool find(const char *name, struct kt_tls_identity *ret, void *arg)
{
	(void)arg;
	FUZZ_MUST(strlen(name) > 0 && strlen(name) < 256);
	*ret = (struct kt_tls_identity){kt_buf_view(&certificate), key};
	return strcmp(name, NAME) == 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_err err;

	(void)argc, (void)argv;
	kt_buf_init(&certificate, 8192);
	FUZZ_MUST(kt_pki_init(&err) == KT_OK && kt_tls_load(&err) == KT_OK);
	FUZZ_MUST(kt_pki_acme_alpn(NAME, KT_VIEW_LIT("token.thumb"), 1800000000000, &certificate, &key, &err) == KT_OK);
	FUZZ_MUST(kt_tls_server_create(find, NULL, &server, &err) == KT_OK);
	return 0;
}

/* What the header says does not depend on what follows it, nor on how it was cut. */
static size_t proxy(struct kt_view in)
{
	uint8_t address[KT_DESK_ADDRESS], again[KT_DESK_ADDRESS];
	size_t len, same;

	if (kt_desk_proxy_read(in, &len, address) != KT_DESK_PROXY_FOUND)
		return 0;
	FUZZ_MUST(len > 0 && len <= in.len && len <= KT_DESK_PROXY_MAX);
	FUZZ_MUST(kt_desk_proxy_read((struct kt_view){in.ptr, len}, &same, again) == KT_DESK_PROXY_FOUND);
	FUZZ_MUST(same == len && memcmp(address, again, sizeof(again)) == 0);
	for (size_t i = 0; i < len; i++)
		FUZZ_MUST(kt_desk_proxy_read((struct kt_view){in.ptr, i}, &same, again) == KT_DESK_PROXY_MORE);
	return len;
}

/* The records of TLS, whole and of kinds that a server sends in a handshake that can't end. */
static void check_output(const struct kt_buf *out)
{
	size_t at = 0;

	while (at < out->len) {
		const unsigned char *record = (const unsigned char *)out->ptr + at;

		FUZZ_MUST(out->len - at >= 5 && record[1] == 3);
		FUZZ_MUST(record[0] == 0x14 || record[0] == 0x15 || record[0] == 0x16 || record[0] == 0x17);
		at += 5 + ((size_t)record[3] << 8 | record[4]);
	}
	FUZZ_MUST(at == out->len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_tls_handshake *handshake;
	enum kt_tls_step step = KT_TLS_MORE;
	struct kt_buf out KT_AUTOBUF = {0};
	struct kt_err err;
	size_t at, piece;

	if (size < 1)
		return 0;
	piece = data[0] == 0 ? size : data[0];
	at = 1 + proxy((struct kt_view){(const char *)data + 1, size - 1});
	kt_buf_init(&out, 65536);
	FUZZ_MUST(kt_tls_handshake_create(server, &handshake, &err) == KT_OK);
	for (; at < size && step == KT_TLS_MORE; at += piece)
		step = kt_tls_handshake_feed(handshake,
		                             (struct kt_view){(const char *)data + at, size - at < piece ? size - at : piece},
		                             &out, &err);
	FUZZ_MUST(step != KT_TLS_DONE && out.failed == KT_OK);
	FUZZ_MUST(step == KT_TLS_REFUSED || at <= KT_TLS_INPUT_MAX + piece + KT_DESK_PROXY_MAX);
	check_output(&out);
	kt_tls_handshake_destroy(handshake);
	return 0;
}
