/* keyturn audit: what was done, by whom, and how it ended; also while it happens. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define LIMIT_MAX     1000000u
#define LIMIT_DEFAULT 50u
#define ANCHORS_MAX   4096u

const struct kt_cli_option kt_cli_audit_options[] = {
        {"verify", 0, NULL, "walk the whole chain: exit status 1 when a record was changed, is missing or reordered"},
        {"anchor", 'a', "FILE", "with --verify: compare with what was written down outside (spec.audit), a file or a system log"},
        {"since", 0, "WHEN", "records from then on: a time (2026-11-23T09:00:00Z) or a duration back (24h)"},
        {"number", 'n', "N", "so many: the last 50 without --since, all with it"},
        {"resource", 'r', "NAME", "only of this resource: NAME, namespace/NAME or Kind/namespace/NAME"},
        {"trace", 't', "ID", "only of this trace"},
        {"follow", 'f', NULL, "then wait for more, until interrupted; needs an agent"},
        {NULL, 0, NULL, NULL},
};

/* --- verify --------------------------------------------------------------------------------------------------------- */

/* Lines of an anchor file or of a system log, thinned: the newest one stands for all before it, the others say where. */
struct anchors {
	json_t *list; /* [seq, hash] */
	char *state;  /* of the lines that are taken; NULL: of the first one */
	uint64_t step, count, others, broken;
	json_t *last; /* the newest one, if it is not in the list */
};

/* Every second one goes when there are too many. */
static void thin(struct anchors *anchors)
{
	size_t to = 0;

	for (size_t i = 0; i < json_array_size(anchors->list); i += 2) {
		(void)json_array_set(anchors->list, to++, json_array_get(anchors->list, i));
	}
	while (json_array_size(anchors->list) > to) {
		(void)json_array_remove(anchors->list, json_array_size(anchors->list) - 1);
	}
	anchors->step *= 2;
}

static void take_anchor(struct anchors *anchors, char *line)
{
	char *at = strstr(line, "audit anchor seq=");
	char *hash = at != NULL ? strstr(at, " hash=") : NULL;
	char *state = hash != NULL ? strstr(hash, " state=") : NULL;
	uint64_t seq;

	if (at == NULL) {
		return; /* another line of the system's log */
	}
	if (hash == NULL || state == NULL || strspn(hash + 6, "0123456789abcdef") != 64 ||
	    kt_parse_u64((struct kt_view){at + 17, (size_t)(hash - at) - 17}, INT64_MAX, &seq, NULL) != KT_OK || seq == 0) {
		anchors->broken++;
		return;
	}
	hash[6 + 64] = '\0';
	if (anchors->state == NULL) {
		anchors->state = kt_strdup(state + 7);
	}
	if (anchors->state == NULL || strcmp(anchors->state, state + 7) != 0) {
		anchors->others++;
		return;
	}
	json_decref(anchors->last);
	anchors->last = json_pack("[I,s]", (json_int_t)seq, hash + 6);
	if (anchors->count++ % anchors->step == 0) {
		(void)json_array_append(anchors->list, anchors->last);
		json_decref(anchors->last);
		anchors->last = NULL;
		if (json_array_size(anchors->list) >= ANCHORS_MAX) {
			thin(anchors);
		}
	}
}

/* state: the state directory, if a line names it; else all lines have to be of one state. */
static enum kt_code read_file(struct anchors *anchors, const char *path, struct kt_err *err)
{
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char line[8192];

	if (file == NULL) {
		return kt_err_set(err, KT_E_INVALID, "--anchor: %s can't be read: %s", path, strerrordesc_np(errno));
	}
	while (fgets(line, sizeof(line), file) != NULL) {
		size_t len = strlen(line);

		if (len > 0 && line[len - 1] == '\n') {
			line[len - 1] = '\0';
			take_anchor(anchors, line);
		} else if (strstr(line, "audit anchor seq=") != NULL) {
			anchors->broken++; /* cut short: the power went while it was written */
		}
	}
	if (ferror(file) != 0) {
		(void)kt_err_set(err, KT_E_INVALID, "--anchor: %s can't be read: %s", path, strerrordesc_np(errno));
	}
	if (file != stdin) {
		(void)fclose(file);
	}
	return err->code;
}

static enum kt_code read_anchors(struct kt_cli *cli, json_t *body, struct kt_err *err)
{
	const char *path = kt_cli_value(cli, "anchor");
	struct anchors anchors = {.list = json_array(), .step = 1};
	struct kt_warden_places places = {0};
	struct kt_warden_options options;
	enum kt_code code;

	/* A log may be of several agents on this machine: ours is the one of this state. */
	kt_cli_warden_options(cli, KT_MODE_READONLY, &options);
	if (kt_warden_places(&options, &places, NULL) == KT_OK && strcmp(path, "-") != 0) {
		anchors.state = kt_strdup(places.state_dir);
	}
	kt_warden_places_finish(&places);
	code = read_file(&anchors, path, err);
	if (code == KT_OK && anchors.count == 0 && anchors.state != NULL && strcmp(path, "-") != 0) { /* a copy of a state elsewhere */
		kt_free(anchors.state);
		anchors.state = NULL;
		anchors.others = anchors.broken = 0;
		code = read_file(&anchors, path, err);
	}
	if (code == KT_OK && anchors.count == 0) {
		code = kt_err_set(err, KT_E_INVALID, "--anchor: %s has no line 'audit anchor seq=...'", path);
	}
	if (anchors.others > 0) {
		kt_cli_complain("%s: %llu anchors of other states are left out; compared are those of %s", path,
		                (unsigned long long)anchors.others, anchors.state);
	}
	if (anchors.broken > 0) {
		kt_cli_complain("%s: %llu broken line%s skipped", path, (unsigned long long)anchors.broken, anchors.broken == 1 ? "" : "s");
	}
	if (anchors.last != NULL) {
		(void)json_array_append(anchors.list, anchors.last);
	}
	(void)json_object_set(body, "anchors", anchors.list);
	json_decref(anchors.last);
	json_decref(anchors.list);
	kt_free(anchors.state);
	return code;
}

static void say_whole(const json_t *result, bool anchored)
{
	(void)printf("the chain is whole: %lld records, %lld to %lld\nhead %s\n", (long long)kt_json_int(result, "count", 0),
	             (long long)kt_json_int(result, "first", 0), (long long)kt_json_int(result, "last", 0),
	             kt_json_str(result, "head"));
	if (anchored) {
		(void)printf("it agrees with the anchor up to record %lld (%lld compared, %lld older than the chain)\n",
		             (long long)kt_json_int(result, "anchoredUpTo", 0), (long long)kt_json_int(result, "anchors", 0),
		             (long long)kt_json_int(result, "anchorsPruned", 0));
	}
}

static int verify(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "audit-verify");
	bool anchored = kt_cli_flag(cli, "anchor");
	struct kt_answer answer;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (anchored && read_anchors(cli, body, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	status = kt_client_simple(cli, body, KT_MODE_READONLY, &answer);
	if (answer.result != NULL && cli->format >= KT_FORMAT_JSON) {
		kt_cli_print_value(cli, stdout, answer.result);
	} else if (answer.result != NULL && kt_json_bool(answer.result, "good", false)) {
		say_whole(answer.result, anchored);
	} else if (answer.result != NULL) {
		kt_cli_complain("the audit trail is not as it was written: %s (record %lld)",
		                kt_json_str(answer.result, "what"), (long long)kt_json_int(answer.result, "badSeq", 0));
	}
	kt_answer_finish(&answer);
	return status;
}

/* --- records -------------------------------------------------------------------------------------------------------- */

static void cell_time(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	const char *time = kt_json_str(row, "time");

	(void)cli;
	kt_buf_adds(out, time != NULL ? time : "-");
}

void kt_cli_audit_what(const struct kt_cli *cli, const json_t *row, struct kt_buf *out)
{
	static const char *const keys[] = {"reason", "seen", "expected", "serial", "token_id"};
	static const char *const names[] = {"", "seen ", "expected ", "serial ", "token "};

	(void)cli;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		const char *text = kt_json_str(row, keys[i]);

		if (text != NULL && text[0] != '\0') {
			kt_buf_addf(out, "%s%s%s", out->len > 0 ? "; " : "", names[i], text);
		}
	}
}

static const struct kt_column columns[] = {
        {"TIME", NULL, cell_time, 0},       {"RESOURCE", "resource", NULL, 0},
        {"STEP", "step", NULL, 0},          {"OUTCOME", "outcome", NULL, 0},
        {"CONSUMER", "consumer", NULL, 0},  {"ACTOR", "actor", NULL, KT_COLUMN_WIDE},
        {"SEQ", "seq", NULL, KT_COLUMN_WIDE | KT_COLUMN_RIGHT}, {"TRACE", "trace_id", NULL, KT_COLUMN_WIDE},
        {"WHAT", NULL, kt_cli_audit_what, KT_COLUMN_TRUNC},             {NULL, NULL, NULL, 0},
};

static void keep(const json_t *row, void *arg)
{
	(void)json_array_append(arg, (json_t *)row);
}

int kt_cli_audit_list(struct kt_cli *cli, json_t *rows, bool backwards)
{
	struct kt_listing *listing = NULL;
	size_t count = json_array_size(rows);
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_listing_create(cli, stdout, "records", columns, "outcome", &listing, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	for (size_t i = 0; i < count; i++) {
		kt_listing_row(listing, json_array_get(rows, backwards ? count - 1 - i : i));
	}
	(void)kt_listing_end(listing, NULL);
	kt_listing_destroy(listing);
	return KT_EXIT_OK;
}

/* "24h" is that long ago; anything else has to be a time. */
static enum kt_code since_text(const struct kt_cli *cli, char out[32], struct kt_err *err)
{
	const char *text = kt_cli_value(cli, "since");
	kt_ms at;

	if (kt_duration_parse(kt_view_str(text), &at, NULL) == KT_OK) {
		at = cli->now - at;
	} else if (kt_time_parse(kt_view_str(text), &at, NULL) != KT_OK) {
		return kt_err_set(err, KT_E_INVALID, "--since takes a time such as 2026-11-23T09:00:00Z or a duration such as "
		                  "24h, not '%s'", text);
	}
	(void)kt_time_format_ms(at, out);
	return KT_OK;
}

/* --- following along ---------------------------------------------------------------------------------------------------- */

static void print_line(const struct kt_cli *cli, const json_t *row)
{
	const char *consumer = kt_json_str(row, "consumer");
	const char *outcome = kt_json_str(row, "outcome");
	const char *resource = kt_json_str(row, "resource");
	struct kt_buf what KT_AUTOBUF = {0};

	kt_buf_init(&what, 16384);
	kt_cli_audit_what(cli, row, &what);
	kt_cli_print(stdout, kt_json_str(row, "time"));
	(void)fputs("  ", stdout);
	kt_cli_print(stdout, resource != NULL ? resource : "-");
	(void)printf("  %s%s%s  %s", kt_cli_color(cli, outcome), kt_json_str(row, "step"), kt_cli_plain(cli),
	             outcome != NULL ? outcome : "-");
	if (consumer != NULL) {
		(void)fputs("  ", stdout);
		kt_cli_print(stdout, consumer);
	}
	if (what.len > 0) {
		(void)fputs("  ", stdout);
		kt_cli_print(stdout, what.ptr);
	}
	(void)fputc('\n', stdout);
}

struct following {
	struct kt_cli *cli;
	json_t *body;
};

/* One record, one line, at once; a reader that is gone ends us. */
static void show_now(const json_t *row, void *arg)
{
	struct following *following = arg;

	if (following->cli->format == KT_FORMAT_JSON) {
		(void)json_dumpf(row, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
	} else if (following->cli->format == KT_FORMAT_YAML) {
		(void)fputs("---\n", stdout);
		kt_cli_yaml(stdout, row, 0);
	} else {
		print_line(following->cli, row);
	}
	if (fflush(stdout) != 0) {
		exit(KT_EXIT_FAILED);
	}
	(void)json_object_set_new(following->body, "after", json_integer((json_int_t)kt_json_int(row, "seq", 0)));
}

/* What was there has been shown up to record `last`. */
static int follow(struct kt_cli *cli, json_t *body)
{
	struct following following = {cli, body};
	struct kt_request request = {
	        .body = body, .mode = KT_MODE_DAEMON, .resumes = true, .row = show_now, .arg = &following};
	struct kt_answer answer;
	int status;

	(void)json_object_set_new(body, "follow", json_true());
	(void)json_object_del(body, "limit");
	(void)json_object_del(body, "newestFirst");
	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	kt_answer_finish(&answer);
	return status;
}

/* --- the command --------------------------------------------------------------------------------------------------------- */

static enum kt_code filters(const struct kt_cli *cli, json_t *body, struct kt_err *err)
{
	const char *trace = kt_cli_value(cli, "trace");
	const char *resource = kt_cli_value(cli, "resource");
	char text[32];

	if (trace != NULL && (strlen(trace) != 32 || strspn(trace, "0123456789abcdef") != 32)) {
		return kt_err_set(err, KT_E_INVALID, "--trace takes 32 lower-case hex digits, not '%s'", trace);
	}
	if (kt_cli_flag(cli, "since")) {
		if (since_text(cli, text, err) != KT_OK) {
			return err->code;
		}
		(void)json_object_set_new(body, "since", json_string(text));
	}
	if (trace != NULL) {
		(void)json_object_set_new(body, "traceId", json_string(trace));
	}
	if (resource != NULL) {
		(void)json_object_set_new(body, "resource", json_string(resource));
	}
	return KT_OK;
}

/* What is there; with --follow, shown as what comes will be. */
static int show_past(struct kt_cli *cli, json_t *body, bool backwards, bool lines)
{
	json_t *rows KT_AUTOJSON = json_array();
	struct kt_request request = {
	        .body = body, .mode = lines ? KT_MODE_DAEMON : KT_MODE_READONLY, .row = keep, .arg = rows};
	struct kt_answer answer;
	int status;

	kt_client_call(cli, &request, &answer);
	status = kt_answer_report(&answer);
	if (status == KT_EXIT_OK && !lines) {
		status = kt_cli_audit_list(cli, rows, backwards);
	} else if (status == KT_EXIT_OK) {
		struct following following = {cli, body};
		size_t count = json_array_size(rows);

		(void)json_object_set_new(body, "after", json_integer((json_int_t)kt_json_int(answer.result, "head", 0)));
		for (size_t i = 0; i < count; i++) {
			show_now(json_array_get(rows, backwards ? count - 1 - i : i), &following);
		}
	}
	kt_answer_finish(&answer);
	return status;
}

int kt_cli_audit(struct kt_cli *cli)
{
	json_t *body KT_AUTOJSON = json_pack("{s:s}", "command", "audit");
	bool backwards = !kt_cli_flag(cli, "since") || kt_cli_flag(cli, "number");
	bool lines = kt_cli_flag(cli, "follow");
	uint64_t limit = backwards ? LIMIT_DEFAULT : LIMIT_MAX;
	struct kt_err err;
	int status;

	kt_err_clear(&err);
	if (kt_cli_flag(cli, "verify")) {
		return verify(cli);
	}
	if (kt_cli_flag(cli, "anchor")) {
		kt_cli_complain("--anchor belongs with --verify");
		return KT_EXIT_USAGE;
	}
	if (kt_cli_number(cli, "number", LIMIT_MAX, &limit, &err) != KT_OK || filters(cli, body, &err) != KT_OK) {
		return kt_cli_fail(&err);
	}
	(void)json_object_set_new(body, "limit", json_integer((json_int_t)limit));
	(void)json_object_set_new(body, "newestFirst", json_boolean(backwards));
	status = show_past(cli, body, backwards, lines);
	return status == KT_EXIT_OK && lines ? follow(cli, body) : status;
}
