/* Systemd's notify protocol (sd_notify(3)) by hand: one datagram to the socket that the environment names. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kt/text.h"
#include "warden/sockets.h"

void kt_notify_systemd(const char *lines)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t len;
	int fd;

	if (path == NULL || (path[0] != '/' && path[0] != '@')) {
		return;
	}
	len = strlen(path);
	if (len >= sizeof(address.sun_path)) {
		return;
	}
	memcpy(address.sun_path, path, len);
	if (path[0] == '@') {
		address.sun_path[0] = '\0';
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return;
	}
	/* Nobody to tell when it fails: systemd notices by its own time limits. */
	(void)sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
	             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
	close(fd);
}

kt_ms kt_notify_watchdog(void)
{
	const char *usec = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	uint64_t us = 0;
	uint64_t whose = 0;

	if (usec == NULL || kt_parse_u64(kt_view_str(usec), UINT64_MAX / 2, &us, NULL) != KT_OK || us < 2000) {
		return 0;
	}
	if (pid != NULL && (kt_parse_u64(kt_view_str(pid), INT32_MAX, &whose, NULL) != KT_OK || (pid_t)whose != getpid())) {
		return 0;
	}
	return (kt_ms)(us / 2000);
}
