/* cext/udp.c for tests in Python: a sender and a receiver on the heap, with their counters. */
#include "inject.h" /* first: it wants _GNU_SOURCE */

#include <stdlib.h>

enum { SOCKETS = 8 };

typedef struct harness {
    srp_udp_sender sender;
    srp_udp_receiver receiver;
    uint64_t count[SRP_UDP_COUNT];
    int fds[SOCKETS];
    uint32_t bound[SOCKETS];
    uint8_t df[SOCKETS];
} harness;

harness *harness_new(int batch, int gro)
{
    harness *h = aligned_alloc(64, (sizeof *h + 63) / 64 * 64);
    *h = (harness){.sender = {.calls = &inject_calls, .sockets = SOCKETS, .trains = true,
                              .small_df = true},
                   .receiver = {.calls = &inject_calls, .batch = (uint32_t)batch,
                                .stride = gro ? SRP_UDP_STRIDE_GRO : SRP_UDP_STRIDE}};
    for (int i = 0; i < SOCKETS; i++)
        h->fds[i] = -1;
    h->sender.count = h->receiver.count = h->count;
    h->sender.fds = h->fds;
    h->sender.df = h->df;
    h->sender.local = h->receiver.local = h->bound;
    h->receiver.data = malloc((size_t)batch * h->receiver.stride);
    srp_udp_sender_init(&h->sender);
    srp_udp_receiver_init(&h->receiver);
    return h;
}

void harness_free(harness *h)
{
    free(h->receiver.data);
    free(h);
}


void harness_socket(harness *h, int index, int fd)
{
    uint16_t port;
    h->fds[index] = fd;
    srp_udp_name(fd, &h->bound[index], &port);
}

int harness_trains(const harness *h) { return h->sender.trains; }
int harness_small_df(const harness *h) { return h->sender.small_df; }
uint64_t harness_count(const harness *h, unsigned index) { return h->count[index]; }
int harness_send(harness *h, const srp_datagram *items, uint32_t count) { return srp_udp_send(&h->sender, items, count); }
uint32_t harness_give_up(harness *h, const srp_datagram *items, uint32_t count) { return srp_udp_give_up(&h->sender, items, count); }
int harness_receive(harness *h, int index) { return srp_udp_receive(&h->receiver, h->fds[index], (uint16_t)index); }
uint32_t harness_take(harness *h, srp_datagram *out, uint32_t max) { return srp_udp_take(&h->receiver, out, max); }
