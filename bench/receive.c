/* What comes back to the load: counted by type, matched with what was sent, timed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>

#include "load.h"

static const uint8_t sent_type[] = { PING, PUBLISH, PUBLISH, STREAM, JOIN, 0, 0 };
static const uint8_t node_answer[] = { PONG, PUBLISH, 0, STREAM, INTRO, 0, 0 };

static unsigned bucket_of(int64_t ns)
{
    uint64_t v = ns < 1 ? 1 : (uint64_t)ns;
    unsigned log = 63u - (unsigned)__builtin_clzll(v);
    unsigned fine = log >= 5 ? (unsigned)(v >> (log - 5)) & 31 : (unsigned)(v << (5 - log)) & 31;
    unsigned bucket = log * 32 + fine;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

double quantile_us(const histogram *h, double q)
{
    uint64_t wanted = (uint64_t)ceil(q * (double)h->timed), seen = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += h->bucket[b];
        if (seen && seen >= wanted)
            return ldexp(1.0 + (b % 32 + 0.5) / 32.0, (int)(b / 32)) / 1e3;
    }
    return 0;
}

/* A pause of a virtual machine of 10 ms is all that a p99 of a whole second would show, whoever was paused. */
void end_slice(load *l, int64_t now)
{
    if (now - l->slice_ns < SLICE_NS)
        return;
    if (l->slice.timed >= SLICE_LEAST && l->slices < SLICES_MAX)
        l->slice_p99_us[l->slices++] = quantile_us(&l->slice, 0.99);
    memset(&l->slice, 0, sizeof l->slice);
    l->slice_ns = now;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median_slice_p99_us(load *l)
{
    if (!l->slices)
        return quantile_us(&l->whole, 0.99);
    qsort(l->slice_p99_us, l->slices, sizeof *l->slice_p99_us, by_size);
    return l->slice_p99_us[l->slices / 2];
}

static void time_answer(histogram *h, int64_t delay_ns)
{
    h->bucket[bucket_of(delay_ns)]++;
    h->timed++;
}

/* Matches the first answer to each datagram with when that was sent: its delay, and room in the closed loop. */
static void match_answer(load *l, uint64_t number, int64_t at)
{
    sent_at *s = &l->ring[number % RING];
    if (s->number != number || s->at_ns < 0)
        return; /* of an earlier run, long overdue, or another copy: an ejected packet comes back late */
    if (number >= l->open_from)
        l->open--;
    if (l->timing) {
        time_answer(&l->whole, at - s->at_ns);
        time_answer(&l->slice, at - s->at_ns);
    }
    s->at_ns = -1;
}

static void take(load *l, unsigned index, const struct sockaddr_in *from, const uint8_t *data, size_t len, size_t whole,
                 int64_t at)
{
    uint64_t number = 0;
    bool timed = false, answer;
    if (l->workload == W_STUN) {
        answer = whole >= 20;
        timed = answer;
        if (timed)
            memcpy(&number, data + 8, sizeof number);
    } else {
        uint8_t type = len > TYPE_AT ? data[TYPE_AT] : 0;
        if (type >= TYPES) {
            l->other++;
            return;
        }
        l->type[type]++;
        if (l->srp && type == PING) {
            answer_ping(l, index, from, data, len);
            return;
        }
        if (l->srp && type == PONG && !l->endpoints[index].known && has_true(data, len, "isConnection")) {
            l->endpoints[index].known = true;
            l->known_count++;
            return;
        }
        answer = type == (l->srp ? node_answer : sent_type)[l->workload];
        if (!answer)
            return;
        if (l->workload == W_PING)
            timed = ping_id_read(data, len, &number);
        else {
            size_t offset = l->workload == W_JOIN ? SUBCLUSTER_AT : FULL_MESSAGE_AT;
            timed = len >= offset + sizeof number;
            if (timed)
                memcpy(&number, data + offset, sizeof number);
        }
    }
    l->answers += answer;
    l->answer_bytes += whole;
    if (timed)
        match_answer(l, number, at);
}

/* Reads what is there, at most `batches` calls for each socket; returns how many datagrams came. */
unsigned receive(load *l, unsigned batches)
{
    incoming *in = &l->in;
    unsigned total = 0;
    for (unsigned s = 0; s < l->sockets; s++)
        for (unsigned batch = 0; batch < batches; batch++) {
            for (unsigned i = 0; i < 2 * BATCH; i++) {
                in->pieces[i] = (struct iovec){ in->data[i], SNAP_BYTES };
                in->messages[i].msg_hdr = (struct msghdr){ .msg_name = &in->from[i], .msg_namelen = sizeof in->from[i],
                                                           .msg_iov = &in->pieces[i], .msg_iovlen = 1,
                                                           .msg_control = in->control[i], .msg_controllen = CONTROL_CAP };
            }
            int n = recvmmsg(l->fd[s], in->messages, 2 * BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
            int64_t at = now_ns();
            for (int i = 0; i < n; i++) {
                struct in_pktinfo info = { 0 };
                memcpy(&info, CMSG_DATA((struct cmsghdr *)(void *)in->control[i]), sizeof info);
                uint32_t address = ntohl(info.ipi_addr.s_addr) - l->base;
                if (address >= l->addresses)
                    l->other++;
                else
                    take(l, s * l->addresses + address, &in->from[i], in->data[i],
                         in->messages[i].msg_len < SNAP_BYTES ? in->messages[i].msg_len : SNAP_BYTES,
                         in->messages[i].msg_len, at);
            }
            total += n > 0 ? (unsigned)n : 0;
            if (n < 2 * BATCH)
                break;
        }
    return total;
}
