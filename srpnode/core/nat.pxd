from libc.stdint cimport int64_t, uint32_t

from srpnode.core.state cimport State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_message

cdef void start_reflection(State *s) noexcept nogil
cdef void work_on_reflection(State *s) noexcept nogil
cdef bint on_reflection_pong(State *s, srp_datagram *d, srp_message *message) noexcept nogil
cdef void on_probe_pong(State *s, srp_datagram *d, srp_message *message) noexcept nogil
cdef void compare_mapping(State *s, srp_datagram *d, srp_message *message, uint32_t slot) noexcept nogil
