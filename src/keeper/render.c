/* From a material, in flight or in force, to the files of its secret. */
#include <stdio.h>
#include <string.h>

#include "kt/text.h"
#include "keeper/client/client.h"
#include "keeper/render.h"

void kt_rendered_finish(struct kt_rendered *out)
{
	kt_fileset_finish(&out->files);
	kt_secret_destroy(out->key_pem);
	kt_secret_destroy(out->token);
	kt_secret_destroy(out->password);
	kt_secret_destroy(out->jks_password);
	kt_store_material_finish(&out->row);
	kt_store_resource_finish(&out->resource);
	kt_resource_destroy(out->spec);
}

static enum kt_code store_password(struct kt_keeper *keeper, const struct kt_resource *spec,
                                   const struct kt_secret_ref *ref, const char *plain, struct kt_secret **ret,
                                   struct kt_err *err)
{
	if (ref != NULL) {
		return kt_issuers_secret(keeper, spec->meta.ns, ref->name, ref->key, ret, err);
	}
	return kt_secret_create(plain, strlen(plain), ret, err);
}

#define NAMES_MAX 12u

/* secretsGroup and secretsMode are for those who use a certificate or token: the key of a CA is for nobody but us. */
static struct kt_render_options render_options(const struct kt_keeper *keeper, const struct kt_resource *spec)
{
	struct kt_render_options options = KT_RENDER_DEFAULT;
	bool ca = spec->kind == KT_RES_CERTIFICATE && spec->certificate.is_ca;

	options.gid = keeper->volume_policy.gid;
	options.mode_public = 0644;
	options.mode_secret = keeper->secrets_mode != 0 && !ca ? keeper->secrets_mode : 0600;
	return options;
}

/* The files beyond the standard ones (certificate), or all of them (token, client; has_key: it has one). Returns how many. */
static size_t extra_names(const struct kt_resource *spec, bool has_ca, bool has_key, const char *names[NAMES_MAX])
{
	const struct kt_output_formats *formats = &spec->certificate.additional_output_formats;
	const struct kt_pkcs12 *pkcs12;
	const struct kt_jks *jks;
	size_t count = 0;
	uint32_t i;

	if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		names[0] = "client-id";
		names[1] = has_key ? "tls.key" : "client-secret";
		names[2] = has_key ? "client.jwk" : "credentials.json";
		return 3;
	}
	if (spec->kind == KT_RES_TOKEN) {
		static const char *const outputs[] = {"token",     "header",     "token.json", "curl.conf",
		                                      "token.env", "envoy.yaml", "flex.yaml",  "aws-process.json",
		                                      "aws-credentials", "aws-endpoint-token"}; /* in the order of the bits */

		for (i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++) {
			if ((spec->token.outputs & 1u << i) != 0) {
				names[count++] = outputs[i];
			}
		}
		if (has_key) {
			names[count++] = "dpop.key";
			names[count++] = "dpop.jwk";
		}
		return count;
	}
	for (i = 0; i < formats->count && count < 4; i++) {
		names[count++] = formats->items[i].type == KT_OUTPUT_DER ? "key.der" : "tls-combined.pem";
	}
	pkcs12 = spec->certificate.keystores.pkcs12;
	if (pkcs12 != NULL && pkcs12->create) {
		names[count++] = "keystore.p12";
		if (has_ca) {
			names[count++] = "truststore.p12";
		}
	}
	jks = spec->certificate.keystores.jks;
	if (jks != NULL && jks->create) {
		names[count++] = "keystore.jks";
		if (has_ca) {
			names[count++] = "truststore.jks";
		}
	}
	return count;
}

static enum kt_code render_certificate(struct kt_keeper *keeper, const struct kt_resource *spec,
                                       const struct kt_key *key, struct kt_view chain, struct kt_view ca,
                                       struct kt_rendered *out, struct kt_err *err)
{
	static const enum kt_p12_profile profiles[] = {KT_P12_LEGACY_RC2, KT_P12_LEGACY_DES, KT_P12_MODERN_2023,
	                                               KT_P12_MODERN_2026};
	const struct kt_certificate_spec *cert = &spec->certificate;
	const struct kt_pkcs12 *pkcs12 = cert->keystores.pkcs12;
	const struct kt_jks *jks = cert->keystores.jks;
	struct kt_render_options options = render_options(keeper, spec);
	struct kt_material_view view = {.kind = KT_MATERIAL_CERTIFICATE, .chain_pem = chain, .ca_pem = ca};
	const char *names[NAMES_MAX];
	size_t count = extra_names(spec, ca.len > 0, true, names);
	enum kt_code code;

	code = kt_pki_key_to_pem(key, cert->private_key.encoding == KT_KEYENC_PKCS1 ? KT_KEY_PKCS1 : KT_KEY_PKCS8,
	                         &out->key_pem, err);
	if (code != KT_OK) {
		return code;
	}
	view.key_pem = out->key_pem;
	if (pkcs12 != NULL && pkcs12->create) {
		code = store_password(keeper, spec, pkcs12->password_ref, pkcs12->password, &out->password, err);
		if (code != KT_OK) {
			return code;
		}
		view.pkcs12_password = out->password;
		view.pkcs12_profile = (int)profiles[pkcs12->profile];
	}
	if (jks != NULL && jks->create) {
		code = store_password(keeper, spec, jks->password_ref, jks->password, &out->jks_password, err);
		if (code != KT_OK) {
			return code;
		}
		view.jks_password = out->jks_password;
		view.jks_alias = jks->alias;
	}
	return kt_format_render_set(&view, names, count, &options, &out->files, err);
}

const char *kt_render_token_type(const char *cookie, char type[KT_TOKEN_TYPE_SIZE])
{
	const char *tab = cookie != NULL ? strchr(cookie, '\t') : NULL;

	(void)snprintf(type, KT_TOKEN_TYPE_SIZE, "%.*s", tab != NULL ? (int)(tab - cookie) : 6, tab != NULL ? cookie : "Bearer");
	return tab != NULL ? tab + 1 : cookie != NULL ? cookie : "";
}

static struct kt_material_view token_view(const struct kt_resource *spec, const struct kt_secret *token, const char *type,
                                          const char *scope, kt_ms from, kt_ms to)
{
	const struct kt_strings *audiences = &spec->token.audiences;

	return (struct kt_material_view){.kind = KT_MATERIAL_TOKEN,
	                                 .token = token,
	                                 .token_type = type,
	                                 .issued_at = from,
	                                 .expires_at = to,
	                                 .secret_name = spec->token.secret_name,
	                                 .scope = scope,
	                                 .audiences = (const char *const *)audiences->items,
	                                 .audience_count = audiences->count,
	                                 .aws_profile = spec->token.aws_profile};
}

/* key: of DPoP, or NULL. */
static enum kt_code render_token(struct kt_keeper *keeper, const struct kt_resource *spec, const struct kt_secret *token,
                                 const struct kt_key *key, const char *type, const char *scope, kt_ms from, kt_ms to,
                                 struct kt_rendered *out, struct kt_err *err)
{
	struct kt_render_options options = render_options(keeper, spec);
	struct kt_material_view view = token_view(spec, token, type, scope, from, to);
	const char *names[NAMES_MAX];
	size_t count = extra_names(spec, false, key != NULL, names);
	enum kt_code code = key != NULL ? kt_pki_key_to_pem(key, KT_KEY_PKCS8, &out->key_pem, err) : KT_OK;

	view.key_pem = out->key_pem;
	return code == KT_OK ? kt_format_render_set(&view, names, count, &options, &out->files, err) : code;
}

/* key: NULL where the client has a secret. */
static enum kt_code render_client(struct kt_keeper *keeper, const struct kt_resource *spec, const struct kt_secret *pair,
                                  const struct kt_key *key, struct kt_rendered *out, struct kt_err *err)
{
	struct kt_render_options options = render_options(keeper, spec);
	struct kt_material_view view = {.kind = key != NULL ? KT_MATERIAL_CLIENT_KEY : KT_MATERIAL_CLIENT};
	enum kt_code code = key != NULL ? kt_pki_key_to_pem(key, KT_KEY_PKCS8, &out->key_pem, err) : KT_OK;

	if (code != KT_OK) {
		return code;
	}
	view.key_pem = out->key_pem;
	view.key_alg = spec->client.private_key != NULL ? kt_assertion_alg_name(spec->client.private_key->algorithm) : NULL;
	return kt_client_pair_split(pair, &view.client, &view.client_secret)
	               ? kt_format_render_set(&view, NULL, 0, &options, &out->files, err)
	               : kt_err_set(err, KT_E_CORRUPT, "secret %s is no client's id and secret", spec->client.secret_name);
}

enum kt_code kt_render_flight(struct kt_flight *flight, struct kt_rendered *out, struct kt_err *err)
{
	const struct kt_obtained *got = &flight->got;

	kt_fileset_init(&out->files);
	if (flight->spec->kind == KT_RES_TOKEN) {
		return render_token(flight->keeper, flight->spec, got->token, flight->key, got->token_type, got->scope,
		                    got->not_before, got->not_after, out, err);
	}
	if (flight->spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		return render_client(flight->keeper, flight->spec, got->token, flight->key, out, err);
	}
	return render_certificate(flight->keeper, flight->spec, flight->key, kt_view_str(got->chain_pem),
	                          kt_view_str(got->ca_pem), out, err);
}

enum kt_code kt_render_current(struct kt_keeper *keeper, const char *ns, const char *name, struct kt_rendered *out,
                               struct kt_err *err)
{
	struct kt_store_cred cred;
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_seal_id id;
	bool token;
	enum kt_code code = kt_store_cred_find_secret(keeper->store, ns, name, &cred, err);

	kt_fileset_init(&out->files);
	if (code != KT_OK) {
		return code;
	}
	code = cred.active != 0 ? kt_store_material_get(keeper->store, cred.active, &out->row, err)
	                        : kt_err_set(err, KT_E_NOTFOUND, "secret %s is not issued yet", name);
	if (code == KT_OK) {
		code = kt_store_resource_get(keeper->store, cred.id, &out->resource, err);
	}
	if (code == KT_OK) {
		code = kt_load_spec(&out->resource, &out->spec, err);
	}
	token = code == KT_OK && out->spec->kind != KT_RES_CERTIFICATE;
	kt_store_cred_finish(&cred);
	if (code != KT_OK) {
		return code;
	}
	id = kt_store_material_seal_id(&out->resource, out->row.revision, token ? "token" : "key");
	code = kt_keys_unseal(keeper->keys, &id, token ? out->row.sealed_token : out->row.sealed_key, &secret, err);
	if (code != KT_OK) {
		return code;
	}
	if (token) {
		char type[KT_TOKEN_TYPE_SIZE];
		const char *scope = kt_render_token_type(out->row.cookie, type);

		out->token = secret;
		secret = NULL;
		if (out->row.sealed_key.len > 0) {
			id = kt_store_material_seal_id(&out->resource, out->row.revision, "key");
			code = kt_keys_unseal(keeper->keys, &id, out->row.sealed_key, &secret, err);
			if (code == KT_OK) {
				code = kt_pki_key_from_der(kt_secret_view(secret), &key, err);
			}
		}
		if (code == KT_OK && out->spec->kind == KT_RES_CLIENT_CREDENTIAL) {
			return render_client(keeper, out->spec, out->token, key, out, err);
		}
		return code == KT_OK ? render_token(keeper, out->spec, out->token, key, type, scope, out->row.not_before,
		                                    out->row.not_after, out, err)
		                     : code;
	}
	code = kt_pki_key_from_der(kt_secret_view(secret), &key, err);
	return code == KT_OK ? render_certificate(keeper, out->spec, key, out->row.chain, out->row.ca, out, err) : code;
}

enum kt_code kt_render_token_text(struct kt_keeper *keeper, const struct kt_store_resource *row,
                                  const struct kt_store_material *material, const char *format, struct kt_buf *text,
                                  struct kt_err *err)
{
	struct kt_seal_id id = kt_store_material_seal_id(row, material->revision, "token");
	const struct kt_format *found;
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_fileset files KT_AUTOFILESET = {0};
	char type[KT_TOKEN_TYPE_SIZE];
	const char *scope = kt_render_token_type(material->cookie, type);
	struct kt_resource *spec = NULL;
	enum kt_code code;

	kt_fileset_init(&files);
	if (strcmp(type, "AWS") == 0 && (strcmp(format, "raw") == 0 || strcmp(format, "json") == 0)) {
		format = "aws-credential-process"; /* a session has no shorter form */
	}
	found = kt_format_find(KT_MATERIAL_TOKEN, format);
	if (found != NULL && strcmp(type, "AWS") == 0 && !kt_starts_with(format, "aws-")) {
		return kt_err_set(err, KT_E_INVALID, "this is a session of AWS: its formats are aws-credential-process, "
		                  "aws-credentials and aws-endpoint-token");
	}
	if (found == NULL) {
		return kt_err_set(err, KT_E_INVALID, "there is no format %s for a token", format);
	}
	code = kt_load_spec(row, &spec, err);
	if (code == KT_OK) {
		code = kt_keys_unseal(keeper->keys, &id, material->sealed_token, &token, err);
	}
	if (code == KT_OK) {
		struct kt_material_view view =
		        token_view(spec, token, type, scope, material->not_before, material->not_after);

		view.now = kt_keeper_now(keeper);
		code = kt_format_render(found, &view, NULL, &files, err);
		if (code == KT_OK && files.count == 1) {
			kt_buf_addv(text, files.files[0].bytes);
			code = kt_buf_check(text, "the token", err);
		}
	}
	kt_resource_destroy(spec);
	return code;
}

enum kt_code kt_render_expected(const struct kt_keeper *keeper, const struct kt_resource *spec,
                                const struct kt_store_material *material, struct kt_fileset *files,
                                struct kt_err *err)
{
	bool client = spec->kind == KT_RES_CLIENT_CREDENTIAL, token = spec->kind == KT_RES_TOKEN;
	bool has_key = material->sealed_key.len > 0;
	enum kt_material_kind kind = token                ? KT_MATERIAL_TOKEN
	                             : client && has_key ? KT_MATERIAL_CLIENT_KEY
	                             : client            ? KT_MATERIAL_CLIENT
	                                                 : KT_MATERIAL_CERTIFICATE;
	struct kt_render_options options = render_options(keeper, spec);
	const char *names[NAMES_MAX + 3];
	size_t count = extra_names(spec, material->ca.len > 0, has_key, names);
	enum kt_code code = KT_OK;
	size_t i;

	if (kind == KT_MATERIAL_CERTIFICATE) {
		names[count++] = "tls.crt";
		names[count++] = "tls.key";
		if (material->ca.len > 0) {
			names[count++] = "ca.crt";
		}
	}
	for (i = 0; i < count && code == KT_OK; i++) {
		const struct kt_format *format = kt_format_find(kind, names[i]);

		code = kt_fileset_add(files, names[i], (struct kt_view){NULL, 0}, format->secret ? options.mode_secret : options.mode_public,
		                      options.uid, options.gid, err);
	}
	return code;
}
