/* The datagrams that the bench sends, written field by field, and the few places where it looks into an answer.
 * A writer of its own on purpose: the load must not depend on the code that it measures. */
#ifndef BENCH_FRAME_H
#define BENCH_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PING = 1, PONG, INTRO, JOIN, PUBLISH, STREAM, SYNC, QUERY, TYPES };

#define DATAGRAM_MAX 1421 /* every field full */
#define MESSAGE_MAX 1024
#define ID_BYTES 32
#define TYPE_AT 4
#define SUBCLUSTER_AT 59 /* of a frame whose clusterId is full */
#define PACKET_ID_AT 127 /* of a frame whose four ids before it are full */
#define FULL_MESSAGE_AT 331

typedef struct bytes {
    const void *at; /* NULL: unset, one zero byte on the wire */
    size_t len;
} bytes;

typedef struct frame {
    uint8_t type;
    uint32_t hops;
    bytes cluster, subcluster, previous, packet, next, usr1, usr2, usr3, usr4, message, sig;
} frame;

/* Writes the datagram; an unset packet id becomes SHA-256(previousId, message, nextId). Returns its bytes. */
size_t frame_write(const frame *f, uint8_t *out);

/* 32 bytes that depend on (index, lane) alone: peer ids, cluster ids and whatever else must differ. */
void id_of(uint64_t index, uint32_t lane, uint8_t out[ID_BYTES]);
void hex_of(const uint8_t *data, size_t len, char *out); /* 2 * len digits, no NUL */
void sha256_of(const void *data, size_t len, uint8_t out[ID_BYTES]);

/* 13 hex digits, the longest pingId: a number in it finds its answer again. */
void ping_id_write(uint64_t number, char out[13]);
/* Reads the number after "pingId":" somewhere in the datagram; false when there is none. */
bool ping_id_read(const uint8_t *data, size_t len, uint64_t *number);
/* Copies the quoted text after "key": into out, at most cap bytes; returns its length, 0 when absent. */
size_t text_of(const uint8_t *data, size_t len, const char *key, char *out, size_t cap);
bool has_true(const uint8_t *data, size_t len, const char *key); /* "key":true */

#endif
