"""Which peers a packet goes to, without a scan: rings of cluster members turned by a cursor, random places of a dense array.

Reference: getPeers() takes three random live peers, one indexed peer more if none is among them, and one of the same
cluster first. Here members of the same subcluster come first, then of the same cluster, then strangers, of two random ones
the nearer (draft: peers are weighed by temporal distance).
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from srpnode.core.state cimport State, draw, draw_below
from srpnode.core.types cimport SRP_NONE, srp_cluster, srp_cluster_find, srp_member, srp_peer

cdef bint proven(State *s, uint32_t slot) noexcept nogil:
    """Whether the endpoint answered a ping that only it could answer, within four keep-alives."""
    cdef int64_t at = s.peers.peer[slot].last_proof_us
    return at >= 0 and s.now.mono_us - at < 4 * s.keep_alive_us

cdef bint among(Choice *choice, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    for i in range(choice.count):
        if choice.peer[i] == slot:
            return True
    return False

cdef bint suspect(State *s, uint32_t slot) noexcept nogil:
    """Whether its last ping has gone unanswered for so long that it is probably gone."""
    cdef srp_peer *p = &s.peers.peer[slot]
    return p.last_ping_us >= 0 and s.now.mono_us - p.last_ping_us > 1000000

cdef void turn_fresh(State *s, Choice *choice, uint64_t key, uint32_t want, uint32_t look, uint32_t mode, Choice *without) noexcept nogil:
    cdef uint32_t cluster = srp_cluster_find(&s.peers, key)
    cdef srp_cluster *c
    cdef srp_member *m
    cdef srp_peer *p
    cdef uint32_t steps, n = 0, i, first
    cdef int64_t score[64]
    cdef int64_t value
    if cluster == <uint32_t>SRP_NONE:
        return
    c = &s.peers.cluster[cluster]
    steps = look if look < c.members else c.members
    first = choice.count
    if want > CHOOSE_MAX:
        want = CHOOSE_MAX
    while steps > 0:
        m = &s.peers.member[c.ring]
        c.ring = m.ring_next
        steps -= 1
        p = &s.peers.peer[m.peer]
        if p.live_at == <uint32_t>SRP_NONE or not proven(s, m.peer) or suspect(s, m.peer):
            continue
        if among(choice, m.peer) or among(without, m.peer):
            continue
        value = (s.now.mono_us - p.last_update_us) // 1000 + <int64_t>s.tune[6] * (p.distance_ms if p.distance_ms < 1000 else 200)
        if mode == 1:
            value = (s.now.mono_us - p.added_us) // 1000
        if choice.count == want and value >= score[choice.count - 1]:
            continue
        i = choice.count if choice.count < want else want - 1
        while i > first and score[i - 1] > value:
            score[i] = score[i - 1]
            choice.peer[i] = choice.peer[i - 1]
            i -= 1
        score[i] = value
        choice.peer[i] = m.peer
        if choice.count < want:
            choice.count += 1

cdef void choose_for_publish(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster, uint32_t hops,
                             Choice *without) noexcept nogil:
    cdef bint hub = s.owns == 0
    cdef uint32_t friends
    choice.count = choice.friends = 0
    if hub and hops <= 1 and s.tune[1] > s.tune[0]:
        if s.tune[2]:
            turn_fresh(s, choice, subcluster, s.tune[1], s.tune[2], s.tune[9], without)
        else:
            turn(s, choice, subcluster, s.tune[1], without)
    elif s.tune[5]:
        if s.tune[7]:
            turn(s, choice, subcluster, s.tune[0] - s.tune[7], without)
        turn_fresh(s, choice, subcluster, s.tune[0], s.tune[5], s.tune[8], without)
    else:
        turn(s, choice, subcluster, s.tune[0], without)
    if choice.count < 3:
        turn(s, choice, cluster, 3, without)
        choose_strangers(s, choice, 3, without)
    if s.tune[4]:
        if hops == 0 or (hub and hops == 1):
            choose_indexed(s, choice, without)
            if hops == 0 and s.tune[4] > 1:
                choose_indexed(s, choice, choice)
    else:
        choose_indexed(s, choice, without)

cdef void turn(State *s, Choice *choice, uint64_t key, uint32_t want, Choice *without) noexcept nogil:
    """Takes members of one cluster from its ring and leaves the cursor behind the last one looked at."""
    cdef uint32_t cluster = srp_cluster_find(&s.peers, key)
    cdef srp_cluster *c
    cdef srp_member *m
    cdef uint32_t steps
    if cluster == <uint32_t>SRP_NONE:
        return
    c = &s.peers.cluster[cluster]
    if c.members == 0:
        return
    # A step more or less, or the same few could be passed over by every join for ever.
    if draw(s) & 1:
        c.ring = s.peers.member[c.ring].ring_next
    steps = 2 * want + 4
    if steps > c.members:
        steps = c.members
    while steps > 0 and choice.count < want:
        m = &s.peers.member[c.ring]
        c.ring = m.ring_next
        steps -= 1
        if s.peers.peer[m.peer].live_at == <uint32_t>SRP_NONE or not proven(s, m.peer):
            continue
        if s.tune[3] and suspect(s, m.peer):
            continue
        if among(choice, m.peer) or among(without, m.peer):
            continue
        choice.peer[choice.count] = m.peer
        choice.count += 1

cdef void choose_friends(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster, uint32_t want,
                         Choice *without) noexcept nogil:
    """Adds live members of the subcluster, then of the cluster (keys; 0 = none), until there are `want`."""
    if want > CHOOSE_MAX:
        want = CHOOSE_MAX
    if subcluster != 0:
        turn(s, choice, subcluster, want, without)
    if cluster != 0:
        turn(s, choice, cluster, want, without)
    choice.friends = choice.count

cdef void choose_strangers(State *s, Choice *choice, uint32_t want, Choice *without) noexcept nogil:
    """Adds random live peers until there are `want`: of two at a time the one with the shorter round trip."""
    cdef uint32_t tries = 4 * want + 4, a, b
    cdef srp_peer *p = s.peers.peer
    if s.peers.live_count == 0:
        return
    if want > CHOOSE_MAX:
        want = CHOOSE_MAX
    while tries > 0 and choice.count < want:
        tries -= 1
        a = s.peers.live[draw_below(s, s.peers.live_count)]
        b = s.peers.live[draw_below(s, s.peers.live_count)]
        if p[b].distance_ms < p[a].distance_ms:
            a, b = b, a
        if among(choice, a) or among(without, a) or not proven(s, a):
            a = b
            if among(choice, a) or among(without, a) or not proven(s, a):
                continue
        choice.peer[choice.count] = a
        choice.count += 1

cdef void choose_indexed(State *s, Choice *choice, Choice *without) noexcept nogil:
    """Adds one indexed peer, so that every packet reaches the other well-known nodes."""
    cdef uint32_t i, n = s.peers.indexed_count, at, slot
    if n == 0 or choice.count >= CHOOSE_MAX:
        return
    at = draw_below(s, n)
    for i in range(n if n < 8 else 8):
        slot = s.peers.indexed[(at + i) % n]
        if proven(s, slot) and not among(without, slot):
            choice.peer[choice.count] = slot
            choice.count += 1
            return

cdef bint heard(State *s, uint32_t slot) noexcept nogil:
    return s.now.mono_us - s.peers.peer[slot].last_update_us < 4 * s.keep_alive_us

cdef void choose_as_reference(State *s, Choice *choice, uint64_t cluster, Choice *without) noexcept nogil:
    """getPeers() of the reference: three of all peers by chance, one indexed peer if none is among them, and one of the
    packet's cluster first."""
    cdef uint32_t n = s.peers.indexed_count + s.peers.live_count, at, slot, tries = 32, i
    cdef bint indexed = False
    choice.count = 0
    if cluster != 0:
        turn(s, choice, cluster, 1, without)
        choice.friends = choice.count
    while tries > 0 and n > 0 and choice.count < choice.friends + 3:
        tries -= 1
        at = draw_below(s, n)
        slot = s.peers.indexed[at] if at < s.peers.indexed_count else s.peers.live[at - s.peers.indexed_count]
        if among(choice, slot) or among(without, slot) or not heard(s, slot):
            continue
        indexed = indexed or at < s.peers.indexed_count
        choice.peer[choice.count] = slot
        choice.count += 1
    if not indexed:
        choose_indexed(s, choice, without)

cdef void choose_for_relay(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster,
                           Choice *without) noexcept nogil:
    """Three peers, friends first, and one indexed peer."""
    choice.count = choice.friends = 0
    if s.reference:
        choose_as_reference(s, choice, cluster, without)
        return
    choose_friends(s, choice, subcluster, cluster, 3, without)
    choose_strangers(s, choice, 3, without)
    choose_indexed(s, choice, without)
