/* Manifests: YAML or JSON in, typed resources out; every complaint has file, line, path and a fix. */
#ifndef KT_MANIFEST_H
#define KT_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "kt/buf.h"
#include "kt/err.h"
#include "kt/manifest_types.h"

/* Limits. A document past one of them is an error with file and line. */
#define KT_MANIFEST_FILE_MAX  ((size_t)64 << 20) /* bytes of one file */
#define KT_MANIFEST_TOTAL_MAX ((size_t)1 << 30)  /* bytes of one load */
#define KT_MANIFEST_DOC_MAX   ((size_t)1 << 20)  /* bytes of one document */
#define KT_MANIFEST_DEPTH_MAX 32u
#define KT_MANIFEST_NODES_MAX 100000u /* nodes of one document (a long kind: List) */
#define KT_MANIFEST_NAMES_MAX 1000u   /* dnsNames, uris, … of one Certificate; items of any other list: 1,000 too */

/* --- kinds ------------------------------------------------------------------------------------------------------ */

const char *kt_kind_name(enum kt_kind kind);        /* "Certificate"; "?" for none */
const char *kt_kind_api_version(enum kt_kind kind); /* "cert-manager.io/v1"; "" for none */
enum kt_kind kt_kind_from_name(const char *name);   /* exact, or any case ("certificate"); KT_RES_NONE when unknown */
/* False for ClusterIssuer and Agent. */
bool kt_kind_namespaced(enum kt_kind kind);

/* --- complaints ----------------------------------------------------------------------------------------------------
 */

enum kt_severity { KT_COMPLAINT_ERROR = 0, KT_COMPLAINT_WARNING };

#define KT_REPORT_MAX 100u

struct kt_complaint {
	enum kt_severity severity;
	uint32_t line;    /* 0: the file as a whole */
	const char *file; /* never NULL */
	const char *text; /* "spec.renewBefore (720h) must be shorter than spec.duration (24h)" */
};

/* Complaints in the order found; at most KT_REPORT_MAX errors and as many warnings are kept, the rest is counted. */
struct kt_report {
	struct kt_complaint *items;
	uint32_t count;
	uint32_t errors;   /* found, also those not kept */
	uint32_t warnings; /* found, also those not kept */
	bool nomem;        /* a complaint was lost for lack of memory: treat as failed */
};

void kt_report_init(struct kt_report *report);
void kt_report_finish(struct kt_report *report);
/* Adds "file:line: text". Control characters are escaped, the text is cut at 1 KiB. */
void kt_report_add(struct kt_report *report, enum kt_severity severity, const char *file, uint32_t line,
		   const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* One line a complaint, "file:line: text" (warnings: "file:line: warning: text"), and what was left out. */
void kt_report_format(const struct kt_report *report, bool with_warnings, struct kt_buf *out);
/* KT_OK when there is no error; else KT_E_INVALID (or KT_E_NOMEM) with the first complaint and the number of others. */
enum kt_code kt_report_check(const struct kt_report *report, struct kt_err *err);

/* --- reading
 * ---------------------------------------------------------------------------------------------------------- */

/*
 * Takes one good resource; owns it from here (kt_resource_destroy), also when it returns an error, which ends the
 * reading. While it runs, kt_resource_line answers for the fields of the resource.
 */
typedef enum kt_code kt_manifest_fn(void *arg, struct kt_resource *resource, struct kt_err *err);

/*
 * Reads all documents of one file (YAML, JSON, kind: List). Wrong documents go into the report, good ones to
 * on_resource, in order. Never crashes, never blocks, takes bounded memory for any bytes. Pure, but for time zones,
 * which are looked up in zoneinfo; the checks that look at this machine are in kt_manifest_check_host. KT_OK even when
 * there are complaints; otherwise KT_E_NOMEM or what the callback returned.
 */
enum kt_code kt_manifest_read(struct kt_view text, const char *file, kt_manifest_fn *on_resource, void *arg,
			      struct kt_report *report, struct kt_err *err);

/* The line of a field as written ("spec.dnsNames[2]"), or of the nearest parent that is there. */
uint32_t kt_resource_line(const struct kt_resource *resource, const char *path);

/*
 * The checks that need this machine: hook executables exist, are executable, and neither they nor a folder above them
 * can be written by others than root or uid. Complaints go into the report. Call inside the callback for exact lines.
 */
void kt_manifest_check_host(const struct kt_resource *resource, uid_t uid, struct kt_report *report);

/* --- files and the bundle
 * ------------------------------------------------------------------------------------------------ */

/*
 * A bundle is the bytes of all manifest files in one piece, for handing from room to room:
 * "KTB1", then for each file: u32 length of the path, u32 length of the content (little endian), path, content.
 */
void kt_bundle_begin(struct kt_buf *bundle);
void kt_bundle_add(struct kt_buf *bundle, const char *path, struct kt_view content);
/* One entry after another: *offset starts at 0. KT_OK, KT_E_NOTFOUND at the end, KT_E_CORRUPT. Views are borrowed;
 * path is NUL-terminated in the bundle (the NUL is not counted). */
enum kt_code kt_bundle_next(struct kt_view bundle, size_t *offset, struct kt_view *ret_path,
			    struct kt_view *ret_content, struct kt_err *err);

struct kt_load_options {
	bool check_trust;   /* refuse files that others than root or uid may write, and folders above them */
	uid_t uid;          /* the agent's user */
	bool in_pod;        /* ... but a read-only mount (a ConfigMap) may have any mode */
	bool missing_is_ok; /* a path that does not exist is an empty folder (the default /etc/keyturn) */
};

/*
 * Puts every manifest file of the paths into the bundle (initialised by the caller with its maximum): files as named,
 * of folders the *.yaml, *.yml and *.json in order of their names, one level deep, no dot files. Files that can't be
 * read or trusted are complaints; KT_OK even so.
 */
enum kt_code kt_manifest_load_paths(const char *const *paths, size_t count, const struct kt_load_options *options,
				    struct kt_buf *bundle, struct kt_report *report, struct kt_err *err);

/* What is said, and to be done, where nothing at all was found in them: KT_E_INVALID, "no manifests in DIR: ...". */
enum kt_code kt_manifest_none(const char *const *paths, size_t count, struct kt_err *err);

/* kt_manifest_read for every file of a bundle, with kt_set's checks of the whole. set may be NULL. */
struct kt_set;
enum kt_code kt_manifest_read_bundle(struct kt_view bundle, struct kt_set *set, kt_manifest_fn *on_resource, void *arg,
				     struct kt_report *report, struct kt_err *err);

/* --- the whole set
 * ----------------------------------------------------------------------------------------------------------- */

/*
 * Checks across resources: duplicates, one owner per secretName, dangling references (with the nearest name), Consumers
 * that contradict each other. Keeps names only (about 100 bytes a resource).
 */
enum kt_code kt_set_create(struct kt_set **ret, struct kt_err *err);
void kt_set_destroy(struct kt_set *set); /* NULL is accepted */
/* Tells of a Secret that exists outside the manifests (store, mounted folder, systemd credential). */
enum kt_code kt_set_know_secret(struct kt_set *set, const char *ns, const char *name, struct kt_err *err);
/*
 * Asked by kt_set_check, at most once and only where a Secret is missing otherwise: tells of those that there are
 * (kt_set_know_secret). NULL, or (the callee's) why it can't be known: the warning says that.
 */
typedef const char *kt_set_look_fn(struct kt_set *set, void *arg);
void kt_set_look_with(struct kt_set *set, kt_set_look_fn *look, void *arg);
/* Inside the callback of kt_manifest_read, for exact lines. */
enum kt_code kt_set_add(struct kt_set *set, const struct kt_resource *resource, struct kt_report *report,
			struct kt_err *err);
/* After the last one: what only the whole shows. A secret that nobody provides is a warning (it may come later). */
enum kt_code kt_set_check(struct kt_set *set, struct kt_report *report, struct kt_err *err);
uint32_t kt_set_count(const struct kt_set *set, enum kt_kind kind); /* KT_RES_NONE: all */

/* --- stored form
 * --------------------------------------------------------------------------------------------------------------- */

/*
 * {"metadata":{…},"spec":{…}} with sorted keys, defaults not written: equal resources give equal bytes. Appends to out.
 * For a Secret only the names of its keys are written, never a value.
 */
enum kt_code kt_resource_to_json(const struct kt_resource *resource, struct kt_buf *out, struct kt_err *err);
/* The inverse, for JSON that kt_resource_to_json wrote (other JSON: KT_E_CORRUPT). KT_E_UNSUPPORTED for a Secret. */
enum kt_code kt_resource_from_json(enum kt_kind kind, struct kt_view json, struct kt_resource **ret,
				   struct kt_err *err);
/* A resource with all defaults and the given name: for settings where no Agent is given. */
enum kt_code kt_resource_default(enum kt_kind kind, const char *ns, const char *name, struct kt_resource **ret,
				 struct kt_err *err);

/*
 * A canonical text of exactly the fields that make a new credential necessary when they change: for a Certificate
 * names, subject, duration, usages, isCA, issuerRef, key algorithm and size and so on, not renewBefore, rotationPolicy,
 * encoding, revisionHistoryLimit, outputs or keystores. The same for a Token. Appends to out; compare a hash of it.
 */
void kt_certificate_request_key(const struct kt_certificate_spec *certificate, struct kt_buf *out);
void kt_token_request_key(const struct kt_token_spec *token, struct kt_buf *out);
/* Of a ClientCredential: where its clients are registered, and which they are. */
void kt_client_request_key(const struct kt_client_credential_spec *client, struct kt_buf *out);

/* --- helpers on typed resources
 * --------------------------------------------------------------------------------------------------- */

/* The challenges that solvers answer, as bits. */
enum kt_challenge {
	KT_CHALLENGE_HTTP01 = 1,
	KT_CHALLENGE_TLS_ALPN01 = 2,
	KT_CHALLENGE_DNS01 = 4,
	KT_CHALLENGE_DNS_PERSIST01 = 8,
	KT_CHALLENGE_ALL = 15
};
const char *kt_challenge_name(unsigned challenge);   /* "http-01"; "" for none */
unsigned kt_challenge_from_name(const char *name);   /* 0: one that we do not know */
unsigned kt_acme_challenge(const struct kt_acme_solver *solver);
/* Those that can prove a name: a wildcard needs the DNS (RFC 8555 section 7.1.3), an address can't use it (RFC 8738). */
unsigned kt_acme_challenges_for(const char *name);
/* As kt_acme_solver_for, among the solvers of these challenges only. name: a DNS name, with "*." of a wildcard, or an IP. */
int kt_acme_solver_among(const struct kt_acme *acme, const struct kt_pairs *labels, const char *name, unsigned challenges);
/* A warning for each name of a Certificate that no solver of its ACME issuer can prove. */
void kt_acme_check_names(const struct kt_resource *certificate, const struct kt_resource *issuer,
			 struct kt_report *report);
/* Where the solver for a DNS name stands in spec.acme.solvers (cert-manager's order: most specific selector), or -1. */
int kt_acme_solver_for(const struct kt_acme *acme, const struct kt_pairs *labels, const char *dns_name);

/* The wire form of enums, as Kubernetes writes them. Never NULL. */
const char *kt_keyalg_name(enum kt_keyalg alg);
const char *kt_audience_param_name(enum kt_audience_param param);
const char *kt_auth_method_name(enum kt_auth_method method);
const char *kt_token_alg_name(enum kt_token_alg alg);
const char *kt_assertion_alg_name(enum kt_assertion_alg alg); /* NULL for DEFAULT */
const char *kt_oauth2_profile_name(enum kt_oauth2_profile profile);

#endif
