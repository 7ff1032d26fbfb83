# Everything one identity knows, in one struct that all parts of the core work on. Allocated once, by Node.
#
#   node      what comes in, in which order it is checked, and the Python face
#   strangers how many unproven sources are answered, and which
#   reach     ping, pong, proof of endpoints, heartbeats, names
#   meet      join, introductions, rendezvous
#   gossip    publish, the cache's ejection and expiry, query, stream
#   sync      bringing a peer up to date
#   rounds    asking around for what we lack
#   nat       what kind of NAT stands before us (as a peer without a static address)
#   punch     connecting to those that we were introduced to
#   app       what an application asks for and hears
#   choose    which peers a packet goes to
#   out       the output queue
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.types cimport (
    SRP_COUNTERS,
    srp_datagram,
    srp_frame,
    srp_message,
    srp_meter,
    srp_now,
    srp_peers,
    srp_prefix_digits,
    srp_recent,
    srp_sip_key,
    srp_store,
)

cdef extern from *:
    """
    enum { SRP_JOB_CLUSTERS = 4, SRP_RULES_MAX = 256, SRP_EVENTS = 256, SRP_ALIASES = 32, SRP_POOL = 256 };
    """
    enum:
        SRP_POOL
        SRP_JOB_CLUSTERS
        SRP_RULES_MAX
        SRP_ALIASES
        SRP_EVENTS                  # that one question is answered with

# What may change while running. Rates: 0 = unlimited.
ctypedef struct Limits:
    uint32_t replicated_per_minute
    uint32_t control_per_minute
    uint32_t address_per_minute
    uint32_t prefix_per_minute
    uint32_t unproven_per_second
    uint32_t introductions              # cluster members that a join is introduced to
    uint32_t introductions_per_minute   # that one peer receives
    uint32_t relayed_joins_per_minute   # towards one prefix, from all requesters
    uint32_t deferred_joins_per_peer    # places among the joins that wait
    uint32_t attempts_per_minute        # to reach peers that we were introduced to; a sixteenth of them to one prefix
    uint32_t punches_per_minute         # those with a thousand datagrams; an eighth of them to one prefix
    uint32_t peers_per_address
    uint32_t peers_per_prefix
    uint32_t sync_per_minute            # packets to one peer
    uint32_t sync_summaries_per_minute  # to one peer
    uint32_t privileged_ports
    uint64_t bandwidth_out_bytes_per_second
    uint32_t peer_out_bytes_per_second  # to one peer
    uint32_t publish_fan_out            # members that a published packet goes to from nobody's member
    uint32_t fan_out_packets_per_second # of them, beyond which they are as few as everybody sends
    uint32_t carried_per_minute         # packets handed to peers outside their cluster

# A join or connection ping that waits for its sender's proof.
ctypedef struct Parked:
    uint64_t endpoint
    uint32_t addr
    uint32_t local
    int64_t expires_ms
    uint16_t port
    uint16_t len
    uint8_t data[1424]

# A join that goes out, or is passed on, a moment later (meet.pyx).
ctypedef struct Deferred:
    uint8_t kind                        # 0 free
    uint16_t len
    uint32_t peer
    uint32_t generation
    uint32_t cause                      # on whose account it waits
    uint32_t cause_generation
    int64_t due_us
    uint8_t data[1424]

# Packets on their way to one peer that lacks them.
ctypedef struct SyncJob:
    uint32_t peer
    uint32_t generation
    uint8_t phase                       # 0 free, else SYNC_… of sync.pyx
    uint8_t clusters                    # of the peer, whose packets go first
    uint8_t at_cluster
    uint8_t started
    uint16_t digits                     # buckets below the prefix that the peer lacks
    uint32_t entry                      # last sent of the cluster, and its serial
    uint32_t serial
    uint32_t sent                       # packets
    uint64_t cluster[4]                 # keys
    uint8_t last_id[32]
    int64_t since_us
    int64_t next_us
    srp_prefix_digits prefix

# Summaries that a peer waits for.
ctypedef struct Comparison:
    uint32_t peer
    uint32_t generation
    uint16_t digits                     # buckets below the prefix
    srp_prefix_digits prefix

# Pongs as far as they are alike: the frame with its message up to the cache's summary, made anew when that changes, and how long
# we have run and what we hold, which do not change within a batch.
ctypedef struct PongForm:
    uint8_t data[352]
    uint8_t end[4]                      # sig, which follows the message
    char state[96]                      # ,"uptime":…,"cacheSize":…
    uint8_t top[20]
    uint32_t size                       # 0: not made yet
    uint32_t end_size
    uint32_t state_size
    uint32_t packet_id_at
    uint32_t message_at
    uint32_t requester_at               # of its digits
    uint32_t packets
    int64_t uptime_ms

# Hashes of a datagram's parts, computed when its batch arrives, so that the memory they lead to is fetched in time.
ctypedef struct Ahead:
    uint64_t endpoint
    uint64_t address
    uint64_t prefix
    uint64_t packet                     # packetId of a publish packet; 0: another type

# Whom we asked for the packets below a first digit (rounds.pyx).
ctypedef struct Asked:
    uint32_t slot
    uint32_t generation
    int64_t at_us                       # of the question, or of the last packet
    uint32_t came                       # packets

# Somebody claims the name of a peer: whoever fails the ping loses it.
ctypedef struct Challenge:
    uint32_t holder
    uint32_t holder_generation
    uint32_t claimant
    uint32_t claimant_generation
    int64_t started_us
    int64_t again_us                    # one ping may be lost: it is asked once more; 0 = it was
    int64_t deadline_us                 # 0 = free
    uint8_t id[32]

# A subcluster that the application joined.
ctypedef struct Own:
    uint8_t cluster[32]
    uint8_t subcluster[32]
    uint64_t cluster_key
    uint64_t key                        # of both
    uint32_t clock
    uint8_t used
    int64_t due_us                      # next join
    char text[96]                       # base64(cluster):base64(subcluster), the join's key
    uint32_t text_len

# Another endpoint that a peer behind a hard NAT sends from: a reference peer answers with its main socket what comes there.
ctypedef struct Alias:
    uint32_t addr
    uint32_t owner                      # the peer's slot
    uint32_t generation                 # 0: free
    uint16_t port

# An attempt to reach somebody we were introduced to (STATE_3).
ctypedef struct Attempt:
    uint8_t id[32]
    uint8_t cluster[32]
    uint8_t subcluster[32]
    uint8_t strategy                    # 0 free, else STRATEGY_… of punch.pyx
    uint8_t nat_type
    uint16_t port
    uint32_t addr
    uint32_t introducer
    uint32_t introducer_generation
    uint32_t local
    uint32_t sent                       # packets so far
    uint32_t base                       # of the ports to open, and the step from one to the next
    uint32_t stride
    int64_t next_us
    int64_t started_us
    int64_t deadline_us

# A peer that is reached through the one that introduced us.
ctypedef struct Proxied:
    uint8_t id[32]
    uint8_t used
    uint32_t proxy
    uint32_t proxy_generation
    int64_t since_us

# Discovery of our own NAT (STATE_0, STATE_2).
ctypedef struct Reflection:
    uint8_t stage                       # NAT_… of nat.pyx
    uint8_t wanted                      # this identity discovers its NAT (else it is configured)
    uint8_t retry
    uint8_t answers
    uint8_t probes
    uint8_t ready
    char id[13]
    uint32_t first                      # peer that our probe socket talked to
    uint32_t second                     # peer that it never talked to
    uint16_t port
    uint16_t probe_port                 # of our probe socket, seen from outside
    uint32_t addr
    uint32_t seen_addr[2]               # where the first and the second see us
    uint16_t seen_port[2]
    uint8_t dependent
    uint8_t again                       # knocks that did not come were asked for once more
    int64_t due_us

ctypedef struct Event:
    uint8_t kind
    uint8_t reason                      # a drop counter, or 0
    uint16_t port
    uint32_t addr
    int64_t wall_ms
    uint8_t peer_id[32]
    uint8_t cluster[8]

ctypedef struct Lately:                 # endpoints of a period or two, as bits
    uint64_t *recent
    uint64_t *before
    uint32_t mask
    uint8_t recent_used
    uint8_t before_used
    int64_t period_us
    int64_t turned_us

ctypedef struct Credit:                 # of carried_per_minute
    int64_t left                        # packets times 60 000 000
    int64_t at_us                       # when it was brought up to

ctypedef struct State:
    # identity
    uint8_t peer_id[32]
    uint8_t secret[16]                  # of the proofs
    srp_sip_key key                     # of the tables
    uint64_t random
    uint32_t address                    # advertised, 0 = not known
    uint16_t port
    uint16_t probe_port
    uint8_t nat_type
    uint8_t reference                   # peers and packets are chosen as the reference does it, for comparison
    int64_t keep_alive_us
    int64_t started_us
    uint32_t cache_ttl_s
    uint64_t store_max                  # bytes of the cache
    Limits limits
    # time
    srp_now now
    int64_t now_ms                      # the monotonic clock
    uint32_t minute_64ths               # of it: everybody has minutes of their own (srp_window)
    uint32_t slot                       # of SRP_SLOT_US, in which sends to a peer are counted
    uint32_t slot_at                    # its place among the last SRP_SLOTS
    # tables
    void *memory
    srp_peers peers
    srp_store store
    srp_recent gate_publish
    srp_recent gate_join
    srp_recent gate_other               # sync, query, intro: the key says which
    srp_recent routes                   # query id -> peer slot, generation in the high 12 bits
    srp_meter endpoints
    srp_meter addresses
    srp_meter prefixes
    srp_meter join_targets
    Parked *parked
    uint32_t parked_sets
    Deferred *deferred
    uint32_t deferred_size
    uint32_t deferred_count
    int64_t deferred_due_us
    SyncJob *job
    uint32_t jobs
    uint32_t jobs_active
    Comparison *comparison              # as many as jobs, the oldest first
    uint32_t comparison_first
    uint32_t comparisons_count
    int64_t step_at_us                  # of the time in which …
    uint32_t step_ids                   # … so many ids were hashed for summaries
    uint32_t filling_from               # the peer that was asked for packets last,
    uint32_t filling_generation
    int64_t filling_until_us            # and how long others are not asked too
    Asked asked[16]
    int64_t round_due_us
    int64_t round_pause_us              # after the round
    uint32_t round_at                   # digits asked for in this round
    uint32_t round_came                 # packets that it brought
    uint32_t fill_next                  # who offered more meanwhile
    uint32_t fill_next_generation       # 0: nobody
    uint32_t job_next
    Alias alias[32]
    uint32_t alias_next                 # the oldest gives way: it is asked again with its next stream
    Challenge *challenge
    uint32_t challenge_size
    uint32_t challenges
    # output
    srp_datagram *out
    uint32_t out_count
    uint32_t out_capacity
    uint8_t *slab
    uint32_t slab_used
    uint32_t slab_size
    PongForm pong
    uint64_t drawn_id                   # the last packetId of ours that is no hash
    uint64_t packet_key                 # hash of the packetId of the publish packet in work
    int64_t budget                      # bytes left for an unproven source; -1 = proven
    int64_t bandwidth_left
    int64_t bandwidth_at_us
    uint32_t source                     # slot of the peer that sent the last datagram, …
    uint32_t stream_to                  # … and of the one that the last stream was for
    # this second
    int64_t second_at_us
    int64_t sync_work_used              # ids hashed for summaries that time has not made up for yet, times 1 000 000,
    int64_t sync_work_at_us             # and when that was reckoned
    uint32_t fan_out_used               # published packets sent to many, or the looking for whom
    Credit carried_packets
    Credit carried_joins
    # strangers
    Lately answered                     # that were
    Lately refused
    uint32_t unproven_part              # of unproven_per_second, in 1024ths
    uint32_t share                      # of a part of a second …
    uint32_t share_used
    int64_t share_us                    # … as long as this
    int64_t share_at_us
    uint32_t given                      # that were answered in this quarter of a second …
    uint32_t given_before               # … and in the one before
    int64_t given_at_us
    int64_t cut_us                      # when unproven_part was halved last
    int64_t calm_us                     # since when it grows
    # times of the main loop
    int64_t heartbeat_at_us
    int64_t refresh_at_us
    int64_t expiry_at_us
    # access rules: prefixes as address and mask, clusters by their key
    uint32_t *rule_addr
    uint32_t *rule_mask
    uint8_t *rule_allow
    uint32_t rules
    uint32_t rules_size                 # of a kind
    uint8_t rules_default_allow
    uint64_t *cluster_rule
    uint32_t cluster_rules
    uint8_t cluster_rules_allow         # 1: only those listed, 0: all but those listed
    # as a peer of applications
    int64_t moved_us                    # when our own address was found to be another
    Reflection reflection
    Own *own
    uint32_t own_size
    uint32_t owns
    int64_t own_due_us                  # of the first join that is due
    Attempt *attempt
    uint32_t attempts
    uint32_t attempts_active
    int64_t attempts_due_us             # of the first attempt that has something to send
    uint32_t attempts_minute            # the minute that the following count in
    uint32_t attempts_used
    uint32_t punches_used
    Proxied *proxied
    uint32_t proxies
    uint8_t pool_wanted
    uint32_t pool_open                  # sockets
    uint32_t pool_owner[256]            # the peer slot + 1 that a socket of the pool belongs to, 0 = free
    uint8_t *unpublished                # ids of own packets that nobody got yet
    uint32_t unpublished_first
    uint32_t unpublished_count
    uint32_t unpublished_size
    uint8_t *app                        # ring of what the application has not heard yet
    uint32_t app_size
    uint32_t app_head
    uint32_t app_tail
    uint32_t clock
    uint32_t typical_uptime_ms          # of the peers that answer us, a moving mean; 0: nobody has yet
    int64_t heard_us                    # last datagram of a proven peer
    # what happened
    uint64_t counter[256]
    Event *event
    uint32_t event_size
    uint32_t event_first
    uint32_t event_count

cdef enum EventKind:
    EVENT_PROVEN = 1
    EVENT_CONNECTED
    EVENT_GONE
    EVENT_NAME_MOVED
    EVENT_NAME_TAKEN
    EVENT_REFUSED
    EVENT_LIMITED

cdef inline void drop(State *s, uint32_t reason) noexcept nogil:
    s.counter[reason] += 1

cdef inline uint64_t draw(State *s) noexcept nogil:
    """Next random number (splitmix64): reproducible, not secret."""
    cdef uint64_t z
    s.random += <uint64_t>0x9e3779b97f4a7c15
    z = s.random
    z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
    return z ^ (z >> 31)

cdef inline uint32_t draw_below(State *s, uint32_t n) noexcept nogil:
    return <uint32_t>(((draw(s) >> 32) * n) >> 32)
