/*
 * The files of an AWS session, as SDKs read them. The keeper keeps a session as JSON of three texts without spaces; when it
 * ends is what the keeper reckons by our clock, which is the one that the SDKs on this machine have.
 */
#include <string.h>

#include "kt/json.h"
#include "kt/text.h"

#include "keeper/deliver/deliver_internal.h"

#define FILE_MAX (256u << 10)

struct session {
	json_t *json;
	const char *key_id, *secret_key, *token;
};

static void session_finish(struct session *session)
{
	json_decref(session->json);
}

#define AUTOSESSION __attribute__((cleanup(session_finish)))

static enum kt_code session_read(const struct kt_material_view *m, struct session *ret, struct kt_err *err)
{
	if (!m->token || !m->token_type || strcmp(m->token_type, "AWS") != 0)
		return kt_err_set(err, KT_E_INVALID, "this is a token, not a session of AWS: its issuer is no aws one");
	if (kt_json_parse(kt_secret_view(m->token), FILE_MAX, &ret->json, NULL) != KT_OK)
		return kt_err_set(err, KT_E_CORRUPT, "the session is damaged");
	ret->key_id = kt_json_str(ret->json, "AccessKeyId");
	ret->secret_key = kt_json_str(ret->json, "SecretAccessKey");
	ret->token = kt_json_str(ret->json, "SessionToken");
	return ret->key_id && ret->secret_key && ret->token ? KT_OK : kt_err_set(err, KT_E_CORRUPT, "the session is damaged");
}

static enum kt_code finish(struct kt_buf *out, const char *what, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err)
{
	enum kt_code code = kt_buf_check(out, what, err);

	if (code == KT_OK)
		code = kt_secret_from_buf(out, owned, err);
	if (code == KT_OK)
		*ret = kt_secret_view(*owned);
	return code;
}

static void add_member(struct kt_buf *out, const char *name, const char *value)
{
	kt_buf_addf(out, "%s\"%s\":", out->len && out->ptr[out->len - 1] != '{' ? "," : "", name);
	kt_buf_add_json(out, kt_view_str(value));
}

/* token_name: what the reader calls the session token. */
static enum kt_code write_json(const struct kt_material_view *m, const char *start, const char *token_name, const char *what,
                               struct kt_view *ret, struct kt_secret **owned, struct kt_err *err)
{
	struct session session AUTOSESSION = {0};
	struct kt_buf KT_AUTOBUF out;
	char when[32];
	enum kt_code code = session_read(m, &session, err);

	kt_buf_init(&out, FILE_MAX);
	if (code != KT_OK)
		return code;
	kt_buf_adds(&out, start);
	add_member(&out, "AccessKeyId", session.key_id);
	add_member(&out, "SecretAccessKey", session.secret_key);
	add_member(&out, token_name, session.token);
	add_member(&out, "Expiration", kt_time_format(m->expires_at, when));
	kt_buf_adds(&out, "}\n");
	return finish(&out, what, ret, owned, err);
}

/* What a credential_process prints. */
enum kt_code kt_aws_format_process(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                   struct kt_err *err)
{
	return write_json(m, "{\"Version\":1", "SessionToken", "aws-process.json", ret, owned, err);
}

/* What the container credentials endpoint answers. */
enum kt_code kt_aws_format_container(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                     struct kt_err *err)
{
	return write_json(m, "{", "Token", "aws-container.json", ret, owned, err);
}

/* A shared credentials file: values to the end of the line, without quotes. */
enum kt_code kt_aws_format_credentials(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                       struct kt_err *err)
{
	struct session session AUTOSESSION = {0};
	struct kt_buf KT_AUTOBUF out;
	char when[32];
	enum kt_code code = session_read(m, &session, err);

	kt_buf_init(&out, FILE_MAX);
	if (code != KT_OK)
		return code;
	kt_buf_addf(&out, "# until %s\n[%s]\n", kt_time_format(m->expires_at, when), m->aws_profile ? m->aws_profile : "default");
	kt_buf_addf(&out, "aws_access_key_id = %s\naws_secret_access_key = %s\n", session.key_id, session.secret_key);
	kt_buf_addf(&out, "aws_session_token = %s\n", session.token);
	return finish(&out, "aws-credentials", ret, owned, err);
}

void kt_aws_endpoint_token(const struct kt_secret *session, char out[KT_AWS_ENDPOINT_TOKEN])
{
	static const char purpose[] = "keyturn listener aws\n";
	struct kt_view text = kt_secret_view(session);
	uint8_t digest[KT_SHA256_LEN];
	struct kt_sha256 sha;

	out[0] = '\0';
	if (kt_sha256_init(&sha, NULL) != KT_OK)
		return;
	kt_sha256_add(&sha, purpose, sizeof(purpose));
	kt_sha256_add(&sha, text.ptr, text.len);
	kt_sha256_finish(&sha, digest);
	for (size_t i = 0; i < sizeof(digest); i++) {
		out[2 * i] = "0123456789abcdef"[digest[i] >> 4];
		out[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
	}
	out[2 * sizeof(digest)] = '\0';
	kt_wipe(digest, sizeof(digest));
}

/* For AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: SDKs take the file as it is. */
enum kt_code kt_aws_format_endpoint(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                    struct kt_err *err)
{
	struct session session AUTOSESSION = {0};
	char token[KT_AWS_ENDPOINT_TOKEN];
	enum kt_code code = session_read(m, &session, err);

	if (code != KT_OK)
		return code;
	kt_aws_endpoint_token(m->token, token);
	if (token[0] == '\0')
		return kt_err_set(err, KT_E_NOMEM, "no memory for aws-endpoint-token");
	code = kt_secret_create(token, strlen(token), owned, err);
	kt_wipe(token, sizeof(token));
	if (code == KT_OK)
		*ret = kt_secret_view(*owned);
	return code;
}
