/* Alternative names and name constraints of a request: syntax checks and DER. */
#include "pki/pki_internal.h"

#include <arpa/inet.h>
#include <string.h>

#define NAME_MAX_BYTES 2048

/* Numbers of the GeneralName choices, RFC 5280 4.2.1.6. */
enum { GN_OTHER = 0, GN_EMAIL = 1, GN_DNS = 2, GN_URI = 6, GN_IP = 7 };

static bool is_label_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static bool labels_valid(const char *p, const char *end)
{
	size_t len = 0;

	if (end - p > 253)
		return false;
	for (; p < end; p++) {
		if (*p == '.') {
			if (len == 0 || p[-1] == '-')
				return false;
			len = 0;
			continue;
		}
		if (!is_label_char(*p) || ++len > 63 || (len == 1 && *p == '-'))
			return false;
	}
	return len > 0 && end[-1] != '-';
}

/* LDH labels (underscores are common in clusters), a wildcard only as the whole first label. */
bool kt_pki_dns_valid(const char *name)
{
	const char *end = name + strlen(name);

	if (name[0] == '*' && name[1] == '.')
		name += 2;
	return labels_valid(name, end);
}

static bool graphic(const char *text)
{
	size_t len = strlen(text);

	if (len == 0 || len > NAME_MAX_BYTES)
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] >= 0x7f)
			return false;
	return true;
}

static bool email_valid(const char *text)
{
	const char *at = strrchr(text, '@');

	return graphic(text) && at != NULL && at != text && strchr(text, '<') == NULL && strchr(text, '>') == NULL &&
	       labels_valid(at + 1, at + strlen(at));
}

static bool uri_valid(const char *text)
{
	const char *colon = strchr(text, ':');

	if (!graphic(text) || colon == NULL || colon == text || colon[1] == '\0')
		return false;
	for (const char *p = text; p < colon; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
		      (p > text && ((*p >= '0' && *p <= '9') || strchr("+-.", *p) != NULL))))
			return false;
	return true;
}

enum kt_code kt_pki_ip_parse(const char *text, uint8_t out[16], size_t *len, struct kt_err *err)
{
	struct in6_addr six;
	struct in_addr four;

	if (inet_pton(AF_INET, text, &four) == 1) {
		memcpy(out, &four, *len = 4);
		return KT_OK;
	}
	if (inet_pton(AF_INET6, text, &six) == 1) {
		memcpy(out, &six, *len = 16);
		return KT_OK;
	}
	return kt_err_set(err, KT_E_INVALID, "\"%s\" is no IP address", text);
}

bool kt_pki_has_names(const struct kt_cert_request *request)
{
	return request->dns_names.count + request->ip_addresses.count + request->uris.count + request->emails.count +
	               request->other_name_count > 0;
}

static enum kt_code check_count(const char *kind, size_t count, struct kt_err *err)
{
	if (count > KT_PKI_NAMES_MAX)
		return kt_err_set(err, KT_E_LIMIT, "%zu %s: at most %u are accepted", count, kind, KT_PKI_NAMES_MAX);
	return KT_OK;
}

static enum kt_code put_strings(struct kt_buf *out, const struct kt_strs *list, int choice, const char *kind,
                                bool (*valid)(const char *), struct kt_err *err)
{
	enum kt_code code = check_count(kind, list->count, err);

	for (size_t i = 0; code == KT_OK && i < list->count; i++) {
		if (!valid(list->at[i]))
			return kt_err_set(err, KT_E_INVALID, "%s: \"%.200s\" is not valid", kind, list->at[i]);
		kt_der_put(out, DER_CONTEXT(choice), list->at[i], strlen(list->at[i]));
	}
	return code;
}

static enum kt_code put_other_names(struct kt_buf *out, const struct kt_cert_request *request, struct kt_err *err)
{
	enum kt_code code = check_count("otherNames", request->other_name_count, err);

	for (size_t i = 0; code == KT_OK && i < request->other_name_count; i++) {
		const struct kt_cert_other_name *name = &request->other_names[i];
		size_t pos = kt_der_open(out, DER_CONTEXT_CONS(GN_OTHER)), value;

		if (name->oid == NULL || !kt_der_oid(out, name->oid))
			return kt_err_set(err, KT_E_INVALID, "otherNames: \"%.100s\" is no object identifier",
			                  name->oid ? name->oid : "");
		if (name->utf8 == NULL || name->utf8[0] == '\0' || strlen(name->utf8) > NAME_MAX_BYTES ||
		    !kt_utf8_valid(kt_view_str(name->utf8)))
			return kt_err_set(err, KT_E_INVALID, "otherNames: the value of %s is not valid", name->oid);
		value = kt_der_open(out, DER_CONTEXT_CONS(0));
		kt_der_put(out, DER_UTF8, name->utf8, strlen(name->utf8));
		kt_der_close(out, value);
		kt_der_close(out, pos);
	}
	return code;
}

enum kt_code kt_pki_san_encode(const struct kt_cert_request *request, struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code;
	uint8_t ip[16];
	size_t pos, len = 0;

	if (!kt_pki_has_names(request))
		return KT_OK;
	pos = kt_der_open(out, DER_SEQUENCE);
	code = put_strings(out, &request->dns_names, GN_DNS, "dnsNames", kt_pki_dns_valid, err);
	if (code == KT_OK)
		code = put_strings(out, &request->emails, GN_EMAIL, "emailAddresses", email_valid, err);
	if (code == KT_OK)
		code = check_count("ipAddresses", request->ip_addresses.count, err);
	for (size_t i = 0; code == KT_OK && i < request->ip_addresses.count; i++) {
		code = kt_pki_ip_parse(request->ip_addresses.at[i], ip, &len, err);
		if (code != KT_OK)
			return kt_err_prefix(err, "ipAddresses");
		kt_der_put(out, DER_CONTEXT(GN_IP), ip, len);
	}
	if (code == KT_OK)
		code = put_strings(out, &request->uris, GN_URI, "uris", uri_valid, err);
	if (code == KT_OK)
		code = put_other_names(out, request, err);
	kt_der_close(out, pos);
	return code;
}

/* --- name constraints, RFC 5280 4.2.1.10 ---------------------------------------------------------------------------- */

static bool constraint_dns_valid(const char *text)
{
	return graphic(text) && labels_valid(text[0] == '.' ? text + 1 : text, text + strlen(text));
}

static bool constraint_email_valid(const char *text)
{
	return email_valid(text) || constraint_dns_valid(text);
}

/* "10.0.0.0/8": address, then the mask written out. */
static enum kt_code put_cidr(struct kt_buf *out, const char *text, struct kt_err *err)
{
	const char *slash = strchr(text, '/');
	uint8_t bytes[32] = {0};
	uint64_t prefix = 0;
	size_t len = 0;
	char ip[64];

	if (slash == NULL || (size_t)(slash - text) >= sizeof(ip))
		return kt_err_set(err, KT_E_INVALID, "nameConstraints: \"%.100s\" is no range like 10.0.0.0/8", text);
	memcpy(ip, text, (size_t)(slash - text));
	ip[slash - text] = '\0';
	if (kt_pki_ip_parse(ip, bytes, &len, err) != KT_OK)
		return kt_err_prefix(err, "nameConstraints");
	if (kt_parse_u64(kt_view_str(slash + 1), len * 8, &prefix, NULL) != KT_OK)
		return kt_err_set(err, KT_E_INVALID, "nameConstraints: \"%.100s\" has a wrong prefix length", text);
	for (size_t i = 0; i < len; i++) {
		unsigned left = prefix > i * 8 ? (unsigned)(prefix - i * 8) : 0;

		bytes[len + i] = (uint8_t)(left >= 8 ? 0xffu : (0xff00u >> left) & 0xffu);
		bytes[i] = (uint8_t)(bytes[i] & bytes[len + i]); /* host bits off, as Go's ParseCIDR does */
	}
	kt_der_put(out, DER_CONTEXT(GN_IP), bytes, 2 * len);
	return KT_OK;
}

static enum kt_code put_subtree_strings(struct kt_buf *out, const struct kt_strs *list, int choice,
                                        bool (*valid)(const char *), struct kt_err *err)
{
	enum kt_code code = check_count("name constraints", list->count, err);

	for (size_t i = 0; code == KT_OK && i < list->count; i++) {
		size_t pos = kt_der_open(out, DER_SEQUENCE);

		if (!valid(list->at[i]))
			return kt_err_set(err, KT_E_INVALID, "nameConstraints: \"%.200s\" is not valid", list->at[i]);
		kt_der_put(out, DER_CONTEXT(choice), list->at[i], strlen(list->at[i]));
		kt_der_close(out, pos);
	}
	return code;
}

static bool subtrees_any(const struct kt_cert_subtrees *t)
{
	return t->dns.count + t->ips.count + t->emails.count + t->uris.count > 0;
}

static enum kt_code put_subtrees(struct kt_buf *out, const struct kt_cert_subtrees *t, int tag, struct kt_err *err)
{
	size_t pos, seq;
	enum kt_code code;

	if (!subtrees_any(t))
		return KT_OK;
	pos = kt_der_open(out, DER_CONTEXT_CONS(tag));
	code = put_subtree_strings(out, &t->dns, GN_DNS, constraint_dns_valid, err);
	if (code == KT_OK)
		code = check_count("name constraints", t->ips.count, err);
	for (size_t i = 0; code == KT_OK && i < t->ips.count; i++) {
		seq = kt_der_open(out, DER_SEQUENCE);
		code = put_cidr(out, t->ips.at[i], err);
		kt_der_close(out, seq);
	}
	if (code == KT_OK)
		code = put_subtree_strings(out, &t->emails, GN_EMAIL, constraint_email_valid, err);
	if (code == KT_OK)
		code = put_subtree_strings(out, &t->uris, GN_URI, constraint_dns_valid, err);
	kt_der_close(out, pos);
	return code;
}

enum kt_code kt_pki_constraints_encode(const struct kt_cert_request *request, struct kt_buf *out, struct kt_err *err)
{
	enum kt_code code;
	size_t pos;

	if (!subtrees_any(&request->permitted) && !subtrees_any(&request->excluded))
		return KT_OK;
	if (!request->is_ca)
		return kt_err_set(err, KT_E_INVALID, "nameConstraints are for CA certificates (isCA: true) only");
	pos = kt_der_open(out, DER_SEQUENCE);
	code = put_subtrees(out, &request->permitted, 0, err);
	if (code == KT_OK)
		code = put_subtrees(out, &request->excluded, 1, err);
	kt_der_close(out, pos);
	return code;
}
