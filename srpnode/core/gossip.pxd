from libc.stdint cimport int64_t, uint8_t, uint32_t

from srpnode.core.out cimport Share
from srpnode.core.state cimport State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_message

cdef void on_publish(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot) noexcept nogil
cdef void on_query(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil
cdef void on_stream(State *s, srp_datagram *d, srp_frame *frame, uint32_t slot) noexcept nogil
cdef void expire_packets(State *s) noexcept nogil
cdef uint32_t multicast(State *s, uint8_t *data, srp_frame *frame, uint32_t source, Share share, uint32_t entry) noexcept nogil
cdef uint32_t copy_stored(State *s, uint32_t entry, uint8_t *out) noexcept nogil
cdef uint32_t insert_packet(State *s, srp_datagram *d, srp_frame *frame, const uint8_t *id) noexcept nogil
cdef int64_t decimal(const uint8_t *at, uint32_t length) noexcept nogil
