/* One UDP datagram, received or to be sent: the only thing that passes between
 * the core and whoever drives it. Addresses and ports are in host byte order. */
#ifndef SRP_DATAGRAM_H
#define SRP_DATAGRAM_H

#include <stdint.h>

/* Which socket of an identity a datagram belongs to. */
enum {
    SRP_SOCKET_MAIN = 0,
    SRP_SOCKET_PROBE = 1,
    SRP_SOCKET_POOL = 2 /* 2 … 257: the hard-NAT pool */
};

typedef struct srp_datagram {
    uint8_t *data;   /* received: writable until the output is flushed, the core may patch hops in place */
    uint32_t len;    /* bytes */
    uint32_t addr;   /* remote IPv4 address */
    uint32_t local;  /* own IPv4 address it came to or leaves from, 0 = the kernel chooses */
    uint16_t port;   /* remote port */
    uint16_t socket; /* SRP_SOCKET_… */
} srp_datagram;

/* Time as the driver knows it; the core never asks. */
typedef struct srp_now {
    int64_t mono_us; /* monotonic, microseconds: all intervals */
    int64_t wall_ms; /* Unix time, milliseconds: wire fields only */
} srp_now;

#endif
