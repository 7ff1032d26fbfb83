/* Whether the tables of the core are consistent: every index, list, ring and array against the records themselves. For fuzz
 * targets and tests; slow, and allowed to allocate. Each function returns NULL, or what is wrong. */
#ifndef SRP_CHECK_H
#define SRP_CHECK_H

#define OPENSSL_API_COMPAT 10101 /* SHA-1 without EVP */
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include "peers.h"
#include "store.h"


static char srp_wrong[160];

#define SRP_CHECK(condition, ...)                                              \
    do {                                                                       \
        if (!(condition)) {                                                    \
            int at_ = snprintf(srp_wrong, sizeof srp_wrong, "%s: ", #condition); \
            if (at_ > 0 && (size_t)at_ < sizeof srp_wrong)                     \
                snprintf(srp_wrong + at_, sizeof srp_wrong - (size_t)at_, __VA_ARGS__); \
            free(seen);                                                        \
            return srp_wrong;                                                  \
        }                                                                      \
    } while (0)

/* The cells of an index: so many in use, each reachable from its home without a gap. */
static const char *srp_check_index(const srp_index *ix, uint32_t entries, const char *name)
{
    uint8_t *seen = NULL;
    uint32_t used = 0;
    for (uint32_t i = 0; i < ix->count; i++) {
        if (ix->cells[i] == 0)
            continue;
        used++;
        for (uint32_t at = srp_home((uint32_t)(ix->cells[i] >> 32), ix->count); at != i; at = srp_after(at, ix->count))
            SRP_CHECK(ix->cells[at] != 0, "%s: cell %u is cut off from its home", name, i);
    }
    SRP_CHECK(used == entries, "%s: %u cells for %u entries", name, used, entries);
    SRP_CHECK(used < ix->count && used * 4ull <= ix->count * 3ull, "%s: more than three quarters full", name);
    return NULL;
}

static const char *srp_check_tally(const srp_tally *t, const srp_peers *p, unsigned shift, uint32_t high)
{
    uint8_t *seen = NULL;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->cells[i].count == 0)
            continue;
        uint32_t peers = 0;
        for (uint32_t slot = 0; slot < high; slot++)
            peers += (p->peer[slot].flags & SRP_PEER_USED) && p->peer[slot].addr >> shift == t->cells[i].key;
        SRP_CHECK(peers == t->cells[i].count, "tally of %08x >> %u", t->cells[i].key, shift);
        SRP_CHECK(srp_tally_get(t, t->cells[i].key) == peers, "tally cannot find %08x", t->cells[i].key);
        sum += peers;
    }
    SRP_CHECK(sum == p->count, "tally of %u bits: %u of %u peers", 32u - shift, sum, p->count);
    return NULL;
}

static inline const char *srp_check_peers(const srp_peers *t)
{
    const char *wrong;
    uint32_t high, n, named = 0, live = 0, indexed = 0, members = 0, free_slots = 0;
    uint8_t *seen = calloc((size_t)t->capacity + t->member_capacity + t->cluster_capacity, 1);
    if (seen == NULL)
        return "out of memory";

    /* Records: used and free ones together are the first `high`. */
    for (uint32_t slot = t->next_free; slot != SRP_NONE; slot = t->peer[slot].due_next) {
        SRP_CHECK(slot < t->capacity && !seen[slot], "free list of peers at %u", slot);
        SRP_CHECK(t->peer[slot].flags == 0, "flags %u of the free slot %u", t->peer[slot].flags, slot);
        seen[slot] = 1;
        free_slots++;
    }
    high = t->count + free_slots;
    SRP_CHECK(high <= t->capacity, "%u peers and %u free slots", t->count, free_slots);
    for (uint32_t slot = 0; slot < high; slot++)
        SRP_CHECK(!seen[slot] == !!(t->peer[slot].flags & SRP_PEER_USED), "slot %u is neither used nor free", slot);
    for (uint32_t slot = high; slot < t->capacity; slot++)
        SRP_CHECK(t->peer[slot].flags == 0, "slot %u was never used", slot);

    for (uint32_t slot = 0; slot < high; slot++) {
        const srp_peer *p = &t->peer[slot];
        if (!(p->flags & SRP_PEER_USED))
            continue;
        SRP_CHECK(srp_peers_at(t, srp_endpoint_hash(t, p->addr, p->port), p->addr, p->port) == slot, "endpoint of %u", slot);
        if (p->flags & SRP_PEER_NAMED) {
            named++;
            SRP_CHECK(srp_peers_named(t, p->id) == slot, "name of %u", slot);
        }
        SRP_CHECK(!(p->flags & SRP_PEER_LIVE) == (p->live_at == SRP_NONE), "place of %u", slot);
        if (p->flags & SRP_PEER_LIVE) {
            const uint32_t *array = p->flags & SRP_PEER_INDEXED ? t->indexed : t->live;
            uint32_t count = p->flags & SRP_PEER_INDEXED ? t->indexed_count : t->live_count;
            SRP_CHECK(p->live_at < count && array[p->live_at] == slot, "place %u of %u", p->live_at, slot);
            if (p->flags & SRP_PEER_INDEXED)
                indexed++;
            else
                live++;
        }
        n = 0;
        for (uint32_t m = p->members; m != SRP_NONE; m = t->member[m].peer_next) {
            SRP_CHECK(m < t->member_capacity && !seen[t->capacity + m], "memberships of %u", slot);
            seen[t->capacity + m] = 1;
            SRP_CHECK(t->member[m].peer == slot, "membership %u is %u's, not %u's", m, t->member[m].peer, slot);
            SRP_CHECK(t->member[m].cluster < t->cluster_capacity, "cluster of membership %u", m);
            n++;
        }
        SRP_CHECK(n <= SRP_MEMBERSHIPS_MAX, "%u memberships of %u", n, slot);
        members += n;
    }
    SRP_CHECK(members == t->member_count, "%u memberships counted as %u", members, t->member_count);
    SRP_CHECK(live == t->live_count, "%u live peers counted as %u", live, t->live_count);
    SRP_CHECK(indexed == t->indexed_count && indexed <= t->indexed_capacity, "%u indexed counted as %u", indexed, t->indexed_count);

    if ((wrong = srp_check_index(&t->by_endpoint, t->count, "by_endpoint")) != NULL ||
        (wrong = srp_check_index(&t->by_id, named, "by_id")) != NULL ||
        (wrong = srp_check_index(&t->by_cluster, t->cluster_count, "by_cluster")) != NULL ||
        (wrong = srp_check_tally(&t->addresses, t, 0, high)) != NULL ||
        (wrong = srp_check_tally(&t->prefixes, t, 8, high)) != NULL) {
        free(seen);
        return wrong;
    }

    /* Order of heartbeats. */
    n = 0;
    uint32_t before = SRP_NONE;
    for (uint32_t slot = t->due_first; slot != SRP_NONE; before = slot, slot = t->peer[slot].due_next) {
        SRP_CHECK(slot < high && (t->peer[slot].flags & SRP_PEER_USED), "order of heartbeats at %u", slot);
        SRP_CHECK(t->peer[slot].due_prev == before, "order of heartbeats, back from %u", slot);
        SRP_CHECK(before == SRP_NONE || t->peer[before].due_us <= t->peer[slot].due_us, "%u is due before %u", slot, before);
        SRP_CHECK(++n <= t->count, "order of heartbeats: %u of %u peers", n, t->count);
    }
    SRP_CHECK(n == t->count && t->due_last == before, "order of heartbeats: %u of %u peers", n, t->count);

    /* Memberships that are free, and the rings of the clusters. */
    n = 0;
    for (uint32_t m = t->member_free; m != SRP_NONE; m = t->member[m].peer_next) {
        SRP_CHECK(m < t->member_capacity && !seen[t->capacity + m], "free list of memberships at %u", m);
        seen[t->capacity + m] = 1;
        n++;
    }
    for (uint32_t m = 0; m < t->member_capacity; m++)
        SRP_CHECK(seen[t->capacity + m] == (m < members + n), "membership %u is neither used nor free", m);
    uint8_t *cluster_seen = seen + t->capacity + t->member_capacity;
    n = 0;
    for (uint32_t c = t->cluster_free; c != SRP_NONE; c = t->cluster[c].next_free) {
        SRP_CHECK(c < t->cluster_capacity && !cluster_seen[c], "free list of clusters at %u", c);
        cluster_seen[c] = 1;
        n++;
    }
    uint32_t in_rings = 0;
    for (uint32_t c = 0; c < t->cluster_count + n; c++) {
        const srp_cluster *x = &t->cluster[c];
        if (cluster_seen[c])
            continue;
        SRP_CHECK(srp_cluster_find(t, x->key) == c, "key of cluster %u", c);
        SRP_CHECK(x->members != 0 || x->packets != 0, "cluster %u holds nothing", c);
        SRP_CHECK(!x->members == (x->ring == SRP_NONE), "ring of cluster %u", c);
        uint32_t m = x->ring;
        for (uint32_t i = 0; i < x->members; i++, m = t->member[m].ring_next) {
            SRP_CHECK(m < t->member_capacity && t->member[m].cluster == c, "ring of cluster %u", c);
            SRP_CHECK(t->member[t->member[m].ring_next].ring_prev == m, "ring of cluster %u", c);
            SRP_CHECK(srp_peers_is_member(t, t->member[m].peer, c), "ring of cluster %u has %u", c, t->member[m].peer);
        }
        SRP_CHECK(m == x->ring, "ring of cluster %u is not closed", c);
        in_rings += x->members;
    }
    SRP_CHECK(in_rings == t->member_count, "%u memberships in rings, of %u", in_rings, t->member_count);
    free(seen);
    return NULL;
}

static inline uint32_t srp_check_digit(const uint8_t *id, unsigned i) { return i % 2u ? id[i / 2u] & 15u : id[i / 2u] >> 4; }

static inline int srp_check_order(const void *a, const void *b) { return memcmp(*(uint8_t *const *)a, *(uint8_t *const *)b, 32); }

/* SHA-1 of the sorted ids from .. end as text. */
static inline void srp_check_bucket(uint8_t **from, uint8_t **end, uint8_t out[20])
{
    SHA_CTX sha;
    SHA1_Init(&sha);
    for (; from < end; from++) {
        char text[64];
        srp_hex(*from, 32, text);
        SHA1_Update(&sha, text, sizeof text);
    }
    SHA1_Final(out, &sha);
}

static inline const char *srp_check_store(const srp_store *s)
{
    const srp_peers *t = s->clusters;
    uint32_t n = 0, blocks = 0, before = SRP_NONE, listed = 0;
    uint64_t bytes = 0;
    uint8_t *seen = calloc(1, (size_t)s->entries + s->blocks + 32u + sizeof(uint8_t *) * ((size_t)s->entries + 1u));
    if (seen == NULL)
        return "out of memory";
    uint8_t *block_seen = seen + s->entries;
    uint8_t **sorted = (uint8_t **)(void *)(block_seen + s->blocks + 16u - (uintptr_t)(block_seen + s->blocks) % 16u);

    uint32_t new_blocks = 0, first_new = SRP_NONE;

    /* By arrival, and the blocks of each. */
    for (uint32_t e = s->oldest; e != SRP_NONE; before = e, e = s->entry[e].newer) {
        const srp_entry *x = &s->entry[e];
        SRP_CHECK(e < s->entries && !seen[e], "order of arrival at %u", e);
        seen[e] = 1;
        SRP_CHECK(x->older == before, "order of arrival, back from %u", e);
        SRP_CHECK(before == SRP_NONE || (int32_t)(x->serial - s->entry[before].serial) > 0, "serial of %u", e);
        SRP_CHECK(srp_store_find(s, x->id) == e, "id of %u", e);
        uint32_t b = x->block;
        for (uint32_t done = 0; done < x->size; done += SRP_BLOCK, b = s->block_next[b]) {
            SRP_CHECK(b < s->blocks && !block_seen[b], "blocks of %u", e);
            block_seen[b] = 1;
            blocks++;
        }
        SRP_CHECK(b == SRP_NONE, "too many blocks of %u", e);
        SRP_CHECK(x->size != 0, "entry %u is empty", e);
        SRP_CHECK(x->kind == (first_new != SRP_NONE || e == s->first_new ? SRP_NEW : SRP_OLD), "kind of %u", e);
        if (x->kind == SRP_NEW) {
            first_new = first_new == SRP_NONE ? e : first_new;
            new_blocks += (x->size + SRP_BLOCK - 1u) / SRP_BLOCK;
        }
        bytes += x->size;
        sorted[n++] = (uint8_t *)(uintptr_t)x->id;
    }
    SRP_CHECK(n == s->held && s->newest == before, "%u packets counted as %u", n, s->held);
    SRP_CHECK(first_new == s->first_new, "the newest packets begin at %u, not %u", first_new, s->first_new);
    SRP_CHECK(new_blocks == s->new_blocks && new_blocks <= s->new_blocks_max, "%u blocks of the newest counted as %u", new_blocks, s->new_blocks);
    const uint32_t held = n;
    before = SRP_NONE;
    for (uint32_t e = s->seen_oldest; e != SRP_NONE; before = e, e = s->entry[e].newer) {
        const srp_entry *x = &s->entry[e];
        SRP_CHECK(e < s->entries && !seen[e], "order of ids at %u", e);
        seen[e] = 1;
        SRP_CHECK(x->older == before && x->kind == SRP_SEEN, "order of ids, back from %u", e);
        SRP_CHECK(x->size == 0 && x->block == SRP_NONE && x->cluster == SRP_NONE, "id %u has a packet", e);
        SRP_CHECK(srp_store_find(s, x->id) == e, "id of %u", e);
        sorted[n++] = (uint8_t *)(uintptr_t)x->id;
    }
    SRP_CHECK(n == s->count && s->seen_newest == before, "%u entries counted as %u", n, s->count);
    SRP_CHECK(bytes == s->bytes, "%llu bytes counted as %llu", (unsigned long long)bytes, (unsigned long long)s->bytes);
    SRP_CHECK(blocks == s->blocks_used, "%u blocks counted as %u", blocks, s->blocks_used);
    uint32_t free_entries = 0, free_blocks = 0;
    for (uint32_t e = s->next_free; e != SRP_NONE; e = s->entry[e].chain_next) {
        SRP_CHECK(e < s->entries && !seen[e], "free list of entries at %u", e);
        seen[e] = 1;
        free_entries++;
    }
    for (uint32_t e = 0; e < s->entries; e++)
        SRP_CHECK(seen[e] == (e < n + free_entries), "entry %u is neither used nor free", e);
    for (uint32_t b = s->block_free; b != SRP_NONE; b = s->block_next[b]) {
        SRP_CHECK(b < s->blocks && !block_seen[b], "free list of blocks at %u", b);
        block_seen[b] = 1;
        free_blocks++;
    }
    for (uint32_t b = 0; b < s->blocks; b++)
        SRP_CHECK(block_seen[b] == (b < blocks + free_blocks), "block %u is neither used nor free", b);

    /* By id, by second of expiry, by cluster. */
    uint32_t in_chains = 0, in_wheel = 0;
    for (uint32_t c = 0; c < 1u << s->bits; c++) {
        uint32_t length = 0;
        for (uint32_t e = s->chain[c]; e != SRP_NONE; e = s->entry[e].chain_next) {
            const uint8_t *id = s->entry[e].id;
            uint32_t first = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];
            SRP_CHECK(first >> (32u - s->bits) == c, "entry %u in the chain of others", e);
            SRP_CHECK(++length <= SRP_CHAIN_MAX, "chain %u is too long", c);
            uint32_t next = s->entry[e].chain_next;
            SRP_CHECK(next == SRP_NONE || memcmp(id, s->entry[next].id, 32) < 0, "order of chain %u", c);
        }
        in_chains += length;
    }
    SRP_CHECK(in_chains == n, "%u of %u entries in chains", in_chains, n);
    for (uint32_t w = 0; w < s->wheel_size; w++) {
        before = SRP_NONE;
        for (uint32_t e = s->wheel[w]; e != SRP_NONE; before = e, e = s->entry[e].wheel_next) {
            SRP_CHECK(s->entry[e].expires_s % s->wheel_size == w, "entry %u in the wrong second", e);
            SRP_CHECK((int32_t)(s->entry[e].expires_s - s->wheel_at_s) >= 0, "entry %u was passed over", e);
            SRP_CHECK(s->entry[e].wheel_prev == before, "wheel, back from %u", e);
            SRP_CHECK(++in_wheel <= n, "wheel at %u", e);
        }
    }
    SRP_CHECK(in_wheel == n, "%u of %u entries on the wheel", in_wheel, n);
    for (uint32_t c = 0; c < t->cluster_capacity; c++) {
        const srp_cluster *x = &t->cluster[c];
        if (x->packets == 0)
            continue;
        SRP_CHECK(srp_cluster_find(t, x->key) == c, "cluster %u has packets, and is not used", c);
        uint32_t length = 0;
        before = SRP_NONE;
        for (uint32_t e = x->oldest; e != SRP_NONE; before = e, e = s->entry[e].cluster_newer) {
            SRP_CHECK(s->entry[e].cluster == c && s->entry[e].cluster_older == before, "packets of cluster %u at %u", c, e);
            SRP_CHECK(++length <= x->packets, "packets of cluster %u", c);
        }
        SRP_CHECK(length == x->packets && x->newest == before, "%u of %u packets of cluster %u", length, x->packets, c);
        listed += length;
    }
    for (uint32_t e = s->oldest; e != SRP_NONE; e = s->entry[e].newer)
        listed += s->entry[e].cluster == SRP_NONE;
    SRP_CHECK(listed == held, "%u of %u packets listed by cluster", listed, held);

    /* The bucket hashes that count as known. */
    qsort(sorted, n, sizeof *sorted, srp_check_order);
    for (unsigned level = 0; level < s->levels; level++) {
        uint32_t first = 0, end;
        for (uint32_t at = 0; at < 1u << 4u * (level + 1u); at++, first = end) {
            for (end = first; end < n; end++) {
                uint32_t prefix = 0;
                for (unsigned i = 0; i <= level; i++)
                    prefix = prefix << 4 | srp_check_digit(sorted[end], i);
                if (prefix != at)
                    break;
            }
            const srp_bucket *h = &s->level[level][at];
            uint8_t digest[20];
            uint32_t old = 0;
            for (uint32_t i = first; i < end; i++)
                old += ((const srp_entry *)(const void *)(sorted[i] - offsetof(srp_entry, id)))->kind == SRP_OLD;
            SRP_CHECK(h->count == end - first && h->old == old, "count of bucket %x of level %u", at, level);
            if (h->state == 0)
                continue;
            SRP_CHECK(h->state == (first == end ? 1 : 2), "bucket %x of level %u", at, level);
            srp_check_bucket(sorted + first, sorted + end, digest);
            SRP_CHECK(first == end || memcmp(digest, h->hash, 20) == 0, "hash %x of level %u", at, level);
        }
    }
    if (!s->top_dirty && !s->refreshing) {
        SHA_CTX sha;
        uint8_t digest[20];
        SHA1_Init(&sha);
        for (uint32_t i = 0, first = 0, end; i < 16; i++, first = end) {
            char text[40];
            for (end = first; end < n && srp_check_digit(sorted[end], 0) == i; end++)
                ;
            srp_check_bucket(sorted + first, sorted + end, digest);
            srp_hex(digest, 20, text);
            if (first != end)
                SHA1_Update(&sha, text, sizeof text);
        }
        SHA1_Final(digest, &sha);
        SRP_CHECK(memcmp(digest, s->top, 20) == 0, "summary of %u entries", n);
    }
    free(seen);
    return NULL;
}

#endif
