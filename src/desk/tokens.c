/* Tokens for local processes: a question at the listener "tokens" goes to the keeper with the peer's credentials, who decides. */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "desk/desk.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

/*
 * GET /v1/token/NAMESPACE/NAME              the token in the secret volume of that name
 * POST /v1/token/NAMESPACE/NAME/invalidate  it was refused; ?sha256=HEX says which one
 * POST /invalidate?name=NAME                the same; namespace ("default" when absent) and sha256 may follow
 */
#define PREFIX "/v1/token/"
#define SUFFIX "/invalidate"

/*
 * At the listener "aws", where an SDK shows the token of a file instead of being known by its user:
 * GET /v1/aws/NAMESPACE/NAME  the session in the secret volume of that name
 */
#define AWS_PREFIX "/v1/aws/"
#define AWS_TOKEN_MAX 4096u

enum { SHA256_HEX = 64 };

struct kt_desk_given {
	struct kt_desk *desk;
	unsigned status;
	uint32_t retry_after;
	struct kt_secret *token; /* the body, or */
	struct kt_view body;
	char type[128];
	char sha256[SHA256_HEX + 1];
	char text[]; /* body's */
};

void kt_desk_given_destroy(struct kt_desk_given *given)
{
	if (!given)
		return;
	kt_secret_destroy(given->token);
	kt_free(given);
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static enum MHD_Result say(struct kt_desk_conn *conn, unsigned status, const char *text)
{
	struct MHD_Response *response = kt_desk_response_text(text);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	if ((status == MHD_HTTP_SERVICE_UNAVAILABLE &&
	     MHD_add_response_header(response, "Retry-After", "1") != MHD_YES) ||
	    (status == MHD_HTTP_METHOD_NOT_ALLOWED && MHD_add_response_header(response, "Allow", "POST") != MHD_YES)) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	result = MHD_queue_response(conn->mhd, status, response);
	MHD_destroy_response(response);
	return result;
}

static void forget_token(void *cls)
{
	kt_secret_destroy(cls);
}

/* The token stays in the locked arena while it is sent, and is wiped when that is over. */
static struct MHD_Response *secret_response(struct kt_desk_given *given)
{
	struct kt_view token = kt_secret_view(given->token);
	struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback_cls(
	        token.len, (void *)(uintptr_t)token.ptr, forget_token, given->token);
	char tag[SHA256_HEX + 3];

	if (!response)
		return NULL;
	given->token = NULL;
	(void)snprintf(tag, sizeof(tag), "\"%s\"", given->sha256);
	if (MHD_add_response_header(response, "Content-Type", given->type) == MHD_YES &&
	    MHD_add_response_header(response, "Cache-Control", "no-store") == MHD_YES &&
	    MHD_add_response_header(response, "Vary", "Accept") == MHD_YES &&
	    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff") == MHD_YES &&
	    MHD_add_response_header(response, "ETag", tag) == MHD_YES)
		return response;
	MHD_destroy_response(response);
	return NULL;
}

static enum MHD_Result reply(struct kt_desk_conn *conn)
{
	struct kt_desk_given *given = conn->given;
	struct MHD_Response *response;
	enum MHD_Result result = MHD_NO;
	char seconds[16];

	conn->given = NULL;
	if (!given)
		return say(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "the keeper can't answer now\n");
	response = given->token ? secret_response(given) : kt_desk_response(given->type, given->body, 0);
	(void)snprintf(seconds, sizeof(seconds), "%u", given->retry_after);
	if (response && (given->retry_after == 0 || MHD_add_response_header(response, "Retry-After", seconds) == MHD_YES))
		result = MHD_queue_response(conn->mhd, given->status, response);
	if (response)
		MHD_destroy_response(response);
	kt_desk_given_destroy(given);
	return result;
}

/* What the keeper said, kept until libmicrohttpd asks again. NULL: it is of no use, or there is no memory. */
static struct kt_desk_given *take(struct kt_msg_token_given *msg)
{
	struct kt_desk_given *given;

	if (msg->status < 200 || msg->status > 599 || msg->content_type.len >= sizeof(given->type) ||
	    msg->sha256.len > SHA256_HEX)
		return NULL;
	given = kt_calloc(1, sizeof(*given) + msg->body.len + 1);
	if (!given)
		return NULL;
	given->status = msg->status;
	given->retry_after = msg->retry_after;
	given->token = msg->token;
	msg->token = NULL;
	if (msg->body.len > 0)
		memcpy(given->text, msg->body.ptr, msg->body.len);
	given->body = (struct kt_view){given->text, msg->body.len};
	memcpy(given->type, msg->content_type.ptr, msg->content_type.len);
	memcpy(given->sha256, msg->sha256.ptr, msg->sha256.len);
	return given;
}

static void on_reply(const struct kt_err *err, enum kt_msg_type reply_type, void *msg, int *fds, unsigned fd_count,
                     void *arg)
{
	struct kt_desk_conn *conn = arg; /* there as long as it is suspended */

	(void)fds;
	(void)fd_count;
	if (!kt_desk_asked(conn))
		return;
	conn->given = err->code == KT_OK && reply_type == KT_TOKEN_GIVEN ? take(msg) : NULL;
	kt_desk_resume(conn);
}

/* --- questions ---------------------------------------------------------------------------------------------------- */

/* Accept: the first one that it names of both; token.json when it names neither and leaves it open. False: another. */
static bool wants(struct MHD_Connection *mhd, bool *ret_json)
{
	const char *accept = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Accept");
	const char *json, *text;

	*ret_json = true;
	if (!accept)
		return true;
	json = strcasestr(accept, "application/json");
	text = strcasestr(accept, "text/plain");
	*ret_json = json ? !text || json < text : !text;
	return json || text || strstr(accept, "*/*") || strcasestr(accept, "application/*");
}

static bool is_name(struct kt_view text)
{
	if (text.len == 0 || text.len > KT_NAME_MAX)
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-.", text.ptr[i]) || !text.ptr[i])
			return false;
	return true;
}

/* Fills op, ns and name from the path; false: there is no such path here. */
static bool read_path(struct MHD_Connection *mhd, const char *path, struct kt_msg_token_ask *ret)
{
	const char *slash, *end;

	if (strcmp(path, SUFFIX) == 0) {
		const char *ns = MHD_lookup_connection_value(mhd, MHD_GET_ARGUMENT_KIND, "namespace");
		const char *name = MHD_lookup_connection_value(mhd, MHD_GET_ARGUMENT_KIND, "name");

		ret->op = KT_VIEW_LIT("invalidate");
		ret->ns = kt_view_str(ns ? ns : "default");
		ret->name = kt_view_str(name ? name : "");
		return true;
	}
	if (!kt_starts_with(path, PREFIX))
		return false;
	path += strlen(PREFIX);
	slash = strchr(path, '/');
	if (!slash)
		return false;
	end = strchr(slash + 1, '/');
	if (end && strcmp(end, SUFFIX) != 0)
		return false;
	ret->op = end ? KT_VIEW_LIT("invalidate") : KT_VIEW_LIT("get");
	ret->ns = (struct kt_view){path, (size_t)(slash - path)};
	ret->name = (struct kt_view){slash + 1, end ? (size_t)(end - slash) - 1 : strlen(slash + 1)};
	return true;
}

/* sha256=HEX of a refused token into out (empty when absent); false: it is none. */
static bool read_sha256(struct MHD_Connection *mhd, char out[SHA256_HEX + 1])
{
	const char *text = MHD_lookup_connection_value(mhd, MHD_GET_ARGUMENT_KIND, "sha256");
	size_t i;

	out[0] = '\0';
	if (!text || !*text)
		return true;
	if (strlen(text) != SHA256_HEX || strspn(text, "0123456789abcdefABCDEF") != SHA256_HEX)
		return false;
	for (i = 0; i < SHA256_HEX; i++)
		out[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a' : text[i]);
	out[i] = '\0';
	return true;
}

/* Credentials as the kernel had them when the peer connected. */
static bool read_peer(struct kt_desk_conn *conn, uint32_t groups[], socklen_t *len, struct kt_msg_token_ask *ret)
{
	struct ucred cred;
	socklen_t cred_len = sizeof(cred);
	int fd = kt_desk_http_fd(conn);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) < 0)
		return false;
	ret->uid = cred.uid;
	ret->gid = cred.gid;
	ret->pid = cred.pid > 0 ? (uint32_t)cred.pid : 0;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, len) < 0)
		*len = 0; /* more than anybody has: those of the process itself count */
	ret->groups = (struct kt_view){(const char *)groups, *len};
	return true;
}

enum MHD_Result kt_desk_aws_answer(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path)
{
	const char *text = MHD_lookup_connection_value(conn->mhd, MHD_HEADER_KIND, "Authorization");
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_msg_aws_ask msg = {0};
	const char *slash;

	if (conn->resumed)
		return reply(conn);
	if (!kt_starts_with(path, AWS_PREFIX) || !(slash = strchr(path + strlen(AWS_PREFIX), '/')))
		return say(conn, MHD_HTTP_NOT_FOUND, "not found\n");
	path += strlen(AWS_PREFIX);
	msg.ns = (struct kt_view){path, (size_t)(slash - path)};
	msg.name = kt_view_str(slash + 1);
	if (!is_name(msg.ns) || !is_name(msg.name))
		return say(conn, MHD_HTTP_BAD_REQUEST, "that is no namespace and name of a secret\n");
	if (!text || !*text || strlen(text) > AWS_TOKEN_MAX)
		return say(conn, MHD_HTTP_UNAUTHORIZED, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not set\n");
	if (kt_secret_create(text, strlen(text), &token, NULL) != KT_OK)
		return reply(conn);
	msg.token = token;
	return kt_desk_ask(desk, conn, KT_AWS_ASK, &msg, on_reply) ? MHD_YES : reply(conn);
}

enum MHD_Result kt_desk_tokens_answer(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path)
{
	struct kt_msg_token_ask msg = {.json = true};
	uint32_t groups[KT_DESK_GROUPS_MAX];
	socklen_t groups_len = sizeof(groups);
	char sha256[SHA256_HEX + 1];
	bool asks;

	if (conn->resumed)
		return reply(conn);
	if (!read_path(conn->mhd, path, &msg))
		return say(conn, MHD_HTTP_NOT_FOUND, "not found\n");
	asks = kt_view_eq_str(msg.op, "get");
	if (asks == conn->post)
		return say(conn, MHD_HTTP_METHOD_NOT_ALLOWED, asks ? "a token is asked for by GET\n" : "only POST\n");
	if (!is_name(msg.ns) || !is_name(msg.name))
		return say(conn, MHD_HTTP_BAD_REQUEST, "that is no namespace and name of a secret\n");
	if (asks && !wants(conn->mhd, &msg.json))
		return say(conn, MHD_HTTP_NOT_ACCEPTABLE, "there is application/json and text/plain\n");
	if (!read_sha256(conn->mhd, sha256))
		return say(conn, MHD_HTTP_BAD_REQUEST, "sha256 is the SHA-256 of the token, 64 hexadecimal digits\n");
	msg.sha256 = kt_view_str(sha256);
	return read_peer(conn, groups, &groups_len, &msg) && kt_desk_ask(desk, conn, KT_TOKEN_ASK, &msg, on_reply) ? MHD_YES : reply(conn);
}
