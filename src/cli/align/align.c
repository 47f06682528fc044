/* Findings and predictions: every call that is meant for a hop is tried, and what the hop refuses is said. */
#include "cli/align/align_internal.h"

#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

/* --- answers ---------------------------------------- */

struct kt_answer_row *kt_align_answer(struct kt_answers *answers, const struct kt_foreign *reader, uint32_t line)
{
	struct kt_answer_row *row =
		&answers->rows[answers->count < KT_ANSWERS_MAX ? answers->count++ : KT_ANSWERS_MAX - 1];

	*row = (struct kt_answer_row){.reader = reader, .line = line, .status = 200, .certain = true};
	return row;
}

void kt_align_refuse(struct kt_answer_row *row, int status, const char *fmt, ...)
{
	va_list args;

	row->status = status;
	va_start(args, fmt);
	(void)vsnprintf(row->why, sizeof(row->why), fmt, args);
	va_end(args);
}

void kt_align_pass(struct kt_answer_row *row, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(row->why, sizeof(row->why), fmt, args);
	va_end(args);
}

void kt_align_mend(struct kt_answer_row *row, const char *fmt, ...)
{
	char text[sizeof(row->mend)];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	memcpy(row->mend, text, sizeof(text));
}

void kt_align_judge(const struct kt_align_hop *hop, const struct kt_call *call, struct kt_answers *ret)
{
	ret->count = 0;
	if (hop->mesh) {
		kt_align_judge_mesh(hop, call, ret);
	} else {
		kt_align_judge_api(hop, call, ret);
	}
}

/* A refusal that is certain, else one that is not. */
const struct kt_answer_row *kt_align_refusal(const struct kt_answers *answers)
{
	const struct kt_answer_row *soft = NULL;

	for (uint32_t i = 0; i < answers->count; i++) {
		if (answers->rows[i].status != 200 && answers->rows[i].certain) {
			return &answers->rows[i];
		}
		soft = soft == NULL && answers->rows[i].status != 200 ? &answers->rows[i] : soft;
	}
	return soft;
}

/* --- findings ---------------------------------------- */

void kt_align_reader_name(const struct kt_foreign *reader, char *out, size_t size)
{
	if (strcmp(reader->kind_name, "API policy") == 0) {
		(void)snprintf(out, size, "API policy %.200s", reader->name);
	} else {
		(void)snprintf(out, size, "%.100s %.100s/%.200s", reader->kind_name, reader->ns, reader->name);
	}
}

static void resource_name(const struct kt_resource *resource, char *out, size_t size)
{
	(void)snprintf(out, size, "%.100s/%.250s", resource->meta.ns, resource->meta.name);
}

static void answer_name(int status, char *out, size_t size)
{
	if (status == 0) {
		(void)snprintf(out, size, "refused");
	} else {
		(void)snprintf(out, size, "%d", status);
	}
}

/* "<field> <why>; <reader> would answer 401 to Token a/b; <mend>" */
static void compose(const struct kt_finding *f, const char *reader, const char *token, const char *certificate,
		    struct kt_buf *out)
{
	kt_buf_addf(out, "%s%s%s", f->field, f->field[0] != '\0' ? " " : "", f->why);
	if (f->status == 0) {
		kt_buf_addf(out, "; %s would refuse the connection", reader);
	} else if (f->status > 0) {
		kt_buf_addf(out, "; %s would answer %d", reader, f->status);
	}
	if (f->status >= 0 && f->token != NULL) {
		kt_buf_addf(out, " to Token %s", token);
	}
	if (f->status >= 0 && f->certificate != NULL) {
		kt_buf_addf(out, " %s Certificate %s", f->token != NULL ? "with" : "to", certificate);
	}
	if (f->mend[0] != '\0') {
		kt_buf_addf(out, "; %s", f->mend);
	}
}

void kt_align_emit(struct kt_finder *finder, const struct kt_finding *f)
{
	struct kt_buf text KT_AUTOBUF = {0};
	char reader[600] = "", token[400] = "", certificate[400] = "";
	json_t *value;

	kt_buf_init(&text, 8192);
	if (f->reader != NULL) {
		kt_align_reader_name(f->reader, reader, sizeof(reader));
	}
	if (f->token != NULL) {
		resource_name(f->token->resource, token, sizeof(token));
	}
	if (f->certificate != NULL) {
		resource_name(f->certificate, certificate, sizeof(certificate));
	}
	compose(f, reader, token, certificate, &text);
	value = json_pack("{s:s,s:s,s:I,s:s,s:s?,s:s?,s:s?,s:s?,s:s,s:s?,s:s}", "severity",
			  f->error ? "error" : "warning", "file", f->file, "line", (json_int_t)f->line, "field",
			  f->field, "token", f->token != NULL ? token : NULL, "certificate",
			  f->certificate != NULL ? certificate : NULL, "hop", f->hop != NULL ? f->hop->name : NULL,
			  "reader", f->reader != NULL ? reader : NULL, "why", f->why, "mend",
			  f->mend[0] != '\0' ? f->mend : NULL, "text", text.len > 0 ? text.ptr : "");
	if (value != NULL && f->status >= 0) {
		(void)json_object_set_new(value, "status", json_integer(f->status));
	}
	finder->failed |= value == NULL || json_array_append_new(finder->out, value) != 0;
}

static void report(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_call *call,
		   const struct kt_answer_row *row, bool error)
{
	struct kt_finding f = {.error = error && row->certain,
			       .file = row->reader->file,
			       .line = row->line > 0 ? row->line : row->reader->line,
			       .token = call->token,
			       .certificate = call->certificate,
			       .hop = hop,
			       .reader = row->reader,
			       .status = row->status};

	(void)snprintf(f.field, sizeof(f.field), "%s", row->field);
	(void)snprintf(f.why, sizeof(f.why), "%s", row->why);
	(void)snprintf(f.mend, sizeof(f.mend), "%s", row->mend);
	kt_align_emit(finder, &f);
}

void kt_align_warn(struct kt_finder *finder, const struct kt_align_hop *hop, const struct kt_foreign *reader,
		   uint32_t line, const char *field, const char *mend, const char *fmt, ...)
{
	struct kt_finding f = {.file = reader->file,
			       .line = line > 0 ? line : reader->line,
			       .hop = hop,
			       .reader = reader,
			       .status = -1};
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(f.why, sizeof(f.why), fmt, args);
	va_end(args);
	(void)snprintf(f.field, sizeof(f.field), "%s", field);
	(void)snprintf(f.mend, sizeof(f.mend), "%s", mend);
	kt_align_emit(finder, &f);
}

/* --- which calls a hop is meant for ---------------------------------------- */

bool kt_align_is_jwt_policy(const struct kt_foreign *f)
{
	return f->kind == KT_FOREIGN_API_POLICY && f->config.policy == KT_FOREIGN_POLICY_JWT && !f->disabled;
}

static bool reads_tokens(const struct kt_align_hop *hop)
{
	for (uint32_t i = 0; i < hop->reader_count; i++) {
		if (hop->readers[i]->jwt_rule_count > 0 || kt_align_is_jwt_policy(hop->readers[i])) {
			return true;
		}
	}
	return false;
}

bool kt_align_shares_audience(const struct kt_foreign_texts *audiences, const struct kt_align_token *token)
{
	const struct kt_strings *own = &token->resource->token.audiences;

	for (uint32_t i = 0; i < audiences->count; i++) {
		for (uint32_t k = 0; k < own->count; k++) {
			if (kt_align_loosely(audiences->items[i].text, own->items[k])) {
				return true;
			}
		}
	}
	return false;
}

/* How near a token is to what a hop reads: 8 an audience, 4 the issuer, 2 its host, 1 its namespace. */
static unsigned nearness(const struct kt_align_hop *hop, const struct kt_align_token *token)
{
	unsigned near = strcmp(hop->ns, token->resource->meta.ns) == 0 ? 1 : 0;

	for (uint32_t i = 0; i < hop->reader_count; i++) {
		const struct kt_foreign *f = hop->readers[i];

		for (uint32_t k = 0; k < f->jwt_rule_count; k++) {
			near |= kt_align_shares_audience(&f->jwt_rules[k].audiences, token) ? 8 : 0;
			if (token->iss != NULL) {
				near |= kt_align_loosely(f->jwt_rules[k].issuer.text, token->iss) ? 4 : 0;
				near |= kt_align_same_host(f->jwt_rules[k].issuer.text, token->iss) ? 2 : 0;
			}
		}
		if (!kt_align_is_jwt_policy(f)) {
			continue;
		}
		near |= kt_align_shares_audience(&f->config.audiences, token) ? 8 : 0;
		for (uint32_t k = 0; k < f->config.jwks_urls.count; k++) {
			near |= token->jwks != NULL && strcmp(f->config.jwks_urls.items[k].text, token->jwks) == 0 ? 4
														   : 0;
			near |= token->iss != NULL && kt_align_same_host(f->config.jwks_urls.items[k].text, token->iss)
					? 2
					: 0;
		}
	}
	return near;
}

static struct kt_call call_of(const struct kt_align_token *token)
{
	return (struct kt_call){.token = token, .certificate = token->certificate, .client = token->client};
}

/* Tokens whose audience the hop has are meant for it: true if there is one. */
static bool try_meant(struct kt_finder *finder, const struct kt_align_hop *hop)
{
	const struct kt_align *align = finder->align;
	bool found = false;

	for (uint32_t i = 0; i < align->token_count; i++) {
		struct kt_call call = call_of(&align->tokens[i]);
		const struct kt_answer_row *row;

		if ((nearness(hop, &align->tokens[i]) & 8) == 0) {
			continue;
		}
		found = true;
		kt_align_judge(hop, &call, &finder->answers);
		row = kt_align_refusal(&finder->answers);
		if (row != NULL) {
			report(finder, hop, &call, row, true);
		}
	}
	return found;
}

/* Where none is meant for it and none passes, the nearest one is shown. */
static void try_tokens(struct kt_finder *finder, const struct kt_align_hop *hop)
{
	const struct kt_align *align = finder->align;
	const struct kt_align_token *best = NULL;
	unsigned best_near = 0;
	struct kt_call call;

	if (try_meant(finder, hop)) {
		return;
	}
	for (uint32_t i = 0; i < align->token_count; i++) {
		unsigned near = nearness(hop, &align->tokens[i]);

		call = call_of(&align->tokens[i]);
		kt_align_judge(hop, &call, &finder->answers);
		if (kt_align_refusal(&finder->answers) == NULL) {
			return;
		}
		if (best == NULL || near > best_near) {
			best = &align->tokens[i];
			best_near = near;
		}
	}
	if (best == NULL) {
		kt_align_warn(finder, hop, hop->readers[0], 0, "", "", "reads tokens, and there is no Token here");
		return;
	}
	call = call_of(best);
	kt_align_judge(hop, &call, &finder->answers);
	report(finder, hop, &call, kt_align_refusal(&finder->answers), best_near >= 2);
}

/* Hops that look at identities only. */
static void try_certificates(struct kt_finder *finder, const struct kt_align_hop *hop)
{
	const struct kt_align *align = finder->align;
	struct kt_call best = {.token = NULL};
	bool found = false;

	for (uint32_t i = 0; i < align->token_count; i++) {
		struct kt_call call = call_of(&align->tokens[i]);

		kt_align_judge(hop, &call, &finder->answers);
		if (kt_align_refusal(&finder->answers) == NULL) {
			return;
		}
		if (!found && call.certificate != NULL) {
			best = call;
			found = true;
		}
	}
	for (uint32_t i = 0; i < align->resource_count; i++) {
		struct kt_call call = {.certificate = align->resources[i]};

		if (align->resources[i]->kind != KT_RES_CERTIFICATE || kt_align_spiffe(align->resources[i]) == NULL) {
			continue;
		}
		kt_align_judge(hop, &call, &finder->answers);
		if (kt_align_refusal(&finder->answers) == NULL) {
			return;
		}
		if (!found) {
			best = call;
			found = true;
		}
	}
	if (!found && align->token_count > 0) {
		best = call_of(&align->tokens[0]);
		found = true;
	}
	if (found) {
		kt_align_judge(hop, &best, &finder->answers);
		report(finder, hop, &best, kt_align_refusal(&finder->answers), true);
	}
}

/* --- all of them ---------------------------------------- */

json_t *kt_align_findings(const struct kt_align *align)
{
	struct kt_finder *finder = kt_calloc(1, sizeof(*finder));
	json_t *out = json_array();

	if (finder == NULL || out == NULL) {
		kt_free(finder);
		json_decref(out);
		return NULL;
	}
	finder->align = align;
	finder->out = out;
	for (uint32_t h = 0; h < align->hop_count; h++) {
		const struct kt_align_hop *hop = &align->hops[h];

		if (reads_tokens(hop)) {
			try_tokens(finder, hop);
		} else {
			try_certificates(finder, hop);
		}
		if (hop->mesh) {
			kt_align_lint_mesh(finder, hop);
		} else {
			kt_align_lint_api(finder, hop);
		}
	}
	if (align->foreign_count > 0) {
		kt_align_lint_tokens(finder);
	}
	if (finder->failed) {
		json_decref(out);
		out = NULL;
	}
	kt_free(finder);
	return out;
}

/* --- predictions ---------------------------------------- */

static bool is_named(const struct kt_resource *resource, const char *name)
{
	const char *slash = strchr(name, '/');

	if (slash == NULL) {
		return strcmp(resource->meta.name, name) == 0;
	}
	return strcmp(resource->meta.name, slash + 1) == 0 && strlen(resource->meta.ns) == (size_t)(slash - name) &&
	       memcmp(resource->meta.ns, name, (size_t)(slash - name)) == 0;
}

/* The one of that kind that wanted names; NULL: none is ("-"). */
static enum kt_code find_named(const struct kt_align *align, enum kt_kind kind, const char *wanted,
			       const struct kt_resource **ret, struct kt_err *err)
{
	*ret = NULL;
	if (strcmp(wanted, "-") == 0) {
		return KT_OK;
	}
	for (uint32_t i = 0; i < align->resource_count; i++) {
		if (align->resources[i]->kind == kind && is_named(align->resources[i], wanted)) {
			*ret = align->resources[i];
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_NOTFOUND, "there is no %s %s", kt_kind_name(kind), wanted);
}

static enum kt_code find_call(const struct kt_align *align, const struct kt_align_call *wanted, struct kt_call *ret,
			      struct kt_err *err)
{
	*ret = (struct kt_call){
		.method = wanted->method, .path = wanted->path, .host = wanted->host, .expired = wanted->expired};
	for (uint32_t i = 0; wanted->token != NULL && i < align->token_count && ret->token == NULL; i++) {
		ret->token = is_named(align->tokens[i].resource, wanted->token) ? &align->tokens[i] : NULL;
	}
	if (wanted->token != NULL && ret->token == NULL) {
		return kt_err_set(err, KT_E_NOTFOUND, "there is no Token %s", wanted->token);
	}
	ret->certificate = ret->token != NULL ? ret->token->certificate : NULL;
	ret->client = ret->token != NULL ? ret->token->client : NULL;
	ret->no_client = wanted->client != NULL && strcmp(wanted->client, "-") == 0;
	if (wanted->certificate != NULL &&
	    find_named(align, KT_RES_CERTIFICATE, wanted->certificate, &ret->certificate, err) != KT_OK) {
		return KT_E_NOTFOUND;
	}
	return wanted->client != NULL ? find_named(align, KT_RES_CLIENT_CREDENTIAL, wanted->client, &ret->client, err)
				      : KT_OK;
}

static json_t *row_value(const struct kt_align_hop *hop, const struct kt_answer_row *row)
{
	char reader[600], answer[16], why[700];

	kt_align_reader_name(row->reader, reader, sizeof(reader));
	answer_name(row->status, answer, sizeof(answer));
	(void)snprintf(why, sizeof(why), "%s%s%s", row->field, row->field[0] != '\0' ? " " : "", row->why);
	return json_pack("{s:s,s:s,s:i,s:b,s:s,s:s,s:s,s:I}", "hop", hop->name, "reader", reader, "status", row->status,
			 "certain", row->certain, "answer", answer, "why", why, "file", row->reader->file, "line",
			 (json_int_t)row->line);
}

enum kt_code kt_align_predict(const struct kt_align *align, const struct kt_align_call *wanted, json_t **ret_rows,
			      int *ret_status, struct kt_err *err)
{
	struct kt_answers *answers = kt_calloc(1, sizeof(*answers));
	json_t *rows = json_array();
	bool failed = answers == NULL || rows == NULL;
	struct kt_call call;
	enum kt_code code = find_call(align, wanted, &call, err);

	*ret_status = 200;
	for (uint32_t h = 0; code == KT_OK && !failed && h < align->hop_count; h++) {
		kt_align_judge(&align->hops[h], &call, answers);
		for (uint32_t i = 0; i < answers->count; i++) {
			const struct kt_answer_row *row = &answers->rows[i];

			failed |= json_array_append_new(rows, row_value(&align->hops[h], row)) != 0;
			if (row->status != 200 && row->certain && *ret_status == 200) {
				*ret_status = row->status;
			}
		}
	}
	kt_free(answers);
	if (code == KT_OK && failed) {
		code = kt_err_set(err, KT_E_NOMEM, "no memory for a prediction");
	}
	if (code != KT_OK) {
		json_decref(rows);
		rows = NULL;
	}
	*ret_rows = rows;
	return code;
}
