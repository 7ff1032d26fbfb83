from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t

cdef enum NatKind:
    NAT_NONE = 0
    NAT_FULL_CONE = 1               # one outside port for all; anybody may send to it
    NAT_ADDRESS_RESTRICTED = 2      # … only addresses that were sent to
    NAT_PORT_RESTRICTED = 3         # … only endpoints that were sent to
    NAT_SYMMETRIC = 4               # an outside port for each endpoint, which alone may send to it

ctypedef struct Cell:
    uint64_t key                    # 0: free
    uint64_t owner
    int64_t used_us
    uint32_t host
    uint16_t port

ctypedef struct Table:
    Cell *cell
    uint32_t mask
    uint32_t count

ctypedef struct Box:
    uint32_t addr                   # outside
    uint8_t kind
    uint8_t hairpin
    uint16_t first_port             # outside ports in use: first_port … first_port + ports - 1
    uint32_t ports
    int64_t timeout_us              # of a mapping, after the last datagram to the outside

ctypedef struct Nats:
    Table outward
    Table inward
    Table allowed
    uint64_t random
    int64_t timeout_max_us
    uint64_t exhausted              # datagrams lost because no outside port was free
    uint64_t filtered               # datagrams from outside that nobody inside had asked for

cdef bint nat_out(Nats *n, const Box *box, uint32_t number, uint32_t host, uint16_t port, uint32_t to, uint16_t to_port,
                  int64_t now_us, uint16_t *outside) noexcept nogil
cdef bint nat_in(Nats *n, const Box *box, uint32_t number, uint16_t outside, uint32_t source, uint16_t source_port, int64_t now_us,
                 uint32_t *host, uint16_t *port) noexcept nogil
cdef void nat_free(Nats *n) noexcept nogil
