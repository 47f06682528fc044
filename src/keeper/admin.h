/* The admin protocol: what admin.c (sessions) and the commands share. */
#ifndef KEEPER_ADMIN_H
#define KEEPER_ADMIN_H

#include "kt/json.h"
#include "keeper/draft.h"
#include "keeper/keeper.h"

/*
 * JSON lines over a stream socket. The command sends one object {"command": NAME, …arguments}; the keeper answers with
 * any number of {"row": …} and {"event": …} lines and ends with {"status": exit status, "result": …} or
 * {"status": …, "error": {"code": …, "what": …}}. docs/internals/admin.md lists commands and arguments.
 */

#define KT_ADMIN_REQUEST_MAX (1024u * 1024u)
#define KT_ADMIN_OUT_MAX     (4u * 1024u * 1024u)
#define KT_ADMIN_PAGE        64u /* rows at once */
#define KT_ADMIN_OUT_FULL    (64u * 1024u) /* rows wait until what is queued is below this */

struct kt_admin_import;

struct kt_session {
	struct kt_session *next;
	struct kt_keeper *keeper;
	int fd;
	struct kt_watch *watch;
	struct kt_buf in;
	struct kt_buf out;
	size_t sent; /* of out */
	uint32_t uid, gid, pid;
	bool ended;  /* the last line is queued */
	bool broken; /* the other end is gone */
	bool unsaid; /* there was no memory for the last line */
	int status;
	json_t *request;
	int passed_fd; /* what came with the request: a bundle of manifests; -1: nothing */
	struct kt_draft *draft;
	struct kt_admin_import *import; /* admin_import.c */
	/* Set by a command that has more to say: called when there is room; clears itself when done. */
	void (*more)(struct kt_session *session);
	/* renew: called after every round. */
	void (*progress)(struct kt_session *session);
	bool follow; /* wants {"event": …} lines */
	bool every_step;
	bool seeded;

	/* paging */
	char after_ns[256], after_name[256], after_kind[32];
	int64_t after_id;
	uint64_t rows;
	size_t next_entry; /* of the draft */
	bool paged;        /* all credentials of the store are told */
	json_t *tally;     /* rehearse: issuances by issuer */
	json_t *soon;      /* status: what ends too soon, the first of them */
	uint64_t soon_count;

	/* audit */
	kt_ms since;
	bool follow_audit;  /* at the end it waits for more */
	int64_t audit_head; /* when the command came */

	/* renew */
	int64_t *ids;
	size_t id_count;
	kt_ms started, deadline;
	uint64_t good, failed, waiting, resting; /* of the good ones: for windows; with a new key that is shown already */
	int worst;
	bool delivered_only; /* proofs are not waited for and do not count */
	bool hurry;          /* windows of their consumers are not waited for */
	struct kt_timer *timer;
};

/* Adds a line made of `value` (its reference is taken). */
void kt_session_line(struct kt_session *session, json_t *value);
/* {"row": value}; takes the reference. */
void kt_session_row(struct kt_session *session, json_t *value);
/* Whether a command closes with what became of this credential: a failure need not stand in its output before that, too. */
bool kt_admin_will_report(const struct kt_keeper *keeper, int64_t id);
/* The last line. result may be NULL; its reference is taken. */
void kt_session_end(struct kt_session *session, int status, json_t *result);
void kt_session_fail(struct kt_session *session, const struct kt_err *err);
/* Writes what it can and watches for room where something is left, or `more` is set. */
void kt_session_flush(struct kt_session *session);
/* Pages through credentials: where the next page begins, and a row that was taken. */
void kt_session_page(struct kt_session *session, struct kt_store_page *page);
void kt_session_page_at(struct kt_session *session, const struct kt_store_resource *resource);
/* True while rows may be added. */
bool kt_session_room(const struct kt_session *session);
const char *kt_session_arg(const struct kt_session *session, const char *name);

/* Exit status of a failure (CONTRACT.md): 1 for good, 2 usage, 4 policy, 75 later. */
int kt_admin_status(enum kt_code code);
/* The worse of two exit statuses: 4, 1, 5, 75, others. */
int kt_admin_worse(int a, int b);

typedef void kt_command_fn(struct kt_session *session);
kt_command_fn kt_command_account, kt_command_revoke, kt_command_status, kt_command_plan, kt_command_why, kt_command_renew, kt_command_token,
        kt_command_secret_set, kt_command_secret_list, kt_command_secret_rm, kt_command_audit, kt_command_audit_verify,
        kt_command_master_key, kt_command_walls, kt_command_rehearse, kt_command_reload, kt_command_quit,
        kt_command_import;
kt_command_fn kt_command_dns_record, kt_command_invalidate;

struct kt_refusal;
/* A token was seen refused (refused.h), says who is at the other end. sha256: hex of that token; NULL or "": the newest. */
enum kt_code kt_admin_refused(struct kt_session *session, const char *name, const char *sha256, struct kt_refusal *ret,
                              struct kt_err *err);

/* What an import that is under way holds; NULL accepted. */
void kt_admin_import_destroy(struct kt_admin_import *import);

/* admin_http.c: whether a first line is one of HTTP; and the answer to such a request once all of its head is there. */
#define KT_ADMIN_HTTP_MAX 8192u
bool kt_admin_is_http(struct kt_view line);
void kt_admin_http(struct kt_session *session);

/* Finds "name", "ns/name" or "Kind/ns/name" among credentials. */
enum kt_code kt_admin_find(struct kt_keeper *keeper, const char *name, struct kt_store_resource *ret,
                           struct kt_err *err);
/* An Issuer or ClusterIssuer: "name", "ns/name", "Kind/name", "Kind/ns/name". */
enum kt_code kt_admin_find_issuer(struct kt_keeper *keeper, const char *text, struct kt_issuer_entry **ret,
                                  struct kt_err *err);
/* Credentials whose last try failed are tried at once: what was in their way may be gone. */
void kt_admin_retry_failed(struct kt_keeper *keeper);
/* One credential as JSON, with its chain from issuer to proof when `deep`. */
json_t *kt_admin_credential(struct kt_keeper *keeper, const struct kt_store_resource *resource,
                            const struct kt_store_cred *cred, bool deep);
json_t *kt_admin_time(kt_ms at); /* "2026-…Z" or null */
/* Counts for the end of status and plan; NULL without a store. */
json_t *kt_admin_summary(struct kt_session *session);

/* --- admin_plan.c: what would be done, with the manifests in force or with those that the command brought ------------ */

/* Parses the manifests that came with the request, if any did. */
enum kt_code kt_admin_draft(struct kt_session *session, struct kt_err *err);
/* The plan of one credential, as `plan` and `why` show it; cred NULL: it was never issued. NULL: it can't be decoded. */
json_t *kt_admin_plan_row(struct kt_session *session, const struct kt_store_resource *resource,
                          const struct kt_store_cred *cred);

#endif
