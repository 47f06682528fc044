/* What a service says of an upload: why it refused it, and the serial and the times that it shows. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "fuzz.h"
#include "keeper/target.h"
#include "kt/json.h"
#include "kt/text.h"

#define CANARY "canary-SECRET-4711"
#define KNOWN  "flexIngressOfTheWholeCompany24"

static struct kt_secret *secret;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_err err;

	(void)argc, (void)argv;
	kt_json_init();
	FUZZ_MUST(kt_secret_create(CANARY, sizeof(CANARY) - 1, &secret, &err) == KT_OK);
	return 0;
}

/* No run that could be a secret, unless it was known before; the last one may be cut. */
static void check_hidden(const char *out, size_t size)
{
	size_t len;

	FUZZ_MUST(strnlen(out, size) < size);
	for (; *out != '\0'; out += len > 0 ? len : 1) {
		char word[512];

		for (len = 0; isalnum((unsigned char)out[len]); len++) {
		}
		(void)snprintf(word, sizeof(word), "%.*s", (int)len, out);
		FUZZ_MUST(len < 24 || strstr(KNOWN, word) != NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_buf text KT_AUTOBUF = {0};
	char out[320], small[40];
	struct kt_err err;
	kt_ms at = 0;

	kt_target_reason((struct kt_view){(const char *)data, size}, KNOWN, secret, out, sizeof(out));
	check_hidden(out, sizeof(out));
	FUZZ_MUST(strstr(out, CANARY) == NULL);
	kt_buf_init(&text, 1u << 20);
	kt_buf_add(&text, data, size);
	kt_buf_addc(&text, '\0');
	if (text.failed != KT_OK) {
		return 0;
	}
	kt_text_hide(text.ptr, KNOWN, small, sizeof(small));
	check_hidden(small, sizeof(small));
	if (kt_target_is_serial(text.ptr)) {
		FUZZ_MUST(strlen(text.ptr) <= 80 && strpbrk(text.ptr, "-_gGzZ\n\033") == NULL);
	}
	FUZZ_MUST(!kt_target_same_serial(text.ptr, "e93e") || kt_target_same_serial("e93e", text.ptr));
	if (kt_target_time(text.ptr, &at, &err) != KT_OK) {
		FUZZ_MUST(err.code == KT_E_PROTO && strstr(err.what, "is not a time") != NULL);
	}
	FUZZ_MUST(!kt_target_is_day(text.ptr) || strlen(text.ptr) >= 10);
	return 0;
}
