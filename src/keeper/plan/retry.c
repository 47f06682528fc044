/* Retries: the one table that says whose fault a failure is and how long to wait after it. */
#include <string.h>

#include "keeper/plan/plan_internal.h"

#define S KT_SECOND
#define M KT_MINUTE
#define H KT_HOUR

#define ALONE .obey_retry_after = false /* nobody is asked, so nobody can say when */
#define ASKED_BELIEVED 3u
#define ASKED_MEANT    2 /* s: "0", a negative number and a date in the past arrive as 1: no wish, but nothing said */
#define ASKED .obey_retry_after = true
#define CHANGE .needs_change = true, .alarm = true
#define ALARM .alarm = true
#define FAILED .validation = true
/* They did not take the request and may well take the next: an order goes on where it stood. */
#define NEAR .near = true
#define NEAR_WAIT  (10 * S)
#define NEAR_TRIES 4u /* in a row, the first one included */

/*
 * Per code. Where nothing but a person can help (needs_change) the floor is as long as the first delay, so that the end
 * of a credential does not turn into a stream of refused requests.
 */
static const struct kt_plan_retry by_code[] = {
        /* problem, code, fault, first, growth %, cap, floor */
        {NULL, KT_OK, KT_FAULT_OURS, 1 * S, 200, 1 * M, 1 * S, ALONE},
        {NULL, KT_E_NOMEM, KT_FAULT_OURS, 1 * S, 200, 1 * M, 1 * S, ALONE, NEAR},
        {NULL, KT_E_SYS, KT_FAULT_OURS, 1 * S, 200, 5 * M, 1 * S, ALARM},
        {NULL, KT_E_INVALID, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, CHANGE},
        {NULL, KT_E_LIMIT, KT_FAULT_PEER, 1 * M, 200, 1 * H, 1 * M, ALONE},
        {NULL, KT_E_NOTFOUND, KT_FAULT_USER, 10 * S, 200, 10 * M, 5 * S, ALARM},
        {NULL, KT_E_EXISTS, KT_FAULT_OURS, 1 * S, 200, 5 * M, 1 * S, ALONE},
        {NULL, KT_E_BUSY, KT_FAULT_OURS, 1 * S, 150, 1 * M, 1 * S, ALONE},
        {NULL, KT_E_LATER, KT_FAULT_LIMIT, 1 * M, 200, 15 * M, 5 * S, ASKED},
        {NULL, KT_E_TIMEOUT, KT_FAULT_NETWORK, 5 * S, 200, 15 * M, 5 * S, ASKED},
        {NULL, KT_E_NET, KT_FAULT_NETWORK, 5 * S, 200, 15 * M, 5 * S, ASKED},
        {NULL, KT_E_PROTO, KT_FAULT_PEER, 1 * M, 200, 1 * H, 5 * S, ASKED},
        {NULL, KT_E_AUTH, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {NULL, KT_E_DENIED, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {NULL, KT_E_POLICY, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, CHANGE},
        {NULL, KT_E_CRYPTO, KT_FAULT_PEER, 5 * M, 300, 6 * H, 1 * M, ALARM},
        {NULL, KT_E_CORRUPT, KT_FAULT_OURS, 1 * M, 200, 1 * H, 1 * M, ALARM},
        {NULL, KT_E_CLOSED, KT_FAULT_OURS, 1 * S, 200, 1 * M, 1 * S, ALONE},
        {NULL, KT_E_CANCELLED, KT_FAULT_OURS, 1 * S, 200, 10 * S, 1 * S, ALONE},
        {NULL, KT_E_UNSUPPORTED, KT_FAULT_USER, 24 * H, 100, 24 * H, 1 * H, CHANGE},
        {NULL, KT_E_MISMATCH, KT_FAULT_CONSUMER, 5 * S, 200, 5 * M, 5 * S, ALARM},
};
_Static_assert(sizeof(by_code) / sizeof(by_code[0]) == KT_CODE_COUNT, "a row for each code, in the order of kt/err.h");

/* Per problem: ACME (RFC 8555 section 6.7 and later ones), then OAuth (RFC 6749, 8693, 8707, 9449). */
static const struct kt_plan_retry by_problem[] = {
        /* The keeper died over it, again and again: not so often that nothing else gets done. */
        {"sudden-ends", 0, KT_FAULT_OURS, 10 * S, 300, 1 * H, 10 * S, ALONE, ALARM},
        /* ACME: they or the way to them */
        {"badNonce", 0, KT_FAULT_PEER, 1 * S, 200, 5 * M, 1 * S, ASKED, NEAR},
        {"serverInternal", 0, KT_FAULT_PEER, 1 * S, 200, 1 * H, 1 * S, ASKED, NEAR},
        {"orderNotReady", 0, KT_FAULT_PEER, 5 * S, 200, 5 * M, 5 * S, ASKED},
        {"alreadyReplaced", 0, KT_FAULT_PEER, 1 * M, 200, 1 * H, 1 * M, ASKED},
        /* Our answer to a challenge could not be given: the DNS, its provider, a program. The CA has no part in it. */
        {"solver", 0, KT_FAULT_USER, 5 * S, 200, 15 * M, 5 * S, ASKED, ALARM},
        /* A client's secret: it may have been made, and consumers may be refused until there is another one. */
        {"lostAnswer", 0, KT_FAULT_NETWORK, 1 * S, 200, 15 * M, 1 * S, ASKED, NEAR},
        /* Nothing has failed: what would have to go may still be in use. */
        {"stillInUse", 0, KT_FAULT_LIMIT, 1 * S, 100, 1 * M, 1 * S, ASKED},
        {"secretRefused", 0, KT_FAULT_PEER, 2 * S, 200, 15 * M, 2 * S, ASKED, NEAR},
        /* What they allow is used up, by our own count of it. */
        {"budget", 0, KT_FAULT_LIMIT, 1 * M, 200, 12 * H, 1 * S, ASKED},
        /* Limits count in hours and weeks; coming back soon only keeps them alive. */
        {"rateLimited", 0, KT_FAULT_LIMIT, 15 * M, 200, 12 * H, 15 * M, ASKED, ALARM},
        /* ACME: they could not see our answer: DNS, firewall, web server. Failed validations are rate-limited. */
        {"connection", 0, KT_FAULT_USER, 1 * M, 300, 6 * H, 1 * M, ASKED, ALARM, FAILED},
        {"dns", 0, KT_FAULT_USER, 1 * M, 300, 6 * H, 1 * M, ASKED, ALARM, FAILED},
        {"tls", 0, KT_FAULT_USER, 1 * M, 300, 6 * H, 1 * M, ASKED, ALARM, FAILED},
        {"incorrectResponse", 0, KT_FAULT_USER, 5 * M, 300, 12 * H, 5 * M, ASKED, ALARM, FAILED},
        {"unauthorized", 0, KT_FAULT_USER, 5 * M, 300, 12 * H, 5 * M, ASKED, ALARM, FAILED},
        {"compound", 0, KT_FAULT_USER, 5 * M, 300, 12 * H, 5 * M, ASKED, ALARM, FAILED},
        /* ACME: only a change helps */
        {"caa", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE, FAILED},
        {"rejectedIdentifier", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"unsupportedIdentifier", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"badCSR", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"badPublicKey", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"badSignatureAlgorithm", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalidProfile", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"malformed", 0, KT_FAULT_OURS, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"badRevocationReason", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"alreadyRevoked", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"accountDoesNotExist", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"externalAccountRequired", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"userActionRequired", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalidContact", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"unsupportedContact", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        /* OAuth */
        {"temporarily_unavailable", 0, KT_FAULT_PEER, 10 * S, 200, 15 * M, 5 * S, ASKED},
        {"server_error", 0, KT_FAULT_PEER, 10 * S, 200, 15 * M, 5 * S, ASKED},
        {"slow_down", 0, KT_FAULT_LIMIT, 30 * S, 200, 15 * M, 5 * S, ASKED},
        {"use_dpop_nonce", 0, KT_FAULT_PEER, 1 * S, 200, 5 * M, 1 * S, ASKED},
        {"invalid_client", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"unauthorized_client", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalid_scope", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalid_target", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalid_grant", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalid_request", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"access_denied", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"unsupported_grant_type", 0, KT_FAULT_USER, 6 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
        {"invalid_dpop_proof", 0, KT_FAULT_USER, 1 * H, 200, 24 * H, 1 * H, ASKED, CHANGE},
};

/* A connection that broke after the order was placed. */
static const struct kt_plan_retry broken_resumed = {
        NULL, KT_E_NET, KT_FAULT_NETWORK, 1 * S, 200, 15 * M, 1 * S, ASKED, NEAR};

const char *kt_plan_fault_name(enum kt_plan_fault fault)
{
	static const char *const names[] = {
	        [KT_FAULT_OURS] = "ours",   [KT_FAULT_NETWORK] = "network", [KT_FAULT_PEER] = "peer",
	        [KT_FAULT_LIMIT] = "limit", [KT_FAULT_USER] = "user",       [KT_FAULT_CONSUMER] = "consumer",
	};

	return (size_t)fault < sizeof(names) / sizeof(names[0]) ? names[fault] : "unknown";
}

static const char *without_prefix(const char *problem)
{
	static const char *const prefixes[] = {"urn:ietf:params:acme:error:", "urn:acme:error:"};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		if (strncmp(problem, prefixes[i], strlen(prefixes[i])) == 0)
			return problem + strlen(prefixes[i]);
	}
	return problem;
}

const struct kt_plan_retry *kt_plan_retry_find(enum kt_code code, const char *problem)
{
	if (problem && *problem) {
		problem = without_prefix(problem);
		for (size_t i = 0; i < sizeof(by_problem) / sizeof(by_problem[0]); i++) {
			if (strcmp(by_problem[i].problem, problem) == 0)
				return &by_problem[i];
		}
	}
	if ((size_t)code >= KT_CODE_COUNT)
		code = KT_E_PROTO;
	return &by_code[code];
}

const struct kt_plan_retry *kt_plan_retry_at(size_t index)
{
	return index < sizeof(by_problem) / sizeof(by_problem[0]) ? &by_problem[index] : NULL;
}

const struct kt_plan_retry *kt_plan_retry_find_resumed(enum kt_code code, const char *problem)
{
	const struct kt_plan_retry *row = kt_plan_retry_find(code, problem);

	return row == &by_code[KT_E_NET] ? &broken_resumed : row;
}

bool kt_plan_retry_is_near(const struct kt_plan_retry *row, unsigned failures, int64_t retry_after_s, kt_ms wait)
{
	bool asked = row->obey_retry_after && !row->needs_change && retry_after_s >= ASKED_MEANT;

	return (row->near || asked) && failures > 0 && failures < NEAR_TRIES && wait <= NEAR_WAIT;
}

kt_ms kt_plan_retry_delay(const struct kt_plan_retry *row, unsigned failures, int64_t retry_after_s, kt_ms life_left,
                          uint64_t seed)
{
	kt_ms delay = row->first, bound;

	for (unsigned i = 1; i < failures && delay < row->cap && row->growth > 100; i++)
		delay = delay / 100 * row->growth + delay % 100 * row->growth / 100;
	delay = kt_plan_min(delay, row->cap);
	/* Jitter, because what failed together (a CA that went down) must not come back together. */
	delay = delay / 2 + kt_plan_jitter(seed + failures, KT_SALT_RETRY, delay - delay / 2);
	/* The nearer the end the more often; when it has passed something is down, and five minutes are long. */
	bound = life_left > 0 ? life_left / 8 : 5 * KT_MINUTE;
	delay = kt_plan_min(delay, bound);
	if (delay < row->floor)
		delay = row->floor + kt_plan_jitter(seed + failures, KT_SALT_FLOOR, row->floor / 4);
	if (row->obey_retry_after && retry_after_s >= ASKED_MEANT) {
		kt_ms asked = (retry_after_s > 86400 ? 86400 : retry_after_s) * KT_SECOND;

		asked += kt_plan_jitter(seed + failures, KT_SALT_ASKED, kt_plan_min(asked / 20, KT_MINUTE));
		/* Who says when to come back is believed; who then refuses again and again meets our own delays too. */
		delay = failures <= ASKED_BELIEVED && !row->needs_change ? asked : kt_plan_max(delay, asked);
	}
	return delay;
}
