/* URLs, addresses and header values: what is taken is printable, bounded and of the same origin as itself. */
#include <string.h>

#include "courier/url.h"
#include "fuzz.h"
#include "kt/clock.h"
#include "kt/mem.h"
#include "kt/msg.h"
#include "kt/text.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	return 0;
}

static void values(struct kt_view view)
{
	const kt_ms now = 1800000000000;
	KT_AUTOBUF struct kt_buf out, again;
	struct kt_err err;
	int64_t wait, number;
	kt_ms when;

	kt_buf_init(&out, 1u << 20);
	kt_buf_init(&again, 1u << 20);
	wait = kt_retry_after(view, now);
	FUZZ_MUST(wait >= 0 && wait <= 86400);
	(void)kt_time_parse_http(view, &when, &err);
	(void)kt_time_parse(view, &when, &err);
	(void)kt_duration_parse(view, &when, &err);
	(void)kt_parse_i64(view, INT64_MIN, INT64_MAX, &number, &err);
	if (kt_base64url_decode(view, &out, &err) == KT_OK) {
		kt_base64url_encode(&again, out.len > 0 ? out.ptr : "", out.len);
		FUZZ_MUST(again.len == view.len && memcmp(again.ptr != NULL ? again.ptr : "", view.ptr, view.len) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view view = {size > 0 ? (const char *)data : "", size};
	KT_AUTOFREE char *text = kt_strndup(view.ptr, size);
	struct kt_url url;
	struct kt_err err;
	char host[256];
	uint16_t port;

	values(view);
	if (kt_url_split_address(view, host, &port, &err) == KT_OK) {
		FUZZ_MUST(port != 0 && host[0] != '\0' && strnlen(host, sizeof(host)) < sizeof(host));
	}
	if (text != NULL && kt_url_parse(text, &url, &err) == KT_OK) {
		FUZZ_MUST(strlen(text) <= KT_URL_MAX && url.host[0] != '\0' && url.port != 0);
		FUZZ_MUST(kt_url_text_same_origin(text, text));
		FUZZ_MUST(strchr(text, '\n') == NULL && strchr(text, ' ') == NULL && strchr(url.host, '@') == NULL);
	}
	return 0;
}
