/* The field table of Agent, the settings. */
#include <string.h>

#include "manifest/rows.h"

static const struct kt_enum_name anchors[] = {
	{"None", KT_ANCHOR_NONE}, {"Syslog", KT_ANCHOR_SYSLOG}, {"File", KT_ANCHOR_FILE}, {NULL, 0}};

static const struct kt_field audit_rows[] = {
	ROW("anchor", KT_F_ENUM, struct kt_audit_settings, anchor, .def = KT_ANCHOR_NONE, .names = anchors,
	    DOC "Where the head of the audit chain is written as well, outside the store."),
	ROW("file", KT_F_STRING, struct kt_audit_settings, file, .check = kt_value_file_path,
	    DOC "With anchor File: the file that is appended to."),
	ROW("retention", KT_F_DURATION, struct kt_audit_settings, retention, .min = KT_HOUR, .max = 36525 * KT_DAY,
	    DOC "Records older than this may go; kept for ever when absent."),
};

static void check_audit(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_audit_settings *audit = object;

	if ((audit->anchor == KT_ANCHOR_FILE) != (audit->file != NULL))
		kt_complain(d, node, "file", "belongs with anchor: File; give both or none");
}

static const struct kt_table audit_table =
	TABLE("Audit", struct kt_audit_settings, audit_rows, .check = check_audit, .doc = "The audit chain.");

static const struct kt_field control_rows[] = {
	ROW("group", KT_F_STRING, struct kt_control, group, .check = kt_value_user,
	    DOC "Group whose members may command the agent, besides root and its own user."),
	ROW("socket", KT_F_STRING, struct kt_control, socket, .check = kt_value_file_path, .max = 107,
	    DOC "Path of the control socket."),
};
static const struct kt_table control_table =
	TABLE("Control", struct kt_control, control_rows, .doc = "The control socket.");

static const struct kt_field dns01_rows[] = {
	ROW("propagationTimeout", KT_F_DURATION, struct kt_dns_settings, propagation_timeout, .def = 2 * KT_MINUTE,
	    .min = KT_SECOND, .max = KT_HOUR, DOC "How long a record may take until every server has it."),
	ROW("recursiveNameservers", KT_F_STRINGS, struct kt_dns_settings, recursive_nameservers, .max = 8,
	    .check = kt_value_address, DOC "Name servers as `host:port`; those of the machine when absent."),
	ROW("recursiveNameserversOnly", KT_F_BOOL, struct kt_dns_settings, recursive_nameservers_only,
	    DOC "Look at the recursive servers only, not at the authoritative ones."),
};
static const struct kt_table dns01_table = TABLE("DNS01Settings", struct kt_dns_settings, dns01_rows,
						 .doc = "How dns-01 records are checked before the CA is told.");

static const struct kt_field limits_rows[] = {
	ROW("flights", KT_F_INT, struct kt_limits, flights, .def = 64, .min = 1, .max = 10000,
	    DOC "Credentials in work at once."),
	ROW("hooks", KT_F_INT, struct kt_limits, hooks, .def = 4, .min = 1, .max = 64, DOC "Hooks running at once."),
	ROW("perIssuer", KT_F_INT, struct kt_limits, per_issuer, .def = 8, .min = 1, .max = 1000,
	    DOC "Orders or token requests at once at one issuer."),
};
static const struct kt_table limits_table = TABLE("Limits", struct kt_limits, limits_rows, .doc = "Limits.");

static const struct kt_field control_listener_rows[] = {
	ROW("address", KT_F_STRING, struct kt_control_listener, address, .check = kt_value_listen,
	    DOC "Address, such as `127.0.0.1:9404`."),
	ROW("tokenFile", KT_F_STRING, struct kt_control_listener, token_file, .check = kt_value_file_path,
	    DOC "File with the bearer token that who asks must know: at least 16 bytes, read anew each time."),
};

static void check_control_listener(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_control_listener *control = object;

	if ((control->address != NULL) != (control->token_file != NULL))
		kt_complain(d, node, "tokenFile", "belongs with address; give both or none");
}

static const struct kt_table control_listener_table =
	TABLE("ControlListener", struct kt_control_listener, control_listener_rows, .check = check_control_listener,
	      .doc = "POST /quit for whoever has the token; without it only the control socket takes commands.");

static const struct kt_field listeners_rows[] = {
	ROW("control", KT_F_STRUCT, struct kt_listeners, control, OF(control_listener_table),
	    DOC "POST /quit for whoever has the token; without it only the control socket takes commands."),
	ROW("http01", KT_F_STRING, struct kt_listeners, http01, .check = kt_value_listen,
	    DOC "Answers of http-01 challenges, such as `:80`."),
	ROW("jwks", KT_F_STRING, struct kt_listeners, jwks, .check = kt_value_listen,
	    DOC "JWKS and discovery document of local TokenIssuers."),
	ROW("metrics", KT_F_STRING, struct kt_listeners, metrics, .check = kt_value_listen,
	    DOC "/metrics, /livez, /readyz, /startupz and the status page."),
	ROW("probes", KT_F_STRING, struct kt_listeners, probes, .check = kt_value_listen,
	    DOC "/livez, /readyz, /startupz and /metrics only, for a kubelet; `:9403` with --sidecar when absent."),
	ROW("socketGroup", KT_F_STRING, struct kt_listeners, socket_group, .check = kt_value_user,
	    DOC "Group (name or number) that may connect to those listeners that are Unix sockets (but tokens), such as the one "
		"of a proxy: they have mode 0660 then, else 0600."),
	ROW("tlsAlpn01", KT_F_STRING, struct kt_listeners, tls_alpn01, .check = kt_value_listen,
	    DOC "Answers of tls-alpn-01 challenges, such as `:443`, or a Unix socket that a proxy hands them to by SNI or "
		"ALPN."),
	ROW("tokens", KT_F_STRING, struct kt_listeners, tokens, .check = kt_value_listen,
	    DOC "Unix socket (mode 0666), such as `unix:/run/keyturn/tokens.sock`, where those that spec.socket of a Consumer names "
		"may ask for tokens and say that one was refused."),
};

static void check_listeners(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_listeners *listeners = object;
	const char *const others[] = {listeners->http01, listeners->jwks, listeners->metrics, listeners->probes,
				      listeners->control.address};

	for (size_t i = 0; listeners->tls_alpn01 && i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i] && strcmp(others[i], listeners->tls_alpn01) == 0)
			kt_complain(d, node, "tlsAlpn01", "speaks TLS: it can't share %.128s with another listener", others[i]);
	if (listeners->tokens && strncmp(listeners->tokens, "unix:", 5) != 0)
		kt_complain(d, node, "tokens", "(%.128s) must be a local socket, unix:/path: only there is known who asks",
			    listeners->tokens);
	for (size_t i = 0; listeners->tokens && i < sizeof(others) / sizeof(others[0]) + 1; i++) {
		const char *other = i < sizeof(others) / sizeof(others[0]) ? others[i] : listeners->tls_alpn01;

		if (other && strcmp(other, listeners->tokens) == 0)
			kt_complain(d, node, "tokens", "is open to everybody here: it can't share %.128s with another listener", other);
	}
}

static const struct kt_table listeners_table = TABLE(
	"Listeners", struct kt_listeners, listeners_rows, .check = check_listeners,
	.doc = "Addresses listened on: `host:port`, `:port` (IPv6 and IPv4) or `unix:/path`; none when absent. All but "
	       "tlsAlpn01 and tokens may be the same.");

static const struct kt_field master_key_rows[] = {
	ROW("command", KT_F_STRINGS, struct kt_master_key, command, CHOICE, .max = 32,
	    DOC "Program and arguments (no shell) that print the key."),
	ROW("credential", KT_F_STRING, struct kt_master_key, credential, CHOICE, .check = kt_value_credential,
	    DOC "Name of a systemd credential."),
	ROW("file", KT_F_STRING, struct kt_master_key, file, CHOICE, .check = kt_value_file_path,
	    DOC "A file, made with mode 0600 on first run."),
};

static void check_master_key(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_master_key *key = object;
	const char *problem = key->command.count ? kt_value_file_path(key->command.items[0]) : NULL;

	if (problem)
		kt_complain(d, node, "command[0]", "(%.128s) %s", key->command.items[0], problem);
}

static const struct kt_table master_key_table =
	TABLE("MasterKey", struct kt_master_key, master_key_rows, .choice_max = 1, .check = check_master_key,
	      .doc = "Where the key that seals the store comes from; a file in the state directory when absent.");

static const struct kt_field users_rows[] = {
	ROW("courier", KT_F_STRING, struct kt_rooms, courier, .check = kt_value_user, DOC "User of the courier."),
	ROW("desk", KT_F_STRING, struct kt_rooms, desk, .check = kt_value_user, DOC "User of the desk."),
	ROW("keeper", KT_F_STRING, struct kt_rooms, keeper, .check = kt_value_user, DOC "User of the keeper."),
};
static const struct kt_table users_table =
	TABLE("Users", struct kt_rooms, users_rows, .doc = "Users of the rooms when started as root.");

static const struct kt_field agent_rows[] = {
	ROW("allowPersistent", KT_F_BOOL, struct kt_agent_spec, allow_persistent, DOC "secretsDir may lie on a disk."),
	ROW("allowShared", KT_F_BOOL, struct kt_agent_spec, allow_shared,
	    DOC "secretsDir and stateDir may be mount points that others may write to, as a pod's emptyDir is; always so with "
		"--sidecar."),
	ROW("audit", KT_F_STRUCT, struct kt_agent_spec, audit, OF(audit_table), DOC "The audit chain."),
	ROW("control", KT_F_STRUCT, struct kt_agent_spec, control, OF(control_table), DOC "The control socket."),
	ROW("dns01", KT_F_STRUCT, struct kt_agent_spec, dns01, OF(dns01_table),
	    DOC "How dns-01 records are checked before the CA is told."),
	ROW("limits", KT_F_STRUCT, struct kt_agent_spec, limits, OF(limits_table), DOC "Limits."),
	ROW("listeners", KT_F_STRUCT, struct kt_agent_spec, listeners, OF(listeners_table),
	    DOC "Addresses listened on: `host:port`, `:port` (IPv6 and IPv4) or `unix:/path`; none when absent. All but "
		"tlsAlpn01 may be the same."),
	ROW("masterKey", KT_F_STRUCT, struct kt_agent_spec, master_key, OF(master_key_table),
	    DOC "Where the key that seals the store comes from."),
	ROW("secretsDir", KT_F_STRING, struct kt_agent_spec, secrets_dir, .check = kt_value_path,
	    DOC "Folder of the secret volumes."),
	ROW("secretsGroup", KT_F_STRING, struct kt_agent_spec, secrets_group, .check = kt_value_user,
	    DOC "Group of what is delivered, where a Consumer's volume names none: name or number; one that the agent's user is in."),
	ROW("secretsMode", KT_F_MODE, struct kt_agent_spec, secrets_mode, .def = KT_FILE_MODE_UNSET,
	    DOC "Mode of files with keys and tokens, octal in quotes; when absent 0640 with secretsGroup, else "
		"0600. The key of a CA stays 0600."),
	ROW("stateDir", KT_F_STRING, struct kt_agent_spec, state_dir, .check = kt_value_path,
	    DOC "Folder of the state."),
	ROW("users", KT_F_STRUCT, struct kt_agent_spec, users, OF(users_table),
	    DOC "Users of the rooms when started as root."),
};
static const struct kt_table agent_table = TABLE("AgentSpec", struct kt_agent_spec, agent_rows, .doc = "The settings.");

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "keyturn.dev/v1alpha1"),
	FIXED("kind", "Agent"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, agent, REQUIRED, OF(agent_table), DOC "The settings."),
	STATUS_ROW,
};

const struct kt_table kt_table_agent =
	TABLE("Agent", struct kt_resource, top_rows, .doc = "The settings of the agent.");
