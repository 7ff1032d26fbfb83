/* System calls for cext/udp.h that fail on command and else go to the kernel. */
#ifndef INJECT_H
#define INJECT_H

#include "udp.h"

extern const srp_udp_calls inject_calls;

/* The sendmmsg calls from the next one on, after `after` calls that go to the kernel: `times` of them (-1: all) fail with
 * `error`. Replaces what was said before; times 0 ends it. */
void inject_send(int error, int after, int times);
void inject_short(int most);          /* sendmmsg sends at most so many messages of a call; 0: as many as it likes */
void inject_refuse(int port, int error); /* a message to this port fails, and ends the call before it; 0: none */
void inject_receive(int error, int times);
void inject_feed(const void *data, int size); /* before each receive 64 such datagrams are sent to the socket, from a socket of its own; 0: no more */
void inject_option(int error); /* every setsockopt fails; 0: none */
unsigned long inject_calls_sent(void); /* sendmmsg calls seen so far */
void inject_reset(void);

#endif
