"""The event queue: a heap in one C array, ordered by virtual time and then by order of entry."""
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, realloc


cdef inline bint before(const Event *a, const Event *b) noexcept nogil:
    return a.at_us < b.at_us or (a.at_us == b.at_us and a.serial < b.serial)


cdef bint queue_push(Queue *q, int64_t at_us, uint32_t kind, uint32_t index) noexcept nogil:
    """False: no memory."""
    cdef uint32_t i, up, capacity
    cdef Event *grown
    cdef Event event
    if q.count == q.capacity:
        capacity = q.capacity * 2 if q.capacity != 0 else 1024
        grown = <Event *>realloc(q.heap, sizeof(Event) * <size_t>capacity)
        if grown == NULL:
            return False
        q.heap = grown
        q.capacity = capacity
    event.at_us = at_us
    event.serial = q.serial
    event.kind = kind
    event.index = index
    q.serial += 1
    i = q.count
    q.count += 1
    while i > 0:
        up = (i - 1) // 4
        if not before(&event, &q.heap[up]):
            break
        q.heap[i] = q.heap[up]
        i = up
    q.heap[i] = event
    return True


cdef bint queue_pop(Queue *q, Event *event) noexcept nogil:
    """Takes out the first event; False when there is none."""
    cdef uint32_t i = 0, child, best, end
    cdef Event last
    if q.count == 0:
        return False
    event[0] = q.heap[0]
    q.count -= 1
    last = q.heap[q.count]
    while True:
        child = 4 * i + 1
        if child >= q.count:
            break
        best = child
        end = child + 4 if child + 4 < q.count else q.count
        child += 1
        while child < end:
            if before(&q.heap[child], &q.heap[best]):
                best = child
            child += 1
        if not before(&q.heap[best], &last):
            break
        q.heap[i] = q.heap[best]
        i = best
    q.heap[i] = last
    return True


cdef void queue_free(Queue *q) noexcept nogil:
    free(q.heap)
    q.heap = NULL
    q.count = q.capacity = 0
