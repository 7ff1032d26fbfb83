# The output queue: datagrams in the order in which they leave. Payloads stand in the slab or in the received buffers;
# several entries may share one payload.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.state cimport State, drop
from srpnode.core.types cimport (
    SRP_COUNT_out_bytes,
    SRP_COUNT_out_datagrams,
    SRP_COUNT_out_ping,
    SRP_DATAGRAM_MAX,
    SRP_DROP_bandwidth,
    SRP_DROP_budget,
    SRP_DROP_opened_share,
    SRP_DROP_peer_bandwidth,
    SRP_DROP_queue_full,
    SRP_DROP_stranger_share,
    SRP_DROP_sync_share,
    SRP_PEER_OPENED,
    SRP_PING,
    SRP_SLOTS,
    SRP_SOCKET_MAIN,
    srp_datagram,
    srp_peer,
    srp_window,
)

cdef inline uint8_t *out_reserve(State *s) noexcept nogil:
    """Room for one datagram of any size at the end of the slab, or NULL (counted). Kept by out_commit."""
    if s.slab_used + <uint32_t>SRP_DATAGRAM_MAX > s.slab_size or s.out_count == s.out_capacity:
        drop(s, SRP_DROP_queue_full)
        return NULL
    return s.slab + s.slab_used

cdef inline void out_commit(State *s, uint32_t size) noexcept nogil:
    s.slab_used += (size + 15) & ~<uint32_t>15

cdef inline bint out_push(State *s, uint8_t *data, uint32_t size, uint32_t addr, uint16_t port, uint32_t local,
                          uint16_t socket) noexcept nogil:
    """Queues one datagram; False (counted) when a limit is reached."""
    cdef srp_datagram *d
    if s.out_count == s.out_capacity:
        drop(s, SRP_DROP_queue_full)
        return False
    if s.budget >= 0:
        if <int64_t>size > s.budget:
            drop(s, SRP_DROP_budget)
            return False
        s.budget -= size
    if s.limits.bandwidth_out_bytes_per_second != 0:
        if s.bandwidth_left < <int64_t>size:
            drop(s, SRP_DROP_bandwidth)
            return False
        s.bandwidth_left -= size
    d = &s.out[s.out_count]
    s.out_count += 1
    d.data = data
    d.len = size
    d.addr = addr
    d.port = port
    d.local = local
    d.socket = socket
    s.counter[SRP_COUNT_out_datagrams] += 1
    s.counter[SRP_COUNT_out_bytes] += size
    s.counter[SRP_COUNT_out_ping - 1 + data[4]] += 1
    return True

cdef inline void turn_second(State *s, srp_peer *p) noexcept nogil:
    """Forgets what was done for a peer in the last second. Peers' seconds begin at different moments: what all are given anew at once,
    all take at once."""
    cdef uint32_t second = <uint32_t>((s.now.mono_us + (<int64_t>(p - s.peers.peer) & 63) * 15625) // 1000000)
    if p.second != second:
        p.second = second
        p.sync_work = p.out_bytes = 0

cdef inline void renew_quotas(State *s, srp_peer *p) noexcept nogil:
    """A peer may talk as much as before when its minute is over; one that we believe for want of a proof has but one."""
    cdef uint32_t window = srp_window(s.minute_64ths, <uint32_t>(p - s.peers.peer))
    if p.window != window and not p.flags & SRP_PEER_OPENED:
        p.window = window
        p.used_replicated = p.used_control = p.used_introductions = 0

cdef enum:
    OPENED_FIRST = 16   # datagrams to a peer that we believe for want of a proof, before it has sent any

cdef inline bint opened_share(srp_peer *p) noexcept nogil:
    """Whether one more datagram may go to such a peer: in all its life a few, and one for each that came from its endpoint, or a
    lie about a victim would bring that more than the liar spends."""
    return not p.flags & SRP_PEER_OPENED or p.used_introductions < p.used_control + p.used_replicated + OPENED_FIRST

cdef inline bint out_to(State *s, srp_peer *p, uint8_t *data, uint32_t size) noexcept nogil:
    """Queues one datagram for a peer; False (counted) when a limit is reached."""
    if p.flags & SRP_PEER_OPENED:
        if not opened_share(p):
            drop(s, SRP_DROP_opened_share)
            return False
        p.used_introductions += 1
    if s.limits.peer_out_bytes_per_second != 0:
        turn_second(s, p)
        if p.out_bytes + size > s.limits.peer_out_bytes_per_second:
            drop(s, SRP_DROP_peer_bandwidth)
            return False
        p.out_bytes += size
    return out_push(s, data, size, p.addr, p.port, p.local, p.socket)

cdef enum Share:
    LIVE = 0        # what is published just now, in a cluster of the receiver
    STORED = 1      # from the cache
    STRANGE = 2     # of other clusters

cdef inline void turn_slots(State *s, srp_peer *p) noexcept nogil:
    """Forgets what was sent to a peer more than a minute ago."""
    cdef uint32_t i = s.slot - p.sent_slot, at
    if i == 0:
        return
    if i > SRP_SLOTS:
        i = SRP_SLOTS
    while i > 0:
        i -= 1
        at = (s.slot_at + SRP_SLOTS - i) % SRP_SLOTS
        p.sent[at] = p.shared[at] = 0
    p.summaries = 0
    p.sent_slot = s.slot

cdef inline uint32_t in_a_minute(const uint16_t *slots) noexcept nogil:
    cdef uint32_t i, total = 0
    for i in range(SRP_SLOTS):
        total += slots[i]
    return total

cdef inline void count_one(uint16_t *slot) noexcept nogil:
    if slot[0] != 0xffff:
        slot[0] += 1

cdef inline bint has_share(State *s, srp_peer *p, Share share) noexcept nogil:
    """Whether a peer may be sent one more publish or join that is not live.

    A receiver takes `replicated_per_minute` of them from one endpoint and drops what is above, live packets of its own clusters too
    (the reference drops the one that reaches the quota). So the rest keeps to a part of that, whenever the receiver's minutes begin.
    """
    cdef uint32_t most = s.limits.sync_per_minute
    turn_slots(s, p)
    if share == LIVE or s.reference:
        return True
    if p.flags & SRP_PEER_OPENED:  # whoever proves it to others has it from them
        return False
    if s.limits.replicated_per_minute > 1 and in_a_minute(p.sent) + 1 >= s.limits.replicated_per_minute:
        return False
    return most == 0 or in_a_minute(p.shared) < (most if share == STORED else (most + 1) // 2)

cdef inline bint out_replicated(State *s, srp_peer *p, uint8_t *data, uint32_t size, Share share) noexcept nogil:
    """Queues a publish or join for a peer, within its share of what a peer takes from one endpoint; False (counted) beyond."""
    if not has_share(s, p, share):
        drop(s, SRP_DROP_sync_share if share == STORED else SRP_DROP_stranger_share)
        return False
    if not out_to(s, p, data, size):
        return False
    count_one(&p.sent[s.slot_at])
    if share != LIVE:
        count_one(&p.shared[s.slot_at])
    return True

cdef inline void out_opener(State *s, uint32_t addr, uint16_t port, uint32_t local) noexcept nogil:
    """One byte 0x01 that nobody has to hear: it opens a way through our own NAT."""
    cdef uint8_t *at = out_reserve(s)
    if at == NULL:
        return
    at[0] = 1
    at[4] = SRP_PING  # what it is counted as
    if out_push(s, at, 1, addr, port, local, SRP_SOCKET_MAIN):
        s.counter[SRP_COUNT_out_ping] -= 1
        out_commit(s, 8)
