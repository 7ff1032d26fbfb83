"""What kind of NAT stands before us, found with the help of two peers outside of it (draft STATE_0 and STATE_2).

    SEARCH   until two peers answer: pings to those we are configured with, ever less often
    PROBE    the first is pinged from the probe socket; its pong tells that socket's outside port
    ASK      both are pinged from the main socket, with that port; they answer to the main socket, and their probe sockets
             knock at ours
    SECOND   one answered, the other has 512 ms
    WAIT     both answered, their knocks have 512 ms; what has not come after half of it is asked for once more

Same outside port from both: the mapping does not depend on the endpoint. Knocks that arrived: none = the firewall knows address
and port, one (from the first, which our probe socket has talked to) = it knows the address, both = it lets anybody in. Two peers on one
address cannot tell the last two apart. Timeouts are the reference's: 1024, 2048, 512, 512 ms.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from srpnode.core.app cimport rejoin_soon, tell_ready
from srpnode.core.choose cimport proven
from srpnode.core.reach cimport finish_message, send_connection_ping, send_proof_ping
from srpnode.core.out cimport out_reserve
from srpnode.core.state cimport Reflection, State, draw, draw_below
from srpnode.core.types cimport (
    SRP_COUNT_reflections,
    SRP_COUNT_reflections_failed,
    SRP_HAS,
    SRP_KEY_ADDRESS,
    SRP_KEY_IS_PROBE,
    SRP_KEY_IS_REFLECTION,
    SRP_KEY_PORT,
    SRP_KEY_PROBE_EXTERNAL_PORT,
    SRP_KEY_REFLECTION_ID,
    SRP_KEY_REQUESTER_PEER_ID,
    SRP_NONE,
    SRP_PEER_INDEXED,
    SRP_PEER_NAMED,
    SRP_PING,
    SRP_SOCKET_MAIN,
    SRP_SOCKET_PROBE,
    srp_datagram,
    srp_hex,
    srp_message,
    srp_nat_hard,
    srp_packet,
    srp_packet_init,
    srp_peer,
)

cdef enum:
    NAT_IDLE = 0
    NAT_SEARCH = 1
    NAT_PROBE = 2
    NAT_ASK = 3
    NAT_SECOND = 4
    NAT_WAIT = 5
    PROBE_US = 1024000
    ASK_US = 2048000
    SECOND_US = 512000
    WAIT_US = 512000
    RETRY_US = 256000
    RETRIES = 16
    PROBED_S = 300          # a hole that our probe socket made may live that long
    NOTIFY_AT_ONCE = 64
    AGAIN_US = 10000000     # a changed mapping starts a new discovery at most that often

cdef void start_reflection(State *s) noexcept nogil:
    """Begins, or begins again: at start, after a change of the network, or when nobody was heard for long."""
    cdef Reflection *r = &s.reflection
    if not r.wanted or r.stage != NAT_IDLE:
        return
    r.stage = NAT_SEARCH
    r.retry = 0
    r.due_us = s.now.mono_us

cdef bint usable(State *s, uint32_t slot) noexcept nogil:
    cdef srp_peer *p = &s.peers.peer[slot]
    return proven(s, slot) and (p.flags & SRP_PEER_NAMED) \
        and (p.flags & SRP_PEER_INDEXED or p.nat_type == 31 or p.nat_type == 15)

cdef bint was_probed(State *s, uint32_t slot) noexcept nogil:
    cdef uint16_t at = s.peers.peer[slot].probed
    return at != 0 and <uint16_t>(<uint16_t>(s.now.mono_us // 1000000 + 1) - at) < PROBED_S

cdef uint32_t candidate(State *s, uint32_t i) noexcept nogil:
    """The i-th of the indexed and then of the live peers, SRP_NONE past the end."""
    if i < s.peers.indexed_count:
        return s.peers.indexed[i]
    i -= s.peers.indexed_count
    return s.peers.live[i] if i < s.peers.live_count else SRP_NONE

cdef bint choose_reflectors(State *s) noexcept nogil:
    """First: one that the probe socket has talked to before, if any. Second: one that it has not, elsewhere if possible."""
    cdef Reflection *r = &s.reflection
    cdef uint32_t i, slot, n = s.peers.indexed_count + s.peers.live_count, at
    cdef int rank, best = -1
    if n > 64:
        n = 64
    if n == 0:
        return False
    r.first = r.second = SRP_NONE
    at = draw_below(s, n)
    for i in range(n):
        slot = candidate(s, (at + i) % n)
        if slot != <uint32_t>SRP_NONE and usable(s, slot) and (r.first == <uint32_t>SRP_NONE or was_probed(s, slot)):
            r.first = slot
            if was_probed(s, slot):
                break
    for i in range(n):
        slot = candidate(s, (at + i) % n)
        if slot == <uint32_t>SRP_NONE or slot == r.first or not usable(s, slot):
            continue
        rank = 0 if was_probed(s, slot) else 2
        if s.peers.peer[slot].addr != s.peers.peer[r.first].addr:
            rank += 1
        if rank > best:
            best = rank
            r.second = slot
    return r.first != <uint32_t>SRP_NONE and r.second != <uint32_t>SRP_NONE

cdef void new_id(State *s) noexcept nogil:
    cdef uint64_t value = draw(s)
    srp_hex(<const uint8_t *>&value, 6, s.reflection.id)
    s.reflection.id[12] = 0

cdef void ask(State *s, uint32_t slot, bint probe) noexcept nogil:
    cdef srp_packet packet
    cdef srp_message message
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef uint8_t *at = out_reserve(s)
    if at == NULL:
        return
    srp_packet_init(&packet, SRP_PING)
    message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_REFLECTION_ID) | (1u << SRP_KEY_IS_REFLECTION)
    message.truth = 1u << SRP_KEY_IS_REFLECTION
    memcpy(message.requester_peer_id, s.peer_id, 32)
    memcpy(message.reflection_id, s.reflection.id, 13)
    if probe:
        message.has |= 1u << SRP_KEY_IS_PROBE
        message.truth |= 1u << SRP_KEY_IS_PROBE
    else:
        message.has |= 1u << SRP_KEY_PROBE_EXTERNAL_PORT
        message.probe_external_port = s.reflection.probe_port
    finish_message(s, &packet, &message, at, p.addr, p.port, p.local, SRP_SOCKET_PROBE if probe else SRP_SOCKET_MAIN)

cdef void ask_both(State *s) noexcept nogil:
    cdef Reflection *r = &s.reflection
    new_id(s)
    r.stage = NAT_ASK
    r.answers = r.probes = 0
    r.dependent = 0
    r.due_us = s.now.mono_us + ASK_US
    ask(s, r.first, False)
    ask(s, r.second, False)

cdef void search(State *s) noexcept nogil:
    cdef Reflection *r = &s.reflection
    cdef uint32_t slot
    cdef srp_peer *p
    if choose_reflectors(s):
        s.counter[SRP_COUNT_reflections] += 1
        r.stage = NAT_PROBE
        r.due_us = s.now.mono_us + PROBE_US
        new_id(s)
        s.peers.peer[r.first].probed = <uint16_t>(s.now.mono_us // 1000000 + 1)
        if s.peers.peer[r.first].probed == 0:
            s.peers.peer[r.first].probed = 1
        ask(s, r.first, True)
        return
    # Those that we know of but have not heard yet: at most the first few of the table, where the configured ones stand.
    for slot in range(s.peers.capacity if s.peers.capacity < 64 else 64):
        p = &s.peers.peer[slot]
        if p.flags & SRP_PEER_INDEXED and not proven(s, slot):
            p.last_ping_us = s.now.mono_us
            send_proof_ping(s, p.addr, p.port, p.local)
    r.retry = r.retry + 1 if r.retry < RETRIES else 1
    r.due_us = s.now.mono_us + r.retry * RETRY_US

cdef void finish(State *s) noexcept nogil:
    """Both answered: the type is known. Everybody we know is told, and our clusters are joined anew."""
    cdef Reflection *r = &s.reflection
    cdef uint32_t i, slot, knocks = (r.probes & 1) + (r.probes >> 1)
    cdef srp_peer *p
    cdef uint8_t nat = 1 if r.dependent else 3
    nat |= 28 if knocks == 2 else 12 if knocks == 1 else 4
    if s.address != 0 and (s.address != r.addr or s.port != r.port):
        s.moved_us = s.now.mono_us  # what was proven before says nothing about ways to us now
    s.nat_type = nat
    s.address = r.addr
    s.port = r.port
    r.stage = NAT_IDLE
    r.ready = 1
    r.due_us = s.now.mono_us + AGAIN_US
    s.heard_us = s.now.mono_us
    for i in range(NOTIFY_AT_ONCE):
        slot = candidate(s, i)
        if slot == <uint32_t>SRP_NONE:
            break
        p = &s.peers.peer[slot]
        send_connection_ping(s, p.addr, p.port, p.local, p.socket, NULL, NULL)
    tell_ready(s)
    rejoin_soon(s)

cdef void work_on_reflection(State *s) noexcept nogil:
    """Moves on when a timeout has passed; looks now and then whether anybody is still heard."""
    cdef Reflection *r = &s.reflection
    if s.now.mono_us < r.due_us:
        return
    if r.stage == NAT_IDLE:
        r.due_us = s.now.mono_us + 1000000
        if not r.ready or s.now.mono_us - s.heard_us > s.keep_alive_us + s.keep_alive_us // 2:
            start_reflection(s)
    elif r.stage == NAT_SEARCH:
        search(s)
    elif r.stage == NAT_WAIT:
        if r.again or r.probes == 3:
            finish(s)
            return
        r.again = 1
        r.due_us = s.now.mono_us + WAIT_US // 2
        if not r.probes & 1:
            ask(s, r.first, False)
        if not r.probes & 2:
            ask(s, r.second, False)
    else:
        s.counter[SRP_COUNT_reflections_failed] += 1
        r.stage = NAT_SEARCH
        r.retry = r.retry + 1 if r.retry < RETRIES else 1
        r.due_us = s.now.mono_us + r.retry * RETRY_US

cdef uint8_t responder(State *s, srp_message *message) noexcept nogil:
    """Which of the two a pong is from: 1, 2, or 0."""
    cdef Reflection *r = &s.reflection
    if memcmp(message.responder_peer_id, s.peers.peer[r.first].id, 32) == 0:
        return 1
    if memcmp(message.responder_peer_id, s.peers.peer[r.second].id, 32) == 0:
        return 2
    return 0

cdef bint ours(State *s, srp_message *message) noexcept nogil:
    return SRP_HAS(message, SRP_KEY_REFLECTION_ID) and memcmp(message.reflection_id, s.reflection.id, 13) == 0

cdef bint on_reflection_pong(State *s, srp_datagram *d, srp_message *message) noexcept nogil:
    """A pong at the main socket; True when it belongs to the discovery."""
    cdef Reflection *r = &s.reflection
    cdef uint8_t who
    if not SRP_HAS(message, SRP_KEY_REFLECTION_ID):
        return False
    if r.stage < NAT_ASK or not ours(s, message) or not SRP_HAS(message, SRP_KEY_PORT) \
            or not SRP_HAS(message, SRP_KEY_ADDRESS):
        return True
    who = responder(s, message)
    if who == 0 or r.answers & who:
        return True
    if r.answers == 0:
        r.addr = message.address
        r.port = message.port
        r.stage = NAT_SECOND
        r.due_us = s.now.mono_us + SECOND_US
    else:
        r.dependent = message.port != r.port or message.address != r.addr
        r.stage = NAT_WAIT
        r.again = 0
        r.due_us = s.now.mono_us + WAIT_US // 2
        if r.probes == 3:
            r.due_us = s.now.mono_us
    r.answers |= who
    r.seen_addr[who - 1] = message.address
    r.seen_port[who - 1] = message.port
    return True

cdef void on_probe_pong(State *s, srp_datagram *d, srp_message *message) noexcept nogil:
    """A pong at the probe socket: its own outside port at first, then the knocks."""
    cdef Reflection *r = &s.reflection
    if not ours(s, message):
        return
    if r.stage == NAT_PROBE:
        if SRP_HAS(message, SRP_KEY_PORT):
            r.probe_port = message.port
            ask_both(s)
    elif r.stage >= NAT_ASK:
        r.probes |= responder(s, message)
        if r.stage == NAT_WAIT and r.probes == 3:
            r.due_us = s.now.mono_us

cdef void compare_mapping(State *s, srp_datagram *d, srp_message *message, uint32_t slot) noexcept nogil:
    """A heartbeat's pong from an indexed peer tells where it sees us now: another place means a new discovery."""
    cdef Reflection *r = &s.reflection
    if not r.ready or r.stage != NAT_IDLE or not s.peers.peer[slot].flags & SRP_PEER_INDEXED or d.socket != SRP_SOCKET_MAIN:
        return
    if not SRP_HAS(message, SRP_KEY_PORT) or not SRP_HAS(message, SRP_KEY_ADDRESS):
        return
    if message.address != s.address or (message.port != s.port and not srp_nat_hard(s.nat_type)):
        start_reflection(s)
