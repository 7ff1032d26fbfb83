/* Hashes: SHA-1 and SHA-256 by libcrypto, SipHash and hex. No state outside the caller's. */
#ifndef SRP_DIGEST_H
#define SRP_DIGEST_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Eight bytes, the first one lowest, on any machine. */
static inline uint64_t srp_load64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

typedef struct srp_sip_key { uint64_t k0, k1; } srp_sip_key;

/* SipHash-2-4, the one that its authors propose as a MAC: for what others must not be able to compute (proofs, ids). */
uint64_t srp_mac(const srp_sip_key *key, const void *data, size_t len);

/* SipHash-1-3 for the places in tables: half the rounds. Nobody sees these values, only whether two keys meet, and no attack on the
 * reduced form is known that would find such keys (its authors keep it for hash tables; so do Python, Ruby and Rust). */
uint64_t srp_sip(const srp_sip_key *key, const void *data, size_t len);
uint64_t srp_sip_word(const srp_sip_key *key, uint64_t word); /* srp_sip of its eight bytes, the lowest first */

typedef struct srp_part { const void *at; size_t len; } srp_part;
void srp_sha256(const srp_part *parts, unsigned count, uint8_t out[32]); /* of the parts, one after the other */
void srp_sha1(const srp_part *parts, unsigned count, uint8_t out[20]);

void srp_hex(const uint8_t *bytes, size_t len, char *out);          /* 2*len lower-case digits, no NUL */
int srp_unhex(const char *text, size_t digits, uint8_t *out);       /* 0, or -1 on another character; either case */

#endif
