/* What the parts of the load program share. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <time.h>

#include "frame.h"
#include "options.h"

#define BATCH 32
#define TRAIN_MAX 45
#define SLOT_BYTES 65536u
#define SNAP_BYTES 1536u
#define RING (1u << 18)
#define SOCKETS_MAX 16
#define TARGETS_MAX 16
#define CONTROL_CAP 96
#define BUCKETS 2048 /* of the latency histogram: 32 for each power of two of nanoseconds */
#define SECOND 1000000000ll
#define MILLISECOND 1000000ll
#define SLICE_NS (20 * MILLISECOND) /* of the measured time … */
#define SLICE_LEAST 200             /* … with so many delays at least, has a p99 */
#define SLICES_MAX 30000

enum workload { W_PING, W_PUBLISH, W_DUPLICATE, W_STREAM, W_JOIN, W_GARBAGE, W_STUN, WORKLOADS };

typedef struct target {
    struct sockaddr_in at;
    char peer_id[64]; /* hex, learned from its first ping to us */
} target;

typedef struct endpoint {
    char peer_id[64]; /* hex */
    int64_t asked_ns; /* last connection ping */
    unsigned asked;   /* how many */
    bool proven, known;
} endpoint;

typedef struct outgoing {
    struct mmsghdr messages[BATCH];
    struct iovec pieces[BATCH];
    uint8_t (*data)[SLOT_BYTES];
    _Alignas(8) uint8_t control[BATCH][CONTROL_CAP];
} outgoing;

typedef struct incoming {
    struct mmsghdr messages[2 * BATCH];
    struct iovec pieces[2 * BATCH];
    struct sockaddr_in from[2 * BATCH];
    uint8_t data[2 * BATCH][SNAP_BYTES];
    _Alignas(8) uint8_t control[2 * BATCH][CONTROL_CAP];
} incoming;

typedef struct sent_at {
    uint64_t number;
    int64_t at_ns; /* -1 once it was answered */
} sent_at;

typedef struct histogram {
    uint64_t bucket[BUCKETS], timed;
} histogram;

typedef struct snapshot { /* taken where the measured time begins and ends */
    int64_t at_ns, server_cpu_ns, own_cpu_ns;
    uint64_t sent, sent_bytes, answers, answer_bytes, own_drops, server_overruns, pongs_given, type[TYPES];
} snapshot;

typedef struct load {
    enum workload workload;
    bool srp, known, flood;
    unsigned sockets, addresses, cluster_size, window, train, nap_us;
    double seconds, warm_seconds, rate;
    uint64_t count, fill;
    uint32_t base;
    uint16_t port;
    pid_t server;
    target targets[TARGETS_MAX];
    unsigned target_count;

    int fd[SOCKETS_MAX];
    endpoint *endpoints;
    unsigned endpoint_count, known_count;
    outgoing out;
    incoming in;
    sent_at ring[RING];
    histogram whole, slice; /* delays of all the measured time, and of its running slice */
    double slice_p99_us[SLICES_MAX];
    unsigned slices;
    int64_t slice_ns; /* when it began */
    bool timing;

    uint64_t first_number, cursor; /* numbers are unique over all runs */
    uint64_t sent, sent_bytes, answers, answer_bytes, type[TYPES], other, forgiven, pongs_given;
    uint64_t open, open_from; /* closed loop: unanswered, of the numbers from there on */
    size_t ping_peer_at, ping_id_at;
    int64_t lag_ns;
} load;

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static inline int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / MILLISECOND;
}

/* Endpoints: socket s owns numbers s*addresses … , one for each address. */

static inline uint32_t endpoint_address(const load *l, unsigned index)
{
    return l->base + index % l->addresses;
}

static inline target *endpoint_target(load *l, unsigned index)
{
    return &l->targets[index % l->target_count];
}

static inline void endpoint_cluster(const load *l, unsigned index, uint8_t out[ID_BYTES])
{
    id_of(index / l->cluster_size, 7, out);
}

static inline void address_text(uint32_t address, char out[INET_ADDRSTRLEN])
{
    struct in_addr a = { htonl(address) };
    inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
}

/* send.c */
void build_templates(load *l); /* for the workload; again when it changes */
void send_batch(load *l, unsigned count);
void send_connection_ping(load *l, unsigned index);
void answer_ping(load *l, unsigned index, const struct sockaddr_in *from, const uint8_t *data, size_t len);

/* receive.c */
unsigned receive(load *l, unsigned batches);
double quantile_us(const histogram *h, double q);
void end_slice(load *l, int64_t now);  /* when it has lasted long enough */
double median_slice_p99_us(load *l);   /* of the whole time when that was shorter than a slice */

#endif
