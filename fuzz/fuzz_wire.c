/* Whatever bytes come, the frame decoder reads only them; a frame it accepts lies inside them, and encoding its fields again
 * gives the same datagram (but for a sig that the datagram's end had cut short, and a clock at the wrap). */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    srp_frame frame;
    static srp_frame next; /* of the datagram before */
    const enum srp_verdict verdict = srp_frame_decode(data, (uint32_t)len, &frame);
    CHECK(srp_frame_decode_next(data, (uint32_t)len, &next) == verdict);
    if (verdict != SRP_OK) return 0;
    CHECK(next.type == frame.type && next.version == frame.version && next.clock == frame.clock && next.hops == frame.hops &&
          next.index == frame.index && next.ttl == frame.ttl && next.size == frame.size);
    CHECK(memcmp(next.field, frame.field, sizeof frame.field) == 0);
    CHECK(frame.size <= len && frame.size <= SRP_DATAGRAM_MAX);
    CHECK(frame.type >= SRP_PING && frame.type < SRP_TYPES && frame.version == SRP_VERSION);

    srp_packet packet;
    srp_packet_init(&packet, frame.type);
    packet.clock = frame.clock;
    packet.hops = frame.hops;
    packet.index = frame.index;
    packet.ttl = frame.ttl;
    uint32_t at = 23;
    for (unsigned i = 0; i < SRP_FIELDS; i++) {
        CHECK(frame.field[i].at == at + 2);
        at += 2u + frame.field[i].len;
        packet.field[i] = (srp_bytes){data + frame.field[i].at, frame.field[i].len};
    }
    CHECK(at == frame.size);

    uint8_t out[SRP_DATAGRAM_MAX + 31], again[SRP_DATAGRAM_MAX + 31]; /* a computed id is 31 bytes longer than an unset one */
    const uint32_t size = srp_packet_encode(&packet, out, sizeof out);
    const bool computed = srp_unset(data, frame.field[SRP_PACKET_ID]) && frame.field[SRP_PACKET_ID].len == 1;
    CHECK(size == frame.size + (computed ? 31 : 0));
    CHECK(srp_packet_encode(&packet, again, size - 1) == 0);
    const uint8_t *sig = data + frame.field[SRP_SIG].at;
    const bool cut = frame.field[SRP_SIG].len != (sig[-2] << 8 | sig[-1]);
    if (!computed && !cut && frame.clock != SRP_CLOCK_WRAP) CHECK(memcmp(out, data, size) == 0);

    /* The message already in place, and elsewhere in the same buffer, makes no difference. */
    const uint32_t message_at = srp_message_offset(&packet), message_len = frame.field[SRP_MESSAGE].len;
    const uint32_t places[2] = {message_at, size - message_len};
    for (int i = 0; i < 2; i++) {
        memset(again, 0xa5, sizeof again);
        memcpy(again + places[i], data + frame.field[SRP_MESSAGE].at, message_len);
        packet.field[SRP_MESSAGE].at = again + places[i];
        CHECK(srp_packet_encode(&packet, again, size) == size);
        CHECK(memcmp(again, out, size) == 0);
    }
    return 0;
}
