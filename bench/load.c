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
 *   --nap-us N          sleeps so long when there is nothing to do, instead of looking again: for load that is no measurement
 *   --fill N            first publishes N unique packets, to fill a cache
 *   --seconds S --warm-seconds S     measured time, and what runs before it
 *   --count N           sends exactly N instead, without a warm-up, and waits for the answers
 *   --train N           datagrams in a train (stream)
 *   --server-pid PID    its CPU time is read where the measured time begins and ends
 *
 * p99_us is the median of the 99th percentiles of slices of 20 ms (of the whole where a slice has too few), whole_p99_us that of all.
 * Everything is bounded: time by --seconds and a watchdog, targets to loopback. SIGTERM ends the measured time early. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <unistd.h>

#include "load.h"

#define PREPARE_RETRY_NS (100 * MILLISECOND)

static volatile sig_atomic_t ended;

static void end_early(int signal)
{
    (void)signal;
    ended = 1;
}

static const char *const workload_names[] = { "ping", "publish", "duplicate", "stream", "join", "garbage", "stun" };

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
            l->slice_ns = now;
            until = l->count ? INT64_MAX : now + (int64_t)(l->seconds * 1e9);
        }
        if (now >= until || now > limit || (begun && ended) || (begun && l->count && l->sent - begin->sent >= l->count))
            break;
        if (begun)
            end_slice(l, now);
        unsigned slots = allowed(l, &p, now);
        if (begun && l->count) {
            uint64_t left = (l->count - (l->sent - begin->sent) + l->train - 1) / l->train;
            slots = slots > left ? (unsigned)left : slots;
        }
        if (slots)
            send_batch(l, slots);
        unsigned got = 1;
        if (!l->flood || turn % 8 == 0) /* in a flood only samples are read, the kernel counts the rest */
            got = receive(l, l->flood ? 1 : 4);
        if (l->nap_us && !slots && !got)
            usleep(l->nap_us);
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
    l->forgiven = 0;
    l->lag_ns = 0;
    l->slices = 0;
    memset(&l->whole, 0, sizeof l->whole);
    memset(&l->slice, 0, sizeof l->slice);
}

static void report(load *l, const snapshot *a, const snapshot *b, double prepare_s)
{
    double seconds = (double)(b->at_ns - a->at_ns) / 1e9;
    uint64_t drops = b->own_drops - a->own_drops, overruns = b->server_overruns - a->server_overruns;
    printf("{\"workload\":\"%s\",\"endpoints\":%u,\"known\":%u,\"prepare_s\":%.3f,\"seconds\":%.6f,\"sent\":%llu,"
           "\"sent_bytes\":%llu,\"answers\":%llu,\"answer_bytes\":%llu,\"own_drops\":%llu,\"server_overruns\":%llu,"
           "\"forgiven\":%llu,\"server_cpu_s\":%.6f,\"own_cpu_s\":%.6f,\"timed\":%llu,\"p50_us\":%.2f,\"p99_us\":%.2f,"
           "\"whole_p99_us\":%.2f,\"p999_us\":%.2f,\"lag_us\":%.1f,\"pongs_given\":%llu,\"other\":%llu,\"types\":[",
           workload_names[l->workload], l->endpoint_count, l->known_count, prepare_s, seconds,
           (unsigned long long)(b->sent - a->sent), (unsigned long long)(b->sent_bytes - a->sent_bytes),
           (unsigned long long)(b->answers - a->answers), (unsigned long long)(b->answer_bytes - a->answer_bytes),
           (unsigned long long)drops, (unsigned long long)(overruns > drops ? overruns - drops : 0),
           (unsigned long long)l->forgiven, (double)(b->server_cpu_ns - a->server_cpu_ns) / 1e9,
           (double)(b->own_cpu_ns - a->own_cpu_ns) / 1e9, (unsigned long long)l->whole.timed, quantile_us(&l->whole, 0.5),
           median_slice_p99_us(l), quantile_us(&l->whole, 0.99), quantile_us(&l->whole, 0.999), (double)l->lag_ns / 1e3, (unsigned long long)(b->pongs_given - a->pongs_given),
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
        else if (!strcmp(name, "--nap-us"))
            l->nap_us = (unsigned)option_number(name, value, 0, 100000);
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
    signal(SIGTERM, end_early);
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
