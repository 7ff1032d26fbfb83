/* Nanoseconds for what the codec does with every datagram, the fastest tenth of many short rounds (others may use the machine), messages as real clients send them.
 *   cc -O2 -Icext bench/micro/codec.c cext/wire.c cext/message.c cext/json.c cext/digest.c -lcrypto -o build/codec && build/codec
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "digest.h"
#include "message.h"

enum { ROUNDS = 1001, CALLS = 2000 };

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static uint64_t sink; /* results go here, so that no call is dropped */

#define MEASURE(name, expression)                                                                                     \
    do {                                                                                                              \
        double ns[ROUNDS];                                                                                            \
        for (int round = 0; round < ROUNDS; round++) {                                                                \
            const double start = now_ns();                                                                            \
            for (int call = 0; call < CALLS; call++) {                                                                \
                __asm__ volatile("" ::: "memory");                                                                    \
                sink += (uint64_t)(expression);                                                                       \
            }                                                                                                         \
            ns[round] = (now_ns() - start) / CALLS;                                                                   \
        }                                                                                                             \
        qsort(ns, ROUNDS, sizeof *ns, by_value);                                                                      \
        printf("%-34s %8.1f ns   (least %.1f, median %.1f)\n", name, ns[ROUNDS / 10], ns[0], ns[ROUNDS / 2]);                     \
    } while (0)

typedef struct sample {
    const char *name;
    uint8_t type;
    const char *text;
} sample;

#define ID_A "6f2c8a1be0d94c7739b5a3f1027dd8e4c1f0952b6e3a48d7705c9be2418fa663"
#define ID_B "0b91f7d2c35e4a68f1d07392be84c6a5593e1f0c7d28ba46e9b3057f2c8d14a0"
#define HASH "da39a3ee5e6b4b0d3255bfef95601890afd80709"

static const sample samples[] = {
    {"ping, heartbeat", SRP_PING,
     "{\"requesterPeerId\":\"" ID_A "\",\"natType\":31,\"uptime\":90000,\"cacheSize\":12,\"cacheSummaryHash\":\"" HASH
     "\",\"pingId\":\"0123456789ab\",\"timestamp\":1700000000000}"},
    {"ping, connection", SRP_PING,
     "{\"requesterPeerId\":\"" ID_A "\",\"natType\":7,\"cacheSize\":12,\"uptime\":90000,\"isConnection\":true,"
     "\"cacheSummaryHash\":\"" HASH "\",\"pingId\":\"0123456789abc\",\"timestamp\":1700000000000,\"isReflection\":false}"},
    {"pong, reflection", SRP_PONG,
     "{\"cacheSize\":5,\"uptime\":30000,\"responderPeerId\":\"" ID_B "\",\"requesterPeerId\":\"" ID_A
     "\",\"port\":40000,\"address\":\"203.0.113.9\",\"cacheSummaryHash\":\"" HASH
     "\",\"reflectionId\":\"0123456789ab\",\"pingId\":\"0123456789ab\",\"isReflection\":true}"},
    {"intro", SRP_INTRO,
     "{\"requesterPeerId\":\"" ID_A "\",\"responderPeerId\":\"" ID_B
     "\",\"isRendezvous\":false,\"natType\":15,\"address\":\"198.51.100.7\",\"port\":40001}"},
    {"join", SRP_JOIN,
     "{\"requesterPeerId\":\"" ID_A "\",\"natType\":7,\"address\":\"192.0.2.1\",\"port\":40002,"
     "\"key\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"}"},
    {"publish, 1024 bytes", SRP_PUBLISH, NULL},
};

int main(void)
{
    static uint8_t payload[SRP_MESSAGE_MAX], data[SRP_DATAGRAM_MAX], out[SRP_DATAGRAM_MAX], id[32];
    for (size_t i = 0; i < sizeof payload; i++) payload[i] = (uint8_t)(i * 131);
    for (size_t i = 0; i < sizeof id; i++) id[i] = (uint8_t)(i * 29 + 3);
    srp_frame frame;
    srp_message message;
    srp_packet packet;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const sample *s = &samples[i];
        srp_packet_init(&packet, s->type);
        if (s->type >= SRP_JOIN)
            packet.field[SRP_CLUSTER_ID] = packet.field[SRP_SUBCLUSTER_ID] = packet.field[SRP_USR1] = (srp_bytes){id, 32};
        packet.field[SRP_MESSAGE] = s->text == NULL ? (srp_bytes){payload, sizeof payload}
                                                    : (srp_bytes){(const uint8_t *)s->text, (uint32_t)strlen(s->text)};
        const uint32_t len = srp_packet_encode(&packet, data, sizeof data);
        printf("%s: %u bytes\n", s->name, len);
        MEASURE("  decode frame", srp_frame_decode(data, len, &frame));
        if (srp_message_read(data, &frame, &message) != SRP_OK || (s->text && !message.has)) return 1;
        MEASURE("  decode frame and read message",
                srp_frame_decode(data, len, &frame) + srp_message_read(data, &frame, &message));
        MEASURE("  encode, id computed", srp_packet_encode(&packet, out, sizeof out));
        if (s->text == NULL) continue;
        char *place = (char *)out + srp_message_offset(&packet);
        MEASURE("  write message", srp_message_write(s->type, &message, place, SRP_MESSAGE_MAX));
        MEASURE("  write message and encode in place",
                (packet.field[SRP_MESSAGE] = (srp_bytes){(uint8_t *)place, srp_message_write(s->type, &message, place, SRP_MESSAGE_MAX)},
                 srp_packet_encode(&packet, out, sizeof out)));
    }
    const srp_sip_key key = {1, 2};
    printf("hashes\n");
    MEASURE("  SipHash-2-4 of 16 bytes", srp_mac(&key, payload, 16));
    MEASURE("  SipHash-1-3 of a word", srp_sip_word(&key, sink));
    MEASURE("  SipHash-1-3 of 32 bytes", srp_sip(&key, payload, 32));
    const srp_part part = {payload, 320};
    MEASURE("  SHA-256 of 320 bytes", (srp_sha256(&part, 1, out), out[0]));
    MEASURE("  SHA-1 of 320 bytes", (srp_sha1(&part, 1, out), out[0]));
    return sink == 42;
}
