/* Moving in from other ACME clients: what the readers of their folders find, and what is made of it. */
#ifndef CLI_IMPORT_H
#define CLI_IMPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"
#include "kt/json.h"
#include "kt/secret.h"

/*
 * keyturn import CLIENT [DIR] goes through three hands:
 *
 *   a reader (import_<client>.c) walks the foreign folder and fills struct kt_import: accounts, certificates, and
 *   what can't be carried over. It reads files and parses them; nothing of them is ever executed or sourced.
 *   import_docs.c makes manifests of it (JSON documents first, each checked by the manifest parser, then YAML).
 *   import.c shows them, or writes them and hands the state (keys, chains, account URLs) to the keeper.
 *
 * Whoever wrote the foreign folder may have meant harm: every file has a maximum, every list too, links are followed
 * only beneath the folder, and text is only taken where it fits a field.
 */

#define KT_IMPORT_FILE_MAX     ((size_t)256 * 1024)
#define KT_IMPORT_NAMES_MAX    10000u /* entries of one folder */
#define KT_IMPORT_ACCOUNTS_MAX 64u
#define KT_IMPORT_CERTS_MAX    2000u
#define KT_IMPORT_LOST_MAX     2000u
#define KT_IMPORT_NO_ACCOUNT   SIZE_MAX

struct kt_import_account {
	char *server; /* URL of the directory */
	char *url;    /* of the account; NULL: not known, the CA tells by the key */
	char *email;  /* NULL: none */
	char *from;   /* file of the key, beneath the folder */
	struct kt_secret *key;
	bool jwk; /* the key is a JWK, not PEM */
};

struct kt_import_cert {
	char *name; /* as the client calls it: "example.com", "*.example.com" */
	char *from; /* file that its settings come from */
	size_t account;
	bool self_signed; /* no account: the client itself signs it with its own key */
	struct kt_secret *key;
	char *chain;  /* PEM, leaf first */
	json_t *acme; /* members of spec.acme beside server, email, key: "solvers", "profile", "preferredChain" */
	json_t *annotations;   /* of the issuer */
	const char *algorithm; /* what a renewal makes: "RSA", "ECDSA"; NULL: as the certificate has */
	unsigned size;
	bool keep_key; /* rotationPolicy Never */
	bool must_staple;
	kt_ms renew_before;     /* 0: not said */
	char *hook;             /* command line that is run after a renewal; NULL: none */
	const char *hook_field; /* what it is called: "renew_hook" */
};

struct kt_import {
	const char *client; /* "certbot" */
	const char *path;   /* of the folder, absolute */
	int dir;
	bool with_secrets;
	const char *server; /* --server: for clients that do not write it down; NULL: not given */
	const char *exec;   /* --exec: program of dns-01 in the client's convention; NULL */
	struct kt_import_account *accounts;
	size_t account_count;
	struct kt_import_cert *certs;
	size_t cert_count;
	json_t *secrets;    /* [{"name","key","value"}]: credentials of DNS providers, only with_secrets */
	json_t *lost;       /* [{"file","what","reason","instead"}] */
	json_t *notes;      /* [text]: what is to be done besides */
	uint64_t lost_more; /* beyond KT_IMPORT_LOST_MAX */
};

/* One client: a row of the table in import.c. */
struct kt_import_source {
	const char *name;
	const char *default_dir; /* "~/" stands for $HOME */
	/* Fills import; what is wrong with one file goes into import->lost. Errors: nothing can be read at all, no
	 * memory. */
	enum kt_code (*read)(struct kt_import *import, struct kt_err *err);
};
extern const struct kt_import_source kt_import_certbot, kt_import_lego, kt_import_acme_sh, kt_import_dehydrated,
	kt_import_certmonger;

/* --- import_read.c: files beneath the folder --------------------------------------------------------------- */

enum kt_code kt_import_open(struct kt_import *import, const char *path, struct kt_err *err);
void kt_import_finish(struct kt_import *import);

/* A regular file beneath the folder, at most KT_IMPORT_FILE_MAX; links are followed where they stay beneath it. Adds to
 * out. */
enum kt_code kt_import_file(const struct kt_import *import, const char *file, struct kt_buf *out, struct kt_err *err);
/* As that for a file that settings name by an absolute path: not followed when it is a link, unless beneath the folder.
 */
enum kt_code kt_import_elsewhere(const struct kt_import *import, const char *path, struct kt_buf *out,
				 struct kt_err *err);
/* Text of a file; NULL when it is not there or can't be read. kt_free it. */
char *kt_import_text(const struct kt_import *import, const char *file, struct kt_err *err);
enum kt_code kt_import_secret(const struct kt_import *import, const char *file, struct kt_secret **ret,
			      struct kt_err *err);
/* JSON object in a file. */
enum kt_code kt_import_json(const struct kt_import *import, const char *file, json_t **ret, struct kt_err *err);
/* Names in a folder, sorted, without those that begin with a dot; KT_E_NOTFOUND. *ret is an array of strings. */
enum kt_code kt_import_list(const struct kt_import *import, const char *folder, json_t **ret, struct kt_err *err);
bool kt_import_exists(const struct kt_import *import, const char *file);
/* A path of several parts, NULL-terminated; NULL without memory or when a part is none ("..", "a/b" is allowed). */
char *kt_import_path(const char *first, ...) __attribute__((sentinel));
/* Calls fn for each folder below `folder` (at most 8 deep) that holds `file`; path is relative to the folder of the
 * import. */
enum kt_code kt_import_find(struct kt_import *import, const char *folder, const char *file,
			    enum kt_code (*fn)(struct kt_import *import, const char *path, struct kt_err *err),
			    struct kt_err *err);

/* --- import_text.c: what settings are written in ----------------------------------------------------------- */

/*
 * configobj as certbot writes it: {"": {key: value}, "renewalparams": {…}, "webroot_map": {…}}; quotes around a value
 * are taken off. KT_E_LIMIT, KT_E_PROTO.
 */
enum kt_code kt_import_ini(struct kt_view text, json_t **ret, struct kt_err *err);
/*
 * Assignments of a shell script: {NAME: value}. What would need a shell to know (an expansion, a substitution) is null;
 * other lines are passed over. The last assignment wins.
 */
enum kt_code kt_import_shell(struct kt_view text, json_t **ret, struct kt_err *err);
/* key=value lines, the value as it stands; a line that begins with a space goes on with the value before. */
enum kt_code kt_import_pairs(struct kt_view text, json_t **ret, struct kt_err *err);
/* "a, b,c" into an array of strings, empty ones left out. */
json_t *kt_import_split(const char *text, const char *separators);
/*
 * A command line into argv, as far as it needs no shell: words, with simple quotes. The program is looked up in the
 * standard folders when it has no path. KT_E_UNSUPPORTED says why not. *ret is an array of strings.
 */
enum kt_code kt_import_argv(const char *line, json_t **ret, struct kt_err *err);
bool kt_import_true(const char *text); /* "True", "true", "yes", "1" */

/* --- import_cert.c: what a certificate says ---------------------------------------------------------------- */

struct kt_import_facts {
	json_t *dns, *ips; /* arrays of strings */
	json_t *others;    /* names that are neither: as text */
	char common_name[256];
	const char *algorithm; /* "RSA", "ECDSA", "Ed25519"; NULL: another */
	unsigned size;
	bool must_staple; /* RFC 7633 */
	bool is_ca;
};
/* Of the first certificate in PEM text: only to write a manifest; the keeper checks it with the library. */
enum kt_code kt_import_facts(struct kt_view pem, struct kt_import_facts *ret, struct kt_err *err);
void kt_import_facts_finish(struct kt_import_facts *facts);

/* --- import_model.c: filling the model --------------------------------------------------------------------- */

/* A new row, all zero, or NULL with an error. */
struct kt_import_account *kt_import_add_account(struct kt_import *import, struct kt_err *err);
struct kt_import_cert *kt_import_add_cert(struct kt_import *import, const char *name, const char *from,
					  struct kt_err *err);
/* Takes back the last certificate that was added. */
void kt_import_drop_cert(struct kt_import *import);
/* Something that is not carried over. instead: what to write, or "". */
void kt_import_lose(struct kt_import *import, const char *file, const char *what, const char *reason, const char *fmt,
		    ...) __attribute__((format(printf, 5, 6)));
void kt_import_note(struct kt_import *import, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A DNS provider's credential: taken along with --with-secrets, else a note says how to set it. value may be NULL
 * (unknown). */
void kt_import_credential(struct kt_import *import, const char *secret, const char *key, const char *value,
			  const char *file);
/* Key and chain of the certificate from files beneath the folder; false: lost, the row was taken back. */
bool kt_import_material(struct kt_import *import, struct kt_import_cert *cert, const char *key_file,
			const char *chain_file);
/* The account at this directory URL: the one with `hint` in its path where several are; KT_IMPORT_NO_ACCOUNT. */
size_t kt_import_account_for(const struct kt_import *import, const char *server, const char *hint);
/* The directory URL of a host that clients know by name ("acme-v02.api.letsencrypt.org"); NULL: not known. */
const char *kt_import_known_server(const char *host);

/* Solvers; each becomes an item of cert->acme.solvers. names: array of the names it is for; NULL: all. */
void kt_import_solve_http(struct kt_import_cert *cert, const char *webroot, json_t *names);
void kt_import_solve_alpn(struct kt_import_cert *cert);
/* dns01: {provider: config}; takes config. */
void kt_import_solve_dns(struct kt_import_cert *cert, const char *provider, json_t *config, bool follow);
/* convention: "Certbot", "Dehydrated", "Lego". argv: taken; cleanup may be NULL. */
void kt_import_solve_exec(struct kt_import_cert *cert, const char *convention, json_t *argv, json_t *cleanup);
void kt_import_acme_text(struct kt_import_cert *cert, const char *field, const char *value);

/* --- import_docs.c: manifests ------------------------------------------------------------------------------ */

struct kt_import_docs {
	char *yaml;       /* the whole file */
	json_t *accounts; /* [{"issuer","server","account": index}] */
	json_t *certs;    /* [{"namespace","name","cert": index}] */
	json_t *names;    /* ["Issuer/letsencrypt", …] what is in it */
};
/*
 * What is refused by the manifest parser goes into import->lost and is left out. ca_bundle: base64 of PEM, or NULL.
 * taken: names that other manifests have ("Issuer/letsencrypt", "Secret/web-tls"), or NULL; names of our own are added
 * to it.
 */
enum kt_code kt_import_documents(struct kt_import *import, const char *ns, const char *ca_bundle, json_t *taken,
				 struct kt_import_docs *ret, struct kt_err *err);
void kt_import_docs_finish(struct kt_import_docs *docs);

#endif
