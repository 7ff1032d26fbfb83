/* The low-level SHA functions: they keep their state in the caller's frame, where EVP would allocate. OpenSSL 3 marks
 * them deprecated; asking for the 1.1.1 interface is the documented way to use them without warnings. */
#define OPENSSL_API_COMPAT 10101
#include "digest.h"

#include <openssl/sha.h>
#include <string.h>

void srp_sha256(const srp_part *parts, unsigned count, uint8_t out[32])
{
    SHA256_CTX sha;
    SHA256_Init(&sha);
    for (unsigned i = 0; i < count; i++) SHA256_Update(&sha, parts[i].at, parts[i].len);
    SHA256_Final(out, &sha);
}

void srp_sha1(const srp_part *parts, unsigned count, uint8_t out[20])
{
    SHA_CTX sha;
    SHA1_Init(&sha);
    for (unsigned i = 0; i < count; i++) SHA1_Update(&sha, parts[i].at, parts[i].len);
    SHA1_Final(out, &sha);
}

/* Eight bytes, the first one lowest, on any machine. */
static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline void store64(char *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, 8);
}

static inline uint64_t rotate(uint64_t v, unsigned bits) { return v << bits | v >> (64 - bits); }

#define SIP_ROUND()                                                                                                   \
    do {                                                                                                              \
        v0 += v1; v1 = rotate(v1, 13); v1 ^= v0; v0 = rotate(v0, 32);                                                 \
        v2 += v3; v3 = rotate(v3, 16); v3 ^= v2;                                                                      \
        v0 += v3; v3 = rotate(v3, 21); v3 ^= v0;                                                                      \
        v2 += v1; v1 = rotate(v1, 17); v1 ^= v2; v2 = rotate(v2, 32);                                                 \
    } while (0)

/* SipHash-2-4 (Aumasson, Bernstein 2012), 64 bits. */
uint64_t srp_sip(const srp_sip_key *key, const void *data, size_t len)
{
    uint64_t v0 = key->k0 ^ 0x736f6d6570736575u, v1 = key->k1 ^ 0x646f72616e646f6du;
    uint64_t v2 = key->k0 ^ 0x6c7967656e657261u, v3 = key->k1 ^ 0x7465646279746573u;
    const uint8_t *p = data;
    size_t left = len;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t word = load64(p);
        v3 ^= word;
        SIP_ROUND();
        SIP_ROUND();
        v0 ^= word;
    }
    uint64_t last = (uint64_t)len << 56;
    for (size_t i = 0; i < left; i++) last |= (uint64_t)p[i] << (8 * i);
    v3 ^= last;
    SIP_ROUND();
    SIP_ROUND();
    v0 ^= last;
    v2 ^= 0xff;
    SIP_ROUND();
    SIP_ROUND();
    SIP_ROUND();
    SIP_ROUND();
    return v0 ^ v1 ^ v2 ^ v3;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Four bytes become eight digits at once: one nibble to each byte of a word, then '0' or 'a' - 10 is added. */
static inline uint64_t digits_of(uint32_t bytes)
{
    uint64_t v = bytes;
    v = (v | v << 16) & UINT64_C(0x0000ffff0000ffff);
    v = (v | v << 8) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v >> 4 & EACH(0x0f)) | (v << 8 & UINT64_C(0x0f000f000f000f00)); /* the high nibble is the first digit */
    v &= EACH(0x0f);
    uint64_t letters = ((v + EACH(0x76)) & EACH(0x80)) >> 7; /* 1 where the nibble is over 9 */
    return v + EACH('0') + letters * ('a' - '0' - 10);
}

void srp_hex(const uint8_t *bytes, size_t len, char *out)
{
    static const char digit[] = "0123456789abcdef";
    size_t i = 0;
    for (; i + 4 <= len; i += 4)
        store64(out + 2 * i, digits_of((uint32_t)bytes[i] | (uint32_t)bytes[i + 1] << 8 | (uint32_t)bytes[i + 2] << 16 |
                                       (uint32_t)bytes[i + 3] << 24));
    for (; i < len; i++) {
        out[2 * i] = digit[bytes[i] >> 4];
        out[2 * i + 1] = digit[bytes[i] & 15];
    }
}

static inline int nibble(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Eight digits become four bytes at once. A character is in a range when adding its lower bound's complement sets bit 7 of its byte
 * and adding the upper one's does not. What is over 0x7f carries into its neighbour, but is in no range itself. */
static inline int undigit(uint64_t text, uint8_t out[4])
{
    uint64_t low = text | EACH(0x20);
    uint64_t is_digit = (text + EACH(0x80 - '0')) & ~(text + EACH(0x80 - '9' - 1)) & EACH(0x80);
    uint64_t is_letter = (low + EACH(0x80 - 'a')) & ~(low + EACH(0x80 - 'f' - 1)) & EACH(0x80);
    if ((is_digit | is_letter) != EACH(0x80)) return -1;
    uint64_t v = (text & EACH(0x0f)) + (is_letter >> 7) * 9;
    v = (v << 4 | v >> 8) & UINT64_C(0x00ff00ff00ff00ff);
    out[0] = (uint8_t)v;
    out[1] = (uint8_t)(v >> 16);
    out[2] = (uint8_t)(v >> 32);
    out[3] = (uint8_t)(v >> 48);
    return 0;
}

int srp_unhex(const char *text, size_t digits, uint8_t *out)
{
    const uint8_t *p = (const uint8_t *)text;
    if (digits & 1) return -1;
    for (; digits >= 8; digits -= 8, p += 8, out += 4)
        if (undigit(load64(p), out)) return -1;
    for (; digits; digits -= 2, p += 2) {
        int high = nibble(p[0]), low = nibble(p[1]);
        if (high < 0 || low < 0) return -1;
        *out++ = (uint8_t)(high << 4 | low);
    }
    return 0;
}
