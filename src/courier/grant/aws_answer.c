/* What AWS answers to who asks for a session: XML of STS, JSON of IAM Roles Anywhere; the session, or why there is none. */
#include <stdio.h>
#include <string.h>

#include "courier/grant/aws.h"
#include "courier/xml.h"
#include "kt/json.h"
#include "kt/mem.h"
#include "kt/text.h"

#define DETAIL_MAX 400u

/* AccessKeyId and so on as STS spells them; IAM Roles Anywhere begins them in lower case. */
static const char *const members[AWS_TEXT_COUNT] = {[AWS_KEY_ID] = "AccessKeyId",
						    [AWS_SECRET_KEY] = "SecretAccessKey",
						    [AWS_SESSION_TOKEN] = "SessionToken",
						    [AWS_EXPIRATION] = "Expiration"};

void aws_texts_init(struct aws_texts *texts)
{
	for (unsigned i = 0; i < AWS_TEXT_COUNT; i++) {
		kt_buf_init(&texts->at[i], AWS_TEXT_MAX);
	}
	kt_buf_init(&texts->code, 256);
	kt_buf_init(&texts->message, 16384);
}

void aws_texts_finish(struct aws_texts *texts)
{
	for (unsigned i = 0; i < AWS_TEXT_COUNT; i++) {
		kt_buf_finish(&texts->at[i]);
	}
	kt_buf_finish(&texts->code);
	kt_buf_finish(&texts->message);
}

/* --- reading ------------------------------------------------------------------------------------------------------- */

static void set(struct kt_buf *out, struct kt_view text)
{
	kt_buf_reset(out);
	kt_buf_addv(out, text);
}

bool aws_read_xml(struct kt_view body, struct aws_texts *texts)
{
	enum kt_xml_event event;
	struct kt_xml xml;
	char path[64];

	kt_xml_init(&xml, body);
	while ((event = kt_xml_next(&xml)) != KT_XML_DONE && event != KT_XML_BAD) {
		if (event != KT_XML_TEXT) {
			continue;
		}
		for (unsigned i = 0; i < AWS_TEXT_COUNT; i++) {
			(void)snprintf(path, sizeof(path), "AssumeRoleWithWebIdentityResult/Credentials/%s", members[i]);
			if (kt_xml_at(&xml, path)) {
				set(&texts->at[i], kt_buf_view(&xml.text));
			}
		}
		if (kt_xml_at(&xml, "Error/Code")) {
			set(&texts->code, kt_buf_view(&xml.text));
		} else if (kt_xml_at(&xml, "Error/Message")) {
			set(&texts->message, kt_buf_view(&xml.text));
		}
	}
	kt_xml_finish(&xml);
	return event == KT_XML_DONE;
}

static void set_member(struct kt_buf *out, const json_t *object, const char *name)
{
	const char *text = kt_json_str(object, name);

	if (text != NULL) {
		set(out, kt_view_str(text));
	}
}

/* "AccessDeniedException:http://..." and "com.amazonaws...#AccessDeniedException" are both seen. */
static void set_code(struct kt_buf *out, const char *text)
{
	const char *hash = strrchr(text, '#');

	text = hash != NULL ? hash + 1 : text;
	set(out, (struct kt_view){text, strcspn(text, ":")});
}

bool aws_read_json(struct kt_view body, struct aws_texts *texts)
{
	json_t *json KT_AUTOJSON = NULL;
	const json_t *credentials;
	const char *code;

	if (kt_json_parse(body, KT_HTTP_BODY_MAX, &json, NULL) != KT_OK) {
		return false;
	}
	credentials = json_object_get(json_array_get(json_object_get(json, "credentialSet"), 0), "credentials");
	for (unsigned i = 0; i < AWS_TEXT_COUNT; i++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "%s", members[i]);
		name[0] = (char)(name[0] - 'A' + 'a');
		set_member(&texts->at[i], credentials, name);
	}
	code = kt_json_str(json, "__type");
	if (code != NULL) {
		set_code(&texts->code, code);
	}
	set_member(&texts->message, json, "Message");
	set_member(&texts->message, json, "message");
	return true;
}

/* --- a session ----------------------------------------------------------------------------------------------------- */

static enum kt_code write_session(const struct aws_texts *texts, struct kt_secret **ret, struct kt_err *err)
{
	struct kt_buf text;
	enum kt_code code;

	kt_buf_init(&text, 65536);
	for (unsigned i = 0; i < AWS_EXPIRATION; i++) {
		kt_buf_addf(&text, "%c\"%s\":", i == 0 ? '{' : ',', members[i]);
		kt_buf_add_json(&text, kt_buf_view(&texts->at[i]));
	}
	kt_buf_addc(&text, '}');
	code = kt_buf_check(&text, "a session", err);
	if (code == KT_OK) {
		code = kt_secret_from_buf(&text, ret, err);
	}
	kt_buf_finish(&text);
	return code;
}

enum kt_code aws_session(const struct aws_texts *texts, kt_ms server_now, struct kt_secret **ret, int64_t *ret_seconds,
			 struct kt_err *err)
{
	kt_ms end;

	for (unsigned i = 0; i < AWS_TEXT_COUNT; i++) {
		const struct kt_buf *text = &texts->at[i];

		if (text->failed != KT_OK) {
			return kt_err_set(err, KT_E_LIMIT, "%s in the answer of AWS is too long", members[i]);
		}
		if (text->len == 0) {
			return kt_err_set(err, KT_E_PROTO, "the answer of AWS has no %s", members[i]);
		}
		for (size_t at = 0; at < text->len; at++) {
			if (text->ptr[at] <= ' ' || text->ptr[at] >= 0x7f) {
				return kt_err_set(err, KT_E_PROTO, "%s in the answer of AWS holds characters that it can't have",
						  members[i]);
			}
		}
	}
	if (kt_time_parse(kt_buf_view(&texts->at[AWS_EXPIRATION]), &end, NULL) != KT_OK) {
		return kt_err_set(err, KT_E_PROTO, "Expiration in the answer of AWS is no time");
	}
	*ret_seconds = (end - server_now) / KT_SECOND;
	if (*ret_seconds <= 0) {
		return kt_err_set(err, KT_E_PROTO, "AWS gave a session that has ended already");
	}
	return write_session(texts, ret, err);
}

/* --- a refusal ----------------------------------------------------------------------------------------------------- */

/* In the words of the service; the rest by the status. */
static const struct {
	const char *word;
	enum kt_code code;
} known[] = {
	{"Throttling", KT_E_LATER},
	{"ThrottlingException", KT_E_LATER},
	{"RequestLimitExceeded", KT_E_LATER},
	{"ServiceUnavailable", KT_E_LATER},
	{"IDPCommunicationError", KT_E_LATER}, /* STS did not get to the issuer's keys; AWS says to try again */
	{"InvalidIdentityToken", KT_E_AUTH},
	{"ExpiredTokenException", KT_E_AUTH},
	{"ExpiredToken", KT_E_AUTH},
	{"IDPRejectedClaim", KT_E_AUTH},
	{"AccessDenied", KT_E_DENIED},
	{"AccessDeniedException", KT_E_DENIED},
	{"ValidationError", KT_E_DENIED},
	{"ValidationException", KT_E_DENIED},
};

/* It may, too, where it is longer than what is kept of it. A JWT is no other text when it is form-encoded. */
static bool quotes(const struct kt_buf *text, struct kt_view hidden)
{
	return text->failed != KT_OK ||
	       (hidden.len > 0 && text->len >= hidden.len && memmem(text->ptr, text->len, hidden.ptr, hidden.len) != NULL);
}

static bool is_word(const struct kt_buf *text, struct kt_view hidden)
{
	return text->len > 0 && text->len <= 64 && !quotes(text, hidden) &&
	       strspn(text->ptr, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == text->len;
}

/* The message, printable and cut. */
static void add_shown(const struct kt_buf *message, struct kt_view hidden, struct kt_buf *out)
{
	char plain[DETAIL_MAX + 1], shown[DETAIL_MAX + 1];
	size_t i;

	if (quotes(message, hidden)) {
		kt_buf_adds(out, "[it quotes what must not be shown]");
		return;
	}
	for (i = 0; i < message->len && i < DETAIL_MAX; i++) {
		char c = message->ptr[i];

		plain[i] = c >= ' ' && c < 0x7f ? c : ' ';
	}
	plain[i] = '\0';
	kt_text_hide(plain, NULL, shown, sizeof(shown));
	kt_buf_adds(out, shown);
	kt_buf_adds(out, i < message->len ? "..." : "");
}

enum kt_code aws_refusal(const struct aws_texts *texts, long status, int64_t retry_after, struct kt_view hidden,
			 struct kt_err *err)
{
	const char *word = is_word(&texts->code, hidden) ? texts->code.ptr : "";
	enum kt_code code = status == 429 || status == 408 || status >= 500 ? KT_E_LATER
			    : status == 401                                 ? KT_E_AUTH
			    : status >= 400                                 ? KT_E_DENIED
									    : KT_E_PROTO;
	struct kt_buf shown;

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]) && code != KT_E_LATER && code != KT_E_PROTO; i++) {
		code = strcmp(word, known[i].word) == 0 ? known[i].code : code;
	}
	kt_buf_init(&shown, 4096);
	add_shown(&texts->message, hidden, &shown);
	(void)kt_err_set(err, code, "AWS refuses: %s%s%s (HTTP %ld)", *word != '\0' ? word : "no error code",
			 shown.len > 0 ? ": " : "", shown.len > 0 ? shown.ptr : "", status);
	kt_buf_finish(&shown);
	if (err != NULL) {
		err->retry_after_s = code == KT_E_LATER ? retry_after : 0;
		(void)snprintf(err->problem_type, sizeof(err->problem_type), "%s", word);
	}
	return code;
}
