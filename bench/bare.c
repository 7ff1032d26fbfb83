/* What the socket alone can do: recvmmsg, sendmmsg and nothing between them. The yardstick of every row of the bench.
 *
 *   bare echo  --listen ADDR:PORT                                    each datagram back to its source
 *   bare fan   --listen ADDR:PORT --to ADDR:PORT --spread N --copies K   each to K of N addresses, in turn
 *   bare train --listen ADDR:PORT --to ADDR:PORT                     whole trains in (UDP_GRO) and out (UDP_SEGMENT)
 *
 * --out-bytes B   sends B bytes for each datagram instead of what came in
 * --pktinfo       answers from the local address that the datagram came to (IP_PKTINFO), as a node bound to 0.0.0.0 must
 * --batch N       datagrams for each system call (64); --seconds S: ends by itself (600)
 *
 * Loopback only. SIGTERM ends it; it prints its counts as JSON. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "options.h"

#define BATCH_MAX 256
#define COPIES_MAX 64
#define DATAGRAM_CAP 2048u
#define TRAIN_CAP 65536u
#define CONTROL_CAP 64

typedef struct bare {
    int fd;
    unsigned batch, copies, out_bytes, spread, next;
    bool pktinfo;
    struct sockaddr_in to;
    uint64_t received, sent, calls_in, calls_out, errors;
} bare;

static volatile sig_atomic_t stopping;

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

static void send_all(bare *b, struct mmsghdr *messages, unsigned count)
{
    unsigned done = 0;
    while (done < count && !stopping) {
        int n = sendmmsg(b->fd, messages + done, count - done, 0);
        b->calls_out++;
        if (n > 0) {
            done += (unsigned)n;
            b->sent += (uint64_t)n;
        } else if (errno != EINTR) {
            b->errors++;
            done++;
        }
    }
}

static void echo_or_fan(bare *b, bool fan)
{
    static struct mmsghdr in[BATCH_MAX], out[BATCH_MAX * COPIES_MAX];
    static struct iovec space[BATCH_MAX], pieces[BATCH_MAX];
    static struct sockaddr_in from[BATCH_MAX], to[BATCH_MAX * COPIES_MAX];
    static uint8_t data[BATCH_MAX][DATAGRAM_CAP];
    static _Alignas(8) uint8_t control[BATCH_MAX][CONTROL_CAP];
    for (unsigned i = 0; i < b->batch; i++)
        space[i] = (struct iovec){ data[i], DATAGRAM_CAP };
    while (!stopping) {
        for (unsigned i = 0; i < b->batch; i++)
            in[i].msg_hdr = (struct msghdr){ .msg_name = &from[i], .msg_namelen = sizeof from[i], .msg_iov = &space[i],
                                             .msg_iovlen = 1, .msg_control = b->pktinfo ? control[i] : NULL,
                                             .msg_controllen = b->pktinfo ? CONTROL_CAP : 0 };
        int n = recvmmsg(b->fd, in, b->batch, MSG_WAITFORONE, NULL);
        if (n <= 0)
            continue;
        b->calls_in++;
        b->received += (uint64_t)n;
        unsigned count = 0;
        for (int i = 0; i < n; i++) {
            pieces[i] = (struct iovec){ data[i], b->out_bytes ? b->out_bytes : in[i].msg_len };
            for (unsigned copy = 0; copy < b->copies; copy++, count++) {
                struct sockaddr_in *target = &from[i];
                if (fan) {
                    target = &to[count];
                    *target = b->to;
                    target->sin_addr.s_addr = htonl(ntohl(b->to.sin_addr.s_addr) + b->next);
                    b->next = b->next + 1 == b->spread ? 0 : b->next + 1;
                }
                out[count].msg_hdr = (struct msghdr){ .msg_name = target, .msg_namelen = sizeof *target,
                                                      .msg_iov = &pieces[i], .msg_iovlen = 1 };
                if (b->pktinfo) { /* what was received names the address to answer from */
                    struct in_pktinfo *info = (void *)CMSG_DATA((struct cmsghdr *)(void *)control[i]);
                    info->ipi_ifindex = 0;
                    out[count].msg_hdr.msg_control = control[i];
                    out[count].msg_hdr.msg_controllen = CMSG_SPACE(sizeof *info);
                }
            }
        }
        send_all(b, out, count);
    }
}

static void train(bare *b)
{
    enum { TRAINS = 16 };
    static struct mmsghdr in[TRAINS], out[TRAINS];
    static struct iovec space[TRAINS], pieces[TRAINS];
    static uint8_t data[TRAINS][TRAIN_CAP];
    static _Alignas(8) uint8_t control[TRAINS][CONTROL_CAP], segment[TRAINS][CONTROL_CAP];
    int on = 1;
    if (setsockopt(b->fd, SOL_UDP, UDP_GRO, &on, sizeof on))
        fail("UDP_GRO");
    while (!stopping) {
        for (unsigned i = 0; i < TRAINS; i++) {
            space[i] = (struct iovec){ data[i], TRAIN_CAP };
            in[i].msg_hdr = (struct msghdr){ .msg_iov = &space[i], .msg_iovlen = 1, .msg_control = control[i],
                                             .msg_controllen = CONTROL_CAP };
        }
        int n = recvmmsg(b->fd, in, TRAINS, MSG_WAITFORONE, NULL);
        if (n <= 0)
            continue;
        b->calls_in++;
        for (int i = 0; i < n; i++) {
            uint16_t size = 0;
            for (struct cmsghdr *c = CMSG_FIRSTHDR(&in[i].msg_hdr); c; c = CMSG_NXTHDR(&in[i].msg_hdr, c))
                if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
                    int value;
                    memcpy(&value, CMSG_DATA(c), sizeof value);
                    size = (uint16_t)value;
                }
            b->received += size ? (in[i].msg_len + size - 1) / size : 1;
            pieces[i] = (struct iovec){ data[i], in[i].msg_len };
            out[i].msg_hdr = (struct msghdr){ .msg_name = &b->to, .msg_namelen = sizeof b->to, .msg_iov = &pieces[i],
                                              .msg_iovlen = 1 };
            if (size && size < in[i].msg_len) {
                struct cmsghdr *c = (void *)segment[i];
                *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof size), .cmsg_level = SOL_UDP,
                                       .cmsg_type = UDP_SEGMENT };
                memcpy(CMSG_DATA(c), &size, sizeof size);
                out[i].msg_hdr.msg_control = segment[i];
                out[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof size);
            }
        }
        send_all(b, out, (unsigned)n);
    }
}

int main(int argc, char **argv)
{
    static bare b = { .batch = 64, .copies = 1, .spread = 1 };
    struct sockaddr_in listen_at = { 0 };
    unsigned seconds = 600;
    if (argc < 2)
        fail("usage: bare echo|fan|train --listen ADDR:PORT [--to ADDR:PORT --spread N --copies K] [--batch N] "
             "[--out-bytes N] [--pktinfo] [--seconds N]");
    const char *mode = argv[1];
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--pktinfo")) {
            b.pktinfo = true;
            continue;
        }
        const char *value = option_value(argc, argv, &i);
        if (!strcmp(name, "--listen"))
            listen_at = option_endpoint(name, value);
        else if (!strcmp(name, "--to"))
            b.to = option_endpoint(name, value);
        else if (!strcmp(name, "--copies"))
            b.copies = (unsigned)option_number(name, value, 1, COPIES_MAX);
        else if (!strcmp(name, "--spread"))
            b.spread = (unsigned)option_number(name, value, 1, 1 << 23);
        else if (!strcmp(name, "--batch"))
            b.batch = (unsigned)option_number(name, value, 1, BATCH_MAX);
        else if (!strcmp(name, "--out-bytes"))
            b.out_bytes = (unsigned)option_number(name, value, 0, DATAGRAM_CAP);
        else if (!strcmp(name, "--seconds"))
            seconds = (unsigned)option_number(name, value, 1, 86400);
        else
            fail("unknown option");
    }
    bool echo = !strcmp(mode, "echo"), fan = !strcmp(mode, "fan");
    if ((!echo && !fan && strcmp(mode, "train") != 0) || !listen_at.sin_port || (!echo && !b.to.sin_port))
        fail("--listen, and --to for fan and train, are needed");

    b.fd = socket(AF_INET, SOCK_DGRAM, 0);
    int on = 1, room = 4 << 20;
    if (b.fd < 0 || (b.pktinfo && setsockopt(b.fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof on)))
        fail("socket");
    setsockopt(b.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room); /* as a daemon gets it: up to rmem_max */
    setsockopt(b.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (bind(b.fd, (struct sockaddr *)&listen_at, sizeof listen_at))
        fail("bind");
    struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART: recvmmsg must return */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    alarm(seconds);
    if (echo || fan)
        echo_or_fan(&b, fan);
    else
        train(&b);
    printf("{\"received\":%llu,\"sent\":%llu,\"calls_in\":%llu,\"calls_out\":%llu,\"errors\":%llu}\n",
           (unsigned long long)b.received, (unsigned long long)b.sent, (unsigned long long)b.calls_in,
           (unsigned long long)b.calls_out, (unsigned long long)b.errors);
    return 0;
}
