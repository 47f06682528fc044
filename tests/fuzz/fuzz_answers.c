/* Answers of ACME and OAuth servers and of AWS: the first byte says which parser, the rest is the body. */
#include <string.h>
#include <strings.h>

#include "courier/acme/acme_internal.h"
#include "courier/grant/aws.h"
#include "courier/grant/grant_internal.h"
#include "courier/http.h"
#include "fuzz.h"
#include "kt/json.h"

#define CANARY "canary-SECRET-4711"

static struct kt_secret *secret;
static json_t *scopes;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_err err;

	(void)argc, (void)argv;
	kt_json_init();
	scopes = json_pack("[s,s]", "read", "write");
	FUZZ_MUST(scopes != NULL && kt_secret_create(CANARY, sizeof(CANARY) - 1, &secret, &err) == KT_OK);
	return 0;
}

/* An error is one bounded line without control characters, and has no byte below a space. */
static void check_error(const struct kt_err *err)
{
	size_t len = strnlen(err->what, sizeof(err->what));

	FUZZ_MUST(len > 0 && len < sizeof(err->what));
	FUZZ_MUST(strnlen(err->problem_type, sizeof(err->problem_type)) < sizeof(err->problem_type));
	for (size_t i = 0; i < len; i++) {
		FUZZ_MUST((unsigned char)err->what[i] >= ' ' && err->what[i] != 0x7f);
	}
}

static void directory(json_t *json)
{
	struct acme_directory found = {0};
	struct kt_err err;

	if (acme_directory_parse(json, "https://acme.example/directory", &found, &err) == KT_OK) {
		FUZZ_MUST(strncasecmp(found.new_nonce, "https://", 8) == 0);
		FUZZ_MUST(found.key_change == NULL || strncasecmp(found.key_change, "https://", 8) == 0);
	} else {
		check_error(&err);
	}
	acme_directory_finish(&found);
}

static void problem(json_t *json, unsigned status)
{
	struct kt_err err;

	kt_err_clear(&err);
	FUZZ_MUST(acme_problem(json, status, 0, &err) != KT_OK);
	check_error(&err);
	(void)acme_problem_is(&err, "badNonce");
}

static void token(struct kt_http_reply *reply, unsigned how)
{
	struct grant_input input = {.client_id = "client", .scopes = scopes, .secret[GRANT_CLIENT_SECRET] = secret};
	struct grant_token got;
	struct kt_err err;

	kt_err_clear(&err);
	input.secret[GRANT_REFRESH] = secret;
	input.dpop = how % 2 != 0;
	input.exchange = how / 2 % 2 != 0;
	input.requested_type = how / 4 % 2 != 0 ? GRANT_TYPE_URN "jwt" : NULL;
	if (grant_answer(reply, &input, &got, &err) == KT_OK) {
		FUZZ_MUST(got.token_type != NULL && strlen(got.issued_type) <= GRANT_TYPE_MAX);
		FUZZ_MUST(kt_secret_len(got.token) > 0 && kt_secret_len(got.token) <= GRANT_TOKEN_MAX);
		FUZZ_MUST(got.expires_in == -1 || (got.expires_in > 0 && got.expires_in <= GRANT_LIFE_MAX));
		FUZZ_MUST(strlen(got.scope) < sizeof(got.scope));
	} else {
		check_error(&err);
		FUZZ_MUST(strstr(err.what, CANARY) == NULL && strstr(err.problem_type, CANARY) == NULL);
	}
	FUZZ_MUST(got.refresh == NULL ||
		  (kt_secret_len(got.refresh) > 0 && kt_secret_len(got.refresh) <= GRANT_TOKEN_MAX));
	grant_token_finish(&got);
}

/* Answers of the other endpoints. */
static void op(const struct kt_http_reply *reply, const char *what)
{
	struct grant_input input = {.client_id = "client", .secret[GRANT_TOKEN] = secret};
	struct kt_view body;
	struct kt_err err;

	kt_err_clear(&err);
	if (grant_op_answer(reply, what, &input, &body, &err) == KT_OK) {
		FUZZ_MUST(body.len <= 65536 && (body.len == 0 || body.ptr == reply->body.ptr));
	} else {
		check_error(&err);
		FUZZ_MUST(strstr(err.what, CANARY) == NULL && strstr(err.problem_type, CANARY) == NULL);
	}
}

static void metadata(const struct kt_http_reply *reply)
{
	struct grant_endpoints at;
	struct kt_err err;

	kt_err_clear(&err);
	if (grant_metadata_parse(reply, "https://as.example", &at, &err) == KT_OK) {
		FUZZ_MUST(at.plain[GRANT_TOKEN_ENDPOINT] != NULL);
		for (unsigned i = 0; i < GRANT_ENDPOINT_COUNT; i++) {
			FUZZ_MUST(at.plain[i] == NULL || strncasecmp(at.plain[i], "https://", 8) == 0);
			FUZZ_MUST(at.mtls[i] == NULL || strncasecmp(at.mtls[i], "https://", 8) == 0);
		}
	} else {
		check_error(&err);
	}
	grant_endpoints_finish(&at);
}

/* Sessions of AWS: of an answer that is one, three visible texts come out; of none other. */
static void session(const struct kt_http_reply *reply, bool xml)
{
	struct kt_secret *got = NULL;
	struct aws_texts texts;
	int64_t seconds = 0;
	struct kt_err err;

	kt_err_clear(&err);
	aws_texts_init(&texts);
	(void)(xml ? aws_read_xml(reply->body, &texts) : aws_read_json(reply->body, &texts));
	if (aws_session(&texts, 1790000000000, &got, &seconds, &err) == KT_OK) {
		struct kt_view text = kt_secret_view(got);

		FUZZ_MUST(seconds > 0 && text.len > 0 && text.ptr[0] == '{');
		for (size_t i = 0; i < text.len; i++) {
			FUZZ_MUST(text.ptr[i] > ' ' && (unsigned char)text.ptr[i] < 0x7f);
		}
	} else {
		check_error(&err);
		FUZZ_MUST(got == NULL);
	}
	kt_secret_destroy(got);
	kt_err_clear(&err);
	FUZZ_MUST(aws_refusal(&texts, reply->status, 0, KT_VIEW_LIT(CANARY), &err) != KT_OK);
	check_error(&err);
	FUZZ_MUST(strstr(err.what, CANARY) == NULL && strstr(err.problem_type, CANARY) == NULL);
	aws_texts_finish(&texts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const long statuses[] = {200, 400, 401, 429, 500, 302, 403, 503};
	struct kt_http_reply reply = {.headers[KT_HTTP_CONTENT_TYPE] = "application/json"};
	KT_AUTOJSON json_t *json = NULL;
	struct kt_err err;

	if (size == 0) {
		return 0;
	}
	reply.status = statuses[(data[0] >> 2) % 8];
	reply.body = (struct kt_view){(const char *)data + 1, size - 1};
	if (data[0] >= 0x80) {
		session(&reply, data[0] % 2 != 0);
	} else if (data[0] % 4 == 0) {
		for (unsigned how = 0; how < 8; how++) {
			token(&reply, how);
		}
		op(&reply, "revoke");
		op(&reply, "introspect");
	} else if (data[0] % 4 == 1) {
		metadata(&reply);
	} else {
		(void)kt_http_json(&reply, &json, &err);
		if (data[0] % 4 == 2) {
			directory(json);
		} else {
			problem(json, (unsigned)reply.status);
		}
	}
	return 0;
}
