#include "wire.h"

#include <stddef.h>
#include <string.h>

#include "digest.h"

enum { NUMBERS_BYTES = 23, LENGTH_BYTES = 2 };

static const uint16_t field_max[SRP_FIELDS] = {32, 32, 32, 32, 32, 32, 32, 32, 32, SRP_MESSAGE_MAX, 64};

static inline uint16_t get16(const uint8_t *p) { return (uint16_t)(p[0] << 8 | p[1]); }

static inline uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

/* What stands before the fields. */
static inline enum srp_verdict read_numbers(const uint8_t *data, uint32_t len, srp_frame *frame)
{
    if (len >= 4 && get32(data) != SRP_MAGIC) return SRP_BAD_MAGIC;
    if (len < NUMBERS_BYTES) return SRP_BAD_SHORT;

    /* The version first: what a type means is the version's to say. */
    frame->version = get16(data + 5);
    if (frame->version != SRP_VERSION) return SRP_BAD_VERSION;
    frame->type = data[SRP_TYPE_OFFSET];
    if (frame->type < SRP_PING || frame->type >= SRP_TYPES) return SRP_BAD_TYPE;

    frame->clock = get32(data + 7);
    frame->hops = get32(data + SRP_HOPS_OFFSET);
    frame->index = (int32_t)get32(data + 15);
    frame->ttl = get32(data + 19);
    return SRP_OK;
}

enum srp_verdict srp_frame_decode(const uint8_t *data, uint32_t len, srp_frame *frame)
{
    frame->size = 0;
    const enum srp_verdict verdict = read_numbers(data, len, frame);
    if (verdict != SRP_OK) return verdict;

    uint32_t at = NUMBERS_BYTES;
    for (unsigned i = 0; i < SRP_FIELDS; i++) {
        if (len - at < LENGTH_BYTES) return SRP_BAD_SHORT;
        uint32_t bytes = get16(data + at);
        at += LENGTH_BYTES;
        if (bytes > field_max[i]) return SRP_BAD_LENGTH;
        if (bytes > len - at) {
            /* The reference takes a datagram that ends inside its last field, with a shorter sig. */
            if (i != SRP_SIG) return SRP_BAD_LENGTH;
            bytes = len - at;
        }
        frame->field[i].at = (uint16_t)at;
        frame->field[i].len = (uint16_t)bytes;
        at += bytes;
    }
    frame->size = at;
    return SRP_OK;
}

enum srp_verdict srp_frame_decode_next(const uint8_t *data, uint32_t len, srp_frame *frame)
{
    if (frame->size == 0 || len < frame->size) return srp_frame_decode(data, len, frame);
    unsigned other = 0;
#pragma GCC unroll 11
    for (unsigned i = 0; i < SRP_FIELDS; i++) other |= get16(data + frame->field[i].at - LENGTH_BYTES) ^ frame->field[i].len;
    return other ? srp_frame_decode(data, len, frame) : read_numbers(data, len, frame);
}

void srp_packet_init(srp_packet *packet, uint8_t type)
{
    _Static_assert(sizeof *packet % 8 == 0, "whole words");
    srp_clear(packet, sizeof *packet);
    packet->type = type;
    packet->clock = 1;
    packet->index = -1;
    packet->ttl = SRP_TTL_MS;
}

/* An id to be computed: absent, or the one zero byte that an unset id is on the wire. */
static bool unset_id(srp_bytes b) { return b.at == NULL || (b.len == 1 && b.at[0] == 0); }

/* Bytes that the field takes, without its length prefix. */
static uint32_t wire_bytes(const srp_packet *packet, unsigned i)
{
    if (i == SRP_PACKET_ID && unset_id(packet->field[i])) return 32;
    return packet->field[i].at == NULL ? 1 : packet->field[i].len;
}

uint32_t srp_message_offset(const srp_packet *packet)
{
    uint32_t at = NUMBERS_BYTES;
    for (unsigned i = 0; i < SRP_MESSAGE; i++) at += LENGTH_BYTES + wire_bytes(packet, i);
    return at + LENGTH_BYTES;
}

uint32_t srp_packet_encode(const srp_packet *packet, uint8_t *out, uint32_t cap)
{
    static const uint8_t zero[1] = {0};
    srp_bytes field[SRP_FIELDS];
    uint8_t packet_id[32];

    /* All sizes first, so that a packet that does not fit leaves out untouched. */
    uint32_t size = NUMBERS_BYTES, message_at = 0;
    for (unsigned i = 0; i < SRP_FIELDS; i++) {
        field[i] = packet->field[i];
        if (field[i].at == NULL) field[i] = (srp_bytes){zero, 1};
        if (field[i].len > field_max[i]) return 0;
        size += LENGTH_BYTES;
        if (i == SRP_MESSAGE) message_at = size;
        size += wire_bytes(packet, i);
    }
    if (size > cap) return 0;

    /* The message before all else: it may stand in out, at its place or elsewhere. */
    if (field[SRP_MESSAGE].at != out + message_at) memmove(out + message_at, field[SRP_MESSAGE].at, field[SRP_MESSAGE].len);

    if (unset_id(packet->field[SRP_PACKET_ID])) {
        const srp_part parts[3] = {
            {field[SRP_PREVIOUS_ID].at, field[SRP_PREVIOUS_ID].len},
            {out + message_at, field[SRP_MESSAGE].len},
            {field[SRP_NEXT_ID].at, field[SRP_NEXT_ID].len},
        };
        srp_sha256(parts, 3, packet_id);
        field[SRP_PACKET_ID] = (srp_bytes){packet_id, 32};
    }

    put32(out, SRP_MAGIC);
    out[SRP_TYPE_OFFSET] = packet->type;
    put16(out + 5, SRP_VERSION);
    put32(out + 7, packet->clock == SRP_CLOCK_WRAP ? 0 : packet->clock);
    put32(out + SRP_HOPS_OFFSET, packet->hops);
    put32(out + 15, (uint32_t)packet->index);
    put32(out + 19, packet->ttl);
    uint8_t *p = out + NUMBERS_BYTES;
    for (unsigned i = 0; i < SRP_FIELDS; i++) {
        put16(p, field[i].len);
        p += LENGTH_BYTES;
        if (i != SRP_MESSAGE) memcpy(p, field[i].at, field[i].len);
        p += field[i].len;
    }
    return size;
}

const char *srp_verdict_name(enum srp_verdict verdict)
{
    static const char *const names[SRP_VERDICTS] = {
        "ok", "short", "magic", "type", "version", "length", "json", "deep", "key", "missing", "value",
    };
    return (unsigned)verdict < SRP_VERDICTS ? names[verdict] : "unknown";
}

const char *srp_type_name(uint8_t type)
{
    static const char *const names[SRP_TYPES] = {
        "unknown", "ping", "pong", "intro", "join", "publish", "stream", "sync", "query",
    };
    return names[type < SRP_TYPES ? type : 0];
}
