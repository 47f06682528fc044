/* Runs every file of a corpus once through a fuzz target: what was found stays found. usage: target [FILE|FOLDER]... */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"
#include "kt/io.h"
#include "kt/mem.h"

#define INPUT_MAX (8u * 1024u * 1024u)

static unsigned files;

static int replay_file(const char *path)
{
	KT_AUTOBUF struct kt_buf input;
	struct kt_err err;
	void *exact;

	kt_buf_init(&input, INPUT_MAX);
	if (kt_io_read_file(AT_FDCWD, path, &input, &err) != KT_OK) {
		(void)fprintf(stderr, "%s: %s\n", path, err.what);
		return 1;
	}
	/* A copy of exactly this size, so that a sanitizer sees a step past its end. */
	exact = malloc(input.len > 0 ? input.len : 1);
	if (exact == NULL) {
		return 1;
	}
	memcpy(exact, input.len > 0 ? input.ptr : "", input.len);
	(void)LLVMFuzzerTestOneInput(exact, input.len);
	free(exact);
	files++;
	return 0;
}

static int replay(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int failed = 0;

	if (dir == NULL) {
		return replay_file(path);
	}
	while ((entry = readdir(dir)) != NULL) {
		KT_AUTOFREE char *file = NULL;

		if (entry->d_name[0] != '.') {
			file = kt_asprintf("%s/%s", path, entry->d_name);
			failed |= file == NULL || replay_file(file) != 0;
		}
	}
	(void)closedir(dir);
	return failed;
}

int main(int argc, char **argv)
{
	int failed = 0;

	(void)LLVMFuzzerInitialize(&argc, &argv);
	if (argc < 2) {
		failed = replay(KT_FUZZ_FOLDER KT_FUZZ_AREA);
	}
	for (int i = 1; i < argc; i++) {
		failed |= replay(argv[i]);
	}
	(void)printf("%u inputs\n", files);
	return failed != 0 || files == 0;
}
