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

static inline uint64_t rotate(uint64_t v, unsigned bits) { return v << bits | v >> (64 - bits); }

typedef struct sip { uint64_t v0, v1, v2, v3; } sip;

static inline sip sip_rounds(sip s, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        s.v0 += s.v1; s.v1 = rotate(s.v1, 13); s.v1 ^= s.v0; s.v0 = rotate(s.v0, 32);
        s.v2 += s.v3; s.v3 = rotate(s.v3, 16); s.v3 ^= s.v2;
        s.v0 += s.v3; s.v3 = rotate(s.v3, 21); s.v3 ^= s.v0;
        s.v2 += s.v1; s.v1 = rotate(s.v1, 17); s.v1 ^= s.v2; s.v2 = rotate(s.v2, 32);
    }
    return s;
}

static inline sip sip_start(const srp_sip_key *key)
{
    return (sip){key->k0 ^ 0x736f6d6570736575u, key->k1 ^ 0x646f72616e646f6du,
                 key->k0 ^ 0x6c7967656e657261u, key->k1 ^ 0x7465646279746573u};
}

static inline sip sip_word(sip s, uint64_t word, unsigned rounds)
{
    s.v3 ^= word;
    s = sip_rounds(s, rounds);
    s.v0 ^= word;
    return s;
}

static inline uint64_t sip_end(sip s, unsigned rounds)
{
    s.v2 ^= 0xff;
    s = sip_rounds(s, rounds);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

/* SipHash-c-d (Aumasson, Bernstein 2012), 64 bits. */
static inline uint64_t sip_hash(const srp_sip_key *key, const uint8_t *p, size_t len, unsigned c, unsigned d)
{
    sip s = sip_start(key);
    size_t left = len;
    for (; left >= 8; left -= 8, p += 8) s = sip_word(s, srp_load64(p), c);
    uint64_t last = (uint64_t)len << 56;
    for (size_t i = 0; i < left; i++) last |= (uint64_t)p[i] << (8 * i);
    return sip_end(sip_word(s, last, c), d);
}

uint64_t srp_mac(const srp_sip_key *key, const void *data, size_t len) { return sip_hash(key, data, len, 2, 4); }

uint64_t srp_sip(const srp_sip_key *key, const void *data, size_t len) { return sip_hash(key, data, len, 1, 3); }

uint64_t srp_sip_word(const srp_sip_key *key, uint64_t word)
{
    return sip_end(sip_word(sip_word(sip_start(key), word, 1), UINT64_C(8) << 56, 1), 3);
}

/* Sixteen bytes at a time; what the compiler makes of these depends on the machine (SSE2, NEON, or word by word). */
typedef int8_t bytes16 __attribute__((vector_size(16)));
typedef uint16_t pairs8 __attribute__((vector_size(16)));
typedef uint8_t bytes8 __attribute__((vector_size(8)));
typedef uint64_t words2 __attribute__((vector_size(16)));

/* Sixteen nibbles become their digits. */
static inline bytes16 digits_of(bytes16 nibbles) { return nibbles + '0' + ((nibbles > 9) & ('a' - '0' - 10)); }

void srp_hex(const uint8_t *bytes, size_t len, char *out)
{
    static const char digit[] = "0123456789abcdef";
    size_t i = 0;
    while (i + 16 <= len) {
        bytes16 v, low, high;
        memcpy(&v, bytes + i, 16);
        high = digits_of((v >> 4) & 15);
        low = digits_of(v & 15);
        bytes16 first = __builtin_shufflevector(high, low, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        bytes16 second = __builtin_shufflevector(high, low, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        memcpy(out + 2 * i, &first, 16);
        memcpy(out + 2 * i + 16, &second, 16);
        i += 16;
        if (i < len && i + 16 > len) i = len - 16; /* the rest, and some of it once more */
    }
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

/* Sixteen digits become eight bytes; *right keeps its ones where they are digits. */
static inline bytes8 undigit(const uint8_t *text, bytes16 *right)
{
    bytes16 c;
    memcpy(&c, text, 16);
    bytes16 low = c | 0x20; /* bytes over 0x7f are negative, so in no range */
    bytes16 letter = (low > 'a' - 1) & (low < 'f' + 1);
    *right &= letter | ((c > '0' - 1) & (c < '9' + 1));
    bytes16 value = (c & 15) + (letter & 9);
    pairs8 pair = (pairs8)value;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    pair = (pair >> 4 | pair) & 0xff;
#else
    pair = (pair << 4 | pair >> 8) & 0xff;
#endif
    return __builtin_convertvector(pair, bytes8);
}

int srp_unhex(const char *text, size_t digits, uint8_t *out)
{
    const uint8_t *p = (const uint8_t *)text;
    bytes16 right = ~(bytes16){0};
    if (digits & 1) return -1;
    while (digits >= 16) {
        bytes8 eight = undigit(p, &right);
        memcpy(out, &eight, 8);
        size_t step = digits < 32 && digits > 16 ? digits - 16 : 16; /* the rest, and some of it once more */
        p += step;
        out += step / 2;
        digits -= step;
    }
    words2 both = (words2)right;
    if ((both[0] & both[1]) != ~UINT64_C(0)) return -1;
    for (; digits; digits -= 2, p += 2) {
        int high = nibble(p[0]), low = nibble(p[1]);
        if (high < 0 || low < 0) return -1;
        *out++ = (uint8_t)(high << 4 | low);
    }
    return 0;
}
