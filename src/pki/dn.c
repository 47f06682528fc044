/* Distinguished names: from typed attributes, or from an RFC 4514 string, into DER. */
#include "pki/pki_internal.h"

#include <string.h>
#include <strings.h>

#define DN_RDN_MAX 64
#define DN_VALUE_MAX 1024
#define CN_MAX 64 /* ub-common-name, RFC 5280 appendix A.1 */

/* How a value is written: like Go's encoder, PrintableString when it can, else UTF8String; some types are fixed. */
enum form { FORM_AUTO, FORM_IA5 };

static const struct attr_type {
	const char *name;
	const char *oid;
	enum form form;
} attr_types[] = {
        {"CN", "2.5.4.3", FORM_AUTO},
        {"COMMONNAME", "2.5.4.3", FORM_AUTO},
        {"SN", "2.5.4.4", FORM_AUTO},
        {"SURNAME", "2.5.4.4", FORM_AUTO},
        {"SERIALNUMBER", "2.5.4.5", FORM_AUTO},
        {"C", "2.5.4.6", FORM_AUTO},
        {"L", "2.5.4.7", FORM_AUTO},
        {"ST", "2.5.4.8", FORM_AUTO},
        {"S", "2.5.4.8", FORM_AUTO},
        {"STREET", "2.5.4.9", FORM_AUTO},
        {"O", "2.5.4.10", FORM_AUTO},
        {"OU", "2.5.4.11", FORM_AUTO},
        {"T", "2.5.4.12", FORM_AUTO},
        {"TITLE", "2.5.4.12", FORM_AUTO},
        {"POSTALCODE", "2.5.4.17", FORM_AUTO},
        {"GN", "2.5.4.42", FORM_AUTO},
        {"GIVENNAME", "2.5.4.42", FORM_AUTO},
        {"INITIALS", "2.5.4.43", FORM_AUTO},
        {"GENERATIONQUALIFIER", "2.5.4.44", FORM_AUTO},
        {"DNQUALIFIER", "2.5.4.46", FORM_AUTO},
        {"PSEUDONYM", "2.5.4.65", FORM_AUTO},
        {"ORGANIZATIONIDENTIFIER", "2.5.4.97", FORM_AUTO},
        {"UID", "0.9.2342.19200300.100.1.1", FORM_AUTO},
        {"USERID", "0.9.2342.19200300.100.1.1", FORM_AUTO},
        {"DC", "0.9.2342.19200300.100.1.25", FORM_IA5},
        {"E", "1.2.840.113549.1.9.1", FORM_IA5},
        {"EMAIL", "1.2.840.113549.1.9.1", FORM_IA5},
        {"EMAILADDRESS", "1.2.840.113549.1.9.1", FORM_IA5},
};

static bool is_printable_string(struct kt_view v)
{
	for (size_t i = 0; i < v.len; i++) {
		char c = v.ptr[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      (c != '\0' && strchr(" '()+,-./:=?", c) != NULL)))
			return false;
	}
	return true;
}

static bool is_ascii(struct kt_view v)
{
	for (size_t i = 0; i < v.len; i++)
		if ((unsigned char)v.ptr[i] >= 0x80)
			return false;
	return true;
}

static enum kt_code put_value(struct kt_buf *out, const char *type, enum form form, struct kt_view value,
                              struct kt_err *err)
{
	uint8_t tag = DER_UTF8;

	if (value.len == 0)
		return kt_err_set(err, KT_E_INVALID, "subject: %s is empty", type);
	if (value.len > DN_VALUE_MAX)
		return kt_err_set(err, KT_E_INVALID, "subject: %s has more than %d bytes", type, DN_VALUE_MAX);
	if (!kt_utf8_valid(value) || memchr(value.ptr, '\0', value.len) != NULL)
		return kt_err_set(err, KT_E_INVALID, "subject: %s is no UTF-8 text", type);
	if (form == FORM_IA5 && is_ascii(value))
		tag = DER_IA5;
	else if (form == FORM_AUTO && is_printable_string(value))
		tag = DER_PRINTABLE;
	kt_der_put(out, tag, value.ptr, value.len);
	return KT_OK;
}

static const struct attr_type *find_type(struct kt_view name)
{
	for (size_t i = 0; i < sizeof(attr_types) / sizeof(attr_types[0]); i++)
		if (kt_ascii_ieq(name, kt_view_str(attr_types[i].name)))
			return &attr_types[i];
	return NULL;
}

/* The OID of a type by name or in dotted form, with an "OID." before it or without. */
static enum kt_code put_type(struct kt_buf *out, struct kt_view name, enum form *form, struct kt_err *err)
{
	const struct attr_type *type = find_type(name);
	char dotted[96];

	*form = type != NULL ? type->form : FORM_AUTO;
	if (type != NULL) {
		kt_der_oid(out, type->oid);
		return KT_OK;
	}
	if (name.len > 4 && strncasecmp(name.ptr, "OID.", 4) == 0)
		name = (struct kt_view){name.ptr + 4, name.len - 4};
	if (name.len > 0 && name.len < sizeof(dotted)) {
		memcpy(dotted, name.ptr, name.len);
		dotted[name.len] = '\0';
		if (kt_der_oid(out, dotted))
			return KT_OK;
	}
	return kt_err_set(err, KT_E_INVALID, "subject: unknown attribute type \"%.*s\": CN, O, OU, C, L, ST, ... or an OID",
	                  name.len > 64 ? 64 : (int)name.len, name.ptr);
}

static enum kt_code put_rdn(struct kt_buf *out, const char *type, const char *value, struct kt_err *err)
{
	size_t set = kt_der_open(out, DER_SET), seq = kt_der_open(out, DER_SEQUENCE);
	enum kt_code code;
	enum form form;

	code = put_type(out, kt_view_str(type), &form, err);
	if (code == KT_OK)
		code = put_value(out, type, form, kt_view_str(value), err);
	kt_der_close(out, seq);
	kt_der_close(out, set);
	return code;
}

/* --- RFC 4514 ----------------------------------------------------------------------------------------------------- */

struct dn_parser {
	const char *p;
	struct kt_err *err;
};

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "#04024869": the value's own DER. */
static enum kt_code parse_hex(struct dn_parser *dn, struct kt_buf *value)
{
	struct kt_view raw;

	for (dn->p++; hex_digit(dn->p[0]) >= 0; dn->p += 2) {
		if (hex_digit(dn->p[1]) < 0)
			return kt_err_set(dn->err, KT_E_INVALID, "subject: an odd number of hex digits after '#'");
		kt_buf_addc(value, (char)(hex_digit(dn->p[0]) << 4 | hex_digit(dn->p[1])));
	}
	raw = kt_buf_view(value);
	/* One short, definite TLV is all that makes sense for an attribute's value. */
	if (raw.len < 2 || (uint8_t)raw.ptr[1] >= 0x80 || (size_t)raw.ptr[1] != raw.len - 2)
		return kt_err_set(dn->err, KT_E_INVALID, "subject: the value after '#' is no DER");
	return KT_OK;
}

static enum kt_code parse_escape(struct dn_parser *dn, struct kt_buf *value)
{
	char c = *++dn->p;

	if (hex_digit(c) >= 0 && hex_digit(dn->p[1]) >= 0) {
		kt_buf_addc(value, (char)(hex_digit(c) << 4 | hex_digit(dn->p[1])));
		dn->p += 2;
		return KT_OK;
	}
	if (c == '\0' || strchr(" \"#+,;<=>\\", c) == NULL)
		return kt_err_set(dn->err, KT_E_INVALID, "subject: a backslash before a character that needs none");
	kt_buf_addc(value, c);
	dn->p++;
	return KT_OK;
}

/* Up to an unescaped ',' or '+'; unescaped spaces at both ends are dropped, as LDAP clients do. */
static enum kt_code parse_string(struct dn_parser *dn, struct kt_buf *value)
{
	size_t keep = 0;

	while (*dn->p != '\0' && *dn->p != ',' && *dn->p != '+') {
		enum kt_code code;

		if (*dn->p == '\\') {
			code = parse_escape(dn, value);
			if (code != KT_OK)
				return code;
			keep = value->len;
			continue;
		}
		if (strchr("\";<>", *dn->p) != NULL)
			return kt_err_set(dn->err, KT_E_INVALID, "subject: '%c' must be escaped with a backslash", *dn->p);
		kt_buf_addc(value, *dn->p);
		if (*dn->p++ != ' ')
			keep = value->len;
	}
	if (value->failed == KT_OK)
		value->len = keep;
	return KT_OK;
}

static void skip_spaces(struct dn_parser *dn)
{
	while (*dn->p == ' ')
		dn->p++;
}

/* type=value into an AttributeTypeAndValue. */
static enum kt_code parse_attr(struct dn_parser *dn, struct kt_buf *out)
{
	struct kt_buf KT_AUTOBUF value;
	struct kt_view type;
	enum kt_code code;
	enum form form;
	char name[64];
	size_t seq;

	kt_buf_init(&value, DN_VALUE_MAX + 1);
	skip_spaces(dn);
	type = (struct kt_view){dn->p, strcspn(dn->p, "=,+")};
	if (dn->p[type.len] != '=')
		return kt_err_set(dn->err, KT_E_INVALID, "subject: \"%.40s\" is no attribute of the form TYPE=value", dn->p);
	dn->p += type.len + 1;
	while (type.len > 0 && type.ptr[type.len - 1] == ' ')
		type.len--;
	seq = kt_der_open(out, DER_SEQUENCE);
	code = put_type(out, type, &form, dn->err);
	if (code != KT_OK)
		return code;
	skip_spaces(dn);
	if (*dn->p == '#') {
		code = parse_hex(dn, &value);
		if (code == KT_OK)
			kt_buf_add(out, value.ptr, value.len);
		skip_spaces(dn);
		if (code == KT_OK && *dn->p != '\0' && *dn->p != ',' && *dn->p != '+')
			code = kt_err_set(dn->err, KT_E_INVALID, "subject: text follows a value in hex");
	} else {
		code = parse_string(dn, &value);
		if (code == KT_OK)
			code = kt_buf_check(&value, "subject", dn->err);
		memcpy(name, type.ptr, type.len < sizeof(name) ? type.len : sizeof(name) - 1);
		name[type.len < sizeof(name) ? type.len : sizeof(name) - 1] = '\0';
		if (code == KT_OK)
			code = put_value(out, name, form, kt_buf_view(&value), dn->err);
	}
	kt_der_close(out, seq);
	return code;
}

/* DER wants the members of a SET in ascending order of their encodings. */
static void sort_set(struct kt_buf *set, const size_t *starts, size_t count, struct kt_buf *out)
{
	bool used[DN_RDN_MAX] = {false};

	for (size_t n = 0; n < count; n++) {
		size_t best = count;

		for (size_t i = 0; i < count; i++) {
			size_t len = starts[i + 1] - starts[i], best_len, common;
			int cmp;

			if (used[i])
				continue;
			if (best == count) {
				best = i;
				continue;
			}
			best_len = starts[best + 1] - starts[best];
			common = len < best_len ? len : best_len;
			cmp = memcmp(set->ptr + starts[i], set->ptr + starts[best], common);
			if (cmp < 0 || (cmp == 0 && len < best_len))
				best = i;
		}
		used[best] = true;
		kt_buf_add(out, set->ptr + starts[best], starts[best + 1] - starts[best]);
	}
}

static enum kt_code parse_rdn(struct dn_parser *dn, struct kt_buf *out)
{
	size_t starts[DN_RDN_MAX + 1], count = 0, pos;
	struct kt_buf KT_AUTOBUF set;
	enum kt_code code;

	kt_buf_init(&set, 8192);
	do {
		if (count > 0)
			dn->p++;
		if (count == DN_RDN_MAX)
			return kt_err_set(dn->err, KT_E_INVALID, "subject: too many attributes in one RDN");
		starts[count++] = set.len;
		code = parse_attr(dn, &set);
		if (code == KT_OK)
			code = kt_buf_check(&set, "subject", dn->err);
		if (code != KT_OK)
			return code;
		starts[count] = set.len;
	} while (*dn->p == '+');
	pos = kt_der_open(out, DER_SET);
	sort_set(&set, starts, count, out);
	kt_der_close(out, pos);
	return kt_buf_check(out, "subject", dn->err);
}

/* RFC 4514 section 2.1 writes the last RDN first. */
static enum kt_code put_literal(const char *literal, struct kt_buf *out, size_t *count, struct kt_err *err)
{
	struct dn_parser dn = {literal, err};
	size_t starts[DN_RDN_MAX + 1] = {0};
	struct kt_buf KT_AUTOBUF rdns;
	enum kt_code code;

	kt_buf_init(&rdns, 32768);
	*count = 0;
	skip_spaces(&dn);
	if (*dn.p == '\0')
		return kt_err_set(err, KT_E_INVALID, "subject: the literal subject is empty");
	for (;;) {
		if (*count == DN_RDN_MAX)
			return kt_err_set(err, KT_E_INVALID, "subject: more than %d RDNs", DN_RDN_MAX);
		code = parse_rdn(&dn, &rdns);
		if (code != KT_OK)
			return code;
		starts[++*count] = rdns.len;
		if (*dn.p == '\0')
			break;
		dn.p++;
	}
	for (size_t i = *count; i > 0; i--)
		kt_buf_add(out, rdns.ptr + starts[i - 1], starts[i] - starts[i - 1]);
	return KT_OK;
}

enum kt_code kt_pki_dn_encode(const struct kt_cert_request *request, struct kt_buf *out, bool *empty,
                              struct kt_err *err)
{
	const char *cn = request->common_name;
	size_t pos = kt_der_open(out, DER_SEQUENCE), count = request->subject_count;
	enum kt_code code = KT_OK;

	if (request->literal_subject != NULL) {
		if (count > 0 || cn != NULL)
			return kt_err_set(err, KT_E_INVALID, "a literal subject excludes subject and common name");
		code = put_literal(request->literal_subject, out, &count, err);
	}
	if (count > DN_RDN_MAX)
		return kt_err_set(err, KT_E_INVALID, "subject: more than %d attributes", DN_RDN_MAX);
	for (size_t i = 0; code == KT_OK && i < request->subject_count; i++)
		code = put_rdn(out, request->subject[i].type, request->subject[i].value, err);
	if (code == KT_OK && cn != NULL) {
		if (strlen(cn) > CN_MAX)
			return kt_err_set(err, KT_E_INVALID, "the common name has more than %d bytes", CN_MAX);
		code = put_rdn(out, "CN", cn, err);
		count++;
	}
	if (code != KT_OK)
		return code;
	*empty = count == 0;
	kt_der_close(out, pos);
	return kt_buf_check(out, "subject", err);
}

enum kt_code kt_pki_dn_check(const char *literal, struct kt_err *err)
{
	struct kt_cert_request request = {.literal_subject = literal};
	struct kt_buf KT_AUTOBUF out;
	bool empty;

	kt_buf_init(&out, 65536);
	return kt_pki_dn_encode(&request, &out, &empty, err);
}
