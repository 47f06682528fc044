/* Start and end of libcrypto, its errors as struct kt_err, and SHA-256. */
#include "pki/pki_internal.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kt_pki_algs kt_pki_algs;

static bool ready;
static pthread_key_t md_ctx_key;

static void *ssl_malloc(size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return kt_malloc(size);
}

static void *ssl_realloc(void *ptr, size_t size, const char *file, int line)
{
	(void)file;
	(void)line;
	return kt_realloc(ptr, size);
}

static void ssl_free(void *ptr, const char *file, int line)
{
	(void)file;
	(void)line;
	kt_free(ptr);
}

static void free_md_ctx(void *ctx)
{
	EVP_MD_CTX_free(ctx);
}

enum kt_code kt_pki_init(struct kt_err *err)
{
	enum kt_code code;

	if (ready)
		return KT_OK;
	code = kt_secret_init(err);
	if (code != KT_OK)
		return code;
	/* Refused when something of libcrypto ran before: then it stays with its own allocator. */
	(void)CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free);
	kt_pki_algs.sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
	kt_pki_algs.sha256 = EVP_MD_fetch(NULL, "SHA2-256", NULL);
	kt_pki_algs.sha384 = EVP_MD_fetch(NULL, "SHA2-384", NULL);
	kt_pki_algs.sha512 = EVP_MD_fetch(NULL, "SHA2-512", NULL);
	if (kt_pki_algs.sha256 == NULL || kt_pki_algs.sha384 == NULL || kt_pki_algs.sha512 == NULL)
		return kt_pki_openssl_err(err, KT_E_UNSUPPORTED, "OpenSSL offers no SHA-2");
	if (pthread_key_create(&md_ctx_key, free_md_ctx) != 0)
		return kt_err_sys(err, "pthread_key_create");
	ERR_clear_error(); /* a missing SHA-1 is nobody's business */
	ready = true;
	return KT_OK;
}

enum kt_code kt_pki_warm(struct kt_err *err)
{
	struct kt_secret *pem KT_AUTOSECRET = NULL;
	struct kt_key *key = NULL, *same = NULL;
	enum kt_code code = kt_pki_key_generate(KT_KEY_ECDSA, 256, &key, err);

	if (code == KT_OK)
		code = kt_pki_key_to_pem(key, KT_KEY_PKCS8, &pem, err);
	if (code == KT_OK)
		code = kt_pki_key_from_pem(kt_secret_view(pem), &same, err); /* signs and verifies, too */
	kt_pki_key_destroy(key);
	kt_pki_key_destroy(same);
	return code;
}

void kt_pki_finish(void)
{
	kt_pki_chain_forget();
	if (!ready)
		return;
	kt_pki_p12_finish();
	kt_pki_keyless_finish();
	free_md_ctx(pthread_getspecific(md_ctx_key));
	pthread_key_delete(md_ctx_key);
	EVP_MD_free(kt_pki_algs.sha1);
	EVP_MD_free(kt_pki_algs.sha256);
	EVP_MD_free(kt_pki_algs.sha384);
	EVP_MD_free(kt_pki_algs.sha512);
	memset(&kt_pki_algs, 0, sizeof(kt_pki_algs));
	ready = false;
	OPENSSL_cleanup();
}

enum kt_code kt_pki_openssl_err(struct kt_err *err, enum kt_code code, const char *fmt, ...)
{
	char text[256];
	const char *reason = NULL;
	unsigned long first = ERR_peek_error(), e;
	static _Thread_local uint64_t seen;
	uint64_t failures = kt_mem_failures();
	va_list ap;

	/* OpenSSL forgets the reason often enough: an algorithm that memory was missing for is "unsupported". */
	if (failures != seen)
		code = KT_E_NOMEM;
	seen = failures;
	while ((e = ERR_get_error()) != 0)
		if (ERR_GET_REASON(e) == ERR_R_MALLOC_FAILURE)
			code = KT_E_NOMEM;
	if (first != 0)
		reason = ERR_reason_error_string(first);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (code == KT_E_NOMEM)
		return kt_err_set(err, code, "%s: out of memory", text);
	if (reason == NULL)
		return kt_err_set(err, code, "%s", text);
	return kt_err_set(err, code, "%s: %s", text, reason);
}

enum kt_code kt_pki_settle(enum kt_code code, uint64_t failures, struct kt_err *err)
{
	if (code == KT_OK || code == KT_E_NOMEM || kt_mem_failures() == failures)
		return code;
	if (err != NULL) {
		(void)kt_err_prefix(err, "out of memory");
		err->code = KT_E_NOMEM;
	}
	return KT_E_NOMEM;
}

/* A context per thread: making one for each digest costs more than the digest. */
static EVP_MD_CTX *thread_md_ctx(void)
{
	EVP_MD_CTX *ctx = pthread_getspecific(md_ctx_key);

	if (ctx == NULL) {
		ctx = EVP_MD_CTX_new();
		if (ctx != NULL && pthread_setspecific(md_ctx_key, ctx) != 0) {
			EVP_MD_CTX_free(ctx);
			ctx = NULL;
		}
	}
	return ctx;
}

void kt_sha256(const void *data, size_t len, uint8_t out[KT_SHA256_LEN])
{
	EVP_MD_CTX *ctx = thread_md_ctx();

	if (ctx != NULL && EVP_DigestInit_ex2(ctx, kt_pki_algs.sha256, NULL) == 1 &&
	    EVP_DigestUpdate(ctx, data, len) == 1 && EVP_DigestFinal_ex(ctx, out, NULL) == 1)
		return;
	/* Slower by a factor, but it needs no memory and can't fail. */
	ERR_clear_error();
	crypto_hash_sha256(out, data, len);
}

void kt_sha256_hex(const void *data, size_t len, char out[KT_SHA256_HEX])
{
	static const char digits[] = "0123456789abcdef";
	uint8_t digest[KT_SHA256_LEN];

	kt_sha256(data, len, digest);
	for (size_t i = 0; i < sizeof(digest); i++) {
		out[2 * i] = digits[digest[i] >> 4];
		out[2 * i + 1] = digits[digest[i] & 15];
	}
	out[KT_SHA256_HEX - 1] = '\0';
}

enum kt_code kt_sha256_init(struct kt_sha256 *sha, struct kt_err *err)
{
	sha->ctx = EVP_MD_CTX_new();
	if (sha->ctx == NULL || EVP_DigestInit_ex2(sha->ctx, kt_pki_algs.sha256, NULL) != 1) {
		EVP_MD_CTX_free(sha->ctx);
		sha->ctx = NULL;
		return kt_pki_openssl_err(err, KT_E_NOMEM, "SHA-256");
	}
	return KT_OK;
}

void kt_sha256_add(struct kt_sha256 *sha, const void *data, size_t len)
{
	if (EVP_DigestUpdate(sha->ctx, data, len) != 1)
		abort();
}

void kt_sha256_finish(struct kt_sha256 *sha, uint8_t out[KT_SHA256_LEN])
{
	if (out != NULL && EVP_DigestFinal_ex(sha->ctx, out, NULL) != 1)
		abort();
	EVP_MD_CTX_free(sha->ctx);
	sha->ctx = NULL;
}
