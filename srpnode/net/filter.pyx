"""A filter in the kernel (classic BPF) that drops what is no packet before it takes a place in a socket's receive buffer.

Seen from the filter a datagram begins with its UDP header: eight bytes, then the magic. What is dropped costs the sender's
path through the kernel and nothing of ours. It is for main and probe sockets: to those of the pool come the one-byte datagrams
with which a peer opens its way, and who counts them there sees how punching goes.

The kernel counts what a filter drops together with what found the receive buffer full (SO_RXQ_OVFL, SO_MEMINFO); of the
latter alone it tells the sum over all sockets of the machine (overruns()).
"""

import contextlib
import os

from libc.errno cimport ENOENT
from libc.errno cimport errno as c_errno
from libc.string cimport memset

cdef extern from "<linux/filter.h>" nogil:
    struct sock_filter:
        unsigned short code
        unsigned char jt
        unsigned char jf
        unsigned int k
    struct sock_fprog:
        unsigned short len
        sock_filter *filter
    enum:
        BPF_LD
        BPF_W
        BPF_LEN
        BPF_ABS
        BPF_JMP
        BPF_JGE
        BPF_JEQ
        BPF_K
        BPF_RET

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SOL_SOCKET
        SO_ATTACH_FILTER
        SO_DETACH_FILTER
    int setsockopt(int fd, int level, int name, const void *value, unsigned int size)

cdef extern from "wire.h" nogil:
    enum:
        SRP_MAGIC

cdef enum:
    UDP_HEADER = 8
    SHORTEST = 45       # 23 bytes of numbers, then eleven lengths: what is shorter does not decode
    WHOLE = 0x40000     # accepted with all its bytes
    STEPS = 6

SHORTEST_PACKET = SHORTEST
SNMP = "/proc/self/net/snmp"


def attach(int fd):
    """From now on this UDP socket gets only what begins with the magic and is as long as a packet. Raises OSError."""
    cdef sock_filter program[STEPS]
    cdef sock_fprog whole
    memset(program, 0, sizeof(program))
    program[0].code = BPF_LD | BPF_W | BPF_LEN
    program[1].code = BPF_JMP | BPF_JGE | BPF_K
    program[1].k = UDP_HEADER + SHORTEST
    program[1].jf = 3
    program[2].code = BPF_LD | BPF_W | BPF_ABS
    program[2].k = UDP_HEADER
    program[3].code = BPF_JMP | BPF_JEQ | BPF_K
    program[3].k = <unsigned int>SRP_MAGIC
    program[3].jf = 1
    program[4].code = BPF_RET | BPF_K
    program[4].k = WHOLE
    program[5].code = BPF_RET | BPF_K  # none of it
    whole.len = STEPS
    whole.filter = program
    if setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &whole, sizeof(whole)) < 0:
        raise OSError(c_errno, os.strerror(c_errno))


def detach(int fd):
    """Everything arrives again; also when there was no filter. Raises OSError."""
    cdef int nothing = 0
    if setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &nothing, sizeof(nothing)) < 0 and c_errno != ENOENT:
        raise OSError(c_errno, os.strerror(c_errno))


def overruns():
    """UDP datagrams that found a receive buffer full, on all sockets of the machine since its start; None: not told."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(SNMP, encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("Udp:")]
        return int(values[names.index("RcvbufErrors")])
    return None
