from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.state cimport Own, State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_message

cdef enum AppKind:
    APP_READY = 1       # see tell_ready
    APP_JOIN = 2        # peer_id, cluster, subcluster (32 each), natType u8, direct u8, port u16, address u32
    APP_LEAVE = 3       # peer_id
    # A datagram, then the port u16 and the address u32 that it came from:
    APP_PACKET = 4      # a publish of a subcluster of ours
    APP_STREAM = 5      # a stream for us
    APP_ANSWER = 6      # an answer to a query of ours
    ROUTE_SELF = 0xffffffff

cdef bint tell(State *s, uint8_t kind, const void *a, uint32_t a_len, const void *b, uint32_t b_len) noexcept nogil
cdef void tell_ready(State *s) noexcept nogil
cdef void tell_join(State *s, const uint8_t *peer_id, const uint8_t *cluster, const uint8_t *subcluster, uint8_t nat_type,
                    bint direct, uint32_t addr, uint16_t port) noexcept nogil
cdef void tell_leave(State *s, const uint8_t *peer_id) noexcept nogil
cdef void tell_packet(State *s, uint8_t kind, srp_datagram *d, srp_frame *frame) noexcept nogil
cdef Own *own_cluster(State *s, const uint8_t *data, srp_frame *frame) noexcept nogil
cdef void met_peer(State *s, uint32_t slot, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil
cdef void met_by_frame(State *s, uint32_t slot, const uint8_t *data, srp_frame *frame) noexcept nogil
cdef int join_own(State *s, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil
cdef int leave_own(State *s, const uint8_t *cluster, const uint8_t *subcluster) noexcept nogil
cdef void send_joins(State *s) noexcept nogil
cdef bint joins_possible(State *s) noexcept nogil
cdef void rejoin_soon(State *s) noexcept nogil
cdef void answer_elsewhere(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, Own *own) noexcept nogil
cdef int publish_own(State *s, srp_datagram *d) noexcept nogil
cdef int stream_own(State *s, srp_datagram *d) noexcept nogil
cdef int query_own(State *s, srp_datagram *d) noexcept nogil
cdef void resend_unpublished(State *s) noexcept nogil
