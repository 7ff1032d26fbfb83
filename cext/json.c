#include "json.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

static inline int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline bool is_digit(const uint8_t *p, const uint8_t *end) { return p < end && *p >= '0' && *p <= '9'; }

const uint8_t *srp_json_string(const uint8_t *p, const uint8_t *end, bool *escaped)
{
    *escaped = false;
    for (;;) {
        p = srp_json_plain(p, end);
        if (p == end || *p < 0x20) return NULL;
        if (*p == '"') return p;
        *escaped = true;
        if (end - p < 2) return NULL;
        switch (p[1]) {
        case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
            p += 2;
            break;
        case 'u':
            if (end - p < 6) return NULL;
            for (int i = 2; i < 6; i++)
                if (hex_digit(p[i]) < 0) return NULL;
            p += 6;
            break;
        default:
            return NULL;
        }
    }
}

const uint8_t *srp_json_number(const uint8_t *p, const uint8_t *end)
{
    if (p < end && *p == '-') p++;
    if (!is_digit(p, end)) return NULL;
    if (*p == '0') p++;
    else
        while (is_digit(p, end)) p++;
    if (p < end && *p == '.') {
        p++;
        if (!is_digit(p, end)) return NULL;
        while (is_digit(p, end)) p++;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        if (!is_digit(p, end)) return NULL;
        while (is_digit(p, end)) p++;
    }
    return p;
}

/* strtod rounds exactly and keeps to its stack, but reads the locale's decimal point. So it gets none: the digits alone
 * and an exponent that accounts for the point. */
double srp_json_double(const uint8_t *p, const uint8_t *end)
{
    enum { DIGITS = 1024, EXPONENT_MAX = 20000 };
    char text[DIGITS + 16];
    unsigned n = 0;
    int exponent = 0, written = 0;
    bool negative = p < end && *p == '-', point = false, negative_exponent = false;
    if (negative) p++;
    for (; p < end && *p != 'e' && *p != 'E'; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        if (n == 0 && *p == '0') { /* a leading zero carries nothing but the place of the point */
            if (point) exponent--;
            continue;
        }
        if (n < DIGITS) {
            text[n++] = (char)*p;
            exponent -= point;
        } else { /* far behind what decides the rounding: only whether anything follows matters */
            text[DIGITS - 1] |= *p != '0';
            exponent += !point;
        }
    }
    if (n == 0) return negative ? -0.0 : 0.0;
    if (p < end) {
        p++;
        if (*p == '+' || *p == '-') negative_exponent = *p++ == '-';
        for (; p < end; p++)
            if (written < EXPONENT_MAX) written = written * 10 + (*p - '0');
        exponent += negative_exponent ? -written : written;
    }
    text[n++] = 'e';
    if (exponent < 0) {
        text[n++] = '-';
        exponent = -exponent;
    }
    char digits[12];
    unsigned count = 0;
    do digits[count++] = (char)('0' + exponent % 10);
    while (exponent /= 10);
    while (count) text[n++] = digits[--count];
    text[n] = 0;
    double value = strtod(text, NULL);
    return negative ? -value : value;
}

uint32_t srp_json_text(const uint8_t *p, const uint8_t *end, char *out, uint32_t cap)
{
    uint32_t n = 0;
    while (p < end) {
        if (n == cap) return cap + 1;
        uint8_t c = *p++;
        if (c == '\\') {
            c = *p++;
            switch (c) {
            case 'b': c = '\b'; break;
            case 'f': c = '\f'; break;
            case 'n': c = '\n'; break;
            case 'r': c = '\r'; break;
            case 't': c = '\t'; break;
            case 'u': {
                int unit = 0;
                for (int i = 0; i < 4; i++) unit = unit << 4 | hex_digit(p[i]);
                p += 4;
                c = unit < 0x80 ? (uint8_t)unit : 0xff;
                break;
            }
            default: break;
            }
        }
        out[n++] = c < 0x80 ? (char)c : (char)0xff;
    }
    return n;
}

static const uint8_t *word(const uint8_t *p, const uint8_t *end, const char *text, ptrdiff_t len)
{
    return end - p >= len && memcmp(p, text, (size_t)len) == 0 ? p + len : NULL;
}

const uint8_t *srp_json_skip(const uint8_t *p, const uint8_t *end, bool *deep)
{
    uint64_t objects = 0; /* one bit a level, the lowest for the innermost: 1 in an object, 0 in an array */
    unsigned depth = 0;
    bool escaped;
    *deep = false;
    for (;;) {
        /* a value */
        p = srp_json_blank(p, end);
        if (p == end) return NULL;
        bool more = false; /* another value follows at once */
        switch (*p) {
        case '"':
            p = srp_json_string(p + 1, end, &escaped);
            if (p) p++;
            break;
        case 't': p = word(p, end, "true", 4); break;
        case 'f': p = word(p, end, "false", 5); break;
        case 'n': p = word(p, end, "null", 4); break;
        case '[':
        case '{':
            if (depth == SRP_JSON_DEPTH) {
                *deep = true;
                return NULL;
            }
            depth++;
            objects = objects << 1 | (*p == '{');
            p = srp_json_blank(p + 1, end);
            if (p == end) return NULL;
            more = *p != (objects & 1 ? '}' : ']');
            break; /* when it is empty its bracket is closed below, as after a member */
        default: p = srp_json_number(p, end); break;
        }
        if (p == NULL) return NULL;
        /* what follows: brackets that close, then a comma before the next value */
        while (!more) {
            if (depth == 0) return p;
            p = srp_json_blank(p, end);
            if (p == end) return NULL;
            if (*p == ',') {
                p = srp_json_blank(p + 1, end);
                more = true;
            } else if (*p == (objects & 1 ? '}' : ']')) {
                p++;
                depth--;
                objects >>= 1;
            } else {
                return NULL;
            }
        }
        if (objects & 1) { /* the name of the member */
            if (p == end || *p != '"') return NULL;
            p = srp_json_string(p + 1, end, &escaped);
            if (p == NULL) return NULL;
            p = srp_json_blank(p + 1, end);
            if (p == end || *p != ':') return NULL;
            p++;
        }
    }
}
