/* Targets: uploading a set to a service of somebody else's, and reading back what lies there. */
#ifndef KEEPER_TARGET_H
#define KEEPER_TARGET_H

#include "kt/pki.h"
#include "keeper/prove.h"

/*
 * A walk through an upload. Keystores are found by their names: the list is asked for, then the keystore is replaced (PUT)
 * or made (POST), then what lies there is read and compared: serial and end of validity must be those of the set. A step
 * that is repeated after a kill -9 finds what the first try has made. Every upload has a passphrase of its own, which nobody
 * here keeps: the service gives it to those who use the keystore.
 */

/* How many targets the run's secret has; they come before the notifiers in task.step. */
int kt_target_count(const struct kt_task_run *run);
/* Uploads to the index-th of them, and reads back. The end comes by kt_task_done, unless an error is returned. */
enum kt_code kt_target_upload(struct kt_task_run *run, int index, struct kt_err *err);
/* Only reads back what the target called so has: a proof. */
enum kt_code kt_target_look(struct kt_task_run *run, const char *name, struct kt_err *err);

/* --- target_form.c: pure ------------------------------------------------------------------------------------------------ */

#define KT_TARGET_ANSWER_MAX (128u * 1024u)
#define KT_TARGET_BOUNDARY 48u /* bytes of a form's boundary with the NUL */
/*
 * The form (RFC 7578) that makes the keystore. chain: PEM, leaf first; ca: PEM, may be empty. KT_E_LIMIT: a part is longer
 * than the service takes.
 */
enum kt_code kt_target_form(const struct kt_anypoint_secret_group *group, const struct kt_key *key, struct kt_view chain,
                            struct kt_view ca, char boundary[KT_TARGET_BOUNDARY], struct kt_secret **ret,
                            struct kt_err *err);
/* The JSON that replaces the keystore of a TLS context in a private space. */
enum kt_code kt_target_tls_context(const struct kt_key *key, struct kt_view chain, struct kt_view ca,
                                   struct kt_secret **ret, struct kt_err *err);
/* Two serials in hex: letter case, leading zeros, colons and spaces don't count. */
bool kt_target_same_serial(const char *seen, const char *ours);
/* What is shown of it may be put before people: a serial in hex, of a length that one can have; a text that begins with a day. */
bool kt_target_is_serial(const char *text);
bool kt_target_is_day(const char *text);
/*
 * Why a request was refused: {message, errors: [{code, message, field}]}, as far as it is of that form. What could be a key, a
 * passphrase or a token is left out of it, unless it is a part of `known`; all of it, where it quotes `sent` (NULL: nothing was).
 */
void kt_target_reason(struct kt_view body, const char *known, const struct kt_secret *sent, char *out, size_t size);
/* "2018-07-04 21:00:00" or RFC 3339, in UTC. KT_E_PROTO: neither. */
enum kt_code kt_target_time(const char *text, kt_ms *ret, struct kt_err *err);

#endif
