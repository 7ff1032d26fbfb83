"""One identity of the Stream Relay Protocol, without I/O: datagrams and time go in, datagrams come out.

A driver (the I/O loop, the simulator, a test) hands in what arrived and what time it is, and takes what is to be sent:

    receive_batch(datagrams)  ->  output()  ->  output_done()
    tick_at(now), when due_us() says so, and then output() likewise

What happens to a datagram, in this order: cheap refusals, the frame, the source (known peer or stranger), rates, the message,
then the handler of its type (reach, meet, gossip, sync). Nothing here allocates, locks, scans or asks the system for anything;
all memory is taken at construction; randomness comes from the seed. Every refusal has a counter (cext/counters.h).
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from srpnode.core.app cimport (
    APP_ANSWER,
    APP_JOIN,
    APP_LEAVE,
    APP_PACKET,
    APP_READY,
    APP_STREAM,
)
from srpnode.core.app cimport (
    join_own,
    joins_possible,
    leave_own,
    own_cluster,
    publish_own,
    query_own,
    resend_unpublished,
    send_joins,
    stream_own,
)
from srpnode.core.choose cimport proven
from srpnode.core.gossip cimport expire_packets, on_publish, on_query, on_stream
from srpnode.core.meet cimport on_join, work_on_deferred
from srpnode.core.nat cimport on_probe_pong, start_reflection, work_on_reflection
from srpnode.core.punch cimport on_intro, work_on_attempts
from srpnode.core.out cimport out_commit, out_reserve, renew_quotas
from srpnode.core.reach cimport (
    add_configured,
    ask_alias,
    heartbeats,
    on_ping,
    on_pong,
    park,
    renew_ids,
    send_proof_ping,
    settle_challenges,
    unpark,
    welcome,
)
from srpnode.core.state cimport (
    SRP_EVENTS,
    SRP_POOL,
    SRP_RULES_MAX,
    Ahead,
    Attempt,
    Challenge,
    Comparison,
    Deferred,
    Event,
    Limits,
    Own,
    Parked,
    Proxied,
    State,
    SyncJob,
    drop,
)
from srpnode.core.rounds cimport begin_rounds, work_on_round
from srpnode.core.strangers cimport may_ask, start_strangers, strangers_allowed, under_pressure
from srpnode.core.sync cimport after_filling, on_sync, refresh_summary, work_on_comparisons, work_on_jobs
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_COUNT_in_bytes,
    SRP_COUNT_in_datagrams,
    SRP_COUNT_in_ping,
    SRP_COUNTERS,
    SRP_DATAGRAM_MAX,
    SRP_DROP_denied_cluster,
    SRP_DROP_denied_prefix,
    SRP_DROP_name_unproven,
    SRP_DROP_own_source,
    SRP_DROP_port_zero,
    SRP_DROP_probe_socket,
    SRP_DROP_rate_address,
    SRP_DROP_rate_endpoint,
    SRP_DROP_rate_prefix,
    SRP_DROP_rate_unproven,
    SRP_DROP_unproven,
    SRP_DROPS,
    SRP_JOIN,
    SRP_NONE,
    SRP_OK,
    SRP_PEER_INDEXED,
    SRP_PEER_LIVE,
    SRP_PEER_NAMED,
    SRP_PEER_OPENED,
    SRP_PEER_USED,
    SRP_PING,
    SRP_PONG,
    SRP_PUBLISH,
    SRP_QUERY,
    SRP_SLOTS,
    SRP_SLOT_US,
    SRP_SOCKET_POOL,
    SRP_SOCKET_PROBE,
    SRP_STREAM,
    SRP_SYNC,
    srp_cluster_key,
    srp_counter_name,
    srp_datagram,
    srp_endpoint_hash,
    srp_frame,
    srp_frame_decode,
    srp_frame_decode_next,
    srp_message,
    srp_message_read,
    srp_meter_cell,
    srp_meter_init,
    srp_meter_prefetch,
    srp_meter_use,
    srp_now,
    srp_part,
    srp_peer,
    srp_peers_at,
    srp_peers_is_at,
    srp_peers_bytes,
    srp_peers_init,
    srp_peers_prefetch,
    srp_peers_prefetch_cell,
    srp_prefix,
    srp_recent_cell,
    srp_recent_cells,
    srp_recent_init,
    srp_recent_prefetch,
    srp_sha256,
    srp_sip,
    srp_sip_word,
    srp_span,
    srp_store_bytes,
    srp_store_init,
    srp_store_prefetch,
    srp_pow2,
)

cdef extern from "Python.h" nogil:  # cpython.mem of Cython 0.29 does not have them
    void *PyMem_RawCalloc(size_t n, size_t size)
    void PyMem_RawFree(void *memory)

cdef enum:
    REPLICATED_WEIGHT = 64      # a publish or join counts so much against its address and prefix: it makes us send more
    TICK_US = 10000             # while sync jobs run
    LATELY_BITS = 64            # for each place in the peer table
    AHEAD = 32                  # datagrams whose memory is fetched before the first of them is handled

# --- receiving ----------------------------------------------------------------------------------------------------------

cdef bint prefix_allowed(State *s, uint32_t addr) noexcept nogil:
    cdef uint32_t i
    for i in range(s.rules):
        if (addr & s.rule_mask[i]) == s.rule_addr[i]:
            return s.rule_allow[i]
    return s.rules_default_allow

cdef bint cluster_allowed(State *s, uint8_t *data, srp_frame *frame) noexcept nogil:
    cdef srp_span c = frame.field[SRP_CLUSTER_ID]
    cdef uint64_t key
    cdef uint32_t i
    if frame.type == SRP_PING or frame.type == SRP_PONG or frame.type == SRP_SYNC or c.len != 32:
        return True
    key = srp_cluster_key(&s.peers, data + c.at, 32, NULL, 0)
    for i in range(s.cluster_rules):
        if s.cluster_rule[i] == key:
            return s.cluster_rules_allow
    return not s.cluster_rules_allow

cdef bint within_rates(State *s, srp_datagram *d, uint8_t kind, uint32_t slot, Ahead *ahead) noexcept nogil:
    """Counts a datagram against its endpoint (reference: publish and join apart from the rest), address and prefix."""
    cdef srp_peer *p
    cdef bint replicated = kind == SRP_PUBLISH or kind == SRP_JOIN
    cdef uint32_t quota = s.limits.replicated_per_minute if replicated else s.limits.control_per_minute
    cdef uint32_t used, weight = REPLICATED_WEIGHT if replicated else 1
    cdef uint64_t key
    if slot != <uint32_t>SRP_NONE:
        p = &s.peers.peer[slot]
        renew_quotas(s, p)
    if quota != 0:
        if slot != <uint32_t>SRP_NONE:
            if replicated:
                p.used_replicated += 1
                used = p.used_replicated
            else:
                p.used_control += 1
                used = p.used_control
        else:
            key = (<uint64_t>d.addr << 17) | (<uint64_t>d.port << 1) | replicated
            used = srp_meter_use(&s.endpoints, srp_sip_word(&s.key, key), s.minute_64ths, 1)
        if used > quota:
            drop(s, SRP_DROP_rate_endpoint)
            return False
    if s.limits.address_per_minute != 0:
        if srp_meter_use(&s.addresses, ahead.address, s.minute_64ths, weight) > s.limits.address_per_minute:
            drop(s, SRP_DROP_rate_address)
            return False
    if s.limits.prefix_per_minute != 0:
        if srp_meter_use(&s.prefixes, ahead.prefix, s.minute_64ths, weight) > s.limits.prefix_per_minute:
            drop(s, SRP_DROP_rate_prefix)
            return False
    return True

cdef void from_stranger(State *s, srp_datagram *d, srp_frame *frame, srp_message *message) noexcept nogil:
    """An unproven source: only ping, pong and join, and at most three bytes back for each byte (RFC 9000, section 8)."""
    s.budget = 3 * <int64_t>d.len
    if frame.type == SRP_PING:
        on_ping(s, d, frame, message, SRP_NONE)
    elif frame.type == SRP_JOIN:
        if frame.hops > 1:
            drop(s, SRP_DROP_unproven)
        else:
            park(s, d, True)
            send_proof_ping(s, d.addr, d.port, d.local)
    else:
        s.budget = 0
        on_pong(s, d, frame, message, SRP_NONE)
    s.budget = -1

cdef void after_proof(State *s, srp_datagram *d) noexcept nogil:
    """Handles what was parked for an endpoint that has just proved itself."""
    cdef srp_datagram waiting
    cdef srp_frame frame
    cdef srp_message message
    cdef uint32_t slot = srp_peers_at(&s.peers, srp_endpoint_hash(&s.peers, d.addr, d.port), d.addr, d.port)
    if slot == <uint32_t>SRP_NONE or not proven(s, slot) or not unpark(s, d.addr, d.port, &waiting):
        return
    if srp_frame_decode(waiting.data, waiting.len, &frame) != SRP_OK \
            or srp_message_read(waiting.data, &frame, &message) != SRP_OK:
        return
    # It waited to be believed in the name that the proof gave, no other.
    if s.peers.peer[slot].flags & SRP_PEER_NAMED \
            and memcmp(s.peers.peer[slot].id, message.requester_peer_id, 32) != 0:
        drop(s, SRP_DROP_name_unproven)
        return
    if frame.type == SRP_JOIN:
        on_join(s, &waiting, &frame, &message, slot)
    else:
        welcome(s, slot, &waiting, &frame, &message)

cdef void receive_one(State *s, srp_datagram *d, Ahead *ahead, srp_frame *frame) noexcept nogil:
    """frame: what was read last (its size 0: nothing); most datagrams of a batch are laid out as the one before."""
    cdef srp_message message
    cdef uint32_t slot
    cdef int verdict
    cdef bint known
    s.counter[SRP_COUNT_in_datagrams] += 1
    s.counter[SRP_COUNT_in_bytes] += d.len
    if d.port == 0:
        drop(s, SRP_DROP_port_zero)
        return
    if d.socket == SRP_SOCKET_PROBE:
        if s.reflection.wanted and srp_frame_decode_next(d.data, d.len, frame) == SRP_OK and frame.type == SRP_PONG \
                and srp_message_read(d.data, frame, &message) == SRP_OK:
            on_probe_pong(s, d, &message)
            s.counter[SRP_COUNT_in_ping - 1 + frame.type] += 1
            return
        drop(s, SRP_DROP_probe_socket)
        return
    if s.rules != 0 and not prefix_allowed(s, d.addr):
        drop(s, SRP_DROP_denied_prefix)
        return
    verdict = srp_frame_decode_next(d.data, d.len, frame)
    if verdict != SRP_OK:
        drop(s, verdict)
        return
    if d.port == s.port and (d.addr == s.address or d.addr == d.local):
        drop(s, SRP_DROP_own_source)
        return
    slot = s.source
    if not srp_peers_is_at(&s.peers, slot, d.addr, d.port):
        slot = s.source = srp_peers_at(&s.peers, ahead.endpoint, d.addr, d.port)
    known = slot != <uint32_t>SRP_NONE and proven(s, slot)
    # Before all that costs more; but for pongs, which can be checked and lead to no answer.
    if not known and (frame.type == SRP_PING or frame.type == SRP_JOIN) and not may_ask(s, d, ahead.endpoint):
        drop(s, SRP_DROP_rate_unproven)
        return
    if s.attempts != 0:
        d.local = 0  # an ordinary peer's own address may change: the system chooses what to send from
    # The quota of what we are members of is for us to use up (so the reference): events of our subclusters are what we are for.
    if not (known and s.owns != 0 and frame.type == SRP_PUBLISH and own_cluster(s, d.data, frame) != NULL) \
            and not within_rates(s, d, frame.type, slot, ahead):
        return
    if not known and frame.type > SRP_PONG and frame.type != SRP_JOIN:
        if frame.type == SRP_STREAM and may_ask(s, d, ahead.endpoint):
            ask_alias(s, d, frame)
        drop(s, SRP_DROP_unproven)
        return
    if s.cluster_rules != 0 and not cluster_allowed(s, d.data, frame):
        drop(s, SRP_DROP_denied_cluster)
        return
    if frame.type != SRP_STREAM and frame.type != SRP_PUBLISH and frame.type != SRP_SYNC:  # theirs is no JSON
        verdict = srp_message_read(d.data, frame, &message)
        if verdict != SRP_OK:
            drop(s, verdict)
            return
    s.counter[SRP_COUNT_in_ping - 1 + frame.type] += 1
    if not known:
        from_stranger(s, d, frame, &message)
        if frame.type == SRP_PONG:
            after_proof(s, d)
        return
    if s.now.mono_us - s.heard_us > 2 * s.keep_alive_us:  # we may have missed something
        begin_rounds(s)
    s.peers.peer[slot].last_update_us = s.heard_us = s.now.mono_us
    s.peers.peer[slot].local = d.local
    s.peers.peer[slot].socket = d.socket
    if frame.type == SRP_PING:
        on_ping(s, d, frame, &message, slot)
    elif frame.type == SRP_PONG:
        on_pong(s, d, frame, &message, slot)
        after_proof(s, d)  # a peer that was started anew under another name
    elif frame.type == SRP_JOIN:
        on_join(s, d, frame, &message, slot)
    elif frame.type == SRP_PUBLISH:
        s.packet_key = ahead.packet
        on_publish(s, d, frame, slot)
    elif frame.type == SRP_STREAM:
        on_stream(s, d, frame, slot)
    elif frame.type == SRP_SYNC:
        on_sync(s, d, frame, slot)
    elif frame.type == SRP_QUERY:
        on_query(s, d, frame, &message, slot)
    else:
        on_intro(s, d, frame, &message, slot)

cdef inline void look_ahead(State *s, srp_datagram *d, Ahead *ahead, bint first) noexcept nogil:
    """Has the memory fetched that a datagram will need soon: its sender's place, the meters of its address, and of a publish
    packet its gate and cache cells. first: no other one stands before it."""
    cdef uint32_t at = 23, i
    if not first and (d - 1).addr == d.addr and (d - 1).port == d.port:  # of one train
        ahead[0] = (ahead - 1)[0]
    else:
        ahead.endpoint = srp_endpoint_hash(&s.peers, d.addr, d.port)
        srp_peers_prefetch_cell(&s.peers, ahead.endpoint)
        if s.limits.address_per_minute != 0:
            ahead.address = srp_sip_word(&s.key, d.addr)
            srp_meter_prefetch(&s.addresses, ahead.address)
        if s.limits.prefix_per_minute != 0:
            ahead.prefix = srp_sip_word(&s.key, srp_prefix(d.addr))
            srp_meter_prefetch(&s.prefixes, ahead.prefix)
    ahead.packet = 0
    if d.len < 200 or d.data[4] != SRP_PUBLISH:
        return
    for i in range(3):  # past clusterId, subclusterId and previousId
        at += 2 + d.data[at + 1]
        if at > d.len - 34:
            return
    if d.data[at] == 0 and d.data[at + 1] == 32:
        ahead.packet = srp_sip(&s.key, d.data + at + 2, 32)
        srp_recent_prefetch(&s.gate_publish, ahead.packet)
        srp_store_prefetch(&s.store, d.data + at + 2)

cdef void set_time(State *s, srp_now now) noexcept nogil:
    """Takes the driver's time. The monotonic clock never goes back here; jumps of the other reach wire fields only."""
    cdef int64_t elapsed
    if now.mono_us < s.now.mono_us:
        now.mono_us = s.now.mono_us
    s.now = now
    s.now_ms = now.mono_us // 1000
    s.minute_64ths = <uint32_t>(now.mono_us // 937500)
    s.slot = <uint32_t>(now.mono_us // SRP_SLOT_US)
    s.slot_at = s.slot % SRP_SLOTS
    if now.mono_us - s.second_at_us >= 1000000:
        s.second_at_us = now.mono_us
        s.fan_out_used = 0
    renew_ids(s)
    if s.limits.bandwidth_out_bytes_per_second != 0:
        elapsed = now.mono_us - s.bandwidth_at_us
        if elapsed > 1000000:
            elapsed = 1000000
        s.bandwidth_left += <int64_t>s.limits.bandwidth_out_bytes_per_second * elapsed // 1000000
        if s.bandwidth_left > <int64_t>s.limits.bandwidth_out_bytes_per_second:
            s.bandwidth_left = <int64_t>s.limits.bandwidth_out_bytes_per_second
    s.bandwidth_at_us = now.mono_us

cdef uint8_t *carve(uint8_t **at, size_t size) noexcept nogil:
    cdef uint8_t *here = at[0]
    at[0] += (size + 63) & ~<size_t>63
    return here


cdef class Node:
    """One identity. Not thread-safe: one thread drives it.

    peer_id, seed: 32 bytes each. address: the advertised IPv4 address as a number, host byte order (0: not known yet, then
    joins are not stamped). peers: (address number, port, peer_id) of other indexed peers. The rest are limits; sizes of tables
    are fixed from here on. selection: "weighed", the rules of choose.pyx; "reference", those of the reference peer, for the
    simulator to compare with.
    Raises ValueError for sizes that cannot be, MemoryError.
    """

    def __cinit__(self, *, bytes peer_id, bytes seed, uint32_t address=0, uint16_t port=0, uint16_t probe_port=0,
                  uint8_t nat_type=31, double keep_alive=30.0, int64_t mono_us=0, int64_t wall_ms=0, indexed_peers=(),
                  uint32_t peers=100000, uint32_t gate_entries=262144, uint32_t meter_entries=65536, uint32_t parked=1024,
                  uint32_t return_routes=16384, uint32_t sync_jobs=256, uint32_t deferred_joins=256,
                  uint32_t queue_datagrams=16384, uint32_t queue_bytes=0, uint32_t spare_peers=64, uint32_t clusters=0,
                  uint32_t subclusters=64, uint32_t unpublished=4096, uint32_t challenges=64, uint32_t events=256,
                  uint32_t access_rules=SRP_RULES_MAX,
                  uint64_t cache_max_bytes=16000000, uint32_t cache_ttl=21600, uint32_t app_bytes=0, uint32_t attempts=0,
                  uint32_t pool_open=0, selection="weighed", **limits):
        cdef State *s
        cdef Limits checked
        cdef uint8_t *at
        cdef size_t total
        cdef uint32_t configured = <uint32_t>len(indexed_peers) + spare_peers
        cdef uint32_t gate, small, routes, meters, parked_sets, lately
        cdef uint8_t digest[32]
        cdef srp_part part[2]
        cdef uint8_t label = 1
        cdef uint64_t slab
        if len(peer_id) != 32 or len(seed) != 32:
            raise ValueError("peer_id and seed are 32 bytes each")
        if not 1 <= peers <= 1000000:
            raise ValueError("peers: 1 to 1000000")
        if not 4096 <= cache_max_bytes <= 64000000000:
            raise ValueError("cache_max_bytes: 4096 to 64000000000")
        if not 64 <= queue_datagrams <= 1000000:
            raise ValueError("queue_datagrams: 64 to 1000000")
        if queue_bytes != 0 and not 4096 <= queue_bytes <= 1 << 31:
            raise ValueError("queue_bytes: 0 for 256 a datagram, or 4096 to 2147483648")
        if not 1 <= subclusters <= 65536 or not 1 <= unpublished <= 1 << 20 or not 1 <= events <= 1 << 16 or not 1 <= challenges <= 1 << 16:
            raise ValueError("subclusters, unpublished, events, challenges: at least 1")
        if spare_peers > 65536 or clusters > 4000000 or access_rules > SRP_RULES_MAX:
            raise ValueError("a table is larger than it may be")
        if not 0.05 <= keep_alive <= 3600:
            raise ValueError("keep_alive: 0.05 to 3600 seconds")
        if selection not in ("weighed", "reference"):
            raise ValueError("selection: weighed or reference")
        if gate_entries > 1 << 28 or meter_entries > 1 << 26 or parked > 1 << 20 or return_routes > 1 << 24 or sync_jobs >= 1 << 16 or deferred_joins > 1 << 16 \
                or app_bytes > 1 << 30 or attempts > 1 << 12:
            raise ValueError("a table is larger than it may be")
        if app_bytes != 0:
            app_bytes = srp_pow2(app_bytes)  # its counts wrap at 2^32
        fill_limits(&checked, limits)
        if clusters == 0:
            clusters = 2 * peers + 64
        gate = srp_recent_cells(gate_entries)
        small = srp_recent_cells(gate_entries // 4)
        routes = srp_recent_cells(return_routes)
        meters = srp_recent_cells(meter_entries)
        parked_sets = srp_pow2((parked + 1) // 2) if parked else 0
        lately = srp_pow2(LATELY_BITS * peers) if peers > 8 else 512
        slab = <uint64_t>queue_datagrams * 256 + 16 * <uint64_t>SRP_DATAGRAM_MAX if queue_bytes == 0 else queue_bytes
        total = sizeof(State) + srp_peers_bytes(peers, configured, clusters) + srp_store_bytes(cache_max_bytes) \
            + sizeof(srp_recent_cell) * (<size_t>gate + 2 * small + routes) + sizeof(srp_meter_cell) * <size_t>meters * 4 \
            + sizeof(Parked) * 2 * <size_t>parked_sets + <size_t>lately // 2 + (sizeof(SyncJob) + sizeof(Comparison)) * <size_t>sync_jobs \
            + sizeof(Deferred) * <size_t>deferred_joins \
            + sizeof(srp_datagram) * <size_t>queue_datagrams + <size_t>slab + app_bytes \
            + (sizeof(Attempt) + sizeof(Proxied)) * <size_t>attempts + (32 * <size_t>unpublished if app_bytes else 0) \
            + sizeof(Own) * <size_t>subclusters + sizeof(Challenge) * <size_t>challenges + sizeof(Event) * <size_t>events \
            + (4 + 4 + 1 + 8) * <size_t>access_rules + 64 * 32
        self.table_bytes = total
        self.state = <State *>PyMem_RawCalloc(1, total)
        if self.state == NULL:
            raise MemoryError(f"{total} bytes for the tables")
        s = self.state
        at = <uint8_t *>s
        at += (64 - <size_t>at % 64) % 64
        carve(&at, sizeof(State))
        self.settings = dict(limits, keep_alive=keep_alive, peers=peers, cache_max_bytes=cache_max_bytes)
        self.scratch = bytearray()

        memcpy(s.peer_id, <const uint8_t *>peer_id, 32)
        part[0].at = <const uint8_t *>seed
        part[0].len = 32
        part[1].at = &label
        part[1].len = 1
        srp_sha256(part, 2, digest)
        memcpy(&s.key, digest, 16)
        memcpy(s.secret, digest + 16, 16)
        label = 2
        srp_sha256(part, 2, digest)
        memcpy(&s.random, digest, 8)

        s.limits = checked
        s.reference = selection == "reference"
        s.address = address
        s.port = port
        s.probe_port = probe_port
        s.nat_type = nat_type
        s.keep_alive_us = <int64_t>(keep_alive * 1e6)
        s.cache_ttl_s = cache_ttl
        s.store_max = cache_max_bytes
        s.budget = -1
        s.rules_default_allow = 1
        s.now.mono_us = mono_us
        s.started_us = s.second_at_us = s.bandwidth_at_us = mono_us
        s.heartbeat_at_us = mono_us - s.keep_alive_us
        s.carried_packets.at_us = s.carried_joins.at_us = mono_us - 60000000  # a whole minute of credit
        s.now.wall_ms = wall_ms
        set_time(s, s.now)
        begin_rounds(s)

        srp_peers_init(&s.peers, carve(&at, srp_peers_bytes(peers, configured, clusters)), peers, configured, clusters, s.key)
        srp_store_init(&s.store, carve(&at, srp_store_bytes(cache_max_bytes)), cache_max_bytes, &s.peers, s.peer_id, mono_us)
        srp_recent_init(&s.gate_publish, <srp_recent_cell *>carve(&at, sizeof(srp_recent_cell) * <size_t>gate), gate)
        srp_recent_init(&s.gate_join, <srp_recent_cell *>carve(&at, sizeof(srp_recent_cell) * <size_t>small), small)
        srp_recent_init(&s.gate_other, <srp_recent_cell *>carve(&at, sizeof(srp_recent_cell) * <size_t>small), small)
        srp_recent_init(&s.routes, <srp_recent_cell *>carve(&at, sizeof(srp_recent_cell) * <size_t>routes), routes)
        srp_meter_init(&s.endpoints, <srp_meter_cell *>carve(&at, sizeof(srp_meter_cell) * <size_t>meters), meters)
        srp_meter_init(&s.addresses, <srp_meter_cell *>carve(&at, sizeof(srp_meter_cell) * <size_t>meters), meters)
        srp_meter_init(&s.prefixes, <srp_meter_cell *>carve(&at, sizeof(srp_meter_cell) * <size_t>meters), meters)
        srp_meter_init(&s.join_targets, <srp_meter_cell *>carve(&at, sizeof(srp_meter_cell) * <size_t>meters), meters)
        s.parked = <Parked *>carve(&at, sizeof(Parked) * 2 * <size_t>parked_sets)
        s.parked_sets = parked_sets
        start_strangers(s, <uint64_t *>carve(&at, <size_t>lately // 2), lately)
        s.job = <SyncJob *>carve(&at, sizeof(SyncJob) * <size_t>sync_jobs)
        s.jobs = sync_jobs
        s.comparison = <Comparison *>carve(&at, sizeof(Comparison) * <size_t>sync_jobs)
        s.deferred = <Deferred *>carve(&at, sizeof(Deferred) * <size_t>deferred_joins)
        s.deferred_size = deferred_joins
        s.out = <srp_datagram *>carve(&at, sizeof(srp_datagram) * <size_t>queue_datagrams)
        s.out_capacity = queue_datagrams
        s.slab = carve(&at, <size_t>slab)
        s.slab_size = <uint32_t>slab if slab < 0xffff0000 else 0xffff0000
        s.attempt = <Attempt *>carve(&at, sizeof(Attempt) * <size_t>attempts)
        s.proxied = <Proxied *>carve(&at, sizeof(Proxied) * <size_t>attempts)
        s.attempts = s.proxies = attempts
        s.app_size = app_bytes
        if app_bytes != 0:
            s.app = carve(&at, app_bytes)
            s.unpublished = carve(&at, 32 * <size_t>unpublished)
            s.unpublished_size = unpublished
        s.own = <Own *>carve(&at, sizeof(Own) * <size_t>subclusters)
        s.own_size = subclusters
        s.challenge = <Challenge *>carve(&at, sizeof(Challenge) * <size_t>challenges)
        s.challenge_size = challenges
        s.event = <Event *>carve(&at, sizeof(Event) * <size_t>events)
        s.event_size = events
        s.rule_addr = <uint32_t *>carve(&at, 4 * <size_t>access_rules)
        s.rule_mask = <uint32_t *>carve(&at, 4 * <size_t>access_rules)
        s.rule_allow = carve(&at, access_rules)
        s.cluster_rule = <uint64_t *>carve(&at, 8 * <size_t>access_rules)
        s.rules_size = access_rules
        s.pool_open = pool_open
        s.reflection.wanted = nat_type == 0

        for peer_address, peer_port, other_id in indexed_peers:
            if len(other_id) != 32:
                raise ValueError("a peer_id is 32 bytes")
            if other_id != peer_id and add_configured(s, peer_address, peer_port, other_id) == <uint32_t>SRP_NONE:
                raise ValueError(f"two peers with one address and port, or one peer_id: {other_id.hex()}")

    def __dealloc__(self):
        PyMem_RawFree(self.state)

    # --- for compiled drivers ---------------------------------------------------------------------------------------------

    cdef void receive_batch(self, srp_datagram *batch, uint32_t count, srp_now now) noexcept nogil:
        """Handles a batch in order. The buffers may be patched and belong to the core until output_done()."""
        cdef State *s = self.state
        cdef Ahead ahead[AHEAD]
        cdef srp_frame frame
        cdef uint32_t i, n
        set_time(s, now)
        frame.size = 0
        while count > 0:
            n = AHEAD if count > AHEAD else count
            for i in range(n):
                look_ahead(s, &batch[i], &ahead[i], i == 0)
            for i in range(n):
                if i == 0 or ahead[i].endpoint != ahead[i - 1].endpoint:
                    srp_peers_prefetch(&s.peers, ahead[i].endpoint)
            for i in range(n):
                receive_one(s, &batch[i], &ahead[i], &frame)
            batch += n
            count -= n

    cdef void tick_at(self, srp_now now) noexcept nogil:
        """Does what is due: heartbeats, expiry, sync, the summary, disputed names."""
        cdef State *s = self.state
        set_time(s, now)
        heartbeats(s)
        settle_challenges(s)
        refresh_summary(s)
        if s.reflection.wanted:
            work_on_reflection(s)
        if s.attempts_active != 0:
            work_on_attempts(s)
        if s.owns != 0:
            send_joins(s)
        if s.unpublished_count != 0 and s.peers.indexed_count + s.peers.live_count != 0:
            resend_unpublished(s)
        if s.fill_next_generation != 0:
            after_filling(s)
        if s.now.mono_us >= s.round_due_us and not s.reference:
            work_on_round(s)
        if s.deferred_count != 0:
            work_on_deferred(s)
        if s.comparisons_count != 0:
            work_on_comparisons(s)
        if s.jobs_active != 0:
            work_on_jobs(s)
        if s.store.count != 0 and s.now.mono_us >= s.expiry_at_us:
            expire_packets(s)

    cdef void pressed_at(self, srp_now now) noexcept nogil:
        """The driver loses datagrams that are for us, or has hardly any rest: strangers get less for a while."""
        set_time(self.state, now)
        under_pressure(self.state)

    cdef int64_t due_us(self) noexcept nogil:
        """Monotonic microseconds of the next tick that has anything to do."""
        cdef State *s = self.state
        cdef int64_t due = s.now.mono_us + 60000000, at
        if s.peers.due_first != <uint32_t>SRP_NONE:
            at = s.peers.peer[s.peers.due_first].due_us
            if at <= s.now.mono_us:  # work left over by the pace
                at = s.now.mono_us + 1000
            due = at if at < due else due
        if s.jobs_active + s.comparisons_count != 0:
            at = s.now.mono_us + TICK_US
            due = at if at < due else due
        if s.attempts_active != 0:
            at = s.attempts_due_us if s.attempts_due_us > s.now.mono_us else s.now.mono_us + 100
            due = at if at < due else due
        if s.reflection.wanted:
            due = s.reflection.due_us if s.reflection.due_us < due else due
        if s.owns != 0 and joins_possible(s):
            due = s.own_due_us if s.own_due_us < due else due
        if s.unpublished_count != 0 and s.peers.indexed_count + s.peers.live_count != 0:
            at = s.now.mono_us + TICK_US
            due = at if at < due else due
        if s.fill_next_generation != 0:
            due = s.filling_until_us if s.filling_until_us < due else due
        if not s.reference:
            due = s.round_due_us if s.round_due_us < due else due
        if s.deferred_count != 0:
            due = s.deferred_due_us if s.deferred_due_us < due else due
        if s.challenges != 0:
            at = s.now.mono_us + 100000
            due = at if at < due else due
        if s.store.refreshing or s.store.top_dirty:
            at = s.refresh_at_us if s.refresh_at_us > s.now.mono_us else s.now.mono_us + 1000
            due = at if at < due else due
        if s.store.count != 0:
            due = s.expiry_at_us if s.expiry_at_us < due else due
        return due

    cdef uint32_t output(self, srp_datagram **items) noexcept nogil:
        """What is to be sent, in order. Valid until output_done()."""
        items[0] = self.state.out
        return self.state.out_count

    cdef void output_done(self) noexcept nogil:
        """All of the output has left (or was given up): its memory and the received buffers are free again."""
        self.state.out_count = 0
        self.state.slab_used = 0

    cdef int32_t command(self, uint32_t kind, void *data, uint64_t size, srp_now now) noexcept nogil:
        """A command from another thread, run by the driver between batches. Returns a result, negative: an errno."""
        cdef State *s = self.state
        cdef PeersQuestion *q
        cdef srp_peer *p
        cdef PeerView *view
        cdef EventsQuestion *e
        cdef srp_datagram d
        cdef Greeting *greeting
        if kind == COMMAND_PEERS and size >= sizeof(PeersQuestion):
            q = <PeersQuestion *>data
            q.count = 0
            while q.next < s.peers.capacity and q.count < PEERS_AT_ONCE and q.scanned < SCAN_AT_ONCE:
                p = &s.peers.peer[q.next]
                q.next += 1
                q.scanned += 1
                if not p.flags & SRP_PEER_USED:
                    continue
                view = &q.peer[q.count]
                q.count += 1
                fill_view(s, p, q.next - 1, view)
            q.scanned = 0
            return 1 if q.next < s.peers.capacity else 0
        if kind == COMMAND_LIMITS and size == sizeof(Limits):
            s.limits = (<Limits *>data)[0]
            return 0
        if kind == COMMAND_ADDRESS and size == sizeof(uint32_t):
            s.address = (<uint32_t *>data)[0]
            return 0
        if kind == COMMAND_RULES and size == sizeof(Rules):
            return apply_rules(s, <Rules *>data)
        if kind == COMMAND_EVENTS and size >= sizeof(EventsQuestion):
            e = <EventsQuestion *>data
            e.count = 0
            while s.event_count != 0 and e.count < SRP_EVENTS:
                e.event[e.count] = s.event[s.event_first]
                e.count += 1
                s.event_first = (s.event_first + 1) % s.event_size
                s.event_count -= 1
            return <int32_t>e.count
        if kind == COMMAND_GAUGES and size == sizeof(Gauges):
            fill_gauges(s, <Gauges *>data)
            return 0
        if kind == COMMAND_APP:
            return <int32_t>take_records(s, <uint8_t *>data, <uint32_t>size)
        set_time(s, now)
        if kind == COMMAND_REFLECT:
            start_reflection(s)
            return 0
        if kind == COMMAND_GREET and size == sizeof(Greeting):
            greeting = <Greeting *>data
            send_proof_ping(s, greeting.addr, greeting.port, 0)
            return 0
        if (kind == COMMAND_JOIN or kind == COMMAND_LEAVE) and size == 64:
            return (join_own if kind == COMMAND_JOIN else leave_own)(s, <uint8_t *>data, <uint8_t *>data + 32)
        if kind == COMMAND_PUBLISH or kind == COMMAND_STREAM or kind == COMMAND_QUERY:
            if size > SRP_DATAGRAM_MAX:
                return -22
            memset(&d, 0, sizeof(d))
            d.data = out_reserve(s)  # a copy: the output outlives the command
            if d.data == NULL:
                return -105
            d.len = <uint32_t>size
            memcpy(d.data, data, size)
            out_commit(s, d.len)
            if kind == COMMAND_PUBLISH:
                return publish_own(s, &d)
            if kind == COMMAND_STREAM:
                return stream_own(s, &d)
            return query_own(s, &d)
        return -22

    cdef bint wants_pool(self) noexcept nogil:
        """Whether the 256 sockets of the hard-NAT pool are needed and not open yet."""
        return self.state.pool_wanted and self.state.pool_open == 0

    cdef void pool_opened(self, uint32_t sockets) noexcept nogil:
        """So many sockets of the pool are open now; 0: there will be none for now."""
        self.state.pool_open = sockets
        self.state.pool_wanted = 0

    cdef bint app_waiting(self) noexcept nogil:
        """Whether there is something for the application: take it with COMMAND_APP."""
        return self.state.app_tail != self.state.app_head

    # --- the Python face ----------------------------------------------------------------------------------------------------

    def receive(self, data, source, local="0.0.0.0", int socket=0, *, int64_t mono_us, int64_t wall_ms):
        """One datagram from source (address, port). What it leads to is waiting in take()."""
        cdef srp_datagram d
        cdef srp_now now
        cdef Py_ssize_t n = len(data)
        cdef uint8_t *buffer
        if self.state.out_count != 0:
            raise RuntimeError("take() the output first: it points into the datagram before")
        if n > 65536:
            raise ValueError("a datagram has at most 65536 bytes")
        if not 0 <= socket < SRP_SOCKET_POOL + SRP_POOL:
            raise ValueError("socket: 0 main, 1 probe, 2 to 257 the pool")
        self.scratch = bytearray(data)
        buffer = self.scratch
        d.data = buffer
        d.len = <uint32_t>n
        host, port = source  # not by index: these modules are compiled without checks of bounds
        d.addr = address_number(host)
        d.port = port
        d.local = address_number(local)
        d.socket = <uint16_t>socket
        now.mono_us = mono_us
        now.wall_ms = wall_ms
        self.receive_batch(&d, 1, now)

    def tick(self, int64_t mono_us, int64_t wall_ms):
        """Does what is due at that time."""
        cdef srp_now now
        now.mono_us = mono_us
        now.wall_ms = wall_ms
        self.tick_at(now)

    def pressed(self, int64_t mono_us, int64_t wall_ms):
        """Datagrams are lost before they are handed in, or there is hardly time for them: strangers get less for a while."""
        cdef srp_now now
        now.mono_us = mono_us
        now.wall_ms = wall_ms
        self.pressed_at(now)

    def next_due_us(self):
        """Monotonic microseconds of the next useful tick()."""
        return self.due_us()

    def take(self):
        """What is to be sent: a list of (data, (address, port), local, socket). Empties the queue."""
        cdef srp_datagram *items
        cdef srp_datagram *d
        cdef uint32_t n = self.output(&items), i
        result = []
        for i in range(n):
            d = &items[i]
            result.append(((<char *>d.data)[:d.len], (address_text(d.addr), d.port), address_text(d.local), d.socket))
        self.output_done()
        return result

    def counters(self):
        """All counters by name; drops start with "drop_". Safe to call while another thread drives the node."""
        return read_counters(self.state.counter)

    def peers(self):
        """All peers as dictionaries. Only for the thread that drives the node; others use COMMAND_PEERS."""
        cdef PeersQuestion q
        cdef srp_now now = self.state.now
        cdef bint more = True
        result = []
        memset(&q, 0, sizeof(q))
        while more:
            more = self.command(COMMAND_PEERS, &q, sizeof(q), now) == 1
            result.extend(unpack_peers((<char *>&q)[:sizeof(q)]))
        return result

    def gauges(self):
        """Sizes of the tables now. Only for the thread that drives the node; others use COMMAND_GAUGES."""
        cdef Gauges g
        fill_gauges(self.state, &g)
        return unpack_gauges((<char *>&g)[:sizeof(g)])

    def events(self):
        """What happened since the last call, oldest first. Only for the thread that drives the node."""
        cdef EventsQuestion q
        self.command(COMMAND_EVENTS, &q, sizeof(q), self.state.now)
        return unpack_events((<char *>&q)[:sizeof(q)])

    def join(self, bytes cluster, bytes subcluster):
        """Looks for members of this subcluster from now on (32 bytes each). OSError when there are too many."""
        self._do(COMMAND_JOIN, cluster + subcluster)

    def leave(self, bytes cluster, bytes subcluster):
        """Stops looking for them. OSError when it was not joined."""
        self._do(COMMAND_LEAVE, cluster + subcluster)

    def publish(self, bytes datagram):
        """Caches and multicasts a publish packet; to how many peers (0: kept until there are some).

        BlockingIOError when too many wait for the network already, else OSError.
        """
        return self._do(COMMAND_PUBLISH, datagram)

    def stream(self, bytes datagram):
        """Sends a stream packet to the peer that its usr3 names. OSError when no way there is known."""
        self._do(COMMAND_STREAM, datagram)

    def query(self, bytes datagram):
        """Multicasts a question; to how many peers."""
        return self._do(COMMAND_QUERY, datagram)

    def reflect(self):
        """Discovers the NAT again."""
        self._do(COMMAND_REFLECT, b"")

    def _do(self, uint32_t kind, bytes data):
        cdef Py_ssize_t n = len(data)
        cdef uint8_t *buffer
        cdef int32_t result
        if n > 4096:
            raise ValueError("a datagram of ours has at most 1421 bytes")
        if self.state.out_count != 0:
            raise RuntimeError("take() the output first")
        self.scratch = bytearray(data)
        buffer = self.scratch
        result = self.command(kind, buffer, n, self.state.now)
        if result < 0:
            raise OSError(-result, REFUSALS.get(-result, "refused"))
        return result

    def app_events(self):
        """What the application has not heard yet; see unpack_app()."""
        cdef bytes data = PyBytes_FromStringAndSize(NULL, self.state.app_tail - self.state.app_head)
        take_records(self.state, <uint8_t *><char *>data, <uint32_t>len(data))
        return unpack_app(data)

    def set_limits(self, **limits):
        """Replaces the limits (all of them: what is not named gets its default)."""
        fill_limits(&self.state.limits, limits)

    def set_rules(self, prefixes=(), bint default_allow=True, clusters=(), bint clusters_allow=False):
        """Access rules; see pack_rules()."""
        cdef Rules rules
        fill_rules(&rules, prefixes, default_allow, clusters, clusters_allow)
        if apply_rules(self.state, &rules) < 0:
            raise ValueError(f"at most {self.state.rules_size} rules of a kind")


# --- commands, packed and unpacked ------------------------------------------------------------------------------------------

REFUSALS = {2: "not joined", 17: "known already", 22: "not a packet for this", 28: "too many", 105: "queue full", 113: "no way there"}
JOIN = COMMAND_JOIN
LEAVE = COMMAND_LEAVE
PUBLISH = COMMAND_PUBLISH
STREAM = COMMAND_STREAM
QUERY = COMMAND_QUERY
REFLECT = COMMAND_REFLECT
APP = COMMAND_APP
GREET = COMMAND_GREET
PEERS = COMMAND_PEERS
LIMITS = COMMAND_LIMITS
ADDRESS = COMMAND_ADDRESS
RULES = COMMAND_RULES
EVENTS = COMMAND_EVENTS
GAUGES = COMMAND_GAUGES
PEERS_BYTES = sizeof(PeersQuestion)
EVENTS_BYTES = sizeof(EventsQuestion)
GAUGES_BYTES = sizeof(Gauges)

LIMIT_DEFAULTS = {
    "replicated_per_minute": 1024,
    "control_per_minute": 1048576,
    "address_per_minute": 4194304,
    "prefix_per_minute": 16777216,
    "unproven_per_second": 40000,
    "introductions": 16,
    "introductions_per_minute": 600,
    "relayed_joins_per_minute": 60,
    "deferred_joins_per_peer": 64,
    "attempts_per_minute": 1024,
    "punches_per_minute": 32,
    "peers_per_address": 4096,
    "peers_per_prefix": 16384,
    "sync_per_minute": 512,
    "sync_summaries_per_minute": 2048,
    "privileged_ports": False,
    "bandwidth_out_bytes_per_second": 0,
    "peer_out_bytes_per_second": 0,
    "publish_fan_out": 108,
    "fan_out_packets_per_second": 5000,
    "carried_per_minute": 120,
}

EVENT_KINDS = {1: "proven", 2: "connected", 3: "gone", 4: "name_moved", 5: "name_taken", 6: "refused", 7: "limited"}


cdef int fill_limits(Limits *l, dict given) except -1:
    cdef dict all_limits = dict(LIMIT_DEFAULTS)
    unknown = set(given) - set(all_limits)
    if unknown:
        raise TypeError(f"unknown limit: {sorted(unknown)[0]}")
    all_limits.update(given)
    l.replicated_per_minute = all_limits["replicated_per_minute"]
    l.control_per_minute = all_limits["control_per_minute"]
    l.address_per_minute = all_limits["address_per_minute"]
    l.prefix_per_minute = all_limits["prefix_per_minute"]
    l.unproven_per_second = all_limits["unproven_per_second"]
    l.introductions = all_limits["introductions"]
    l.introductions_per_minute = all_limits["introductions_per_minute"]
    l.relayed_joins_per_minute = all_limits["relayed_joins_per_minute"]
    l.deferred_joins_per_peer = all_limits["deferred_joins_per_peer"]
    l.attempts_per_minute = all_limits["attempts_per_minute"]
    l.punches_per_minute = all_limits["punches_per_minute"]
    l.peers_per_address = all_limits["peers_per_address"]
    l.peers_per_prefix = all_limits["peers_per_prefix"]
    l.sync_per_minute = all_limits["sync_per_minute"]
    l.sync_summaries_per_minute = all_limits["sync_summaries_per_minute"]
    l.privileged_ports = 1 if all_limits["privileged_ports"] else 0
    l.bandwidth_out_bytes_per_second = all_limits["bandwidth_out_bytes_per_second"]
    l.peer_out_bytes_per_second = all_limits["peer_out_bytes_per_second"]
    l.publish_fan_out = all_limits["publish_fan_out"]
    l.fan_out_packets_per_second = all_limits["fan_out_packets_per_second"]
    l.carried_per_minute = all_limits["carried_per_minute"]
    if not 3 <= l.publish_fan_out <= 120:
        raise ValueError("publish_fan_out: 3 to 120")
    return 0


cdef uint32_t address_number(text) except? 0:
    parts = [int(part) for part in text.split(".")]
    if len(parts) != 4 or not all(0 <= part <= 255 for part in parts):
        raise ValueError(f"not an IPv4 address: {text}")
    return parts[0] << 24 | parts[1] << 16 | parts[2] << 8 | parts[3]


cdef str address_text(uint32_t addr):
    return f"{addr >> 24}.{addr >> 16 & 255}.{addr >> 8 & 255}.{addr & 255}"


cdef void fill_view(State *s, srp_peer *p, uint32_t slot, PeerView *view) noexcept nogil:
    cdef uint32_t m = p.members
    memset(view, 0, sizeof(PeerView))
    memcpy(view.id, p.id, 32)
    view.addr = p.addr
    view.port = p.port
    view.nat_type = p.nat_type
    view.named = (p.flags & SRP_PEER_NAMED) != 0
    view.proven = proven(s, slot)
    view.connected = (p.flags & SRP_PEER_LIVE) != 0
    view.indexed = (p.flags & SRP_PEER_INDEXED) != 0
    view.distance_ms = p.distance_ms
    view.uptime_s = p.uptime_s
    view.age_ms = <uint32_t>((s.now.mono_us - p.last_update_us) // 1000)
    while m != <uint32_t>SRP_NONE:
        if view.clusters < 4:
            memcpy(view.cluster[view.clusters], s.peers.cluster[s.peers.member[m].cluster].prefix, 8)
        view.clusters += 1
        m = s.peers.member[m].peer_next


cdef void fill_gauges(State *s, Gauges *g) noexcept nogil:
    g.peers = s.peers.count
    g.connected = s.peers.live_count
    g.indexed = s.peers.indexed_count
    g.clusters = s.peers.cluster_count
    g.memberships = s.peers.member_count
    g.cache_packets = s.store.held
    g.cache_bytes = s.store.bytes
    g.cache_max_bytes = s.store_max
    g.sync_jobs = s.jobs_active
    g.strangers_per_second = strangers_allowed(s)
    memcpy(g.summary, s.store.top, 20)


cdef uint32_t take_records(State *s, uint8_t *out, uint32_t room) noexcept nogil:
    """Moves whole records from the application's ring to out; bytes moved."""
    cdef uint32_t done = 0, size, i
    while s.app_head != s.app_tail:
        size = 2 + (<uint32_t>s.app[s.app_head % s.app_size] | <uint32_t>s.app[(s.app_head + 1) % s.app_size] << 8)
        if done + size > room:
            break
        for i in range(size):
            out[done + i] = s.app[(s.app_head + i) % s.app_size]
        s.app_head += size
        done += size
    return done


def unpack_reflectors(bytes body):
    """Who told us our address: [((address, port), where it sees us, whether its probe socket reached ours), …]."""
    result = []
    for at in range(0, len(body) - 12, 13):
        peer = (address_text(int.from_bytes(body[at:at + 4], "little")), int.from_bytes(body[at + 4:at + 6], "little"))
        seen = (address_text(int.from_bytes(body[at + 6:at + 10], "little")), int.from_bytes(body[at + 10:at + 12], "little"))
        result.append((peer, seen, bool(body[at + 12])))
    return result


def unpack_app(data):
    """The records of an APP command's answer, oldest first:

    ("ready", nat_type, address, port, reflectors), see unpack_reflectors();
    ("join", peer_id, cluster, subcluster, nat_type, direct, address, port); ("leave", peer_id);
    ("packet", datagram, (address, port)) with where it came from, likewise "stream" and "answer". Ids are bytes.
    """
    cdef bytes copy = bytes(data)
    cdef Py_ssize_t at = 0
    result = []
    while at + 3 <= len(copy):
        size = int.from_bytes(copy[at:at + 2], "little")
        kind = copy[at + 2]
        body = copy[at + 3:at + 2 + size]
        at += 2 + size
        if kind == APP_READY:
            result.append(("ready", body[0], address_text(int.from_bytes(body[3:7], "little")),
                           int.from_bytes(body[1:3], "little"), unpack_reflectors(body[7:])))
        elif kind == APP_JOIN:
            result.append(("join", body[:32], body[32:64], body[64:96], body[96], bool(body[97]),
                           address_text(int.from_bytes(body[100:104], "little")), int.from_bytes(body[98:100], "little")))
        elif kind == APP_LEAVE:
            result.append(("leave", body))
        else:
            size -= 1 + 6  # the datagram; port and address of its sender follow
            source = (address_text(int.from_bytes(body[size + 2:], "little")),
                      int.from_bytes(body[size:size + 2], "little"))
            result.append(({APP_PACKET: "packet", APP_STREAM: "stream", APP_ANSWER: "answer"}[kind], body[:size], source))
    return result


cdef int fill_rules(Rules *rules, prefixes, bint default_allow, clusters, bint clusters_allow) except -1:
    cdef uint32_t i
    memset(rules, 0, sizeof(Rules))
    if len(prefixes) > SRP_RULES_MAX or len(clusters) > SRP_RULES_MAX:
        raise ValueError(f"at most {SRP_RULES_MAX} rules of a kind")
    rules.default_allow = default_allow
    rules.clusters_allow = clusters_allow
    for address, length, allow in prefixes:
        i = rules.count
        if not 0 <= length <= 32:
            raise ValueError(f"a prefix of {length} bits")
        rules.mask[i] = (0xffffffff << (32 - length)) & 0xffffffff
        rules.addr[i] = address_number(address) & rules.mask[i]
        rules.allow[i] = 1 if allow else 0
        rules.count += 1
    for cluster in clusters:
        if len(cluster) != 32:
            raise ValueError("a cluster id is 32 bytes")
        memcpy(rules.cluster[rules.clusters], <const uint8_t *>(<bytes>cluster), 32)
        rules.clusters += 1
    return 0


cdef int apply_rules(State *s, Rules *rules) noexcept nogil:
    cdef uint32_t i
    if rules.count > s.rules_size or rules.clusters > s.rules_size:
        return -28
    for i in range(rules.count):
        s.rule_addr[i] = rules.addr[i]
        s.rule_mask[i] = rules.mask[i]
        s.rule_allow[i] = rules.allow[i]
    s.rules = rules.count
    s.rules_default_allow = <uint8_t>rules.default_allow
    for i in range(rules.clusters):
        s.cluster_rule[i] = srp_cluster_key(&s.peers, rules.cluster[i], 32, NULL, 0)
    s.cluster_rules = rules.clusters
    s.cluster_rules_allow = <uint8_t>rules.clusters_allow
    return 0


cdef dict read_counters(const uint64_t *counter):
    cdef uint32_t i
    result = {}
    for i in range(1, SRP_COUNTERS):
        name = srp_counter_name(i).decode()
        result[f"drop_{name}" if i < SRP_DROPS else name] = counter[i]
    return result


def pack_limits(**limits):
    """The data of a LIMITS command; what is not named gets its default."""
    cdef Limits l
    memset(&l, 0, sizeof(l))
    fill_limits(&l, limits)
    return (<char *>&l)[:sizeof(l)]


def pack_address(text):
    """The data of an ADDRESS command."""
    cdef uint32_t addr = address_number(text)
    return (<char *>&addr)[:sizeof(addr)]


def pack_greeting(text, uint16_t port):
    """The data of a GREET command: a ping goes to this endpoint; whoever is there proves itself by the answer."""
    cdef Greeting greeting
    greeting.addr = address_number(text)
    greeting.port = port
    return (<char *>&greeting)[:sizeof(greeting)]


def pack_rules(prefixes=(), bint default_allow=True, clusters=(), bint clusters_allow=False):
    """The data of a RULES command. prefixes: (address, length, allow), the first that fits decides, else default_allow.
    clusters: ids of 32 bytes, the only ones served (clusters_allow) or those refused."""
    cdef Rules rules
    fill_rules(&rules, prefixes, default_allow, clusters, clusters_allow)
    return (<char *>&rules)[:sizeof(rules)]


def unpack_peers(data):
    """The peers in the answer to a PEERS command, as dictionaries."""
    cdef bytes copy = bytes(data)
    cdef const PeersQuestion *q = <const PeersQuestion *><const char *>copy
    cdef const PeerView *v
    cdef uint32_t i, j
    result = []
    for i in range(q.count):
        v = &q.peer[i]
        result.append({
            "peerId": (<const char *>v.id)[:32].hex() if v.named else None,
            "address": address_text(v.addr),
            "port": v.port,
            "natType": v.nat_type,
            "proven": bool(v.proven),
            "connected": bool(v.connected),
            "indexed": bool(v.indexed),
            "distance": None if v.distance_ms == 0xffffffff else v.distance_ms,
            "age": v.age_ms / 1000,
            "uptime": v.uptime_s,
            "clusters": [(<const char *>v.cluster[j])[:8].hex() for j in range(v.clusters if v.clusters < 4 else 4)],
        })
    return result


def unpack_events(data):
    """The events in the answer to an EVENTS command, oldest first."""
    cdef bytes copy = bytes(data)
    cdef const EventsQuestion *q = <const EventsQuestion *><const char *>copy
    cdef const Event *e
    cdef uint32_t i
    result = []
    for i in range(q.count):
        e = &q.event[i]
        result.append({
            "event": EVENT_KINDS[e.kind],
            "reason": srp_counter_name(e.reason).decode() if e.reason else None,
            "address": address_text(e.addr),
            "port": e.port,
            "peerId": (<const char *>e.peer_id)[:32].hex(),
            "wall_ms": e.wall_ms,
        })
    return result


def unpack_gauges(data):
    """The sizes of the tables in the answer to a GAUGES command."""
    cdef bytes copy = bytes(data)
    cdef const Gauges *g = <const Gauges *><const char *>copy
    return {
        "peers": g.peers, "connected": g.connected, "indexed": g.indexed, "clusters": g.clusters,
        "memberships": g.memberships, "cache_packets": g.cache_packets, "cache_bytes": g.cache_bytes,
        "cache_max_bytes": g.cache_max_bytes, "sync_jobs": g.sync_jobs, "strangers_per_second": g.strangers_per_second,
        "summary": (<const char *>g.summary)[:20].hex(),
    }
