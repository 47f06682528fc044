/*
 * Preloaded: the n-th allocation of one program fails, and every later one if so wished.
 *
 * Counted is what the program's own text asks for, which is also what OpenSSL, SQLite, jansson and libsodium get through
 * the program's allocator. What the C library and the loader take for themselves is none of it.
 *   KEYTURN_TEST_ALLOC_PROGRAM  the program's name
 *   KEYTURN_TEST_ALLOC_FAIL     which one; 0: none
 *   KEYTURN_TEST_ALLOC_FOREVER  1: and all after it
 *   KEYTURN_TEST_ALLOC_COUNT    a file of 8 bytes that the count is kept in
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);

static uintptr_t text_start, text_end;
static _Atomic uint64_t own_count, *count = &own_count;
static uint64_t chosen;
static bool forever;
static _Atomic bool armed;

static int find_text(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X) != 0) {
			text_start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			text_end = text_start + info->dlpi_phdr[i].p_memsz;
		}
	}
	return 1; /* the first one is the program itself */
}

__attribute__((constructor)) static void start(void)
{
	const char *program = getenv("KEYTURN_TEST_ALLOC_PROGRAM"), *file = getenv("KEYTURN_TEST_ALLOC_COUNT");
	const char *fail = getenv("KEYTURN_TEST_ALLOC_FAIL"), *all = getenv("KEYTURN_TEST_ALLOC_FOREVER");
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	const char *base;
	void *map;
	int fd;

	path[n > 0 ? n : 0] = '\0';
	base = strrchr(path, '/');
	if (!program || !base || strncmp(base + 1, program, strlen(program)) != 0 ||
	    (base[1 + strlen(program)] != '\0' && base[1 + strlen(program)] != ' '))
		return;
	chosen = fail ? strtoull(fail, NULL, 10) : 0;
	forever = all && strcmp(all, "1") == 0;
	fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
	if (fd >= 0) {
		map = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (map != MAP_FAILED)
			count = map;
		close(fd);
	}
	dl_iterate_phdr(find_text, NULL);
	armed = true;
}

static bool fails(const void *caller)
{
	uint64_t now;

	if (!atomic_load_explicit(&armed, memory_order_relaxed) || (uintptr_t)caller < text_start ||
	    (uintptr_t)caller >= text_end)
		return false;
	now = atomic_fetch_add(count, 1) + 1;
	if (chosen == 0 || (forever ? now < chosen : now != chosen))
		return false;
	errno = ENOMEM;
	return true;
}

void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(number, size);
}

void *realloc(void *ptr, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(ptr, size);
}
