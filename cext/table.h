/* Hash tables of fixed size over memory that the caller owns. Keys arrive as 64-bit SipHash values under a secret key,
 * so nobody outside can aim at a bucket. */
#ifndef SRP_TABLE_H
#define SRP_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define SRP_NONE 0xffffffffu

/* Has a line of memory fetched that will be looked at soon. */
static inline void srp_fetch(const void *at) { __builtin_prefetch(at); }

/* The power of two at or above n, at least 1. */
static inline uint32_t srp_pow2(uint32_t n)
{
    uint32_t p = 1;
    while (p < n && p < 0x80000000u)
        p <<= 1;
    return p;
}

/* --- cells of tables with open addressing and linear probing: as many as wanted, not a power of two ------------------- */

/* For so many entries: at most three quarters full. */
static inline uint32_t srp_index_cells(uint32_t slots) { return slots + slots / 3u + 8u; }

/* 32 random bits to a place among count. */
static inline uint32_t srp_home(uint32_t bits, uint32_t count) { return (uint32_t)((uint64_t)bits * count >> 32); }
static inline uint32_t srp_after(uint32_t at, uint32_t count) { return at + 1u == count ? 0 : at + 1u; }
static inline uint32_t srp_steps_from(uint32_t from, uint32_t to, uint32_t count) { return to >= from ? to - from : to + count - from; }

/* --- index: hash -> slot ---------------------------------------------------------------------------------------------- */

typedef struct srp_index {
    uint64_t *cells; /* hash's high 32 bits in the high half, slot + 1 in the low half; 0 = empty */
    uint32_t count;
} srp_index;

static inline void srp_index_init(srp_index *ix, uint64_t *cells, uint32_t count)
{
    ix->cells = cells;
    ix->count = count;
}

static inline void srp_index_prefetch(const srp_index *ix, uint64_t hash)
{
    srp_fetch(&ix->cells[srp_home((uint32_t)(hash >> 32), ix->count)]);
}

/* Walks the slots whose tag equals the hash's: start with *at = SRP_NONE; SRP_NONE ends. The caller compares keys. */
static inline uint32_t srp_index_next(const srp_index *ix, uint64_t hash, uint32_t *at)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    uint32_t i = *at == SRP_NONE ? srp_home(tag, ix->count) : srp_after(*at, ix->count);
    for (;; i = srp_after(i, ix->count)) {
        uint64_t cell = ix->cells[i];
        if (cell == 0)
            return SRP_NONE;
        if ((uint32_t)(cell >> 32) == tag) {
            *at = i;
            return (uint32_t)cell - 1u;
        }
    }
}

static inline void srp_index_add(srp_index *ix, uint64_t hash, uint32_t slot)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    uint32_t i = srp_home(tag, ix->count);
    while (ix->cells[i] != 0)
        i = srp_after(i, ix->count);
    ix->cells[i] = (uint64_t)tag << 32 | (slot + 1u);
}

/* Removes the entry of this slot; nothing happens when it is not there. Later entries move up, no tombstones. */
static inline void srp_index_remove(srp_index *ix, uint64_t hash, uint32_t slot)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    uint64_t wanted = (uint64_t)tag << 32 | (slot + 1u);
    uint32_t hole = srp_home(tag, ix->count);
    while (ix->cells[hole] != wanted) {
        if (ix->cells[hole] == 0)
            return;
        hole = srp_after(hole, ix->count);
    }
    for (uint32_t i = srp_after(hole, ix->count); ix->cells[i] != 0; i = srp_after(i, ix->count)) {
        uint32_t home = srp_home((uint32_t)(ix->cells[i] >> 32), ix->count);
        if (srp_steps_from(home, i, ix->count) >= srp_steps_from(hole, i, ix->count)) {
            ix->cells[hole] = ix->cells[i];
            hole = i;
        }
    }
    ix->cells[hole] = 0;
}

/* --- recent: what was seen not long ago; four-way sets of one cache line, the one that expires first gives way ------ */

typedef struct srp_recent_cell {
    uint64_t key;        /* 0 = empty */
    uint32_t expires; /* monotonic time in steps of 64 ms, so that 32 bits last for years; compared by signed difference */
    uint32_t value;
} srp_recent_cell;

typedef struct srp_recent {
    srp_recent_cell *cells;
    uint32_t set_mask;
} srp_recent;

static inline uint32_t srp_recent_cells(uint32_t entries) { return srp_pow2(entries < 8u ? 8u : entries); }

static inline void srp_recent_init(srp_recent *t, srp_recent_cell *cells, uint32_t count)
{
    t->cells = cells;
    t->set_mask = count / 4u - 1u;
}

static inline void srp_recent_prefetch(const srp_recent *t, uint64_t key)
{
    __builtin_prefetch(&t->cells[((uint32_t)key & t->set_mask) * 4u]);
}

static inline srp_recent_cell *srp_recent_find(srp_recent *t, uint64_t key, int64_t now_ms)
{
    srp_recent_cell *set = &t->cells[((uint32_t)key & t->set_mask) * 4u];
    key |= 1u; /* never the empty mark; bit 0 only chooses the set */
    for (int i = 0; i < 4; i++)
        if (set[i].key == key && (int32_t)(set[i].expires - (uint32_t)(now_ms >> 6)) > 0)
            return &set[i];
    return NULL;
}

/* Enters a key that srp_recent_find did not see. Returns true when a live entry had to give way. */
static inline bool srp_recent_add(srp_recent *t, uint64_t key, int64_t now_ms, uint32_t ttl_ms, uint32_t value)
{
    srp_recent_cell *set = &t->cells[((uint32_t)key & t->set_mask) * 4u];
    srp_recent_cell *victim = &set[0];
    int32_t least = INT32_MAX;
    for (int i = 0; i < 4; i++) {
        int32_t left = set[i].key == 0 ? INT32_MIN : (int32_t)(set[i].expires - (uint32_t)(now_ms >> 6));
        if (left < least) {
            least = left;
            victim = &set[i];
        }
    }
    victim->key = key | 1u;
    victim->expires = (uint32_t)((now_ms + ttl_ms + 63) >> 6);
    victim->value = value;
    return least > 0;
}

/* --- meter: how much a key has used in the current window; the lightest user of a set gives way, the heavy stay ----- */

typedef struct srp_meter_cell {
    uint64_t key;
    uint32_t window;
    uint32_t used;
} srp_meter_cell;

typedef struct srp_meter {
    srp_meter_cell *cells;
    uint32_t set_mask;
} srp_meter;

static inline void srp_meter_init(srp_meter *t, srp_meter_cell *cells, uint32_t count)
{
    t->cells = cells;
    t->set_mask = count / 4u - 1u;
}

static inline void srp_meter_prefetch(const srp_meter *t, uint64_t key)
{
    __builtin_prefetch(&t->cells[((uint32_t)key & t->set_mask) * 4u]);
}

/* The minute that it is for somebody, by the 64ths of minutes that have passed: begun at one moment for all, quotas that are used up
 * would be renewed at one moment too, and a flood within them be a storm each minute. */
static inline uint32_t srp_window(uint32_t minute_64ths, uint32_t whose) { return (minute_64ths + (whose & 63u)) / 64u; }

/* Adds cost to the key's use in its minute and returns the sum. */
static inline uint32_t srp_meter_use(srp_meter *t, uint64_t key, uint32_t minute_64ths, uint32_t cost)
{
    srp_meter_cell *set = &t->cells[((uint32_t)key & t->set_mask) * 4u];
    srp_meter_cell *victim = &set[0];
    uint32_t least = UINT32_MAX;
    const uint32_t window = srp_window(minute_64ths, (uint32_t)(key >> 58));
    key |= 1u;
    for (int i = 0; i < 4; i++) {
        if (set[i].key == key) {
            victim = &set[i];
            if (victim->window == window)
                return victim->used += cost;
            break;
        }
        uint32_t use = set[i].window == srp_window(minute_64ths, (uint32_t)(set[i].key >> 58)) ? set[i].used : 0u;
        if (use < least) {
            least = use;
            victim = &set[i];
        }
    }
    victim->key = key;
    victim->window = window;
    return victim->used = cost;
}

/* --- tally: exact counts by a 32-bit key, for as many keys as there are peers ----------------------------------------- */

typedef struct srp_tally_cell { uint32_t key, count; } srp_tally_cell; /* count 0 = empty */

typedef struct srp_tally {
    srp_tally_cell *cells;
    uint32_t count;
    uint32_t secret; /* odd multiplier */
} srp_tally;

static inline uint32_t srp_tally_home(const srp_tally *t, uint32_t key)
{
    uint64_t h = (uint64_t)(key ^ (t->secret >> 7)) * 0x9e3779b97f4a7c15ull * (t->secret | 1u);
    return srp_home((uint32_t)(h >> 32), t->count);
}

static inline void srp_tally_init(srp_tally *t, srp_tally_cell *cells, uint32_t count, uint32_t secret)
{
    t->cells = cells;
    t->count = count;
    t->secret = secret;
}

static inline uint32_t srp_tally_get(const srp_tally *t, uint32_t key)
{
    for (uint32_t i = srp_tally_home(t, key);; i = srp_after(i, t->count)) {
        if (t->cells[i].count == 0)
            return 0;
        if (t->cells[i].key == key)
            return t->cells[i].count;
    }
}

static inline void srp_tally_add(srp_tally *t, uint32_t key)
{
    uint32_t i = srp_tally_home(t, key);
    while (t->cells[i].count != 0 && t->cells[i].key != key)
        i = srp_after(i, t->count);
    t->cells[i].key = key;
    t->cells[i].count++;
}

static inline void srp_tally_drop(srp_tally *t, uint32_t key)
{
    uint32_t hole = srp_tally_home(t, key);
    while (t->cells[hole].key != key || t->cells[hole].count == 0) {
        if (t->cells[hole].count == 0)
            return;
        hole = srp_after(hole, t->count);
    }
    if (--t->cells[hole].count != 0)
        return;
    for (uint32_t i = srp_after(hole, t->count); t->cells[i].count != 0; i = srp_after(i, t->count)) {
        uint32_t home = srp_tally_home(t, t->cells[i].key);
        if (srp_steps_from(home, i, t->count) >= srp_steps_from(hole, i, t->count)) {
            t->cells[hole] = t->cells[i];
            hole = i;
        }
    }
    t->cells[hole].count = 0;
}

#endif
