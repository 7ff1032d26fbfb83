"""Packets that travel: publish and its cache, query and its return routes, streams through us (draft STATE_4, STATE_6).

A published packet is handled once: cached, and relayed to a few peers with one hop more. What the cache gives up, because it
is full or the packet's time is over, is relayed one last time. Nothing in here can read a packet.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from srpnode.core.app cimport APP_ANSWER, APP_PACKET, APP_STREAM, ROUTE_SELF, own_cluster, tell_packet
from srpnode.core.choose cimport LIGHT, Choice, choose_for_publish, choose_for_relay, proven
from srpnode.core.out cimport LIVE, STORED, STRANGE, Share, out_commit, out_replicated, out_reserve, out_to
from srpnode.core.rounds cimport came_by_round
from srpnode.core.state cimport State, drop
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_COUNT_answers_routed,
    SRP_COUNT_cache_bucket_full,
    SRP_COUNT_cache_ejected,
    SRP_COUNT_cache_expired,
    SRP_COUNT_cache_inserted,
    SRP_COUNT_cluster_table_full,
    SRP_COUNT_gate_evicted,
    SRP_COUNT_queries_answered,
    SRP_DATAGRAM_MAX,
    SRP_DROP_duplicate,
    SRP_DROP_hops,
    SRP_DROP_no_destination,
    SRP_DROP_no_route,
    SRP_DROP_packet_id,
    SRP_DROP_rate_endpoint,
    SRP_DROP_stale,
    SRP_FIELDS,
    SRP_HAS,
    SRP_HOPS_MAX,
    SRP_HOPS_OFFSET,
    SRP_KEY_PACKET_ID,
    SRP_NONE,
    SRP_OK,
    SRP_PACKET_ID,
    SRP_PEER_INDEXED,
    SRP_PUBLISH,
    SRP_QUERY,
    SRP_SUBCLUSTER_ID,
    SRP_TTL_OFFSET,
    SRP_USR1,
    SRP_USR3,
    SRP_USR4,
    c_bool,
    srp_cluster_find,
    srp_cluster_get,
    srp_cluster_key,
    srp_datagram,
    srp_frame,
    srp_frame_decode,
    srp_message,
    srp_packet,
    srp_packet_encode,
    srp_peer,
    srp_peers_is,
    srp_peers_named,
    srp_recent,
    srp_recent_add,
    srp_recent_cell,
    srp_recent_find,
    srp_sip,
    srp_span,
    srp_store_copy,
    srp_store_expired,
    srp_store_forget,
    srp_store_find,
    srp_store_holds,
    srp_store_insert,
    srp_store_remove,
    srp_store_victim,
    srp_unset,
)

cdef enum:
    QUERY_AGE_MS = 2048
    EXPIRE_AT_ONCE = 64     # packets whose time is over, relayed in one tick
    GENERATION_BITS = 12    # of a route's value; the rest is the slot

# --- relaying ---------------------------------------------------------------------------------------------------------

cdef void set_hops(uint8_t *data, uint32_t hops) noexcept nogil:
    cdef int i
    for i in range(4):
        data[SRP_HOPS_OFFSET + i] = <uint8_t>(hops >> (8 * (3 - i)))

cdef uint32_t multicast(State *s, uint8_t *data, srp_frame *frame, uint32_t source, Share share, uint32_t entry) noexcept nogil:
    """Sends one datagram, a hop older, to a few peers, who all share its bytes; to how many. share: LIVE, or STORED when it was
    sent before. entry: where a published packet is stored."""
    cdef Choice choice, without
    cdef uint32_t i, sent = 0
    cdef bint own = frame.hops == 0 and source == <uint32_t>SRP_NONE and share == LIVE
    cdef bint light = own or (source != <uint32_t>SRP_NONE and s.peers.peer[source].used_replicated <= LIGHT)
    cdef Share to_indexed
    cdef uint64_t cluster = 0, sub = 0
    cdef srp_peer *p
    cdef srp_span c = frame.field[SRP_CLUSTER_ID], u = frame.field[SRP_SUBCLUSTER_ID]
    without.count = 0
    if source != <uint32_t>SRP_NONE:
        without.count = 1
        without.peer[0] = source
    if c.len == 32:
        cluster = srp_cluster_key(&s.peers, data + c.at, 32, NULL, 0)
        if not srp_unset(data, u):
            sub = srp_cluster_key(&s.peers, data + c.at, 32, data + u.at, u.len)
    if frame.type == SRP_PUBLISH and not s.reference:
        choose_for_publish(s, &choice, sub, cluster, own, share == STORED, frame.hops, &s.store.entry[entry], light, &without)
    else:
        choose_for_relay(s, &choice, sub, cluster, &without)
    # What nobody here is a member of must leave room for what somebody is.
    to_indexed = share if choice.friends != 0 or light or s.reference else STORED
    set_hops(data, frame.hops + 1)
    for i in range(choice.count):
        p = &s.peers.peer[choice.peer[i]]
        if frame.type != SRP_PUBLISH:
            sent += out_to(s, p, data, frame.size)
        else:
            sent += out_replicated(s, p, data, frame.size,
                                   share if i < choice.friends else to_indexed if p.flags & SRP_PEER_INDEXED else STRANGE)
    return sent

cdef bint gated(State *s, srp_recent *gate, uint64_t key, uint32_t ttl_ms) noexcept nogil:
    if srp_recent_find(gate, key, s.now_ms) != NULL:
        drop(s, SRP_DROP_duplicate)
        return True
    if srp_recent_add(gate, key, s.now_ms, ttl_ms, 0):
        s.counter[SRP_COUNT_gate_evicted] += 1
    return False

# --- publish and the cache ----------------------------------------------------------------------------------------------

cdef uint32_t copy_stored(State *s, uint32_t entry, uint8_t *out) noexcept nogil:
    """Writes a packet of the cache with the time that it still has, or it would live anew wherever it comes; its size, 0: not held.

    (A ttl of 0 means the longest time to the reference, so the least is 1.)
    """
    cdef uint32_t size = srp_store_copy(&s.store, entry, out), i
    cdef int64_t left_ms = 1000 * (<int64_t>s.store.entry[entry].expires_s - 1 - s.now.mono_us // 1000000)
    cdef uint32_t ttl
    if size == 0 or s.reference:
        return size
    ttl = <uint32_t>left_ms if left_ms > 0 else 1
    for i in range(4):
        out[SRP_TTL_OFFSET + i] = <uint8_t>(ttl >> (8 * (3 - i)))
    return size

cdef void let_go(State *s, uint32_t entry, bint for_good) noexcept nogil:
    """Takes a packet out of the cache and relays it one last time. Unless for good its id stays: full caches would else hand their
    packets round for ever, as each that comes back ejects another, which is multicast and comes back to somebody."""
    cdef uint8_t *at = NULL
    cdef srp_frame frame
    cdef uint32_t size
    if s.peers.live_count + s.peers.indexed_count != 0 and s.store.entry[entry].hops < SRP_HOPS_MAX \
            and srp_store_holds(&s.store, entry):
        at = out_reserve(s)
    if at != NULL:
        size = copy_stored(s, entry, at)
        out_commit(s, size)
    if at != NULL and srp_frame_decode(at, size, &frame) == SRP_OK:
        multicast(s, at, &frame, SRP_NONE, STORED, entry)
    if for_good:
        srp_store_remove(&s.store, entry)
    else:
        srp_store_forget(&s.store, entry)

cdef uint32_t insert_packet(State *s, srp_datagram *d, srp_frame *frame, const uint8_t *id) noexcept nogil:
    """Stores a packet that is not in the cache; what must make room is relayed. Where it is."""
    cdef uint32_t victim, cluster = SRP_NONE, ttl_s = frame.ttl // 1000
    cdef uint64_t key
    cdef c_bool chain_full = False
    cdef srp_span c = frame.field[SRP_CLUSTER_ID]
    while True:
        victim = srp_store_victim(&s.store, id, frame.size, &chain_full)
        if victim == <uint32_t>SRP_NONE:
            break
        s.counter[SRP_COUNT_cache_bucket_full if chain_full else SRP_COUNT_cache_ejected] += 1
        if s.reference and not chain_full:
            victim = s.store.newest
        let_go(s, victim, s.reference)
    if c.len == 32:
        key = srp_cluster_key(&s.peers, d.data + c.at, 32, NULL, 0)
        cluster = srp_cluster_find(&s.peers, key)
        # Packets alone take half of the table at most: peers must find those of their cluster whatever others publish.
        if cluster == <uint32_t>SRP_NONE and s.peers.cluster_count < s.peers.cluster_capacity // 2:
            cluster = srp_cluster_get(&s.peers, key, d.data + c.at, 32)
        if cluster == <uint32_t>SRP_NONE:
            s.counter[SRP_COUNT_cluster_table_full] += 1
    if ttl_s > s.cache_ttl_s:
        ttl_s = s.cache_ttl_s
    s.counter[SRP_COUNT_cache_inserted] += 1
    return srp_store_insert(&s.store, id, d.data, <uint16_t>frame.size, frame.hops, cluster,
                            <uint32_t>(s.now.mono_us // 1000000) + ttl_s + 1)

cdef void on_publish(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot) noexcept nogil:
    """Caches and relays a packet that was not seen before."""
    cdef srp_span span = frame.field[SRP_PACKET_ID]
    cdef uint8_t *id = d.data + span.at
    cdef uint32_t entry
    if span.len != 32:
        drop(s, SRP_DROP_packet_id)
        return
    if gated(s, &s.gate_publish, s.packet_key if s.packet_key else srp_sip(&s.key, id, 32), <uint32_t>(6 * s.keep_alive_us // 1000)):
        return
    if srp_store_find(&s.store, id) != <uint32_t>SRP_NONE:
        drop(s, SRP_DROP_duplicate)
        return
    entry = insert_packet(s, d, frame, id)
    came_by_round(s, id, slot)
    if s.owns != 0 and own_cluster(s, d.data, frame) != NULL:
        tell_packet(s, APP_PACKET, d, frame)
    if frame.hops < SRP_HOPS_MAX:
        multicast(s, d.data, frame, slot, LIVE, entry)

cdef void expire_packets(State *s) noexcept nogil:
    """Lets the packets go whose time is over, a bounded number at a time."""
    cdef uint32_t entry, now_s = <uint32_t>(s.now.mono_us // 1000000), n
    cdef c_bool more = False
    for n in range(EXPIRE_AT_ONCE):
        entry = srp_store_expired(&s.store, now_s, &more)
        if entry == <uint32_t>SRP_NONE:
            break
        if srp_store_holds(&s.store, entry):
            s.counter[SRP_COUNT_cache_expired] += 1
            # It comes back from others who let it go in this moment.
            srp_recent_add(&s.gate_publish, srp_sip(&s.key, s.store.entry[entry].id, 32), s.now_ms,
                           <uint32_t>(6 * s.keep_alive_us // 1000), 0)
        let_go(s, entry, True)
    s.expiry_at_us = s.now.mono_us + 1000 if more else (s.now.mono_us // 1000000 + 1) * 1000000

# --- query ----------------------------------------------------------------------------------------------------------------

cdef int64_t decimal(const uint8_t *at, uint32_t length) noexcept nogil:
    """The number that a field begins with, -1 when it begins with none (as parseInt sees it)."""
    cdef int64_t value = 0
    cdef uint32_t i, start = 0
    while start < length and (at[start] == 32 or (at[start] >= 9 and at[start] <= 13)):
        start += 1
    for i in range(start, length):
        if at[i] < 48 or at[i] > 57:
            length = i
            break
        if value < 1000000000000000LL:
            value = 10 * value + at[i] - 48
    return value if length > start else -1

cdef void answer(State *s, srp_datagram *d, srp_frame *question, uint32_t entry, srp_peer *p) noexcept nogil:
    """Sends a copy of a cached packet as the answer: type query, the question's id, marked "2"."""
    cdef uint8_t copy[1424]
    cdef uint8_t two = 50
    cdef srp_frame frame
    cdef srp_packet packet
    cdef uint8_t *at = out_reserve(s)
    cdef uint32_t i, size
    if at == NULL:
        return
    size = srp_store_copy(&s.store, entry, copy)
    if srp_frame_decode(copy, size, &frame) != SRP_OK:
        return
    packet.type = SRP_QUERY
    packet.clock = frame.clock
    packet.hops = frame.hops
    packet.index = frame.index
    packet.ttl = frame.ttl
    for i in range(SRP_FIELDS):
        packet.field[i].at = copy + frame.field[i].at
        packet.field[i].len = frame.field[i].len
    packet.field[SRP_USR3].at = d.data + question.field[SRP_USR3].at
    packet.field[SRP_USR3].len = question.field[SRP_USR3].len
    packet.field[SRP_USR4].at = &two
    packet.field[SRP_USR4].len = 1
    size = srp_packet_encode(&packet, at, SRP_DATAGRAM_MAX)
    if size != 0 and out_to(s, p, at, size):
        out_commit(s, size)
        s.counter[SRP_COUNT_queries_answered] += 1

cdef void on_query(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil:
    """Answers a question from the cache or passes it on; passes an answer back along the way that its question came."""
    cdef srp_span q = frame.field[SRP_USR3], kind = frame.field[SRP_USR4], stamp = frame.field[SRP_USR1]
    cdef srp_span id = frame.field[SRP_PACKET_ID]
    cdef uint64_t key = srp_sip(&s.key, d.data + q.at, q.len)
    cdef uint32_t entry, ttl_ms = <uint32_t>(2 * s.keep_alive_us // 1000), value, to
    cdef srp_recent_cell *route
    cdef srp_peer *p
    cdef int64_t asked_ms
    if decimal(d.data + kind.at, kind.len) != 1:
        route = srp_recent_find(&s.routes, key, s.now_ms)
        if route == NULL:
            drop(s, SRP_DROP_no_route)
            return
        if route.value == <uint32_t>ROUTE_SELF:
            if not gated(s, &s.gate_other, key ^ srp_sip(&s.key, d.data + id.at, id.len), ttl_ms):
                tell_packet(s, APP_ANSWER, d, frame)
            return
        to = route.value >> GENERATION_BITS
        p = &s.peers.peer[to]
        if (p.generation & ((1 << GENERATION_BITS) - 1)) != (route.value & ((1 << GENERATION_BITS) - 1)) \
                or not proven(s, to) or to == slot:
            drop(s, SRP_DROP_no_route)
            return
        if frame.hops >= SRP_HOPS_MAX:
            drop(s, SRP_DROP_hops)
            return
        # Each packet of an answer once.
        if gated(s, &s.gate_other, key ^ srp_sip(&s.key, d.data + id.at, id.len), ttl_ms):
            return
        set_hops(d.data, frame.hops + 1)
        out_to(s, p, d.data, frame.size)
        s.counter[SRP_COUNT_answers_routed] += 1
        return
    asked_ms = decimal(d.data + stamp.at, stamp.len)
    if asked_ms >= 0 and asked_ms < s.now.wall_ms - QUERY_AGE_MS:
        drop(s, SRP_DROP_stale)
        return
    # By query id: two who ask for the same packet are two questions.
    if gated(s, &s.gate_other, key, ttl_ms):
        return
    # It makes us or others send more than it is: it counts like a publish, also against one in whose name it is forged.
    p = &s.peers.peer[slot]
    p.used_replicated += 1
    if s.limits.replicated_per_minute != 0 and p.used_replicated > s.limits.replicated_per_minute:
        drop(s, SRP_DROP_rate_endpoint)
        return
    if SRP_HAS(message, SRP_KEY_PACKET_ID):
        entry = srp_store_find(&s.store, message.packet_id)
        if entry != <uint32_t>SRP_NONE and srp_store_holds(&s.store, entry):
            answer(s, d, frame, entry, p)
            return
    if frame.hops >= SRP_HOPS_MAX:
        drop(s, SRP_DROP_hops)
        return
    value = (slot << GENERATION_BITS) | (p.generation & ((1 << GENERATION_BITS) - 1))
    srp_recent_add(&s.routes, key, s.now_ms, ttl_ms, value)
    multicast(s, d.data, frame, slot, LIVE, SRP_NONE)

# --- stream ---------------------------------------------------------------------------------------------------------------

cdef void on_stream(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot) noexcept nogil:
    """Forwards to the peer that the packet is for, one hop older, so that no two proxies can loop."""
    cdef srp_span to = frame.field[SRP_USR3], id
    cdef uint32_t other = SRP_NONE
    cdef srp_peer *p
    if to.len == 32 and s.app_size != 0 and memcmp(d.data + to.at, s.peer_id, 32) == 0:
        id = frame.field[SRP_PACKET_ID]
        if not gated(s, &s.gate_other, srp_sip(&s.key, d.data + id.at, id.len), <uint32_t>(s.keep_alive_us // 1000)):
            tell_packet(s, APP_STREAM, d, frame)
        return
    if to.len == 32:
        other = s.stream_to  # many go to one peer
        if not srp_peers_is(&s.peers, other, d.data + to.at):
            other = s.stream_to = srp_peers_named(&s.peers, d.data + to.at)
    if other == <uint32_t>SRP_NONE or other == slot or not proven(s, other):
        drop(s, SRP_DROP_no_destination)
        return
    if frame.hops >= SRP_HOPS_MAX:
        drop(s, SRP_DROP_hops)
        return
    p = &s.peers.peer[other]
    set_hops(d.data, frame.hops + 1)
    out_to(s, p, d.data, frame.size)
