/* Commands from Python to one loop thread: a bounded ring of pointers behind an eventfd, and a flag that ends the loop.
 *
 * One poster at a time, one taker. The poster owns the memory of a command until srp_mailbox_post() and again once
 * srp_command_done() is true; in between it belongs to the loop, also when the poster stopped waiting. */
#ifndef SRP_MAILBOX_H
#define SRP_MAILBOX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* syscall() */
#endif

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SRP_MAILBOX_SLOTS 64 /* a power of two */

/* Kinds below this one are the loop's own, the others go to the core. */
#define SRP_COMMAND_CORE 100

enum srp_loop_command {
    SRP_COMMAND_OPEN_POOL = 1, /* result: sockets open */
    SRP_COMMAND_CLOSE_POOL,    /* result: sockets closed */
    SRP_COMMAND_REPLACE,       /* data: int32_t socket, fd; result 0: the old descriptor is the poster's again */
    SRP_COMMAND_HEARTBEAT,     /* data: 16 random bytes, int64_t timeout in us; done when the loop's own datagram came
                                * back; result: how long it was under way in us */
    SRP_COMMAND_LOCAL          /* data: uint32_t address, the only one of this machine, 0: there are several */
};

typedef struct srp_command {
    uint32_t kind;
    int32_t result; /* negative: an errno */
    void *data;     /* question, and room for the answer; meaning and layout belong to the kind */
    uint64_t size;  /* bytes at data */
    _Atomic uint32_t done;
} srp_command;

typedef struct srp_mailbox {
    _Alignas(64) _Atomic uint32_t head; /* taken so far: the loop writes it */
    _Alignas(64) _Atomic uint32_t tail; /* posted so far: the poster writes it */
    srp_command *slot[SRP_MAILBOX_SLOTS];
    _Atomic uint32_t stop;
    int wake_fd;
} srp_mailbox;

static inline void srp_mailbox_wake(srp_mailbox *box)
{
    uint64_t one = 1;
    ssize_t written = write(box->wake_fd, &one, sizeof one); /* fails only when the count is full: awake anyway */
    (void)written;
}

/* Any thread. Asks the loop to end. */
static inline void srp_mailbox_stop(srp_mailbox *box)
{
    atomic_store_explicit(&box->stop, 1, memory_order_release);
    srp_mailbox_wake(box);
}

/* Loop. Whether it was asked to. */
static inline bool srp_mailbox_stopped(srp_mailbox *box)
{
    return atomic_load_explicit(&box->stop, memory_order_acquire) != 0;
}

/* Poster. 0, or -ENOBUFS when the ring is full. */
static inline int srp_mailbox_post(srp_mailbox *box, srp_command *command)
{
    uint32_t tail = atomic_load_explicit(&box->tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(&box->head, memory_order_acquire) >= SRP_MAILBOX_SLOTS)
        return -ENOBUFS;
    atomic_store_explicit(&command->done, 0, memory_order_relaxed);
    box->slot[tail % SRP_MAILBOX_SLOTS] = command;
    atomic_store_explicit(&box->tail, tail + 1, memory_order_release);
    srp_mailbox_wake(box);
    return 0;
}

/* Loop. The next command, NULL when there is none. */
static inline srp_command *srp_mailbox_take(srp_mailbox *box)
{
    uint32_t head = atomic_load_explicit(&box->head, memory_order_relaxed);
    if (head == atomic_load_explicit(&box->tail, memory_order_acquire))
        return NULL;
    srp_command *command = box->slot[head % SRP_MAILBOX_SLOTS];
    atomic_store_explicit(&box->head, head + 1, memory_order_release);
    return command;
}

/* Loop. Ends an epoll wake-up that the eventfd caused. */
static inline void srp_mailbox_awake(srp_mailbox *box)
{
    uint64_t posts;
    ssize_t got = read(box->wake_fd, &posts, sizeof posts);
    (void)got;
}

/* Loop. Gives the command back to its poster, who may free it at once: nothing of it is touched after the store but
 * its address, which the kernel only compares. */
static inline void srp_command_finish(srp_command *command, int32_t result)
{
    command->result = result;
    atomic_store_explicit(&command->done, 1, memory_order_release);
    syscall(SYS_futex, &command->done, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static inline bool srp_command_done(srp_command *command)
{
    return atomic_load_explicit(&command->done, memory_order_acquire) != 0;
}

/* Poster. Waits until done, a signal or the timeout, whichever is first; true when done. */
static inline bool srp_command_wait(srp_command *command, int64_t timeout_us)
{
    struct timespec timeout = {.tv_sec = timeout_us / 1000000, .tv_nsec = timeout_us % 1000000 * 1000};
    if (timeout_us > 0 && !srp_command_done(command))
        syscall(SYS_futex, &command->done, FUTEX_WAIT_PRIVATE, 0, &timeout, NULL, 0);
    return srp_command_done(command);
}

#endif
