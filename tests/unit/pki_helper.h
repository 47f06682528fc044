/* What the tests of pki and jose share: short forms that name the error, and the room's start and end. */
#ifndef TESTS_UNIT_PKI_HELPER_H
#define TESTS_UNIT_PKI_HELPER_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "kt/pki.h"

static struct kt_err err;

#define ok(call)                                                                                                       \
	do {                                                                                                           \
		enum kt_code code_ = (call);                                                                           \
		if (code_ != KT_OK)                                                                                    \
			fail_msg("%s: %s (%s)", #call, kt_code_name(code_), err.what);                                 \
	} while (0)
#define refused(call, code, text)                                                                                      \
	do {                                                                                                           \
		assert_int_equal((call), (code));                                                                      \
		if (strstr(err.what, (text)) == NULL)                                                                  \
			fail_msg("%s: \"%s\" lacks \"%s\"", #call, err.what, (text));                                  \
	} while (0)

static inline int pki_setup(void **state)
{
	(void)state;
	return kt_pki_init(&err) == KT_OK ? 0 : -1;
}

static inline int pki_teardown(void **state)
{
	(void)state;
	kt_pki_finish();
	return 0;
}

#endif
