/* Error codes and the caller-owned error detail that every fallible function of keyturn fills. */
#ifndef KT_ERR_H
#define KT_ERR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

/* What went wrong, coarse enough to decide on; the detail goes into struct kt_err. */
enum kt_code {
	KT_OK = 0,
	KT_E_NOMEM,       /* an allocation failed */
	KT_E_SYS,         /* a system call failed: see sys_errno */
	KT_E_INVALID,     /* input, flag or manifest is wrong; trying again won't help */
	KT_E_LIMIT,       /* a size, depth or count limit was exceeded */
	KT_E_NOTFOUND,    /* the named thing does not exist */
	KT_E_EXISTS,      /* the named thing exists already */
	KT_E_BUSY,        /* somebody else holds it (lock, running agent) */
	KT_E_LATER,       /* not now: retry_after_s says when, if known */
	KT_E_TIMEOUT,     /* a deadline passed */
	KT_E_NET,         /* no connection, reset, DNS, TLS failure */
	KT_E_PROTO,       /* the peer broke its protocol */
	KT_E_AUTH,        /* the peer refuses our credentials (401, invalid_client) */
	KT_E_DENIED,      /* the peer refuses the request for good (403, 4xx, rejectedIdentifier) */
	KT_E_POLICY,      /* our own policy refuses */
	KT_E_CRYPTO,      /* a key, signature or certificate does not check out */
	KT_E_CORRUPT,     /* stored state is damaged */
	KT_E_CLOSED,      /* the other end is gone */
	KT_E_CANCELLED,   /* the operation was called off */
	KT_E_UNSUPPORTED, /* known, but not offered here */
	KT_E_MISMATCH,    /* a proof saw something else than expected */
	KT_CODE_COUNT
};

/*
 * Detail of a failure. Owned by the caller, plain data, may be copied. `what` is one line, printable
 * ASCII/UTF-8 with control characters escaped, and never holds a secret.
 */
struct kt_err {
	enum kt_code code;
	int sys_errno;         /* errno, or 0 */
	int64_t retry_after_s; /* seconds to wait as the peer asked, already clamped; 0: not said */
	char problem_type[96]; /* RFC 7807 type or OAuth error code; "" when none */
	char what[768];        /* what, where, how to mend it */
};

/* Resets err to KT_OK; NULL is accepted. */
void kt_err_clear(struct kt_err *err);

/*
 * Fills err (NULL is accepted) and returns code, so that `return kt_err_set(...)` reads well. Unprintable
 * bytes of the result are escaped as \xNN; too long a text is cut with "...".
 */
enum kt_code kt_err_set(struct kt_err *err, enum kt_code code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));

/* As kt_err_set with code KT_E_SYS; appends ": <strerror>" of errno (ENOMEM gives KT_E_NOMEM). */
enum kt_code kt_err_sys(struct kt_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before what is there already; returns err->code. err must not be NULL. */
enum kt_code kt_err_prefix(struct kt_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Whether it is for want of room on a disk (ENOSPC, EDQUOT): the same may go well when there is some. */
bool kt_err_is_full(const struct kt_err *err);

/* A stable name such as "timeout"; never NULL. */
const char *kt_code_name(enum kt_code code);

/* The inverse of kt_code_name; KT_CODE_COUNT for an unknown name. */
enum kt_code kt_code_from_name(const char *name);

#endif
