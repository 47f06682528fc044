/*
 * From a flight's material to volumes: the secret's own under secretsDir, and those of the Consumers that take it.
 *
 * A Consumer's volume is projected: it may hold files of several secrets, and all of them change by one rename. For the
 * secret in flight the candidate is taken, for the others what is in force. A volume whose other secrets are not all
 * there yet is left out; the flight of the last one writes it.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/keeper.h"
#include "keeper/render.h"

#define CLOCK_SLACK (5 * KT_MINUTE)

/* --- projected volumes ------------------------------------------------------------------------------------------------ */

static enum kt_code project(const struct kt_fileset *from, const struct kt_consumer_volume *volume,
                            const struct kt_consumer_volume_items *items, uid_t uid, gid_t gid,
                            struct kt_fileset *into, struct kt_err *err)
{
	mode_t mode = volume->default_mode != KT_FILE_MODE_UNSET ? (mode_t)volume->default_mode : 0;
	enum kt_code code = KT_OK;
	size_t i;

	for (i = 0; items->count == 0 && i < from->count && code == KT_OK; i++) {
		const struct kt_volume_file *file = &from->files[i];

		code = kt_fileset_add(into, file->path, file->bytes, mode != 0 ? mode : file->mode, uid, gid, err);
	}
	for (i = 0; i < items->count && code == KT_OK; i++) {
		const struct kt_consumer_volume_item *item = &items->items[i];
		const struct kt_volume_file *file = kt_fileset_find(from, item->key);

		if (file == NULL) {
			return kt_err_set(err, KT_E_INVALID, "volume %s: the secret has no file %s", volume->path, item->key);
		}
		code = kt_fileset_add(into, item->path, file->bytes,
		                      item->mode != KT_FILE_MODE_UNSET ? (mode_t)item->mode : mode != 0 ? mode : file->mode,
		                      uid, gid, err);
	}
	return code;
}

static bool volume_takes(const struct kt_consumer_volume *volume, const char *secret)
{
	uint32_t i;

	for (i = 0; i < volume->sources.count; i++) {
		if (strcmp(volume->sources.items[i].secret.name, secret) == 0) {
			return true;
		}
	}
	return false;
}

static struct kt_volume_policy consumer_policy(const struct kt_keeper *keeper, const struct kt_consumer_volume *volume,
                                               uid_t uid, gid_t gid)
{
	struct kt_volume_policy policy = KT_VOLUME_POLICY_DEFAULT;

	policy.allow_persistent = volume->allow_persistent;
	policy.allow_shared = volume->allow_shared || keeper->volume_policy.allow_shared;
	policy.uid = uid;
	policy.gid = gid;
	policy.generation_mode = 0750;
	return policy;
}

/* Collects the files of all sources; the flight's own secret gives the candidate. KT_E_NOTFOUND: one isn't there yet. */
static enum kt_code stage_volume(struct kt_flight *flight, const struct kt_consumer_volume *volume,
                                 const struct kt_rendered *own, uid_t uid, gid_t gid, struct kt_err *err)
{
	struct kt_rendered others[16];
	struct kt_fileset files KT_AUTOFILESET = {0};
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_volume_policy policy = consumer_policy(flight->keeper, volume, uid, gid);
	size_t used = 0;
	enum kt_code code = KT_OK;
	uint32_t i;

	kt_fileset_init(&files);
	for (i = 0; i < volume->sources.count && code == KT_OK; i++) {
		const struct kt_consumer_volume_source *source = &volume->sources.items[i];
		const struct kt_rendered *from = own;

		if (own == NULL && strcmp(source->secret.name, flight->secret_name) == 0) {
			continue;
		}
		if (strcmp(source->secret.name, flight->secret_name) != 0) {
			if (used == sizeof(others) / sizeof(others[0])) {
				code = kt_err_set(err, KT_E_LIMIT, "volume %s has more than 16 other secrets", volume->path);
				break;
			}
			memset(&others[used], 0, sizeof(others[used]));
			code = kt_render_current(flight->keeper, flight->resource.ns, source->secret.name, &others[used], err);
			from = &others[used++];
		}
		if (code == KT_OK) {
			code = project(&from->files, volume, &source->secret.items, uid, gid, &files, err);
		}
	}
	if (code == KT_OK) {
		code = kt_volume_open_path(volume->path, &policy, &vol, err);
	}
	if (code == KT_OK) {
		code = kt_volume_stage(&vol, flight->dir, files.files, files.count, err);
	}
	while (used > 0) {
		kt_rendered_finish(&others[--used]);
	}
	return code;
}

/* Calls fn for each volume of each Consumer that takes the flight's secret. */
static enum kt_code each_volume(struct kt_flight *flight,
                                enum kt_code (*fn)(struct kt_flight *flight, const struct kt_consumer_volume *volume,
                                                   void *arg, struct kt_err *err),
                                void *arg, struct kt_err *err)
{
	enum kt_code code = KT_OK;
	size_t i;

	for (i = 0; i < flight->consumer_count && code == KT_OK; i++) {
		struct kt_store_resource row;
		struct kt_resource *consumer = NULL;
		uint32_t k;

		code = kt_store_resource_get(flight->keeper->store, flight->consumers[i], &row, err);
		if (code != KT_OK) {
			return code;
		}
		code = kt_load_spec(&row, &consumer, err);
		for (k = 0; code == KT_OK && k < consumer->consumer.volumes.count; k++) {
			const struct kt_consumer_volume *volume = &consumer->consumer.volumes.items[k];

			if (volume_takes(volume, flight->secret_name)) {
				code = fn(flight, volume, arg, err);
			}
		}
		if (code != KT_OK && code != KT_E_BUSY) {
			(void)kt_err_prefix(err, "Consumer %s", row.name);
		}
		kt_resource_destroy(consumer);
		kt_store_resource_finish(&row);
	}
	return code;
}

struct turn {
	bool shared; /* one of the volumes has more than one source */
	bool taken;  /* ... and somebody works on it */
};

static enum kt_code look_for_others(struct kt_flight *flight, const struct kt_consumer_volume *volume, void *arg,
                                    struct kt_err *err)
{
	const struct kt_flight *other;
	struct turn *turn = arg;

	(void)err;
	if (volume->sources.count < 2) {
		return KT_OK;
	}
	turn->shared = true;
	for (other = flight->keeper->flights; other != NULL; other = other->next) {
		if (other != flight && other->holds_volume && strcmp(other->resource.ns, flight->resource.ns) == 0 &&
		    volume_takes(volume, other->secret_name)) {
			turn->taken = true;
		}
	}
	return KT_OK;
}

/* All or none are taken, so nobody holds one volume while it waits for another. */
enum kt_code kt_publish_must_wait(struct kt_flight *flight, bool *ret, struct kt_err *err)
{
	struct turn turn = {false, false};
	enum kt_code code = each_volume(flight, look_for_others, &turn, err);

	*ret = flight->waits_volume = code == KT_OK && turn.taken;
	flight->holds_volume = code == KT_OK && turn.shared && !turn.taken;
	return code;
}

static enum kt_code resolve_one(struct kt_flight *flight, const struct kt_consumer_volume *volume, void *arg,
                                struct kt_err *err)
{
	uid_t uid;
	gid_t gid;

	(void)arg;
	return kt_owners_of_flight(flight, volume->owner, volume->group, &uid, &gid, err);
}

static enum kt_code stage_one(struct kt_flight *flight, const struct kt_consumer_volume *volume, void *arg,
                              struct kt_err *err)
{
	uid_t uid;
	gid_t gid;
	enum kt_code code = kt_owners_of_flight(flight, volume->owner, volume->group, &uid, &gid, err);

	if (code == KT_OK && !kt_oauth_set_incomplete(flight, volume)) {
		code = stage_volume(flight, volume, arg, uid, gid, err);
		if (code == KT_E_NOTFOUND) { /* another secret comes later and brings this one along */
			kt_err_clear(err);
			code = KT_OK;
		}
	}
	return code;
}

static enum kt_code open_own(struct kt_flight *flight, struct kt_volume *vol, struct kt_err *err)
{
	return kt_volume_open(flight->keeper->root, flight->resource.ns, flight->secret_name, NULL, vol, err);
}

enum kt_effect kt_publish_stage(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_rendered own = {0};
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	enum kt_code code = each_volume(flight, resolve_one, NULL, err);

	if (code == KT_E_BUSY) {
		kt_err_clear(err);
		return KT_EFFECT_PENDING;
	}
	if (code == KT_OK) {
		code = kt_render_flight(flight, &own, err);
	}
	if (code == KT_OK) {
		code = open_own(flight, &vol, err);
	}
	if (code == KT_OK) {
		code = kt_volume_stage(&vol, flight->dir, own.files.files, own.files.count, err);
	}
	if (code == KT_OK) {
		code = each_volume(flight, stage_one, &own, err);
	}
	kt_rendered_finish(&own);
	return code == KT_OK ? KT_EFFECT_DONE : KT_EFFECT_FAILED;
}

/* --- switching and retiring -------------------------------------------------------------------------------------------- */

static enum kt_code open_consumer(struct kt_flight *flight, const struct kt_consumer_volume *volume,
                                  struct kt_volume *vol, struct kt_err *err)
{
	struct kt_volume_policy policy;
	uid_t uid;
	gid_t gid;
	enum kt_code code = kt_owners_of_flight(flight, volume->owner, volume->group, &uid, &gid, err);

	if (code != KT_OK) {
		return code;
	}
	policy = consumer_policy(flight->keeper, volume, uid, gid);
	return kt_volume_open_path(volume->path, &policy, vol, err);
}

static enum kt_code switch_one(struct kt_flight *flight, const struct kt_consumer_volume *volume, void *arg,
                               struct kt_err *err)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char previous[KT_GENERATION_MAX];
	enum kt_code code = open_consumer(flight, volume, &vol, err);

	(void)arg;
	if (code == KT_OK && kt_volume_has(&vol, flight->dir)) {
		code = kt_volume_switch(&vol, flight->dir, NULL, 0, previous, err);
	}
	return code;
}

enum kt_code kt_publish_switch(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	enum kt_code code = open_own(flight, &vol, err);

	if (code == KT_OK) {
		code = kt_volume_switch(&vol, flight->dir, NULL, 0, flight->previous_dir, err);
	}
	return code == KT_OK ? each_volume(flight, switch_one, NULL, err) : code;
}

/* Takes an expired secret out of a Consumer's volume; what lies there from other secrets stays. */
static enum kt_code withdraw_from(struct kt_flight *flight, const struct kt_consumer_volume *volume,
                                  struct kt_volume *vol, struct kt_err *err)
{
	char previous[KT_GENERATION_MAX];
	bool others = false;
	uid_t uid;
	gid_t gid;
	uint32_t i;
	enum kt_code code;

	for (i = 0; i < volume->sources.count; i++) {
		others = others || strcmp(volume->sources.items[i].secret.name, flight->secret_name) != 0;
	}
	if (!others) {
		return kt_volume_withdraw(vol, err);
	}
	code = kt_owners_of_flight(flight, volume->owner, volume->group, &uid, &gid, err);
	if (code == KT_OK) {
		(void)kt_volume_generation_name(kt_keeper_now(flight->keeper), flight->dir);
		code = stage_volume(flight, volume, NULL, uid, gid, err);
	}
	if (code == KT_E_NOTFOUND) { /* the others were never there: nothing was written */
		kt_err_clear(err);
		return kt_volume_withdraw(vol, err);
	}
	if (code == KT_OK) {
		code = kt_volume_switch(vol, flight->dir, NULL, 0, previous, err);
	}
	return code == KT_OK ? kt_volume_cleanup(vol, NULL, 0, NULL, err) : code;
}

static enum kt_code retire_one(struct kt_flight *flight, const struct kt_consumer_volume *volume, void *arg,
                               struct kt_err *err)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	enum kt_code code = open_consumer(flight, volume, &vol, err);

	(void)arg;
	if (code == KT_OK && flight->withdraw) {
		return withdraw_from(flight, volume, &vol, err);
	}
	return code == KT_OK ? kt_volume_cleanup(&vol, NULL, 0, NULL, err) : code;
}

enum kt_code kt_publish_retire(struct kt_flight *flight, struct kt_err *err)
{
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	enum kt_code code = open_own(flight, &vol, err);

	if (code == KT_OK) {
		code = flight->withdraw ? kt_volume_withdraw(&vol, err) : kt_volume_cleanup(&vol, NULL, 0, NULL, err);
	}
	return code == KT_OK ? each_volume(flight, retire_one, NULL, err) : code;
}

/* --- looking ------------------------------------------------------------------------------------------------------------- */

void kt_publish_path(const struct kt_keeper *keeper, const char *ns, const char *secret_name, char *out, size_t size)
{
	bool plain = ns[0] == '\0' || strcmp(ns, "default") == 0;

	(void)snprintf(out, size, "%s/%s%s%s", keeper->secrets_dir, plain ? "" : ns, plain ? "" : "/", secret_name);
}

static enum kt_code add_bind(struct kt_flight *flight, const char *path, struct kt_volume *vol, struct kt_buf *out,
                             struct kt_err *err)
{
	char current[KT_GENERATION_MAX];
	enum kt_code code = kt_volume_current(vol, current, err);

	if (code == KT_OK && kt_volume_has(vol, flight->dir)) {
		kt_buf_addf(out, "%s/%s\t%s/%s\n", path, flight->dir, path, current);
	}
	return code;
}

enum kt_code kt_publish_binds(struct kt_flight *flight, const struct kt_resource *consumer, struct kt_buf *out,
                              struct kt_err *err)
{
	const struct kt_consumer_spec *spec = &consumer->consumer;
	struct kt_volume own KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	char path[4096];
	enum kt_code code = open_own(flight, &own, err);
	uint32_t i;

	kt_publish_path(flight->keeper, flight->resource.ns, flight->secret_name, path, sizeof(path));
	if (code == KT_OK) {
		code = add_bind(flight, path, &own, out, err);
	}
	for (i = 0; i < spec->volumes.count && code == KT_OK; i++) {
		struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;

		if (volume_takes(&spec->volumes.items[i], flight->secret_name)) {
			code = open_consumer(flight, &spec->volumes.items[i], &vol, err);
			if (code == KT_OK) {
				code = add_bind(flight, spec->volumes.items[i].path, &vol, out, err);
			}
		}
	}
	return code == KT_OK ? kt_buf_check(out, "binds", err) : code;
}

static enum kt_code check_volume(struct kt_keeper *keeper, const struct kt_store_resource *row,
                                 const struct kt_store_cred *cred, const struct kt_resource *spec, bool *ret_drifted,
                                 struct kt_err *err)
{
	struct kt_drift_report report = {0};
	struct kt_fileset files KT_AUTOFILESET = {0};
	struct kt_volume vol KT_AUTOVOLUME = KT_VOLUME_CLOSED;
	struct kt_store_material material;
	enum kt_code code = kt_store_material_get(keeper->store, cred->active, &material, err);

	if (code != KT_OK) {
		return code;
	}
	kt_fileset_init(&files);
	code = kt_render_expected(keeper, spec, &material, &files, err);
	if (code == KT_OK) {
		code = kt_volume_open_existing(keeper->root, row->ns, cred->secret_name, NULL, &vol, err);
	}
	if (code == KT_OK) {
		code = kt_volume_check(&vol, material.dir[0] != '\0' ? material.dir : NULL, files.files, files.count, false,
		                       &report, err);
	}
	*ret_drifted = code == KT_E_NOTFOUND || report.drift != KT_DRIFT_NONE;
	kt_store_material_finish(&material);
	if (*ret_drifted && cred->delivered_at == 0) {
		kt_log(KT_LOG_INFO, "secret %s/%s, which was imported, is written for the first time", row->ns, cred->secret_name);
		return KT_OK;
	}
	if (*ret_drifted) {
		kt_log(KT_LOG_WARN, "secret %s/%s is not as it was delivered (%s): it is written again", row->ns,
		       cred->secret_name, report.text[0] != '\0' ? report.text : "the volume is gone");
		return KT_OK;
	}
	return code;
}

enum kt_code kt_publish_check(struct kt_keeper *keeper, int64_t id, bool *ret_drifted, struct kt_err *err)
{
	struct kt_resource *spec = NULL;
	struct kt_store_resource row;
	struct kt_store_cred cred;
	enum kt_code code = kt_store_cred_get(keeper->store, id, &cred, err);

	*ret_drifted = false;
	if (code != KT_OK) {
		return code;
	}
	/* Delivered while the clock was ahead: its times were reckoned by that clock, so all of it is looked at again. */
	if (cred.active != 0 && cred.delivered_at > kt_keeper_now(keeper) + CLOCK_SLACK) {
		*ret_drifted = true;
		kt_store_cred_finish(&cred);
		return KT_OK;
	}
	/* What was delivered since the last walk is as it should be. */
	if (cred.active == 0 || cred.secret_name[0] == '\0' || cred.delivered_at >= keeper->swept_at) {
		kt_store_cred_finish(&cred);
		return KT_OK;
	}
	code = kt_store_resource_get(keeper->store, id, &row, err);
	if (code == KT_OK) {
		code = kt_load_spec(&row, &spec, err);
		if (code == KT_OK) {
			code = check_volume(keeper, &row, &cred, spec, ret_drifted, err);
		}
		kt_resource_destroy(spec);
		kt_store_resource_finish(&row);
	}
	kt_store_cred_finish(&cred);
	return code;
}
