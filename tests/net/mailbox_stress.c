/* Two threads and one mailbox: every command is taken once, in order, and its answer reaches the poster; a full ring
 * refuses.
 *
 *     mailbox_stress COMMANDS */
#include "mailbox.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#define CHECK(condition)                                                             \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);          \
            exit(1);                                                                 \
        }                                                                            \
    } while (0)

enum { SLOTS = SRP_MAILBOX_SLOTS, LAST = 0xffff };

static srp_mailbox box;

static void *loop(void *unused)
{
    uint32_t expected = 0;
    for (;;) {
        struct pollfd wake = {.fd = box.wake_fd, .events = POLLIN};
        CHECK(poll(&wake, 1, 10000) == 1); /* a lost wake-up would end here */
        srp_mailbox_awake(&box);
        srp_command *command;
        while ((command = srp_mailbox_take(&box)) != NULL) {
            bool last = command->kind == LAST;
            CHECK(last || *(uint32_t *)command->data == expected);
            expected++;
            srp_command_finish(command, (int32_t)expected);
            if (last)
                return unused;
        }
    }
}

int main(int argc, char **argv)
{
    uint32_t commands = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 10000;
    static srp_command command[SLOTS + 1];
    static uint32_t data[SLOTS];
    box.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    for (int i = 0; i < SLOTS; i++)
        CHECK(srp_mailbox_post(&box, &command[i]) == 0);
    CHECK(srp_mailbox_post(&box, &command[SLOTS]) == -ENOBUFS);
    for (int i = 0; i < SLOTS; i++)
        CHECK(srp_mailbox_take(&box) == &command[i]);
    CHECK(srp_mailbox_take(&box) == NULL);
    CHECK(!srp_command_wait(&command[0], 1000));

    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, loop, NULL) == 0);
    for (uint32_t i = 0; i <= commands; i++) {
        srp_command *c = &command[i % SLOTS];
        if (i >= SLOTS) { /* the one that used this place before */
            while (!srp_command_wait(c, 10000000))
                ;
            CHECK(c->result == (int32_t)(i - SLOTS + 1));
        }
        data[i % SLOTS] = i;
        *c = (srp_command){.kind = i == commands ? LAST : 100, .data = &data[i % SLOTS], .size = 4};
        CHECK(srp_mailbox_post(&box, c) == 0);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(srp_command_done(&command[commands % SLOTS]));
    printf("%u commands\n", commands);
    return 0;
}
