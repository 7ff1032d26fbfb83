/* Hex digits and bytes are each other's inverse whatever the length; a character that is no hex digit is refused wherever it
 * stands; a hash does not depend on how its input is cut into parts. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 3 || len > 4096) return 0;
    len -= 2;
    const size_t at = (data[0] | (size_t)data[1] << 8) % len;
    data += 2;

    char *text = malloc(2 * len + 1);
    uint8_t *back = malloc(len + 1);
    CHECK(text != NULL && back != NULL);
    srp_hex(data, len, text);
    for (size_t i = 0; i < 2 * len; i++) CHECK(isdigit((unsigned char)text[i]) || (text[i] >= 'a' && text[i] <= 'f'));
    CHECK(srp_unhex(text, 2 * len, back) == 0 && memcmp(back, data, len) == 0);
    for (size_t i = 0; i < 2 * len; i++) text[i] = (char)toupper((unsigned char)text[i]);
    CHECK(srp_unhex(text, 2 * len, back) == 0 && memcmp(back, data, len) == 0);
    CHECK(srp_unhex(text, 2 * len - 1, back) == -1);
    text[at * 2] = (char)data[at]; /* one character exchanged */
    CHECK((srp_unhex(text, 2 * len, back) == 0) == (isxdigit(data[at]) != 0));
    free(text);

    /* The input itself as text. */
    int hex = len % 2 == 0;
    for (size_t i = 0; i < len; i++) hex &= isxdigit(data[i]) != 0;
    CHECK((srp_unhex((const char *)data, len, back) == 0) == hex);
    free(back);

    uint8_t one[32], two[32];
    const srp_part whole = {data, len}, parts[2] = {{data, at}, {data + at, len - at}};
    srp_sha256(&whole, 1, one);
    srp_sha256(parts, 2, two);
    CHECK(memcmp(one, two, 32) == 0);
    srp_sha1(&whole, 1, one);
    srp_sha1(parts, 2, two);
    CHECK(memcmp(one, two, 20) == 0);

    const srp_sip_key key = {len, at};
    const uint64_t sip = srp_sip(&key, data, len), mac = srp_mac(&key, data, len);
    uint8_t *moved = malloc(len + 1); /* another alignment */
    CHECK(moved != NULL);
    memcpy(moved + 1, data, len);
    CHECK(srp_sip(&key, moved + 1, len) == sip && srp_mac(&key, moved + 1, len) == mac);
    uint64_t word = 0;
    for (size_t i = 0; i < 8 && len >= 8; i++) word |= (uint64_t)data[i] << (8 * i);
    CHECK(len < 8 || srp_sip_word(&key, word) == srp_sip(&key, data, 8));
    free(moved);
    return 0;
}
