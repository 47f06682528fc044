/*
 * Preloaded: the n-th allocation of one program fails, and every later one if so wished.
 *
 * Counted is what the program's own text asks for, which is also what OpenSSL, SQLite, jansson and libsodium get through
 * the program's allocator. What the C library and the loader take for themselves is none of it.
 *   KEYTURN_TEST_ALLOC_PROGRAM  the program's name
 *   KEYTURN_TEST_ALLOC_FAIL     which one; 0: none
 *   KEYTURN_TEST_ALLOC_FOREVER  1: and all after it
 *   KEYTURN_TEST_ALLOC_COUNT    a file of 8 bytes that the count is kept in
 *   KEYTURN_TEST_ALLOC_TRACE    where the callers of the first one that failed are written to
 *   KEYTURN_TEST_ALLOC_SITES    where 8 bytes are added for each one: a hash of the program's own functions on the stack
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
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
static int trace = -1, sites = -1;
static _Atomic bool traced;
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
	file = getenv("KEYTURN_TEST_ALLOC_TRACE");
	trace = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1; /* before the sandbox closes */
	file = getenv("KEYTURN_TEST_ALLOC_SITES");
	sites = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
	if (trace >= 0 || sites >= 0)
		backtrace((void *[1]){NULL}, 1); /* loads what it needs now */
	armed = true;
}

static void write_trace(void)
{
	void *callers[48];

	if (trace >= 0 && !atomic_exchange(&traced, true))
		backtrace_symbols_fd(callers, backtrace(callers, 48), trace);
}

/* Two allocations with the same hash were asked for on the same way through our own code. */
static void write_site(void)
{
	uint64_t hash = 0xcbf29ce484222325u;
	void *callers[64];
	int n = backtrace(callers, 64);

	for (int i = 0; i < n; i++) {
		uintptr_t at = (uintptr_t)callers[i];

		if (at >= text_start && at < text_end)
			hash = (hash ^ (at - text_start)) * 0x100000001b3u;
	}
	(void)!write(sites, &hash, sizeof(hash));
}

static bool fails(const void *caller)
{
	uint64_t now;

	if (!atomic_load_explicit(&armed, memory_order_relaxed) || (uintptr_t)caller < text_start ||
	    (uintptr_t)caller >= text_end)
		return false;
	now = atomic_fetch_add(count, 1) + 1;
	if (sites >= 0)
		write_site();
	if (chosen == 0 || (forever ? now < chosen : now != chosen))
		return false;
	write_trace();
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
