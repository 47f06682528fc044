/* Watches: the source is looked at, its renewal command run when the time has come, and the source looked at again. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/admin.h"
#include "keeper/flight.h"
#include "keeper/hook.h"
#include "keeper/prove.h"
#include "keeper/watch/facts.h"
#include "keeper/watch/watched.h"

#define RUNS_MAX      16u
#define FILE_MAX      (192u * 1024u)
#define PROBE_TIMEOUT (5 * KT_SECOND)
#define BUSY_WAIT     (2 * KT_SECOND)

struct kt_watched {
	struct kt_watched *next;
	struct kt_keeper *keeper;
	int64_t id;
	struct kt_store_resource resource;
	struct kt_resource *spec;
	char trace_id[33];
	char error_text[768];
};

/* --- what is written down --------------------------------------------------------------------------------------------- */

static struct kt_watched *find_run(const struct kt_keeper *keeper, int64_t id)
{
	struct kt_watched *run = keeper->watched;

	while (run != NULL && run->id != id) {
		run = run->next;
	}
	return run;
}

bool kt_watched_busy(const struct kt_keeper *keeper, int64_t id)
{
	return find_run(keeper, id) != NULL;
}

bool kt_watched_open(const struct kt_store_cred *cred)
{
	return cred->kind == KT_KIND_WATCH && (cred->step == KT_STEP_DUE || cred->step == KT_STEP_NOTIFIED);
}

static void run_free(struct kt_watched *run)
{
	kt_wire_forget(run->keeper->courier, run);
	kt_wire_forget(run->keeper->ctx->warden, run);
	kt_store_resource_finish(&run->resource);
	kt_resource_destroy(run->spec);
	kt_free(run);
}

static void run_end(struct kt_watched *run)
{
	struct kt_watched **at = &run->keeper->watched;
	struct kt_keeper *keeper = run->keeper;

	while (*at != run) {
		at = &(*at)->next;
	}
	*at = run->next;
	keeper->watched_count--;
	run_free(run);
	kt_rotate_kick(keeper);
}

void kt_watched_finish(struct kt_keeper *keeper)
{
	while (keeper->watched != NULL) {
		struct kt_watched *run = keeper->watched;

		keeper->watched = run->next;
		run_free(run);
	}
	keeper->watched_count = 0;
}

static enum kt_code audit(struct kt_watched *run, const struct kt_watch_facts *facts, const char *step, const char *outcome,
                          const char *reason, enum kt_code error, struct kt_err *err)
{
	struct kt_audit_event event = {.trace_id = run->trace_id,
	                               .actor = "agent",
	                               .kind = run->resource.kind,
	                               .ns = run->resource.ns,
	                               .name = run->resource.name,
	                               .step = step,
	                               .outcome = outcome,
	                               .reason = reason,
	                               .error_type = error != KT_OK ? kt_code_name(error) : NULL,
	                               .serial = facts->serial[0] != '\0' ? facts->serial : NULL,
	                               .sha256 = facts->sha256[0] != '\0' ? facts->sha256 : NULL,
	                               .server_address = run->spec->watch.source.tls != NULL ? run->spec->watch.source.tls->address
	                                                                                     : NULL,
	                               .not_after = facts->not_after};

	return kt_keeper_audit(run->keeper, &event, err);
}

/* A row as it is changed: within a transaction, its texts borrowed. */
struct change {
	struct kt_watched *run;
	struct kt_store_cred cred;
	struct kt_watch_facts facts;
	kt_ms now;
};

static void forget_failure(struct kt_store_cred *cred)
{
	cred->attempts = 0;
	cred->error = KT_OK;
	cred->error_text = NULL;
	cred->next_try = 0;
	cred->flags &= ~(unsigned)KT_CRED_FAILED;
}

/* ran: the command, or the proof that it did anything, has failed; else looking. */
static enum kt_code failed(struct change *change, const struct kt_err *why, bool ran, struct kt_err *err)
{
	struct kt_watched *run = change->run;
	struct kt_store_cred *cred = &change->cred;
	struct kt_plan_watch watch;
	bool again = cred->attempts > 0 && cred->error == why->code && ran == change->facts.renewal_failed;

	(void)snprintf(run->error_text, sizeof(run->error_text), "%s", why->what);
	change->facts.phase = KT_WATCH_IDLE;
	change->facts.renewal_failed = ran;
	change->facts.waits = false;
	cred->attempts++;
	cred->error = why->code;
	cred->error_text = run->error_text;
	cred->error_at = change->now;
	cred->step = KT_STEP_RETIRED;
	cred->step_at = change->now;
	cred->proof = ran ? KT_PROOF_FAILED : cred->proof;
	cred->flags &= ~(unsigned)KT_CRED_FORCED;
	kt_watch_plan_input(&run->resource, cred, run->spec, &change->facts, false, change->now, &watch);
	cred->next_try = cred->due_at = kt_plan_watch_retry(&watch, why->code, ran, change->now);
	run->keeper->failures++;
	kt_log(again || kt_admin_will_report(run->keeper, run->resource.id) ? KT_LOG_INFO : KT_LOG_WARN, "Watch %s/%s: %s",
	       run->resource.ns, run->resource.name, run->error_text);
	if (!ran && again) { /* said once */
		return KT_OK;
	}
	return audit(run, &change->facts, ran ? "watch.failed" : "watch.read", "retry", run->error_text, why->code, err);
}

static enum kt_code warn(struct change *change, struct kt_err *err)
{
	struct kt_watched *run = change->run;
	kt_ms left = change->facts.not_after - change->now;
	char text[160], span[32], when[32];

	change->facts.warned = change->facts.not_after;
	(void)snprintf(text, sizeof(text), "%s %s (%s)%s", left > 0 ? "it ends in" : "it has ended",
	               left > 0 ? kt_duration_format(left / 1000 * 1000, span) : "", kt_time_format(change->facts.not_after, when),
	               run->spec->watch.renew == NULL ? ", and no command renews it" : "");
	kt_log(KT_LOG_WARN, "Watch %s/%s: %s", run->resource.ns, run->resource.name, text);
	return audit(run, &change->facts, "watch.warned", "ok", text, KT_OK, err);
}

/* A renewBefore that the life cannot hold would have the command run all the time: it is not the rule, and that is said at once. */
static enum kt_code warn_rule(struct change *change, const struct kt_plan_watch *watch, struct kt_err *err)
{
	struct kt_watched *run = change->run;
	kt_ms mark = change->facts.not_after + watch->policy.renew_before;
	char rule[KT_PLAN_RULE_SIZE], text[KT_PLAN_RULE_SIZE + 32];

	if (!watch->has_command || mark == change->facts.too_long ||
	    !kt_plan_before_is_too_long(&watch->policy, watch->not_before, watch->not_after)) {
		return KT_OK;
	}
	change->facts.too_long = mark;
	(void)snprintf(text, sizeof(text), "it is renewed %s",
	               kt_plan_rule(&watch->policy, watch->not_before, watch->not_after, rule));
	kt_log(KT_LOG_WARN, "Watch %s/%s: %s", run->resource.ns, run->resource.name, text);
	return audit(run, &change->facts, "watch.warned", "ok", text, KT_OK, err);
}

static enum kt_code proved(struct change *change, struct kt_err *err)
{
	struct kt_store_cred *cred = &change->cred;

	forget_failure(cred);
	change->facts.phase = KT_WATCH_IDLE;
	change->facts.waits = false;
	cred->proof = KT_PROOF_PROVED;
	cred->proved_at = change->now;
	cred->step = KT_STEP_PROVED;
	cred->step_at = change->now;
	cred->revision++;
	cred->flags &= ~(unsigned)KT_CRED_FORCED;
	change->run->keeper->rotations++;
	return audit(change->run, &change->facts, "watch.proved", "ok", NULL, KT_OK, err);
}

/* Before it is run. */
static enum kt_code renewing(struct change *change, struct kt_err *err)
{
	struct kt_watched *run = change->run;
	struct kt_store_cred *cred = &change->cred;
	bool again = change->facts.phase == KT_WATCH_RENEWING;
	bool waited = change->facts.waits;

	if (!again) {
		change->facts.was_not_after = change->facts.not_after;
	}
	change->facts.phase = KT_WATCH_RENEWING;
	change->facts.ran_at = change->now;
	cred->step = KT_STEP_DUE;
	cred->step_at = change->now;
	cred->due_at = change->now;
	cred->flags &= ~(unsigned)KT_CRED_FORCED;
	return waited ? KT_OK
	              : audit(run, &change->facts, "watch.renewing", "ok",
	                      again ? "it is not known whether the command ran to its end: again" : NULL, KT_OK, err);
}

/* It may be gone, and its number be that of something that came since. */
static enum kt_code check_same(struct kt_watched *run, struct kt_err *err)
{
	struct kt_store_resource now;
	enum kt_code code = kt_store_resource_get(run->keeper->store, run->id, &now, err);

	if (code == KT_OK && (strcmp(now.kind, run->resource.kind) != 0 || strcmp(now.ns, run->resource.ns) != 0 ||
	                      strcmp(now.name, run->resource.name) != 0)) {
		code = kt_err_set(err, KT_E_NOTFOUND, "the Watch is gone");
	}
	kt_store_resource_finish(&now);
	return code;
}

static enum kt_code change_begin(struct kt_watched *run, struct change *change, struct kt_err *err)
{
	enum kt_code code = kt_store_begin(run->keeper->store, err);

	memset(change, 0, sizeof(*change));
	change->run = run;
	change->now = kt_keeper_now(run->keeper);
	if (code == KT_OK) {
		code = check_same(run, err);
	}
	if (code == KT_OK) {
		code = kt_store_cred_get(run->keeper->store, run->id, &change->cred, err);
	}
	if (code == KT_OK) {
		kt_watch_facts_read(&change->cred, &change->facts);
	}
	return code;
}

/* Writes the row and ends the transaction; false (and the run is over) when that failed. */
static bool change_end(struct change *change, enum kt_code code, struct kt_err *err)
{
	struct kt_keeper *keeper = change->run->keeper;
	struct kt_buf cookie KT_AUTOBUF = {0};
	char trace[33];

	if (code == KT_OK) {
		code = kt_watch_facts_write(&change->facts, &cookie, err);
	}
	if (code == KT_OK) {
		(void)kt_buf_addc(&cookie, '\0');
		(void)snprintf(trace, sizeof(trace), "%s", change->run->trace_id);
		change->cred.cookie = cookie.ptr;
		change->cred.trace_id = trace;
		change->cred.expiry = change->facts.not_after;
		code = kt_buf_check(&cookie, "Watch", err);
	}
	if (code == KT_OK) {
		code = kt_store_cred_put(keeper->store, &change->cred, err);
	}
	if (kt_store_in_transaction(keeper->store)) {
		code = kt_store_end(keeper->store, code, err);
	}
	kt_store_cred_finish(&change->cred);
	if (code == KT_OK) {
		keeper->commit_delay = 0;
		return true;
	}
	if (code != KT_E_NOTFOUND) { /* its manifest may be gone by now */
		kt_log_err(KT_LOG_ERROR, err, "what Watch %s/%s did can't be written down", change->run->resource.ns,
		           change->run->resource.name);
		kt_rotate_not_written(keeper);
	}
	run_end(change->run);
	return false;
}

/* --- the command ------------------------------------------------------------------------------------------------------ */

static void look(struct kt_watched *run);

static void on_hooked(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_watched *run = arg;
	const struct kt_msg_hooked *hooked = msg;
	struct change change;
	struct kt_err said, err;
	bool waits = why->code == KT_OK && type == KT_HOOKED && hooked->outcome == 4;
	enum kt_hook_verdict verdict = kt_hook_judge(why, type, hooked, &said);
	enum kt_code code;

	(void)fds;
	(void)fd_count;
	kt_err_clear(&err);
	code = change_begin(run, &change, &err);
	if (code == KT_OK && waits) {
		change.facts.waits = true;
		change.cred.due_at = change.now + BUSY_WAIT;
	} else if (code == KT_OK && verdict == KT_HOOK_GOOD) {
		change.facts.phase = KT_WATCH_PROVING;
		change.facts.ended_at = change.now;
		change.facts.looks = 0;
		change.facts.waits = false;
		change.cred.step = KT_STEP_NOTIFIED;
		change.cred.step_at = change.cred.due_at = change.now;
	} else if (code == KT_OK) {
		said.code = verdict == KT_HOOK_REFUSED ? KT_E_PROTO : verdict == KT_HOOK_LATE ? KT_E_TIMEOUT : said.code;
		code = failed(&change, &said, true, &err);
	}
	if (!change_end(&change, code, &err)) {
		return;
	}
	if (verdict == KT_HOOK_GOOD) {
		look(run);
	} else {
		run_end(run);
	}
}

static void run_command(struct kt_watched *run, const struct kt_watch_facts *facts)
{
	const struct kt_exec *exec = run->spec->watch.renew->exec;
	struct kt_keeper *keeper = run->keeper;
	char resource[600], traceparent[56];
	struct kt_msg_hook msg = {.generation = keeper->generation,
	                          .consumer_ns = kt_view_str(run->resource.ns),
	                          .consumer = kt_view_str(run->resource.name),
	                          .phase = KT_HOOK_RENEW,
	                          .step = KT_VIEW_LIT("renew"),
	                          .not_after = facts->not_after,
	                          .fingerprint = kt_view_str(facts->sha256),
	                          .serial = kt_view_str(facts->serial)};
	struct kt_err err;

	kt_err_clear(&err);
	(void)snprintf(resource, sizeof(resource), "%s/%s/%s", run->resource.kind, run->resource.ns, run->resource.name);
	msg.resource = kt_view_str(resource);
	msg.traceparent = kt_view_str(kt_keeper_traceparent(run->trace_id, traceparent));
	/* The warden keeps the command's own limit; others may be before it in the queue. */
	if (kt_wire_call(keeper->ctx->warden, KT_HOOK, &msg, NULL, 0, RUNS_MAX * (exec->timeout + KT_MINUTE), on_hooked, run,
	                 &err) != KT_OK) {
		on_hooked(&err, KT_MSG_TYPE_NONE, NULL, NULL, 0, run);
	}
}

/* --- looking ---------------------------------------------------------------------------------------------------------- */

/* A certificate as it was seen; borrowed. */
struct seen {
	kt_ms not_before, not_after;
	struct kt_view serial, sha256, subject;
};

static void take_text(char *out, size_t size, struct kt_view text)
{
	(void)snprintf(out, size, "%.*s", (int)(text.len < size ? text.len : size - 1), text.len > 0 ? text.ptr : "");
}

/* Into the facts; says when it is another one than was known. */
static enum kt_code take_seen(struct change *change, const struct seen *seen, struct kt_err *err)
{
	struct kt_watch_facts *facts = &change->facts;
	bool other = !kt_view_eq_str(seen->sha256, facts->sha256);
	bool later = seen->not_after > facts->not_after;

	facts->read_at = change->now;
	facts->not_before = seen->not_before;
	facts->not_after = seen->not_after;
	take_text(facts->serial, sizeof(facts->serial), seen->serial);
	take_text(facts->sha256, sizeof(facts->sha256), seen->sha256);
	take_text(facts->subject, sizeof(facts->subject), seen->subject);
	if (facts->phase != KT_WATCH_IDLE) {
		return KT_OK;
	}
	if (change->cred.attempts > 0 && (!facts->renewal_failed || (other && later))) {
		forget_failure(&change->cred);
	}
	if (change->cred.step == KT_STEP_NEW) {
		change->cred.step = KT_STEP_RETIRED;
		change->cred.step_at = change->now;
	}
	return other ? audit(change->run, facts, "watch.read", "ok", NULL, KT_OK, err) : KT_OK;
}

/* Another source has another certificate; a renewal that is under way is judged by what the new one shows. */
static void follow_source(struct change *change)
{
	struct kt_watch_facts *facts = &change->facts;
	char source[600];

	if (strcmp(facts->source, kt_watch_source_text(change->run->spec, source, sizeof(source))) != 0) {
		facts->not_before = facts->not_after = facts->read_at = facts->warned = 0;
		facts->serial[0] = facts->sha256[0] = facts->subject[0] = '\0';
		(void)snprintf(facts->source, sizeof(facts->source), "%s", source);
	}
}

static enum kt_code late(struct change *change, const struct kt_err *why, struct kt_err *err)
{
	struct kt_err said;
	char text[32];

	if (why->code != KT_OK) {
		(void)kt_err_set(&said, KT_E_MISMATCH, "the command ended well, but the source can't be read: %s", why->what);
	} else {
		(void)kt_err_set(&said, KT_E_MISMATCH, "the command ended well, but the source still shows a certificate that ends %s",
		                 kt_time_format(change->facts.not_after, text));
	}
	return failed(change, &said, true, err);
}

/* What the plan makes of it. *ret_run: the command is to be run, after the commit. */
static enum kt_code act(struct change *change, const struct kt_err *why, bool *ret_run, struct kt_err *err)
{
	struct kt_plan_watch watch;
	struct kt_plan_watch_next next;
	struct kt_watched *run = change->run;
	enum kt_code code = KT_OK;

	kt_watch_plan_input(&run->resource, &change->cred, run->spec, &change->facts, why->code == KT_OK, change->now, &watch);
	kt_plan_watch_decide(&watch, change->now, &next);
	if (next.action == KT_WATCH_PROVED) {
		code = proved(change, err);
		kt_watch_plan_input(&run->resource, &change->cred, run->spec, &change->facts, true, change->now, &watch);
		kt_plan_watch_decide(&watch, change->now, &next);
	}
	if (code != KT_OK) {
		return code;
	}
	change->cred.due_at = next.due_at;
	if (next.action == KT_WATCH_RUN) {
		*ret_run = true;
		code = renewing(change, err);
	} else if (next.action == KT_WATCH_LATE) {
		code = late(change, why, err);
	} else if (change->facts.phase == KT_WATCH_PROVING) {
		change->facts.looks++;
	} else if (why->code != KT_OK) {
		code = failed(change, why, false, err);
	}
	if (code == KT_OK && why->code == KT_OK && next.warn && change->facts.warned != change->facts.not_after) {
		code = warn(change, err);
	}
	if (code == KT_OK && why->code == KT_OK) {
		code = warn_rule(change, &watch, err);
	}
	return code;
}

/* The end of a look: seen, or why not. */
static void looked(struct kt_watched *run, const struct seen *seen, const struct kt_err *why)
{
	struct change change;
	struct kt_watch_facts facts;
	struct kt_err err;
	bool run_it = false;
	enum kt_code code;

	kt_err_clear(&err);
	code = change_begin(run, &change, &err);
	if (code == KT_OK && (run->resource.gone || (change.cred.flags & KT_CRED_ORPHAN) != 0)) {
		change.cred.due_at = 0;
	} else if (code == KT_OK) {
		if (change.facts.phase == KT_WATCH_IDLE || run->trace_id[0] == '\0') {
			(void)kt_audit_trace_id(change.now, run->trace_id);
		}
		follow_source(&change);
		code = seen != NULL ? take_seen(&change, seen, &err) : KT_OK;
		if (code == KT_OK) {
			code = act(&change, why, &run_it, &err);
		}
	}
	facts = change.facts;
	if (!change_end(&change, code, &err)) {
		return;
	}
	if (run_it) {
		run_command(run, &facts);
	} else {
		run_end(run);
	}
}

static enum kt_code read_source(struct kt_watched *run, struct kt_cert **ret, struct kt_err *err)
{
	const struct kt_watch_file *file = run->spec->watch.source.file;
	struct kt_secret *password KT_AUTOSECRET = NULL;
	struct kt_buf bytes KT_AUTOBUF = {0};
	struct stat info;
	enum kt_code code = KT_OK;
	int fd KT_AUTOCLOSE = kt_prove_open("the watched file", file->path, &info, err);

	if (fd < 0) {
		return err->code;
	}
	kt_buf_init(&bytes, FILE_MAX);
	code = kt_io_read_fd(fd, file->path, &bytes, err);
	if (code == KT_OK && file->password_ref != NULL) {
		code = kt_issuers_secret(run->keeper, run->resource.ns, file->password_ref->name, file->password_ref->key, &password,
		                         err);
	}
	if (code != KT_OK) {
		return code;
	}
	switch (file->format) {
	case KT_WATCH_PKCS12:
		code = kt_pki_p12_certificate(kt_buf_view(&bytes), file->alias, password, ret, err);
		break;
	case KT_WATCH_JKS:
		code = kt_pki_jks_certificate(kt_buf_view(&bytes), file->alias, ret, err);
		break;
	case KT_WATCH_PEM:
	default:
		code = kt_pki_pem_first(kt_buf_view(&bytes), ret, err);
		break;
	}
	return code == KT_OK ? KT_OK : kt_err_prefix(err, "%s", file->path);
}

static void look_at_file(struct kt_watched *run)
{
	KT_AUTOCERT struct kt_cert *cert = NULL;
	struct seen seen = {0};
	struct kt_err err;

	kt_err_clear(&err);
	if (read_source(run, &cert, &err) == KT_OK) {
		seen = (struct seen){.not_before = kt_pki_cert_not_before(cert),
		                     .not_after = kt_pki_cert_not_after(cert),
		                     .serial = kt_view_str(kt_pki_cert_serial(cert)),
		                     .sha256 = kt_view_str(kt_pki_cert_sha256(cert)),
		                     .subject = kt_view_str(kt_pki_cert_subject(cert))};
	}
	looked(run, err.code == KT_OK ? &seen : NULL, &err);
}

static void on_probed(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct kt_watched *run = arg;
	const struct kt_msg_probed_tls *probed = msg;
	struct kt_err err = *why;
	struct seen seen = {0};

	(void)fds;
	(void)fd_count;
	if (err.code == KT_OK && (type != KT_PROBED_TLS || probed->not_after <= 0)) {
		(void)kt_err_set(&err, KT_E_PROTO, "the courier gave a wrong answer");
	}
	if (err.code == KT_OK) {
		seen = (struct seen){probed->not_before, probed->not_after, probed->serial, probed->sha256, probed->subject};
	}
	looked(run, err.code == KT_OK ? &seen : NULL, &err);
}

static void look(struct kt_watched *run)
{
	const struct kt_prove_tls *tls = run->spec->watch.source.tls;
	struct kt_err err;

	kt_err_clear(&err);
	if (tls == NULL) {
		look_at_file(run);
	} else if (kt_prove_probe(run->keeper, tls, run->trace_id, PROBE_TIMEOUT, on_probed, run, &err) != KT_OK) {
		looked(run, NULL, &err);
	}
}

/* --- starting --------------------------------------------------------------------------------------------------------- */

/* A command does what is named, or all; it is not for a Watch that nobody spoke of to run its command then. */
static bool passes_over(const struct kt_keeper *keeper, int64_t id)
{
	const struct kt_session *session = keeper->sessions;
	size_t i;

	if (keeper->mode == KT_MODE_DAEMON || (session != NULL && session->id_count == 0)) {
		return false;
	}
	for (i = 0; session != NULL && i < session->id_count; i++) {
		if (session->ids[i] == id) {
			return false;
		}
	}
	return true;
}

void kt_watched_start(struct kt_keeper *keeper, int64_t id)
{
	struct kt_watched *run;
	struct kt_store_cred cred = {0};
	struct kt_err err;
	enum kt_code code;

	if (kt_watched_busy(keeper, id) || keeper->watched_count >= RUNS_MAX || passes_over(keeper, id)) {
		return; /* it stays due: the end of another one has us look again */
	}
	kt_err_clear(&err);
	run = kt_calloc(1, sizeof(*run));
	if (run == NULL) {
		kt_rotate_not_written(keeper);
		return;
	}
	run->keeper = keeper;
	run->id = id;
	run->next = keeper->watched;
	keeper->watched = run;
	keeper->watched_count++;
	code = kt_store_cred_get(keeper->store, id, &cred, &err);
	if (code == KT_OK) {
		code = kt_store_resource_get(keeper->store, id, &run->resource, &err);
	}
	if (code == KT_OK) {
		(void)snprintf(run->trace_id, sizeof(run->trace_id), "%s", cred.trace_id != NULL ? cred.trace_id : "");
		code = kt_load_spec(&run->resource, &run->spec, &err);
	}
	kt_store_cred_finish(&cred);
	if (code != KT_OK) {
		kt_log_err(KT_LOG_ERROR, &err, "a Watch can't be read");
		kt_rotate_not_written(keeper);
		run_end(run);
		return;
	}
	look(run);
}
