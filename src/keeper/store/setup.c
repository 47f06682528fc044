/* Puts keyturn's wiping allocator behind SQLite and leaves out what is not used. */
#include "keeper/store/store_internal.h"

#include <string.h>

/*
 * SQLite asks an allocation for its size; a header of eight bytes answers, so that nothing depends on how kt_malloc
 * works inside. SQLite needs eight-byte alignment only.
 */
enum { HEADER = 8 };

static void *mem_alloc(int size)
{
	char *block = kt_malloc((size_t)size + HEADER);

	if (block == NULL)
		return NULL;
	memcpy(block, &size, sizeof(size));
	return block + HEADER;
}

static void mem_free(void *ptr)
{
	if (ptr != NULL)
		kt_free((char *)ptr - HEADER);
}

static int mem_size(void *ptr)
{
	int size = 0;

	if (ptr != NULL)
		memcpy(&size, (char *)ptr - HEADER, sizeof(size));
	return size;
}

static void *mem_realloc(void *ptr, int size)
{
	char *block = kt_realloc((char *)ptr - HEADER, (size_t)size + HEADER);

	if (block == NULL)
		return NULL;
	memcpy(block, &size, sizeof(size));
	return block + HEADER;
}

static int mem_roundup(int size)
{
	return (size + 7) & ~7;
}

static int mem_init(void *arg)
{
	(void)arg;
	return SQLITE_OK;
}

static void mem_shutdown(void *arg)
{
	(void)arg;
}

enum kt_code kt_store_setup_sqlite(struct kt_err *err)
{
	static bool done;
	static const sqlite3_mem_methods methods = {
	        mem_alloc, mem_free, mem_realloc, mem_size, mem_roundup, mem_init, mem_shutdown, NULL,
	};
	int rc;

	if (done)
		return KT_OK;
	/* One thread uses SQLite, pages are allocated one by one so that they can be given back, mmap stays off. */
	if ((rc = sqlite3_config(SQLITE_CONFIG_SINGLETHREAD)) == SQLITE_OK &&
	    (rc = sqlite3_config(SQLITE_CONFIG_MALLOC, &methods)) == SQLITE_OK &&
	    (rc = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0)) == SQLITE_OK &&
	    (rc = sqlite3_config(SQLITE_CONFIG_PAGECACHE, NULL, 0, 0)) == SQLITE_OK &&
	    (rc = sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 512, 32)) == SQLITE_OK &&
	    (rc = sqlite3_config(SQLITE_CONFIG_MMAP_SIZE, (sqlite3_int64)0, (sqlite3_int64)0)) == SQLITE_OK)
		rc = sqlite3_initialize();
	if (rc == SQLITE_NOMEM)
		return kt_err_set(err, KT_E_NOMEM, "start SQLite: out of memory");
	if (rc != SQLITE_OK)
		return kt_err_set(err, KT_E_UNSUPPORTED, "start SQLite: %s", sqlite3_errstr(rc));
	done = true;
	return KT_OK;
}
