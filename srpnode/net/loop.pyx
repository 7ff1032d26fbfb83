"""One identity at work: its sockets, its core and one thread that carries datagrams between them without the GIL.

A turn of the loop: wait until a socket is readable, a command was posted or the core wants to be ticked; receive one
batch from each readable socket, hand it to the core whole, send what comes of it; serve commands; tick.

Sockets are watched level-triggered and give one batch a turn. As long as the main socket brings something it is read
without asking first, and the others are looked at every few turns, so a busy one cannot starve them. After some such turns
the epoll lets go of the main socket until the loop is about to sleep again: a watched socket wakes the epoll for every
datagram that arrives and for every one that has left, also while nobody waits, and that is a twelfth of an echo's time.

When a socket takes no more output the loop stops receiving (datagrams wait in the kernel's buffer) and waits for that
socket and for commands only. Output that nobody takes for jam_ms is given up and counted, so a dead link does not stop
the node.

Nothing in `_serve` and below it touches a Python object, allocates or takes a lock. Python talks to it by commands
(cext/mailbox.h) and reads counters that only the loop writes.
"""

import errno
import os
import struct
import threading
import time

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.errno cimport EACCES, EINTR, EINVAL, EMFILE, ENFILE, ENOSYS, EPERM
from libc.errno cimport errno as c_errno
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close, usleep, write

from srpnode.core.node cimport Node
from srpnode.core.types cimport SRP_SOCKET_MAIN, SRP_SOCKET_POOL, SRP_SOCKET_PROBE, srp_datagram
from srpnode.net.mailbox cimport (
    SRP_COMMAND_CLOSE_POOL,
    SRP_COMMAND_CORE,
    SRP_COMMAND_HEARTBEAT,
    SRP_COMMAND_LOCAL,
    SRP_COMMAND_OPEN_POOL,
    SRP_COMMAND_REPLACE,
    srp_command,
    srp_command_done,
    srp_command_finish,
    srp_command_wait,
    srp_mailbox,
    srp_mailbox_awake,
    srp_mailbox_post,
    srp_mailbox_stop,
    srp_mailbox_stopped,
    srp_mailbox_take,
)
from srpnode.net.udp cimport (
    SRP_UDP_BATCH,
    SRP_UDP_BLOCKED,
    SRP_UDP_COUNT,
    SRP_UDP_DONE,
    SRP_UDP_IN_DATAGRAMS,
    SRP_UDP_IN_KERNEL_DROPS,
    SRP_UDP_OUT_CALLS,
    SRP_UDP_STRIDE,
    SRP_UDP_STRIDE_GRO,
    srp_udp_calls,
    srp_udp_can_segment,
    srp_udp_count_name,
    srp_udp_drops,
    srp_udp_filtered,
    srp_udp_give_up,
    srp_udp_kernel,
    srp_udp_look,
    srp_udp_name,
    srp_udp_open,
    srp_udp_prepare,
    srp_udp_receive,
    srp_udp_receiver,
    srp_udp_receiver_init,
    srp_udp_send,
    srp_udp_send_one,
    srp_udp_sender,
    srp_udp_sender_init,
    srp_udp_set_gro,
    srp_udp_set_pktinfo,
    srp_udp_take,
)

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)
    int epoll_pwait2(int epfd, epoll_event *events, int maxevents, const timespec *timeout, const void *sigmask)

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int initial, int flags)

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
        POLLOUT
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout)

cdef extern from "<sys/prctl.h>" nogil:
    enum:
        PR_SET_TIMERSLACK
    int prctl(int option, unsigned long argument)

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_setname_np(pthread_t thread, const char *name)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_BLOCK
    int sigfillset(sigset_t *signals)
    int pthread_sigmask(int how, const sigset_t *signals, sigset_t *before)

cdef enum:
    WAKE = 0xffffffff               # epoll's name for the eventfd
    ALIGNMENT = 64
    POOL_RECEIVE_BYTES = 65536      # of each pool socket
    POOL_SEND_BYTES = 65536
    LONGEST_WAIT_US = 60000000
    JAM_AGAIN_US = 20000            # patience with a jammed socket until it takes something again
    BLOCKED_POLL_MS = 20            # the kernel calls a socket writable at half its buffer only: try before that
    STALLED_POLL_MS = 1
    DRAIN_BATCHES = 64              # of a socket that is being replaced
    LOOK_TURNS = 8                  # a busy main socket keeps the others waiting so many batches at most
    BUSY_TURNS = 16                 # batches of it one after the other before the epoll lets go of it
    UNWATCHED_US = 1000             # longest sleep when the epoll does not take it back
    NAP_US = 250
    SPOKEN_WEIGHT = 2               # one datagram of output weighs as much as so many without: the balance …
    SILENT_NAP = 32                 # … from which naps are worth it …
    SILENT_MOST = 128               # … and what it is at most
    DENSE_US = 200                  # silent batches that come closer than this are worth a nap
    TIMER_SLACK_NS = 10000          # the kernel's 50 us would make naps half as long again
    DROPS_EVERY_US = 1000000
    LOOK_EVERY_US = 5000            # at the receive buffer of the main socket, while it brings something
    WINDOW_US = 250000              # in which work is weighed against rest
    LATE_US = 1500                  # a nap that lasted longer ended late
    HEARTBEAT_AGAIN_US = 10000
    END_POLLS = 10                  # waits for blocked output when the loop ends

cdef int ESHUTDOWN = errno.ESHUTDOWN
cdef int ECANCELED = errno.ECANCELED
cdef int ETIMEDOUT = errno.ETIMEDOUT

OWN_NAMES = (
    "rounds",
    "batches",
    "handling_us",
    "ticks",
    "commands",
    "naps",
    "jams",
    "pool_open",
    "pool_opened",
    "pool_no_descriptors",
    "pool_errors",
    "heartbeats",
    "heartbeat_us",
    "heartbeat_round_us",
)
assert len(OWN_NAMES) == OWN_COUNT
assert <int>SRP_UDP_COUNT <= <int>COUNTS

CORE_COMMAND = SRP_COMMAND_CORE


def prepare(int fd, int receive_bytes, int send_bytes):
    """Sets on a UDP socket what the loop relies on: own address and kernel drops with each datagram, no DF, buffers.

    Buffers in bytes of payload and overhead, as near as the system allows. Raises OSError.
    """
    cdef int error = srp_udp_prepare(fd, receive_bytes, send_bytes)
    if error < 0:
        raise OSError(-error, os.strerror(-error))


cdef void *aligned(size_t size) except NULL:
    cdef void *memory = aligned_alloc(ALIGNMENT, (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)
    if memory == NULL:
        raise MemoryError
    memset(memory, 0, size)
    return memory


cdef class Command:
    """A posted command with its memory, which must outlive a poster that stopped waiting."""

    cdef srp_command command
    cdef uint8_t *memory

    def __dealloc__(self):
        free(self.memory)


cdef class Loop:
    """Drives one Node over its sockets.

    main, probe   bound UDP sockets prepared by srpnode.net.sockets; the loop keeps a reference, it never closes them
    batch         messages received by one system call and handed to the core at once, 1 … 256; of trains up to four times as many datagrams
    gro, gso      use UDP_GRO and UDP_SEGMENT where the kernel has them
    pool_size     sockets that open_pool() binds, 0 … 256
    jam_ms        how long output waits for a socket that takes nothing before it is given up; milliseconds
    notify_fd     an eventfd of the caller's: written once when there is something for its application (node.app_waiting), and
                  again after its next command
    calls         capsule "srp_udp_calls" (cext/udp.h): system calls to use instead of the kernel's, for fault injection
    """

    def __cinit__(
        self,
        Node node not None,
        main,
        probe=None,
        *,
        unsigned int batch=64,
        bint gro=True,
        bint gso=True,
        unsigned int pool_size=256,
        unsigned int jam_ms=500,
        int notify_fd=-1,
        calls=None,
    ):
        cdef int i
        cdef const srp_udp_calls *table = &srp_udp_kernel
        self.epoll = -1
        for i in range(SOCKETS):
            self.fds[i] = -1
        if not 1 <= batch <= SRP_UDP_BATCH:
            raise ValueError(f"batch must be 1 to {SRP_UDP_BATCH}, not {batch}")
        if pool_size > SOCKETS - SRP_SOCKET_POOL:
            raise ValueError(f"pool_size must be at most {SOCKETS - SRP_SOCKET_POOL}, not {pool_size}")
        if calls is not None:
            table = <const srp_udp_calls *>PyCapsule_GetPointer(calls, "srp_udp_calls")
        self.node = node
        self.failure = ""
        self._calls = calls
        self._sockets = {}
        self._thread = None
        self._lock = threading.Lock()
        self._beat_lock = threading.Lock()
        self._outstanding = []
        self.batch_size = min(4 * batch, <unsigned int>SRP_UDP_BATCH)  # trains leave longer that way than they came
        self.pool_size = pool_size
        self.notify_fd = notify_fd
        self.fine_wait = True
        self.jam_us = self.jam_limit_us = <int64_t>jam_ms * 1000
        self.due_us = INT64_MAX

        self.mailbox = <srp_mailbox *>aligned(sizeof(srp_mailbox))
        self.mailbox.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.mailbox.wake_fd < 0:
            raise OSError(c_errno, "eventfd")
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0 or self._watch(WAKE, self.mailbox.wake_fd) < 0:
            raise OSError(c_errno, "epoll")

        self.gro = gro and srp_udp_set_gro(main.fileno(), True) == 0  # Linux 5.0
        self._adopt(SRP_SOCKET_MAIN, main)
        if probe is not None:
            self._adopt(SRP_SOCKET_PROBE, probe)

        self.receiver = <srp_udp_receiver *>aligned(sizeof(srp_udp_receiver))
        self.receiver.calls = table
        self.receiver.count = self.udp
        self.receiver.local = self.local
        self.receiver.stride = SRP_UDP_STRIDE_GRO if self.gro else SRP_UDP_STRIDE
        self.receiver.batch = batch
        self.data = <uint8_t *>calloc(batch, self.receiver.stride)
        self.batch = <srp_datagram *>calloc(self.batch_size, sizeof(srp_datagram))
        if self.data == NULL or self.batch == NULL:
            raise MemoryError
        self.receiver.data = self.data
        srp_udp_receiver_init(self.receiver)

        self.sender = <srp_udp_sender *>aligned(sizeof(srp_udp_sender))
        self.sender.calls = table
        self.sender.count = self.udp
        self.sender.fds = self.fds
        self.sender.local = self.local
        self.sender.df = self.df
        self.sender.small_df = True
        self.sender.sockets = SOCKETS
        self.sender.trains = gso and srp_udp_can_segment(self.fds[SRP_SOCKET_MAIN])
        srp_udp_sender_init(self.sender)

    def __dealloc__(self):
        cdef int i
        for i in range(SRP_SOCKET_POOL, SOCKETS):
            if self.fds[i] >= 0:
                close(self.fds[i])
        if self.epoll >= 0:
            close(self.epoll)
        if self.mailbox != NULL and self.mailbox.wake_fd >= 0:
            close(self.mailbox.wake_fd)
        free(self.mailbox)
        free(self.receiver)
        free(self.sender)
        free(self.data)
        free(self.batch)

    def _adopt(self, uint32_t index, sock):
        """Takes a socket in before the thread runs."""
        cdef int fd = sock.fileno()
        cdef int error = self._take_in(index, fd)
        if error < 0:
            raise OSError(-error, os.strerror(-error))
        self._sockets[index] = sock

    cdef int32_t _take_in(self, uint32_t index, int fd) noexcept nogil:
        """Makes a socket the one of this index; on error (an errno, negative) nothing has changed."""
        cdef uint32_t addr = 0
        cdef uint16_t port = 0
        cdef int error = srp_udp_name(fd, &addr, &port)
        if error < 0:
            return error
        error = srp_udp_set_gro(fd, self.gro)
        if error < 0 and self.gro:
            return error
        error = self._set_local(index, fd, addr)
        if error == 0:
            error = self._watch(index, fd)
        if error < 0:
            return error
        if index == SRP_SOCKET_MAIN:
            self.main_port = port
            self.unwatched = False
        self.df[index] = False
        self.drops[index] = srp_udp_drops(fd)
        self.fds[index] = fd
        return 0

    # ---- from Python ----

    def start(self, str name="loop"):
        """Runs the loop in a thread of this name until stop(). A loop starts once."""
        if self._thread is not None:
            raise RuntimeError("the loop was started before")
        self._thread = threading.Thread(target=self.run, args=(name,), name=name, daemon=True)
        self.running = True
        self._thread.start()

    def run(self, str name="loop"):
        """The loop itself, in the calling thread; start() is the usual way in. All signals go to other threads."""
        cdef sigset_t signals
        cdef bytes short_name = name.encode()[:15]
        self.running = True
        pthread_setname_np(pthread_self(), short_name)
        prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS)
        sigfillset(&signals)
        pthread_sigmask(SIG_BLOCK, &signals, NULL)
        with nogil:
            self._serve()
        if self.error:
            self.failure = os.strerror(self.error)
        self.running = False

    def stop(self, double timeout_s=1.0):
        """Sends what is queued, ends the thread, leaves received datagrams in the sockets; False when it did not end in time."""
        if self.running:
            srp_mailbox_stop(self.mailbox)
        return self.join(timeout_s)

    def join(self, timeout_s=None):
        """Waits until the thread has ended; False when it has not within timeout_s seconds."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.alive()

    def alive(self):
        """Whether the thread runs. A loop that ended by itself says why in `failure`."""
        return self._thread is not None and self._thread.is_alive()

    def command(self, unsigned int kind, bytes data=b"", unsigned long long size=0, double timeout_s=1.0):
        """Has the core obey a command (kind >= CORE_COMMAND) between two batches.

        The core sees max(len(data), size) bytes that begin with data and may write its answer there. Returns its result and
        these bytes. Raises TimeoutError when the loop does not come to it in timeout_s seconds (it may still obey later),
        RuntimeError when the loop does not run or 64 commands wait already.
        """
        if kind < SRP_COMMAND_CORE:
            raise ValueError(f"kinds below {SRP_COMMAND_CORE} are the loop's own")
        return self._post(kind, data, size, timeout_s)

    def open_pool(self, double timeout_s=1.0):
        """Binds the sockets of the hard-NAT pool to ports that the system chooses; how many are open now.

        Fewer than pool_size when the descriptors run out (counted: pool_no_descriptors, pool_errors).
        """
        return self._post(SRP_COMMAND_OPEN_POOL, b"", 0, timeout_s)[0]

    def close_pool(self, double timeout_s=1.0):
        """Closes them again; how many were open."""
        return self._post(SRP_COMMAND_CLOSE_POOL, b"", 0, timeout_s)[0]

    def replace(self, unsigned int index, sock, double timeout_s=1.0):
        """Puts another prepared socket in the place of main (0) or probe (1) and returns the old one, after what waits in it was handled."""
        cdef int32_t question[2]
        if index >= SRP_SOCKET_POOL:
            raise ValueError("only main (0) and probe (1) can be replaced")
        question[0] = <int32_t>index
        question[1] = sock.fileno()
        result = self._post(SRP_COMMAND_REPLACE, (<char *>question)[: sizeof(question)], 0, timeout_s)[0]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        old = self._sockets.get(index)
        self._sockets[index] = sock
        if old is not None:
            self._closed_drops += srp_udp_drops(old.fileno())
        return old

    def only_address(self, uint32_t address, double timeout_s=1.0):
        """Tells the loop that this is the only IPv4 address of the machine besides 127.0.0.1; 0: there are several, or nobody knows.

        Sockets bound to any address then need not ask the kernel for the own address of each datagram.
        """
        result = self._post(SRP_COMMAND_LOCAL, (<char *>&address)[: sizeof(address)], 0, timeout_s)[0]
        if result < 0:
            raise OSError(-result, os.strerror(-result))

    def beat(self, double timeout_s=1.0):
        """Sends datagrams from the main socket to its own address until the loop has handled one; microseconds under way.

        One is sent every 10 ms, since in a flood most of them are lost like everybody's. They count as sent and received; the
        core never sees them. Raises TimeoutError when none comes back, another OSError when none could leave (EAGAIN: the
        send buffer is full, but the loop runs).
        """
        question = os.urandom(16) + struct.pack("=q", int(timeout_s * 1e6))
        with self._beat_lock:
            result = self._post(SRP_COMMAND_HEARTBEAT, question, 0, timeout_s + 0.1)[0]
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def serves(self, double timeout_s=1.0):
        """Whether the loop handles datagrams: what a watchdog should ask.

        True when its own one came back (see beat). In a flood or behind a jammed link that may take longer than anybody
        should wait; then true when others were handled meanwhile, or when it could not leave for a full send buffer.
        """
        cdef uint64_t before = self.udp[SRP_UDP_IN_DATAGRAMS]
        try:
            self.beat(timeout_s)
        except BlockingIOError:
            return True
        except (OSError, RuntimeError):
            return self.alive() and self.udp[SRP_UDP_IN_DATAGRAMS] != before
        return True

    cdef object _post(self, uint32_t kind, bytes data, uint64_t size, double timeout_s):
        cdef Command posted = Command.__new__(Command)
        cdef srp_command *command = &posted.command
        cdef int64_t left_us
        cdef int error
        cdef bint done = False
        size = max(size, <uint64_t>len(data))
        posted.memory = <uint8_t *>calloc(size + 1, 1)
        if posted.memory == NULL:
            raise MemoryError
        memcpy(posted.memory, <const char *>data, len(data))
        command.kind = kind
        command.data = posted.memory
        command.size = size
        with self._lock:
            if not self.running:
                raise RuntimeError("the loop does not run")
            self._outstanding = [other for other in self._outstanding if not is_done(other)]
            error = srp_mailbox_post(self.mailbox, command)
            if error < 0:
                raise RuntimeError("too many commands wait for the loop")
            self._outstanding.append(posted)
        deadline = time.monotonic() + timeout_s
        while not done:
            left_us = <int64_t>((deadline - time.monotonic()) * 1000000)
            if left_us <= 0:
                raise TimeoutError(f"no answer to command {kind} in {timeout_s} s")
            with nogil:
                done = srp_command_wait(command, min(left_us, <int64_t>100000))
            PyErr_CheckSignals()
            if not done and not self.running:
                done = srp_command_done(command)
                if not done:
                    raise RuntimeError("the loop ended")
        if command.result == -ESHUTDOWN:
            raise RuntimeError("the loop ended")
        return command.result, posted.memory[:size]

    def counters(self):
        """What happened so far, by name; cext/udp.h and loop.pxd say what each means.

        `in_kernel_drops_now` is what the kernel has dropped before main and probe were read, up to this moment;
        `in_kernel_drops` lags behind it but covers the pool too.
        """
        cdef int i
        cdef dict counters = {}
        for i in range(SRP_UDP_COUNT):
            counters[(<bytes>srp_udp_count_name(i)).decode()] = self.udp[i]
        for i in range(OWN_COUNT):
            counters[OWN_NAMES[i]] = self.own[i]
        drops = self._closed_drops
        for sock in self._sockets.values():
            if sock.fileno() >= 0:
                drops += srp_udp_drops(sock.fileno())
        counters["in_kernel_drops_now"] = drops
        return counters

    def handling_times(self):
        """How long batches took from their arrival to the departure of what came of them: [(below_us, batches)], the last unbounded."""
        cdef int i
        return [(1 << i if i < HISTOGRAM - 1 else None, self.histogram[i]) for i in range(HISTOGRAM)]

    def features(self):
        """Kernel features in use now: {"gso", "gro", "df", "epoll_pwait2"}. One that the kernel refused is False."""
        return {
            "gso": bool(self.sender.trains),
            "gro": bool(self.gro),
            "df": bool(self.sender.small_df),
            "epoll_pwait2": bool(self.fine_wait),
        }

    # ---- the thread ----

    cdef void _serve(self) noexcept nogil:
        cdef int ready
        self._read_clock()
        self.window_us = self.now.mono_us
        self._serve_mailbox()
        while not self.error and not srp_mailbox_stopped(self.mailbox):
            self.own[OWN_ROUNDS] += 1
            if self.blocked:
                self._wait_writable()
                self._read_clock()
                self._serve_mailbox()
                self._resume()
            else:
                ready = 0
                if self.more and self.unlooked < LOOK_TURNS:
                    self.unlooked += 1
                else:
                    self.unlooked = 0
                    ready = self._rest(0 if self.more else self._timeout_us())
                self._receive_ready(ready)
                self._serve_mailbox()
                if not self.blocked:
                    self._tick()
            if self.drops_us <= self.now.mono_us:
                self._count_kernel_drops()
            if self.heartbeat_command != NULL and self.heartbeat_again_us <= self.now.mono_us:
                self._send_heartbeat()
            self._serve_peer()
            if self.pause:
                self.pause = False
                usleep(1000)
        self._end()

    cdef void _note_due(self) noexcept nogil:
        """What the core wished first counts, or every batch would put the tick off again."""
        cdef int64_t due = self.node.due_us()
        if due < self.due_us:
            self.due_us = due

    cdef int64_t _timeout_us(self) noexcept nogil:
        """How long nothing is due."""
        cdef int64_t due
        self._note_due()
        due = self.due_us
        if self.heartbeat_command != NULL and self.heartbeat_again_us < due:
            due = self.heartbeat_again_us
        if due <= self.now.mono_us:
            return 0
        if due - self.now.mono_us > LONGEST_WAIT_US:
            return LONGEST_WAIT_US
        return due - self.now.mono_us

    cdef int _wait(self, int64_t timeout_us) noexcept nogil:
        """Until a watched descriptor is readable; how many are, in `events`."""
        cdef timespec timeout
        cdef int ready
        if self.unwatched and timeout_us != 0:
            self.unwatched = self._watch(SRP_SOCKET_MAIN, self.fds[SRP_SOCKET_MAIN]) < 0
            if self.unwatched:
                timeout_us = min(timeout_us, <int64_t>UNWATCHED_US)
        if self.fine_wait:
            timeout.tv_sec = timeout_us // 1000000
            timeout.tv_nsec = timeout_us % 1000000 * 1000
            ready = epoll_pwait2(self.epoll, self.events, EVENTS, &timeout, NULL)
            # Before Linux 5.11, or a filter of system calls that does not know it.
            if ready < 0 and (c_errno == ENOSYS or c_errno == EPERM or c_errno == EACCES):
                self.fine_wait = False
        if not self.fine_wait:
            ready = epoll_wait(self.epoll, self.events, EVENTS, <int>((timeout_us + 999) // 1000))
        if ready < 0:
            if c_errno != EINTR:
                self.error = c_errno
            return 0
        return ready

    cdef int _rest(self, int64_t timeout_us) noexcept nogil:
        """Waits, and counts for how long; only to look is no rest."""
        cdef int64_t start_us
        cdef int ready
        if timeout_us != 0:
            self._read_clock()  # what was done since then is work
        start_us = self.now.mono_us
        ready = self._wait(timeout_us)
        self._read_clock()
        if timeout_us != 0:
            self.rested_us += self.now.mono_us - start_us
        return ready

    cdef void _receive_ready(self, int ready) noexcept nogil:
        """A batch from the main socket if it is read without asking, and from each that has something."""
        cdef int i
        cdef uint32_t index
        cdef bint unasked = self.more or self.unwatched
        if unasked and not self._receive(SRP_SOCKET_MAIN):
            return
        for i in range(ready):
            index = self.events[i].data.u32
            if index == WAKE:
                srp_mailbox_awake(self.mailbox)
            elif not (unasked and index == SRP_SOCKET_MAIN) and not self._receive(index):
                return

    cdef void _note_main(self, int got) noexcept nogil:
        """The main socket was read."""
        self.more = got > 0
        self.busy = self.busy + 1 if self.more else 0
        if self.busy >= BUSY_TURNS and not self.unwatched:
            self.unwatched = epoll_ctl(self.epoll, EPOLL_CTL_DEL, self.fds[SRP_SOCKET_MAIN], NULL) == 0

    cdef void _read_clock(self) noexcept nogil:
        cdef timespec time
        clock_gettime(CLOCK_MONOTONIC, &time)
        self.now.mono_us = <int64_t>time.tv_sec * 1000000 + time.tv_nsec // 1000
        clock_gettime(CLOCK_REALTIME, &time)
        self.now.wall_ms = <int64_t>time.tv_sec * 1000 + time.tv_nsec // 1000000

    cdef bint _receive(self, uint32_t socket) noexcept nogil:
        """One batch from one socket; False when its output is blocked."""
        cdef int got
        if self.fds[socket] < 0:
            return True
        got = srp_udp_receive(self.receiver, self.fds[socket], <uint16_t>socket)
        if socket == SRP_SOCKET_MAIN:
            self._note_main(got)
        if got <= 0:
            self.pause = self.pause or got < 0
            return True
        self._read_clock()
        if socket == SRP_SOCKET_MAIN and self.look_us <= self.now.mono_us:
            self._count_drops(SRP_SOCKET_MAIN)
        self.spoken = 0
        if not self._hand_over():
            return False
        if socket == SRP_SOCKET_MAIN:
            self._nap(<uint32_t>got)
        return True

    cdef void _nap(self, uint32_t got) noexcept nogil:
        """After a small batch, while most of what comes leads to no output (duplicates, garbage, a flood of which little is answered):
        when batches come one close upon the other, lets some more collect. Hardly anybody waits for an answer, and to be woken for each
        datagram would cost more than to handle it."""
        cdef int64_t silent = <int64_t>self.silent + got - SPOKEN_WEIGHT * self.spoken
        cdef int64_t start_us
        self.silent = <uint32_t>max(0, min(SILENT_MOST, silent))
        if self.silent < SILENT_NAP:
            self.silent_us = 0
            return
        if got < self.receiver.most // 2 and self.now.mono_us - self.silent_us < DENSE_US:
            self.own[OWN_NAPS] += 1
            start_us = self.now.mono_us
            usleep(NAP_US)
            self._read_clock()
            self.rested_us += NAP_US
            self.late = self.late or self.now.mono_us - start_us > LATE_US
        self.silent_us = self.now.mono_us

    cdef bint _hand_over(self) noexcept nogil:
        """What was received, to the core and out again; False when output is blocked (the rest waits for _resume)."""
        cdef uint32_t count
        cdef int64_t start_us
        while True:
            count = srp_udp_take(self.receiver, self.batch, self.batch_size)
            if count == 0:
                return True
            count = self._without_heartbeats(count)
            start_us = self.now.mono_us
            self.node.receive_batch(self.batch, count, self.now)
            if not self._flush():
                return False
            self._read_clock()
            self._count_time(self.now.mono_us - start_us)

    cdef bint _flush(self) noexcept nogil:
        """Sends the core's output; False when some of it has to wait."""
        cdef srp_datagram *items = NULL
        cdef uint32_t count
        cdef int state
        while True:
            count = self.node.output(&items)
            if self.pending == 0:
                self.pending = count - self.flushed
                if self.pending == 0:
                    break
                self.spoken += self.pending
            state = srp_udp_send(self.sender, items + self.flushed, self.pending)
            if state != SRP_UDP_DONE:
                self._block(state)
                if self.now.mono_us - self.blocked_us < self.jam_us:
                    return False
                srp_udp_give_up(self.sender, items + self.flushed, self.pending)
                self.own[OWN_JAMS] += 1
                self.jam_us = min(<int64_t>JAM_AGAIN_US, self.jam_limit_us)
            self.flushed += self.pending
            self.pending = 0
            self.blocked = 0
        self.flushed = 0
        self.node.output_done()
        return True

    cdef void _block(self, int state) noexcept nogil:
        """Notes since when output waits without progress."""
        if self.udp[SRP_UDP_OUT_CALLS] != self.progress:
            self.progress = self.udp[SRP_UDP_OUT_CALLS]
            self.jam_us = self.jam_limit_us
            self.blocked_us = self.now.mono_us
        elif not self.blocked:
            self.blocked_us = self.now.mono_us
        self.blocked = state

    cdef void _wait_writable(self) noexcept nogil:
        cdef pollfd fds[2]
        fds[0].fd = self.mailbox.wake_fd
        fds[0].events = POLLIN
        fds[0].revents = 0
        fds[1].fd = self.sender.fd
        fds[1].events = POLLOUT
        if self.blocked == SRP_UDP_BLOCKED:
            poll(fds, 2, BLOCKED_POLL_MS)
        else:
            poll(fds, 1, STALLED_POLL_MS)
        if fds[0].revents:
            srp_mailbox_awake(self.mailbox)

    cdef void _resume(self) noexcept nogil:
        """Output that waited, then what was received before it and not yet handled."""
        if self.blocked and self._flush():
            self._hand_over()

    cdef void _tick(self) noexcept nogil:
        self._note_due()
        if self.due_us <= self.now.mono_us:
            self.own[OWN_TICKS] += 1
            self.due_us = INT64_MAX
            self.node.tick_at(self.now)
            self._flush()

    cdef void _serve_peer(self) noexcept nogil:
        """What an ordinary peer's core asks of its loop: the pool of sockets, and to wake the application up."""
        cdef uint64_t one = 1
        if self.node.wants_pool():
            self._open_pool()
        if self.notify_fd >= 0 and not self.notified and self.node.app_waiting():
            self.notified = write(self.notify_fd, &one, sizeof(one)) == sizeof(one)

    cdef void _count_time(self, int64_t us) noexcept nogil:
        cdef unsigned int bucket = 0
        self.own[OWN_BATCHES] += 1
        self.own[OWN_HANDLING_US] += <uint64_t>us
        while us > 0 and bucket < HISTOGRAM - 1:
            us >>= 1
            bucket += 1
        self.histogram[bucket] += 1

    cdef uint32_t _without_heartbeats(self, uint32_t count) noexcept nogil:
        """The batch without datagrams of our own; how many are left."""
        cdef uint32_t i = 0
        cdef int64_t sent_us
        if not self.heartbeat_known:
            return count
        while i < count:
            if self.batch[i].len != HEARTBEAT_BYTES or memcmp(self.batch[i].data, self.heartbeat, 24) != 0:
                i += 1
                continue
            memcpy(&sent_us, self.batch[i].data + 24, sizeof(sent_us))
            count -= 1
            memmove(&self.batch[i], &self.batch[i + 1], (count - i) * sizeof(srp_datagram))
            self.own[OWN_HEARTBEATS] += 1
            self.own[OWN_HEARTBEAT_US] = <uint64_t>self.now.mono_us
            self.own[OWN_HEARTBEAT_ROUND_US] = <uint64_t>(self.now.mono_us - sent_us)
            self._end_heartbeat(<int32_t>(self.now.mono_us - sent_us))
        return count

    cdef void _start_heartbeat(self, srp_command *command) noexcept nogil:
        cdef int64_t timeout_us
        memcpy(&timeout_us, <uint8_t *>command.data + 16, 8)
        self._end_heartbeat(-ECANCELED)  # of a poster that was interrupted
        # The magic, so that a filter in the kernel that drops everything else lets it pass.
        self.heartbeat[0] = 0x03
        self.heartbeat[1] = 0x05
        self.heartbeat[2] = 0x0b
        self.heartbeat[3] = 0x11
        memset(self.heartbeat + 4, 0, 4)
        memcpy(self.heartbeat + 8, command.data, 16)
        self.heartbeat_known = True
        self.heartbeat_command = command
        self.heartbeat_error = 0
        self._read_clock()
        self.heartbeat_end_us = self.now.mono_us + timeout_us
        self._send_heartbeat()

    cdef void _send_heartbeat(self) noexcept nogil:
        """Another one, or the end of the wait for it."""
        cdef srp_datagram item
        if self.now.mono_us >= self.heartbeat_end_us:
            self._end_heartbeat(self.heartbeat_error if self.heartbeat_error else -ETIMEDOUT)
            return
        self.heartbeat_again_us = min(self.now.mono_us + <int64_t>HEARTBEAT_AGAIN_US, self.heartbeat_end_us)
        memcpy(self.heartbeat + 24, &self.now.mono_us, 8)
        item.data = self.heartbeat
        item.len = HEARTBEAT_BYTES
        item.addr = self.bound[SRP_SOCKET_MAIN] if self.bound[SRP_SOCKET_MAIN] else 0x7f000001
        item.port = self.main_port
        item.local = 0
        item.socket = SRP_SOCKET_MAIN
        self.heartbeat_error = srp_udp_send_one(self.sender.calls, self.udp, self.fds[SRP_SOCKET_MAIN], &item)

    cdef void _end_heartbeat(self, int32_t result) noexcept nogil:
        if self.heartbeat_command != NULL:
            srp_command_finish(self.heartbeat_command, result)
            self.heartbeat_command = NULL

    cdef void _serve_mailbox(self) noexcept nogil:
        cdef srp_command *command = srp_mailbox_take(self.mailbox)
        if command == NULL:
            return
        while command != NULL:
            self.own[OWN_COMMANDS] += 1
            if not self._obey(command):
                srp_command_finish(command, command.result)
            command = srp_mailbox_take(self.mailbox)
        if not self.blocked:
            self._flush()

    cdef bint _obey(self, srp_command *command) noexcept nogil:
        """Does what a command says; True when it is not finished yet."""
        cdef int32_t *numbers = <int32_t *>command.data
        if command.kind >= SRP_COMMAND_CORE:
            command.result = self.node.command(command.kind, command.data, command.size, self.now)
            self.notified = False  # the application may have taken what waited, and more may come before we look again
        elif command.kind == SRP_COMMAND_OPEN_POOL:
            command.result = self._open_pool()
        elif command.kind == SRP_COMMAND_CLOSE_POOL:
            command.result = self._close_pool()
        elif command.kind == SRP_COMMAND_REPLACE and command.size >= 8:
            command.result = self._replace(<uint32_t>numbers[0], numbers[1])
        elif command.kind == SRP_COMMAND_HEARTBEAT and command.size >= 24:
            self._start_heartbeat(command)
            return True
        elif command.kind == SRP_COMMAND_LOCAL and command.size >= 4:
            command.result = self._only_address(<uint32_t>numbers[0])
        else:
            command.result = -EINVAL
        return False

    cdef int32_t _watch(self, uint32_t index, int fd) noexcept nogil:
        cdef epoll_event event
        memset(&event, 0, sizeof(event))
        event.events = EPOLLIN
        event.data.u32 = index
        return -c_errno if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event) < 0 else 0

    cdef int32_t _set_local(self, uint32_t index, int fd, uint32_t bound) noexcept nogil:
        """Notes what a socket is bound to, and asks for the own address of each datagram where that leaves it open."""
        cdef uint32_t local = bound if bound else self.only
        cdef int error = srp_udp_set_pktinfo(fd, local == 0)
        if error == 0:
            self.bound[index] = bound
            self.local[index] = local
        return error

    cdef int32_t _only_address(self, uint32_t address) noexcept nogil:
        cdef uint32_t i
        cdef int error = 0
        self.only = address
        for i in range(SOCKETS):
            if self.fds[i] >= 0 and error == 0:
                error = self._set_local(i, self.fds[i], self.bound[i])
        return error

    cdef void _count_kernel_drops(self) noexcept nogil:
        cdef uint32_t i
        self.drops_us = self.now.mono_us + DROPS_EVERY_US
        for i in range(SOCKETS if self.own[OWN_POOL_OPEN] else SRP_SOCKET_POOL):
            if self.fds[i] >= 0:
                self._count_drops(i)

    cdef void _count_drops(self, uint32_t index) noexcept nogil:
        """Counts what the kernel dropped in front of a socket; has the core take less on when we have too little time.

        A buffer that is half full is a queue in which everybody waits, and soon drops. A filter's drops are not losses. A loop that
        has hardly any rest has no queue yet, but whatever comes in bursts makes one.
        """
        cdef uint32_t drops, new
        cdef bint filling = srp_udp_look(self.fds[index], &drops)
        new = drops - self.drops[index]  # wraps
        self.udp[SRP_UDP_IN_KERNEL_DROPS] += new
        self.drops[index] = drops
        if index != SRP_SOCKET_MAIN:
            return
        self.look_us = self.now.mono_us + LOOK_EVERY_US
        if self._short_of_time() or filling or (new != 0 and not srp_udp_filtered(self.fds[index])):
            self.node.pressed_at(self.now)

    cdef bint _short_of_time(self) noexcept nogil:
        """Whether the window that ends now had less rest than work, or a nap in it that ended late: the core serves others as well."""
        cdef int64_t window_us = self.now.mono_us - self.window_us
        cdef bint short = self.late or 2 * self.rested_us < window_us
        if window_us < WINDOW_US:
            return False
        self.window_us = self.now.mono_us
        self.rested_us = 0
        self.late = False
        return short

    cdef int32_t _open_pool(self) noexcept nogil:
        cdef uint32_t i
        cdef int fd, error
        cdef int32_t opened = 0
        for i in range(SRP_SOCKET_POOL, SRP_SOCKET_POOL + self.pool_size):
            if self.fds[i] < 0:
                fd = srp_udp_open(self.bound[SRP_SOCKET_MAIN], 0)
                error = fd
                if fd >= 0:
                    error = srp_udp_prepare(fd, POOL_RECEIVE_BYTES, POOL_SEND_BYTES)
                    if error == 0:
                        error = self._set_local(i, fd, self.bound[SRP_SOCKET_MAIN])
                    if error == 0:
                        error = self._watch(i, fd)
                    if error < 0:
                        close(fd)
                if error < 0:
                    if error == -EMFILE or error == -ENFILE:
                        self.own[OWN_POOL_NO_DESCRIPTORS] += 1
                    else:
                        self.own[OWN_POOL_ERRORS] += 1
                    break
                self.fds[i] = fd
                self.df[i] = False
                self.drops[i] = 0
                self.own[OWN_POOL_OPENED] += 1
                self.own[OWN_POOL_OPEN] += 1
            opened += 1
        self.node.pool_opened(<uint32_t>opened)
        return opened

    cdef int32_t _close_pool(self) noexcept nogil:
        cdef int i
        cdef int32_t closed = 0
        self._count_kernel_drops()
        for i in range(SRP_SOCKET_POOL, SOCKETS):
            if self.fds[i] >= 0:
                close(self.fds[i])
                self.fds[i] = -1
                closed += 1
        self.own[OWN_POOL_OPEN] = 0
        self.node.pool_opened(0)
        return closed

    cdef int32_t _replace(self, uint32_t index, int fd) noexcept nogil:
        cdef int old, error
        cdef unsigned int batches = 0
        if index >= SRP_SOCKET_POOL:
            return -EINVAL
        old = self.fds[index]
        while not self.blocked and old >= 0 and batches < DRAIN_BATCHES:
            batches += 1
            if srp_udp_receive(self.receiver, old, <uint16_t>index) <= 0 or not self._hand_over():
                break
        self._count_kernel_drops()
        error = self._take_in(index, fd)
        if error < 0:
            return error
        if old >= 0:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, old, NULL)
        return 0

    cdef void _end(self) noexcept nogil:
        """Sends what waits, for a moment, and answers whoever still asks."""
        cdef unsigned int polls = 0
        cdef srp_command *command
        while self.blocked and polls < END_POLLS:
            polls += 1
            self._wait_writable()
            self._read_clock()
            self._resume()
        self._end_heartbeat(-ESHUTDOWN)
        command = srp_mailbox_take(self.mailbox)
        while command != NULL:
            srp_command_finish(command, -ESHUTDOWN)
            command = srp_mailbox_take(self.mailbox)


cdef bint is_done(Command posted):
    return srp_command_done(&posted.command)
