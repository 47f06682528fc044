/* The field table of Certificate, every field of the CRD in it, and the checks across its fields. */
#include <string.h>

#include "manifest/rows.h"

#define DURATION_MIN (5 * KT_SECOND)
#define DURATION_MAX (36525 * KT_DAY) /* a hundred years */

typedef struct kt_certificate_spec cert;

static const struct kt_enum_name algorithms[] = {
	{"RSA", KT_KEYALG_RSA}, {"ECDSA", KT_KEYALG_ECDSA}, {"Ed25519", KT_KEYALG_ED25519}, {NULL, 0}};
static const struct kt_enum_name encodings[] = {{"PKCS1", KT_KEYENC_PKCS1}, {"PKCS8", KT_KEYENC_PKCS8}, {NULL, 0}};
static const struct kt_enum_name rotations[] = {
	{"Always", KT_ROTATION_ALWAYS}, {"Never", KT_ROTATION_NEVER}, {NULL, 0}};
static const struct kt_enum_name signatures[] = {
	{"SHA256WithRSA", KT_SIGALG_RSA_SHA256},     {"SHA384WithRSA", KT_SIGALG_RSA_SHA384},
	{"SHA512WithRSA", KT_SIGALG_RSA_SHA512},     {"ECDSAWithSHA256", KT_SIGALG_ECDSA_SHA256},
	{"ECDSAWithSHA384", KT_SIGALG_ECDSA_SHA384}, {"ECDSAWithSHA512", KT_SIGALG_ECDSA_SHA512},
	{"PureEd25519", KT_SIGALG_ED25519},          {NULL, 0}};
static const struct kt_enum_name policies[] = {
	{"RenewBefore", KT_RENEWAL_RENEW_BEFORE}, {"Disabled", KT_RENEWAL_DISABLED}, {NULL, 0}};
static const struct kt_enum_name formats[] = {
	{"CombinedPEM", KT_OUTPUT_COMBINED_PEM}, {"DER", KT_OUTPUT_DER}, {NULL, 0}};
static const struct kt_enum_name profiles[] = {{"LegacyRC2", KT_KEYSTORE_LEGACY_RC2},
					       {"LegacyDES", KT_KEYSTORE_LEGACY_DES},
					       {"Modern2023", KT_KEYSTORE_MODERN2023},
					       {"Modern2026", KT_KEYSTORE_MODERN2026},
					       {NULL, 0}};
static const struct kt_enum_name issuer_kinds[] = {
	{"Issuer", KT_RES_ISSUER}, {"ClusterIssuer", KT_RES_CLUSTER_ISSUER}, {NULL, 0}};
static const struct kt_enum_name usages[] = {{"digital signature", KT_CERT_DIGITAL_SIGNATURE},
					     {"signing", KT_CERT_DIGITAL_SIGNATURE},
					     {"content commitment", KT_CERT_CONTENT_COMMITMENT},
					     {"key encipherment", KT_CERT_KEY_ENCIPHERMENT},
					     {"key agreement", KT_CERT_KEY_AGREEMENT},
					     {"data encipherment", KT_CERT_DATA_ENCIPHERMENT},
					     {"cert sign", KT_CERT_CERT_SIGN},
					     {"crl sign", KT_CERT_CRL_SIGN},
					     {"encipher only", KT_CERT_ENCIPHER_ONLY},
					     {"decipher only", KT_CERT_DECIPHER_ONLY},
					     {"any", KT_CERT_ANY},
					     {"server auth", KT_CERT_SERVER_AUTH},
					     {"client auth", KT_CERT_CLIENT_AUTH},
					     {"code signing", KT_CERT_CODE_SIGNING},
					     {"email protection", KT_CERT_EMAIL_PROTECTION},
					     {"s/mime", KT_CERT_EMAIL_PROTECTION},
					     {"ipsec end system", KT_CERT_IPSEC_END_SYSTEM},
					     {"ipsec tunnel", KT_CERT_IPSEC_TUNNEL},
					     {"ipsec user", KT_CERT_IPSEC_USER},
					     {"timestamping", KT_CERT_TIMESTAMPING},
					     {"ocsp signing", KT_CERT_OCSP_SIGNING},
					     {"microsoft sgc", KT_CERT_MICROSOFT_SGC},
					     {"netscape sgc", KT_CERT_NETSCAPE_SGC},
					     {NULL, 0}};

const char *kt_keyalg_name(enum kt_keyalg alg)
{
	return kt_enum_text(algorithms, (int)alg);
}

/* --- parts ---------------------------------------------------------------------------------------------------------
 */

static const struct kt_field output_rows[] = {
	ROW("type", KT_F_ENUM, struct kt_additional_output, type, REQUIRED, .names = formats,
	    DOC "CombinedPEM writes tls-combined.pem (key, then chain), DER writes key.der."),
};
static const struct kt_table output_table =
	TABLE("AdditionalOutputFormat", struct kt_additional_output, output_rows, .doc = "A further file in the set.");

static const struct kt_field issuer_ref_rows[] = {
	ROW("group", KT_F_STRING, struct kt_issuer_ref, group, .def_text = "cert-manager.io",
	    DOC "Only cert-manager.io: issuers of other groups need their controller."),
	ROW("kind", KT_F_ENUM, struct kt_issuer_ref, kind, .def = KT_RES_ISSUER, .names = issuer_kinds,
	    DOC "Kind of the issuer."),
	ROW("name", KT_F_STRING, struct kt_issuer_ref, name, REQUIRED, .check = kt_value_name,
	    DOC "Name of the issuer, in the namespace of the Certificate."),
};

static void check_issuer_ref(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_issuer_ref *ref = object;

	if (strcmp(ref->group, "cert-manager.io") != 0)
		kt_complain(
			d, node, "group",
			"(%.128s) is not offered: issuers of other groups need their controller; use cert-manager.io",
			ref->group);
}

static const struct kt_table issuer_ref_table =
	TABLE("IssuerRef", struct kt_issuer_ref, issuer_ref_rows, .check = check_issuer_ref, .doc = "Which issuer.");

SECRET_REF_TABLE(password_ref_table, "password");

static void check_password(struct kt_decoder *d, const struct kt_node *node, bool create, const char *password,
			   const struct kt_secret_ref *ref)
{
	if (password && ref)
		kt_complain(d, node, "password", "excludes passwordSecretRef; keep one of them");
	else if (create && !password && !ref)
		kt_complain(d, node, "", "must have passwordSecretRef or password when create is true");
}

static const char *check_alias(const char *text)
{
	for (const char *c = text; *c; c++) {
		if (*c < ' ' || *c > '~')
			return "must be printable ASCII: Java finds no other alias for certain";
	}
	return NULL;
}

static const struct kt_field jks_rows[] = {
	ROW("alias", KT_F_STRING, struct kt_jks, alias, .def_text = "certificate", .max = 250, .check = check_alias,
	    DOC "Alias of the key's entry; stored in small letters, as Java looks it up."),
	ROW("create", KT_F_BOOL, struct kt_jks, create, REQUIRED,
	    DOC "Whether to write keystore.jks and, where there is a CA, truststore.jks."),
	ROW("password", KT_F_STRING, struct kt_jks, password, .flags = KT_F_QUIET, .max = 1024,
	    DOC "Password in plain sight, for readers that want one of no worth; excludes passwordSecretRef."),
	ROW("passwordSecretRef", KT_F_OBJECT, struct kt_jks, password_ref, OF(password_ref_table),
	    DOC "Where the password of store and key is kept; key `password` when absent."),
};

static void check_jks(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_jks *jks = object;

	check_password(d, node, jks->create, jks->password, jks->password_ref);
}

static const struct kt_table jks_table =
	TABLE("JKS", struct kt_jks, jks_rows, .check = check_jks, .doc = "A JKS key store in the set.");

static const struct kt_field pkcs12_rows[] = {
	ROW("create", KT_F_BOOL, struct kt_pkcs12, create, REQUIRED,
	    DOC "Whether to write keystore.p12 and, where there is a CA, truststore.p12."),
	ROW("password", KT_F_STRING, struct kt_pkcs12, password, .flags = KT_F_QUIET, .max = 1024,
	    DOC "Password in plain sight, for readers that want one of no worth; excludes passwordSecretRef."),
	ROW("passwordSecretRef", KT_F_OBJECT, struct kt_pkcs12, password_ref, OF(password_ref_table),
	    DOC "Where the password is kept; key `password` when absent."),
	ROW("profile", KT_F_ENUM, struct kt_pkcs12, profile, .def = KT_KEYSTORE_LEGACY_RC2, .names = profiles,
	    DOC "Algorithms: LegacyRC2 and LegacyDES for old readers, Modern2023 (AES-256, PBKDF2), Modern2026."),
};

static void check_pkcs12(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_pkcs12 *p12 = object;

	check_password(d, node, p12->create, p12->password, p12->password_ref);
}

static const struct kt_table pkcs12_table =
	TABLE("PKCS12", struct kt_pkcs12, pkcs12_rows, .check = check_pkcs12, .doc = "A PKCS#12 key store in the set.");

static const struct kt_field keystores_rows[] = {
	ROW("jks", KT_F_OBJECT, struct kt_keystores, jks, OF(jks_table),
	    DOC "JKS key store, for Java programs that read nothing else."),
	ROW("pkcs12", KT_F_OBJECT, struct kt_keystores, pkcs12, OF(pkcs12_table), DOC "PKCS#12 key store."),
};
static const struct kt_table keystores_table =
	TABLE("Keystores", struct kt_keystores, keystores_rows, .doc = "Key stores beside the PEM files.");

static const struct kt_field name_set_rows[] = {
	ROW("dnsDomains", KT_F_STRINGS, struct kt_name_set, dns_domains, .check = kt_value_dns_domain,
	    DOC "DNS domains."),
	ROW("emailAddresses", KT_F_STRINGS, struct kt_name_set, email_addresses, .check = kt_value_printable,
	    DOC "Mail addresses, or domains of them."),
	ROW("ipRanges", KT_F_STRINGS, struct kt_name_set, ip_ranges, .check = kt_value_cidr,
	    DOC "Address ranges (CIDR)."),
	ROW("uriDomains", KT_F_STRINGS, struct kt_name_set, uri_domains, .check = kt_value_dns_domain,
	    DOC "Host domains of URIs."),
};
static const struct kt_table name_set_table =
	TABLE("NameConstraintItem", struct kt_name_set, name_set_rows, .doc = "Names of a constraint.");

static const struct kt_field constraints_rows[] = {
	ROW("critical", KT_F_BOOL, struct kt_name_constraints, critical, DOC "Marks the extension critical."),
	ROW("excluded", KT_F_STRUCT, struct kt_name_constraints, excluded, .flags = KT_F_CHOICE, OF(name_set_table),
	    DOC "Names that the CA must not sign."),
	ROW("permitted", KT_F_STRUCT, struct kt_name_constraints, permitted, .flags = KT_F_CHOICE, OF(name_set_table),
	    DOC "Names that the CA may sign, and no others."),
};

static bool is_empty(const struct kt_name_set *set)
{
	return !set->dns_domains.count && !set->ip_ranges.count && !set->email_addresses.count &&
	       !set->uri_domains.count;
}

static void check_constraints(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_name_constraints *constraints = object;

	if (is_empty(&constraints->permitted) && is_empty(&constraints->excluded))
		kt_complain(d, node, "", "must name something under permitted or excluded");
}

static const struct kt_table constraints_table =
	TABLE("NameConstraints", struct kt_name_constraints, constraints_rows, .choice_min = 1, .choice_max = 2,
	      .check = check_constraints, .doc = "Limits of a CA certificate (RFC 5280 4.2.1.10).");

static const struct kt_field other_name_rows[] = {
	ROW("oid", KT_F_STRING, struct kt_other_name, oid, REQUIRED, .check = kt_value_oid, DOC "Type of the name."),
	ROW("utf8Value", KT_F_STRING, struct kt_other_name, utf8_value, REQUIRED, .check = kt_value_printable,
	    DOC "The name."),
};
static const struct kt_table other_name_table = TABLE("OtherName", struct kt_other_name, other_name_rows,
						      .doc = "A subject alternative name of type otherName.");

static const struct kt_field private_key_rows[] = {
	ROW("algorithm", KT_F_ENUM, struct kt_private_key, algorithm, .def = KT_KEYALG_RSA, .names = algorithms,
	    DOC "Algorithm of the key."),
	ROW("encoding", KT_F_ENUM, struct kt_private_key, encoding, .def = KT_KEYENC_PKCS1, .names = encodings,
	    DOC "Form of tls.key; Ed25519 is always PKCS8."),
	ROW("rotationPolicy", KT_F_ENUM, struct kt_private_key, rotation_policy, .def = KT_ROTATION_ALWAYS,
	    .names = rotations, DOC "Always makes a new key for each issue, Never keeps the key."),
	ROW("size", KT_F_INT, struct kt_private_key, size, .min = 0, .max = 8192,
	    DOC "Bits: RSA 2048 to 8192 (2048 when absent), ECDSA 256, 384 or 521 (256 when absent); not used for "
		"Ed25519."),
};

static void check_private_key(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_private_key *key = object;

	switch (key->algorithm) {
	case KT_KEYALG_RSA:
		key->size = key->size ? key->size : 2048;
		if (key->size < 2048 || key->size % 8)
			kt_complain(d, node, "size", "(%lld) must be from 2048 to 8192 for RSA, a multiple of 8",
				    (long long)key->size);
		break;
	case KT_KEYALG_ECDSA:
		key->size = key->size ? key->size : 256;
		if (key->size != 256 && key->size != 384 && key->size != 521)
			kt_complain(d, node, "size", "(%lld) must be 256, 384 or 521 for ECDSA", (long long)key->size);
		break;
	case KT_KEYALG_ED25519:
	default:
		key->size = 0;
		key->encoding = KT_KEYENC_PKCS8;
		break;
	}
}

static const struct kt_table private_key_table = TABLE("PrivateKey", struct kt_private_key, private_key_rows,
						       .check = check_private_key, .doc = "The private key.");

static const struct kt_field window_rows[] = {
	ROW("cron", KT_F_STRING, struct kt_window, cron, REQUIRED, .check = kt_value_cron,
	    DOC "When the window opens: minute, hour, day of the month, month, day of the week."),
	ROW("timezone", KT_F_STRING, struct kt_window, timezone, .def_text = "UTC", .check = kt_value_timezone,
	    DOC "IANA name of the time zone."),
	ROW("windowDuration", KT_F_DURATION, struct kt_window, window_duration, REQUIRED, .min = KT_MINUTE,
	    .max = 366 * KT_DAY, DOC "How long it stays open."),
};
const struct kt_table kt_table_window = TABLE("Window", struct kt_window, window_rows, .doc = "A maintenance window.");

static const struct kt_field renewal_rows[] = {
	ROW("policy", KT_F_ENUM, struct kt_renewal, policy, .def = KT_RENEWAL_RENEW_BEFORE, .names = policies,
	    DOC "Disabled: never renewed by time."),
	ROW("windows", KT_F_LIST, struct kt_renewal, windows, .max = 50, OF(kt_table_window),
	    DOC "Renewal by time happens only inside one of these windows, as long as the certificate lasts until the "
		"next one."),
};

static void check_renewal(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_renewal *renewal = object;

	if (renewal->policy == KT_RENEWAL_DISABLED && renewal->windows.count)
		kt_complain(d, node, "windows", "have no use with policy Disabled; remove one of the two");
}

static const struct kt_table renewal_table =
	TABLE("Renewal", struct kt_renewal, renewal_rows, .check = check_renewal, .doc = "When renewal may happen.");

static const struct kt_field template_rows[] = {
	ROW("annotations", KT_F_PAIRS, struct kt_secret_template, annotations, .check_key = kt_value_label_key,
	    .max = 256, DOC "Annotations for a Secret in a cluster; a volume has none, `keyturn status` shows them."),
	ROW("labels", KT_F_PAIRS, struct kt_secret_template, labels, .check_key = kt_value_label_key, .max = 256,
	    DOC "Labels for a Secret in a cluster; a volume has none, `keyturn status` shows them."),
};

static void check_template(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_secret_template *template = object;

	for (uint32_t i = 0; i < template->annotations.count; i++) {
		if (!strncmp(template->annotations.items[i].key, "cert-manager.io/", 16))
			kt_complain(d, node, "annotations",
				    "%s is not accepted: cert-manager.io/ is kept for the controller",
				    template->annotations.items[i].key);
	}
}

static const struct kt_table template_table =
	TABLE("SecretTemplate", struct kt_secret_template, template_rows, .check = check_template,
	      .doc = "Labels and annotations of the Secret.");

#define SUBJECT(N, M, C, TEXT) ROW(N, KT_F_STRINGS, struct kt_subject, M, .check = (C), .max = 20, DOC TEXT)
static const struct kt_field subject_rows[] = {
	SUBJECT("countries", countries, kt_value_country, "C: two letters."),
	SUBJECT("localities", localities, kt_value_printable, "L."),
	SUBJECT("organizationalUnits", organizational_units, kt_value_printable, "OU."),
	SUBJECT("organizations", organizations, kt_value_printable, "O."),
	SUBJECT("postalCodes", postal_codes, kt_value_printable, "Postal codes."),
	SUBJECT("provinces", provinces, kt_value_printable, "ST."),
	ROW("serialNumber", KT_F_STRING, struct kt_subject, serial_number, .check = kt_value_printable, .max = 64,
	    DOC "serialNumber attribute of the subject (not the certificate's serial)."),
	SUBJECT("streetAddresses", street_addresses, kt_value_printable, "STREET."),
};
static const struct kt_table subject_table =
	TABLE("Subject", struct kt_subject, subject_rows, .doc = "Parts of the subject besides CN.");

/* --- spec ------------------------------------------------------------------------------------------------------------
 */

static const struct kt_field spec_rows[] = {
	ROW("additionalOutputFormats", KT_F_LIST, cert, additional_output_formats, .max = 2, OF(output_table),
	    DOC "Further files in the set."),
	ROW("commonName", KT_F_STRING, cert, common_name, .check = kt_value_common_name,
	    DOC "CN of the subject, at most 64 bytes."),
	ROW("dnsNames", KT_F_STRINGS, cert, dns_names, .check = kt_value_dns_name, .max = KT_MANIFEST_NAMES_MAX,
	    DOC "DNS names; `*.` in front makes a wildcard."),
	ROW("duration", KT_F_DURATION, cert, duration, .def = 90 * KT_DAY, .min = DURATION_MIN, .max = DURATION_MAX,
	    DOC "Life asked for. Under 1h only here: a cluster refuses it."),
	ROW("emailAddresses", KT_F_STRINGS, cert, email_addresses, .check = kt_value_email,
	    .max = KT_MANIFEST_NAMES_MAX, DOC "Mail addresses."),
	ROW("encodeUsagesInRequest", KT_F_BOOL, cert, encode_usages_in_request, .def = 1,
	    DOC "Whether usages stand in the request too."),
	ROW("ipAddresses", KT_F_STRINGS, cert, ip_addresses, .check = kt_value_ip, .max = KT_MANIFEST_NAMES_MAX,
	    DOC "IP addresses."),
	ROW("isCA", KT_F_BOOL, cert, is_ca, DOC "A CA certificate; adds usage `cert sign`."),
	ROW("issuerRef", KT_F_STRUCT, cert, issuer_ref, REQUIRED, OF(issuer_ref_table), DOC "Which issuer."),
	ROW("keystores", KT_F_STRUCT, cert, keystores, OF(keystores_table), DOC "Key stores beside the PEM files."),
	ROW("literalSubject", KT_F_STRING, cert, literal_subject, .check = kt_value_printable, .max = 4096,
	    DOC "The subject as text (RFC 4514), such as `CN=web,O=Example`; excludes commonName and subject."),
	ROW("nameConstraints", KT_F_OBJECT, cert, name_constraints, OF(constraints_table),
	    DOC "Limits of a CA certificate."),
	ROW("otherNames", KT_F_LIST, cert, other_names, .max = 100, OF(other_name_table),
	    DOC "Names of type otherName."),
	ROW("privateKey", KT_F_STRUCT, cert, private_key, OF(private_key_table), DOC "The private key."),
	ROW("renewBefore", KT_F_DURATION, cert, renew_before, .min = KT_SECOND, .max = DURATION_MAX,
	    DOC "Renew so long before the end; when absent, or where the issuer gave a life that is not longer, at two thirds of "
		"the life, or at half of one under 10d (cert-manager: always at two thirds). Excludes renewBeforePercentage."),
	ROW("renewBeforePercentage", KT_F_INT, cert, renew_before_percentage, .min = 1, .max = 99,
	    DOC "Renew with so many per cent of the life left. Excludes renewBefore."),
	ROW("renewal", KT_F_STRUCT, cert, renewal, OF(renewal_table), DOC "When renewal may happen."),
	ROW("revisionHistoryLimit", KT_F_INT, cert, revision_history_limit, .def = 1, .min = 1, .max = 1000,
	    DOC "How many past issues `keyturn status` remembers."),
	ROW("secretName", KT_F_STRING, cert, secret_name, REQUIRED, .check = kt_value_name,
	    DOC "Name of the secret volume; one owner each."),
	ROW("secretTemplate", KT_F_STRUCT, cert, secret_template, OF(template_table),
	    DOC "Labels and annotations of the Secret."),
	ROW("signatureAlgorithm", KT_F_ENUM, cert, signature_algorithm, .def = KT_SIGALG_DEFAULT, .names = signatures,
	    DOC "Signature of the request; must fit the key. By the key when absent."),
	ROW("subject", KT_F_STRUCT, cert, subject, OF(subject_table), DOC "Parts of the subject besides CN."),
	ROW("uris", KT_F_STRINGS, cert, uris, .check = kt_value_uri, .max = KT_MANIFEST_NAMES_MAX,
	    DOC "URIs, SPIFFE IDs among them."),
	ROW("usages", KT_F_FLAGS, cert, usages, .def = KT_CERT_DIGITAL_SIGNATURE | KT_CERT_KEY_ENCIPHERMENT,
	    .names = usages, DOC "Key usages and extended key usages."),
};

static bool has_subject(const struct kt_subject *s)
{
	return s->organizations.count || s->countries.count || s->organizational_units.count || s->localities.count ||
	       s->provinces.count || s->street_addresses.count || s->postal_codes.count || s->serial_number;
}

static void check_names(struct kt_decoder *d, const struct kt_node *node, const cert *c)
{
	if (!c->common_name && !c->literal_subject && !c->dns_names.count && !c->uris.count && !c->ip_addresses.count &&
	    !c->email_addresses.count && !c->other_names.count)
		kt_complain(d, node, "",
			    "must name at least one of dnsNames, ipAddresses, uris, emailAddresses, otherNames, "
			    "commonName, literalSubject");
	if (c->literal_subject && (c->common_name || has_subject(&c->subject)))
		kt_complain(d, node, "literalSubject",
			    "excludes commonName and subject; keep one way to write the subject");
	if (c->literal_subject && !strchr(c->literal_subject, '='))
		kt_complain(d, node, "literalSubject", "(%.64s) is not a subject such as CN=web,O=Example",
			    c->literal_subject);
	if (c->name_constraints && !c->is_ca)
		kt_complain(d, node, "nameConstraints", "are for CA certificates only; set isCA: true or remove them");
}

static void check_times(struct kt_decoder *d, const struct kt_node *node, const cert *c)
{
	char a[32], b[32];
	const char *duration = kt_written(node, "duration", c->duration, a);
	const char *before = kt_written(node, "renewBefore", c->renew_before, b);

	if (c->renew_before && c->renew_before_percentage)
		kt_complain(d, node, "renewBeforePercentage", "excludes renewBefore; keep one of them");
	if (c->renew_before >= c->duration)
		kt_complain(d, node, "renewBefore", "(%s) must be shorter than spec.duration (%s)", before, duration);
	else if (c->renew_before && c->duration >= KT_HOUR && c->renew_before < 5 * KT_MINUTE)
		kt_complain(d, node, "renewBefore", "(%s) must be at least 5m", before);
	if (c->renew_before_percentage && c->duration >= KT_HOUR &&
	    c->duration / 100 * c->renew_before_percentage < 5 * KT_MINUTE)
		kt_complain(d, node, "renewBeforePercentage",
			    "(%lld) leaves less than 5m of spec.duration (%s) for renewing",
			    (long long)c->renew_before_percentage, duration);
	if (c->duration < KT_HOUR)
		kt_warn(d, node, "duration", "(%s) is shorter than 1h, which a cluster refuses", duration);
}

static void check_certificate(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	static const enum kt_keyalg needed[] = {
		[KT_SIGALG_RSA_SHA256] = KT_KEYALG_RSA,     [KT_SIGALG_RSA_SHA384] = KT_KEYALG_RSA,
		[KT_SIGALG_RSA_SHA512] = KT_KEYALG_RSA,     [KT_SIGALG_ECDSA_SHA256] = KT_KEYALG_ECDSA,
		[KT_SIGALG_ECDSA_SHA384] = KT_KEYALG_ECDSA, [KT_SIGALG_ECDSA_SHA512] = KT_KEYALG_ECDSA,
		[KT_SIGALG_ED25519] = KT_KEYALG_ED25519,
	};
	cert *c = object;

	if (!c->private_key.size && c->private_key.algorithm == KT_KEYALG_RSA)
		c->private_key.size = 2048; /* privateKey was left out */
	check_names(d, node, c);
	check_times(d, node, c);
	if (c->signature_algorithm && needed[c->signature_algorithm] != c->private_key.algorithm)
		kt_complain(d, node, "signatureAlgorithm",
			    "(%s) needs a key of algorithm %s, spec.privateKey.algorithm is %s",
			    kt_enum_text(signatures, (int)c->signature_algorithm),
			    kt_keyalg_name(needed[c->signature_algorithm]), kt_keyalg_name(c->private_key.algorithm));
}

static const struct kt_table spec_table =
	TABLE("CertificateSpec", cert, spec_rows, .check = check_certificate, .doc = "What is wanted.");

#define MUST_STAPLE "keyturn.dev/must-staple"

static void check_resource(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_resource *resource = object;
	const char *text = kt_pairs_get(&resource->meta.annotations, MUST_STAPLE);

	if (!text)
		return;
	resource->certificate.must_staple = !strcmp(text, "true");
	if (!resource->certificate.must_staple && strcmp(text, "false") != 0)
		kt_complain(d, node, "metadata.annotations", MUST_STAPLE " (%.64s) must be \"true\" or \"false\"", text);
}

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "cert-manager.io/v1"),
	FIXED("kind", "Certificate"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta),
	    DOC "Name and namespace. Annotation `" MUST_STAPLE ": \"true\"`: the TLS feature status_request is asked for "
		"(RFC 7633), where the CA still knows it."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, certificate, REQUIRED, OF(spec_table), DOC "What is wanted."),
	STATUS_ROW,
};

const struct kt_table kt_table_certificate =
	TABLE("Certificate", struct kt_resource, top_rows, .check = check_resource, .doc = "A certificate.");
