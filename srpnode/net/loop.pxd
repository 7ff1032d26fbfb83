from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.node cimport Node
from srpnode.core.types cimport srp_datagram, srp_now
from srpnode.net.mailbox cimport srp_command, srp_mailbox
from srpnode.net.udp cimport srp_udp_receiver, srp_udp_sender

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data

cdef enum:
    SOCKETS = 258          # main, probe, 256 of the pool
    EVENTS = 64            # of one epoll call
    COUNTS = 64            # room for the counters of udp.h
    HISTOGRAM = 24         # handling times: below 1, 2, 4 … us; the last holds the rest
    HEARTBEAT_BYTES = 48   # SRP magic, type 0 (which no packet has), cookie of 16 bytes, time sent; filter.pyx wants 45 at least

cdef enum:
    OWN_ROUNDS             # turns of the loop
    OWN_BATCHES            # batches handed to the core
    OWN_HANDLING_US        # time between a batch's arrival and the departure of what came of it
    OWN_TICKS
    OWN_COMMANDS
    OWN_NAPS               # short sleeps while datagrams came that nobody waits for (see _nap)
    OWN_JAMS               # times that output was given up because a socket took nothing
    OWN_POOL_OPEN          # pool sockets that are open now
    OWN_POOL_OPENED
    OWN_POOL_NO_DESCRIPTORS
    OWN_POOL_ERRORS
    OWN_HEARTBEATS         # datagrams of the loop's own that came back
    OWN_HEARTBEAT_US       # monotonic time of the last one
    OWN_HEARTBEAT_ROUND_US # how long it was under way
    OWN_COUNT

cdef class Loop:
    cdef readonly Node node
    cdef object _sockets           # index -> socket object, kept so that the descriptors stay open
    cdef object _thread
    cdef object _lock              # one poster at a time …
    cdef object _beat_lock         # … and one heartbeat under way
    cdef object _outstanding       # commands whose poster did not wait to the end
    cdef object _calls             # keeps an injected table of system calls
    cdef readonly str failure      # why the loop ended by itself, "" otherwise
    cdef uint64_t _closed_drops    # kernel drops of sockets that were replaced

    cdef srp_mailbox *mailbox
    cdef srp_udp_receiver *receiver
    cdef srp_udp_sender *sender
    cdef srp_datagram *batch
    cdef uint8_t *data
    cdef uint32_t batch_size       # datagrams that the core is handed at once
    cdef uint32_t pool_size
    cdef bint gro, fine_wait, running, pause
    cdef int epoll, error
    cdef int notify_fd             # of the application, -1: none
    cdef bint notified             # since its last command
    cdef int fds[SOCKETS]
    cdef uint32_t bound[SOCKETS]   # addresses, 0: any
    cdef uint32_t local[SOCKETS]   # the same, but the machine's address when it has only one
    cdef uint32_t only             # that one, 0: several, or not known
    cdef uint8_t df[SOCKETS]       # the sender's
    cdef uint32_t drops[SOCKETS]   # of the kernel, when they were counted last …
    cdef int64_t drops_us          # … and when they will be again
    cdef int64_t look_us           # when the receive buffer of the main socket may be looked at again
    cdef epoll_event events[EVENTS]
    cdef bint more                 # the main socket was not empty when it was read last …
    cdef unsigned int busy         # … nor so many times before
    cdef bint unwatched            # so the epoll has let go of it
    cdef unsigned int unlooked     # turns since the others were looked at
    cdef uint32_t spoken           # datagrams of output that the last batch led to
    cdef uint32_t silent           # how far those prevail that led to none
    cdef int64_t silent_us         # when the last one came that did not; 0: the last one did
    cdef int64_t window_us         # since when …
    cdef int64_t rested_us         # … the loop waited and napped so long
    cdef bint late                 # … and a nap ended late
    cdef uint16_t main_port
    cdef srp_now now
    cdef int64_t due_us            # monotonic time of the next tick

    cdef uint32_t flushed, pending # items of the core's output: sent so far, and being sent
    cdef int blocked               # SRP_UDP_BLOCKED or SRP_UDP_STALLED while output waits
    cdef int64_t blocked_us        # since when, without progress
    cdef int64_t jam_us            # how long that may last now …
    cdef int64_t jam_limit_us      # … and from the start
    cdef uint64_t progress         # OUT_CALLS when blocked_us was set

    cdef uint8_t heartbeat[HEARTBEAT_BYTES]
    cdef bint heartbeat_known      # there was one before
    cdef srp_command *heartbeat_command # who waits for one to come back …
    cdef int64_t heartbeat_again_us, heartbeat_end_us # … when the next leaves, when the wait ends
    cdef int32_t heartbeat_error   # of the last one sent

    cdef uint64_t udp[COUNTS]
    cdef uint64_t own[OWN_COUNT]
    cdef uint64_t histogram[HISTOGRAM]

    cdef void _serve(self) noexcept nogil
    cdef int _wait(self, int64_t timeout_us) noexcept nogil
    cdef int _rest(self, int64_t timeout_us) noexcept nogil
    cdef void _receive_ready(self, int ready) noexcept nogil
    cdef void _note_main(self, int got) noexcept nogil
    cdef int32_t _watch(self, uint32_t socket, int fd) noexcept nogil
    cdef void _nap(self, uint32_t got) noexcept nogil
    cdef void _count_kernel_drops(self) noexcept nogil
    cdef bint _short_of_time(self) noexcept nogil
    cdef void _count_drops(self, uint32_t index) noexcept nogil
    cdef void _note_due(self) noexcept nogil
    cdef int64_t _timeout_us(self) noexcept nogil
    cdef void _read_clock(self) noexcept nogil
    cdef bint _receive(self, uint32_t socket) noexcept nogil
    cdef bint _hand_over(self) noexcept nogil
    cdef bint _flush(self) noexcept nogil
    cdef void _block(self, int state) noexcept nogil
    cdef void _wait_writable(self) noexcept nogil
    cdef void _resume(self) noexcept nogil
    cdef void _tick(self) noexcept nogil
    cdef void _serve_peer(self) noexcept nogil
    cdef void _count_time(self, int64_t us) noexcept nogil
    cdef uint32_t _without_heartbeats(self, uint32_t count) noexcept nogil
    cdef void _serve_mailbox(self) noexcept nogil
    cdef bint _obey(self, srp_command *command) noexcept nogil
    cdef void _start_heartbeat(self, srp_command *command) noexcept nogil
    cdef void _send_heartbeat(self) noexcept nogil
    cdef void _end_heartbeat(self, int32_t result) noexcept nogil
    cdef int32_t _take_in(self, uint32_t index, int fd) noexcept nogil
    cdef int32_t _open_pool(self) noexcept nogil
    cdef int32_t _close_pool(self) noexcept nogil
    cdef int32_t _replace(self, uint32_t socket, int fd) noexcept nogil
    cdef int32_t _set_local(self, uint32_t socket, int fd, uint32_t bound) noexcept nogil
    cdef int32_t _only_address(self, uint32_t address) noexcept nogil
    cdef void _end(self) noexcept nogil
    cdef object _post(self, uint32_t kind, bytes data, uint64_t size, double timeout_s)
