/* The floor: P-256 keys and one ECDSA signature each, nothing else, on one core. Prints how many a second. */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <time.h>

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(void)
{
	static const unsigned char text[400] = {1};
	unsigned count = 0;
	double begin = now();

	while (now() - begin < 3) {
		EVP_PKEY *key = EVP_EC_gen("P-256");
		EVP_MD_CTX *ctx = EVP_MD_CTX_new();
		unsigned char signature[80];
		size_t len = sizeof(signature);

		if (key == NULL || ctx == NULL || EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) != 1 ||
		    EVP_DigestSign(ctx, signature, &len, text, sizeof(text)) != 1) {
			return 1;
		}
		EVP_MD_CTX_free(ctx);
		EVP_PKEY_free(key);
		count++;
	}
	printf("%.0f\n", count / (now() - begin));
	return 0;
}
