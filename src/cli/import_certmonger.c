/* import certmonger: /var/lib/certmonger with requests/ and cas/. It speaks no ACME: keys, certificates and hooks come
 * along. */
#include "cli/import.h"

#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

static json_t *pairs_of(const struct kt_import *import, const char *file, struct kt_err *err)
{
	char *text KT_AUTOFREE = kt_import_text(import, file, err);
	json_t *found = NULL;

	if (text != NULL && kt_import_pairs(kt_view_str(text), &found, err) != KT_OK) {
		return NULL;
	}
	return found;
}

/* The CA that a request names, among cas/; NULL when it is not there. */
static json_t *ca_of(const struct kt_import *import, const char *name)
{
	json_t *names KT_AUTOJSON = NULL;
	json_t *file;
	size_t i;

	if (name == NULL || kt_import_list(import, "cas", &names, NULL) != KT_OK) {
		return NULL;
	}
	json_array_foreach(names, i, file)
	{
		char *path KT_AUTOFREE = kt_import_path("cas", json_string_value(file), NULL);
		json_t *ca = pairs_of(import, path, NULL);
		const char *id = kt_json_str(ca, "id");

		if (id != NULL && strcmp(id, name) == 0) {
			return ca;
		}
		json_decref(ca);
	}
	return NULL;
}

/* Who issues it from now on. SelfSign: keyturn's own selfSigned. All others are helpers of certmonger's. */
static bool issuer(struct kt_import *import, struct kt_import_cert *cert, const char *name)
{
	json_t *ca KT_AUTOJSON = ca_of(import, name);
	const char *type = kt_json_str(ca, "ca_type");
	const char *helper = kt_json_str(ca, "ca_external_helper");

	if ((name != NULL && strcmp(name, "SelfSign") == 0) || (type != NULL && strcmp(type, "INTERNAL:SELF") == 0)) {
		cert->self_signed = true;
		return true;
	}
	kt_import_lose(import, cert->from, cert->name, "its CA is reached by a helper of certmonger's, not by ACME",
		       "an Issuer of another kind and a Certificate; FreeIPA and Dogtag have ACME: "
		       "https://ipa-ca.DOMAIN/acme/directory (CA %.100s, helper %.200s)",
		       name != NULL ? name : "?", helper != NULL ? helper : "none");
	return false;
}

static void key_settings(struct kt_import_cert *cert, const json_t *request)
{
	const char *type = kt_json_str(request, "key_gen_type");
	const char *size = kt_json_str(request, "key_gen_size");
	uint64_t bits = 0;

	if (type != NULL && (strcmp(type, "RSA") == 0 || strcmp(type, "EC") == 0 || strcmp(type, "ECDSA") == 0)) {
		cert->algorithm = type[0] == 'R' ? "RSA" : "ECDSA";
		if (size != NULL && kt_parse_u64(kt_view_str(size), 8192, &bits, NULL) == KT_OK) {
			cert->size = (unsigned)bits;
		}
	}
	cert->keep_key = true; /* it submits the same key again until somebody asks for another (getcert rekey) */
}

static enum kt_code read_request(struct kt_import *import, const char *name, struct kt_err *err)
{
	char *file KT_AUTOFREE = kt_import_path("requests", name, NULL);
	json_t *request KT_AUTOJSON = NULL;
	struct kt_import_cert *cert;
	const char *key, *chain, *type, *pre;
	struct kt_err why;

	kt_err_clear(&why);
	request = pairs_of(import, file, &why);
	if (request == NULL) {
		kt_import_lose(import, file, "request", why.what, "write a Certificate for it");
		return KT_OK;
	}
	key = kt_json_str(request, "key_storage_location");
	chain = kt_json_str(request, "cert_storage_location");
	type = kt_json_str(request, "key_storage_type");
	if (key == NULL || chain == NULL || type == NULL || strcmp(type, "FILE") != 0 ||
	    kt_json_str(request, "key_pin") != NULL || kt_json_str(request, "key_pin_file") != NULL) {
		kt_import_lose(import, file,
			       kt_json_str(request, "id") != NULL ? kt_json_str(request, "id") : "request",
			       type != NULL && strcmp(type, "FILE") != 0 ? "its key is in an NSS database"
									 : "its key is encrypted or nowhere",
			       "take the key out without a passphrase, or write a Certificate for its names");
		return KT_OK;
	}
	cert = kt_import_add_cert(import, kt_json_str(request, "id") != NULL ? kt_json_str(request, "id") : name, file,
				  err);
	if (cert == NULL) {
		return err->code;
	}
	if (!kt_import_material(import, cert, key, chain)) {
		return KT_OK;
	}
	if (!issuer(import, cert, kt_json_str(request, "ca_name"))) {
		kt_import_drop_cert(import);
		return KT_OK;
	}
	key_settings(cert, request);
	if (kt_json_str(request, "post_certsave_command") != NULL) {
		cert->hook = kt_strdup(kt_json_str(request, "post_certsave_command"));
		cert->hook_field = "post_certsave_command";
	}
	pre = kt_json_str(request, "pre_certsave_command");
	if (pre != NULL) {
		kt_import_lose(import, file, "pre_certsave_command",
			       "nothing has to stop while a certificate is written",
			       "validate of a Consumer, where it was a check (%.200s)", pre);
	}
	return KT_OK;
}

static enum kt_code read_all(struct kt_import *import, struct kt_err *err)
{
	json_t *names KT_AUTOJSON = NULL;
	json_t *name;
	size_t i;
	enum kt_code code = kt_import_list(import, "requests", &names, err);

	json_array_foreach(names, i, name)
	{
		code = code == KT_OK ? read_request(import, json_string_value(name), err) : code;
	}
	if (import->cert_count > 0) {
		kt_import_note(import,
			       "stop certmonger's tracking of what was taken over: getcert stop-tracking -i ID");
	}
	return code;
}

const struct kt_import_source kt_import_certmonger = {"certmonger", "/var/lib/certmonger", read_all};
