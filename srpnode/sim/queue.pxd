from libc.stdint cimport int64_t, uint32_t, uint64_t

# What is to happen, by virtual time; of two at the same microsecond the one that was put in first comes first.
ctypedef struct Event:
    int64_t at_us
    uint64_t serial
    uint32_t kind
    uint32_t index

ctypedef struct Queue:
    Event *heap         # four children to a node
    uint32_t count
    uint32_t capacity
    uint64_t serial

cdef bint queue_push(Queue *q, int64_t at_us, uint32_t kind, uint32_t index) noexcept nogil
cdef bint queue_pop(Queue *q, Event *event) noexcept nogil
cdef void queue_free(Queue *q) noexcept nogil
