#define OPENSSL_API_COMPAT 0x10101000L
#include "store.h"
#include <openssl/sha.h>

enum { DIRTY = 0, EMPTY = 1, FULL = 2 };

_Static_assert(sizeof(SHA_CTX) <= sizeof(((srp_store *)0)->refresh_sha), "room for the hash state");

/* --- memory -------------------------------------------------------------------------------------------------------- */

static size_t align64(size_t n) { return (n + 63u) & ~(size_t)63u; }
static uint32_t blocks_for(uint64_t max_bytes) { return (uint32_t)(max_bytes / SRP_BLOCK) + 1u; }
static uint32_t entries_for(uint64_t max_bytes) { return (uint32_t)(max_bytes / 256u) + 1u; }

static unsigned bits_for(uint64_t max_bytes) /* about two entries a chain at most, in whole digits of four bits */
{
    unsigned bits = 4;
    while (bits < 24 && (1u << bits) < entries_for(max_bytes) / 4u)
        bits += 4;
    return bits;
}

static unsigned levels_for(unsigned bits)
{
    unsigned levels = bits / 4u;
    return levels > SRP_SUMMARY_LEVELS ? SRP_SUMMARY_LEVELS : levels;
}

static uint32_t wheel_for(uint64_t max_bytes) { return max_bytes < 1000000u ? 64u : SRP_WHEEL; }

size_t srp_store_bytes(uint64_t max_bytes)
{
    unsigned bits = bits_for(max_bytes);
    size_t bytes = align64(sizeof(srp_entry) * entries_for(max_bytes)) + align64((size_t)SRP_BLOCK * blocks_for(max_bytes)) +
                   align64(4u * (size_t)blocks_for(max_bytes)) + align64(sizeof(uint32_t) << bits) +
                   align64(4u * (size_t)wheel_for(max_bytes));
    for (unsigned level = 0; level < levels_for(bits); level++)
        bytes += align64(sizeof(srp_bucket) << (4u * (level + 1u)));
    return bytes;
}

static void *take(char **at, size_t bytes)
{
    void *here = *at;
    *at += align64(bytes);
    return here;
}

void srp_store_init(srp_store *s, void *memory, uint64_t max_bytes, srp_peers *clusters, const uint8_t own_id[32], int64_t now_us)
{
    char *at = memory;
    memset(s, 0, sizeof *s);
    s->clusters = clusters;
    s->entries = entries_for(max_bytes);
    s->blocks = blocks_for(max_bytes);
    s->bits = bits_for(max_bytes);
    s->levels = levels_for(s->bits);
    s->wheel_size = wheel_for(max_bytes);
    s->entry = take(&at, sizeof(srp_entry) * s->entries);
    s->block = take(&at, (size_t)SRP_BLOCK * s->blocks);
    s->block_next = take(&at, 4u * (size_t)s->blocks);
    s->chain = take(&at, sizeof(uint32_t) << s->bits);
    s->wheel = take(&at, 4u * (size_t)s->wheel_size);
    for (unsigned level = 0; level < s->levels; level++)
        s->level[level] = take(&at, sizeof(srp_bucket) << (4u * (level + 1u)));
    memset(s->chain, 0xff, sizeof(uint32_t) << s->bits);
    memset(s->wheel, 0xff, 4u * (size_t)s->wheel_size);
    s->next_free = s->block_free = s->oldest = s->newest = s->first_new = s->seen_oldest = s->seen_newest = SRP_NONE;
    s->new_blocks_max = s->blocks / SRP_NEWEST_PART;
    memcpy(s->own_id, own_id, 32);
    s->wheel_at_s = (uint32_t)(now_us / 1000000);
    s->top_dirty = true;
    while (!srp_store_refresh(s, 64))
        ;
}

/* --- order by id --------------------------------------------------------------------------------------------------- */

static uint32_t chain_of(const srp_store *s, const uint8_t id[32])
{
    uint32_t first = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];
    return first >> (32u - s->bits);
}

static unsigned digit_of(const uint8_t *id, unsigned i) { return i % 2u ? id[i / 2u] & 15u : id[i / 2u] >> 4; }

uint32_t srp_store_find(const srp_store *s, const uint8_t id[32])
{
    for (uint32_t e = s->chain[chain_of(s, id)]; e != SRP_NONE; e = s->entry[e].chain_next)
        if (memcmp(s->entry[e].id, id, 32) == 0)
            return e;
    return SRP_NONE;
}

/* A packet came (+1) or went (-1): its buckets count it, and their hashes are out of date. */
static void touch(srp_store *s, const uint8_t id[32], int32_t change)
{
    uint32_t at = 0;
    for (unsigned level = 0; level < s->levels; level++) {
        at = at << 4 | digit_of(id, level);
        s->level[level][at].state = DIRTY;
        s->level[level][at].count += (uint32_t)change;
    }
    s->top_dirty = true;
    if (s->refreshing && digit_of(id, 0) == s->refresh_digit)
        s->refresh_stale = true;
}

static uint32_t blocks_of(uint32_t size) { return (size + SRP_BLOCK - 1u) / SRP_BLOCK; }

static void count_old(srp_store *s, const uint8_t id[32], int32_t change)
{
    uint32_t at = 0;
    for (unsigned level = 0; level < s->levels; level++) {
        at = at << 4 | digit_of(id, level);
        s->level[level][at].old += (uint32_t)change;
    }
}

/* Whether the first id is farther from our own than the second. */
static bool farther(const srp_store *s, const uint8_t a[32], const uint8_t b[32])
{
    for (unsigned i = 0; i < 32; i++)
        if (a[i] != b[i])
            return (a[i] ^ s->own_id[i]) > (b[i] ^ s->own_id[i]);
    return false;
}

/* The old packet whose id is farthest from our own; of the four in that corner rather one whose cluster has no member here. */
static uint32_t farthest_old(const srp_store *s)
{
    uint32_t at = 0, own = chain_of(s, s->own_id), looked = 0, best = SRP_NONE;
    bool stranger = false;
    for (unsigned level = 0; level < s->levels; level++) {
        unsigned far = 16, digit = digit_of(s->own_id, level);
        while (far > 0 && s->level[level][at << 4 | ((far - 1u) ^ digit)].old == 0)
            far--;
        if (far == 0)
            return SRP_NONE;
        at = at << 4 | ((far - 1u) ^ digit);
    }
    unsigned below = s->bits - 4u * s->levels;
    for (uint32_t far = 1u << below; far > 0 && looked < 4; far--) {
        uint32_t chain = at << below | ((far - 1u) ^ (own & ((1u << below) - 1u)));
        for (uint32_t e = s->chain[chain]; e != SRP_NONE; e = s->entry[e].chain_next) {
            const srp_entry *x = &s->entry[e];
            if (x->kind != SRP_OLD)
                continue;
            bool strange = x->cluster == SRP_NONE || s->clusters->cluster[x->cluster].members == 0;
            if (best == SRP_NONE || (strange && !stranger) || (strange == stranger && farther(s, x->id, s->entry[best].id))) {
                best = e;
                stranger = strange;
            }
            looked++;
        }
    }
    return best;
}

uint32_t srp_store_victim(srp_store *s, const uint8_t id[32], uint32_t size, bool *chain_full)
{
    uint32_t length = 0, first = SRP_NONE, seen = SRP_NONE;
    *chain_full = false;
    for (uint32_t e = s->chain[chain_of(s, id)]; e != SRP_NONE; e = s->entry[e].chain_next) {
        uint32_t *oldest = s->entry[e].kind == SRP_SEEN ? &seen : &first;
        length++;
        if (*oldest == SRP_NONE || (int32_t)(s->entry[e].serial - s->entry[*oldest].serial) < 0)
            *oldest = e;
    }
    if (length >= SRP_CHAIN_MAX) {
        if (seen == SRP_NONE) {
            *chain_full = true;
            return first;
        }
        srp_store_remove(s, seen);
    }
    if (s->count >= s->entries && s->seen_oldest != SRP_NONE)
        srp_store_remove(s, s->seen_oldest);
    if (s->blocks - s->blocks_used >= blocks_of(size) && s->count < s->entries)
        return SRP_NONE;
    first = farthest_old(s);
    return first != SRP_NONE ? first : s->oldest;
}

/* --- insertion and removal ----------------------------------------------------------------------------------------- */

static void wheel_link(srp_store *s, uint32_t e)
{
    srp_entry *x = &s->entry[e];
    /* never into the second that is being emptied */
    uint32_t second = (int32_t)(x->expires_s - s->wheel_at_s) <= 0 ? s->wheel_at_s + 1u : x->expires_s;
    uint32_t *head = &s->wheel[second % s->wheel_size];
    x->wheel_prev = SRP_NONE;
    x->wheel_next = *head;
    if (*head != SRP_NONE)
        s->entry[*head].wheel_prev = e;
    *head = e;
    x->expires_s = second;
}

static void wheel_unlink(srp_store *s, uint32_t e)
{
    srp_entry *x = &s->entry[e];
    if (x->wheel_prev != SRP_NONE)
        s->entry[x->wheel_prev].wheel_next = x->wheel_next;
    else
        s->wheel[x->expires_s % s->wheel_size] = x->wheel_next;
    if (x->wheel_next != SRP_NONE)
        s->entry[x->wheel_next].wheel_prev = x->wheel_prev;
}

uint32_t srp_store_insert(srp_store *s, const uint8_t id[32], const uint8_t *data, uint16_t size, uint32_t hops,
                          uint32_t cluster, uint32_t expires_s)
{
    uint32_t e = s->next_free;
    if (e == SRP_NONE)
        e = s->count;
    else
        s->next_free = s->entry[e].chain_next;
    s->count++;
    s->held++;
    srp_entry *x = &s->entry[e];
    memcpy(x->id, id, 32);
    x->size = size;
    x->kind = SRP_NEW;
    x->hops = hops > 127u ? 127u : hops & 127u;
    x->carried = 0;
    x->serial = s->serial++;
    x->expires_s = expires_s;
    s->bytes += size;

    uint32_t *link = &x->block;
    for (uint32_t done = 0; done < size; done += SRP_BLOCK) {
        uint32_t b = s->block_free;
        if (b == SRP_NONE)
            b = s->blocks_used;
        else
            s->block_free = s->block_next[b];
        s->blocks_used++;
        memcpy(s->block + (size_t)b * SRP_BLOCK, data + done, size - done < SRP_BLOCK ? size - done : SRP_BLOCK);
        *link = b;
        link = &s->block_next[b];
    }
    *link = SRP_NONE;

    uint32_t *chain = &s->chain[chain_of(s, id)];
    while (*chain != SRP_NONE && memcmp(s->entry[*chain].id, id, 32) < 0)
        chain = &s->entry[*chain].chain_next;
    x->chain_next = *chain;
    *chain = e;

    x->older = s->newest;
    x->newer = SRP_NONE;
    if (s->newest != SRP_NONE)
        s->entry[s->newest].newer = e;
    else
        s->oldest = e;
    s->newest = e;
    if (s->first_new == SRP_NONE)
        s->first_new = e;
    s->new_blocks += blocks_of(size);
    while (s->new_blocks > s->new_blocks_max) { /* as much as came in at most */
        srp_entry *old = &s->entry[s->first_new];
        old->kind = SRP_OLD;
        s->new_blocks -= blocks_of(old->size);
        count_old(s, old->id, 1);
        s->first_new = old->newer;
    }

    x->cluster = cluster;
    x->cluster_older = x->cluster_newer = SRP_NONE;
    if (cluster != SRP_NONE) {
        srp_cluster *c = &s->clusters->cluster[cluster];
        x->cluster_older = c->newest;
        if (c->newest != SRP_NONE)
            s->entry[c->newest].cluster_newer = e;
        else
            c->oldest = e;
        c->newest = e;
        c->packets++;
    }
    wheel_link(s, e);
    touch(s, id, 1);
    return e;
}

/* Takes an entry out of the list that it is in. */
static void age_unlink(srp_store *s, uint32_t e)
{
    srp_entry *x = &s->entry[e];
    uint32_t *oldest = x->kind == SRP_SEEN ? &s->seen_oldest : &s->oldest;
    uint32_t *newest = x->kind == SRP_SEEN ? &s->seen_newest : &s->newest;
    if (x->older != SRP_NONE)
        s->entry[x->older].newer = x->newer;
    else
        *oldest = x->newer;
    if (x->newer != SRP_NONE)
        s->entry[x->newer].older = x->older;
    else
        *newest = x->older;
}

/* Gives back all that a packet takes, but for its entry in the order of ids and on the wheel. */
static void let_go(srp_store *s, uint32_t e)
{
    srp_entry *x = &s->entry[e];
    if (x->kind == SRP_OLD)
        count_old(s, x->id, -1);
    else
        s->new_blocks -= blocks_of(x->size);
    if (s->first_new == e)
        s->first_new = x->newer;
    age_unlink(s, e);
    if (x->cluster != SRP_NONE) {
        srp_cluster *c = &s->clusters->cluster[x->cluster];
        if (x->cluster_older != SRP_NONE)
            s->entry[x->cluster_older].cluster_newer = x->cluster_newer;
        else
            c->oldest = x->cluster_newer;
        if (x->cluster_newer != SRP_NONE)
            s->entry[x->cluster_newer].cluster_older = x->cluster_older;
        else
            c->newest = x->cluster_older;
        c->packets--;
        srp_cluster_release(s->clusters, x->cluster);
        x->cluster = SRP_NONE;
    }
    for (uint32_t b = x->block, next; b != SRP_NONE; b = next) {
        next = s->block_next[b];
        s->block_next[b] = s->block_free;
        s->block_free = b;
        s->blocks_used--;
    }
    x->block = SRP_NONE;
    s->bytes -= x->size;
    x->size = 0; /* who remembers the entry sees that it is gone */
    s->held--;
}

void srp_store_forget(srp_store *s, uint32_t e)
{
    srp_entry *x = &s->entry[e];
    let_go(s, e);
    x->kind = SRP_SEEN;
    x->older = s->seen_newest;
    x->newer = SRP_NONE;
    if (s->seen_newest != SRP_NONE)
        s->entry[s->seen_newest].newer = e;
    else
        s->seen_oldest = e;
    s->seen_newest = e;
}

void srp_store_remove(srp_store *s, uint32_t e)
{
    srp_entry *x = &s->entry[e];
    if (x->kind == SRP_SEEN)
        age_unlink(s, e);
    else
        let_go(s, e);
    uint32_t *chain = &s->chain[chain_of(s, x->id)];
    while (*chain != e)
        chain = &s->entry[*chain].chain_next;
    *chain = x->chain_next;
    wheel_unlink(s, e);
    touch(s, x->id, -1);
    x->kind = 0;
    x->chain_next = s->next_free;
    s->next_free = e;
    s->count--;
}

uint32_t srp_store_copy(const srp_store *s, uint32_t e, uint8_t *out)
{
    const srp_entry *x = &s->entry[e];
    uint32_t b = x->block;
    for (uint32_t done = 0; done < x->size; done += SRP_BLOCK, b = s->block_next[b])
        memcpy(out + done, s->block + (size_t)b * SRP_BLOCK, x->size - done < SRP_BLOCK ? x->size - done : SRP_BLOCK);
    return x->size;
}

uint32_t srp_store_expired(srp_store *s, uint32_t now_s, bool *more)
{
    *more = true;
    for (int step = 0; step < 256; step++) {
        for (uint32_t e = s->wheel[s->wheel_at_s % s->wheel_size]; e != SRP_NONE; e = s->entry[e].wheel_next)
            if ((int32_t)(s->entry[e].expires_s - s->wheel_at_s) <= 0) /* else: a later turn of a small wheel */
                return e;
        if ((int32_t)(now_s - s->wheel_at_s) <= 0) {
            *more = false;
            return SRP_NONE;
        }
        s->wheel_at_s = s->count == 0 ? now_s : s->wheel_at_s + 1u;
    }
    return SRP_NONE;
}

/* --- ranges and summaries ------------------------------------------------------------------------------------------ */

static bool starts_with(const uint8_t *id, const srp_prefix_digits *prefix)
{
    for (unsigned i = 0; i < prefix->len; i++)
        if (digit_of(id, i) != prefix->digit[i])
            return false;
    return true;
}

/* The chains that hold the ids of a prefix: [*first, *end). */
static void chains_of(const srp_store *s, const srp_prefix_digits *prefix, uint32_t *first, uint32_t *end)
{
    unsigned digits = s->bits / 4u;
    uint32_t at = 0;
    for (unsigned i = 0; i < prefix->len && i < digits; i++)
        at = at << 4 | prefix->digit[i];
    unsigned below = prefix->len < digits ? 4u * (digits - prefix->len) : 0u;
    *first = at << below;
    *end = (at + 1u) << below;
}

/* The number of the bucket that a chain lies in, and of the first chain of a bucket. */
static uint32_t bucket_of(const srp_store *s, unsigned level, uint32_t chain) { return chain >> (s->bits - 4u * (level + 1u)); }
static uint32_t chain_at(const srp_store *s, unsigned level, uint32_t bucket) { return bucket << (s->bits - 4u * (level + 1u)); }

/* The first chain at or after `chain` that may hold something: whole empty buckets are stepped over. */
static uint32_t next_chain(const srp_store *s, uint32_t chain, uint32_t end)
{
    for (unsigned level = 0; level < s->levels && chain < end;) {
        uint32_t bucket = bucket_of(s, level, chain);
        if (s->level[level][bucket].count != 0) {
            level++;
        } else {
            chain = chain_at(s, level, bucket + 1u);
            level = 0;
        }
    }
    return chain;
}

uint32_t srp_store_from(const srp_store *s, const srp_prefix_digits *prefix, const uint8_t id[32], bool after)
{
    uint32_t first, end;
    chains_of(s, prefix, &first, &end);
    uint32_t from = id ? chain_of(s, id) : first;
    if (from < first)
        from = first;
    for (uint32_t c = next_chain(s, from, end); c < end; c = next_chain(s, c + 1u, end))
        for (uint32_t e = s->chain[c]; e != SRP_NONE; e = s->entry[e].chain_next) {
            if (id) {
                int order = memcmp(s->entry[e].id, id, 32);
                if (order < 0 || (after && order == 0))
                    continue;
            }
            if (starts_with(s->entry[e].id, prefix))
                return e;
        }
    return SRP_NONE;
}

static uint32_t level_index(const srp_prefix_digits *prefix)
{
    uint32_t at = 0;
    for (unsigned i = 0; i < prefix->len; i++)
        at = at << 4 | prefix->digit[i];
    return at;
}

uint32_t srp_store_below(const srp_store *s, const srp_prefix_digits *prefix)
{
    uint32_t n = 0;
    if (prefix->len == 0)
        return s->count;
    if (prefix->len <= s->levels)
        return s->level[prefix->len - 1u][level_index(prefix)].count;
    for (uint32_t e = srp_store_from(s, prefix, NULL, false); e != SRP_NONE;
         e = srp_store_from(s, prefix, s->entry[e].id, true))
        n++;
    return n;
}

/* Ids on their way into a hash, as text: a call for each of them would cost as much as hashing it. */
typedef struct id_text {
    SHA_CTX *sha;
    uint32_t used;
    char text[64 * 16];
} id_text;

static void flush_ids(id_text *t)
{
    SHA1_Update(t->sha, t->text, t->used);
    t->used = 0;
}

static void hash_id(id_text *t, const uint8_t id[32])
{
    srp_hex(id, 32, t->text + t->used);
    t->used += 64;
    if (t->used == sizeof t->text)
        flush_ids(t);
}

/* One bucket: all ids below the prefix, sorted, as text. */
static void bucket_hash(srp_store *s, const srp_prefix_digits *prefix, srp_bucket *out, uint32_t *work)
{
    uint32_t first, end;
    bool any = false;
    SHA_CTX sha;
    id_text text;
    text.sha = &sha;
    text.used = 0;
    SHA1_Init(&sha);
    chains_of(s, prefix, &first, &end);
    for (uint32_t c = next_chain(s, first, end); c < end; c = next_chain(s, c + 1u, end))
        for (uint32_t e = s->chain[c]; e != SRP_NONE; e = s->entry[e].chain_next)
            if (starts_with(s->entry[e].id, prefix)) {
                hash_id(&text, s->entry[e].id);
                any = true;
                ++*work;
            }
    flush_ids(&text);
    SHA1_Final(out->hash, &sha);
    out->state = any ? FULL : EMPTY;
}

static void top_hash(uint32_t mask, const uint8_t bucket[16][20], uint8_t hash[20])
{
    SHA_CTX sha;
    char text[40];
    SHA1_Init(&sha);
    for (unsigned i = 0; i < 16; i++)
        if (mask >> i & 1u) {
            srp_hex(bucket[i], 20, text);
            SHA1_Update(&sha, text, sizeof text);
        }
    SHA1_Final(hash, &sha);
}

uint32_t srp_store_summary_work(const srp_store *s, const srp_prefix_digits *prefix)
{
    uint32_t work = 1;
    srp_prefix_digits child = *prefix;
    child.len++; /* at most 65, and then not used */
    if (prefix->len == 0 || prefix->len >= 64)
        return work;
    for (unsigned i = 0; i < 16; i++) {
        child.digit[prefix->len] = (uint8_t)i;
        if (child.len > s->levels)
            work += 2u;
        else if (s->level[child.len - 1u][level_index(&child)].state == DIRTY)
            work += s->level[child.len - 1u][level_index(&child)].count + 1u;
    }
    return work;
}

uint32_t srp_store_summary(srp_store *s, const srp_prefix_digits *prefix, uint8_t bucket[16][20], uint8_t hash[20], uint32_t *work)
{
    uint32_t mask = 0;
    srp_prefix_digits child = *prefix;
    child.len++;
    for (unsigned i = 0; i < 16 && prefix->len < 64; i++) {
        srp_bucket fresh = {0, 0, {0}, DIRTY}, *h = &fresh;
        child.digit[prefix->len] = (uint8_t)i;
        if (prefix->len == 0)
            h = &s->top_bucket[i];
        else if (child.len <= s->levels)
            h = &s->level[child.len - 1u][level_index(&child)];
        if (h->state == DIRTY)
            bucket_hash(s, &child, h, work);
        if (h->state == FULL) {
            mask |= 1u << i;
            memcpy(bucket[i], h->hash, 20);
        }
    }
    top_hash(mask, (const uint8_t(*)[20])bucket, hash);
    return mask;
}

bool srp_store_refresh(srp_store *s, uint32_t ids)
{
    SHA_CTX *sha = (SHA_CTX *)(void *)s->refresh_sha;
    id_text text;
    text.sha = sha;
    text.used = 0;
    uint32_t per_digit = 1u << (s->bits - 4u), work = 0;
    if (!s->refreshing) {
        if (!s->top_dirty)
            return true;
        s->top_dirty = false;
        s->refreshing = true;
        s->refresh_digit = 0;
        s->refresh_chain = 0;
    }
    for (; s->refresh_digit < 16; s->refresh_digit++, s->refresh_chain = 0) {
        srp_bucket *h = &s->level[0][s->refresh_digit];
        if (s->refresh_chain == 0) {
            if (h->state != DIRTY) {
                s->top_bucket[s->refresh_digit] = *h;
                continue;
            }
            s->refresh_stale = s->refresh_any = false;
            SHA1_Init(sha);
        }
        const uint32_t *chain = &s->chain[(uint32_t)s->refresh_digit * per_digit];
        for (; s->refresh_chain < per_digit && work < ids * 16u; s->refresh_chain++, work++)
            for (uint32_t e = chain[s->refresh_chain]; e != SRP_NONE; e = s->entry[e].chain_next) {
                hash_id(&text, s->entry[e].id);
                s->refresh_any = true;
                work += 16u;
            }
        flush_ids(&text);
        if (s->refresh_chain < per_digit)
            return false;
        srp_bucket *top = &s->top_bucket[s->refresh_digit];
        SHA1_Final(top->hash, sha);
        top->state = s->refresh_any ? FULL : EMPTY;
        if (!s->refresh_stale) { /* else ids came or went meanwhile: good enough for a pong, not for a comparison */
            memcpy(h->hash, top->hash, 20);
            h->state = top->state;
        }
    }
    uint8_t bucket[16][20];
    uint32_t mask = 0;
    for (unsigned i = 0; i < 16; i++) {
        memcpy(bucket[i], s->top_bucket[i].hash, 20);
        if (s->top_bucket[i].state == FULL)
            mask |= 1u << i;
    }
    top_hash(mask, (const uint8_t(*)[20])bucket, s->top);
    s->refreshing = false;
    return !s->top_dirty;
}

uint32_t srp_summary_encode(const srp_prefix_digits *prefix, const uint8_t hash[20], uint32_t mask, const uint8_t bucket[16][20],
                            uint8_t *out)
{
    uint8_t *at = out;
    unsigned odd = prefix->len & 1u;
    *at++ = prefix->len;
    for (unsigned i = 0; i < prefix->len + odd; i += 2) {
        unsigned high = odd ? (i == 0 ? 0u : prefix->digit[i - 1u]) : prefix->digit[i];
        unsigned low = odd ? prefix->digit[i] : prefix->digit[i + 1u];
        *at++ = (uint8_t)(high << 4 | low);
    }
    memcpy(at, hash, 20);
    at += 20;
    for (unsigned i = 0; i < 16; i++)
        if (mask >> i & 1u) {
            *at++ = (uint8_t)i;
            memcpy(at, bucket[i], 20);
            at += 20;
        }
    return (uint32_t)(at - out);
}

int srp_summary_decode(const uint8_t *data, uint32_t len, srp_prefix_digits *prefix, uint8_t hash[20], uint32_t *mask,
                       uint8_t bucket[16][20])
{
    if (len < 1 || data[0] > 64)
        return -1;
    prefix->len = data[0];
    unsigned odd = prefix->len & 1u, bytes = (prefix->len + 1u) / 2u;
    if (len < 1u + bytes + 20u || (len - 1u - bytes - 20u) % 21u != 0)
        return -1;
    for (unsigned i = 0; i < prefix->len; i++)
        prefix->digit[i] = (uint8_t)digit_of(data + 1, i + odd);
    const uint8_t *at = data + 1 + bytes, *end = data + len;
    memcpy(hash, at, 20);
    *mask = 0;
    for (at += 20; at < end; at += 21) {
        if (at[0] > 15)
            return -1;
        *mask |= 1u << at[0];
        memcpy(bucket[at[0]], at + 1, 20);
    }
    return 0;
}
