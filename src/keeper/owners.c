/* Users and groups that manifests name, as the numbers that the warden knows them by. */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "keeper/keeper.h"

#define OWNER_PAUSE (10 * KT_SECOND) /* a name that nobody knows is not looked up again for so long */
#define AGAIN_PAUSE KT_SECOND        /* ... and one that could not be looked up */

struct kt_owner {
	struct kt_owner *next;
	bool known;
	bool asked;      /* by kt_owners_find: the warden has not answered yet */
	kt_ms failed_at; /* monotonic; when it was looked up in vain; 0: it was not */
	bool nobody;     /* ... as there is nobody of that name */
	uid_t uid;
	gid_t gid;
	char user[256];
	char group[256];
};

struct owner_call {
	struct kt_keeper *keeper;
	struct kt_owner *owner;
	int64_t flight; /* 0: none */
	void (*known)(struct kt_keeper *keeper);
};

static void on_owner(const struct kt_err *why, enum kt_msg_type type, void *msg, int *fds, unsigned fd_count, void *arg)
{
	struct owner_call *call = arg;
	struct kt_flight *flight = kt_rotate_find(call->keeper, call->flight);
	const struct kt_msg_owned *owned = msg;

	(void)fds;
	(void)fd_count;
	if (why->code == KT_OK && type == KT_OWNED) {
		call->owner->uid = owned->uid;
		call->owner->gid = owned->gid;
		call->owner->known = true;
	}
	if (flight != NULL && flight->waiting) {
		kt_rotate_wake(flight, why);
	}
	if (call->known != NULL) {
		call->owner->asked = false;
		call->owner->failed_at = call->owner->known ? 0 : kt_clock_mono(call->keeper->clock);
		call->owner->nobody = why->code == KT_E_NOTFOUND;
		call->known(call->keeper);
	}
	kt_free(call);
}

static enum kt_code ask_owner(struct kt_keeper *keeper, struct kt_owner *owner, int64_t flight,
                              void (*known)(struct kt_keeper *keeper), struct kt_err *err)
{
	struct kt_msg_owner msg = {kt_view_str(owner->user), kt_view_str(owner->group)};
	struct owner_call *call = kt_calloc(1, sizeof(*call));
	enum kt_code code;

	if (call == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an owner");
	}
	*call = (struct owner_call){keeper, owner, flight, known};
	code = kt_wire_call(keeper->ctx->warden, KT_OWNER, &msg, NULL, 0, 10 * KT_SECOND, on_owner, call, err);
	if (code != KT_OK) {
		kt_free(call);
	}
	return code == KT_OK ? KT_E_BUSY : code;
}

/* What is known of a name; NULL: no memory. */
static struct kt_owner *owner_of(struct kt_keeper *keeper, const char *user, const char *group)
{
	struct kt_owner *owner;

	for (owner = keeper->owners; owner != NULL; owner = owner->next) {
		if (strcmp(owner->user, user) == 0 && strcmp(owner->group, group) == 0) {
			return owner;
		}
	}
	owner = kt_calloc(1, sizeof(*owner));
	if (owner != NULL) {
		(void)snprintf(owner->user, sizeof(owner->user), "%s", user);
		(void)snprintf(owner->group, sizeof(owner->group), "%s", group);
		owner->next = keeper->owners;
		keeper->owners = owner;
	}
	return owner;
}

enum kt_code kt_owners_of_flight(struct kt_flight *flight, const char *user, const char *group, uid_t *uid, gid_t *gid,
                                 struct kt_err *err)
{
	struct kt_keeper *keeper = flight->keeper;
	struct kt_owner *owner;

	*uid = KT_OWNER_KEEP;
	*gid = keeper->volume_policy.gid;
	if (user == NULL && group == NULL) {
		return KT_OK;
	}
	user = user != NULL ? user : "";
	group = group != NULL ? group : "";
	owner = owner_of(keeper, user, group);
	if (owner == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an owner");
	}
	if (!owner->known) {
		return ask_owner(keeper, owner, flight->id, NULL, err);
	}
	*uid = owner->uid;
	*gid = owner->gid != (gid_t)KT_OWNER_KEEP ? owner->gid : keeper->volume_policy.gid;
	return KT_OK;
}

enum kt_code kt_owners_find(struct kt_keeper *keeper, const char *user, const char *group,
                            void (*known)(struct kt_keeper *keeper), uid_t *ret_uid, gid_t *ret_gid, struct kt_err *err)
{
	struct kt_owner *owner = owner_of(keeper, user, group);
	enum kt_code code;

	if (owner == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an owner");
	}
	if (owner->known) {
		*ret_uid = owner->uid;
		*ret_gid = owner->gid;
		return KT_OK;
	}
	if (owner->failed_at != 0 && !owner->nobody && kt_clock_mono(keeper->clock) - owner->failed_at < AGAIN_PAUSE) {
		return kt_err_set(err, KT_E_LATER, "%s can't be looked up at the moment", user[0] != '\0' ? user : group);
	}
	if (owner->failed_at != 0 && owner->nobody && kt_clock_mono(keeper->clock) - owner->failed_at < OWNER_PAUSE) {
		return kt_err_set(err, KT_E_NOTFOUND, "there is no user or group %s on this machine", user[0] != '\0' ? user : group);
	}
	if (owner->asked) {
		return KT_E_BUSY;
	}
	code = ask_owner(keeper, owner, 0, known, err);
	owner->asked = code == KT_E_BUSY;
	return code;
}

void kt_owners_finish(struct kt_keeper *keeper)
{
	while (keeper->owners != NULL) {
		struct kt_owner *owner = keeper->owners;

		keeper->owners = owner->next;
		kt_free(owner);
	}
}
