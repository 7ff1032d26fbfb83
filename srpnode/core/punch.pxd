from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from srpnode.core.state cimport Attempt, Proxied, State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_message

cdef void on_intro(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil
cdef void work_on_attempts(State *s) noexcept nogil
cdef void reached(State *s, uint32_t slot, const uint8_t *peer_id) noexcept nogil
cdef Proxied *proxied_to(State *s, const uint8_t *peer_id) noexcept nogil
cdef void forget_socket(State *s, uint32_t slot) noexcept nogil
cdef Attempt *attempt_for(State *s, const uint8_t *peer_id) noexcept nogil
cdef void hold_attempt(State *s, const uint8_t *peer_id, int64_t until_us) noexcept nogil
cdef bint was_opened(State *s, uint32_t addr, uint16_t port, const uint8_t *peer_id) noexcept nogil
