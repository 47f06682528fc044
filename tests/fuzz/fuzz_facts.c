/* What is known of a Watch, from a cookie of the store and from what was seen: it can always be written, and reads the same. */
#include <string.h>

#include "fuzz.h"
#include "keeper/watch/facts.h"
#include "kt/json.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	kt_json_init();
	return 0;
}

/* Written and read again: the same, and once more the same bytes. */
static void there_and_back(const struct kt_watch_facts *facts)
{
	struct kt_buf first KT_AUTOBUF = {0}, second KT_AUTOBUF = {0};
	struct kt_watch_facts again;
	struct kt_store_cred cred = {0};
	struct kt_err err;

	FUZZ_MUST(kt_watch_facts_write(facts, &first, &err) == KT_OK);
	kt_buf_addc(&first, '\0');
	FUZZ_MUST(first.failed == KT_OK);
	cred.cookie = first.ptr;
	kt_watch_facts_read(&cred, &again);
	FUZZ_MUST(again.phase == facts->phase && again.not_after == facts->not_after && again.warned == facts->warned);
	FUZZ_MUST(kt_watch_facts_write(&again, &second, &err) == KT_OK && strlen(first.ptr) == second.len &&
		  memcmp(first.ptr, second.ptr, second.len) == 0);
}

static size_t take(char *out, size_t room, const char *from, size_t len)
{
	size_t n = len < room - 1 ? len : room - 1;

	memcpy(out, from, n);
	out[n] = '\0';
	return n;
}

/* Whatever bytes the courier said are in the certificate of a peer. */
static void as_seen(const char *text, size_t len)
{
	struct kt_watch_facts facts = {.not_after = 1790000000000};
	size_t n = take(facts.subject, sizeof(facts.subject), text, len);

	n += take(facts.serial, sizeof(facts.serial), text + n, len - n);
	n += take(facts.sha256, sizeof(facts.sha256), text + n, len - n);
	(void)take(facts.source, sizeof(facts.source), text + n, len - n);
	there_and_back(&facts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_buf text KT_AUTOBUF = {0};
	struct kt_store_cred cred = {0};
	struct kt_watch_facts facts;

	kt_buf_init(&text, 1u << 20);
	kt_buf_add(&text, data, size);
	kt_buf_addc(&text, '\0');
	if (text.failed != KT_OK) {
		return 0;
	}
	cred.cookie = text.ptr;
	kt_watch_facts_read(&cred, &facts);
	FUZZ_MUST(facts.phase <= KT_WATCH_PROVING);
	there_and_back(&facts);
	as_seen(text.ptr, text.len - 1);
	return 0;
}
