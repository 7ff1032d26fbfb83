from libc.stdint cimport uint32_t

from srpnode.core.state cimport State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_peer, srp_prefix_digits

cdef bint send_summary(State *s, srp_peer *p, srp_prefix_digits *prefix) noexcept nogil
cdef void start_sync(State *s, uint32_t slot) noexcept nogil
cdef void on_sync(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot) noexcept nogil
cdef void work_on_jobs(State *s) noexcept nogil
cdef void work_on_comparisons(State *s) noexcept nogil
cdef void refresh_summary(State *s) noexcept nogil
cdef void after_filling(State *s) noexcept nogil
