from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.state cimport Event, State
from srpnode.core.types cimport srp_datagram, srp_now

# Commands that a driver passes from another thread to the core, and the layout of their data.
cdef enum:
    COMMAND_PEERS = 100         # PeersQuestion: a slice of the peer table; result 1: ask again, 0: that was the end
    COMMAND_LIMITS = 101        # Limits
    COMMAND_ADDRESS = 102       # uint32_t: the advertised address
    COMMAND_RULES = 103         # Rules
    COMMAND_EVENTS = 104        # EventsQuestion: what happened since the last time; result: how many
    COMMAND_GAUGES = 105        # Gauges
    # For applications. Results: 0 or how many peers a packet went to, negative: an errno
    COMMAND_JOIN = 106          # 64 bytes: cluster, subcluster
    COMMAND_LEAVE = 107         # likewise
    COMMAND_PUBLISH = 108       # a datagram, as all that follow; its hops are patched
    COMMAND_STREAM = 109
    COMMAND_QUERY = 110
    COMMAND_REFLECT = 111       # discover the NAT again
    COMMAND_APP = 112           # room for records of the application's ring; result: bytes filled
    COMMAND_GREET = 113         # Greeting: pings an endpoint known from before a restart
    PEERS_AT_ONCE = 64
    SCAN_AT_ONCE = 1024

ctypedef struct PeerView:
    uint8_t id[32]
    uint8_t cluster[4][8]       # first bytes of its newest memberships
    uint32_t addr
    uint32_t distance_ms        # 0xffffffff unknown
    uint32_t age_ms             # since its last datagram
    uint32_t uptime_s
    uint32_t clusters
    uint16_t port
    uint8_t nat_type
    uint8_t named
    uint8_t proven
    uint8_t connected
    uint8_t indexed

ctypedef struct PeersQuestion:
    uint32_t next               # 0 at first
    uint32_t count
    uint32_t scanned
    PeerView peer[64]

ctypedef struct Rules:
    uint32_t count
    uint32_t default_allow
    uint32_t clusters
    uint32_t clusters_allow
    uint32_t addr[256]
    uint32_t mask[256]
    uint8_t allow[256]
    uint8_t cluster[256][32]

ctypedef struct Greeting:
    uint32_t addr
    uint16_t port

ctypedef struct EventsQuestion:
    uint32_t count
    Event event[256]

ctypedef struct Gauges:
    uint64_t peers
    uint64_t connected
    uint64_t indexed
    uint64_t clusters
    uint64_t memberships
    uint64_t cache_packets
    uint64_t cache_bytes
    uint64_t cache_max_bytes
    uint64_t sync_jobs
    uint64_t strangers_per_second   # that are answered now, 0: any number
    uint8_t summary[20]

cdef class Node:
    cdef State *state
    cdef readonly uint64_t table_bytes  # of all tables
    cdef dict settings
    cdef bytearray scratch

    cdef void receive_batch(self, srp_datagram *batch, uint32_t count, srp_now now) noexcept nogil
    cdef void tick_at(self, srp_now now) noexcept nogil
    cdef void pressed_at(self, srp_now now) noexcept nogil
    cdef int64_t due_us(self) noexcept nogil
    cdef uint32_t output(self, srp_datagram **items) noexcept nogil
    cdef void output_done(self) noexcept nogil
    cdef bint wants_pool(self) noexcept nogil
    cdef void pool_opened(self, uint32_t sockets) noexcept nogil
    cdef bint app_waiting(self) noexcept nogil
    cdef int32_t command(self, uint32_t kind, void *data, uint64_t size, srp_now now) noexcept nogil
