/* Manifests as the plan, pki and delivery want them: conversions without a decision in them. */
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/keeper.h"

static struct kt_cert_subtrees subtrees(const struct kt_name_set *names)
{
	return (struct kt_cert_subtrees){.dns = kt_spec_strs(&names->dns_domains),
	                                 .ips = kt_spec_strs(&names->ip_ranges),
	                                 .emails = kt_spec_strs(&names->email_addresses),
	                                 .uris = kt_spec_strs(&names->uri_domains)};
}

static size_t add_attrs(struct kt_cert_attr *attrs, size_t count, const char *type, const struct kt_strings *values)
{
	uint32_t i;

	for (i = 0; i < values->count; i++) {
		attrs[count++] = (struct kt_cert_attr){type, values->items[i]};
	}
	return count;
}

/* In the order of Go's pkix.Name, which cert-manager uses. */
static enum kt_code fill_subject(const struct kt_subject *subject, struct kt_spec_request *ret, struct kt_err *err)
{
	size_t room = (size_t)subject->countries.count + subject->organizations.count +
	              subject->organizational_units.count + subject->localities.count + subject->provinces.count +
	              subject->street_addresses.count + subject->postal_codes.count + 1;
	size_t n = 0;

	ret->attrs = kt_calloc(room, sizeof(*ret->attrs));
	if (ret->attrs == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for a subject");
	}
	n = add_attrs(ret->attrs, n, "C", &subject->countries);
	n = add_attrs(ret->attrs, n, "O", &subject->organizations);
	n = add_attrs(ret->attrs, n, "OU", &subject->organizational_units);
	n = add_attrs(ret->attrs, n, "L", &subject->localities);
	n = add_attrs(ret->attrs, n, "ST", &subject->provinces);
	n = add_attrs(ret->attrs, n, "STREET", &subject->street_addresses);
	n = add_attrs(ret->attrs, n, "POSTALCODE", &subject->postal_codes);
	if (subject->serial_number != NULL) {
		ret->attrs[n++] = (struct kt_cert_attr){"SERIALNUMBER", subject->serial_number};
	}
	ret->request.subject = ret->attrs;
	ret->request.subject_count = n;
	return KT_OK;
}

enum kt_code kt_spec_request_init(const struct kt_certificate_spec *spec, struct kt_spec_request *ret,
                                  struct kt_err *err)
{
	static const enum kt_signature signatures[] = {
	        [KT_SIGALG_DEFAULT] = KT_SIG_DEFAULT,          [KT_SIGALG_RSA_SHA256] = KT_SIG_SHA256_RSA,
	        [KT_SIGALG_RSA_SHA384] = KT_SIG_SHA384_RSA,    [KT_SIGALG_RSA_SHA512] = KT_SIG_SHA512_RSA,
	        [KT_SIGALG_ECDSA_SHA256] = KT_SIG_ECDSA_SHA256, [KT_SIGALG_ECDSA_SHA384] = KT_SIG_ECDSA_SHA384,
	        [KT_SIGALG_ECDSA_SHA512] = KT_SIG_ECDSA_SHA512, [KT_SIGALG_ED25519] = KT_SIG_ED25519};
	struct kt_cert_request *request = &ret->request;
	uint32_t i;

	memset(ret, 0, sizeof(*ret));
	request->literal_subject = spec->literal_subject;
	request->common_name = spec->common_name;
	request->dns_names = kt_spec_strs(&spec->dns_names);
	request->ip_addresses = kt_spec_strs(&spec->ip_addresses);
	request->uris = kt_spec_strs(&spec->uris);
	request->emails = kt_spec_strs(&spec->email_addresses);
	request->usages = spec->usages;
	request->is_ca = spec->is_ca;
	request->must_staple = spec->must_staple;
	request->signature = signatures[spec->signature_algorithm];
	if (spec->name_constraints != NULL) {
		request->permitted = subtrees(&spec->name_constraints->permitted);
		request->excluded = subtrees(&spec->name_constraints->excluded);
		request->constraints_critical = spec->name_constraints->critical;
	}
	if (spec->other_names.count > 0) {
		ret->others = kt_calloc(spec->other_names.count, sizeof(*ret->others));
		if (ret->others == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for names");
		}
		for (i = 0; i < spec->other_names.count; i++) {
			ret->others[i] = (struct kt_cert_other_name){spec->other_names.items[i].oid,
			                                             spec->other_names.items[i].utf8_value};
		}
		request->other_names = ret->others;
		request->other_name_count = spec->other_names.count;
	}
	return spec->literal_subject == NULL ? fill_subject(&spec->subject, ret, err) : KT_OK;
}

void kt_spec_request_finish(struct kt_spec_request *request)
{
	kt_free(request->attrs);
	kt_free(request->others);
	memset(request, 0, sizeof(*request));
}

static enum kt_code fill_windows(const struct kt_windows *windows, struct kt_spec_policy *ret, struct kt_err *err)
{
	uint32_t i;

	if (windows->count == 0) {
		return KT_OK;
	}
	ret->windows = kt_calloc(windows->count, sizeof(*ret->windows));
	ret->zones = kt_calloc(windows->count, sizeof(*ret->zones));
	if (ret->windows == NULL || ret->zones == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for windows");
	}
	ret->count = windows->count;
	for (i = 0; i < windows->count; i++) {
		const struct kt_window *asked = &windows->items[i];
		struct kt_plan_window *window = &ret->windows[i];
		const char *problem = kt_cron_parse(asked->cron, &window->cron);
		enum kt_code code;

		if (problem != NULL) {
			return kt_err_set(err, KT_E_INVALID, "cron expression \"%s\" %s", asked->cron, problem);
		}
		code = kt_zone_read(asked->timezone != NULL ? asked->timezone : "UTC", &ret->zones[i], err);
		if (code != KT_OK) {
			return code;
		}
		window->zone = ret->zones[i];
		window->duration = asked->window_duration;
	}
	ret->plan.windows = ret->windows;
	ret->plan.window_count = ret->count;
	return KT_OK;
}

enum kt_code kt_spec_policy_init(const struct kt_resource *spec, struct kt_spec_policy *ret, struct kt_err *err)
{
	memset(ret, 0, sizeof(*ret));
	if (spec->kind == KT_RES_TOKEN) {
		ret->plan.kind = KT_PLAN_TOKEN;
		ret->plan.renew_before = spec->token.renew_before;
		return KT_OK;
	}
	if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		ret->plan.kind = KT_PLAN_CLIENT;
		ret->plan.rotation_interval = spec->client.rotation_interval;
		if (spec->client.issuer.hosted != NULL && spec->client.private_key != NULL) {
			ret->plan.publish_ahead = spec->client.private_key->publish_ahead;
		}
		ret->plan.renewal_disabled = spec->client.issuer.fixed != NULL;
		return KT_OK;
	}
	if (spec->kind == KT_RES_CONSUMER) {
		return fill_windows(&spec->consumer.rollout.windows, ret, err);
	}
	ret->plan.kind = KT_PLAN_CERTIFICATE;
	if (spec->kind != KT_RES_CERTIFICATE) {
		return KT_OK;
	}
	ret->plan.renew_before = spec->certificate.renew_before;
	ret->plan.renew_before_percentage = (int)spec->certificate.renew_before_percentage;
	ret->plan.renewal_disabled = spec->certificate.renewal.policy == KT_RENEWAL_DISABLED;
	return fill_windows(&spec->certificate.renewal.windows, ret, err);
}

void kt_spec_policy_finish(struct kt_spec_policy *policy)
{
	size_t i;

	for (i = 0; i < policy->count; i++) {
		kt_zone_destroy(policy->zones[i]);
	}
	kt_free(policy->zones);
	kt_free(policy->windows);
	memset(policy, 0, sizeof(*policy));
}

enum kt_code kt_spec_request_key(const struct kt_resource *spec, char out[65], struct kt_err *err)
{
	struct kt_buf buf KT_AUTOBUF = {0};
	enum kt_code code;

	out[0] = '\0';
	kt_buf_init(&buf, KT_MANIFEST_DOC_MAX);
	if (spec->kind == KT_RES_CERTIFICATE) {
		kt_certificate_request_key(&spec->certificate, &buf);
	} else if (spec->kind == KT_RES_TOKEN) {
		kt_token_request_key(&spec->token, &buf);
	} else if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		kt_client_request_key(&spec->client, &buf);
	} else {
		return KT_OK;
	}
	code = kt_buf_check(&buf, "request key", err);
	if (code == KT_OK) {
		kt_sha256_hex(buf.ptr, buf.len, out);
	}
	return code;
}

bool kt_keeper_rotates(const char *kind)
{
	return strcmp(kind, "Certificate") == 0 || strcmp(kind, "Token") == 0 || strcmp(kind, "ClientCredential") == 0 ||
	       strcmp(kind, "Watch") == 0;
}

const char *kt_spec_secret_name(const struct kt_resource *spec)
{
	switch (spec->kind) {
	case KT_RES_CERTIFICATE:
		return spec->certificate.secret_name;
	case KT_RES_TOKEN:
		return spec->token.secret_name;
	case KT_RES_CLIENT_CREDENTIAL:
		return spec->client.secret_name;
	default:
		return NULL;
	}
}

kt_ms kt_spec_duration(const struct kt_resource *spec)
{
	if (spec->kind == KT_RES_CLIENT_CREDENTIAL) {
		return KT_TIME_MAX / 4; /* it has no end */
	}
	return spec->kind == KT_RES_CERTIFICATE ? spec->certificate.duration : spec->token.duration;
}
