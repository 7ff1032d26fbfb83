r"""Connecting to those that we were introduced to, through whatever NATs are in between (draft STATE_3).

    ours \ theirs     static   easy, knows address   easy, knows port   hard
    static            direct   direct                direct             direct      (they reach us)
    knows address     direct   direct                direct             direct
    knows port        direct   direct                direct             open
    hard              direct   direct                connect            proxy

direct: a few connection pings. open: one byte to each of 1024 random ports of the other, so that its pings may pass.
connect: pings from up to 256 sockets in turn to the other's one port, 1024 in all, the last round when all ports are open: with 256
outside ports and 1024 openings the two meet in 98.35 % of cases. Whoever is not reached in two seconds is reached through the introducer, until a later attempt succeeds.

An introduction makes us send to whom it names, so attempts have a budget: in all, and for each prefix. Who is beyond it is reached
through the introducer at once. Introducers that we are not configured with have a quarter of it between them.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from srpnode.core.app cimport met_by_frame, met_peer, own_cluster, tell_join
from srpnode.core.gossip cimport decimal
from srpnode.core.choose cimport proven
from srpnode.core.out cimport out_opener
from srpnode.core.reach cimport scope_allows, send_connection_ping
from srpnode.core.state cimport SRP_POOL, Attempt, Proxied, State, draw_below, drop
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_COUNT_attempts,
    SRP_COUNT_attempts_direct,
    SRP_COUNT_attempts_proxied,
    SRP_COUNT_gate_evicted,
    SRP_COUNT_openers,
    SRP_COUNT_proxies_upgraded,
    SRP_DROP_attempt_budget,
    SRP_DROP_attempts_full,
    SRP_DROP_claim,
    SRP_DROP_intro_ignored,
    SRP_DROP_intro_known,
    SRP_DROP_intro_stale,
    SRP_DROP_scope,
    SRP_DROP_self_named,
    SRP_HAS,
    SRP_HOPS_MAX,
    SRP_KEY_ADDRESS,
    SRP_KEY_NAT_TYPE,
    SRP_KEY_PORT,
    SRP_KEY_REQUESTER_PEER_ID,
    SRP_NONE,
    SRP_PEER_INDEXED,
    SRP_PEER_LIVE,
    SRP_PEER_OPENED,
    SRP_SOCKET_MAIN,
    SRP_SOCKET_POOL,
    SRP_SUBCLUSTER_ID,
    SRP_USR1,
    srp_datagram,
    srp_frame,
    srp_message,
    srp_meter_use,
    srp_nat_hard,
    srp_peer,
    srp_peers_named,
    srp_window,
    srp_prefix,
    srp_recent_add,
    srp_recent_find,
    srp_sip,
    srp_span,
)

cdef enum:
    STRATEGY_DIRECT = 1
    STRATEGY_OPEN = 2
    STRATEGY_CONNECT = 3
    STRATEGY_PROXY = 4
    STRATEGY_AGAIN = 5          # reached: one more ping that names the cluster, should the first be lost
    AGAIN_US = 500000
    DEADLINE_US = 2048000
    OPENERS = 1024
    PORTS = 64512               # 1024 … 65535
    PINGS = 1024
    STEP_US = 1000              # of the strategies that send many packets
    ROUND = 256                 # pings, one from each socket
    DIRECT_PINGS = 6
    INTRO_AGAIN_MS = 4000
    PUNCHES_AT_ONCE = 8         # a home router has room for some ten thousand mappings

cdef int strategy_for(unsigned int ours, unsigned int theirs) noexcept nogil:
    if srp_nat_hard(theirs):
        if srp_nat_hard(ours):
            return STRATEGY_PROXY
        return STRATEGY_OPEN if not ours & 8 else STRATEGY_DIRECT
    if srp_nat_hard(ours) and not theirs & 8:
        return STRATEGY_CONNECT
    return STRATEGY_DIRECT

cdef int64_t direct_at_us(uint32_t sent) noexcept nogil:
    """When the next of the direct pings leaves, from the start."""
    if sent == 1:
        return 200000
    if sent == 2:
        return 500000
    if sent == 3:
        return 1000000
    if sent == 4:
        return 1500000
    return 1900000      # a name that moved to another endpoint is free by then

cdef int64_t round_at_us(uint32_t number) noexcept nogil:
    """When a round of pings from all sockets begins. The other side opens its ports for 1.03 s: a round that ended before that
    would miss those that are opened after it, one in eight of all."""
    if number == 1:
        return 320000
    if number == 2:
        return 768000
    return 1344000

# --- proxies ------------------------------------------------------------------------------------------------------------

cdef Proxied *proxied_to(State *s, const uint8_t *peer_id) noexcept nogil:
    """The entry of a peer that is reached through another, while that other is there; or NULL."""
    cdef uint32_t i
    cdef Proxied *p
    for i in range(s.proxies):
        p = &s.proxied[i]
        if p.used and memcmp(p.id, peer_id, 32) == 0:
            if s.peers.peer[p.proxy].generation == p.proxy_generation and proven(s, p.proxy):
                return p
            p.used = 0
    return NULL

cdef bint note_proxy(State *s, Attempt *a) noexcept nogil:
    """Remembers the introducer as the way there; False when it is gone."""
    cdef uint32_t i
    cdef Proxied *p
    cdef Proxied *chosen = NULL
    if s.proxies == 0 or s.peers.peer[a.introducer].generation != a.introducer_generation or not proven(s, a.introducer):
        return False
    chosen = proxied_to(s, a.id)
    if chosen == NULL:
        chosen = &s.proxied[0]
        for i in range(s.proxies):
            p = &s.proxied[i]
            if not p.used:
                chosen = p
                break
            if p.since_us < chosen.since_us:
                chosen = p
    chosen.used = 1
    memcpy(chosen.id, a.id, 32)
    chosen.proxy = a.introducer
    chosen.proxy_generation = a.introducer_generation
    chosen.since_us = s.now.mono_us
    return True

cdef void use_proxy(State *s, Attempt *a) noexcept nogil:
    if not note_proxy(s, a):
        return
    s.counter[SRP_COUNT_attempts_proxied] += 1
    tell_join(s, a.id, a.cluster, a.subcluster, a.nat_type, False, a.addr, a.port)

# --- the pool -----------------------------------------------------------------------------------------------------------

cdef uint16_t free_socket(State *s, uint32_t wanted) noexcept nogil:
    """The socket of the pool with this number, or the next that belongs to no peer; SRP_SOCKET_MAIN when there is none."""
    cdef uint32_t i, at, n = s.pool_open if s.pool_open < SRP_POOL else SRP_POOL
    for i in range(n):
        at = (wanted + i) % n
        if s.pool_owner[at] == 0:
            return <uint16_t>(SRP_SOCKET_POOL + at)
    return SRP_SOCKET_MAIN

cdef void forget_socket(State *s, uint32_t slot) noexcept nogil:
    """Gives a socket of the pool back when the peer it belonged to is gone."""
    cdef uint16_t socket = s.peers.peer[slot].socket
    if socket >= SRP_SOCKET_POOL and s.pool_owner[socket - SRP_SOCKET_POOL] == slot + 1:
        s.pool_owner[socket - SRP_SOCKET_POOL] = 0

# --- introductions --------------------------------------------------------------------------------------------------------

cdef Attempt *attempt_for(State *s, const uint8_t *peer_id) noexcept nogil:
    cdef uint32_t i
    for i in range(s.attempts):
        if s.attempt[i].strategy != 0 and memcmp(s.attempt[i].id, peer_id, 32) == 0:
            return &s.attempt[i]
    return NULL

cdef bint within_attempt_budget(State *s, uint32_t addr, bint punch, bint configured) noexcept nogil:
    """Whether one more attempt may be made this minute: in all, and towards this prefix."""
    cdef uint64_t target[2]
    cdef uint32_t i, active = 0, most = s.limits.punches_per_minute if punch else s.limits.attempts_per_minute
    cdef uint32_t share = (most + 7) // 8 if punch else (most + 15) // 16
    cdef uint32_t *used = &s.punches_used if punch else &s.attempts_used
    if punch:
        for i in range(s.attempts):
            active += s.attempt[i].strategy == STRATEGY_OPEN or s.attempt[i].strategy == STRATEGY_CONNECT
        if active >= PUNCHES_AT_ONCE:
            return False
    if most == 0:
        return True
    if not configured:
        most = (most + 3) // 4
        share = (share + 3) // 4
    if s.attempts_minute != srp_window(s.minute_64ths, 0):
        s.attempts_minute = srp_window(s.minute_64ths, 0)
        s.attempts_used = s.punches_used = 0
    target[0] = srp_prefix(addr)
    target[1] = punch
    if used[0] >= most or srp_meter_use(&s.join_targets, srp_sip(&s.key, target, sizeof(target)), s.minute_64ths, 1) > share:
        return False
    used[0] += 1
    return True

cdef bint moved(srp_peer *p, srp_message *message) noexcept nogil:
    """Whether a peer that we know is introduced at another place. The port of one behind a hard NAT says nothing."""
    return p.addr != message.address \
        or (p.port != message.port and not srp_nat_hard(p.nat_type) and not srp_nat_hard(message.nat_type))

cdef void on_intro(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil:
    """A proven peer describes another: try to reach it."""
    cdef srp_span stamp = frame.field[SRP_USR1], c = frame.field[SRP_CLUSTER_ID], sub = frame.field[SRP_SUBCLUSTER_ID]
    cdef int64_t sent_ms
    cdef uint64_t key
    cdef uint8_t subject[38]
    cdef uint32_t i, known
    cdef int strategy
    cdef Attempt *a
    if s.attempts == 0 or s.owns == 0 or s.address == 0:
        drop(s, SRP_DROP_intro_ignored)
        return
    if not SRP_HAS(message, SRP_KEY_REQUESTER_PEER_ID) or not SRP_HAS(message, SRP_KEY_NAT_TYPE) \
            or not SRP_HAS(message, SRP_KEY_ADDRESS) or not SRP_HAS(message, SRP_KEY_PORT) or c.len != 32:
        drop(s, SRP_DROP_claim)
        return
    sent_ms = decimal(d.data + stamp.at, stamp.len)
    if frame.hops >= SRP_HOPS_MAX or (sent_ms >= 0 and sent_ms + s.keep_alive_us // 1000 < s.now.wall_ms):
        drop(s, SRP_DROP_intro_stale)
        return
    if memcmp(message.requester_peer_id, s.peer_id, 32) == 0:
        drop(s, SRP_DROP_self_named)
        return
    if not scope_allows(s, message.address, message.port):
        drop(s, SRP_DROP_scope)
        return
    memcpy(subject, message.requester_peer_id, 32)
    memcpy(subject + 32, &message.address, 4)
    memcpy(subject + 36, &message.port, 2)
    # Once for each place of the other and of ours, and once more when we have joined that subcluster meanwhile.
    key = srp_sip(&s.key, subject, 38) ^ srp_sip(&s.key, d.data + sub.at, sub.len) ^ <uint64_t>s.moved_us
    if own_cluster(s, d.data, frame) != NULL:
        key = ~key
    if srp_recent_find(&s.gate_other, key, s.now_ms) != NULL:
        drop(s, SRP_DROP_intro_known)
        return
    # Several introducers tell of one peer at the same time. Later it is another attempt: what failed, perhaps because the other did
    # not know yet that it had moved, is worth one, within its budget.
    if srp_recent_add(&s.gate_other, key, s.now_ms, INTRO_AGAIN_MS, 0):
        s.counter[SRP_COUNT_gate_evicted] += 1
    known = srp_peers_named(&s.peers, message.requester_peer_id)
    if known != <uint32_t>SRP_NONE and s.peers.peer[known].flags & SRP_PEER_LIVE and proven(s, known) \
            and not moved(&s.peers.peer[known], message) and s.peers.peer[known].last_proof_us >= s.moved_us:
        # Connected already, perhaps by a ping that named no cluster: let both sides hear of this one.
        met_by_frame(s, known, d.data, frame)
        send_connection_ping(s, s.peers.peer[known].addr, s.peers.peer[known].port, s.peers.peer[known].local,
                             s.peers.peer[known].socket, d.data + c.at, d.data + sub.at if sub.len == 32 else NULL)
        return
    a = attempt_for(s, message.requester_peer_id)
    if a != NULL:
        drop(s, SRP_DROP_intro_known)
        return
    for i in range(s.attempts):
        if s.attempt[i].strategy == 0:
            a = &s.attempt[i]
            break
    if a == NULL or s.peers.count >= s.peers.capacity:
        drop(s, SRP_DROP_attempts_full)
        return
    memset(a, 0, sizeof(Attempt))
    memcpy(a.id, message.requester_peer_id, 32)
    memcpy(a.cluster, d.data + c.at, 32)
    if sub.len == 32:
        memcpy(a.subcluster, d.data + sub.at, 32)
    strategy = strategy_for(s.nat_type, message.nat_type)
    if strategy != STRATEGY_PROXY and not within_attempt_budget(s, message.address, strategy != STRATEGY_DIRECT,
                                                                s.peers.peer[slot].flags & SRP_PEER_INDEXED):
        drop(s, SRP_DROP_attempt_budget)
        strategy = STRATEGY_PROXY
    a.strategy = <uint8_t>strategy
    a.nat_type = message.nat_type
    a.addr = message.address
    a.port = message.port
    a.local = d.local
    a.introducer = slot
    a.introducer_generation = s.peers.peer[slot].generation
    a.started_us = a.next_us = s.now.mono_us
    a.deadline_us = s.now.mono_us + DEADLINE_US
    if a.strategy == STRATEGY_CONNECT:
        s.pool_wanted = 1
    # Every port once: a step that shares no factor with 64512 = 2^10 * 3^2 * 7.
    a.base = draw_below(s, PORTS)
    a.stride = 2 * draw_below(s, PORTS // 2) + 1
    while a.stride % 3 == 0 or a.stride % 7 == 0:
        a.stride += 2
    if s.attempts_active == 0:
        s.attempts_due_us = a.deadline_us
    s.attempts_active += 1
    s.counter[SRP_COUNT_attempts] += 1
    work_on(s, a)
    plan(s, a)

# --- attempts -------------------------------------------------------------------------------------------------------------

cdef void end_attempt(State *s, Attempt *a) noexcept nogil:
    a.strategy = 0
    s.attempts_active -= 1

cdef void ping_from(State *s, Attempt *a, uint16_t socket) noexcept nogil:
    send_connection_ping(s, a.addr, a.port, a.local, socket, a.cluster, a.subcluster)
    a.sent += 1

cdef void name_ourselves(State *s, uint32_t slot, Attempt *a) noexcept nogil:
    """The other side may have been reached by our pong alone, which names no cluster: this ping does."""
    cdef srp_peer *p = &s.peers.peer[slot]
    send_connection_ping(s, p.addr, p.port, p.local, p.socket, a.cluster, a.subcluster)

cdef void work_on(State *s, Attempt *a) noexcept nogil:
    """What one attempt has to send by now."""
    cdef uint16_t socket
    cdef uint32_t slot
    cdef int burst
    if a.strategy == STRATEGY_AGAIN:
        if s.now.mono_us >= a.deadline_us:
            end_attempt(s, a)
            slot = srp_peers_named(&s.peers, a.id)
            if slot != <uint32_t>SRP_NONE and proven(s, slot):
                name_ourselves(s, slot, a)
        return
    if a.strategy == STRATEGY_PROXY or s.now.mono_us >= a.deadline_us:
        use_proxy(s, a)
        end_attempt(s, a)
        return
    if s.now.mono_us < a.next_us:
        return
    if a.strategy == STRATEGY_DIRECT:
        if a.sent < DIRECT_PINGS:
            ping_from(s, a, SRP_SOCKET_MAIN)
            a.next_us = a.started_us + direct_at_us(a.sent)
        else:
            a.next_us = a.deadline_us
        return
    # Paced: what a late tick missed is made up for in small bursts.
    burst = <int>((s.now.mono_us - a.next_us) // STEP_US) + 1
    if burst > 8:
        burst = 8
    while burst > 0:
        burst -= 1
        if a.strategy == STRATEGY_OPEN:
            if a.sent >= OPENERS:
                a.next_us = a.deadline_us
                return
            out_opener(s, a.addr, <uint16_t>(1024 + (a.base + <uint64_t>a.sent * a.stride) % PORTS), a.local)
            s.counter[SRP_COUNT_openers] += 1
            a.sent += 1
        else:
            if a.sent >= PINGS:
                a.next_us = a.deadline_us
                return
            socket = free_socket(s, a.sent)
            if socket == SRP_SOCKET_MAIN:
                break
            ping_from(s, a, socket)
            if a.sent % ROUND == 0:
                a.next_us = a.started_us + round_at_us(a.sent // ROUND)
                return
    a.next_us = s.now.mono_us + STEP_US

cdef void plan(State *s, Attempt *a) noexcept nogil:
    """Has the next tick come no later than this attempt wants it."""
    cdef int64_t at = a.next_us if a.next_us < a.deadline_us else a.deadline_us
    if a.strategy != 0 and at < s.attempts_due_us:
        s.attempts_due_us = at

cdef void hold_attempt(State *s, const uint8_t *peer_id, int64_t until_us) noexcept nogil:
    """It was reached, but its name is still with the endpoint where it was before: the attempt waits for that to be settled."""
    cdef Attempt *a = attempt_for(s, peer_id)
    if a != NULL and a.deadline_us < until_us:
        a.deadline_us = until_us

cdef bint was_opened(State *s, uint32_t addr, uint16_t port, const uint8_t *peer_id) noexcept nogil:
    """Whether we opened our way to this port of the peer that we were introduced to.

    That a ping comes from one of 1024 random ports out of 64512, at the address that its introducer proved, has to be enough to
    believe in its endpoint: the reference, behind a hard NAT, answers pings from another port than it connects from, so it can give
    no proof. But an introducer and a forger together can lie about it, so it gets little directly (out.opened_share).
    """
    cdef Attempt *a = attempt_for(s, peer_id)
    cdef uint32_t i
    if a == NULL or a.strategy != STRATEGY_OPEN or a.addr != addr or port < 1024:
        return False
    for i in range(a.sent):
        if <uint32_t>(port - 1024) == (a.base + <uint64_t>i * a.stride) % PORTS:
            return True
    return False

cdef void work_on_attempts(State *s) noexcept nogil:
    cdef uint32_t i, seen = 0, active = s.attempts_active
    if s.now.mono_us < s.attempts_due_us:
        return
    s.attempts_due_us = s.now.mono_us + DEADLINE_US
    for i in range(s.attempts):
        if seen == active:
            return
        if s.attempt[i].strategy != 0:
            seen += 1
            work_on(s, &s.attempt[i])
            plan(s, &s.attempt[i])

cdef void reached(State *s, uint32_t slot, const uint8_t *peer_id) noexcept nogil:
    """A proven peer answered or came by itself: the attempt to reach it has succeeded, a proxy is not needed any more."""
    cdef Attempt *a
    cdef Proxied *proxied
    cdef uint16_t socket = s.peers.peer[slot].socket
    cdef bint opened = (s.peers.peer[slot].flags & SRP_PEER_OPENED) != 0
    if s.attempts == 0:
        return
    proxied = proxied_to(s, peer_id)
    if proxied != NULL and not opened:
        proxied.used = 0
        s.counter[SRP_COUNT_proxies_upgraded] += 1
    if socket >= SRP_SOCKET_POOL:
        s.pool_owner[socket - SRP_SOCKET_POOL] = slot + 1
    a = attempt_for(s, peer_id)
    if a == NULL or a.strategy == STRATEGY_AGAIN:
        return
    s.counter[SRP_COUNT_attempts_direct] += 1
    if opened:  # for what is more than it may get directly
        note_proxy(s, a)
    name_ourselves(s, slot, a)
    met_peer(s, slot, a.cluster, a.subcluster)
    a.strategy = STRATEGY_AGAIN
    a.next_us = a.deadline_us = s.now.mono_us + AGAIN_US
    plan(s, a)
