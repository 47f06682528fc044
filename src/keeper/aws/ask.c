/* What AWS SDKs fetch at the listener "aws": the session in force, for whoever has the token that lies in its volume. */
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/aws/aws.h"
#include "keeper/render.h"

#define TEXT_MAX     131072u
#define LOOK_BACK    4u /* materials of a credential */
#define REFUSED_SAID KT_MINUTE

/*
 * Who can read aws-endpoint-token in the volume may have the session: it lies beside it, or could. The token follows from the
 * session by a hash, so it changes with it; that of the session before is good as long as that one lives, for an SDK that has
 * read the file a moment before the switch.
 */

static void say(struct kt_wire_in *in, uint32_t status, uint32_t retry_after, const char *text)
{
	struct kt_msg_token_given given = {.status = status,
	                                   .retry_after = retry_after,
	                                   .content_type = KT_VIEW_LIT("text/plain; charset=utf-8"),
	                                   .body = kt_view_str(text)};

	kt_wire_reply(in->wire, in->id, KT_TOKEN_GIVEN, &given, NULL, 0);
}

struct looking {
	struct kt_keeper *keeper;
	const struct kt_store_resource *row;
	const struct kt_secret *token;
	kt_ms now;
	bool found;
};

static bool look(const struct kt_store_material *material, void *arg)
{
	struct looking *looking = arg;
	struct kt_secret *session KT_AUTOSECRET = NULL;
	struct kt_secret *wanted KT_AUTOSECRET = NULL;
	struct kt_seal_id id = kt_store_material_seal_id(looking->row, material->revision, "token");
	char type[KT_TOKEN_TYPE_SIZE];
	char token[KT_AWS_ENDPOINT_TOKEN];

	(void)kt_render_token_type(material->cookie, type);
	if (strcmp(type, KT_AWS_TOKEN_TYPE) != 0 || material->not_after <= looking->now || material->sealed_token.len == 0 ||
	    kt_keys_unseal(looking->keeper->keys, &id, material->sealed_token, &session, NULL) != KT_OK) {
		return true;
	}
	kt_aws_endpoint_token(session, token);
	looking->found = token[0] != '\0' && kt_secret_create(token, strlen(token), &wanted, NULL) == KT_OK &&
	                 kt_secret_eq(wanted, looking->token);
	kt_wipe(token, sizeof(token));
	return !looking->found;
}

static void give(struct kt_wire_in *in, struct kt_keeper *keeper, const struct kt_store_resource *row,
                 const struct kt_store_cred *cred)
{
	struct kt_msg_token_given given = {.status = 200, .content_type = KT_VIEW_LIT("application/json")};
	struct kt_store_material material = {0};
	struct kt_secret *text KT_AUTOSECRET = NULL;
	struct kt_buf body KT_AUTOBUF = {0};
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&body, TEXT_MAX);
	if (kt_store_material_get(keeper->store, cred->active, &material, &err) == KT_OK &&
	    kt_render_token_text(keeper, row, &material, "aws-container", &body, &err) == KT_OK &&
	    kt_secret_from_buf(&body, &text, &err) == KT_OK) {
		given.token = text;
		given.sha256 = kt_view_str(material.sha256);
		kt_wire_reply(in->wire, in->id, KT_TOKEN_GIVEN, &given, NULL, 0);
	} else {
		kt_log_err(KT_LOG_ERROR, &err, "the session %s/%s can't be given to who asks", row->ns, row->name);
		say(in, 503, 1, "the session can't be read at the moment\n");
	}
	kt_store_material_finish(&material);
}

/* One line in the log for those that have no right, in so long. */
static void refuse(struct kt_wire_in *in, struct kt_keeper *keeper, const char *ns, const char *name)
{
	kt_ms now = kt_clock_mono(keeper->clock);

	say(in, 403, 0, "there is no session of this name for this token\n");
	if (keeper->aws_refused_at == 0 || now - keeper->aws_refused_at >= REFUSED_SAID) {
		keeper->aws_refused_at = now > 0 ? now : 1;
		kt_log(KT_LOG_WARN, "somebody without its token asks for the session %s/%s at the listener aws", ns, name);
	}
}

static void answer(struct kt_wire_in *in, struct kt_keeper *keeper, const char *ns, const char *name)
{
	const struct kt_msg_aws_ask *msg = in->msg;
	struct looking looking = {.keeper = keeper, .token = msg->token, .now = kt_keeper_now(keeper)};
	struct kt_store_resource row = {0};
	struct kt_store_cred cred = {0};

	if (msg->token != NULL && kt_store_cred_find_secret(keeper->store, ns, name, &cred, NULL) == KT_OK &&
	    cred.kind == KT_KIND_TOKEN && kt_store_resource_get(keeper->store, cred.id, &row, NULL) == KT_OK && !row.gone) {
		looking.row = &row;
		(void)kt_store_material_each(keeper->store, cred.id, LOOK_BACK, look, &looking, NULL);
	}
	if (!looking.found) {
		refuse(in, keeper, ns, name);
	} else if (cred.active == 0 || cred.expiry <= looking.now) {
		say(in, 503, 1, "there is no valid session at the moment\n");
	} else {
		give(in, keeper, &row, &cred);
	}
	kt_store_resource_finish(&row);
	kt_store_cred_finish(&cred);
}

void kt_aws_on_ask(struct kt_wire_in *in, void *arg)
{
	const struct kt_msg_aws_ask *msg = in->msg;
	struct kt_keeper *keeper = arg;
	char *ns KT_AUTOFREE = kt_strndup(msg->ns.len > 0 ? msg->ns.ptr : "", msg->ns.len);
	char *name KT_AUTOFREE = kt_strndup(msg->name.len > 0 ? msg->name.ptr : "", msg->name.len);

	if (keeper->store == NULL || ns == NULL || name == NULL) {
		say(in, 503, 1, "the keeper can't answer now\n");
		return;
	}
	answer(in, keeper, ns, name);
}
