"""What an application asks of its peer and hears from it. A node without applications never comes here.

Packets are sealed, split and opened outside the core. What arrives for the application waits in one bounded ring; when it is
full, the newest is dropped and counted.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from srpnode.core.choose cimport Choice, choose_friends, choose_indexed, choose_strangers, proven
from srpnode.core.gossip cimport insert_packet, multicast
from srpnode.core.out cimport LIVE, opened_share, out_commit, out_push, out_replicated, out_reserve, out_to
from srpnode.core.punch cimport Proxied, proxied_to
from srpnode.core.reach cimport join_cluster, scope_allows
from srpnode.core.state cimport Own, State, drop
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_COUNT_delivered,
    SRP_COUNT_published,
    SRP_COUNT_unpublished,
    SRP_COUNT_unpublished_lost,
    SRP_DATAGRAM_MAX,
    SRP_DROP_app_full,
    SRP_DROP_scope,
    SRP_HAS,
    SRP_JOIN,
    SRP_KEY_ADDRESS,
    SRP_KEY_KEY,
    SRP_KEY_NAT_TYPE,
    SRP_KEY_PORT,
    SRP_KEY_RENDEZVOUS_ADDRESS,
    SRP_KEY_RENDEZVOUS_PEER_ID,
    SRP_KEY_RENDEZVOUS_PORT,
    SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID,
    SRP_KEY_RENDEZVOUS_TYPE,
    SRP_KEY_REQUESTER_PEER_ID,
    SRP_MESSAGE,
    SRP_MESSAGE_MAX,
    SRP_NONE,
    SRP_OK,
    SRP_PACKET_ID,
    SRP_PEER_LIVE,
    SRP_PEER_NAMED,
    SRP_PUBLISH,
    SRP_QUERY,
    SRP_SOCKET_MAIN,
    SRP_STREAM,
    SRP_SUBCLUSTER_ID,
    SRP_USR3,
    srp_cluster_find,
    srp_cluster_key,
    srp_cluster_mark,
    srp_datagram,
    srp_frame,
    srp_frame_decode,
    srp_message,
    srp_message_offset,
    srp_message_write,
    srp_nat_valid,
    srp_packet,
    srp_packet_encode,
    srp_packet_init,
    srp_peer,
    srp_peers_is_member,
    srp_peers_named,
    srp_recent_add,
    srp_sip,
    srp_span,
    srp_store_copy,
    srp_store_find,
    srp_unset,
)

cdef enum:
    SECOND_JOIN_US = 1024000    # after the first: the reference repeats its join then, some meetings depend on it
    RESEND_AT_ONCE = 16
    ENOUGH_MEMBERS = 24
    JOINS_LATER = 8
    INTRODUCERS = 3             # indexed peers that a join goes to

# --- the ring of what the application has not heard yet --------------------------------------------------------------------

cdef void put(State *s, const void *data, uint32_t size) noexcept nogil:
    cdef uint32_t at = s.app_tail % s.app_size, first = s.app_size - at
    if size == 0:  # perhaps with NULL
        return
    if first > size:
        first = size
    memcpy(s.app + at, data, first)
    memcpy(s.app, <const uint8_t *>data + first, size - first)
    s.app_tail += size

cdef bint tell(State *s, uint8_t kind, const void *a, uint32_t a_len, const void *b, uint32_t b_len) noexcept nogil:
    """Appends a record: u16 length of what follows, u8 kind, a, b. False (counted) when there is no room."""
    cdef uint16_t size = <uint16_t>(1 + a_len + b_len)
    if s.app_size - (s.app_tail - s.app_head) < size + <uint32_t>2:
        if s.app_size != 0:
            drop(s, SRP_DROP_app_full)
        return False
    put(s, &size, 2)
    put(s, &kind, 1)
    put(s, a, a_len)
    put(s, b, b_len)
    return True

cdef void tell_ready(State *s) noexcept nogil:
    """natType u8, port u16, address u32; then for both reflectors address u32, port u16, where it sees us (u32, u16), knocked u8."""
    cdef uint8_t body[7 + 2 * 13]
    cdef uint8_t *at = body + 7
    cdef srp_peer *p
    cdef int i
    body[0] = s.nat_type
    memcpy(body + 1, &s.port, 2)
    memcpy(body + 3, &s.address, 4)
    for i in range(2):
        p = &s.peers.peer[s.reflection.first if i == 0 else s.reflection.second]
        memcpy(at, &p.addr, 4)
        memcpy(at + 4, &p.port, 2)
        memcpy(at + 6, &s.reflection.seen_addr[i], 4)
        memcpy(at + 10, &s.reflection.seen_port[i], 2)
        at[12] = (s.reflection.probes >> i) & 1
        at += 13
    tell(s, APP_READY, body, sizeof(body), NULL, 0)

cdef void tell_join(State *s, const uint8_t *peer_id, const uint8_t *cluster, const uint8_t *subcluster, uint8_t nat_type,
                    bint direct, uint32_t addr, uint16_t port) noexcept nogil:
    cdef uint8_t body[104]
    memcpy(body, peer_id, 32)
    memcpy(body + 32, cluster, 32)
    memcpy(body + 64, subcluster, 32)
    body[96] = nat_type
    body[97] = direct
    memcpy(body + 98, &port, 2)
    memcpy(body + 100, &addr, 4)
    tell(s, APP_JOIN, body, sizeof(body), NULL, 0)

cdef void tell_leave(State *s, const uint8_t *peer_id) noexcept nogil:
    tell(s, APP_LEAVE, peer_id, 32, NULL, 0)

cdef void tell_packet(State *s, uint8_t kind, srp_datagram *d, srp_frame *frame) noexcept nogil:
    """A packet for the application: the datagram, then the port (u16) and the address (u32) that it came from."""
    cdef uint8_t source[6]
    memcpy(source, &d.port, 2)
    memcpy(source + 2, &d.addr, 4)
    if tell(s, kind, d.data, frame.size, source, sizeof(source)):
        s.counter[SRP_COUNT_delivered] += 1

# --- clusters of our own --------------------------------------------------------------------------------------------------

cdef Own *own_cluster(State *s, const uint8_t *data, srp_frame *frame) noexcept nogil:
    """The subcluster of ours that a frame names, or NULL."""
    cdef srp_span c = frame.field[SRP_CLUSTER_ID], u = frame.field[SRP_SUBCLUSTER_ID]
    cdef uint32_t i
    if c.len != 32 or u.len != 32:
        return NULL
    for i in range(s.own_size):
        if s.own[i].used and memcmp(s.own[i].subcluster, data + u.at, 32) == 0 \
                and memcmp(s.own[i].cluster, data + c.at, 32) == 0:
            return &s.own[i]
    return NULL

cdef void met_peer(State *s, uint32_t slot, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil:
    """A proven peer is a member of this subcluster: noted, and told to the application if it is ours and news."""
    cdef Own *own = find_own(s, cluster, subcluster)
    cdef uint32_t at
    cdef srp_peer *p = &s.peers.peer[slot]
    if own != NULL:
        at = srp_cluster_find(&s.peers, own.key)
        if at == <uint32_t>SRP_NONE or not srp_peers_is_member(&s.peers, slot, at):
            tell_join(s, p.id, cluster, subcluster, p.nat_type, True, p.addr, p.port)
    join_cluster(s, slot, cluster, subcluster, 32)

cdef void met_by_frame(State *s, uint32_t slot, const uint8_t *data, srp_frame *frame) noexcept nogil:
    """Likewise, by the cluster and subcluster that a frame of the peer names."""
    cdef srp_span c = frame.field[SRP_CLUSTER_ID], u = frame.field[SRP_SUBCLUSTER_ID]
    cdef uint64_t mark
    if c.len != 32:
        return
    if s.owns == 0 and (u.len == 32 or srp_unset(data, u)):
        # What most pings do: name the same cluster again.
        mark = srp_cluster_mark(data + c.at, data + u.at if u.len == 32 else NULL)
        if s.peers.peer[slot].last_cluster == mark:
            return
        s.peers.peer[slot].last_cluster = mark
    if s.owns != 0 and u.len == 32:
        met_peer(s, slot, data + c.at, data + u.at)
    elif srp_unset(data, u):
        join_cluster(s, slot, data + c.at, NULL, 0)
    else:
        join_cluster(s, slot, data + c.at, data + u.at, u.len)

cdef uint32_t base64(const uint8_t *data, uint32_t size, char *out) noexcept nogil:
    cdef const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef uint32_t i = 0, n = 0, word, left
    while i < size:
        left = size - i
        word = <uint32_t>data[i] << 16
        if left > 1:
            word |= <uint32_t>data[i + 1] << 8
        if left > 2:
            word |= data[i + 2]
        out[n] = digits[word >> 18]
        out[n + 1] = digits[(word >> 12) & 63]
        out[n + 2] = digits[(word >> 6) & 63] if left > 1 else 61
        out[n + 3] = digits[word & 63] if left > 2 else 61
        n += 4
        i += 3
    return n

cdef Own *find_own(State *s, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil:
    cdef uint32_t i
    for i in range(s.own_size):
        if s.own[i].used and memcmp(s.own[i].subcluster, subcluster, 32) == 0 and memcmp(s.own[i].cluster, cluster, 32) == 0:
            return &s.own[i]
    return NULL

cdef void tell_members(State *s, Own *own) noexcept nogil:
    """The application hears at once of those who are known to be members already: nobody introduces them again so soon."""
    cdef uint32_t i, at, cluster = srp_cluster_find(&s.peers, own.key)
    cdef srp_peer *p
    if cluster == <uint32_t>SRP_NONE:
        return
    at = s.peers.cluster[cluster].ring
    for i in range(s.peers.cluster[cluster].members):
        p = &s.peers.peer[s.peers.member[at].peer]
        if p.flags & SRP_PEER_LIVE and p.flags & SRP_PEER_NAMED and proven(s, s.peers.member[at].peer):
            tell_join(s, p.id, own.cluster, own.subcluster, p.nat_type, True, p.addr, p.port)
        at = s.peers.member[at].ring_next

cdef int join_own(State *s, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil:
    """From now on we look for members of this subcluster. 0, -ENOSPC when there are too many."""
    cdef uint32_t i
    cdef Own *own
    if find_own(s, cluster, subcluster) != NULL:
        return 0
    for i in range(s.own_size):
        own = &s.own[i]
        if own.used:
            continue
        memset(own, 0, sizeof(Own))
        memcpy(own.cluster, cluster, 32)
        memcpy(own.subcluster, subcluster, 32)
        own.cluster_key = srp_cluster_key(&s.peers, cluster, 32, NULL, 0)
        own.key = srp_cluster_key(&s.peers, cluster, 32, subcluster, 32)
        own.text_len = base64(cluster, 32, own.text)
        own.text[own.text_len] = 58
        own.text_len += 1 + base64(subcluster, 32, own.text + own.text_len + 1)
        own.due_us = s.own_due_us = s.now.mono_us
        own.used = 1
        s.owns += 1
        tell_members(s, own)
        return 0
    return -28

cdef int leave_own(State *s, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil:
    cdef Own *own = find_own(s, cluster, subcluster)
    if own == NULL:
        return -2
    own.used = 0
    s.owns -= 1
    return 0

# --- joins ----------------------------------------------------------------------------------------------------------------

cdef void rejoin_soon(State *s) noexcept nogil:
    """All our subclusters are joined again at once: after a discovery of the NAT."""
    cdef uint32_t i
    for i in range(s.own_size):
        if s.own[i].used:
            s.own[i].due_us = s.now.mono_us
            s.own[i].clock = 0
    s.own_due_us = s.now.mono_us

cdef void begin_join(State *s, Own *own, srp_packet *packet, srp_message *message) noexcept nogil:
    srp_packet_init(packet, SRP_JOIN)
    packet.field[SRP_CLUSTER_ID].at = own.cluster
    packet.field[SRP_CLUSTER_ID].len = 32
    packet.field[SRP_SUBCLUSTER_ID].at = own.subcluster
    packet.field[SRP_SUBCLUSTER_ID].len = 32
    message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_NAT_TYPE) | (1u << SRP_KEY_ADDRESS) \
        | (1u << SRP_KEY_PORT)
    message.truth = 0
    memcpy(message.requester_peer_id, s.peer_id, 32)
    message.nat_type = s.nat_type
    message.address = s.address
    message.port = s.port

cdef uint32_t end_join(State *s, srp_packet *packet, srp_message *message, uint8_t *at) noexcept nogil:
    cdef uint32_t size, offset = srp_message_offset(packet)
    packet.field[SRP_MESSAGE].at = at + offset
    packet.field[SRP_MESSAGE].len = srp_message_write(SRP_JOIN, message, <char *>at + offset, SRP_MESSAGE_MAX)
    size = srp_packet_encode(packet, at, SRP_DATAGRAM_MAX)
    if size != 0:
        out_commit(s, size)
    return size

cdef void send_join(State *s, Own *own) noexcept nogil:
    """One join of ours: to a few introducers, to friends, and to others in the places that these leave."""
    cdef srp_packet packet
    cdef srp_message message
    cdef Choice choice, none
    cdef uint8_t *at
    cdef uint32_t i, size
    cdef srp_peer *p
    choice.count = none.count = 0
    for i in range(INTRODUCERS):
        choose_indexed(s, &choice, &none)
    choose_friends(s, &choice, own.key, own.cluster_key, choice.count + 2 if choice.count < 2 or s.reference else choice.count, &none)
    choose_strangers(s, &choice, 3, &none)
    at = out_reserve(s)
    if at == NULL or choice.count == 0:
        return
    begin_join(s, own, &packet, &message)
    message.has |= 1u << SRP_KEY_KEY
    message.key = own.text
    message.key_len = own.text_len
    s.clock += 1
    packet.clock = s.clock
    packet.hops = 1
    size = end_join(s, &packet, &message, at)
    for i in range(choice.count if size != 0 else 0):
        p = &s.peers.peer[choice.peer[i]]
        out_replicated(s, p, at, size, LIVE)

cdef bint joins_possible(State *s) noexcept nogil:
    return srp_nat_valid(s.nat_type) and s.address != 0 and s.peers.indexed_count + s.peers.live_count != 0

cdef int64_t join_interval_us(State *s, Own *own) noexcept nogil:
    """Until the next join: a keep-alive, longer for who knows enough members. Heartbeats keep it known meanwhile."""
    cdef uint32_t cluster = srp_cluster_find(&s.peers, own.key)
    if not s.reference and cluster != <uint32_t>SRP_NONE and s.peers.cluster[cluster].members >= ENOUGH_MEMBERS:
        return JOINS_LATER * s.keep_alive_us
    return s.keep_alive_us

cdef void send_joins(State *s) noexcept nogil:
    """Joins what is due: at once, 1.024 s later, then once every keep-alive."""
    cdef uint32_t i
    cdef Own *own
    if s.now.mono_us < s.own_due_us or not joins_possible(s):
        return
    s.own_due_us = s.now.mono_us + s.keep_alive_us
    for i in range(s.own_size):
        own = &s.own[i]
        if own.used and own.due_us <= s.now.mono_us:
            send_join(s, own)
            own.clock += 1
            own.due_us = s.now.mono_us + (SECOND_JOIN_US if own.clock == 1 else join_interval_us(s, own))
        if own.used and own.due_us < s.own_due_us:
            s.own_due_us = own.due_us

cdef void answer_elsewhere(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, Own *own) noexcept nogil:
    """A member of our cluster joined at another peer, who stamped its join: ask that one to introduce us."""
    cdef srp_packet packet
    cdef srp_message answer
    cdef uint8_t *at
    cdef uint32_t size
    if not SRP_HAS(message, SRP_KEY_RENDEZVOUS_ADDRESS) or not SRP_HAS(message, SRP_KEY_RENDEZVOUS_PORT) \
            or SRP_HAS(message, SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID) or not srp_nat_valid(s.nat_type) or s.address == 0:
        return
    if not scope_allows(s, message.rendezvous_address, message.rendezvous_port):
        drop(s, SRP_DROP_scope)
        return
    at = out_reserve(s)
    if at == NULL:
        return
    begin_join(s, own, &packet, &answer)
    packet.clock = frame.clock
    answer.has |= (1u << SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID) | (1u << SRP_KEY_RENDEZVOUS_TYPE)
    answer.rendezvous_type = message.nat_type
    memcpy(answer.rendezvous_requester_peer_id, message.requester_peer_id, 32)
    if SRP_HAS(message, SRP_KEY_RENDEZVOUS_PEER_ID):
        answer.has |= 1u << SRP_KEY_RENDEZVOUS_PEER_ID
        memcpy(answer.rendezvous_peer_id, message.rendezvous_peer_id, 32)
    size = end_join(s, &packet, &answer, at)
    if size != 0:
        out_push(s, at, size, message.rendezvous_address, message.rendezvous_port, d.local, SRP_SOCKET_MAIN)

# --- packets of our own ---------------------------------------------------------------------------------------------------

cdef void keep_unpublished(State *s, const uint8_t *id) noexcept nogil:
    cdef uint32_t at
    if s.unpublished_size == 0:
        return
    if s.unpublished_count == s.unpublished_size:
        s.counter[SRP_COUNT_unpublished_lost] += 1
        s.unpublished_first = (s.unpublished_first + 1) % s.unpublished_size
        s.unpublished_count -= 1
    at = (s.unpublished_first + s.unpublished_count) % s.unpublished_size
    memcpy(s.unpublished + 32 * <uint64_t>at, id, 32)
    s.unpublished_count += 1
    s.counter[SRP_COUNT_unpublished] += 1

cdef int publish_own(State *s, srp_datagram *d) noexcept nogil:
    """Caches and multicasts a packet of ours. The number of peers it went to (0: kept until there are some).

    -EINVAL, -EEXIST; -EAGAIN when as many as can be kept wait for the network already: nothing was done.
    """
    cdef srp_frame frame
    cdef srp_span id
    cdef uint32_t sent
    if srp_frame_decode(d.data, d.len, &frame) != SRP_OK or frame.type != SRP_PUBLISH or frame.field[SRP_PACKET_ID].len != 32:
        return -22
    id = frame.field[SRP_PACKET_ID]
    if srp_store_find(&s.store, d.data + id.at) != <uint32_t>SRP_NONE:
        return -17
    if s.unpublished_size != 0 and s.unpublished_count == s.unpublished_size:
        return -11
    srp_recent_add(&s.gate_publish, srp_sip(&s.key, d.data + id.at, 32), s.now_ms, <uint32_t>(6 * s.keep_alive_us // 1000), 0)
    sent = multicast(s, d.data, &frame, SRP_NONE, LIVE, insert_packet(s, d, &frame, d.data + id.at))
    s.counter[SRP_COUNT_published] += 1
    if sent == 0:
        keep_unpublished(s, d.data + id.at)
    return <int>sent

cdef void resend_unpublished(State *s) noexcept nogil:
    """The network is back: what nobody got goes out, a few packets at a time."""
    cdef uint32_t n = RESEND_AT_ONCE, entry, size
    cdef uint8_t *at
    cdef srp_frame frame
    while n > 0 and s.unpublished_count > 0:
        n -= 1
        entry = srp_store_find(&s.store, s.unpublished + 32 * <uint64_t>s.unpublished_first)
        if entry != <uint32_t>SRP_NONE:
            at = out_reserve(s)
            if at == NULL:
                return
            size = srp_store_copy(&s.store, entry, at)
            if srp_frame_decode(at, size, &frame) == SRP_OK:
                out_commit(s, size)
                if multicast(s, at, &frame, SRP_NONE, LIVE, entry) == 0:
                    return
        s.unpublished_first = (s.unpublished_first + 1) % s.unpublished_size
        s.unpublished_count -= 1

cdef int stream_own(State *s, srp_datagram *d) noexcept nogil:
    """Sends a stream packet to the peer that its usr3 names, directly or by its proxy. 0, -EHOSTUNREACH, -EINVAL."""
    cdef srp_frame frame
    cdef srp_span to
    cdef uint32_t slot
    cdef Proxied *proxied
    cdef srp_peer *p
    if srp_frame_decode(d.data, d.len, &frame) != SRP_OK or frame.type != SRP_STREAM or frame.field[SRP_USR3].len != 32:
        return -22
    to = frame.field[SRP_USR3]
    slot = srp_peers_named(&s.peers, d.data + to.at)
    if slot == <uint32_t>SRP_NONE or not proven(s, slot):
        proxied = proxied_to(s, d.data + to.at)
        if proxied == NULL:
            return -113
        slot = proxied.proxy
    elif not opened_share(&s.peers.peer[slot]):
        proxied = proxied_to(s, d.data + to.at)
        if proxied != NULL:
            slot = proxied.proxy
    p = &s.peers.peer[slot]
    return 0 if out_to(s, p, d.data, frame.size) else -105

cdef int query_own(State *s, srp_datagram *d) noexcept nogil:
    """Multicasts a question of ours; its answers come as APP_ANSWER. The number of peers it went to, -EINVAL."""
    cdef srp_frame frame
    cdef srp_span q
    cdef uint64_t key
    cdef uint32_t ttl_ms = <uint32_t>(2 * s.keep_alive_us // 1000)
    if srp_frame_decode(d.data, d.len, &frame) != SRP_OK or frame.type != SRP_QUERY or frame.field[SRP_USR3].len != 32:
        return -22
    q = frame.field[SRP_USR3]
    key = srp_sip(&s.key, d.data + q.at, q.len)
    srp_recent_add(&s.gate_other, key, s.now_ms, ttl_ms, 0)
    srp_recent_add(&s.routes, key, s.now_ms, ttl_ms, ROUTE_SELF)
    return <int>multicast(s, d.data, &frame, SRP_NONE, LIVE, SRP_NONE)
