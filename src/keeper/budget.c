/*
 * What CAs allow, counted in the ledger. Limits of an account are kept under the issuer's name, those that count whoever
 * asks under the CA's host: two issuers at one CA share them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kt/json.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/budget.h"
#include "keeper/plan/health.h"

#define NAMES_MAX   128u
#define KEEP        (8 * KT_DAY)
#define PRUNE_EVERY (6 * KT_HOUR)
#define TIGHT_MAX   16u

/* Which rows of the ledger a limit of this issuer has. */
struct scope {
	char who[900];
	char subject[KT_LIMIT_DOMAIN_MAX];
};

static const char *server_of(const struct kt_issuer_entry *issuer)
{
	return issuer->spec->issuer.acme->server;
}

static void limits_of(const struct kt_issuer_entry *issuer, struct kt_ca_limits *ret)
{
	kt_limits_for(issuer->spec->issuer.acme, server_of(issuer), ret);
}

static void who_of(const struct kt_issuer_entry *issuer, const struct kt_limit *limit, char *out, size_t size)
{
	char host[256];

	kt_limits_host(server_of(issuer), host, sizeof(host));
	if (limit->scope == KT_LIMIT_ACCOUNT || limit->scope == KT_LIMIT_NAME) {
		(void)snprintf(out, size, "%s%s%s", issuer->ref, issuer->staging ? "@" : "", issuer->staging ? host : "");
	} else {
		(void)snprintf(out, size, "%s", host);
	}
}

/* --- names ------------------------------------------------------------------------------------------------------------ */

struct names {
	const char *items[NAMES_MAX];
	size_t count;
};

static void add_name(struct names *names, const char *name)
{
	size_t i;

	for (i = 0; i < names->count; i++) {
		if (kt_ascii_ieq(kt_view_str(names->items[i]), kt_view_str(name))) {
			return;
		}
	}
	if (names->count < NAMES_MAX) {
		names->items[names->count++] = name;
	}
}

static void names_of(const struct kt_certificate_spec *spec, struct names *ret)
{
	uint32_t i;

	ret->count = 0;
	for (i = 0; i < spec->dns_names.count; i++) {
		add_name(ret, spec->dns_names.items[i]);
	}
	for (i = 0; i < spec->ip_addresses.count; i++) {
		add_name(ret, spec->ip_addresses.items[i]);
	}
	if (spec->common_name != NULL) {
		add_name(ret, spec->common_name);
	}
}

static int by_text(const void *a, const void *b)
{
	return strcasecmp(*(const char *const *)a, *(const char *const *)b);
}

/* The exact set: a hash of the names in order, in lower case. */
static void set_key(const struct names *names, char out[KT_SHA256_HEX])
{
	struct names sorted = *names;
	struct kt_buf text KT_AUTOBUF = {0};
	size_t i;

	kt_buf_init(&text, 65536);
	qsort(sorted.items, sorted.count, sizeof(sorted.items[0]), by_text);
	for (i = 0; i < sorted.count; i++) {
		const char *p;

		for (p = sorted.items[i]; *p != '\0'; p++) {
			kt_buf_addc(&text, *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p);
		}
		kt_buf_addc(&text, '\n');
	}
	kt_sha256_hex(text.ptr, text.len, out);
}

/* Calls fn for each subject that an order counts for by this limit, until it fails. */
static enum kt_code each_subject(const struct kt_limit *limit, const struct names *names,
                                 enum kt_code (*fn)(const char *subject, void *arg, struct kt_err *err), void *arg,
                                 struct kt_err *err)
{
	char domains[NAMES_MAX][KT_LIMIT_DOMAIN_MAX];
	char set[KT_SHA256_HEX];
	enum kt_code code = KT_OK;
	size_t count = 0, i, k;

	switch (limit->scope) {
	case KT_LIMIT_NAMES:
		set_key(names, set);
		return fn(set, arg, err);
	case KT_LIMIT_NAME:
		for (i = 0; i < names->count && code == KT_OK; i++) {
			bool wild = names->items[i][0] == '*' && names->items[i][1] == '.';

			code = fn(names->items[i] + (wild ? 2 : 0), arg, err); /* the CA validates the name itself */
		}
		return code;
	case KT_LIMIT_DOMAIN:
		for (i = 0; i < names->count && code == KT_OK; i++) {
			kt_limit_domain(names->items[i], domains[count]);
			for (k = 0; k < count && strcmp(domains[k], domains[count]) != 0; k++) {
			}
			if (k == count) {
				code = fn(domains[count++], arg, err);
			}
		}
		return code;
	default:
		return fn("", arg, err);
	}
}

/* --- looking ------------------------------------------------------------------------------------------------------------ */

void kt_budget_ask_init(struct kt_budget_ask *ask, const struct kt_issuer_entry *issuer,
                        const struct kt_store_resource *resource, const struct kt_resource *spec,
                        const struct kt_store_material *active, kt_ms renew_at, kt_ms now)
{
	char ours[256], theirs[256];

	*ask = (struct kt_budget_ask){.issuer = issuer, .spec = &spec->certificate};
	if (active == NULL || active->serial == NULL || active->serial[0] == '\0') {
		return;
	}
	kt_limits_host(server_of(issuer), ours, sizeof(ours));
	kt_limits_host(active->order_url, theirs, sizeof(theirs));
	ask->renewal = strcmp(active->request_key, resource->request_key) == 0 && strcmp(ours, theirs) == 0;
	ask->urgent = kt_plan_is_pressing(true, renew_at, active->not_after, now);
}

static bool counts(const struct kt_budget_ask *ask, const struct kt_ca_limits *limits, const struct kt_limit *limit)
{
	bool of_orders = limit->scope != KT_LIMIT_NAME && limit->scope != KT_LIMIT_ADDRESS;

	if (limit->scope == KT_LIMIT_ADDRESS) {
		return ask->issuer->account_url[0] == '\0';
	}
	return !of_orders || (!(ask->renewal && limit->renewals_free) && !(ask->replaces && limits->is_public));
}

struct look {
	struct kt_keeper *keeper;
	const struct kt_budget_ask *ask;
	const struct kt_ca_limits *limits;
	const struct kt_limit *limit;
	kt_ms now, next;
	kt_ms spread;
	char *text;
	char who[900];
};

static enum kt_code bucket_of(struct kt_keeper *keeper, const char *who, const struct kt_limit *limit, const char *subject,
                              struct kt_bucket *ret, struct kt_err *err)
{
	return kt_store_ledger_newest(keeper->store, who, limit->what, subject, &ret->at, &ret->full_at, err);
}

static enum kt_code look_at(const char *subject, void *arg, struct kt_err *err)
{
	struct look *look = arg;
	struct kt_bucket bucket;
	enum kt_code code = bucket_of(look->keeper, look->who, look->limit, subject, &bucket, err);
	kt_ms next;

	if (code != KT_OK) {
		return code;
	}
	next = kt_limit_next(look->limit, &bucket, look->now, look->ask->urgent);
	if (next > look->next) {
		look->next = next;
		look->spread = look->ask->urgent ? 0 : kt_limit_spread(look->limit);
		kt_limit_explain(look->limits, look->limit, look->limit->scope == KT_LIMIT_NAMES ? "" : subject, &bucket,
		                 look->now, next, look->text, 256);
	}
	return KT_OK;
}

/* The limits of one kind of request; what NULL: all. */
static enum kt_code look_for(struct kt_keeper *keeper, const struct kt_budget_ask *ask, kt_ms now, const char *what,
                             struct look *look, struct kt_err *err)
{
	struct kt_ca_limits limits;
	struct names names;
	enum kt_code code = KT_OK;
	size_t i;

	limits_of(ask->issuer, &limits);
	look->keeper = keeper;
	look->ask = ask;
	look->limits = &limits;
	look->now = look->next = now;
	look->text[0] = '\0';
	if (limits.count == 0) {
		return KT_OK;
	}
	names_of(ask->spec, &names);
	for (i = 0; i < limits.count && code == KT_OK; i++) {
		look->limit = &limits.rows[i];
		if (counts(ask, &limits, look->limit) && (what == NULL || strcmp(what, look->limit->what) == 0)) {
			who_of(ask->issuer, look->limit, look->who, sizeof(look->who));
			code = each_subject(look->limit, &names, look_at, look, err);
		}
	}
	return code;
}

enum kt_code kt_budget_look(struct kt_keeper *keeper, const struct kt_budget_ask *ask, kt_ms now,
                            struct kt_plan_state *state, char text[256], struct kt_err *err)
{
	struct look look = {.text = text};
	enum kt_code code = look_for(keeper, ask, now, NULL, &look, err);

	if (code == KT_OK && look.next > now) {
		state->limit_at = look.next;
		state->limit_spread = look.spread;
		state->limit_text = text;
	}
	return code;
}

/* --- spending ------------------------------------------------------------------------------------------------------------- */

static enum kt_code spend_one(const char *subject, void *arg, struct kt_err *err)
{
	struct look *look = arg;
	struct kt_bucket bucket;
	enum kt_code code = bucket_of(look->keeper, look->who, look->limit, subject, &bucket, err);

	if (code == KT_OK) {
		kt_limit_spend(look->limit, &bucket, look->now);
		code = kt_store_ledger_spend(look->keeper->store, look->who, look->limit->what, subject, bucket.at,
		                             look->limit->scope == KT_LIMIT_NAME ? "failed" : "placed", bucket.full_at, err);
	}
	return code;
}

enum kt_code kt_budget_prune(struct kt_keeper *keeper, kt_ms now, struct kt_err *err)
{
	if (now - keeper->ledger_pruned < PRUNE_EVERY && now >= keeper->ledger_pruned) {
		return KT_OK;
	}
	keeper->ledger_pruned = now;
	return kt_store_ledger_prune(keeper->store, now - KEEP, err);
}

/* In a transaction. */
static enum kt_code spend(struct kt_keeper *keeper, const struct kt_budget_ask *ask, const struct names *names,
                          const char *what, struct kt_err *err)
{
	struct kt_ca_limits limits;
	struct look look = {.keeper = keeper, .ask = ask, .limits = &limits, .now = kt_keeper_now(keeper)};
	enum kt_code code = kt_budget_prune(keeper, look.now, err);
	size_t i;

	limits_of(ask->issuer, &limits);
	if (code == KT_OK && limits.count == 0 && strcmp(what, KT_LIMIT_ORDER) == 0) { /* for the record */
		return kt_store_ledger_spend(keeper->store, ask->issuer->ref, what, "", look.now, "placed", 0, err);
	}
	for (i = 0; i < limits.count && code == KT_OK; i++) {
		look.limit = &limits.rows[i];
		if (strcmp(look.limit->what, what) == 0 && counts(ask, &limits, look.limit)) {
			who_of(ask->issuer, look.limit, look.who, sizeof(look.who));
			code = each_subject(look.limit, names, spend_one, &look, err);
		}
	}
	return code;
}

/* flight: whom it holds back, or NULL. */
static enum kt_code held_back(const struct look *look, struct kt_flight *flight, struct kt_err *err)
{
	if (flight != NULL) {
		flight->held_until = look->next;
	}
	(void)kt_err_set(err, KT_E_LATER, "%s", look->text);
	(void)snprintf(err->problem_type, sizeof(err->problem_type), "%s", KT_BUDGET_PROBLEM);
	err->retry_after_s = (look->next - look->now + KT_SECOND - 1) / KT_SECOND;
	return err->code;
}

/* A new order, which others in flight may have been faster with; and a certificate, which was looked for with it. */
static enum kt_code request_order(struct kt_flight *flight, bool certificate, bool replaces, struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_store_material active = {.request_key = ""};
	char text[256];
	struct look look = {.text = text};
	struct kt_budget_ask ask;
	struct names names;
	enum kt_code code = KT_OK;

	if (flight->cred.active != 0) {
		code = kt_store_material_get(keeper->store, flight->cred.active, &active, err);
	}
	kt_budget_ask_init(&ask, flight->issuer, &flight->resource, flight->spec, flight->cred.active != 0 ? &active : NULL,
	                   flight->plan.renew_at, kt_keeper_now(keeper));
	ask.replaces = replaces || (certificate && flight->ordered_replacing);
	flight->ordered_replacing = ask.replaces;
	names_of(ask.spec, &names);
	if (code == KT_OK && !certificate) {
		code = look_for(keeper, &ask, kt_keeper_now(keeper), NULL, &look, err);
		code = code == KT_OK && look.next > look.now ? held_back(&look, flight, err) : code;
	}
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, err);
	}
	if (code == KT_OK) {
		code = spend(keeper, &ask, &names, certificate ? KT_LIMIT_CERTIFICATE : KT_LIMIT_ORDER, err);
		if (code == KT_OK && certificate) {
			code = spend(keeper, &ask, &names, KT_LIMIT_SET, err);
		}
		code = kt_store_end(keeper->store, code, err);
	}
	kt_store_material_finish(&active);
	return code;
}

static enum kt_code new_account(struct kt_keeper *keeper, struct kt_issuer_entry *issuer, struct kt_flight *flight,
                                struct kt_err *err)
{
	static const struct kt_certificate_spec nothing;
	static const struct names nobody;
	char text[256];
	struct look look = {.text = text};
	struct kt_budget_ask ask = {.issuer = issuer, .spec = &nothing};
	enum kt_code code;

	if (issuer->account_url[0] != '\0') {
		return KT_OK;
	}
	code = look_for(keeper, &ask, kt_keeper_now(keeper), KT_LIMIT_NEW_ACCOUNT, &look, err);
	if (code == KT_OK && look.next > look.now) {
		return held_back(&look, flight, err);
	}
	if (code == KT_OK) {
		code = kt_store_begin(keeper->store, err);
	}
	return code == KT_OK ? kt_store_end(keeper->store, spend(keeper, &ask, &nobody, KT_LIMIT_NEW_ACCOUNT, err), err) : code;
}

enum kt_code kt_budget_request(struct kt_keeper *keeper, struct kt_issuer_entry *issuer, struct kt_flight *flight,
                               struct kt_view payload, bool by_jwk, struct kt_err *err)
{
	KT_AUTOJSON json_t *body = NULL;
	unsigned bit;
	enum kt_code code;

	if (payload.len < 3) {
		return KT_OK;
	}
	code = kt_json_parse(payload, 131072, &body, err);
	if (code != KT_OK) {
		return code; /* ours is JSON: only memory can be lacking */
	}
	if (by_jwk && (json_object_get(body, "certificate") != NULL || kt_json_bool(body, "onlyReturnExisting", false))) {
		return KT_OK; /* a revocation, or a question */
	}
	if (flight == NULL) {
		return by_jwk ? new_account(keeper, issuer, NULL, err) : KT_OK;
	}
	bit = by_jwk ? 1 : json_is_array(json_object_get(body, "identifiers")) ? 2 : json_object_get(body, "csr") != NULL ? 4 : 0;
	if (flight->counted_job != flight->job) {
		flight->counted_job = flight->job;
		flight->counted = 0;
	}
	if (bit == 0 || (flight->counted & bit) != 0) {
		return KT_OK; /* a refused nonce has it signed again: that counts once */
	}
	code = by_jwk ? new_account(keeper, issuer, flight, err)
	              : request_order(flight, bit == 4, json_object_get(body, "replaces") != NULL, err);
	if (code == KT_OK) {
		flight->counted |= bit;
	}
	return code;
}

/* Those of the names that the error speaks of; all where it speaks of none. */
static void blamed(const struct names *all, const char *what, struct names *ret)
{
	size_t i;

	ret->count = 0;
	for (i = 0; i < all->count; i++) {
		const char *name = all->items[i][0] == '*' && all->items[i][1] == '.' ? all->items[i] + 2 : all->items[i];
		const char *at = strstr(what, name);
		char after = at != NULL ? at[strlen(name)] : '\0';

		if (at != NULL && (at == what || at[-1] == ' ' || at[-1] == '(') && after != '.' && after != '-') {
			ret->items[ret->count++] = all->items[i];
		}
	}
	if (ret->count == 0) {
		*ret = *all;
	}
}

enum kt_code kt_budget_failed(struct kt_flight *flight, struct kt_err *err)
{
	const struct kt_plan_retry *row = kt_plan_retry_find(flight->err.code, flight->err.problem_type);
	struct kt_budget_ask ask = {.issuer = flight->rehearsal_failed ? flight->staging : flight->issuer,
	                            .spec = &flight->spec->certificate};
	struct names all, names;
	enum kt_code code;

	if (!row->validation || flight->issuer == NULL || flight->issuer->ops != &kt_issuer_acme) {
		return KT_OK;
	}
	names_of(ask.spec, &all);
	blamed(&all, flight->err.what, &names);
	code = spend(flight->keeper, &ask, &names, KT_LIMIT_FAILED, err);
	return code == KT_OK ? spend(flight->keeper, &ask, &names, KT_LIMIT_IN_A_ROW, err) : code;
}

static enum kt_code end_row(const char *subject, void *arg, struct kt_err *err)
{
	struct look *look = arg;
	struct kt_bucket bucket;
	enum kt_code code = bucket_of(look->keeper, look->who, look->limit, subject, &bucket, err);

	return code == KT_OK && bucket.full_at > look->now
	               ? kt_store_ledger_spend(look->keeper->store, look->who, look->limit->what, subject, look->now, "ok", 0, err)
	               : code;
}

enum kt_code kt_budget_obtained(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_ca_limits limits;
	struct look look = {.keeper = flight->keeper, .limits = &limits, .now = kt_keeper_now(flight->keeper)};
	struct names names;
	enum kt_code code = KT_OK;
	size_t i;

	limits_of(flight->issuer, &limits);
	names_of(&flight->spec->certificate, &names);
	for (i = 0; i < limits.count && code == KT_OK; i++) {
		look.limit = &limits.rows[i];
		if (strcmp(look.limit->what, KT_LIMIT_IN_A_ROW) == 0) {
			who_of(flight->issuer, look.limit, look.who, sizeof(look.who));
			code = each_subject(look.limit, &names, end_row, &look, err);
		}
	}
	return code;
}

/* --- for people ------------------------------------------------------------------------------------------------------------ */

struct rows {
	json_t *list;
	const struct kt_issuer_entry *issuer;
	const struct kt_ca_limits *limits;
	const struct kt_limit *limit;
	kt_ms now;
};

static void add_row(struct rows *rows, const char *subject, const struct kt_bucket *bucket)
{
	unsigned size = kt_limit_size(rows->limit), used = kt_limit_used(rows->limit, bucket, rows->now);
	kt_ms next = kt_limit_next(rows->limit, bucket, rows->now, false);
	char window[32], at[32], text[256];

	kt_limit_explain(rows->limits, rows->limit, rows->limit->scope == KT_LIMIT_NAMES ? "" : subject, bucket, rows->now, next,
	                 text, sizeof(text));
	(void)json_array_append_new(
	        rows->list, json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:o,s:s}", "issuer", rows->issuer->ref, "ca",
	                              rows->limits->ca, "what", rows->limit->what, "subject", subject, "limit",
	                              (json_int_t)size, "used", (json_int_t)used, "left", (json_int_t)(size - used), "kept",
	                              (json_int_t)kt_limit_reserve(rows->limit), "window",
	                              kt_duration_format_go(rows->limit->window, window), "next",
	                              next > rows->now ? json_string(kt_time_format(next, at)) : json_null(), "text", text));
}

static bool add_tight(const char *subject, kt_ms at, kt_ms full_at, void *arg)
{
	struct kt_bucket bucket = {at, full_at};

	add_row(arg, subject, &bucket);
	return true;
}

static void add_issuer(struct kt_keeper *keeper, struct kt_issuer_entry *issuer, json_t *list)
{
	struct kt_ca_limits limits;
	struct rows rows = {list, issuer, &limits, NULL, kt_keeper_now(keeper)};
	char who[900];
	size_t i;

	limits_of(issuer, &limits);
	for (i = 0; i < limits.count; i++) {
		struct kt_bucket bucket;

		rows.limit = &limits.rows[i];
		who_of(issuer, rows.limit, who, sizeof(who));
		if (rows.limit->scope == KT_LIMIT_ACCOUNT) { /* always shown; the others only where something is spent */
			if (bucket_of(keeper, who, rows.limit, "", &bucket, NULL) == KT_OK) {
				add_row(&rows, "", &bucket);
			}
		} else {
			(void)kt_store_ledger_tight(keeper->store, who, rows.limit->what, rows.now, TIGHT_MAX, add_tight, &rows, NULL);
		}
	}
}

struct issuers {
	struct kt_keeper *keeper;
	json_t *list;
};

static bool each_issuer(const struct kt_store_resource *resource, void *arg)
{
	struct issuers *issuers = arg;
	struct kt_issuer_entry *entry;

	if (kt_issuers_entry(issuers->keeper, resource->kind, resource->ns, resource->name, &entry, NULL) == KT_OK &&
	    entry->ops == &kt_issuer_acme) {
		add_issuer(issuers->keeper, entry, issuers->list);
	}
	return true;
}

json_t *kt_budget_json(struct kt_keeper *keeper)
{
	struct issuers issuers = {keeper, json_array()};

	(void)kt_store_resource_each(keeper->store, "Issuer", 0, 64, each_issuer, &issuers, NULL);
	(void)kt_store_resource_each(keeper->store, "ClusterIssuer", 0, 64, each_issuer, &issuers, NULL);
	return issuers.list;
}
