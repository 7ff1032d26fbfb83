#include "udp.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#ifndef SOL_UDP
#define SOL_UDP 17
#endif

enum {
    NO_BUFFER_TRIES = 3,   /* in a row, before the caller makes a pause */
    PATIENCE = 96,         /* repetitions before a datagram is dropped; a call that sends gives one back */
    RECEIVE_TRIES = 8,     /* errors of earlier datagrams that one call looks past */
    TOO_BIG_LIMIT = 16,    /* trains refused for their size before trains are given up */
    PASSES = 6,            /* main, probe and pool; small datagrams and others of each */
    TRAINS_AT_ONCE = 4,    /* messages of a call while trains come: a quarter of a megabyte at most */
    TRAIN_LIKELY = 4096,   /* mean bytes of the last call's messages from which on they are taken for trains */
    SEGMENT_SPACE = CMSG_SPACE(sizeof(uint16_t)),
    PKTINFO_SPACE = CMSG_SPACE(sizeof(struct in_pktinfo))
};

const srp_udp_calls srp_udp_kernel = {recvmmsg, sendmmsg, setsockopt};

const char *srp_udp_count_name(unsigned index)
{
    static const char *const names[] = {
#define X(name, text) text,
        SRP_UDP_COUNTS(X)
#undef X
    };
    return index < SRP_UDP_COUNT ? names[index] : NULL;
}

/* ---- receiving ---- */

void srp_udp_receiver_init(srp_udp_receiver *in)
{
    in->got = in->next = in->offset = 0;
    in->most = in->batch;
    for (uint32_t i = 0; i < in->batch; i++) {
        in->vectors[i] = (struct iovec){.iov_base = in->data + (size_t)i * in->stride, .iov_len = in->stride};
        in->messages[i] = (struct mmsghdr){.msg_hdr = {
            .msg_name = &in->sources[i],
            .msg_namelen = sizeof in->sources[i],
            .msg_iov = &in->vectors[i],
            .msg_iovlen = 1,
            .msg_control = in->controls[i],
            .msg_controllen = sizeof in->controls[i],
        }};
    }
}

int srp_udp_receive(srp_udp_receiver *in, int fd, uint16_t socket)
{
    /* The kernel wrote over the room that it was offered. */
    for (uint32_t i = 0; i < in->got; i++) {
        in->messages[i].msg_hdr.msg_namelen = sizeof in->sources[i];
        in->messages[i].msg_hdr.msg_controllen = sizeof in->controls[i];
    }
    in->got = in->next = in->offset = 0;
    in->socket = socket;
    int got, error;
    unsigned tries = 0;
    do {
        got = in->calls->recvmmsg(fd, in->messages, in->most, MSG_DONTWAIT, NULL);
        error = errno;
        if (got < 0 && error != EINTR && error != EAGAIN && error != EWOULDBLOCK)
            in->count[SRP_UDP_IN_ERRORS]++;
    } while (got < 0 && (error == EINTR || error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH) &&
             ++tries < RECEIVE_TRIES);
    if (got < 0)
        return error == EAGAIN || error == EWOULDBLOCK || error == EINTR ? 0 : -error;
    in->got = (uint32_t)got;
    in->count[SRP_UDP_IN_CALLS] += got > 0;
    if (in->stride == SRP_UDP_STRIDE_GRO && got > 0) {
        uint64_t bytes = 0;
        for (int i = 0; i < got; i++)
            bytes += in->messages[i].msg_len;
        in->most = bytes / (uint32_t)got >= TRAIN_LIKELY && in->batch > TRAINS_AT_ONCE ? TRAINS_AT_ONCE : in->batch;
    }
    return got;
}

/* What the kernel says about a message: our address, the size of a train's datagrams. */
static void read_control(struct msghdr *message, uint32_t *local, uint32_t *segment)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            memcpy(&info, CMSG_DATA(c), sizeof info);
            *local = ntohl(info.ipi_spec_dst.s_addr);
        } else if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(c), sizeof size);
            *segment = size > 0 ? (uint32_t)size : 0;
        }
    }
}

uint32_t srp_udp_take(srp_udp_receiver *in, srp_datagram *out, uint32_t max)
{
    uint32_t taken = 0;
    uint64_t bytes = 0;
    while (in->next < in->got && taken < max) {
        struct mmsghdr *m = &in->messages[in->next];
        const struct sockaddr_in *source = &in->sources[in->next];
        uint8_t *data = in->vectors[in->next].iov_base;
        uint32_t local = in->local[in->socket], segment = 0, left = m->msg_len - in->offset;
        uint64_t *count = in->offset == 0 ? in->count : NULL; /* once a message */
        read_control(&m->msg_hdr, &local, &segment);
        if (segment == 0 || segment > m->msg_len)
            segment = m->msg_len;
        if (count && (m->msg_hdr.msg_flags & MSG_TRUNC))
            count[SRP_UDP_IN_CUT]++;
        if (count && segment < m->msg_len)
            count[SRP_UDP_IN_TRAINS]++;
        if (source->sin_port == 0 || source->sin_addr.s_addr == 0 || source->sin_family != AF_INET) {
            /* Nobody is there to answer; an answer to 0.0.0.0 would reach ourselves. */
            in->count[SRP_UDP_IN_NO_SOURCE] += segment ? (m->msg_len + segment - 1) / segment : 1;
            left = 0;
        } else {
            do {
                uint32_t size = left < segment ? left : segment;
                out[taken++] = (srp_datagram){
                    .data = data + in->offset,
                    .len = size,
                    .addr = ntohl(source->sin_addr.s_addr),
                    .local = local,
                    .port = ntohs(source->sin_port),
                    .socket = in->socket,
                };
                in->offset += size;
                left -= size;
                bytes += size;
            } while (left > 0 && taken < max);
        }
        if (left == 0) {
            in->next++;
            in->offset = 0;
        }
    }
    in->count[SRP_UDP_IN_DATAGRAMS] += taken;
    in->count[SRP_UDP_IN_BYTES] += bytes;
    return taken;
}

/* ---- sending ---- */

void srp_udp_sender_init(srp_udp_sender *out)
{
    out->pass = out->next = out->single = out->too_big = 0;
    out->passes = 0;
    out->patience = PATIENCE;
    out->suspect = 0;
    out->late = false;
    out->fd = -1;
    memset(out->controls, 0, sizeof out->controls);
    for (uint32_t i = 0; i < SRP_UDP_BATCH; i++) {
        out->destinations[i] = (struct sockaddr_in){.sin_family = AF_INET};
        out->messages[i] = (struct mmsghdr){.msg_hdr = {
            .msg_name = &out->destinations[i],
            .msg_namelen = sizeof out->destinations[i],
        }};
        /* UDP_SEGMENT stands before IP_PKTINFO: a message takes both, either or none by where its control begins and ends. */
        struct cmsghdr *segment = (struct cmsghdr *)out->controls[i];
        *segment = (struct cmsghdr){.cmsg_level = SOL_UDP, .cmsg_type = UDP_SEGMENT, .cmsg_len = CMSG_LEN(sizeof(uint16_t))};
        struct cmsghdr *info = (struct cmsghdr *)(out->controls[i] + SEGMENT_SPACE);
        *info = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof(struct in_pktinfo))};
    }
}

/* A smaller datagram that follows is the end of a train of larger ones, and leaves with it. */
static bool ends_train(const srp_datagram *item)
{
    const srp_datagram *last = item - 1;
    return last->len > SRP_UDP_SMALL && last->addr == item->addr && last->port == item->port && last->local == item->local &&
           last->socket == item->socket;
}

/* Main, probe and pool are sent one after the other, so that a mix of them still leaves in large batches; and of each the
 * small datagrams before the others, so that DF is changed once for all of them. */
static inline uint32_t pass_of(const srp_datagram *items, uint32_t i)
{
    const srp_datagram *item = &items[i];
    uint32_t socket = item->socket < SRP_SOCKET_POOL ? item->socket : SRP_SOCKET_POOL;
    return 2 * socket + (item->len > SRP_UDP_SMALL || (i > 0 && ends_train(item)));
}

/* Has a socket send with DF from now on, or without. */
static void set_df(srp_udp_sender *out, uint32_t socket, bool df)
{
    df = df && out->small_df;
    if ((bool)out->df[socket] == df)
        return;
    int mode = df ? IP_PMTUDISC_PROBE : IP_PMTUDISC_OMIT; /* neither listens to ICMP, which anybody can forge */
    if (out->calls->setsockopt(out->fd, IPPROTO_IP, IP_MTU_DISCOVER, &mode, sizeof mode) == 0) {
        out->df[socket] = df;
        out->count[SRP_UDP_OUT_DF_CHANGES]++;
    } else if (df) {
        out->small_df = false;
        out->count[SRP_UDP_OUT_DF_OFF]++;
    }
}

static bool fits_train(const srp_udp_sender *out, const srp_datagram *last, const srp_datagram *item, uint32_t cars,
                       uint32_t bytes, uint32_t segment)
{
    return out->trains && cars < SRP_UDP_TRAIN && item->len > 0 && item->len <= segment && last->len == segment &&
           bytes + item->len <= SRP_UDP_TRAIN_BYTES && item->addr == last->addr && item->port == last->port &&
           item->local == last->local && item->port != 0;
}

/* How many items behind this one go on with its train and lie behind it in memory: a relayed train lies as it came. */
static uint32_t run_length(const srp_datagram *item, uint32_t most)
{
    uint32_t n = 0;
    while (n < most && item[1].len == item->len && item[1].data == item->data + item->len && item[1].addr == item->addr &&
           item[1].port == item->port && item[1].local == item->local && item[1].socket == item->socket) {
        item++;
        n++;
    }
    return n;
}

/* Makes messages of this pass's items from out->next on, all for one descriptor; how many. */
static uint32_t gather(srp_udp_sender *out, const srp_datagram *items, uint32_t count)
{
    uint32_t messages = 0, vectors = 0, bytes = 0, segment = 0, socket = 0;
    const bool only = out->passes == 1u << out->pass; /* all are of this pass */
    const srp_datagram *last = NULL;
    out->fd = -1;
    for (uint32_t i = out->next; i < count && vectors < SRP_UDP_BATCH; i++) {
        const srp_datagram *item = &items[i];
        if (!only && pass_of(items, i) != out->pass)
            continue;
        int fd = item->socket < out->sockets ? out->fds[item->socket] : -1;
        if (fd < 0) {
            if (messages > 0)
                break; /* counted when it is the first */
            out->count[SRP_UDP_DROP_NO_SOCKET]++;
            out->next = i + 1;
            continue;
        }
        if (messages == 0) {
            out->fd = fd;
            socket = item->socket;
            set_df(out, socket, out->pass % 2 == 0);
        } else if (item->socket != socket) {
            break;
        }
        struct iovec *vector = &out->vectors[vectors];
        *vector = (struct iovec){.iov_base = item->data, .iov_len = item->len};
        if (messages > 0 && i >= out->single && fits_train(out, last, item, out->cars[messages - 1], bytes, segment)) {
            struct msghdr *m = &out->messages[messages - 1].msg_hdr;
            if (out->cars[messages - 1] == 1) { /* a second datagram makes it a train */
                uint16_t size = (uint16_t)segment;
                memcpy(CMSG_DATA((struct cmsghdr *)out->controls[messages - 1]), &size, sizeof size);
                m->msg_control = out->controls[messages - 1];
                m->msg_controllen += SEGMENT_SPACE;
            }
            if (item->data == last->data + last->len) {
                vector--;
                vector->iov_len += item->len;
            } else {
                m->msg_iovlen++;
                vectors++;
            }
            uint32_t more = 0;
            if (item->len == segment && segment > SRP_UDP_SMALL) { /* so they are of one pass */
                uint32_t most = SRP_UDP_TRAIN - out->cars[messages - 1] - 1, room = (SRP_UDP_TRAIN_BYTES - bytes) / segment - 1;
                most = most < room ? most : room;
                most = most < count - 1 - i ? most : count - 1 - i;
                more = run_length(item, most);
                vector->iov_len += (size_t)more * segment;
            }
            out->cars[messages - 1] += (uint16_t)(1 + more);
            bytes += (1 + more) * item->len;
            i += more;
            item += more;
        } else {
            struct msghdr *m = &out->messages[messages].msg_hdr;
            struct sockaddr_in *to = &out->destinations[messages];
            to->sin_addr.s_addr = htonl(item->addr);
            to->sin_port = htons(item->port);
            m->msg_iov = vector;
            m->msg_iovlen = 1;
            vectors++;
            m->msg_control = out->controls[messages] + SEGMENT_SPACE;
            m->msg_controllen = 0;
            if (item->local && !out->local[item->socket]) {
                struct in_pktinfo info = {.ipi_spec_dst.s_addr = htonl(item->local)};
                memcpy(CMSG_DATA((struct cmsghdr *)m->msg_control), &info, sizeof info);
                m->msg_controllen = PKTINFO_SPACE;
            }
            out->from[messages] = i;
            out->cars[messages] = 1;
            bytes = segment = item->len;
            messages++;
        }
        last = item;
        out->until[messages - 1] = i + 1;
    }
    return messages;
}

static unsigned drop_reason(int error)
{
    switch (error) {
    case EPERM: case EACCES:
        return SRP_UDP_DROP_FORBIDDEN;
    case ENETUNREACH: case EHOSTUNREACH: case ENETDOWN: case EHOSTDOWN: case ECONNREFUSED: case ENODEV: case ENONET:
        return SRP_UDP_DROP_UNREACHABLE;
    case EINVAL: case EADDRNOTAVAIL:
        return SRP_UDP_DROP_ADDRESS;
    case EMSGSIZE:
        return SRP_UDP_DROP_TOO_BIG;
    case ENOBUFS: case ENOMEM:
        return SRP_UDP_DROP_NO_BUFFERS;
    default:
        return SRP_UDP_DROP_OTHER;
    }
}

/* Whether the error may be that of an earlier datagram, which the kernel reports with the next call. */
static bool may_be_late(int error)
{
    return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH || error == EHOSTDOWN || error == EPROTO ||
           error == ENOPROTOOPT;
}

/* A train was refused, its datagrams go singly, and one of them went: so UDP_SEGMENT was the reason, not the datagram. */
static void blame_train(srp_udp_sender *out)
{
    if (out->suspect != EMSGSIZE || ++out->too_big >= TOO_BIG_LIMIT) {
        out->trains = false;
        out->count[SRP_UDP_OUT_TRAIN_OFF]++;
    }
    out->suspect = 0;
}

static void advance(srp_udp_sender *out, uint32_t next)
{
    out->next = next;
    out->late = false;
}

static void count_sent(srp_udp_sender *out, uint32_t first, uint32_t count)
{
    uint64_t bytes = 0, datagrams = 0;
    for (uint32_t i = first; i < first + count; i++) {
        bytes += out->messages[i].msg_len;
        datagrams += out->cars[i];
        if (out->cars[i] > 1) {
            out->count[SRP_UDP_OUT_TRAINS]++;
            out->count[SRP_UDP_OUT_TRAIN_DATAGRAMS] += out->cars[i];
        }
    }
    out->count[SRP_UDP_OUT_CALLS]++;
    out->count[SRP_UDP_OUT_DATAGRAMS] += datagrams;
    out->count[SRP_UDP_OUT_BYTES] += bytes;
}

/* Sends what gather() made. SRP_UDP_DONE: out->next moved on, gather again. */
static enum srp_udp_state send_gathered(srp_udp_sender *out, uint32_t count)
{
    for (uint32_t sent = 0; sent < count;) {
        int result = out->calls->sendmmsg(out->fd, out->messages + sent, count - sent, MSG_DONTWAIT);
        if (result > 0) {
            uint32_t done = (uint32_t)result < count - sent ? (uint32_t)result : count - sent;
            out->count[SRP_UDP_OUT_SHORT] += done < count - sent;
            count_sent(out, sent, done);
            sent += done;
            advance(out, out->until[sent - 1]);
            out->patience += out->patience < PATIENCE;
            if (out->suspect)
                blame_train(out);
            continue;
        }
        int error = result < 0 ? errno : EAGAIN;
        if (error == EINTR) {
            out->count[SRP_UDP_OUT_INTERRUPTED]++;
            continue;
        }
        if (error == EAGAIN || error == EWOULDBLOCK) {
            out->count[SRP_UDP_OUT_BLOCKED]++;
            return SRP_UDP_BLOCKED;
        }
        if ((error == ENOBUFS || error == ENOMEM) && out->patience > 0) {
            out->count[SRP_UDP_OUT_NO_BUFFERS]++;
            if (--out->patience % NO_BUFFER_TRIES == 0)
                return SRP_UDP_STALLED;
            continue;
        }
        if (out->cars[sent] > 1 && (error == EINVAL || error == EIO || error == EMSGSIZE)) {
            out->count[SRP_UDP_OUT_TRAIN_REFUSED]++;
            out->single = out->until[sent];
            out->suspect = error;
            advance(out, out->from[sent]);
            return SRP_UDP_DONE;
        }
        if (error == EMSGSIZE && out->pass % 2 == 0 && out->small_df) { /* an interface with an MTU below 576 */
            out->small_df = false;
            out->count[SRP_UDP_OUT_DF_OFF]++;
            out->suspect = 0;
            advance(out, out->from[sent]);
            return SRP_UDP_DONE;
        }
        if (may_be_late(error) && !out->late) {
            out->count[SRP_UDP_OUT_LATE_ERRORS]++;
            out->late = true;
            continue;
        }
        out->count[drop_reason(error)] += out->cars[sent];
        out->suspect = 0;
        advance(out, out->until[sent++]);
    }
    return SRP_UDP_DONE;
}

enum srp_udp_state srp_udp_send(srp_udp_sender *out, const srp_datagram *items, uint32_t count)
{
    if (out->passes == 0)
        for (uint32_t i = 0; i < count; i++)
            out->passes |= 1u << pass_of(items, i);
    for (; out->pass < PASSES; out->pass++) {
        uint32_t messages;
        if (!(out->passes >> out->pass & 1))
            continue;
        while ((messages = gather(out, items, count)) > 0) {
            enum srp_udp_state state = send_gathered(out, messages);
            if (state != SRP_UDP_DONE)
                return state;
        }
        out->next = out->single = 0;
    }
    out->pass = out->passes = 0;
    out->suspect = 0;
    return SRP_UDP_DONE;
}

uint32_t srp_udp_give_up(srp_udp_sender *out, const srp_datagram *items, uint32_t count)
{
    uint32_t given_up = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t pass = pass_of(items, i);
        given_up += pass > out->pass || (pass == out->pass && i >= out->next);
    }
    out->count[SRP_UDP_DROP_JAMMED] += given_up;
    out->pass = out->next = out->single = out->passes = 0;
    out->suspect = 0;
    out->late = false;
    return given_up;
}

int srp_udp_send_one(const srp_udp_calls *calls, uint64_t *count, int fd, const srp_datagram *item)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(item->port), .sin_addr.s_addr = htonl(item->addr)};
    struct iovec vector = {.iov_base = item->data, .iov_len = item->len};
    struct mmsghdr message = {.msg_hdr = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &vector, .msg_iovlen = 1}};
    int sent;
    do {
        sent = calls->sendmmsg(fd, &message, 1, MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 1)
        return sent < 0 ? -errno : -EAGAIN;
    count[SRP_UDP_OUT_CALLS]++;
    count[SRP_UDP_OUT_DATAGRAMS]++;
    count[SRP_UDP_OUT_BYTES] += item->len;
    return 0;
}

/* ---- sockets ---- */

int srp_udp_open(uint32_t addr, uint16_t port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(addr)};
    if (bind(fd, (struct sockaddr *)&name, sizeof name) < 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

static int set(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

int srp_udp_prepare(int fd, int receive_bytes, int send_bytes)
{
    uint32_t addr = 0;
    uint16_t port;
    int error = srp_udp_name(fd, &addr, &port);
    if (!error)
        error = srp_udp_set_pktinfo(fd, addr == 0);
    /* Without DF and whatever an ICMP message says about the path: a packet of 1421 bytes passes links with a smaller
     * MTU in fragments, and nobody can make us fragment by forging ICMP. The sender changes it for small ones. */
    if (!error)
        error = set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
    if (error)
        return error;
    /* Past rmem_max with CAP_NET_ADMIN only; else the kernel takes the largest value that it allows. */
    if (set(fd, SOL_SOCKET, SO_RCVBUFFORCE, receive_bytes) < 0)
        error = set(fd, SOL_SOCKET, SO_RCVBUF, receive_bytes);
    if (!error && set(fd, SOL_SOCKET, SO_SNDBUFFORCE, send_bytes) < 0)
        error = set(fd, SOL_SOCKET, SO_SNDBUF, send_bytes);
    return error;
}

int srp_udp_set_pktinfo(int fd, bool on)
{
    return set(fd, IPPROTO_IP, IP_PKTINFO, on);
}

int srp_udp_set_gro(int fd, bool on)
{
    return set(fd, SOL_UDP, UDP_GRO, on);
}

bool srp_udp_can_segment(int fd)
{
    return set(fd, SOL_UDP, UDP_SEGMENT, 0) == 0;
}

uint32_t srp_udp_drops(int fd)
{
    uint32_t drops;
    srp_udp_look(fd, &drops);
    return drops;
}

bool srp_udp_look(int fd, uint32_t *drops)
{
    uint32_t info[SK_MEMINFO_VARS] = {0};
    socklen_t size = sizeof info;
    getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size);
    *drops = info[SK_MEMINFO_DROPS];
    return info[SK_MEMINFO_RMEM_ALLOC] > info[SK_MEMINFO_RCVBUF] / 2;
}

bool srp_udp_filtered(int fd)
{
    socklen_t steps = 0;
    return getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, NULL, &steps) < 0 || steps > 0;
}

int srp_udp_name(int fd, uint32_t *addr, uint16_t *port)
{
    struct sockaddr_in name = {0};
    socklen_t size = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &size) < 0)
        return -errno;
    if (name.sin_family != AF_INET)
        return -EAFNOSUPPORT;
    *addr = ntohl(name.sin_addr.s_addr);
    *port = ntohs(name.sin_port);
    return 0;
}
