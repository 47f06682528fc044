/* The field table of Consumer, and the checks across its fields. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "manifest/rows.h"

static const struct kt_enum_name signals[] = {
	{"HUP", SIGHUP},   {"USR1", SIGUSR1}, {"USR2", SIGUSR2},   {"TERM", SIGTERM}, {"INT", SIGINT},
	{"QUIT", SIGQUIT}, {"CONT", SIGCONT}, {"WINCH", SIGWINCH}, {"ALRM", SIGALRM}, {NULL, 0}};
static const struct kt_enum_name actions[] = {{"Reload", KT_SYSTEMD_RELOAD},
					      {"Restart", KT_SYSTEMD_RESTART},
					      {"ReloadOrRestart", KT_SYSTEMD_RELOAD_OR_RESTART},
					      {NULL, 0}};
static const struct kt_enum_name on_failures[] = {
	{"Rollback", KT_ON_FAILURE_ROLLBACK}, {"Keep", KT_ON_FAILURE_KEEP}, {NULL, 0}};

/* --- volumes ------------------------------------------------------------------------------------------------------ */

static const struct kt_field item_rows[] = {
	ROW("key", KT_F_STRING, struct kt_consumer_volume_item, key, REQUIRED, .check = kt_value_key,
	    DOC "File of the secret, such as tls.crt or header."),
	ROW("mode", KT_F_MODE, struct kt_consumer_volume_item, mode, .def = KT_FILE_MODE_UNSET,
	    DOC "Mode of the file; the volume's when absent."),
	ROW("path", KT_F_STRING, struct kt_consumer_volume_item, path, REQUIRED, .check = kt_value_relative_path,
	    DOC "Path in the volume."),
};
static const struct kt_table item_table =
	TABLE("VolumeItem", struct kt_consumer_volume_item, item_rows, .doc = "One file of a volume.");

typedef struct kt_consumer_volume_source_secret source_secret;
static const struct kt_field source_secret_rows[] = {
	ROW("items", KT_F_LIST, source_secret, items, .max = 100, OF(item_table),
	    DOC "Which files; all of them under their own names when absent."),
	ROW("name", KT_F_STRING, source_secret, name, REQUIRED, .check = kt_value_name,
	    DOC "secretName of a Certificate or Token."),
};
static const struct kt_table source_secret_table =
	TABLE("SecretProjection", source_secret, source_secret_rows, .doc = "Files of one secret.");

static const struct kt_field source_rows[] = {
	ROW("secret", KT_F_STRUCT, struct kt_consumer_volume_source, secret, REQUIRED, OF(source_secret_table),
	    DOC "Files of one secret."),
};
static const struct kt_table source_table =
	TABLE("VolumeSource", struct kt_consumer_volume_source, source_rows, .doc = "A source of files.");

static const struct kt_field volume_rows[] = {
	ROW("allowPersistent", KT_F_BOOL, struct kt_consumer_volume, allow_persistent,
	    DOC "The volume may lie on a disk."),
	ROW("allowShared", KT_F_BOOL, struct kt_consumer_volume, allow_shared,
	    DOC "The volume may be a mount point that others may write to, as a pod's emptyDir is, or lie in one; always so with "
		"--sidecar."),
	ROW("defaultMode", KT_F_MODE, struct kt_consumer_volume, default_mode, .def = KT_FILE_MODE_UNSET,
	    DOC "Mode of the files, octal in quotes; when absent 0600 for keys and tokens, 0644 for the rest."),
	ROW("group", KT_F_STRING, struct kt_consumer_volume, group, .check = kt_value_user, DOC "Group of the files."),
	ROW("owner", KT_F_STRING, struct kt_consumer_volume, owner, .check = kt_value_user, DOC "Owner of the files."),
	ROW("path", KT_F_STRING, struct kt_consumer_volume, path, REQUIRED, .check = kt_value_path,
	    DOC "Folder of the volume."),
	ROW("sources", KT_F_LIST, struct kt_consumer_volume, sources, REQUIRED, .max = 100, OF(source_table),
	    DOC "Secrets that the volume is made of, switched together."),
};

static void check_volume(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_consumer_volume *volume = object;

	for (uint32_t i = 0; i < volume->sources.count; i++) {
		const struct kt_consumer_volume_items *items = &volume->sources.items[i].secret.items;

		for (uint32_t k = 0; k < items->count; k++) {
			for (uint32_t j = 0; j <= i; j++) {
				const struct kt_consumer_volume_items *other = &volume->sources.items[j].secret.items;

				for (uint32_t m = 0; m < (j == i ? k : other->count); m++) {
					if (!strcmp(items->items[k].path, other->items[m].path))
						kt_complain(d, node, "sources",
							    "have path %.128s twice; each file needs a path of its own",
							    items->items[k].path);
				}
			}
		}
	}
}

static const struct kt_table volume_table =
	TABLE("Volume", struct kt_consumer_volume, volume_rows, .check = check_volume,
	      .doc = "A folder of its own for the consumer, as a pod's projected volume.");

/* --- exec ------------------------------------------------------------------------------------------------------------
 */

static const struct kt_field exec_rows[] = {
	ROW("argv", KT_F_STRINGS, struct kt_exec, argv, REQUIRED, .max = 64,
	    DOC "Program (absolute path) and arguments; no shell."),
	ROW("env", KT_F_PAIRS, struct kt_exec, env, .check_key = kt_value_env_name, .max = 64,
	    DOC "Variables on top of the fixed ones; never put a secret here."),
	ROW("group", KT_F_STRING, struct kt_exec, group, .check = kt_value_user, DOC "Group it runs as."),
	ROW("timeout", KT_F_DURATION, struct kt_exec, timeout, .def = 30 * KT_SECOND, .min = KT_SECOND, .max = KT_HOUR,
	    DOC "It is ended after so long."),
	ROW("user", KT_F_STRING, struct kt_exec, user, .check = kt_value_user,
	    DOC "User it runs as; the agent's own when absent, root only when named."),
};

static void check_exec(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_exec *exec = object;
	const char *problem = kt_value_file_path(exec->argv.items[0]);

	if (problem)
		kt_complain(d, node, "argv[0]", "(%.128s) %s", exec->argv.items[0], problem);
}

const struct kt_table kt_table_exec = TABLE("Exec", struct kt_exec, exec_rows, .check = check_exec,
						.doc = "A program, run without a shell in a fixed environment.");

static const struct kt_field validate_rows[] = {
	ROW("exec", KT_F_OBJECT, struct kt_validate, exec, REQUIRED, OF(kt_table_exec),
	    DOC "A program; exit status 0 means good."),
};
static const struct kt_table validate_table =
	TABLE("Validate", struct kt_validate, validate_rows, .doc = "A check of the candidate before the switch.");

/* --- notify ----------------------------------------------------------------------------------------------------------
 */

static const struct kt_field process_rows[] = {
	ROW("cgroup", KT_F_STRING, struct kt_process_match, cgroup, .check = kt_value_cgroup,
	    DOC "Cgroup it must be in."),
	ROW("executable", KT_F_STRING, struct kt_process_match, executable, REQUIRED, .check = kt_value_file_path,
	    DOC "Its executable."),
};
static const struct kt_table process_table =
	TABLE("ProcessMatch", struct kt_process_match, process_rows, .doc = "A process by what it runs.");

static const struct kt_field signal_rows[] = {
	ROW("name", KT_F_ENUM, struct kt_notify_signal, signo, REQUIRED, .names = signals,
	    DOC "Which signal, without SIG."),
	ROW("pidFile", KT_F_STRING, struct kt_notify_signal, pid_file, CHOICE, .check = kt_value_file_path,
	    DOC "File with the pid."),
	ROW("process", KT_F_OBJECT, struct kt_notify_signal, process, CHOICE, OF(process_table),
	    DOC "The oldest process that matches."),
	ROW("systemdUnit", KT_F_STRING, struct kt_notify_signal, systemd_unit, CHOICE, .check = kt_value_unit,
	    DOC "The unit's main pid."),
};
static const struct kt_table signal_table = TABLE("Signal", struct kt_notify_signal, signal_rows, .choice_min = 1,
						  .choice_max = 1, .doc = "A signal to one process.");

static const struct kt_field systemd_rows[] = {
	ROW("action", KT_F_ENUM, struct kt_notify_systemd, action, .def = KT_SYSTEMD_RELOAD, .names = actions,
	    DOC "What to ask for."),
	ROW("timeout", KT_F_DURATION, struct kt_notify_systemd, timeout, .def = 60 * KT_SECOND, .min = KT_SECOND,
	    .max = KT_HOUR, DOC "How long the job may take."),
	ROW("unit", KT_F_STRING, struct kt_notify_systemd, unit, REQUIRED, .check = kt_value_unit, DOC "The unit."),
};
static const struct kt_table systemd_table =
	TABLE("Systemd", struct kt_notify_systemd, systemd_rows, .doc = "A job of systemd.");

static const struct kt_field touch_rows[] = {
	ROW("path", KT_F_STRING, struct kt_notify_touch, path, REQUIRED, .check = kt_value_file_path,
	    DOC "A file that somebody watches."),
};
static const struct kt_table touch_table =
	TABLE("Touch", struct kt_notify_touch, touch_rows, .doc = "A file is touched.");

static const struct kt_field notify_http_rows[] = {
	ROW("caBundle", KT_F_BYTES, struct kt_notify_http, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("timeout", KT_F_DURATION, struct kt_notify_http, timeout, .def = 10 * KT_SECOND, .min = KT_SECOND,
	    .max = 10 * KT_MINUTE, DOC "How long the answer may take."),
	ROW("url", KT_F_STRING, struct kt_notify_http, url, REQUIRED, .check = kt_value_url,
	    DOC "Where a small JSON is posted to."),
};
static const struct kt_table notify_http_table =
	TABLE("NotifyHTTP", struct kt_notify_http, notify_http_rows, .doc = "A POST with a small JSON.");

static const struct kt_field notify_rows[] = {
	ROW("exec", KT_F_OBJECT, struct kt_notify, exec, CHOICE, OF(kt_table_exec), DOC "A program."),
	ROW("http", KT_F_OBJECT, struct kt_notify, http, CHOICE, OF(notify_http_table),
	    DOC "A POST with a small JSON."),
	ROW("signal", KT_F_OBJECT, struct kt_notify, signal, CHOICE, OF(signal_table), DOC "A signal to one process."),
	ROW("systemd", KT_F_OBJECT, struct kt_notify, systemd, CHOICE, OF(systemd_table), DOC "A job of systemd."),
	ROW("touch", KT_F_OBJECT, struct kt_notify, touch, CHOICE, OF(touch_table), DOC "A file is touched."),
};
static const struct kt_table notify_table = TABLE("Notify", struct kt_notify, notify_rows, .choice_min = 1,
						  .choice_max = 1, .doc = "How the consumer is told.");

/* --- prove
 * ------------------------------------------------------------------------------------------------------------- */

static const struct kt_enum_name protocols[] = {{"imap", KT_START_TLS_IMAP},
						{"ldap", KT_START_TLS_LDAP},
						{"postgres", KT_START_TLS_POSTGRES},
						{"smtp", KT_START_TLS_SMTP},
						{NULL, 0}};

const char *kt_start_tls_name(enum kt_start_tls protocol)
{
	return protocol == KT_START_TLS_NONE ? "" : kt_enum_text(protocols, (int)protocol);
}

static const struct kt_field prove_tls_rows[] = {
	ROW("address", KT_F_STRING, struct kt_prove_tls, address, REQUIRED, .check = kt_value_address,
	    DOC "Where the server listens."),
	ROW("serverName", KT_F_STRING, struct kt_prove_tls, server_name, .check = kt_value_dns_name,
	    DOC "Name asked for (SNI); the host of address when absent."),
	ROW("startTLS", KT_F_ENUM, struct kt_prove_tls, start_tls, .def = KT_START_TLS_NONE, .names = protocols,
	    DOC "What the server speaks before TLS; TLS from the first byte when absent."),
};
const struct kt_table kt_table_prove_tls =
	TABLE("ProveTLS", struct kt_prove_tls, prove_tls_rows,
	      .doc = "A handshake that shows which certificate a server uses.");

static const struct kt_field observed_http_rows[] = {
	ROW("caBundle", KT_F_BYTES, struct kt_observed_http, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("jsonPath", KT_F_STRING, struct kt_observed_http, json_path, REQUIRED, .check = kt_value_json_path,
	    DOC "Where the SHA-256 fingerprint stands, such as `.tls.sha256`."),
	ROW("url", KT_F_STRING, struct kt_observed_http, url, REQUIRED, .check = kt_value_url, DOC "What is asked."),
};
static const struct kt_table observed_http_table =
	TABLE("ObservedHTTP", struct kt_observed_http, observed_http_rows, .doc = "A fingerprint in a JSON answer.");

static const struct kt_field observed_log_rows[] = {
	ROW("field", KT_F_STRING, struct kt_observed_log, field, REQUIRED, .check = kt_value_log_field,
	    DOC "A path into JSON lines, or the number of a column in quotes."),
	ROW("path", KT_F_STRING, struct kt_observed_log, path, REQUIRED, .check = kt_value_file_path, DOC "The log itself, not a link."),
};
static const struct kt_table observed_log_table =
	TABLE("ObservedLog", struct kt_observed_log, observed_log_rows, .doc = "A fingerprint in an access log.");

static const struct kt_field observed_rows[] = {
	ROW("accessLog", KT_F_OBJECT, struct kt_observed, access_log, CHOICE, OF(observed_log_table),
	    DOC "In an access log."),
	ROW("http", KT_F_OBJECT, struct kt_observed, http, CHOICE, OF(observed_http_table), DOC "In a JSON answer."),
};
static const struct kt_table observed_table =
	TABLE("Observed", struct kt_observed, observed_rows, .choice_min = 1, .choice_max = 1,
	      .doc = "The consumer or its peer tells which credential it uses.");

static const struct kt_field accepted_http_rows[] = {
	ROW("caBundle", KT_F_BYTES, struct kt_accepted_http, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("expectStatus", KT_F_INT, struct kt_accepted_http, expect_status, .min = 200, .max = 599,
	    DOC "The status; any 2xx when absent."),
	ROW("headerName", KT_F_STRING, struct kt_accepted_http, header_name, .def_text = "Authorization",
	    .check = kt_value_header_name, DOC "Header that carries the token."),
	ROW("headerPrefix", KT_F_STRING, struct kt_accepted_http, header_prefix, .check = kt_value_header_text,
	    DOC "What stands before the token; `Bearer ` with Authorization, else nothing."),
	ROW("url", KT_F_STRING, struct kt_accepted_http, url, REQUIRED, .check = kt_value_url,
	    DOC "What is called with the token."),
};

static void check_accepted_http(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_accepted_http *http = object;

	(void)d;
	(void)node;
	if (!http->header_prefix)
		http->header_prefix = strcasecmp(http->header_name, "Authorization") ? "" : "Bearer ";
}

static const struct kt_table accepted_http_table =
	TABLE("AcceptedHTTP", struct kt_accepted_http, accepted_http_rows, .check = check_accepted_http,
	      .doc = "A call that must be let in with the new token.");

static const struct kt_field accepted_rows[] = {
	ROW("http", KT_F_OBJECT, struct kt_accepted, http, REQUIRED, OF(accepted_http_table),
	    DOC "A call with the token."),
};
static const struct kt_table accepted_table = TABLE("Accepted", struct kt_accepted, accepted_rows,
						    .doc = "Weaker: the new credential itself is taken downstream.");

static const struct kt_field read_back_rows[] = {
	ROW("name", KT_F_STRING, struct kt_read_back, name, REQUIRED, .check = kt_value_printable, .max = 128,
	    DOC "Name of the keystore, as in targets."),
};
static const struct kt_table read_back_table =
	TABLE("ReadBack", struct kt_read_back, read_back_rows,
	      .doc = "What lies at a target, for where nobody has to take it into use from there.");

static const struct kt_field prove_rows[] = {
	ROW("accepted", KT_F_OBJECT, struct kt_prove, accepted, CHOICE, OF(accepted_table),
	    DOC "The new token is taken by a URL."),
	ROW("exec", KT_F_OBJECT, struct kt_prove, exec, CHOICE, OF(kt_table_exec),
	    DOC "A program; exit status 0 means proved."),
	ROW("observed", KT_F_OBJECT, struct kt_prove, observed, CHOICE, OF(observed_table),
	    DOC "What the consumer or its peer reports."),
	ROW("readBack", KT_F_OBJECT, struct kt_prove, read_back, CHOICE, OF(read_back_table),
	    DOC "Weaker: a target of this Consumer shows the serial and the end of validity."),
	ROW("secret", KT_F_STRING, struct kt_prove, secret, REQUIRED, .check = kt_value_name,
	    DOC "Which secret is proved."),
	ROW("tls", KT_F_OBJECT, struct kt_prove, tls, CHOICE, OF(kt_table_prove_tls), DOC "A TLS handshake: the serial served must be the serial delivered."),
};
static const struct kt_table prove_table = TABLE("Prove", struct kt_prove, prove_rows, .choice_min = 1, .choice_max = 1,
						 .doc = "How it shows that the new credential is in use.");

/* --- spec
 * ---------------------------------------------------------------------------------------------------------------- */

static const struct kt_field rollout_rows[] = {
	ROW("maxUnavailable", KT_F_INT, struct kt_rollout, max_unavailable, .min = 0, .max = 1000,
	    DOC "So many consumers of one secret are taken at once; the next only when one is proved. 0: no limit."),
	ROW("windows", KT_F_LIST, struct kt_rollout, windows, .max = 50, OF(kt_table_window),
	    DOC "Targets and notify run only inside one of these windows, as long as what it uses lasts until the next one; "
		"files are switched before. `keyturn renew --now NAME` does not wait."),
};
static const struct kt_table rollout_table =
	TABLE("Rollout", struct kt_rollout, rollout_rows, .doc = "Consumers of one secret in turn, and when.");

static const struct kt_field socket_rows[] = {
	ROW("groups", KT_F_STRINGS, struct kt_consumer_socket, groups, .check = kt_value_user, .max = 32,
	    DOC "Groups (names or numbers) whose members may ask."),
	ROW("secrets", KT_F_STRINGS, struct kt_consumer_socket, secrets, .check = kt_value_name, .max = 100,
	    DOC "Tokens (their secretName) that may be asked for; when absent all that the Consumer uses."),
	ROW("users", KT_F_STRINGS, struct kt_consumer_socket, users, .check = kt_value_user, .max = 32,
	    DOC "Users (names or numbers) that may ask."),
};

/* Whom the kernel shows where it has no number for a user: strangers of other user namespaces. */
static bool is_nobody(const char *name)
{
	return !strcmp(name, "nobody") || !strcmp(name, "nogroup") || !strcmp(name, "65534");
}

static void check_socket(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_consumer_socket *who = object;

	if (!who->users.count && !who->groups.count)
		kt_complain(d, node, "", "must say who may ask: users, groups or both");
	for (uint32_t i = 0; i < who->users.count; i++)
		if (is_nobody(who->users.items[i]))
			kt_complain(d, node, "users", "have %.64s, which is everybody of other user namespaces; give it a user "
				    "of its own", who->users.items[i]);
	for (uint32_t i = 0; i < who->groups.count; i++)
		if (is_nobody(who->groups.items[i]))
			kt_complain(d, node, "groups", "have %.64s, which is everybody of other user namespaces; give it a group "
				    "of its own", who->groups.items[i]);
}

static const struct kt_table socket_table =
	TABLE("Socket", struct kt_consumer_socket, socket_rows, .check = check_socket,
	      .doc = "Who may ask for tokens at the Agent's listener `tokens`, known by the credentials of the process.");

typedef struct kt_consumer_spec consumer;

static const struct kt_field spec_rows[] = {
	REFUSED("files", "rendered files come with the token release; use volumes with items"),
	ROW("notify", KT_F_LIST, consumer, notify, .max = 16, OF(notify_table), DOC "How it is told, in this order."),
	ROW("onFailure", KT_F_ENUM, consumer, on_failure, .def = KT_ON_FAILURE_ROLLBACK, .names = on_failures,
	    DOC "When a proof shows that the new credential does not work: put the previous one back, or keep the new "
		"one."),
	ROW("prove", KT_F_LIST, consumer, prove, .max = 64, OF(prove_table),
	    DOC "How it shows that it uses the new ones."),
	ROW("rollout", KT_F_STRUCT, consumer, rollout, OF(rollout_table), DOC "Consumers of one secret in turn, and when."),
	ROW("secrets", KT_F_STRINGS, consumer, secrets, .check = kt_value_name, .max = 100,
	    DOC "Secrets used where they lie in secretsDir."),
	ROW("socket", KT_F_OBJECT, consumer, socket, OF(socket_table),
	    DOC "Who may ask for tokens at the Agent's listener `tokens` instead of reading a file."),
	ROW("targets", KT_F_LIST, consumer, targets, .max = 16, OF(kt_table_target),
	    DOC "Where Certificates are uploaded to and read back, before anybody is notified."),
	ROW("validate", KT_F_LIST, consumer, validate, .max = 16, OF(validate_table),
	    DOC "Checks of the candidate before the switch; all must pass."),
	ROW("volumes", KT_F_LIST, consumer, volumes, .max = 32, OF(volume_table), DOC "Folders of its own."),
	ROW("within", KT_F_DURATION, consumer, within, .def = 30 * KT_SECOND, .min = KT_SECOND, .max = KT_DAY,
	    DOC "Time for the proof, from the notification."),
};

static bool uses(const consumer *c, const char *secret)
{
	for (uint32_t i = 0; i < c->secrets.count; i++) {
		if (!strcmp(c->secrets.items[i], secret))
			return true;
	}
	for (uint32_t i = 0; i < c->targets.count; i++) {
		if (!strcmp(c->targets.items[i].secret, secret))
			return true;
	}
	for (uint32_t i = 0; c->socket && i < c->socket->secrets.count; i++) {
		if (!strcmp(c->socket->secrets.items[i], secret))
			return true;
	}
	for (uint32_t i = 0; i < c->volumes.count; i++) {
		for (uint32_t k = 0; k < c->volumes.items[i].sources.count; k++) {
			if (!strcmp(c->volumes.items[i].sources.items[k].secret.name, secret))
				return true;
		}
	}
	return false;
}

/* A read-back is of a target of the same secret. */
static void check_read_back(struct kt_decoder *d, const struct kt_node *node, const consumer *c, uint32_t index)
{
	const struct kt_prove *prove = &c->prove.items[index];
	char path[64];

	for (uint32_t i = 0; i < c->targets.count; i++) {
		const struct kt_target *target = &c->targets.items[i];

		if (!strcmp(target->secret, prove->secret) && target->secret_group &&
		    !strcmp(target->secret_group->api.name, prove->read_back->name))
			return;
	}
	(void)snprintf(path, sizeof(path), "prove[%u].readBack.name", index);
	kt_complain(d, node, path, "(%.128s) is no target of secret %.128s in this Consumer", prove->read_back->name,
		    prove->secret);
}

static void check_consumer(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const consumer *c = object;

	if (!c->volumes.count && !c->secrets.count && !c->targets.count && !(c->socket && c->socket->secrets.count))
		kt_complain(d, node, "",
			    "must use a secret: name it under secrets, in volumes, in targets or under socket.secrets");
	if (c->rollout.windows.count && !c->notify.count && !c->targets.count)
		kt_complain(d, node, "rollout.windows", "have no use without notify or targets; remove one of the two");
	for (uint32_t i = 0; i < c->prove.count; i++) {
		char path[64];

		if (c->prove.items[i].read_back)
			check_read_back(d, node, c, i);
		if (uses(c, c->prove.items[i].secret))
			continue;
		(void)snprintf(path, sizeof(path), "prove[%u].secret", i);
		kt_complain(d, node, path, "(%.128s) is not used by this Consumer; name it under secrets or in volumes",
			    c->prove.items[i].secret);
	}
	for (uint32_t i = 1; i < c->volumes.count; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (!strcmp(c->volumes.items[i].path, c->volumes.items[k].path))
				kt_complain(d, node, "volumes", "have path %.256s twice; put the sources together",
					    c->volumes.items[i].path);
		}
	}
}

static const struct kt_table spec_table = TABLE("ConsumerSpec", consumer, spec_rows, .check = check_consumer,
						.doc = "Who uses secrets, and how it is known.");

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "keyturn.dev/v1alpha1"),
	FIXED("kind", "Consumer"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name and namespace."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, consumer, REQUIRED, OF(spec_table),
	    DOC "Who uses secrets, and how it is known."),
	STATUS_ROW,
};

const struct kt_table kt_table_consumer = TABLE("Consumer", struct kt_resource, top_rows, .doc = "A consumer.");
