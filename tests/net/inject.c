#include "inject.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic int send_error, send_after, send_times, send_most, refused_port, refused_error, receive_error, receive_times, option_error;
static _Atomic unsigned long sent_calls;
static char fed[1024];
static _Atomic int fed_size;

static int send_messages(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    sent_calls++;
    if (send_after > 0) {
        send_after--;
    } else if (send_times != 0) {
        if (send_times > 0)
            send_times--;
        errno = send_error;
        return -1;
    }
    if (send_most > 0 && count > (unsigned)send_most)
        count = (unsigned)send_most;
    if (refused_port)
        for (unsigned i = 0; i < count; i++) {
            const struct sockaddr_in *to = messages[i].msg_hdr.msg_name;
            if (ntohs(to->sin_port) == refused_port) {
                if (i == 0) {
                    errno = refused_error;
                    return -1;
                }
                count = i;
            }
        }
    return sendmmsg(fd, messages, count, flags);
}

static void feed(int fd)
{
    static _Atomic int from = -1;
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    if (from < 0)
        from = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (getsockname(fd, (struct sockaddr *)&name, &size) < 0)
        return;
    for (int i = 0; i < 64; i++)
        sendto(from, fed, (size_t)fed_size, MSG_DONTWAIT, (struct sockaddr *)&name, size);
}

static int receive_messages(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    if (receive_times > 0) {
        receive_times--;
        errno = receive_error;
        return -1;
    }
    if (fed_size > 0)
        feed(fd);
    return recvmmsg(fd, messages, count, flags, timeout);
}

static int set_option(int fd, int level, int option, const void *value, socklen_t size)
{
    if (option_error) {
        errno = option_error;
        return -1;
    }
    return setsockopt(fd, level, option, value, size);
}

const srp_udp_calls inject_calls = {receive_messages, send_messages, set_option};

void inject_send(int error, int after, int times)
{
    send_times = 0;
    send_error = error;
    send_after = after;
    send_times = times;
}

void inject_short(int most)
{
    send_most = most;
}

void inject_refuse(int port, int error)
{
    refused_port = 0;
    refused_error = error;
    refused_port = port;
}

void inject_feed(const void *data, int size)
{
    fed_size = 0;
    memcpy(fed, data, (size_t)size);
    fed_size = size;
}

void inject_receive(int error, int times)
{
    receive_error = error;
    receive_times = times;
}

void inject_option(int error)
{
    option_error = error;
}

unsigned long inject_calls_sent(void)
{
    return sent_calls;
}

void inject_reset(void)
{
    send_times = send_after = send_most = refused_port = receive_times = option_error = fed_size = 0;
}
