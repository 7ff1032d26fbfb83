"""What tests see of a Node beyond its Python face: its tables checked against each other, its cache, crowds of peers made
fast, whole batches, and the number of instructions that a datagram costs. Built by build.py, no part of the package."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from srpnode.core.node cimport Node
from srpnode.core.state cimport Challenge, Comparison, State
from srpnode.core.types cimport (
    SRP_CLUSTER_ID,
    SRP_DATAGRAM_MAX,
    SRP_KEY_IS_CONNECTION,
    SRP_KEY_IS_REFLECTION,
    SRP_KEY_NAT_TYPE,
    SRP_KEY_PING_ID,
    SRP_KEY_REQUESTER_PEER_ID,
    SRP_KEY_RESPONDER_PEER_ID,
    SRP_KEY_TIMESTAMP,
    SRP_KEY_UPTIME,
    SRP_MESSAGE,
    SRP_MESSAGE_MAX,
    SRP_NONE,
    SRP_OK,
    SRP_PEER_CHALLENGED,
    SRP_PEER_USED,
    SRP_PING,
    SRP_PONG,
    SRP_SUBCLUSTER_ID,
    srp_datagram,
    srp_frame,
    srp_frame_decode,
    srp_message,
    srp_message_offset,
    srp_message_read,
    srp_message_write,
    srp_now,
    srp_packet,
    srp_packet_encode,
    srp_packet_init,
    srp_peers,
    srp_peers_bytes,
    srp_store,
    srp_store_copy,
)

cdef extern from "check.h" nogil:
    const char *srp_check_peers(const srp_peers *peers)
    const char *srp_check_store(const srp_store *store)

cdef extern from "steps.h":
    long srp_steps(void (*function)(void *) noexcept, void *argument)

cdef extern from "store.h" nogil:
    ctypedef struct whole_entry "srp_entry":
        uint16_t size
    ctypedef struct store_bucket "srp_bucket":
        pass
    enum:
        SRP_BLOCK
    ctypedef struct whole_store "srp_store":
        uint32_t count
        uint32_t blocks
        uint32_t bits
        uint32_t levels
        uint32_t wheel_size
        uint64_t bytes
    ctypedef struct linked_entry "srp_entry":
        uint8_t id[32]
        uint32_t newer
        uint8_t hops
        uint32_t expires_s


def check(Node node):
    """Raises AssertionError when a table of the node contradicts itself or another."""
    cdef State *s = node.state
    cdef const char *wrong = srp_check_peers(&s.peers)
    cdef Comparison *waits
    cdef int comparing = 0
    cdef uint32_t i, jobs = 0, disputes = 0, challenged = 0, waiting = 0, accounted = 0
    cdef Challenge *c
    if wrong == NULL:
        wrong = srp_check_store(&s.store)
    if wrong != NULL:
        raise AssertionError(wrong.decode())
    for i in range(s.jobs):
        jobs += s.job[i].phase != 0
    assert jobs == s.jobs_active, f"{jobs} sync jobs counted as {s.jobs_active}"
    assert s.comparisons_count <= s.jobs
    for i in range(s.comparisons_count):
        waits = &s.comparison[(s.comparison_first + i) % s.jobs]
        comparing += s.peers.peer[waits.peer].generation == waits.generation
    for i in range(s.peers.capacity):
        comparing -= (s.peers.peer[i].flags & SRP_PEER_USED) and s.peers.peer[i].comparisons
    assert comparing == 0, "a peer waits for no comparison, or for several"
    for i in range(s.challenge_size):
        c = &s.challenge[i]
        if c.deadline_us == 0:
            continue
        disputes += 1
        challenged += s.peers.peer[c.holder].generation == c.holder_generation \
            and (s.peers.peer[c.holder].flags & SRP_PEER_CHALLENGED) != 0
    assert disputes == s.challenges, f"{disputes} disputed names counted as {s.challenges}"
    for i in range(s.peers.capacity):
        challenged -= (s.peers.peer[i].flags & SRP_PEER_USED) and (s.peers.peer[i].flags & SRP_PEER_CHALLENGED) != 0
    for i in range(s.deferred_size):
        waiting += s.deferred[i].kind != 0
        accounted += s.deferred[i].kind != 0 \
            and s.peers.peer[s.deferred[i].cause].generation == s.deferred[i].cause_generation
    assert waiting == s.deferred_count, f"{waiting} joins that wait counted as {s.deferred_count}"
    for i in range(s.peers.capacity):
        accounted -= s.peers.peer[i].deferred
    assert accounted == 0, "a peer is charged with other joins than those that wait on its account"
    assert challenged == 0, "a peer is marked as challenged, and nobody challenges it"
    assert s.budget == -1, f"a budget of {s.budget} bytes was left over"
    assert s.slab_used <= s.slab_size and s.out_count <= s.out_capacity
    assert s.event_count <= s.event_size


def packets(Node node):
    """The cache, oldest packet first: {packetId: datagram}."""
    cdef const srp_store *store = &node.state.store
    cdef uint8_t out[1424]
    cdef uint32_t e = store.oldest, size
    result = {}
    while e != <uint32_t>SRP_NONE:
        size = srp_store_copy(store, e, out)
        result[PyBytes_FromStringAndSize(<char *>(<linked_entry *>store.entry)[e].id, 32)] = \
            PyBytes_FromStringAndSize(<char *>out, size)
        e = (<linked_entry *>store.entry)[e].newer
    return result


def ids(Node node):
    """What the summaries tell of: the ids of the cache, and those whose packets have given way."""
    cdef const srp_store *store = &node.state.store
    cdef uint32_t e = store.seen_oldest
    result = list(packets(node))
    while e != <uint32_t>SRP_NONE:
        result.append(PyBytes_FromStringAndSize(<char *>(<linked_entry *>store.entry)[e].id, 32))
        e = (<linked_entry *>store.entry)[e].newer
    return result


cdef list outgoing(Node node):
    cdef srp_datagram *items
    cdef uint32_t n = node.output(&items), i
    result = []
    for i in range(n):
        result.append((
            PyBytes_FromStringAndSize(<char *>items[i].data, items[i].len),
            items[i].addr, items[i].port, items[i].local, items[i].socket, <size_t>items[i].data,
        ))
    node.output_done()
    return result


cdef class Batch:
    """Received datagrams in memory of their own: [(data, address number, port, socket)]."""
    cdef srp_datagram items[1024]
    cdef uint32_t count
    cdef list buffers

    def __init__(self, datagrams):
        cdef bytearray buffer
        cdef uint8_t *at
        self.buffers = []
        self.count = 0
        for data, addr, port, socket in datagrams[:1024]:
            buffer = bytearray(data)
            self.buffers.append(buffer)
            at = buffer
            memset(&self.items[self.count], 0, sizeof(srp_datagram))
            self.items[self.count].data = at
            self.items[self.count].len = <uint32_t>len(data)
            self.items[self.count].addr = addr
            self.items[self.count].port = port
            self.items[self.count].socket = socket
            self.count += 1


def receive_batch(Node node, datagrams, int64_t mono_us, int64_t wall_ms):
    """Hands a whole batch to the node, as the loop does. Returns (data, address, port, local, socket, place) of what it sends:
    equal places share one payload."""
    cdef Batch batch = Batch(datagrams)
    cdef srp_now now
    now.mono_us = mono_us
    now.wall_ms = wall_ms
    node.receive_batch(batch.items, batch.count, now)
    return outgoing(node)


def peer_bytes(uint32_t capacity, uint32_t spare=64):
    """What the tables of peers, names, clusters and memberships take for each peer that they have room for, all of it in use."""
    return srp_peers_bytes(capacity, spare, 2 * capacity + 64) / <double>capacity


def cache_bytes(Node node):
    """(bytes of the cached datagrams, bytes of memory that they and what finds them take). Entries count as far as they are used, by ids that stay as well."""
    cdef whole_store *store = <whole_store *>&node.state.store
    cdef uint64_t memory = <uint64_t>store.blocks * (SRP_BLOCK + 4) + (<uint64_t>4 << store.bits) + 4 * <uint64_t>store.wheel_size
    cdef uint32_t level
    for level in range(store.levels):
        memory += sizeof(store_bucket) << (4 * (level + 1))
    return store.bytes, memory + store.count * <uint64_t>sizeof(whole_entry)


def wind_application_ring(Node node, uint32_t position):
    """As if so many bytes had gone through the application's ring: it is empty, and its counts stand there."""
    node.state.app_head = node.state.app_tail = position


# --- crowds -------------------------------------------------------------------------------------------------------------

cdef uint32_t frame_of(uint8_t kind, srp_message *message, const uint8_t *cluster, uint8_t *out) noexcept nogil:
    cdef srp_packet packet
    cdef uint32_t offset
    srp_packet_init(&packet, kind)
    if cluster != NULL:
        packet.field[SRP_CLUSTER_ID].at = cluster
        packet.field[SRP_CLUSTER_ID].len = 32
    offset = srp_message_offset(&packet)
    packet.field[SRP_MESSAGE].at = out + offset
    packet.field[SRP_MESSAGE].len = srp_message_write(kind, message, <char *>out + offset, SRP_MESSAGE_MAX)
    return srp_packet_encode(&packet, out, SRP_DATAGRAM_MAX)


def crowd(Node node, uint32_t count, uint32_t first_address, uint32_t clusters, int64_t mono_us, int64_t wall_ms):
    """So many peers connect, by the same datagrams as everybody: ping, pong, connection ping. One address each, port 9000,
    NAT type 31, spread over so many clusters (32 bytes that begin with the cluster's number). Returns how many did."""
    cdef uint8_t out[1424]
    cdef uint8_t cluster[32]
    cdef srp_datagram d
    cdef srp_datagram *items
    cdef srp_frame frame
    cdef srp_message message, asked
    cdef srp_now now
    cdef uint32_t i, j, n, number, before = node.state.peers.live_count
    now.mono_us = mono_us
    now.wall_ms = wall_ms
    d.local = 0
    d.socket = 0
    d.port = 9000
    d.data = out
    for i in range(count):
        d.addr = first_address + i
        memset(cluster, 7, 32)
        number = i % clusters
        memcpy(cluster, &number, 4)
        memset(&message, 0, sizeof(message))
        memset(message.requester_peer_id, 1, 32)
        memcpy(message.requester_peer_id, &d.addr, 4)
        message.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_UPTIME) | (1u << SRP_KEY_TIMESTAMP)
        message.uptime = 30000
        message.timestamp = 1.7e12
        d.len = frame_of(SRP_PING, &message, cluster, out)
        node.receive_batch(&d, 1, now)
        n = node.output(&items)
        asked.has = 0
        for j in range(n):
            if items[j].data[4] == SRP_PING and srp_frame_decode(items[j].data, items[j].len, &frame) == SRP_OK:
                srp_message_read(items[j].data, &frame, &asked)
        node.output_done()
        asked.has = (1u << SRP_KEY_REQUESTER_PEER_ID) | (1u << SRP_KEY_RESPONDER_PEER_ID) | (1u << SRP_KEY_PING_ID) \
            | (1u << SRP_KEY_IS_REFLECTION)
        memcpy(asked.responder_peer_id, message.requester_peer_id, 32)
        d.len = frame_of(SRP_PONG, &asked, NULL, out)
        node.receive_batch(&d, 1, now)
        node.output_done()
        message.has |= (1u << SRP_KEY_IS_CONNECTION) | (1u << SRP_KEY_NAT_TYPE)
        message.truth = 1u << SRP_KEY_IS_CONNECTION
        message.nat_type = 31
        d.len = frame_of(SRP_PING, &message, cluster, out)
        node.receive_batch(&d, 1, now)
        node.output_done()
    return node.state.peers.live_count - before


# --- cost ----------------------------------------------------------------------------------------------------------------

cdef struct Work:
    void *node
    void *batch
    srp_now now

cdef void work(void *argument) noexcept:
    cdef Work *w = <Work *>argument
    cdef srp_datagram *items
    if w.batch == NULL:
        (<Node>w.node).tick_at(w.now)
    else:
        (<Node>w.node).receive_batch((<Batch>w.batch).items, (<Batch>w.batch).count, w.now)
    (<Node>w.node).output(&items)
    (<Node>w.node).output_done()

cdef void nothing(void *argument) noexcept:
    pass


def instructions(Node node, datagrams, int64_t mono_us, int64_t wall_ms):
    """Instructions that the node executes for these datagrams, in order (None: for one tick). The node stays as it is: a copy of
    the process does the work. Raises OSError where a process may not trace its child."""
    cdef Work w
    cdef Batch batch
    cdef long steps, empty
    w.node = <void *>node
    w.batch = NULL
    if datagrams is not None:
        batch = Batch(datagrams)
        w.batch = <void *>batch
    w.now.mono_us = mono_us
    w.now.wall_ms = wall_ms
    empty = srp_steps(nothing, NULL)
    steps = srp_steps(work, &w)
    if empty < 0 or steps < 0:
        raise OSError("no child process can be traced here")
    return steps - empty


# --- allocation ------------------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    #include <dlfcn.h>
    typedef unsigned long (*srp_count_function)(void);
    static srp_count_function srp_counting(void) { return (srp_count_function)dlsym(RTLD_DEFAULT, "srp_allocation_count"); }
    """
    ctypedef unsigned long (*srp_count_function)() noexcept nogil
    srp_count_function srp_counting() noexcept nogil


def allocations(Node node, batches, ticks, int64_t mono_us, int64_t wall_ms):
    """How often the process allocated or mapped memory while the node handled these batches, a tick after each, and so many ticks
    more, 10 ms apart. Works in the program that counting.c makes. Returns (allocations, datagrams in, datagrams out)."""
    cdef srp_count_function count = srp_counting()
    cdef list prepared = [Batch(datagrams) for datagrams in batches]
    cdef Py_ssize_t i, n = len(prepared), extra = ticks
    cdef srp_now now
    cdef srp_datagram *items
    cdef uint64_t received = 0, sent = 0
    cdef unsigned long before, after
    cdef void *at
    if count == NULL:
        raise OSError("nobody counts allocations in this process")
    now.mono_us = mono_us
    now.wall_ms = wall_ms
    before = count()
    for i in range(n + extra):
        now.mono_us += 10000
        now.wall_ms += 10
        if i < n:
            at = <void *>prepared[i]
            node.receive_batch((<Batch>at).items, (<Batch>at).count, now)
            received += (<Batch>at).count
            sent += node.output(&items)
            node.output_done()
        node.tick_at(now)
        sent += node.output(&items)
        node.output_done()
        node.due_us()
    after = count()
    return after - before, received, sent


# --- time ------------------------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    #include <time.h>
    static int64_t srp_now_ns(void) { struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec * INT64_C(1000000000) + t.tv_nsec; }
    """
    int64_t srp_now_ns() nogil

cdef uint64_t mix(uint64_t *seed) noexcept nogil:
    cdef uint64_t z
    seed[0] += <uint64_t>0x9e3779b97f4a7c15
    z = seed[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
    return z ^ (z >> 31)


cdef class Stopwatch:
    """Processor time that a node spends on datagrams of its crowd() alone: batches from random peers, made outside the measured time.

    template: one datagram of any of them; its sender's peerId as hex stands at hex_at, as bytes at id_at, its cluster at 25
    (-1, False: none), 32 fresh bytes belong at each of `fresh`. cold_bytes: so much other memory is written before each batch, as
    the kernel does that fetched it.
    """
    cdef Node node
    cdef uint64_t seed
    cdef public int64_t mono_us, wall_ms
    cdef uint32_t peers, first, clusters

    def __init__(self, Node node, uint32_t peers, uint32_t first, uint32_t clusters, int64_t mono_us, int64_t wall_ms):
        self.node = node
        self.peers = peers
        self.first = first
        self.clusters = clusters
        self.mono_us = mono_us
        self.wall_ms = wall_ms
        self.seed = 1

    def run(self, bytes template, uint32_t count, *, int hex_at=-1, int id_at=-1, bint cluster=True, fresh=(), uint32_t batch=64,
            uint32_t cold_bytes=0):
        """(nanoseconds, datagrams sent), both for each datagram."""
        cdef bytearray buffers = bytearray(batch * 2048), other = bytearray(cold_bytes + 1)
        cdef uint8_t *at = buffers
        cdef uint8_t *cold = other
        cdef const uint8_t *text = template
        cdef uint32_t length = <uint32_t>len(template), done = 0, sent = 0, i, j, k, who, number, places = <uint32_t>len(fresh)
        cdef int place[4]
        cdef srp_datagram items[256]
        cdef srp_datagram *out
        cdef srp_now now
        cdef int64_t begin, total = 0
        cdef uint64_t word
        cdef char *digits = "0123456789abcdef"
        assert length <= 2048 and batch <= 256 and places <= 4
        for i in range(places):
            place[i] = fresh[i]
        with nogil:
            while done < count:
                for i in range(batch):
                    memset(&items[i], 0, sizeof(srp_datagram))
                    items[i].data = at + 2048 * i
                    items[i].len = length
                    memcpy(items[i].data, text, length)
                    who = self.first + <uint32_t>(((mix(&self.seed) >> 32) * self.peers) >> 32)
                    items[i].addr = who
                    items[i].port = 9000
                    items[i].local = 0x7f000001
                    if cluster:
                        number = (who - self.first) % self.clusters
                        memcpy(items[i].data + 25, &number, 4)
                    if id_at >= 0:
                        memcpy(items[i].data + id_at, &who, 4)
                    if hex_at >= 0:
                        for j in range(4):
                            items[i].data[hex_at + 2 * j] = digits[(who >> (8 * j + 4)) & 15]
                            items[i].data[hex_at + 2 * j + 1] = digits[(who >> (8 * j)) & 15]
                    for j in range(places):
                        for k in range(4):
                            word = mix(&self.seed)
                            memcpy(items[i].data + place[j] + 8 * k, &word, 8)
                for i in range(0, cold_bytes, 64):
                    cold[i] += 1
                self.mono_us += 200
                now.mono_us = self.mono_us
                now.wall_ms = self.wall_ms
                begin = srp_now_ns()
                self.node.receive_batch(items, batch, now)
                sent += self.node.output(&out)
                self.node.output_done()
                if self.node.due_us() <= self.mono_us:
                    self.node.tick_at(now)
                    sent += self.node.output(&out)
                    self.node.output_done()
                total += srp_now_ns() - begin
                done += batch
        return total / <double>done, sent / <double>done
