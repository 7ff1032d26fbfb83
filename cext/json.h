/* A strict JSON (RFC 8259) reader over bytes in place: nothing is copied, nothing is built. It takes what the JSON.parse of
 * JavaScript takes of the same bytes read as UTF-8, down to SRP_JSON_DEPTH levels. Bytes over 0x7f are legal inside strings
 * only, well-formed or not: a decoder of UTF-8 replaces what is malformed and never eats the ASCII after it. */
#ifndef SRP_JSON_H
#define SRP_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { SRP_JSON_DEPTH = 64 }; /* levels of arrays and objects in one another */

/* Behind the blanks at p. */
static inline const uint8_t *srp_json_blank(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

/* p behind an opening quote. Returns the first byte that is a quote, a backslash or a control character; end without one. */
static inline const uint8_t *srp_json_plain(const uint8_t *p, const uint8_t *end)
{
    /* Eight bytes at a time; what is exact is the lowest marked byte, and only that one is used. */
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    while (end - p >= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        v = __builtin_bswap64(v);
#endif
        uint64_t quote = v ^ ones * '"', slash = v ^ ones * '\\';
        uint64_t hit = ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((v - ones * 0x20) & ~v);
        hit &= tops;
        if (hit) return p + (__builtin_ctzll(hit) >> 3);
        p += 8;
    }
    while (p < end && *p != '"' && *p != '\\' && *p >= 0x20) p++;
    return p;
}

/* p behind an opening quote. Returns the closing quote, NULL when the string is not legal; *escaped: has a backslash. */
const uint8_t *srp_json_string(const uint8_t *p, const uint8_t *end, bool *escaped);

/* p at a number. Returns the byte behind it, NULL when it is not one. */
const uint8_t *srp_json_number(const uint8_t *p, const uint8_t *end);

/* The value of the legal number p … end (at most 64 KiB), rounded as JavaScript does; beyond the doubles it is infinite. */
double srp_json_double(const uint8_t *p, const uint8_t *end);

/* The text of the legal string p … end (without its quotes), escapes resolved, into at most cap bytes, no NUL. Whatever is not
 * ASCII becomes 0xff. Returns the length, or cap + 1 when it is longer than cap. */
uint32_t srp_json_text(const uint8_t *p, const uint8_t *end, char *out, uint32_t cap);

/* p at any value. Returns the byte behind it; NULL when it is not legal, or too deep, which *deep tells. */
const uint8_t *srp_json_skip(const uint8_t *p, const uint8_t *end, bool *deep);

#endif
