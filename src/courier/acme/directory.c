/* The directory object (RFC 8555 section 7.1.1): which URLs there are, each https and of the directory's own origin. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "courier/url.h"
#include "kt/text.h"

enum { NEEDED = 1 };

static enum kt_code take(const json_t *object, const char *url, const char *key, int flags, char **ret,
			 struct kt_err *err)
{
	const char *text = kt_json_str(object, key);
	struct kt_url parsed;

	if (text == NULL && (flags & NEEDED) == 0) {
		return KT_OK;
	}
	if (text == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the directory %.200s has no %s: is this an ACME directory?", url,
				  key);
	}
	if (kt_url_parse(text, &parsed, NULL) != KT_OK || !parsed.https || !kt_url_text_same_origin(text, url)) {
		if ((flags & NEEDED) == 0) { /* what is not needed is as good as not there */
			return KT_OK;
		}
		return kt_err_set(err, KT_E_PROTO, "the directory %.200s names a %s elsewhere or not https: '%.200s'",
				  url, key, text);
	}
	*ret = kt_strdup(text);
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory for a directory");
}

void acme_directory_finish(struct acme_directory *directory)
{
	kt_free(directory->new_nonce);
	kt_free(directory->new_account);
	kt_free(directory->new_order);
	kt_free(directory->revoke_cert);
	kt_free(directory->key_change);
	kt_free(directory->renewal_info);
	json_decref(directory->object);
	memset(directory, 0, sizeof(*directory));
}

enum kt_code acme_directory_parse(json_t *object, const char *url, struct acme_directory *ret, struct kt_err *err)
{
	struct acme_directory found = {0};
	enum kt_code code;

	if (!json_is_object(object)) {
		return kt_err_set(err, KT_E_PROTO, "%.200s did not answer with a directory object", url);
	}
	if ((code = take(object, url, "newNonce", NEEDED, &found.new_nonce, err)) != KT_OK ||
	    (code = take(object, url, "newAccount", NEEDED, &found.new_account, err)) != KT_OK ||
	    (code = take(object, url, "newOrder", NEEDED, &found.new_order, err)) != KT_OK ||
	    (code = take(object, url, "revokeCert", 0, &found.revoke_cert, err)) != KT_OK ||
	    (code = take(object, url, "keyChange", 0, &found.key_change, err)) != KT_OK ||
	    (code = take(object, url, "renewalInfo", 0, &found.renewal_info, err)) != KT_OK) {
		acme_directory_finish(&found);
		return code;
	}
	found.binding_required = kt_json_bool(json_object_get(object, "meta"), "externalAccountRequired", false);
	found.object = json_incref(object);
	*ret = found;
	return KT_OK;
}

bool acme_directory_profile(const struct acme_directory *directory, const char *profile, struct kt_buf *out)
{
	json_t *profiles = json_object_get(json_object_get(directory->object, "meta"), "profiles");
	const char *name;
	json_t *value;
	unsigned shown = 0;

	if (!json_is_object(profiles)) {
		return false;
	}
	json_object_foreach(profiles, name, value) {
		if (strcmp(name, profile) == 0) {
			return true;
		}
		if (shown++ < 20) {
			kt_buf_addf(out, "%s%.64s", out->len > 0 ? ", " : "", name);
		}
	}
	return false;
}
