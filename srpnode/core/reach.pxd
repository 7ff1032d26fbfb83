from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.state cimport State
from srpnode.core.types cimport srp_datagram, srp_frame, srp_message, srp_packet

cdef void on_ping(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil
cdef void on_pong(State *s, srp_datagram *d, srp_frame *frame, srp_message *message, uint32_t slot) noexcept nogil
cdef void draw_id(State *s, uint8_t *id) noexcept nogil
cdef void renew_ids(State *s) noexcept nogil
cdef bint finish_message(State *s, srp_packet *packet, srp_message *message, uint8_t *at, uint32_t addr, uint16_t port,
                         uint32_t local, uint16_t socket) noexcept nogil
cdef void send_connection_ping(State *s, uint32_t addr, uint16_t port, uint32_t local, uint16_t socket, const uint8_t *cluster,
                               const uint8_t *subcluster) noexcept nogil
cdef void welcome(State *s, uint32_t slot, srp_datagram *d, srp_frame *frame, srp_message *message) noexcept nogil
cdef void send_proof_ping(State *s, uint32_t addr, uint16_t port, uint32_t local) noexcept nogil
cdef void ask_alias(State *s, srp_datagram *d, srp_frame *frame) noexcept nogil
cdef bint park(State *s, srp_datagram *d, bint is_join) noexcept nogil
cdef bint unpark(State *s, uint32_t addr, uint16_t port, srp_datagram *d) noexcept nogil
cdef bint claim_name(State *s, uint32_t slot, const uint8_t *peer_id, bint proved) noexcept nogil
cdef void connect(State *s, uint32_t slot, uint8_t nat_type) noexcept nogil
cdef void join_cluster(State *s, uint32_t slot, const uint8_t *cluster, const uint8_t *subcluster, uint32_t length) noexcept nogil
cdef bint scope_allows(State *s, uint32_t addr, uint16_t port) noexcept nogil
cdef bint same_scope(uint32_t a, uint32_t b) noexcept nogil
cdef void heartbeats(State *s) noexcept nogil
cdef void settle_challenges(State *s) noexcept nogil
cdef uint32_t add_configured(State *s, uint32_t addr, uint16_t port, const uint8_t *peer_id) noexcept nogil
cdef void log_event(State *s, uint8_t kind, uint8_t reason, uint32_t addr, uint16_t port, const uint8_t *peer_id) noexcept nogil
