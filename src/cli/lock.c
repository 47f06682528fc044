/* Who holds the state: what whoever waits for it says. */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kt/io.h"
#include "kt/mem.h"
#include "kt/text.h"

int64_t kt_lock_holder(const char *state_dir, bool read_only)
{
	char *path KT_AUTOFREE = kt_asprintf("%s/lock", state_dir);
	KT_AUTOCLOSE int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	struct kt_buf text KT_AUTOBUF;
	uint64_t pid;

	kt_buf_init(&text, 8192);
	if (fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) {
		return 0;
	}
	if (lock.l_type == F_RDLCK || kt_io_read_fd(fd, "lock", &text, NULL) != KT_OK || text.len == 0 ||
	    kt_parse_u64((struct kt_view){text.ptr, strcspn(text.ptr, "\n")}, INT32_MAX, &pid, NULL) != KT_OK) {
		return -1;
	}
	return (int64_t)pid;
}

const char *kt_lock_holder_name(int64_t pid, char out[KT_LOCK_NAME_SIZE])
{
	(void)snprintf(out, KT_LOCK_NAME_SIZE, pid > 0 ? "keyturn with pid %lld" : "another keyturn", (long long)pid);
	return out;
}
