/* Feedback of consumers: a token that its server refused is minted anew, once, however many say so. */
#include <stdio.h>
#include <string.h>

#include "keeper/budget.h"
#include "keeper/flight.h"
#include "keeper/refused.h"

#define LEDGER_WHAT "refused"

const char *kt_refused_name(enum kt_refused outcome)
{
	static const char *const names[] = {"minting", "already-minting", "newer", "damped"};

	return names[outcome];
}

/* It will put another token in place than the one in force. */
static bool is_minting(const struct kt_flight *flight)
{
	return !flight->redelivery && !flight->withdraw && !flight->rollback && flight->stage > KT_FLIGHT_BEGIN &&
	       flight->stage <= KT_FLIGHT_SWITCH;
}

/* What is under way already answers; MINTING when nothing is. */
static enum kt_refused look(const struct kt_keeper *keeper, const struct kt_flight *flight, const struct kt_store_cred *cred,
                            const struct kt_store_material *active, const char *sha256, struct kt_refusal *ret)
{
	const struct kt_store_cred *now_is = flight != NULL ? &flight->cred : cred;
	kt_ms now = kt_keeper_now(keeper);
	char span[32];

	if (cred->active != 0 && sha256[0] != '\0' && strcmp(sha256, active->sha256) != 0) {
		(void)snprintf(ret->text, sizeof(ret->text), "another token is in force already");
		return KT_REFUSED_NEWER;
	}
	if (cred->active != 0 && (flight == NULL || !is_minting(flight)) && now_is->candidate == 0 &&
	    (now_is->flags & (KT_CRED_REFUSED | KT_CRED_FORCED)) == 0) {
		return KT_REFUSED_MINTING;
	}
	if (flight == NULL && cred->attempts > 0 && cred->next_try > now) {
		ret->again_at = cred->next_try;
		(void)snprintf(ret->text, sizeof(ret->text),
		               "another token is being minted already; the last try failed, the next one is in %s",
		               kt_duration_format((cred->next_try - now + 999) / 1000 * 1000, span));
	} else {
		(void)snprintf(ret->text, sizeof(ret->text), "another token is being minted already");
	}
	return KT_REFUSED_ALREADY;
}

/* True while another one may not be forced yet. */
static enum kt_code is_damped(struct kt_keeper *keeper, const char *ref, const struct kt_store_material *active, bool *ret,
                              struct kt_refusal *refusal, struct kt_err *err)
{
	kt_ms at, full_at;
	kt_ms now = kt_keeper_now(keeper);
	enum kt_code code = kt_store_ledger_newest(keeper->store, ref, LEDGER_WHAT, "", &at, &full_at, err);
	kt_ms minted = active->issued > 0 ? active->issued : active->not_before;
	char since[32], until[32];

	*ret = code == KT_OK && at != 0 && at <= now && now < full_at;
	if (*ret) {
		refusal->again_at = full_at;
		(void)snprintf(refusal->text, sizeof(refusal->text),
		               "the token in force was minted %s ago; another one may be asked for in %s",
		               kt_duration_format((now > minted ? now - minted : 0) / 1000 * 1000, since),
		               kt_duration_format((full_at - now + 999) / 1000 * 1000, until));
	}
	return code;
}

/* In a transaction. What is in work writes its own row when it ends, so that is told too, by the caller. */
static enum kt_code make_due(struct kt_keeper *keeper, struct kt_flight *flight, const struct kt_store_cred *cred,
                             const char *trace_id, struct kt_err *err)
{
	struct kt_store_cred again = *cred;
	kt_ms now = kt_keeper_now(keeper);

	if (flight != NULL) {
		return kt_store_cred_wake(keeper->store, cred->id, now, KT_CRED_REFUSED, err);
	}
	again.mem = NULL;
	again.flags |= KT_CRED_REFUSED;
	again.trace_id = trace_id;
	again.due_at = cred->attempts > 0 && cred->next_try > now ? cred->next_try : now;
	return kt_store_cred_put(keeper->store, &again, err);
}

enum kt_code kt_token_refused(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                              const struct kt_store_cred *cred, const char *sha256, const char *actor,
                              const char *consumer, struct kt_refusal *ret, struct kt_err *err)
{
	struct kt_flight *flight = kt_rotate_find(keeper, cred->id);
	struct kt_store_material active = {.sha256 = ""};
	struct kt_audit_event event = {.actor = actor,
	                               .kind = resource->kind,
	                               .ns = resource->ns,
	                               .name = resource->name,
	                               .step = "token.invalidated",
	                               .outcome = "ok",
	                               .consumer = consumer};
	kt_ms now = kt_keeper_now(keeper);
	bool damped = false;
	char ref[600];
	enum kt_code code = KT_OK;

	memset(ret, 0, sizeof(*ret));
	(void)snprintf(ref, sizeof(ref), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	if (cred->kind != KT_KIND_TOKEN || resource->gone) {
		return kt_err_set(err, KT_E_INVALID, "%s is not a Token of the manifests", ref);
	}
	if (cred->active != 0) {
		code = kt_store_material_get(keeper->store, cred->active, &active, err);
	}
	if (code != KT_OK) {
		return code;
	}
	(void)snprintf(ret->sha256, sizeof(ret->sha256), "%s", active.sha256);
	ret->minted_at = active.issued;
	ret->outcome = look(keeper, flight, cred, &active, sha256, ret);
	if (ret->outcome == KT_REFUSED_MINTING) {
		code = is_damped(keeper, ref, &active, &damped, ret, err);
		ret->outcome = damped ? KT_REFUSED_DAMPED : KT_REFUSED_MINTING;
	}
	if (code == KT_OK && ret->outcome == KT_REFUSED_MINTING) {
		(void)kt_audit_trace_id(now, ret->trace_id);
		event.trace_id = ret->trace_id;
		event.reason = sha256[0] != '\0' ? "who uses it saw it refused" : "who uses it saw the newest one refused";
		event.token_id = active.serial;
		event.sha256 = active.sha256;
		event.revision = active.revision;
		event.not_after = active.not_after;
		(void)snprintf(ret->text, sizeof(ret->text), "another token is minted now");
		code = kt_store_begin(keeper->store, err);
		if (code == KT_OK) {
			kt_ms until = kt_plan_refusal_until(active.not_before, active.issued, active.not_after, now);

			code = kt_budget_prune(keeper, now, err);
			if (code == KT_OK) {
				code = kt_store_ledger_spend(keeper->store, ref, LEDGER_WHAT, "", now, "spent", until, err);
			}
			code = code == KT_OK ? make_due(keeper, flight, cred, ret->trace_id, err) : code;
			code = code == KT_OK ? kt_keeper_audit(keeper, &event, err) : code;
			code = kt_store_end(keeper->store, code, err);
		}
		if (code == KT_OK && flight != NULL) {
			flight->cred.flags |= KT_CRED_REFUSED;
			(void)snprintf(flight->refused, sizeof(flight->refused), "%s", ret->trace_id);
		}
		if (code == KT_OK) {
			kt_rotate_kick(keeper);
		}
	}
	kt_store_material_finish(&active);
	return code;
}

static void add_member(struct kt_buf *out, const char *name, const char *text)
{
	kt_buf_add_json_member(out, name, text != NULL && text[0] != '\0' ? text : NULL);
}

void kt_refusal_json(const struct kt_refusal *refusal, struct kt_buf *out)
{
	char when[32];

	kt_buf_addf(out, "{\"outcome\":\"%s\"", kt_refused_name(refusal->outcome));
	add_member(out, "message", refusal->text);
	add_member(out, "sha256", refusal->sha256);
	add_member(out, "mintedAt", refusal->minted_at > 0 ? kt_time_format(refusal->minted_at, when) : NULL);
	add_member(out, "againAt", refusal->again_at > 0 ? kt_time_format(refusal->again_at, when) : NULL);
	add_member(out, "traceId", refusal->trace_id);
	kt_buf_addc(out, '}');
}
