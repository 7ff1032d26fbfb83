/* The hash tables, fed with any sequence of operations, agree with a plain list of what they were told: the index finds each
 * entry and no other, a gate forgets nothing that is due to be remembered unless it says so, a meter never counts too much
 * and keeps the heaviest of a set, a tally counts exactly. */
#include <stdlib.h>
#include <string.h>

#include "table.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

enum { SLOTS = 24, KEYS = 64, ENTRIES = 16, ADDRESSES = 12 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Few different hashes, so that they collide: 3 bits of tag, spread as SipHash would or all in one place. */
static uint64_t hash_of(uint8_t key) { return (uint64_t)(key & 7u) << 32 | (uint64_t)(key & 0x38u) << 58 | key; }

static void index_with(const uint8_t *data, size_t len)
{
    uint64_t cells[SLOTS + SLOTS / 3 + 8];
    const uint32_t count = sizeof cells / sizeof *cells;
    uint64_t held[SLOTS] = {0};
    bool used[SLOTS] = {false};
    srp_index ix;
    memset(cells, 0, sizeof cells);
    CHECK(srp_index_cells(SLOTS) == count);
    srp_index_init(&ix, cells, count);
    for (size_t i = 0; i + 1 < len; i += 2) {
        const uint32_t slot = data[i] % SLOTS;
        const uint64_t hash = hash_of(data[i + 1]);
        if (!used[slot]) {
            srp_index_add(&ix, hash, slot);
            held[slot] = hash;
            used[slot] = true;
        } else if (data[i + 1] & 0x40) {
            srp_index_remove(&ix, held[slot], slot);
            used[slot] = false;
        } else {
            srp_index_remove(&ix, held[slot] + (1ull << 40), slot); /* not there: nothing happens */
        }
        for (uint32_t other = 0; other < SLOTS; other++) {
            uint32_t at = SRP_NONE, found, times = 0;
            while ((found = srp_index_next(&ix, held[other], &at)) != SRP_NONE) {
                CHECK(found < SLOTS && used[found] && held[found] >> 32 == held[other] >> 32);
                times += found == other;
            }
            CHECK(times == (used[other] ? 1u : 0u));
        }
    }
}

static void recent_with(const uint8_t *data, size_t len)
{
    srp_recent_cell cells[ENTRIES];
    int64_t until[KEYS] = {0}, now_ms = (int64_t)1 << 40;
    bool evicted[KEYS] = {false}; /* may be gone before its time */
    unsigned jumps = 20;          /* of up to seven weeks: three years in all, of the four that the clock can tell apart */
    srp_recent t;
    memset(cells, 0, sizeof cells);
    CHECK(srp_recent_cells(ENTRIES) == ENTRIES);
    srp_recent_init(&t, cells, ENTRIES);
    for (size_t i = 0; i + 2 < len; i += 3) {
        const uint32_t which = data[i] % KEYS;
        const uint64_t key = (uint64_t)which * 0x9e3779b97f4a7c15ull;
        const uint32_t ttl_ms = 61u * data[i + 1];
        if (data[i + 2] == 255 && jumps > 0) {
            now_ms += (int64_t)1 << (data[i + 1] % 33);
            jumps--;
        } else {
            now_ms += 59 * (data[i + 2] % 8);
        }
        srp_recent_cell *cell = srp_recent_find(&t, key, now_ms);
        if (cell != NULL) {
            CHECK(now_ms < until[which] + 64 && cell->value == which);
            continue;
        }
        CHECK(now_ms >= until[which] || evicted[which]);
        if (srp_recent_add(&t, key, now_ms, ttl_ms, which)) { /* somebody of the same set gave way */
            for (uint32_t other = 0; other < KEYS; other++)
                evicted[other] |= (((uint64_t)other * 0x9e3779b97f4a7c15ull ^ key) & t.set_mask) == 0;
        }
        until[which] = now_ms + ttl_ms;
        evicted[which] = false;
        CHECK(ttl_ms == 0 || srp_recent_find(&t, key, now_ms) != NULL);
        CHECK(srp_recent_find(&t, key, now_ms + ttl_ms + 64) == NULL);
    }
}

static void meter_with(const uint8_t *data, size_t len)
{
    srp_meter_cell cells[ENTRIES];
    uint32_t used[KEYS] = {0}, at = 7 * 64;
    srp_meter t;
    memset(cells, 0, sizeof cells);
    srp_meter_init(&t, cells, ENTRIES);
    for (size_t i = 0; i + 1 < len; i += 2) {
        const uint32_t which = data[i] % KEYS, cost = data[i + 1] & 63u;
        const uint64_t key = (uint64_t)which * 0x9e3779b97f4a7c15ull;
        if (data[i + 1] == 255) {
            at += 64;
            memset(used, 0, sizeof used);
        }
        uint32_t heaviest = 0, heavy_key = 0; /* of the set, among the others */
        for (uint32_t k = 0; k < KEYS; k++)
            if (k != which && (((uint64_t)k * 0x9e3779b97f4a7c15ull ^ key) & t.set_mask) == 0 && used[k] > heaviest) {
                heaviest = used[k];
                heavy_key = k;
            }
        used[which] += cost;
        const uint32_t sum = srp_meter_use(&t, key, at, cost);
        CHECK(sum <= used[which] && sum >= cost);
        if (sum < used[which]) used[which] = sum; /* it had given way to others */
        if (heaviest > 0) {
            srp_meter again = t;
            srp_meter_cell copy[ENTRIES];
            memcpy(copy, cells, sizeof cells);
            again.cells = copy;
            const uint32_t still = srp_meter_use(&again, (uint64_t)heavy_key * 0x9e3779b97f4a7c15ull, at, 0);
            CHECK(still <= used[heavy_key]);
            used[heavy_key] = still; /* what it gave up */
        }
    }
    /* One that is far heavier than all others keeps its count whatever they do. */
    memset(cells, 0, sizeof cells);
    srp_meter_use(&t, 0x1000, at, 1000000);
    for (size_t i = 0; i < len; i++) srp_meter_use(&t, (uint64_t)data[i] << 4, at, 1);
    CHECK(srp_meter_use(&t, 0x1000, at, 0) >= 1000000);
}

static void tally_with(const uint8_t *data, size_t len)
{
    srp_tally_cell cells[32];
    uint32_t held[ADDRESSES] = {0};
    srp_tally t;
    memset(cells, 0, sizeof cells);
    srp_tally_init(&t, cells, 32, len ? data[0] * 0x01010101u : 0);
    for (size_t i = 0; i < len; i++) {
        const uint32_t which = data[i] % ADDRESSES;
        if (data[i] & 0x80) {
            srp_tally_drop(&t, which); /* also when it is not there */
            if (held[which]) held[which]--;
        } else {
            srp_tally_add(&t, which);
            held[which]++;
        }
        for (uint32_t k = 0; k < ADDRESSES; k++) CHECK(srp_tally_get(&t, k) == held[k]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 2) return 0;
    switch (data[0] & 3) {
    case 0: index_with(data + 1, len - 1); break;
    case 1: recent_with(data + 1, len - 1); break;
    case 2: meter_with(data + 1, len - 1); break;
    default: tally_with(data + 1, len - 1); break;
    }
    return 0;
}
