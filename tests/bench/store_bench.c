/* What the store costs a credential that walks through the whole pipeline: rows, sealing and audit, by the microsecond. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper/audit/audit.h"
#include "keeper/keys/keys.h"
#include "keeper/store/store.h"
#include "kt/clock.h"
#include "kt/io.h"
#include "kt/mem.h"
#include "kt/secret.h"
#include "kt/text.h"

enum { GROUP = 256 };

static void must(enum kt_code code, const struct kt_err *err)
{
	if (code == KT_OK)
		return;
	(void)fprintf(stderr, "store_bench: %s\n", err->what);
	exit(1);
}

static double cpu_us(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static long rss_kib(void)
{
	long size = 0;
	long resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	if (file == NULL)
		return 0;
	if (fscanf(file, "%ld %ld", &size, &resident) != 2)
		resident = 0;
	(void)fclose(file);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

struct flight {
	int64_t id;
	char name[32];
	char trace[33];
	struct kt_store_cred cred;
	struct kt_store_material material;
};

static char spec[1024];
static char pem[1600];
static char ca_pem[700];

static void load_set(struct kt_store *store, int count)
{
	struct kt_err err;
	int64_t generation;
	int64_t id;
	enum kt_store_change change;
	char name[32];
	struct kt_store_link link = {"issuer", "default", "ClusterIssuer/ca"};

	must(kt_store_begin(store, &err), &err);
	must(kt_store_set_begin(store, &generation, &err), &err);
	for (int i = 0; i < count; i++) {
		(void)snprintf(name, sizeof(name), "web-%06d", i);
		struct kt_store_resource resource = {.kind = "Certificate",
		                                     .ns = "default",
		                                     .name = name,
		                                     .spec = kt_view_str(spec),
		                                     .request_key = "0123456789abcdef0123456789abcdef",
		                                     .file = "bench.yaml",
		                                     .line = i};
		must(kt_store_set_put(store, &resource, &link, 1, &id, &change, &err), &err);
		if (change == KT_STORE_ADDED) {
			struct kt_store_cred cred = {.id = id, .secret_name = name, .due_at = 1000};
			must(kt_store_cred_put(store, &cred, &err), &err);
		}
	}
	must(kt_store_set_finish(store, NULL, NULL, &err), &err);
	must(kt_store_commit(store, &err), &err);
}

static void audit(struct kt_store *store, struct flight *flight, const char *step, bool issued)
{
	struct kt_err err;
	struct kt_audit_event event = {
	        .trace_id = flight->trace,
	        .actor = "agent",
	        .kind = "Certificate",
	        .ns = "default",
	        .name = flight->name,
	        .step = step,
	        .outcome = "ok",
	        .revision = flight->material.revision,
	        .issuer = "ClusterIssuer/ca",
	        .serial = issued ? "5f3c0a9be8d1427796a0f3b1c4d5e6f708192a3b" : NULL,
	        .not_after = issued ? 1800000000000 : 0,
	        .server_address = strcmp(step, "proved") == 0 ? "127.0.0.1:8443" : NULL,
	};

	must(kt_audit_append(store, &event, &err), &err);
}

static void step(struct kt_store *store, struct flight *flight, enum kt_step to)
{
	struct kt_err err;

	flight->cred.step = to;
	flight->cred.step_at = kt_clock_wall(&kt_clock_system);
	must(kt_store_cred_put(store, &flight->cred, &err), &err);
}

/* due + keyed: a key sealed and stored. */
static void round_key(struct kt_store *store, struct kt_keys *keys, struct flight *flight)
{
	struct kt_err err;
	struct kt_store_resource resource = {.kind = "Certificate", .ns = "default", .name = flight->name};
	struct kt_seal_id id;
	struct kt_buf sealed;
	char key[138];

	(void)snprintf(flight->name, sizeof(flight->name), "web-%06d", (int)flight->id - 1);
	must(kt_store_cred_get(store, flight->id, &flight->cred, &err), &err);
	(void)kt_audit_trace_id(kt_clock_wall(&kt_clock_system), flight->trace);
	id = kt_store_material_seal_id(&resource, flight->cred.revision + 1, "key");
	kt_buf_init(&sealed, 4096);
	memset(key, 'k', sizeof(key));
	must(kt_keys_seal(keys, &id, (struct kt_view){key, sizeof(key)}, &sealed, &err), &err);
	flight->material = (struct kt_store_material){.credential = flight->id,
	                                              .revision = flight->cred.revision + 1,
	                                              .sealed_key = kt_buf_view(&sealed),
	                                              .request_key = "0123456789abcdef0123456789abcdef",
	                                              .created = 1};
	must(kt_store_material_insert(store, &flight->material, &err), &err);
	flight->material.sealed_key = (struct kt_view){NULL, 0};
	kt_buf_finish(&sealed);
	flight->cred.revision++;
	flight->cred.candidate = flight->material.id;
	step(store, flight, KT_STEP_KEYED);
	audit(store, flight, "due", false);
	audit(store, flight, "keyed", false);
}

/* ordered + obtained + staged + validated: the certificate arrives. */
static void round_obtain(struct kt_store *store, struct flight *flight)
{
	struct kt_err err;
	struct kt_store_material material;

	must(kt_store_material_get(store, flight->material.id, &material, &err), &err);
	material.chain = kt_view_str(pem);
	material.ca = kt_view_str(ca_pem);
	material.serial = "5f3c0a9be8d1427796a0f3b1c4d5e6f708192a3b";
	material.sha256 = "5f3c0a9be8d1427796a0f3b1c4d5e6f708192a3b5f3c0a9be8d1427796a0f3b1";
	material.not_after = 1800000000000;
	material.issued = 2;
	material.dir = "..2026_11_23_07_09_03.123456789";
	must(kt_store_material_put(store, &material, &err), &err);
	kt_store_material_finish(&material);
	step(store, flight, KT_STEP_VALIDATED);
	audit(store, flight, "ordered", false);
	audit(store, flight, "obtained", true);
	audit(store, flight, "staged", true);
	audit(store, flight, "validated", true);
}

/* switched + notified + proved: in place, and at rest until the next time. */
static void round_finish(struct kt_store *store, struct flight *flight)
{
	struct kt_err err;

	must(kt_store_material_mark(store, flight->material.id, KT_MATERIAL_CURRENT, NULL, &err), &err);
	flight->cred.active = flight->material.id;
	flight->cred.candidate = 0;
	flight->cred.expiry = 1800000000000;
	flight->cred.due_at = 1700000000000 + flight->id;
	flight->cred.trace_id = flight->trace;
	flight->cred.proof = KT_PROOF_PROVED;
	step(store, flight, KT_STEP_RETIRED);
	audit(store, flight, "switched", true);
	audit(store, flight, "notified", true);
	audit(store, flight, "proved", true);
	flight->cred.trace_id = NULL;
	kt_store_cred_finish(&flight->cred);
}

static int run(const char *dir, int count)
{
	static struct flight flights[GROUP];
	struct kt_store_open options = {.dir = dir};
	struct kt_store *store;
	struct kt_keys *keys;
	struct kt_secret *master;
	struct kt_err err;
	bool created;

	must(kt_secret_init(&err), &err);
	must(kt_store_open(&options, &store, &err), &err);
	must(kt_keys_from_file(store, NULL, true, &master, &created, &err), &err);
	must(kt_keys_open(store, master, &keys, &err), &err);
	kt_secret_destroy(master);
	memset(spec, 's', sizeof(spec) - 1);
	memset(pem, 'p', sizeof(pem) - 1);
	memset(ca_pem, 'c', sizeof(ca_pem) - 1);

	double at = cpu_us();
	load_set(store, count);
	(void)printf("load a set of %d resources        %8.1f us each\n", count, (cpu_us() - at) / count);
	at = cpu_us();
	load_set(store, count);
	(void)printf("load the same set again              %8.1f us each\n", (cpu_us() - at) / count);

	at = cpu_us();
	kt_ms wall = kt_clock_mono(&kt_clock_system);
	int done = 0;
	double due_us = 0;
	for (;;) {
		int64_t ids[GROUP];
		size_t n = GROUP;
		double before = cpu_us();
		must(kt_store_cred_due(store, 2000, ids, &n, &err), &err);
		due_us += cpu_us() - before;
		if (n == 0)
			break;
		must(kt_store_begin(store, &err), &err);
		for (size_t i = 0; i < n; i++) {
			flights[i].id = ids[i];
			round_key(store, keys, &flights[i]);
		}
		must(kt_store_commit(store, &err), &err);
		must(kt_store_begin(store, &err), &err);
		for (size_t i = 0; i < n; i++)
			round_obtain(store, &flights[i]);
		must(kt_store_commit(store, &err), &err);
		must(kt_store_begin(store, &err), &err);
		for (size_t i = 0; i < n; i++)
			round_finish(store, &flights[i]);
		must(kt_store_commit(store, &err), &err);
		done += (int)n;
	}
	double all = cpu_us() - at;
	(void)printf("pipeline: 3 steps, 3 material writes,\n  1 seal, 9 audit records            %8.1f us CPU each "
	             "(%.1f of it: what is due)\n",
	             all / done, due_us / done);
	(void)printf("  by the clock                       %8.1f us each\n",
	             (double)(kt_clock_mono(&kt_clock_system) - wall) * 1000 / done);

	kt_ms next = 0;
	int64_t ids[GROUP];
	at = cpu_us();
	for (int i = 0; i < 10000; i++) {
		size_t n = GROUP;
		must(kt_store_cred_next_due(store, -1, &next, &err), &err);
		must(kt_store_cred_due(store, 2000, ids, &n, &err), &err);
	}
	(void)printf("a tick with nothing due              %8.2f us\n", (cpu_us() - at) / 10000);

	struct kt_store_counts counts;
	at = cpu_us();
	must(kt_store_counts(store, &counts, &err), &err);
	(void)printf("first count                          %8.1f us\n", cpu_us() - at);

	struct kt_audit_verdict verdict;
	at = cpu_us();
	must(kt_audit_verify(store, &verdict, &err), &err);
	(void)printf("verify %8llu audit records: %-5s   %8.2f us each\n", (unsigned long long)verdict.count,
	             verdict.good ? "good" : "BAD", (cpu_us() - at) / (double)verdict.count);

	uint64_t blobs;
	at = cpu_us();
	must(kt_keys_rotate_file(store, keys, NULL, &blobs, &err), &err);
	(void)printf("master key: seal %8llu blobs anew   %8.1f us each\n", (unsigned long long)blobs,
	             (cpu_us() - at) / (double)blobs);

	long before = rss_kib();
	kt_store_trim(store);
	(void)printf("resident: %ld KiB, after trim %ld KiB\n", before, rss_kib());
	kt_keys_destroy(keys);
	kt_store_close(store);
	at = (double)kt_clock_mono(&kt_clock_system);
	must(kt_store_open(&options, &store, &err), &err);
	(void)printf("open again: %.0f ms\n", (double)kt_clock_mono(&kt_clock_system) - at);
	kt_store_close(store);
	return verdict.good ? 0 : 1;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 10000;
	const char *base = argc > 2 ? argv[2] : "/dev/shm";
	char dir[512];
	char tail[17];
	struct kt_err err;

	kt_rand_hex(tail, 8);
	(void)snprintf(dir, sizeof(dir), "%s/kt-store-bench-%s", base, tail);
	int status = run(dir, count > 0 ? count : 1);
	int fd = kt_io_open_dir_create(base, 0700, &err);
	must(kt_io_remove_tree(fd, strrchr(dir, '/') + 1, &err), &err);
	(void)close(fd);
	return status;
}
