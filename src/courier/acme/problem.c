/* Problem documents (RFC 7807, RFC 8555 section 6.7): shown whole and safely, and what they mean for a retry. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "kt/text.h"

#define URN        "urn:ietf:params:acme:error:"
#define DETAIL_MAX 400u
#define INSTANCE_MAX 200u
#define SUB_MAX    5u /* subproblems shown */
#define SUB_DETAIL 120u

static const struct {
	const char *name;
	enum kt_code code;
	const char *hint; /* "" or how to mend it */
} known[] = {
	{"badNonce", KT_E_LATER, ""},
	{"rateLimited", KT_E_LATER, ""},
	{"serverInternal", KT_E_LATER, ""},
	{"orderNotReady", KT_E_LATER, ""},
	{"connection", KT_E_NET, "the CA could not connect to the challenge listener"},
	{"dns", KT_E_NET, "the CA could not look the name up"},
	{"tls", KT_E_NET, ""},
	{"incorrectResponse", KT_E_DENIED, "something else answers at the challenge URL"},
	{"unauthorized", KT_E_DENIED, ""},
	{"caa", KT_E_DENIED, "a CAA record forbids this CA"},
	{"accountDoesNotExist", KT_E_AUTH, ""},
	{"externalAccountRequired", KT_E_AUTH, "the CA wants an external account binding"},
	{"userActionRequired", KT_E_AUTH, "someone must visit the CA's page, for instance to agree to new terms"},
	{"badSignatureAlgorithm", KT_E_DENIED, ""},
	{"badPublicKey", KT_E_DENIED, ""},
	{"badCSR", KT_E_DENIED, ""},
	{"rejectedIdentifier", KT_E_DENIED, "the CA does not issue for this name"},
	{"unsupportedIdentifier", KT_E_DENIED, "the CA does not issue for names of this type"},
	{"invalidContact", KT_E_INVALID, "check the issuer's email"},
	{"unsupportedContact", KT_E_INVALID, "check the issuer's email"},
	{"malformed", KT_E_DENIED, ""},
	{"compound", KT_E_DENIED, ""},
	{"invalidProfile", KT_E_INVALID, ""},
};

static enum kt_code by_status(long status)
{
	if (status == 429 || status == 408 || status >= 500) {
		return KT_E_LATER;
	}
	if (status == 401) {
		return KT_E_AUTH;
	}
	if (status == 404 || status == 410) {
		return KT_E_NOTFOUND;
	}
	return status >= 400 ? KT_E_DENIED : KT_E_PROTO;
}

static const char *short_name(const char *type)
{
	return type != NULL && kt_starts_with(type, URN) ? type + strlen(URN) : NULL;
}

/* A stranger's text into ours: cut; kt_err_set escapes what can't be printed. */
static void add_text(struct kt_buf *out, const char *text, size_t max)
{
	size_t len = strnlen(text, max + 1);

	if (len <= max) {
		kt_buf_add(out, text, len);
		return;
	}
	while (max > 0 && ((unsigned char)text[max] & 0xc0) == 0x80) {
		max--; /* not within a UTF-8 character */
	}
	kt_buf_add(out, text, max);
	kt_buf_adds(out, "...");
}

static void add_subproblems(struct kt_buf *out, const json_t *list)
{
	size_t count = json_array_size(list);

	for (size_t i = 0; i < count && i < SUB_MAX; i++) {
		const json_t *sub = json_array_get(list, i);
		const char *name = kt_json_str(json_object_get(sub, "identifier"), "value");
		const char *type = kt_json_str(sub, "type"), *detail = kt_json_str(sub, "detail");

		kt_buf_adds(out, i == 0 ? " (" : "; ");
		add_text(out, name != NULL ? name : "a name", 100);
		kt_buf_adds(out, ": ");
		add_text(out,
			 detail != NULL             ? detail
			 : short_name(type) != NULL ? short_name(type)
						    : "no detail",
			 SUB_DETAIL);
	}
	if (count > SUB_MAX) {
		kt_buf_addf(out, "; and %zu more", count - SUB_MAX);
	}
	kt_buf_adds(out, count > 0 ? ")" : "");
}

enum kt_code acme_problem(json_t *problem, long status, int64_t retry_after, struct kt_err *err)
{
	const char *type = kt_json_str(problem, "type"), *detail = kt_json_str(problem, "detail");
	const char *name = short_name(type), *hint = "";
	enum kt_code code = by_status(status);
	struct kt_buf text;

	for (size_t i = 0; name != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcmp(name, known[i].name) == 0) {
			code = known[i].code;
			hint = known[i].hint;
		}
	}
	kt_buf_init(&text, 4096);
	if (detail != NULL) {
		add_text(&text, detail, DETAIL_MAX);
	}
	if (name != NULL && strcmp(name, "userActionRequired") == 0 && kt_json_str(problem, "instance") != NULL) {
		kt_buf_adds(&text, " - see "); /* RFC 8555 section 7.3.3: the page to visit */
		add_text(&text, kt_json_str(problem, "instance"), INSTANCE_MAX);
	}
	add_subproblems(&text, json_object_get(problem, "subproblems"));
	if (name == NULL && type == NULL) {
		(void)kt_err_set(err, code, "HTTP %ld: %s", status,
				 text.len > 0 ? text.ptr : "the server gave no detail");
	} else {
		(void)kt_err_set(err, code, "%.60s%s%s: %s", name != NULL ? name : type, hint[0] != '\0' ? ", " : "",
				 hint, text.len > 0 ? text.ptr : "the server gave no detail");
	}
	kt_buf_finish(&text);
	if (type == NULL) { /* what the status alone says has names too (RFC 8555 section 6.7) */
		type = status == 429 ? URN "rateLimited" : status >= 500 ? URN "serverInternal" : NULL;
	}
	if (err != NULL) {
		err->retry_after_s = retry_after;
		err->problem_type[0] = '\0';
		if (type != NULL && strchr(type, ':') != NULL) { /* a URI; bare words are our own, such as "budget" */
			size_t len = strnlen(type, sizeof(err->problem_type) - 1);

			memcpy(err->problem_type, type, len);
			err->problem_type[len] = '\0';
			for (size_t i = 0; i < len; i++) {
				if (type[i] <= ' ' || type[i] >= 0x7f) {
					err->problem_type[i] = '?';
				}
			}
		}
	}
	return code;
}

bool acme_problem_is(const struct kt_err *err, const char *name)
{
	return kt_starts_with(err->problem_type, URN) && strcmp(err->problem_type + strlen(URN), name) == 0;
}
