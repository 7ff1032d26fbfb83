/* The frame of an SRP datagram: decoded in place, encoded in place.
 * Facts: draft "Packet", reference latica/packets.js (protocol version 6). */
#ifndef SRP_WIRE_H
#define SRP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SRP_MAGIC 0x03050b11u
#define SRP_VERSION 6
#define SRP_DATAGRAM_MAX 1421  /* every field full */
#define SRP_MESSAGE_MAX 1024
#define SRP_HOPS_OFFSET 11
#define SRP_TTL_OFFSET 19
#define SRP_TYPE_OFFSET 4
#define SRP_HOPS_MAX 16
#define SRP_CLOCK_WRAP 2000000000u
#define SRP_TTL_MS 21600000u

enum srp_type {
    SRP_PING = 1, SRP_PONG, SRP_INTRO, SRP_JOIN, SRP_PUBLISH, SRP_STREAM, SRP_SYNC, SRP_QUERY, SRP_TYPES
};

enum srp_field {
    SRP_CLUSTER_ID, SRP_SUBCLUSTER_ID, SRP_PREVIOUS_ID, SRP_PACKET_ID, SRP_NEXT_ID,
    SRP_USR1, SRP_USR2, SRP_USR3, SRP_USR4, SRP_MESSAGE, SRP_SIG, SRP_FIELDS
};

/* Why a datagram is not a packet. SRP_OK = 0. Names for counters: srp_verdict_name(). */
enum srp_verdict {
    SRP_OK = 0,
    SRP_BAD_SHORT,       /* ends inside the fixed head or a length prefix */
    SRP_BAD_MAGIC,
    SRP_BAD_TYPE,
    SRP_BAD_VERSION,
    SRP_BAD_LENGTH,      /* a field is longer than its maximum or runs past the end */
    SRP_BAD_JSON,        /* the message of a JSON type is not a JSON object */
    SRP_BAD_DEEP,        /* JSON nested deeper than we follow */
    SRP_BAD_KEY,         /* a key outside the type's schema */
    SRP_BAD_MISSING,     /* a required key is absent */
    SRP_BAD_VALUE,       /* a value of the wrong type or range */
    SRP_VERDICTS
};

typedef struct srp_span {
    uint16_t at;  /* offset in the datagram */
    uint16_t len; /* bytes */
} srp_span;

typedef struct srp_frame {
    uint8_t type;
    uint16_t version;
    uint32_t clock, hops;
    int32_t index;
    uint32_t ttl;
    uint32_t size; /* bytes up to the end of sig; what follows is not part of the packet. 0: not read, or refused */
    srp_span field[SRP_FIELDS];
} srp_frame;

/* Reads the frame; never looks past len, keeps no pointer. Checks type, version and lengths, not the message. */
enum srp_verdict srp_frame_decode(const uint8_t *data, uint32_t len, srp_frame *frame);

/* The same where many datagrams are alike: `frame` is what was read last, or its size is 0. Fields as long as that one's are
 * checked all at once, instead of each after the one that it follows. */
enum srp_verdict srp_frame_decode_next(const uint8_t *data, uint32_t len, srp_frame *frame);

/* Zeroes a small struct of whole words: of sizes like these compilers make a string instruction that takes longer to start. */
static inline void srp_clear(void *at, size_t bytes)
{
    typedef uint64_t __attribute__((may_alias)) word;
    for (word *p = at, *end = p + bytes / sizeof *p; p < end; p++) {
        *p = 0;
        __asm__("" : "+r"(p));
    }
}

/* True when the field is unset: empty, or the one zero byte. */
static inline bool srp_unset(const uint8_t *data, srp_span s)
{
    return s.len == 0 || (s.len == 1 && data[s.at] == 0);
}

/* A field to encode: at == NULL means unset (one zero byte goes on the wire). */
typedef struct srp_bytes {
    const uint8_t *at;
    uint32_t len;
} srp_bytes;

typedef struct srp_packet {
    uint8_t type;
    uint32_t clock, hops;
    int32_t index;
    uint32_t ttl;
    srp_bytes field[SRP_FIELDS];
} srp_packet;

/* Sets the wire's defaults: clock 1, hops 0, index -1, ttl 6 h, all fields unset. */
void srp_packet_init(srp_packet *packet, uint8_t type);

/* Writes a whole datagram; an unset packetId becomes SHA-256(previousId ‖ message ‖ nextId).
 * The message may already stand at its final place (out + srp_message_offset(packet)): then it is not moved.
 * Returns the size in bytes, 0 when a field is too long or cap too small. */
uint32_t srp_packet_encode(const srp_packet *packet, uint8_t *out, uint32_t cap);

/* Where the message of this packet will stand in the encoded datagram (the packetId counting as 32 bytes). */
uint32_t srp_message_offset(const srp_packet *packet);

const char *srp_verdict_name(enum srp_verdict verdict); /* "short", "magic", … */
const char *srp_type_name(uint8_t type);                /* "ping", … */

#endif
