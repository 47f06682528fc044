/* What servers say before TLS, cut anyhow: the talk ends within its limits, says only its own lines, and agrees once. */
#include <string.h>

#include "courier/probe/starttls.h"
#include "fuzz.h"
#include "kt/mem.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

static bool own_line(struct kt_view said)
{
	return kt_view_eq_str(said, "EHLO keyturn\r\n") || kt_view_eq_str(said, "STARTTLS\r\n") ||
	       kt_view_eq_str(said, "a STARTTLS\r\n");
}

/* First byte: the protocol; second: how long each piece is (0: all at once); then what the server sends. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"smtp", "imap", "ldap", "postgres"};
	struct kt_starttls_talk *talk = NULL;
	enum kt_code code = KT_OK;
	struct kt_err err;
	bool ready = false;
	unsigned said_lines = 0;

	if (size < 3) {
		return 0;
	}
	if (kt_starttls_create(kt_view_str(names[data[0] % 4]), &talk, &err) != KT_OK) {
		return 0;
	}
	for (size_t at = 2, step; at < size && code == KT_OK && !ready; at += step) {
		struct kt_view said;
		char *piece;

		step = data[1] == 0 || data[1] > size - at ? size - at : data[1];
		piece = kt_malloc(step); /* its own, so that a look behind its end is seen */
		FUZZ_MUST(piece != NULL);
		memcpy(piece, data + at, step);
		kt_err_clear(&err);
		code = kt_starttls_feed(talk, (struct kt_view){piece, step}, &said, &ready, &err);
		kt_free(piece);
		FUZZ_MUST(code == KT_OK || (!ready && err.code == code && err.what[0] != '\0'));
		FUZZ_MUST(code != KT_OK || at <= 16384 + 2);
		if (code == KT_OK && said.len > 0) {
			FUZZ_MUST(own_line(said) && !ready && ++said_lines <= 2);
		}
	}
	kt_starttls_destroy(talk);
	return 0;
}
