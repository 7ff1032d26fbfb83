# cext/udp.h: datagrams in batches.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from srpnode.core.types cimport srp_datagram

cdef extern from "udp.h" nogil:
    enum:
        SRP_UDP_BATCH
        SRP_UDP_STRIDE
        SRP_UDP_STRIDE_GRO
        SRP_UDP_COUNT
        SRP_UDP_IN_DATAGRAMS
        SRP_UDP_IN_KERNEL_DROPS
        SRP_UDP_OUT_CALLS
        SRP_UDP_DONE
        SRP_UDP_BLOCKED
        SRP_UDP_STALLED
    ctypedef struct srp_udp_calls:
        pass
    const srp_udp_calls srp_udp_kernel
    ctypedef struct srp_udp_receiver:
        const srp_udp_calls *calls
        uint64_t *count
        const uint32_t *local
        uint8_t *data
        uint32_t stride
        uint32_t batch
        uint32_t most
    ctypedef struct srp_udp_sender:
        const srp_udp_calls *calls
        uint64_t *count
        const int *fds
        const uint32_t *local
        uint8_t *df
        uint32_t sockets
        bint trains
        bint small_df
        int fd
    const char *srp_udp_count_name(unsigned int index)
    void srp_udp_receiver_init(srp_udp_receiver *receiver)
    int srp_udp_receive(srp_udp_receiver *receiver, int fd, uint16_t socket)
    uint32_t srp_udp_take(srp_udp_receiver *receiver, srp_datagram *out, uint32_t max)
    void srp_udp_sender_init(srp_udp_sender *sender)
    int srp_udp_send(srp_udp_sender *sender, const srp_datagram *items, uint32_t count)
    uint32_t srp_udp_give_up(srp_udp_sender *sender, const srp_datagram *items, uint32_t count)
    int srp_udp_send_one(const srp_udp_calls *calls, uint64_t *count, int fd, const srp_datagram *item)
    int srp_udp_open(uint32_t addr, uint16_t port)
    int srp_udp_prepare(int fd, int receive_bytes, int send_bytes)
    int srp_udp_set_pktinfo(int fd, bint on)
    int srp_udp_set_gro(int fd, bint on)
    bint srp_udp_can_segment(int fd)
    uint32_t srp_udp_drops(int fd)
    bint srp_udp_look(int fd, uint32_t *drops)
    bint srp_udp_filtered(int fd)
    int srp_udp_name(int fd, uint32_t *addr, uint16_t *port)
