/* The requests for AWS sessions: a form for STS, and the signature by a certificate's key that IAM Roles Anywhere wants. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kt/pki.h"
#include "kt/text.h"
#include "keeper/aws/aws.h"

/*
 * CreateSession is signed much as Signature Version 4 does, with these differences: no key is derived, the string to sign is
 * signed by the certificate's key itself, and who signs is told by the certificate's serial number, in decimal. Its body is
 * written as AWS's own clients write it, though any JSON would do: a difference would be the first to be suspected.
 */

#define HEADERS_MAX  65536u
#define BODY_MAX     65536u
#define CHAIN_MAX    8u /* certificates beside the first one */
#define CONTENT_TYPE "application/x-amz-json-1.0"

void kt_aws_request_init(struct kt_aws_request *request)
{
	kt_buf_init(&request->headers, HEADERS_MAX);
	kt_buf_init(&request->body, BODY_MAX);
	request->hidden = 0;
}

void kt_aws_request_finish(struct kt_aws_request *request)
{
	kt_buf_finish(&request->headers);
	kt_buf_finish(&request->body);
}

/* --- where --------------------------------------------------------------------------------------------------------------- */

/* host[:port] of the URL that is asked, as the header Host has it. */
static void add_host(const struct kt_aws_issuer *aws, struct kt_buf *out)
{
	if (aws->endpoint != NULL) {
		const char *host = strstr(aws->endpoint, "//") + 2;

		kt_buf_add(out, host, strcspn(host, "/"));
		return;
	}
	kt_buf_addf(out, "%s.%s.amazonaws.com%s", aws->roles_anywhere != NULL ? "rolesanywhere" : "sts", aws->region,
	            strncmp(aws->region, "cn-", 3) == 0 ? ".cn" : "");
}

enum kt_code kt_aws_url(const struct kt_aws_issuer *aws, struct kt_buf *out, struct kt_err *err)
{
	bool plain = aws->endpoint != NULL && strncmp(aws->endpoint, "http://", 7) == 0;

	kt_buf_adds(out, plain ? "http://" : "https://");
	add_host(aws, out);
	kt_buf_adds(out, aws->roles_anywhere != NULL ? "/sessions" : "/");
	return kt_buf_check(out, "endpoint", err);
}

/* --- AssumeRoleWithWebIdentity ------------------------------------------------------------------------------------------- */

static void add_parameter(struct kt_buf *out, const char *name, const char *value)
{
	kt_buf_addf(out, "&%s=", name);
	kt_form_encode(out, kt_view_str(value));
}

/* Names of Tokens (DNS labels and dots) are fine for sessions; but for their length: 2 to 64. */
static void add_session_name(struct kt_buf *out, const char *name)
{
	kt_buf_adds(out, "&RoleSessionName=");
	kt_form_encode(out, (struct kt_view){name, strnlen(name, 64)});
	if (strlen(name) < 2) {
		kt_buf_adds(out, "--");
	}
}

enum kt_code kt_aws_web_identity(const struct kt_aws_issuer *aws, const char *session_name, struct kt_view token,
                                 struct kt_aws_request *ret, struct kt_err *err)
{
	size_t before;

	kt_buf_adds(&ret->headers, "Content-Type: application/x-www-form-urlencoded; charset=utf-8\n");
	kt_buf_adds(&ret->body, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15");
	kt_buf_addf(&ret->body, "&DurationSeconds=%lld", (long long)(aws->duration / KT_SECOND));
	add_parameter(&ret->body, "RoleArn", aws->role_arn);
	add_session_name(&ret->body, aws->session_name != NULL ? aws->session_name : session_name);
	kt_buf_adds(&ret->body, "&WebIdentityToken=");
	before = ret->body.len;
	kt_form_encode(&ret->body, token);
	ret->hidden = ret->body.len - before;
	if (kt_buf_check(&ret->headers, "headers", err) != KT_OK) {
		return err->code;
	}
	return kt_buf_check(&ret->body, "request", err);
}

/* --- CreateSession ------------------------------------------------------------------------------------------------------- */

enum kt_code kt_aws_decimal(const char *hex, char out[64], struct kt_err *err)
{
	unsigned char digits[64] = {0}; /* lowest first */
	size_t count = 1;
	size_t i;

	for (; *hex != '\0'; hex++) {
		unsigned carry = (unsigned)(*hex >= 'a' ? *hex - 'a' + 10 : *hex - '0');

		if (carry > 15) {
			return kt_err_set(err, KT_E_INVALID, "a serial number is not in hexadecimal digits");
		}
		for (i = 0; i < count || carry > 0; i++) {
			if (i == 63) {
				return kt_err_set(err, KT_E_LIMIT, "a serial number is too long");
			}
			carry += digits[i] * 16u;
			digits[i] = (unsigned char)(carry % 10);
			carry /= 10;
			count = i >= count ? i + 1 : count;
		}
	}
	for (i = 0; i < count; i++) {
		out[i] = (char)('0' + digits[count - 1 - i]);
	}
	out[count] = '\0';
	return KT_OK;
}

static void add_member(struct kt_buf *out, const char *name, const char *value)
{
	kt_buf_addf(out, ", \"%s\": ", name);
	kt_buf_add_json(out, kt_view_str(value));
}

static void add_body(const struct kt_aws_issuer *aws, struct kt_buf *out)
{
	kt_buf_addf(out, "{\"durationSeconds\": %lld", (long long)(aws->duration / KT_SECOND));
	add_member(out, "profileArn", aws->roles_anywhere->profile_arn);
	add_member(out, "roleArn", aws->role_arn);
	add_member(out, "trustAnchorArn", aws->roles_anywhere->trust_anchor_arn);
	if (aws->session_name != NULL) {
		add_member(out, "roleSessionName", aws->session_name);
	}
	kt_buf_addc(out, '}');
}

static void add_base64(struct kt_buf *out, const struct kt_cert *cert)
{
	struct kt_view der = kt_pki_cert_der(cert);

	kt_base64_encode(out, der.ptr, der.len);
}

/* 20261123T070903Z */
static void format_moment(kt_ms now, char out[20])
{
	time_t seconds = (time_t)(now / KT_SECOND);
	struct tm tm;

	memset(&tm, 0, sizeof(tm));
	(void)gmtime_r(&seconds, &tm);
	(void)strftime(out, 20, "%Y%m%dT%H%M%SZ", &tm);
}

/* What one signature is about. */
struct signing {
	const struct kt_aws_issuer *aws;
	const struct kt_chain *chain;
	size_t more;     /* certificates sent beside the first one */
	char moment[20];
	char body_hash[KT_SHA256_HEX];
};

/* The certificates between ours and the trust anchor; a root that ends the chain is the anchor's own. */
static size_t count_more(const struct kt_chain *chain)
{
	size_t count = kt_pki_chain_count(chain);

	if (count > 1 && kt_pki_cert_self_issued(kt_pki_chain_at(chain, count - 1))) {
		count--;
	}
	return count - 1;
}

static enum kt_code signing_begin(struct signing *s, const struct kt_aws_issuer *aws, const struct kt_chain *chain, kt_ms now,
                                  struct kt_buf *body, struct kt_err *err)
{
	if (kt_pki_chain_count(chain) == 0) {
		return kt_err_set(err, KT_E_INVALID, "there is no certificate to sign with");
	}
	s->aws = aws;
	s->chain = chain;
	s->more = count_more(chain);
	if (s->more > CHAIN_MAX) {
		return kt_err_set(err, KT_E_LIMIT, "the chain has more than %u certificates", CHAIN_MAX + 1);
	}
	format_moment(now, s->moment);
	add_body(aws, body);
	if (kt_buf_check(body, "request", err) != KT_OK) {
		return err->code;
	}
	kt_sha256_hex(body->ptr, body->len, s->body_hash);
	return KT_OK;
}

static void add_x509(const struct signing *s, struct kt_buf *out)
{
	add_base64(out, kt_pki_chain_at(s->chain, 0));
}

static void add_x509_chain(const struct signing *s, struct kt_buf *out)
{
	size_t i;

	for (i = 1; i <= s->more; i++) {
		if (i > 1) {
			kt_buf_addc(out, ',');
		}
		add_base64(out, kt_pki_chain_at(s->chain, i));
	}
}

static const char *signed_headers(const struct signing *s)
{
	return s->more > 0 ? "content-type;host;x-amz-date;x-amz-x509;x-amz-x509-chain" : "content-type;host;x-amz-date;x-amz-x509";
}

static const char *algorithm(const struct signing *s)
{
	return kt_pki_cert_key_type(kt_pki_chain_at(s->chain, 0)) == KT_KEY_RSA ? "AWS4-X509-RSA-SHA256"
	                                                                      : "AWS4-X509-ECDSA-SHA256";
}

static void add_canonical(const struct signing *s, struct kt_buf *out)
{
	kt_buf_adds(out, "POST\n/sessions\n\ncontent-type:" CONTENT_TYPE "\nhost:");
	add_host(s->aws, out);
	kt_buf_addf(out, "\nx-amz-date:%s\nx-amz-x509:", s->moment);
	add_x509(s, out);
	if (s->more > 0) {
		kt_buf_adds(out, "\nx-amz-x509-chain:");
		add_x509_chain(s, out);
	}
	kt_buf_addf(out, "\n\n%s\n%s", signed_headers(s), s->body_hash);
}

static void add_scope(const struct signing *s, struct kt_buf *out)
{
	kt_buf_addf(out, "%.8s/%s/rolesanywhere/aws4_request", s->moment, s->aws->region);
}

static enum kt_code add_string_to_sign(const struct signing *s, struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf canonical KT_AUTOBUF = {0};
	char hash[KT_SHA256_HEX];

	kt_buf_init(&canonical, HEADERS_MAX);
	add_canonical(s, &canonical);
	if (kt_buf_check(&canonical, "canonical request", err) != KT_OK) {
		return err->code;
	}
	kt_sha256_hex(canonical.ptr, canonical.len, hash);
	kt_buf_addf(out, "%s\n%s\n", algorithm(s), s->moment);
	add_scope(s, out);
	kt_buf_addf(out, "\n%s", hash);
	return kt_buf_check(out, "string to sign", err);
}

enum kt_code kt_aws_string_to_sign(const struct kt_aws_issuer *aws, const struct kt_chain *chain, kt_ms now,
                                   struct kt_buf *out, struct kt_err *err)
{
	struct kt_buf body KT_AUTOBUF = {0};
	struct signing signing;

	kt_buf_init(&body, BODY_MAX);
	if (signing_begin(&signing, aws, chain, now, &body, err) != KT_OK) {
		return err->code;
	}
	return add_string_to_sign(&signing, out, err);
}

enum kt_code kt_aws_roles_anywhere(const struct kt_aws_issuer *aws, const struct kt_chain *chain, const struct kt_key *key,
                                   kt_ms now, struct kt_aws_request *ret, struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_buf signature KT_AUTOBUF = {0};
	struct signing signing;
	char serial[64];
	enum kt_code code = signing_begin(&signing, aws, chain, now, &ret->body, err);

	kt_buf_init(&text, HEADERS_MAX);
	kt_buf_init(&signature, 4096);
	if (code == KT_OK) {
		code = kt_aws_decimal(kt_pki_cert_serial(kt_pki_chain_at(chain, 0)), serial, err);
	}
	if (code == KT_OK) {
		code = add_string_to_sign(&signing, &text, err);
	}
	if (code == KT_OK) {
		code = kt_pki_sign_sha256(key, kt_buf_view(&text), &signature, err);
	}
	if (code != KT_OK) {
		return code;
	}
	kt_buf_adds(&ret->headers, "Content-Type: " CONTENT_TYPE "\n");
	kt_buf_adds(&ret->headers, "Host: ");
	add_host(aws, &ret->headers);
	kt_buf_addf(&ret->headers, "\nX-Amz-Date: %s\nX-Amz-X509: ", signing.moment);
	add_x509(&signing, &ret->headers);
	if (signing.more > 0) {
		kt_buf_adds(&ret->headers, "\nX-Amz-X509-Chain: ");
		add_x509_chain(&signing, &ret->headers);
	}
	kt_buf_addf(&ret->headers, "\nAuthorization: %s Credential=%s/", algorithm(&signing), serial);
	add_scope(&signing, &ret->headers);
	kt_buf_addf(&ret->headers, ", SignedHeaders=%s, Signature=", signed_headers(&signing));
	kt_hex_encode(&ret->headers, signature.ptr, signature.len);
	kt_buf_addc(&ret->headers, '\n');
	return kt_buf_check(&ret->headers, "headers", err);
}
