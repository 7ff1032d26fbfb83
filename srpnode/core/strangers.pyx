"""How many unproven sources are answered, and which of them: fairness among those that share `unproven_per_second`.

Three eighths are for all, one for those that were not answered lately, one for those that asked a moment ago and were refused,
two for those that were refused three times, as a client is in three seconds and a flood from forged sources hardly, the last for
addresses where a peer has proved itself: a client that is known by its main socket is heard from its probe socket. A large share is
given out in up to 512 parts of a second: the answers to a whole second's share, at once, would be a queue in which everybody waits.
What a busy moment missed is made up for, up to a 64th of a second.

The configured number is the most. How much this machine can do now only the driver sees: when datagrams are lost in front of
us, or are about to be, or when it has hardly any rest, it says so (under_pressure), and strangers get half as much, again each
quarter of a second while that lasts, down to a part that costs next to nothing. Without, they get a little more each second. When
what strangers were answered is no more than that least part, the work is others' and nothing is taken from them: garbage does not
lock newcomers out.
"""
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memset

from srpnode.core.state cimport Lately, State
from srpnode.core.types cimport SRP_COUNT_unproven_cuts, srp_datagram, srp_tally_get

cdef enum:
    PARTS = 512                 # of a second, in which a share is given out …
    LONGEST_US = 15625          # … when none came for longer than this, no more than this one's
    SHARES_FROM = 640           # … when it is configured as large as that …
    LEAST_SHARE = 10            # … fewer when one would be smaller than this
    ANSWERED_US = 16000000
    REFUSED_US = 4000000        # a client asks again after 0.5, 1.3, 2.3, 3.6 seconds
    TIMES = 3                   # refusals of an endpoint are counted so far: two bits
    WHOLE = 1024                # of what is configured
    LEAST = WHOLE // 32
    GROWTH = WHOLE // 64        # each second without pressure
    CALM_US = 1000000
    CUT_US = 250000             # from one cut to the next: it takes a moment to be felt

# --- who was there a moment ago ---------------------------------------------------------------------------------------

cdef void turn_lately(Lately *l, int64_t now_us) noexcept nogil:
    """One of two Bloom filters, of three bits in one line of the processor's cache, is emptied each period: an endpoint is known
    for one to two of them."""
    cdef uint64_t *older = l.before
    cdef size_t size = (<size_t>l.mask + 1) // 8
    if now_us - l.turned_us < l.period_us:
        return
    if l.before_used:  # memory that nobody used is not touched
        memset(older, 0, size)
    if now_us - l.turned_us >= 2 * l.period_us and l.recent_used:
        memset(l.recent, 0, size)
        l.recent_used = 0
    l.before = l.recent
    l.before_used = l.recent_used
    l.recent = older
    l.recent_used = 0
    l.turned_us = now_us

cdef bint has_lately(Lately *l, uint64_t endpoint) noexcept nogil:
    cdef uint32_t line = (<uint32_t>endpoint & l.mask) & ~<uint32_t>511, a, b, c
    a = line | (<uint32_t>(endpoint >> 32) & 511)
    b = line | (<uint32_t>(endpoint >> 41) & 511)
    c = line | (<uint32_t>(endpoint >> 50) & 511)
    return (l.recent[a >> 6] >> (a & 63)) & (l.recent[b >> 6] >> (b & 63)) & (l.recent[c >> 6] >> (c & 63)) & 1 \
        or (l.before[a >> 6] >> (a & 63)) & (l.before[b >> 6] >> (b & 63)) & (l.before[c >> 6] >> (c & 63)) & 1

cdef void note_lately(Lately *l, uint64_t endpoint) noexcept nogil:
    cdef uint32_t line = (<uint32_t>endpoint & l.mask) & ~<uint32_t>511, i, bit
    for i in range(3):
        bit = line | (<uint32_t>(endpoint >> (32 + 9 * i)) & 511)
        l.recent[bit >> 6] |= <uint64_t>1 << (bit & 63)
    l.recent_used = 1

# The filters of those that were refused count: three cells of two bits each, in one line of the processor's cache.

cdef uint32_t cell(uint64_t *bits, uint32_t line, uint64_t endpoint, uint32_t i) noexcept nogil:
    cdef uint32_t at = <uint32_t>(endpoint >> (32 + 8 * i)) & 255
    return <uint32_t>(bits[line + (at >> 5)] >> (2 * (at & 31))) & TIMES

cdef uint32_t times_lately(Lately *l, uint64_t endpoint) noexcept nogil:
    """At least as often as it happened, up to TIMES."""
    cdef uint32_t line = ((<uint32_t>endpoint & l.mask) >> 9) * 8, i, times = TIMES
    for i in range(3):
        times = min(times, cell(l.recent, line, endpoint, i) + cell(l.before, line, endpoint, i))
    return times

cdef void count_lately(Lately *l, uint64_t endpoint) noexcept nogil:
    cdef uint32_t line = ((<uint32_t>endpoint & l.mask) >> 9) * 8, i, at
    for i in range(3):
        if cell(l.recent, line, endpoint, i) < TIMES:
            at = <uint32_t>(endpoint >> (32 + 8 * i)) & 255
            l.recent[line + (at >> 5)] += <uint64_t>1 << (2 * (at & 31))
    l.recent_used = 1

cdef void start_strangers(State *s, uint64_t *bits, uint32_t count) noexcept nogil:
    """Takes over memory for four filters of `count` bits, a power of two and at least 512."""
    s.answered.recent = bits
    s.answered.before = bits + count // 64
    s.refused.recent = bits + 2 * (count // 64)
    s.refused.before = bits + 3 * (count // 64)
    s.answered.mask = s.refused.mask = count - 1
    s.answered.period_us = ANSWERED_US
    s.refused.period_us = REFUSED_US
    s.answered.turned_us = s.refused.turned_us = s.now.mono_us
    s.unproven_part = WHOLE
    s.cut_us = s.now.mono_us - CUT_US

# --- how much there is ------------------------------------------------------------------------------------------------

cdef uint32_t of_limit(State *s, uint32_t part) noexcept nogil:
    cdef uint64_t most = <uint64_t>s.limits.unproven_per_second * part // WHOLE
    return <uint32_t>most if most != 0 or s.limits.unproven_per_second == 0 else 1

cdef uint32_t strangers_allowed(State *s) noexcept nogil:
    """How many are answered in a second now; 0: any number."""
    cdef int64_t calm_s = (s.now.mono_us - s.calm_us) // CALM_US
    if calm_s > 0:
        s.calm_us += calm_s * CALM_US
        s.unproven_part = <uint32_t>min(WHOLE, s.unproven_part + calm_s * GROWTH)
    return of_limit(s, s.unproven_part)

cdef void set_share(State *s, int64_t since_us) noexcept nogil:
    """For the time since the last one."""
    cdef uint32_t allowed = strangers_allowed(s), parts = PARTS if s.limits.unproven_per_second >= SHARES_FROM else 1
    while parts > 1 and allowed // parts < LEAST_SHARE:
        parts //= 2
    s.share_us = 1000000 // parts
    if since_us > LONGEST_US:
        since_us = LONGEST_US
    if since_us < s.share_us:
        since_us = s.share_us
    s.share = <uint32_t>(<uint64_t>allowed * <uint64_t>since_us // 1000000)

cdef void next_share(State *s) noexcept nogil:
    set_share(s, s.now.mono_us - s.share_at_us)
    s.share_at_us = s.now.mono_us
    s.share_used = 0
    if s.now.mono_us - s.given_at_us >= CUT_US:
        s.given_before = s.given if s.now.mono_us - s.given_at_us < 2 * CUT_US else 0
        s.given = 0
        s.given_at_us = s.now.mono_us
    turn_lately(&s.answered, s.now.mono_us)
    turn_lately(&s.refused, s.now.mono_us)

cdef void under_pressure(State *s) noexcept nogil:
    """Datagrams are lost before they reach us, or will be, or the driver is short of time. Takes from strangers, if that can help."""
    cdef uint32_t given = s.given if s.given > s.given_before else s.given_before
    strangers_allowed(s)  # what has grown until now
    s.calm_us = s.now.mono_us
    if s.now.mono_us - s.given_at_us >= 2 * CUT_US:
        return
    if s.limits.unproven_per_second == 0 or s.unproven_part == LEAST or s.now.mono_us - s.cut_us < CUT_US \
            or <uint64_t>given * 1000000 // CUT_US <= of_limit(s, LEAST):
        return
    s.unproven_part = s.unproven_part // 2 if s.unproven_part > 2 * LEAST else LEAST
    s.cut_us = s.now.mono_us
    s.counter[SRP_COUNT_unproven_cuts] += 1
    set_share(s, 0)

# --- who gets it ------------------------------------------------------------------------------------------------------

cdef bint may_ask(State *s, srp_datagram *d, uint64_t endpoint) noexcept nogil:
    """Whether a stranger's ping or join is looked at now."""
    cdef uint64_t eighths = 8
    cdef uint32_t refused
    if s.limits.unproven_per_second == 0:
        return True
    if s.now.mono_us - s.share_at_us >= s.share_us:
        next_share(s)
    if srp_tally_get(&s.peers.addresses, d.addr) == 0:
        if has_lately(&s.answered, endpoint):
            eighths = 3
        else:
            refused = times_lately(&s.refused, endpoint)
            eighths = 7 if refused == TIMES else 5 if refused else 4
    if s.share_used >= <uint32_t>((eighths * s.share + 7) // 8):
        count_lately(&s.refused, endpoint)
        return False
    s.share_used += 1
    s.given += 1
    note_lately(&s.answered, endpoint)
    return True
