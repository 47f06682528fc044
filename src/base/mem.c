/* The one allocator: wipes on free, counts, and fails on demand for the torture tests. */
#include "config.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kt/mem.h"

static _Atomic uint64_t made;       /* allocations so far */
static _Atomic uint64_t failures;   /* of them */
static _Atomic bool armed;          /* whether `left` is looked at: one cheap load in production */
static _Atomic int64_t left;        /* allocations that still pass */
static _Atomic bool fails_forever;

static bool must_fail(void)
{
	/* No locked addition: a count that a thread of the work pool overtakes is of no use to anybody anyway. */
	atomic_store_explicit(&made, atomic_load_explicit(&made, memory_order_relaxed) + 1, memory_order_relaxed);
	if (__builtin_expect(!atomic_load_explicit(&armed, memory_order_relaxed), 1))
		return false;
	int64_t before = atomic_fetch_sub(&left, 1);
	if (before > 0)
		return false;
	if (before < 0 && !atomic_load(&fails_forever))
		return false;
	errno = ENOMEM;
	atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
	return true;
}

static void *counted(void *fresh)
{
	if (__builtin_expect(fresh == NULL, 0))
		atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
	return fresh;
}

void kt_mem_fail_after(int64_t skip, int forever)
{
	atomic_store(&armed, false);
	atomic_store(&left, skip);
	atomic_store(&fails_forever, forever != 0);
	atomic_store(&armed, skip >= 0);
}

uint64_t kt_mem_count(void)
{
	return atomic_load_explicit(&made, memory_order_relaxed);
}

uint64_t kt_mem_failures(void)
{
	return atomic_load_explicit(&failures, memory_order_relaxed);
}

void *kt_malloc(size_t size)
{
	if (must_fail())
		return NULL;
	return counted(malloc(size > 0 ? size : 1));
}

void *kt_calloc(size_t count, size_t size)
{
	if (must_fail())
		return NULL;
	if (count == 0 || size == 0)
		count = size = 1;
	return counted(calloc(count, size));
}

void *kt_realloc(void *ptr, size_t size)
{
	size_t have;
	void *fresh;

	if (!ptr)
		return kt_malloc(size);
	if (must_fail())
		return NULL;
	if (size == 0)
		size = 1;
	have = malloc_usable_size(ptr);
	/* realloc() would leave a copy behind when it moves, so move by hand. */
	fresh = counted(malloc(size));
	if (!fresh)
		return NULL;
	memcpy(fresh, ptr, have < size ? have : size);
	explicit_bzero(ptr, have);
	free(ptr);
	return fresh;
}

void kt_free(void *ptr)
{
	if (!ptr)
		return;
	explicit_bzero(ptr, malloc_usable_size(ptr));
	free(ptr);
}

char *kt_strdup(const char *text)
{
	return kt_strndup(text, strlen(text));
}

char *kt_strndup(const char *text, size_t len)
{
	char *copy;

	if (len == SIZE_MAX) {
		errno = ENOMEM;
		return NULL;
	}
	copy = kt_malloc(len + 1);
	if (!copy)
		return NULL;
	if (len > 0)
		memcpy(copy, text, len);
	copy[len] = '\0';
	return copy;
}

char *kt_asprintf(const char *fmt, ...)
{
	va_list args, again;
	char *text = NULL;
	int len;

	va_start(args, fmt);
	va_copy(again, args);
	len = vsnprintf(NULL, 0, fmt, args);
	if (len >= 0)
		text = kt_malloc((size_t)len + 1);
	if (text)
		vsnprintf(text, (size_t)len + 1, fmt, again);
	va_end(again);
	va_end(args);
	return text;
}

void kt_cleanup_free(void *p)
{
	kt_free(*(void **)p);
}

void kt_cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}
