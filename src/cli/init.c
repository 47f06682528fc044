/* keyturn init: writes a set of manifests that works and lines up, for a kind of path that calls go. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"

#define FILE_MAX ((size_t)64 * 1024)

const struct kt_cli_option kt_cli_init_options[] = {
	{"for", 0, "KIND", "what for: mulesoft-downstream"},
	{"dir", 0, "DIR", "where the files go (default: the current folder)"},
	{"namespace", 'n', "NS", "namespace of all of it (default: default)"},
	{"api-audience", 0, "URL", "audience of the API (default: https://payments.example/api)"},
	{"issuer-url", 0, "URL",
	 "issuer of the tokens, below which the keys are shown (default: https://tokens.example)"},
	{"spiffe-id", 0, "URI", "identity of the caller (default: spiffe://cluster.local/ns/NS/sa/orders)"},
	{NULL, 0, NULL, NULL},
};

struct params {
	const char *dir, *ns, *audience, *issuer;
	char *spiffe;
};

/* --- the set for calls into an API behind a mesh and API Manager ---------------------------------------- */

/* %n namespace, %a audience, %i issuer, %k its keys, %s the SPIFFE id, %p the same without scheme: each as a JSON
 * string. */
static const char agent_yaml[] =
	"# The agent: shows the keys of the token issuer. Put a proxy with TLS before it, or another address here.\n"
	"apiVersion: keyturn.dev/v1alpha1\n"
	"kind: Agent\n"
	"metadata: {name: agent}\n"
	"spec:\n"
	"  listeners: {jwks: \"127.0.0.1:8089\"}\n";

static const char issuers_yaml[] =
	"# Who issues: a CA of our own for identities, and an issuer of our own for tokens.\n"
	"apiVersion: cert-manager.io/v1\n"
	"kind: Issuer\n"
	"metadata: {name: self-signed, namespace: %n}\n"
	"spec: {selfSigned: {}}\n"
	"---\n"
	"apiVersion: cert-manager.io/v1\n"
	"kind: Certificate\n"
	"metadata: {name: identity-ca, namespace: %n}\n"
	"spec:\n"
	"  secretName: identity-ca\n"
	"  isCA: true\n"
	"  commonName: keyturn identities\n"
	"  duration: 8760h\n"
	"  usages: [cert sign, crl sign]\n"
	"  privateKey: {algorithm: ECDSA, rotationPolicy: Never}\n"
	"  issuerRef: {name: self-signed}\n"
	"---\n"
	"apiVersion: cert-manager.io/v1\n"
	"kind: Issuer\n"
	"metadata: {name: identities, namespace: %n}\n"
	"spec: {ca: {secretName: identity-ca}}\n"
	"---\n"
	"apiVersion: keyturn.dev/v1alpha1\n"
	"kind: TokenIssuer\n"
	"metadata: {name: tokens, namespace: %n}\n"
	"spec:\n"
	"  local:\n"
	"    issuerURL: %i\n"
	"    algorithm: RS256      # what every version of API Manager verifies\n"
	"    publishAhead: 1h      # API Manager keeps keys for 60 min\n";

static const char credentials_yaml[] = "# What the caller shows: to the mesh who it is, to the API what it may do.\n"
				       "apiVersion: cert-manager.io/v1\n"
				       "kind: Certificate\n"
				       "metadata: {name: orders, namespace: %n}\n"
				       "spec:\n"
				       "  secretName: orders-identity\n"
				       "  duration: 24h\n"
				       "  uris: [%s]\n"
				       "  usages: [digital signature, client auth]\n"
				       "  privateKey: {algorithm: ECDSA}\n"
				       "  issuerRef: {name: identities}\n"
				       "---\n"
				       "apiVersion: keyturn.dev/v1alpha1\n"
				       "kind: Token\n"
				       "metadata: {name: orders-to-payments, namespace: %n}\n"
				       "spec:\n"
				       "  secretName: payments-token\n"
				       "  issuerRef: {name: tokens}\n"
				       "  audiences: [%a]\n"
				       "  claims: {subject: orders, clientID: orders}\n"
				       "  duration: 10m\n"
				       "  outputs: [raw, header]\n"
				       "---\n"
				       "# Both in one volume, switched by one rename.\n"
				       "apiVersion: keyturn.dev/v1alpha1\n"
				       "kind: Consumer\n"
				       "metadata: {name: orders, namespace: %n}\n"
				       "spec:\n"
				       "  volumes:\n"
				       "    - path: /run/keyturn/consumers/orders\n"
				       "      sources:\n"
				       "        - secret: {name: orders-identity}\n"
				       "        - secret: {name: payments-token}\n";

static const char mesh_yaml[] =
	"# For the cluster: the workload in front of the API. keyturn reads this for `keyturn check` only.\n"
	"apiVersion: security.istio.io/v1\n"
	"kind: PeerAuthentication\n"
	"metadata: {name: payments, namespace: %n}\n"
	"spec:\n"
	"  selector: {matchLabels: {app: payments}}\n"
	"  mtls: {mode: STRICT}\n"
	"---\n"
	"apiVersion: security.istio.io/v1\n"
	"kind: RequestAuthentication\n"
	"metadata: {name: payments, namespace: %n}\n"
	"spec:\n"
	"  selector: {matchLabels: {app: payments}}\n"
	"  jwtRules:\n"
	"    - issuer: %i\n"
	"      jwksUri: %k\n"
	"      audiences: [%a]\n"
	"      forwardOriginalToken: true   # the API's own policy reads it, too\n"
	"---\n"
	"apiVersion: security.istio.io/v1\n"
	"kind: AuthorizationPolicy\n"
	"metadata: {name: payments, namespace: %n}\n"
	"spec:\n"
	"  selector: {matchLabels: {app: payments}}\n"
	"  action: ALLOW\n"
	"  rules:\n"
	"    - from:\n"
	"        - source:\n"
	"            principals: [%p]\n"
	"            requestPrincipals: [%r]\n";

static const char gateway_yaml[] = "# For Flex Gateway in local mode (its conf.d): the API and the policy before it. "
				   "`keyturn check` reads it, too.\n"
				   "apiVersion: gateway.mulesoft.com/v1alpha1\n"
				   "kind: ApiInstance\n"
				   "metadata: {name: payments}\n"
				   "spec:\n"
				   "  address: http://0.0.0.0:8081\n"
				   "  services:\n"
				   "    payments:\n"
				   "      address: http://127.0.0.1:8080\n"
				   "      routes: [{rules: [{path: /.*}]}]\n"
				   "---\n"
				   "apiVersion: gateway.mulesoft.com/v1alpha1\n"
				   "kind: PolicyBinding\n"
				   "metadata: {name: payments-jwt}\n"
				   "spec:\n"
				   "  targetRef: {kind: ApiInstance, name: payments}\n"
				   "  policyRef: {kind: Extension, name: jwt-validation-flex}\n"
				   "  order: 1\n"
				   "  config:\n"
				   "    jwtOrigin: httpBearerAuthenticationHeader\n"
				   "    signingMethod: rsa\n"
				   "    signingKeyLength: 256\n"
				   "    jwtKeyOrigin: jwks\n"
				   "    jwksUrl: %k\n"
				   "    jwksServiceTimeToLive: 60\n"
				   "    validateAudClaim: true\n"
				   "    mandatoryAudClaim: true\n"
				   "    supportedAudiences: %a\n"
				   "    mandatoryExpClaim: true\n"
				   "    mandatoryNbfClaim: false\n"
				   "    skipClientIdValidation: true\n"
				   "    clientIdExpression: \"#[vars.claimSet.client_id]\"\n"
				   "    validateCustomClaim: true\n"
				   "    mandatoryCustomClaims: [{key: iss, value: %i}]\n";

static const char policy_json[] = "{\n"
				  "  \"groupId\": \"68ef9520-24e9-4cf2-b2f5-620025690913\",\n"
				  "  \"assetId\": \"jwt-validation\",\n"
				  "  \"assetVersion\": \"1.4.0\",\n"
				  "  \"order\": 1,\n"
				  "  \"configurationData\": {\n"
				  "    \"jwtOrigin\": \"httpBearerAuthenticationHeader\",\n"
				  "    \"signingMethod\": \"rsa\",\n"
				  "    \"signingKeyLength\": 256,\n"
				  "    \"jwtKeyOrigin\": \"jwks\",\n"
				  "    \"jwksUrl\": %k,\n"
				  "    \"jwksServiceTimeToLive\": 60,\n"
				  "    \"validateAudClaim\": true,\n"
				  "    \"mandatoryAudClaim\": true,\n"
				  "    \"supportedAudiences\": %a,\n"
				  "    \"mandatoryExpClaim\": true,\n"
				  "    \"mandatoryNbfClaim\": false,\n"
				  "    \"skipClientIdValidation\": true,\n"
				  "    \"clientIdExpression\": \"#[vars.claimSet.client_id]\",\n"
				  "    \"validateCustomClaim\": true,\n"
				  "    \"mandatoryCustomClaims\": [{\"key\": \"iss\", \"value\": %i}]\n"
				  "  }\n"
				  "}\n";

static const struct {
	const char *name, *text, *what;
} files[] = {
	{"agent.yaml", agent_yaml, "where the keys are shown"},
	{"issuers.yaml", issuers_yaml, "a CA and a token issuer"},
	{"credentials.yaml", credentials_yaml, "Certificate, Token and Consumer of the caller"},
	{"mesh.yaml", mesh_yaml, "PeerAuthentication, RequestAuthentication, AuthorizationPolicy"},
	{"gateway.yaml", gateway_yaml, "Flex Gateway: ApiInstance and PolicyBinding"},
	{"api-manager-policy.json", policy_json, "API Manager: the same policy for its API"},
};
#define FILE_COUNT (sizeof(files) / sizeof(files[0]))

static void add_keys(const struct params *p, struct kt_buf *out)
{
	struct kt_buf url KT_AUTOBUF = {0};
	size_t len = strlen(p->issuer);

	kt_buf_init(&url, 4096);
	kt_buf_add(&url, p->issuer, len > 0 && p->issuer[len - 1] == '/' ? len - 1 : len);
	kt_buf_adds(&url, "/jwks.json");
	kt_buf_add_json(out, kt_buf_view(&url));
}

static void add_principal(const struct params *p, struct kt_buf *out)
{
	struct kt_buf text KT_AUTOBUF = {0};

	kt_buf_init(&text, 4096);
	kt_buf_addf(&text, "%s/orders", p->issuer);
	kt_buf_add_json(out, kt_buf_view(&text));
}

static void render(const struct params *p, const char *text, struct kt_buf *out)
{
	for (; *text != '\0'; text++) {
		if (*text != '%') {
			kt_buf_addc(out, *text);
			continue;
		}
		switch (*++text) {
		case 'n':
			kt_buf_add_json(out, kt_view_str(p->ns));
			break;
		case 'a':
			kt_buf_add_json(out, kt_view_str(p->audience));
			break;
		case 'i':
			kt_buf_add_json(out, kt_view_str(p->issuer));
			break;
		case 'k':
			add_keys(p, out);
			break;
		case 's':
			kt_buf_add_json(out, kt_view_str(p->spiffe));
			break;
		case 'p':
			kt_buf_add_json(out, kt_view_str(p->spiffe + strlen("spiffe://")));
			break;
		default: /* r */
			add_principal(p, out);
			break;
		}
	}
}

/* --- what is asked for ---------------------------------------- */

static bool is_url(const char *text)
{
	return (kt_starts_with(text, "https://") && text[8] != '\0') ||
	       (kt_starts_with(text, "http://") && text[7] != '\0');
}

/* Printable ASCII without blanks, and nothing that a list of audiences or a pattern is cut at. */
static bool is_plain(const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < len; i++) {
		if (text[i] <= ' ' || text[i] > '~' || strchr("\"\\,*", text[i]) != NULL) {
			return false;
		}
	}
	return len > 0 && len <= 1024;
}

static bool is_spiffe(const char *text)
{
	const char *path = kt_starts_with(text, "spiffe://") ? strchr(text + 9, '/') : NULL;

	return path != NULL && path > text + 9 && path[1] != '\0' && is_plain(text) && !kt_ends_with(text, "/");
}

static enum kt_code take_params(const struct kt_cli *cli, struct params *p, struct kt_err *err)
{
	static const char *const kinds[] = {"mulesoft-downstream", NULL};
	const char *kind = kt_cli_value(cli, "for");
	const char *spiffe = kt_cli_value(cli, "spiffe-id");
	const char *near;

	if (kind == NULL) {
		return kt_err_set(err, KT_E_INVALID, "say what for: --for mulesoft-downstream");
	}
	if (strcmp(kind, kinds[0]) != 0) {
		near = kt_nearest(kind, kinds);
		return kt_err_set(err, KT_E_INVALID, "--for takes mulesoft-downstream, not '%s'%s", kind,
				  near != NULL ? ": did you mean that?" : "");
	}
	p->dir = kt_cli_value(cli, "dir") != NULL ? kt_cli_value(cli, "dir") : ".";
	p->ns = kt_cli_value(cli, "namespace") != NULL ? kt_cli_value(cli, "namespace") : "default";
	p->audience = kt_cli_value(cli, "api-audience") != NULL ? kt_cli_value(cli, "api-audience")
								: "https://payments.example/api";
	p->issuer =
		kt_cli_value(cli, "issuer-url") != NULL ? kt_cli_value(cli, "issuer-url") : "https://tokens.example";
	if (!kt_dns1123_subdomain(p->ns) || strchr(p->ns, '.') != NULL) {
		return kt_err_set(err, KT_E_INVALID, "--namespace takes a name such as payments, not '%s'", p->ns);
	}
	if (!is_plain(p->audience)) {
		return kt_err_set(err, KT_E_INVALID, "--api-audience takes a URL or another word, not '%s'",
				  p->audience);
	}
	if (!is_url(p->issuer) || !is_plain(p->issuer)) {
		return kt_err_set(err, KT_E_INVALID, "--issuer-url takes an http or https URL, not '%s'", p->issuer);
	}
	p->spiffe = spiffe != NULL ? kt_strdup(spiffe) : kt_asprintf("spiffe://cluster.local/ns/%s/sa/orders", p->ns);
	if (p->spiffe == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "no memory for an identity");
	}
	if (!is_spiffe(p->spiffe)) {
		return kt_err_set(err, KT_E_INVALID,
				  "--spiffe-id takes an identity such as spiffe://cluster.local/ns/default/sa/orders, "
				  "not '%s'",
				  p->spiffe);
	}
	return KT_OK;
}

/* --- files ---------------------------------------- */

/* Nothing is written unless everything can be. */
static enum kt_code look(int dir, const struct params *p, struct kt_err *err)
{
	struct stat info;

	for (size_t i = 0; i < FILE_COUNT; i++) {
		if (fstatat(dir, files[i].name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
			return kt_err_set(err, KT_E_INVALID,
					  "%s/%s is there already; nothing was written: say --dir for another folder",
					  p->dir, files[i].name);
		}
	}
	return KT_OK;
}

static enum kt_code write_one(int dir, const struct params *p, size_t index, struct kt_err *err)
{
	struct kt_buf text KT_AUTOBUF = {0};
	enum kt_code code;
	int fd;

	kt_buf_init(&text, FILE_MAX);
	render(p, files[index].text, &text);
	code = kt_buf_check(&text, files[index].name, err);
	if (code != KT_OK) {
		return code;
	}
	fd = openat(dir, files[index].name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0) {
		return kt_err_sys(err, "%s/%s can't be written", p->dir, files[index].name);
	}
	code = kt_io_write_all(fd, text.ptr, text.len, files[index].name, err);
	if (code == KT_OK && fsync(fd) != 0) {
		code = kt_err_sys(err, "%s/%s can't be written", p->dir, files[index].name);
	}
	(void)close(fd);
	return code;
}

static enum kt_code write_set(const struct kt_cli *cli, const struct params *p, struct kt_err *err)
{
	enum kt_code code;
	int dir;

	if (mkdir(p->dir, 0755) != 0 && errno != EEXIST) {
		return kt_err_sys(err, "the folder %s can't be made", p->dir);
	}
	dir = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0) {
		return kt_err_sys(err, "the folder %s can't be opened", p->dir);
	}
	code = look(dir, p, err);
	for (size_t i = 0; i < FILE_COUNT && code == KT_OK; i++) {
		code = write_one(dir, p, i, err);
		if (code == KT_OK && !cli->quiet && cli->format < KT_FORMAT_JSON) {
			(void)printf("%s/%s: %s\n", p->dir, files[i].name, files[i].what);
		}
	}
	(void)fsync(dir);
	(void)close(dir);
	return code;
}

int kt_cli_init(struct kt_cli *cli)
{
	struct params params = {.dir = NULL};
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = take_params(cli, &params, &err);
	if (code == KT_OK) {
		code = write_set(cli, &params, &err);
	}
	if (code == KT_OK && cli->format >= KT_FORMAT_JSON) {
		json_t *value KT_AUTOJSON = json_pack("{s:s,s:[]}", "dir", params.dir, "files");

		for (size_t i = 0; i < FILE_COUNT; i++) {
			(void)json_array_append_new(json_object_get(value, "files"), json_string(files[i].name));
		}
		kt_cli_print_value(cli, stdout, value);
	} else if (code == KT_OK && !cli->quiet) {
		(void)printf("next: keyturn -c %s check\n", params.dir);
	}
	kt_free(params.spiffe);
	return code == KT_OK ? KT_EXIT_OK : kt_cli_fail(&err);
}
