/* The courier as a whole: its parts on one loop, and the table of what the keeper may ask. */
#include "config.h"

#include "courier/courier.h"

#include <string.h>

#include "courier/acme/acme.h"
#include "courier/dns/dns.h"
#include "courier/grant/grant.h"
#include "courier/probe/probe.h"
#include "kt/log.h"
#include "kt/mem.h"
#include "kt/pki.h"

#ifdef KT_DNS01_PROVIDERS

static enum kt_code create_dns(struct kt_courier *courier, struct kt_err *err)
{
	return kt_dns_create(courier, &courier->dns, err);
}

static void cancel_dns(struct kt_courier *courier, uint64_t job)
{
	(void)kt_dns_cancel(courier->dns, job);
}

static void drop_dns(struct kt_courier *courier)
{
	kt_dns_drop(courier->dns);
}

static void destroy_dns(struct kt_courier *courier)
{
	kt_dns_destroy(courier->dns);
}

static void handle_dns(struct kt_wire_in *in, void *arg)
{
	kt_dns_handle(in, arg);
}

#else

static enum kt_code create_dns(struct kt_courier *courier, struct kt_err *err)
{
	(void)courier, (void)err;
	return KT_OK;
}

static void cancel_dns(struct kt_courier *courier, uint64_t job)
{
	(void)courier, (void)job;
}

static void drop_dns(struct kt_courier *courier)
{
	(void)courier;
}

static void destroy_dns(struct kt_courier *courier)
{
	(void)courier;
}

static void handle_dns(struct kt_wire_in *in, void *arg)
{
	struct kt_err err;

	(void)arg;
	(void)kt_err_set(&err, KT_E_UNSUPPORTED, "this keyturn was built without dns-01 (configure --with-dns01, ldns)");
	kt_wire_reply_err(in->wire, in->id, &err);
}

#endif

static void on_cancel(struct kt_wire_in *in, void *arg)
{
	struct kt_courier *courier = arg;
	const struct kt_msg_cancel *msg = in->msg;
	struct kt_msg_done done = {0};

	if (!kt_acme_cancel(courier->acme, msg->job) && !kt_grant_cancel(courier->grant, msg->job)) {
		cancel_dns(courier, msg->job);
	}
	if (in->id != 0) {
		kt_wire_reply(in->wire, in->id, KT_DONE, &done, NULL, 0);
	}
}

/*
 * The first request brings OpenSSL up (the allocator first, which is why nothing else may do it): a courier that was
 * never asked for anything costs no memory for it.
 */
static void on_request(struct kt_wire_in *in, void *arg)
{
	struct kt_err err;

	kt_err_clear(&err);
	if (kt_pki_init(&err) != KT_OK) {
		kt_wire_reply_err(in->wire, in->id, &err);
		return;
	}
	switch (in->type) {
	case KT_ACME:
		kt_acme_handle(in, arg);
		break;
	case KT_ACME_ACCOUNT:
		kt_acme_handle_account(in, arg);
		break;
	case KT_ACME_REVOKE:
		kt_acme_handle_revoke(in, arg);
		break;
	case KT_ACME_INFO:
		kt_acme_handle_info(in, arg);
		break;
	case KT_MINT:
		kt_grant_handle(in, arg);
		break;
	case KT_TOKEN_OP:
		kt_grant_handle_op(in, arg);
		break;
	case KT_PROBE_TLS:
		kt_probe_handle_tls(in, arg);
		break;
	case KT_DNS01:
		handle_dns(in, arg);
		break;
	default:
		kt_probe_handle_http(in, arg);
		break;
	}
}

static const struct kt_wire_handler handlers[] = {
	{KT_ACME, on_request}, {KT_MINT, on_request},  {KT_PROBE_TLS, on_request},
	{KT_HTTP, on_request}, {KT_ACME_ACCOUNT, on_request}, {KT_ACME_REVOKE, on_request},
	{KT_ACME_INFO, on_request}, {KT_DNS01, on_request}, {KT_TOKEN_OP, on_request}, {KT_CANCEL, on_cancel}, {KT_MSG_TYPE_NONE, NULL},
};

static void on_closed(struct kt_wire *wire, const struct kt_err *why, void *arg)
{
	(void)wire;
	kt_log_err(KT_LOG_DEBUG, why, "the keeper is gone");
	kt_courier_drop(arg);
}

enum kt_code kt_courier_copy(struct kt_view src, char **ret, struct kt_err *err)
{
	if (src.len > 0 && memchr(src.ptr, '\0', src.len) != NULL) {
		return kt_err_set(err, KT_E_INVALID, "a text of a request holds a NUL");
	}
	*ret = kt_strndup(src.len > 0 ? src.ptr : "", src.len);
	return *ret != NULL ? KT_OK : kt_err_set(err, KT_E_NOMEM, "out of memory for a request");
}

enum kt_code kt_courier_create(struct kt_loop *loop, struct kt_courier **ret, struct kt_err *err)
{
	struct kt_courier *courier = kt_calloc(1, sizeof(*courier));
	struct kt_wire_config config = {.self = KT_ROOM_COURIER,
					.peer = KT_ROOM_KEEPER,
					.handlers = handlers,
					.closed = on_closed,
					.arg = courier};

	if (courier == NULL) {
		return kt_err_set(err, KT_E_NOMEM, "out of memory for the courier");
	}
	courier->loop = loop;
	if (kt_wire_create(loop, &config, &courier->keeper, err) != KT_OK ||
	    kt_http_create(loop, &courier->http, err) != KT_OK ||
	    kt_acme_create(courier, &courier->acme, err) != KT_OK ||
	    kt_grant_create(courier, &courier->grant, err) != KT_OK ||
	    kt_probe_create(courier, &courier->probe, err) != KT_OK || create_dns(courier, err) != KT_OK) {
		kt_courier_destroy(courier);
		return err != NULL ? err->code : KT_E_NOMEM;
	}
	*ret = courier;
	return KT_OK;
}

void kt_courier_drop(struct kt_courier *courier)
{
	kt_acme_drop(courier->acme);
	kt_grant_drop(courier->grant);
	kt_probe_drop(courier->probe);
	drop_dns(courier);
}

void kt_courier_destroy(struct kt_courier *courier)
{
	if (courier == NULL) {
		return;
	}
	kt_acme_destroy(courier->acme);
	kt_grant_destroy(courier->grant);
	kt_probe_destroy(courier->probe);
	destroy_dns(courier);
	kt_http_destroy(courier->http);
	kt_wire_destroy(courier->keeper);
	kt_free(courier);
}
