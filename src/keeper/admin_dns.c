/*
 * The command dns-record: what is to be published in the DNS once, before a Certificate can be issued: the records of
 * dns-persist-01, and the aliases by which dns-01 is delegated. It asks the CA who it is, and registers the account that
 * the record names where there is none yet.
 */
#include <stdio.h>
#include <string.h>

#include "kt/mem.h"
#include "kt/text.h"
#include "keeper/acme.h"
#include "keeper/admin.h"
#include "keeper/solve/solve.h"

/* What a request is about; made anew after each answer of the courier, since all of it may have changed. */
struct subject {
	struct kt_store_resource row;
	struct kt_resource *spec;
	struct kt_issuer_entry *issuer;
	const struct kt_acme *acme;
	bool persists;     /* some name is proved by dns-persist-01 */
	bool needs_domain; /* ... and the manifest leaves it to the CA how it is called */
};

static void subject_finish(struct subject *subject)
{
	kt_store_resource_finish(&subject->row);
	kt_resource_destroy(subject->spec);
}

/* The solver that will be chosen, as far as that can be known before the CA has offered anything. */
static const struct kt_acme_solver *solver_of(const struct subject *subject, const char *name, int *ret_index)
{
	*ret_index = kt_acme_solver_among(subject->acme, &subject->spec->meta.labels, name, kt_acme_challenges_for(name));
	return *ret_index >= 0 ? &subject->acme->solvers.items[*ret_index] : NULL;
}

static enum kt_code subject_init(struct kt_session *session, struct subject *subject, struct kt_err *err)
{
	struct kt_keeper *keeper = session->keeper;
	const char *name = kt_session_arg(session, "name");
	enum kt_code code = name != NULL ? kt_admin_find(keeper, name, &subject->row, err)
	                                 : kt_err_set(err, KT_E_INVALID, "dns-record needs the name of a Certificate");

	if (code == KT_OK && strcmp(subject->row.kind, "Certificate") != 0) {
		code = kt_err_set(err, KT_E_INVALID, "%s is a %s, not a Certificate", name, subject->row.kind);
	}
	if (code == KT_OK) {
		code = kt_load_spec(&subject->row, &subject->spec, err);
	}
	if (code == KT_OK) {
		code = kt_issuers_get(keeper, subject->spec, &subject->issuer, err);
	}
	if (code != KT_OK) {
		return code;
	}
	subject->acme = subject->issuer->spec->issuer.acme;
	if (subject->acme == NULL) {
		return kt_err_set(err, KT_E_INVALID, "%s is no ACME issuer: it wants nothing from the DNS", subject->issuer->ref);
	}
	for (uint32_t i = 0; i < subject->spec->certificate.dns_names.count; i++) {
		int index;
		const struct kt_acme_solver *solver = solver_of(subject, subject->spec->certificate.dns_names.items[i], &index);

		if (solver != NULL && solver->dns_persist01 != NULL) {
			subject->persists = true;
			subject->needs_domain = subject->needs_domain || solver->dns_persist01->issuer_domain == NULL;
		}
	}
	return KT_OK;
}

/* --- rows --------------------------------------------------------------------------------------------------------------- */

static const char *base_of(const char *name)
{
	return strncmp(name, "*.", 2) == 0 ? name + 2 : name;
}

/* "example.org" and "*.example.org" are one record. */
static bool seen_before(const struct kt_strings *names, uint32_t at)
{
	for (uint32_t i = 0; i < at; i++) {
		if (kt_ascii_ieq(kt_view_str(base_of(names->items[i])), kt_view_str(base_of(names->items[at])))) {
			return true;
		}
	}
	return false;
}

static bool has_wildcard(const struct subject *subject, const char *base)
{
	const struct kt_strings *names = &subject->spec->certificate.dns_names;
	int index;

	for (uint32_t i = 0; i < names->count; i++) {
		const struct kt_acme_solver *solver = solver_of(subject, names->items[i], &index);

		if (base_of(names->items[i]) != names->items[i] && solver != NULL && solver->dns_persist01 != NULL &&
		    kt_ascii_ieq(kt_view_str(base_of(names->items[i])), kt_view_str(base))) {
			return true;
		}
	}
	return false;
}

static void add_row(struct kt_session *session, const char *name, int solver, const char *type, const char *label,
                    const char *value, const char *why)
{
	char record[KT_NAME_MAX + 32];

	(void)snprintf(record, sizeof(record), "%s.%s", label, name);
	kt_session_row(session, json_pack("{s:s,s:i,s:s,s:s,s:s?,s:s}", "name", name, "solver", solver, "record", record, "type",
	                                  type, "value", value, "text", why));
}

static enum kt_code persist_row(struct kt_session *session, const struct subject *subject, const char *base, int index,
                                const char *ca_domain, struct kt_err *err)
{
	const char *domain = subject->acme->solvers.items[index].dns_persist01->issuer_domain;
	struct kt_buf value KT_AUTOBUF = {0};
	enum kt_code code;

	kt_buf_init(&value, 1000);
	code = kt_solve_persist_value(domain != NULL ? domain : ca_domain, subject->issuer->account_url,
	                              has_wildcard(subject, base), &value, err);
	if (code == KT_OK) {
		add_row(session, base, index, "TXT", "_validation-persist", value.ptr,
		        "dns-persist-01: publish it once; it stays good for every renewal with this account");
	}
	return code;
}

/* Where acme-dns holds the record of a name: the account of the domain, or of the nearest one above it. */
static char *acme_dns_target(struct kt_keeper *keeper, const struct subject *subject, const struct kt_dns_acme_dns *dns,
                             const char *base)
{
	struct kt_secret *secret KT_AUTOSECRET = NULL;
	KT_AUTOJSON json_t *accounts = NULL;
	const json_t *account = NULL;
	const char *full;

	if (kt_issuers_secret(keeper, subject->issuer->spec->meta.ns, dns->account.name, dns->account.key, &secret, NULL) !=
	            KT_OK ||
	    kt_json_parse(kt_secret_view(secret), 65536, &accounts, NULL) != KT_OK) {
		return NULL;
	}
	while (base != NULL && account == NULL) {
		account = json_object_get(accounts, base);
		base = strchr(base, '.');
		base = base != NULL ? base + 1 : NULL;
	}
	full = kt_json_str(account, "fulldomain");
	return full != NULL ? kt_asprintf("%s%s", full, kt_ends_with(full, ".") ? "" : ".") : NULL;
}

static void alias_row(struct kt_session *session, const struct subject *subject, const struct kt_dns01_solver *dns,
                      const char *base, int index)
{
	char *target KT_AUTOFREE = NULL;

	if (dns->acme_dns != NULL) {
		target = acme_dns_target(session->keeper, subject, dns->acme_dns, base);
		add_row(session, base, index, "CNAME", "_acme-challenge", target,
		        target != NULL ? "dns-01: publish it once; acme-dns answers where it leads"
		                       : "dns-01: publish it once; it has to lead to the fulldomain of an acme-dns account, and none is "
		                         "stored for this name");
	} else if (dns->cname_strategy == KT_CNAME_FOLLOW) {
		add_row(session, base, index, "CNAME", "_acme-challenge", NULL,
		        "dns-01: publish it once, where the solver may not write the zone of the name; the record is written where it "
		        "leads");
	}
}

static void render(struct kt_session *session, const struct subject *subject, const char *ca_domain)
{
	const struct kt_strings *names = &subject->spec->certificate.dns_names;
	enum kt_code code = KT_OK;
	struct kt_err err;

	kt_err_clear(&err);
	for (uint32_t i = 0; i < names->count && code == KT_OK; i++) {
		const char *base = base_of(names->items[i]);
		int index;
		const struct kt_acme_solver *solver = solver_of(subject, names->items[i], &index);

		if (seen_before(names, i) || solver == NULL) {
			continue;
		}
		if (solver->dns_persist01 != NULL) {
			code = persist_row(session, subject, base, index, ca_domain, &err);
		} else if (solver->dns01 != NULL) {
			alias_row(session, subject, solver->dns01, base, index);
		}
	}
	if (code != KT_OK) {
		kt_session_fail(session, &err);
		return;
	}
	kt_session_end(session, 0,
	               json_pack("{s:s,s:s?,s:b}", "issuer", subject->issuer->ref, "account",
	                         subject->persists ? subject->issuer->account_url : NULL, "registered", session->seeded));
}

/* --- what has to be asked before ---------------------------------------------------------------------------------------- */

static void on_registered(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	struct kt_session *session = job->session;

	(void)answer; /* the URL is in the store: ACME_SAVE came before */
	if (session == NULL) {
		return;
	}
	if (why->code == KT_OK && job->issuer->account_url[0] != '\0') {
		session->seeded = true;
		kt_command_dns_record(session);
	} else if (why->code == KT_OK) {
		struct kt_err err;

		kt_err_clear(&err);
		(void)kt_err_set(&err, KT_E_PROTO, "%s: the CA gave no account", job->issuer->ref);
		kt_session_fail(session, &err);
	} else {
		kt_session_fail(session, why);
	}
	kt_session_flush(session);
}

static void on_directory(struct kt_acme_job *job, const struct kt_err *why, const struct kt_msg_acme_account_done *answer)
{
	struct kt_session *session = job->session;
	struct subject subject = {.persists = false};
	KT_AUTOJSON json_t *directory = NULL;
	const char *domain;
	struct kt_err err = *why;

	if (session == NULL) {
		return;
	}
	if (err.code == KT_OK) {
		(void)kt_json_parse(answer->body, 65536, &directory, &err);
	}
	domain = json_string_value(json_array_get(json_object_get(json_object_get(directory, "meta"), "caaIdentities"), 0));
	if (err.code == KT_OK && (domain == NULL || domain[0] == '\0' || strlen(domain) > KT_NAME_MAX)) {
		(void)kt_err_set(&err, KT_E_UNSUPPORTED, "%s does not say how it is called in records: set issuerDomain of the solver",
		                 job->issuer->ref);
	}
	if (err.code == KT_OK) {
		(void)subject_init(session, &subject, &err);
	}
	if (err.code == KT_OK) {
		render(session, &subject, domain);
	} else {
		kt_session_fail(session, &err);
	}
	subject_finish(&subject);
	kt_session_flush(session);
}

static enum kt_code ask(struct kt_session *session, const struct subject *subject, const char *op, kt_acme_job_fn *done,
                        struct kt_err *err)
{
	struct kt_acme_job *job;
	enum kt_code code = kt_acme_job_create(session->keeper, subject->issuer, done, session, &job, err);

	return code == KT_OK ? kt_acme_job_account(job, op, subject->acme->email, err) : code;
}

void kt_command_dns_record(struct kt_session *session)
{
	struct subject subject = {.persists = false};
	struct kt_err err;
	enum kt_code code;

	kt_err_clear(&err);
	code = subject_init(session, &subject, &err);
	if (code == KT_OK && subject.persists) {
		code = kt_acme_account_load(session->keeper, subject.issuer, &err);
	}
	if (code != KT_OK) {
		kt_session_fail(session, &err);
	} else if (subject.persists && subject.issuer->account_url[0] == '\0') {
		code = ask(session, &subject, "register", on_registered, &err);
	} else if (subject.needs_domain) {
		code = ask(session, &subject, "directory", on_directory, &err);
	} else {
		render(session, &subject, NULL);
	}
	if (code != KT_OK) {
		kt_session_fail(session, &err);
	}
	subject_finish(&subject);
}
