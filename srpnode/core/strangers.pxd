from libc.stdint cimport int64_t, uint32_t, uint64_t

from srpnode.core.state cimport State
from srpnode.core.types cimport srp_datagram

cdef bint may_ask(State *s, srp_datagram *d, uint64_t endpoint) noexcept nogil
cdef void under_pressure(State *s) noexcept nogil
cdef uint32_t strangers_allowed(State *s) noexcept nogil
cdef void start_strangers(State *s, uint64_t *bits, uint32_t count) noexcept nogil
