"""The virtual internet: hosts that each run a real core, the NATs before them, the links between them, and one virtual clock.

Nothing here knows what an experiment is about: experiment.py lets hosts come and go and publishes packets, this module carries
datagrams and keeps the books. No Python object is made for a datagram. Everything is whole numbers, drawn from one seed, so a run
is the same bit for bit on every machine; `trace` is a hash over everything that happened, in order.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from array import array

from srpnode.core.app cimport APP_PACKET, APP_READY
from srpnode.core.node cimport COMMAND_APP, COMMAND_JOIN, COMMAND_PUBLISH, Node
from srpnode.core.types cimport (
    SRP_HOPS_OFFSET,
    SRP_JOIN,
    SRP_PONG,
    SRP_PUBLISH,
    SRP_SOCKET_POOL,
    srp_datagram,
    srp_now,
)
from srpnode.sim.draws cimport KNOTS, below, chance, draw, mix, quantile
from srpnode.sim.nat cimport NAT_NONE, NAT_SYMMETRIC, Box, Nats, nat_free, nat_in, nat_out
from srpnode.sim.queue cimport Event, Queue, queue_free, queue_pop, queue_push

from srpnode.core import codec

cdef enum:
    EVENT_DELIVER = 1
    EVENT_TICK = 2
    EVENT_CALL = 3
    NOBODY = 0xffffffff
    IS_BOX = 0x80000000
    FIRST_ADDR = 0x10000000     # one /24 for each address: limits for a prefix are met by those only who share one on purpose
    INSIDE_ADDR = 0x0a000001
    PORT = 10000                # of every host: main, then probe, then the pool
    POOL = 256
    HEADER_BYTES = 28           # IPv4 and UDP, on the link
    BUFFER = 2048
    APP_BUFFER = 65536
    START_US = 1000000
    START_WALL_MS = 1700000000000
    MARK_BYTES = 8
    SIGNALS_EVERY = 4096        # events

cdef const char *MARK = "srp sim\n"

# Bytes of one datagram on its way to one or several hosts.
ctypedef struct Payload:
    uint32_t refs
    uint32_t len

ctypedef struct Flight:
    Payload *payload
    uint32_t source
    uint32_t to
    uint16_t source_port
    uint16_t to_port

ctypedef struct Host:
    void *node                  # a borrowed reference: World.nodes owns it; NULL: off
    uint32_t addr               # its own
    uint32_t box                # NOBODY: none
    uint16_t group              # of the experiment: what kind of host this is
    uint8_t nat
    uint8_t subscribed          # an application here wants the packets
    uint8_t ready
    uint8_t away                # off, and will come back
    uint8_t silent              # relays nothing of others
    uint8_t close               # a sixteenth of the usual delay to everybody
    int64_t started_us
    int64_t ready_us
    int64_t stopped_us
    int64_t tick_us             # of the tick that stands in the queue, 0: none
    int64_t up_free_us
    int64_t online_us           # of sessions before this one

ctypedef struct Books:
    uint64_t sent
    uint64_t sent_bytes
    uint64_t received
    uint64_t received_bytes
    uint64_t packets_sent       # of published packets
    uint64_t packets_sent_bytes
    uint64_t packets_received
    uint64_t packets_received_bytes
    int64_t online_us

# One published packet and those who wanted it at that moment.
ctypedef struct Message:
    int64_t at_us
    uint32_t bytes
    uint32_t publisher
    uint32_t wanted
    uint32_t *host              # ascending
    int64_t *delay_us           # -1: not yet
    int64_t *ready_us           # for how long the host had been ready, -1: it was not
    uint64_t sent
    uint64_t sent_early         # within two seconds of the publication
    uint64_t received
    uint64_t delivered
    uint64_t late               # deliveries to others, who came later
    uint64_t again              # deliveries that were not the first
    uint32_t hops[17]           # first deliveries by the hops that the packet had come

cdef struct Fast:
    # What the inner loops work on, apart from Python's object.
    Queue queue
    Nats nats
    int64_t now_us
    uint64_t links              # random numbers of the links
    uint64_t events
    uint64_t datagrams
    uint64_t trace
    uint64_t lost
    uint64_t duplicated
    uint64_t overflowed
    uint64_t unroutable
    uint64_t cut

GROUPS = 8

cdef class World:
    """One simulated network; see the module.

    seed: a number. latency: KNOTS + 1 quantiles of the base delay of a path, microseconds. jitter: a datagram's delay differs from
    it by up to this many thousandths either way. loss, duplicate, reorder: millionths; a reordered datagram takes up to
    twice its time. up_bytes_per_s: of each host, 0 = unlimited; up_queue_us: what waits longer is dropped.
    """

    cdef Fast f
    cdef int64_t latency[4097]
    cdef uint64_t seed
    cdef uint64_t people                # random numbers of the experiment
    cdef uint32_t jitter, loss, duplicate, reorder
    cdef uint64_t up_bytes_per_s
    cdef int64_t up_queue_us
    cdef Host *host
    cdef uint32_t hosts, host_capacity
    cdef Box *box
    cdef uint32_t boxes, box_capacity
    cdef uint32_t *owner                # of the address with this number
    cdef uint32_t addresses, address_capacity
    cdef Flight *flight
    cdef uint32_t flights, flight_capacity, flight_free
    cdef Message *message
    cdef uint32_t messages, message_capacity
    cdef Books books[8]
    cdef uint32_t mark_at               # where the mark stands in a packet of ours
    cdef uint32_t closes                # hosts that are close
    cdef uint32_t partition_share       # millionths of addresses on one side, 0 = no partition
    cdef uint64_t partition_salt
    cdef uint8_t buffer[2048]
    cdef uint8_t *app_buffer
    cdef list nodes
    cdef list calls
    cdef uint32_t alive[8]

    def __cinit__(self, *, uint64_t seed, latency, uint32_t jitter=100, uint32_t loss=0, uint32_t duplicate=0, uint32_t reorder=0,
                  uint64_t up_bytes_per_s=0, int64_t up_queue_us=200000):
        cdef uint32_t i
        self.app_buffer = <uint8_t *>malloc(APP_BUFFER)
        if self.app_buffer == NULL:
            raise MemoryError
        if len(latency) != KNOTS + 1:
            raise ValueError(f"latency: {KNOTS + 1} quantiles")
        for i in range(KNOTS + 1):
            self.latency[i] = latency[i]
        self.seed = mix(seed)
        self.people = mix(self.seed ^ 1)
        self.f.links = mix(self.seed ^ 2)
        self.f.nats.random = mix(self.seed ^ 3)
        self.f.now_us = START_US
        self.f.trace = self.seed
        self.jitter = jitter
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.up_bytes_per_s = up_bytes_per_s
        self.up_queue_us = up_queue_us
        self.flight_free = NOBODY
        self.nodes = []
        self.calls = []

    def __dealloc__(self):
        cdef uint32_t i
        cdef Event event
        while queue_pop(&self.f.queue, &event):
            if event.kind == EVENT_DELIVER:
                self.release(self.flight[event.index].payload)
        queue_free(&self.f.queue)
        nat_free(&self.f.nats)
        for i in range(self.messages):
            free(self.message[i].host)
            free(self.message[i].delay_us)
            free(self.message[i].ready_us)
        free(self.message)
        free(self.host)
        free(self.box)
        free(self.owner)
        free(self.flight)
        free(self.app_buffer)

    # --- time and chance ------------------------------------------------------------------------------------------------

    @property
    def now_us(self):
        """Virtual microseconds since the start."""
        return self.f.now_us - START_US

    def draw_below(self, uint32_t n):
        """A random number 0 … n - 1, of the experiment's own sequence."""
        if n == 0:
            raise ValueError("nothing to choose from")
        return below(&self.people, n)

    def draw_from(self, const int64_t[:] knots):
        """A random value of a distribution that is given as KNOTS + 1 quantiles."""
        if knots.shape[0] != KNOTS + 1:
            raise ValueError(f"{KNOTS + 1} quantiles")
        return quantile(&knots[0], draw(&self.people))

    def draw_bytes(self, uint32_t count):
        """Random bytes, of the experiment's own sequence."""
        return b"".join(draw(&self.people).to_bytes(8, "little") for _ in range((count + 7) // 8))[:count]

    def at(self, int64_t at_us, function):
        """Calls function() at that virtual time (not before now)."""
        at_us += START_US
        self.calls.append(function)
        self.push(at_us if at_us > self.f.now_us else self.f.now_us, EVENT_CALL, <uint32_t>(len(self.calls) - 1))

    cdef int push(self, int64_t at_us, uint32_t kind, uint32_t index) except -1:
        if not queue_push(&self.f.queue, at_us, kind, index):
            raise MemoryError
        return 0

    cdef srp_now now(self) noexcept:
        cdef srp_now now
        now.mono_us = self.f.now_us
        now.wall_ms = START_WALL_MS + self.f.now_us // 1000
        return now

    # --- places ---------------------------------------------------------------------------------------------------------

    cdef uint32_t new_address(self, uint32_t owner) except? 0:
        cdef uint32_t *grown
        if self.addresses == self.address_capacity:
            self.address_capacity = 2 * self.address_capacity + 1024
            grown = <uint32_t *>realloc(self.owner, sizeof(uint32_t) * <size_t>self.address_capacity)
            if grown == NULL:
                raise MemoryError
            self.owner = grown
        if self.addresses >= 5000000:
            raise ValueError("more hosts than the virtual internet has addresses for")
        self.owner[self.addresses] = owner
        self.addresses += 1
        return FIRST_ADDR + 256 * (self.addresses - 1)

    def add_box(self, int kind, *, int64_t timeout_us=30000000, uint32_t ports=64512, bint hairpin=False):
        """A NAT of this kind (nat.pxd) for add_host(); its number."""
        cdef Box *grown
        if not NAT_NONE < kind <= NAT_SYMMETRIC or not 1 <= ports <= 64512:
            raise ValueError("no such NAT")
        if self.boxes == self.box_capacity:
            self.box_capacity = 2 * self.box_capacity + 64
            grown = <Box *>realloc(self.box, sizeof(Box) * <size_t>self.box_capacity)
            if grown == NULL:
                raise MemoryError
            self.box = grown
        self.box[self.boxes].addr = self.new_address(self.boxes | <uint32_t>IS_BOX)
        self.box[self.boxes].kind = <uint8_t>kind
        self.box[self.boxes].hairpin = hairpin
        self.box[self.boxes].ports = ports
        self.box[self.boxes].first_port = 1024 if ports == 64512 else PORT
        self.box[self.boxes].timeout_us = timeout_us
        if timeout_us > self.f.nats.timeout_max_us:
            self.f.nats.timeout_max_us = timeout_us
        self.boxes += 1
        return self.boxes - 1

    def add_host(self, uint32_t group, box=None, bint subscribed=False, bint silent=False, bint close=False):
        """A host that is off; its number. group: below GROUPS, for the books. close: to everybody, without a box only."""
        cdef Host *grown
        cdef Host *h
        if group >= 8 or (box is not None and not 0 <= box < self.boxes):
            raise ValueError("no such group or box")
        if self.hosts == self.host_capacity:
            self.host_capacity = 2 * self.host_capacity + 256
            grown = <Host *>realloc(self.host, sizeof(Host) * <size_t>self.host_capacity)
            if grown == NULL:
                raise MemoryError
            self.host = grown
        h = &self.host[self.hosts]
        memset(h, 0, sizeof(Host))
        h.box = NOBODY if box is None else <uint32_t>box
        h.group = <uint16_t>group
        h.nat = NAT_NONE if box is None else self.box[h.box].kind
        h.subscribed = subscribed
        h.silent = silent
        h.close = close
        self.closes += close
        h.stopped_us = -1
        self.hosts += 1
        h.addr = self.new_address(self.hosts - 1) if box is None else INSIDE_ADDR + self.hosts - 1
        self.nodes.append(None)
        return self.hosts - 1

    def endpoint(self, uint32_t host):
        """Address number and port of a host without NAT."""
        return self.host[host].addr, PORT

    def start(self, uint32_t host, peer_id, seed, join=(), **settings):
        """Switches a host on with a fresh core. join: (cluster, subcluster) pairs. settings: of Node."""
        cdef Host *h = &self.host[host]
        cdef Node node
        cdef bytes names
        if h.node != NULL:
            raise ValueError("the host is on")
        node = Node(peer_id=peer_id, seed=seed, port=PORT, probe_port=PORT + 1, mono_us=self.f.now_us,
                    wall_ms=START_WALL_MS + self.f.now_us // 1000, **settings)
        self.nodes[host] = node
        h = &self.host[host]
        h.node = <void *>node
        h.ready = node.state.nat_type != 0
        h.ready_us = self.f.now_us if h.ready else -1
        h.started_us = self.f.now_us
        h.stopped_us = -1
        h.tick_us = 0
        h.away = 0
        h.up_free_us = 0
        self.alive[h.group] += 1
        for cluster, subcluster in join:
            names = cluster + subcluster
            node.command(COMMAND_JOIN, <char *>names, 64, self.now())
        self.note(EVENT_CALL, host, 1)
        self.after(host, node)

    def stop(self, uint32_t host, bint away=False):
        """Switches a host off, without a word to anybody. away: it still wants what is published meanwhile."""
        cdef Host *h = &self.host[host]
        if h.node == NULL:
            return
        h.node = NULL
        self.nodes[host] = None
        h.stopped_us = self.f.now_us
        h.online_us += self.f.now_us - h.started_us
        h.tick_us = 0
        h.ready = 0
        h.away = away
        self.books[h.group].online_us += self.f.now_us - h.started_us
        self.alive[h.group] -= 1
        self.note(EVENT_CALL, host, 2)

    def is_on(self, uint32_t host):
        """Whether a host is on."""
        return self.host[host].node != NULL

    def is_ready(self, uint32_t host):
        """Whether it knows its NAT."""
        return self.host[host].ready != 0

    def count_on(self, uint32_t group):
        """How many hosts of a group are on."""
        return self.alive[group]

    def choose_ready(self, uint32_t group):
        """A random host of the group that is on, ready and wants packets, or None."""
        cdef uint32_t tries, i
        for tries in range(64):
            i = below(&self.people, self.hosts) if self.hosts < 4096 else self.hosts - 1 - below(&self.people, 4096)
            if self.fit(i, group):
                return i
        for i in range(self.hosts):
            if self.fit(i, group):
                return i
        return None

    cdef bint fit(self, uint32_t i, uint32_t group) noexcept:
        return self.host[i].node != NULL and self.host[i].ready and self.host[i].group == group \
            and self.host[i].subscribed

    def partition(self, uint32_t share):
        """From now on millionths of the addresses cannot reach the others, nor be reached; 0: healed."""
        self.partition_share = share
        if share != 0:
            self.partition_salt = draw(&self.people)

    cdef bint side(self, uint32_t addr) noexcept nogil:
        return mix(self.partition_salt ^ addr) % 1000000 < self.partition_share

    # --- carrying datagrams -------------------------------------------------------------------------------------------------

    cdef void note(self, uint32_t kind, uint32_t index, uint64_t what) noexcept nogil:
        """Adds something that happened to the hash of the run."""
        self.f.trace = mix(self.f.trace ^ <uint64_t>self.f.now_us ^ (<uint64_t>kind << 56) ^ (<uint64_t>index << 32) ^ (what << 1))

    cdef void release(self, Payload *p) noexcept nogil:
        p.refs -= 1
        if p.refs == 0:
            free(p)

    cdef uint32_t new_flight(self) noexcept nogil:
        cdef uint32_t i, capacity
        cdef Flight *grown
        if self.flight_free != <uint32_t>NOBODY:
            i = self.flight_free
            self.flight_free = self.flight[i].to
            return i
        if self.flights == self.flight_capacity:
            capacity = 2 * self.flight_capacity + 1024
            grown = <Flight *>realloc(self.flight, sizeof(Flight) * <size_t>capacity)
            if grown == NULL:
                return NOBODY
            self.flight = grown
            self.flight_capacity = capacity
        self.flights += 1
        return self.flights - 1

    cdef int64_t path_us(self, uint32_t a, uint32_t b) noexcept nogil:
        """Base delay between two addresses, the same both ways."""
        cdef uint64_t low = a if a < b else b, high = b if a < b else a
        return quantile(self.latency, mix(self.seed ^ (high << 32 | low)))

    cdef bint is_close(self, uint32_t addr) noexcept nogil:
        cdef uint32_t place = (addr - FIRST_ADDR) >> 8
        return addr >= <uint32_t>FIRST_ADDR and place < self.addresses and not self.owner[place] & <uint32_t>IS_BOX \
            and self.host[self.owner[place]].close

    cdef void fly(self, Payload *p, uint32_t source, uint16_t source_port, uint32_t to, uint16_t to_port, int64_t leaves_us) noexcept nogil:
        cdef int64_t base = self.path_us(source, to), delay, jitter
        cdef uint32_t i = self.new_flight()
        cdef Flight *flight
        if i == <uint32_t>NOBODY:
            return
        if self.closes != 0 and (self.is_close(source) or self.is_close(to)):
            base = base // 16
        delay = base
        jitter = base * self.jitter // 1000
        if jitter > 0:
            delay += <int64_t>(draw(&self.f.links) % <uint64_t>(2 * jitter + 1)) - jitter
        if chance(&self.f.links, self.reorder):
            delay += <int64_t>(draw(&self.f.links) % <uint64_t>(base + 1))
        flight = &self.flight[i]
        flight.payload = p
        flight.source = source
        flight.source_port = source_port
        flight.to = to
        flight.to_port = to_port
        p.refs += 1
        if not queue_push(&self.f.queue, leaves_us + (delay if delay > 0 else 1), EVENT_DELIVER, i):
            p.refs -= 1

    cdef Message *message_in(self, const uint8_t *data, uint32_t size) noexcept nogil:
        """The published packet that a datagram holds, if it is one of ours."""
        cdef uint32_t number
        if self.mark_at == 0 or size < self.mark_at + MARK_BYTES + 4 or memcmp(data + self.mark_at, MARK, MARK_BYTES) != 0:
            return NULL
        memcpy(&number, data + self.mark_at + MARK_BYTES, 4)
        return &self.message[number] if number < self.messages else NULL

    cdef void send(self, uint32_t index, srp_datagram *d, Payload *p) noexcept nogil:
        """One datagram leaves a host: its link's pace, its NAT, chance."""
        cdef Host *h = &self.host[index]
        cdef Books *books = &self.books[h.group]
        cdef int64_t leaves_us = self.f.now_us
        cdef uint32_t source = h.addr
        cdef uint16_t port = <uint16_t>(PORT + d.socket), outside
        cdef Message *message
        books.sent += 1
        books.sent_bytes += d.len
        if d.len > 4 and d.data[4] == SRP_PUBLISH:
            books.packets_sent += 1
            books.packets_sent_bytes += d.len
            message = self.message_in(d.data, d.len)
            if message != NULL:
                message.sent += 1
                message.sent_early += self.f.now_us - message.at_us < 2000000
        if self.up_bytes_per_s != 0:
            if h.up_free_us > leaves_us:
                if h.up_free_us - leaves_us > self.up_queue_us:
                    self.f.overflowed += 1
                    return
                leaves_us = h.up_free_us
            leaves_us += <int64_t>((d.len + HEADER_BYTES) * <uint64_t>1000000 // self.up_bytes_per_s)
            h.up_free_us = leaves_us
        if h.box != <uint32_t>NOBODY:
            if d.addr == self.box[h.box].addr and not self.box[h.box].hairpin:
                self.f.unroutable += 1
                return
            if not nat_out(&self.f.nats, &self.box[h.box], h.box, index, port, d.addr, d.port, self.f.now_us, &outside):
                return
            source = self.box[h.box].addr
            port = outside
        if chance(&self.f.links, self.loss):
            self.f.lost += 1
            return
        if self.partition_share != 0 and self.side(source) != self.side(d.addr):
            self.f.cut += 1
            return
        self.fly(p, source, port, d.addr, d.port, leaves_us)
        if chance(&self.f.links, self.duplicate):
            self.f.duplicated += 1
            self.fly(p, source, port, d.addr, d.port, leaves_us)

    cdef void flush(self, uint32_t index, Node node) noexcept:
        """Sends what the core has queued."""
        cdef srp_datagram *item
        cdef uint32_t count = node.output(&item), i
        cdef const uint8_t *last = NULL
        cdef uint32_t last_len = 0
        cdef Payload *p = NULL
        cdef uint8_t kind
        for i in range(count):
            kind = item[i].data[4] if item[i].len > 4 else 0
            if self.host[index].silent and kind > SRP_PONG and not (kind == SRP_JOIN and item[i].data[14] <= 1):
                continue
            if item[i].data != last or item[i].len != last_len:
                if p != NULL:
                    self.release(p)
                p = <Payload *>malloc(sizeof(Payload) + item[i].len)
                if p == NULL:
                    break
                p.refs = 1
                p.len = item[i].len
                memcpy(<uint8_t *>p + sizeof(Payload), item[i].data, p.len)
                last = item[i].data
                last_len = p.len
            self.send(index, &item[i], p)
        if p != NULL:
            self.release(p)
        node.output_done()

    cdef uint64_t digest(self, const uint8_t *data, uint32_t size) noexcept nogil:
        cdef uint64_t h = size, word
        cdef uint32_t i = 0
        while i + 8 <= size:
            memcpy(&word, data + i, 8)
            h = (h ^ word) * <uint64_t>0x9e3779b97f4a7c15
            h ^= h >> 29
            i += 8
        while i < size:
            h = (h ^ data[i]) * <uint64_t>0x9e3779b97f4a7c15
            i += 1
        return h

    cdef void deliver(self, uint32_t number) noexcept:
        cdef Flight flight = self.flight[number]
        cdef Payload *p = flight.payload
        cdef uint32_t place = (flight.to - FIRST_ADDR) >> 8, index
        cdef uint16_t port = flight.to_port
        cdef srp_datagram d
        cdef Host *h
        cdef Node node
        cdef Message *message
        self.flight[number].to = self.flight_free
        self.flight_free = number
        if p.len > BUFFER or flight.to < <uint32_t>FIRST_ADDR or place >= self.addresses:
            self.f.unroutable += 1
            self.release(p)
            return
        index = self.owner[place]
        if index & <uint32_t>IS_BOX:
            index &= ~<uint32_t>IS_BOX
            if not nat_in(&self.f.nats, &self.box[index], index, port, flight.source, flight.source_port, self.f.now_us, &index, &port):
                self.release(p)
                return
        h = &self.host[index]
        if h.node == NULL or port < PORT or port >= PORT + SRP_SOCKET_POOL + POOL:
            self.f.unroutable += 1
            self.release(p)
            return
        node = <Node>h.node
        memcpy(self.buffer, <uint8_t *>p + sizeof(Payload), p.len)
        d.data = self.buffer
        d.len = p.len
        d.addr = flight.source
        d.port = flight.source_port
        d.local = h.addr
        d.socket = <uint16_t>(port - PORT)
        self.release(p)
        self.f.datagrams += 1
        self.note(EVENT_DELIVER, index, self.digest(self.buffer, d.len))
        self.books[h.group].received += 1
        self.books[h.group].received_bytes += d.len
        if d.len > 4 and self.buffer[4] == SRP_PUBLISH:
            self.books[h.group].packets_received += 1
            self.books[h.group].packets_received_bytes += d.len
            message = self.message_in(self.buffer, d.len)
            if message != NULL and h.subscribed:
                message.received += 1
        node.receive_batch(&d, 1, self.now())
        self.after(index, node)

    cdef void after(self, uint32_t index, Node node) noexcept:
        """What a driver does after every turn of a core: send, listen for the application, plan the next tick."""
        cdef Host *h = &self.host[index]
        cdef int64_t due
        if node.state.out_count != 0:
            self.flush(index, node)
        else:
            node.output_done()
        if node.app_waiting():
            self.hear(index, node)
        if node.wants_pool():
            node.pool_opened(POOL)
        due = node.due_us()
        if due <= self.f.now_us:
            due = self.f.now_us + 50
        if h.tick_us == 0 or due < h.tick_us:
            h.tick_us = due
            queue_push(&self.f.queue, due, EVENT_TICK, index)

    cdef void tick(self, uint32_t index, int64_t at_us) noexcept:
        cdef Host *h = &self.host[index]
        cdef Node node
        cdef int64_t due
        if h.node == NULL or h.tick_us != at_us:
            return
        node = <Node>h.node
        h.tick_us = 0
        due = node.due_us()
        if due > at_us:         # something earlier was planned and is not wanted any more
            h.tick_us = due
            queue_push(&self.f.queue, due, EVENT_TICK, index)
            return
        self.note(EVENT_TICK, index, 0)
        node.tick_at(self.now())
        self.after(index, node)

    # --- applications -------------------------------------------------------------------------------------------------------

    cdef void hear(self, uint32_t index, Node node) noexcept:
        """Reads what the core has for the application of a host."""
        cdef int64_t size, at = 0
        cdef uint32_t length
        cdef Message *message
        while True:
            size = node.command(COMMAND_APP, self.app_buffer, APP_BUFFER, self.now())
            if size <= 0:
                return
            at = 0
            while at + 3 <= size:
                length = <uint32_t>self.app_buffer[at] | <uint32_t>self.app_buffer[at + 1] << 8
                if self.app_buffer[at + 2] == APP_READY:
                    if not self.host[index].ready:
                        self.host[index].ready = 1
                        self.host[index].ready_us = self.f.now_us
                elif self.app_buffer[at + 2] == APP_PACKET:
                    message = self.message_in(self.app_buffer + at + 3, length - 1)
                    if message != NULL:
                        self.heard(message, index, self.app_buffer[at + 3 + SRP_HOPS_OFFSET + 3])
                at += 2 + length

    cdef void heard(self, Message *message, uint32_t index, uint8_t hops) noexcept:
        cdef uint32_t low = 0, high = message.wanted, middle
        while low < high:
            middle = (low + high) // 2
            if message.host[middle] < index:
                low = middle + 1
            else:
                high = middle
        if low == message.wanted or message.host[low] != index:
            message.late += 1
        elif message.delay_us[low] >= 0:
            message.again += 1
        else:
            message.delay_us[low] = self.f.now_us - message.at_us
            message.delivered += 1
            message.hops[hops if hops < 16 else 16] += 1

    def publish(self, uint32_t publisher, bytes cluster, bytes subcluster, uint32_t size):
        """Has a host publish a packet of so many bytes of message, wanted by all other subscribed hosts that are on or away.

        The packet's number, for reach().
        """
        cdef Host *h = &self.host[publisher]
        cdef Message *grown
        cdef Message *m
        cdef uint32_t i, n = 0
        cdef Node node
        cdef bytes datagram
        cdef int result
        if h.node == NULL or not 16 <= size <= 1024:
            raise ValueError("the publisher is off, or the size is not 16 to 1024")
        if self.messages == self.message_capacity:
            self.message_capacity = 2 * self.message_capacity + 64
            grown = <Message *>realloc(self.message, sizeof(Message) * <size_t>self.message_capacity)
            if grown == NULL:
                raise MemoryError
            self.message = grown
        text = (MARK[:MARK_BYTES] + self.messages.to_bytes(4, "little")).ljust(size, b".")
        datagram = codec.encode(codec.PUBLISH, cluster_id=cluster, subcluster_id=subcluster, packet_id=codec.sha256(text),
                                message=text)
        self.mark_at = <uint32_t>datagram.index(text)
        m = &self.message[self.messages]
        memset(m, 0, sizeof(Message))
        for i in range(self.hosts):
            n += i != publisher and self.host[i].subscribed and (self.host[i].node != NULL or self.host[i].away)
        m.host = <uint32_t *>malloc(sizeof(uint32_t) * <size_t>(n + 1))
        m.delay_us = <int64_t *>malloc(sizeof(int64_t) * <size_t>(n + 1))
        m.ready_us = <int64_t *>malloc(sizeof(int64_t) * <size_t>(n + 1))
        if m.host == NULL or m.delay_us == NULL or m.ready_us == NULL:
            raise MemoryError
        for i in range(self.hosts):
            if i != publisher and self.host[i].subscribed and (self.host[i].node != NULL or self.host[i].away):
                m.host[m.wanted] = i
                m.delay_us[m.wanted] = -1
                m.ready_us[m.wanted] = self.f.now_us - self.host[i].ready_us if self.host[i].ready else -1
                m.wanted += 1
        m.at_us = self.f.now_us
        m.publisher = publisher
        m.bytes = <uint32_t>len(datagram)
        self.messages += 1
        node = <Node>h.node
        memcpy(self.buffer, <char *>datagram, len(datagram))
        self.note(EVENT_CALL, publisher, 3)
        result = node.command(COMMAND_PUBLISH, self.buffer, len(datagram), self.now())
        if result < 0:
            raise ValueError(f"the core refused the packet: {result}")
        self.after(publisher, node)
        return self.messages - 1

    def shout(self, uint32_t publisher, bytes datagram):
        """Has a host publish any datagram, which nobody is counted to want."""
        cdef Node node
        if self.host[publisher].node == NULL or len(datagram) > BUFFER:
            return
        node = <Node>self.host[publisher].node
        memcpy(self.buffer, <char *>datagram, len(datagram))
        node.command(COMMAND_PUBLISH, self.buffer, len(datagram), self.now())
        self.after(publisher, node)

    # --- running --------------------------------------------------------------------------------------------------------------

    def run(self, int64_t until_us):
        """Lets everything happen that happens before that virtual time. Passes on KeyboardInterrupt: the world stays whole."""
        cdef Event event
        cdef int64_t end = until_us + START_US
        cdef uint32_t signals = 0
        while self.f.queue.count != 0 and self.f.queue.heap[0].at_us < end:
            queue_pop(&self.f.queue, &event)
            self.f.now_us = event.at_us
            self.f.events += 1
            if event.kind == EVENT_DELIVER:
                self.deliver(event.index)
            elif event.kind == EVENT_TICK:
                self.tick(event.index, event.at_us)
            else:
                function = self.calls[event.index]
                self.calls[event.index] = None
                function()
            signals += 1
            if signals == SIGNALS_EVERY:
                signals = 0
                PyErr_CheckSignals()
        if self.f.now_us < end:
            self.f.now_us = end

    # --- books ----------------------------------------------------------------------------------------------------------------

    def reach(self, uint32_t number):
        """What became of a packet: its figures, and three arrays over those who wanted it: delay, time since ready (at
        publication), time until they went off after the publication; microseconds, -1 for never."""
        cdef Message *m
        cdef uint32_t i
        cdef int64_t left
        if number >= self.messages:
            raise IndexError(number)
        m = &self.message[number]
        delay = array("q", bytes(8 * m.wanted))
        ready = array("q", bytes(8 * m.wanted))
        gone = array("q", bytes(8 * m.wanted))
        cdef int64_t[:] delays = delay
        cdef int64_t[:] readies = ready
        cdef int64_t[:] gones = gone
        for i in range(m.wanted):
            delays[i] = m.delay_us[i]
            readies[i] = m.ready_us[i]
            left = self.host[m.host[i]].stopped_us
            gones[i] = left - m.at_us if left >= m.at_us else -1
        return {
            "at_us": m.at_us - START_US, "bytes": m.bytes, "wanted": m.wanted, "delivered": m.delivered, "sent": m.sent, "sent_early": m.sent_early,
            "received": m.received, "late": m.late, "again": m.again, "hops": list(m.hops), "delay": delay, "ready": ready,
            "gone": gone,
        }

    def published_at(self, uint32_t number):
        """Virtual microseconds of a packet's publication."""
        if number >= self.messages:
            raise IndexError(number)
        return self.message[number].at_us - START_US

    def delay_of(self, uint32_t number, uint32_t host):
        """Microseconds until a host got a packet; -1: it has not; None: it was not among those who wanted it."""
        cdef Message *m = &self.message[number]
        cdef uint32_t i
        for i in range(m.wanted):
            if m.host[i] == host:
                return m.delay_us[i]
        return None

    def figures(self):
        """Counts of the whole network."""
        return {
            "virtual_us": self.now_us, "events": self.f.events, "datagrams": self.f.datagrams, "trace": f"{self.f.trace:016x}",
            "lost": self.f.lost, "duplicated": self.f.duplicated, "overflowed": self.f.overflowed,
            "unroutable": self.f.unroutable, "cut": self.f.cut, "nat_filtered": self.f.nats.filtered,
            "nat_exhausted": self.f.nats.exhausted, "hosts": self.hosts, "packets": self.messages,
        }

    def traffic(self, uint32_t group):
        """The books of a group of hosts: datagrams and bytes of UDP payload, and seconds that they were on together."""
        cdef Books b = self.books[group]
        cdef int64_t online = b.online_us
        cdef uint32_t i
        for i in range(self.hosts):
            if self.host[i].node != NULL and self.host[i].group == group:
                online += self.f.now_us - self.host[i].started_us
        return {
            "sent": b.sent, "sent_bytes": b.sent_bytes, "received": b.received, "received_bytes": b.received_bytes,
            "packets_sent": b.packets_sent, "packets_sent_bytes": b.packets_sent_bytes,
            "packets_received": b.packets_received, "packets_received_bytes": b.packets_received_bytes,
            "online_s": online / 1e6,
        }

    def node(self, uint32_t host):
        """The core of a host that is on, to look at; or None."""
        return self.nodes[host]
