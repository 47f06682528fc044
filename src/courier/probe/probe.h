/* Looking at what a consumer or a service does with a credential: a TLS handshake, or one HTTP exchange. */
#ifndef KT_COURIER_PROBE_H
#define KT_COURIER_PROBE_H

#include "courier/courier.h"
#include "kt/json.h"

#define KT_PROBES_MAX 256u

enum kt_code kt_probe_create(struct kt_courier *courier, struct kt_probe **ret, struct kt_err *err);
void kt_probe_destroy(struct kt_probe *probe);
void kt_probe_drop(struct kt_probe *probe);
/* Handlers of KT_PROBE_TLS and KT_HTTP; arg is the struct kt_courier. */
void kt_probe_handle_tls(struct kt_wire_in *in, void *arg);
void kt_probe_handle_http(struct kt_wire_in *in, void *arg);

/*
 * The value at a path such as ".a.b[0].c" ("." is the whole): text as it is, everything else as compact JSON.
 * KT_E_INVALID for a path that can't be read, KT_E_NOTFOUND when there is nothing.
 */
enum kt_code kt_json_at(json_t *root, const char *path, json_t **ret, struct kt_err *err); /* borrowed from root */
enum kt_code kt_json_path(json_t *root, const char *path, struct kt_buf *out, struct kt_err *err);

#endif
