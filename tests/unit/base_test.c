/* Tests of base: tables of cases for text, time and JSON; files; secrets; and every allocation failing in turn. */
#include "config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/clock.h"
#include "kt/err.h"
#include "kt/io.h"
#include "kt/json.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void test_err(void **state)
{
	struct kt_err err;
	char big[2000];

	(void)state;
	assert_int_equal(kt_err_set(&err, KT_E_NET, "bad\r\n\x1b[31m %s", "\xff\xe2\x80\xaeok"), KT_E_NET);
	assert_string_equal(err.what, "bad\\x0d\\x0a\\x1b[31m \\xff\\xe2\\x80\\xaeok");
	assert_int_equal(kt_err_prefix(&err, "issuer %s", "a"), KT_E_NET);
	assert_true(kt_starts_with(err.what, "issuer a: bad\\x0d"));
	kt_err_set(&err, KT_E_LIMIT, "again: %s", err.what);
	assert_true(kt_starts_with(err.what, "again: issuer a: bad"));
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	kt_err_set(&err, KT_E_LIMIT, "%s", big);
	assert_int_equal(strlen(err.what), sizeof(err.what) - 1);
	assert_true(kt_ends_with(err.what, "..."));
	errno = EACCES;
	assert_int_equal(kt_err_sys(&err, "%s", big), KT_E_SYS);
	assert_int_equal(err.sys_errno, EACCES);
	assert_true(kt_ends_with(err.what, "...: Permission denied"));
	errno = ENOMEM;
	assert_int_equal(kt_err_sys(NULL, "x"), KT_E_NOMEM);
	for (int i = 0; i < KT_CODE_COUNT; i++)
		assert_int_equal(kt_code_from_name(kt_code_name((enum kt_code)i)), i);
	assert_int_equal(kt_code_from_name("nope"), KT_CODE_COUNT);
}

static void test_buf(void **state)
{
	struct kt_buf buf;
	char *taken;
	size_t len;

	(void)state;
	kt_buf_init(&buf, 10);
	kt_buf_adds(&buf, "12345");
	kt_buf_addf(&buf, "%s", "67890");
	assert_int_equal(kt_buf_check(&buf, "x", NULL), KT_OK);
	assert_string_equal(buf.ptr, "1234567890");
	kt_buf_addc(&buf, '!');
	assert_int_equal(kt_buf_check(&buf, "x", NULL), KT_E_LIMIT);
	assert_int_equal(kt_buf_view(&buf).len, 0);
	kt_buf_adds(&buf, "1");
	assert_null(kt_buf_steal(&buf, NULL));
	kt_buf_reset(&buf);
	kt_buf_adds(&buf, "1");
	taken = kt_buf_steal(&buf, &len);
	assert_string_equal(taken, "1");
	assert_int_equal(len, 1);
	kt_free(taken);
	kt_buf_init(&buf, 100);
	kt_buf_add_json(&buf, KT_VIEW_LIT("a\"\\\n\x01\xc3\xa9\xff/"));
	assert_string_equal(buf.ptr, "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd/\"");
	kt_buf_finish(&buf);
}

static void test_base64(void **state)
{
	static const struct {
		const char *text;
		const char *plain; /* NULL: refused */
		bool url;
	} cases[] = {
		{"", "", false},     {"Zg==", "f", false},  {"Zm8=", "fo", false}, {"Zm9v", "foo", false},
		{"Zg", "f", true},   {"Zm8", "fo", true},   {"Pz8_", "???", true}, {"Pz8/", "???", false},
		{"Zg", NULL, false}, {"Zg=", NULL, false},  {"Zh==", NULL, false}, {"Zg==", NULL, true},
		{"Zm9v\n", NULL, false}, {" Zm9", NULL, false}, {"Pz8_", NULL, false}, {"Z", NULL, true},
		{"====", NULL, false}, {"Zg===", NULL, false}, {"=", NULL, false}, {"Zm9vZg==Zg==", NULL, false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct kt_view text = kt_view_str(cases[i].text);
		KT_AUTOBUF struct kt_buf out;
		KT_AUTOBUF struct kt_buf again;
		enum kt_code code;

		kt_buf_init(&out, cases[i].plain && cases[i].plain[0] ? strlen(cases[i].plain) : 100);
		kt_buf_init(&again, 100);
		code = cases[i].url ? kt_base64url_decode(text, &out, NULL) : kt_base64_decode(text, &out, NULL);
		if (!cases[i].plain) {
			assert_int_equal(code, KT_E_INVALID);
			assert_int_equal(out.len, 0);
			continue;
		}
		assert_int_equal(code, KT_OK);
		assert_true(kt_view_eq_str(kt_buf_view(&out), cases[i].plain));
		if (cases[i].url)
			kt_base64url_encode(&again, out.ptr, out.len);
		else
			kt_base64_encode(&again, out.ptr, out.len);
		assert_true(kt_view_eq(kt_buf_view(&again), text));
	}
}

static void test_text(void **state)
{
	static const char *const names[] = {"duration", "renewBefore", "secretName", NULL};
	static const struct {
		const char *name;
		bool good;
	} dns[] = {{"a", true}, {"a.b-c.d", true}, {"", false}, {"-a", false}, {"a-", false}, {"a..b", false},
	           {"A", false}, {"a.-b", false}, {"a-.b", false}, {".a", false}, {"a.", false}, {"a_b", false}};
	KT_AUTOBUF struct kt_buf out;
	char hex[33];
	uint64_t u;
	int64_t n;

	(void)state;
	for (size_t i = 0; i < COUNT(dns); i++)
		assert_int_equal(kt_dns1123_subdomain(dns[i].name), dns[i].good);
	assert_int_equal(kt_parse_u64(KT_VIEW_LIT("18446744073709551615"), UINT64_MAX, &u, NULL), KT_OK);
	assert_true(u == UINT64_MAX);
	assert_int_equal(kt_parse_u64(KT_VIEW_LIT("18446744073709551616"), UINT64_MAX, &u, NULL), KT_E_LIMIT);
	assert_int_equal(kt_parse_u64(KT_VIEW_LIT("+1"), 9, &u, NULL), KT_E_INVALID);
	assert_int_equal(kt_parse_u64(KT_VIEW_LIT(""), 9, &u, NULL), KT_E_INVALID);
	assert_int_equal(kt_parse_i64(KT_VIEW_LIT("-9223372036854775808"), INT64_MIN, 0, &n, NULL), KT_OK);
	assert_true(n == INT64_MIN);
	assert_int_equal(kt_parse_i64(KT_VIEW_LIT("-5"), -4, 9, &n, NULL), KT_E_LIMIT);
	assert_string_equal(kt_nearest("renewBefor", names), "renewBefore");
	assert_string_equal(kt_nearest("duratoin", names), "duration");
	assert_null(kt_nearest("zzz", names));
	assert_false(kt_utf8_valid(KT_VIEW_LIT("\xed\xa0\x80")));
	assert_false(kt_utf8_valid(KT_VIEW_LIT("\xc0\x80")));
	assert_true(kt_utf8_valid(KT_VIEW_LIT("\xf0\x9f\x98\x80")));
	kt_buf_init(&out, 100);
	kt_form_encode(&out, KT_VIEW_LIT("a b&~*"));
	kt_percent_encode(&out, KT_VIEW_LIT("|a b~*"));
	assert_string_equal(out.ptr, "a+b%26%7E*%7Ca%20b~%2A");
	kt_rand_hex(hex, 16);
	assert_int_equal(strspn(hex, "0123456789abcdef"), 32);
	assert_int_equal(strlen(hex), 32);
	for (int i = 0; i < 100; i++)
		assert_true(kt_rand_below(3) < 3);
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		enum kt_code code;
		kt_ms span;
		const char *people;
		const char *go;
	} cases[] = {
		{"2160h", KT_OK, 90 * KT_DAY, "90d", "2160h0m0s"},
		{"1h30m", KT_OK, 90 * KT_MINUTE, "1h30m", "1h30m0s"},
		{"1.5h", KT_OK, 90 * KT_MINUTE, "1h30m", "1h30m0s"},
		{"300ms", KT_OK, 300, "300ms", "300ms"},
		{"-1.5s", KT_OK, -1500, "-1s", "-1.5s"},
		{"0", KT_OK, 0, "0s", "0s"},
		{"1us", KT_OK, 0, "0s", "0s"},
		{".5s", KT_OK, 500, "500ms", "500ms"},
		{"", KT_E_INVALID, 0, NULL, NULL},
		{"-", KT_E_INVALID, 0, NULL, NULL},
		{"3", KT_E_INVALID, 0, NULL, NULL},
		{".s", KT_E_INVALID, 0, NULL, NULL},
		{"1d", KT_E_INVALID, 0, NULL, NULL},
		{"1h ", KT_E_INVALID, 0, NULL, NULL},
		{"2562048h", KT_E_LIMIT, 0, NULL, NULL},
		{"99999999999999999999s", KT_E_LIMIT, 0, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		kt_ms span = 0;
		char out[32];

		assert_int_equal(kt_duration_parse(kt_view_str(cases[i].text), &span, NULL), cases[i].code);
		if (cases[i].code != KT_OK)
			continue;
		assert_int_equal(span, cases[i].span);
		assert_string_equal(kt_duration_format(span, out), cases[i].people);
		assert_string_equal(kt_duration_format_go(span, out), cases[i].go);
	}
}

static void test_times(void **state)
{
	static const struct {
		const char *text;
		bool http;
		const char *want; /* NULL: refused */
	} cases[] = {
		{"2026-11-23T09:56:29Z", false, "2026-11-23T09:56:29.000Z"},
		{"2026-11-23T09:56:29.1239+01:30", false, "2026-11-23T08:26:29.123Z"},
		{"2024-02-29T23:59:60Z", false, "2024-03-01T00:00:00.000Z"},
		{"9999-12-31T23:59:59-10:00", false, "9999-12-31T23:59:59.000Z"},
		{"2025-02-29T00:00:00Z", false, NULL},
		{"2026-11-23T09:56:29", false, NULL},
		{"2026-11-23T09:56:29.Z", false, NULL},
		{"2026-11-23T24:00:00Z", false, NULL},
		{"2026-11-23T09:56:29Zx", false, NULL},
		{"Sun, 06 Nov 1994 08:49:37 GMT", true, "1994-11-06T08:49:37.000Z"},
		{"Sunday, 06-Nov-94 08:49:37 GMT", true, "1994-11-06T08:49:37.000Z"},
		{"Sun Nov  6 08:49:37 1994", true, "1994-11-06T08:49:37.000Z"},
		{"Sun Nov 16 08:49:37 1994", true, "1994-11-16T08:49:37.000Z"},
		{"Sun, 06 Nov 1994 08:49:37 CET", true, NULL},
		{"Xyz, 06 Nov 1994 08:49:37 GMT", true, NULL},
		{"", true, NULL},
	};
	const kt_ms now = kt_time_civil(1994, 11, 6, 8, 49, 7);

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct kt_view text = kt_view_str(cases[i].text);
		kt_ms at = 0;
		char out[32];
		enum kt_code code = cases[i].http ? kt_time_parse_http(text, &at, NULL) : kt_time_parse(text, &at, NULL);

		assert_int_equal(code, cases[i].want ? KT_OK : KT_E_INVALID);
		if (cases[i].want)
			assert_string_equal(kt_time_format_ms(at, out), cases[i].want);
	}
	assert_int_equal(kt_retry_after(KT_VIEW_LIT(" 120 "), now), 120);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("0"), now), 1);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("99999999999999999999999"), now), 86400);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("99999999999999999999999x"), now), 0);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("-5"), now), 0);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("Sun, 06 Nov 1994 08:49:37 GMT"), now), 30);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("Sun, 06 Nov 1984 08:49:37 GMT"), now), 1);
	assert_int_equal(kt_retry_after(KT_VIEW_LIT("Sun, 06 Nov 2094 08:49:37 GMT"), now), 86400);
}

static void test_json(void **state)
{
	static const struct {
		const char *text;
		enum kt_code code;
		const char *canonical;
	} cases[] = {
		{"{\"b\":1, \"a\":[true,null]}", KT_OK, "{\"a\":[true,null],\"b\":1}"},
		{"\"x\"", KT_OK, "\"x\""},
		{"{\"a\":1,\"a\":2}", KT_E_INVALID, NULL},
		{"{} x", KT_E_INVALID, NULL},
		{"\"a\\u0000b\"", KT_E_INVALID, NULL},
		{"", KT_E_INVALID, NULL},
		{"{\"a\":", KT_E_INVALID, NULL},
		{"\"\xff\"", KT_E_INVALID, NULL},
	};
	struct kt_err err;
	char deep[131];
	json_t *value;

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		KT_AUTOBUF struct kt_buf out;

		kt_buf_init(&out, 100);
		assert_int_equal(kt_json_parse(kt_view_str(cases[i].text), 100, &value, &err), cases[i].code);
		if (cases[i].code != KT_OK)
			continue;
		assert_int_equal(kt_json_dump(value, &out, NULL), KT_OK);
		assert_string_equal(out.ptr, cases[i].canonical);
		json_decref(value);
	}
	memset(deep, '[', 65);
	memset(deep + 65, ']', 65);
	assert_int_equal(kt_json_parse((struct kt_view){deep, 130}, 200, &value, NULL), KT_E_LIMIT);
	assert_int_equal(kt_json_parse((struct kt_view){deep + 1, 128}, 200, &value, NULL), KT_OK);
	json_decref(value);
	assert_int_equal(kt_json_parse(KT_VIEW_LIT("[1,2]"), 4, &value, NULL), KT_E_LIMIT);
	/* An error never quotes what was read. */
	assert_int_equal(kt_json_parse(KT_VIEW_LIT("{\"t\":\"hunter2\" oops}"), 99, &value, &err), KT_E_INVALID);
	assert_null(strstr(err.what, "hunter2"));
	assert_null(strstr(err.what, "oops"));
}

static void test_secret(void **state)
{
	struct kt_secret *all[400];
	struct kt_secret *big, *same;
	struct kt_buf buf;

	(void)state;
	assert_int_equal(kt_secret_alloc(0, &big, NULL), KT_E_INVALID);
	assert_int_equal(kt_secret_alloc(256 * 1024 + 1, &big, NULL), KT_E_LIMIT);
	/* More than one arena. */
	for (size_t i = 0; i < COUNT(all); i++) {
		assert_int_equal(kt_secret_alloc(1 + i * 5, &all[i], NULL), KT_OK);
		memset(kt_secret_edit(all[i]), (int)i, kt_secret_len(all[i]));
	}
	assert_int_equal(kt_secret_alloc(256 * 1024, &big, NULL), KT_OK);
	for (size_t i = 0; i < COUNT(all); i += 2)
		kt_secret_destroy(all[i]);
	for (size_t i = 0; i < COUNT(all); i += 2) {
		const char *bytes;

		assert_int_equal(kt_secret_alloc(1 + i * 5, &all[i], NULL), KT_OK);
		bytes = kt_secret_view(all[i]).ptr;
		for (size_t j = 0; j <= i * 5; j++)
			assert_int_equal(bytes[j], 0); /* wiped by destroy */
	}
	for (size_t i = 1; i < COUNT(all); i += 2)
		for (size_t j = 0; j < kt_secret_len(all[i]); j++)
			assert_int_equal((unsigned char)kt_secret_view(all[i]).ptr[j], i & 0xff);
	for (size_t i = 0; i < COUNT(all); i++)
		kt_secret_destroy(all[i]);
	kt_secret_destroy(big);
	kt_buf_init(&buf, 20);
	kt_buf_adds(&buf, "hunter2");
	assert_int_equal(kt_secret_from_buf(&buf, &big, NULL), KT_OK);
	assert_int_equal(buf.len, 0);
	assert_int_equal(buf.ptr[3], 0);
	kt_buf_finish(&buf);
	assert_int_equal(kt_secret_create("hunter2", 7, &same, NULL), KT_OK);
	assert_true(kt_secret_eq(big, same));
	assert_string_equal(kt_secret_view(same).ptr, "hunter2");
	kt_secret_truncate(same, 6);
	assert_false(kt_secret_eq(big, same));
	assert_string_equal(kt_secret_view(same).ptr, "hunter");
	kt_secret_destroy(big);
	kt_secret_destroy(same);
}

static char last_line[2100];

static void keep_line(enum kt_level level, const char *line, void *arg)
{
	(void)level;
	(void)arg;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

static void test_log(void **state)
{
	char big[4000];
	json_t *value;

	(void)state;
	kt_log_capture(keep_line, NULL);
	kt_log_setup("keeper", KT_LOG_INFO, false);
	kt_log(KT_LOG_INFO, "a\nb");
	assert_non_null(strstr(last_line, "info  keeper["));
	assert_non_null(strstr(last_line, ": a\\x0ab"));
	last_line[0] = '\0';
	kt_log(KT_LOG_DEBUG, "x");
	assert_string_equal(last_line, "");
	kt_log_setup("keeper", KT_LOG_INFO, true);
	for (size_t i = 0; i < sizeof(big) - 1; i++)
		big[i] = "\"\\\n\xc3\xa9"[i % 5];
	big[sizeof(big) - 1] = '\0';
	kt_log(KT_LOG_WARN, "%s", big);
	assert_int_equal(kt_json_parse(kt_view_str(last_line), 3000, &value, NULL), KT_OK);
	assert_string_equal(kt_json_str(value, "level"), "warn");
	json_decref(value);
	kt_log_capture(NULL, NULL);
	kt_log_setup("test", KT_LOG_INFO, false);
}

static void test_files(void **state)
{
	char top[] = "/tmp/kt-base-XXXXXX";
	char path[128];
	KT_AUTOBUF struct kt_buf buf;
	struct kt_err err;
	struct stat st;
	int dir, fd;

	(void)state;
	assert_non_null(mkdtemp(top));
	snprintf(path, sizeof(path), "%s/a/b/c", top);
	dir = kt_io_open_dir_create(path, 0750, &err);
	assert_true(dir >= 0);
	fstat(dir, &st);
	assert_int_equal(st.st_mode & 07777, 0750);
	kt_buf_init(&buf, 5);
	for (int durable = 0; durable < 2; durable++) {
		assert_int_equal(kt_io_replace_file(dir, "f", "hello", 5, 0640, (uid_t)-1, (gid_t)-1, durable, &err), KT_OK);
		kt_buf_reset(&buf);
		assert_int_equal(kt_io_read_file(dir, "f", &buf, &err), KT_OK);
		assert_string_equal(buf.ptr, "hello");
	}
	fstatat(dir, "f", &st, 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(kt_io_replace_file(dir, "f", "longer", 6, 0640, (uid_t)-1, (gid_t)-1, false, &err), KT_OK);
	kt_buf_reset(&buf);
	assert_int_equal(kt_io_read_file(dir, "f", &buf, &err), KT_E_LIMIT);
	assert_int_equal(kt_io_replace_file(dir, "../x", "", 0, 0600, (uid_t)-1, (gid_t)-1, false, &err), KT_E_INVALID);
	kt_buf_reset(&buf);
	assert_int_equal(kt_io_read_file(dir, "none", &buf, &err), KT_E_NOTFOUND);
	assert_int_equal(err.sys_errno, ENOENT);
	assert_int_equal(kt_io_read_file(dir, ".", &buf, &err), KT_E_INVALID);
	/* A failed rename (onto a directory) leaves no temporary file behind: rmdir below would fail. */
	assert_int_equal(mkdirat(dir, "d", 0700), 0);
	assert_int_not_equal(kt_io_replace_file(dir, "d", "x", 1, 0600, (uid_t)-1, (gid_t)-1, false, &err), KT_OK);

	assert_int_equal(symlinkat("f", dir, "link"), 0);
	assert_int_equal(kt_io_open_nolinks(dir, "link", O_RDONLY, 0, &err), -1);
	assert_int_equal(err.code, KT_E_POLICY);
	assert_int_equal(kt_io_open_nolinks(dir, "../b", O_RDONLY, 0, &err), -1);
	fd = kt_io_open_nolinks(dir, "f", O_RDONLY, 0, &err);
	assert_true(fd >= 0);
	close(fd);
	snprintf(path, sizeof(path), "%s/a/b/c/link", top);
	assert_int_equal(kt_io_check_trusted(path, getuid(), &err), KT_OK);
	assert_int_equal(fchmod(dir, 0770), 0);
	assert_int_equal(kt_io_check_trusted(path, getuid(), &err), KT_E_POLICY);
	snprintf(path, sizeof(path), "%s/evil", top);
	assert_int_equal(symlink("/etc", path), 0);
	snprintf(path, sizeof(path), "%s/evil/x", top);
	assert_int_equal(kt_io_open_dir_create(path, 0700, &err), -1);
	close(dir);
	dir = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(kt_io_remove_tree(dir, top + 5, &err), KT_OK);
	assert_int_equal(faccessat(dir, top + 5, F_OK, 0), -1);
	assert_int_equal(stat("/etc/passwd", &st), 0);
	assert_int_equal(kt_io_remove_tree(dir, top + 5, &err), KT_OK);
	close(dir);
	fd = kt_io_memfd("m", "abc", 3, &err);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "x", 1), -1);
	kt_buf_reset(&buf);
	assert_int_equal(kt_io_read_fd(fd, "m", &buf, &err), KT_OK);
	assert_string_equal(buf.ptr, "abc");
	assert_true(kt_io_is_memory_backed(fd));
	close(fd);
}

/* A flow over everything that allocates. KT_OK only when every step gave the right result. */
static enum kt_code flow(void)
{
	KT_AUTOBUF struct kt_buf out;
	KT_AUTOBUF struct kt_buf raw;
	KT_AUTOJSON json_t *value = NULL;
	KT_AUTOSECRET struct kt_secret *secret = NULL;
	KT_AUTOFREE char *text = NULL;
	enum kt_code code;

	kt_buf_init(&out, 4096);
	kt_buf_init(&raw, 4096);
	code = kt_json_parse(KT_VIEW_LIT("{\"b\":[1,2,{\"c\":\"dd\"}],\"a\":null}"), 100, &value, NULL);
	if (code == KT_OK)
		code = kt_json_dump(value, &out, NULL);
	if (code != KT_OK)
		return code;
	assert_string_equal(out.ptr, "{\"a\":null,\"b\":[1,2,{\"c\":\"dd\"}]}");
	for (int i = 0; i < 20; i++)
		kt_buf_addf(&out, "%064d", i);
	kt_base64_encode(&raw, "some bytes", 10);
	code = kt_buf_check(&out, "out", NULL);
	if (code == KT_OK)
		code = kt_buf_check(&raw, "raw", NULL);
	if (code == KT_OK)
		code = kt_secret_from_buf(&raw, &secret, NULL);
	if (code != KT_OK)
		return code;
	text = kt_asprintf("%s!", kt_secret_view(secret).ptr);
	if (!text)
		return KT_E_NOMEM;
	assert_string_equal(text, "c29tZSBieXRlcw==!");
	return kt_io_check_trusted("/", getuid(), NULL);
}

static void test_torture(void **state)
{
	int64_t n;

	(void)state;
	for (int forever = 0; forever < 2; forever++) {
		for (n = 0; n < 1000; n++) {
			enum kt_code code;

			kt_mem_fail_after(n, forever);
			code = flow();
			kt_mem_fail_after(-1, 0);
			if (code == KT_OK)
				break;
			assert_int_equal(code, KT_E_NOMEM);
		}
		assert_in_range(n, 10, 999);
	}
}

static int setup(void **state)
{
	(void)state;
	kt_json_init();
	return kt_secret_init(NULL) == KT_OK ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err),    cmocka_unit_test(test_buf),       cmocka_unit_test(test_base64),
		cmocka_unit_test(test_text),   cmocka_unit_test(test_durations), cmocka_unit_test(test_times),
		cmocka_unit_test(test_json),   cmocka_unit_test(test_secret),    cmocka_unit_test(test_log),
		cmocka_unit_test(test_files),  cmocka_unit_test(test_torture),
	};

	return cmocka_run_group_tests_name("base", tests, setup, NULL);
}
