/*
 * What a token's files hold: the token alone, and around it what curl, a shell, systemd, Envoy and Flex Gateway read.
 *
 * A token comes from a server that nobody here controls. The keeper has made sure that it holds visible ASCII only, so
 * no line can end inside it; what is left is each reader's own quoting, and each writer below does that of its reader.
 */
#include <stdio.h>
#include <string.h>

#include "kt/jose.h"
#include "kt/text.h"

#include "keeper/deliver/deliver_internal.h"

#define HEADER_MAX (128u << 10)
#define QUOTED_MAX (256u << 10) /* every byte of a token may need another one before it */

static enum kt_code need_token(const struct kt_material_view *m, struct kt_err *err)
{
	return m->token ? KT_OK : kt_err_set(err, KT_E_INVALID, "the token is missing");
}

static enum kt_code need_named_token(const struct kt_material_view *m, const char *what, struct kt_err *err)
{
	if (!m->secret_name)
		return kt_err_set(err, KT_E_INVALID, "%s needs the secret's name", what);
	return need_token(m, err);
}

/*
 * The scheme of the Authorization header. token_type is case-insensitive (RFC 6749 section 5.1), but some resource
 * servers know only these spellings. N_A (RFC 8693 section 2.2.1) is what an exchange says of a token that is no access
 * token: no scheme of its own.
 */
static const char *scheme(const struct kt_material_view *m)
{
	struct kt_view type = kt_view_str(m->token_type);

	if (!type.len || kt_ascii_ieq(type, KT_VIEW_LIT("bearer")) || kt_ascii_ieq(type, KT_VIEW_LIT("n_a")))
		return "Bearer";
	return kt_ascii_ieq(type, KT_VIEW_LIT("dpop")) ? "DPoP" : m->token_type;
}

/* Ends a writer: what out holds becomes the file's bytes. */
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

/* "text" between double quotes, a backslash before each of the characters in special. */
static void add_quoted(struct kt_buf *out, struct kt_view text, const char *special)
{
	for (size_t i = 0; i < text.len; i++) {
		if (strchr(special, text.ptr[i]))
			kt_buf_addc(out, '\\');
		kt_buf_addc(out, text.ptr[i]);
	}
}

/* The value of the Authorization header as a JSON string, which is one of YAML as well. */
static void add_json_value(struct kt_buf *out, const struct kt_material_view *m)
{
	struct kt_buf KT_AUTOBUF value;

	kt_buf_init(&value, HEADER_MAX);
	kt_buf_addf(&value, "%s ", scheme(m));
	kt_buf_addv(&value, kt_secret_view(m->token));
	if (value.failed != KT_OK)
		out->failed = value.failed;
	else
		kt_buf_add_json(out, kt_buf_view(&value));
}

/* ---- for everybody ---- */

/* Raw, without a newline: readers put it into a header as it is. */
enum kt_code kt_token_raw(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                          struct kt_err *err)
{
	enum kt_code code = need_token(m, err);

	(void)owned;
	if (code == KT_OK)
		*ret = kt_secret_view(m->token);
	return code;
}

/* A whole header line without its end: curl -H @header takes it so. */
enum kt_code kt_token_header(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                             struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	enum kt_code code = need_token(m, err);

	kt_buf_init(&out, HEADER_MAX);
	if (code != KT_OK)
		return code;
	kt_buf_addf(&out, "Authorization: %s ", scheme(m));
	kt_buf_addv(&out, kt_secret_view(m->token));
	return finish(&out, "header", ret, owned, err);
}

static void add_member(struct kt_buf *out, const char *name, const char *text)
{
	kt_buf_add_json_member(out, name, text && *text ? text : NULL);
}

/* expires_at and issued_at as RFC 3339, exp as seconds since the epoch for readers without a date parser. */
enum kt_code kt_token_json(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	char when[32];
	enum kt_code code = need_token(m, err);

	kt_buf_init(&out, QUOTED_MAX);
	if (code != KT_OK)
		return code;
	kt_buf_adds(&out, "{\"access_token\":");
	kt_buf_add_json(&out, kt_secret_view(m->token));
	add_member(&out, "token_type", m->token_type && *m->token_type ? m->token_type : "Bearer");
	if (m->now > 0)
		kt_buf_addf(&out, ",\"expires_in\":%lld", (long long)((m->expires_at - m->now) / KT_SECOND));
	add_member(&out, "expires_at", kt_time_format(m->expires_at, when));
	kt_buf_addf(&out, ",\"exp\":%lld", (long long)(m->expires_at / KT_SECOND));
	if (m->issued_at > 0)
		add_member(&out, "issued_at", kt_time_format(m->issued_at, when));
	add_member(&out, "scope", m->scope);
	if (m->audience_count) {
		kt_buf_adds(&out, ",\"audience\":");
		kt_buf_add_json_list(&out, m->audiences, m->audience_count);
	}
	add_member(&out, "issuer", m->issuer);
	add_member(&out, "client_id", m->client_id);
	kt_buf_adds(&out, "}\n");
	return finish(&out, "token.json", ret, owned, err);
}

/* ---- curl --config ---- */

/* In double quotes curl knows \\ \" \t \n \r \v, and drops the backslash before anything else. */
enum kt_code kt_token_curl(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	enum kt_code code = need_token(m, err);

	kt_buf_init(&out, QUOTED_MAX);
	if (code != KT_OK)
		return code;
	kt_buf_adds(&out, "header = \"Authorization: ");
	add_quoted(&out, kt_view_str(scheme(m)), "\"\\");
	kt_buf_addc(&out, ' ');
	add_quoted(&out, kt_secret_view(m->token), "\"\\");
	kt_buf_adds(&out, "\"\n");
	return finish(&out, "curl.conf", ret, owned, err);
}

/* ---- sh and systemd's EnvironmentFile ---- */

/* In double quotes both take a backslash before exactly these four, and everything else as it is. */
static void add_variable(struct kt_buf *out, const char *name, struct kt_view value)
{
	kt_buf_addf(out, "%s=\"", name);
	add_quoted(out, value, "\"\\$`");
	kt_buf_adds(out, "\"\n");
}

enum kt_code kt_token_env(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                          struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	char when[32];
	enum kt_code code = need_token(m, err);

	kt_buf_init(&out, QUOTED_MAX);
	if (code != KT_OK)
		return code;
	add_variable(&out, "ACCESS_TOKEN", kt_secret_view(m->token));
	add_variable(&out, "TOKEN_TYPE", kt_view_str(scheme(m)));
	add_variable(&out, "EXPIRES_AT", kt_view_str(kt_time_format(m->expires_at, when)));
	return finish(&out, "token.env", ret, owned, err);
}

/* ---- Envoy ---- */

/*
 * What path_config_source of an SdsSecretConfig reads: a DiscoveryResponse with the secret of that name. It holds the
 * header's whole value, since the generic credential injector adds nothing to it. The version shows in Envoy's
 * config_dump and statistics: a fingerprint, so that a swap can be followed without the token.
 */
enum kt_code kt_token_envoy(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                            struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	char digest[KT_SHA256_HEX];
	struct kt_view token;
	enum kt_code code = need_named_token(m, "envoy.yaml", err);

	kt_buf_init(&out, QUOTED_MAX);
	if (code != KT_OK)
		return code;
	token = kt_secret_view(m->token);
	kt_sha256_hex(token.ptr, token.len, digest);
	kt_buf_addf(&out, "version_info: \"%.16s\"\nresources:\n", digest);
	kt_buf_adds(&out, "- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: ");
	kt_buf_add_json(&out, kt_view_str(m->secret_name));
	kt_buf_adds(&out, "\n  generic_secret:\n    secret:\n      inline_string: ");
	add_json_value(&out, m);
	kt_buf_addc(&out, '\n');
	return finish(&out, "envoy.yaml", ret, owned, err);
}

/* ---- Flex Gateway, local mode ---- */

static bool holds(struct kt_view text, const char *part)
{
	return memmem(text.ptr, text.len, part, strlen(part)) != NULL;
}

static void add_binding(struct kt_buf *out, const struct kt_material_view *m, const char *what, const char *policy,
                        int order)
{
	kt_buf_adds(out, "---\napiVersion: gateway.mulesoft.com/v1alpha1\nkind: PolicyBinding\nmetadata:\n  name: ");
	kt_buf_addf(out, "\"%s-%s\"\n", m->secret_name, what);
	kt_buf_adds(out, "spec:\n  targetRef:\n    kind: Selector\n    selector:\n      kind: ApiInstance\n"
	                 "      labels:\n        keyturn.dev/token: ");
	kt_buf_add_json(out, kt_view_str(m->secret_name));
	kt_buf_addf(out, "\n  policyRef:\n    name: %s\n    namespace: default\n  order: %d\n  config:\n    inboundHeaders:\n",
	            policy, order);
}

/*
 * Two bindings to every ApiInstance with the label keyturn.dev/token: first what the caller sent as Authorization is
 * taken away, since Header Injection only adds, then ours is put there. Both come after policies of the usual order (50),
 * which look at the caller's own. $NAME in a policy's configuration is an environment variable of the gateway, and #[...]
 * an expression that it evaluates: a token with such in it is refused, it can't be written down literally.
 */
enum kt_code kt_token_flex(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                           struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;
	struct kt_view type = kt_view_str(scheme(m));
	enum kt_code code = need_named_token(m, "flex.yaml", err);

	kt_buf_init(&out, QUOTED_MAX);
	if (code != KT_OK)
		return code;
	if (holds(kt_secret_view(m->token), "$") || holds(kt_secret_view(m->token), "#[") || holds(type, "$") ||
	    holds(type, "#["))
		return kt_err_set(err, KT_E_INVALID,
		                  "flex.yaml: the token holds $ or #[, which Flex Gateway would evaluate (spec.outputs)");
	add_binding(&out, m, "remove", "header-removal-flex", 900);
	kt_buf_adds(&out, "    - authorization\n");
	add_binding(&out, m, "inject", "header-injection-flex", 901);
	kt_buf_adds(&out, "    - key: authorization\n      value: ");
	add_json_value(&out, m);
	kt_buf_addc(&out, '\n');
	return finish(&out, "flex.yaml", ret, owned, err);
}

/* ---- DPoP ---- */

/* The private key, for consumers that make their proofs themselves (RFC 9449). */
enum kt_code kt_token_dpop_key(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                               struct kt_err *err)
{
	(void)owned;
	if (!m->key_pem)
		return kt_err_set(err, KT_E_INVALID, "dpop.key: the token has no key of its own (spec.dpop)");
	*ret = kt_secret_view(m->key_pem);
	return KT_OK;
}

/* The public half, as the header `jwk` of each proof has it. */
enum kt_code kt_token_dpop_jwk(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                               struct kt_err *err)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_buf KT_AUTOBUF out;
	enum kt_code code;

	kt_buf_init(&out, 8192);
	if (!m->key_pem)
		return kt_err_set(err, KT_E_INVALID, "dpop.jwk: the token has no key of its own (spec.dpop)");
	code = kt_pki_key_from_pem(kt_secret_view(m->key_pem), &key, err);
	if (code == KT_OK)
		code = kt_jose_jwk(key, &out, err);
	if (code == KT_OK)
		code = kt_buf_check(&out, "dpop.jwk", err);
	if (code == KT_OK)
		code = kt_secret_from_buf(&out, owned, err);
	if (code == KT_OK)
		*ret = kt_secret_view(*owned);
	return code;
}

/* ---- a client's id and secret ---- */

enum kt_code kt_client_id(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned, struct kt_err *err)
{
	(void)owned;
	(void)err;
	*ret = m->client;
	return KT_OK;
}

enum kt_code kt_client_secret(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                              struct kt_err *err)
{
	(void)owned;
	(void)err;
	*ret = m->client_secret;
	return KT_OK;
}

/* The public key with its kid, for who signs assertions by tls.key. */
enum kt_code kt_client_jwk(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned, struct kt_err *err)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_buf KT_AUTOBUF out;
	enum kt_jose_alg alg = m->key_alg ? kt_jose_alg_parse(m->key_alg) : KT_JOSE_NONE;
	enum kt_code code;

	kt_buf_init(&out, 8192);
	if (!m->key_pem)
		return kt_err_set(err, KT_E_INVALID, "client.jwk needs the client's key");
	code = kt_pki_key_from_pem(kt_secret_view(m->key_pem), &key, err);
	if (code == KT_OK)
		code = kt_jose_jwk_published(key, kt_jose_alg_fits(alg, key) ? alg : KT_JOSE_NONE, NULL, &out, err);
	return code == KT_OK ? finish(&out, "client.jwk", ret, owned, err) : code;
}

/* Both in one file, so that a reader never has one of each. */
enum kt_code kt_client_json(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                            struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF out;

	kt_buf_init(&out, QUOTED_MAX);
	kt_buf_adds(&out, "{\"client_id\":");
	kt_buf_add_json(&out, m->client);
	kt_buf_adds(&out, ",\"client_secret\":");
	kt_buf_add_json(&out, m->client_secret);
	kt_buf_adds(&out, "}\n");
	return finish(&out, "credentials.json", ret, owned, err);
}

/* ---- AWS ---- */

/* For AWS_WEB_IDENTITY_TOKEN_FILE: the JWT and nothing else. STS would only say InvalidIdentityToken later. */
enum kt_code kt_token_web_identity(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                   struct kt_err *err)
{
	struct kt_jwt jwt;
	enum kt_code code = need_token(m, err);

	(void)owned;
	if (code != KT_OK)
		return code;
	if (kt_jose_jwt_peek(kt_secret_view(m->token), &jwt, NULL) != KT_OK)
		return kt_err_set(err, KT_E_INVALID, "the token is no JWT: AWS takes nothing else as a web identity");
	kt_jose_jwt_finish(&jwt);
	*ret = kt_secret_view(m->token);
	return KT_OK;
}
