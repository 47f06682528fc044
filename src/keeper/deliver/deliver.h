/* Delivery: secret volumes as the kubelet lays them out, the formats that go into them, webroot challenge files. */
#ifndef KEEPER_DELIVER_DELIVER_H
#define KEEPER_DELIVER_DELIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kt/buf.h"
#include "kt/clock.h"
#include "kt/err.h"
#include "kt/pki.h"
#include "kt/secret.h"

/*
 * A rotation of one volume, as the pipeline calls it (each call may be repeated after a kill -9 at any point, and
 * the result is the same; a failed call leaves the served generation as it was):
 *
 *   kt_volume_generation_name  -> commit the name (so that a resume knows what is its own)
 *   kt_volume_stage            -> commit "staged"    ..<name>/ is complete, owned, durable; nobody sees it yet
 *   kt_volume_switch           -> commit "switched"  new stable links, ..data_tmp, rename over ..data, old links away
 *   kt_volume_retire(previous) -> commit "retired"   once consumers are proved
 *
 * Rollback is kt_volume_switch to the older generation with files == NULL. At start kt_volume_cleanup removes what
 * no committed name keeps. On memory-backed file systems nothing is fsynced; on others: files, generation, links
 * before the flip, flip, parent.
 */

/* ---- volumes ------------------------------------------------------------------------------------------------- */

#define KT_GENERATION_MAX 40 /* bytes of a generation's name with its NUL: "..2026_11_23_07_09_03.123456789" */
#define KT_VOLUME_PATH_MAX 256 /* bytes of a file's path inside a volume, with its NUL */
#define KT_VOLUME_FILES_MAX 1024
#define KT_OWNER_KEEP ((uid_t)-1) /* for uid and gid: leave as created */

/* What a volume may be; the zero value is the strict default. */
struct kt_volume_policy {
	bool allow_persistent; /* the file system need not be memory-backed */
	bool allow_shared;     /* a mount point (a pod's emptyDir) may be writable by others, itself or above the directory */
	mode_t dir_mode;       /* of directories that are created (secretsDir, namespace, volume); 0: 0755 */
	mode_t generation_mode; /* of ..<generation> and folders inside; 0: 0750 */
	uid_t uid;             /* owner of the generation directory; KT_OWNER_KEEP: leave */
	gid_t gid;             /* group of it; KT_OWNER_KEEP: leave */
};
/* All defaults: strict, 0755, 0750, owner kept. */
#define KT_VOLUME_POLICY_DEFAULT ((struct kt_volume_policy){.uid = KT_OWNER_KEEP, .gid = (gid_t)KT_OWNER_KEEP})

/* One file of a set. path is relative, may have folders ("certs/tls.crt"), never "..", never begins with "..". */
struct kt_volume_file {
	const char *path;
	struct kt_view bytes; /* public bytes or kt_secret_view(): borrowed, and never copied by this module */
	mode_t mode;          /* 0: 0600 */
	uid_t uid;            /* KT_OWNER_KEEP: leave */
	gid_t gid;            /* KT_OWNER_KEEP: leave */
};

/* The secretsDir, held open for the life of the process. Opaque; create/destroy. */
struct kt_volume_root;

/*
 * Opens (creates) the secretsDir without following links. KT_E_POLICY: not memory-backed and not allowed, or others
 * may write to it or to a folder above. *ret is the caller's: kt_volume_root_destroy.
 */
enum kt_code kt_volume_root_create(const char *path, const struct kt_volume_policy *policy,
                                   struct kt_volume_root **ret, struct kt_err *err);
void kt_volume_root_destroy(struct kt_volume_root *root); /* NULL is accepted */
const char *kt_volume_root_path(const struct kt_volume_root *root);

/* One open volume. Embedded (init by open, kt_volume_close); fields are private. */
struct kt_volume {
	int fd;                  /* the volume's directory, -1 when closed */
	bool memory;             /* memory-backed: no fsync */
	bool fresh;              /* the directory was made by this open: nothing can be in it */
	struct kt_volume_policy policy;
	char name[512];          /* for errors: its path */
};

/*
 * Opens (creates) <secretsDir>/<secret_name>, or <secretsDir>/<ns>/<secret_name> when ns is neither NULL, "" nor
 * "default". Names are RFC 1123 subdomains. policy NULL: the root's. KT_E_POLICY: a link, a file or someone else's
 * directory is in the way. vol needs kt_volume_close whatever the outcome.
 */
enum kt_code kt_volume_open(struct kt_volume_root *root, const char *ns, const char *secret_name,
                            const struct kt_volume_policy *policy, struct kt_volume *vol, struct kt_err *err);
/* As above without creating: KT_E_NOTFOUND when the volume does not exist. */
enum kt_code kt_volume_open_existing(struct kt_volume_root *root, const char *ns, const char *secret_name,
                                     const struct kt_volume_policy *policy, struct kt_volume *vol,
                                     struct kt_err *err);
/* Opens (creates) a volume at an absolute path of its own: a Consumer's. */
enum kt_code kt_volume_open_path(const char *path, const struct kt_volume_policy *policy, struct kt_volume *vol,
                                 struct kt_err *err);
void kt_volume_close(struct kt_volume *vol); /* may be repeated; needs an opened or KT_VOLUME_CLOSED volume */
#define KT_VOLUME_CLOSED ((struct kt_volume){.fd = -1})
#define KT_AUTOVOLUME __attribute__((cleanup(kt_volume_close)))

/*
 * "..2026_11_23_07_09_03.123456789" for a wall time in ms; the six last digits come from the CSPRNG, so that two names of
 * one millisecond differ. Returns out.
 */
char *kt_volume_generation_name(kt_ms wall, char out[KT_GENERATION_MAX]);
/* True for a name of that form. */
bool kt_volume_generation_valid(const char *name);

/*
 * Writes a complete generation with final owners and modes; durable when it returns on a disk. If it exists and is
 * not served it is written anew; if it is served and equal: KT_OK, served and different: KT_E_EXISTS (stage under a
 * new name). On failure what was staged is removed and the volume is as before. KT_E_INVALID: a path or mode is not
 * acceptable; two files of one path; KT_E_SYS with sys_errno for the rest.
 */
enum kt_code kt_volume_stage(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                             size_t count, struct kt_err *err);

/*
 * Serves a staged generation: stable links for new names first, then one rename over ..data, then links of names that
 * are gone are removed. files may be NULL (count 0): the names are read from the generation (rollback). Bytes are not
 * looked at, only paths. ret_previous (or NULL) gets the generation served before, "" when none or the same.
 * KT_E_NOTFOUND: no such generation (stage again); KT_E_POLICY: something that is not ours lies where a link must be.
 * A failure before the rename leaves the old generation served; one after it (links, fsync) says so in err and is
 * mended by repeating the call.
 */
enum kt_code kt_volume_switch(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                              size_t count, char ret_previous[KT_GENERATION_MAX], struct kt_err *err);

/* The served generation's name. KT_E_NOTFOUND when none is served; KT_E_POLICY when ..data is not our link. */
enum kt_code kt_volume_current(const struct kt_volume *vol, char ret[KT_GENERATION_MAX], struct kt_err *err);
/* Whether a generation's directory exists (whole or not): what a rollback can go back to. */
bool kt_volume_has(const struct kt_volume *vol, const char *generation);

/* Removes an old generation. KT_OK when it is gone already; KT_E_BUSY when it is the served one. */
enum kt_code kt_volume_retire(struct kt_volume *vol, const char *generation, struct kt_err *err);

/* Takes everything back: ..data first, then the stable links, then all generations. For expired tokens. */
enum kt_code kt_volume_withdraw(struct kt_volume *vol, struct kt_err *err);

/*
 * At start: removes a stale ..data_tmp and every generation that is neither served nor among keep (names that the
 * state commits to). ret_removed may be NULL.
 */
enum kt_code kt_volume_cleanup(struct kt_volume *vol, const char *const *keep, size_t keep_count,
                               size_t *ret_removed, struct kt_err *err);

/* What of a served set is not as it should be. */
enum kt_drift {
	KT_DRIFT_NONE = 0,
	KT_DRIFT_GONE = 1,       /* no ..data, or its generation is missing */
	KT_DRIFT_GENERATION = 2, /* another generation is served than expected */
	KT_DRIFT_MISSING = 4,    /* a file is missing or is no plain file of its own (link, fifo, hard link) */
	KT_DRIFT_CONTENT = 8,    /* a file's size or bytes differ */
	KT_DRIFT_MODE = 16,      /* a mode differs (file or generation directory) */
	KT_DRIFT_OWNER = 32,     /* an owner or group differs */
	KT_DRIFT_LINK = 64,      /* a stable link is missing or points elsewhere */
	KT_DRIFT_TOUCHED = 128,  /* changed after it was staged, and no bytes were given to compare: check again, deep */
};
struct kt_drift_report {
	unsigned drift;                  /* bits of enum kt_drift */
	size_t first;                    /* index of the first drifted file, or count */
	char text[KT_VOLUME_PATH_MAX + 128]; /* one line: what was found; "" when nothing */
};

/*
 * Compares what is served with what should be. generation NULL: whichever is served. Cheap: stat only; a file's bytes
 * are read when it was changed after its generation was closed, or always with deep. Where bytes.ptr is NULL only a
 * bytes.len other than 0 counts (so a daily look needs no secret opened). Drift is not an error: KT_OK with
 * report->drift set.
 */
enum kt_code kt_volume_check(const struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                             size_t count, bool deep, struct kt_drift_report *report, struct kt_err *err);

/*
 * Mends drift (looks deep first): links in place, anything else by staging `generation` (a new name) and switching to
 * it. ret_served gets the name that is served afterwards. Does nothing where nothing drifted. The drifted generation
 * stays until kt_volume_retire or kt_volume_cleanup.
 */
enum kt_code kt_volume_heal(struct kt_volume *vol, const char *generation, const struct kt_volume_file *files,
                            size_t count, struct kt_drift_report *report, char ret_served[KT_GENERATION_MAX],
                            struct kt_err *err);

/* ---- formats: from material to files ------------------------------------------------------------------------- */

enum kt_material_kind { KT_MATERIAL_CERTIFICATE = 1, KT_MATERIAL_TOKEN = 2, KT_MATERIAL_CLIENT = 4, KT_MATERIAL_CLIENT_KEY = 8 };

/* What a credential consists of; everything is borrowed for the length of the call and of the set made from it. */
struct kt_material_view {
	enum kt_material_kind kind;
	/* certificate */
	struct kt_view chain_pem;         /* leaf first, then intermediates, no root */
	struct kt_view ca_pem;            /* ca.crt; may be empty */
	const struct kt_secret *key_pem;  /* in the encoding that the manifest asks for (PKCS1, PKCS8) */
	const char *pkcs12_alias;         /* friendly name; NULL: "certificate" */
	enum kt_p12_profile pkcs12_profile;
	const struct kt_secret *pkcs12_password;
	const char *jks_alias;            /* NULL: "certificate" */
	const struct kt_secret *jks_password;
	/* token */
	const struct kt_secret *token;
	const char *token_type;           /* "Bearer", "DPoP"; NULL or "": Bearer */
	kt_ms issued_at, expires_at;      /* wall */
	kt_ms now;                        /* for expires_in of the command's JSON; 0: left out, as in every file */
	const char *secret_name;          /* envoy, flex: what the resource is called */
	const char *scope;                /* space-separated, NULL or "" when none */
	const char *const *audiences;     /* audience_count entries */
	size_t audience_count;
	const char *issuer;               /* NULL: left out of token.json */
	const char *client_id;            /* NULL: left out of token.json */
	const char *aws_profile;          /* aws-credentials: the profile's name; NULL: "default" */
	/* client: id and secret */
	struct kt_view client, client_secret;
	const char *key_alg; /* client with a key: how it signs ("ES256"); client_secret is its kid */
};

/* A list of files with what they own. init/finish. */
struct kt_fileset_owned;
struct kt_fileset {
	struct kt_volume_file *files;
	size_t count;
	/* private */
	size_t cap;
	struct kt_fileset_owned *owned;
	size_t owned_count, owned_cap;
};
void kt_fileset_init(struct kt_fileset *set);
void kt_fileset_finish(struct kt_fileset *set); /* frees paths and wipes rendered bytes */
#define KT_AUTOFILESET __attribute__((cleanup(kt_fileset_finish)))

/* Adds a file; path is copied, bytes are borrowed. KT_E_EXISTS: the path is taken (two sources collide). */
enum kt_code kt_fileset_add(struct kt_fileset *set, const char *path, struct kt_view bytes, mode_t mode, uid_t uid,
                            gid_t gid, struct kt_err *err);
/* The file of that path, or NULL. */
const struct kt_volume_file *kt_fileset_find(const struct kt_fileset *set, const char *path);

/* Owner and modes for rendered files. mode_public/secret/bundle 0: 0644 for public files, 0600 for secret ones. */
struct kt_render_options {
	uid_t uid;
	gid_t gid;
	mode_t mode_public;
	mode_t mode_secret;
};
#define KT_RENDER_DEFAULT ((struct kt_render_options){.uid = KT_OWNER_KEEP, .gid = (gid_t)KT_OWNER_KEEP})

/* One delivery format: a line in the table of formats.c. A word may stand for several files ("PKCS12"). */
struct kt_format {
	const char *name;             /* the manifest's word ("CombinedPEM", "raw"); the file's name is taken as well */
	const char *file;             /* the file it makes */
	enum kt_material_kind kind;
	bool secret;                  /* holds a key or a token: 0600 */
	bool standard;                /* part of every certificate's set; of a token's where nothing is named */
	/*
	 * *ret_bytes: what the file holds. Borrowed from the material, or from *ret_owned, which the set then destroys.
	 * Empty bytes and KT_OK: there is no such file for this material.
	 */
	enum kt_code (*render)(const struct kt_material_view *material, struct kt_view *ret_bytes,
	                       struct kt_secret **ret_owned, struct kt_err *err);
};
#define KT_AWS_ENDPOINT_TOKEN 65u /* bytes with the NUL */
/* What who fetches this session at the listener "aws" has to know: it follows from the session, not the other way round. */
void kt_aws_endpoint_token(const struct kt_secret *session, char out[KT_AWS_ENDPOINT_TOKEN]);
/* All formats; the list ends with a name of NULL. */
extern const struct kt_format kt_formats[];
/* The first by name or file name; NULL when there is none. */
const struct kt_format *kt_format_find(enum kt_material_kind kind, const char *name);

/*
 * Renders one format into the set. KT_E_INVALID: the material lacks what it needs (a password, a key). An empty ca_pem
 * gives no ca.crt and is no error.
 */
enum kt_code kt_format_render(const struct kt_format *format, const struct kt_material_view *material,
                              const struct kt_render_options *options, struct kt_fileset *set, struct kt_err *err);
/*
 * Renders a whole set: the standard formats of the kind (certificate: tls.crt, tls.key, ca.crt; token: `token` where
 * names is empty) and those named (names: count format names; KT_E_INVALID names the nearest right one).
 */
enum kt_code kt_format_render_set(const struct kt_material_view *material, const char *const *names, size_t count,
                                  const struct kt_render_options *options, struct kt_fileset *set, struct kt_err *err);

/* ---- http-01 by webroot -------------------------------------------------------------------------------------- */

/*
 * Writes <webroot>/.well-known/acme-challenge/<token> (0644, folders made 0755) without following any link on the
 * way. The token must match ^[A-Za-z0-9_-]{16,256}$ (RFC 8555 section 8.3), else KT_E_PROTO.
 */
enum kt_code kt_challenge_write(const char *webroot, const char *token, struct kt_view key_authorization,
                                struct kt_err *err);
/* Removes it; KT_OK when it is gone already. Folders stay. */
enum kt_code kt_challenge_remove(const char *webroot, const char *token, struct kt_err *err);

#endif
