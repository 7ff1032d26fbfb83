"""Which peers a packet goes to, without a scan: rings of cluster members turned by a cursor, random places of a dense array.

Reference: getPeers() takes three random live peers, one indexed peer more if none is among them, and one of the same
cluster first. Here members of the same subcluster come first, then of the same cluster, then strangers, of two random ones
the nearer (draft: peers are weighed by temporal distance). Published packets have rules of their own, found by simulation
(docs/simulation.md): choose_for_publish(). What a choice costs is bounded: a peer looks at 48 members for a packet, a hub at five
times publish_fan_out while its budget lasts, so at most at 5 * fan_out_packets_per_second members a second, else at ten.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from srpnode.core.state cimport Credit, State, draw, draw_below
from srpnode.core.types cimport (
    SRP_COUNT_carried,
    SRP_COUNT_carries_refused,
    SRP_COUNT_fan_outs_narrowed,
    SRP_NONE,
    SRP_PEER_INDEXED,
    srp_cluster,
    srp_cluster_find,
    srp_entry,
    srp_fetch,
    srp_member,
    srp_peer,
    srp_peers_fetch,
)

cdef enum:
    FANOUT = 3                  # members that a packet goes to (draft, STATE_4)
    NEWEST = 2                  # of them, those met last of
    LOOK = 48                   # that many
    FROM_HUB_FANOUT = 2
    LATE_HOPS = 4
    LATE_FANOUT = 5
    HUB_LOOK = 5                # members that a hub looks at for each that it may send to
    STRANGERS_AHEAD = 4         # pairs of strangers, and members, whose records are fetched at once
    MEMBERS_AHEAD = 16
    SILENT_US = 1000000
    OTHER_RANK_US = 100000000
    MINUTE_US = 60000000

cdef bint among(Choice *choice, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    for i in range(choice.count):
        if choice.peer[i] == slot:
            return True
    return False

cdef bint silent(State *s, uint32_t slot) noexcept nogil:
    """Whether its last ping has gone unanswered for so long that it is probably gone."""
    cdef srp_peer *p = &s.peers.peer[slot]
    return p.last_ping_us >= 0 and s.now.mono_us - p.last_ping_us > SILENT_US

cdef bint fit(State *s, Choice *choice, uint32_t slot, Choice *without, bint silent_too) noexcept nogil:
    return proven(s, slot) and not among(choice, slot) and not among(without, slot) \
        and (silent_too or s.reference or not silent(s, slot))

cdef bint among_first(Choice *choice, uint32_t count, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if choice.peer[i] == slot:
            return True
    return False

cdef inline void fetch_members(State *s, uint32_t member, uint32_t count) noexcept nogil:
    """Has the records of the next members of a ring fetched: one place after the other leads to them, so that looking at each as
    it is found would wait for memory twice."""
    cdef uint32_t i
    for i in range(count):
        srp_peers_fetch(&s.peers, s.peers.member[member].peer)
        member = s.peers.member[member].ring_next

cdef void turn(State *s, Choice *choice, uint64_t key, uint32_t want, Choice *without, bint silent_too=False) noexcept nogil:
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
    if choice.count < want:
        fetch_members(s, c.ring, steps if steps < want - choice.count else want - choice.count)
    while steps > 0 and choice.count < want:
        m = &s.peers.member[c.ring]
        c.ring = m.ring_next
        steps -= 1
        if s.peers.peer[m.peer].live_at == <uint32_t>SRP_NONE or not fit(s, choice, m.peer, without, silent_too):
            continue
        choice.peer[choice.count] = m.peer
        choice.count += 1

cdef uint32_t turn_best(State *s, Choice *choice, uint64_t key, uint32_t want, uint32_t look, bint newest, uint32_t hubs, uint32_t rank,
                        Choice *without) noexcept nogil:
    """Looks at `look` members of one cluster and takes the best: those known for the shortest time (newest), or those heard last.

    Of several hubs each prefers the members that fall to its rank. How many it looked at.
    """
    cdef uint32_t cluster = srp_cluster_find(&s.peers, key)
    cdef srp_cluster *c
    cdef srp_member *m
    cdef srp_peer *p
    cdef uint32_t steps, i, looked, first = choice.count
    cdef int64_t score[CHOOSE_MAX]
    cdef int64_t value
    if cluster == <uint32_t>SRP_NONE:
        return 0
    c = &s.peers.cluster[cluster]
    looked = steps = look if look < c.members else c.members
    if want > CHOOSE_MAX:
        want = CHOOSE_MAX
    while steps > 0 and want > first:
        if (looked - steps) % MEMBERS_AHEAD == 0:
            fetch_members(s, c.ring, steps if steps < MEMBERS_AHEAD else MEMBERS_AHEAD)
        m = &s.peers.member[c.ring]
        c.ring = m.ring_next
        steps -= 1
        p = &s.peers.peer[m.peer]
        if p.live_at == <uint32_t>SRP_NONE or not proven(s, m.peer) or silent(s, m.peer):
            continue
        if among(without, m.peer) or among_first(choice, first, m.peer):
            continue
        value = s.now.mono_us - (p.added_us if newest else p.last_update_us)
        if hubs > 1 and p.id[31] % hubs != rank:
            value += OTHER_RANK_US
        if choice.count == want and value >= score[want - 1]:
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
    return looked

cdef void choose_friends(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster, uint32_t want,
                         Choice *without) noexcept nogil:
    """Adds live members of the subcluster, then of the cluster (keys; 0 = none), until there are `want`.

    Where these are too few, also those whose last ping is unanswered: a join comes once, and a busy peer answers late.
    """
    cdef bint silent_too
    if want > CHOOSE_MAX:
        want = CHOOSE_MAX
    for silent_too in range(2):
        if subcluster != 0:
            turn(s, choice, subcluster, want, without, silent_too)
        if cluster != 0 and choice.count < want:
            turn(s, choice, cluster, want, without, silent_too)
    choice.friends = choice.count

cdef void choose_strangers(State *s, Choice *choice, uint32_t want, Choice *without) noexcept nogil:
    """Adds random live peers until there are `want`: of two at a time the one with the shorter round trip."""
    cdef uint32_t tries = 4 * want + 4, a, b, i, ahead = 0
    cdef uint32_t drawn[2 * STRANGERS_AHEAD]
    cdef srp_peer *p = s.peers.peer
    if s.peers.live_count == 0:
        return
    if want > CHOOSE_MAX:
        want = CHOOSE_MAX
    while tries > 0 and choice.count < want:
        tries -= 1
        if ahead == 0:  # a few pairs at once: they are anywhere in memory
            ahead = want - choice.count if want - choice.count < STRANGERS_AHEAD else STRANGERS_AHEAD
            for i in range(2 * ahead):
                drawn[i] = draw_below(s, s.peers.live_count)
                srp_fetch(&s.peers.live[drawn[i]])
            for i in range(2 * ahead):
                drawn[i] = s.peers.live[drawn[i]]
                srp_peers_fetch(&s.peers, drawn[i])
        ahead -= 1
        a = drawn[2 * ahead]
        b = drawn[2 * ahead + 1]
        if p[b].distance_ms < p[a].distance_ms:
            a, b = b, a
        if not fit(s, choice, a, without, False):
            a = b
            if not fit(s, choice, a, without, False):
                continue
        choice.peer[choice.count] = a
        choice.count += 1

cdef void choose_indexed(State *s, Choice *choice, Choice *without) noexcept nogil:
    """Adds one indexed peer, so that every packet reaches the other well-known nodes: if there is one, one that does not owe us an
    answer."""
    cdef uint32_t i, n = s.peers.indexed_count, at, slot, chosen = SRP_NONE
    if n == 0 or choice.count >= CHOOSE_MAX:
        return
    at = draw_below(s, n)
    for i in range(n if n < 8 else 8):
        slot = s.peers.indexed[(at + i) % n]
        if not proven(s, slot) or among(choice, slot) or among(without, slot):
            continue
        if chosen == <uint32_t>SRP_NONE or not silent(s, slot):
            chosen = slot
        if s.reference or not silent(s, slot):
            break
    if chosen != <uint32_t>SRP_NONE:
        choice.peer[choice.count] = chosen
        choice.count += 1

cdef bint may_carry(State *s, Credit *credit, bint light) noexcept nogil:
    """Whether one more may be handed to peers outside its cluster, who hand it on in turn: it reaches all of them.

    So not the copies are counted but the packets, once each, however many peers get them from us. The lower half of the credit is for
    those who talk little.
    """
    cdef int64_t most = s.limits.carried_per_minute, elapsed = s.now.mono_us - credit.at_us
    if most == 0 or s.reference:
        return True
    credit.at_us = s.now.mono_us
    credit.left += most * (elapsed if elapsed < MINUTE_US else MINUTE_US)
    if credit.left > most * MINUTE_US:
        credit.left = most * MINUTE_US
    if credit.left < MINUTE_US or (not light and 2 * credit.left < most * MINUTE_US):
        s.counter[SRP_COUNT_carries_refused] += 1
        return False
    credit.left -= MINUTE_US
    s.counter[SRP_COUNT_carried] += 1
    return True

cdef bint carry(State *s, srp_entry *entry, bint light) noexcept nogil:
    """Whether a packet of the cache may be, live or by sync."""
    if not entry.carried and may_carry(s, &s.carried_packets, light):
        entry.carried = s.limits.carried_per_minute != 0 and not s.reference
        return True
    return entry.carried

cdef uint32_t rank_among_hubs(State *s, uint32_t *hubs) noexcept nogil:
    """Our place among the well-known peers that answer, ourselves included, and how many they are."""
    cdef uint32_t i, rank = 0
    hubs[0] = 1
    for i in range(s.peers.indexed_count if s.peers.indexed_count < 16 else 16):
        if proven(s, s.peers.indexed[i]):
            hubs[0] += 1
            rank += memcmp(s.peers.peer[s.peers.indexed[i]].id, s.peer_id, 32) < 0
    return rank

cdef void choose_for_publish(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster, bint own, bint last,
                             uint32_t hops, srp_entry *entry, bint light, Choice *without) noexcept nogil:
    """Who gets a published packet from us. own: we are its publisher. last: the cache gives it up, most have it. entry: where it is stored. light: whoever sent
    it talks little.

    A peer sends it to one member of the subcluster in turn and to two that it met last, as those are known to few, and leaves
    the one in turn out when a hub sent it, which sent it to many; its own packet goes to two well-known peers besides. A node that is nobody's member is a hub: it sends the packet to many, those heard last
    first, because it alone knows who came a moment ago; several hubs share the members. That has a budget for each second, which
    also bounds the looking for members; beyond it a packet goes to three in turn. A packet that has come a long way is in a
    network that its hubs do not cover: there it goes to more. Where members are lacking, others carry it, if that is not too much
    (carry).
    """
    cdef uint32_t hubs = 1, rank, looked, budget = s.limits.fan_out_packets_per_second
    cdef uint32_t fanout = FANOUT if hops < LATE_HOPS else LATE_FANOUT
    choice.count = choice.friends = 0
    if last:
        turn(s, choice, subcluster, FANOUT, without)
    elif s.owns == 0 and budget != 0 and s.fan_out_used >= budget:
        s.counter[SRP_COUNT_fan_outs_narrowed] += 1
        turn(s, choice, subcluster, FANOUT, without)
    elif s.owns == 0:
        rank = rank_among_hubs(s, &hubs)
        looked = turn_best(s, choice, subcluster, s.limits.publish_fan_out, HUB_LOOK * s.limits.publish_fan_out, False, hubs, rank,
                           without)
        s.fan_out_used += choice.count if choice.count > looked // HUB_LOOK else looked // HUB_LOOK
    else:
        if without.count != 0 and s.peers.peer[without.peer[0]].flags & SRP_PEER_INDEXED and fanout > FROM_HUB_FANOUT:
            fanout = FROM_HUB_FANOUT
        if fanout > NEWEST:
            turn(s, choice, subcluster, fanout - NEWEST, without)
        turn_best(s, choice, subcluster, fanout, LOOK, True, 1, 0, without)
    if choice.count < FANOUT and fanout >= FANOUT:
        turn(s, choice, cluster, FANOUT, without)
    choice.friends = choice.count
    if fanout >= FANOUT and choice.count < FANOUT and s.peers.live_count > choice.count + without.count \
            and (own or carry(s, entry, light)):
        choose_strangers(s, choice, FANOUT, without)
    if own or s.owns == 0:
        choose_indexed(s, choice, without)
    if own:
        choose_indexed(s, choice, without)

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
