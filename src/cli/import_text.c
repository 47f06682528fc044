/* import: settings as other clients write them: configobj, shell assignments, key=value. Parsed, never run. */
#include "cli/import.h"

#include <ctype.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/text.h"

#define LINES_MAX 20000u
#define LINE_MAX_ 65536u
#define WORDS_MAX 64u

/* --- lines ------------------------------------------------------------------------------------------------- */

/* Takes the next line off text; false at the end. */
static bool next_line(struct kt_view *text, struct kt_view *line)
{
	const char *end;

	if (text->len == 0) {
		return false;
	}
	end = memchr(text->ptr, '\n', text->len);
	line->ptr = text->ptr;
	line->len = end != NULL ? (size_t)(end - text->ptr) : text->len;
	text->ptr += line->len + (end != NULL);
	text->len -= line->len + (end != NULL);
	if (line->len > 0 && line->ptr[line->len - 1] == '\r') {
		line->len--;
	}
	return true;
}

static struct kt_view trim(struct kt_view text)
{
	while (text.len > 0 && (text.ptr[0] == ' ' || text.ptr[0] == '\t')) {
		text.ptr++;
		text.len--;
	}
	while (text.len > 0 && (text.ptr[text.len - 1] == ' ' || text.ptr[text.len - 1] == '\t')) {
		text.len--;
	}
	return text;
}

static enum kt_code begin(struct kt_view text, json_t **ret, struct kt_err *err)
{
	*ret = NULL;
	if (text.len > KT_IMPORT_FILE_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "%zu bytes are too many for settings", text.len);
	}
	if ((text.len > 0 && memchr(text.ptr, '\0', text.len) != NULL) || !kt_utf8_valid(text)) {
		return kt_err_set(err, KT_E_PROTO, "the settings are not text");
	}
	*ret = json_object();
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "no memory for settings");
}

/* Sets key to value (NULL: null). The views hold UTF-8 without NUL. */
static void put(json_t *object, struct kt_view key, const struct kt_view *value)
{
	char *name KT_AUTOFREE = kt_strndup(key.ptr, key.len);

	if (name != NULL) {
		(void)json_object_set_new(object, name,
					  value != NULL ? json_stringn(value->ptr, value->len) : json_null());
	}
}

/* --- configobj --------------------------------------------------------------------------------------------- */

static struct kt_view unquote(struct kt_view text)
{
	if (text.len >= 2 && (text.ptr[0] == '"' || text.ptr[0] == '\'') && text.ptr[text.len - 1] == text.ptr[0]) {
		text.ptr++;
		text.len -= 2;
	}
	return text;
}

/* "[name]", "[[name]]": the section that follows; NULL when it is not one. */
static json_t *section(json_t *root, struct kt_view line)
{
	char *name KT_AUTOFREE = NULL;
	json_t *found;

	while (line.len >= 2 && line.ptr[0] == '[' && line.ptr[line.len - 1] == ']') {
		line.ptr++;
		line.len -= 2;
	}
	line = trim(line);
	name = kt_strndup(line.ptr, line.len);
	if (name == NULL || name[0] == '\0') {
		return NULL;
	}
	found = json_object_get(root, name);
	if (found == NULL) {
		found = json_object();
		(void)json_object_set_new(root, name, found);
	}
	return found;
}

enum kt_code kt_import_ini(struct kt_view text, json_t **ret, struct kt_err *err)
{
	enum kt_code code = begin(text, ret, err);
	struct kt_view line;
	json_t *at;
	unsigned n = 0;

	if (code != KT_OK) {
		return code;
	}
	at = json_object();
	(void)json_object_set_new(*ret, "", at);
	while (next_line(&text, &line) && ++n < LINES_MAX) {
		const char *equals;
		struct kt_view key, value;

		line = trim(line);
		if (line.len == 0 || line.ptr[0] == '#' || line.ptr[0] == ';') {
			continue;
		}
		if (line.ptr[0] == '[') {
			at = section(*ret, line);
			if (at == NULL) {
				code = kt_err_set(err, KT_E_PROTO, "line %u is no section", n);
				break;
			}
			continue;
		}
		equals = memchr(line.ptr, '=', line.len);
		if (equals == NULL) {
			continue;
		}
		key = trim((struct kt_view){line.ptr, (size_t)(equals - line.ptr)});
		value = unquote(trim((struct kt_view){equals + 1, line.len - (size_t)(equals + 1 - line.ptr)}));
		if (key.len > 0) {
			put(at, key, &value);
		}
	}
	if (code != KT_OK) {
		json_decref(*ret);
		*ret = NULL;
	}
	return code;
}

/* --- shell ------------------------------------------------------------------------------------------------- */

static bool name_char(char c, bool first)
{
	return c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (!first && c >= '0' && c <= '9');
}

/* One word as the shell reads it, as long as no expansion is needed. False: only a shell could say. */
static bool shell_word(struct kt_view text, struct kt_buf *out)
{
	char quote = '\0';
	size_t i;

	for (i = 0; i < text.len; i++) {
		char c = text.ptr[i];

		if (quote == '\'') {
			if (c == '\'') {
				quote = '\0';
			} else {
				kt_buf_addc(out, c);
			}
		} else if (c == '$' || c == '`') {
			return false;
		} else if (c == '\\' && i + 1 < text.len) {
			c = text.ptr[++i];
			if (quote == '"' && strchr("\"\\$`", c) == NULL) {
				kt_buf_addc(out, '\\');
			}
			kt_buf_addc(out, c);
		} else if (quote == '"') {
			if (c == '"') {
				quote = '\0';
			} else {
				kt_buf_addc(out, c);
			}
		} else if (c == '\'' || c == '"') {
			quote = c;
		} else if (c == ' ' || c == '\t') {
			struct kt_view rest = trim((struct kt_view){text.ptr + i, text.len - i});

			return rest.len == 0 || rest.ptr[0] == '#'; /* else it is the environment of a command */
		} else if (strchr(";&|<>()", c) != NULL) {
			return false;
		} else {
			kt_buf_addc(out, c);
		}
	}
	return quote == '\0';
}

enum kt_code kt_import_shell(struct kt_view text, json_t **ret, struct kt_err *err)
{
	enum kt_code code = begin(text, ret, err);
	struct kt_view line;
	unsigned n = 0;

	while (code == KT_OK && next_line(&text, &line) && ++n < LINES_MAX) {
		struct kt_buf word KT_AUTOBUF = {0};
		struct kt_view value;
		size_t len = 0;

		kt_buf_init(&word, LINE_MAX_);
		line = trim(line);
		if (line.len > 7 && memcmp(line.ptr, "export ", 7) == 0) {
			line = trim((struct kt_view){line.ptr + 7, line.len - 7});
		}
		while (len < line.len && name_char(line.ptr[len], len == 0)) {
			len++;
		}
		if (len == 0 || len >= line.len || line.ptr[len] != '=') {
			continue;
		}
		if (shell_word((struct kt_view){line.ptr + len + 1, line.len - len - 1}, &word) &&
		    word.failed == KT_OK) {
			value = (struct kt_view){word.len > 0 ? word.ptr : "", word.len};
			put(*ret, (struct kt_view){line.ptr, len}, &value);
		} else {
			put(*ret, (struct kt_view){line.ptr, len}, NULL);
		}
	}
	return code;
}

/* --- key=value --------------------------------------------------------------------------------------------- */

enum kt_code kt_import_pairs(struct kt_view text, json_t **ret, struct kt_err *err)
{
	enum kt_code code = begin(text, ret, err);
	struct kt_buf value KT_AUTOBUF = {0};
	struct kt_view key = {NULL, 0};
	struct kt_view line;
	unsigned n = 0;

	kt_buf_init(&value, KT_IMPORT_FILE_MAX);
	while (code == KT_OK && next_line(&text, &line) && ++n < LINES_MAX) {
		const char *equals;
		struct kt_view whole;

		if (line.len > 0 && line.ptr[0] == ' ' && key.len > 0) {
			kt_buf_addc(&value, '\n');
			kt_buf_add(&value, line.ptr + 1, line.len - 1);
		} else {
			equals = line.len > 0 && line.ptr[0] != '#' ? memchr(line.ptr, '=', line.len) : NULL;
			if (equals == NULL || equals == line.ptr) {
				key.len = 0;
				continue;
			}
			key = (struct kt_view){line.ptr, (size_t)(equals - line.ptr)};
			kt_buf_reset(&value);
			kt_buf_add(&value, equals + 1, line.len - key.len - 1);
		}
		whole = (struct kt_view){value.len > 0 ? value.ptr : "", value.len};
		put(*ret, key, &whole);
	}
	return code;
}

/* --- values ------------------------------------------------------------------------------------------------ */

json_t *kt_import_split(const char *text, const char *separators)
{
	json_t *list = json_array();

	while (list != NULL && text != NULL && *text != '\0') {
		size_t len = strcspn(text, separators);
		struct kt_view item = trim((struct kt_view){text, len});

		if (item.len > 0) {
			(void)json_array_append_new(list, json_stringn(item.ptr, item.len));
		}
		text += len + (text[len] != '\0');
	}
	return list;
}

bool kt_import_true(const char *text)
{
	struct kt_view view = kt_view_str(text);

	return kt_ascii_ieq(view, KT_VIEW_LIT("true")) || kt_ascii_ieq(view, KT_VIEW_LIT("yes")) ||
	       kt_view_eq_str(view, "1");
}

/* The program of a command without a path, where a shell would find it. */
static json_t *look_up(const char *program)
{
	static const char *const folders[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		char *path KT_AUTOFREE = kt_asprintf("%s/%s", folders[i], program);
		struct stat info;

		if (path != NULL && stat(path, &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 0111) != 0) {
			return json_string(path);
		}
	}
	return NULL;
}

/* The next word of a command line; false when a shell is needed, or at the end (*ret_end). */
static bool next_word(const char **at, struct kt_buf *out, bool *ret_end)
{
	char quote = '\0';

	*at += strspn(*at, " \t");
	*ret_end = **at == '\0';
	if (*ret_end) {
		return false;
	}
	for (; **at != '\0' && (quote != '\0' || (**at != ' ' && **at != '\t')); (*at)++) {
		char c = **at;

		if (quote == '\0' && (c == '\'' || c == '"')) {
			quote = c;
		} else if (c == quote) {
			quote = '\0';
		} else if ((unsigned char)c < 0x20 || (quote != '\'' && strchr("$`\\", c) != NULL) ||
			   (quote == '\0' && strchr(";&|<>(){}[]*?~#!", c) != NULL)) {
			return false;
		} else {
			kt_buf_addc(out, c);
		}
	}
	return quote == '\0';
}

enum kt_code kt_import_argv(const char *line, json_t **ret, struct kt_err *err)
{
	json_t *argv = json_array();
	const char *first;
	enum kt_code code = KT_OK;
	bool end = false;

	while (code == KT_OK && !end) {
		struct kt_buf word KT_AUTOBUF = {0};

		kt_buf_init(&word, 4096);
		if (next_word(&line, &word, &end) && word.failed == KT_OK && json_array_size(argv) < WORDS_MAX) {
			(void)json_array_append_new(argv, json_stringn(word.len > 0 ? word.ptr : "", word.len));
		} else if (!end) {
			code = kt_err_set(err, KT_E_UNSUPPORTED, "it needs a shell");
		}
	}
	first = json_string_value(json_array_get(argv, 0));
	if (code == KT_OK && (first == NULL || strchr(first, '=') != NULL)) {
		code = kt_err_set(err, KT_E_UNSUPPORTED, first == NULL ? "it is empty" : "it needs a shell");
	} else if (code == KT_OK && first[0] != '/') {
		json_t *found = strchr(first, '/') == NULL ? look_up(first) : NULL;

		if (found == NULL) {
			code = kt_err_set(err, KT_E_UNSUPPORTED,
					  "the program %.200s has no absolute path and is not installed", first);
		} else {
			(void)json_array_set_new(argv, 0, found);
		}
	}
	if (code != KT_OK) {
		json_decref(argv);
		argv = NULL;
	}
	*ret = argv;
	return code;
}
