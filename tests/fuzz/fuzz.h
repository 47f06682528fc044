/* What every fuzz target offers, and what replay.c calls with each file of a corpus. */
#ifndef KT_FUZZ_H
#define KT_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold for any input. */
#define FUZZ_MUST(condition) \
	do { \
		if (!(condition)) { \
			abort(); \
		} \
	} while (0)

#endif
