/* What the two halves of kt/io.h share. */
#ifndef KT_BASE_IO_INTERNAL_H
#define KT_BASE_IO_INTERNAL_H

#include "kt/err.h"

/* kt_err_sys("<what> <name>"), with ENOENT, EEXIST and ELOOP told apart as NOTFOUND, EXISTS and POLICY. */
enum kt_code kt_base_io_err(struct kt_err *err, const char *what, const char *name);

#endif
