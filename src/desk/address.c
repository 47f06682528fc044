/* Whom a connection comes from: by its socket, or by the PROXY header of who hands it over. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "desk/desk.h"
#include "kt/text.h"

/* Both versions of the header: https://www.haproxy.org/download/2.8/doc/proxy-protocol.txt */
#define V1_START "PROXY "
#define V2_START "\r\n\r\n\0\r\nQUIT\n"

enum {
	V1_MAX = 107,
	V2_HEAD = 16,
	V2_IPV4 = 12, /* bytes of two addresses and two ports */
	V2_IPV6 = 36,
	AF_KEY_USER = 1,
	AF_KEY_IPV4 = 4,
	AF_KEY_IPV6 = 6,
	IPV6_NETWORK = 8, /* bytes: a /64 is one customer */
};

static void key_of_ipv4(const void *bytes, uint8_t ret[KT_DESK_ADDRESS])
{
	memset(ret, 0, KT_DESK_ADDRESS);
	ret[0] = AF_KEY_IPV4;
	memcpy(ret + 1, bytes, 4);
}

static void key_of_ipv6(const void *bytes, uint8_t ret[KT_DESK_ADDRESS])
{
	struct in6_addr in6;

	memcpy(&in6, bytes, sizeof(in6));
	if (IN6_IS_ADDR_V4MAPPED(&in6)) {
		key_of_ipv4(in6.s6_addr + 12, ret);
		return;
	}
	ret[0] = AF_KEY_IPV6;
	memcpy(ret + 1, bytes, IPV6_NETWORK);
}

void kt_desk_address(const struct sockaddr *addr, uint8_t ret[KT_DESK_ADDRESS])
{
	memset(ret, 0, KT_DESK_ADDRESS);
	if (addr->sa_family == AF_INET)
		key_of_ipv4(&((const struct sockaddr_in *)(const void *)addr)->sin_addr, ret);
	else if (addr->sa_family == AF_INET6)
		key_of_ipv6(&((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr, ret);
}

void kt_desk_address_user(uint32_t uid, uint8_t ret[KT_DESK_ADDRESS])
{
	memset(ret, 0, KT_DESK_ADDRESS);
	ret[0] = AF_KEY_USER;
	memcpy(ret + 1, &uid, sizeof(uid));
}

bool kt_desk_address_same(const uint8_t a[KT_DESK_ADDRESS], const uint8_t b[KT_DESK_ADDRESS])
{
	return a[0] != 0 && memcmp(a, b, KT_DESK_ADDRESS) == 0;
}

/* --- version 1: "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n" --------------------------------------------------- */

static bool read_v1_source(struct kt_view text, uint8_t ret[KT_DESK_ADDRESS])
{
	unsigned char bytes[16];
	char copy[INET6_ADDRSTRLEN + 1];
	int family = text.len > 5 && text.ptr[3] == '6' ? AF_INET6 : AF_INET;
	const char *end;
	size_t len;

	if (text.len >= 7 && memcmp(text.ptr, "UNKNOWN", 7) == 0)
		return true; /* as it is */
	if (text.len < 6 || (memcmp(text.ptr, "TCP4 ", 5) != 0 && memcmp(text.ptr, "TCP6 ", 5) != 0))
		return false;
	end = memchr(text.ptr + 5, ' ', text.len - 5);
	len = end ? (size_t)(end - text.ptr) - 5 : 0;
	if (len == 0 || len >= sizeof(copy))
		return false;
	memcpy(copy, text.ptr + 5, len);
	copy[len] = '\0';
	if (inet_pton(family, copy, bytes) != 1)
		return false;
	if (family == AF_INET)
		key_of_ipv4(bytes, ret);
	else
		key_of_ipv6(bytes, ret);
	return true;
}

static enum kt_desk_proxy read_v1(struct kt_view in, size_t *ret_len, uint8_t ret[KT_DESK_ADDRESS])
{
	static const size_t start = sizeof(V1_START) - 1;
	const char *end = memchr(in.ptr, '\n', in.len < V1_MAX ? in.len : V1_MAX);
	size_t len;

	if (!end)
		return in.len < V1_MAX ? KT_DESK_PROXY_MORE : KT_DESK_PROXY_BAD;
	len = (size_t)(end - in.ptr);
	if (len <= start || in.ptr[len - 1] != '\r' ||
	    !read_v1_source((struct kt_view){in.ptr + start, len - 1 - start}, ret))
		return KT_DESK_PROXY_BAD;
	*ret_len = len + 1;
	return KT_DESK_PROXY_FOUND;
}

/* --- version 2 ---------------------------------------------------------------------------------------------------- */

static enum kt_desk_proxy read_v2(struct kt_view in, size_t *ret_len, uint8_t ret[KT_DESK_ADDRESS])
{
	const unsigned char *at = (const unsigned char *)in.ptr;
	size_t len;

	if (in.len < V2_HEAD)
		return KT_DESK_PROXY_MORE;
	len = (size_t)at[14] << 8 | at[15];
	if (at[12] >> 4 != 2 || (at[12] & 15) > 1 || V2_HEAD + len > KT_DESK_PROXY_MAX)
		return KT_DESK_PROXY_BAD;
	if (in.len < V2_HEAD + len)
		return KT_DESK_PROXY_MORE;
	if ((at[12] & 15) == 1) { /* 0: a health check of the proxy itself */
		if (at[13] == 0x11 && len >= V2_IPV4)
			key_of_ipv4(at + V2_HEAD, ret);
		else if (at[13] == 0x21 && len >= V2_IPV6)
			key_of_ipv6(at + V2_HEAD, ret);
		else if (at[13] == 0x11 || at[13] == 0x21)
			return KT_DESK_PROXY_BAD;
	}
	*ret_len = V2_HEAD + len;
	return KT_DESK_PROXY_FOUND;
}

static bool starts(struct kt_view in, const char *start, size_t len)
{
	return memcmp(in.ptr, start, in.len < len ? in.len : len) == 0;
}

enum kt_desk_proxy kt_desk_proxy_read(struct kt_view in, size_t *ret_len, uint8_t ret[KT_DESK_ADDRESS])
{
	static const size_t v1 = sizeof(V1_START) - 1, v2 = sizeof(V2_START) - 1;

	memset(ret, 0, KT_DESK_ADDRESS);
	*ret_len = 0;
	if (in.len == 0)
		return KT_DESK_PROXY_MORE;
	if (starts(in, V1_START, v1))
		return in.len < v1 ? KT_DESK_PROXY_MORE : read_v1(in, ret_len, ret);
	if (starts(in, V2_START, v2))
		return in.len < v2 ? KT_DESK_PROXY_MORE : read_v2(in, ret_len, ret);
	return KT_DESK_PROXY_NONE;
}
