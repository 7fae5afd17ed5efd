/* harness.h - second processes that are stopped, black-holed and killed, and memory that is watched.
 *
 *     struct far far;            harness_far_start(&far, argv0, "peer", ...)  this binary again, with another role
 *     struct relay relay;        harness_relay_start(&relay, argv0, address)  a TCP relay in a process of its own: SIGSTOP = black hole
 *     struct stopper stopper;    harness_stop_after(&stopper, pid, us)        SIGSTOP at a random point, from a thread
 *     struct watch watch[2];     harness_watch(watch, 2, ms)                  not one byte may change
 *
 * A program that uses it calls harness_role() first in main(): in the second process that runs the role and does not return.
 * Failures of the harness itself end the program with a message: a test that cannot be set up has failed.
 * Threads: the test's main thread. */
#ifndef TESTS_TRANSFER_HARNESS_H
#define TESTS_TRANSFER_HARNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- second processes ---- */

#define HARNESS_LINE 512

/* A process of our binary. What it prints first is one line, given back in `line`. It ends when its standard input does. */
struct far {
    pid_t pid;
    int input; /* write end of its standard input */
    char line[HARNESS_LINE];
};

struct role {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the first argument after the role's name */
};

/* If this process was started as a second one: run the role and exit. "relay" is built in. */
void harness_role(int argc, char **argv, const struct role *roles, int count);

/* Start this binary in `role` with up to 6 further arguments (NULL ends them) and wait for its line. */
void harness_far_start(struct far *far, const char *role, const char *const *args);
void harness_far_end(struct far *far); /* also when it is stopped or dead */

/* For roles: print the line, then wait until standard input ends. */
void harness_far_ready(const char *format, ...) __attribute__((format(printf, 1, 2)));
void harness_far_wait(void);

/* Map descriptor `fd` of process `pid` shared and writable: its memory, which we can refill and watch while it is stopped. */
uint8_t *harness_map_fd(pid_t pid, int fd, size_t len);

/* ---- a relay ---- */

/* Forwards connections to its address to `target`. Stopped, it is a black hole: connections stand, nothing arrives. */
struct relay {
    struct far far;
    char address[64];
};
void harness_relay_start(struct relay *relay, const char *target);

/* ---- stopping at random points ---- */

struct stopper {
    pthread_t thread;
    pid_t pid;
    uint32_t after_us;
    _Atomic uint64_t stopped_ns; /* 0: not yet */
};
void harness_stop_after(struct stopper *stopper, pid_t pid, uint32_t after_us);
void harness_stop_join(struct stopper *stopper);
void harness_continue(pid_t pid);

/* ---- watching ---- */

struct watch {
    const char *name;
    uint8_t *addr;
    size_t len;
    uint64_t pattern;
};

/* Fill with a pattern (never twice the same). */
void harness_refill(struct watch *watch);

/* Look again and again for `ms`. True: no byte changed. Else prints where. */
bool harness_watch(const struct watch *watches, int count, uint32_t ms);

#endif
