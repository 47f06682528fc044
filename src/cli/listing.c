/* Rows as a table that fits the terminal, as JSON or as YAML. */
#include "cli/cli.h"

#include <libsmartcols.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"

#define CELL_MAX    2048

struct kt_listing {
	const struct kt_cli *cli;
	FILE *out;
	const char *name;
	const struct kt_column *columns;
	const char *color_key;
	struct libscols_table *table;
	uint64_t rows;
	bool lost; /* a row was lost for lack of memory */
};

/* --- JSON and YAML -------------------------------------------------------------------------------------------------- */

/* Plain where that can't be taken for anything else, else as JSON writes it. */
static void yaml_text(FILE *out, const char *text)
{
	static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"};
	size_t len = strlen(text);
	bool plain = len > 0 && len == strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-") &&
	             strchr("0123456789.-", text[0]) == NULL;
	struct kt_buf quoted KT_AUTOBUF = {0};

	for (size_t i = 0; plain && i < sizeof(words) / sizeof(words[0]); i++) {
		plain = !kt_ascii_ieq(kt_view_str(text), kt_view_str(words[i]));
	}
	if (plain) {
		(void)fputs(text, out);
		return;
	}
	kt_buf_init(&quoted, len * 6 + 16);
	kt_buf_add_json(&quoted, kt_view_str(text));
	(void)fputs(quoted.ptr != NULL ? quoted.ptr : "\"\"", out);
}

static void yaml_scalar(FILE *out, const json_t *value)
{
	if (json_is_string(value)) {
		yaml_text(out, json_string_value(value));
	} else if (json_is_integer(value)) {
		(void)fprintf(out, "%lld", (long long)json_integer_value(value));
	} else if (json_is_real(value)) {
		(void)fprintf(out, "%.17g", json_real_value(value));
	} else if (json_is_array(value)) {
		(void)fputs("[]", out);
	} else if (json_is_object(value)) {
		(void)fputs("{}", out);
	} else {
		(void)fputs(json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null", out);
	}
}

static bool has_members(const json_t *value)
{
	return json_object_size(value) > 0 || json_array_size(value) > 0;
}

static void yaml_indent(FILE *out, int depth)
{
	(void)fprintf(out, "%*s", 2 * depth, "");
}

/* The first line of a list item stands behind its dash: `first` keeps it from being indented. */
static void yaml_members(FILE *out, const json_t *value, int depth, bool first)
{
	const char *key;
	json_t *member;
	size_t i;

	json_object_foreach((json_t *)value, key, member)
	{
		if (!first) {
			yaml_indent(out, depth);
		}
		first = false;
		yaml_text(out, key);
		(void)fputc(':', out);
		if (has_members(member)) {
			(void)fputc('\n', out);
			kt_cli_yaml(out, member, json_is_array(member) ? depth : depth + 1);
		} else {
			(void)fputc(' ', out);
			yaml_scalar(out, member);
			(void)fputc('\n', out);
		}
	}
	json_array_foreach(value, i, member)
	{
		if (!first) {
			yaml_indent(out, depth);
		}
		first = false;
		(void)fputs("- ", out);
		if (has_members(member)) {
			yaml_members(out, member, depth + 1, true);
		} else {
			yaml_scalar(out, member);
			(void)fputc('\n', out);
		}
	}
}

void kt_cli_yaml(FILE *out, const json_t *value, int depth)
{
	if (has_members(value)) {
		yaml_members(out, value, depth, false);
	} else {
		yaml_indent(out, depth);
		yaml_scalar(out, value);
		(void)fputc('\n', out);
	}
}

void kt_cli_print_value(const struct kt_cli *cli, FILE *out, const json_t *value)
{
	if (cli->format == KT_FORMAT_YAML) {
		kt_cli_yaml(out, value, 0);
	} else {
		(void)json_dumpf(value, out, JSON_INDENT(2) | JSON_ENCODE_ANY);
		(void)fputc('\n', out);
	}
}

static void row_json(struct kt_listing *listing, const json_t *row)
{
	(void)fputs(listing->rows == 0 ? "\n    " : ",\n    ", listing->out);
	(void)json_dumpf(row, listing->out, JSON_COMPACT);
}

static void row_yaml(struct kt_listing *listing, const json_t *row)
{
	if (listing->rows == 0) {
		(void)fprintf(listing->out, "%s:\n", listing->name);
	}
	(void)fputs("- ", listing->out);
	yaml_members(listing->out, row, 1, true);
}

/* --- the table -------------------------------------------------------------------------------------------------------- */

static bool shown(const struct kt_listing *listing, const struct kt_column *column)
{
	return (column->flags & KT_COLUMN_WIDE) == 0 || listing->cli->format == KT_FORMAT_WIDE;
}

static enum kt_code make_table(struct kt_listing *listing, struct kt_err *err)
{
	const struct kt_column *column;

	listing->table = scols_new_table();
	if (listing->table == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a table");
	}
	(void)scols_table_set_stream(listing->table, listing->out);
	(void)scols_table_set_column_separator(listing->table, "  ");
	/* On a terminal the table fits its width; elsewhere nothing is cut. */
	(void)scols_table_set_termforce(listing->table,
	                                listing->cli->out_tty ? SCOLS_TERMFORCE_AUTO : SCOLS_TERMFORCE_NEVER);
	(void)scols_table_enable_colors(listing->table, listing->cli->color);
	for (column = listing->columns; column->title != NULL; column++) {
		int flags = (column->flags & KT_COLUMN_RIGHT) != 0 ? SCOLS_FL_RIGHT : 0;

		flags |= (column->flags & KT_COLUMN_TRUNC) != 0 && listing->cli->out_tty ? SCOLS_FL_TRUNC : 0;
		if (shown(listing, column) && scols_table_new_column(listing->table, column->title, 0, flags) == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for a table");
		}
	}
	return KT_OK;
}

static void fill_cell(struct kt_listing *listing, const struct kt_column *column, const json_t *row, struct kt_buf *out)
{
	const json_t *value;

	if (column->cell != NULL) {
		column->cell(listing->cli, row, out);
		return;
	}
	value = json_object_get(row, column->key);
	if (json_is_string(value)) {
		kt_buf_adds(out, json_string_value(value));
	} else if (json_is_integer(value)) {
		kt_buf_addf(out, "%lld", (long long)json_integer_value(value));
	} else if (json_is_boolean(value)) {
		kt_buf_adds(out, json_is_true(value) ? "yes" : "no");
	}
}

static void row_table(struct kt_listing *listing, const json_t *row)
{
	struct libscols_line *line = scols_table_new_line(listing->table, NULL);
	const char *state = listing->color_key != NULL ? kt_json_str(row, listing->color_key) : NULL;
	const struct kt_column *column;
	struct kt_buf cell KT_AUTOBUF = {0};
	size_t index = 0;

	kt_buf_init(&cell, CELL_MAX);
	if (line == NULL) {
		listing->lost = true;
		return;
	}
	for (column = listing->columns; column->title != NULL; column++) {
		if (!shown(listing, column)) {
			continue;
		}
		kt_buf_reset(&cell);
		fill_cell(listing, column, row, &cell);
		if (cell.failed != KT_OK || scols_line_set_data(line, index, cell.len > 0 ? cell.ptr : "-") != 0) {
			listing->lost = listing->lost || cell.failed == KT_E_NOMEM;
			(void)scols_line_set_data(line, index, "(too long)");
		}
		index++;
	}
	if (kt_cli_color(listing->cli, state)[0] != '\0') {
		(void)scols_line_set_color(line, kt_cli_color(listing->cli, state));
	}
}

/* --- the whole -------------------------------------------------------------------------------------------------------- */

enum kt_code kt_listing_create(const struct kt_cli *cli, FILE *out, const char *name, const struct kt_column *columns,
                               const char *color_key, struct kt_listing **ret, struct kt_err *err)
{
	struct kt_listing *listing = kt_calloc(1, sizeof(*listing));
	enum kt_code code = KT_OK;

	if (listing == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a list");
	}
	*listing = (struct kt_listing){
	        .cli = cli, .out = out, .name = name, .columns = columns, .color_key = color_key};
	if (cli->format <= KT_FORMAT_WIDE) {
		code = make_table(listing, err);
	}
	if (code != KT_OK) {
		kt_listing_destroy(listing);
		return code;
	}
	*ret = listing;
	return KT_OK;
}

void kt_listing_row(struct kt_listing *listing, const json_t *row)
{
	if (listing->cli->format == KT_FORMAT_JSON) {
		if (listing->rows == 0) {
			(void)fprintf(listing->out, "{\n  \"%s\": [", listing->name);
		}
		row_json(listing, row);
	} else if (listing->cli->format == KT_FORMAT_YAML) {
		row_yaml(listing, row);
	} else {
		row_table(listing, row);
	}
	listing->rows++;
}

uint64_t kt_listing_end(struct kt_listing *listing, const json_t *result)
{
	if (listing->cli->format == KT_FORMAT_JSON) {
		if (listing->rows == 0) {
			(void)fprintf(listing->out, "{\n  \"%s\": [", listing->name);
		}
		(void)fputs(listing->rows > 0 ? "\n  ]" : "]", listing->out);
		if (json_is_object(result)) {
			(void)fputs(",\n  \"summary\": ", listing->out);
			(void)json_dumpf(result, listing->out, JSON_COMPACT);
		}
		(void)fputs("\n}\n", listing->out);
	} else if (listing->cli->format == KT_FORMAT_YAML) {
		if (listing->rows == 0) {
			(void)fprintf(listing->out, "%s: []\n", listing->name);
		}
		if (json_object_size(result) > 0) {
			(void)fputs("summary:\n", listing->out);
			kt_cli_yaml(listing->out, result, 1);
		}
	} else if (listing->rows > 0 && (scols_print_table(listing->table) != 0 || listing->lost)) {
		kt_cli_complain("no memory to show the whole table: use -o json");
	}
	return listing->rows;
}

void kt_listing_destroy(struct kt_listing *listing)
{
	if (listing == NULL) {
		return;
	}
	scols_unref_table(listing->table);
	kt_free(listing);
}

static void on_row(const json_t *row, void *arg)
{
	kt_listing_row(arg, row);
}

uint64_t kt_client_list(struct kt_cli *cli, struct kt_request *request, const char *name,
                        const struct kt_column *columns, const char *color_key, struct kt_answer *ret)
{
	struct kt_listing *listing = NULL;
	uint64_t rows = 0;
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_listing_create(cli, stdout, name, columns, color_key, &listing, &err) != KT_OK) {
		*ret = (struct kt_answer){
		        .status = kt_cli_status_of(err.code), .code = err.code, .what = kt_strdup(err.what)};
		return 0;
	}
	request->row = on_row;
	request->arg = listing;
	kt_client_call(cli, request, ret);
	if (ret->code == KT_OK && ret->what == NULL && (ret->status == KT_EXIT_OK || ret->result != NULL)) {
		rows = kt_listing_end(listing, ret->result);
	}
	kt_listing_destroy(listing);
	return rows;
}
