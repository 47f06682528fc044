/* Short forms for the rows of the field tables; included by the tables only. */
#ifndef KT_MANIFEST_ROWS_H
#define KT_MANIFEST_ROWS_H

#include "manifest/field.h"

/* S: the struct's type, M: its member; then any further members of struct kt_field, the doc sentence last. */
#define ROW(N, T, S, M, ...)                                                                                           \
	{                                                                                                              \
		.name = (N), .type = (T), .offset = offsetof(S, M), __VA_ARGS__                                        \
	}
#define REFUSED(N, WHY, ...)                                                                                           \
	{                                                                                                              \
		.name = (N), .type = KT_F_REFUSED, .doc = (WHY), ##__VA_ARGS__                                         \
	}
#define IGNORED(N, WHY, ...)                                                                                           \
	{                                                                                                              \
		.name = (N), .type = KT_F_IGNORED, .doc = (WHY), ##__VA_ARGS__                                         \
	}
#define FIXED(N, TEXT)                                                                                                 \
	{                                                                                                              \
		.name = (N), .type = KT_F_FIXED, .def_text = (TEXT), .flags = KT_F_REQUIRED,                           \
		.doc = "Always `" TEXT "`."                                                                            \
	}
#define DOC        .doc =
#define REQUIRED   .flags = KT_F_REQUIRED
#define CHOICE     .flags = KT_F_CHOICE
#define OF(T)      .object = &(T)
#define STATUS_ROW IGNORED("status", "Written by the cluster's controller; keyturn keeps its own state.")

/* A table of the struct S. */
#define TABLE(NAME, S, ROWS, ...)                                                                                      \
	{                                                                                                              \
		.name = (NAME), KT_TABLE_FIELDS(ROWS), .size = sizeof(S), __VA_ARGS__                                  \
	}

/* A reference to one key of a Secret, with the key's default of this use. */
#define SECRET_REF_TABLE(VAR, DEFAULT_KEY)                                                                             \
	static const struct kt_field VAR##_rows[] = {                                                                  \
		ROW("key", KT_F_STRING, struct kt_secret_ref, key, .def_text = (DEFAULT_KEY), .check = kt_value_key,   \
		    DOC "Key within the Secret."),                                                                     \
		ROW("name", KT_F_STRING, struct kt_secret_ref, name, REQUIRED, .check = kt_value_name,                 \
		    DOC "Name of the Secret: looked up in the store (`keyturn secret set`), then in mounted folders, " \
			"then among "                                                                                  \
			"systemd credentials."),                                                                       \
	};                                                                                                             \
	static const struct kt_table VAR = TABLE("SecretKeySelector", struct kt_secret_ref, VAR##_rows,                \
						 .doc = "One key of a Secret in the same namespace.")

#endif
