"""Who should know whom: joins, introductions, rendezvous (draft STATE_5; STATE_3 is what the introduced do).

A direct join (hops at most 1) of a proven peer is introduced to members of its cluster and relayed, always with the endpoint
that we observed. A join that others relayed is never introduced here: it is passed on to members of its cluster, who answer
at the rendezvous peer that proved the joiner; there the two are introduced, between endpoints proven there.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from srpnode.core.app cimport answer_elsewhere, met_by_frame, own_cluster
from srpnode.core.choose cimport (
    CHOOSE_MAX,
    LIGHT,
    Choice,
    choose_for_relay,
    choose_friends,
    choose_indexed,
    choose_strangers,
    may_carry,
    proven,
)
from srpnode.core.out cimport LIVE, STRANGE, out_commit, out_replicated, out_reserve, out_to, renew_quotas
from srpnode.core.reach cimport claim_name, connect, draw_id, park, same_scope, scope_allows
from srpnode.core.punch cimport reached
from srpnode.core.state cimport Deferred, Own, State, drop
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_COUNT_claims_wrong,
    SRP_COUNT_gate_evicted,
    SRP_COUNT_introductions,
    SRP_COUNT_introductions_full,
    SRP_COUNT_joins_deferred,
    SRP_COUNT_joins_echoed,
    SRP_COUNT_joins_known,
    SRP_COUNT_joins_relayed,
    SRP_COUNT_rendezvous,
    SRP_DATAGRAM_MAX,
    SRP_DROP_claim,
    SRP_DROP_cluster_id,
    SRP_DROP_deferred_full,
    SRP_DROP_deferred_peer,
    SRP_DROP_duplicate,
    SRP_DROP_hops,
    SRP_DROP_queue_full,
    SRP_DROP_relay_budget,
    SRP_DROP_rendezvous_unknown,
    SRP_DROP_scope,
    SRP_DROP_self_named,
    SRP_DROP_stale,
    SRP_DROP_unproven,
    SRP_FIELDS,
    SRP_HAS,
    SRP_HOPS_MAX,
    SRP_INTRO,
    SRP_JOIN,
    SRP_KEY_ADDRESS,
    SRP_KEY_IS_RENDEZVOUS,
    SRP_KEY_NAT_TYPE,
    SRP_KEY_PORT,
    SRP_KEY_RENDEZVOUS_ADDRESS,
    SRP_KEY_RENDEZVOUS_DEADLINE,
    SRP_KEY_RENDEZVOUS_PEER_ID,
    SRP_KEY_RENDEZVOUS_PORT,
    SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID,
    SRP_KEY_RENDEZVOUS_TYPE,
    SRP_KEY_REQUESTER_PEER_ID,
    SRP_KEY_RESPONDER_PEER_ID,
    SRP_MESSAGE,
    SRP_MESSAGE_MAX,
    SRP_NONE,
    SRP_OK,
    SRP_PACKET_ID,
    SRP_PEER_INDEXED,
    SRP_PEER_JOINED,
    SRP_PEER_LIVE,
    SRP_PEER_NAMED,
    SRP_PEER_OPENED,
    SRP_SUBCLUSTER_ID,
    SRP_USR1,
    srp_cluster_find,
    srp_cluster_key,
    srp_datagram,
    srp_frame,
    srp_frame_decode,
    srp_message,
    srp_message_offset,
    srp_message_read,
    srp_message_write,
    srp_meter_use,
    srp_nat_hard,
    srp_packet,
    srp_packet_encode,
    srp_packet_init,
    srp_peer,
    srp_peers_is_member,
    srp_peers_named,
    srp_prefix,
    srp_recent_add,
    srp_recent_find,
    srp_sip,
    srp_sip_word,
    srp_span,
    srp_unset,
)

cdef enum:
    INTRODUCED_BY_PEERS = 2  # members; a well-known node introduces more: limits.introductions
    STRANGERS = 3            # places that cluster members may leave to others
    UNPROVEN_TARGET_FANOUT = 1
    ECHO = 1                 # kinds of deferred joins
    PASS_ON = 2
    DEFER_US = 600000        # introductions need that long to lead to a connection
    ECHO_AGAIN_US = 1500000  # on a bad way longer

# --- introductions ----------------------------------------------------------------------------------------------------

ctypedef struct Introducing:
    srp_packet packet
    char time_ms[20]
    uint64_t id[4]
    uint8_t *about                      # the introduction that describes the joiner, the same for everybody; NULL: not written yet
    uint32_t size

cdef void start_introducing(State *s, Introducing *x, srp_datagram *d, srp_frame *frame) noexcept nogil:
    """What the introductions that follow one join have in common."""
    cdef int64_t value = s.now.wall_ms
    cdef uint32_t n = 0
    cdef srp_span c = frame.field[SRP_CLUSTER_ID], sub = frame.field[SRP_SUBCLUSTER_ID]
    while value > 0 and n < 20:
        n += 1
        x.time_ms[20 - n] = <char>(48 + value % 10)
        value = value // 10
    srp_packet_init(&x.packet, SRP_INTRO)
    x.packet.hops = frame.hops + 1
    x.packet.field[SRP_CLUSTER_ID].at = d.data + c.at
    x.packet.field[SRP_CLUSTER_ID].len = c.len
    x.packet.field[SRP_SUBCLUSTER_ID].at = d.data + sub.at
    x.packet.field[SRP_SUBCLUSTER_ID].len = sub.len
    x.packet.field[SRP_USR1].at = <const uint8_t *>x.time_ms + 20 - n
    x.packet.field[SRP_USR1].len = n
    x.packet.field[SRP_PACKET_ID].at = <const uint8_t *>x.id
    x.packet.field[SRP_PACKET_ID].len = 32
    x.about = NULL

cdef bint build_intro(State *s, Introducing *x, srp_peer *about, bint rendezvous, uint8_t **at, uint32_t *size) noexcept nogil:
    """Writes the introduction that describes a peer, at its proven endpoint, to the slab.

    Its packetId is drawn: receivers remember it only so as not to take one introduction twice.
    """
    cdef srp_message message
    cdef srp_packet *packet = &x.packet
    cdef uint32_t offset
    at[0] = out_reserve(s)
    if at[0] == NULL:
        return False
    draw_id(s, <uint8_t *>x.id)
    message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_RESPONDER_PEER_ID) | (1u << SRP_KEY_NAT_TYPE) \
        | (1u << SRP_KEY_ADDRESS) | (1u << SRP_KEY_PORT) | (1u << SRP_KEY_IS_RENDEZVOUS)
    message.truth = (1u << SRP_KEY_IS_RENDEZVOUS) if rendezvous else 0
    memcpy(message.requester_peer_id, about.id, 32)
    memcpy(message.responder_peer_id, s.peer_id, 32)
    message.nat_type = about.nat_type
    message.address = about.addr
    message.port = about.port
    offset = srp_message_offset(packet)
    packet.field[SRP_MESSAGE].at = at[0] + offset
    packet.field[SRP_MESSAGE].len = srp_message_write(SRP_INTRO, &message, <char *>at[0] + offset, SRP_MESSAGE_MAX)
    size[0] = srp_packet_encode(packet, at[0], SRP_DATAGRAM_MAX)
    if size[0] == 0:
        return False
    out_commit(s, size[0])
    return True

cdef bint may_be_introduced(State *s, uint32_t slot, bint friend) noexcept nogil:
    """Counts an introduction against what one peer, joiner or not, may take part in during a minute.

    Strangers get a sixteenth of it, or a flood of joins for random clusters would leave a peer none with its own, and a reference peer
    that met every flooder would hand its packets to them. Nobody is told of an endpoint that we believe in without proof.
    """
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef uint32_t most = s.limits.introductions_per_minute
    if p.flags & SRP_PEER_OPENED:
        return False
    if not friend:
        most = (most + 15) // 16
    renew_quotas(s, p)
    if most != 0 and p.used_introductions >= most:
        s.counter[SRP_COUNT_introductions_full] += 1
        return False
    p.used_introductions += 1
    return True

cdef void introduce(State *s, Introducing *x, uint32_t joiner, uint32_t other, bint rendezvous) noexcept nogil:
    """Tells each of two proven peers about the other. Both datagrams leave next to each other: the sides should start
    together, or the first one's ping makes the second believe that it is connected already."""
    cdef uint8_t *at
    cdef uint32_t size
    if s.out_count + 2 > s.out_capacity:
        drop(s, SRP_DROP_queue_full)
        return
    if x.about == NULL and not build_intro(s, x, &s.peers.peer[joiner], rendezvous, &x.about, &x.size):
        x.about = NULL
        return
    if not build_intro(s, x, &s.peers.peer[other], rendezvous, &at, &size):
        return
    out_to(s, &s.peers.peer[other], x.about, x.size)
    out_to(s, &s.peers.peer[joiner], at, size)
    s.counter[SRP_COUNT_introductions] += 1
    if rendezvous:
        s.counter[SRP_COUNT_rendezvous] += 1

cdef uint32_t enough_introductions(State *s, uint64_t sub) noexcept nogil:
    """How many members a joiner is told of: all of a small subcluster, a third of the limit of a large one (more connections than that
    cost more than they bring), two by a peer, which leaves the rest to the well-known ones."""
    cdef uint32_t at
    if s.owns != 0:
        return INTRODUCED_BY_PEERS
    at = srp_cluster_find(&s.peers, sub)
    if at != <uint32_t>SRP_NONE and s.peers.cluster[at].members > s.limits.introductions + 1:
        return s.limits.introductions // 3 if s.limits.introductions > 3 else 1
    return s.limits.introductions

cdef void introduce_to_many(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot, uint64_t sub, uint64_t cluster,
                            bint another, Choice *met) noexcept nogil:
    """Introduces a joiner to members of its subcluster and cluster, and to strangers in the places that these leave.

    Two Hard peers cannot punch, but the introduction makes us their proxy: members of one cluster get it, strangers not.
    another: it joined another subcluster before. Reference peers that met there take no second introduction, but a join they do.
    """
    cdef Choice choice
    cdef Introducing x
    cdef uint32_t i, other
    cdef bint friend
    start_introducing(s, &x, d, frame)
    choice.count = 0
    if s.reference:
        choose_friends(s, &choice, 0, cluster, 1, met)
    else:
        choose_friends(s, &choice, sub, cluster, enough_introductions(s, sub), met)
    choose_strangers(s, &choice, STRANGERS + 1 if s.reference else STRANGERS, met)
    for i in range(choice.count):
        other = choice.peer[i]
        friend = i < choice.friends
        if not friend and srp_nat_hard(s.peers.peer[slot].nat_type) and srp_nat_hard(s.peers.peer[other].nat_type):
            continue
        if not same_scope(s.peers.peer[slot].addr, s.peers.peer[other].addr):
            continue
        if not s.peers.peer[other].flags & SRP_PEER_NAMED or not may_be_introduced(s, other, friend):
            continue
        if not may_be_introduced(s, slot, friend):
            return
        introduce(s, &x, slot, other, False)
        if friend and meets_by_pong(s, slot, other):
            echo_later(s, d, frame, slot, slot, other, DEFER_US)
            echo_later(s, d, frame, slot, slot, other, ECHO_AGAIN_US)
        if friend and another:
            echo_later(s, d, frame, slot, slot, other, DEFER_US)
            echo_later(s, d, frame, slot, other, slot, DEFER_US)
        if met.count < CHOOSE_MAX:
            met.peer[met.count] = other
            met.count += 1

# --- relay ------------------------------------------------------------------------------------------------------------

cdef void rebuild(State *s, srp_packet *packet, srp_datagram *d, srp_frame *frame, uint32_t hops) noexcept nogil:
    """A received packet with other hops; its message is still to be written."""
    cdef uint32_t i
    packet.type = frame.type
    packet.clock = frame.clock
    packet.hops = hops
    packet.index = frame.index
    packet.ttl = frame.ttl
    for i in range(SRP_FIELDS):
        packet.field[i].at = d.data + frame.field[i].at
        packet.field[i].len = frame.field[i].len

cdef uint8_t *write_join(State *s, srp_packet *packet, srp_message *message, uint32_t *size) noexcept nogil:
    """Writes the packet with this message to the slab; NULL when there is no room."""
    cdef uint8_t *at = out_reserve(s)
    cdef uint32_t offset
    if at == NULL:
        return NULL
    offset = srp_message_offset(packet)
    packet.field[SRP_MESSAGE].at = at + offset
    packet.field[SRP_MESSAGE].len = srp_message_write(SRP_JOIN, message, <char *>at + offset, SRP_MESSAGE_MAX)
    size[0] = srp_packet_encode(packet, at, SRP_DATAGRAM_MAX)
    if size[0] == 0:
        return NULL
    out_commit(s, size[0])
    return at

cdef void relay_stamped(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot, uint64_t sub,
                        uint64_t cluster, Choice *met) noexcept nogil:
    """Passes a direct join on, with the proven endpoint and with us as the rendezvous peer. Not to those who were just
    introduced to the joiner: the copy would make them deaf to its own next join, which has the same packetId."""
    cdef srp_packet packet
    cdef Choice choice
    cdef uint8_t *at
    cdef uint32_t i, size
    cdef srp_peer *p = &s.peers.peer[slot]
    if frame.hops >= SRP_HOPS_MAX or s.address == 0 or s.nat_type != 31:  # only one that all can reach is a rendezvous peer
        return
    if s.reference:
        choose_for_relay(s, &choice, sub, cluster, met)
    else:  # members here were introduced already: this is for those elsewhere
        choice.count = choice.friends = 0
        choose_friends(s, &choice, sub, cluster, 1, met)
        if may_carry(s, &s.carried_joins, p.used_replicated <= LIGHT):
            choose_strangers(s, &choice, 1, met)
        choose_indexed(s, &choice, met)
        choose_indexed(s, &choice, met)  # the first may be another identity of this process, which heard the join itself
    if choice.count == 0:
        return
    rebuild(s, &packet, d, frame, frame.hops + 1 if frame.hops != 0 else 2)  # at most 1 would make it a direct join of ours
    message.has |= (1u << SRP_KEY_ADDRESS) | (1u << SRP_KEY_PORT) | (1u << SRP_KEY_RENDEZVOUS_ADDRESS) \
        | (1u << SRP_KEY_RENDEZVOUS_PORT) | (1u << SRP_KEY_RENDEZVOUS_TYPE) | (1u << SRP_KEY_RENDEZVOUS_PEER_ID) \
        | (1u << SRP_KEY_RENDEZVOUS_DEADLINE)
    message.address = p.addr
    message.port = p.port
    message.rendezvous_address = s.address
    message.rendezvous_port = s.port
    message.rendezvous_type = s.nat_type
    memcpy(message.rendezvous_peer_id, s.peer_id, 32)
    message.rendezvous_deadline = <double>(s.now.wall_ms + s.keep_alive_us // 1000)
    at = write_join(s, &packet, message, &size)
    if at == NULL:
        return
    for i in range(choice.count):
        p = &s.peers.peer[choice.peer[i]]
        if same_scope(message.address, p.addr):  # elsewhere it would name another machine
            out_replicated(s, p, at, size, LIVE if i < choice.friends or p.flags & SRP_PEER_INDEXED else STRANGE)
    s.counter[SRP_COUNT_joins_relayed] += 1

cdef bint within_target_budget(State *s, uint32_t addr) noexcept nogil:
    """How often joins that others relayed may point at one prefix: their receivers will send there."""
    cdef uint32_t prefix = srp_prefix(addr)
    if s.limits.relayed_joins_per_minute == 0:
        return True
    return srp_meter_use(&s.join_targets, srp_sip_word(&s.key, prefix), s.minute_64ths, 1) <= s.limits.relayed_joins_per_minute

cdef void pass_on(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot, uint64_t sub,
                  uint64_t cluster) noexcept nogil:
    """Passes a relayed join on to members of its cluster, within the budget of the endpoints that it names.

    Nobody proved the joiner's endpoint to us, and a reference peer that gets the copy sends introductions to whatever it names, has
    its own peers ping it, and relays it to others who do the same: 54 datagrams at a stranger were measured for one join. So the copy
    puts the joiner at ourselves, and it is at its last hop. What is left is all that a meeting needs: each receiver sends one join
    to the rendezvous peer.
    """
    cdef srp_packet packet
    cdef Choice choice, without
    cdef uint8_t *at
    cdef uint32_t i, size
    cdef bint from_rendezvous
    if s.address == 0:
        return
    if frame.hops >= SRP_HOPS_MAX:
        drop(s, SRP_DROP_hops)
        return
    if not scope_allows(s, message.address, message.port) or not SRP_HAS(message, SRP_KEY_RENDEZVOUS_ADDRESS) \
            or not SRP_HAS(message, SRP_KEY_RENDEZVOUS_PORT):
        drop(s, SRP_DROP_scope)
        return
    # The rendezvous peer itself sent it: it answers for the joiner, and gets the answers.
    from_rendezvous = message.rendezvous_address == d.addr and message.rendezvous_port == d.port
    if not from_rendezvous and not scope_allows(s, message.rendezvous_address, message.rendezvous_port):
        drop(s, SRP_DROP_scope)
        return
    without.count = 1
    without.peer[0] = slot
    choice.count = 0
    choose_friends(s, &choice, sub, cluster, STRANGERS if from_rendezvous else UNPROVEN_TARGET_FANOUT, &without)
    if choice.count == 0:
        return
    if not within_target_budget(s, message.address) \
            or (not from_rendezvous and not within_target_budget(s, message.rendezvous_address)):
        drop(s, SRP_DROP_relay_budget)
        return
    rebuild(s, &packet, d, frame, SRP_HOPS_MAX)
    message.address = s.address
    message.port = s.port
    at = write_join(s, &packet, message, &size)
    if at == NULL:
        return
    for i in range(choice.count):
        out_replicated(s, &s.peers.peer[choice.peer[i]], at, size, LIVE)
    s.counter[SRP_COUNT_joins_relayed] += 1

# --- later ------------------------------------------------------------------------------------------------------------

cdef Deferred *defer(State *s, uint8_t kind, uint32_t slot, uint32_t cause, int64_t after_us) noexcept nogil:
    """A free place among the joins that wait for a peer, on account of the one that caused it, or NULL (counted)."""
    cdef uint32_t i
    cdef Deferred *w
    if s.limits.deferred_joins_per_peer != 0 and s.peers.peer[cause].deferred >= s.limits.deferred_joins_per_peer:
        drop(s, SRP_DROP_deferred_peer)
        return NULL
    if s.deferred_count < s.deferred_size:
        for i in range(s.deferred_size):
            w = &s.deferred[i]
            if w.kind == 0:
                w.kind = kind
                w.peer = slot
                w.generation = s.peers.peer[slot].generation
                w.due_us = s.now.mono_us + after_us
                if s.deferred_count == 0 or w.due_us < s.deferred_due_us:
                    s.deferred_due_us = w.due_us
                w.cause = cause
                w.cause_generation = s.peers.peer[cause].generation
                s.peers.peer[cause].deferred += 1
                s.deferred_count += 1
                s.counter[SRP_COUNT_joins_deferred] += 1
                return w
    if s.deferred_size != 0:
        drop(s, SRP_DROP_deferred_full)
    return NULL

cdef void undefer(State *s, Deferred *w) noexcept nogil:
    w.kind = 0
    s.deferred_count -= 1
    if s.peers.peer[w.cause].generation == w.cause_generation:
        s.peers.peer[w.cause].deferred -= 1

cdef bint meets_by_pong(State *s, uint32_t joiner, uint32_t member) noexcept nogil:
    """Behind a Hard NAT a joiner reaches an easy member by its own ping: the member's application hears of it, but what the
    joiner gets back is a pong, which names no cluster. A join of the member, which it would repeat in 30 s only, does."""
    cdef uint8_t nat = s.peers.peer[member].nat_type
    return srp_nat_hard(s.peers.peer[joiner].nat_type) and not srp_nat_hard(nat) and nat & 8

cdef void echo_later(State *s, srp_datagram *d, srp_frame *frame, uint32_t joiner, uint32_t to, uint32_t about,
                     int64_t after_us) noexcept nogil:
    """Has one peer hear of another by a join, in a moment, when they know each other already. Its packetId is new: a
    client takes each once. It is at its last hop: nobody passes it on."""
    cdef Deferred *w
    cdef uint64_t id[4]
    cdef srp_packet packet
    cdef srp_message message
    cdef srp_peer *p = &s.peers.peer[about]
    cdef srp_span c = frame.field[SRP_CLUSTER_ID], sub = frame.field[SRP_SUBCLUSTER_ID]
    cdef uint32_t offset
    w = defer(s, ECHO, to, joiner, after_us)
    if w == NULL:
        return
    srp_packet_init(&packet, SRP_JOIN)
    packet.hops = SRP_HOPS_MAX
    draw_id(s, <uint8_t *>id)
    packet.field[SRP_PACKET_ID].at = <const uint8_t *>id
    packet.field[SRP_PACKET_ID].len = 32
    packet.field[SRP_CLUSTER_ID].at = d.data + c.at
    packet.field[SRP_CLUSTER_ID].len = c.len
    packet.field[SRP_SUBCLUSTER_ID].at = d.data + sub.at
    packet.field[SRP_SUBCLUSTER_ID].len = sub.len
    message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_NAT_TYPE) | (1u << SRP_KEY_ADDRESS) | (1u << SRP_KEY_PORT)
    message.truth = 0
    memcpy(message.requester_peer_id, p.id, 32)
    message.nat_type = p.nat_type
    message.address = p.addr
    message.port = p.port
    offset = srp_message_offset(&packet)
    packet.field[SRP_MESSAGE].at = w.data + offset
    packet.field[SRP_MESSAGE].len = srp_message_write(SRP_JOIN, &message, <char *>w.data + offset, SRP_MESSAGE_MAX)
    w.len = <uint16_t>srp_packet_encode(&packet, w.data, SRP_DATAGRAM_MAX)

cdef bint is_known(State *s, const uint8_t *peer_id) noexcept nogil:
    """Whether a joiner is connected here: then it gets its introductions from its own join."""
    cdef uint32_t known = srp_peers_named(&s.peers, peer_id)
    return known != <uint32_t>SRP_NONE and s.peers.peer[known].flags & SRP_PEER_LIVE and proven(s, known)

cdef void pass_on_now(State *s, srp_datagram *d, uint32_t slot) noexcept nogil:
    cdef srp_frame frame
    cdef srp_message message
    cdef srp_span c, sub
    cdef uint64_t sub_key = 0
    if srp_frame_decode(d.data, d.len, &frame) != SRP_OK or srp_message_read(d.data, &frame, &message) != SRP_OK:
        return
    if is_known(s, message.requester_peer_id):
        s.counter[SRP_COUNT_joins_known] += 1
        return
    c = frame.field[SRP_CLUSTER_ID]
    sub = frame.field[SRP_SUBCLUSTER_ID]
    if not srp_unset(d.data, sub):
        sub_key = srp_cluster_key(&s.peers, d.data + c.at, 32, d.data + sub.at, sub.len)
    pass_on(s, d, &frame, &message, slot, sub_key, srp_cluster_key(&s.peers, d.data + c.at, 32, NULL, 0))

cdef void work_on_deferred(State *s) noexcept nogil:
    """Sends and passes on what has waited long enough."""
    cdef uint32_t i, seen = 0, waiting = s.deferred_count
    cdef Deferred *w
    cdef srp_peer *p
    cdef srp_datagram d
    if s.now.mono_us < s.deferred_due_us:
        return
    s.deferred_due_us = s.now.mono_us + DEFER_US
    for i in range(s.deferred_size):
        if seen == waiting:
            return
        w = &s.deferred[i]
        if w.kind == 0:
            continue
        seen += 1
        if w.due_us > s.now.mono_us:
            if w.due_us < s.deferred_due_us:
                s.deferred_due_us = w.due_us
            continue
        p = &s.peers.peer[w.peer]
        if p.generation == w.generation and proven(s, w.peer):
            d.data = out_reserve(s)
            if d.data == NULL:  # the queue is full: in the next tick
                s.deferred_due_us = s.now.mono_us + 1000
                return
            memcpy(d.data, w.data, w.len)
            d.len = w.len
            d.addr = p.addr
            d.port = p.port
            d.local = p.local
            d.socket = p.socket
            out_commit(s, d.len)
            if w.kind == ECHO:
                out_replicated(s, p, d.data, d.len, LIVE)
                s.counter[SRP_COUNT_joins_echoed] += 1
            else:
                pass_on_now(s, &d, w.peer)
        undefer(s, w)

# --- join -------------------------------------------------------------------------------------------------------------

cdef bint gated(State *s, uint64_t key, uint32_t ttl_ms) noexcept nogil:
    if srp_recent_find(&s.gate_join, key, s.now_ms) != NULL:
        drop(s, SRP_DROP_duplicate)
        return True
    if srp_recent_add(&s.gate_join, key, s.now_ms, ttl_ms, 0):
        s.counter[SRP_COUNT_gate_evicted] += 1
    return False

cdef uint64_t direct_key(State *s, srp_datagram *d, srp_message *message, uint64_t cluster) noexcept nogil:
    """What makes two direct joins the same: endpoint, peerId, cluster, NAT type, and whom it asks for at a rendezvous."""
    cdef uint64_t words[4]
    words[0] = (<uint64_t>d.addr << 24) | (<uint64_t>d.port << 8) | message.nat_type
    words[1] = cluster
    words[2] = 0
    words[3] = srp_sip(&s.key, message.requester_peer_id, 32)
    if SRP_HAS(message, SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID):
        words[2] = srp_sip(&s.key, message.rendezvous_requester_peer_id, 32)
    return srp_sip(&s.key, words, sizeof(words))

cdef void answer_rendezvous(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil:
    """A member of the joiner's cluster heard of it elsewhere and asks to be introduced to exactly that one.

    The reference's answer carries no rendezvousPeerId (and is never acted upon there): it is taken as meant for us.
    """
    cdef uint32_t other
    cdef Introducing x
    if SRP_HAS(message, SRP_KEY_RENDEZVOUS_PEER_ID) and memcmp(message.rendezvous_peer_id, s.peer_id, 32) != 0:
        drop(s, SRP_DROP_rendezvous_unknown)
        return
    other = srp_peers_named(&s.peers, message.rendezvous_requester_peer_id)
    if other == <uint32_t>SRP_NONE or other == slot or not proven(s, other) \
            or not s.peers.peer[other].flags & SRP_PEER_LIVE or s.peers.peer[other].flags & SRP_PEER_INDEXED \
            or not same_scope(s.peers.peer[slot].addr, s.peers.peer[other].addr):
        drop(s, SRP_DROP_rendezvous_unknown)
        return
    if may_be_introduced(s, other, True) and may_be_introduced(s, slot, True):
        start_introducing(s, &x, d, frame)
        introduce(s, &x, slot, other, True)

cdef void on_join(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil:
    """A join from a proven source."""
    cdef srp_span c = frame.field[SRP_CLUSTER_ID], sub = frame.field[SRP_SUBCLUSTER_ID], id = frame.field[SRP_PACKET_ID]
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef uint64_t cluster_key, sub_key = 0, id_key, key
    cdef uint32_t at, ttl_ms = <uint32_t>(2 * s.keep_alive_us // 1000)
    cdef bint another
    cdef Deferred *w
    cdef Choice met
    cdef Own *own
    if p.flags & SRP_PEER_OPENED:  # others would hear of its endpoint
        drop(s, SRP_DROP_unproven)
        return
    if c.len != 32:
        drop(s, SRP_DROP_cluster_id)
        return
    if not SRP_HAS(message, SRP_KEY_REQUESTER_PEER_ID) or not SRP_HAS(message, SRP_KEY_NAT_TYPE) \
            or not SRP_HAS(message, SRP_KEY_ADDRESS) or not SRP_HAS(message, SRP_KEY_PORT):
        drop(s, SRP_DROP_claim)
        return
    if memcmp(message.requester_peer_id, s.peer_id, 32) == 0:
        drop(s, SRP_DROP_self_named)
        return
    if SRP_HAS(message, SRP_KEY_RENDEZVOUS_DEADLINE) and message.rendezvous_deadline < <double>s.now.wall_ms:
        drop(s, SRP_DROP_stale)
        return
    cluster_key = srp_cluster_key(&s.peers, d.data + c.at, 32, NULL, 0)
    if not srp_unset(d.data, sub):
        sub_key = srp_cluster_key(&s.peers, d.data + c.at, 32, d.data + sub.at, sub.len)
    id_key = srp_sip(&s.key, d.data + id.at, id.len)

    if frame.hops > 1:
        if gated(s, id_key, ttl_ms):
            return
        if is_known(s, message.requester_peer_id):
            s.counter[SRP_COUNT_joins_known] += 1
            return
        if s.owns != 0:
            own = own_cluster(s, d.data, frame)
            if own != NULL:
                if message.rendezvous_address == d.addr or within_target_budget(s, message.rendezvous_address):
                    answer_elsewhere(s, d, frame, message, own)
                else:
                    drop(s, SRP_DROP_relay_budget)
        # Not at once: the joiner's own join may be on its way here, and to a member that it is about to be introduced to
        # this copy would be the only one it takes.
        w = defer(s, PASS_ON, slot, slot, DEFER_US) if frame.size <= sizeof(w.data) else NULL
        if w != NULL:
            memcpy(w.data, d.data, frame.size)
            w.len = <uint16_t>frame.size
        elif s.deferred_size == 0:
            pass_on(s, d, frame, message, slot, sub_key, cluster_key)
        return

    if not claim_name(s, slot, message.requester_peer_id, False):
        if not p.flags & SRP_PEER_INDEXED:
            park(s, d, True)
        return
    # One join of a peer for a subcluster: not by its id alone, or anybody could use it up by sending it first, nor by its
    # claims, or a peer could have itself introduced again and again.
    key = direct_key(s, d, message, cluster_key ^ sub_key)
    if message.address != d.addr or message.port != d.port:
        # Who does not know yet that its address has changed joins once more when it does: that is another join, but not the reverse.
        if srp_recent_find(&s.gate_join, key, s.now_ms) != NULL:
            drop(s, SRP_DROP_duplicate)
            return
        key = ~key
    if gated(s, key, ttl_ms):
        return
    srp_recent_add(&s.gate_join, id_key, s.now_ms, ttl_ms, 0)
    at = srp_cluster_find(&s.peers, sub_key)
    another = p.flags & SRP_PEER_JOINED and sub_key != 0 \
        and (at == <uint32_t>SRP_NONE or not srp_peers_is_member(&s.peers, slot, at))
    p.flags |= SRP_PEER_JOINED
    connect(s, slot, message.nat_type)
    reached(s, slot, message.requester_peer_id)
    met_by_frame(s, slot, d.data, frame)
    if p.flags & SRP_PEER_INDEXED:
        return
    if message.address != d.addr or message.port != d.port:
        s.counter[SRP_COUNT_claims_wrong] += 1
    if SRP_HAS(message, SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID):
        answer_rendezvous(s, d, frame, message, slot)
        return
    met.count = 1
    met.peer[0] = slot
    introduce_to_many(s, d, frame, slot, sub_key, cluster_key, another, &met)
    relay_stamped(s, d, frame, message, slot, sub_key, cluster_key, &met)
