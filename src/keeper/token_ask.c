/* Local processes that ask for a token instead of reading a file: who may is decided here, by the Consumers' spec.socket. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/refused.h"
#include "keeper/render.h"

/*
 * The desk passes on what is asked and the peer's credentials. Who is not named, and what is not there, get the same answer.
 * A name that the warden has to look up first makes the question wait; it is answered anew from the start then.
 */

#define GROUPS_MAX    1024u
#define BODY_MAX      4096u
#define TOKEN_MAX     196608u
/* What the kernel shows where a user or group of another user namespace has no number here: anybody. */
#define OVERFLOW_ID   65534u
/* One record in the audit trail for a user that asks for what is not its own, in so long. */
#define STRANGER_PAUSE (60 * KT_SECOND)
#define STRANGERS_MAX  16u
#define RETRY_MAX      60

struct kt_token_ask {
	struct kt_token_ask *next;
	uint32_t id; /* of the desk's question */
	uint32_t uid, gid, pid;
	bool invalidate, json;
	char ns[KT_NAME_MAX + 1], name[KT_NAME_MAX + 1];
	char sha256[65];
	char consumer[600]; /* the one that names who asks */
	size_t group_count;
	uint32_t groups[];
};

struct kt_stranger {
	uint32_t uid;
	kt_ms at; /* monotonic; 0: free */
};

/* --- answers -------------------------------------------------------------------------------------------------------------- */

static void give(struct kt_keeper *keeper, const struct kt_token_ask *ask, const struct kt_msg_token_given *given)
{
	kt_wire_reply(keeper->desk, ask->id, KT_TOKEN_GIVEN, given, NULL, 0);
}

static void say(struct kt_keeper *keeper, const struct kt_token_ask *ask, uint32_t status, uint32_t retry_after,
                const char *text)
{
	struct kt_msg_token_given given = {.status = status,
	                                   .retry_after = retry_after,
	                                   .content_type = KT_VIEW_LIT("text/plain; charset=utf-8"),
	                                   .body = kt_view_str(text)};

	give(keeper, ask, &given);
}

/* True when this user's last record is old enough for another one; who has no place waits for one. */
static bool note_stranger(struct kt_keeper *keeper, uint32_t uid)
{
	kt_ms now = kt_clock_mono(keeper->clock);
	struct kt_stranger *place = NULL;
	size_t i;

	if (keeper->strangers == NULL) {
		keeper->strangers = kt_calloc(STRANGERS_MAX, sizeof(*keeper->strangers));
	}
	for (i = 0; keeper->strangers != NULL && i < STRANGERS_MAX; i++) {
		struct kt_stranger *one = &keeper->strangers[i];

		if (one->at != 0 && now - one->at >= STRANGER_PAUSE) {
			one->at = 0;
		}
		if (one->at != 0 && one->uid == uid) {
			return false;
		}
		place = place == NULL && one->at == 0 ? one : place;
	}
	if (place != NULL) {
		*place = (struct kt_stranger){uid, now > 0 ? now : 1};
	}
	return place != NULL;
}

static void refuse(struct kt_keeper *keeper, const struct kt_token_ask *ask)
{
	char trace[33], actor[32], reason[700];
	struct kt_audit_event event = {.trace_id = trace,
	                               .actor = actor,
	                               .step = "token.asked",
	                               .outcome = "refused",
	                               .reason = reason};
	struct kt_err err;

	say(keeper, ask, 403, 0, "there is no token of this name that this user may have\n");
	if (!note_stranger(keeper, ask->uid)) {
		return;
	}
	(void)kt_audit_trace_id(kt_keeper_now(keeper), trace);
	(void)snprintf(actor, sizeof(actor), "uid:%u", ask->uid);
	(void)snprintf(reason, sizeof(reason), "pid %u asks for %s/%s; no Consumer's spec.socket names it for that", ask->pid,
	               ask->ns, ask->name);
	kt_log(KT_LOG_WARN, "%s, %s", actor, reason);
	kt_err_clear(&err);
	if (kt_store_begin(keeper->store, &err) != KT_OK ||
	    kt_store_end(keeper->store, kt_keeper_audit(keeper, &event, &err), &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "that somebody asked for a token can't be written down");
	}
}

/* --- who may -------------------------------------------------------------------------------------------------------------- */

static void answer(struct kt_keeper *keeper, struct kt_token_ask *ask);

/* Names are known by now: what waited for one is looked at again. */
static void on_known(struct kt_keeper *keeper)
{
	struct kt_token_ask *list = keeper->token_asks;

	keeper->token_asks = NULL;
	while (list != NULL) {
		struct kt_token_ask *ask = list;

		list = ask->next;
		answer(keeper, ask);
	}
}

/* The better one of two findings: OK, a name is being looked up (BUSY), something else failed, nothing found. */
static enum kt_code better(enum kt_code a, enum kt_code b)
{
	if (a == KT_OK || b == KT_OK) {
		return KT_OK;
	}
	if (a == KT_E_BUSY || b == KT_E_BUSY) {
		return KT_E_BUSY;
	}
	return a == KT_E_NOTFOUND ? b : a;
}

static bool in_groups(const struct kt_token_ask *ask, gid_t gid)
{
	size_t i;

	for (i = 0; i < ask->group_count && ask->groups[i] != gid; i++) {
	}
	return gid == ask->gid || i < ask->group_count;
}

/* KT_OK: it is one of these; KT_E_NOTFOUND; KT_E_BUSY: a name is being looked up; or what failed. */
static enum kt_code find_peer(struct kt_keeper *keeper, const struct kt_token_ask *ask, const struct kt_strings *names, bool users)
{
	enum kt_code ret = KT_E_NOTFOUND;
	uint32_t i;

	for (i = 0; i < names->count; i++) {
		const char *name = names->items[i];
		uid_t uid = (uid_t)-1;
		gid_t gid = (gid_t)-1;
		enum kt_code code =
		        kt_owners_find(keeper, users ? name : "", users ? "" : name, on_known, &uid, &gid, NULL);

		if (code == KT_OK) {
			bool same = users ? uid == ask->uid && uid != OVERFLOW_ID : gid != OVERFLOW_ID && in_groups(ask, gid);

			code = same ? KT_OK : KT_E_NOTFOUND;
		}
		ret = better(ret, code);
	}
	return ret;
}

struct looking {
	const char *name;
	bool found;
};

static void look(const char *secret, void *arg)
{
	struct looking *looking = arg;

	looking->found = looking->found || strcmp(secret, looking->name) == 0;
}

/* The Consumer lets this secret be asked for. */
static bool offers(const struct kt_consumer_spec *consumer, const char *name)
{
	struct looking looking = {name, false};
	uint32_t i;

	if (consumer->socket == NULL) {
		return false;
	}
	for (i = 0; i < consumer->socket->secrets.count; i++) {
		look(consumer->socket->secrets.items[i], &looking);
	}
	if (consumer->socket->secrets.count == 0) {
		kt_load_each_consumed(consumer, look, &looking);
	}
	return looking.found;
}

static enum kt_code may_by(struct kt_keeper *keeper, struct kt_token_ask *ask, int64_t id)
{
	struct kt_store_resource row;
	struct kt_resource *spec = NULL;
	enum kt_code ret = kt_store_resource_get(keeper->store, id, &row, NULL);

	if (ret != KT_OK) {
		return ret;
	}
	ret = row.gone ? KT_E_NOTFOUND : kt_load_spec(&row, &spec, NULL);
	if (ret == KT_OK) {
		bool offered = spec->kind == KT_RES_CONSUMER && offers(&spec->consumer, ask->name);

		ret = offered ? better(find_peer(keeper, ask, &spec->consumer.socket->users, true),
		                       find_peer(keeper, ask, &spec->consumer.socket->groups, false))
		              : KT_E_NOTFOUND;
	}
	if (ret == KT_OK) {
		(void)snprintf(ask->consumer, sizeof(ask->consumer), "%s/%s", row.ns, row.name);
	}
	kt_resource_destroy(spec);
	kt_store_resource_finish(&row);
	return ret;
}

struct asking {
	struct kt_keeper *keeper;
	struct kt_token_ask *ask;
	enum kt_code ret;
};

static bool ask_consumer(int64_t id, void *arg)
{
	struct asking *asking = arg;

	asking->ret = better(asking->ret, may_by(asking->keeper, asking->ask, id));
	return asking->ret != KT_OK;
}

/* KT_OK, KT_E_NOTFOUND, KT_E_BUSY while a name is being looked up, or what failed. */
static enum kt_code may(struct kt_keeper *keeper, struct kt_token_ask *ask)
{
	struct kt_store_link link = {"consumes", ask->ns, ask->name};
	struct asking asking = {keeper, ask, KT_E_NOTFOUND};
	enum kt_code code = kt_store_linked_each(keeper->store, &link, ask_consumer, &asking, NULL);

	return code == KT_OK ? asking.ret : code;
}

/* --- what is asked ------------------------------------------------------------------------------------------------------- */

/* Seconds until it is worth asking again. */
static uint32_t retry_after(const struct kt_store_cred *cred, kt_ms now)
{
	kt_ms left = cred->attempts > 0 && cred->next_try > now ? (cred->next_try - now + KT_SECOND - 1) / KT_SECOND : 1;

	return (uint32_t)(left > RETRY_MAX ? RETRY_MAX : left);
}

static void give_token(struct kt_keeper *keeper, const struct kt_token_ask *ask, const struct kt_store_resource *row,
                       const struct kt_store_cred *cred)
{
	struct kt_msg_token_given given = {.status = 200};
	struct kt_store_material material = {0};
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_buf text KT_AUTOBUF = {0};
	char type[KT_TOKEN_TYPE_SIZE];
	kt_ms now = kt_keeper_now(keeper);
	bool session, json;
	struct kt_err err;

	kt_err_clear(&err);
	if (cred->active == 0 || cred->expiry <= now) {
		say(keeper, ask, 503, retry_after(cred, now), "there is no valid token at the moment\n");
		return;
	}
	kt_buf_init(&text, TOKEN_MAX);
	(void)kt_store_material_get(keeper->store, cred->active, &material, &err);
	(void)kt_render_token_type(material.cookie, type);
	session = strcmp(type, "AWS") == 0;
	json = ask->json || session; /* it has no other form */
	if (err.code == KT_OK &&
	    kt_render_token_text(keeper, row, &material, session ? "aws-container" : json ? "json" : "raw", &text, &err) == KT_OK &&
	    kt_secret_from_buf(&text, &token, &err) == KT_OK) {
		given.content_type = json ? KT_VIEW_LIT("application/json") : KT_VIEW_LIT("text/plain; charset=utf-8");
		given.token = token;
		given.sha256 = kt_view_str(material.sha256);
		give(keeper, ask, &given);
	} else {
		kt_log_err(KT_LOG_ERROR, &err, "the token %s/%s can't be given to who asks", ask->ns, ask->name);
		say(keeper, ask, 503, 1, "the token can't be read at the moment\n");
	}
	kt_store_material_finish(&material);
}

static void take_refusal(struct kt_keeper *keeper, const struct kt_token_ask *ask, const struct kt_store_resource *row,
                         const struct kt_store_cred *cred)
{
	struct kt_msg_token_given given = {.content_type = KT_VIEW_LIT("application/json")};
	struct kt_buf body KT_AUTOBUF = {0};
	struct kt_refusal refusal;
	kt_ms now = kt_keeper_now(keeper);
	char actor[32];
	struct kt_err err;

	kt_err_clear(&err);
	(void)snprintf(actor, sizeof(actor), "uid:%u", ask->uid);
	if (kt_token_refused(keeper, row, cred, ask->sha256, actor, ask->consumer, &refusal, &err) != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "what is said of the token %s/%s can't be taken", ask->ns, ask->name);
		say(keeper, ask, 503, 1, "that can't be taken at the moment\n");
		return;
	}
	kt_buf_init(&body, BODY_MAX);
	kt_refusal_json(&refusal, &body);
	given.status = refusal.outcome == KT_REFUSED_MINTING || refusal.outcome == KT_REFUSED_ALREADY ? 202 : 200;
	given.sha256 = kt_view_str(refusal.sha256);
	if (refusal.again_at > now) {
		given.retry_after = (uint32_t)((refusal.again_at - now + KT_SECOND - 1) / KT_SECOND);
	} else {
		given.retry_after = given.status == 202 ? 1 : 0;
	}
	kt_buf_addc(&body, '\n');
	given.body = kt_buf_view(&body);
	give(keeper, ask, &given);
}

/* Answers and frees it, or lets it wait. */
static void answer(struct kt_keeper *keeper, struct kt_token_ask *ask)
{
	struct kt_store_resource row = {0};
	struct kt_store_cred cred = {0};
	enum kt_code code = may(keeper, ask);

	if (code == KT_E_BUSY) {
		ask->next = keeper->token_asks;
		keeper->token_asks = ask;
		return;
	}
	if (code == KT_OK) {
		code = kt_store_cred_find_secret(keeper->store, ask->ns, ask->name, &cred, NULL);
	}
	if (code == KT_OK) {
		code = kt_store_resource_get(keeper->store, cred.id, &row, NULL);
	}
	if (code == KT_E_NOTFOUND || (code == KT_OK && (cred.kind != KT_KIND_TOKEN || row.gone))) {
		refuse(keeper, ask);
	} else if (code != KT_OK) {
		say(keeper, ask, 503, 1, "that can't be looked up at the moment\n");
	} else if (ask->invalidate) {
		take_refusal(keeper, ask, &row, &cred);
	} else {
		give_token(keeper, ask, &row, &cred);
	}
	kt_store_resource_finish(&row);
	kt_store_cred_finish(&cred);
	kt_free(ask);
}

static bool copy(char *out, size_t size, struct kt_view view)
{
	if (view.len >= size || (view.len > 0 && memchr(view.ptr, '\0', view.len) != NULL)) {
		return false;
	}
	if (view.len > 0) {
		memcpy(out, view.ptr, view.len);
	}
	out[view.len] = '\0';
	return true;
}

void kt_token_on_ask(struct kt_wire_in *in, void *arg)
{
	struct kt_keeper *keeper = arg;
	const struct kt_msg_token_ask *msg = in->msg;
	size_t groups = msg->groups.len / sizeof(uint32_t);
	struct kt_token_ask *ask;
	struct kt_err err;

	kt_err_clear(&err);
	groups = groups > GROUPS_MAX ? GROUPS_MAX : groups;
	ask = kt_calloc(1, sizeof(*ask) + groups * sizeof(uint32_t));
	if (ask == NULL) {
		(void)kt_err_set(&err, KT_E_NOMEM, "no memory for a question");
	} else if (keeper->store == NULL || !copy(ask->ns, sizeof(ask->ns), msg->ns) ||
	           !copy(ask->name, sizeof(ask->name), msg->name) || !copy(ask->sha256, sizeof(ask->sha256), msg->sha256)) {
		(void)kt_err_set(&err, KT_E_INVALID, "that can't be asked");
	}
	if (err.code != KT_OK) {
		kt_free(ask);
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	ask->id = in->id;
	ask->uid = msg->uid;
	ask->gid = msg->gid;
	ask->pid = msg->pid;
	ask->json = msg->json;
	ask->invalidate = kt_view_eq_str(msg->op, "invalidate");
	ask->group_count = groups;
	if (groups > 0) {
		memcpy(ask->groups, msg->groups.ptr, groups * sizeof(uint32_t));
	}
	answer(keeper, ask);
}

void kt_token_asks_forget(struct kt_keeper *keeper)
{
	while (keeper->token_asks != NULL) {
		struct kt_token_ask *ask = keeper->token_asks;

		keeper->token_asks = ask->next;
		kt_free(ask);
	}
}

void kt_token_asks_finish(struct kt_keeper *keeper)
{
	kt_token_asks_forget(keeper);
	kt_free(keeper->strangers);
	keeper->strangers = NULL;
}
