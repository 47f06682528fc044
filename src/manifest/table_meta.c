/* The field tables of metadata and of the v1 Secret, and the list of kinds. */
#include <stdlib.h>
#include <string.h>

#include "kt/text.h"
#include "manifest/rows.h"

#define BY_CLUSTER "Set by a cluster; has no meaning here."

static const struct kt_field meta_rows[] = {
	ROW("annotations", KT_F_PAIRS, struct kt_meta, annotations, .check_key = kt_value_label_key, .max = 256,
	    DOC
	    "Free notes. Those under `keyturn.dev/` have a meaning and are named with the kind that they belong to."),
	IGNORED("creationTimestamp", BY_CLUSTER),
	IGNORED("deletionGracePeriodSeconds", BY_CLUSTER),
	IGNORED("deletionTimestamp", BY_CLUSTER),
	IGNORED("finalizers", BY_CLUSTER),
	REFUSED("generateName", "a resource here needs a name that stays; write metadata.name"),
	IGNORED("generation", BY_CLUSTER),
	ROW("labels", KT_F_PAIRS, struct kt_meta, labels, .check_key = kt_value_label_key, .max = 256,
	    DOC "Labels; an Issuer's solver can select by those of a Certificate."),
	IGNORED("managedFields", BY_CLUSTER),
	ROW("name", KT_F_STRING, struct kt_meta, name, REQUIRED, .check = kt_value_name,
	    DOC "Name of the resource, unique for its kind and namespace."),
	ROW("namespace", KT_F_STRING, struct kt_meta, ns, .check = kt_value_label,
	    DOC "Namespace; `default` when absent. Secrets of other namespaces lie in a folder of their own. Not for "
		"ClusterIssuer "
		"and Agent."),
	IGNORED("ownerReferences", BY_CLUSTER),
	IGNORED("resourceVersion", BY_CLUSTER),
	IGNORED("selfLink", BY_CLUSTER),
	IGNORED("uid", BY_CLUSTER),
};

static const char *const own_annotations[] = {
	"keyturn.dev/http01-webroot",   "keyturn.dev/fallback-issuers", "keyturn.dev/fallback-trust",
	"keyturn.dev/must-staple",      "keyturn.dev/renewal-info",     "keyturn.dev/staging-server",
	"keyturn.dev/rate-limits",      NULL};

static void check_meta(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_meta *meta = object;

	for (uint32_t i = 0; i < meta->annotations.count; i++) {
		const char *key = meta->annotations.items[i].key;
		bool known = strncmp(key, "keyturn.dev/", 12) != 0;
		const char *near;

		for (size_t k = 0; own_annotations[k]; k++)
			known |= !strcmp(key, own_annotations[k]);
		if (known)
			continue;
		near = kt_nearest(key, own_annotations);
		kt_complain(d, kt_node_get(node, "annotations"), NULL, "%s is not an annotation that keyturn knows%s%s%s",
			    key, near ? ", did you mean " : "; remove it", near ? near : "", near ? "?" : "");
	}
	if (meta->ns && d->kind && !d->kind->namespaced)
		kt_complain(d, node, "namespace", "(%s) is not for kind %s, which has no namespace; remove it",
			    meta->ns, d->kind->name);
	if (!meta->ns)
		meta->ns = d->kind && !d->kind->namespaced ? "" : "default";
}

const struct kt_table kt_table_meta =
	TABLE("Metadata", struct kt_meta, meta_rows, .check = check_meta, .doc = "Metadata as Kubernetes writes it.");

/* --- v1 Secret -------------------------------------------------------------------------------------------------- */

static int compare_items(const void *a, const void *b)
{
	return strcmp(((const struct kt_secret_item *)a)->key, ((const struct kt_secret_item *)b)->key);
}

/* data and stringData lie one after the other; stringData wins. Stable enough: equal keys are merged before sorting. */
static void check_secret(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	struct kt_secret_items *data = &((struct kt_resource *)object)->secret.data;
	uint32_t kept = 0;

	for (uint32_t i = 0; i < data->count; i++) {
		bool later = false;

		for (uint32_t k = i + 1; k < data->count && !later; k++)
			later = !strcmp(data->items[i].key, data->items[k].key);
		if (!later)
			data->items[kept++] = data->items[i];
	}
	data->count = kept;
	if (kept)
		qsort(data->items, kept, sizeof(*data->items), compare_items);
	kt_warn(d, node, "kind",
		"Secret lies readable in a file: fit for development; `keyturn secret set` keeps it sealed");
}

static const struct kt_field secret_rows[] = {
	FIXED("apiVersion", "v1"),
	ROW("data", KT_F_SECRETS, struct kt_resource, secret.data, .flags = KT_F_BASE64 | KT_F_QUIET, .max = 100,
	    DOC "Values in base64, at most 512 KiB each."),
	IGNORED("immutable", "Has no meaning here."),
	FIXED("kind", "Secret"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name and namespace."),
	ROW("stringData", KT_F_SECRETS, struct kt_resource, secret.data, .flags = KT_F_QUIET, .max = 100,
	    DOC "Values as text; they win over data."),
	ROW("type", KT_F_STRING, struct kt_resource, secret.type, .def_text = "Opaque", .check = kt_value_printable,
	    DOC "Kubernetes type of the Secret; not checked."),
};

const struct kt_table kt_table_secret = TABLE("Secret", struct kt_resource, secret_rows, .check = check_secret,
					      .doc = "A Secret in the manifests, for development.");

/* --- kinds
 * ------------------------------------------------------------------------------------------------------------- */

const struct kt_kind_info kt_kind_infos[KT_RES_COUNT] = {
	[KT_RES_NONE] = {KT_RES_NONE, "?", "", false, NULL, "", "", ""},
	[KT_RES_ISSUER] =
		{KT_RES_ISSUER, "Issuer", "cert-manager.io/v1", true, &kt_table_issuer, "issuer",
		 "Where certificates come from. As in a cluster; ClusterIssuer is the same without a namespace.",
		 "apiVersion: cert-manager.io/v1\n"
		 "kind: Issuer\n"
		 "metadata: {name: letsencrypt}\n"
		 "spec:\n"
		 "  acme:\n"
		 "    server: https://acme-v02.api.letsencrypt.org/directory\n"
		 "    email: ops@example.com\n"
		 "    privateKeySecretRef: {name: letsencrypt-account}\n"
		 "    solvers: [{http01: {ingress: {}}}]\n"},
	[KT_RES_CLUSTER_ISSUER] =
		{KT_RES_CLUSTER_ISSUER, "ClusterIssuer", "cert-manager.io/v1", false, &kt_table_issuer, "clusterissuer",
		 "An Issuer for Certificates of every namespace. Its Secrets are in namespace default.",
		 "apiVersion: cert-manager.io/v1\n"
		 "kind: ClusterIssuer\n"
		 "metadata: {name: self-signed}\n"
		 "spec: {selfSigned: {}}\n"},
	[KT_RES_CERTIFICATE] =
		{KT_RES_CERTIFICATE, "Certificate", "cert-manager.io/v1", true, &kt_table_certificate, "certificate",
		 "A certificate to be had, kept and renewed. As in a cluster, with one addition: durations under 1h "
		 "are accepted here (a cluster refuses them).",
		 "apiVersion: cert-manager.io/v1\n"
		 "kind: Certificate\n"
		 "metadata: {name: web}\n"
		 "spec:\n"
		 "  secretName: web-tls\n"
		 "  issuerRef: {name: letsencrypt}\n"
		 "  dnsNames: [www.example.com]\n"
		 "  privateKey: {algorithm: ECDSA}\n"},
	[KT_RES_SECRET] = {KT_RES_SECRET, "Secret", "v1", true, &kt_table_secret, "secret",
			   "A Secret in plain sight, for development. It takes part under its name like one from the "
			   "store; a warning "
			   "is given.",
			   "apiVersion: v1\n"
			   "kind: Secret\n"
			   "metadata: {name: okta-client}\n"
			   "stringData: {client-secret: not-a-real-one}\n"},
	[KT_RES_TOKEN_ISSUER] = {KT_RES_TOKEN_ISSUER, "TokenIssuer", "keyturn.dev/v1alpha1", true,
				 &kt_table_token_issuer, "tokenissuer",
				 "Where tokens come from: an OAuth 2.0 authorization server, or the embedded issuer.",
				 "apiVersion: keyturn.dev/v1alpha1\n"
				 "kind: TokenIssuer\n"
				 "metadata: {name: okta}\n"
				 "spec:\n"
				 "  oauth2:\n"
				 "    issuer: https://acme.okta.com/oauth2/aus1\n"
				 "    auth:\n"
				 "      method: client_secret_basic\n"
				 "      clientID: 0oa1\n"
				 "      clientSecretRef: {name: okta-client}\n"},
	[KT_RES_TOKEN] = {KT_RES_TOKEN, "Token", "keyturn.dev/v1alpha1", true, &kt_table_token, "token",
			  "A token to be had, kept and renewed.",
			  "apiVersion: keyturn.dev/v1alpha1\n"
			  "kind: Token\n"
			  "metadata: {name: orders-to-payments}\n"
			  "spec:\n"
			  "  secretName: payments-token\n"
			  "  issuerRef: {name: okta}\n"
			  "  audiences: [https://payments.example/api]\n"
			  "  scopes: [payments.write]\n"
			  "  outputs: [raw, header]\n"},
	[KT_RES_CONSUMER] =
		{KT_RES_CONSUMER, "Consumer", "keyturn.dev/v1alpha1", true, &kt_table_consumer, "consumer",
		 "Who uses secrets: where it wants them, how it is told, and how it shows that it uses the new ones.",
		 "apiVersion: keyturn.dev/v1alpha1\n"
		 "kind: Consumer\n"
		 "metadata: {name: edge}\n"
		 "spec:\n"
		 "  secrets: [web-tls]\n"
		 "  notify:\n"
		 "    - signal: {name: HUP, pidFile: /run/nginx.pid}\n"
		 "  prove:\n"
		 "    - {secret: web-tls, tls: {address: \"127.0.0.1:8443\", serverName: www.example.com}}\n"},
	[KT_RES_AGENT] = {KT_RES_AGENT, "Agent", "keyturn.dev/v1alpha1", false, &kt_table_agent, "agent",
			  "The settings of the agent itself; at most one in a set. Options on the command line win.",
			  "apiVersion: keyturn.dev/v1alpha1\n"
			  "kind: Agent\n"
			  "metadata: {name: agent}\n"
			  "spec:\n"
			  "  secretsDir: /run/keyturn/secrets\n"
			  "  listeners: {metrics: \"127.0.0.1:9402\", http01: \":80\"}\n"},
	[KT_RES_WATCH] =
		{KT_RES_WATCH, "Watch", "keyturn.dev/v1alpha1", true, &kt_table_watch, "watch",
		 "A credential that something else issues: it is read, warned about, and renewed by its own command.",
		 "apiVersion: keyturn.dev/v1alpha1\n"
		 "kind: Watch\n"
		 "metadata: {name: flex-registration}\n"
		 "spec:\n"
		 "  source:\n"
		 "    file: {path: /usr/local/share/mulesoft/flex-gateway/conf.d/registration.yaml}\n"
		 "  renewBefore: 720h\n"
		 "  renew:\n"
		 "    exec: {argv: [/etc/keyturn/renew-flex], user: root, timeout: 5m}\n"},
	[KT_RES_CLIENT_CREDENTIAL] =
		{KT_RES_CLIENT_CREDENTIAL, "ClientCredential", "keyturn.dev/v1alpha1", true, &kt_table_client_credential,
		 "clientcredential", "A client's id and secret, delivered like a certificate and rotated where it is registered.",
		 "apiVersion: keyturn.dev/v1alpha1\n"
		 "kind: ClientCredential\n"
		 "metadata: {name: orders-client}\n"
		 "spec:\n"
		 "  secretName: orders-client\n"
		 "  clients:\n"
		 "    - {clientID: 0fa2aa2f0aeb4978b96796a0843f898c}\n"
		 "    - {clientID: 7c1d5b0a9be44d0e8a3a4c8c2b6a1f5e}\n"
		 "  strategy: AlternateClients\n"
		 "  rotationInterval: 720h\n"
		 "  issuer:\n"
		 "    anypoint: {kind: ConnectedApp, tokenRef: anypoint-admin-token}\n"},
};
