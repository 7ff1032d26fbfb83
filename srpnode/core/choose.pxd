from libc.stdint cimport int64_t, uint32_t, uint64_t

from srpnode.core.state cimport Credit, State
from srpnode.core.types cimport srp_entry

cdef enum:
    CHOOSE_MAX = 128

cdef struct Choice:
    uint32_t peer[CHOOSE_MAX]
    uint32_t count
    uint32_t friends        # how many of them share the cluster: they stand first

cdef enum:
    LIGHT = 32                  # publishes and joins of this minute, up to which an endpoint talks little

cdef inline bint proven(State *s, uint32_t slot) noexcept nogil:
    """Whether the endpoint answered a ping that only it could answer, within four keep-alives."""
    cdef int64_t at = s.peers.peer[slot].last_proof_us
    return at >= 0 and s.now.mono_us - at < 4 * s.keep_alive_us

cdef bint may_carry(State *s, Credit *credit, bint light) noexcept nogil
cdef bint carry(State *s, srp_entry *entry, bint light) noexcept nogil
cdef bint silent(State *s, uint32_t slot) noexcept nogil
cdef void choose_friends(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster, uint32_t want,
                         Choice *without) noexcept nogil
cdef void choose_strangers(State *s, Choice *choice, uint32_t want, Choice *without) noexcept nogil
cdef void choose_indexed(State *s, Choice *choice, Choice *without) noexcept nogil
cdef void choose_for_relay(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster,
                           Choice *without) noexcept nogil
cdef void choose_for_publish(State *s, Choice *choice, uint64_t subcluster, uint64_t cluster, bint own, bint last,
                             uint32_t hops, srp_entry *entry, bint light, Choice *without) noexcept nogil
