# The simulator's own random numbers (splitmix64): whole numbers only, so that a seed gives the same run on every machine.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef inline uint64_t mix(uint64_t z) noexcept nogil:
    """A number that shows no trace of z: for values that depend on names rather than on order."""
    z += <uint64_t>0x9e3779b97f4a7c15
    z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
    return z ^ (z >> 31)

cdef inline uint64_t draw(uint64_t *state) noexcept nogil:
    cdef uint64_t z
    state[0] += <uint64_t>0x9e3779b97f4a7c15
    z = state[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
    return z ^ (z >> 31)

cdef inline uint32_t below(uint64_t *state, uint32_t n) noexcept nogil:
    """0 … n - 1."""
    return <uint32_t>(((draw(state) >> 32) * n) >> 32)

cdef inline bint chance(uint64_t *state, uint32_t millionths) noexcept nogil:
    return millionths != 0 and below(state, 1000000) < millionths

cdef enum:
    KNOTS = 4096        # intervals of a table of quantiles

cdef inline int64_t quantile(const int64_t *knot, uint64_t z) noexcept nogil:
    """The value of a distribution, given as KNOTS + 1 quantiles, at a random number; linear in between."""
    cdef uint32_t i = <uint32_t>(z >> 52)
    cdef int64_t part = <int64_t><uint32_t>(z >> 20)
    return knot[i] + (((knot[i + 1] - knot[i]) * part) >> 32)
