/* After any sequence of insertions, removals, time and questions the store is consistent (check.h), returns the bytes it was
 * given, and answers questions about prefixes as a plain search over all its packets does. Summaries survive their wire
 * form, and whatever bytes come as a summary are refused or read within their bounds. */
#include <stdlib.h>

#include "check.h"

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

enum { CLUSTERS = 6, SIZE_MAX_BYTES = 1421, KEPT = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

typedef struct world {
    srp_peers peers;
    srp_store store;
    uint32_t now_s;
    uint32_t age; /* counts insertions: what a packet's bytes are made of */
} world;

static void consistent(const world *w)
{
    const char *wrong = srp_check_store(&w->store);
    if (wrong == NULL) wrong = srp_check_peers(&w->peers);
    if (wrong != NULL) {
        fprintf(stderr, "%s\n", wrong);
        abort();
    }
}

/* Ids that share their first digits more often than not. */
static void id_of(uint8_t a, uint8_t b, uint8_t id[32])
{
    memset(id, a & 0x80 ? 0xab : 0, 32);
    id[0] = a & 0x80 ? 0xab : (uint8_t)(b * 37u);
    id[1] = (uint8_t)(a & 0x40 ? b : 0xcd);
    id[2] = (uint8_t)(a & 0x20 ? b : 0xef);
    id[31] = (uint8_t)(a & 0x1f);
    id[30] = (uint8_t)(b & 7u);
}

static uint8_t byte_of(const uint8_t id[32], uint32_t i) { return (uint8_t)(id[i % 32u] + i * 7u); }

static void check_bytes(const world *w, uint32_t e)
{
    uint8_t out[SIZE_MAX_BYTES];
    const uint32_t size = srp_store_copy(&w->store, e, out);
    CHECK(size == w->store.entry[e].size);
    for (uint32_t i = 0; i < size; i++) CHECK(out[i] == byte_of(w->store.entry[e].id, i));
}

static void take_out(world *w, uint32_t e)
{
    check_bytes(w, e);
    srp_store_remove(&w->store, e);
}

static void give_way(world *w, uint32_t e)
{
    uint8_t id[32];
    memcpy(id, w->store.entry[e].id, 32);
    check_bytes(w, e);
    srp_store_forget(&w->store, e);
    CHECK(srp_store_find(&w->store, id) == e && !srp_store_holds(&w->store, e));
}

/* Nothing old that is kept is farther than what gives way, but for those of other clusters. */
static void check_farthest(const world *w, uint32_t victim)
{
    const srp_store *s = &w->store;
    const unsigned digits = s->bits / 4u; /* beyond them four are looked at */
    uint8_t mine[32], theirs[32];
    if (s->entry[victim].kind != SRP_OLD) return;
    for (uint32_t e = s->oldest; e != SRP_NONE && s->entry[e].kind == SRP_OLD; e = s->entry[e].newer) {
        for (unsigned i = 0; i < 32; i++) {
            mine[i] = s->entry[victim].id[i] ^ s->own_id[i];
            theirs[i] = s->entry[e].id[i] ^ s->own_id[i];
        }
        for (unsigned d = 0; d + 1u < digits; d++) {
            const int a = (int)srp_check_digit(mine, d), b = (int)srp_check_digit(theirs, d);
            CHECK(a >= b);
            if (a != b) break;
        }
    }
}

static void put(world *w, const uint8_t id[32], uint16_t size, uint8_t hops, uint32_t ttl_s)
{
    uint8_t bytes[SIZE_MAX_BYTES];
    bool chain_full;
    uint32_t cluster = SRP_NONE, victim;
    if (srp_store_find(&w->store, id) != SRP_NONE) return;
    for (uint32_t i = 0; i < size; i++) bytes[i] = byte_of(id, i);
    while ((victim = srp_store_victim(&w->store, id, size, &chain_full)) != SRP_NONE) {
        if (!chain_full) check_farthest(w, victim);
        if (hops & 1)
            give_way(w, victim);
        else
            take_out(w, victim);
    }
    if (hops % 3 != 0) {
        const uint8_t text[1] = {hops};
        cluster = srp_cluster_get(&w->peers, srp_cluster_key(&w->peers, text, 1, NULL, 0), text, 1);
    }
    const uint32_t e = srp_store_insert(&w->store, id, bytes, size, hops, cluster, w->now_s + ttl_s);
    CHECK(srp_store_find(&w->store, id) == e);
    check_bytes(w, e);
}

static bool below(const uint8_t id[32], const srp_prefix_digits *p)
{
    for (unsigned i = 0; i < p->len; i++)
        if (srp_check_digit(id, i) != p->digit[i]) return false;
    return true;
}

/* All questions about one prefix, against a search over everything. */
static void ask(world *w, const srp_prefix_digits *p, const uint8_t id[32], bool after)
{
    const srp_store *s = &w->store;
    uint32_t first = SRP_NONE, count = 0;
    uint8_t *sorted[KEPT], bucket[16][20], hash[20], out[2 + 32 + 20 + 16 * 21];
    for (uint32_t e = 0; e < s->entries; e++) {
        if (s->entry[e].kind == 0 || !below(s->entry[e].id, p)) continue;
        CHECK(count < KEPT);
        sorted[count++] = w->store.entry[e].id;
        const int order = memcmp(s->entry[e].id, id, 32);
        if (order < 0 || (after && order == 0)) continue;
        if (first == SRP_NONE || memcmp(s->entry[e].id, s->entry[first].id, 32) < 0) first = e;
    }
    CHECK(srp_store_below(s, p) == count);
    if (below(id, p)) CHECK(srp_store_from(s, p, id, after) == first);
    const uint32_t least = srp_store_from(s, p, NULL, false);
    qsort(sorted, count, sizeof *sorted, srp_check_order);
    CHECK(count == 0 ? least == SRP_NONE : w->store.entry[least].id == sorted[0]);

    /* Of the empty prefix the summary may lag: it is brought up to date first. */
    while (p->len == 0 && !srp_store_refresh(&w->store, 3)) {}
    uint32_t work = 0;
    const uint32_t mask = srp_store_summary(&w->store, p, bucket, hash, &work);
    if (p->len >= 64) {
        CHECK(mask == 0);
        return;
    }
    CHECK(work <= count + 16u);
    for (uint32_t digit = 0, from = 0, end; digit < 16; digit++, from = end) {
        uint8_t expected[20];
        for (end = from; end < count && srp_check_digit(sorted[end], p->len) == digit; end++) {}
        CHECK((mask >> digit & 1u) == (from != end));
        srp_check_bucket(sorted + from, sorted + end, expected);
        CHECK(from == end || memcmp(expected, bucket[digit], 20) == 0);
    }
    const uint32_t size = srp_summary_encode(p, hash, mask, (const uint8_t(*)[20])bucket, out);
    srp_prefix_digits read;
    uint8_t read_hash[20], read_bucket[16][20];
    uint32_t read_mask;
    CHECK(size <= sizeof out && srp_summary_decode(out, size, &read, read_hash, &read_mask, read_bucket) == 0);
    CHECK(read.len == p->len && memcmp(read.digit, p->digit, p->len) == 0 && read_mask == mask);
    CHECK(memcmp(read_hash, hash, 20) == 0);
    for (unsigned i = 0; i < 16; i++) CHECK(!(mask >> i & 1u) || memcmp(bucket[i], read_bucket[i], 20) == 0);
    CHECK(srp_summary_decode(out, size - 1, &read, read_hash, &read_mask, read_bucket) == -1);
}

static void any_summary(const uint8_t *data, size_t len)
{
    srp_prefix_digits p;
    uint8_t hash[20], bucket[16][20];
    uint32_t mask;
    uint8_t *exact = malloc(len + 1); /* so that a byte too far is seen */
    CHECK(exact != NULL);
    memcpy(exact, data, len);
    if (srp_summary_decode(exact, (uint32_t)len, &p, hash, &mask, bucket) == 0) {
        CHECK(p.len <= 64 && mask <= 0xffff);
        for (unsigned i = 0; i < p.len; i++) CHECK(p.digit[i] < 16);
    }
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 8) return 0;
    any_summary(data, len > 500 ? 500 : len);
    world w;
    const srp_sip_key key = {1, 2};
    const uint64_t max_bytes = data[0] & 1 ? 16384 : data[0] & 2 ? 70000 : 1100000;
    void *peers = calloc(1, srp_peers_bytes(8, 1, CLUSTERS)), *memory = calloc(1, srp_store_bytes(max_bytes));
    CHECK(peers != NULL && memory != NULL);
    memset(&w, 0, sizeof w);
    w.now_s = 1000;
    srp_peers_init(&w.peers, peers, 8, 1, CLUSTERS, key);
    const uint8_t own_id[32] = {data[0], (uint8_t)(data[0] * 3u), 0xcd};
    srp_store_init(&w.store, memory, max_bytes, &w.peers, own_id, (int64_t)w.now_s * 1000000);
    consistent(&w);
    unsigned since = 0;
    for (size_t i = 1; i + 3 < len; i += 4) {
        const uint8_t op = data[i] % 8, a = data[i + 1], b = data[i + 2], c = data[i + 3];
        uint8_t id[32];
        id_of(a, b, id);
        if (op <= 3) {
            put(&w, id, (uint16_t)(1u + (c * 41u + a) % SIZE_MAX_BYTES), c % 20, op == 3 ? c * 1000u : c % 90u);
        } else if (op == 4) {
            const uint32_t e = srp_store_find(&w.store, id);
            if (e != SRP_NONE && (c & 1) && srp_store_holds(&w.store, e))
                give_way(&w, e);
            else if (e != SRP_NONE)
                take_out(&w, e);
        } else if (op == 5) {
            bool more = true;
            w.now_s += c == 255 ? 100000u : c % 40u;
            for (unsigned steps = 0; more && steps < 100000; steps++) {
                const uint32_t e = srp_store_expired(&w.store, w.now_s, &more);
                if (e == SRP_NONE) continue;
                CHECK((int32_t)(w.store.entry[e].expires_s - w.now_s) <= 0);
                take_out(&w, e);
            }
            CHECK(!more);
            for (uint32_t e = w.store.oldest; e != SRP_NONE; e = w.store.entry[e].newer)
                CHECK((int32_t)(w.store.entry[e].expires_s - w.now_s) > 0);
        } else if (op == 6) {
            srp_store_refresh(&w.store, c % 4u);
        } else {
            srp_prefix_digits p;
            p.len = (uint8_t)(c % 66u > 64u ? 64u : c & 0x40 ? c % 66u : c % 5u);
            for (unsigned d = 0; d < p.len; d++) p.digit[d] = (uint8_t)srp_check_digit(id, d);
            ask(&w, &p, id, data[i] & 0x80);
        }
        if (max_bytes < 1000000 || ++since % 16 == 0) consistent(&w);
    }
    while (w.store.oldest != SRP_NONE) take_out(&w, w.store.oldest);
    while (w.store.seen_oldest != SRP_NONE) take_out(&w, w.store.seen_oldest);
    consistent(&w);
    CHECK(w.store.count == 0 && w.store.bytes == 0 && w.store.blocks_used == 0 && w.peers.cluster_count == 0);
    while (!srp_store_refresh(&w.store, 64)) {}
    static const uint8_t empty[20] = {0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55,
                                      0xbf, 0xef, 0x95, 0x60, 0x18, 0x90, 0xaf, 0xd8, 0x07, 0x09};
    CHECK(memcmp(w.store.top, empty, 20) == 0);
    free(memory);
    free(peers);
    return 0;
}
