/* Requests to the desk: bytes go into a real desk through a local socket; whatever comes, it answers or hangs up. */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "desk/desk.h"
#include "fuzz.h"
#include "kt/json.h"
#include "kt/log.h"

#define TURNS 200

static struct kt_loop *loop;
static struct kt_desk *desk;
static struct sockaddr_un where[KT_DESK_KINDS];

static int listener(unsigned kind)
{
	struct sockaddr_un *at = &where[kind];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	at->sun_family = AF_UNIX;
	(void)snprintf(at->sun_path + 1, sizeof(at->sun_path) - 1, "keyturn-fuzz-%d-%u", (int)getpid(), kind);
	FUZZ_MUST(fd >= 0 && bind(fd, (struct sockaddr *)at, sizeof(*at)) == 0 && listen(fd, 16) == 0);
	return fd;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_msg_serve serve = {
		KT_VIEW_LIT("acme"), KT_VIEW_LIT("/.well-known/acme-challenge/evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ"),
		KT_VIEW_LIT("text/plain"), KT_VIEW_LIT("answer"), 0};
	struct kt_err err;

	(void)argc, (void)argv;
	kt_json_init();
	kt_log_setup("fuzz", KT_LOG_ERROR, false);
	FUZZ_MUST(kt_loop_create(1, &loop, &err) == KT_OK && kt_desk_create(loop, &desk, &err) == KT_OK);
	for (unsigned kind = 0; kind < KT_DESK_KINDS; kind++) {
		FUZZ_MUST(kt_desk_http_listen(desk->http, KT_DESK_BIT(kind), listener(kind), &err) == KT_OK);
	}
	FUZZ_MUST(kt_desk_served_put(desk->served, &serve, &err) == KT_OK);
	return 0;
}

/* The first byte chooses the listener. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct sockaddr_un *at;
	char answer[4096];
	size_t sent = 0;
	int fd;

	if (size < 2) {
		return 0;
	}
	at = &where[data[0] % KT_DESK_KINDS];
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	FUZZ_MUST(fd >= 0 && connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0);
	data++;
	size--;
	for (int turn = 0; turn < TURNS; turn++) {
		ssize_t n = sent < size ? send(fd, data + sent, size - sent, MSG_NOSIGNAL) : 0;

		sent += n > 0 ? (size_t)n : 0;
		if (sent == size) {
			(void)shutdown(fd, SHUT_WR);
			sent++;
		}
		kt_loop_run_once(loop, false);
		n = recv(fd, answer, sizeof(answer), 0);
		if (n == 0 || (n < 0 && kt_desk_http_connections(desk->http) == 0 && turn > 2)) {
			break;
		}
	}
	(void)close(fd);
	for (int turn = 0; turn < TURNS && kt_desk_http_connections(desk->http) > 0; turn++) {
		kt_loop_run_once(loop, false);
	}
	return 0;
}
