/* The cache of published packets: datagrams in chained blocks, found by packetId in order of the ids, by age and by
 * cluster, with the summaries that peers compare (protocol: cache and sync). Fixed memory of the caller.
 *
 * When it is full, a part of the room holds the newest packets, whatever they are. The rest holds those whose ids are nearest (XOR)
 * to the own peerId: peers have different ids, so their caches keep different packets, and together more than one of them could.
 * What gives way leaves its id behind. It stays in the summaries, which so tell what was seen: who has seen the same is not
 * sent it again, and what a cache has given up does not come back to it.
 *
 * Ids are chosen by strangers (nobody can verify a fragment's), so the order by id is a table over their first bits whose
 * chains are short by construction: a chain that is full gives up its oldest packet. */
#ifndef SRP_STORE_H
#define SRP_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "peers.h"

#define SRP_BLOCK 160          /* bytes: nine hold a full packet of 1421 */
#define SRP_NEWEST_PART 4      /* one part in so many of the blocks is for the newest packets */
#define SRP_CHAIN_MAX 32       /* packets whose ids share the table's first bits */
#define SRP_SUMMARY_LEVELS 3   /* levels of bucket hashes that are kept: 16, 256, 4096 */
#define SRP_WHEEL 65536        /* seconds of look-ahead of the expiry wheel: more than any ttl */

/* What an entry is: the newest packets, older ones, ids whose packet has given way. */
enum { SRP_NEW = 1, SRP_OLD = 2, SRP_SEEN = 3 };

typedef struct srp_entry {
    uint8_t id[32];
    uint32_t block;                  /* first of the chain */
    uint16_t size;                   /* bytes of the datagram; 0: not held */
    unsigned hops : 7;               /* as it came, at most 127 */
    unsigned carried : 1;            /* went to peers outside its cluster */
    uint8_t kind;                    /* 0: free */
    uint32_t chain_next;             /* same first bits, ascending id; free list */
    uint32_t older, newer;           /* by arrival; of ids alone: in the order in which their packets gave way */
    uint32_t wheel_prev, wheel_next; /* by second of expiry */
    uint32_t cluster;                /* SRP_NONE: not listed under one */
    uint32_t cluster_older, cluster_newer;
    uint32_t expires_s;              /* seconds of the monotonic clock */
    uint32_t serial;                 /* order of arrival, wraps */
} srp_entry;

/* All packets below one prefix of digits. */
typedef struct srp_bucket {
    uint32_t count;
    uint32_t old;  /* of kind SRP_OLD */
    uint8_t hash[20];
    uint8_t state; /* of the hash: dirty, empty, full */
} srp_bucket;

typedef struct srp_store {
    srp_peers *clusters;       /* whose clusters the packets are listed under */
    srp_entry *entry;
    uint32_t entries, count, next_free; /* count: ids; of them held: packets */
    uint32_t held;
    uint8_t *block;
    uint32_t *block_next;
    uint32_t blocks, blocks_used, block_free;
    uint64_t bytes;            /* of datagrams */
    uint32_t *chain;           /* by the first `bits` bits of the id */
    unsigned bits, levels;
    uint32_t *wheel;
    uint32_t wheel_size, wheel_at_s;
    uint32_t oldest, newest, serial;
    uint32_t first_new, new_blocks;       /* the oldest of the newest packets, and the blocks that they take, */
    uint32_t new_blocks_max;              /* and may take */
    uint32_t seen_oldest, seen_newest;
    uint8_t own_id[32];
    srp_bucket *level[SRP_SUMMARY_LEVELS];
    /* The summary of '' as last computed: it may lag, as it costs a hash over all ids. Refreshed in slices. */
    srp_bucket top_bucket[16];
    uint8_t top[20];
    bool top_dirty, refreshing, refresh_stale, refresh_any;
    uint8_t refresh_digit;
    uint32_t refresh_chain;
    uint64_t refresh_sha[16];
} srp_store;

size_t srp_store_bytes(uint64_t max_bytes);
void srp_store_init(srp_store *s, void *memory, uint64_t max_bytes, srp_peers *clusters, const uint8_t own_id[32], int64_t now_us);

uint32_t srp_store_find(const srp_store *s, const uint8_t id[32]); /* also an id whose packet has given way */
static inline bool srp_store_holds(const srp_store *s, uint32_t entry) { return s->entry[entry].size != 0; }
static inline void srp_store_prefetch(const srp_store *s, const uint8_t id[32])
{
    uint32_t first = (uint32_t)id[0] << 24 | (uint32_t)id[1] << 16 | (uint32_t)id[2] << 8 | id[3];
    __builtin_prefetch(&s->chain[first >> (32u - s->bits)]);
}
/* The packet that would have to go first for `size` more bytes: SRP_NONE when there is room. */
uint32_t srp_store_victim(srp_store *s, const uint8_t id[32], uint32_t size, bool *chain_full);
/* Room was made (srp_store_victim says SRP_NONE) and the id is unknown. */
uint32_t srp_store_insert(srp_store *s, const uint8_t id[32], const uint8_t *data, uint16_t size, uint32_t hops,
                          uint32_t cluster, uint32_t expires_s);
void srp_store_remove(srp_store *s, uint32_t entry);
void srp_store_forget(srp_store *s, uint32_t entry); /* of a packet that gives way: all but its id */
uint32_t srp_store_copy(const srp_store *s, uint32_t entry, uint8_t *out); /* whole datagram; returns bytes, 0: not held */
/* One packet or id whose time is over by now, or SRP_NONE; a bounded number of steps. *more: call again soon. */
uint32_t srp_store_expired(srp_store *s, uint32_t now_s, bool *more);

/* A prefix of hex digits of an id. */
typedef struct srp_prefix_digits { uint8_t len; uint8_t digit[64]; } srp_prefix_digits;

/* First packet at or after the id (after: strictly) that starts with the prefix; SRP_NONE: none. */
uint32_t srp_store_from(const srp_store *s, const srp_prefix_digits *prefix, const uint8_t id[32], bool after);
/* How many packets start with the prefix; of longer prefixes than are kept in buckets: counted one by one. */
uint32_t srp_store_below(const srp_store *s, const srp_prefix_digits *prefix);

/* Hashes of the sixteen buckets below the prefix and over them; bit i of the result: bucket i is not empty.
 * Of the empty prefix: as last refreshed. *work grows by the number of ids hashed. */
uint32_t srp_store_summary(srp_store *s, const srp_prefix_digits *prefix, uint8_t bucket[16][20], uint8_t hash[20], uint32_t *work);
/* How many ids srp_store_summary would hash at most. */
uint32_t srp_store_summary_work(const srp_store *s, const srp_prefix_digits *prefix);
/* Brings `top` up to date, hashing about `ids` ids a call; true when it is. */
bool srp_store_refresh(srp_store *s, uint32_t ids);

/* The wire form of summaries. decode: 0 or -1; buckets as a bit mask and their hashes. */
uint32_t srp_summary_encode(const srp_prefix_digits *prefix, const uint8_t hash[20], uint32_t mask, const uint8_t bucket[16][20],
                            uint8_t *out);
int srp_summary_decode(const uint8_t *data, uint32_t len, srp_prefix_digits *prefix, uint8_t hash[20], uint32_t *mask,
                       uint8_t bucket[16][20]);

#endif
