/* Building audit records and chaining them: straight into one buffer, nine times for every rotation. */
#include "keeper/audit/audit_internal.h"

#include <sodium.h>
#include <string.h>

#include "kt/text.h"

enum { TEXT_MAX = 1024 }; /* bytes of a text that are kept; longer ones end with "..." */

char *kt_audit_trace_id(kt_ms now, char out[33])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 12; i++)
		out[i] = digits[(uint64_t)now >> (44 - 4 * i) & 15];
	kt_rand_hex(out + 12, 10);
	return out;
}

char *kt_audit_span_id(char out[17])
{
	kt_rand_hex(out, 8);
	return out;
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

/* Length of a valid UTF-8 sequence at `at` (RFC 3629), or 0. */
static size_t utf8_len(const unsigned char *at, size_t left)
{
	unsigned char c = at[0];
	size_t len = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	if (len == 0 || len > left)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f) || (c == 0xf0 && at[1] < 0x90) ||
	    (c == 0xf4 && at[1] > 0x8f))
		return 0;
	return len;
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void add_text(struct kt_buf *out, const char *text)
{
	const unsigned char *at = (const unsigned char *)text;
	size_t left = strnlen(text, TEXT_MAX + 1);
	bool cut = left > TEXT_MAX;

	if (cut)
		left = TEXT_MAX - 3;
	kt_buf_addc(out, '"');
	while (left > 0) {
		size_t run = 0;
		while (run < left && is_plain(at[run]))
			run++;
		if (run == 0 && at[0] >= 0x80)
			run = utf8_len(at, left);
		if (run != 0) {
			kt_buf_add(out, at, run);
		} else {
			if (at[0] >= 0x80)
				kt_buf_adds(out, "\\ufffd");
			else if (at[0] == '"' || at[0] == '\\')
				kt_buf_addf(out, "\\%c", at[0]);
			else
				kt_buf_addf(out, "\\u%04x", at[0]);
			run = 1;
		}
		at += run;
		left -= run;
	}
	if (cut)
		kt_buf_adds(out, "...");
	kt_buf_addc(out, '"');
}

/* name: ,"name": with comma and colon, so that one copy does it. */
#define FIELD(out, key, text)                                                                                       \
	do {                                                                                                         \
		if ((text) != NULL && (text)[0] != '\0') {                                                           \
			kt_buf_add((out), ",\"" key "\":", sizeof(",\"" key "\":") - 1);                             \
			add_text((out), (text));                                                                     \
		}                                                                                                    \
	} while (0)

static void add_number(struct kt_buf *out, int64_t value)
{
	char digits[24];
	char *at = digits + sizeof(digits);
	uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

	do {
		*--at = (char)('0' + left % 10);
		left /= 10;
	} while (left != 0);
	if (value < 0)
		*--at = '-';
	kt_buf_add(out, at, (size_t)(digits + sizeof(digits) - at));
}

static void add_resource(struct kt_buf *out, const struct kt_audit_event *event)
{
	char text[TEXT_MAX];

	if (event->kind == NULL || event->kind[0] == '\0')
		return;
	(void)snprintf(text, sizeof(text), "%s/%s/%s", event->kind, event->ns != NULL ? event->ns : "",
	               event->name != NULL ? event->name : "");
	FIELD(out, "resource", text);
}

static void build(struct kt_buf *out, int64_t seq, kt_ms at, const struct kt_audit_event *event)
{
	char time[32];
	char span[17];

	kt_buf_adds(out, "{\"seq\":");
	add_number(out, seq);
	kt_buf_adds(out, ",\"time\":\"");
	kt_buf_adds(out, kt_time_format_ms(at, time));
	kt_buf_adds(out, "\",\"trace_id\":\"");
	kt_buf_adds(out, event->trace_id);
	kt_buf_adds(out, "\",\"span_id\":\"");
	kt_buf_adds(out, event->span_id != NULL && event->span_id[0] != '\0' ? event->span_id : kt_audit_span_id(span));
	kt_buf_addc(out, '"');
	FIELD(out, "actor", event->actor);
	add_resource(out, event);
	FIELD(out, "step", event->step);
	FIELD(out, "outcome", event->outcome);
	FIELD(out, "reason", event->reason);
	FIELD(out, "error.type", event->error_type);
	FIELD(out, "serial", event->serial);
	FIELD(out, "token_id", event->token_id);
	FIELD(out, "sha256", event->sha256);
	FIELD(out, "issuer", event->issuer);
	FIELD(out, "audience", event->audience);
	FIELD(out, "consumer", event->consumer);
	FIELD(out, "server.address", event->server_address);
	FIELD(out, "seen", event->seen);
	FIELD(out, "expected", event->expected);
	if (event->revision != 0) {
		kt_buf_adds(out, ",\"revision\":");
		add_number(out, event->revision);
	}
	if (event->not_after != 0) {
		kt_buf_adds(out, ",\"not_after\":\"");
		kt_buf_adds(out, kt_time_format(event->not_after, time));
		kt_buf_addc(out, '"');
	}
	kt_buf_addc(out, '}');
}

/* ---- the chain -------------------------------------------------------------------------------------------------------- */

void kt_audit_hash(const uint8_t *prev, struct kt_view body, uint8_t *hash)
{
	crypto_hash_sha256_state state;

	crypto_hash_sha256_init(&state);
	crypto_hash_sha256_update(&state, prev, KT_STORE_HASH_LEN);
	crypto_hash_sha256_update(&state, (const unsigned char *)body.ptr, body.len);
	crypto_hash_sha256_final(&state, hash);
}

static int hex_value(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool kt_audit_trace_key(const char *trace, int64_t *ret)
{
	uint64_t key = 0;

	for (int i = 0; i < 32; i++) {
		int value = hex_value(trace[i]);
		if (value < 0)
			return false;
		if (i < 16)
			key = key << 4 | (uint64_t)value;
	}
	*ret = (int64_t)key;
	return true;
}

static bool is_span(const char *span)
{
	if (span == NULL || span[0] == '\0')
		return true;
	for (int i = 0; i < 16; i++)
		if (hex_value(span[i]) < 0)
			return false;
	return span[16] == '\0';
}

static enum kt_code check_event(const struct kt_audit_event *event, int64_t *trace_key, struct kt_err *err)
{
	if (event->trace_id == NULL || strnlen(event->trace_id, 33) != 32 ||
	    !kt_audit_trace_key(event->trace_id, trace_key) || !is_span(event->span_id))
		return kt_err_set(err, KT_E_INVALID, "an audit record needs a trace id of 32 and a span id of 16 hex "
		                                     "digits");
	if (event->actor == NULL || event->step == NULL || event->outcome == NULL || event->actor[0] == '\0' ||
	    event->step[0] == '\0' || event->outcome[0] == '\0')
		return kt_err_set(err, KT_E_INVALID, "an audit record needs actor, step and outcome");
	return KT_OK;
}

enum kt_code kt_audit_append(struct kt_store *store, const struct kt_audit_event *event, struct kt_err *err)
{
	struct kt_buf *out = &store->scratch;
	uint8_t hash[KT_STORE_HASH_LEN];
	struct kt_query query;
	int64_t trace_key;
	enum kt_code code = kt_store_may_write(store, err);

	if (code != KT_OK || (code = check_event(event, &trace_key, err)) != KT_OK)
		return code;
	kt_ms at = event->time != 0 ? event->time : kt_clock_wall(store->clock);
	kt_buf_reset(out);
	build(out, store->now.audit_seq + 1, at, event);
	if ((code = kt_buf_check(out, "an audit record", err)) != KT_OK)
		return kt_store_break(store, code, err);
	kt_audit_hash(store->now.audit_hash, kt_buf_view(out), hash);
	if ((code = kt_query_open(&query, store, KT_STMT_AUDIT_ADD, err)) != KT_OK)
		return code;
	kt_query_int(&query, store->now.audit_seq + 1);
	kt_query_int(&query, at);
	kt_query_int(&query, trace_key);
	kt_query_blob(&query, (struct kt_view){(const char *)hash, sizeof(hash)});
	kt_query_view(&query, kt_buf_view(out));
	code = kt_query_run(&query, NULL, err);
	if (code == KT_E_EXISTS) /* a record beyond the head: somebody wrote into the table */
		code = kt_store_break(store, kt_store_odd(store, "an audit record", err), err);
	if (code != KT_OK)
		return code;
	store->now.audit_seq++;
	memcpy(store->now.audit_hash, hash, sizeof(hash));
	store->now.audit_dirty = true;
	return KT_OK;
}

void kt_audit_hex(const uint8_t *hash, char out[65])
{
	(void)sodium_bin2hex(out, 65, hash, KT_STORE_HASH_LEN);
}

void kt_audit_head(struct kt_store *store, int64_t *ret_seq, char ret_hash[65])
{
	*ret_seq = store->now.audit_seq;
	kt_audit_hex(store->now.audit_hash, ret_hash);
}
