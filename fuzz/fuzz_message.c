/* Whatever message a packet of whatever type carries, reading it touches only its bytes and gives a verdict; what was read can be
 * written, fits a message, and reads back as the same. First byte: the type; the rest: the message. */
#include <stdlib.h>
#include <string.h>

#include "message.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Exactly the bytes there are, so that the sanitizer sees a read past them. */
static enum srp_verdict read_exactly(uint8_t type, const uint8_t *text, size_t len, srp_message *message, uint8_t **kept)
{
    srp_frame frame = {.type = type};
    frame.field[SRP_MESSAGE].len = (uint16_t)len;
    *kept = malloc(len ? len : 1);
    CHECK(*kept != NULL);
    if (len) memcpy(*kept, text, len);
    return srp_message_read(*kept, &frame, message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 1 || len > 1 + SRP_MESSAGE_MAX) return 0;
    const uint8_t type = data[0] % (SRP_TYPES + 1);
    srp_message message, again;
    uint8_t *first, *second;
    const enum srp_verdict verdict = read_exactly(type, data + 1, len - 1, &message, &first);
    CHECK(verdict == SRP_OK || (verdict >= SRP_BAD_JSON && verdict < SRP_VERDICTS && type >= SRP_PING && type <= SRP_JOIN));
    CHECK((message.truth & ~message.has) == 0);
    if (verdict != SRP_OK) CHECK(message.has == 0);
    if (SRP_HAS(&message, SRP_KEY_NAT_TYPE)) CHECK(srp_nat_valid(message.nat_type));
    if (SRP_HAS(&message, SRP_KEY_PORT)) CHECK(message.port != 0);
    CHECK(message.reflection_id[13] == 0 && message.ping_id[13] == 0);

    char out[SRP_MESSAGE_MAX], tight[SRP_MESSAGE_MAX];
    const uint32_t size = srp_message_write(type, &message, out, sizeof out);
    if (type < SRP_PING || type >= SRP_TYPES || (type > SRP_JOIN && type != SRP_QUERY)) {
        CHECK(size == 0);
        free(first);
        return 0;
    }
    CHECK(size >= 2 && size <= sizeof out);
    if (size < sizeof out) {
        CHECK(srp_message_write(type, &message, tight, size) == size && memcmp(out, tight, size) == 0);
        CHECK(srp_message_write(type, &message, tight, size - 1) == 0);
    }
    /* A value that the reference takes and we do not is not written, so a required key may be missing now; nothing else. */
    const enum srp_verdict later = read_exactly(type, (const uint8_t *)out, size, &again, &second);
    CHECK(later == SRP_OK || later == SRP_BAD_MISSING);
    if (later == SRP_OK) {
        char last[SRP_MESSAGE_MAX];
        CHECK(verdict != SRP_OK || (again.has == message.has && again.truth == message.truth));
        CHECK(srp_message_write(type, &again, last, sizeof last) == size && memcmp(out, last, size) == 0);
    }
    free(first);
    free(second);
    return 0;
}
