/* Command line of the bench programs. Every address must be a loopback one: these programs send to nobody else. */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn static inline void fail(const char *what)
{
    fprintf(stderr, "%s: %s%s%s\n", program_invocation_short_name, what, errno ? ": " : "",
            errno ? strerror(errno) : "");
    exit(2);
}

static inline const char *option_value(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc)
        fail("an option lacks its value");
    return argv[++*i];
}

static inline long long option_number(const char *name, const char *value, long long min, long long max)
{
    char *end;
    long long n = strtoll(value, &end, 10);
    if (*end || end == value || n < min || n > max) {
        fprintf(stderr, "%s: a number from %lld to %lld\n", name, min, max);
        exit(2);
    }
    return n;
}

/* ADDR:PORT, ADDR inside 127.0.0.0/8 or 0.0.0.0 (which only binds). */
static inline struct sockaddr_in option_endpoint(const char *name, const char *value)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    char address[32];
    const char *colon = strchr(value, ':');
    if (colon && (size_t)(colon - value) < sizeof address) {
        memcpy(address, value, (size_t)(colon - value));
        address[colon - value] = 0;
        at.sin_port = htons((uint16_t)option_number(name, colon + 1, 1, 65535));
        if (inet_pton(AF_INET, address, &at.sin_addr) == 1 &&
            (at.sin_addr.s_addr == 0 || ntohl(at.sin_addr.s_addr) >> 24 == 127))
            return at;
    }
    fprintf(stderr, "%s: a loopback ADDR:PORT\n", name);
    exit(2);
}

#endif
