from libc.stdint cimport uint8_t, uint32_t

from srpnode.core.state cimport State

cdef void work_on_round(State *s) noexcept nogil
cdef void came_by_round(State *s, const uint8_t *id, uint32_t slot) noexcept nogil
cdef void begin_rounds(State *s) noexcept nogil
