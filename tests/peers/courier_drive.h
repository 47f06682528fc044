/* What the files of courier_drive share: the keeper's answers about tokens. */
#ifndef KT_TESTS_COURIER_DRIVE_H
#define KT_TESTS_COURIER_DRIVE_H

#include <stdbool.h>

#include "kt/msg.h"
#include "kt/wire.h"

/* Takes an option of its own ("--give"); the value is what follows it. False: not one of these. */
bool drive_oauth_option(const char *name, const char *value);
/* The client of the issuer whose token is being asked for; secret: of that client, where no --give says otherwise. */
void drive_oauth_begin(struct kt_view issuer, const char *secret);
/* With --turn: the next one's certificate is shown by that job (none: an empty turn), and the request says so. */
const char *drive_oauth_turn(uint64_t job, const char *request);
void drive_oauth_finish(void);
/* The token itself, where --print asks for it. */
void drive_oauth_print(const struct kt_secret *token);

void drive_on_secret(struct kt_wire_in *in, void *arg);
void drive_on_assertion(struct kt_wire_in *in, void *arg);
void drive_on_proof(struct kt_wire_in *in, void *arg);
void drive_on_key(struct kt_wire_in *in, void *arg);
void drive_on_refresh(struct kt_wire_in *in, void *arg);

#endif
