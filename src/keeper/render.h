/* From a material, in flight or in force, to the files of its secret. */
#ifndef KEEPER_RENDER_H
#define KEEPER_RENDER_H

#include "keeper/keeper.h"

/* A material with everything open that its files need. */
struct kt_rendered {
	struct kt_fileset files;
	struct kt_secret *key_pem;
	struct kt_secret *token;
	struct kt_secret *password;
	struct kt_secret *jks_password;
	struct kt_store_material row;
	struct kt_store_resource resource;
	struct kt_resource *spec;
};

void kt_rendered_finish(struct kt_rendered *out);
/* The set of a flight: from what it holds in memory. */
enum kt_code kt_render_flight(struct kt_flight *flight, struct kt_rendered *out, struct kt_err *err);
/* The set that is in force for a secret, from the store. KT_E_NOTFOUND: there is none yet. */
enum kt_code kt_render_current(struct kt_keeper *keeper, const char *ns, const char *name, struct kt_rendered *out,
			       struct kt_err *err);
/* What should lie in a volume: names and modes, no bytes, so that no secret is opened for a look. */
enum kt_code kt_render_expected(const struct kt_keeper *keeper, const struct kt_resource *spec,
				const struct kt_store_material *material, struct kt_fileset *files, struct kt_err *err);

#define KT_TOKEN_TYPE_SIZE 32u
/*
 * A token's type and scope are kept in its material's cookie: the scope alone where the type is Bearer, else
 * "type\tscope". Puts the type into `type` and returns the scope, which lies in cookie.
 */
const char *kt_render_token_type(const char *cookie, char type[KT_TOKEN_TYPE_SIZE]);
/* A token in the words of a format ("raw", "curl", ...), as its file has it; KT_E_INVALID: no such format. Adds to
 * text. */
enum kt_code kt_render_token_text(struct kt_keeper *keeper, const struct kt_store_resource *row,
				  const struct kt_store_material *material, const char *format, struct kt_buf *text,
				  struct kt_err *err);

#endif
