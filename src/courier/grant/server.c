/* What is remembered of a token server from one request to the next: its DPoP nonce and how its clock stands to ours.
 */
#include <string.h>

#include "courier/grant/grant_internal.h"

static void server_destroy(struct grant_server *server)
{
	if (server != NULL) {
		kt_free(server->nonce);
		kt_free(server);
	}
}

struct grant_server *grant_server_get(struct kt_grant *grant, const char *url)
{
	uint8_t hash[KT_SHA256_LEN];
	struct grant_server *server, **at = &grant->servers;
	unsigned count = 0;

	kt_sha256(url, strlen(url), hash);
	while (*at != NULL && memcmp((*at)->hash, hash, sizeof(hash)) != 0) {
		if (++count >= GRANT_SERVERS_MAX && (*at)->next == NULL) { /* the last one has been idle longest */
			server_destroy(*at);
			*at = NULL;
		} else {
			at = &(*at)->next;
		}
	}
	server = *at;
	if (server != NULL) {
		*at = server->next;
	} else {
		server = kt_calloc(1, sizeof(*server));
		if (server == NULL) {
			return NULL;
		}
		memcpy(server->hash, hash, sizeof(hash));
	}
	server->next = grant->servers;
	grant->servers = server;
	return server;
}

int64_t grant_skew(int64_t date_skew)
{
	if (date_skew > GRANT_SKEW_MAX || date_skew < -GRANT_SKEW_MAX) {
		return 0;
	}
	return date_skew >= GRANT_SKEW_RETRY || date_skew <= -GRANT_SKEW_RETRY ? date_skew : 0;
}

/* RFC 9449 section 8.1: NQCHAR. */
static bool nonce_ok(const char *text)
{
	size_t len = strnlen(text, GRANT_NONCE_MAX + 1);

	for (size_t i = 0; i < len; i++) {
		if (text[i] < 0x21 || text[i] > 0x7e || text[i] == '"' || text[i] == '\\') {
			return false;
		}
	}
	return len > 0 && len <= GRANT_NONCE_MAX;
}

void grant_server_learn(struct grant_server *server, const struct kt_http_reply *reply)
{
	const char *nonce = reply->headers[KT_HTTP_DPOP_NONCE];
	char *copy;

	if (server == NULL) {
		return;
	}
	if (reply->headers[KT_HTTP_DATE] != NULL) {
		server->skew = grant_skew(reply->date_skew);
	}
	if (nonce != NULL && nonce_ok(nonce) && (server->nonce == NULL || strcmp(server->nonce, nonce) != 0)) {
		copy = kt_strdup(nonce);
		if (copy != NULL) {
			kt_free(server->nonce);
			server->nonce = copy;
		}
	}
}

void grant_servers_destroy(struct kt_grant *grant)
{
	while (grant->servers != NULL) {
		struct grant_server *server = grant->servers;

		grant->servers = server->next;
		server_destroy(server);
	}
}
