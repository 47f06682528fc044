/* What helps after a failure: one table by problem, one by code, for renew, status and why alike. */
#include <string.h>

#include "keeper/remedy.h"
#include "keeper/watch/facts.h"

#define MORE "'keyturn why' and 'keyturn trace' say more"
#define ITSELF "nothing to do here: it is tried again by itself"

/* Names of problems as in plan/retry.c, and those that the courier gives to what it saw itself. */
static const struct {
	const char *problem, *text;
} by_problem[] = {
        /* TLS, as seen by the courier */
        {"serverCertificateExpired", "the server's certificate has to be renewed there, unless the clock of this machine is wrong"},
        {"serverCertificateNotYetValid", "set the clock of this machine, or wait until the server's certificate is valid"},
        {"serverCertificateName", "the URL has to name the server as its certificate does"},
        {"serverCertificateUntrusted", "a CA of its own needs its roots in caBundle of the issuer"},
        /* verifyTokens */
        {"tokenUnverified", "the keys at jwksURL (or jwks_uri of the server's metadata) have to be those that this server signs with: "
                            "look at spec.oauth2.jwksURL, issuer and tokenURL of the TokenIssuer"},
        {"keysUnreadable", "spec.oauth2.jwksURL of the TokenIssuer, or jwks_uri of the server's metadata, has to answer with a JWKS"},
        /* OAuth */
        {"server_error", "look at the server's own log, or ask who runs it; it is tried again by itself"},
        {"temporarily_unavailable", ITSELF},
        {"slow_down", ITSELF},
        {"secretRefused", ITSELF},
        {"stillInUse", ITSELF},
        {"budget", ITSELF},
        {"lostAnswer", ITSELF},
        /* ACME */
        {"solver", "look whether name servers, DNS provider or program do their part"},
        {"connection", "the CA has to reach the names on port 80 or 443: look at DNS, firewall and listener"},
        {"dns", "look at the DNS of the names, as the CA sees it from outside"},
        {"tls", "look at what answers on port 443 of the names"},
        {"incorrectResponse", "look at what answers for the names: something else than this agent does"},
        {"unauthorized", "look at what answers for the names: something else than this agent does, or the account has no right to them"},
        {"caa", "the CAA records of the names have to allow this CA"},
        {"rejectedIdentifier", "the CA does not issue for these names: mend the Certificate, or ask the CA"},
        {"unsupportedIdentifier", "the CA does not issue for these names: mend the Certificate, or ask the CA"},
        {"rateLimited", "the CA's limit has to pass; 'keyturn plan' shows what is left"},
        {"badCSR", "mend the Certificate: the CA refuses what it asks for"},
        {"badPublicKey", "spec.privateKey of the Certificate has to be of a kind that the CA takes"},
        {"badSignatureAlgorithm", "spec.privateKey of the Certificate has to be of a kind that the CA takes"},
        {"invalidProfile", "the issuer's profile has to be one that 'keyturn account show' lists"},
        {"accountDoesNotExist", "'keyturn account register' makes the account anew"},
        {"externalAccountRequired", "the CA wants spec.acme.externalAccountBinding of the issuer"},
        {"userActionRequired", "the CA wants something of you, for instance new terms agreed to: 'keyturn account show' has its pages"},
        {"invalidContact", "spec.acme.email of the issuer has to be an address that the CA takes"},
        {"unsupportedContact", "spec.acme.email of the issuer has to be an address that the CA takes"},
        {"serverInternal", ITSELF},
        {"badNonce", ITSELF},
        {"sudden-ends", "'keyturn trace' shows at which step; the log of the system may say why the keeper ended"},
};

const char *kt_remedy_find(enum kt_code code, const char *problem)
{
	const char *last = problem != NULL ? strrchr(problem, ':') : NULL;

	problem = last != NULL ? last + 1 : problem;
	for (size_t i = 0; problem != NULL && i < sizeof(by_problem) / sizeof(by_problem[0]); i++) {
		if (strcmp(by_problem[i].problem, problem) == 0) {
			return by_problem[i].text;
		}
	}
	switch (code) {
	case KT_E_AUTH:
		return "set the right secret with 'keyturn secret set', then run renew again";
	case KT_E_DENIED:
	case KT_E_POLICY:
		return "it is refused until the manifest, or what is allowed there, changes; " MORE;
	case KT_E_INVALID:
	case KT_E_UNSUPPORTED:
		return "mend the manifest or what it refers to, then run renew again";
	case KT_E_NOTFOUND:
		return "what is named there has to be there: provide it, or mend the manifest or the URL";
	case KT_E_NET:
	case KT_E_TIMEOUT:
		return "look whether the server can be reached";
	case KT_E_PROTO:
	case KT_E_LIMIT:
		return "look at the URL and at what answers there (a proxy, a login page, another server); " MORE;
	case KT_E_LATER:
	case KT_E_BUSY:
	case KT_E_CLOSED:
	case KT_E_CANCELLED:
		return ITSELF;
	case KT_E_NOMEM:
		return "this machine is short of memory; it is tried again by itself";
	case KT_E_SYS:
		return "make room or mend permissions on this machine; it goes on where it stopped";
	case KT_E_CORRUPT:
		return "'keyturn doctor' and 'keyturn audit --verify' look at the state";
	case KT_E_MISMATCH:
		return "look whether the consumer has read the new files; " MORE;
	default:
		return MORE;
	}
}

/* What is watched is somebody else's: its file, its endpoint, its command. */
static const char *for_watch(const struct kt_store_cred *cred)
{
	struct kt_watch_facts facts;

	kt_watch_facts_read(cred, &facts);
	if (facts.renewal_failed) {
		return "the command of spec.renew has to end well and the source to show a later certificate: run it by hand to see";
	}
	switch (cred->error) {
	case KT_E_SYS:
	case KT_E_NOTFOUND:
	case KT_E_POLICY:
		return "spec.source has to name a file that is there and that the agent may read, or mend the file";
	case KT_E_NET:
	case KT_E_TIMEOUT:
		return "look whether the endpoint of spec.source can be reached";
	default:
		return "look whether spec.source holds a certificate in the format that it names";
	}
}

static const char *for_client(enum kt_code code, const char *problem)
{
	if (problem[0] == '\0' && (code == KT_E_AUTH || code == KT_E_DENIED)) {
		return "the token in tokenRef of spec.issuer has to be allowed to change this client: look at its own client and scopes there";
	}
	return kt_remedy_find(code, problem);
}

const char *kt_remedy_of(const struct kt_store_cred *cred)
{
	bool issuing = cred->attempts > 0 && cred->error != KT_OK;
	const char *problem;

	if (!issuing) {
		return cred->deliver_failures > 0 ? kt_remedy_find(cred->deliver_error, "") : "";
	}
	if (cred->error_text != NULL && strstr(cred->error_text, "'keyturn ") != NULL) {
		return "";
	}
	if (cred->error == KT_E_MISMATCH && cred->kind != KT_KIND_WATCH) {
		return "the consumer refuses the new one, or does not show it: mend what it complains about; the one before stays in force";
	}
	(void)kt_flight_peer_said(cred, &problem);
	return cred->kind == KT_KIND_WATCH    ? for_watch(cred)
	       : cred->kind == KT_KIND_CLIENT ? for_client(cred->error, problem)
	                                      : kt_remedy_find(cred->error, problem);
}

const char *kt_remedy_of_task(const struct kt_store_task *task)
{
	if (task->error == KT_OK || task->error_text == NULL || task->error_text[0] == '\0' ||
	    (task->state != KT_TASK_PENDING && task->state != KT_TASK_NOTIFIED && task->state != KT_TASK_FAILED)) {
		return NULL;
	}
	switch (task->error) {
	case KT_E_AUTH:
		return "the token that it is asked with (tokenRef) is refused there: another one is minted; look at its client and scopes";
	case KT_E_DENIED:
		return "look at the ids in the Consumer's targets or URL, and at what the client behind tokenRef may do there";
	case KT_E_CRYPTO:
		return "look at the certificate of that server; a CA of its own needs its roots in caBundle";
	default:
		return kt_remedy_find(task->error, "");
	}
}
