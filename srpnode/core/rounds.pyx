"""Asking around for what we lack: after a start, after a silence, and now and then.

Caches hold the newest packets and those that are near to their owner (cext/store.h), so what was published while we were away stands
with many, and all of it with none. A round goes through the sixteen first digits of packetIds. For each it takes a peer whose own
id is near and sends it our summary below that digit; what we lack there comes back (sync.pyx). No two peers are asked for the same
digit at once. Rounds that bring much follow each other soon, the others ever later. Whose last summary equals ours is not asked.
"""
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from srpnode.core.choose cimport proven, silent
from srpnode.core.state cimport Asked, State, draw_below
from srpnode.core.sync cimport send_summary
from srpnode.core.types cimport SRP_COUNT_sync_rounds, SRP_NONE, srp_peer, srp_prefix_digits

cdef enum:
    FIRST_US = 2000000          # after the start, or after a silence
    STEP_US = 250000            # from one digit to the next
    PAUSE_US = 4000000          # between rounds while they bring much,
    PAUSE_MAX_US = 600000000    # twice as long each time while they do not, up to that
    MUCH = 16                   # packets in a round
    FLOWING_US = 3000000        # a digit whose packets still come is not asked for again
    ANSWER_US = 10000000        # what comes later from whom we asked is not counted
    SAMPLE = 24                 # peers looked at for one digit

cdef uint32_t holder(State *s, uint32_t digit) noexcept nogil:
    """Of some random peers the one whose id is nearest to the digit; SRP_NONE: nobody who told us of anything else than we have."""
    cdef uint32_t n = s.peers.live_count + s.peers.indexed_count, i, at, slot, far, best = SRP_NONE, best_far = 16
    cdef uint16_t ours
    cdef srp_peer *p
    memcpy(&ours, s.store.top, 2)
    for i in range(SAMPLE if n != 0 else 0):
        at = draw_below(s, n)
        slot = s.peers.live[at] if at < s.peers.live_count else s.peers.indexed[at - s.peers.live_count]
        p = &s.peers.peer[slot]
        far = (p.id[0] >> 4) ^ digit
        if far < best_far and p.summary != ours and p.summary != 0 and proven(s, slot) and not silent(s, slot):
            best = slot
            best_far = far
    return best

cdef void begin_rounds(State *s) noexcept nogil:
    """We may have missed something: the next round comes soon."""
    s.round_pause_us = PAUSE_US
    s.round_at = s.round_came = 0
    s.round_due_us = s.now.mono_us + FIRST_US

cdef void work_on_round(State *s) noexcept nogil:
    """Asks for one digit."""
    cdef uint32_t digit = (s.round_at + s.peer_id[0]) & 15, slot
    cdef Asked *asked = &s.asked[digit]
    cdef srp_prefix_digits prefix
    if s.peers.live_count + s.peers.indexed_count == 0:  # the first whom we hear is news, and begins a round
        s.round_due_us = s.now.mono_us + PAUSE_MAX_US
        return
    if asked.came == 0 or s.now.mono_us - asked.at_us > FLOWING_US:
        asked.came = 0
        slot = holder(s, digit)
        prefix.len = 1
        prefix.digit[0] = <uint8_t>digit
        if slot != <uint32_t>SRP_NONE and send_summary(s, &s.peers.peer[slot], &prefix):
            asked.slot = slot
            asked.generation = s.peers.peer[slot].generation
            asked.at_us = s.now.mono_us
    s.round_at += 1
    s.round_due_us = s.now.mono_us + STEP_US
    if s.round_at < 16:
        return
    s.counter[SRP_COUNT_sync_rounds] += 1
    s.round_pause_us = PAUSE_US if s.round_came >= MUCH else 2 * s.round_pause_us
    if s.round_pause_us > PAUSE_MAX_US:
        s.round_pause_us = PAUSE_MAX_US
    s.round_due_us = s.now.mono_us + s.round_pause_us
    s.round_at = s.round_came = 0

cdef void came_by_round(State *s, const uint8_t *id, uint32_t slot) noexcept nogil:
    """A new packet: counted when it is from the peer that was asked for its digit."""
    cdef Asked *asked = &s.asked[id[0] >> 4]
    if asked.slot != slot or s.now.mono_us - asked.at_us > ANSWER_US or asked.generation != s.peers.peer[slot].generation:
        return
    asked.came += 1
    asked.at_us = s.now.mono_us
    s.round_came += 1
