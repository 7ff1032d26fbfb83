#include "peers.h"

_Static_assert(sizeof(srp_peer) == 192, "three cache lines");

static size_t align64(size_t n) { return (n + 63u) & ~(size_t)63u; }

static uint32_t members_for(uint32_t capacity) { return capacity / 2u * 5u + 16u; }

size_t srp_peers_bytes(uint32_t capacity, uint32_t indexed, uint32_t clusters)
{
    uint32_t slots = capacity + indexed;
    return align64(sizeof(srp_peer) * slots) + 2 * align64(8u * (size_t)srp_index_cells(slots)) +
           align64(8u * (size_t)srp_index_cells(clusters)) + align64(4u * (size_t)slots) + align64(4u * (size_t)indexed + 4u) +
           align64(sizeof(srp_member) * members_for(slots)) + align64(sizeof(srp_cluster) * clusters) +
           2 * align64(sizeof(srp_tally_cell) * (size_t)srp_index_cells(slots));
}

static void *take(char **at, size_t bytes)
{
    void *here = *at;
    *at += align64(bytes);
    return here;
}

void srp_peers_init(srp_peers *t, void *memory, uint32_t capacity, uint32_t indexed, uint32_t clusters, srp_sip_key key)
{
    char *at = memory;
    uint32_t slots = capacity + indexed;
    uint32_t cells = srp_index_cells(slots);
    memset(t, 0, sizeof *t);
    t->key = key;
    t->capacity = slots;
    t->indexed_capacity = indexed;
    t->peer = take(&at, sizeof(srp_peer) * slots);
    srp_index_init(&t->by_endpoint, take(&at, 8u * (size_t)cells), cells);
    srp_index_init(&t->by_id, take(&at, 8u * (size_t)cells), cells);
    uint32_t cluster_cells = srp_index_cells(clusters);
    srp_index_init(&t->by_cluster, take(&at, 8u * (size_t)cluster_cells), cluster_cells);
    t->live = take(&at, 4u * (size_t)slots);
    t->indexed = take(&at, 4u * (size_t)indexed + 4u);
    t->member_capacity = members_for(slots);
    t->member = take(&at, sizeof(srp_member) * t->member_capacity);
    t->cluster_capacity = clusters;
    t->cluster = take(&at, sizeof(srp_cluster) * clusters);
    srp_tally_init(&t->addresses, take(&at, sizeof(srp_tally_cell) * (size_t)cells), cells, (uint32_t)key.k0);
    srp_tally_init(&t->prefixes, take(&at, sizeof(srp_tally_cell) * (size_t)cells), cells, (uint32_t)key.k1);
    /* Free lists are threaded as slots are first used: next_free = SRP_NONE means "take slot number `count`". */
    t->next_free = t->member_free = t->cluster_free = SRP_NONE;
    t->due_first = t->due_last = SRP_NONE;
}

/* --- finding ------------------------------------------------------------------------------------------------------- */

uint64_t srp_endpoint_hash(const srp_peers *t, uint32_t addr, uint16_t port)
{
    return srp_sip_word(&t->key, (uint64_t)addr << 16 | port);
}

uint32_t srp_peers_at(const srp_peers *t, uint64_t endpoint_hash, uint32_t addr, uint16_t port)
{
    uint32_t at = SRP_NONE, slot;
    while ((slot = srp_index_next(&t->by_endpoint, endpoint_hash, &at)) != SRP_NONE)
        if (t->peer[slot].addr == addr && t->peer[slot].port == port)
            return slot;
    return SRP_NONE;
}

uint32_t srp_peers_named(const srp_peers *t, const uint8_t id[32])
{
    uint64_t hash = srp_sip(&t->key, id, 32);
    uint32_t at = SRP_NONE, slot;
    while ((slot = srp_index_next(&t->by_id, hash, &at)) != SRP_NONE)
        if (memcmp(t->peer[slot].id, id, 32) == 0)
            return slot;
    return SRP_NONE;
}

/* --- order of heartbeats ------------------------------------------------------------------------------------------- */

static void due_append(srp_peers *t, uint32_t slot, int64_t due_us)
{
    srp_peer *p = &t->peer[slot];
    p->due_us = due_us;
    p->due_prev = t->due_last;
    p->due_next = SRP_NONE;
    if (t->due_last != SRP_NONE)
        t->peer[t->due_last].due_next = slot;
    else
        t->due_first = slot;
    t->due_last = slot;
}

static void due_unlink(srp_peers *t, uint32_t slot)
{
    srp_peer *p = &t->peer[slot];
    if (p->due_prev != SRP_NONE)
        t->peer[p->due_prev].due_next = p->due_next;
    else
        t->due_first = p->due_next;
    if (p->due_next != SRP_NONE)
        t->peer[p->due_next].due_prev = p->due_prev;
    else
        t->due_last = p->due_prev;
}

void srp_peers_set_due(srp_peers *t, uint32_t slot, int64_t due_us)
{
    due_unlink(t, slot);
    due_append(t, slot, due_us);
}

/* --- peers --------------------------------------------------------------------------------------------------------- */

uint32_t srp_peers_add(srp_peers *t, uint32_t addr, uint16_t port, int64_t now_us, int64_t due_us)
{
    uint32_t slot = t->next_free;
    if (t->count == t->capacity)
        return SRP_NONE;
    if (slot == SRP_NONE)
        slot = t->count; /* every slot below count is taken, as none is on the free list */
    else
        t->next_free = t->peer[slot].due_next;
    t->count++;
    srp_peer *p = &t->peer[slot];
    uint32_t generation = p->generation + 1u;
    memset(p, 0, sizeof *p);
    p->generation = generation;
    p->addr = addr;
    p->port = port;
    p->flags = SRP_PEER_USED;
    p->added_us = p->last_update_us = now_us;
    p->last_proof_us = p->last_ping_us = p->last_sync_us = INT64_MIN;
    p->distance_ms = UINT32_MAX;
    p->live_at = p->members = SRP_NONE;
    srp_index_add(&t->by_endpoint, srp_endpoint_hash(t, addr, port), slot);
    srp_tally_add(&t->addresses, addr);
    srp_tally_add(&t->prefixes, srp_prefix(addr));
    due_append(t, slot, due_us);
    return slot;
}

void srp_peers_unname(srp_peers *t, uint32_t slot)
{
    srp_peer *p = &t->peer[slot];
    if (!(p->flags & SRP_PEER_NAMED))
        return;
    srp_index_remove(&t->by_id, srp_sip(&t->key, p->id, 32), slot);
    p->flags &= (uint8_t)~SRP_PEER_NAMED;
}

void srp_peers_name(srp_peers *t, uint32_t slot, const uint8_t id[32])
{
    srp_peers_unname(t, slot);
    memcpy(t->peer[slot].id, id, 32);
    srp_index_add(&t->by_id, srp_sip(&t->key, id, 32), slot);
    t->peer[slot].flags |= SRP_PEER_NAMED;
}

void srp_peers_set_live(srp_peers *t, uint32_t slot, bool live)
{
    srp_peer *p = &t->peer[slot];
    bool indexed = p->flags & SRP_PEER_INDEXED;
    uint32_t *array = indexed ? t->indexed : t->live;
    uint32_t *count = indexed ? &t->indexed_count : &t->live_count;
    if (live == (bool)(p->flags & SRP_PEER_LIVE) || (live && indexed && *count == t->indexed_capacity))
        return;
    if (live) {
        p->live_at = *count;
        array[(*count)++] = slot;
        p->flags |= SRP_PEER_LIVE;
    } else {
        uint32_t last = array[--*count];
        array[p->live_at] = last;
        t->peer[last].live_at = p->live_at;
        p->live_at = SRP_NONE;
        p->flags &= (uint8_t)~SRP_PEER_LIVE;
    }
}

static void member_remove(srp_peers *t, uint32_t m)
{
    srp_member *x = &t->member[m];
    t->peer[x->peer].last_cluster = 0;
    srp_cluster *c = &t->cluster[x->cluster];
    uint32_t cluster = x->cluster;
    if (x->ring_next == m) {
        c->ring = SRP_NONE;
    } else {
        t->member[x->ring_prev].ring_next = x->ring_next;
        t->member[x->ring_next].ring_prev = x->ring_prev;
        if (c->ring == m)
            c->ring = x->ring_next;
    }
    c->members--;
    x->peer_next = t->member_free;
    x->peer = SRP_NONE;
    t->member_free = m;
    t->member_count--;
    srp_cluster_release(t, cluster);
}

void srp_peers_remove(srp_peers *t, uint32_t slot)
{
    srp_peer *p = &t->peer[slot];
    srp_peers_set_live(t, slot, false);
    srp_peers_unname(t, slot);
    while (p->members != SRP_NONE) {
        uint32_t m = p->members;
        p->members = t->member[m].peer_next;
        member_remove(t, m);
    }
    srp_index_remove(&t->by_endpoint, srp_endpoint_hash(t, p->addr, p->port), slot);
    srp_tally_drop(&t->addresses, p->addr);
    srp_tally_drop(&t->prefixes, srp_prefix(p->addr));
    due_unlink(t, slot);
    p->flags = 0;
    p->last_proof_us = INT64_MIN; /* what still names the slot must not take it for a proven peer */
    p->due_next = t->next_free;
    t->next_free = slot;
    t->count--;
}

/* --- clusters ------------------------------------------------------------------------------------------------------ */

uint64_t srp_cluster_key(const srp_peers *t, const void *cluster, size_t len, const void *subcluster, size_t sublen)
{
    uint8_t both[66];
    size_t n = len > 32 ? 32 : len, s = sublen > 32 ? 32 : sublen;
    both[0] = (uint8_t)n;
    memcpy(both + 1, cluster, n);
    memcpy(both + 1 + n, subcluster ? subcluster : "", subcluster ? s : 0);
    return srp_sip(&t->key, both, 1 + n + (subcluster ? s : 0));
}

uint32_t srp_cluster_find(const srp_peers *t, uint64_t key)
{
    uint32_t at = SRP_NONE, slot;
    while ((slot = srp_index_next(&t->by_cluster, key, &at)) != SRP_NONE)
        if (t->cluster[slot].key == key)
            return slot;
    return SRP_NONE;
}

uint32_t srp_cluster_get(srp_peers *t, uint64_t key, const void *id, size_t len)
{
    uint32_t slot = srp_cluster_find(t, key);
    if (slot != SRP_NONE || t->cluster_count == t->cluster_capacity)
        return slot;
    slot = t->cluster_free;
    if (slot == SRP_NONE)
        slot = t->cluster_count;
    else
        t->cluster_free = t->cluster[slot].next_free;
    t->cluster_count++;
    srp_cluster *c = &t->cluster[slot];
    memset(c, 0, sizeof *c);
    c->key = key;
    memcpy(c->prefix, id, len < sizeof c->prefix ? len : sizeof c->prefix);
    c->ring = c->oldest = c->newest = SRP_NONE;
    srp_index_add(&t->by_cluster, key, slot);
    return slot;
}

void srp_cluster_release(srp_peers *t, uint32_t cluster)
{
    srp_cluster *c = &t->cluster[cluster];
    if (c->members != 0 || c->packets != 0)
        return;
    srp_index_remove(&t->by_cluster, c->key, cluster);
    c->next_free = t->cluster_free;
    t->cluster_free = cluster;
    t->cluster_count--;
}

static uint32_t *membership(const srp_peers *t, uint32_t slot, uint32_t cluster, uint32_t **last, uint32_t *count)
{
    uint32_t *link = &t->peer[slot].members;
    *last = NULL;
    *count = 0;
    for (; *link != SRP_NONE; link = &t->member[*link].peer_next) {
        if (t->member[*link].cluster == cluster)
            return link;
        *last = link;
        ++*count;
    }
    return NULL;
}

bool srp_peers_is_member(const srp_peers *t, uint32_t slot, uint32_t cluster)
{
    uint32_t *last, count;
    return membership(t, slot, cluster, &last, &count) != NULL;
}

/* A few peers with many clusters must not take the places of many with one. */
static uint32_t memberships_max(const srp_peers *t)
{
    bool crowded = t->cluster_count > t->cluster_capacity / 4u * 3u || t->member_count > t->member_capacity / 4u * 3u;
    return crowded ? SRP_MEMBERSHIPS_CROWDED : SRP_MEMBERSHIPS_MAX;
}

bool srp_peers_join(srp_peers *t, uint32_t slot, uint32_t cluster)
{
    uint32_t *last, count, m;
    if (membership(t, slot, cluster, &last, &count) != NULL)
        return true;
    while (count >= memberships_max(t)) {
        m = *last;
        *last = SRP_NONE;
        member_remove(t, m);
        membership(t, slot, cluster, &last, &count);
    }
    m = t->member_free;
    if (t->member_count == t->member_capacity)
        return false;
    if (m == SRP_NONE)
        m = t->member_count;
    else
        t->member_free = t->member[m].peer_next;
    t->member_count++;
    srp_member *x = &t->member[m];
    srp_cluster *c = &t->cluster[cluster];
    x->peer = slot;
    x->cluster = cluster;
    x->peer_next = t->peer[slot].members;
    t->peer[slot].members = m;
    if (c->ring == SRP_NONE) {
        x->ring_prev = x->ring_next = m;
        c->ring = m;
    } else { /* behind the cursor: the newest waits longest for its turn */
        x->ring_next = c->ring;
        x->ring_prev = t->member[c->ring].ring_prev;
        t->member[x->ring_prev].ring_next = m;
        t->member[c->ring].ring_prev = m;
    }
    c->members++;
    return true;
}
