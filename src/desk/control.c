/* Commands by HTTP for who has a token (POST /quit): the desk passes it on, and the keeper decides. */
#include <string.h>
#include <strings.h>

#include "desk/desk.h"
#include "kt/secret.h"

enum { TOKEN_MAX = 4096 };

static enum MHD_Result reply(struct kt_desk_conn *conn, unsigned status)
{
	const char *text = status == MHD_HTTP_OK             ? "the agent is ending\n"
	                   : status == MHD_HTTP_UNAUTHORIZED ? "this needs the right token: Authorization: Bearer TOKEN\n"
	                   : status == MHD_HTTP_NOT_FOUND    ? "not found\n"
	                                                     : "the keeper can't do that now\n";
	struct MHD_Response *response = kt_desk_response_text(text);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	if (status == MHD_HTTP_UNAUTHORIZED &&
	    MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"keyturn\"") != MHD_YES) {
		MHD_destroy_response(response);
		return MHD_NO;
	}
	result = MHD_queue_response(conn->mhd, status, response);
	MHD_destroy_response(response);
	return result;
}

static void on_reply(const struct kt_err *err, enum kt_msg_type reply_type, void *msg, int *fds, unsigned fd_count,
                     void *arg)
{
	const struct kt_msg_page_given *given = msg;
	struct kt_desk_conn *conn = arg; /* there as long as it is suspended */

	(void)fds;
	(void)fd_count;
	if (!kt_desk_asked(conn))
		return;
	if (err->code == KT_OK && reply_type == KT_PAGE_GIVEN && given->status >= 200 && given->status <= 599)
		conn->command_status = given->status;
	kt_desk_resume(conn);
}

/* What stands behind "Bearer ", or NULL. */
static const char *bearer(struct MHD_Connection *mhd)
{
	const char *value = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, "Authorization");

	if (!value || strncasecmp(value, "Bearer ", 7) != 0)
		return NULL;
	value += 7;
	value += strspn(value, " ");
	return *value && strlen(value) <= TOKEN_MAX ? value : NULL;
}

enum MHD_Result kt_desk_control_answer(struct kt_desk *desk, struct kt_desk_conn *conn, const char *path)
{
	const char *text = bearer(conn->mhd);
	struct kt_secret *token KT_AUTOSECRET = NULL;
	struct kt_msg_command msg = {.path = kt_view_str(path)};

	if (conn->resumed)
		return reply(conn, conn->command_status);
	if (strcmp(path, "/quit") != 0)
		return reply(conn, MHD_HTTP_NOT_FOUND);
	if (!text)
		return reply(conn, MHD_HTTP_UNAUTHORIZED);
	if (kt_secret_create(text, strlen(text), &token, NULL) != KT_OK)
		return reply(conn, MHD_HTTP_SERVICE_UNAVAILABLE);
	msg.token = token;
	conn->command_status = MHD_HTTP_SERVICE_UNAVAILABLE; /* until the keeper says another */
	return kt_desk_ask(desk, conn, KT_COMMAND, &msg, on_reply) ? MHD_YES : reply(conn, conn->command_status);
}
