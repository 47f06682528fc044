/* The directory object (RFC 8555 section 7.1.1): which URLs there are, each https and of the directory's own origin. */
#include <string.h>

#include "courier/acme/acme_internal.h"
#include "courier/url.h"

static enum kt_code take(const json_t *directory, const char *url, const char *key, char **ret, struct kt_err *err)
{
	const char *text = kt_json_str(directory, key);
	struct kt_url parsed;

	if (text == NULL) {
		return kt_err_set(err, KT_E_PROTO, "the directory %.200s has no %s: is this an ACME directory?", url,
				  key);
	}
	if (kt_url_parse(text, &parsed, err) != KT_OK || !parsed.https || !kt_url_text_same_origin(text, url)) {
		return kt_err_set(err, KT_E_PROTO, "the directory %.200s names a %s elsewhere or not https: '%.200s'",
				  url, key, text);
	}
	*ret = kt_strdup(text);
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory for a directory");
}

enum kt_code acme_directory_parse(json_t *directory, const char *url, char **ret_nonce, char **ret_account,
				  char **ret_order, struct kt_err *err)
{
	char *nonce = NULL, *account = NULL, *order = NULL;
	enum kt_code code;

	if (!json_is_object(directory)) {
		return kt_err_set(err, KT_E_PROTO, "%.200s did not answer with a directory object", url);
	}
	code = take(directory, url, "newNonce", &nonce, err);
	if (code == KT_OK) {
		code = take(directory, url, "newAccount", &account, err);
	}
	if (code == KT_OK) {
		code = take(directory, url, "newOrder", &order, err);
	}
	if (code != KT_OK) {
		kt_free(nonce);
		kt_free(account);
		kt_free(order);
		return code;
	}
	*ret_nonce = nonce;
	*ret_account = account;
	*ret_order = order;
	return KT_OK;
}
