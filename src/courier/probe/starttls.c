/* What is said in the clear before a TLS handshake: one small state machine a protocol, none of which trusts what it
 * reads. */
#include <string.h>

#include "courier/probe/starttls.h"
#include "kt/mem.h"
#include "kt/text.h"

#define LINE_MAX_BYTES 1000u  /* RFC 5321 section 4.5.3.1.5 has 512, IMAP servers say more of themselves */
#define TALK_MAX       16384u /* all that a server may say */
#define SHOWN          100    /* of a line, in an error */

/* The client's lines, and what a server that agrees says between them. */
enum step { GREETING, OFFERS, AGREEMENT };

enum verdict { MORE, SAY, READY, FAILED };

struct dialect {
	const char *name;
	struct kt_view hello;
	/* Looks at the buffer: one line without its end, or of a binary protocol all that has come. */
	enum verdict (*take)(struct kt_starttls_talk *talk, struct kt_view *ret_say, struct kt_err *err);
	bool lines;
};

struct kt_starttls_talk {
	const struct dialect *dialect;
	enum step step;
	bool offered;
	size_t total, len;
	char buffer[LINE_MAX_BYTES];
};

static enum verdict fail(struct kt_err *err, enum kt_code code, const struct kt_starttls_talk *talk, const char *what)
{
	(void)kt_err_set(err, code, "%s: %.*s", what, (int)(talk->len < SHOWN ? talk->len : SHOWN), talk->buffer);
	return FAILED;
}

/* Who sits between can put bytes behind the server's: what a session begins with must not be theirs. */
static enum verdict too_much(struct kt_err *err)
{
	(void)kt_err_set(err, KT_E_PROTO, "the server sent more than it was asked for before TLS: refused");
	return FAILED;
}

static bool begins(struct kt_view text, const char *with)
{
	size_t len = strlen(with);

	return text.len >= len && kt_ascii_ieq((struct kt_view){text.ptr, len}, kt_view_str(with));
}

static struct kt_view line_of(const struct kt_starttls_talk *talk)
{
	return (struct kt_view){talk->buffer, talk->len};
}

/* --- SMTP ------------------------------------------------------------------------------------------------------------
 */

/* A line "250-TEXT" goes on, "250 TEXT" and "250" end an answer. */
static enum verdict take_smtp(struct kt_starttls_talk *talk, struct kt_view *ret_say, struct kt_err *err)
{
	struct kt_view line = line_of(talk);
	const char *wanted = talk->step == OFFERS ? "250" : "220";
	bool last = line.len == 3 || (line.len > 3 && line.ptr[3] == ' ');

	if (line.len < 3 || (!last && line.ptr[3] != '-')) {
		return fail(err, KT_E_PROTO, talk, "this is no SMTP server");
	}
	if (!begins(line, wanted)) { /* 4xx passes by itself */
		return fail(err, line.ptr[0] == '4' ? KT_E_NET : KT_E_PROTO, talk,
			    talk->step == GREETING ? "the server greets with"
			    : talk->step == OFFERS ? "the server answers EHLO with"
						   : "the server answers STARTTLS with");
	}
	if (talk->step == OFFERS && line.len > 4 &&
	    kt_ascii_ieq((struct kt_view){line.ptr + 4, line.len - 4}, KT_VIEW_LIT("STARTTLS"))) {
		talk->offered = true;
	}
	if (!last) {
		return MORE;
	}
	if (talk->step == GREETING) {
		*ret_say = KT_VIEW_LIT("EHLO keyturn\r\n");
		talk->step = OFFERS;
		return SAY;
	}
	if (talk->step == OFFERS && !talk->offered) {
		(void)kt_err_set(err, KT_E_PROTO, "the server offers no STARTTLS");
		return FAILED;
	}
	if (talk->step == OFFERS) {
		*ret_say = KT_VIEW_LIT("STARTTLS\r\n");
		talk->step = AGREEMENT;
		return SAY;
	}
	return READY;
}

/* --- IMAP ------------------------------------------------------------------------------------------------------------
 */

static enum verdict take_imap(struct kt_starttls_talk *talk, struct kt_view *ret_say, struct kt_err *err)
{
	struct kt_view line = line_of(talk);

	if (talk->step == GREETING) {
		if (!begins(line, "* OK")) {
			return fail(err, KT_E_PROTO, talk, "the server greets with");
		}
		*ret_say = KT_VIEW_LIT("a STARTTLS\r\n");
		talk->step = AGREEMENT;
		return SAY;
	}
	if (begins(line, "* ")) {
		return MORE;
	}
	return begins(line, "a OK") ? READY : fail(err, KT_E_PROTO, talk, "the server answers STARTTLS with");
}

/* --- PostgreSQL ------------------------------------------------------------------------------------------------------
 */

static enum verdict take_postgres(struct kt_starttls_talk *talk, struct kt_view *ret_say, struct kt_err *err)
{
	(void)ret_say;
	switch (talk->buffer[0]) {
	case 'S':
		return talk->len == 1 ? READY : too_much(err);
	case 'N':
		(void)kt_err_set(err, KT_E_PROTO,
				 "the server has no TLS (it answers SSLRequest with N: see its setting ssl)");
		return FAILED;
	case 'E': /* its text comes from whoever sits between: not shown (CVE-2024-10977) */
		(void)kt_err_set(err, KT_E_NET, "the server answers SSLRequest with an error");
		return FAILED;
	default:
		(void)kt_err_set(err, KT_E_PROTO,
				 "this is no PostgreSQL server: it answers SSLRequest with byte 0x%02x",
				 (unsigned)(unsigned char)talk->buffer[0]);
		return FAILED;
	}
}

/* --- LDAP ------------------------------------------------------------------------------------------------------------
 */

/* A length of BER at *at (X.690 section 8.1.3). False: not all there yet, or not a length that fits here (then
 * SIZE_MAX). */
static bool ber_length(const struct kt_starttls_talk *talk, size_t *at, size_t *ret)
{
	unsigned bytes;

	*ret = 0;
	if (*at >= talk->len) {
		return false;
	}
	bytes = (unsigned char)talk->buffer[(*at)++];
	if (bytes < 0x80) {
		*ret = bytes;
		return true;
	}
	if (bytes == 0x80) { /* open-ended: LDAP has none (RFC 4511 section 5.1) */
		*ret = SIZE_MAX;
		return false;
	}
	for (bytes &= 0x7f; bytes > 0; bytes--) {
		if (*at >= talk->len) {
			return false;
		}
		*ret = *ret << 8 | (unsigned char)talk->buffer[(*at)++];
		if (*ret > LINE_MAX_BYTES) {
			*ret = SIZE_MAX;
			return false;
		}
	}
	return true;
}

/* LDAPMessage { messageID 1, ExtendedResponse [APPLICATION 24] { resultCode, ... } } */
static enum verdict take_ldap(struct kt_starttls_talk *talk, struct kt_view *ret_say, struct kt_err *err)
{
	static const char answer[] = {0x02, 0x01, 0x01, 0x78}, result[] = {0x0a, 0x01};
	size_t at = 1, len, inner;

	(void)ret_say;
	if (talk->buffer[0] != 0x30) {
		goto stranger;
	}
	if (!ber_length(talk, &at, &len)) {
		if (len == SIZE_MAX) {
			goto stranger;
		}
		return MORE;
	}
	if (len > LINE_MAX_BYTES - at) {
		goto stranger;
	}
	if (talk->len < at + len) {
		return MORE;
	}
	if (talk->len > at + len) {
		return too_much(err);
	}
	if (len < sizeof(answer) || memcmp(talk->buffer + at, answer, sizeof(answer)) != 0) {
		goto stranger;
	}
	at += sizeof(answer);
	if (!ber_length(talk, &at, &inner) || inner != talk->len - at || inner < sizeof(result) + 1 ||
	    memcmp(talk->buffer + at, result, sizeof(result)) != 0) {
		goto stranger;
	}
	at += sizeof(result);
	if (talk->buffer[at] != 0) {
		(void)kt_err_set(err, KT_E_PROTO, "the server refuses StartTLS with result %u",
				 (unsigned)(unsigned char)talk->buffer[at]);
		return FAILED;
	}
	return READY;
stranger:
	(void)kt_err_set(err, KT_E_PROTO, "this is no LDAP server");
	return FAILED;
}

/* --- all -------------------------------------------------------------------------------------------------------------
 */

static const struct dialect dialects[] = {
	{"smtp", {NULL, 0}, take_smtp, true},
	{"imap", {NULL, 0}, take_imap, true},
	/* ExtendedRequest with the name of StartTLS */
	{"ldap",
	 {"\x30\x1d\x02\x01\x01\x77\x18\x80\x16"
	  "1.3.6.1.4.1.1466.20037",
	  31},
	 take_ldap,
	 false},
	/* SSLRequest: its length, 8, and 80877103 */
	{"postgres", {"\0\0\0\x08\x04\xd2\x16\x2f", 8}, take_postgres, false},
};

enum kt_code kt_starttls_create(struct kt_view name, struct kt_starttls_talk **ret, struct kt_err *err)
{
	for (size_t i = 0; i < sizeof(dialects) / sizeof(dialects[0]); i++) {
		if (kt_view_eq_str(name, dialects[i].name)) {
			*ret = kt_calloc(1, sizeof(**ret));
			if (*ret == NULL) {
				return kt_err_set(err, KT_E_NOMEM, "out of memory for STARTTLS");
			}
			(*ret)->dialect = &dialects[i];
			return KT_OK;
		}
	}
	return kt_err_set(err, KT_E_INVALID, "unknown protocol of STARTTLS");
}

void kt_starttls_destroy(struct kt_starttls_talk *talk)
{
	kt_free(talk);
}

struct kt_view kt_starttls_hello(const struct kt_starttls_talk *talk)
{
	return talk->dialect->hello;
}

/* Puts bytes into the buffer: up to the end of a line, or all of them. Returns how many, *ret_whole when there is to
 * look at. */
static size_t fill(struct kt_starttls_talk *talk, struct kt_view bytes, bool *ret_whole)
{
	const char *end = talk->dialect->lines ? memchr(bytes.ptr, '\n', bytes.len) : NULL;
	size_t len = end != NULL ? (size_t)(end - bytes.ptr) + 1 : bytes.len;

	*ret_whole = false;
	if (len > sizeof(talk->buffer) - talk->len) {
		return 0;
	}
	memcpy(talk->buffer + talk->len, bytes.ptr, len);
	talk->len += len;
	*ret_whole = !talk->dialect->lines || end != NULL;
	if (end != NULL) {
		talk->len--;
		if (talk->len > 0 && talk->buffer[talk->len - 1] == '\r') {
			talk->len--;
		}
	}
	return len;
}

enum kt_code kt_starttls_feed(struct kt_starttls_talk *talk, struct kt_view bytes, struct kt_view *ret_say,
			      bool *ret_ready, struct kt_err *err)
{
	*ret_say = (struct kt_view){NULL, 0};
	*ret_ready = false;
	talk->total += bytes.len;
	if (talk->total > TALK_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "the server talks on: more than %u bytes before TLS", TALK_MAX);
	}
	while (bytes.len > 0) {
		enum verdict verdict = MORE;
		bool whole;
		size_t used = fill(talk, bytes, &whole);

		if (used == 0) {
			return kt_err_set(err, KT_E_LIMIT, "the server sent a line of more than %u bytes",
					  LINE_MAX_BYTES);
		}
		bytes.ptr += used;
		bytes.len -= used;
		if (whole) {
			verdict = talk->dialect->take(talk, ret_say, err);
			talk->len = talk->dialect->lines ? 0 : talk->len;
		}
		if (verdict == FAILED) {
			return err->code;
		}
		if (verdict == MORE) {
			continue;
		}
		if (bytes.len > 0) {
			(void)too_much(err);
			return err->code;
		}
		*ret_ready = verdict == READY;
		return KT_OK;
	}
	return KT_OK;
}
