"""NATs of every kind: mappings, filters, timeouts, a limited number of ports (behaviour as in RFC 4787).

All boxes share three tables: mappings by inside endpoint, mappings by outside port, and whom a mapping lets in. An entry that was
not used for the box's timeout is as good as none, and is swept when a table is rebuilt.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from srpnode.sim.draws cimport below, mix

cdef enum:
    TRIES = 16          # random ports that are tried before all are looked through


cdef inline uint64_t name(uint64_t a, uint64_t b, uint64_t c) noexcept nogil:
    cdef uint64_t key = mix(mix(mix(a) ^ b) ^ c)
    return key if key != 0 else 1


cdef Cell *find(Table *t, uint64_t key) noexcept nogil:
    cdef uint32_t i
    if t.cell == NULL:
        return NULL
    i = <uint32_t>key & t.mask
    while t.cell[i].key != 0:
        if t.cell[i].key == key:
            return &t.cell[i]
        i = (i + 1) & t.mask
    return NULL


cdef Cell *place(Cell *cell, uint32_t mask, uint64_t key) noexcept nogil:
    cdef uint32_t i = <uint32_t>key & mask
    while cell[i].key != 0:
        i = (i + 1) & mask
    return &cell[i]


cdef bint rebuild(Table *t, int64_t oldest_us) noexcept nogil:
    """Sweeps what is too old, and grows if it has to."""
    cdef uint32_t i, live = 0, size = 1024
    cdef Cell *cells
    for i in range(t.mask + 1 if t.cell != NULL else 0):
        live += t.cell[i].key != 0 and t.cell[i].used_us >= oldest_us
    while size < 4 * live:
        size *= 2
    cells = <Cell *>calloc(size, sizeof(Cell))
    if cells == NULL:
        return False
    for i in range(t.mask + 1 if t.cell != NULL else 0):
        if t.cell[i].key != 0 and t.cell[i].used_us >= oldest_us:
            place(cells, size - 1, t.cell[i].key)[0] = t.cell[i]
    free(t.cell)
    t.cell = cells
    t.mask = size - 1
    t.count = live
    return True


cdef Cell *obtain(Nats *n, Table *t, uint64_t key, int64_t now_us) noexcept nogil:
    """The entry of this key, made if need be; NULL: no memory."""
    cdef Cell *c = find(t, key)
    if c != NULL:
        return c
    if t.cell == NULL or 2 * t.count > t.mask:
        if not rebuild(t, now_us - n.timeout_max_us):
            return NULL
    c = place(t.cell, t.mask, key)
    c.key = key
    c.used_us = now_us
    t.count += 1
    return c


cdef bint port_free(Nats *n, const Box *box, uint32_t number, uint32_t port, int64_t now_us) noexcept nogil:
    cdef Cell *c = find(&n.inward, name(number, port, 3))
    return c == NULL or now_us - c.used_us > box.timeout_us


cdef uint32_t choose_port(Nats *n, const Box *box, uint32_t number, uint16_t wanted, int64_t now_us) noexcept nogil:
    """A free outside port: the inside one if the box preserves it, else a random one; 0: there is none."""
    cdef uint32_t i, start, port
    if box.kind != NAT_SYMMETRIC and wanted >= box.first_port and wanted < box.first_port + box.ports \
            and port_free(n, box, number, wanted, now_us):
        return wanted
    for i in range(TRIES):
        port = box.first_port + below(&n.random, box.ports)
        if port_free(n, box, number, port, now_us):
            return port
    start = below(&n.random, box.ports)
    for i in range(box.ports):
        port = box.first_port + (start + i) % box.ports
        if port_free(n, box, number, port, now_us):
            return port
    return 0


cdef bint nat_out(Nats *n, const Box *box, uint32_t number, uint32_t host, uint16_t port, uint32_t to, uint16_t to_port,
                  int64_t now_us, uint16_t *outside) noexcept nogil:
    """A datagram from inside: its outside port. False: no port is free."""
    cdef uint64_t target = (<uint64_t>to << 16) | to_port, inside = (<uint64_t>host << 16) | port
    cdef uint64_t key = name(number, inside, target if box.kind == NAT_SYMMETRIC else 1)
    cdef Cell *c = find(&n.outward, key)
    cdef Cell *other
    cdef uint32_t chosen
    if c != NULL and now_us - c.used_us <= box.timeout_us:
        c.used_us = now_us
        outside[0] = c.port
        other = find(&n.inward, name(number, c.port, 3))
        if other != NULL:
            other.used_us = now_us
    else:
        chosen = choose_port(n, box, number, port, now_us)
        if chosen == 0:
            n.exhausted += 1
            return False
        other = obtain(n, &n.inward, name(number, chosen, 3), now_us)
        if other == NULL:
            return False
        other.owner = key
        other.host = host
        other.port = port
        other.used_us = now_us
        c = obtain(n, &n.outward, key, now_us)
        if c == NULL:
            return False
        c.port = <uint16_t>chosen
        c.used_us = now_us
        outside[0] = <uint16_t>chosen
    if box.kind != NAT_FULL_CONE:
        if box.kind == NAT_ADDRESS_RESTRICTED:
            target = to
        c = obtain(n, &n.allowed, name(key, target, 5), now_us)
        if c == NULL:
            return False
        c.used_us = now_us
    return True


cdef bint nat_in(Nats *n, const Box *box, uint32_t number, uint16_t outside, uint32_t source, uint16_t source_port, int64_t now_us,
                 uint32_t *host, uint16_t *port) noexcept nogil:
    """A datagram from outside: for whom it is. False: for nobody, or not from that source."""
    cdef Cell *c = find(&n.inward, name(number, outside, 3))
    cdef Cell *pass_
    cdef uint64_t target
    if c == NULL or now_us - c.used_us > box.timeout_us:
        n.filtered += 1
        return False
    if box.kind != NAT_FULL_CONE:
        target = source if box.kind == NAT_ADDRESS_RESTRICTED else (<uint64_t>source << 16) | source_port
        pass_ = find(&n.allowed, name(c.owner, target, 5))
        if pass_ == NULL or now_us - pass_.used_us > box.timeout_us:
            n.filtered += 1
            return False
    host[0] = c.host
    port[0] = c.port
    return True


cdef void nat_free(Nats *n) noexcept nogil:
    free(n.outward.cell)
    free(n.inward.cell)
    free(n.allowed.cell)
    n.outward.cell = n.inward.cell = n.allowed.cell = NULL
