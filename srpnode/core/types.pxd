# What the C files of cext/ declare, for all Cython modules.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<stdbool.h>" nogil:
    ctypedef bint c_bool "bool"

cdef extern from "datagram.h" nogil:
    enum:
        SRP_SOCKET_MAIN
        SRP_SOCKET_PROBE
        SRP_SOCKET_POOL
    ctypedef struct srp_datagram:
        uint8_t *data
        uint32_t len
        uint32_t addr
        uint32_t local
        uint16_t port
        uint16_t socket
    ctypedef struct srp_now:
        int64_t mono_us
        int64_t wall_ms

cdef extern from "wire.h" nogil:
    enum:
        SRP_DATAGRAM_MAX
        SRP_MESSAGE_MAX
        SRP_HOPS_OFFSET
        SRP_TTL_OFFSET
        SRP_HOPS_MAX
        SRP_TTL_MS
        SRP_OK
        SRP_BAD_SHORT
        SRP_BAD_MAGIC
        SRP_PING
        SRP_PONG
        SRP_INTRO
        SRP_JOIN
        SRP_PUBLISH
        SRP_STREAM
        SRP_SYNC
        SRP_QUERY
        SRP_TYPES
        SRP_VERDICTS
        SRP_CLUSTER_ID
        SRP_SUBCLUSTER_ID
        SRP_PREVIOUS_ID
        SRP_PACKET_ID
        SRP_NEXT_ID
        SRP_USR1
        SRP_USR2
        SRP_USR3
        SRP_USR4
        SRP_MESSAGE
        SRP_SIG
        SRP_FIELDS
    ctypedef int srp_verdict "enum srp_verdict"
    ctypedef struct srp_span:
        uint16_t at
        uint16_t len
    ctypedef struct srp_frame:
        uint8_t type
        uint16_t version
        uint32_t clock
        uint32_t hops
        int32_t index
        uint32_t ttl
        uint32_t size
        srp_span field[11]
    ctypedef struct srp_bytes:
        const uint8_t *at
        uint32_t len
    ctypedef struct srp_packet:
        uint8_t type
        uint32_t clock
        uint32_t hops
        int32_t index
        uint32_t ttl
        srp_bytes field[11]
    srp_verdict srp_frame_decode(const uint8_t *data, uint32_t len, srp_frame *frame)
    srp_verdict srp_frame_decode_next(const uint8_t *data, uint32_t len, srp_frame *frame)
    c_bool srp_unset(const uint8_t *data, srp_span span)
    void srp_packet_init(srp_packet *packet, uint8_t type)
    uint32_t srp_packet_encode(const srp_packet *packet, uint8_t *out, uint32_t cap)
    uint32_t srp_message_offset(const srp_packet *packet)
    const char *srp_verdict_name(srp_verdict verdict)
    const char *srp_type_name(uint8_t type)

cdef extern from "message.h" nogil:
    enum:
        SRP_KEY_REQUESTER_PEER_ID
        SRP_KEY_RESPONDER_PEER_ID
        SRP_KEY_CACHE_SUMMARY_HASH
        SRP_KEY_PROBE_EXTERNAL_PORT
        SRP_KEY_REFLECTION_ID
        SRP_KEY_PING_ID
        SRP_KEY_NAT_TYPE
        SRP_KEY_UPTIME
        SRP_KEY_CACHE_SIZE
        SRP_KEY_IS_CONNECTION
        SRP_KEY_IS_REFLECTION
        SRP_KEY_IS_PROBE
        SRP_KEY_IS_DEBUG
        SRP_KEY_IS_RENDEZVOUS
        SRP_KEY_REJECTED
        SRP_KEY_TIMESTAMP
        SRP_KEY_ADDRESS
        SRP_KEY_PORT
        SRP_KEY_KEY
        SRP_KEY_RENDEZVOUS_ADDRESS
        SRP_KEY_RENDEZVOUS_PORT
        SRP_KEY_RENDEZVOUS_TYPE
        SRP_KEY_RENDEZVOUS_PEER_ID
        SRP_KEY_RENDEZVOUS_DEADLINE
        SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID
        SRP_KEY_PACKET_ID
        SRP_KEYS
        SRP_KEY_BYTES_MAX
    ctypedef struct srp_message:
        uint32_t has
        uint32_t truth
        uint8_t requester_peer_id[32]
        uint8_t responder_peer_id[32]
        uint8_t rendezvous_peer_id[32]
        uint8_t rendezvous_requester_peer_id[32]
        uint8_t packet_id[32]
        uint8_t cache_summary_hash[20]
        char reflection_id[14]
        char ping_id[14]
        uint32_t address
        uint32_t rendezvous_address
        uint16_t port
        uint16_t rendezvous_port
        uint16_t probe_external_port
        uint8_t nat_type
        uint8_t rendezvous_type
        double uptime
        double cache_size
        double timestamp
        double rendezvous_deadline
        const char *key
        uint32_t key_len
    bint SRP_HAS(const srp_message *m, int key)
    bint SRP_TRUE(const srp_message *m, int key)
    srp_verdict srp_message_read(const uint8_t *data, const srp_frame *frame, srp_message *message)
    uint32_t srp_message_write(uint8_t type, const srp_message *message, char *out, uint32_t cap)
    uint32_t srp_message_piece(uint8_t type, const srp_message *message, uint32_t keys, char *out)
    bint srp_nat_valid(unsigned int nat)
    bint srp_nat_hard(unsigned int nat)

cdef extern from "digest.h" nogil:
    ctypedef struct srp_sip_key:
        uint64_t k0
        uint64_t k1
    ctypedef struct srp_part:
        const void *at
        size_t len
    uint64_t srp_mac(const srp_sip_key *key, const void *data, size_t len)
    uint64_t srp_sip(const srp_sip_key *key, const void *data, size_t len)
    uint64_t srp_sip_word(const srp_sip_key *key, uint64_t word)
    void srp_sha256(const srp_part *parts, unsigned int count, uint8_t *out)
    void srp_sha1(const srp_part *parts, unsigned int count, uint8_t *out)
    void srp_hex(const uint8_t *data, size_t len, char *out)
    int srp_unhex(const char *text, size_t digits, uint8_t *out)

cdef extern from "table.h" nogil:
    enum:
        SRP_NONE
    ctypedef struct srp_index:
        pass
    ctypedef struct srp_recent_cell:
        uint64_t key
        uint32_t expires
        uint32_t value
    ctypedef struct srp_recent:
        pass
    ctypedef struct srp_meter_cell:
        pass
    ctypedef struct srp_meter:
        pass
    ctypedef struct srp_tally:
        pass
    void srp_fetch(const void *at)
    uint32_t srp_pow2(uint32_t n)
    uint32_t srp_recent_cells(uint32_t entries)
    void srp_recent_prefetch(const srp_recent *t, uint64_t key)
    void srp_recent_init(srp_recent *t, srp_recent_cell *cells, uint32_t count)
    srp_recent_cell *srp_recent_find(srp_recent *t, uint64_t key, int64_t now_ms)
    c_bool srp_recent_add(srp_recent *t, uint64_t key, int64_t now_ms, uint32_t ttl_ms, uint32_t value)
    void srp_meter_prefetch(const srp_meter *t, uint64_t key)
    void srp_meter_init(srp_meter *t, srp_meter_cell *cells, uint32_t count)
    uint32_t srp_window(uint32_t minute_64ths, uint32_t whose)
    uint32_t srp_meter_use(srp_meter *t, uint64_t key, uint32_t minute_64ths, uint32_t cost)
    uint32_t srp_tally_get(const srp_tally *t, uint32_t key)

cdef extern from "peers.h" nogil:
    enum:
        SRP_SLOTS
        SRP_SLOT_US
        SRP_PEER_USED
        SRP_PEER_INDEXED
        SRP_PEER_NAMED
        SRP_PEER_OPENED
        SRP_PEER_LIVE
        SRP_PEER_CHALLENGED
        SRP_PEER_JOINED
    ctypedef struct srp_peer:
        uint32_t addr
        uint16_t port
        uint8_t nat_type
        uint8_t flags
        uint32_t local
        uint16_t socket
        uint16_t probed
        uint32_t generation
        int64_t added_us
        int64_t last_update_us
        int64_t last_proof_us
        int64_t last_ping_us
        int64_t last_sync_us
        int64_t due_us
        uint32_t due_next
        uint32_t live_at
        uint32_t members
        uint64_t last_cluster
        uint32_t distance_ms
        uint32_t uptime_s
        uint32_t window
        uint32_t used_replicated
        uint32_t used_control
        uint32_t used_introductions
        uint32_t sent_slot
        uint16_t sent[4]
        uint16_t shared[4]
        uint16_t summaries
        uint32_t second
        uint32_t sync_work
        uint32_t out_bytes
        uint16_t sync_jobs
        uint16_t comparisons
        uint16_t summary
        uint16_t deferred
        uint8_t sync_pauses
        uint8_t id[32]
    ctypedef struct srp_member:
        uint32_t peer
        uint32_t cluster
        uint32_t ring_prev
        uint32_t ring_next
        uint32_t peer_next
    ctypedef struct srp_cluster:
        uint64_t key
        uint8_t prefix[8]
        uint32_t ring
        uint32_t members
        uint32_t packets
        uint32_t oldest
        uint32_t newest
    ctypedef struct srp_peers:
        srp_peer *peer
        uint32_t capacity
        uint32_t count
        srp_index by_endpoint
        uint32_t *live
        uint32_t live_count
        uint32_t *indexed
        uint32_t indexed_count
        uint32_t due_first
        srp_member *member
        uint32_t member_count
        srp_cluster *cluster
        uint32_t cluster_capacity
        uint32_t cluster_count
        srp_tally addresses
        srp_tally prefixes
    size_t srp_peers_bytes(uint32_t capacity, uint32_t indexed, uint32_t clusters)
    void srp_peers_init(srp_peers *t, void *memory, uint32_t capacity, uint32_t indexed, uint32_t clusters, srp_sip_key key)
    uint64_t srp_endpoint_hash(const srp_peers *t, uint32_t addr, uint16_t port)
    uint32_t srp_peers_at(const srp_peers *t, uint64_t endpoint_hash, uint32_t addr, uint16_t port)
    void srp_peers_prefetch_cell(const srp_peers *t, uint64_t endpoint_hash)
    void srp_peers_prefetch(const srp_peers *t, uint64_t endpoint_hash)
    uint64_t srp_cluster_mark(const uint8_t *cluster, const uint8_t *subcluster)
    void srp_peers_fetch(const srp_peers *t, uint32_t slot)
    bint srp_peers_is_at(const srp_peers *t, uint32_t slot, uint32_t addr, uint16_t port)
    uint32_t srp_peers_named(const srp_peers *t, const uint8_t *id)
    bint srp_peers_is(const srp_peers *t, uint32_t slot, const uint8_t *id)
    uint32_t srp_peers_add(srp_peers *t, uint32_t addr, uint16_t port, int64_t now_us, int64_t due_us)
    void srp_peers_remove(srp_peers *t, uint32_t slot)
    void srp_peers_name(srp_peers *t, uint32_t slot, const uint8_t *id)
    void srp_peers_unname(srp_peers *t, uint32_t slot)
    void srp_peers_set_live(srp_peers *t, uint32_t slot, c_bool live)
    void srp_peers_set_due(srp_peers *t, uint32_t slot, int64_t due_us)
    uint32_t srp_prefix(uint32_t addr)
    uint64_t srp_cluster_key(const srp_peers *t, const void *cluster, size_t len, const void *subcluster, size_t sublen)
    uint32_t srp_cluster_find(const srp_peers *t, uint64_t key)
    uint32_t srp_cluster_get(srp_peers *t, uint64_t key, const void *id, size_t len)
    void srp_cluster_release(srp_peers *t, uint32_t cluster)
    c_bool srp_peers_join(srp_peers *t, uint32_t slot, uint32_t cluster)
    c_bool srp_peers_is_member(const srp_peers *t, uint32_t slot, uint32_t cluster)

cdef extern from "store.h" nogil:
    ctypedef struct srp_entry:
        uint8_t id[32]
        uint16_t size
        uint32_t hops
        uint32_t carried
        uint32_t cluster
        uint32_t cluster_newer
        uint32_t expires_s
        uint32_t serial
    ctypedef struct srp_prefix_digits:
        uint8_t len
        uint8_t digit[64]
    ctypedef struct srp_store:
        srp_entry *entry
        uint32_t count
        uint32_t held
        uint64_t bytes
        uint32_t serial
        uint32_t oldest
        uint32_t newest
        uint32_t seen_oldest
        c_bool top_dirty
        c_bool refreshing
        uint8_t top[20]
    size_t srp_store_bytes(uint64_t max_bytes)
    void srp_store_init(srp_store *s, void *memory, uint64_t max_bytes, srp_peers *clusters, const uint8_t *own_id,
                        int64_t now_us)
    void srp_store_prefetch(const srp_store *s, const uint8_t *id)
    uint32_t srp_store_find(const srp_store *s, const uint8_t *id)
    c_bool srp_store_holds(const srp_store *s, uint32_t entry)
    void srp_store_forget(srp_store *s, uint32_t entry)
    uint32_t srp_store_victim(srp_store *s, const uint8_t *id, uint32_t size, c_bool *chain_full)
    uint32_t srp_store_insert(srp_store *s, const uint8_t *id, const uint8_t *data, uint16_t size, uint32_t hops,
                              uint32_t cluster, uint32_t expires_s)
    void srp_store_remove(srp_store *s, uint32_t entry)
    uint32_t srp_store_copy(const srp_store *s, uint32_t entry, uint8_t *out)
    uint32_t srp_store_expired(srp_store *s, uint32_t now_s, c_bool *more)
    uint32_t srp_store_below(const srp_store *s, const srp_prefix_digits *prefix)
    uint32_t srp_store_from(const srp_store *s, const srp_prefix_digits *prefix, const uint8_t *id, c_bool after)
    uint32_t srp_store_summary(srp_store *s, const srp_prefix_digits *prefix, uint8_t (*bucket)[20], uint8_t *hash,
                               uint32_t *work)
    uint32_t srp_store_summary_work(const srp_store *s, const srp_prefix_digits *prefix)
    c_bool srp_store_refresh(srp_store *s, uint32_t ids)
    uint32_t srp_summary_encode(const srp_prefix_digits *prefix, const uint8_t *hash, uint32_t mask,
                                const uint8_t (*bucket)[20], uint8_t *out)
    int srp_summary_decode(const uint8_t *data, uint32_t len, srp_prefix_digits *prefix, uint8_t *hash, uint32_t *mask,
                           uint8_t (*bucket)[20])

cdef extern from "counters.h" nogil:
    enum:
        SRP_DROPS
        SRP_COUNTERS
        SRP_DROP_port_zero
        SRP_DROP_opened_share
        SRP_DROP_own_source
        SRP_DROP_probe_socket
        SRP_DROP_denied_prefix
        SRP_DROP_denied_cluster
        SRP_DROP_rate_endpoint
        SRP_DROP_rate_address
        SRP_DROP_rate_prefix
        SRP_DROP_rate_unproven
        SRP_DROP_unproven
        SRP_DROP_budget
        SRP_DROP_self_named
        SRP_DROP_name_taken
        SRP_DROP_name_unproven
        SRP_DROP_pong_unasked
        SRP_DROP_peers_full
        SRP_DROP_peers_address
        SRP_DROP_peers_prefix
        SRP_DROP_parking_replaced
        SRP_DROP_cluster_id
        SRP_DROP_packet_id
        SRP_DROP_stale
        SRP_DROP_duplicate
        SRP_DROP_hops
        SRP_DROP_claim
        SRP_DROP_scope
        SRP_DROP_relay_budget
        SRP_DROP_deferred_full
        SRP_DROP_deferred_peer
        SRP_DROP_rendezvous_unknown
        SRP_DROP_intro_ignored
        SRP_DROP_no_destination
        SRP_DROP_no_route
        SRP_DROP_summary
        SRP_DROP_sync_work
        SRP_DROP_sync_jobs
        SRP_DROP_sync_summaries
        SRP_DROP_sync_share
        SRP_DROP_stranger_share
        SRP_DROP_queue_full
        SRP_DROP_bandwidth
        SRP_DROP_peer_bandwidth
        SRP_DROP_intro_stale
        SRP_DROP_intro_known
        SRP_DROP_attempts_full
        SRP_DROP_attempt_budget
        SRP_DROP_app_full
        SRP_COUNT_in_datagrams
        SRP_COUNT_in_bytes
        SRP_COUNT_out_datagrams
        SRP_COUNT_out_bytes
        SRP_COUNT_in_ping
        SRP_COUNT_out_ping
        SRP_COUNT_proofs
        SRP_COUNT_aliases
        SRP_COUNT_connections
        SRP_COUNT_departures
        SRP_COUNT_peers_evicted
        SRP_COUNT_names_moved
        SRP_COUNT_claims_wrong
        SRP_COUNT_introductions
        SRP_COUNT_rendezvous
        SRP_COUNT_introductions_full
        SRP_COUNT_joins_relayed
        SRP_COUNT_joins_known
        SRP_COUNT_joins_deferred
        SRP_COUNT_joins_echoed
        SRP_COUNT_parked
        SRP_COUNT_unparked
        SRP_COUNT_unproven_cuts
        SRP_COUNT_cache_inserted
        SRP_COUNT_cache_ejected
        SRP_COUNT_cache_expired
        SRP_COUNT_cache_bucket_full
        SRP_COUNT_cluster_table_full
        SRP_COUNT_member_table_full
        SRP_COUNT_gate_evicted
        SRP_COUNT_fan_outs_narrowed
        SRP_COUNT_carried
        SRP_COUNT_carries_refused
        SRP_COUNT_queries_answered
        SRP_COUNT_answers_routed
        SRP_COUNT_syncs_started
        SRP_COUNT_sync_summaries
        SRP_COUNT_sync_packets
        SRP_COUNT_sync_rounds
        SRP_COUNT_events_lost
        SRP_COUNT_reflections
        SRP_COUNT_reflections_failed
        SRP_COUNT_attempts
        SRP_COUNT_attempts_direct
        SRP_COUNT_attempts_proxied
        SRP_COUNT_proxies_upgraded
        SRP_COUNT_openers
        SRP_COUNT_published
        SRP_COUNT_unpublished
        SRP_COUNT_unpublished_lost
        SRP_COUNT_delivered
    const char *srp_counter_name(unsigned int counter)
