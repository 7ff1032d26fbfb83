from libc.stdint cimport uint32_t

from srpnode.core.state cimport State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_message

cdef void work_on_deferred(State *s) noexcept nogil
cdef void on_join(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil
