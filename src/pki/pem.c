/* PEM (RFC 7468): a strict scanner for what strangers send, and a writer that needs no BIO. */
#include "pki/pki_internal.h"

#include <string.h>

#define BEGIN "-----BEGIN "
#define END "-----END "
#define DASHES "-----"
#define LABEL_MAX 64

static bool view_starts(struct kt_view text, const char *prefix, size_t len)
{
	return text.len >= len && memcmp(text.ptr, prefix, len) == 0;
}

static void skip(struct kt_view *text, size_t len)
{
	text->ptr += len;
	text->len -= len;
}

static size_t line_len(struct kt_view text)
{
	const char *nl = text.len > 0 ? memchr(text.ptr, '\n', text.len) : NULL;

	return nl != NULL ? (size_t)(nl - text.ptr) + 1 : text.len;
}

/* Moves to the next BEGIN line at the start of a line. */
static enum kt_code find_begin(struct kt_view *rest, bool strict, struct kt_err *err)
{
	while (rest->len > 0) {
		struct kt_view line = *rest;

		line.len = line_len(line);
		while (line.len > 0 && (*line.ptr == ' ' || *line.ptr == '\t' || *line.ptr == '\r' || *line.ptr == '\n'))
			skip(&line, 1);
		if (view_starts(line, BEGIN, sizeof(BEGIN) - 1)) {
			skip(rest, (size_t)(line.ptr - rest->ptr));
			return KT_OK;
		}
		if (strict && line.len > 0 && *line.ptr != '#')
			return kt_err_set(err, KT_E_PROTO, "expected a PEM block, found other text");
		skip(rest, line_len(*rest));
	}
	return kt_err_set(err, KT_E_NOTFOUND, "no PEM block");
}

enum kt_code kt_pem_next(struct kt_view *rest, bool strict, struct kt_pem *ret, struct kt_err *err)
{
	struct kt_view body;
	enum kt_code code = find_begin(rest, strict, err);
	const char *dash;

	if (code != KT_OK)
		return code;
	skip(rest, sizeof(BEGIN) - 1);
	body = *rest;
	body.len = line_len(body);
	dash = memmem(body.ptr, body.len, DASHES, sizeof(DASHES) - 1);
	if (dash == NULL || dash == body.ptr || dash - body.ptr > LABEL_MAX)
		return kt_err_set(err, KT_E_PROTO, "a PEM block has a broken BEGIN line");
	ret->label = (struct kt_view){body.ptr, (size_t)(dash - body.ptr)};
	skip(rest, ret->label.len + sizeof(DASHES) - 1);

	dash = rest->len > 0 ? memmem(rest->ptr, rest->len, DASHES, sizeof(DASHES) - 1) : NULL;
	if (dash == NULL)
		return kt_err_set(err, KT_E_PROTO, "a PEM block has no END line");
	ret->body = (struct kt_view){rest->ptr, (size_t)(dash - rest->ptr)};
	skip(rest, ret->body.len);
	if (!view_starts(*rest, END, sizeof(END) - 1))
		return kt_err_set(err, KT_E_PROTO, "a PEM block has no END line");
	skip(rest, sizeof(END) - 1);
	if (!view_starts(*rest, ret->label.ptr, ret->label.len))
		return kt_err_set(err, KT_E_PROTO, "a PEM block ends with another label than it begins with");
	skip(rest, ret->label.len);
	if (!view_starts(*rest, DASHES, sizeof(DASHES) - 1))
		return kt_err_set(err, KT_E_PROTO, "a PEM block has a broken END line");
	skip(rest, sizeof(DASHES) - 1);
	return KT_OK;
}

enum kt_code kt_pem_decode(const struct kt_pem *block, struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF packed;
	enum kt_code code;

	kt_buf_init(&packed, block->body.len + 1);
	for (size_t i = 0; i < block->body.len;) {
		size_t start = i;

		while (i < block->body.len && strchr(" \t\r\n", block->body.ptr[i]) == NULL)
			i++;
		kt_buf_add(&packed, block->body.ptr + start, i - start);
		while (i < block->body.len && block->body.ptr[i] != '\0' &&
		       strchr(" \t\r\n", block->body.ptr[i]) != NULL)
			i++;
		if (i < block->body.len && block->body.ptr[i] == '\0')
			return kt_err_set(err, KT_E_PROTO, "a PEM block holds a NUL byte");
	}
	code = kt_buf_check(&packed, "PEM block", err);
	if (code != KT_OK)
		return code;
	if (packed.len == 0)
		return kt_err_set(err, KT_E_PROTO, "a PEM block is empty");
	code = kt_base64_decode(kt_buf_view(&packed), out, NULL);
	if (code == KT_E_NOMEM)
		return kt_err_set(err, code, "PEM block: out of memory");
	if (code != KT_OK)
		return kt_err_set(err, KT_E_PROTO, "a PEM block holds something else than base64 (or is encrypted)");
	return kt_buf_check(out, "PEM block", err);
}

size_t kt_pem_size(const char *label, size_t der_len)
{
	size_t chars = (der_len + 2) / 3 * 4;

	return sizeof(BEGIN) - 1 + sizeof(END) - 1 + 2 * (strlen(label) + sizeof(DASHES)) + chars + (chars + 63) / 64;
}

static char *put_text(char *out, const char *text)
{
	size_t len = strlen(text);

	memcpy(out, text, len);
	return out + len;
}

void kt_pem_write(char *out, const char *label, const void *der, size_t der_len)
{
	const uint8_t *in = der;
	uint8_t line[65];

	out = put_text(put_text(put_text(out, BEGIN), label), DASHES "\n");
	while (der_len > 0) {
		size_t take = der_len < 48 ? der_len : 48;
		int chars = EVP_EncodeBlock(line, in, (int)take);

		memcpy(out, line, (size_t)chars);
		out += chars;
		*out++ = '\n';
		in += take;
		der_len -= take;
	}
	put_text(put_text(put_text(out, END), label), DASHES "\n");
	kt_wipe(line, sizeof(line));
}

void kt_pki_pem_encode(struct kt_buf *out, const char *label, struct kt_view der)
{
	char *at = kt_buf_extend(out, kt_pem_size(label, der.len));

	if (at != NULL)
		kt_pem_write(at, label, der.ptr, der.len);
}
