/* HTTP on the control socket, for curl --unix-socket: POST /quit, and nothing else. Who may was decided at the door. */
#include <stdio.h>
#include <string.h>

#include "kt/text.h"
#include "keeper/admin.h"

bool kt_admin_is_http(struct kt_view line)
{
	static const char versions[][10] = {" HTTP/1.1", " HTTP/1.0"};
	const size_t n = sizeof(versions[0]) - 1;

	while (line.len > 0 && line.ptr[line.len - 1] == '\r') {
		line.len--;
	}
	return line.len > n && (memcmp(line.ptr + line.len - n, versions[0], n) == 0 ||
	                        memcmp(line.ptr + line.len - n, versions[1], n) == 0);
}

static void answer(struct kt_session *session, const char *status, const char *more, const char *text)
{
	kt_buf_addf(&session->out,
	            "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n%s",
	            status, strlen(text), more, text);
	session->ended = true;
	kt_session_flush(session);
}

/* The head ends with an empty line. */
static bool is_whole(struct kt_view in)
{
	return memmem(in.ptr, in.len, "\n\r\n", 3) != NULL || memmem(in.ptr, in.len, "\n\n", 2) != NULL;
}

void kt_admin_http(struct kt_session *session)
{
	struct kt_view in = kt_buf_view(&session->in);
	struct kt_err err;
	char who[64];

	if (in.len > KT_ADMIN_HTTP_MAX) {
		answer(session, "431 Request Header Fields Too Large", "", "the request is too long\n");
	} else if (!is_whole(in)) {
		return; /* more comes */
	} else if (!kt_starts_with(in.ptr, "POST ")) {
		answer(session, "405 Method Not Allowed", "Allow: POST\r\n", "only POST /quit\n");
	} else if (!kt_starts_with(in.ptr, "POST /quit HTTP/")) {
		answer(session, "404 Not Found", "", "only POST /quit\n");
	} else {
		kt_err_clear(&err);
		(void)snprintf(who, sizeof(who), "uid %u (pid %u)", session->uid, session->pid);
		if (kt_quit_begin(session->keeper, who, &err) == KT_OK) {
			answer(session, "200 OK", "", "the agent is ending\n");
		} else {
			answer(session, "503 Service Unavailable", "", "the agent can't end\n");
		}
	}
}
