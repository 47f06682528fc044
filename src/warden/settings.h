/* Inside the warden: one accepted set of manifests, as far as the warden needs it. */
#ifndef KT_WARDEN_SETTINGS_H
#define KT_WARDEN_SETTINGS_H

#include "kt/manifest.h"
#include "kt/msg.h"
#include "warden/hands/hands.h"
#include "warden/warden.h"

#define KT_HOOK_PHASES 4u

/* What a Consumer allows us to do, or a Watch, which has phase KT_HOOK_RENEW alone. */
struct kt_consumer_hands {
	bool is_watch;
	char *ns;
	char *name;
	struct kt_hand *hands[KT_HOOK_PHASES]; /* by enum kt_hook_phase; KT_HAND_NONE where it is not the warden's */
	unsigned count[KT_HOOK_PHASES];
};

/* A program among the solvers of an ACME issuer. */
struct kt_issuer_program {
	enum kt_kind kind;
	char *ns;
	char *name;
	uint32_t index; /* among all solvers of the issuer */
	struct kt_solve_program program;
};

struct kt_generation {
	uint32_t number;
	int bundle; /* sealed memfd with the bytes that both the keeper and we have parsed */
	struct kt_resource *agent;
	char group[16]; /* of secretsGroup, as a number */
	char *settings; /* agent as canonical JSON: {"metadata":…,"spec":…} */
	uint64_t paths; /* changes when the folders change that the keeper's Landlock has to let through */
	char *state_dir;
	char *secrets_dir;
	char *socket_path;
	struct kt_consumer_hands *consumers; /* sorted by kind, namespace and name */
	unsigned consumer_count;
	unsigned consumer_cap;
	struct kt_issuer_program *programs;
	unsigned program_count;
	unsigned program_cap;
	char **roots; /* the secret volumes: secrets_dir and each volume of a Consumer; NULL-terminated */
	unsigned root_count;
	unsigned root_cap;
};

/* Reads, checks and copies. Complaints go into report (never NULL); KT_E_INVALID when there is an error among them. */
enum kt_code kt_generation_load(const struct kt_warden_options *options, uint32_t number, struct kt_report *report,
                                struct kt_generation **ret, struct kt_err *err);
void kt_generation_destroy(struct kt_generation *generation); /* NULL accepted */

/* NULL when there is no such Consumer or hook. */
const struct kt_hand *kt_generation_hand(const struct kt_generation *generation, struct kt_view ns,
                                         struct kt_view name, uint32_t phase, uint32_t index);
/* NULL when that solver is none, or runs no program. */
const struct kt_solve_program *kt_generation_program(const struct kt_generation *generation, uint32_t kind,
                                                     struct kt_view ns, struct kt_view name, uint32_t index);

/* --- places.c: read before the rest ----------------------------------------------------------------------------- */

/* The folders and the socket: of the command line, kind Agent, or the usual ones. */
enum kt_code kt_generation_places(struct kt_generation *generation, const struct kt_warden_options *options, struct kt_err *err);
/* secretsGroup as a number: the rooms that get the settings can't look names up. */
enum kt_code kt_generation_group(struct kt_generation *generation, const struct kt_warden_options *options, struct kt_err *err);

#endif
