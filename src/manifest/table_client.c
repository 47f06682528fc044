/* The field table of ClientCredential, and the checks across its fields. */
#include <string.h>

#include "manifest/rows.h"

static const struct kt_enum_name strategies[] = {
	{"InPlace", KT_CLIENT_IN_PLACE}, {"AlternateClients", KT_CLIENT_ALTERNATE}, {NULL, 0}};
static const struct kt_enum_name anypoint_kinds[] = {{"ConnectedApp", KT_ANYPOINT_CONNECTED_APP},
						     {"EnvironmentClient", KT_ANYPOINT_ENVIRONMENT_CLIENT},
						     {"ApplicationContract", KT_ANYPOINT_APPLICATION_CONTRACT},
						     {NULL, 0}};
static const struct kt_enum_name test_methods[] = {{"client_secret_post", KT_AUTH_SECRET_POST},
						   {"client_secret_basic", KT_AUTH_SECRET_BASIC},
						   {"private_key_jwt", KT_AUTH_PRIVATE_KEY_JWT},
						   {NULL, 0}};

SECRET_REF_TABLE(client_secret_table, "client-secret");

static const struct kt_field client_rows[] = {
	ROW("clientID", KT_F_STRING, struct kt_client, client_id, REQUIRED, .check = kt_value_printable, .max = 127,
	    DOC "client_id at the server."),
	ROW("id", KT_F_STRING, struct kt_client, id, .check = kt_value_segment, .max = 127,
	    DOC "What the management API calls it (a contract's application id, Okta's id of the application); clientID "
		"when absent."),
	ROW("secretRef", KT_F_STRUCT, struct kt_client, secret, .flags = KT_F_OPTIONAL, OF(client_secret_table),
	    DOC "Where the secret is kept that the client has now; key `client-secret` when absent. With `static` what is "
		"delivered; else the first one that is delivered, so that nothing is reset before the first rotation."),
};
static const struct kt_table client_table =
	TABLE("RegisteredClient", struct kt_client, client_rows, .doc = "A client as its server knows it.");

static const struct kt_field static_rows[] = {
	ROW("source", KT_F_STRING, struct kt_client_static, source, .check = kt_value_printable, .def_text = "store",
	    DOC "Where the value comes from; only `store`."),
};
static const struct kt_table static_table =
	TABLE("StaticClient", struct kt_client_static, static_rows, .doc = "A value of the store, only delivered.");

static const struct kt_field anypoint_rows[] = {
	ROW("caBundle", KT_F_BYTES, struct kt_client_anypoint, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("kind", KT_F_ENUM, struct kt_client_anypoint, kind, .def = KT_ANYPOINT_CONNECTED_APP, .names = anypoint_kinds,
	    DOC "What the client is at Anypoint: a connected app, an environment's client, or an application with contracts "
		"to APIs."),
	ROW("organization", KT_F_STRING, struct kt_client_anypoint, organization, .check = kt_value_segment, .max = 127,
	    DOC "Id of the organization; needed except for a connected app."),
	ROW("tokenRef", KT_F_STRING, struct kt_client_anypoint, token_ref, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Token with which a secret is reset."),
	ROW("url", KT_F_STRING, struct kt_client_anypoint, url, .def_text = "https://anypoint.mulesoft.com",
	    .check = kt_value_url, DOC "Control plane: `https://eu1.anypoint.mulesoft.com` and so on."),
};

static void check_anypoint(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_client_anypoint *anypoint = object;

	if (anypoint->kind != KT_ANYPOINT_CONNECTED_APP && !anypoint->organization)
		kt_complain(d, node, "organization", "is needed for kind %s", kt_enum_text(anypoint_kinds, (int)anypoint->kind));
}

static const struct kt_table anypoint_table = TABLE("AnypointClient", struct kt_client_anypoint, anypoint_rows,
						    .check = check_anypoint, .doc = "A client of the Anypoint platform.");

static const struct kt_field okta_rows[] = {
	ROW("caBundle", KT_F_BYTES, struct kt_client_okta, ca_bundle,
	    DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("orgURL", KT_F_STRING, struct kt_client_okta, org_url, REQUIRED, .check = kt_value_url,
	    DOC "The organization's own: `https://acme.okta.com`."),
	ROW("tokenRef", KT_F_STRING, struct kt_client_okta, token_ref, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Token (scope okta.apps.manage) with which secrets are added and deleted."),
};
static const struct kt_table okta_table =
	TABLE("OktaClient", struct kt_client_okta, okta_rows, .doc = "An application of an Okta organization.");

static const struct kt_field hosted_rows[] = {
	ROW("jwksURL", KT_F_STRING, struct kt_client_hosted, jwks_url, REQUIRED, .check = kt_value_url,
	    DOC "Where the client's server reads the public keys (its `jwks_uri`); the Agent's listener `jwks` answers at the path "
		"of this URL."),
	ROW("publishJWKS", KT_F_STRUCT, struct kt_client_hosted, publish_jwks, OF(kt_table_publish_jwks),
	    DOC "Where the public keys are shown."),
};

static void check_hosted(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const struct kt_client_hosted *hosted = object;
	const char *host = hosted->jwks_url ? strstr(hosted->jwks_url, "://") : NULL;
	const char *path = host ? strchr(host + 3, '/') : NULL;

	if (host && (!path || !path[1] || strpbrk(path, "?#") || strlen(path) > 255))
		kt_complain(d, node, "jwksURL", "needs a path (255 characters at most) and no query: the keys are served at it");
	if (!hosted->publish_jwks.listener && !hosted->publish_jwks.volume)
		kt_warn(d, node, "publishJWKS", "shows the keys nowhere: the server can't verify the client");
}

static const struct kt_table hosted_table = TABLE("HostedClient", struct kt_client_hosted, hosted_rows, .check = check_hosted,
						  .doc = "A client whose server reads its public keys from a URL of ours.");

static const struct kt_field issuer_rows[] = {
	ROW("anypoint", KT_F_OBJECT, struct kt_client_issuer, anypoint, CHOICE, OF(anypoint_table),
	    DOC "Anypoint: a reset answers with the new secret, and the old one is refused from then on."),
	ROW("hosted", KT_F_OBJECT, struct kt_client_issuer, hosted, CHOICE, OF(hosted_table),
	    DOC "Any server that reads the client's public keys from a URL; with `privateKey` only."),
	ROW("okta", KT_F_OBJECT, struct kt_client_issuer, okta, CHOICE, OF(okta_table),
	    DOC "Okta: the new secret or key is added beside the old one, which is deleted when nobody uses it."),
	ROW("static", KT_F_OBJECT, struct kt_client_issuer, fixed, CHOICE, OF(static_table),
	    DOC "Nobody rotates it: what the store has is delivered, and again when it is set anew."),
};
static const struct kt_table issuer_table = TABLE("ClientIssuer", struct kt_client_issuer, issuer_rows, .choice_min = 1,
						  .choice_max = 1, .doc = "Where the clients are registered.");

static const struct kt_field test_rows[] = {
	ROW("audience", KT_F_STRING, struct kt_client_test, audience, .check = kt_value_printable, .max = 2048,
	    DOC "`aud` of the assertion, with `privateKey`; the token endpoint when absent."),
	ROW("caBundle", KT_F_BYTES, struct kt_client_test, ca_bundle,
	    DOC "PEM in base64: the roots to trust; those of the issuer when absent."),
	ROW("method", KT_F_ENUM, struct kt_client_test, method, .def = KT_AUTH_SECRET_POST, .names = test_methods,
	    DOC "How the client shows its secret; with `privateKey` always private_key_jwt."),
	ROW("scopes", KT_F_STRINGS, struct kt_client_test, scopes, .check = kt_value_scope, .max = 100,
	    DOC "Scopes to ask for."),
	ROW("tokenURL", KT_F_STRING, struct kt_client_test, token_url, REQUIRED, .check = kt_value_url,
	    DOC "The token endpoint."),
};
static const struct kt_table test_table =
	TABLE("ClientTest", struct kt_client_test, test_rows, .doc = "A token that is asked for with a secret, and thrown away.");

static const struct kt_field key_rows[] = {
	ROW("algorithm", KT_F_ENUM, struct kt_client_key, algorithm, .def = KT_ASSERTION_ES256, .names = kt_assertion_algs,
	    DOC "Signature of the assertions; RSA keys have 2048 bits."),
	ROW("publishAhead", KT_F_DURATION, struct kt_client_key, publish_ahead, .def = KT_HOUR, .min = 0, .max = 30 * KT_DAY,
	    DOC "With `hosted`: a new key is shown so long before its first use: at least the longest time that the server keeps "
		"the JWKS. The very first key is used at once."),
};
static const struct kt_table key_table =
	TABLE("ClientKey", struct kt_client_key, key_rows, .doc = "A key pair made by the keeper, for private_key_jwt (RFC 7523).");

typedef struct kt_client_credential_spec client;

static const struct kt_field spec_rows[] = {
	ROW("clients", KT_F_LIST, client, clients, REQUIRED, OF(client_table), .max = 2,
	    DOC "The registered client, or the two that take turns."),
	ROW("drain", KT_F_DURATION, client, drain, .def = 10 * KT_MINUTE, .max = 30 * KT_DAY,
	    DOC "After the switch, the secret before stays untouched at least so long: the other client is not reset, Okta's "
		"old secret or key not deleted, the old key still shown in the JWKS."),
	ROW("issuer", KT_F_STRUCT, client, issuer, REQUIRED, OF(issuer_table), DOC "Where the clients are registered."),
	ROW("privateKey", KT_F_OBJECT, client, private_key, OF(key_table),
	    DOC "The client shows itself by a key in place of a secret: for `hosted` and `okta`."),
	ROW("rotationInterval", KT_F_DURATION, client, rotation_interval, .def = 30 * KT_DAY, .min = 5 * KT_SECOND,
	    .max = 3660 * KT_DAY, DOC "How long a secret is in use."),
	ROW("secretName", KT_F_STRING, client, secret_name, REQUIRED, .check = kt_value_name,
	    DOC "Name of the secret volume (client-id, client-secret, credentials.json; with `privateKey` client-id, tls.key, "
		"client.jwk); one owner each."),
	ROW("strategy", KT_F_ENUM, client, strategy, .def = KT_CLIENT_IN_PLACE, .names = strategies,
	    DOC "InPlace: the one client gets a new secret. AlternateClients: the idle one of two does, and is switched to: where "
		"a reset has no overlap no caller is ever refused."),
	ROW("test", KT_F_OBJECT, client, test, OF(test_table),
	    DOC "Where a secret is tried before anybody gets it; for a connected app Anypoint's token endpoint when absent."),
};

static void check_clients(struct kt_decoder *d, const struct kt_node *node, const client *c)
{
	bool two = c->strategy == KT_CLIENT_ALTERNATE;

	if (two && c->clients.count != 2)
		kt_complain(d, node, "clients", "must be two for strategy AlternateClients");
	else if (!two && c->clients.count > 1)
		kt_complain(d, node, "clients", "are two: give strategy AlternateClients, or one client");
	if (c->clients.count == 2 && c->clients.items[0].client_id && c->clients.items[1].client_id &&
	    !strcmp(c->clients.items[0].client_id, c->clients.items[1].client_id))
		kt_complain(d, node, "clients", "are the same client twice (%s)", c->clients.items[0].client_id);
	for (uint32_t i = 0; i < c->clients.count; i++) {
		const struct kt_client *one = &c->clients.items[i];
		char at[32];

		(void)snprintf(at, sizeof(at), "clients[%u]", i);
		if (c->issuer.fixed && !one->secret.name)
			kt_complain(d, node, at, "needs a secretRef: static delivers what the store has");
		if (one->secret.name && c->secret_name && !strcmp(one->secret.name, c->secret_name))
			kt_complain(d, node, at, "has a secretRef (%s) that is spec.secretName itself; keep the first secret under "
				    "another name", c->secret_name);
		if (!c->issuer.fixed && !c->issuer.hosted && !one->id && one->client_id && kt_value_segment(one->client_id))
			kt_complain(d, node, at, "needs an id: clientID %s", kt_value_segment(one->client_id));
	}
}

static void check_key(struct kt_decoder *d, const struct kt_node *node, const client *c)
{
	if (c->issuer.hosted && !c->private_key)
		kt_complain(d, node, "issuer", "hosted shows public keys: it needs spec.privateKey");
	if (!c->private_key) {
		if (c->test && c->test->method == KT_AUTH_PRIVATE_KEY_JWT)
			kt_complain(d, node, "test", "method private_key_jwt needs spec.privateKey");
		return;
	}
	if (!c->issuer.hosted && !c->issuer.okta)
		kt_complain(d, node, "privateKey", "is for the issuers hosted and okta");
	if (c->issuer.okta && c->private_key->algorithm == KT_ASSERTION_EDDSA)
		kt_complain(d, node, "privateKey", "algorithm EdDSA: Okta takes RSA and EC keys");
	if (c->clients.count && c->clients.items[0].secret.name)
		kt_complain(d, node, "clients[0].secretRef", "is for secrets; the key of spec.privateKey is made here");
	if (!c->test)
		kt_complain(d, node, "test", "is needed with privateKey: a key is tried before it is used");
	if (c->issuer.hosted && c->private_key->publish_ahead + c->drain >= c->rotation_interval)
		kt_complain(d, node, "rotationInterval", "must be longer than privateKey.publishAhead and drain together");
}

static void check_spec(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const client *c = object;

	check_clients(d, node, c);
	check_key(d, node, c);
	if (c->strategy == KT_CLIENT_ALTERNATE && !c->issuer.anypoint)
		kt_complain(d, node, "strategy", "AlternateClients is for issuers whose resets have no overlap: anypoint");
	if (c->issuer.okta && !c->private_key && !c->test)
		kt_complain(d, node, "test", "is needed for okta: a secret is tried at the authorization server that its tokens come from");
	if (c->issuer.anypoint && c->strategy == KT_CLIENT_IN_PLACE)
		kt_warn(d, node, "strategy", "InPlace: from the reset until the consumers have the new secret they are refused; "
			"AlternateClients has no such gap");
}

static const struct kt_table spec_table =
	TABLE("ClientCredentialSpec", client, spec_rows, .check = check_spec, .doc = "What is wanted.");

static const struct kt_field top_rows[] = {
	FIXED("apiVersion", "keyturn.dev/v1alpha1"),
	FIXED("kind", "ClientCredential"),
	ROW("metadata", KT_F_STRUCT, struct kt_resource, meta, REQUIRED, OF(kt_table_meta), DOC "Name and namespace."),
	ROW("spec", KT_F_STRUCT, struct kt_resource, client, REQUIRED, OF(spec_table), DOC "What is wanted."),
	STATUS_ROW,
};

const struct kt_table kt_table_client_credential =
	TABLE("ClientCredential", struct kt_resource, top_rows, .doc = "A client's id and secret, or id and key.");
