"""Who is there, and can it be believed: ping, pong, proof of endpoints, heartbeats, names (draft STATE_1, STATE_2).

An endpoint is proven once it answered a ping of ours with the pingId that only it could have read: 48 bits of a keyed hash
over the endpoint and an epoch. Until then nothing is stored about it but, perhaps, one parked datagram; it gets at most three
bytes for each byte it sent, and only at its own address. Everything else in the core stands on proven endpoints.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from srpnode.core.app cimport met_by_frame, tell_leave
from srpnode.core.choose cimport proven
from srpnode.core.nat cimport compare_mapping, on_reflection_pong
from srpnode.core.out cimport out_commit, out_push, out_reserve
from srpnode.core.punch cimport attempt_for, forget_socket, hold_attempt, reached, was_opened
from srpnode.core.state cimport (
    EVENT_CONNECTED,
    EVENT_GONE,
    EVENT_NAME_MOVED,
    EVENT_NAME_TAKEN,
    EVENT_PROVEN,
    EVENT_REFUSED,
    SRP_ALIASES,
    Alias,
    Attempt,
    Challenge,
    Event,
    Parked,
    PongForm,
    State,
    draw,
    draw_below,
    drop,
)
from srpnode.core.sync cimport start_sync
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_COUNT_aliases,
    SRP_COUNT_cluster_table_full,
    SRP_COUNT_connections,
    SRP_COUNT_departures,
    SRP_COUNT_events_lost,
    SRP_COUNT_member_table_full,
    SRP_COUNT_names_moved,
    SRP_COUNT_parked,
    SRP_COUNT_peers_evicted,
    SRP_COUNT_proofs,
    SRP_COUNT_unparked,
    SRP_DATAGRAM_MAX,
    SRP_DROP_name_taken,
    SRP_DROP_name_unproven,
    SRP_DROP_parking_replaced,
    SRP_DROP_peers_address,
    SRP_DROP_peers_full,
    SRP_DROP_peers_prefix,
    SRP_DROP_pong_unasked,
    SRP_DROP_scope,
    SRP_DROP_self_named,
    SRP_HAS,
    SRP_KEY_ADDRESS,
    SRP_KEY_CACHE_SIZE,
    SRP_KEY_CACHE_SUMMARY_HASH,
    SRP_KEY_IS_CONNECTION,
    SRP_KEY_IS_PROBE,
    SRP_KEY_IS_REFLECTION,
    SRP_KEY_NAT_TYPE,
    SRP_KEY_PING_ID,
    SRP_KEY_PORT,
    SRP_KEY_PROBE_EXTERNAL_PORT,
    SRP_KEY_REFLECTION_ID,
    SRP_KEY_REQUESTER_PEER_ID,
    SRP_KEY_RESPONDER_PEER_ID,
    SRP_KEY_UPTIME,
    SRP_MESSAGE,
    SRP_MESSAGE_MAX,
    SRP_NONE,
    SRP_PACKET_ID,
    SRP_PEER_CHALLENGED,
    SRP_PEER_INDEXED,
    SRP_PEER_LIVE,
    SRP_PEER_NAMED,
    SRP_PEER_OPENED,
    SRP_PEER_USED,
    SRP_PING,
    SRP_PONG,
    SRP_SOCKET_MAIN,
    SRP_SOCKET_PROBE,
    SRP_SUBCLUSTER_ID,
    SRP_TRUE,
    SRP_USR4,
    srp_cluster_get,
    srp_cluster_key,
    srp_cluster_release,
    srp_datagram,
    srp_endpoint_hash,
    srp_frame,
    srp_frame_decode,
    srp_hex,
    srp_mac,
    srp_message,
    srp_message_offset,
    srp_message_piece,
    srp_message_write,
    srp_nat_hard,
    srp_nat_valid,
    srp_packet,
    srp_packet_encode,
    srp_packet_init,
    srp_peer,
    srp_peers_add,
    srp_peers_at,
    srp_peers_join,
    srp_peers_name,
    srp_peers_named,
    srp_peers_remove,
    srp_peers_set_due,
    srp_peers_set_live,
    srp_peers_unname,
    srp_prefix,
    srp_recent_add,
    srp_recent_find,
    srp_sip_key,
    srp_span,
    srp_tally_get,
)

cdef enum:
    EPOCH_US = 64000000          # a proof pingId is good for one to two of them
    PARKED_MS = 4000             # a parked datagram waits that long for its proof
    CHALLENGE_US = 1500000       # a holder of a claimed name has that long to answer
    UPTIME_MAX_MS = 3600000
    ASK_AGAIN_MS = 10000
    LINGER_US = 10000000
    ALIAS_AGAIN_MS = 2000
    EARLY_PING_US = 1000         # a peer is pinged before its keep-alive is over only at that pace
    SCOPE_INVALID = 0
    SCOPE_LOOPBACK = 1
    SCOPE_PRIVATE = 2
    SCOPE_PUBLIC = 3
    REQUESTER_AT = 20            # of a pong's message: {"requesterPeerId":"
    # Keys of a pong: in its form, as the sender is seen, of our state; the rest are the ping's.
    FORM_KEYS = (1 << SRP_KEY_REQUESTER_PEER_ID) | (1 << SRP_KEY_RESPONDER_PEER_ID) | (1 << SRP_KEY_CACHE_SUMMARY_HASH)
    SEEN_KEYS = (1 << SRP_KEY_PORT) | (1 << SRP_KEY_ADDRESS)
    STATE_KEYS = (1 << SRP_KEY_UPTIME) | (1 << SRP_KEY_CACHE_SIZE)

# --- events -----------------------------------------------------------------------------------------------------------

cdef void log_event(State *s, uint8_t kind, uint8_t reason, uint32_t addr, uint16_t port, const uint8_t *peer_id) noexcept nogil:
    """Puts an event into the bounded ring that the driver empties; counted when it is full."""
    cdef Event *e
    if s.event_count == s.event_size:
        s.counter[SRP_COUNT_events_lost] += 1
        return
    e = &s.event[(s.event_first + s.event_count) % s.event_size]
    s.event_count += 1
    memset(e, 0, sizeof(Event))
    e.kind = kind
    e.reason = reason
    e.addr = addr
    e.port = port
    e.wall_ms = s.now.wall_ms
    if peer_id != NULL:
        memcpy(e.peer_id, peer_id, 32)

# --- scope of addresses ---------------------------------------------------------------------------------------------

cdef int scope_of(uint32_t addr) noexcept nogil:
    """RFC 6890: what kind of network an address belongs to. Documentation networks count as public: laboratories use them."""
    cdef uint32_t a = addr >> 24, b = addr >> 16
    if a == 127:
        return SCOPE_LOOPBACK
    if a == 0 or a >= 224:
        return SCOPE_INVALID
    if a == 10 or (b >= 0xac10 and b <= 0xac1f) or b == 0xc0a8 or b == 0xa9fe or (b >= 0x6440 and b <= 0x647f):
        return SCOPE_PRIVATE
    return SCOPE_PUBLIC

cdef bint same_scope(uint32_t a, uint32_t b) noexcept nogil:
    return scope_of(a) == scope_of(b)

cdef bint scope_allows(State *s, uint32_t addr, uint16_t port) noexcept nogil:
    """Whether a message may name this endpoint: public or of our own kind, not ours, no privileged port (design: scope)."""
    cdef int scope = scope_of(addr)
    if scope == SCOPE_INVALID or port == 0 or (port < 1024 and not s.limits.privileged_ports):
        return False
    if addr == s.address and (port == s.port or port == s.probe_port):
        return False
    return scope == SCOPE_PUBLIC or scope == scope_of(s.address)

# --- proofs -------------------------------------------------------------------------------------------------------------

cdef void proof_id(State *s, uint32_t addr, uint16_t port, int64_t epoch, char *out) noexcept nogil:
    """12 hex digits that only the holder of the endpoint can read."""
    cdef uint64_t words[2]
    cdef uint64_t mac
    words[0] = (<uint64_t>addr << 16) | port
    words[1] = <uint64_t>epoch
    mac = srp_mac(<srp_sip_key *>s.secret, words, sizeof(words))
    srp_hex(<const uint8_t *>&mac, 6, out)
    out[12] = 0

cdef bint proves(State *s, uint32_t addr, uint16_t port, const char *ping_id) noexcept nogil:
    cdef char wanted[13]
    cdef int64_t epoch = s.now.mono_us // EPOCH_US
    proof_id(s, addr, port, epoch, wanted)
    if memcmp(wanted, ping_id, 13) == 0:
        return True
    proof_id(s, addr, port, epoch - 1, wanted)
    return memcmp(wanted, ping_id, 13) == 0

cdef void renew_ids(State *s) noexcept nogil:
    """Where the packetIds drawn from here on begin, for each batch and tick anew. Under a key: the generator itself can be computed
    from what it puts out."""
    cdef uint64_t words[2]
    words[0] = draw(s)
    words[1] = <uint64_t>s.now.mono_us
    s.drawn_id = srp_mac(<srp_sip_key *>s.secret, words, sizeof(words))

cdef void draw_id(State *s, uint8_t *id) noexcept nogil:
    """A packetId of 32 bytes that nobody has seen: nobody checks it, a client only must not see one twice."""
    cdef uint64_t word
    s.drawn_id += <uint64_t>0x9e3779b97f4a7c15
    memcpy(id, s.peer_id, 32)  # two identities never draw the same
    memcpy(&word, id, 8)
    word ^= s.drawn_id
    memcpy(id, &word, 8)

cdef bint finish_message(State *s, srp_packet *packet, srp_message *message, uint8_t *at, uint32_t addr, uint16_t port,
                         uint32_t local, uint16_t socket) noexcept nogil:
    """Writes the message of a ping or pong to its place in the slab, the frame around it, and queues the datagram.

    Its packetId is drawn: a hash of the message would cost more than all the rest of a pong.
    """
    cdef uint64_t id[4]
    cdef uint32_t size, offset
    draw_id(s, <uint8_t *>id)
    packet.field[SRP_PACKET_ID].at = <const uint8_t *>id
    packet.field[SRP_PACKET_ID].len = 32
    offset = srp_message_offset(packet)
    packet.field[SRP_MESSAGE].at = at + offset
    packet.field[SRP_MESSAGE].len = srp_message_write(packet.type, message, <char *>at + offset, SRP_MESSAGE_MAX)
    size = srp_packet_encode(packet, at, SRP_DATAGRAM_MAX)
    if size == 0 or not out_push(s, at, size, addr, port, local, socket):
        return False
    out_commit(s, size)
    return True

cdef void send_proof_ping(State *s, uint32_t addr, uint16_t port, uint32_t local) noexcept nogil:
    """A ping whose answer proves the endpoint, and our heartbeat. Nothing is stored.

    isReflection: a reference client that does not know its NAT type yet can answer nothing else.
    """
    send_plain_ping(s, addr, port, local, SRP_SOCKET_MAIN)

cdef void send_plain_ping(State *s, uint32_t addr, uint16_t port, uint32_t local, uint16_t socket) noexcept nogil:
    cdef uint8_t *at = out_reserve(s)
    cdef srp_packet packet
    cdef srp_message message
    if at == NULL:
        return
    srp_packet_init(&packet, SRP_PING)
    message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_PING_ID) | (1u << SRP_KEY_IS_REFLECTION)
    message.truth = 1u << SRP_KEY_IS_REFLECTION
    memcpy(message.requester_peer_id, s.peer_id, 32)
    proof_id(s, addr, port, s.now.mono_us // EPOCH_US, message.ping_id)
    if s.reflection.ready:  # a peer that was restarted forgot our type
        message.has |= 1u << SRP_KEY_NAT_TYPE
        message.nat_type = s.nat_type
    finish_message(s, &packet, &message, at, addr, port, local, socket)

cdef void send_connection_ping(State *s, uint32_t addr, uint16_t port, uint32_t local, uint16_t socket, const uint8_t *cluster,
                               const uint8_t *subcluster) noexcept nogil:
    """Asks to be counted among the other's connected peers; cluster and subcluster (32 bytes or NULL) say on whose behalf."""
    cdef uint8_t *at
    cdef srp_packet packet
    cdef srp_message message
    if not srp_nat_valid(s.nat_type):
        send_plain_ping(s, addr, port, local, socket)
        return
    at = out_reserve(s)
    if at == NULL:
        return
    srp_packet_init(&packet, SRP_PING)
    if cluster != NULL:
        packet.field[SRP_CLUSTER_ID].at = cluster
        packet.field[SRP_CLUSTER_ID].len = 32
    if subcluster != NULL:
        packet.field[SRP_SUBCLUSTER_ID].at = subcluster
        packet.field[SRP_SUBCLUSTER_ID].len = 32
    message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_PING_ID) | (1u << SRP_KEY_NAT_TYPE) \
        | (1u << SRP_KEY_IS_CONNECTION) | (1u << SRP_KEY_CACHE_SUMMARY_HASH)
    message.truth = 1u << SRP_KEY_IS_CONNECTION
    memcpy(message.requester_peer_id, s.peer_id, 32)
    memcpy(message.cache_summary_hash, s.store.top, 20)
    proof_id(s, addr, port, s.now.mono_us // EPOCH_US, message.ping_id)
    message.nat_type = s.nat_type
    finish_message(s, &packet, &message, at, addr, port, local, socket)

# --- parking --------------------------------------------------------------------------------------------------------------

cdef Parked *parked_at(State *s, uint32_t addr, uint16_t port) noexcept nogil:
    cdef uint64_t hash = srp_endpoint_hash(&s.peers, addr, port)
    return &s.parked[2 * <uint32_t>((hash >> 16) & (s.parked_sets - 1))]

cdef bint live_parked(State *s, Parked *p) noexcept nogil:
    return p.len != 0 and p.expires_ms > s.now_ms

cdef bint park(State *s, srp_datagram *d, bint is_join) noexcept nogil:
    """Keeps one datagram of an unproven source until its proof arrives; a join is not replaced by a ping."""
    cdef Parked *set_
    cdef Parked *p
    cdef Parked *chosen
    cdef int i
    if s.parked_sets == 0 or d.len > sizeof(set_.data):
        return False
    set_ = parked_at(s, d.addr, d.port)
    chosen = set_
    for i in range(2):
        p = set_ + i
        if live_parked(s, p) and p.addr == d.addr and p.port == d.port:
            if p.data[4] != d.data[4] and not is_join:
                return False
            chosen = p
            break
        if not live_parked(s, p):
            chosen = p
        elif live_parked(s, chosen) and p.expires_ms < chosen.expires_ms:
            chosen = p
    if live_parked(s, chosen) and (chosen.addr != d.addr or chosen.port != d.port):
        drop(s, SRP_DROP_parking_replaced)
    chosen.addr = d.addr
    chosen.port = d.port
    chosen.local = d.local
    chosen.expires_ms = s.now_ms + PARKED_MS
    chosen.len = <uint16_t>d.len
    memcpy(chosen.data, d.data, d.len)
    s.counter[SRP_COUNT_parked] += 1
    return True

cdef bint unpark(State *s, uint32_t addr, uint16_t port, srp_datagram *d) noexcept nogil:
    """Takes out what waits for this endpoint. Its bytes stay where they are until the next datagram is parked."""
    cdef Parked *set_
    cdef Parked *p
    cdef int i
    if s.parked_sets == 0:
        return False
    set_ = parked_at(s, addr, port)
    for i in range(2):
        p = set_ + i
        if live_parked(s, p) and p.addr == addr and p.port == port:
            d.data = p.data
            d.len = p.len
            d.addr = addr
            d.port = port
            d.local = p.local
            d.socket = SRP_SOCKET_MAIN
            p.len = 0
            s.counter[SRP_COUNT_unparked] += 1
            return True
    return False

# --- names ----------------------------------------------------------------------------------------------------------------

cdef void challenge(State *s, uint32_t holder, uint32_t claimant, const uint8_t *peer_id) noexcept nogil:
    """Pings the holder of a name that somebody else claims; settle_challenges() sees whether it answered."""
    cdef Challenge *c
    cdef Challenge *free = NULL
    cdef uint32_t i, queued = s.out_count
    if s.peers.peer[holder].flags & SRP_PEER_CHALLENGED:
        return
    for i in range(s.challenge_size):
        c = &s.challenge[i]
        if c.deadline_us == 0:
            free = c
            break
    if free == NULL:
        return
    send_proof_ping(s, s.peers.peer[holder].addr, s.peers.peer[holder].port, s.peers.peer[holder].local)
    if s.out_count == queued:  # no room: who was not asked fails nothing
        return
    free.holder = holder
    free.holder_generation = s.peers.peer[holder].generation
    free.claimant = claimant
    free.claimant_generation = s.peers.peer[claimant].generation
    free.started_us = s.now.mono_us
    free.again_us = s.now.mono_us + CHALLENGE_US // 2
    free.deadline_us = s.now.mono_us + CHALLENGE_US
    memcpy(free.id, peer_id, 32)
    s.challenges += 1
    s.peers.peer[holder].flags |= SRP_PEER_CHALLENGED
    s.peers.peer[holder].last_ping_us = s.now.mono_us

cdef void ask_holder_again(State *s, Challenge *c) noexcept nogil:
    """One ping may be lost: a name is given up after two."""
    cdef srp_peer *holder = &s.peers.peer[c.holder]
    cdef uint32_t queued = s.out_count
    if holder.generation == c.holder_generation and holder.last_proof_us < c.started_us \
            and holder.flags & SRP_PEER_USED and proven(s, c.holder):  # who is gone meanwhile is a stranger
        send_proof_ping(s, holder.addr, holder.port, holder.local)
        if s.out_count == queued:  # no room: later, and who was not asked in time keeps the name for that long
            c.deadline_us = s.now.mono_us + CHALLENGE_US // 2
            return
    c.again_us = 0

cdef void settle_challenges(State *s) noexcept nogil:
    """Moves the names whose holders did not answer in time to their claimants."""
    cdef Challenge *c
    cdef srp_peer *holder
    cdef srp_peer *claimant
    cdef Attempt *attempt
    cdef uint32_t i
    if s.challenges == 0:
        return
    for i in range(s.challenge_size):
        c = &s.challenge[i]
        if c.deadline_us == 0:
            continue
        if c.again_us != 0 and c.again_us <= s.now.mono_us:
            ask_holder_again(s, c)
        if c.deadline_us > s.now.mono_us:
            continue
        c.deadline_us = 0
        s.challenges -= 1
        holder = &s.peers.peer[c.holder]
        claimant = &s.peers.peer[c.claimant]
        if holder.generation == c.holder_generation:
            holder.flags &= ~<uint8_t>SRP_PEER_CHALLENGED
            if holder.last_proof_us >= c.started_us:
                continue
        if claimant.generation != c.claimant_generation or not proven(s, c.claimant):
            continue
        if holder.generation == c.holder_generation and (holder.flags & SRP_PEER_NAMED) and memcmp(holder.id, c.id, 32) == 0:
            forget_socket(s, c.holder)
            srp_peers_remove(&s.peers, c.holder)
        if srp_peers_named(&s.peers, c.id) == <uint32_t>SRP_NONE:
            srp_peers_name(&s.peers, c.claimant, c.id)
            s.counter[SRP_COUNT_names_moved] += 1
            log_event(s, EVENT_NAME_MOVED, 0, claimant.addr, claimant.port, c.id)
            # Its join has waited for this, and waits for an answer to a ping: the next would be in a keep-alive.
            send_plain_ping(s, claimant.addr, claimant.port, claimant.local, claimant.socket)
            attempt = attempt_for(s, c.id)
            if attempt != NULL:
                connect(s, c.claimant, attempt.nat_type)
                reached(s, c.claimant, c.id)

cdef bint claim_name(State *s, uint32_t slot, const uint8_t *peer_id, bint proved) noexcept nogil:
    """Whether this proven endpoint may go by this peerId: it is free, its own already, or its holder is gone (design: names).

    proved: a pong with our pingId says so. Anything else may be forged by whoever knows the endpoint: it can give a first name,
    and have the endpoint asked for its new one, but not take away the name that it has.
    """
    cdef uint32_t holder
    cdef srp_peer *p = &s.peers.peer[slot]
    if (p.flags & SRP_PEER_NAMED) and memcmp(p.id, peer_id, 32) == 0:
        return True
    if memcmp(peer_id, s.peer_id, 32) == 0:
        drop(s, SRP_DROP_self_named)
        return False
    holder = srp_peers_named(&s.peers, peer_id)
    if holder != <uint32_t>SRP_NONE and not s.peers.peer[holder].flags & SRP_PEER_INDEXED and not proven(s, holder):
        srp_peers_unname(&s.peers, holder)  # it is about to be dropped
        holder = SRP_NONE
    if p.flags & SRP_PEER_INDEXED:  # keeps the name it is configured with
        drop(s, SRP_DROP_name_taken)
        return False
    if not proved and p.flags & SRP_PEER_NAMED:
        drop(s, SRP_DROP_name_unproven)
        if p.last_ping_us < 0 or s.now.mono_us - p.last_ping_us >= CHALLENGE_US:
            p.last_ping_us = s.now.mono_us
            send_plain_ping(s, p.addr, p.port, p.local, p.socket)
        return False
    if holder == <uint32_t>SRP_NONE:
        srp_peers_name(&s.peers, slot, peer_id)
        return True
    drop(s, SRP_DROP_name_taken)
    log_event(s, EVENT_NAME_TAKEN, SRP_DROP_name_taken, p.addr, p.port, peer_id)
    if not (s.peers.peer[holder].flags & SRP_PEER_INDEXED):
        challenge(s, holder, slot, peer_id)
        if s.attempts_active != 0:
            hold_attempt(s, peer_id, s.now.mono_us + CHALLENGE_US + 500000)
    return False

# --- peers ----------------------------------------------------------------------------------------------------------------

cdef uint32_t make_room(State *s) noexcept nogil:
    """Frees the place of the stalest of a few random peers, if it missed a heartbeat or is no connected peer after ten seconds;
    SRP_NONE: all of them are well."""
    cdef uint32_t i, slot, victim = SRP_NONE
    cdef int64_t oldest = s.now.mono_us - s.keep_alive_us - s.keep_alive_us // 2
    cdef srp_peer *p
    for i in range(8):
        slot = draw_below(s, s.peers.capacity)
        p = &s.peers.peer[slot]
        if not p.flags & SRP_PEER_USED or p.flags & SRP_PEER_INDEXED:
            continue
        if p.last_proof_us < oldest:
            oldest = p.last_proof_us
            victim = slot
        elif victim == <uint32_t>SRP_NONE and not p.flags & SRP_PEER_LIVE and s.now.mono_us - p.added_us > LINGER_US:
            victim = slot
    if victim != <uint32_t>SRP_NONE:
        s.counter[SRP_COUNT_peers_evicted] += 1
        if s.owns != 0 and s.peers.peer[victim].flags & SRP_PEER_NAMED:
            tell_leave(s, s.peers.peer[victim].id)
        forget_socket(s, victim)
        srp_peers_remove(&s.peers, victim)
    return victim

cdef int64_t interval_us(State *s) noexcept nogil:
    """How often peers are pinged: once a keep-alive. Behind a NAT a little oftener, so that a mapping that lives 30 s stays open;
    up to three times as often among peers who do not live long, or many of those that are chosen would be gone, but not beyond a
    thousand pings a second."""
    cdef int64_t interval = s.keep_alive_us, wanted
    if s.reflection.wanted:
        interval = interval * 4 // 5
    if s.typical_uptime_ms != 0 and not s.reference:
        wanted = 250 * <int64_t>s.typical_uptime_ms
        if wanted < s.keep_alive_us // 3:
            wanted = s.keep_alive_us // 3
        if wanted < EARLY_PING_US * <int64_t>s.peers.count:
            wanted = EARLY_PING_US * <int64_t>s.peers.count
        if wanted < interval:
            interval = wanted
    return interval

cdef uint32_t admit(State *s, uint32_t addr, uint16_t port, uint32_t local) noexcept nogil:
    """A place for an endpoint that just proved itself; SRP_NONE (counted) when a limit stands against it."""
    cdef uint32_t slot, reason = 0
    if s.limits.peers_per_address != 0 and srp_tally_get(&s.peers.addresses, addr) >= s.limits.peers_per_address:
        reason = SRP_DROP_peers_address
    elif s.limits.peers_per_prefix != 0 and srp_tally_get(&s.peers.prefixes, srp_prefix(addr)) >= s.limits.peers_per_prefix:
        reason = SRP_DROP_peers_prefix
    elif s.peers.count == s.peers.capacity and make_room(s) == <uint32_t>SRP_NONE:
        reason = SRP_DROP_peers_full
    if reason != 0:
        drop(s, reason)
        log_event(s, EVENT_REFUSED, <uint8_t>reason, addr, port, NULL)
        return SRP_NONE
    slot = srp_peers_add(&s.peers, addr, port, s.now.mono_us, s.now.mono_us + interval_us(s))
    s.peers.peer[slot].local = local
    return slot

cdef uint32_t add_configured(State *s, uint32_t addr, uint16_t port, const uint8_t *peer_id) noexcept nogil:
    """An indexed peer from the configuration, or a sibling identity: known from the start, unproven like everybody."""
    cdef uint32_t slot = srp_peers_at(&s.peers, srp_endpoint_hash(&s.peers, addr, port), addr, port)
    if slot != <uint32_t>SRP_NONE or srp_peers_named(&s.peers, peer_id) != <uint32_t>SRP_NONE:
        return SRP_NONE
    slot = srp_peers_add(&s.peers, addr, port, s.now.mono_us, s.now.mono_us)
    if slot != <uint32_t>SRP_NONE:
        s.peers.peer[slot].flags |= SRP_PEER_INDEXED
        s.peers.peer[slot].nat_type = 31
        srp_peers_name(&s.peers, slot, peer_id)
    return slot

cdef void connect(State *s, uint32_t slot, uint8_t nat_type) noexcept nogil:
    """Makes a proven peer a connected one: it can be introduced and chosen."""
    cdef srp_peer *p = &s.peers.peer[slot]
    if p.flags & SRP_PEER_INDEXED:
        return
    p.nat_type = nat_type
    if not (p.flags & SRP_PEER_LIVE):
        srp_peers_set_live(&s.peers, slot, True)
        s.counter[SRP_COUNT_connections] += 1
        log_event(s, EVENT_CONNECTED, 0, p.addr, p.port, p.id)

cdef void join_one(State *s, uint32_t slot, uint64_t key, const uint8_t *id, uint32_t length) noexcept nogil:
    cdef uint32_t cluster = srp_cluster_get(&s.peers, key, id, length)
    if cluster == <uint32_t>SRP_NONE:
        s.counter[SRP_COUNT_cluster_table_full] += 1
        s.peers.peer[slot].last_cluster = 0  # its next ping tries again
    elif not srp_peers_join(&s.peers, slot, cluster):
        s.counter[SRP_COUNT_member_table_full] += 1
        s.peers.peer[slot].last_cluster = 0
        srp_cluster_release(&s.peers, cluster)

cdef void join_cluster(State *s, uint32_t slot, const uint8_t *cluster, const uint8_t *subcluster, uint32_t length) noexcept nogil:
    """Notes a peer as a member of a cluster (32 bytes) and, if not NULL, of one of its subclusters."""
    if s.peers.peer[slot].flags & SRP_PEER_INDEXED:
        return
    join_one(s, slot, srp_cluster_key(&s.peers, cluster, 32, NULL, 0), cluster, 32)
    if subcluster != NULL:
        join_one(s, slot, srp_cluster_key(&s.peers, cluster, 32, subcluster, length), subcluster, length)

# --- second endpoints -----------------------------------------------------------------------------------------------------

cdef void ask_alias(State *s, srp_datagram *d, srp_frame *frame) noexcept nogil:
    """A stream from an unknown port at the address of the peer that it names as its sender: is it that peer?

    A reference peer behind a hard NAT that was found after it chose a proxy sends its streams to the proxy from its new socket, and
    would be silent to the other for good. It answers a ping to that socket from its main one: that is proof of both.
    """
    cdef srp_span id = frame.field[SRP_USR4]
    cdef uint64_t key
    cdef uint32_t slot
    cdef srp_peer *p
    cdef Alias *a
    if id.len != 32:
        return
    slot = srp_peers_named(&s.peers, d.data + id.at)
    if slot == <uint32_t>SRP_NONE or not proven(s, slot):
        return
    p = &s.peers.peer[slot]
    if p.addr != d.addr or not srp_nat_hard(p.nat_type) or s.peers.count >= s.peers.capacity:
        return
    key = ~srp_endpoint_hash(&s.peers, d.addr, d.port)
    if srp_recent_find(&s.gate_other, key, s.now_ms) != NULL:
        return
    srp_recent_add(&s.gate_other, key, s.now_ms, ALIAS_AGAIN_MS, 0)
    a = &s.alias[s.alias_next]
    s.alias_next = (s.alias_next + 1) % SRP_ALIASES
    a.addr = d.addr
    a.port = d.port
    a.owner = slot
    a.generation = p.generation
    s.budget = 3 * <int64_t>d.len
    send_plain_ping(s, d.addr, d.port, d.local, SRP_SOCKET_MAIN)
    s.budget = -1

cdef bint proves_alias(State *s, uint32_t slot, const char *ping_id) noexcept nogil:
    """Whether a known peer answered what we sent to another endpoint of it; that one is proven then, without a name."""
    cdef uint32_t i, other
    cdef Alias *a
    if slot == <uint32_t>SRP_NONE:
        return False
    for i in range(SRP_ALIASES):
        a = &s.alias[i]
        if a.generation == 0 or a.owner != slot or a.generation != s.peers.peer[slot].generation \
                or not proves(s, a.addr, a.port, ping_id):
            continue
        other = srp_peers_at(&s.peers, srp_endpoint_hash(&s.peers, a.addr, a.port), a.addr, a.port)
        if other == <uint32_t>SRP_NONE:
            other = admit(s, a.addr, a.port, s.peers.peer[slot].local)
            if other != <uint32_t>SRP_NONE:
                s.counter[SRP_COUNT_aliases] += 1
        if other != <uint32_t>SRP_NONE:
            s.peers.peer[other].last_proof_us = s.peers.peer[other].last_update_us = s.now.mono_us
            s.peers.peer[other].last_ping_us = -1
        return True
    return False

# --- ping -----------------------------------------------------------------------------------------------------------------

cdef void welcome(State *s, uint32_t slot, srp_datagram *d, srp_frame *frame, srp_message *message) noexcept nogil:
    """What a ping with a NAT type does for a proven peer: a connection ping, or the heartbeat of one that we forgot."""
    if not claim_name(s, slot, message.requester_peer_id, False):
        if not s.peers.peer[slot].flags & SRP_PEER_INDEXED:
            park(s, d, False)  # a peer that was started anew, or has moved: served once the name is its own
        return
    if SRP_HAS(message, SRP_KEY_UPTIME) and 0 <= message.uptime < 4e12:
        s.peers.peer[slot].uptime_s = <uint32_t>(message.uptime / 1000)
    connect(s, slot, message.nat_type)
    reached(s, slot, message.requester_peer_id)
    met_by_frame(s, slot, d.data, frame)
    # Who says what it has needs an offer of ours only if that is something else.
    if SRP_HAS(message, SRP_KEY_CACHE_SUMMARY_HASH):
        memcpy(&s.peers.peer[slot].summary, message.cache_summary_hash, 2)
        if memcmp(message.cache_summary_hash, s.store.top, 20) == 0:
            s.peers.peer[slot].sync_pauses = 0
            if not s.reference:
                return
    if SRP_TRUE(message, SRP_KEY_IS_CONNECTION) and not s.peers.peer[slot].flags & SRP_PEER_OPENED:
        start_sync(s, slot)

cdef bint asks_now(State *s, uint32_t addr, uint16_t port) noexcept nogil:
    """Whether a stranger is asked for its proof. With a full table only now and then: two full peers that both answer a
    ping with a ping, and never get to know each other, would go on for ever."""
    cdef uint64_t key = ~srp_endpoint_hash(&s.peers, addr, port)
    if s.peers.count < s.peers.capacity:
        return True
    if srp_recent_find(&s.gate_other, key, s.now_ms) != NULL:
        return False
    srp_recent_add(&s.gate_other, key, s.now_ms, ASK_AGAIN_MS, 0)
    return True

cdef void make_form(State *s, PongForm *f) noexcept nogil:
    """Writes what all pongs begin and end with, for the cache's present summary."""
    cdef srp_packet packet
    cdef srp_message message
    cdef srp_frame frame
    cdef uint8_t id[32]
    cdef uint8_t whole[SRP_DATAGRAM_MAX]
    cdef uint32_t size
    memset(id, 1, 32)
    srp_packet_init(&packet, SRP_PONG)
    packet.field[SRP_PACKET_ID].at = id
    packet.field[SRP_PACKET_ID].len = 32
    message.has = FORM_KEYS
    message.truth = 0
    memcpy(message.requester_peer_id, s.peer_id, 32)
    memcpy(message.responder_peer_id, s.peer_id, 32)
    memcpy(message.cache_summary_hash, s.store.top, 20)
    f.message_at = srp_message_offset(&packet)
    packet.field[SRP_MESSAGE].at = whole + f.message_at
    packet.field[SRP_MESSAGE].len = srp_message_write(SRP_PONG, &message, <char *>whole + f.message_at, SRP_MESSAGE_MAX)
    size = srp_packet_encode(&packet, whole, SRP_DATAGRAM_MAX)
    srp_frame_decode(whole, size, &frame)
    f.packet_id_at = frame.field[SRP_PACKET_ID].at
    f.requester_at = f.message_at + REQUESTER_AT
    f.size = f.message_at + frame.field[SRP_MESSAGE].len - 1  # its closing bracket stands behind what follows
    f.end_size = size - f.size - 1
    memcpy(f.data, whole, f.size)
    memcpy(f.end, whole + f.size + 1, f.end_size)
    memcpy(f.top, s.store.top, 20)

cdef PongForm *pong_form(State *s) noexcept nogil:
    """The form for pongs of this moment."""
    cdef PongForm *f = &s.pong
    cdef srp_message message
    cdef int64_t uptime_ms = (s.now.mono_us - s.started_us) // 1000
    if f.size == 0 or memcmp(f.top, s.store.top, 20) != 0:
        make_form(s, f)
        f.state_size = 0
    if f.state_size == 0 or f.uptime_ms != uptime_ms or f.packets != s.store.held:
        f.uptime_ms = uptime_ms
        f.packets = s.store.held
        message.has = STATE_KEYS
        message.uptime = <double>uptime_ms
        message.cache_size = f.packets
        f.state_size = srp_message_piece(SRP_PONG, &message, STATE_KEYS, f.state)
    return f

cdef bint send_pong(State *s, srp_message *ping, srp_message *pong, uint32_t addr, uint16_t port, uint32_t local,
                    uint16_t socket) noexcept nogil:
    """Answers a ping: the form, with what is this pong's own in its places."""
    cdef PongForm *f = pong_form(s)
    cdef uint8_t *at = out_reserve(s)
    cdef uint32_t n = f.size
    if at == NULL:
        return False
    memcpy(at, f.data, n)
    draw_id(s, at + f.packet_id_at)
    srp_hex(ping.requester_peer_id, 32, <char *>at + f.requester_at)
    n += srp_message_piece(SRP_PONG, pong, SEEN_KEYS, <char *>at + n)
    memcpy(at + n, f.state, f.state_size)
    n += f.state_size
    n += srp_message_piece(SRP_PONG, pong, ~<uint32_t>(FORM_KEYS | SEEN_KEYS | STATE_KEYS), <char *>at + n)
    at[n] = 125  # }
    n += 1
    at[f.message_at - 2] = <uint8_t>((n - f.message_at) >> 8)
    at[f.message_at - 1] = <uint8_t>(n - f.message_at)
    memcpy(at + n, f.end, f.end_size)
    n += f.end_size
    if not out_push(s, at, n, addr, port, local, socket):
        return False
    out_commit(s, n)
    return True

cdef void on_ping(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil:
    """Answers with a pong from the main socket, perhaps a second from the probe socket, and asks a stranger for its proof."""
    cdef srp_message pong
    cdef uint16_t probe_port
    cdef bint known = slot != <uint32_t>SRP_NONE
    cdef bint has_nat = SRP_HAS(message, SRP_KEY_NAT_TYPE) and srp_nat_valid(message.nat_type)
    cdef bint connection = SRP_TRUE(message, SRP_KEY_IS_CONNECTION) and has_nat
    cdef bint is_reflection = SRP_TRUE(message, SRP_KEY_IS_REFLECTION)
    if memcmp(message.requester_peer_id, s.peer_id, 32) == 0:
        drop(s, SRP_DROP_self_named)
        return
    if not known and connection and s.attempts_active != 0 and was_opened(s, d.addr, d.port, message.requester_peer_id):
        slot = srp_peers_at(&s.peers, srp_endpoint_hash(&s.peers, d.addr, d.port), d.addr, d.port)
        if slot == <uint32_t>SRP_NONE:
            slot = admit(s, d.addr, d.port, d.local)
        if slot != <uint32_t>SRP_NONE:
            known = True
            s.budget = -1
            s.peers.peer[slot].flags |= SRP_PEER_OPENED
            s.peers.peer[slot].last_proof_us = s.peers.peer[slot].last_update_us = s.now.mono_us
    if known:
        if has_nat:
            welcome(s, slot, d, frame, message)
    elif has_nat:
        park(s, d, False)
    pong.has = pong.truth = 0
    if SRP_HAS(message, SRP_KEY_REFLECTION_ID):
        pong.has |= 1u << SRP_KEY_REFLECTION_ID
        memcpy(pong.reflection_id, message.reflection_id, sizeof(pong.reflection_id))
    if SRP_HAS(message, SRP_KEY_PING_ID):
        pong.has |= 1u << SRP_KEY_PING_ID
        memcpy(pong.ping_id, message.ping_id, sizeof(pong.ping_id))
    if is_reflection:
        pong.has |= 1u << SRP_KEY_IS_REFLECTION
        pong.truth |= 1u << SRP_KEY_IS_REFLECTION
    elif srp_nat_valid(s.nat_type):  # not known yet: left out, or clients would refuse the pong
        pong.has |= 1u << SRP_KEY_NAT_TYPE
        pong.nat_type = s.nat_type
    # Who has no room for a stranger says so: the other would count on it, and all it sends would be dropped as a stranger's.
    if connection and (known or s.peers.count < s.peers.capacity or s.reference):
        pong.has |= 1u << SRP_KEY_IS_CONNECTION
        pong.truth |= 1u << SRP_KEY_IS_CONNECTION
    else:
        pong.has |= (1u << SRP_KEY_PORT) | (1u << SRP_KEY_ADDRESS)
        pong.port = d.port
        pong.address = d.addr
        if SRP_HAS(message, SRP_KEY_IS_PROBE):
            pong.has |= 1u << SRP_KEY_IS_PROBE
            pong.truth |= message.truth & (1u << SRP_KEY_IS_PROBE)
    # From where it was asked: the peer whose packets come to a socket of the pool knows only that one.
    if not send_pong(s, message, &pong, d.addr, d.port, d.local, d.socket):
        return
    if SRP_HAS(message, SRP_KEY_PROBE_EXTERNAL_PORT) and s.probe_port != 0:
        probe_port = message.probe_external_port
        if probe_port < 1024 and not s.limits.privileged_ports:
            drop(s, SRP_DROP_scope)
        else:
            pong.port = probe_port
            pong.has |= 1u << SRP_KEY_PORT
            send_pong(s, message, &pong, d.addr, probe_port, d.local, SRP_SOCKET_PROBE)
    # Not to the source of a probe: a client would take the ping for a step of its own reflection.
    if not known and not SRP_TRUE(message, SRP_KEY_IS_PROBE) and asks_now(s, d.addr, d.port):
        send_plain_ping(s, d.addr, d.port, d.local, d.socket)

# --- pong -----------------------------------------------------------------------------------------------------------------

cdef void note_uptime(State *s, double uptime) noexcept nogil:
    cdef int64_t value = UPTIME_MAX_MS if uptime > UPTIME_MAX_MS else <int64_t>uptime
    if s.typical_uptime_ms != 0:
        value = <int64_t>s.typical_uptime_ms + (value - <int64_t>s.typical_uptime_ms) // 8
    s.typical_uptime_ms = <uint32_t>value if value > 1 else 1

cdef bint missed(State *s, uint32_t slot, int64_t every_us) noexcept nogil:
    """Whether a peer is gone: no proof for four keep-alives, or three heartbeats without an answer or anything else from it.

    That it was heard may be forged, which keeps it no longer than its proof. A peer that is well pings us too once a keep-alive.
    """
    cdef srp_peer *p = &s.peers.peer[slot]
    return not proven(s, slot) or (not s.reference and not p.flags & SRP_PEER_INDEXED
                                   and s.now.mono_us - p.last_update_us > 3 * every_us)

cdef void on_pong(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil:
    """Takes the proof of an endpoint and measures its temporal distance (draft: the delta between request and answer)."""
    cdef srp_peer *p
    cdef int64_t delta
    cdef bint first
    slot = srp_peers_at(&s.peers, srp_endpoint_hash(&s.peers, d.addr, d.port), d.addr, d.port)
    if s.reflection.wanted and on_reflection_pong(s, d, message):
        return
    if not SRP_HAS(message, SRP_KEY_PING_ID) or not proves(s, d.addr, d.port, message.ping_id):
        if not SRP_HAS(message, SRP_KEY_PING_ID) or not proves_alias(s, slot, message.ping_id):
            drop(s, SRP_DROP_pong_unasked)
        return
    if memcmp(message.responder_peer_id, s.peer_id, 32) == 0:
        drop(s, SRP_DROP_self_named)
        return
    if slot == <uint32_t>SRP_NONE:
        slot = admit(s, d.addr, d.port, d.local)
        if slot == <uint32_t>SRP_NONE:
            return
    s.budget = -1  # proven from here on: the holder of a name it claims is asked
    p = &s.peers.peer[slot]
    if (p.flags & SRP_PEER_INDEXED) and memcmp(p.id, message.responder_peer_id, 32) != 0:
        drop(s, SRP_DROP_name_taken)
        return
    first = not proven(s, slot) or p.flags & SRP_PEER_OPENED
    p.flags &= ~SRP_PEER_OPENED
    p.last_proof_us = p.last_update_us = s.now.mono_us
    if p.last_ping_us >= 0:
        if not p.flags & SRP_PEER_INDEXED and SRP_HAS(message, SRP_KEY_UPTIME) and message.uptime >= 0:
            note_uptime(s, message.uptime)
        delta = (s.now.mono_us - p.last_ping_us) // 1000
        p.last_ping_us = -1
        if p.distance_ms != 0xffffffffu:
            delta = (3 * <int64_t>p.distance_ms + delta) // 4
        p.distance_ms = <uint32_t>delta if delta < 60000 else 60000
    if p.flags & SRP_PEER_INDEXED:
        srp_peers_set_live(&s.peers, slot, True)
    if first:
        s.counter[SRP_COUNT_proofs] += 1
        log_event(s, EVENT_PROVEN, 0, d.addr, d.port, message.responder_peer_id)
    p.local = d.local
    p.socket = d.socket
    if not claim_name(s, slot, message.responder_peer_id, True):
        return
    if s.reflection.wanted:
        compare_mapping(s, d, message, slot)
    if SRP_HAS(message, SRP_KEY_CACHE_SUMMARY_HASH):
        memcpy(&p.summary, message.cache_summary_hash, 2)
    if SRP_TRUE(message, SRP_KEY_IS_CONNECTION) and not p.flags & SRP_PEER_INDEXED and s.attempts != 0:
        # The answer to our own connection ping: an attempt to reach somebody has succeeded.
        if SRP_HAS(message, SRP_KEY_NAT_TYPE) and srp_nat_valid(message.nat_type):
            connect(s, slot, message.nat_type)
        reached(s, slot, message.responder_peer_id)
        if s.reference:  # else our ping said what we have, and the other side starts
            start_sync(s, slot)

# --- heartbeats -----------------------------------------------------------------------------------------------------------

cdef void introduce_ourselves(State *s, srp_peer *p) noexcept nogil:
    """A heartbeat to a well-known peer names one of our subclusters, in turn: it may have been restarted."""
    cdef uint32_t i, n = 0, wanted
    if s.owns != 0 and not s.reference:
        wanted = draw_below(s, s.owns)
        for i in range(s.own_size):
            if s.own[i].used:
                if n == wanted:
                    send_connection_ping(s, p.addr, p.port, p.local, p.socket, s.own[i].cluster, s.own[i].subcluster)
                    return
                n += 1
    send_connection_ping(s, p.addr, p.port, p.local, p.socket, NULL, NULL)

cdef void heartbeats(State *s) noexcept nogil:
    """Pings the peers whose turn has come, drops those that gave no proof for four keep-alives.

    Who joined in the same moment is not visited in the same moment: twice the even pace is worked off, after a burst.
    """
    cdef int64_t every_us = interval_us(s)
    cdef int64_t step_us = every_us // (2 * (<int64_t>s.peers.count + 1)) + 1
    cdef int64_t most = (s.now.mono_us - s.heartbeat_at_us) // step_us
    cdef int64_t burst = 64 + 250000 // step_us
    cdef int visits = 256
    cdef uint32_t slot
    cdef srp_peer *p
    if burst > 256:
        burst = 256
    if most > burst:
        most = burst
        s.heartbeat_at_us = s.now.mono_us - burst * step_us
    while most > 0 and visits > 0:
        visits -= 1
        slot = s.peers.due_first
        if slot == <uint32_t>SRP_NONE:
            return
        p = &s.peers.peer[slot]
        if p.due_us > s.now.mono_us:
            return
        if missed(s, slot, every_us):
            if p.flags & SRP_PEER_INDEXED:
                srp_peers_set_live(&s.peers, slot, False)
            else:
                s.counter[SRP_COUNT_departures] += 1
                log_event(s, EVENT_GONE, 0, p.addr, p.port, p.id)
                if s.owns != 0 and p.flags & SRP_PEER_NAMED:  # else its name has moved to another endpoint
                    tell_leave(s, p.id)
                forget_socket(s, slot)
                srp_peers_remove(&s.peers, slot)
                continue
        most -= 1
        s.heartbeat_at_us += step_us
        p.last_ping_us = s.now.mono_us
        srp_peers_set_due(&s.peers, slot, s.now.mono_us + every_us)
        if p.flags & SRP_PEER_INDEXED:  # so that it counts us among its connected peers
            introduce_ourselves(s, p)
            if s.reflection.ready:  # the answer to a connection says nothing of our own address, this one does
                send_plain_ping(s, p.addr, p.port, p.local, p.socket)
        else:
            send_plain_ping(s, p.addr, p.port, p.local, p.socket)
