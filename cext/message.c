#include "message.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "digest.h"
#include "json.h"

/* What a value must be, for the reference (does the datagram stand?) and for us (does `has` name it?). */
enum kind {
    KIND_ID,      /* 64 hex digits */
    KIND_HASH,    /* 40 hex digits */
    KIND_SHORT,   /* 12 hex digits, kept as text */
    KIND_PING,    /* 12 or 13 hex digits, kept as text */
    KIND_TRUTH,
    KIND_NUMBER,
    KIND_PORT,    /* 1 … 65535 */
    KIND_NAT,
    KIND_ADDRESS, /* dotted IPv4; any string for the reference */
    KIND_TEXT,
};

static const uint8_t hex_digits[] = {[KIND_ID] = 64, [KIND_HASH] = 40, [KIND_TEXT] = 0}; /* of those kinds that are only that */

typedef struct key_spec {
    char text[32]; /* ,"name": as it is written, zeros behind */
    uint8_t len;   /* of that */
    uint8_t kind;
    uint16_t at;   /* of the value in srp_message */
} key_spec;

#define KEY(name, kind, member) {",\"" name "\":", sizeof name + 3, kind, offsetof(srp_message, member)}
#define TRUTH(name) {",\"" name "\":", sizeof name + 3, KIND_TRUTH, 0}

static const key_spec specs[SRP_KEYS] = {
    [SRP_KEY_REQUESTER_PEER_ID] = KEY("requesterPeerId", KIND_ID, requester_peer_id),
    [SRP_KEY_RESPONDER_PEER_ID] = KEY("responderPeerId", KIND_ID, responder_peer_id),
    [SRP_KEY_CACHE_SUMMARY_HASH] = KEY("cacheSummaryHash", KIND_HASH, cache_summary_hash),
    [SRP_KEY_PROBE_EXTERNAL_PORT] = KEY("probeExternalPort", KIND_PORT, probe_external_port),
    [SRP_KEY_REFLECTION_ID] = KEY("reflectionId", KIND_SHORT, reflection_id),
    [SRP_KEY_PING_ID] = KEY("pingId", KIND_PING, ping_id),
    [SRP_KEY_NAT_TYPE] = KEY("natType", KIND_NAT, nat_type),
    [SRP_KEY_UPTIME] = KEY("uptime", KIND_NUMBER, uptime),
    [SRP_KEY_CACHE_SIZE] = KEY("cacheSize", KIND_NUMBER, cache_size),
    [SRP_KEY_IS_CONNECTION] = TRUTH("isConnection"),
    [SRP_KEY_IS_REFLECTION] = TRUTH("isReflection"),
    [SRP_KEY_IS_PROBE] = TRUTH("isProbe"),
    [SRP_KEY_IS_DEBUG] = TRUTH("isDebug"),
    [SRP_KEY_IS_RENDEZVOUS] = TRUTH("isRendezvous"),
    [SRP_KEY_REJECTED] = TRUTH("rejected"),
    [SRP_KEY_TIMESTAMP] = KEY("timestamp", KIND_NUMBER, timestamp),
    [SRP_KEY_ADDRESS] = KEY("address", KIND_ADDRESS, address),
    [SRP_KEY_PORT] = KEY("port", KIND_PORT, port),
    [SRP_KEY_KEY] = KEY("key", KIND_TEXT, key),
    [SRP_KEY_RENDEZVOUS_ADDRESS] = KEY("rendezvousAddress", KIND_ADDRESS, rendezvous_address),
    [SRP_KEY_RENDEZVOUS_PORT] = KEY("rendezvousPort", KIND_PORT, rendezvous_port),
    [SRP_KEY_RENDEZVOUS_TYPE] = KEY("rendezvousType", KIND_NAT, rendezvous_type),
    [SRP_KEY_RENDEZVOUS_PEER_ID] = KEY("rendezvousPeerId", KIND_ID, rendezvous_peer_id),
    [SRP_KEY_RENDEZVOUS_DEADLINE] = KEY("rendezvousDeadline", KIND_NUMBER, rendezvous_deadline),
    [SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID] = KEY("rendezvousRequesterPeerId", KIND_ID, rendezvous_requester_peer_id),
    [SRP_KEY_PACKET_ID] = KEY("packetId", KIND_ID, packet_id),
};

#define BIT(key) (1u << SRP_KEY_##key)

/* The keys of a type in the order in which the reference checks them (packets.js), which is also the order we write. */
typedef struct schema_spec {
    uint32_t allowed, required;
    uint8_t count;
    uint8_t order[15];
} schema_spec;

static const schema_spec schemas[SRP_TYPES] = {
    [SRP_PING] = {
        BIT(REQUESTER_PEER_ID) | BIT(CACHE_SUMMARY_HASH) | BIT(PROBE_EXTERNAL_PORT) | BIT(REFLECTION_ID) | BIT(PING_ID) |
            BIT(NAT_TYPE) | BIT(UPTIME) | BIT(CACHE_SIZE) | BIT(IS_CONNECTION) | BIT(IS_REFLECTION) | BIT(IS_PROBE) |
            BIT(IS_DEBUG) | BIT(TIMESTAMP),
        BIT(REQUESTER_PEER_ID), 13,
        {SRP_KEY_REQUESTER_PEER_ID, SRP_KEY_CACHE_SUMMARY_HASH, SRP_KEY_PROBE_EXTERNAL_PORT, SRP_KEY_REFLECTION_ID,
         SRP_KEY_PING_ID, SRP_KEY_NAT_TYPE, SRP_KEY_UPTIME, SRP_KEY_CACHE_SIZE, SRP_KEY_IS_CONNECTION,
         SRP_KEY_IS_REFLECTION, SRP_KEY_IS_PROBE, SRP_KEY_IS_DEBUG, SRP_KEY_TIMESTAMP}},
    [SRP_PONG] = {
        BIT(REQUESTER_PEER_ID) | BIT(RESPONDER_PEER_ID) | BIT(CACHE_SUMMARY_HASH) | BIT(PORT) | BIT(ADDRESS) | BIT(UPTIME) |
            BIT(CACHE_SIZE) | BIT(NAT_TYPE) | BIT(IS_REFLECTION) | BIT(IS_CONNECTION) | BIT(REFLECTION_ID) | BIT(PING_ID) |
            BIT(IS_DEBUG) | BIT(IS_PROBE) | BIT(REJECTED),
        BIT(REQUESTER_PEER_ID) | BIT(RESPONDER_PEER_ID), 15,
        {SRP_KEY_REQUESTER_PEER_ID, SRP_KEY_RESPONDER_PEER_ID, SRP_KEY_CACHE_SUMMARY_HASH, SRP_KEY_PORT, SRP_KEY_ADDRESS,
         SRP_KEY_UPTIME, SRP_KEY_CACHE_SIZE, SRP_KEY_NAT_TYPE, SRP_KEY_IS_REFLECTION, SRP_KEY_IS_CONNECTION,
         SRP_KEY_REFLECTION_ID, SRP_KEY_PING_ID, SRP_KEY_IS_DEBUG, SRP_KEY_IS_PROBE, SRP_KEY_REJECTED}},
    [SRP_INTRO] = {
        BIT(REQUESTER_PEER_ID) | BIT(RESPONDER_PEER_ID) | BIT(IS_RENDEZVOUS) | BIT(NAT_TYPE) | BIT(ADDRESS) | BIT(PORT) |
            BIT(TIMESTAMP),
        BIT(REQUESTER_PEER_ID) | BIT(RESPONDER_PEER_ID) | BIT(NAT_TYPE) | BIT(ADDRESS) | BIT(PORT), 7,
        {SRP_KEY_REQUESTER_PEER_ID, SRP_KEY_RESPONDER_PEER_ID, SRP_KEY_IS_RENDEZVOUS, SRP_KEY_NAT_TYPE, SRP_KEY_ADDRESS,
         SRP_KEY_PORT, SRP_KEY_TIMESTAMP}},
    [SRP_JOIN] = {
        BIT(RENDEZVOUS_ADDRESS) | BIT(RENDEZVOUS_PORT) | BIT(RENDEZVOUS_TYPE) | BIT(RENDEZVOUS_PEER_ID) |
            BIT(RENDEZVOUS_DEADLINE) | BIT(RENDEZVOUS_REQUESTER_PEER_ID) | BIT(REQUESTER_PEER_ID) | BIT(NAT_TYPE) |
            BIT(ADDRESS) | BIT(KEY) | BIT(PORT) | BIT(IS_CONNECTION),
        BIT(REQUESTER_PEER_ID) | BIT(NAT_TYPE) | BIT(ADDRESS) | BIT(PORT), 12,
        {SRP_KEY_RENDEZVOUS_ADDRESS, SRP_KEY_RENDEZVOUS_PORT, SRP_KEY_RENDEZVOUS_TYPE, SRP_KEY_RENDEZVOUS_PEER_ID,
         SRP_KEY_RENDEZVOUS_DEADLINE, SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID, SRP_KEY_REQUESTER_PEER_ID, SRP_KEY_NAT_TYPE,
         SRP_KEY_ADDRESS, SRP_KEY_KEY, SRP_KEY_PORT, SRP_KEY_IS_CONNECTION}},
    [SRP_QUERY] = {BIT(PACKET_ID), 0, 1, {SRP_KEY_PACKET_ID}},
};

#define IS(literal, key) (memcmp(name, literal, sizeof literal - 1) == 0 ? (int)SRP_KEY_##key : -1)

/* The key of this name, or -1. */
static int key_of(const void *at, size_t len)
{
    const char *name = at;
    switch (len) {
    case 3: return IS("key", KEY);
    case 4: return IS("port", PORT);
    case 6: return name[0] == 'p' ? IS("pingId", PING_ID) : IS("uptime", UPTIME);
    case 7:
        switch (name[0]) {
        case 'n': return IS("natType", NAT_TYPE);
        case 'a': return IS("address", ADDRESS);
        default: return name[2] == 'P' ? IS("isProbe", IS_PROBE) : IS("isDebug", IS_DEBUG);
        }
    case 8: return name[0] == 'p' ? IS("packetId", PACKET_ID) : IS("rejected", REJECTED);
    case 9: return name[0] == 'c' ? IS("cacheSize", CACHE_SIZE) : IS("timestamp", TIMESTAMP);
    case 12:
        if (name[0] == 'r') return IS("reflectionId", REFLECTION_ID);
        if (name[2] == 'C') return IS("isConnection", IS_CONNECTION);
        return name[4] == 'f' ? IS("isReflection", IS_REFLECTION) : IS("isRendezvous", IS_RENDEZVOUS);
    case 14: return name[10] == 'P' ? IS("rendezvousPort", RENDEZVOUS_PORT) : IS("rendezvousType", RENDEZVOUS_TYPE);
    case 15:
        return name[2] == 'q' ? IS("requesterPeerId", REQUESTER_PEER_ID) : IS("responderPeerId", RESPONDER_PEER_ID);
    case 16:
        return name[0] == 'c' ? IS("cacheSummaryHash", CACHE_SUMMARY_HASH) : IS("rendezvousPeerId", RENDEZVOUS_PEER_ID);
    case 17:
        return name[0] == 'p' ? IS("probeExternalPort", PROBE_EXTERNAL_PORT) : IS("rendezvousAddress", RENDEZVOUS_ADDRESS);
    case 18: return IS("rendezvousDeadline", RENDEZVOUS_DEADLINE);
    case 25: return IS("rendezvousRequesterPeerId", RENDEZVOUS_REQUESTER_PEER_ID);
    default: return -1;
    }
}

static inline uint32_t mask(int yes, uint32_t bit) { return yes ? bit : 0; }

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* The first quote from p on, among 32 bytes that can be read; behind them when there is none. Names are no longer than that. */
static inline const uint8_t *quote_near(const uint8_t *p)
{
    for (int i = 0; i < 4; i++, p += 8) {
        uint64_t v = srp_load64(p) ^ EACH('"');
        uint64_t hit = (v - EACH(1)) & ~v & EACH(0x80); /* the lowest mark is exact */
        if (hit) return p + (__builtin_ctzll(hit) >> 3);
    }
    return p;
}

/* Whether all eight bytes are decimal digits; then *value is their number. */
static inline bool eight_digits(const uint8_t *p, uint64_t *value)
{
    uint64_t v = srp_load64(p);
    if (((v & EACH(0xf0)) | (((v + EACH(6)) & EACH(0xf0)) >> 4)) != EACH(0x33)) return false;
    v = (v & EACH(0x0f)) * 2561 >> 8; /* pairs, then fours, then all */
    v = (v & UINT64_C(0x00ff00ff00ff00ff)) * 6553601 >> 16;
    *value = (v & UINT64_C(0x0000ffff0000ffff)) * UINT64_C(42949672960001) >> 32;
    return true;
}

/* Whether all eight bytes are hex digits, in either case. A byte is in a range when adding its lower bound's complement sets its bit 7 and
 * adding the upper one's does not; what is over 0x7f carries into its neighbour, but is in no range itself. */
static inline bool eight_hex(const void *p)
{
    uint64_t text = srp_load64(p), low = text | EACH(0x20);
    uint64_t digit = (text + EACH(0x80 - '0')) & ~(text + EACH(0x80 - '9' - 1));
    uint64_t letter = (low + EACH(0x80 - 'a')) & ~(low + EACH(0x80 - 'f' - 1));
    return ((digit | letter) & ~text & EACH(0x80)) == EACH(0x80);
}

/* Dotted IPv4, no leading zeros. False on any other text. */
static bool read_address(const char *p, uint32_t len, uint32_t *out)
{
    const char *end = p + len;
    uint32_t address = 0;
    for (int part = 0; part < 4; part++) {
        if (part && (p == end || *p++ != '.')) return false;
        const char *first = p;
        uint32_t value = 0;
        while (p < end && p - first < 3 && *p >= '0' && *p <= '9') value = value * 10 + (uint32_t)(*p++ - '0');
        if (p == first || value > 255 || (*first == '0' && p - first > 1)) return false;
        address = address << 8 | value;
    }
    *out = address;
    return p == end;
}

static bool is_ascii(const uint8_t *p, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++)
        if (p[i] & 0x80) return false;
    return true;
}

/* A string value: its raw text between the quotes. Sets the key's bit in has when it is what we want;
 * returns whether the reference would take it. */
static bool take_string(srp_message *message, unsigned key, const uint8_t *raw, uint32_t len, bool escaped)
{
    const key_spec *spec = &specs[key];
    char *at = (char *)message + spec->at;
    const char *text = (const char *)raw;
    char plain[64]; /* the longest text that any check can take */
    bool fine = false;
    if (spec->kind == KIND_TEXT) {
        message->key = text;
        message->key_len = len;
        if (len <= SRP_KEY_BYTES_MAX && is_ascii(raw, len)) message->has |= 1u << key;
        return true;
    }
    if (escaped) {
        len = srp_json_text(raw, raw + len, plain, sizeof plain);
        text = plain;
        if (len > sizeof plain) return spec->kind == KIND_ADDRESS;
    }
    switch (spec->kind) {
    case KIND_ID: fine = len == 64 && srp_unhex(text, 64, (uint8_t *)at) == 0; break;
    case KIND_HASH: fine = len == 40 && srp_unhex(text, 40, (uint8_t *)at) == 0; break;
    case KIND_SHORT:
    case KIND_PING: {
        char last = 0;
        fine = (len == 12 || (len == 13 && spec->kind == KIND_PING)) && eight_hex(text) && eight_hex(text + 4);
        if (fine && len == 13) {
            char pair[2] = {'0', text[12]};
            uint8_t scratch[1];
            last = text[12];
            fine = srp_unhex(pair, 2, scratch) == 0;
        }
        if (fine) {
            memcpy(at, text, 12);
            at[12] = last;
            at[13] = 0;
        }
        break;
    }
    case KIND_ADDRESS: {
        uint32_t address;
        if (read_address(text, len, &address)) {
            memcpy(at, &address, sizeof address);
            message->has |= 1u << key;
        }
        return true;
    }
    default: return false;
    }
    message->has |= mask(fine, 1u << key);
    return fine;
}

/* A number: the same. */
static bool take_number(srp_message *message, unsigned key, double value, uint8_t type)
{
    char *at = (char *)message + specs[key].at;
    switch (specs[key].kind) {
    case KIND_NUMBER:
        memcpy(at, &value, sizeof value);
        message->has |= mask(isfinite(value), 1u << key);
        return true;
    case KIND_PORT: {
        bool fine = value >= 1 && value <= 65535 && value == (double)(uint16_t)value;
        if (fine) {
            uint16_t port = (uint16_t)value;
            memcpy(at, &port, sizeof port);
            message->has |= 1u << key;
        }
        return fine || type == SRP_PONG; /* any number is a pong's port for the reference */
    }
    case KIND_NAT: {
        /* The reference asks the two bits of the number's integer part, modulo 2^32; from 2^53 on bit 0 is never set. */
        if (!(fabs(value) < 9007199254740992.0)) return false;
        int64_t whole = (int64_t)value;
        if ((whole & 5) != 5) return false;
        if (whole >= 0 && whole <= 31 && value == (double)whole) {
            *(uint8_t *)at = (uint8_t)whole;
            message->has |= 1u << key;
        }
        return true;
    }
    default: return false;
    }
}

enum srp_verdict srp_message_read(const uint8_t *data, const srp_frame *frame, srp_message *message)
{
    _Static_assert(sizeof *message % 8 == 0, "whole words");
    srp_clear(message, sizeof *message);
    const uint8_t type = frame->type;
    if (type >= SRP_TYPES || schemas[type].count == 0) return SRP_OK;
    const schema_spec *schema = &schemas[type];
    const bool query = type == SRP_QUERY; /* free form: nothing in it is refused */

    const uint8_t *p = data + frame->field[SRP_MESSAGE].at, *end = p + frame->field[SRP_MESSAGE].len;
    const uint8_t *number_at[SRP_KEYS], *number_end[SRP_KEYS]; /* of the keys in `later` only */
    uint32_t present = 0;  /* keys seen */
    uint32_t refused = 0;  /* of those: the reference refuses the value, should it come to check it */
    uint32_t later = 0;    /* numbers that are no plain integers; read once at the end, however often the key comes */
    enum srp_verdict verdict = SRP_BAD_JSON;
    bool deep = false;

    p = srp_json_blank(p, end);
    if (p == end || *p != '{') goto bad;
    p = srp_json_blank(p + 1, end);
    if (p < end && *p == '}') {
        p++;
        goto closed;
    }
    for (;;) {
        if (p == end || *p != '"') goto bad;
        bool escaped = false;
        const uint8_t *name = ++p;
        int key = -1;
        if (end - p >= 32) { /* most names are what they look like */
            p = quote_near(p);
            key = key_of(name, (size_t)(p - name));
        }
        if (key < 0) {
            p = srp_json_string(name, end, &escaped);
            if (p == NULL) goto bad;
            char plain[32];
            uint32_t len = srp_json_text(name, p, plain, sizeof plain);
            key = len > sizeof plain ? -1 : key_of(plain, len);
        }
        if (key >= 0 && !(schema->allowed >> key & 1)) key = -1;
        if (key < 0 && !query) {
            verdict = SRP_BAD_KEY;
            goto bad;
        }
        p++;
        if (p == end || *p != ':') {
            p = srp_json_blank(p, end);
            if (p == end || *p != ':') goto bad;
        }
        p = srp_json_blank(p + 1, end);
        if (p == end) goto bad;

        if (key < 0) {
            p = srp_json_skip(p, end, &deep);
            if (p == NULL) goto bad;
        } else {
            const uint32_t bit = 1u << key;
            bool fine = false;
            present |= bit;
            if (message->has & bit) { /* the last of several values counts, as in JSON.parse */
                message->has &= ~bit;
                message->truth &= ~bit;
            }
            later &= ~bit;
            refused &= ~bit;
            escaped = false;
            const uint32_t digits = hex_digits[specs[key].kind];
            if (digits && end - p > 1 + (ptrdiff_t)digits && *p == '"' && p[1 + digits] == '"' &&
                srp_unhex((const char *)p + 1, digits, (uint8_t *)message + specs[key].at) == 0) {
                p += digits + 2; /* nothing in it that would end a string or need an escape */
                message->has |= bit;
                fine = true;
            } else if (*p == '"') {
                const uint8_t *raw = ++p;
                p = srp_json_plain(p, end);
                if (p == end || *p != '"') {
                    p = srp_json_string(raw, end, &escaped);
                    if (p == NULL) goto bad;
                    escaped = true;
                }
                fine = take_string(message, (unsigned)key, raw, (uint32_t)(p - raw), escaped);
                p++;
            } else if ((*p >= '0' && *p <= '9') || *p == '-') {
                const uint8_t *first = p;
                bool negative = *p == '-';
                p += negative;
                const uint8_t *start = p;
                uint64_t whole = 0;
                uint64_t eight;
                while (end - p >= 8 && p - start <= 8 && eight_digits(p, &eight)) {
                    whole = whole * 100000000 + eight;
                    p += 8;
                }
                while (p < end && *p >= '0' && *p <= '9' && p - start < 19) whole = whole * 10 + (uint64_t)(*p++ - '0');
                if (p == start || (*start == '0' && p - start > 1)) goto bad;
                if (p < end && (*p == '.' || *p == 'e' || *p == 'E' || (*p >= '0' && *p <= '9'))) {
                    p = srp_json_number(first, end);
                    if (p == NULL) goto bad;
                    number_at[key] = first;
                    number_end[key] = p;
                    later |= bit;
                    fine = true;
                } else {
                    double value = (double)whole;
                    fine = take_number(message, (unsigned)key, negative ? -value : value, type);
                }
            } else if (*p == 't' && end - p >= 4 && memcmp(p, "true", 4) == 0) {
                p += 4;
                fine = specs[key].kind == KIND_TRUTH;
                message->has |= mask(fine, bit);
                message->truth |= mask(fine, bit);
            } else if (*p == 'f' && end - p >= 5 && memcmp(p, "false", 5) == 0) {
                p += 5;
                fine = specs[key].kind == KIND_TRUTH;
                message->has |= mask(fine, bit);
            } else { /* null, arrays and objects are no value of any key */
                p = srp_json_skip(p, end, &deep);
                if (p == NULL) goto bad;
            }
            refused |= mask(!fine, bit);
        }
        if (p == end || *p != ',') {
            p = srp_json_blank(p, end);
            if (p == end) goto bad;
            if (*p == '}') {
                p++;
                break;
            }
            if (*p != ',') goto bad;
        }
        p++;
        if (p < end && *p != '"') p = srp_json_blank(p, end);
    }
closed:
    if (srp_json_blank(p, end) != end) goto bad;

    while (later) {
        unsigned key = (unsigned)__builtin_ctz(later);
        later &= later - 1;
        if (!take_number(message, key, srp_json_double(number_at[key], number_end[key]), type)) refused |= 1u << key;
    }
    if ((schema->required & ~present) == 0 && refused == 0) return SRP_OK;
    if (query) return SRP_OK;
    /* As the reference does: keys in its order, and no check behind the first absent one. */
    for (unsigned i = 0; i < schema->count; i++) {
        const uint32_t bit = 1u << schema->order[i];
        if (!(present & bit)) {
            if (!(schema->required & bit)) return SRP_OK;
            verdict = SRP_BAD_MISSING;
            goto bad;
        }
        if (refused & bit) {
            verdict = SRP_BAD_VALUE;
            goto bad;
        }
    }
    return SRP_OK;

bad:
    message->has = message->truth = 0;
    if (query) return SRP_OK;
    return deep ? SRP_BAD_DEEP : verdict;
}

static char *put_digits(char *p, uint64_t value)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748495051"
        "525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    char digits[20];
    char *first = digits + sizeof digits;
    while (value >= 100) {
        first -= 2;
        memcpy(first, pairs + 2 * (value % 100), 2);
        value /= 100;
    }
    if (value >= 10) {
        first -= 2;
        memcpy(first, pairs + 2 * value, 2);
    } else {
        *--first = (char)('0' + value);
    }
    size_t count = (size_t)(digits + sizeof digits - first);
    memcpy(p, first, count);
    return p + count;
}

static char *put_number(char *p, double value)
{
    const double most = 9007199254740991.0;
    if (!(value < most)) value = value >= most ? most : 0; /* 0: not a number */
    if (value < -most) value = -most;
    const bool negative = value < 0;
    if (negative) value = -value;
    uint64_t whole = (uint64_t)value;
    const double rest = value - (double)whole;
    uint32_t millionths = (uint32_t)(rest * 1e6 + 0.5);
    if (millionths == 1000000) {
        millionths = 0;
        whole++;
    }
    if (negative && (whole || millionths)) *p++ = '-';
    p = put_digits(p, whole);
    if (millionths == 0) return p;
    *p++ = '.';
    for (uint32_t scale = 100000; millionths; millionths %= scale, scale /= 10) *p++ = (char)('0' + millionths / scale);
    return p;
}

static char *put_address(char *p, uint32_t address)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        p = put_digits(p, address >> shift & 255);
        if (shift) *p++ = '.';
    }
    return p;
}

uint32_t srp_message_piece(uint8_t type, const srp_message *message, uint32_t keys, char *out)
{
    const schema_spec *schema = &schemas[type];
    const uint32_t has = message->has & schema->allowed & keys;
    char *p = out;
    for (unsigned i = 0; i < schema->count; i++) {
        const unsigned key = schema->order[i];
        if (!(has >> key & 1)) continue;
        const key_spec *spec = &specs[key];
        const char *at = (const char *)message + spec->at;
        memcpy(p, spec->text, sizeof spec->text); /* of fixed size, so one move; what is too much is overwritten */
        p += spec->len;
        switch (spec->kind) {
        case KIND_ID:
            *p++ = '"';
            srp_hex((const uint8_t *)at, 32, p);
            p += 64;
            *p++ = '"';
            break;
        case KIND_HASH:
            *p++ = '"';
            srp_hex((const uint8_t *)at, 20, p);
            p += 40;
            *p++ = '"';
            break;
        case KIND_SHORT:
        case KIND_PING:
            *p++ = '"';
            if (at[11]) { /* all that are valid */
                memcpy(p, at, 12);
                p += 12;
                if (at[12]) *p++ = at[12];
            } else {
                while (*at) *p++ = *at++;
            }
            *p++ = '"';
            break;
        case KIND_TRUTH:
            if (message->truth >> key & 1) {
                memcpy(p, "true", 4);
                p += 4;
            } else {
                memcpy(p, "false", 5);
                p += 5;
            }
            break;
        case KIND_NUMBER: {
            double value;
            memcpy(&value, at, sizeof value);
            p = put_number(p, value);
            break;
        }
        case KIND_PORT: {
            uint16_t port;
            memcpy(&port, at, sizeof port);
            p = put_digits(p, port);
            break;
        }
        case KIND_NAT: p = put_digits(p, *(const uint8_t *)at); break;
        case KIND_ADDRESS: {
            uint32_t address;
            memcpy(&address, at, sizeof address);
            *p++ = '"';
            p = put_address(p, address);
            *p++ = '"';
            break;
        }
        default: {
            uint32_t len = message->key_len <= SRP_KEY_BYTES_MAX ? message->key_len : 0;
            *p++ = '"';
            if (len) memcpy(p, message->key, len);
            p += len;
            *p++ = '"';
            break;
        }
        }
    }
    return (uint32_t)(p - out);
}

uint32_t srp_message_write(uint8_t type, const srp_message *message, char *out, uint32_t cap)
{
    char scratch[SRP_MESSAGE_MAX];
    if (type >= SRP_TYPES || schemas[type].count == 0 || cap < 2) return 0;
    char *const start = cap >= SRP_MESSAGE_MAX ? out : scratch;
    uint32_t len = srp_message_piece(type, message, UINT32_MAX, start);
    len += len == 0;
    *start = '{'; /* instead of the first comma */
    start[len++] = '}';
    if (start == out) return len;
    if (len > cap) return 0;
    memcpy(out, scratch, len);
    return len;
}
