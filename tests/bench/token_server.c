/*
 * A token endpoint that costs next to nothing, so that what a client costs is seen: HTTPS with keep-alive, one thread,
 * an opaque token for whoever shows the one client's credentials. It keeps nothing, signs nothing and is no
 * authorization server.
 *
 * usage: token_server PORT CERT-FILE KEY-FILE AUTHORIZATION
 *
 * POST /token wants this Authorization header, or a client_assertion in the form; /.well-known/openid-configuration is
 * the metadata. SIGUSR1: prints {"tokens", "metadata", "refused", "connections"} since the last time as one line of
 * JSON.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define REQUEST_MAX 32768

struct line {
	int fd;
	SSL *tls;
	size_t len;
	char in[REQUEST_MAX + 1];
};

static const char *port, *authorization;
static long tokens, metadata, refused, connections;
static unsigned long serial;

static void die(const char *what)
{
	(void)fprintf(stderr, "token_server: %s: %s\n", what, strerror(errno));
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void report(int signals)
{
	struct signalfd_siginfo info;

	if (read(signals, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
		return;
	}
	(void)printf("{\"tokens\": %ld, \"metadata\": %ld, \"refused\": %ld, \"connections\": %ld}\n", tokens, metadata,
		     refused, connections);
	(void)fflush(stdout);
	tokens = metadata = refused = connections = 0;
}

static void hang_up(struct line *line)
{
	SSL_free(line->tls);
	(void)close(line->fd);
	free(line);
}

/* --- one request -------------------------------------------------------------------------------------------------- */

/* The value of a header among those of [head, end), or NULL; *len is its length. */
static const char *header(const char *head, const char *end, const char *name, size_t *len)
{
	size_t name_len = strlen(name);
	const char *at = memmem(head, (size_t)(end - head), "\r\n", 2), *stop;

	while (at != NULL && at + 2 < end) {
		at += 2;
		stop = memmem(at, (size_t)(end + 2 - at), "\r\n", 2);
		if (stop == NULL) {
			break;
		}
		if ((size_t)(stop - at) > name_len && strncasecmp(at, name, name_len) == 0 && at[name_len] == ':') {
			at += name_len + 1;
			at += *at == ' ' ? 1 : 0;
			*len = (size_t)(stop - at);
			return at;
		}
		at = stop;
	}
	return NULL;
}

static bool is_client(const char *head, const char *end, const char *body, size_t body_len)
{
	size_t len;
	const char *shown = header(head, end, "Authorization", &len);

	return (shown != NULL && len == strlen(authorization) && memcmp(shown, authorization, len) == 0) ||
	       memmem(body, body_len, "client_assertion=", 17) != NULL;
}

/* Writes the answer to the request whose body begins behind `end`. */
static void answer(struct line *line, const char *end, size_t body_len)
{
	char body[1024], out[1536];
	const char *status = "200 OK";
	int n;

	if (strncmp(line->in, "GET /.well-known/", 17) == 0) {
		metadata++;
		n = snprintf(body, sizeof(body),
			     "{\"issuer\":\"https://localhost:%s\",\"token_endpoint\":\"https://localhost:%s/token\","
			     "\"response_types_supported\":[\"token\"]}",
			     port, port);
	} else if (strncmp(line->in, "POST /token ", 12) == 0 && is_client(line->in, end, end + 4, body_len)) {
		tokens++;
		n = snprintf(body, sizeof(body),
			     "{\"access_token\":\"bench-%058lu\",\"token_type\":\"Bearer\",\"expires_in\":3600}",
			     ++serial);
	} else {
		refused++;
		status = "401 Unauthorized";
		n = snprintf(body, sizeof(body), "{\"error\":\"invalid_client\"}");
	}
	n = snprintf(out, sizeof(out),
		     "HTTP/1.1 %s\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nContent-Length: "
		     "%d\r\n\r\n%s",
		     status, n, body);
	(void)SSL_write(line->tls, out, n);
}

/* Answers what is whole; false: the request is none that is understood here. */
static bool answer_all(struct line *line)
{
	for (;;) {
		const char *end, *length;
		size_t head_len, body_len = 0, digits;

		line->in[line->len] = '\0';
		end = memmem(line->in, line->len, "\r\n\r\n", 4);
		if (end == NULL) {
			return line->len < REQUEST_MAX;
		}
		length = header(line->in, end, "Content-Length", &digits);
		if (length != NULL) {
			body_len = strtoul(length, NULL, 10);
		}
		head_len = (size_t)(end - line->in) + 4;
		if (body_len > REQUEST_MAX - head_len) {
			return false;
		}
		if (line->len < head_len + body_len) {
			return true;
		}
		answer(line, end, body_len);
		line->len -= head_len + body_len;
		memmove(line->in, line->in + head_len + body_len, line->len);
	}
}

static void serve(struct line *line)
{
	for (;;) {
		int n = SSL_read(line->tls, line->in + line->len, (int)(REQUEST_MAX - line->len));

		if (n <= 0) {
			int why = SSL_get_error(line->tls, n);

			if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
				ERR_clear_error();
				hang_up(line);
			}
			return;
		}
		line->len += (size_t)n;
		if (!answer_all(line)) {
			hang_up(line);
			return;
		}
	}
}

/* --- the line ----------------------------------------------------------------------------------------------------- */

static void take(SSL_CTX *ctx, int poll, int listener)
{
	int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct line *line = fd < 0 ? NULL : calloc(1, sizeof(*line));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = line};

	if (line == NULL) {
		return;
	}
	connections++;
	line->fd = fd;
	line->tls = SSL_new(ctx);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (line->tls == NULL || SSL_set_fd(line->tls, fd) != 1 || epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0) {
		die("a connection");
	}
	SSL_set_accept_state(line->tls);
}

static int listen_at(int number)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)number)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, 512) != 0) {
		die("the port");
	}
	return fd;
}

int main(int argc, char **argv)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	int poll = epoll_create1(EPOLL_CLOEXEC), listener, signals;
	static int listens, signalled; /* what these two events point at */
	struct epoll_event events[64], listen_event = {.events = EPOLLIN, .data.ptr = &listens};
	struct epoll_event signal_event = {.events = EPOLLIN, .data.ptr = &signalled};
	sigset_t mask;

	if (argc != 5) {
		(void)fprintf(stderr, "usage: token_server PORT CERT-FILE KEY-FILE AUTHORIZATION\n");
		return 2;
	}
	port = argv[1];
	authorization = argv[4];
	if (ctx == NULL || poll < 0 || SSL_CTX_use_certificate_chain_file(ctx, argv[2]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, argv[3], SSL_FILETYPE_PEM) != 1) {
		die("certificate and key");
	}
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGUSR1);
	(void)sigaddset(&mask, SIGPIPE);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	(void)sigdelset(&mask, SIGPIPE);
	signals = signalfd(-1, &mask, SFD_CLOEXEC);
	listener = listen_at((int)strtol(port, NULL, 10));
	if (signals < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &listen_event) != 0 ||
	    epoll_ctl(poll, EPOLL_CTL_ADD, signals, &signal_event) != 0) {
		die("epoll");
	}
	for (;;) {
		int n = epoll_wait(poll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == &listens) {
				take(ctx, poll, listener);
			} else if (events[i].data.ptr == &signalled) {
				report(signals);
			} else {
				serve(events[i].data.ptr);
			}
		}
	}
}
