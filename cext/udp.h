/* UDP over IPv4 in batches: recvmmsg into arrays of srp_datagram, sendmmsg out of them.
 *
 * Nothing here blocks, allocates or keeps state outside the caller's structs. Every datagram that is not delivered has a
 * counter with its reason. The system calls go through srp_udp_calls, so that tests and fault injection can stand
 * between this code and the kernel.
 *
 * Kernel features beyond plain batches:
 * - IP_PKTINFO: own address of each datagram, for sockets bound to any address on a machine with several. It costs a
 *   twentieth of an echo's time, so whoever can only have one address goes without.
 * - UDP_GRO, UDP_SEGMENT: a train of equal datagrams received and sent as one. Probed; UDP_SEGMENT is given up when the
 *   kernel refuses it later.
 * - DF on small datagrams (IP_MTU_DISCOVER): the kernel draws an identification for every datagram that may be
 *   fragmented, a fifteenth of an echo's time. What fits the 576 bytes that every host takes (RFC 791) needs no fragments;
 *   larger ones go without DF, so that they pass links with a small MTU in pieces. Given up when the kernel refuses it.
 * What the kernel dropped for want of buffer is asked for now and then (SO_MEMINFO): SO_RXQ_OVFL would say it with every
 * datagram, for another fortieth. */
#ifndef SRP_UDP_H
#define SRP_UDP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* struct mmsghdr */
#endif

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "datagram.h"

#define SRP_UDP_BATCH 256        /* most messages of one call, either way */
#define SRP_UDP_TRAIN 64         /* most datagrams of a train (UDP_MAX_SEGMENTS before Linux 6.9) */
#define SRP_UDP_TRAIN_BYTES 65000
#define SRP_UDP_SMALL 548        /* bytes of payload in an IPv4 datagram of 576, header without options */
/* Distance of received messages in memory: more than one holds, and an odd number of cache lines, so that the first
 * lines of a batch do not all compete for the same places of the cache. */
#define SRP_UDP_STRIDE 1600      /* a datagram of 1421 bytes at most is a packet; what is longer is cut and counted */
#define SRP_UDP_STRIDE_GRO 67136 /* a train of 65535 bytes at most */

typedef struct srp_udp_calls {
    int (*recvmmsg)(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout);
    int (*sendmmsg)(int fd, struct mmsghdr *messages, unsigned count, int flags);
    int (*setsockopt)(int fd, int level, int option, const void *value, socklen_t size);
} srp_udp_calls;

extern const srp_udp_calls srp_udp_kernel; /* those of libc */

/* Counters: an array of uint64_t in the caller's hands, written by one thread. */
#define SRP_UDP_COUNTS(X)                                                                                             \
    X(IN_CALLS, "in_calls")                   /* recvmmsg calls that brought something */                             \
    X(IN_DATAGRAMS, "in_datagrams")                                                                                   \
    X(IN_BYTES, "in_bytes")                   /* of UDP payload */                                                    \
    X(IN_TRAINS, "in_trains")                 /* messages that held several datagrams (UDP_GRO) */                    \
    X(IN_CUT, "in_cut")                       /* longer than the buffer: the rest was cut off */                      \
    X(IN_NO_SOURCE, "in_no_source")           /* dropped: source port 0 or source address 0.0.0.0 */                  \
    X(IN_KERNEL_DROPS, "in_kernel_drops")     /* dropped by the kernel before we read (SO_MEMINFO) */                 \
    X(IN_ERRORS, "in_errors")                 /* recvmmsg calls that failed, but for EAGAIN and EINTR */              \
    X(OUT_CALLS, "out_calls")                 /* sendmmsg calls that sent something */                                \
    X(OUT_DATAGRAMS, "out_datagrams")                                                                                 \
    X(OUT_BYTES, "out_bytes")                                                                                         \
    X(OUT_TRAINS, "out_trains")               /* messages of several datagrams (UDP_SEGMENT) */                       \
    X(OUT_TRAIN_DATAGRAMS, "out_train_datagrams") /* datagrams that left in them */                                   \
    X(OUT_SHORT, "out_short")                 /* sendmmsg sent fewer than asked */                                    \
    X(OUT_INTERRUPTED, "out_interrupted")     /* EINTR, repeated */                                                   \
    X(OUT_BLOCKED, "out_blocked")             /* EAGAIN: the socket's send buffer is full */                          \
    X(OUT_NO_BUFFERS, "out_no_buffers")       /* ENOBUFS or ENOMEM, repeated */                                       \
    X(OUT_LATE_ERRORS, "out_late_errors")     /* the error of an earlier datagram (ICMP), repeated */                 \
    X(OUT_TRAIN_REFUSED, "out_train_refused") /* trains sent again as single datagrams */                             \
    X(OUT_TRAIN_OFF, "out_train_off")         /* times that UDP_SEGMENT was given up */                               \
    X(OUT_DF_CHANGES, "out_df_changes")       /* times that a socket turned from small datagrams to others, or back */ \
    X(OUT_DF_OFF, "out_df_off")               /* times that DF on small datagrams was given up */                     \
    X(DROP_FORBIDDEN, "out_drop_forbidden")   /* datagrams dropped: EPERM, EACCES (a firewall, broadcast) */          \
    X(DROP_UNREACHABLE, "out_drop_unreachable") /* ENETUNREACH, EHOSTUNREACH, ENETDOWN, ECONNREFUSED and the like */  \
    X(DROP_ADDRESS, "out_drop_address")       /* EINVAL, EADDRNOTAVAIL: port 0, or our address is gone */             \
    X(DROP_TOO_BIG, "out_drop_too_big")       /* EMSGSIZE */                                                          \
    X(DROP_NO_BUFFERS, "out_drop_no_buffers") /* ENOBUFS or ENOMEM too often */                                       \
    X(DROP_NO_SOCKET, "out_drop_no_socket")   /* to leave from a socket that is not open */                           \
    X(DROP_JAMMED, "out_drop_jammed")         /* given up after the socket took nothing for too long */               \
    X(DROP_OTHER, "out_drop_other")           /* any other errno */

enum srp_udp_count {
#define X(name, text) SRP_UDP_##name,
    SRP_UDP_COUNTS(X)
#undef X
    SRP_UDP_COUNT
};

const char *srp_udp_count_name(unsigned index); /* "in_calls", …; NULL beyond the last */

/* Receiving. The caller sets the first group once and calls srp_udp_receiver_init(). */
typedef struct srp_udp_receiver {
    const srp_udp_calls *calls;
    uint64_t *count;  /* SRP_UDP_COUNT of them */
    const uint32_t *local; /* by socket: the only own address that its datagrams can have, 0: IP_PKTINFO tells */
    uint8_t *data;    /* batch * stride bytes */
    uint32_t stride;  /* SRP_UDP_STRIDE or, for sockets with UDP_GRO, SRP_UDP_STRIDE_GRO */
    uint32_t batch;   /* messages of one call, 1 … SRP_UDP_BATCH */

    uint32_t most;    /* messages of the next call: fewer when trains come, so that they stay in the processor's cache */
    uint32_t got;     /* messages of the last call … */
    uint32_t next;    /* … where srp_udp_take() stands in them … */
    uint32_t offset;  /* … and in the bytes of that one */
    uint16_t socket;  /* which socket they came from */
    struct mmsghdr messages[SRP_UDP_BATCH];
    struct iovec vectors[SRP_UDP_BATCH];
    struct sockaddr_in sources[SRP_UDP_BATCH];
    _Alignas(8) uint8_t controls[SRP_UDP_BATCH][96];
} srp_udp_receiver;

void srp_udp_receiver_init(srp_udp_receiver *in);

/* One recvmmsg. Messages received, 0 when there were none, else -errno (counted). What the last call brought must have been taken. */
int srp_udp_receive(srp_udp_receiver *in, int fd, uint16_t socket);

/* The next datagrams of what was received, at most max, pointing into in->data; 0 when all were taken. Trains come apart here. */
uint32_t srp_udp_take(srp_udp_receiver *in, srp_datagram *out, uint32_t max);

/* Sending. The caller sets the first group once and calls srp_udp_sender_init(). */
typedef struct srp_udp_sender {
    const srp_udp_calls *calls;
    uint64_t *count;     /* SRP_UDP_COUNT of them */
    const int *fds;      /* by socket; -1: not open */
    const uint32_t *local; /* by socket: the only address that it can send from, 0: .local of the datagram is the source */
    uint8_t *df;         /* by socket: it sends with DF now; false as srp_udp_prepare() leaves it */
    uint32_t sockets;    /* length of all three */
    bool trains;         /* UDP_SEGMENT is in use */
    bool small_df;       /* small datagrams go with DF */

    uint32_t pass, next; /* how far the caller's array has been sent */
    uint32_t passes;     /* which passes it needs, as bits */
    uint32_t single;     /* items before this one go singly, their train was refused … */
    int suspect;         /* … with this errno, not yet known whose fault it is */
    uint32_t patience;   /* repetitions left for want of buffers: used up by each, regained slowly by success */
    bool late;           /* the item at `next` was repeated once already */
    uint32_t too_big;    /* trains refused with EMSGSIZE */
    int fd;              /* of the messages below, and of the one that is blocked */
    struct mmsghdr messages[SRP_UDP_BATCH];
    struct iovec vectors[SRP_UDP_BATCH];
    struct sockaddr_in destinations[SRP_UDP_BATCH];
    _Alignas(8) uint8_t controls[SRP_UDP_BATCH][64];
    uint32_t from[SRP_UDP_BATCH], until[SRP_UDP_BATCH]; /* items of a message: first, and behind its last */
    uint16_t cars[SRP_UDP_BATCH];                       /* datagrams of a message */
} srp_udp_sender;

void srp_udp_sender_init(srp_udp_sender *out);

enum srp_udp_state {
    SRP_UDP_DONE,    /* all left, or were dropped and counted */
    SRP_UDP_BLOCKED, /* out->fd takes no more: call again with the same items when it is writable */
    SRP_UDP_STALLED  /* the system has no buffers: call again with the same items a moment later */
};

/* Sends items of all sockets: those of the main socket first, then the probe's, then the pool's; of each the small ones
 * first, then the others, in order within these. After anything but SRP_UDP_DONE the caller comes back with the same items and count. */
enum srp_udp_state srp_udp_send(srp_udp_sender *out, const srp_datagram *items, uint32_t count);

/* Gives up what srp_udp_send() has not sent of these items; how many those were. */
uint32_t srp_udp_give_up(srp_udp_sender *out, const srp_datagram *items, uint32_t count);

/* One datagram out of turn, from fd; 0, else -errno. Nothing is repeated but EINTR. */
int srp_udp_send_one(const srp_udp_calls *calls, uint64_t *count, int fd, const srp_datagram *item);

/* Sockets. All return 0 or a descriptor, else -errno. */
int srp_udp_open(uint32_t addr, uint16_t port);          /* bound, close-on-exec, without the options below */
int srp_udp_prepare(int fd, int receive_bytes, int send_bytes); /* a bound one: all options but GRO; buffers as near as allowed */
int srp_udp_set_pktinfo(int fd, bool on);
int srp_udp_set_gro(int fd, bool on);
bool srp_udp_can_segment(int fd);
uint32_t srp_udp_drops(int fd);                          /* dropped by the kernel so far (SO_MEMINFO) */
bool srp_udp_look(int fd, uint32_t *drops);              /* the same, and whether more than half of the receive buffer is full */
bool srp_udp_filtered(int fd);                           /* a filter is attached: drops are not always losses */
int srp_udp_name(int fd, uint32_t *addr, uint16_t *port); /* what it is bound to */

#endif
