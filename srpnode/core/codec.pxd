# The wire codec of cext/, for Cython modules: wire.h, message.h and digest.h.
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "wire.h" nogil:
    enum:
        SRP_DATAGRAM_MAX
        SRP_MESSAGE_MAX
        SRP_TTL_MS
        SRP_TYPES
    enum srp_field:
        SRP_CLUSTER_ID
        SRP_SUBCLUSTER_ID
        SRP_PREVIOUS_ID
        SRP_PACKET_ID
        SRP_NEXT_ID
        SRP_USR1
        SRP_USR2
        SRP_USR3
        SRP_USR4
        SRP_MESSAGE
        SRP_SIG
        SRP_FIELDS
    enum srp_verdict:
        SRP_OK
        SRP_VERDICTS
    ctypedef struct srp_span:
        uint16_t at
        uint16_t len
    ctypedef struct srp_frame:
        uint8_t type
        uint16_t version
        uint32_t clock
        uint32_t hops
        int32_t index
        uint32_t ttl
        uint32_t size
        srp_span field[11]
    ctypedef struct srp_bytes:
        const uint8_t *at
        uint32_t len
    ctypedef struct srp_packet:
        uint8_t type
        uint32_t clock
        uint32_t hops
        int32_t index
        uint32_t ttl
        srp_bytes field[11]
    srp_verdict srp_frame_decode(const uint8_t *data, uint32_t len, srp_frame *frame)
    void srp_packet_init(srp_packet *packet, uint8_t type)
    uint32_t srp_packet_encode(const srp_packet *packet, uint8_t *out, uint32_t cap)
    uint32_t srp_message_offset(const srp_packet *packet)
    const char *srp_verdict_name(srp_verdict verdict)
    const char *srp_type_name(uint8_t type)

cdef extern from "message.h" nogil:
    enum srp_key:
        SRP_KEY_REQUESTER_PEER_ID
        SRP_KEY_RESPONDER_PEER_ID
        SRP_KEY_CACHE_SUMMARY_HASH
        SRP_KEY_PROBE_EXTERNAL_PORT
        SRP_KEY_REFLECTION_ID
        SRP_KEY_PING_ID
        SRP_KEY_NAT_TYPE
        SRP_KEY_UPTIME
        SRP_KEY_CACHE_SIZE
        SRP_KEY_IS_CONNECTION
        SRP_KEY_IS_REFLECTION
        SRP_KEY_IS_PROBE
        SRP_KEY_IS_DEBUG
        SRP_KEY_IS_RENDEZVOUS
        SRP_KEY_REJECTED
        SRP_KEY_TIMESTAMP
        SRP_KEY_ADDRESS
        SRP_KEY_PORT
        SRP_KEY_KEY
        SRP_KEY_RENDEZVOUS_ADDRESS
        SRP_KEY_RENDEZVOUS_PORT
        SRP_KEY_RENDEZVOUS_TYPE
        SRP_KEY_RENDEZVOUS_PEER_ID
        SRP_KEY_RENDEZVOUS_DEADLINE
        SRP_KEY_RENDEZVOUS_REQUESTER_PEER_ID
        SRP_KEY_PACKET_ID
        SRP_KEYS
    enum:
        SRP_KEY_BYTES_MAX
    ctypedef struct srp_message:
        uint32_t has
        uint32_t truth
        uint8_t requester_peer_id[32]
        uint8_t responder_peer_id[32]
        uint8_t rendezvous_peer_id[32]
        uint8_t rendezvous_requester_peer_id[32]
        uint8_t packet_id[32]
        uint8_t cache_summary_hash[20]
        char reflection_id[14]
        char ping_id[14]
        uint32_t address
        uint32_t rendezvous_address
        uint16_t port
        uint16_t rendezvous_port
        uint16_t probe_external_port
        uint8_t nat_type
        uint8_t rendezvous_type
        double uptime
        double cache_size
        double timestamp
        double rendezvous_deadline
        const char *key
        uint32_t key_len
    srp_verdict srp_message_read(const uint8_t *data, const srp_frame *frame, srp_message *message)
    uint32_t srp_message_write(uint8_t type, const srp_message *message, char *out, uint32_t cap)

cdef extern from "digest.h" nogil:
    ctypedef struct srp_sip_key:
        uint64_t k0
        uint64_t k1
    ctypedef struct srp_part:
        const void *at
        size_t len
    uint64_t srp_sip(const srp_sip_key *key, const void *data, size_t len)
    void srp_sha256(const srp_part *parts, unsigned int count, uint8_t *out)
    void srp_sha1(const srp_part *parts, unsigned int count, uint8_t *out)
    void srp_hex(const uint8_t *bytes, size_t len, char *out)
    int srp_unhex(const char *text, size_t digits, uint8_t *out)
