/* The table of DNS providers, written out in one place; and the one that writes nothing. */
#include <string.h>

#include "courier/dns/dns_internal.h"

/* Somebody else writes the record (a program, a person): it is only looked at. */
const struct kt_dns_provider dns_provider_none = {.name = "none"};

static const struct kt_dns_provider *const providers[] = {
	&dns_provider_none,
	&dns_provider_rfc2136,
	&dns_provider_acme_dns,
	&dns_provider_cloudflare,
	&dns_provider_digitalocean,
	&dns_provider_route53,
};

const struct kt_dns_provider *dns_provider(const char *name)
{
	for (size_t i = 0; i < sizeof(providers) / sizeof(providers[0]); i++) {
		if (strcmp(providers[i]->name, name) == 0) {
			return providers[i];
		}
	}
	return NULL;
}
