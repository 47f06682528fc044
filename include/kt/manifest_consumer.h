/* The typed form of Consumer and Watch: what takes credentials, and what has one of its own. */
#ifndef KT_MANIFEST_CONSUMER_H
#define KT_MANIFEST_CONSUMER_H

#include "kt/manifest_parts.h"

/* --- Consumer ---------------------------------------------------------------------------------------------------- */

#define KT_FILE_MODE_UNSET ((int64_t)-1)

struct kt_consumer_volume_item {
	const char *key;  /* file of the secret: tls.crt, token, header … */
	const char *path; /* relative, may have folders, no ".." */
	int64_t mode;     /* 0..0777, KT_FILE_MODE_UNSET: the volume's */
};

struct kt_consumer_volume_items {
	struct kt_consumer_volume_item *items;
	uint32_t count;
};

struct kt_consumer_volume_source {
	struct kt_consumer_volume_source_secret {
		const char *name; /* secretName of a Certificate or Token in the Consumer's namespace */
		struct kt_consumer_volume_items items; /* none: every file under its own name */
	} secret;
};

struct kt_consumer_volume_sources {
	struct kt_consumer_volume_source *items;
	uint32_t count;
};

struct kt_consumer_volume {
	const char *path;
	const char *owner; /* name or number; NULL: the agent's own */
	const char *group;
	int64_t default_mode; /* KT_FILE_MODE_UNSET: 0600 for keys and tokens, 0644 for the rest */
	bool allow_persistent;
	bool allow_shared; /* it may be a mount point that others may write to, as a pod's emptyDir is */
	struct kt_consumer_volume_sources sources;
};

struct kt_consumer_volumes {
	struct kt_consumer_volume *items;
	uint32_t count;
};

struct kt_validate {
	struct kt_exec *exec;
};

struct kt_validates {
	struct kt_validate *items;
	uint32_t count;
};

/* pidfd signal to one process, found by exactly one of pid_file, systemd_unit, process. */
struct kt_notify_signal {
	int signo; /* SIGHUP … */
	const char *pid_file;
	const char *systemd_unit; /* its main pid */
	struct kt_process_match {
		const char *executable; /* absolute path */
		const char *cgroup;     /* path below /sys/fs/cgroup; NULL: any */
	} * process;
};

enum kt_systemd_action { KT_SYSTEMD_RELOAD = 0, KT_SYSTEMD_RESTART, KT_SYSTEMD_RELOAD_OR_RESTART };

struct kt_notify_systemd {
	const char *unit;
	enum kt_systemd_action action;
	kt_ms timeout; /* 60 s when absent */
};

struct kt_notify_touch {
	const char *path;
};

struct kt_notify_http {
	const char *url;
	struct kt_bytes ca_bundle;
	kt_ms timeout; /* 10 s when absent */
};

/* Exactly one of these is set. */
struct kt_notify {
	struct kt_notify_signal *signal;
	struct kt_exec *exec;
	struct kt_notify_systemd *systemd;
	struct kt_notify_touch *touch;
	struct kt_notify_http *http;
};

struct kt_notifies {
	struct kt_notify *items;
	uint32_t count;
};

/* What is spoken before the handshake. */
enum kt_start_tls { KT_START_TLS_NONE = 0, KT_START_TLS_IMAP, KT_START_TLS_LDAP, KT_START_TLS_POSTGRES, KT_START_TLS_SMTP };
const char *kt_start_tls_name(enum kt_start_tls protocol); /* "smtp", ...; "" for none */

struct kt_prove_tls {
	const char *address;     /* host:port */
	const char *server_name; /* SNI; NULL: the host of address */
	enum kt_start_tls start_tls;
};

struct kt_observed_http {
	const char *url;
	const char *json_path; /* ".a.b[0]" */
	struct kt_bytes ca_bundle;
};

struct kt_observed_log {
	const char *path;
	const char *field; /* ".a.b": of a JSON line; a number: the n-th column, from 1 */
};

/* The consumer or its peer reports the fingerprint of what it uses. Exactly one is set. */
struct kt_observed {
	struct kt_observed_http *http;
	struct kt_observed_log *access_log;
};

struct kt_accepted_http {
	const char *url;
	int64_t expect_status;     /* 0 when absent: any 2xx */
	const char *header_name;   /* "Authorization" when absent */
	const char *header_prefix; /* "Bearer " when absent and header_name is Authorization, else "" */
	struct kt_bytes ca_bundle;
};

struct kt_accepted {
	struct kt_accepted_http *http;
};

/* What the target named so shows is proof enough: nobody else has to take it into use. */
struct kt_read_back {
	const char *name;
};

/* Exactly one of tls, observed, accepted, exec, read_back is set. */
struct kt_prove {
	const char *secret;
	struct kt_prove_tls *tls;
	struct kt_observed *observed;
	struct kt_accepted *accepted;
	struct kt_exec *exec;
	struct kt_read_back *read_back;
};

struct kt_proves {
	struct kt_prove *items;
	uint32_t count;
};

enum kt_store_type { KT_STORE_PEM = 0, KT_STORE_PKCS12, KT_STORE_JKS };
const char *kt_store_type_name(enum kt_store_type type); /* "PEM", "PKCS12", "JKS": as Anypoint writes them, too */

/* Where and as whom Anypoint Platform is asked. */
struct kt_anypoint_api {
	const char *host; /* host or host:port */
	struct kt_bytes ca_bundle;
	const char *organization; /* id */
	const char *name;         /* of what is replaced there */
	const char *token_ref;    /* secretName of the Token that may write there */
	kt_ms timeout;            /* of one request; 10 s when absent */
};

/* A keystore in a secret group of Anypoint's Secrets Manager; found by its name, made where it is not there. */
struct kt_anypoint_secret_group {
	struct kt_anypoint_api api;
	const char *environment, *secret_group; /* ids */
	enum kt_store_type type;
	const char *alias; /* of PKCS12 and JKS; NULL: "certificate" */
};

/* The keystore of a TLS context in a CloudHub 2.0 private space; the context is there already. */
struct kt_anypoint_private_space {
	struct kt_anypoint_api api;
	const char *private_space; /* id */
};

/* Where a set is uploaded to, before anybody is notified. Exactly one kind is set. */
struct kt_target {
	const char *secret;
	struct kt_anypoint_secret_group *secret_group;
	struct kt_anypoint_private_space *private_space;
};

struct kt_targets {
	struct kt_target *items;
	uint32_t count;
};

enum kt_on_failure { KT_ON_FAILURE_ROLLBACK = 0, KT_ON_FAILURE_KEEP };

struct kt_rollout {
	int64_t max_unavailable; /* 0: no limit */
	struct kt_windows windows; /* told only inside one of them; none: at any time */
};

/* Who may ask for tokens at the Agent's listener `tokens` instead of reading a file; known by the peer's credentials. */
struct kt_consumer_socket {
	struct kt_strings users;   /* names or numbers */
	struct kt_strings groups;  /* primary or supplementary */
	struct kt_strings secrets; /* which tokens; none: all that the Consumer uses */
};

struct kt_consumer_spec {
	struct kt_consumer_volumes volumes;
	struct kt_strings secrets; /* used where they lie in secretsDir, without a volume of its own */
	struct kt_consumer_socket *socket; /* NULL: nobody may ask */
	struct kt_validates validate;
	struct kt_targets targets;
	struct kt_notifies notify;
	struct kt_proves prove;
	kt_ms within; /* time to prove, from the notification; 30 s when absent */
	enum kt_on_failure on_failure;
	struct kt_rollout rollout;
};

/* --- Watch: a credential that something else issues -------------------------------------------------------------------
 */

enum kt_watch_format { KT_WATCH_PEM = 0, KT_WATCH_PKCS12, KT_WATCH_JKS };

struct kt_watch_file {
	const char *path;
	enum kt_watch_format format;
	const char *alias;                    /* NULL: the entry with a key, else the first */
	struct kt_secret_ref *password_ref;   /* NULL: PKCS12 without one; JKS is read without one anyway */
};

/* Exactly one is set. */
struct kt_watch_source {
	struct kt_watch_file *file;
	struct kt_prove_tls *tls;
};

/* What renews it. */
struct kt_watch_renew {
	struct kt_exec *exec;
};

struct kt_watch_prove {
	kt_ms within; /* time for the source to show a later certificate, from the end of the command; 30 s when absent */
};

struct kt_watch_spec {
	struct kt_watch_source source;
	kt_ms renew_before;              /* 0: not given */
	int64_t renew_before_percentage; /* 0: not given */
	struct kt_watch_renew *renew;    /* NULL: it is only warned about */
	struct kt_watch_prove prove;
	kt_ms warn_before; /* 0: not given */
};

const char *kt_watch_format_name(enum kt_watch_format format);

#endif
