/* srp_udp_send() against a kernel that fails at random: whatever happens, every datagram leaves once or is counted as
 * dropped once, those of one socket leave in order (the small ones before the others), trains are what UDP_SEGMENT allows,
 * and nothing large leaves with DF.
 *
 *     send_property SEED ROUNDS */
#include "udp.h" /* first: it wants _GNU_SOURCE */

#include <errno.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                       \
    do {                                                                                                       \
        if (!(condition)) {                                                                                    \
            fprintf(stderr, "%s:%d: round %u: %s\n", __FILE__, __LINE__, current_round, #condition);           \
            exit(1);                                                                                           \
        }                                                                                                      \
    } while (0)

enum { ITEMS = 700, SOCKETS = 5, FIRST_FD = 1000 };

static uint64_t random_state;
static unsigned current_round;
static unsigned trouble; /* of 100 calls so many fail */
static uint32_t local_2;  /* address of socket 2 */
static bool no_trains;   /* this kernel refuses UDP_SEGMENT */
static unsigned char left[ITEMS];
static uint32_t last_left[SOCKETS][2]; /* small, others */
static uint8_t df[SOCKETS];     /* as the sender believes */
static uint8_t df_now[SOCKETS]; /* as the kernel has it */
static bool no_df;              /* this kernel refuses it */
static const srp_datagram *all;
static uint32_t all_count;
static uint64_t counters[SRP_UDP_COUNT];

static uint32_t draw(uint32_t below)
{
    random_state += 0x9e3779b97f4a7c15u;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ (z >> 31)) >> 32) % below;
}

/* Which items a message holds: the payload of each holds its number. Those that lie together may share an iovec. */
static uint32_t items_of(const struct msghdr *m, uint32_t numbers[SRP_UDP_TRAIN])
{
    uint32_t found = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++)
        for (size_t at = 0; at < m->msg_iov[i].iov_len;) {
            uint32_t n;
            uint8_t *data = (uint8_t *)m->msg_iov[i].iov_base + at;
            CHECK(found < SRP_UDP_TRAIN && m->msg_iov[i].iov_len - at >= sizeof n);
            memcpy(&n, data, sizeof n);
            CHECK(n < all_count && data == all[n].data && all[n].len <= m->msg_iov[i].iov_len - at);
            at += all[n].len;
            numbers[found++] = n;
        }
    return found;
}

/* Small, or the end of a train that is not. */
static bool goes_small(uint32_t n)
{
    const srp_datagram *item = &all[n], *last = item - 1;
    return item->len <= SRP_UDP_SMALL && !(n > 0 && last->len > SRP_UDP_SMALL && last->addr == item->addr &&
                                           last->port == item->port && last->local == item->local && last->socket == item->socket);
}

/* What a message says must be what the caller asked for, for each of its datagrams. */
static void check_message(int fd, struct msghdr *m)
{
    const struct sockaddr_in *to = m->msg_name;
    uint32_t local = 0, segment = 0, bytes = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo info;
            CHECK(c->cmsg_len == CMSG_LEN(sizeof info));
            memcpy(&info, CMSG_DATA(c), sizeof info);
            CHECK(info.ipi_ifindex == 0);
            local = ntohl(info.ipi_spec_dst.s_addr);
        } else {
            uint16_t size;
            CHECK(c->cmsg_type == UDP_SEGMENT && c->cmsg_len == CMSG_LEN(sizeof size));
            memcpy(&size, CMSG_DATA(c), sizeof size);
            segment = size;
        }
    }
    uint32_t numbers[SRP_UDP_TRAIN], count = items_of(m, numbers);
    CHECK(count >= 1);
    CHECK((count > 1) == (segment > 0));
    for (uint32_t i = 0; i < count; i++) {
        const srp_datagram *item = &all[numbers[i]];
        CHECK(item->addr == ntohl(to->sin_addr.s_addr) && item->port == ntohs(to->sin_port));
        CHECK(local == (item->socket == 2 && local_2 ? 0 : item->local));
        CHECK(fd == FIRST_FD + item->socket);
        CHECK(item->len <= SRP_UDP_SMALL || !df_now[item->socket]);
        bytes += item->len;
        if (segment)
            CHECK(i + 1 < count ? item->len == segment : item->len <= segment);
    }
    CHECK(segment == 0 || bytes <= SRP_UDP_TRAIN_BYTES);
}

static int send_messages(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    static const int errors[] = {EINTR, EAGAIN, ENOBUFS, ENOMEM, EPERM, EINVAL, EMSGSIZE, EIO, ECONNREFUSED, ENETUNREACH, 77};
    CHECK(count >= 1 && count <= SRP_UDP_BATCH && (flags & MSG_DONTWAIT));
    for (unsigned i = 0; i < count; i++)
        check_message(fd, &messages[i].msg_hdr);
    if (draw(100) < trouble) {
        errno = errors[draw(sizeof errors / sizeof *errors)];
        return -1;
    }
    unsigned sent = draw(3) ? count : 1 + draw(count);
    for (unsigned i = 0; i < sent; i++) {
        struct msghdr *m = &messages[i].msg_hdr;
        uint32_t numbers[SRP_UDP_TRAIN], cars = items_of(m, numbers);
        if (no_trains && cars > 1) {
            if (i == 0) {
                errno = EIO;
                return -1;
            }
            return (int)i;
        }
        messages[i].msg_len = 0;
        for (uint32_t k = 0; k < cars; k++) {
            uint32_t n = numbers[k], *last = last_left[all[n].socket];
            CHECK(left[n] == 0);
            left[n] = 1;
            CHECK(last[!goes_small(n)] <= n); /* holds n + 1 of the last */
            CHECK(!goes_small(n) || last[1] == 0 || all[n].socket > 2); /* the pool's sockets take turns */
            last[!goes_small(n)] = n + 1;
            messages[i].msg_len += all[n].len;
        }
    }
    return (int)sent;
}

static int set_option(int fd, int level, int option, const void *value, socklen_t size)
{
    int mode;
    CHECK(level == IPPROTO_IP && option == IP_MTU_DISCOVER && size == sizeof mode);
    memcpy(&mode, value, sizeof mode);
    CHECK(mode == IP_PMTUDISC_PROBE || mode == IP_PMTUDISC_OMIT);
    if (no_df && mode == IP_PMTUDISC_PROBE) {
        errno = ENOPROTOOPT;
        return -1;
    }
    df_now[fd - FIRST_FD] = mode == IP_PMTUDISC_PROBE;
    return 0;
}

static uint64_t dropped(void)
{
    uint64_t sum = 0;
    for (unsigned i = SRP_UDP_DROP_FORBIDDEN; i < SRP_UDP_COUNT; i++)
        sum += counters[i];
    return sum;
}

static uint32_t left_total(uint32_t count)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += left[i];
    return sum;
}

int main(int argc, char **argv)
{
    static const srp_udp_calls calls = {NULL, send_messages, set_option};
    static srp_udp_sender sender;
    static srp_datagram items[ITEMS];
    static uint8_t room[ITEMS * 1424];
    static uint32_t local[SOCKETS];
    int fds[SOCKETS];
    random_state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000;
    uint64_t given_up = 0, trains = 0, off = 0, small = 0, df_off = 0;
    for (int i = 0; i < SOCKETS; i++)
        fds[i] = FIRST_FD + i;
    all = items;
    for (current_round = 0; current_round < rounds; current_round++) {
        memset(counters, 0, sizeof counters);
        memset(left, 0, sizeof left);
        memset(last_left, 0, sizeof last_left);
        memset(df, 0, sizeof df);
        memset(df_now, 0, sizeof df_now);
        no_df = draw(4) == 0;
        trouble = draw(2) ? draw(100) : 0;
        no_trains = draw(4) == 0;
        fds[3] = draw(2) ? FIRST_FD + 3 : -1;
        sender = (srp_udp_sender){.calls = &calls, .count = counters, .fds = fds, .local = local, .df = df, .sockets = SOCKETS - 1,
                                  .trains = draw(4) > 0, .small_df = draw(4) > 0};
        local[2] = local_2 = draw(2) ? 0x7f000001 : 0;
        srp_udp_sender_init(&sender);
        all_count = draw(ITEMS);
        uint32_t sockets = 1 + draw(SOCKETS), lens = 1 + draw(3), peers = 1 + draw(3), same = 1 + draw(300);
        srp_datagram like = {0};
        uint8_t *data = room;
        bool together = draw(2);
        for (uint32_t i = 0; i < all_count; i++) {
            if (i == 0 || draw(same) == 0)
                like = (srp_datagram){
                    .len = draw(2) ? 4 + draw(1418) : 100 * (1 + draw(lens)), .addr = 0x7f000001 + draw(peers),
                    .port = (uint16_t)(1 + draw(peers)), .local = draw(2) ? 0x7f000009 : 0, .socket = (uint16_t)draw(sockets)};
            items[i] = like;
            if (draw(20) == 0)
                items[i].len = 4 + draw(1418);
            items[i].data = data;
            memcpy(data, &i, sizeof i);
            data += together ? items[i].len : 1424;
        }
        uint64_t gone = 0;
        unsigned patience = 0, most = draw(3) ? 1000 : draw(20);
        while (srp_udp_send(&sender, items, all_count) != SRP_UDP_DONE)
            if (++patience > most) {
                gone = srp_udp_give_up(&sender, items, all_count);
                CHECK(counters[SRP_UDP_DROP_JAMMED] == gone);
                break;
            }
        CHECK(sender.pass == 0 && sender.next == 0);
        CHECK(left_total(all_count) + dropped() == all_count);
        CHECK(counters[SRP_UDP_OUT_DATAGRAMS] == left_total(all_count));
        if (trouble == 0) {
            uint32_t closed = 0;
            for (uint32_t i = 0; i < all_count; i++)
                closed += items[i].socket == SOCKETS - 1 || (items[i].socket == 3 && fds[3] < 0);
            CHECK(dropped() == closed && counters[SRP_UDP_DROP_NO_SOCKET] == closed);
        }
        given_up += gone;
        trains += counters[SRP_UDP_OUT_TRAINS];
        off += counters[SRP_UDP_OUT_TRAIN_OFF];
        small += counters[SRP_UDP_OUT_DF_CHANGES];
        df_off += counters[SRP_UDP_OUT_DF_OFF];
        CHECK(memcmp(df, df_now, sizeof df) == 0);
    }
    printf("%u rounds, %llu trains, trains given up %llu times, DF changed %llu times, given up %llu times, %llu datagrams "
           "given up\n", rounds, (unsigned long long)trains, (unsigned long long)off, (unsigned long long)small,
           (unsigned long long)df_off, (unsigned long long)given_up);
    return trains && off && small && df_off ? 0 : 2;
}
