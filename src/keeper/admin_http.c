/* HTTP on the control socket, for curl --unix-socket: POST /quit and POST /invalidate. Who may was decided at the door. */
#include <stdio.h>
#include <string.h>

#include "kt/text.h"
#include "keeper/admin.h"
#include "keeper/refused.h"

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

#define INVALIDATE "POST /invalidate?"

static void answer(struct kt_session *session, const char *status, const char *more, const char *text)
{
	const char *type = text[0] == '{' ? "application/json" : "text/plain; charset=utf-8";

	kt_buf_addf(&session->out,
	            "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: close\r\n\r\n%s",
	            status, type, strlen(text), more, text);
	session->ended = true;
	kt_session_flush(session);
}

/* The head ends with an empty line. */
static bool is_whole(struct kt_view in)
{
	return memmem(in.ptr, in.len, "\n\r\n", 3) != NULL || memmem(in.ptr, in.len, "\n\n", 2) != NULL;
}

/* The value of a query's member into out; "" when it is not there. False: it is too long or not one of names and digits. */
static bool member(const char *query, const char *end, const char *name, char *out, size_t size)
{
	size_t len = strlen(name);

	out[0] = '\0';
	for (const char *at = query; at < end;) {
		const char *next = memchr(at, '&', (size_t)(end - at));
		size_t n = (size_t)((next != NULL ? next : end) - at);

		if (n > len && memcmp(at, name, len) == 0 && at[len] == '=') {
			n -= len + 1;
			if (n >= size) {
				return false;
			}
			memcpy(out, at + len + 1, n);
			out[n] = '\0';
			return strspn(out, "abcdefghijklmnopqrstuvwxyzABCDEF0123456789-.") == n;
		}
		at += next != NULL ? (size_t)(next - at) + 1 : n;
	}
	return true;
}

/* POST /invalidate?name=NAME&namespace=NS&sha256=HEX: the metadata.name of a Token. */
static void invalidate(struct kt_session *session, const char *query)
{
	const char *end = query + strcspn(query, " \r\n");
	struct kt_refusal refusal;
	struct kt_buf text KT_AUTOBUF = {0};
	char name[256], ns[256], sha256[65], full[600];
	struct kt_err err;

	kt_err_clear(&err);
	kt_buf_init(&text, 4096);
	if (!member(query, end, "name", name, sizeof(name)) || !member(query, end, "namespace", ns, sizeof(ns)) ||
	    !member(query, end, "sha256", sha256, sizeof(sha256)) || name[0] == '\0') {
		answer(session, "400 Bad Request", "", "POST /invalidate?name=NAME, with namespace=NS and sha256=HEX if need be\n");
		return;
	}
	if (session->keeper->store == NULL || kt_store_is_read_only(session->keeper->store)) {
		answer(session, "503 Service Unavailable", "", "there is no state to write to\n");
		return;
	}
	(void)snprintf(full, sizeof(full), "Token/%s/%s", ns[0] != '\0' ? ns : "default", name);
	(void)kt_admin_refused(session, full, sha256, &refusal, &err);
	if (err.code == KT_OK) {
		kt_refusal_json(&refusal, &text);
		kt_buf_addc(&text, '\n');
	} else {
		kt_buf_addf(&text, "%s\n", err.what);
	}
	if (kt_buf_check(&text, "answer", NULL) != KT_OK) {
		answer(session, "503 Service Unavailable", "", "no memory\n");
		return;
	}
	answer(session,
	       err.code == KT_E_NOTFOUND || err.code == KT_E_INVALID ? "404 Not Found"
	       : err.code != KT_OK                                   ? "503 Service Unavailable"
	       : refusal.outcome <= KT_REFUSED_ALREADY               ? "202 Accepted"
	                                                             : "200 OK",
	       "", text.ptr);
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
		answer(session, "405 Method Not Allowed", "Allow: POST\r\n", "only POST /quit and POST /invalidate\n");
	} else if (kt_starts_with(in.ptr, INVALIDATE)) {
		invalidate(session, in.ptr + strlen(INVALIDATE));
	} else if (!kt_starts_with(in.ptr, "POST /quit HTTP/")) {
		answer(session, "404 Not Found", "", "only POST /quit and POST /invalidate?name=NAME\n");
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
