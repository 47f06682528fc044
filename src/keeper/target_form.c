/* What is uploaded: keystores as the form fields that Secrets Manager takes, within its limits; and what it shows of them. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "kt/text.h"
#include "keeper/target.h"

/* Bytes that the service takes in each field, as its API description has them. */
#define CERTIFICATE_MAX 4096u
#define KEY_MAX         6144u
#define CAPATH_MAX      28672u
#define STORE_MAX       40960u
#define FORM_MAX        65536u
#define SERIAL_DIGITS   40u /* of 20 bytes (RFC 5280 section 4.1.2.2) */
#define SERIAL_TEXT     80u
#define PASSPHRASE      24u /* random bytes */

static const char end_mark[] = "-----END CERTIFICATE-----";

/* The first certificate of a PEM text, and what comes after it. */
static void split(struct kt_view chain, struct kt_view *leaf, struct kt_view *rest)
{
	const char *end = memmem(chain.ptr, chain.len, end_mark, sizeof(end_mark) - 1);
	size_t len = end != NULL ? (size_t)(end - chain.ptr) + sizeof(end_mark) - 1 : chain.len;

	while (len < chain.len && (chain.ptr[len] == '\n' || chain.ptr[len] == '\r')) {
		len++;
	}
	*leaf = (struct kt_view){chain.ptr, len};
	*rest = (struct kt_view){chain.ptr + len, chain.len - len};
}

struct form {
	struct kt_buf *out;
	const char *boundary;
};

static void put_text(const struct form *form, const char *name, const char *value)
{
	kt_buf_addf(form->out, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", form->boundary, name,
	            value);
}

static void put_file(const struct form *form, const char *name, const char *file, struct kt_view bytes)
{
	kt_buf_addf(form->out,
	            "--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\n"
	            "Content-Type: application/octet-stream\r\n\r\n",
	            form->boundary, name, file);
	kt_buf_addv(form->out, bytes);
	kt_buf_adds(form->out, "\r\n");
}

/* A set as three PEM texts, each within its limit. init/finish. */
struct parts {
	struct kt_view leaf;
	struct kt_buf path; /* the rest of the chain, with the root where it is known */
	struct kt_secret *key;
};

static void parts_finish(struct parts *parts)
{
	kt_buf_finish(&parts->path);
	kt_secret_destroy(parts->key);
}

static enum kt_code check_size(const char *name, size_t len, size_t max, struct kt_err *err)
{
	return len <= max ? KT_OK
	                  : kt_err_set(err, KT_E_LIMIT,
	                               "field %s has %zu bytes, the service takes %zu: use a smaller key or a shorter chain",
	                               name, len, max);
}

static enum kt_code parts_init(struct parts *parts, const struct kt_key *key, struct kt_view chain, struct kt_view ca,
                               const struct kt_secret *passphrase, struct kt_err *err)
{
	struct kt_view rest;
	enum kt_code code;

	*parts = (struct parts){.key = NULL};
	kt_buf_init(&parts->path, 4 * CAPATH_MAX);
	split(chain, &parts->leaf, &rest);
	kt_buf_addv(&parts->path, rest);
	if (ca.len > 0 && (rest.len == 0 || memmem(rest.ptr, rest.len, ca.ptr, ca.len) == NULL)) {
		kt_buf_addv(&parts->path, ca);
	}
	code = kt_buf_check(&parts->path, "the chain", err);
	if (code == KT_OK) {
		code = check_size("certificate", parts->leaf.len, CERTIFICATE_MAX, err);
	}
	if (code == KT_OK) {
		code = check_size("capath", parts->path.len, CAPATH_MAX, err);
	}
	if (code == KT_OK) {
		code = kt_pki_key_to_encrypted_pem(key, passphrase, &parts->key, err);
	}
	return code == KT_OK ? check_size("key", kt_secret_len(parts->key), KEY_MAX, err) : code;
}

static enum kt_code put_pem(const struct form *form, const struct kt_key *key, struct kt_view chain, struct kt_view ca,
                            const struct kt_secret *passphrase, struct kt_err *err)
{
	struct parts parts;
	enum kt_code code = parts_init(&parts, key, chain, ca, passphrase, err);

	if (code == KT_OK) {
		put_file(form, "certificate", "tls.crt", parts.leaf);
		put_file(form, "key", "tls.key", kt_secret_view(parts.key));
	}
	if (code == KT_OK && parts.path.len > 0) {
		put_file(form, "capath", "ca.crt", kt_buf_view(&parts.path));
	}
	parts_finish(&parts);
	return code;
}

static enum kt_code put_store(const struct form *form, const struct kt_anypoint_secret_group *group,
                              const struct kt_key *key, struct kt_view chain_pem, const struct kt_secret *passphrase,
                              struct kt_err *err)
{
	struct kt_secret *store KT_AUTOSECRET = NULL;
	struct kt_chain *chain = NULL;
	bool jks = group->type == KT_STORE_JKS;
	enum kt_code code = kt_pki_chain_parse(chain_pem, &chain, err);

	if (code == KT_OK) {
		code = jks ? kt_pki_jks_keystore(key, chain, group->alias, passphrase, &store, err)
		           : kt_pki_p12_keystore(key, chain, group->alias, passphrase, KT_P12_MODERN_2023, &store, err);
	}
	if (code == KT_OK) {
		code = check_size("keyStore", kt_secret_len(store), STORE_MAX, err);
	}
	if (code == KT_OK) {
		put_file(form, "keyStore", jks ? "keystore.jks" : "keystore.p12", kt_secret_view(store));
	}
	kt_pki_chain_destroy(chain);
	return code;
}

/* Random text, NUL-terminated. */
static enum kt_code new_passphrase(struct kt_secret **ret, struct kt_err *err)
{
	enum kt_code code = kt_secret_alloc(2 * PASSPHRASE + 1, ret, err);

	if (code == KT_OK) {
		kt_rand_hex(kt_secret_edit(*ret), PASSPHRASE);
		kt_secret_truncate(*ret, 2 * PASSPHRASE);
	}
	return code;
}

enum kt_code kt_target_form(const struct kt_anypoint_secret_group *group, const struct kt_key *key, struct kt_view chain,
                            struct kt_view ca, char boundary[KT_TARGET_BOUNDARY], struct kt_secret **ret,
                            struct kt_err *err)
{
	struct kt_secret *passphrase KT_AUTOSECRET = NULL;
	struct kt_buf out KT_AUTOBUF = {0};
	const struct form form = {&out, boundary};
	enum kt_code code = new_passphrase(&passphrase, err);

	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(boundary, KT_TARGET_BOUNDARY, "keyturn-");
	kt_rand_hex(boundary + 8, 16);
	kt_buf_init(&out, FORM_MAX);
	put_text(&form, "type", kt_store_type_name(group->type));
	put_text(&form, "name", group->api.name);
	put_text(&form, "keyPassphrase", kt_secret_view(passphrase).ptr);
	if (group->type == KT_STORE_PEM) {
		code = put_pem(&form, key, chain, ca, passphrase, err);
	} else {
		put_text(&form, "storePassphrase", kt_secret_view(passphrase).ptr);
		put_text(&form, "alias", group->alias != NULL ? group->alias : "certificate");
		code = put_store(&form, group, key, chain, passphrase, err);
	}
	kt_buf_addf(&out, "--%s--\r\n", boundary);
	if (code == KT_OK) {
		code = kt_buf_check(&out, "the upload", err);
	}
	return code == KT_OK ? kt_secret_from_buf(&out, ret, err) : code;
}

enum kt_code kt_target_tls_context(const struct kt_key *key, struct kt_view chain, struct kt_view ca,
                                   struct kt_secret **ret, struct kt_err *err)
{
	struct kt_secret *passphrase KT_AUTOSECRET = NULL;
	struct kt_buf out KT_AUTOBUF = {0};
	struct parts parts;
	enum kt_code code = new_passphrase(&passphrase, err);

	if (code != KT_OK) {
		return code;
	}
	code = parts_init(&parts, key, chain, ca, passphrase, err);
	if (code == KT_OK) {
		kt_buf_init(&out, FORM_MAX);
		kt_buf_adds(&out, "{\"tlsConfig\":{\"keyStore\":{\"source\":\"PEM\",\"certificateFileName\":\"tls.crt\","
		                  "\"keyFileName\":\"tls.key\",\"certificate\":");
		kt_buf_add_json(&out, parts.leaf);
		kt_buf_adds(&out, ",\"key\":");
		kt_buf_add_json(&out, kt_secret_view(parts.key));
		kt_buf_adds(&out, ",\"keyPassphrase\":");
		kt_buf_add_json(&out, kt_secret_view(passphrase));
		if (parts.path.len > 0) {
			kt_buf_adds(&out, ",\"capathFileName\":\"ca.crt\",\"capath\":");
			kt_buf_add_json(&out, kt_buf_view(&parts.path));
		}
		kt_buf_adds(&out, "}}}");
		code = kt_buf_check(&out, "the upload", err);
	}
	parts_finish(&parts);
	return code == KT_OK ? kt_secret_from_buf(&out, ret, err) : code;
}

/* --- what is shown ------------------------------------------------------------------------------------------------------ */

static char next_digit(const char **at)
{
	char c;

	while (**at == ':' || **at == ' ') {
		++*at;
	}
	c = **at;
	*at += c != '\0';
	return (char)(c >= 'A' && c <= 'F' ? c + 32 : c);
}

static const char *past_zeros(const char *text)
{
	while (*text == '0' || *text == ':' || *text == ' ') {
		text++;
	}
	return text;
}

bool kt_target_same_serial(const char *seen, const char *ours)
{
	char a, b;

	seen = past_zeros(seen);
	ours = past_zeros(ours);
	if (*seen == '\0' || *ours == '\0') {
		return false;
	}
	do {
		a = next_digit(&seen);
		b = next_digit(&ours);
	} while (a == b && a != '\0');
	return a == b;
}

enum kt_code kt_target_time(const char *text, kt_ms *ret, struct kt_err *err)
{
	char plain[32];
	size_t len = strlen(text);

	if (len == 19 && text[10] == ' ') {
		(void)snprintf(plain, sizeof(plain), "%.10sT%.8sZ", text, text + 11);
		text = plain;
	}
	if (kt_time_parse(kt_view_str(text), ret, NULL) != KT_OK) { /* which is not quoted: it may be anything */
		return kt_err_set(err, KT_E_PROTO, "what is shown as the end of validity is not a time");
	}
	return KT_OK;
}

bool kt_target_is_serial(const char *text)
{
	size_t digits = 0, i;

	for (i = 0; text[i] != '\0'; i++) {
		if (i == SERIAL_TEXT || strchr("0123456789abcdefABCDEF: ", text[i]) == NULL) {
			return false;
		}
		digits += strchr(": ", text[i]) == NULL;
	}
	return digits > 0 && digits <= SERIAL_DIGITS;
}

bool kt_target_is_day(const char *text)
{
	static const char form[] = "dddd-dd-dd";
	size_t i;

	for (i = 0; i < sizeof(form) - 1; i++) {
		if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i]) {
			return false;
		}
	}
	return true;
}

static bool quotes(const char *text, const struct kt_secret *sent)
{
	struct kt_view view = sent != NULL ? kt_secret_view(sent) : (struct kt_view){NULL, 0};

	return view.len > 0 && memmem(text, strlen(text), view.ptr, view.len) != NULL;
}

void kt_target_reason(struct kt_view body, const char *known, const struct kt_secret *sent, char *out, size_t size)
{
	json_t *root KT_AUTOJSON = NULL;
	const json_t *first;
	const char *message, *code, *field;
	char words[320];

	(void)snprintf(out, size, "no reason given");
	if (kt_json_parse(body, KT_TARGET_ANSWER_MAX, &root, NULL) != KT_OK) {
		return;
	}
	first = json_array_get(json_object_get(root, "errors"), 0);
	message = kt_json_str(first != NULL ? first : root, "message");
	code = kt_json_str(first, "code");
	field = kt_json_str(first, "field");
	if (message != NULL && quotes(message, sent)) {
		(void)snprintf(out, size, "[it quotes what must not be shown]");
	} else if (message != NULL) {
		(void)snprintf(words, sizeof(words), "%.200s%s%.20s%s%.40s", message, code != NULL ? ", " : "",
		               code != NULL ? code : "", field != NULL ? ", field " : "", field != NULL ? field : "");
		kt_text_hide(words, known, out, size);
	}
}
