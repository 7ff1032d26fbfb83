/* The peers an identity knows, and the clusters they belong to. A table of fixed size over memory of the caller:
 * found by endpoint or by peerId, sampled at random without a scan, visited in order of their next heartbeat.
 * Nothing here decides anything about the protocol. */
#ifndef SRP_PEERS_H
#define SRP_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "digest.h"
#include "table.h"

#define SRP_SLOTS 4                /* the slot that runs and three whole ones: a minute of anybody's clock */
#define SRP_SLOT_US 20000000
#define SRP_MEMBERSHIPS_MAX 16    /* clusters and subclusters of one peer, each counted, */
#define SRP_MEMBERSHIPS_CROWDED 2 /* or so many while a table is nearly full */

enum {
    SRP_PEER_USED = 1,
    SRP_PEER_INDEXED = 2,   /* configured or a sibling identity: never dropped, never offered in introductions */
    SRP_PEER_NAMED = 4,     /* id holds its peerId and the table finds it by it */
    SRP_PEER_LIVE = 8,      /* connected: valid NAT type, in the live array (INDEXED ones have an array of their own) */
    SRP_PEER_CHALLENGED = 16, /* somebody else claims its name: a ping is out */
    SRP_PEER_OPENED = 64,   /* not proven, but believed: its ping came through a port that we had just opened (punch.was_opened) */
    SRP_PEER_JOINED = 32    /* has joined a subcluster: whom it was introduced to then takes no further introduction */
};

/* Three cache lines: the first is all that its datagrams and whoever chooses it as a destination need, a ping needs the second, too. */
typedef struct srp_peer {
    uint32_t addr;
    uint16_t port;
    uint8_t nat_type;
    uint8_t flags;
    uint32_t local;         /* own address it talks to */
    uint16_t socket;        /* own socket it is reached through: main, or one of the pool behind a hard NAT */
    uint16_t probed;        /* as a reflector: our probe socket has sent to it */
    int64_t last_update_us; /* any datagram */
    int64_t last_proof_us;  /* a pong that only it could send; INT64_MIN = never */
    int64_t last_ping_us;   /* our last ping; INT64_MIN = none open */
    uint32_t distance_ms;   /* ping to pong; UINT32_MAX unknown */
    uint32_t live_at;       /* place in the live or indexed array */
    uint32_t generation;    /* changes with every new owner of the slot */
    uint32_t window;        /* the minute that the following and used_introductions count in */
    uint32_t used_replicated, used_control;

    uint8_t id[32];
    uint64_t last_cluster;  /* srp_cluster_mark of what its last frame named; 0 = none */
    int64_t last_sync_us;
    uint32_t uptime_s;      /* as it says */
    uint32_t members;       /* first of its memberships */
    uint32_t used_introductions; /* and all that was sent to an opened one */
    uint16_t sync_jobs;     /* that it holds */
    uint16_t comparisons;   /* that wait for summaries */

    int64_t added_us;       /* since when we know it */
    int64_t due_us;         /* next heartbeat */
    uint32_t due_prev, due_next;
    uint32_t sent_slot;     /* the slot of the clock, of SRP_SLOT_US, that the following were brought up to */
    uint16_t sent[SRP_SLOTS];   /* publishes and joins sent to it, slot by slot, */
    uint16_t shared[SRP_SLOTS]; /* and those of them that were not live packets of its clusters */
    uint16_t summaries;     /* sent to it in the running slot */
    uint8_t sync_pauses;    /* how often it was offered ours in vain: the next offer comes that much later */
    uint8_t reserved;       /* fills the line */
    uint16_t summary;       /* first bytes of the summary that it told last */
    uint16_t deferred;      /* joins that wait on its account */
    uint32_t second;        /* in which the following count */
    uint32_t sync_work;     /* ids hashed for it */
    uint32_t out_bytes;     /* sent to it */
} srp_peer;

typedef struct srp_member {
    uint32_t peer, cluster;
    uint32_t ring_prev, ring_next; /* the members of one cluster */
    uint32_t peer_next;            /* the memberships of one peer, newest first; free list */
} srp_member;

typedef struct srp_cluster {
    uint64_t key;           /* SipHash of the cluster id, or of cluster and subcluster id */
    uint8_t prefix[8];      /* of the id, for people */
    uint32_t ring;          /* where the next selection starts */
    uint32_t members;
    uint32_t packets, oldest, newest; /* its packets in the store, in order of arrival */
    uint32_t next_free;
} srp_cluster;

typedef struct srp_peers {
    srp_sip_key key;
    srp_peer *peer;
    uint32_t capacity, count, next_free;
    srp_index by_endpoint, by_id, by_cluster;
    uint32_t *live, live_count;       /* connected, not indexed: dense, in no order */
    uint32_t *indexed, indexed_count; /* configured and sibling identities that answered: dense */
    uint32_t indexed_capacity;
    uint32_t due_first, due_last;     /* all peers in order of their next heartbeat */
    srp_member *member;
    uint32_t member_capacity, member_free, member_count;
    srp_cluster *cluster;
    uint32_t cluster_capacity, cluster_free, cluster_count;
    srp_tally addresses, prefixes;
} srp_peers;

/* Bytes of zeroed memory that srp_peers_init wants. indexed: how many configured peers there may be. */
size_t srp_peers_bytes(uint32_t capacity, uint32_t indexed, uint32_t clusters);
void srp_peers_init(srp_peers *t, void *memory, uint32_t capacity, uint32_t indexed, uint32_t clusters, srp_sip_key key);

uint64_t srp_endpoint_hash(const srp_peers *t, uint32_t addr, uint16_t port);
uint32_t srp_peers_at(const srp_peers *t, uint64_t endpoint_hash, uint32_t addr, uint16_t port); /* SRP_NONE: unknown */
/* Whether this slot, whatever became of it, is what srp_peers_at() finds. */
static inline bool srp_peers_is_at(const srp_peers *t, uint32_t slot, uint32_t addr, uint16_t port)
{
    return slot < t->capacity && t->peer[slot].flags & SRP_PEER_USED && t->peer[slot].addr == addr && t->peer[slot].port == port;
}
/* Has the memory fetched that finding, counting and answering this peer will need: its index cell, then, when that is there, its record. */
static inline void srp_peers_prefetch_cell(const srp_peers *t, uint64_t endpoint_hash)
{
    srp_index_prefetch(&t->by_endpoint, endpoint_hash);
}
static inline void srp_peers_prefetch(const srp_peers *t, uint64_t endpoint_hash)
{
    uint32_t at = SRP_NONE, slot = srp_index_next(&t->by_endpoint, endpoint_hash, &at);
    if (slot == SRP_NONE)
        return;
    __builtin_prefetch(&t->peer[slot], 1);
    __builtin_prefetch(t->peer[slot].id);
}
static inline void srp_peers_fetch(const srp_peers *t, uint32_t slot) { srp_fetch(&t->peer[slot]); } /* its first line */
uint32_t srp_peers_named(const srp_peers *t, const uint8_t id[32]);
/* Whether this slot, whatever became of it, is what srp_peers_named() finds. */
static inline bool srp_peers_is(const srp_peers *t, uint32_t slot, const uint8_t id[32])
{
    return slot < t->capacity && t->peer[slot].flags & SRP_PEER_NAMED && memcmp(t->peer[slot].id, id, 32) == 0;
}
/* A new peer; the caller made sure that it is unknown. SRP_NONE when the table is full. */
uint32_t srp_peers_add(srp_peers *t, uint32_t addr, uint16_t port, int64_t now_us, int64_t due_us);
void srp_peers_remove(srp_peers *t, uint32_t slot);
void srp_peers_name(srp_peers *t, uint32_t slot, const uint8_t id[32]); /* replaces its name; the name must be free */
void srp_peers_unname(srp_peers *t, uint32_t slot);
void srp_peers_set_live(srp_peers *t, uint32_t slot, bool live);
void srp_peers_set_due(srp_peers *t, uint32_t slot, int64_t due_us); /* moves it to the end of the order */

static inline uint32_t srp_prefix(uint32_t addr) { return addr >> 8; } /* /24 */

/* What tells the clusters that one peer names apart, without a hash: the ids are hashes of names. Who makes up ids that do not differ
 * here only hides its own memberships. Never 0. */
static inline uint64_t srp_cluster_mark(const uint8_t cluster[32], const uint8_t *subcluster)
{
    uint64_t c, u = 0;
    memcpy(&c, cluster, 8);
    if (subcluster)
        memcpy(&u, subcluster, 8);
    return (c * UINT64_C(0x9e3779b97f4a7c15) + u) | 1u;
}
uint64_t srp_cluster_key(const srp_peers *t, const void *cluster, size_t len, const void *subcluster, size_t sublen);
uint32_t srp_cluster_find(const srp_peers *t, uint64_t key);
/* Finds or makes; SRP_NONE when the table is full. One that gets neither member nor packet must be handed to _release. */
uint32_t srp_cluster_get(srp_peers *t, uint64_t key, const void *id, size_t len);
void srp_cluster_release(srp_peers *t, uint32_t cluster); /* frees it when it has neither member nor packet */

/* Makes the peer a member (true, also when it was one). A peer's 17th membership replaces its oldest, so does its third
 * while a table is nearly full.
 * false: no room in the table. */
bool srp_peers_join(srp_peers *t, uint32_t slot, uint32_t cluster);
bool srp_peers_is_member(const srp_peers *t, uint32_t slot, uint32_t cluster);

#endif
