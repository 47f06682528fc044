/* The command invalidate: a token was seen refused by its server; another one is minted, and that is waited for. */
#include <stdio.h>
#include <string.h>

#include "kt/text.h"
#include "keeper/admin.h"
#include "keeper/refused.h"

enum kt_code kt_admin_refused(struct kt_session *session, const char *name, const char *sha256, struct kt_refusal *ret,
                              struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	struct kt_store_resource resource = {0};
	struct kt_store_cred cred = {0};
	char hash[65] = "", actor[32];
	size_t i;

	if (sha256 != NULL && sha256[0] != '\0' && (strlen(sha256) != 64 || strspn(sha256, "0123456789abcdefABCDEF") != 64)) {
		return kt_err_set(err, KT_E_INVALID, "sha256 is the SHA-256 of the refused token, 64 hexadecimal digits");
	}
	for (i = 0; sha256 != NULL && sha256[i] != '\0'; i++) {
		hash[i] = (char)(sha256[i] >= 'A' && sha256[i] <= 'F' ? sha256[i] - 'A' + 'a' : sha256[i]);
	}
	(void)snprintf(actor, sizeof(actor), "uid:%u", session->uid);
	if (kt_admin_find(keeper, name, &resource, err) == KT_OK &&
	    kt_store_cred_get(keeper->store, resource.id, &cred, err) == KT_OK) {
		(void)kt_token_refused(keeper, &resource, &cred, hash, actor, NULL, ret, err);
	}
	kt_store_cred_finish(&cred);
	kt_store_resource_finish(&resource);
	return err->code;
}

void kt_command_invalidate(struct kt_session *session)
{
	const char *name = kt_session_arg(session, "name");
	bool alone = session->keeper->mode != KT_MODE_DAEMON;
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_refusal refusal;
	json_t *said = NULL;
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&text, 4096);
	if (name == NULL) {
		(void)kt_err_set(&err, KT_E_INVALID, "invalidate needs the name of a Token");
	} else if (kt_admin_refused(session, name, kt_session_arg(session, "sha256"), &refusal, &err) == KT_OK) {
		kt_refusal_json(&refusal, &text);
		(void)kt_json_parse(kt_buf_view(&text), 4096, &said, &err);
	}
	if (err.code != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	/* What was left undone by a command that was cut off is for this one to do. */
	if (refusal.outcome != KT_REFUSED_MINTING && !(alone && refusal.outcome == KT_REFUSED_ALREADY)) {
		kt_session_end(session, 0, said);
		return;
	}
	kt_session_line(session, json_pack("{s:{s:o}}", "row", "invalidated", said));
	(void)json_object_set_new(session->request, "names", json_pack("[s]", name));
	(void)json_object_set_new(session->request, "until", json_string("delivered"));
	kt_command_renew(session);
}
