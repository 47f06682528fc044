/* The cookie of a Watch, and what the plan makes of it. */
#include <stdio.h>
#include <string.h>

#include "kt/json.h"
#include "keeper/watch/facts.h"

#define COOKIE_MAX 8192u

const char *const kt_watch_phases[3] = {"idle", "renewing", "proving"};

static void copy_text(const json_t *json, const char *key, char *out, size_t size)
{
	const char *text = kt_json_str(json, key);

	(void)snprintf(out, size, "%s", text != NULL ? text : "");
}

void kt_watch_facts_read(const struct kt_store_cred *cred, struct kt_watch_facts *facts)
{
	json_t *json KT_AUTOJSON = NULL;
	const char *phase;

	memset(facts, 0, sizeof(*facts));
	if (cred->cookie == NULL || kt_json_parse(kt_view_str(cred->cookie), COOKIE_MAX, &json, NULL) != KT_OK) {
		return;
	}
	copy_text(json, "source", facts->source, sizeof(facts->source));
	copy_text(json, "serial", facts->serial, sizeof(facts->serial));
	copy_text(json, "sha256", facts->sha256, sizeof(facts->sha256));
	copy_text(json, "subject", facts->subject, sizeof(facts->subject));
	phase = kt_json_str(json, "phase");
	for (unsigned i = 0; phase != NULL && i < sizeof(kt_watch_phases) / sizeof(kt_watch_phases[0]); i++) {
		if (strcmp(phase, kt_watch_phases[i]) == 0) {
			facts->phase = (enum kt_plan_watch_phase)i;
		}
	}
	facts->not_before = kt_json_int(json, "notBefore", 0);
	facts->not_after = kt_json_int(json, "notAfter", 0);
	facts->read_at = kt_json_int(json, "readAt", 0);
	facts->was_not_after = kt_json_int(json, "wasNotAfter", 0);
	facts->ran_at = kt_json_int(json, "ranAt", 0);
	facts->ended_at = kt_json_int(json, "endedAt", 0);
	facts->looks = (unsigned)kt_json_int(json, "looks", 0);
	facts->warned = kt_json_int(json, "warned", 0);
	facts->too_long = kt_json_int(json, "tooLong", 0);
	facts->renewal_failed = kt_json_bool(json, "renewalFailed", false);
	facts->waits = kt_json_bool(json, "waits", false);
}

/* A text that came from elsewhere: what is not printable is not kept, so that it can always be written. */
static json_t *printable(const char *text)
{
	char clean[sizeof(((struct kt_watch_facts *)0)->source)];
	size_t i;

	for (i = 0; text[i] != '\0' && i < sizeof(clean) - 1; i++) {
		clean[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	}
	clean[i] = '\0';
	return json_string(clean);
}

/* The source is in the manifest's words, which it is compared with: as it is, unless it can't be written so. */
static json_t *words(const char *text)
{
	json_t *json = json_string(text);

	return json != NULL ? json : printable(text);
}

enum kt_code kt_watch_facts_write(const struct kt_watch_facts *facts, struct kt_buf *out, struct kt_err *err)
{
	json_t *json KT_AUTOJSON = json_pack(
	        "{s:o,s:s,s:I,s:I,s:I,s:o,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b}", "source", words(facts->source), "phase",
	        kt_watch_phases[facts->phase], "notBefore", (json_int_t)facts->not_before, "notAfter", (json_int_t)facts->not_after,
	        "readAt", (json_int_t)facts->read_at, "serial", printable(facts->serial), "sha256", printable(facts->sha256),
	        "subject", printable(facts->subject), "wasNotAfter", (json_int_t)facts->was_not_after, "ranAt", (json_int_t)facts->ran_at, "endedAt",
	        (json_int_t)facts->ended_at, "looks", (json_int_t)facts->looks, "warned", (json_int_t)facts->warned,
	        "tooLong", (json_int_t)facts->too_long,
	        "renewalFailed", facts->renewal_failed, "waits", facts->waits);

	if (json == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a Watch");
	}
	kt_buf_init(out, COOKIE_MAX);
	return kt_json_dump(json, out, err);
}

/* How many bytes of a text fit, without cutting a letter in two. */
static int fit(const char *text, size_t max)
{
	size_t len = strlen(text);

	for (len = len < max ? len : max; len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80; len--) {
	}
	return (int)len;
}

const char *kt_watch_source_text(const struct kt_resource *spec, char *out, size_t size)
{
	const struct kt_watch_source *source = &spec->watch.source;
	const char *where = source->file != NULL ? source->file->path : source->tls->address;
	const char *what = source->file != NULL ? source->file->alias : source->tls->server_name;

	(void)snprintf(out, size, "%.*s%s%.*s", fit(where, 320), where, what != NULL ? "#" : "",
	               what != NULL ? fit(what, 260) : 0, what != NULL ? what : "");
	return out;
}

void kt_watch_plan_input(const struct kt_store_resource *resource, const struct kt_store_cred *cred,
                         const struct kt_resource *spec, const struct kt_watch_facts *facts, bool readable, kt_ms now,
                         struct kt_plan_watch *ret)
{
	char identity[600];

	(void)snprintf(identity, sizeof(identity), "%s/%s/%s", resource->kind, resource->ns, resource->name);
	memset(ret, 0, sizeof(*ret));
	ret->policy.kind = KT_PLAN_CERTIFICATE;
	ret->policy.renew_before = spec->watch.renew_before;
	ret->policy.renew_before_percentage = (int)spec->watch.renew_before_percentage;
	ret->has_command = spec->watch.renew != NULL;
	ret->within = spec->watch.prove.within;
	ret->warn_before = spec->watch.warn_before;
	ret->phase = facts->phase;
	ret->readable = readable;
	ret->not_before = facts->not_before;
	ret->not_after = facts->not_after;
	ret->was_not_after = facts->was_not_after;
	ret->ended_at = facts->ended_at;
	ret->looks = facts->looks;
	ret->forced = (cred->flags & KT_CRED_FORCED) != 0;
	ret->failures = cred->attempts;
	ret->last_attempt = cred->error_at;
	ret->last_code = cred->error;
	ret->announced = cred->attempts > 0 ? cred->next_try : 0;
	ret->cause_changed = cred->attempts > 0 && cred->next_try <= now;
	ret->seed = kt_plan_seed(identity, (uint64_t)cred->revision);
}
