/* Checks of single values: NULL when good, else what is wrong and how to mend it. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "kt/text.h"
#include "kt/cron.h"
#include "manifest/field.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyz"
#define UPPER   "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

static bool only(const char *text, const char *set)
{
	return *text && !text[strspn(text, set)];
}

static bool plain_ascii(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text <= 0x20 || (unsigned char)*text >= 0x7f)
			return false;
	}
	return true;
}

const char *kt_value_name(const char *text)
{
	return kt_dns1123_subdomain(text)
		       ? NULL
		       : "is not a name: lower-case letters, digits, '-' and '.', at most 253, starting and "
			 "ending with a letter or digit";
}

const char *kt_value_label(const char *text)
{
	return kt_dns1123_subdomain(text) && strlen(text) <= 63 && !strchr(text, '.')
		       ? NULL
		       : "is not a namespace: lower-case letters, digits and '-', at most 63";
}

static bool dns_labels(const char *text)
{
	size_t total = strlen(text);

	if (!total || total > 253)
		return false;
	for (;;) {
		size_t n = strspn(text, LETTERS UPPER DIGITS "-_");

		if (!n || n > 63 || text[0] == '-' || text[n - 1] == '-')
			return false;
		text += n;
		if (!*text)
			return true;
		if (*text++ != '.')
			return false;
	}
}

const char *kt_value_ip(const char *text)
{
	unsigned char address[16];

	return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1
		       ? NULL
		       : "is not an IP address such as 192.0.2.1 or 2001:db8::1";
}

const char *kt_value_dns_name(const char *text)
{
	const char *rest = text;
	size_t len = strlen(text);

	if (!kt_value_ip(text))
		return "is an IP address; move it to spec.ipAddresses";
	if (!strncmp(rest, "*.", 2))
		rest += 2;
	if (strchr(rest, '*'))
		return "has a '*' that is not its whole first label; write *.example.com";
	if (len && text[len - 1] == '.')
		return "ends with a dot; leave it out";
	for (const char *at = text; *at; at++) {
		if ((unsigned char)*at >= 0x80)
			return "is not ASCII; write it in punycode (xn--...)";
	}
	return dns_labels(rest) ? NULL : "is not a DNS name such as www.example.com";
}

const char *kt_value_dns_domain(const char *text)
{
	if (*text == '.')
		text++;
	return dns_labels(text) ? NULL : "is not a DNS domain such as example.com";
}

const char *kt_value_cidr(const char *text)
{
	char address[64];
	const char *slash = strchr(text, '/');
	uint64_t bits, max;

	if (!slash || (size_t)(slash - text) >= sizeof(address))
		return "is not a range such as 10.0.0.0/8 or 2001:db8::/32";
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	max = strchr(address, ':') ? 128 : 32;
	if (kt_value_ip(address) || kt_parse_u64(kt_view_str(slash + 1), max, &bits, NULL) != KT_OK)
		return "is not a range such as 10.0.0.0/8 or 2001:db8::/32";
	return NULL;
}

const char *kt_value_email(const char *text)
{
	const char *at = strrchr(text, '@');

	if (!at || at == text || at - text > 64 || !plain_ascii(text) || strpbrk(text, "<>()[]\\,;:\"") ||
	    !dns_labels(at + 1))
		return "is not a mail address such as ops@example.com";
	return memchr(text, '@', (size_t)(at - text)) ? "is not a mail address such as ops@example.com" : NULL;
}

static size_t scheme_len(const char *text)
{
	size_t n = strspn(text, LETTERS UPPER DIGITS "+-.");

	return n && isalpha((unsigned char)*text) && text[n] == ':' ? n : 0;
}

const char *kt_value_uri(const char *text)
{
	size_t n = scheme_len(text);

	return n && text[n + 1] && plain_ascii(text) ? NULL
						     : "is not a URI with a scheme, such as spiffe://example.org/web";
}

/* Host of scheme://host[:port]/…, without brackets; false when there is none or there is user information. */
static bool url_host(const char *url, char *host, size_t size)
{
	const char *at = strstr(url, "://"), *end;
	size_t len;

	if (!at)
		return false;
	at += 3;
	len = strcspn(at, "/?#");
	if (memchr(at, '@', len) || !len)
		return false;
	end = at + len;
	if (*at == '[') {
		const char *close = memchr(at, ']', len);

		if (!close || (close + 1 != end && close[1] != ':'))
			return false;
		at++;
		len = (size_t)(close - at);
		end = close + 1;
	} else {
		len = strcspn(at, ":/?#");
		end = at + len;
	}
	if (*end == ':') {
		uint64_t port;
		size_t digits = strcspn(end + 1, "/?#");

		if (kt_parse_u64((struct kt_view){end + 1, digits}, 65535, &port, NULL) != KT_OK || !port)
			return false;
	}
	if (!len || len >= size)
		return false;
	memcpy(host, at, len);
	host[len] = '\0';
	return !kt_value_ip(host) || dns_labels(host);
}

static bool loopback_host(const char *host)
{
	unsigned char v4[4], v6[16];
	static const unsigned char one[16] = {[15] = 1};
	size_t len = strlen(host);

	if (inet_pton(AF_INET, host, v4) == 1)
		return v4[0] == 127;
	if (inet_pton(AF_INET6, host, v6) == 1)
		return !memcmp(v6, one, sizeof(one));
	return !strcasecmp(host, "localhost") || (len > 10 && !strcasecmp(host + len - 10, ".localhost"));
}

bool kt_url_is_loopback(const char *url)
{
	char host[256];

	return url_host(url, host, sizeof(host)) && loopback_host(host);
}

const char *kt_value_url(const char *text)
{
	char host[256];

	if (!plain_ascii(text) || strlen(text) > 2048 || !url_host(text, host, sizeof(host)))
		return "is not a URL such as https://ca.example.com/directory";
	if (!strncmp(text, "https://", 8))
		return NULL;
	if (!strncmp(text, "http://", 7))
		return loopback_host(host)
			       ? NULL
			       : "must be https; http is accepted only for this machine (127.0.0.1, localhost)";
	return "must start with https://";
}

const char *kt_value_any_url(const char *text)
{
	char host[256];

	if (!plain_ascii(text) || strlen(text) > 2048)
		return "is not a URL such as http://ca.example.com/root.crl";
	if (!strncmp(text, "ldap:", 5) || !strncmp(text, "ldaps:", 6))
		return NULL;
	if ((!strncmp(text, "http://", 7) || !strncmp(text, "https://", 8)) && url_host(text, host, sizeof(host)))
		return NULL;
	return "is not a URL such as http://ca.example.com/root.crl";
}

const char *kt_value_oid(const char *text)
{
	unsigned parts = 0;

	if (strlen(text) > 128 || strspn(text, "012") < 1 || text[1] != '.')
		return "is not an object identifier such as 1.3.6.1.4.1.311.20.2.3";
	for (const char *at = text;; at++, parts++) {
		size_t n = strspn(at, DIGITS);

		if (!n || n > 18 || (n > 1 && *at == '0'))
			return "is not an object identifier such as 1.3.6.1.4.1.311.20.2.3";
		at += n;
		if (!*at)
			return parts >= 1 ? NULL : "is not an object identifier such as 1.3.6.1.4.1.311.20.2.3";
		if (*at != '.')
			return "is not an object identifier such as 1.3.6.1.4.1.311.20.2.3";
	}
}

static bool has_dots(const char *path)
{
	for (const char *at = path; *at;) {
		size_t n = strcspn(at, "/");

		if ((n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.'))
			return true;
		at += n + (at[n] == '/');
	}
	return false;
}

static bool has_control(const char *text)
{
	for (; *text; text++) {
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	}
	return false;
}

const char *kt_value_path(const char *text)
{
	if (*text != '/' || !text[1])
		return "must be an absolute path";
	if (has_dots(text))
		return "must not have '.' or '..' in it; write the path out";
	return strlen(text) >= 4096 || has_control(text) ? "is not a path: too long, or with control characters" : NULL;
}

const char *kt_value_file_path(const char *text)
{
	const char *problem = kt_value_path(text);

	return problem ? problem : text[strlen(text) - 1] == '/' ? "must name a file, not a folder" : NULL;
}

const char *kt_value_relative_path(const char *text)
{
	if (*text == '/' || has_dots(text) || strstr(text, "//") || text[strlen(text) - 1] == '/' ||
	    strlen(text) > 1024 || has_control(text))
		return "must be a relative path without '.', '..' and empty parts";
	return kt_starts_with(text, "..") ? "must not start with '..'" : NULL;
}

static bool port_ok(const char *text)
{
	uint64_t port;

	return kt_parse_u64(kt_view_str(text), 65535, &port, NULL) == KT_OK && port;
}

const char *kt_value_address(const char *text)
{
	char host[256];
	const char *colon = strrchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : 0;

	if (!len || len >= sizeof(host) || !port_ok(colon + 1))
		return "is not an address with a port, such as 127.0.0.1:8443 or [::1]:8443";
	memcpy(host, text, len);
	host[len] = '\0';
	if (host[0] == '[' && host[len - 1] == ']') {
		host[len - 1] = '\0';
		return strchr(host, ':') && !kt_value_ip(host + 1)
			       ? NULL
			       : "is not an address with a port, such as [::1]:8443";
	}
	return dns_labels(host) ? NULL : "is not an address with a port, such as 127.0.0.1:8443 or [::1]:8443";
}

const char *kt_value_listen(const char *text)
{
	if (!strncmp(text, "unix:", 5))
		return kt_value_file_path(text + 5) || strlen(text + 5) > 107
			       ? "must be unix: and an absolute path of at most 107 bytes"
			       : NULL;
	if (*text == ':')
		return port_ok(text + 1) ? NULL : "is not a port, such as :9402";
	return kt_value_address(text);
}

const char *kt_value_arn(const char *text)
{
	size_t colons = 0;

	for (const char *at = text; *at; at++) {
		colons += *at == ':';
		if (*at <= ' ' || *at >= 0x7f || *at == '"' || *at == '\\')
			return "is not an ARN such as arn:aws:iam::123456789012:role/orders";
	}
	return !strncmp(text, "arn:", 4) && colons >= 5 && strlen(text) <= 1011
		       ? NULL
		       : "is not an ARN such as arn:aws:iam::123456789012:role/orders";
}

const char *kt_value_region(const char *text)
{
	return kt_dns1123_subdomain(text) && strlen(text) <= 63 && !strchr(text, '.')
		       ? NULL
		       : "is not a region such as eu-central-1";
}

const char *kt_value_session_name(const char *text)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=,.@-";
	size_t len = strlen(text);

	return len >= 2 && len <= 64 && strspn(text, allowed) == len ? NULL
								     : "must be 2 to 64 letters, digits and _+=,.@-";
}

const char *kt_value_cron(const char *text)
{
	struct kt_cron cron;

	return kt_cron_parse(text, &cron);
}

const char *kt_value_timezone(const char *text)
{
	static char last[64]; /* most manifests name one zone, a great many times */
	struct kt_zone *zone = NULL;
	bool ok;

	if (!kt_zone_name_ok(text))
		return "is not a time zone of this machine; write an IANA name such as Europe/Berlin";
	if (!strcmp(text, last))
		return NULL;
	/* Without zoneinfo nothing can be said here; where a window is asked for, the missing file is named. */
	ok = kt_zone_read(text, &zone, NULL) == KT_OK;
	kt_zone_destroy(zone);
	if (ok)
		memcpy(last, text, strlen(text) + 1);
	return ok || !kt_zone_machine_has_any()
		       ? NULL
		       : "is not a time zone of this machine; write an IANA name such as Europe/Berlin";
}

const char *kt_value_key(const char *text)
{
	return only(text, LETTERS UPPER DIGITS "-_.") && strlen(text) <= 253 && strcmp(text, ".") != 0 &&
			       strncmp(text, "..", 2) != 0
		       ? NULL
		       : "is not a key of a secret: letters, digits, '-', '_' and '.', not starting with '..'";
}

const char *kt_value_user(const char *text)
{
	size_t len = strlen(text);

	if (only(text, DIGITS))
		return len <= 10 && strtoull(text, NULL, 10) < UINT32_MAX
			       ? NULL
			       : "is not a user or group: the number is too large";
	return only(text, LETTERS UPPER DIGITS "-_.") && *text != '-' && len <= 64
		       ? NULL
		       : "is not the name or number of a user or group";
}

const char *kt_value_unit(const char *text)
{
	static const char *const kinds[] = {".service", ".socket", ".target", ".scope", ".timer", ".path", ".slice"};
	bool known = false;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		known |= kt_ends_with(text, kinds[i]);
	return known && only(text, LETTERS UPPER DIGITS ":-_.\\@") && *text != '-' && strlen(text) < 256
		       ? NULL
		       : "is not a systemd unit; write its whole name, such as nginx.service";
}

const char *kt_value_cgroup(const char *text)
{
	return *text == '/' ? kt_value_path(text) : kt_value_relative_path(text);
}

const char *kt_value_env_name(const char *text)
{
	if (!only(text, LETTERS UPPER DIGITS "_") || isdigit((unsigned char)*text) || strlen(text) > 128)
		return "is not the name of a variable";
	if (kt_starts_with(text, "KEYTURN_") || kt_starts_with(text, "LD_") || !strcmp(text, "TRACEPARENT"))
		return "is a variable that keyturn sets or keeps out itself";
	return NULL;
}

const char *kt_value_json_path(const char *text)
{
	const char *at = text;

	if (strlen(text) > 512)
		return "is longer than 512 bytes";
	while (*at == '.' || *at == '[') {
		if (*at == '[') {
			size_t n = strspn(at + 1, DIGITS);

			if (!n || n > 6 || at[n + 1] != ']')
				break;
			at += n + 2;
		} else {
			size_t n = strspn(at + 1, LETTERS UPPER DIGITS "-_:@/$");

			if (!n)
				break;
			at += n + 1;
		}
	}
	return at != text && !*at ? NULL : "is not a path into JSON such as .tls.sha256 or .items[0].id";
}

const char *kt_value_log_field(const char *text)
{
	uint64_t column;

	if (*text == '.')
		return kt_value_json_path(text);
	return kt_parse_u64(kt_view_str(text), 1000, &column, NULL) == KT_OK && column
		       ? NULL
		       : "must be a path into a JSON line (.token_sha256) or the number of a column in quotes (\"7\")";
}

const char *kt_value_header_name(const char *text)
{
	return only(text, LETTERS UPPER DIGITS "!#$%&'*+-.^_`|~") && strlen(text) <= 128
		       ? NULL
		       : "is not the name of an HTTP header";
}

const char *kt_value_header_text(const char *text)
{
	for (const char *at = text; *at; at++) {
		if ((unsigned char)*at < 0x20 || (unsigned char)*at >= 0x7f)
			return "must be printable ASCII";
	}
	return strlen(text) > 64 ? "is longer than 64 bytes" : NULL;
}

/* RFC 6749 section 3.3: %x21 / %x23-5B / %x5D-7E. */
const char *kt_value_scope(const char *text)
{
	return plain_ascii(text) && !strpbrk(text, "\"\\")
		       ? NULL
		       : "is not a scope: no spaces, quotes or backslashes; one list entry for each";
}

const char *kt_value_country(const char *text)
{
	return strlen(text) == 2 && isalpha((unsigned char)text[0]) && isalpha((unsigned char)text[1])
		       ? NULL
		       : "is not a country code of two letters, such as DE";
}

const char *kt_value_label_key(const char *text)
{
	const char *slash = strchr(text, '/'), *name = slash ? slash + 1 : text;
	char prefix[254];

	if (slash) {
		if ((size_t)(slash - text) >= sizeof(prefix))
			return "has a prefix that is too long";
		memcpy(prefix, text, (size_t)(slash - text));
		prefix[slash - text] = '\0';
		if (!kt_dns1123_subdomain(prefix))
			return "must have a DNS name before the '/', as in example.com/name";
	}
	return only(name, LETTERS UPPER DIGITS "-_.") && strlen(name) <= 63 && isalnum((unsigned char)*name) &&
			       isalnum((unsigned char)name[strlen(name) - 1])
		       ? NULL
		       : "is not a key of a label or annotation: letters, digits, '-', '_', '.', at most 63";
}

const char *kt_value_printable(const char *text)
{
	return !kt_utf8_valid(kt_view_str(text)) || has_control(text) ? "must be printable UTF-8 text" : NULL;
}

const char *kt_value_segment(const char *text)
{
	return *text && strcmp(text, ".") != 0 && strcmp(text, "..") != 0 && only(text, LETTERS UPPER DIGITS "-._~")
		       ? NULL
		       : "must be made of letters, digits and -._~: it is a part of a URL";
}

const char *kt_value_common_name(const char *text)
{
	return strlen(text) > 64 ? "has more than 64 bytes, which X.509 does not allow; use spec.dnsNames"
				 : kt_value_printable(text);
}

const char *kt_value_credential(const char *text)
{
	return only(text, LETTERS UPPER DIGITS "-_.:@") && *text != '.' && strlen(text) < 256
		       ? NULL
		       : "is not the name of a systemd credential";
}

const char *kt_value_claim_name(const char *text)
{
	static const char *const own[] = {"iss",   "aud", "exp",       "iat", "nbf", "jti",
					  "scope", "sub", "client_id", "cnf", NULL};

	for (const char *const *name = own; *name; name++) {
		if (!strcmp(text, *name))
			return "is a claim that keyturn writes itself";
	}
	return plain_ascii(text) && strlen(text) <= 256 ? NULL : "is not the name of a claim";
}
