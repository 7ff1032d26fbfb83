# What the C files of cext/ declare, for all Cython modules.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef extern from "datagram.h" nogil:
    enum:
        SRP_SOCKET_MAIN
        SRP_SOCKET_PROBE
        SRP_SOCKET_POOL
    ctypedef struct srp_datagram:
        uint8_t *data
        uint32_t len
        uint32_t addr
        uint32_t local
        uint16_t port
        uint16_t socket
    ctypedef struct srp_now:
        int64_t mono_us
        int64_t wall_ms
