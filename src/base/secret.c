/* Secret bytes in locked arenas that no core dump, child or swap device sees. */
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kt/mem.h"
#include "kt/secret.h"

enum {
	GRAIN = 16,                /* allocation unit in bytes */
	ARENA_SIZE = 256 * 1024,   /* bytes of address space; pages become resident when first used */
	SECRET_MAX = 256 * 1024,
	WORD_BITS = 64,
};

/*
 * One mapping between two guard pages. sodium_malloc would fill and lock every page at once; here pages are locked as
 * they are touched (MLOCK_ONFAULT), so an idle room pays for what it holds. The map of used grains is kept outside:
 * an overrun of a secret meets other secrets' bytes or the guard page, never the allocator's books.
 */
struct arena {
	struct arena *next;
	unsigned char *base;
	size_t grains;
	size_t used;      /* grains in use */
	size_t hint;      /* no free grain below this one */
	size_t map_bytes; /* with guards, for munmap */
	uint64_t map[];   /* 1: grain in use */
};

struct kt_secret {
	struct arena *arena;
	size_t first;  /* grain */
	size_t grains;
	size_t len;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* keeps all below: the key pool works on threads */
static struct arena *arenas;
static bool ready;
static atomic_bool locked = true; /* until a lock is refused */

void kt_wipe(void *ptr, size_t len)
{
	if (len > 0)
		sodium_memzero(ptr, len);
}

static size_t grains_for(size_t len)
{
	return (len + 1 + GRAIN - 1) / GRAIN; /* + 1: the NUL */
}

static struct arena *arena_create(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t inner = (bytes + page - 1) / page * page;
	size_t words = (inner / GRAIN + WORD_BITS - 1) / WORD_BITS;
	struct arena *arena = kt_calloc(1, sizeof(*arena) + words * sizeof(uint64_t));
	unsigned char *map;

	if (!arena)
		return NULL;
	arena->grains = inner / GRAIN;
	arena->map_bytes = inner + 2 * page;
	map = mmap(NULL, arena->map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		kt_free(arena);
		return NULL;
	}
	arena->base = map + page;
	if (mprotect(arena->base, inner, PROT_READ | PROT_WRITE) < 0) {
		munmap(map, arena->map_bytes);
		kt_free(arena);
		return NULL;
	}
	if (mlock2(arena->base, inner, MLOCK_ONFAULT) < 0)
		atomic_store(&locked, false);
	/* Best effort: an old kernel without one of these still runs. */
	(void)madvise(arena->base, inner, MADV_DONTDUMP);
	(void)madvise(arena->base, inner, MADV_WIPEONFORK);
	return arena;
}

static void arena_unmap(struct arena *arena)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	munmap(arena->base - page, arena->map_bytes);
	kt_free(arena);
}

static bool is_used(const struct arena *arena, size_t grain)
{
	return arena->map[grain / WORD_BITS] >> (grain % WORD_BITS) & 1;
}

static void mark(struct arena *arena, size_t first, size_t count, bool used)
{
	for (size_t i = first; i < first + count; i++) {
		uint64_t bit = (uint64_t)1 << (i % WORD_BITS);

		if (used)
			arena->map[i / WORD_BITS] |= bit;
		else
			arena->map[i / WORD_BITS] &= ~bit;
	}
}

/* First fit. Returns the first grain, or SIZE_MAX. */
static size_t take(struct arena *arena, size_t count)
{
	size_t run = 0;
	bool seen_free = false;

	if (arena->grains - arena->used < count)
		return SIZE_MAX;
	for (size_t i = arena->hint; i < arena->grains; i++) {
		if (i % WORD_BITS == 0 && arena->map[i / WORD_BITS] == UINT64_MAX) {
			run = 0;
			i += WORD_BITS - 1;
			continue;
		}
		if (is_used(arena, i)) {
			run = 0;
			continue;
		}
		if (!seen_free) {
			arena->hint = i;
			seen_free = true;
		}
		if (++run == count) {
			size_t first = i + 1 - count;
			mark(arena, first, count, true);
			arena->used += count;
			return first;
		}
	}
	return SIZE_MAX;
}

static bool place(struct kt_secret *secret, size_t grains)
{
	struct arena *arena;

	for (arena = arenas; arena; arena = arena->next) {
		secret->first = take(arena, grains);
		if (secret->first != SIZE_MAX)
			break;
	}
	if (!arena) {
		arena = arena_create(grains * GRAIN > ARENA_SIZE ? grains * GRAIN : ARENA_SIZE);
		if (!arena)
			return false;
		/* Behind the first one, which stays: short-lived arenas come and go here. */
		if (arenas) {
			arena->next = arenas->next;
			arenas->next = arena;
		} else {
			arenas = arena;
		}
		secret->first = take(arena, grains);
	}
	secret->arena = arena;
	secret->grains = grains;
	return true;
}

enum kt_code kt_secret_init(struct kt_err *err)
{
	enum kt_code code = KT_OK;

	if (sodium_init() < 0)
		return kt_err_set(err, KT_E_CRYPTO, "libsodium does not start: no random numbers from the system");
	pthread_mutex_lock(&mutex);
	if (!ready && !arenas) {
		arenas = arena_create(ARENA_SIZE);
		if (!arenas)
			code = kt_err_set(err, KT_E_NOMEM, "memory for secrets: out of memory");
	}
	ready = code == KT_OK;
	pthread_mutex_unlock(&mutex);
	return code;
}

bool kt_secret_locked(void)
{
	return atomic_load(&locked);
}

enum kt_code kt_secret_alloc(size_t len, struct kt_secret **ret, struct kt_err *err)
{
	struct kt_secret *secret;
	bool placed;

	*ret = NULL;
	if (len == 0)
		return kt_err_set(err, KT_E_INVALID, "a secret must not be empty");
	if (len > SECRET_MAX)
		return kt_err_set(err, KT_E_LIMIT, "a secret of %zu bytes is above the limit of %d", len, SECRET_MAX);
	secret = kt_malloc(sizeof(*secret));
	if (!secret)
		return kt_err_set(err, KT_E_NOMEM, "secret: out of memory");
	pthread_mutex_lock(&mutex);
	placed = place(secret, grains_for(len));
	pthread_mutex_unlock(&mutex);
	if (!placed) {
		kt_free(secret);
		return kt_err_set(err, KT_E_NOMEM, "secret: out of memory");
	}
	secret->len = len;
	*ret = secret; /* free grains are always zero */
	return KT_OK;
}

enum kt_code kt_secret_create(const void *data, size_t len, struct kt_secret **ret, struct kt_err *err)
{
	enum kt_code code = kt_secret_alloc(len, ret, err);

	if (code == KT_OK)
		memcpy(kt_secret_edit(*ret), data, len);
	return code;
}

enum kt_code kt_secret_from_buf(struct kt_buf *buf, struct kt_secret **ret, struct kt_err *err)
{
	enum kt_code code = kt_buf_check(buf, "secret", err);

	*ret = NULL;
	if (code == KT_OK)
		code = kt_secret_create(buf->ptr, buf->len, ret, err);
	kt_buf_reset(buf);
	return code;
}

/* An arena other than the first goes back to the system when its last secret does. Returns what to unmap. */
static struct arena *unlink_empty(struct arena *arena)
{
	if (arena->used > 0 || arena == arenas)
		return NULL;
	for (struct arena *before = arenas; before; before = before->next) {
		if (before->next == arena) {
			before->next = arena->next;
			return arena;
		}
	}
	return NULL;
}

void kt_secret_destroy(struct kt_secret *secret)
{
	struct arena *arena, *empty;

	if (!secret)
		return;
	arena = secret->arena;
	sodium_memzero(kt_secret_edit(secret), secret->grains * GRAIN);
	pthread_mutex_lock(&mutex);
	mark(arena, secret->first, secret->grains, false);
	arena->used -= secret->grains;
	if (secret->first < arena->hint)
		arena->hint = secret->first;
	empty = unlink_empty(arena);
	pthread_mutex_unlock(&mutex);
	if (empty)
		arena_unmap(empty);
	kt_free(secret);
}

struct kt_view kt_secret_view(const struct kt_secret *secret)
{
	const unsigned char *at = secret->arena->base + secret->first * GRAIN;

	return (struct kt_view){(const char *)at, secret->len};
}

void *kt_secret_edit(struct kt_secret *secret)
{
	return secret->arena->base + secret->first * GRAIN;
}

size_t kt_secret_len(const struct kt_secret *secret)
{
	return secret->len;
}

void kt_secret_truncate(struct kt_secret *secret, size_t len)
{
	unsigned char *at = kt_secret_edit(secret);

	if (len >= secret->len)
		return;
	sodium_memzero(at + len, secret->len - len);
	secret->len = len;
}

bool kt_secret_eq(const struct kt_secret *a, const struct kt_secret *b)
{
	return a->len == b->len && sodium_memcmp(kt_secret_view(a).ptr, kt_secret_view(b).ptr, a->len) == 0;
}

void kt_cleanup_secret(struct kt_secret **p)
{
	kt_secret_destroy(*p);
}
