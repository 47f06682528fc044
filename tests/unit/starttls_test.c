/* What is said before TLS: good and hostile servers, their bytes in one piece and one by one. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "courier/probe/starttls.h"
#include "kt/mem.h"

#define V(text)                                                                                                        \
	{                                                                                                              \
		text, sizeof(text) - 1                                                                                 \
	}
#define LDAP_GOOD "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
/* As Active Directory writes lengths. */
#define LDAP_WIDE "\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00"

static char many_lines[20000], long_line[2000];

/* What the server sends, each time after the client has spoken; `code` and `text` are how the last of it is taken. */
static const struct row {
	const char *name;
	struct kt_view sent[4];
	enum kt_code code;
	const char *text;
	bool only_whole; /* what is behind comes with it: taken apart it would come before its turn, or into the
			    handshake */
} rows[] = {
	{"smtp",
	 {V("220 mx ESMTP\r\n"), V("250-mx\r\n250-SIZE 1\r\n250-starttls\r\n250 HELP\r\n"), V("220 go\r\n")},
	 KT_OK,
	 "",
	 false},
	{"smtp", {V("220-mx\r\n220-hi\r\n220\r\n"), V("250 STARTTLS\n"), V("220\n")}, KT_OK, "", false},
	{"smtp", {V("220 mx\r\n"), V("250-mx\r\n250 STARTTLSX\r\n")}, KT_E_PROTO, "offers no STARTTLS", false},
	{"smtp",
	 {V("220 mx\r\n"), V("250 STARTTLS\r\n"), V("454 not now\r\n")},
	 KT_E_NET,
	 "STARTTLS with: 454 not now",
	 false},
	{"smtp", {V("220 mx\r\n"), V("250 STARTTLS\r\n"), V("502 no\r\n")}, KT_E_PROTO, "STARTTLS with: 502 no", false},
	{"smtp", {V("554 go away\r\n")}, KT_E_PROTO, "greets with: 554 go away", false},
	{"smtp", {V("421 busy\r\n")}, KT_E_NET, "greets with: 421 busy", false},
	{"smtp", {V("220 mx\r\n"), V("500 what\r\n")}, KT_E_PROTO, "EHLO with: 500", false},
	{"smtp", {V("220_mx\r\n")}, KT_E_PROTO, "no SMTP server", false},
	{"smtp", {V("\r\n")}, KT_E_PROTO, "no SMTP server", false},
	{"smtp", {V("HTTP/1.1 400 Bad Request\r\n")}, KT_E_PROTO, "no SMTP server", false},
	{"smtp",
	 {V("220 mx\r\n"), V("250 STARTTLS\r\n"), V("220 go\r\n250 injected\r\n")},
	 KT_E_PROTO,
	 "more than it was asked",
	 true},
	{"smtp",
	 {V("220 mx\r\n"), V("250 STARTTLS\r\n"), V("220 go\r\n\0")},
	 KT_E_PROTO,
	 "more than it was asked",
	 true},
	{"smtp", {V("220 mx\r\n250 STARTTLS\r\n")}, KT_E_PROTO, "more than it was asked", true},
	{"smtp", {{many_lines, sizeof(many_lines)}}, KT_E_LIMIT, "talks on", false},
	{"smtp", {{long_line, sizeof(long_line)}}, KT_E_LIMIT, "a line of more than 1000", false},
	{"imap",
	 {V("* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n"), V("* CAPABILITY X\r\na OK begin\r\n")},
	 KT_OK,
	 "",
	 false},
	{"imap", {V("* PREAUTH hi\r\n")}, KT_E_PROTO, "greets with: * PREAUTH", false},
	{"imap", {V("* OK\r\n"), V("a NO never\r\n")}, KT_E_PROTO, "a NO never", false},
	{"imap", {V("* OK\r\n"), V("a OK\r\n* injected\r\n")}, KT_E_PROTO, "more than it was asked", true},
	{"postgres", {V("S")}, KT_OK, "", false},
	{"postgres", {V("N")}, KT_E_PROTO, "the server has no TLS", false},
	{"postgres", {V("ESFATAL\0")}, KT_E_NET, "answers SSLRequest with an error", true},
	{"postgres", {V("S\0")}, KT_E_PROTO, "more than it was asked", true},
	{"postgres", {V("SS")}, KT_E_PROTO, "more than it was asked", true},
	{"postgres", {V("\x15\x03")}, KT_E_PROTO, "no PostgreSQL server: it answers SSLRequest with byte 0x15", true},
	{"ldap", {V(LDAP_GOOD)}, KT_OK, "", false},
	{"ldap", {V(LDAP_WIDE)}, KT_OK, "", false},
	{"ldap", {V("\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00")}, KT_E_PROTO, "result 2", false},
	{"ldap", {V("\x30\x0c\x02\x01\x02\x78\x07\x0a\x01\x00\x04\x00\x04\x00")}, KT_E_PROTO, "no LDAP server", false},
	{"ldap", {V("\x30\x0c\x02\x01\x01\x78\x08\x0a\x01\x00\x04\x00\x04\x00")}, KT_E_PROTO, "no LDAP server", false},
	{"ldap", {V("\x30\x80\x02\x01")}, KT_E_PROTO, "no LDAP server", true},
	{"ldap", {V("\x30\x84\x7f\xff\xff\xff")}, KT_E_PROTO, "no LDAP server", true},
	{"ldap", {V("\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff")}, KT_E_PROTO, "no LDAP server", true},
	{"ldap", {V("\x30\x82\x03\xe8")}, KT_E_PROTO, "no LDAP server", false},
	{"ldap", {V(LDAP_GOOD "\x16")}, KT_E_PROTO, "more than it was asked", true},
	{"ldap", {V("SSH-2.0-x\r\n")}, KT_E_PROTO, "no LDAP server", true},
};

static void play(const struct row *row, bool whole)
{
	struct kt_starttls_talk *talk = NULL;
	struct kt_err err;
	enum kt_code code = kt_starttls_create(kt_view_str(row->name), &talk, &err);
	bool ready = false;
	size_t turn;

	assert_int_equal(code, KT_OK);
	kt_err_clear(&err);
	for (turn = 0; code == KT_OK && turn < 4 && row->sent[turn].len > 0; turn++) {
		struct kt_view said = {NULL, 0};
		size_t step = whole ? row->sent[turn].len : 1;

		assert_false(ready);
		for (size_t i = 0; code == KT_OK && i < row->sent[turn].len; i += step) {
			/* Its own copy, so that a look behind its end is seen. */
			char *bytes = kt_malloc(step);

			if (said.len > 0 || ready)
				fail_msg("%s turn %zu: an answer before the end", row->name, turn);
			memcpy(bytes, row->sent[turn].ptr + i, step);
			code = kt_starttls_feed(talk, (struct kt_view){bytes, step}, &said, &ready, &err);
			kt_free(bytes);
		}
		if (code == KT_OK && (said.len > 0) == ready)
			fail_msg("%s turn %zu: neither answer nor handshake", row->name, turn);
	}
	if (code != row->code || (row->code == KT_OK) != ready ||
	    (code != KT_OK && strstr(err.what, row->text) == NULL))
		fail_msg("row %zu (%s): %s \"%s\", wanted %s \"%s\"", (size_t)(row - rows), row->name,
			 kt_code_name(code), err.what, kt_code_name(row->code), row->text);
	kt_starttls_destroy(talk);
}

static void test_rows(void **state)
{
	(void)state;
	memset(long_line, 'x', sizeof(long_line));
	for (size_t i = 0; i + 8 <= sizeof(many_lines); i += 8)
		memcpy(many_lines + i, "220-hi\r\n", 8);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		play(&rows[i], true);
		if (!rows[i].only_whole)
			play(&rows[i], false);
	}
}

static void test_what_is_said(void **state)
{
	static const char ldap[] = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16"
				   "1.3.6.1.4.1.1466.20037";
	struct kt_starttls_talk *talk = NULL;
	struct kt_view said;
	struct kt_err err;
	bool ready;

	(void)state;
	assert_int_equal(kt_starttls_create(KT_VIEW_LIT("smtp"), &talk, &err), KT_OK);
	assert_int_equal(kt_starttls_hello(talk).len, 0);
	assert_int_equal(kt_starttls_feed(talk, KT_VIEW_LIT("220 a\r\n"), &said, &ready, &err), KT_OK);
	assert_true(kt_view_eq_str(said, "EHLO keyturn\r\n"));
	assert_int_equal(kt_starttls_feed(talk, KT_VIEW_LIT("250 STARTTLS\r\n"), &said, &ready, &err), KT_OK);
	assert_true(kt_view_eq_str(said, "STARTTLS\r\n"));
	kt_starttls_destroy(talk);
	assert_int_equal(kt_starttls_create(KT_VIEW_LIT("postgres"), &talk, &err), KT_OK);
	assert_int_equal(kt_starttls_hello(talk).len, 8);
	assert_memory_equal(kt_starttls_hello(talk).ptr, "\0\0\0\x08\x04\xd2\x16\x2f", 8);
	kt_starttls_destroy(talk);
	assert_int_equal(kt_starttls_create(KT_VIEW_LIT("ldap"), &talk, &err), KT_OK);
	assert_true(kt_view_eq(kt_starttls_hello(talk), (struct kt_view){ldap, sizeof(ldap) - 1}));
	kt_starttls_destroy(talk);
	assert_int_equal(kt_starttls_create(KT_VIEW_LIT("smtpx"), &talk, &err), KT_E_INVALID);
	kt_starttls_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_what_is_said)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
