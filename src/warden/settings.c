/* Manifests as the warden sees them: the bundle for the keeper, kind Agent, and the hooks of the Consumers. */
#include "warden/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/text.h"

#define SYSTEMD_TIME_LIMIT (60 * KT_SECOND)

/* What the reading of one set works on. */
struct load {
	const struct kt_warden_options *options;
	struct kt_generation *generation;
	struct kt_report *report;
	struct kt_set *set;
	struct kt_report whole; /* what only the whole shows */
};

/* --- paths that matter to the keeper's Landlock ----------------------------------------------------------------- */

static uint64_t hash_path(const char *text)
{
	uint64_t hash = 14695981039346656037ull; /* FNV-1a: told apart, not protected */

	for (; *text != '\0'; text++) {
		hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
	}
	return hash;
}

/* A sum, so that the order of the documents does not matter. */
static void count_path(struct kt_generation *generation, const char *path)
{
	if (path != NULL) {
		generation->paths += hash_path(path);
	}
}

static void count_issuer_paths(struct kt_generation *generation, const struct kt_resource *resource)
{
	if (resource->kind == KT_RES_TOKEN_ISSUER) {
		const struct kt_local_issuer *local = resource->token_issuer.local;

		if (local != NULL && local->publish_jwks.volume != NULL) {
			count_path(generation, local->publish_jwks.volume->path);
		}
	} else if (resource->issuer.acme != NULL) {
		count_path(generation, resource->issuer.acme->webroot);
	}
}

static enum kt_code add_root(struct kt_generation *generation, const char *path, struct kt_err *err)
{
	unsigned i;

	for (i = 0; i < generation->root_count; i++) {
		if (strcmp(generation->roots[i], path) == 0) {
			return KT_OK;
		}
	}
	if (generation->root_count + 1 >= generation->root_cap) {
		unsigned cap = generation->root_cap == 0 ? 4 : generation->root_cap * 2;
		char **more = kt_realloc(generation->roots, cap * sizeof(*more));

		if (more == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for the volumes");
		}
		generation->roots = more;
		generation->root_cap = cap;
	}
	generation->roots[generation->root_count] = kt_strdup(path);
	if (generation->roots[generation->root_count] == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the volumes");
	}
	generation->roots[++generation->root_count] = NULL;
	return KT_OK;
}

/* --- consumers -------------------------------------------------------------------------------------------------- */

/* NULL-terminated "NAME=value" strings, or NULL when there are none (or no memory: *failed). */
static char **env_of(const struct kt_pairs *pairs, bool *failed)
{
	char **env;
	uint32_t i;

	if (pairs->count == 0) {
		return NULL;
	}
	env = kt_calloc(pairs->count + 1, sizeof(*env));
	for (i = 0; env != NULL && i < pairs->count; i++) {
		env[i] = kt_asprintf("%s=%s", pairs->items[i].key, pairs->items[i].value);
		if (env[i] == NULL) {
			*failed = true;
			break;
		}
	}
	*failed = *failed || env == NULL;
	return env;
}

static enum kt_code take_exec(const struct kt_exec *exec, struct kt_hand *ret, struct kt_err *err)
{
	struct kt_hand hand = {.kind = KT_HAND_EXEC};
	bool failed = false;
	enum kt_code code;
	uint32_t i;

	hand.argv = kt_calloc(exec->argv.count + 1, sizeof(*hand.argv));
	hand.env = env_of(&exec->env, &failed);
	for (i = 0; hand.argv != NULL && i < exec->argv.count; i++) {
		hand.argv[i] = (char *)exec->argv.items[i];
	}
	hand.user = (char *)exec->user;
	hand.group = (char *)exec->group;
	hand.time_limit = exec->timeout;
	code = hand.argv == NULL || failed ? kt_err_set(err, KT_E_NOMEM, "no memory for a hook")
	                                   : kt_hand_copy(&hand, ret, err);
	for (i = 0; hand.env != NULL && hand.env[i] != NULL; i++) {
		kt_free(hand.env[i]);
	}
	kt_free(hand.env);
	kt_free(hand.argv);
	return code;
}

static enum kt_code take_signal(const struct kt_notify_signal *notify, struct kt_hand *ret, struct kt_err *err)
{
	struct kt_hand hand = {.kind = KT_HAND_SIGNAL,
	                       .signum = notify->signo,
	                       .pid_file = (char *)notify->pid_file,
	                       .unit = (char *)notify->systemd_unit};

	if (notify->process != NULL) {
		hand.exe = (char *)notify->process->executable;
		hand.cgroup = (char *)notify->process->cgroup;
	}
	return kt_hand_copy(&hand, ret, err);
}

static enum kt_code take_notify(const struct kt_notify *notify, struct kt_hand *ret, struct kt_err *err)
{
	static const char *const actions[] = {[KT_SYSTEMD_RELOAD] = "reload",
	                                      [KT_SYSTEMD_RESTART] = "restart",
	                                      [KT_SYSTEMD_RELOAD_OR_RESTART] = "reload-or-restart"};
	struct kt_hand hand = {.kind = KT_HAND_NONE};

	if (notify->exec != NULL) {
		return take_exec(notify->exec, ret, err);
	}
	if (notify->signal != NULL) {
		return take_signal(notify->signal, ret, err);
	}
	if (notify->systemd != NULL) {
		hand.kind = KT_HAND_SYSTEMD;
		hand.unit = (char *)notify->systemd->unit;
		hand.action = (char *)actions[notify->systemd->action];
		hand.time_limit = notify->systemd->timeout > 0 ? notify->systemd->timeout : SYSTEMD_TIME_LIMIT;
	} else if (notify->touch != NULL) {
		hand.kind = KT_HAND_TOUCH;
		hand.path = (char *)notify->touch->path;
	}
	return kt_hand_copy(&hand, ret, err);
}

static enum kt_code make_hands(struct kt_consumer_hands *consumer, enum kt_hook_phase phase, uint32_t count,
                               struct kt_err *err)
{
	if (count > 0) {
		consumer->hands[phase] = kt_calloc(count, sizeof(struct kt_hand));
		if (consumer->hands[phase] == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for a hook");
		}
	}
	consumer->count[phase] = count;
	for (uint32_t i = 0; i < count; i++) {
		consumer->hands[phase][i].kind = KT_HAND_NONE;
	}
	return KT_OK;
}

static enum kt_code fill_hands(struct kt_consumer_hands *consumer, const struct kt_consumer_spec *spec,
                               struct kt_err *err)
{
	enum kt_code code = make_hands(consumer, KT_HOOK_VALIDATE, spec->validate.count, err);
	uint32_t i;

	if (code == KT_OK) {
		code = make_hands(consumer, KT_HOOK_NOTIFY, spec->notify.count, err);
	}
	if (code == KT_OK) {
		code = make_hands(consumer, KT_HOOK_PROVE, spec->prove.count, err);
	}
	for (i = 0; code == KT_OK && i < spec->validate.count; i++) {
		if (spec->validate.items[i].exec != NULL) {
			code = take_exec(spec->validate.items[i].exec, &consumer->hands[KT_HOOK_VALIDATE][i], err);
		}
	}
	for (i = 0; code == KT_OK && i < spec->notify.count; i++) {
		code = take_notify(&spec->notify.items[i], &consumer->hands[KT_HOOK_NOTIFY][i], err);
	}
	for (i = 0; code == KT_OK && i < spec->prove.count; i++) {
		if (spec->prove.items[i].exec != NULL) {
			code = take_exec(spec->prove.items[i].exec, &consumer->hands[KT_HOOK_PROVE][i], err);
		}
	}
	return code;
}

static void consumer_finish(struct kt_consumer_hands *consumer)
{
	for (unsigned phase = 0; phase < KT_HOOK_PHASES; phase++) {
		for (unsigned i = 0; consumer->hands[phase] != NULL && i < consumer->count[phase]; i++) {
			kt_hand_finish(&consumer->hands[phase][i]);
		}
		kt_free(consumer->hands[phase]);
	}
	kt_free(consumer->ns);
	kt_free(consumer->name);
}

static enum kt_code take_volumes(struct kt_generation *generation, const struct kt_consumer_spec *spec,
                                 struct kt_err *err)
{
	enum kt_code code = KT_OK;
	uint32_t i;

	for (i = 0; code == KT_OK && i < spec->volumes.count; i++) {
		count_path(generation, spec->volumes.items[i].path);
		code = add_root(generation, spec->volumes.items[i].path, err);
	}
	for (i = 0; i < spec->prove.count; i++) {
		const struct kt_observed *observed = spec->prove.items[i].observed;

		if (observed != NULL && observed->access_log != NULL) {
			count_path(generation, observed->access_log->path);
		}
	}
	return code;
}

static enum kt_code add_consumer(struct kt_generation *generation, const struct kt_resource *resource,
                                 struct kt_consumer_hands **ret, struct kt_err *err)
{
	struct kt_consumer_hands *consumer;

	if (generation->consumer_count == generation->consumer_cap) {
		unsigned cap = generation->consumer_cap == 0 ? 4 : generation->consumer_cap * 2;
		struct kt_consumer_hands *more = kt_realloc(generation->consumers, cap * sizeof(*more));

		if (more == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for a Consumer");
		}
		generation->consumers = more;
		generation->consumer_cap = cap;
	}
	consumer = &generation->consumers[generation->consumer_count++];
	memset(consumer, 0, sizeof(*consumer));
	consumer->ns = kt_strdup(resource->meta.ns);
	consumer->name = kt_strdup(resource->meta.name);
	*ret = consumer;
	return consumer->ns != NULL && consumer->name != NULL ? KT_OK
	                                                      : kt_err_set(err, KT_E_NOMEM, "no memory for a Consumer");
}

static enum kt_code take_consumer(struct kt_generation *generation, const struct kt_resource *resource,
                                  struct kt_err *err)
{
	struct kt_consumer_hands *consumer;
	enum kt_code code = add_consumer(generation, resource, &consumer, err);

	if (code == KT_OK) {
		code = fill_hands(consumer, &resource->consumer, err);
	}
	return code == KT_OK ? take_volumes(generation, &resource->consumer, err) : code;
}

/* The keeper reads the file, for which its folder has to be let through. */
static enum kt_code take_watch(struct kt_generation *generation, const struct kt_resource *resource, struct kt_err *err)
{
	const struct kt_watch_spec *spec = &resource->watch;
	struct kt_consumer_hands *watch;
	char id[KT_NAME_MAX * 2 + 2];
	enum kt_code code;

	if (spec->source.file != NULL) {
		count_path(generation, spec->source.file->path);
	}
	if (spec->renew == NULL) {
		return KT_OK;
	}
	code = add_consumer(generation, resource, &watch, err);
	if (code == KT_OK) {
		watch->is_watch = true;
		code = make_hands(watch, KT_HOOK_RENEW, 1, err);
	}
	if (code == KT_OK) {
		code = take_exec(spec->renew->exec, &watch->hands[KT_HOOK_RENEW][0], err);
		(void)snprintf(id, sizeof(id), "%s/%s", resource->meta.ns, resource->meta.name);
		/* Never 0, and far from the largest offset of a file. */
		watch->hands[KT_HOOK_RENEW][0].lock_at = (int64_t)(hash_path(id) >> 8 | 1);
	}
	return code;
}

/* --- solvers that run a program ----------------------------------------------------------------------------------- */

static char **copy_strings(const struct kt_strings *list)
{
	char **copy = kt_calloc(list->count + 1, sizeof(*copy));

	for (uint32_t i = 0; copy != NULL && i < list->count; i++) {
		copy[i] = kt_strdup(list->items[i]);
		if (copy[i] == NULL) {
			while (i > 0) {
				kt_free(copy[--i]);
			}
			kt_free(copy);
			return NULL;
		}
	}
	return copy;
}

static enum kt_code take_program(struct kt_generation *generation, const struct kt_resource *resource, uint32_t index,
                                 const struct kt_dns_exec *exec, struct kt_err *err)
{
	static const enum kt_solve_convention conventions[] = {[KT_DNS_CONV_KEYTURN] = KT_SOLVE_KEYTURN,
	                                                       [KT_DNS_CONV_CERTBOT] = KT_SOLVE_CERTBOT,
	                                                       [KT_DNS_CONV_DEHYDRATED] = KT_SOLVE_DEHYDRATED,
	                                                       [KT_DNS_CONV_LEGO] = KT_SOLVE_LEGO};
	struct kt_issuer_program *program;
	enum kt_code code;

	if (generation->program_count == generation->program_cap) {
		unsigned cap = generation->program_cap == 0 ? 4 : generation->program_cap * 2;
		struct kt_issuer_program *more = kt_realloc(generation->programs, cap * sizeof(*more));

		if (more == NULL) {
			return kt_err_set(err, KT_E_NOMEM, "no memory for a solver");
		}
		generation->programs = more;
		generation->program_cap = cap;
	}
	program = &generation->programs[generation->program_count++];
	memset(program, 0, sizeof(*program));
	program->kind = resource->kind;
	program->index = index;
	program->ns = kt_strdup(resource->meta.ns);
	program->name = kt_strdup(resource->meta.name);
	program->program.convention = conventions[exec->convention];
	code = take_exec(&exec->exec, &program->program.hand, err);
	if (code == KT_OK && exec->cleanup_argv.count > 0) {
		program->program.cleanup = copy_strings(&exec->cleanup_argv);
		code = program->program.cleanup == NULL ? KT_E_NOMEM : KT_OK;
	}
	return code != KT_OK || program->ns == NULL || program->name == NULL ? kt_err_set(err, KT_E_NOMEM, "no memory for a solver")
	                                                                     : KT_OK;
}

/* As root a program without a user runs as nobody, as hooks do: say so. */
static enum kt_code take_issuer(struct kt_generation *generation, const struct kt_resource *resource,
                                struct kt_report *report, struct kt_err *err)
{
	const struct kt_acme *acme = resource->kind != KT_RES_TOKEN_ISSUER ? resource->issuer.acme : NULL;
	enum kt_code code = KT_OK;

	for (uint32_t i = 0; code == KT_OK && acme != NULL && i < acme->solvers.count; i++) {
		const struct kt_dns01_solver *dns = acme->solvers.items[i].dns01;
		char path[64];

		if (dns == NULL || dns->exec == NULL) {
			continue;
		}
		code = take_program(generation, resource, i, dns->exec, err);
		(void)snprintf(path, sizeof(path), "spec.acme.solvers[%u].dns01.exec", i);
		if (geteuid() == 0 && dns->exec->exec.user == NULL) {
			kt_report_add(report, KT_COMPLAINT_WARNING, resource->file, kt_resource_line(resource, path),
			              "%s.exec.user is not named, so it will run as nobody: name a user (root, if it must be root)", path);
		}
	}
	return code;
}

const struct kt_solve_program *kt_generation_program(const struct kt_generation *generation, uint32_t kind,
                                                     struct kt_view ns, struct kt_view name, uint32_t index)
{
	for (unsigned i = 0; i < generation->program_count; i++) {
		const struct kt_issuer_program *program = &generation->programs[i];

		if ((uint32_t)program->kind == kind && program->index == index && kt_view_eq_str(ns, program->ns) &&
		    kt_view_eq_str(name, program->name)) {
			return &program->program;
		}
	}
	return NULL;
}

/* As root a hook without a user runs as nobody, which is rarely what was meant. */
static void warn_nobody(const struct kt_resource *resource, struct kt_report *report)
{
	const struct kt_consumer_spec *spec = &resource->consumer;
	uint32_t i;

	if (geteuid() != 0) {
		return;
	}
	for (i = 0; i < spec->validate.count + spec->notify.count; i++) {
		bool validate = i < spec->validate.count;
		uint32_t at = validate ? i : i - spec->validate.count;
		const struct kt_exec *exec = validate ? spec->validate.items[at].exec : spec->notify.items[at].exec;
		char path[64];

		if (exec == NULL || exec->user != NULL) {
			continue;
		}
		(void)snprintf(path, sizeof(path), "spec.%s[%u].exec", validate ? "validate" : "notify", at);
		kt_report_add(report, KT_COMPLAINT_WARNING, resource->file, kt_resource_line(resource, path),
		              "%s.user is not named, so it will run as nobody: name a user (root, if it must be root)",
		              path);
	}
}

static void warn_watch(const struct kt_resource *resource, struct kt_report *report)
{
	const struct kt_watch_renew *renew = resource->watch.renew;

	if (geteuid() == 0 && renew != NULL && renew->exec->user == NULL) {
		kt_report_add(report, KT_COMPLAINT_WARNING, resource->file, kt_resource_line(resource, "spec.renew.exec"),
		              "spec.renew.exec.user is not named, so it will run as nobody: name a user (root, if it must be root)");
	}
}

static enum kt_code on_resource(void *arg, struct kt_resource *resource, struct kt_err *err)
{
	struct load *load = arg;
	struct kt_generation *generation = load->generation;
	enum kt_code code = kt_set_add(load->set, resource, &load->whole, err);

	switch (code == KT_OK ? resource->kind : KT_RES_NONE) {
	case KT_RES_CONSUMER:
		kt_manifest_check_host(resource, geteuid(), load->report);
		warn_nobody(resource, load->report);
		code = take_consumer(generation, resource, err);
		break;
	case KT_RES_CLIENT_CREDENTIAL:
		if (resource->client.issuer.hosted != NULL && resource->client.issuer.hosted->publish_jwks.volume != NULL) {
			count_path(generation, resource->client.issuer.hosted->publish_jwks.volume->path);
		}
		break;
	case KT_RES_ISSUER:
	case KT_RES_CLUSTER_ISSUER:
	case KT_RES_TOKEN_ISSUER:
		count_issuer_paths(generation, resource);
		if (code == KT_OK) {
			kt_manifest_check_host(resource, geteuid(), load->report);
			code = take_issuer(generation, resource, load->report, err);
		}
		break;
	case KT_RES_WATCH:
		kt_manifest_check_host(resource, geteuid(), load->report);
		warn_watch(resource, load->report);
		code = code == KT_OK ? take_watch(generation, resource, err) : code;
		break;
	case KT_RES_AGENT:
		kt_manifest_check_host(resource, geteuid(), load->report);
		if (generation->agent == NULL) {
			generation->agent = resource;
			resource = NULL;
		} else {
			kt_report_add(load->report, KT_COMPLAINT_ERROR, resource->file, resource->line,
			              "there is more than one Agent: the other is %s:%u", generation->agent->file,
			              generation->agent->line);
		}
		break;
	default:
		break;
	}
	kt_resource_destroy(resource);
	return code;
}

static int by_name(const void *a, const void *b)
{
	const struct kt_consumer_hands *left = a;
	const struct kt_consumer_hands *right = b;
	int order = (int)left->is_watch - (int)right->is_watch;

	order = order != 0 ? order : strcmp(left->ns, right->ns);
	return order != 0 ? order : strcmp(left->name, right->name);
}

static enum kt_code count_places(struct kt_generation *generation, struct kt_err *err)
{
	const struct kt_agent_spec *agent = &generation->agent->agent;

	count_path(generation, agent->master_key.file);
	count_path(generation, agent->audit.file);
	count_path(generation, agent->listeners.control.token_file);
	return add_root(generation, generation->secrets_dir, err);
}

/* What the command line says on top of kind Agent. */
static void take_options(struct kt_generation *generation, const struct kt_warden_options *options)
{
	struct kt_agent_spec *agent = &generation->agent->agent;

	agent->allow_shared = agent->allow_shared || options->sidecar;
	if (options->probe_address != NULL) {
		agent->listeners.probes = strcmp(options->probe_address, "none") == 0 ? NULL : options->probe_address;
	} else if (agent->listeners.probes == NULL) {
		agent->listeners.probes = options->probe_default;
	}
}

static enum kt_code make_settings(struct kt_generation *generation, struct kt_err *err)
{
	struct kt_buf json KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&json, KT_DOC_MAX);
	code = kt_resource_to_json(generation->agent, &json, err);
	if (code == KT_OK) {
		code = kt_buf_check(&json, "kind Agent", err);
	}
	if (code == KT_OK) {
		generation->settings = kt_buf_steal(&json, NULL);
	}
	return code == KT_OK && generation->settings == NULL
	               ? kt_err_set(err, KT_E_NOMEM, "no memory for the settings")
	               : code;
}

/* --- the whole -------------------------------------------------------------------------------------------------- */

static size_t manifest_count(const struct kt_warden_options *options)
{
	size_t count = 0;

	while (options->manifests != NULL && options->manifests[count] != NULL) {
		count++;
	}
	return count;
}

static enum kt_code read_files(const struct kt_warden_options *options, struct kt_buf *bundle,
                               struct kt_report *report, struct kt_err *err)
{
	struct kt_load_options load = {
	        .check_trust = true, .uid = geteuid(), .in_pod = options->sidecar, .missing_is_ok = options->manifests_optional};
	size_t count = manifest_count(options);

	if (count == 0) {
		kt_bundle_begin(bundle);
		return KT_OK;
	}
	return kt_manifest_load_paths(options->manifests, count, &load, bundle, report, err);
}

/*
 * Dangling references and the like are refused here, before a room starts and anything is written. Warnings are left to
 * the keeper, who knows what its store holds.
 */
static enum kt_code check_whole(struct load *load, struct kt_err *err)
{
	enum kt_code code = kt_set_check(load->set, &load->whole, err);
	uint32_t i;

	for (i = 0; i < load->whole.count; i++) {
		const struct kt_complaint *item = &load->whole.items[i];

		if (item->severity == KT_COMPLAINT_ERROR) {
			kt_report_add(load->report, item->severity, item->file, item->line, "%s", item->text);
		}
	}
	return code == KT_OK && load->whole.nomem ? kt_err_set(err, KT_E_NOMEM, "no memory for the manifests") : code;
}

/* An agent may be there before its manifests are; who wants something renewed has mistaken the folder. */
static enum kt_code check_empty(struct load *load, struct kt_err *err)
{
	const struct kt_warden_options *options = load->options;
	size_t count = manifest_count(options);

	if (count == 0) {
		return KT_OK;
	}
	if (options->manifests_needed) {
		return kt_manifest_none(options->manifests, count, err);
	}
	if (options->mode == KT_MODE_DAEMON) {
		kt_report_add(load->report, KT_COMPLAINT_WARNING, options->manifests[0], 0,
		              "no manifests here: put *.yaml, *.yml or *.json files into the folder, then 'keyturn reload'");
	}
	return KT_OK;
}

static enum kt_code parse(struct load *load, const struct kt_buf *bundle, struct kt_err *err)
{
	struct kt_generation *generation = load->generation;
	enum kt_code code = kt_set_create(&load->set, err);

	kt_report_init(&load->whole);
	if (code == KT_OK) {
		code = kt_manifest_read_bundle(kt_buf_view(bundle), NULL, on_resource, load, load->report, err);
	}
	if (code == KT_OK) {
		code = check_whole(load, err);
	}
	if (code == KT_OK && load->report->errors == 0 && kt_set_count(load->set, KT_RES_NONE) == 0) {
		code = check_empty(load, err);
	}
	kt_set_destroy(load->set);
	kt_report_finish(&load->whole);
	if (code == KT_OK && load->report->errors > 0) {
		code = kt_report_check(load->report, err);
	}
	if (code == KT_OK && generation->agent == NULL) {
		code = kt_resource_default(KT_RES_AGENT, "", "default", &generation->agent, err);
	}
	if (code == KT_OK && generation->consumer_count > 0) {
		qsort(generation->consumers, generation->consumer_count, sizeof(*generation->consumers), by_name);
	}
	return code;
}

enum kt_code kt_generation_load(const struct kt_warden_options *options, uint32_t number, struct kt_report *report,
                                struct kt_generation **ret, struct kt_err *err)
{
	struct kt_generation *generation = kt_calloc(1, sizeof(*generation));
	struct load load = {.options = options, .generation = generation, .report = report};
	struct kt_buf bundle;
	enum kt_code code;

	if (generation == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for the manifests");
	}
	generation->number = number;
	generation->bundle = -1;
	kt_buf_init(&bundle, KT_MANIFEST_TOTAL_MAX);
	code = read_files(options, &bundle, report, err);
	if (code == KT_OK) {
		code = kt_buf_check(&bundle, "the manifests", err);
	}
	if (code == KT_OK) {
		code = parse(&load, &bundle, err);
	}
	if (code == KT_OK) {
		take_options(generation, options);
		code = kt_generation_group(generation, options, err);
	}
	if (code == KT_OK) {
		code = kt_generation_places(generation, options, err);
	}
	if (code == KT_OK) {
		code = count_places(generation, err);
	}
	if (code == KT_OK) {
		code = make_settings(generation, err);
	}
	if (code == KT_OK) {
		generation->bundle = kt_io_memfd("keyturn-manifests", bundle.ptr, bundle.len, err);
		code = generation->bundle < 0 ? (err != NULL ? err->code : KT_E_SYS) : KT_OK;
	}
	kt_buf_finish(&bundle);
	if (code != KT_OK) {
		kt_generation_destroy(generation);
		return code;
	}
	*ret = generation;
	return KT_OK;
}

void kt_generation_destroy(struct kt_generation *generation)
{
	unsigned i;

	if (generation == NULL) {
		return;
	}
	for (i = 0; i < generation->consumer_count; i++) {
		consumer_finish(&generation->consumers[i]);
	}
	for (i = 0; i < generation->program_count; i++) {
		kt_solve_program_finish(&generation->programs[i].program);
		kt_free(generation->programs[i].ns);
		kt_free(generation->programs[i].name);
	}
	kt_free(generation->programs);
	for (i = 0; i < generation->root_count; i++) {
		kt_free(generation->roots[i]);
	}
	if (generation->bundle >= 0) {
		close(generation->bundle);
	}
	kt_free(generation->consumers);
	kt_free(generation->roots);
	kt_resource_destroy(generation->agent);
	kt_free(generation->settings);
	kt_free(generation->state_dir);
	kt_free(generation->secrets_dir);
	kt_free(generation->socket_path);
	kt_free(generation);
}

const struct kt_hand *kt_generation_hand(const struct kt_generation *generation, struct kt_view ns,
                                         struct kt_view name, uint32_t phase, uint32_t index)
{
	unsigned low = 0;
	unsigned high = generation->consumer_count;

	if (phase >= KT_HOOK_PHASES) {
		return NULL;
	}
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct kt_consumer_hands *consumer = &generation->consumers[middle];
		size_t ns_len = strlen(consumer->ns);
		size_t name_len = strlen(consumer->name);
		int order = (int)consumer->is_watch - (int)(phase == KT_HOOK_RENEW);

		order = order != 0 ? order : strncmp(consumer->ns, ns.ptr != NULL ? ns.ptr : "", ns.len);
		order = order != 0 ? order : (ns_len > ns.len) - (ns_len < ns.len);
		order = order != 0 ? order : strncmp(consumer->name, name.ptr != NULL ? name.ptr : "", name.len);
		order = order != 0 ? order : (name_len > name.len) - (name_len < name.len);
		if (order == 0) {
			return index < consumer->count[phase] ? &consumer->hands[phase][index] : NULL;
		}
		if (order < 0) {
			low = middle + 1;
		} else {
			high = middle;
		}
	}
	return NULL;
}
