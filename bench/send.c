/* What the load sends: datagrams from templates, in batches, from the address of each endpoint. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <netinet/udp.h>

#include "load.h"

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

void send_connection_ping(load *l, unsigned index)
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
void answer_ping(load *l, unsigned index, const struct sockaddr_in *from, const uint8_t *data, size_t len)
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

void build_templates(load *l)
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
void send_batch(load *l, unsigned count)
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
