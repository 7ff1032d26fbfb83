"""Bringing a peer up to date: summaries that are compared level by level, and the packets that the other side lacks (draft STATE_6).

A summary covers the ids below a prefix in sixteen buckets. Where the other side has nothing, our packets go there, where the
hashes differ, our summary one level down. Packets leave at a pace that a peer can take, those of its own clusters first.
"""
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from srpnode.core.choose cimport carry, proven
from srpnode.core.gossip cimport copy_stored
from srpnode.core.out cimport STORED, STRANGE, Share, count_one, has_share, out_commit, out_replicated, out_reserve, out_to, turn_second, turn_slots
from srpnode.core.state cimport SRP_JOB_CLUSTERS, Comparison, State, SyncJob, drop
from srpnode.core.types cimport (
    SRP_COUNT_gate_evicted,
    SRP_COUNT_sync_packets,
    SRP_COUNT_sync_summaries,
    SRP_COUNT_syncs_started,
    SRP_DATAGRAM_MAX,
    SRP_DROP_duplicate,
    SRP_DROP_stranger_share,
    SRP_DROP_summary,
    SRP_DROP_sync_jobs,
    SRP_DROP_sync_share,
    SRP_DROP_sync_summaries,
    SRP_DROP_sync_work,
    SRP_MESSAGE,
    SRP_NONE,
    SRP_PACKET_ID,
    SRP_PEER_INDEXED,
    SRP_SYNC,
    SRP_USR4,
    srp_cluster,
    srp_cluster_find,
    srp_datagram,
    srp_entry,
    srp_frame,
    srp_message_offset,
    srp_packet,
    srp_packet_encode,
    srp_packet_init,
    srp_peer,
    srp_peers_is_member,
    srp_prefix_digits,
    srp_recent_add,
    srp_recent_find,
    srp_sip,
    srp_span,
    srp_store_below,
    srp_store_from,
    srp_store_holds,
    srp_store_refresh,
    srp_store_summary,
    srp_store_summary_work,
    srp_summary_decode,
    srp_summary_encode,
)

cdef enum:
    FREE = 0
    WAITING = 1               # for a fresh summary, to send it
    OWN_CLUSTERS = 2
    THE_REST = 3
    STEP_US = 10000           # a job is served that often,
    STEP_PACKETS = 4          # with so many packets (the reference handles some 700 datagrams a second)
    NO_SHARE_US = 1000000     # or that long after, when its peer has got its share
    AT_ONCE = 8               # so few packets need no job
    LOOK = 32                 # jobs looked at for one that gives way,
    MUCH = 64                 # if its peer has got so many packets
    WALK = 64                 # ids or packets looked at in one step
    REFRESH_US = 250000       # a changed cache is summarised again after that long,
    REFRESH_ID_US = 40        # and so much longer for each id, as each costs some 0.1 us,
    REFRESH_MAX_US = 3000000  # up to that
    SMALL = 5000              # ids that are summarised before they are offered or compared,
    FRESH_WITHIN_US = 300000  # if that does not take longer
    REFRESH_IDS = 512         # hashed in one slice
    SYNC_EVERY_US = 6000000
    SYNC_PAUSES_MAX = 7       # the pause doubles with each offer, up to 384 s
    SYNC_GATE_MS = 1000
    FILLING_US = 1500000
    WORK_PER_SECOND = 1000000 # ids hashed for summaries,
    SHARE = 8                 # one peer gets this part of it,
    LIGHT = 2048              # and so many in any case: half of the work is for those who ask for no more
    BASE_WORK = 32            # what a summary costs besides
    STEP_IDS = 2048           # hashed in one step, some 0.3 ms: summaries that come to more wait for the next,
    LITTLE = 64               # but for those of so few
    BURST = 4                 # of the work, this part at once to those,
    HEAVY_BURST = 16          # and this to others: everybody waits meanwhile

# --- summary ------------------------------------------------------------------------------------------------------------

cdef void refresh_summary(State *s) noexcept nogil:
    """Keeps the summary of the whole cache, which pongs carry, no older than REFRESH_MAX_US and a moment, in slices."""
    if s.now.mono_us < s.refresh_at_us:
        return
    if not (s.store.top_dirty or s.store.refreshing):
        return
    if srp_store_refresh(&s.store, REFRESH_IDS + s.store.count // 256):
        s.refresh_at_us = s.now.mono_us
    if not s.store.refreshing:
        s.refresh_at_us = s.now.mono_us + REFRESH_US + REFRESH_ID_US * <int64_t>s.store.count
        if s.refresh_at_us > s.now.mono_us + REFRESH_MAX_US:
            s.refresh_at_us = s.now.mono_us + REFRESH_MAX_US

cdef bint may_work(State *s, srp_peer *p, uint32_t ids) noexcept nogil:
    """Whether so many more ids may be hashed now: for all peers together, and for this one in its second."""
    cdef bint light
    ids += BASE_WORK
    turn_second(s, p)
    light = p.sync_work + ids <= LIGHT
    s.sync_work_used -= WORK_PER_SECOND * min(s.now.mono_us - s.sync_work_at_us, 1000000)
    s.sync_work_at_us = s.now.mono_us
    if s.sync_work_used < 0:
        s.sync_work_used = 0
    if s.sync_work_used > 1000000 * <int64_t>(WORK_PER_SECOND // (BURST if light else HEAVY_BURST)) \
            or (p.sync_work != 0 and p.sync_work + ids > WORK_PER_SECOND // SHARE):
        drop(s, SRP_DROP_sync_work)
        return False
    s.sync_work_used += 1000000 * <int64_t>ids * (1 if light else 2)
    p.sync_work += ids
    return True

cdef bint in_this_step(State *s, srp_prefix_digits *prefix) noexcept nogil:
    """Whether one more summary is made now: a comparison has up to sixteen, and everybody else waits meanwhile."""
    if s.now.mono_us - s.step_at_us >= STEP_US:
        s.step_at_us = s.now.mono_us
        s.step_ids = 0
    if s.step_ids >= STEP_IDS and not s.reference:
        return False
    s.step_ids += srp_store_summary_work(&s.store, prefix)
    return True

cdef bint send_summary(State *s, srp_peer *p, srp_prefix_digits *prefix) noexcept nogil:
    cdef uint8_t bucket[16][20]
    cdef uint8_t digest[20]
    cdef char since[20]
    cdef uint8_t *at
    cdef uint32_t mask, size, n, work = 0
    cdef srp_packet packet
    cdef int64_t value = s.now.wall_ms - 21600000
    turn_slots(s, p)
    if s.limits.sync_summaries_per_minute != 0 and 3 * p.summaries >= s.limits.sync_summaries_per_minute and not s.reference:
        drop(s, SRP_DROP_sync_summaries)
        return False
    if not may_work(s, p, srp_store_summary_work(&s.store, prefix)):
        return False
    at = out_reserve(s)
    if at == NULL:
        return False
    mask = srp_store_summary(&s.store, prefix, bucket, digest, &work)
    srp_packet_init(&packet, SRP_SYNC)
    n = 0
    if value < 0:
        value = 0
    size = 0
    while True:  # decimal digits, the last first
        since[19 - size] = <char>(48 + value % 10)
        size += 1
        value = value // 10
        if value == 0:
            break
    packet.field[SRP_USR4].at = <const uint8_t *>since + 20 - size
    packet.field[SRP_USR4].len = size
    n = srp_message_offset(&packet)
    packet.field[SRP_MESSAGE].at = at + n
    packet.field[SRP_MESSAGE].len = srp_summary_encode(prefix, digest, mask, <const uint8_t (*)[20]>bucket, at + n)
    size = srp_packet_encode(&packet, at, SRP_DATAGRAM_MAX)
    if size == 0 or not out_to(s, p, at, size):
        return False
    out_commit(s, size)
    count_one(&p.summaries)
    s.counter[SRP_COUNT_sync_summaries] += 1
    return True

# --- jobs -----------------------------------------------------------------------------------------------------------------

cdef void end_job(State *s, SyncJob *job) noexcept nogil:
    if s.peers.peer[job.peer].generation == job.generation:
        s.peers.peer[job.peer].sync_jobs -= 1
    job.phase = FREE
    s.jobs_active -= 1

cdef void make_room(State *s, uint32_t slot) noexcept nogil:
    """All jobs are taken: a peer without one gets that of a peer that has several, or of one that has got the packets of its clusters
    or its share of this minute, or, if all are being served, of one that has got much already. Some are looked at, where the last search ended."""
    cdef uint32_t i, worth, best_worth = 0
    cdef SyncJob *job
    cdef SyncJob *best = NULL
    if s.peers.peer[slot].sync_jobs != 0 or not has_share(s, &s.peers.peer[slot], STORED):
        return
    for i in range(s.jobs if s.jobs < LOOK else LOOK):
        job = &s.job[(s.job_next + i) % s.jobs]
        if s.peers.peer[job.peer].sync_jobs > 1:
            worth = 0xffffffffu
        elif job.phase == THE_REST or not has_share(s, &s.peers.peer[job.peer], STORED):
            worth = 0xfffffffeu
        else:
            worth = job.sent
        if worth >= MUCH and worth > best_worth:
            best = job
            best_worth = worth
    s.job_next = (s.job_next + i) % s.jobs if s.jobs != 0 else 0
    if best != NULL:
        drop(s, SRP_DROP_sync_jobs)
        end_job(s, best)

cdef SyncJob *new_job(State *s, uint32_t slot) noexcept nogil:
    """A free job for the peer, or NULL (counted). The search goes on where the last one ended."""
    cdef uint32_t i, at
    cdef SyncJob *job
    if s.jobs_active == s.jobs:
        make_room(s, slot)
    if s.jobs_active < s.jobs:
        for i in range(s.jobs):
            at = (s.job_next + i) % s.jobs
            job = &s.job[at]
            if job.phase == FREE:
                s.job_next = (at + 1) % s.jobs
                memset(job, 0, sizeof(SyncJob))
                job.peer = slot
                job.generation = s.peers.peer[slot].generation
                job.next_us = job.since_us = s.now.mono_us
                s.peers.peer[slot].sync_jobs += 1
                s.jobs_active += 1
                return job
    drop(s, SRP_DROP_sync_jobs)
    return NULL

cdef void start_sync(State *s, uint32_t slot) noexcept nogil:
    """Offers our summary to a peer that connects, at most every six seconds (reference: on first contact)."""
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef SyncJob *job
    # What differs for good, because both sides hold other clusters' packets or cannot keep as much, is compared ever more seldom.
    cdef int64_t pause_us = SYNC_EVERY_US
    if not s.reference and p.sync_pauses != 0:
        pause_us = SYNC_EVERY_US << (p.sync_pauses - 1)
    if p.last_sync_us >= 0 and s.now.mono_us - p.last_sync_us < pause_us:
        return
    job = new_job(s, slot)
    if job == NULL:
        return
    job.phase = WAITING
    p.last_sync_us = s.now.mono_us
    if p.sync_pauses < SYNC_PAUSES_MAX:
        p.sync_pauses += 1
    s.counter[SRP_COUNT_syncs_started] += 1

cdef void note_clusters(State *s, SyncJob *job, srp_peer *p) noexcept nogil:
    """The clusters of a peer that have packets here: theirs go first."""
    cdef uint32_t m = p.members
    cdef srp_cluster *c
    while m != <uint32_t>SRP_NONE and job.clusters < SRP_JOB_CLUSTERS:
        c = &s.peers.cluster[s.peers.member[m].cluster]
        if c.packets != 0:
            job.cluster[job.clusters] = c.key
            job.clusters += 1
        m = s.peers.member[m].peer_next

cdef bint wanted(SyncJob *job, const uint8_t *id) noexcept nogil:
    """Whether an id lies in the buckets that the peer lacks."""
    cdef uint32_t i, digit
    for i in range(job.prefix.len + <uint32_t>1):
        digit = (id[i // 2] & 15) if i & 1 else (id[i // 2] >> 4)
        if i < job.prefix.len:
            if digit != job.prefix.digit[i]:
                return False
        elif not (job.digits >> digit) & 1:
            return False
    return True

cdef bint send_entry(State *s, uint32_t slot, uint32_t entry) noexcept nogil:
    """Sends one packet; False when there is no room, when the peer has got its share of this minute, or when a packet of other
    clusters would be one too many that is carried."""
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef Share share = STORED
    cdef uint8_t *at
    cdef uint32_t size
    if not p.flags & SRP_PEER_INDEXED and not srp_peers_is_member(&s.peers, slot, s.store.entry[entry].cluster):
        share = STRANGE
    if not has_share(s, p, share):
        drop(s, SRP_DROP_sync_share if share == STORED else SRP_DROP_stranger_share)
        return False
    if share == STRANGE and not carry(s, &s.store.entry[entry], False):
        return False
    at = out_reserve(s)
    if at == NULL:
        return False
    size = copy_stored(s, entry, at)
    if not out_replicated(s, p, at, size, share):
        return False
    out_commit(s, size)
    s.counter[SRP_COUNT_sync_packets] += 1
    return True

cdef uint32_t next_of_cluster(State *s, SyncJob *job) noexcept nogil:
    """The packet after the last one sent of the current cluster, in order of arrival. What was sent may be gone by now."""
    cdef uint32_t c = srp_cluster_find(&s.peers, job.cluster[job.at_cluster])
    cdef srp_entry *e = s.store.entry
    cdef uint32_t at, steps = WALK
    if c == <uint32_t>SRP_NONE:
        return SRP_NONE
    if not job.started:
        return s.peers.cluster[c].oldest
    if job.entry != <uint32_t>SRP_NONE and e[job.entry].serial == job.serial and e[job.entry].cluster == c \
            and e[job.entry].size != 0:
        return e[job.entry].cluster_newer
    at = s.peers.cluster[c].oldest
    while at != <uint32_t>SRP_NONE and <int>(e[at].serial - job.serial) <= 0 and steps > 0:
        at = e[at].cluster_newer
        steps -= 1
    return at

cdef bint of_sent_cluster(State *s, SyncJob *job, uint32_t cluster) noexcept nogil:
    cdef uint32_t i
    if cluster == <uint32_t>SRP_NONE:
        return False
    for i in range(job.clusters):
        if s.peers.cluster[cluster].key == job.cluster[i]:
            return True
    return False

cdef bint next_digit(srp_prefix_digits *above, uint16_t digits, srp_prefix_digits *prefix) noexcept nogil:
    """The lowest bucket that is still to be sent."""
    cdef uint32_t i = 0
    if digits == 0:
        return False
    while not (digits >> i) & 1:
        i += 1
    prefix[0] = above[0]
    prefix.digit[above.len] = <uint8_t>i
    prefix.len = above.len + 1
    return True

cdef void serve(State *s, SyncJob *job, uint32_t packets) noexcept nogil:
    """Sends up to so many packets of a job, looking at a bounded number."""
    cdef uint32_t entry, looked = 0
    cdef srp_prefix_digits prefix
    while job.phase == OWN_CLUSTERS and packets > 0 and looked < WALK:
        looked += 1
        if job.at_cluster >= job.clusters:
            job.phase = THE_REST
            job.started = 0
            break
        entry = next_of_cluster(s, job)
        if entry == <uint32_t>SRP_NONE:
            job.at_cluster += 1
            job.started = 0
            continue
        if wanted(job, s.store.entry[entry].id):
            if not send_entry(s, job.peer, entry):
                return
            packets -= 1
            job.sent += 1
        job.started = 1
        job.entry = entry
        job.serial = s.store.entry[entry].serial
    while job.phase == THE_REST and packets > 0 and looked < WALK:
        looked += 1
        if not next_digit(&job.prefix, job.digits, &prefix):
            end_job(s, job)
            return
        entry = srp_store_from(&s.store, &prefix, job.last_id if job.started else NULL, True)
        if entry == <uint32_t>SRP_NONE:
            job.digits &= ~(<uint16_t>1 << prefix.digit[prefix.len - 1])
            job.started = 0
            continue
        if srp_store_holds(&s.store, entry) and not of_sent_cluster(s, job, s.store.entry[entry].cluster):
            if not send_entry(s, job.peer, entry):
                job.next_us = s.now.mono_us + NO_SHARE_US
                return
            packets -= 1
            job.sent += 1
        job.started = 1
        memcpy(job.last_id, s.store.entry[entry].id, 32)

cdef bint other_fills(State *s, uint32_t slot) noexcept nogil:
    """Whether we are being brought up to date by another peer just now: this one's offer is taken up when that is over.

    Who joins meets twenty peers within a second; asking all of them would bring every packet twenty times.
    """
    if s.now.mono_us >= s.filling_until_us or s.filling_from == slot:
        return False
    if s.peers.peer[s.filling_from].generation != s.filling_generation:
        return False
    s.fill_next = slot
    s.fill_next_generation = s.peers.peer[slot].generation
    return True

cdef void ask_below(State *s, uint32_t slot, srp_prefix_digits *prefix) noexcept nogil:
    """Sends our summary of a bucket where we differ: the peer answers with what we lack there."""
    if send_summary(s, &s.peers.peer[slot], prefix) and s.owns != 0:
        s.filling_from = slot
        s.filling_generation = s.peers.peer[slot].generation
        s.filling_until_us = s.now.mono_us + FILLING_US

cdef void compare_later(State *s, uint32_t slot, srp_prefix_digits *prefix, uint16_t digits) noexcept nogil:
    """Has these buckets wait for their summaries, behind those of others; one peer has one comparison wait."""
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef Comparison *c
    if p.comparisons != 0 or s.comparisons_count == s.jobs:
        drop(s, SRP_DROP_sync_jobs)
        return
    c = &s.comparison[(s.comparison_first + s.comparisons_count) % s.jobs]
    c.peer = slot
    c.generation = p.generation
    c.digits = digits
    c.prefix = prefix[0]
    p.comparisons = 1
    s.comparisons_count += 1

cdef void work_on_comparisons(State *s) noexcept nogil:
    """Goes on with the summaries that had to wait, as many as this step has time for."""
    cdef Comparison *c
    cdef srp_prefix_digits child
    while s.comparisons_count != 0:
        c = &s.comparison[s.comparison_first]
        if s.peers.peer[c.peer].generation == c.generation and proven(s, c.peer):
            while next_digit(&c.prefix, c.digits, &child):
                if not in_this_step(s, &child):
                    return
                ask_below(s, c.peer, &child)
                c.digits &= ~(<uint16_t>1 << child.digit[child.len - 1])
        if s.peers.peer[c.peer].generation == c.generation:
            s.peers.peer[c.peer].comparisons = 0
        s.comparison_first = (s.comparison_first + 1) % s.jobs
        s.comparisons_count -= 1

cdef void work_on_jobs(State *s) noexcept nogil:
    """Serves the jobs whose time has come."""
    cdef uint32_t i, seen = 0, active = s.jobs_active
    cdef SyncJob *job
    cdef srp_prefix_digits all
    for i in range(s.jobs):
        if seen == active:
            return
        job = &s.job[i]
        if job.phase == FREE:
            continue
        seen += 1
        if job.next_us > s.now.mono_us:
            continue
        job.next_us = s.now.mono_us + STEP_US
        if s.peers.peer[job.peer].generation != job.generation or not s.peers.peer[job.peer].flags & 1 \
                or not proven(s, job.peer):
            end_job(s, job)
        elif job.phase == WAITING:
            # Where packets keep coming the summary is never right: then an offer shows where to look, what is below is exact.
            if (s.store.top_dirty or s.store.refreshing) and s.store.count < SMALL \
                    and s.now.mono_us - job.since_us < FRESH_WITHIN_US:
                s.refresh_at_us = 0
                continue
            all.len = 0
            # An offer of one who lacks everything asks for everything, too.
            if s.owns == 0 or s.reference or not other_fills(s, job.peer):
                send_summary(s, &s.peers.peer[job.peer], &all)
            end_job(s, job)
        else:
            if not has_share(s, &s.peers.peer[job.peer], STORED):
                drop(s, SRP_DROP_sync_share)
                job.next_us = s.now.mono_us + NO_SHARE_US
            else:
                serve(s, job, STEP_PACKETS)

# --- receiving ------------------------------------------------------------------------------------------------------------

cdef void after_filling(State *s) noexcept nogil:
    """Compares once more, with the last of those who had to wait."""
    cdef uint32_t slot = s.fill_next
    if s.now.mono_us < s.filling_until_us:
        return
    if s.peers.peer[slot].generation == s.fill_next_generation and proven(s, slot):
        s.peers.peer[slot].last_sync_us = -1
        start_sync(s, slot)
    s.fill_next_generation = 0

cdef void on_sync(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot) noexcept nogil:
    """Compares a peer's summary with ours and sends what it lacks, or the next level where we differ."""
    cdef srp_prefix_digits prefix, child
    cdef uint8_t theirs[16][20]
    cdef uint8_t ours[16][20]
    cdef uint8_t their_hash[20]
    cdef uint8_t our_hash[20]
    cdef uint32_t their_mask, our_mask, i, entry
    cdef uint16_t lacking = 0, later = 0
    cdef uint32_t work = 0
    cdef uint64_t key
    cdef srp_span id = frame.field[SRP_PACKET_ID], m = frame.field[SRP_MESSAGE]
    cdef srp_peer *p = &s.peers.peer[slot]
    cdef SyncJob *job
    # By sender: late joiners all send the same bytes (reference-side gate keeps the second from being served).
    key = srp_sip(&s.key, d.data + id.at, id.len) ^ srp_sip(&s.key, &p.generation, 4) ^ (<uint64_t>slot << 32)
    if srp_recent_find(&s.gate_other, key, s.now_ms) != NULL:
        drop(s, SRP_DROP_duplicate)
        return
    if srp_recent_add(&s.gate_other, key, s.now_ms, SYNC_GATE_MS, 0):
        s.counter[SRP_COUNT_gate_evicted] += 1
    if srp_summary_decode(d.data + m.at, m.len, &prefix, their_hash, &their_mask, theirs) != 0:
        drop(s, SRP_DROP_summary)
        return
    if not may_work(s, p, srp_store_summary_work(&s.store, &prefix)):
        return
    if prefix.len == 0 and (s.store.top_dirty or s.store.refreshing) and s.store.count < SMALL \
            and may_work(s, p, s.store.count):
        while not srp_store_refresh(&s.store, REFRESH_IDS):
            pass
    our_mask = srp_store_summary(&s.store, &prefix, ours, our_hash, &work)
    if memcmp(our_hash, their_hash, 20) == 0 or prefix.len >= 64:
        return
    if s.owns != 0 and prefix.len == 0 and not s.reference and other_fills(s, slot):
        return
    child = prefix
    child.len = prefix.len + 1
    for i in range(16):
        child.digit[prefix.len] = <uint8_t>i
        if not (their_mask >> i) & 1:
            if not (our_mask >> i) & 1:
                continue
            if srp_store_below(&s.store, &child) > AT_ONCE:
                lacking |= <uint16_t>1 << i
                continue
            entry = srp_store_from(&s.store, &child, NULL, False)
            while entry != <uint32_t>SRP_NONE and (not srp_store_holds(&s.store, entry) or send_entry(s, slot, entry)):
                entry = srp_store_from(&s.store, &child, s.store.entry[entry].id, True)
            if entry != <uint32_t>SRP_NONE:  # not all of them: a job sends the bucket later
                lacking |= <uint16_t>1 << i
        elif not (our_mask >> i) & 1 or memcmp(ours[i], theirs[i], 20) != 0:
            if srp_store_summary_work(&s.store, &child) <= LITTLE or (s.comparisons_count == 0 and in_this_step(s, &child)):
                ask_below(s, slot, &child)
            else:
                later |= <uint16_t>1 << i
    if later != 0:
        compare_later(s, slot, &prefix, later)
    if lacking != 0:
        job = new_job(s, slot)
        if job != NULL:
            job.phase = OWN_CLUSTERS
            job.digits = lacking
            job.prefix = prefix
            note_clusters(s, job, p)
