/* The status page: one file, built in, whose policy allows nothing but its own script and style. */
#include <sodium.h>
#include <string.h>

#include "desk/desk.h"
#include "kt/buf.h"
#include "kt/text.h"

static const unsigned char html[] = {
#include "src/desk/status_page.inc"
};

/* What stands between the first <tag> and </tag>, which is what a browser hashes. */
static struct kt_view element(const char *open, const char *close)
{
	const char *start = memmem(html, sizeof(html), open, strlen(open));
	const char *end;

	if (!start)
		return (struct kt_view){0};
	start += strlen(open);
	end = memmem(start, (size_t)((const char *)html + sizeof(html) - start), close, strlen(close));
	return end ? (struct kt_view){start, (size_t)(end - start)} : (struct kt_view){0};
}

/* 'sha256-…' (Content Security Policy level 3, section 2.3.1). */
static void add_hash(struct kt_buf *policy, struct kt_view text)
{
	unsigned char digest[crypto_hash_sha256_BYTES];

	crypto_hash_sha256(digest, (const unsigned char *)text.ptr, text.len);
	kt_buf_adds(policy, "'sha256-");
	kt_base64_encode(policy, digest, sizeof(digest));
	kt_buf_adds(policy, "'");
}

struct MHD_Response *kt_desk_status_page(void)
{
	struct MHD_Response *response = kt_desk_response("text/html; charset=utf-8",
	                                                 (struct kt_view){(const char *)html, sizeof(html)}, 0);
	KT_AUTOBUF struct kt_buf policy = {0};

	kt_buf_init(&policy, 1024);
	if (!response)
		return NULL;
	kt_buf_adds(&policy, "default-src 'none'; connect-src 'self'; script-src ");
	add_hash(&policy, element("<script>", "</script>"));
	kt_buf_adds(&policy, "; style-src ");
	add_hash(&policy, element("<style>", "</style>"));
	kt_buf_adds(&policy, "; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
	if (kt_buf_check(&policy, "policy", NULL) ||
	    MHD_add_response_header(response, "Content-Security-Policy", policy.ptr) != MHD_YES ||
	    MHD_add_response_header(response, "Referrer-Policy", "no-referrer") != MHD_YES ||
	    MHD_add_response_header(response, "Cross-Origin-Opener-Policy", "same-origin") != MHD_YES) {
		MHD_destroy_response(response);
		return NULL;
	}
	return response;
}
