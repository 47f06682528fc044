/* The one allocator: wipes on free, can be told to fail the n-th call; behind every library too. */
#ifndef KT_MEM_H
#define KT_MEM_H

#include <stddef.h>
#include <stdint.h>

/* malloc/calloc/realloc/free that wipe what they release (malloc_usable_size bytes). NULL on failure. */
void *kt_malloc(size_t size);
void *kt_calloc(size_t count, size_t size);
void *kt_realloc(void *ptr, size_t size);
void kt_free(void *ptr); /* NULL is accepted */

/* Copies a NUL-terminated string, or the first len bytes plus a NUL. NULL on failure. */
char *kt_strdup(const char *text);
char *kt_strndup(const char *text, size_t len);

/* printf into fresh memory; NULL on failure. Caller frees with kt_free. */
char *kt_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Fault injection, for tests: lets `skip` further allocations pass and fails the next one (once) or all
 * after it (`forever`). A negative skip turns it off.
 */
void kt_mem_fail_after(int64_t skip, int forever);

/* Allocations made so far in this process; for tests that walk through every one. */
uint64_t kt_mem_count(void);

/*
 * Allocations that failed so far, in whatever library. Who gets an error that does not say why looks here whether memory
 * was the reason.
 */
uint64_t kt_mem_failures(void);

/* Gives memory back to the system after a start or a burst: free heap, and pages of code that are on disk anyway.
 * Costs some page faults afterwards; not for loops. */
void kt_mem_trim(void);

/* Frees *(T **)p: for __attribute__((cleanup(kt_cleanup_free))). */
void kt_cleanup_free(void *p);
/* Closes *(int *)p when it is >= 0. */
void kt_cleanup_close(int *fd);
#define KT_AUTOFREE __attribute__((cleanup(kt_cleanup_free)))
#define KT_AUTOCLOSE __attribute__((cleanup(kt_cleanup_close)))

#endif
