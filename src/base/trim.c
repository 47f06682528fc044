/* Gives back what a start needed and a waiting room does not: heap tops and pages of programs and libraries. */
#include <link.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kt/mem.h"

/* Code that was changed when it was loaded would lose the change. Debian's libraries have none on 64 bits. */
static bool has_changed_code(const struct dl_phdr_info *info)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Dyn) *entry = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);

		if (info->dlpi_phdr[i].p_type != PT_DYNAMIC)
			continue;
		for (; entry->d_tag != DT_NULL; entry++)
			if (entry->d_tag == DT_TEXTREL || (entry->d_tag == DT_FLAGS && (entry->d_un.d_val & DF_TEXTREL)))
				return true;
	}
	return false;
}

/*
 * Initialising the libraries touches megabytes of their code and tables once (GnuTLS behind libmicrohttpd: 2 MB).
 * Segments that can't be written are always the same as the file, so they may be let go; what is needed
 * again is mapped again from the page cache, without reading a disk in any usual case.
 */
static int let_go(struct dl_phdr_info *info, size_t size, void *arg)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)arg;
	if (has_changed_code(info))
		return 0;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;
		uintptr_t end = start + segment->p_filesz;

		if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
			continue;
		start = (start + page - 1) & ~(page - 1);
		end &= ~(page - 1);
		if (start < end)
			(void)madvise((void *)start, end - start, MADV_DONTNEED); /* refused for the vDSO, which is fine */
	}
	return 0;
}

void kt_mem_trim(void)
{
	(void)malloc_trim(0);
	(void)dl_iterate_phdr(let_go, NULL);
}
