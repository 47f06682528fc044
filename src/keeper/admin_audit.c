/* The commands about the audit trail: its records, filtered, and following along; and its verification. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/admin.h"

#define PAGE        100u
#define PAGES_MAX   10u /* read in one go: filters may let nothing through for long */
#define FOLLOW_TICK ((kt_ms)500)

struct audit_rows {
	struct kt_session *session;
	uint64_t limit;
	unsigned taken;
};

/* "name", "ns/name" or "Kind/ns/name" against a record's "Kind/ns/name". */
static bool is_about(const json_t *record, const char *wanted)
{
	const char *resource = kt_json_str(record, "resource");
	const char *tail = resource;

	if (wanted == NULL || wanted[0] == '\0') {
		return true;
	}
	while (tail != NULL && strcmp(tail, wanted) != 0) {
		tail = strchr(tail, '/');
		tail = tail != NULL ? tail + 1 : NULL;
	}
	return tail != NULL;
}

static bool add_record(const struct kt_audit_record *record, void *arg)
{
	struct audit_rows *rows = arg;
	struct kt_session *session = rows->session;
	json_t *json = NULL;

	rows->taken++;
	session->after_id = record->seq;
	if (kt_json_parse(record->json, 65536, &json, NULL) == KT_OK && is_about(json, kt_session_arg(session, "resource"))) {
		(void)json_object_set_new(json, "seq", json_integer(record->seq));
		kt_session_row(session, json);
	} else {
		json_decref(json);
	}
	return session->rows < rows->limit;
}

static void wait_for_more(struct kt_session *session)
{
	session->more = NULL;
	kt_timer_start(session->timer, FOLLOW_TICK);
	kt_session_flush(session);
}

static void more_audit(struct kt_session *session)
{
	struct kt_audit_query query = {.trace_id = kt_session_arg(session, "traceId"),
	                               .since = session->since,
	                               .newest_first = kt_json_bool(session->request, "newestFirst", false)};
	int64_t limit = kt_json_int(session->request, "limit", INT64_MAX);
	struct audit_rows rows = {session, limit > 0 ? (uint64_t)limit : 0, PAGE};
	struct kt_err err;
	unsigned page;

	kt_err_clear(&err);
	for (page = 0; page < PAGES_MAX && rows.taken == PAGE && session->rows < rows.limit && kt_session_room(session); page++) {
		rows.taken = 0;
		query.after_seq = session->after_id;
		query.limit = PAGE;
		if (kt_audit_each(session->keeper->store, &query, add_record, &rows, &err) != KT_OK) {
			kt_session_fail(session, &err);
			return;
		}
	}
	if (session->rows >= rows.limit || rows.taken < PAGE) {
		if (session->follow_audit && session->rows < rows.limit) {
			wait_for_more(session);
		} else {
			kt_session_end(session, 0, json_pack("{s:I}", "head", (json_int_t)session->audit_head));
		}
	}
}

/* Records may have come: the head of the chain says so without a look at the table. */
static void on_follow(void *arg)
{
	struct kt_session *session = arg;
	char hash[65];
	int64_t head;

	kt_audit_head(session->keeper->store, &head, hash);
	if (head > session->after_id) {
		session->more = more_audit;
		more_audit(session);
		kt_session_flush(session);
	} else {
		kt_timer_start(session->timer, FOLLOW_TICK);
	}
}

static enum kt_code begin(struct kt_session *session, struct kt_err *err)
{
	const char *since = kt_session_arg(session, "since");
	char hash[65];

	kt_audit_head(session->keeper->store, &session->audit_head, hash);
	session->after_id = kt_json_int(session->request, "after", 0);
	if (since != NULL && kt_time_parse(kt_view_str(since), &session->since, err) != KT_OK) {
		return err->code;
	}
	session->follow_audit = kt_json_bool(session->request, "follow", false);
	if (session->follow_audit && kt_json_bool(session->request, "newestFirst", false)) {
		return kt_err_set(err, KT_E_INVALID, "who follows along reads forwards");
	}
	return session->follow_audit ? kt_timer_create(session->keeper->loop, on_follow, session, &session->timer, err) : KT_OK;
}

void kt_command_audit(struct kt_session *session)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (begin(session, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	session->more = more_audit;
	more_audit(session);
}

/* --- verifying ------------------------------------------------------------------------------------------------------ */

#define ANCHORS_MAX 8192u

/* What was written down outside, compared with the chain. */
struct compared {
	uint64_t checked, pruned;
	int64_t newest; /* the last anchor that agrees */
	int64_t known;  /* the highest record that an anchor names */
};

static bool take_hash(const struct kt_audit_record *record, void *arg)
{
	static const char key[] = "\"hash\":\"";
	char *hash = arg;
	size_t tail = sizeof(key) - 1 + 64 + 2;

	if (record->json.len > tail) {
		memcpy(hash, record->json.ptr + record->json.len - 66, 64);
		hash[64] = '\0';
	}
	return false;
}

/* The chain is whole in itself; one anchor: [seq, hash]. */
static enum kt_code compare_one(struct kt_store *store, const json_t *anchor, struct kt_audit_verdict *verdict,
                                struct compared *compared, struct kt_err *err)
{
	int64_t seq = json_integer_value(json_array_get(anchor, 0));
	const char *wanted = json_string_value(json_array_get(anchor, 1));
	struct kt_audit_query query = {.after_seq = seq - 1, .limit = 1};
	char hash[65] = "";
	enum kt_code code;

	if (seq <= 0 || wanted == NULL || strlen(wanted) != 64) {
		return kt_err_set(err, KT_E_INVALID, "an anchor is a record number and 64 hex digits");
	}
	if (seq > verdict->last_seq) {
		verdict->good = false;
		verdict->bad_seq = verdict->last_seq + 1;
		(void)snprintf(verdict->what, sizeof(verdict->what), "records %lld to %lld were cut off: the anchor knows them",
		               (long long)verdict->last_seq + 1, (long long)compared->known);
		return KT_OK;
	}
	if (seq < verdict->first_seq) {
		compared->pruned++;
		return KT_OK;
	}
	code = kt_audit_each(store, &query, take_hash, hash, err);
	if (code == KT_OK && strcmp(hash, wanted) == 0) {
		compared->checked++;
		compared->newest = seq;
	} else if (code == KT_OK) {
		verdict->good = false;
		verdict->bad_seq = seq;
		(void)snprintf(verdict->what, sizeof(verdict->what),
		               "record %lld is not the one that was anchored: the chain was rewritten after record %lld", (long long)seq,
		               (long long)compared->newest);
	}
	return code;
}

/* In ascending order, as the file has them: the first one that does not fit says where. */
static enum kt_code compare(struct kt_session *session, struct kt_audit_verdict *verdict, struct compared *compared,
                            struct kt_err *err)
{
	json_t *anchors = json_object_get(session->request, "anchors");
	enum kt_code code = KT_OK;
	json_t *anchor;
	size_t i;

	if (json_array_size(anchors) > ANCHORS_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "at most %u anchors are compared at once", ANCHORS_MAX);
	}
	json_array_foreach(anchors, i, anchor)
	{
		int64_t seq = json_integer_value(json_array_get(anchor, 0));

		compared->known = seq > compared->known ? seq : compared->known;
	}
	json_array_foreach(anchors, i, anchor)
	{
		if (code == KT_OK && verdict->good) {
			code = compare_one(session->keeper->store, anchor, verdict, compared, err);
		}
	}
	return code;
}

void kt_command_audit_verify(struct kt_session *session)
{
	struct kt_audit_verdict verdict;
	struct compared compared = {0};
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_audit_verify(session->keeper->store, &verdict, &err) != KT_OK ||
	    compare(session, &verdict, &compared, &err) != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_session_end(session, verdict.good ? 0 : 1,
	               json_pack("{s:I,s:I,s:I,s:b,s:I,s:I,s:I,s:I,s:s,s:s}", "anchors", (json_int_t)compared.checked,
	                         "anchorsPruned", (json_int_t)compared.pruned, "anchoredUpTo", (json_int_t)compared.newest, "good", verdict.good, "first",
	                         (json_int_t)verdict.first_seq, "last", (json_int_t)verdict.last_seq, "count",
	                         (json_int_t)verdict.count, "badSeq", (json_int_t)verdict.bad_seq, "head", verdict.head, "what",
	                         verdict.what));
}
