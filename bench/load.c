/* The load of the bench: thousands of source endpoints out of a few sockets, closed or open loop, answers counted and timed.
 *
 *   load WORKLOAD --to ADDR:PORT[,ADDR:PORT…] [options]          prints one JSON object
 *
 * A socket is bound to 0.0.0.0 and sends from any address of 127.0.0.0/8 (IP_PKTINFO), so it owns as many endpoints as there are
 * addresses. Workloads:
 *   ping       heartbeat pings as the reference peer writes them; answered by a pong, or by themselves (bare)
 *   publish    unique packets with every field full, 1421 bytes; answers are the relayed copies
 *   duplicate  64 of those, again and again: nothing answers
 *   stream     trains of full stream packets to one destination, which is the last endpoint
 *   join       joins, each for a subcluster of its own; answers are the introductions
 *   garbage    200 random bytes: nothing answers
 *   stun       STUN binding requests of about a ping's size
 *
 *   --srp               the target is a node: first make every endpoint a known peer of it, as a client would (connection ping with
 *                       natType 31, answers to its pings), and answer its pings all along. Without: a bare program.
 *   --known             with --srp: an earlier run made the endpoints known, do not repeat it
 *   --endpoints N       1000: from --base (127.1.0.1) upwards, on each of --sockets N (1) ports from --port (20000)
 *   --cluster-size N    20 endpoints share a cluster
 *   --window N          closed loop: at most N (1024) of which no answer came, however many answers each has
 *   --rate N            open loop: N datagrams a second; --flood: as fast as it goes
 *   --fill N            first publishes N unique packets, to fill a cache
 *   --seconds S --warm-seconds S     measured time, and what runs before it
 *   --count N           sends exactly N instead, without a warm-up, and waits for the answers
 *   --train N           datagrams in a train (stream)
 *   --server-pid PID    its CPU time is read where the measured time begins and ends
 *
 * Everything is bounded: time by --seconds and a watchdog, targets to loopback. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <math.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

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
#define PREPARE_RETRY_NS (100 * MILLISECOND)

enum workload { W_PING, W_PUBLISH, W_DUPLICATE, W_STREAM, W_JOIN, W_GARBAGE, W_STUN, WORKLOADS };
static const char *const workload_names[] = { "ping", "publish", "duplicate", "stream", "join", "garbage", "stun" };
static const uint8_t sent_type[] = { PING, PUBLISH, PUBLISH, STREAM, JOIN, 0, 0 };
static const uint8_t node_answer[] = { PONG, PUBLISH, 0, STREAM, INTRO, 0, 0 };

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

typedef struct snapshot { /* taken where the measured time begins and ends */
    int64_t at_ns, server_cpu_ns, own_cpu_ns;
    uint64_t sent, sent_bytes, answers, answer_bytes, own_drops, server_overruns, pongs_given, type[TYPES];
} snapshot;

typedef struct load {
    enum workload workload;
    bool srp, known, flood;
    unsigned sockets, addresses, cluster_size, window, train;
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
    uint64_t histogram[BUCKETS], timed;
    bool timing;

    uint64_t first_number, cursor; /* numbers are unique over all runs */
    uint64_t sent, sent_bytes, answers, answer_bytes, type[TYPES], other, forgiven, pongs_given;
    uint64_t open, open_from; /* closed loop: unanswered, of the numbers from there on */
    size_t ping_peer_at, ping_id_at;
    int64_t lag_ns;
} load;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / MILLISECOND;
}

/* CPU time of a whole process, all its threads, exact. 0 without a process. */
static int64_t cpu_ns_of(pid_t process)
{
    clockid_t clock;
    struct timespec t;
    if (!process || clock_getcpuclockid(process, &clock) || clock_gettime(clock, &t))
        return 0;
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* Datagrams that any socket of this network namespace lost to a full receive buffer. */
static uint64_t buffer_overruns(void)
{
    FILE *f = fopen("/proc/net/snmp", "r");
    char line[512];
    unsigned long long value = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Udp: %*u %*u %*u %*u %llu", &value) == 1)
            break;
    if (f)
        fclose(f);
    return value;
}

static uint64_t own_drops(const load *l)
{
    uint64_t sum = 0;
    for (unsigned s = 0; s < l->sockets; s++) {
        uint32_t info[16] = { 0 }; /* SK_MEMINFO_DROPS is 8 */
        socklen_t len = sizeof info;
        if (!getsockopt(l->fd[s], SOL_SOCKET, SO_MEMINFO, info, &len))
            sum += info[8];
    }
    return sum;
}

/* Endpoints: socket s owns numbers s*addresses … , one for each address. */

static uint32_t endpoint_address(const load *l, unsigned index)
{
    return l->base + index % l->addresses;
}

static target *endpoint_target(load *l, unsigned index)
{
    return &l->targets[index % l->target_count];
}

static void endpoint_cluster(const load *l, unsigned index, uint8_t out[ID_BYTES])
{
    id_of(index / l->cluster_size, 7, out);
}

static void address_text(uint32_t address, char out[INET_ADDRSTRLEN])
{
    struct in_addr a = { htonl(address) };
    inet_ntop(AF_INET, &a, out, INET_ADDRSTRLEN);
}

/* Sending */

static size_t control_source(uint8_t *control, uint32_t address)
{
    struct cmsghdr *c = (void *)control;
    *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo)), .cmsg_level = IPPROTO_IP,
                           .cmsg_type = IP_PKTINFO };
    struct in_pktinfo info = { .ipi_spec_dst.s_addr = htonl(address) };
    memcpy(CMSG_DATA(c), &info, sizeof info);
    return CMSG_SPACE(sizeof info);
}

static size_t control_segment(uint8_t *control, uint16_t bytes_each)
{
    struct cmsghdr *c = (void *)control;
    *c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof bytes_each), .cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT };
    memcpy(CMSG_DATA(c), &bytes_each, sizeof bytes_each);
    return CMSG_SPACE(sizeof bytes_each);
}

static void send_one(load *l, unsigned index, const struct sockaddr_in *to, const void *data, size_t len)
{
    _Alignas(8) uint8_t control[CONTROL_CAP];
    struct iovec piece = { (void *)(uintptr_t)data, len };
    struct msghdr m = { .msg_name = (void *)(uintptr_t)to, .msg_namelen = sizeof *to, .msg_iov = &piece, .msg_iovlen = 1,
                        .msg_control = control, .msg_controllen = control_source(control, endpoint_address(l, index)) };
    sendmsg(l->fd[index / l->addresses], &m, 0);
}

static void send_connection_ping(load *l, unsigned index)
{
    char message[512], id[13];
    uint8_t cluster[ID_BYTES], datagram[DATAGRAM_MAX];
    endpoint *e = &l->endpoints[index];
    ping_id_write(l->first_number + index, id);
    int n = snprintf(message, sizeof message,
                     "{\"requesterPeerId\":\"%.64s\",\"natType\":31,\"isConnection\":true,\"pingId\":\"%.13s\",\"uptime\":30000,"
                     "\"timestamp\":%lld}", e->peer_id, id, (long long)wall_ms());
    endpoint_cluster(l, index, cluster);
    frame f = { .type = PING, .cluster = { cluster, ID_BYTES }, .message = { message, (size_t)n } };
    send_one(l, index, &endpoint_target(l, index)->at, datagram, frame_write(&f, datagram));
    e->asked_ns = now_ns();
    e->asked++;
}

/* As any peer answers a ping: this proves the endpoint, and keeps it alive later. */
static void answer_ping(load *l, unsigned index, const struct sockaddr_in *from, const uint8_t *data, size_t len)
{
    char message[1024], ping_id[16], reflection_id[16], requester[64], address[INET_ADDRSTRLEN];
    uint8_t datagram[DATAGRAM_MAX];
    if (text_of(data, len, "requesterPeerId", requester, sizeof requester) != sizeof requester)
        return;
    size_t ping = text_of(data, len, "pingId", ping_id, sizeof ping_id);
    size_t reflection = text_of(data, len, "reflectionId", reflection_id, sizeof reflection_id);
    address_text(ntohl(from->sin_addr.s_addr), address);
    int n = snprintf(message, sizeof message,
                     "{\"requesterPeerId\":\"%.64s\",\"responderPeerId\":\"%.64s\","
                     "\"cacheSummaryHash\":\"da39a3ee5e6b4b0d3255bfef95601890afd80709\",\"port\":%u,\"address\":\"%s\","
                     "\"uptime\":30000,\"cacheSize\":0%s", requester, l->endpoints[index].peer_id,
                     (unsigned)ntohs(from->sin_port), address,
                     has_true(data, len, "isReflection") ? ",\"isReflection\":true" : ",\"natType\":31");
    if (reflection)
        n += snprintf(message + n, sizeof message - (size_t)n, ",\"reflectionId\":\"%.*s\"", (int)reflection, reflection_id);
    if (ping)
        n += snprintf(message + n, sizeof message - (size_t)n, ",\"pingId\":\"%.*s\"", (int)ping, ping_id);
    message[n++] = '}';
    frame f = { .type = PONG, .message = { message, (size_t)n } };
    send_one(l, index, from, datagram, frame_write(&f, datagram));
    memcpy(endpoint_target(l, index)->peer_id, requester, sizeof requester);
    l->pongs_given++;
    l->endpoints[index].proven = true;
}

/* Templates: written once into every slot, then only what differs is patched. */

static size_t full_packet(const load *l, uint8_t type, uint64_t number, uint8_t *out)
{
    uint8_t cluster[ID_BYTES], id[ID_BYTES], message[MESSAGE_MAX], sig[64];
    for (unsigned i = 0; i < MESSAGE_MAX / ID_BYTES; i++)
        id_of(number, 100 + i, message + i * ID_BYTES);
    memcpy(message, &number, sizeof number);
    id_of(l->first_number, 8, cluster); /* nobody's: cluster members would be chosen on top */
    id_of(number, 9, id);
    id_of(number, 10, sig);
    id_of(number, 11, sig + ID_BYTES);
    frame f = { .type = type, .hops = 1, .cluster = { cluster, ID_BYTES }, .subcluster = { cluster, ID_BYTES },
                .previous = { id, ID_BYTES }, .packet = { id, ID_BYTES }, .next = { id, ID_BYTES },
                .usr1 = { id, ID_BYTES }, .usr2 = { id, ID_BYTES }, .usr3 = { id, ID_BYTES }, .usr4 = { id, ID_BYTES },
                .message = { message, MESSAGE_MAX }, .sig = { sig, sizeof sig } };
    if (type == STREAM)
        id_of(l->endpoint_count - 1, 0, (uint8_t *)(uintptr_t)f.usr3.at); /* destination; usr4 is patched */
    return frame_write(&f, out);
}

static size_t ping_template(load *l, uint8_t *out)
{
    char message[512];
    uint8_t cluster[ID_BYTES], packet[ID_BYTES];
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    int n = snprintf(message, sizeof message,
                     "{\"requesterPeerId\":\"%s\",\"natType\":31,\"uptime\":30000,\"timestamp\":%lld,\"pingId\":\"%.13s\"}",
                     zeros, (long long)wall_ms(), zeros);
    id_of(0, 7, cluster);
    id_of(0, 9, packet);
    frame f = { .type = PING, .cluster = { cluster, ID_BYTES }, .packet = { packet, ID_BYTES },
                .message = { message, (size_t)n } };
    size_t len = frame_write(&f, out);
    l->ping_peer_at = len - 3 - (size_t)n + 20; /* 3: the sig that follows; 20: {"requesterPeerId":" */
    l->ping_id_at = len - 3 - 2 - 13;
    return len;
}

static size_t stun_template(uint8_t *out)
{
    static const uint8_t head[] = { 0, 1, 1, 8, 0x21, 0x12, 0xa4, 0x42 }; /* binding request, 264 bytes of attributes */
    memset(out, 'x', 20 + 264);
    memcpy(out, head, sizeof head);
    for (unsigned a = 0; a < 2; a++)
        memcpy(out + 20 + 132 * a, (const uint8_t[]){ 0x80, 0x22, 0, 128 }, 4); /* SOFTWARE */
    return 20 + 264;
}

static void build_templates(load *l)
{
    if (!l->out.data)
        l->out.data = calloc(BATCH, SLOT_BYTES);
    if (!l->out.data)
        fail("memory");
    for (unsigned slot = 0; slot < BATCH; slot++) {
        uint8_t *data = l->out.data[slot];
        size_t len = 0;
        switch (l->workload) {
        case W_PING:
            len = ping_template(l, data);
            break;
        case W_PUBLISH:
        case W_DUPLICATE:
            len = full_packet(l, PUBLISH, l->first_number + slot, data);
            break;
        case W_STREAM:
            for (unsigned i = 0; i < l->train; i++)
                len += full_packet(l, STREAM, l->first_number + slot, data + len);
            break;
        case W_GARBAGE:
            len = 200;
            for (unsigned i = 0; i < len; i += ID_BYTES)
                id_of(l->first_number + slot, i, data + i);
            data[0] = 0xff; /* never the magic */
            break;
        case W_STUN:
            len = stun_template(data);
            break;
        default:
            break; /* joins are written whole */
        }
        l->out.pieces[slot] = (struct iovec){ data, len };
    }
}

/* A join as the reference writes it: its key names cluster and subcluster in base64, which here carries the number. */
static size_t write_join(const load *l, unsigned index, uint64_t number, uint8_t *out)
{
    char message[512], address[INET_ADDRSTRLEN], text[65];
    uint8_t cluster[ID_BYTES], subcluster[ID_BYTES];
    endpoint_cluster(l, index, cluster);
    id_of(number, 12, subcluster);
    memcpy(subcluster, &number, sizeof number);
    hex_of(subcluster, ID_BYTES, text);
    address_text(endpoint_address(l, index), address);
    int n = snprintf(message, sizeof message,
                     "{\"requesterPeerId\":\"%.64s\",\"natType\":31,\"address\":\"%s\",\"port\":%u,"
                     "\"key\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:%.43s=\"}",
                     l->endpoints[index].peer_id, address, l->port + index / l->addresses, text);
    frame f = { .type = JOIN, .hops = 1, .cluster = { cluster, ID_BYTES }, .subcluster = { subcluster, ID_BYTES },
                .message = { message, (size_t)n } };
    return frame_write(&f, out);
}

/* Makes the slot's datagram that of this endpoint and number; returns how many datagrams it is. */
static unsigned patch(load *l, unsigned slot, unsigned index, uint64_t number)
{
    uint8_t *data = l->out.data[slot];
    switch (l->workload) {
    case W_PING:
        memcpy(data + l->ping_peer_at, l->endpoints[index].peer_id, 64);
        ping_id_write(number, (char *)data + l->ping_id_at);
        endpoint_cluster(l, index, data + 25);
        break;
    case W_PUBLISH:
        memcpy(data + FULL_MESSAGE_AT, &number, sizeof number);
        sha256_of(data + FULL_MESSAGE_AT, MESSAGE_MAX, data + PACKET_ID_AT);
        break;
    case W_STREAM:
        for (unsigned i = 0; i < l->train; i++, data += DATAGRAM_MAX) {
            uint64_t each = number + i;
            memcpy(data + FULL_MESSAGE_AT, &each, sizeof each);
            memcpy(data + PACKET_ID_AT, &each, sizeof each);
            id_of(index, 0, data + FULL_MESSAGE_AT - 2 - ID_BYTES); /* usr4: source */
        }
        return l->train;
    case W_JOIN:
        l->out.pieces[slot].iov_len = write_join(l, index, number, data);
        break;
    case W_STUN:
        memcpy(data + 8, &number, sizeof number);
        break;
    default:
        break;
    }
    return 1;
}

/* Sends up to `count` slots from one socket; endpoints are taken in an order without locality. */
static void send_batch(load *l, unsigned count)
{
    static unsigned turn;
    unsigned socket_index = turn++ % l->sockets;
    unsigned addresses = l->addresses - (l->workload == W_STREAM && l->addresses > 1); /* the last one only receives */
    uint64_t datagrams = 0;
    for (unsigned slot = 0; slot < count; slot++) {
        unsigned index = socket_index * l->addresses + (unsigned)(l->cursor++ * 2654435761u % addresses);
        uint64_t number = l->first_number + l->sent + datagrams;
        datagrams += patch(l, slot, index, number);
        struct msghdr *m = &l->out.messages[slot].msg_hdr;
        size_t control = control_source(l->out.control[slot], endpoint_address(l, index));
        if (l->train > 1)
            control += control_segment(l->out.control[slot] + control, DATAGRAM_MAX);
        *m = (struct msghdr){ .msg_name = &endpoint_target(l, index)->at, .msg_namelen = sizeof(struct sockaddr_in),
                              .msg_iov = &l->out.pieces[slot], .msg_iovlen = 1, .msg_control = l->out.control[slot],
                              .msg_controllen = control };
        l->sent_bytes += l->out.pieces[slot].iov_len;
    }
    int64_t at = now_ns();
    for (uint64_t i = 0; i < datagrams; i++) {
        uint64_t number = l->first_number + l->sent + i;
        l->ring[number % RING] = (sent_at){ number, at };
    }
    l->sent += datagrams;
    l->open += datagrams;
    for (unsigned done = 0; done < count;) {
        int n = sendmmsg(l->fd[socket_index], l->out.messages + done, count - done, 0);
        if (n < 0 && errno != EINTR && errno != ENOBUFS && errno != EAGAIN)
            fail("sendmmsg");
        done += n > 0 ? (unsigned)n : 0;
    }
}

/* Receiving */

static unsigned bucket_of(int64_t ns)
{
    uint64_t v = ns < 1 ? 1 : (uint64_t)ns;
    unsigned log = 63u - (unsigned)__builtin_clzll(v);
    unsigned fine = log >= 5 ? (unsigned)(v >> (log - 5)) & 31 : (unsigned)(v << (5 - log)) & 31;
    unsigned bucket = log * 32 + fine;
    return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double quantile_us(const load *l, double q)
{
    uint64_t wanted = (uint64_t)ceil(q * (double)l->timed), seen = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        seen += l->histogram[b];
        if (seen && seen >= wanted)
            return ldexp(1.0 + (b % 32 + 0.5) / 32.0, (int)(b / 32)) / 1e3;
    }
    return 0;
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
        l->histogram[bucket_of(at - s->at_ns)]++;
        l->timed++;
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
static unsigned receive(load *l, unsigned batches)
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

/* 100 ms, doubled with each try up to 1.6 s: a slow node must not drown in repetitions. */
static int64_t retry_after_ns(const endpoint *e)
{
    return PREPARE_RETRY_NS << (e->asked > 5 ? 4 : e->asked - 1);
}

/* Every endpoint becomes a known peer: connection ping, answer to the proof ping, connection ping again when the first was lost
 * before the proof. At most `window` wait at a time, so that a slow node is not starved. Returns the seconds it took. */
static double prepare(load *l)
{
    int64_t start = now_ns(), deadline = start + (int64_t)(60 + l->endpoint_count / 50) * SECOND;
    unsigned window = l->window < 64 ? l->window : 64, first = 0, next = 0;
    while (l->known_count < l->endpoint_count) {
        int64_t now = now_ns();
        if (now > deadline) {
            fprintf(stderr, "load: %u of %u endpoints became known\n", l->known_count, l->endpoint_count);
            exit(1);
        }
        while (first < next && l->endpoints[first].known)
            first++;
        for (unsigned i = first; i < next; i++)
            if (!l->endpoints[i].known && now - l->endpoints[i].asked_ns > retry_after_ns(&l->endpoints[i]))
                send_connection_ping(l, i);
        for (; next < l->endpoint_count && next - l->known_count < window; next++)
            send_connection_ping(l, next);
        if (!receive(l, 4))
            usleep(50);
    }
    for (int quiet = 0; quiet < 20; quiet++) { /* syncs and late pongs run out */
        usleep(5000);
        if (receive(l, 64))
            quiet = 0;
        if (now_ns() > deadline)
            break;
    }
    return (double)(now_ns() - start) / 1e9;
}

static snapshot take_snapshot(const load *l)
{
    snapshot s = { .at_ns = now_ns(), .server_cpu_ns = cpu_ns_of(l->server), .own_cpu_ns = cpu_ns_of(getpid()),
                   .sent = l->sent, .sent_bytes = l->sent_bytes, .answers = l->answers, .answer_bytes = l->answer_bytes,
                   .own_drops = own_drops(l), .server_overruns = buffer_overruns(),
                   .pongs_given = l->pongs_given };
    memcpy(s.type, l->type, sizeof s.type);
    return s;
}

typedef struct pace {
    int64_t start_ns, progress_ns;
    uint64_t start_sent, answers;
} pace;

/* How many slots may go now. */
static unsigned allowed(load *l, pace *p, int64_t now)
{
    uint64_t room = BATCH;
    if (l->rate > 0) {
        double due = (double)(now - p->start_ns) * 1e-9 * l->rate;
        double behind = due - (double)(l->sent - p->start_sent);
        room = behind < l->train ? 0 : (uint64_t)(behind / l->train);
        int64_t lag = (int64_t)(behind / l->rate * 1e9);
        if (l->timing && lag > l->lag_ns)
            l->lag_ns = lag;
    } else if (!l->flood) {
        if (l->answers != p->answers) {
            p->answers = l->answers;
            p->progress_ns = now;
        } else if (l->open && now - p->progress_ns > 100 * MILLISECOND) { /* the rest is lost: go on */
            l->forgiven += l->open;
            l->open = 0;
            l->open_from = l->first_number + l->sent;
            p->progress_ns = now;
        }
        room = l->open >= l->window ? 0 : (l->window - l->open + l->train - 1) / l->train;
    }
    return room > BATCH ? BATCH : (unsigned)room;
}

static void run(load *l, snapshot *begin, snapshot *end)
{
    int64_t now = now_ns();
    int64_t warm_until = now + (int64_t)(l->warm_seconds * 1e9), limit = now + (int64_t)((l->seconds + l->warm_seconds + 60) * 1e9);
    int64_t until = INT64_MAX;
    pace p = { .start_ns = now, .progress_ns = now, .start_sent = l->sent };
    l->open = 0;
    l->open_from = l->first_number + l->sent;
    bool begun = false;
    for (uint64_t turn = 0;; turn++) {
        now = now_ns();
        if (!begun && now >= warm_until) {
            *begin = take_snapshot(l);
            begun = l->timing = true;
            until = l->count ? INT64_MAX : now + (int64_t)(l->seconds * 1e9);
        }
        if (now >= until || now > limit || (begun && l->count && l->sent - begin->sent >= l->count))
            break;
        unsigned slots = allowed(l, &p, now);
        if (begun && l->count) {
            uint64_t left = (l->count - (l->sent - begin->sent) + l->train - 1) / l->train;
            slots = slots > left ? (unsigned)left : slots;
        }
        if (slots)
            send_batch(l, slots);
        if (!l->flood || turn % 8 == 0) /* in a flood only samples are read, the kernel counts the rest */
            receive(l, l->flood ? 1 : 4);
    }
    if (!begun)
        fail("the warm-up did not end in time");
    if (l->count) { /* all answers */
        int64_t quiet_since = now_ns();
        while (now_ns() - quiet_since < 300 * MILLISECOND && now_ns() < limit)
            if (receive(l, 4))
                quiet_since = now_ns();
    }
    *end = take_snapshot(l);
    l->timing = false;
}

/* Publishes --fill packets, in a closed loop at the window's pace. */
static void fill(load *l)
{
    enum workload wanted = l->workload;
    unsigned train = l->train;
    uint64_t count = l->count;
    double warm = l->warm_seconds;
    snapshot ignored;
    l->workload = W_PUBLISH;
    l->train = 1;
    l->count = l->fill;
    l->warm_seconds = 0;
    build_templates(l);
    run(l, &ignored, &ignored);
    l->workload = wanted;
    l->train = train;
    l->count = count;
    l->warm_seconds = warm;
    l->timed = l->forgiven = 0;
    l->lag_ns = 0;
    memset(l->histogram, 0, sizeof l->histogram);
}

static void report(const load *l, const snapshot *a, const snapshot *b, double prepare_s)
{
    double seconds = (double)(b->at_ns - a->at_ns) / 1e9;
    uint64_t drops = b->own_drops - a->own_drops, overruns = b->server_overruns - a->server_overruns;
    printf("{\"workload\":\"%s\",\"endpoints\":%u,\"known\":%u,\"prepare_s\":%.3f,\"seconds\":%.6f,\"sent\":%llu,"
           "\"sent_bytes\":%llu,\"answers\":%llu,\"answer_bytes\":%llu,\"own_drops\":%llu,\"server_overruns\":%llu,"
           "\"forgiven\":%llu,\"server_cpu_s\":%.6f,\"own_cpu_s\":%.6f,\"timed\":%llu,\"p50_us\":%.2f,\"p99_us\":%.2f,"
           "\"p999_us\":%.2f,\"lag_us\":%.1f,\"pongs_given\":%llu,\"other\":%llu,\"types\":[",
           workload_names[l->workload], l->endpoint_count, l->known_count, prepare_s, seconds,
           (unsigned long long)(b->sent - a->sent), (unsigned long long)(b->sent_bytes - a->sent_bytes),
           (unsigned long long)(b->answers - a->answers), (unsigned long long)(b->answer_bytes - a->answer_bytes),
           (unsigned long long)drops, (unsigned long long)(overruns > drops ? overruns - drops : 0),
           (unsigned long long)l->forgiven, (double)(b->server_cpu_ns - a->server_cpu_ns) / 1e9,
           (double)(b->own_cpu_ns - a->own_cpu_ns) / 1e9, (unsigned long long)l->timed, quantile_us(l, 0.5),
           quantile_us(l, 0.99), quantile_us(l, 0.999), (double)l->lag_ns / 1e3, (unsigned long long)(b->pongs_given - a->pongs_given),
           (unsigned long long)l->other);
    for (unsigned type = 0; type < TYPES; type++)
        printf("%s%llu", type ? "," : "", (unsigned long long)(b->type[type] - a->type[type]));
    printf("]}\n");
}

static void open_sockets(load *l)
{
    for (unsigned s = 0; s < l->sockets; s++) {
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)(l->port + s)) };
        int on = 1, room = l->flood ? 256 << 10 : 64 << 20, common = 4 << 20; /* a flood lets the kernel count its answers */
        l->fd[s] = socket(AF_INET, SOCK_DGRAM, 0);
        if (l->fd[s] < 0 || setsockopt(l->fd[s], IPPROTO_IP, IP_PKTINFO, &on, sizeof on))
            fail("socket");
        if (setsockopt(l->fd[s], SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room))
            setsockopt(l->fd[s], SOL_SOCKET, SO_RCVBUF, &common, sizeof common);
        if (bind(l->fd[s], (struct sockaddr *)&at, sizeof at))
            fail("bind");
    }
}

static void parse_targets(load *l, char *list)
{
    for (char *save = NULL, *one = strtok_r(list, ",", &save); one; one = strtok_r(NULL, ",", &save)) {
        if (l->target_count == TARGETS_MAX)
            fail("too many targets");
        l->targets[l->target_count++].at = option_endpoint("--to", one);
    }
}

static void parse(load *l, int argc, char **argv)
{
    if (argc < 2)
        fail("usage: load WORKLOAD --to ADDR:PORT [options]; its source explains them");
    l->workload = WORKLOADS;
    for (unsigned w = 0; w < WORKLOADS; w++)
        if (!strcmp(argv[1], workload_names[w]))
            l->workload = (enum workload)w;
    if (l->workload == WORKLOADS)
        fail("unknown workload");
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--srp")) {
            l->srp = true;
            continue;
        }
        if (!strcmp(name, "--known")) {
            l->known = true;
            continue;
        }
        if (!strcmp(name, "--flood")) {
            l->flood = true;
            continue;
        }
        const char *value = option_value(argc, argv, &i);
        if (!strcmp(name, "--to"))
            parse_targets(l, argv[i]);
        else if (!strcmp(name, "--endpoints"))
            l->endpoint_count = (unsigned)option_number(name, value, 1, 4 << 20);
        else if (!strcmp(name, "--sockets"))
            l->sockets = (unsigned)option_number(name, value, 1, SOCKETS_MAX);
        else if (!strcmp(name, "--base"))
            l->base = (uint32_t)option_number(name, value, 0x7f000001, 0x7ffffffe);
        else if (!strcmp(name, "--port"))
            l->port = (uint16_t)option_number(name, value, 1024, 65535 - SOCKETS_MAX);
        else if (!strcmp(name, "--cluster-size"))
            l->cluster_size = (unsigned)option_number(name, value, 1, 1 << 22);
        else if (!strcmp(name, "--window"))
            l->window = (unsigned)option_number(name, value, 1, 100000);
        else if (!strcmp(name, "--train"))
            l->train = (unsigned)option_number(name, value, 1, TRAIN_MAX);
        else if (!strcmp(name, "--rate"))
            l->rate = (double)option_number(name, value, 1, 10000000);
        else if (!strcmp(name, "--count"))
            l->count = (uint64_t)option_number(name, value, 1, 100000000);
        else if (!strcmp(name, "--fill"))
            l->fill = (uint64_t)option_number(name, value, 0, 100000000);
        else if (!strcmp(name, "--server-pid"))
            l->server = (pid_t)option_number(name, value, 1, 1 << 30);
        else if (!strcmp(name, "--seconds"))
            l->seconds = atof(value);
        else if (!strcmp(name, "--warm-seconds"))
            l->warm_seconds = atof(value);
        else
            fail("unknown option");
    }
    if (!l->target_count || !(l->seconds > 0 && l->seconds <= 600) || !(l->warm_seconds >= 0 && l->warm_seconds <= 600))
        fail("--to and sensible times are needed");
    if (l->workload != W_STREAM)
        l->train = 1;
    if (l->count)
        l->warm_seconds = 0;
    if (l->endpoint_count % l->sockets)
        fail("--endpoints must be a multiple of --sockets");
    l->addresses = l->endpoint_count / l->sockets;
}

int main(int argc, char **argv)
{
    static load l = { .sockets = 1, .endpoint_count = 1000, .base = 0x7f010001, .port = 20000, .cluster_size = 20,
                      .window = 1024, .train = 32, .seconds = 1, .warm_seconds = 0.2 };
    static snapshot begin, end;
    double prepare_s = 0;
    parse(&l, argc, argv);
    alarm((unsigned)(l.seconds + l.warm_seconds) + 240 + l.endpoint_count / 50); /* whatever happens, it ends */
    l.first_number = ((uint64_t)wall_ms() & 0xffffff) << 28;
    l.endpoints = calloc(l.endpoint_count, sizeof *l.endpoints);
    if (!l.endpoints)
        fail("memory");
    for (unsigned i = 0; i < l.endpoint_count; i++) {
        uint8_t id[ID_BYTES];
        id_of(i, 0, id);
        hex_of(id, sizeof id, l.endpoints[i].peer_id);
    }
    open_sockets(&l);
    if (l.srp && !l.known)
        prepare_s = prepare(&l);
    if (l.fill)
        fill(&l);
    build_templates(&l);
    run(&l, &begin, &end);
    report(&l, &begin, &end, prepare_s);
    return 0;
}
