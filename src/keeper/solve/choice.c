/* Which of an issuer's solvers answers for a name, and what to say when none can. */
#include <string.h>

#include "keeper/solve/solve.h"

/* Of one offer: 0 for those that we do not know, and for those that lack the token that they must have. */
static unsigned challenge_of(const json_t *offer)
{
	const char *type = kt_json_str(offer, "type");
	unsigned challenge = type != NULL ? kt_challenge_from_name(type) : 0;

	return challenge == KT_CHALLENGE_DNS_PERSIST01 || kt_json_str(offer, "token") != NULL ? challenge : 0;
}

static const json_t *offer_of(const json_t *offered, unsigned challenge)
{
	size_t i;
	json_t *one;

	json_array_foreach(offered, i, one) {
		if (challenge_of(one) == challenge) {
			return one;
		}
	}
	return NULL;
}

static void list(unsigned challenges, char out[80])
{
	size_t at = 0;

	out[0] = '\0';
	for (unsigned bit = 1; bit <= KT_CHALLENGE_ALL; bit <<= 1) {
		if ((challenges & bit) != 0) {
			at += (size_t)snprintf(out + at, 80 - at, "%s%s", at > 0 ? ", " : "", kt_challenge_name(bit));
		}
	}
}

static enum kt_code refuse(const char *ref, const struct kt_acme *acme, const struct kt_pairs *labels, const char *name,
                           unsigned offered, struct kt_err *err)
{
	unsigned possible = kt_acme_challenges_for(name);
	int nearest = kt_acme_solver_for(acme, labels, name);
	const char *why = strncmp(name, "*.", 2) == 0 ? "a wildcard" : "an IP address";
	char useful[80], all[80];

	list(possible, all);
	list(possible & offered, useful);
	if (offered == 0) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "%.253s: the CA offers no challenge that is known here; it needs %s", name, all);
	}
	if (acme->solvers.count > 0 && nearest < 0) {
		return kt_err_set(err, KT_E_UNSUPPORTED, "no selector among the solvers of %s takes %.253s: add one of %s for it", ref,
		                  name, useful[0] != '\0' ? useful : all);
	}
	if (acme->solvers.count > 0 && kt_acme_solver_among(acme, labels, name, possible) >= 0) {
		list(offered, all);
		return kt_err_set(err, KT_E_UNSUPPORTED,
		                  "%.253s: the CA offers %s, which no solver of %s answers (solvers[%d] is %s): add one of %s", name,
		                  all, ref, nearest,
		                  kt_challenge_name(kt_acme_challenge(&acme->solvers.items[nearest])), useful[0] != '\0' ? useful : all);
	}
	return kt_err_set(err, KT_E_UNSUPPORTED, "%.253s: %s needs %s; %s %s has %s: add one of %s", name, why, all,
	                  acme->solvers.count > 0 ? "no solver that fits it in" : "the issuer", ref,
	                  acme->solvers.count > 0 ? "that" : "no solvers and answers http-01 only", useful[0] != '\0' ? useful : all);
}

enum kt_code kt_choose(const char *ref, const struct kt_acme *acme, const struct kt_pairs *labels, const char *name,
                       const json_t *offered, struct kt_choice *ret, struct kt_err *err)
{
	unsigned all = 0;
	size_t i;
	json_t *one;

	json_array_foreach(offered, i, one) {
		all |= challenge_of(one);
	}
	ret->solver = kt_acme_solver_among(acme, labels, name, all & kt_acme_challenges_for(name));
	ret->challenge = ret->solver >= 0 ? kt_acme_challenge(&acme->solvers.items[ret->solver]) : 0;
	if (acme->solvers.count == 0) {
		ret->challenge = all & kt_acme_challenges_for(name) & KT_CHALLENGE_HTTP01;
	}
	if (ret->challenge == 0) {
		return refuse(ref, acme, labels, name, all, err);
	}
	ret->offer = offer_of(offered, ret->challenge);
	return KT_OK;
}
