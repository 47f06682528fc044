/* Files of somebody else's that a Watch reads: PEM with anything around it, PKCS#12 and JKS stores. The first byte says which. */
#include <string.h>

#include "fuzz.h"
#include "kt/pki.h"

static struct kt_secret *password;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct kt_err err;

	(void)argc, (void)argv;
	FUZZ_MUST(kt_pki_init(&err) == KT_OK && kt_secret_create("changeit", 8, &password, &err) == KT_OK);
	return 0;
}

/* One certificate, or one line that says why not. */
static void judge(enum kt_code code, struct kt_cert *cert, const struct kt_err *err)
{
	if (code == KT_OK) {
		const char *subject = kt_pki_cert_subject(cert);

		FUZZ_MUST(strlen(kt_pki_cert_sha256(cert)) == 64 && kt_pki_cert_serial(cert) != NULL);
		for (size_t i = 0; subject[i] != '\0'; i++) { /* it goes into the store and onto terminals */
			FUZZ_MUST((unsigned char)subject[i] >= ' ' && (unsigned char)subject[i] < 0x7f);
		}
		kt_pki_cert_destroy(cert);
	} else {
		FUZZ_MUST(cert == NULL && err->code == code && err->what[0] != '\0');
		FUZZ_MUST(strpbrk(err->what, "\n\r\033") == NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kt_view view = {(const char *)data + 1, size - 1};
	struct kt_cert *cert = NULL;
	enum kt_code code;
	const char *alias;
	struct kt_err err;

	if (size == 0) {
		return 0;
	}
	kt_err_clear(&err);
	alias = data[0] & 4 ? "flex" : NULL;
	switch (data[0] % 4) {
	case 0:
		code = kt_pki_pem_first(view, &cert, &err);
		break;
	case 1:
		code = kt_pki_jks_certificate(view, alias, &cert, &err);
		break;
	default:
		code = kt_pki_p12_certificate(view, alias, data[0] % 4 == 2 ? password : NULL, &cert, &err);
		break;
	}
	judge(code, cert, &err);
	return 0;
}
