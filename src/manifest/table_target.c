/* The field tables of a Consumer's targets: where a set is uploaded to. */
#include <ctype.h>
#include <string.h>

#include "manifest/rows.h"

static const struct kt_enum_name types[] = {
	{"PEM", KT_STORE_PEM}, {"PKCS12", KT_STORE_PKCS12}, {"JKS", KT_STORE_JKS}, {NULL, 0}};

const char *kt_store_type_name(enum kt_store_type type)
{
	return kt_enum_text(types, (int)type);
}

/* A host, with a port or without. */
static const char *check_host(const char *text)
{
	return strchr(text, ':') ? kt_value_address(text) : kt_value_dns_domain(text) || *text == '.' ?
	       "is not a host such as eu1.anypoint.mulesoft.com" : NULL;
}

/* It stands in a URL's path as it is. */
static const char *check_id(const char *text)
{
	size_t len = strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-");

	return len > 0 && len <= 50 && text[len] == '\0' ? NULL : "is not an id such as fc1579cf-a5ba-486f-925c-d537c22eff54";
}

/* As Secrets Manager wants it. */
static const char *check_store_name(const char *text)
{
	size_t len = strlen(text);

	return len >= 3 && len <= 35 && isalpha((unsigned char)text[0]) &&
			       strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == len
		       ? NULL
		       : "must have 3 to 35 letters, digits and '-', a letter first";
}

typedef struct kt_anypoint_secret_group group;

static const struct kt_field group_rows[] = {
	ROW("alias", KT_F_STRING, group, alias, .check = kt_value_printable, .max = 64,
	    DOC "Name of the entry in a PKCS12 or JKS keystore; `certificate` when absent."),
	ROW("caBundle", KT_F_BYTES, group, api.ca_bundle, DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("environment", KT_F_STRING, group, environment, REQUIRED, .check = check_id, DOC "Id of the environment."),
	ROW("host", KT_F_STRING, group, api.host, .def_text = "anypoint.mulesoft.com", .check = check_host,
	    DOC "The control plane, such as eu1.anypoint.mulesoft.com; with a port where it is not 443."),
	ROW("name", KT_F_STRING, group, api.name, REQUIRED, .check = check_store_name,
	    DOC "Name of the keystore; it is made when the group has none of that name."),
	ROW("organization", KT_F_STRING, group, api.organization, REQUIRED, .check = check_id,
	    DOC "Id of the organization or business group."),
	ROW("secretGroup", KT_F_STRING, group, secret_group, REQUIRED, .check = check_id, DOC "Id of the secret group."),
	ROW("timeout", KT_F_DURATION, group, api.timeout, .def = 10 * KT_SECOND, .min = KT_SECOND, .max = 10 * KT_SECOND,
	    DOC "How long an answer may take."),
	ROW("tokenRef", KT_F_STRING, group, api.token_ref, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Token (a connected app's, by a TokenIssuer with profile: Anypoint) that may write secrets."),
	ROW("type", KT_F_ENUM, group, type, .def = KT_STORE_PEM, .names = types,
	    DOC "PEM for Flex Gateway, PKCS12 or JKS for Mule."),
};

static void check_group(struct kt_decoder *d, const struct kt_node *node, void *object)
{
	const group *g = object;

	if (g->type == KT_STORE_PEM && g->alias)
		kt_complain(d, node, "alias", "is of PKCS12 and JKS keystores only; leave it out");
}

static const struct kt_table group_table =
	TABLE("AnypointSecretGroup", group, group_rows, .check = check_group,
	      .doc = "A keystore in a secret group of Anypoint's Secrets Manager.");

typedef struct kt_anypoint_private_space space;

static const struct kt_field space_rows[] = {
	ROW("caBundle", KT_F_BYTES, space, api.ca_bundle, DOC "PEM in base64: the roots to trust instead of the system's."),
	ROW("host", KT_F_STRING, space, api.host, .def_text = "anypoint.mulesoft.com", .check = check_host,
	    DOC "The control plane, such as eu1.anypoint.mulesoft.com; with a port where it is not 443."),
	ROW("name", KT_F_STRING, space, api.name, REQUIRED, .check = kt_value_printable, .max = 128,
	    DOC "Name of the TLS context, which must be there; its ciphers and trust store stay as they are."),
	ROW("organization", KT_F_STRING, space, api.organization, REQUIRED, .check = check_id,
	    DOC "Id of the organization or business group."),
	ROW("privateSpace", KT_F_STRING, space, private_space, REQUIRED, .check = check_id, DOC "Id of the private space."),
	ROW("timeout", KT_F_DURATION, space, api.timeout, .def = 10 * KT_SECOND, .min = KT_SECOND, .max = 10 * KT_SECOND,
	    DOC "How long an answer may take."),
	ROW("tokenRef", KT_F_STRING, space, api.token_ref, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Token that may manage the private space."),
};
static const struct kt_table space_table =
	TABLE("AnypointPrivateSpace", space, space_rows, .doc = "The keystore of a TLS context in a CloudHub 2.0 private space.");

static const struct kt_field target_rows[] = {
	ROW("anypointPrivateSpace", KT_F_OBJECT, struct kt_target, private_space, CHOICE, OF(space_table),
	    DOC "The keystore of a TLS context in a CloudHub 2.0 private space."),
	ROW("anypointSecretGroup", KT_F_OBJECT, struct kt_target, secret_group, CHOICE, OF(group_table),
	    DOC "A keystore in a secret group of Anypoint's Secrets Manager."),
	ROW("secret", KT_F_STRING, struct kt_target, secret, REQUIRED, .check = kt_value_name,
	    DOC "secretName of the Certificate."),
};
const struct kt_table kt_table_target = TABLE("Target", struct kt_target, target_rows, .choice_min = 1, .choice_max = 1,
					      .doc = "Where a set is uploaded to.");
