/* The typed form of every kind of manifest: plain structs that one arena owns, decoded by the field tables. */
#ifndef KT_MANIFEST_TYPES_H
#define KT_MANIFEST_TYPES_H

#include "kt/manifest_consumer.h"
#include "kt/manifest_parts.h"
#include "kt/manifest_token.h"

/* --- Certificate ---------------------------------------------------------------------------------------------- */

enum kt_keyalg { KT_KEYALG_RSA = 0, KT_KEYALG_ECDSA, KT_KEYALG_ED25519 };
enum kt_keyenc { KT_KEYENC_PKCS1 = 0, KT_KEYENC_PKCS8 };
enum kt_rotation { KT_ROTATION_ALWAYS = 0, KT_ROTATION_NEVER };
enum kt_sigalg {
	KT_SIGALG_DEFAULT = 0,
	KT_SIGALG_RSA_SHA256,
	KT_SIGALG_RSA_SHA384,
	KT_SIGALG_RSA_SHA512,
	KT_SIGALG_ECDSA_SHA256,
	KT_SIGALG_ECDSA_SHA384,
	KT_SIGALG_ECDSA_SHA512,
	KT_SIGALG_ED25519
};
enum kt_renewal_policy { KT_RENEWAL_RENEW_BEFORE = 0, KT_RENEWAL_DISABLED };
enum kt_output_format { KT_OUTPUT_COMBINED_PEM = 0, KT_OUTPUT_DER };
enum kt_keystore_profile {
	KT_KEYSTORE_LEGACY_RC2 = 0,
	KT_KEYSTORE_LEGACY_DES,
	KT_KEYSTORE_MODERN2023,
	KT_KEYSTORE_MODERN2026
};

/*
 * spec.usages as bits, the same as KT_USAGE_... of pki.h. "signing" is another name of "digital signature" and "s/mime"
 * of "email protection", as in cert-manager. Bits below KT_CERT_ANY are keyUsage, the rest extendedKeyUsage.
 */
enum kt_cert_usage {
	KT_CERT_DIGITAL_SIGNATURE = 1 << 0,
	KT_CERT_CONTENT_COMMITMENT = 1 << 1,
	KT_CERT_KEY_ENCIPHERMENT = 1 << 2,
	KT_CERT_DATA_ENCIPHERMENT = 1 << 3,
	KT_CERT_KEY_AGREEMENT = 1 << 4,
	KT_CERT_CERT_SIGN = 1 << 5,
	KT_CERT_CRL_SIGN = 1 << 6,
	KT_CERT_ENCIPHER_ONLY = 1 << 7,
	KT_CERT_DECIPHER_ONLY = 1 << 8,
	KT_CERT_ANY = 1 << 9,
	KT_CERT_SERVER_AUTH = 1 << 10,
	KT_CERT_CLIENT_AUTH = 1 << 11,
	KT_CERT_CODE_SIGNING = 1 << 12,
	KT_CERT_EMAIL_PROTECTION = 1 << 13,
	KT_CERT_IPSEC_END_SYSTEM = 1 << 14,
	KT_CERT_IPSEC_TUNNEL = 1 << 15,
	KT_CERT_IPSEC_USER = 1 << 16,
	KT_CERT_TIMESTAMPING = 1 << 17,
	KT_CERT_OCSP_SIGNING = 1 << 18,
	KT_CERT_MICROSOFT_SGC = 1 << 19,
	KT_CERT_NETSCAPE_SGC = 1 << 20
};

struct kt_subject {
	struct kt_strings organizations;
	struct kt_strings countries;
	struct kt_strings organizational_units;
	struct kt_strings localities;
	struct kt_strings provinces;
	struct kt_strings street_addresses;
	struct kt_strings postal_codes;
	const char *serial_number;
};

struct kt_other_name {
	const char *oid; /* dotted decimal */
	const char *utf8_value;
};

struct kt_other_names {
	struct kt_other_name *items;
	uint32_t count;
};

struct kt_name_set {
	struct kt_strings dns_domains;
	struct kt_strings ip_ranges; /* CIDR */
	struct kt_strings email_addresses;
	struct kt_strings uri_domains;
};

struct kt_name_constraints {
	bool critical;
	struct kt_name_set permitted;
	struct kt_name_set excluded;
};

struct kt_private_key {
	enum kt_keyalg algorithm;
	enum kt_keyenc encoding; /* always PKCS8 for Ed25519 */
	enum kt_rotation rotation_policy;
	int64_t size; /* bits, never 0 except for Ed25519: 2048 (RSA) or 256 (ECDSA) when absent */
};

struct kt_pkcs12 {
	bool create;
	struct kt_secret_ref *password_ref; /* one of these two is set when create is */
	const char *password;
	enum kt_keystore_profile profile;
};

struct kt_jks {
	bool create;
	const char *alias;                  /* printable ASCII; "certificate" when absent */
	struct kt_secret_ref *password_ref; /* one of these two is set when create is */
	const char *password;
};

struct kt_keystores {
	struct kt_pkcs12 *pkcs12;
	struct kt_jks *jks;
};

struct kt_output_formats {
	struct kt_additional_output {
		enum kt_output_format type;
	} * items;
	uint32_t count;
};

struct kt_renewal {
	enum kt_renewal_policy policy;
	struct kt_windows windows;
};

struct kt_secret_template {
	struct kt_pairs annotations;
	struct kt_pairs labels;
};

struct kt_certificate_spec {
	const char *secret_name;
	struct kt_secret_template secret_template;
	struct kt_issuer_ref issuer_ref;
	const char *common_name;
	const char *literal_subject; /* RFC 4514; excludes common_name and subject */
	struct kt_subject subject;
	struct kt_strings dns_names;
	struct kt_strings ip_addresses;
	struct kt_strings uris;
	struct kt_strings email_addresses;
	struct kt_other_names other_names;
	kt_ms duration;                  /* 90 days when absent */
	kt_ms renew_before;              /* 0: not given (a third of the life, then) */
	int64_t renew_before_percentage; /* 0: not given; renews with so many per cent of the life left */
	struct kt_renewal renewal;
	struct kt_private_key private_key;
	bool must_staple;                /* annotation keyturn.dev/must-staple: "true" (RFC 7633) */
	enum kt_sigalg signature_algorithm; /* of the request and, for a CA issuer, never of the CA's signature */
	uint32_t usages;               /* enum kt_cert_usage bits; digital signature + key encipherment when absent */
	bool encode_usages_in_request; /* true when absent */
	bool is_ca;
	struct kt_name_constraints *name_constraints;
	struct kt_keystores keystores;
	struct kt_output_formats additional_output_formats;
	int64_t revision_history_limit; /* 1 when absent */
};

/* --- Issuer, ClusterIssuer ------------------------------------------------------------------------------------- */

/* In a cluster an ingress answers http-01; here our own listener (or a webroot) does, so the names are only kept. */
struct kt_http01_ingress {
	const char *class_name;
	const char *ingress_class_name;
	const char *service_type;
};

struct kt_http01_solver {
	struct kt_http01_ingress *ingress;
};

/* --- dns-01: one provider a solver ------------------------------------------------------------------------------ */

struct kt_dns_acme_dns {
	const char *host;              /* URL of the acme-dns server */
	struct kt_secret_ref account;  /* JSON {"name": {username, password, fulldomain, subdomain}}; key default acmedns.json */
};

struct kt_dns_cloudflare {
	const char *email;
	struct kt_secret_ref api_key;   /* with email; name NULL: not given */
	struct kt_secret_ref api_token; /* name NULL: not given */
	const char *api_url;            /* keyturn's own; NULL: Cloudflare's */
};

struct kt_dns_digitalocean {
	struct kt_secret_ref token; /* key default access-token */
	const char *api_url;        /* keyturn's own; NULL: DigitalOcean's */
};

enum kt_dns_protocol { KT_DNS_UDP = 0, KT_DNS_TCP };

struct kt_dns_rfc2136 {
	const char *nameserver; /* "host:port", "host", "[v6]:port" */
	enum kt_dns_protocol protocol;
	const char *tsig_algorithm; /* "HMACMD5", "HMACSHA1", "HMACSHA256" (default), "HMACSHA512" */
	const char *tsig_key_name;
	struct kt_secret_ref tsig_secret; /* base64, as in a key file; name NULL: updates are not signed */
};

struct kt_dns_route53 {
	const char *region;
	const char *access_key_id;
	struct kt_secret_ref access_key_id_ref; /* name NULL: not given */
	struct kt_secret_ref secret_access_key;
	const char *hosted_zone_id;
	const char *api_url; /* keyturn's own; NULL: Amazon's */
};

/* How an exec solver is called: docs/exec-solver.md. */
enum kt_dns_convention { KT_DNS_CONV_KEYTURN = 0, KT_DNS_CONV_CERTBOT, KT_DNS_CONV_DEHYDRATED, KT_DNS_CONV_LEGO };

/* keyturn's own: a program that writes and removes the record; it runs in the warden. */
struct kt_dns_exec {
	enum kt_dns_convention convention;
	struct kt_exec exec;            /* argv is what adds; also what removes where cleanup_argv is empty */
	struct kt_strings cleanup_argv; /* with convention Certbot: the clean-up hook */
};

enum kt_cname_strategy { KT_CNAME_NONE = 0, KT_CNAME_FOLLOW };

/* Exactly one provider is set. */
struct kt_dns01_solver {
	enum kt_cname_strategy cname_strategy;
	struct kt_dns_acme_dns *acme_dns;
	struct kt_dns_cloudflare *cloudflare;
	struct kt_dns_digitalocean *digitalocean;
	struct kt_dns_rfc2136 *rfc2136;
	struct kt_dns_route53 *route53;
	struct kt_dns_exec *exec;
};

/* keyturn's own: tls-alpn-01 (RFC 8737) by the desk's listener `tlsAlpn01`. */
struct kt_tls_alpn01_solver {
	const char *listener; /* "tlsAlpn01": only there so that the object has a member */
};

/* keyturn's own: dns-persist-01; the record is published once by hand (`keyturn dns-record`), here it is only read. */
struct kt_dns_persist01_solver {
	const char *issuer_domain; /* NULL: the first that the CA names */
};

/* Exactly one challenge is set. */
struct kt_acme_solver {
	struct kt_dns01_solver *dns01;
	struct kt_dns_persist01_solver *dns_persist01;
	struct kt_http01_solver *http01;
	struct kt_tls_alpn01_solver *tls_alpn01;
	struct kt_solver_selector {
		struct kt_pairs match_labels; /* of the Certificate */
		struct kt_strings dns_names;
		struct kt_strings dns_zones;
	} selector; /* empty: every name */
};

struct kt_acme_solvers {
	struct kt_acme_solver *items;
	uint32_t count;
};

enum kt_eab_alg { KT_EAB_HS256 = 0, KT_EAB_HS384, KT_EAB_HS512 };

/* External account binding, RFC 8555 section 7.3.4. */
struct kt_acme_eab {
	const char *key_id;
	struct kt_secret_ref key; /* base64url of the MAC key */
	enum kt_eab_alg alg;
};

/* What a CA allows, by the manifest: keyturn.dev/rate-limits. */
enum kt_rate_kind {
	KT_RATE_ORDERS,       /* of an account */
	KT_RATE_CERTIFICATES, /* for a registered domain */
	KT_RATE_DUPLICATES,   /* for an exact set of names */
	KT_RATE_FAILURES,     /* of validations, for a name */
	KT_RATE_ACCOUNTS,     /* new ones from an address */
	KT_RATE_COUNT
};
struct kt_rate {
	uint32_t limit; /* 0: as published */
	kt_ms window;
};
struct kt_rates {
	bool none; /* nothing of what is published counts */
	struct kt_rate of[KT_RATE_COUNT];
};

struct kt_acme {
	const char *server; /* URL of the directory */
	const char *email;
	struct kt_secret_ref private_key_ref; /* where the account key is kept; key default tls.key */
	bool disable_account_key_generation;
	bool enable_duration_feature;
	struct kt_bytes ca_bundle; /* PEM */
	bool skip_tls_verify;      /* only with a server on loopback */
	struct kt_acme_eab *eab;   /* NULL: none */
	const char *preferred_chain; /* CN of the chain's topmost issuer; NULL: what the CA gives first */
	const char *profile;         /* NULL: none asked for */
	struct kt_acme_solvers solvers;
	/* annotations, so that the manifest stays one that a cluster takes */
	const char *webroot;                /* keyturn.dev/http01-webroot; NULL: our own listener answers */
	const char *staging_server;         /* keyturn.dev/staging-server: retries are tried there first; NULL: none */
	struct kt_strings fallback;         /* keyturn.dev/fallback-issuers, in order: "Issuer/name", "ClusterIssuer/name" */
	bool fallback_unchecked;            /* keyturn.dev/fallback-trust: Unchecked */
	bool renewal_info_disabled;         /* keyturn.dev/renewal-info: Disabled */
	struct kt_rates rates;              /* keyturn.dev/rate-limits */
};

struct kt_ca_issuer {
	const char *secret_name; /* holds tls.crt and tls.key */
	struct kt_strings crl_distribution_points;
	struct kt_strings ocsp_servers;
	struct kt_strings issuing_certificate_urls;
};

struct kt_self_signed {
	struct kt_strings crl_distribution_points;
};

/* Exactly one of these is set. */
struct kt_issuer_spec {
	struct kt_acme *acme;
	struct kt_ca_issuer *ca;
	struct kt_self_signed *self_signed;
};

/* --- Secret (v1): for development ------------------------------------------------------------------------------- */

struct kt_secret_item {
	const char *key;
	struct kt_bytes value; /* secret: copy it into a struct kt_secret, never into a log, error or JSON */
};

struct kt_secret_items {
	struct kt_secret_item *items;
	uint32_t count;
};

struct kt_secret_spec {
	const char *type;            /* "Opaque" when absent */
	struct kt_secret_items data; /* stringData and data merged (stringData wins), in order of the keys */
};

/* --- Agent: the settings -------------------------------------------------------------------------------------------
 */

/* /quit for whoever has the token; both or none. */
struct kt_control_listener {
	const char *address;
	const char *token_file;
};

/* "host:port", ":port" or "unix:/path"; NULL: not listened on. */
struct kt_listeners {
	const char *http01;
	const char *jwks;
	const char *metrics;
	const char *tls_alpn01;
	const char *probes;
	struct kt_control_listener control;
	const char *tokens;       /* "unix:/path" only; mode 0666: who asks is known by its credentials */
	const char *aws;          /* "127.0.0.1:port" or another loopback address */
	const char *socket_group; /* of the others that are local sockets: mode 0660; NULL: 0600 */
};

/* At most one is set; none: a file "master.key" in the state directory, made on first run. */
struct kt_master_key {
	const char *file;
	struct kt_strings command; /* argv; prints the key on stdout */
	const char *credential;    /* name of a systemd credential */
};

/* Users of the rooms when started as root; NULL: keyturn-keeper and so on where they exist, else one for all. */
struct kt_rooms {
	const char *keeper;
	const char *courier;
	const char *desk;
};

struct kt_limits {
	int64_t flights;    /* credentials in work at once; 64 when absent */
	int64_t per_issuer; /* orders or token requests at once at one issuer; 8 when absent */
	int64_t hooks;      /* hooks running at once; 4 when absent */
};

/* How dns-01 records are looked at before the CA is told; names as cert-manager's controller has them. */
struct kt_dns_settings {
	struct kt_strings recursive_nameservers; /* "host:port"; those of resolv.conf when empty */
	bool recursive_nameservers_only;         /* do not ask the authoritative servers */
	kt_ms propagation_timeout;               /* 2 min when absent */
};

enum kt_audit_anchor { KT_ANCHOR_NONE = 0, KT_ANCHOR_SYSLOG, KT_ANCHOR_FILE };

struct kt_audit_settings {
	enum kt_audit_anchor anchor;
	const char *file; /* with anchor File */
	kt_ms retention;  /* older records may go; 0: kept for ever */
};

struct kt_control {
	const char *socket; /* path; NULL: the --socket default */
	const char *group;  /* its members may command, besides root and the agent's user */
};

struct kt_agent_spec {
	const char *secrets_dir; /* NULL: the --secrets-dir default */
	const char *state_dir;   /* NULL: the --state-dir default */
	bool allow_persistent;   /* secretsDir may lie on a disk */
	bool allow_shared;       /* secretsDir and stateDir may be mount points that others may write to: a pod's emptyDir */
	const char *secrets_group; /* group of what is delivered; NULL: the agent's own */
	int64_t secrets_mode;      /* of files with keys and tokens; KT_FILE_MODE_UNSET: 0640 with secretsGroup, else 0600 */
	struct kt_listeners listeners;
	struct kt_master_key master_key;
	struct kt_rooms users;
	struct kt_limits limits;
	struct kt_audit_settings audit;
	struct kt_control control;
	struct kt_dns_settings dns01;
};

/* --- one resource
 * ----------------------------------------------------------------------------------------------------- */

struct kt_arena;
struct kt_node;

/* Made by kt_manifest_read or kt_resource_from_json; freed with everything below it by kt_resource_destroy. */
struct kt_resource {
	enum kt_kind kind;
	uint32_t line;    /* where its document starts, from 1; 0: not from a file */
	const char *file; /* NULL: not from a file */
	struct kt_meta meta;
	union {
		struct kt_issuer_spec issuer; /* Issuer and ClusterIssuer */
		struct kt_certificate_spec certificate;
		struct kt_secret_spec secret;
		struct kt_token_issuer_spec token_issuer;
		struct kt_token_spec token;
		struct kt_consumer_spec consumer;
		struct kt_agent_spec agent;
		struct kt_watch_spec watch;
		struct kt_client_credential_spec client;
	};
	struct kt_arena *arena;     /* private */
	const struct kt_node *tree; /* private; only during the callback of kt_manifest_read */
};

void kt_resource_destroy(struct kt_resource *resource); /* NULL is accepted */

#endif
