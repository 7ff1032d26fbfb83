/* The JSON messages of ping, pong, intro, join and query: read into one flat struct, written from it.
 * Facts: reference latica/packets.js; protocol.md section 3 and reference-peer.md 7 to 10 in words of ours. */
#ifndef SRP_MESSAGE_H
#define SRP_MESSAGE_H

#include <stdint.h>
#include "wire.h"

/* One bit for each key of any schema: set in `has` when the key is present AND its value valid by our own check. */
enum srp_key {
    SRP_KEY_REQUESTER_PEER_ID, SRP_KEY_RESPONDER_PEER_ID, SRP_KEY_CACHE_SUMMARY_HASH, SRP_KEY_PROBE_EXTERNAL_PORT,
    SRP_KEY_REFLECTION_ID, SRP_KEY_PING_ID, SRP_KEY_NAT_TYPE, SRP_KEY_UPTIME, SRP_KEY_CACHE_SIZE,
    SRP_KEY_IS_CONNECTION, SRP_KEY_IS_REFLECTION, SRP_KEY_IS_PROBE, SRP_KEY_IS_DEBUG, SRP_KEY_IS_RENDEZVOUS,
    SRP_KEY_REJECTED, SRP_KEY_TIMESTAMP, SRP_KEY_ADDRESS, SRP_KEY_PORT, SRP_KEY_KEY,
    SRP_KEY_RENDEZVOUS_ADDRESS, SRP_KEY_RENDEZVOUS_PORT, SRP_KEY_RENDEZVOUS_TYPE, SRP_KEY_RENDEZVOUS_PEER_ID,
    SRP_KEY_RENDEZVOUS_DEADLINE, SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID, SRP_KEY_PACKET_ID, SRP_KEYS
};
#define SRP_HAS(m, key) (((m)->has >> (key)) & 1u)

/* is… and rejected: `has` says present and boolean, `truth` holds the value. */
#define SRP_TRUE(m, key) (((m)->has & (m)->truth) >> (key) & 1u)

typedef struct srp_message {
    uint32_t has, truth;
    uint8_t requester_peer_id[32], responder_peer_id[32];
    uint8_t rendezvous_peer_id[32], rendezvous_requester_peer_id[32];
    uint8_t packet_id[32];          /* query */
    uint8_t cache_summary_hash[20];
    char reflection_id[14], ping_id[14]; /* as text, NUL-terminated: echoed to the letter */
    uint32_t address, rendezvous_address;   /* IPv4, host byte order */
    uint16_t port, rendezvous_port, probe_external_port;
    uint8_t nat_type, rendezvous_type;      /* valid ones only: 31 15 7 5 13 29 … bits 0 and 2 set, at most 31 */
    double uptime, cache_size, timestamp, rendezvous_deadline; /* ms, packets, ms, ms */
    const char *key;  /* join: the JSON text inside its quotes, in the datagram read; ASCII, at most SRP_KEY_BYTES_MAX */
    uint32_t key_len; /* bytes; nobody reads the key, it is kept so that a rewritten join loses nothing */
} srp_message;

#define SRP_KEY_BYTES_MAX 128

/* Reads the message of a frame by its type. The verdict is the reference's (same datagrams accepted and refused, but
 * for the documented differences); `has` is stricter. Types without a JSON message: SRP_OK and has == 0. A query whose
 * message cannot be read: SRP_OK and has == 0, since answers carry other packets' messages. What `has` does not name is zero. */
enum srp_verdict srp_message_read(const uint8_t *data, const srp_frame *frame, srp_message *message);

/* Writes compact ASCII JSON with the keys in `has`, in the schema's order of the given type. A boolean is written by its
 * value. Numbers that are not integers get up to six decimals; beyond +-(2^53 - 1) they are written as that.
 * Returns bytes, 0 when cap is too small (nothing useful written then; SRP_MESSAGE_MAX suffices for every type). No NUL.
 * With cap >= SRP_MESSAGE_MAX it writes in place and may leave garbage between the end of the text and cap. */
uint32_t srp_message_write(uint8_t type, const srp_message *message, char *out, uint32_t cap);

/* Of such a message only the keys of the mask, each as ,"name":value: pieces in the schema's order make up a message, and those
 * that do not change can be kept. The room is as for the whole. Returns bytes. */
uint32_t srp_message_piece(uint8_t type, const srp_message *message, uint32_t keys, char *out);

static inline int srp_nat_valid(unsigned nat) { return nat <= 31 && (nat & 5) == 5; }
static inline int srp_nat_hard(unsigned nat) { return !(nat & 2); }

#endif
