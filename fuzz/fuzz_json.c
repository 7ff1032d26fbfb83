/* On any bytes the JSON reader stays inside them; what it accepts as a number, libc's own number parser takes whole and reads as the
 * same; strings it accepts can be turned into text; and a value is accepted the same whatever follows it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len > 4096) return 0;
    const uint8_t *end = data + len, *stop;
    bool deep, escaped;

    stop = srp_json_skip(data, end, &deep);
    CHECK(stop == NULL || (stop > data && stop <= end && !deep));
    if (stop != NULL) {
        /* Exactly the value, in a buffer of its own. */
        size_t size = (size_t)(stop - data);
        uint8_t *value = malloc(size);
        CHECK(value != NULL);
        memcpy(value, data, size);
        CHECK(srp_json_skip(value, value + size, &deep) == value + size);
        free(value);
    }

    stop = srp_json_number(data, end);
    if (stop != NULL) {
        size_t size = (size_t)(stop - data);
        char *text = malloc(size + 1), *parsed;
        CHECK(text != NULL);
        memcpy(text, data, size);
        text[size] = 0;
        const double wanted = strtod(text, &parsed), got = srp_json_double(data, stop);
        CHECK(parsed == text + size);
        CHECK(memcmp(&wanted, &got, sizeof got) == 0);
        free(text);
    }

    stop = srp_json_string(data, end, &escaped);
    if (stop != NULL) {
        CHECK(*stop == '"' && (escaped || srp_json_plain(data, end) == stop));
        char text[64];
        for (uint32_t cap = 0; cap <= sizeof text; cap += 32) {
            uint32_t size = srp_json_text(data, stop, text, cap);
            CHECK(size <= cap + 1);
            if (!escaped) CHECK(size == ((size_t)(stop - data) > cap ? cap + 1 : (uint32_t)(stop - data)));
        }
    }
    stop = srp_json_plain(data, end);
    for (const uint8_t *p = data; p < stop; p++) CHECK(*p >= 0x20 && *p != '"' && *p != '\\');
    CHECK(stop == end || *stop < 0x20 || *stop == '"' || *stop == '\\');
    return 0;
}
