#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "frame.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

static uint8_t *put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
    return put16(put16(p, v >> 16), v & 0xffff);
}

static uint8_t *put_field(uint8_t *p, bytes field)
{
    if (!field.at) {
        p = put16(p, 1);
        *p = 0;
        return p + 1;
    }
    p = put16(p, (uint32_t)field.len);
    memcpy(p, field.at, field.len);
    return p + field.len;
}

static void hash_field(SHA256_CTX *sha, bytes field)
{
    static const uint8_t zero = 0;
    SHA256_Update(sha, field.at ? field.at : &zero, field.at ? field.len : 1);
}

size_t frame_write(const frame *f, uint8_t *out)
{
    uint8_t digest[ID_BYTES];
    bytes packet = f->packet;
    if (!packet.at) {
        SHA256_CTX sha;
        SHA256_Init(&sha);
        hash_field(&sha, f->previous);
        hash_field(&sha, f->message);
        hash_field(&sha, f->next);
        SHA256_Final(digest, &sha);
        packet = (bytes){ digest, ID_BYTES };
    }
    uint8_t *p = put32(out, 0x03050b11);
    *p++ = f->type;
    p = put16(p, 6);           /* version */
    p = put32(p, 1);           /* clock */
    p = put32(p, f->hops);
    p = put32(p, 0xffffffff);  /* index -1 */
    p = put32(p, 21600000);    /* ttl, ms */
    const bytes fields[] = { f->cluster, f->subcluster, f->previous, packet, f->next, f->usr1,
                             f->usr2, f->usr3, f->usr4, f->message, f->sig };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        p = put_field(p, fields[i]);
    return (size_t)(p - out);
}

void id_of(uint64_t index, uint32_t lane, uint8_t out[ID_BYTES])
{
    for (uint32_t word = 0; word < 4; word++) {
        uint64_t z = index * 0x9e3779b97f4a7c15u + lane * 0xd1342543de82ef95u + word + 1; /* splitmix64 */
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        memcpy(out + 8 * word, &z, 8);
    }
}

void hex_of(const uint8_t *data, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
}

void sha256_of(const void *data, size_t len, uint8_t out[ID_BYTES])
{
    SHA256(data, len, out);
}

void ping_id_write(uint64_t number, char out[13])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 12; i >= 0; i--, number >>= 4)
        out[i] = digits[number & 15];
}

bool ping_id_read(const uint8_t *data, size_t len, uint64_t *number)
{
    static const char key[] = "\"pingId\":\"";
    const uint8_t *p = memmem(data, len, key, sizeof key - 1);
    if (!p)
        return false;
    p += sizeof key - 1;
    uint64_t v = 0;
    for (int digits = 0; digits < 13 && p < data + len; digits++, p++) {
        uint8_t c = *p;
        if (c >= '0' && c <= '9')
            v = v << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            v = v << 4 | (uint64_t)(c - 'a' + 10);
        else
            break;
    }
    *number = v;
    return true;
}

static const uint8_t *after_key(const uint8_t *data, size_t len, const char *key)
{
    char quoted[64];
    int n = snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const uint8_t *p = memmem(data, len, quoted, (size_t)n);
    return p ? p + n : NULL;
}

size_t text_of(const uint8_t *data, size_t len, const char *key, char *out, size_t cap)
{
    const uint8_t *p = after_key(data, len, key);
    if (!p || p >= data + len || *p != '"')
        return 0;
    const uint8_t *end = memchr(p + 1, '"', (size_t)(data + len - p - 1));
    size_t n = end ? (size_t)(end - p - 1) : 0;
    if (n > cap)
        n = cap;
    memcpy(out, p + 1, n);
    return n;
}

bool has_true(const uint8_t *data, size_t len, const char *key)
{
    const uint8_t *p = after_key(data, len, key);
    return p && data + len - p >= 4 && !memcmp(p, "true", 4);
}
