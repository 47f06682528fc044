/* Delivery formats: one table from material to files, and the list of files that a volume is made from. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#include "keeper/deliver/deliver_internal.h"

#define TRUST_STORE_MAX (256u << 10)

/* ---- the list ---- */

struct kt_fileset_owned {
	void *memory;
	struct kt_secret *secret;
};

void kt_fileset_init(struct kt_fileset *set)
{
	*set = (struct kt_fileset){0};
}

void kt_fileset_finish(struct kt_fileset *set)
{
	for (size_t i = 0; i < set->owned_count; i++) {
		kt_free(set->owned[i].memory);
		kt_secret_destroy(set->owned[i].secret);
	}
	kt_free(set->owned);
	kt_free(set->files);
	*set = (struct kt_fileset){0};
}

/* Room for one more element; doubles. */
static enum kt_code grow(void **array, size_t *cap, size_t count, size_t size, struct kt_err *err)
{
	size_t next = *cap ? *cap * 2 : 8;
	void *grown;

	if (count < *cap)
		return KT_OK;
	grown = kt_realloc(*array, next * size);
	if (!grown)
		return kt_err_set(err, KT_E_NOMEM, "a set of files: out of memory");
	*array = grown;
	*cap = next;
	return KT_OK;
}

/* The set owns memory and secret from here on, also when this fails. */
static enum kt_code own(struct kt_fileset *set, void *memory, struct kt_secret *secret, struct kt_err *err)
{
	void *array = set->owned;
	enum kt_code code = grow(&array, &set->owned_cap, set->owned_count, sizeof(*set->owned), err);

	set->owned = array;
	if (code == KT_OK) {
		set->owned[set->owned_count++] = (struct kt_fileset_owned){memory, secret};
	} else {
		kt_free(memory);
		kt_secret_destroy(secret);
	}
	return code;
}

const struct kt_volume_file *kt_fileset_find(const struct kt_fileset *set, const char *path)
{
	for (size_t i = 0; i < set->count; i++) {
		if (strcmp(set->files[i].path, path) == 0)
			return &set->files[i];
	}
	return NULL;
}

/* path must live as long as the set. */
static enum kt_code add_borrowed(struct kt_fileset *set, const char *path, struct kt_view bytes, mode_t mode, uid_t uid,
                                 gid_t gid, struct kt_err *err)
{
	void *array = set->files;
	enum kt_code code;

	if (kt_fileset_find(set, path))
		return kt_err_set(err, KT_E_EXISTS, "%s comes from two sources of one volume", path);
	if (set->count >= KT_VOLUME_FILES_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a volume may have %d files", KT_VOLUME_FILES_MAX);
	code = grow(&array, &set->cap, set->count, sizeof(*set->files), err);
	set->files = array;
	if (code == KT_OK)
		set->files[set->count++] =
		        (struct kt_volume_file){.path = path, .bytes = bytes, .mode = mode, .uid = uid, .gid = gid};
	return code;
}

enum kt_code kt_fileset_add(struct kt_fileset *set, const char *path, struct kt_view bytes, mode_t mode, uid_t uid,
                            gid_t gid, struct kt_err *err)
{
	char *copy;
	enum kt_code code = kt_deliver_path_check(path, err);

	if (code != KT_OK)
		return code;
	copy = kt_strdup(path);
	if (!copy)
		return kt_err_set(err, KT_E_NOMEM, "%s: out of memory", path);
	code = own(set, copy, NULL, err);
	return code == KT_OK ? add_borrowed(set, copy, bytes, mode, uid, gid, err) : code;
}

/* ---- certificates ---- */

static enum kt_code need_key(const struct kt_material_view *m, const char *what, struct kt_err *err)
{
	return m->key_pem ? KT_OK : kt_err_set(err, KT_E_INVALID, "%s needs the private key", what);
}

static enum kt_code render_chain(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                 struct kt_err *err)
{
	(void)owned;
	*ret = m->chain_pem;
	return ret->len ? KT_OK : kt_err_set(err, KT_E_INVALID, "tls.crt needs a certificate");
}

static enum kt_code render_key(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                               struct kt_err *err)
{
	enum kt_code code = need_key(m, "tls.key", err);

	(void)owned;
	if (code == KT_OK)
		*ret = kt_secret_view(m->key_pem);
	return code;
}

static enum kt_code render_ca(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                              struct kt_err *err)
{
	(void)owned;
	(void)err;
	*ret = m->ca_pem;
	return KT_OK;
}

static bool ends_line(struct kt_view text)
{
	return text.len && text.ptr[text.len - 1] == '\n';
}

/* Key first, then the chain: servers that read one file (haproxy) stop looking for the key after the chain. */
static enum kt_code render_combined(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                    struct kt_err *err)
{
	struct kt_view key;
	size_t gap;
	char *out;
	enum kt_code code = need_key(m, "tls-combined.pem", err);

	if (code != KT_OK)
		return code;
	if (!m->chain_pem.len)
		return kt_err_set(err, KT_E_INVALID, "tls-combined.pem needs a certificate");
	key = kt_secret_view(m->key_pem);
	gap = ends_line(key) ? 0 : 1;
	code = kt_secret_alloc(key.len + gap + m->chain_pem.len, owned, err);
	if (code != KT_OK)
		return code;
	out = kt_secret_edit(*owned);
	memcpy(out, key.ptr, key.len);
	if (gap)
		out[key.len] = '\n';
	memcpy(out + key.len + gap, m->chain_pem.ptr, m->chain_pem.len);
	*ret = kt_secret_view(*owned);
	return KT_OK;
}

/* The body of the key's PEM block as it is: key.der is in the same encoding (PKCS#1 or PKCS#8) as tls.key. */
static enum kt_code render_der(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                               struct kt_err *err)
{
	struct kt_buf KT_AUTOBUF body;
	struct kt_buf KT_AUTOBUF der;
	struct kt_view pem;
	const char *at, *end;
	enum kt_code code = need_key(m, "key.der", err);

	kt_buf_init(&body, 64 << 10);
	kt_buf_init(&der, 64 << 10);
	if (code != KT_OK)
		return code;
	pem = kt_secret_view(m->key_pem);
	at = memmem(pem.ptr, pem.len, "-----BEGIN ", 11);
	at = at ? memchr(at, '\n', pem.len - (size_t)(at - pem.ptr)) : NULL;
	end = at ? memmem(at, pem.len - (size_t)(at - pem.ptr), "-----END ", 9) : NULL;
	if (!end)
		return kt_err_set(err, KT_E_CORRUPT, "key.der: the stored key is not PEM");
	for (; at < end; at++) {
		if (*at != '\n' && *at != '\r')
			kt_buf_addc(&body, *at);
	}
	code = kt_buf_check(&body, "key.der", err);
	if (code == KT_OK)
		code = kt_base64_decode(kt_buf_view(&body), &der, err);
	if (code == KT_OK)
		code = kt_buf_check(&der, "key.der", err);
	if (code == KT_OK)
		code = kt_secret_from_buf(&der, owned, err);
	if (code == KT_OK)
		*ret = kt_secret_view(*owned);
	return code;
}

static enum kt_code need_password(const struct kt_secret *password, const char *what, struct kt_err *err)
{
	return password ? KT_OK : kt_err_set(err, KT_E_INVALID, "%s needs a password", what);
}

/* What a key store `file` holds. */
static enum kt_code store_parts(const struct kt_material_view *m, const char *file, const struct kt_secret *password,
                                struct kt_key **ret_key, struct kt_chain **ret_chain, struct kt_err *err)
{
	enum kt_code code = need_key(m, file, err);

	if (code == KT_OK)
		code = need_password(password, file, err);
	if (code == KT_OK)
		code = kt_pki_key_from_pem(kt_secret_view(m->key_pem), ret_key, err);
	if (code == KT_OK)
		code = kt_pki_chain_parse(m->chain_pem, ret_chain, err);
	return code;
}

/* What a trust store `file` holds; *ret stays NULL, without an error, where there is no CA: then there is no file. */
static enum kt_code trust_parts(const struct kt_material_view *m, const char *file, const struct kt_secret *password,
                                struct kt_chain **ret, struct kt_err *err)
{
	enum kt_code code;

	if (!m->ca_pem.len)
		return KT_OK;
	code = need_password(password, file, err);
	return code == KT_OK ? kt_pki_chain_parse(m->ca_pem, ret, err) : code;
}

/* Hands a finished store over, view and owner. */
static enum kt_code hand_over(enum kt_code code, struct kt_buf *bytes, struct kt_view *ret, struct kt_secret **owned,
                              struct kt_err *err)
{
	if (code == KT_OK && bytes != NULL)
		code = kt_secret_from_buf(bytes, owned, err);
	if (code == KT_OK)
		*ret = kt_secret_view(*owned);
	return code;
}

static enum kt_code render_keystore(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                    struct kt_err *err)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	enum kt_code code = store_parts(m, "keystore.p12", m->pkcs12_password, &key, &chain, err);

	if (code == KT_OK)
		code = kt_pki_p12_keystore(key, chain, m->pkcs12_alias, m->pkcs12_password, m->pkcs12_profile, owned, err);
	return hand_over(code, NULL, ret, owned, err);
}

static enum kt_code render_jks_keystore(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                        struct kt_err *err)
{
	struct kt_key *key KT_AUTOKEY = NULL;
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	enum kt_code code = store_parts(m, "keystore.jks", m->jks_password, &key, &chain, err);

	if (code == KT_OK)
		code = kt_pki_jks_keystore(key, chain, m->jks_alias, m->jks_password, owned, err);
	return hand_over(code, NULL, ret, owned, err);
}

static enum kt_code render_truststore(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                      struct kt_err *err)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	struct kt_buf KT_AUTOBUF out;
	enum kt_code code = trust_parts(m, "truststore.p12", m->pkcs12_password, &chain, err);

	kt_buf_init(&out, TRUST_STORE_MAX);
	if (code != KT_OK || chain == NULL)
		return code;
	code = kt_pki_p12_truststore(chain, m->pkcs12_password, m->pkcs12_profile, &out, err);
	return hand_over(code, &out, ret, owned, err);
}

static enum kt_code render_jks_truststore(const struct kt_material_view *m, struct kt_view *ret, struct kt_secret **owned,
                                          struct kt_err *err)
{
	struct kt_chain *chain KT_AUTOCHAIN = NULL;
	struct kt_buf KT_AUTOBUF out;
	enum kt_code code = trust_parts(m, "truststore.jks", m->jks_password, &chain, err);

	kt_buf_init(&out, TRUST_STORE_MAX);
	if (code != KT_OK || chain == NULL)
		return code;
	code = kt_pki_jks_truststore(chain, m->jks_password, &out, err);
	return hand_over(code, &out, ret, owned, err);
}

/* ---- the table ---- */

const struct kt_format kt_formats[] = {
        {"Certificate", "tls.crt", KT_MATERIAL_CERTIFICATE, .standard = true, .render = render_chain},
        {"PrivateKey", "tls.key", KT_MATERIAL_CERTIFICATE, .secret = true, .standard = true, .render = render_key},
        {"CA", "ca.crt", KT_MATERIAL_CERTIFICATE, .standard = true, .render = render_ca},
        {"CombinedPEM", "tls-combined.pem", KT_MATERIAL_CERTIFICATE, .secret = true, .render = render_combined},
        {"DER", "key.der", KT_MATERIAL_CERTIFICATE, .secret = true, .render = render_der},
        {"PKCS12", "keystore.p12", KT_MATERIAL_CERTIFICATE, .secret = true, .render = render_keystore},
        {"PKCS12", "truststore.p12", KT_MATERIAL_CERTIFICATE, .render = render_truststore},
        {"JKS", "keystore.jks", KT_MATERIAL_CERTIFICATE, .secret = true, .render = render_jks_keystore},
        {"JKS", "truststore.jks", KT_MATERIAL_CERTIFICATE, .render = render_jks_truststore},
        {"raw", "token", KT_MATERIAL_TOKEN, .secret = true, .standard = true, .render = kt_token_raw},
        {"header", "header", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_header},
        {"json", "token.json", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_json},
        {"curl", "curl.conf", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_curl},
        {"env", "token.env", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_env},
        {"envoy", "envoy.yaml", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_envoy},
        {"flex", "flex.yaml", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_flex},
        {"dpop-key", "dpop.key", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_dpop_key},
        {"dpop-jwk", "dpop.jwk", KT_MATERIAL_TOKEN, .render = kt_token_dpop_jwk},
        /* Of the command only: a volume has the same bytes as `token`. */
        {"aws-web-identity", "web-identity-token", KT_MATERIAL_TOKEN, .secret = true, .render = kt_token_web_identity},
        {"aws-credential-process", "aws-process.json", KT_MATERIAL_TOKEN, .secret = true, .render = kt_aws_format_process},
        {"aws-credentials", "aws-credentials", KT_MATERIAL_TOKEN, .secret = true, .render = kt_aws_format_credentials},
        {"aws-endpoint-token", "aws-endpoint-token", KT_MATERIAL_TOKEN, .secret = true, .render = kt_aws_format_endpoint},
        /* Of the listeners only. */
        {"aws-container", "aws-container.json", KT_MATERIAL_TOKEN, .secret = true, .render = kt_aws_format_container},
        {"client-id", "client-id", KT_MATERIAL_CLIENT, .secret = true, .standard = true, .render = kt_client_id},
        {"client-secret", "client-secret", KT_MATERIAL_CLIENT, .secret = true, .standard = true, .render = kt_client_secret},
        {"json", "credentials.json", KT_MATERIAL_CLIENT, .secret = true, .standard = true, .render = kt_client_json},
        {"client-id", "client-id", KT_MATERIAL_CLIENT_KEY, .secret = true, .standard = true, .render = kt_client_id},
        {"PrivateKey", "tls.key", KT_MATERIAL_CLIENT_KEY, .secret = true, .standard = true, .render = render_key},
        {"jwk", "client.jwk", KT_MATERIAL_CLIENT_KEY, .standard = true, .render = kt_client_jwk},
        {0},
};

static bool answers_to(const struct kt_format *format, enum kt_material_kind kind, const char *name)
{
	return format->kind == kind && (strcmp(format->name, name) == 0 || strcmp(format->file, name) == 0);
}

const struct kt_format *kt_format_find(enum kt_material_kind kind, const char *name)
{
	for (const struct kt_format *format = kt_formats; format->name; format++) {
		if (answers_to(format, kind, name))
			return format;
	}
	return NULL;
}

enum kt_code kt_format_render(const struct kt_format *format, const struct kt_material_view *material,
                              const struct kt_render_options *options, struct kt_fileset *set, struct kt_err *err)
{
	struct kt_render_options defaults = KT_RENDER_DEFAULT;
	struct kt_secret *owned = NULL;
	struct kt_view bytes = {NULL, 0};
	mode_t mode;
	enum kt_code code;

	if (!options)
		options = &defaults;
	if (format->kind != material->kind)
		return kt_err_set(err, KT_E_INVALID, "%s is no format for this kind of credential", format->name);
	code = format->render(material, &bytes, &owned, err);
	if (code != KT_OK) {
		kt_secret_destroy(owned);
		return code;
	}
	if (owned) {
		code = own(set, NULL, owned, err);
		if (code != KT_OK)
			return code;
	}
	if (!bytes.len)
		return KT_OK;
	if (format->secret)
		mode = options->mode_secret ? options->mode_secret : 0600;
	else
		mode = options->mode_public ? options->mode_public : 0644;
	return add_borrowed(set, format->file, bytes, mode, options->uid, options->gid, err);
}

static enum kt_code unknown_format(enum kt_material_kind kind, const char *name, struct kt_err *err)
{
	const char *names[sizeof(kt_formats) / sizeof(kt_formats[0])], *nearest;
	size_t n = 0;

	for (const struct kt_format *format = kt_formats; format->name; format++) {
		if (format->kind == kind)
			names[n++] = format->name;
	}
	names[n] = NULL;
	nearest = kt_nearest(name, names);
	return kt_err_set(err, KT_E_INVALID, "unknown output format %s%s%s%s", name, nearest ? "; did you mean " : "",
	                  nearest ? nearest : "", nearest ? "?" : "");
}

enum kt_code kt_format_render_set(const struct kt_material_view *material, const char *const *names, size_t count,
                                  const struct kt_render_options *options, struct kt_fileset *set, struct kt_err *err)
{
	bool standard = material->kind == KT_MATERIAL_CERTIFICATE || count == 0;
	enum kt_code code = KT_OK;

	for (size_t i = 0; i < count; i++) {
		if (!kt_format_find(material->kind, names[i]))
			return unknown_format(material->kind, names[i], err);
	}
	for (const struct kt_format *format = kt_formats; format->name && code == KT_OK; format++) {
		bool asked = standard && format->standard && format->kind == material->kind;

		for (size_t i = 0; i < count && !asked; i++)
			asked = answers_to(format, material->kind, names[i]);
		if (asked)
			code = kt_format_render(format, material, options, set, err);
	}
	return code;
}
