/* supervise.h - when a crashed child is started again: the pure part of `mooncake up`.
 *
 *   exit -> wait 100 ms, 200 ms, ... 5 s -> start again          a run of 10 s and more begins anew at 100 ms
 *   5 exits within 30 s                  -> give up: a crash loop is told, not hidden
 *
 * No clock, no process: times come in as nanoseconds. Threads: the owner's only. */
#ifndef CLI_SUPERVISE_H
#define CLI_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SUPERVISE_DELAY_MS = 100,
    SUPERVISE_DELAY_MS_MAX = 5000,
    SUPERVISE_GOOD_RUN_MS = 10000,
    SUPERVISE_LOOP_EXITS = 5,
    SUPERVISE_LOOP_MS = 30000,
};

struct supervise {
    uint64_t started_ns;
    uint64_t exits_ns[SUPERVISE_LOOP_EXITS]; /* the last ones, oldest overwritten */
    unsigned exits;                          /* all of them */
    unsigned delay_ms;                       /* of the next restart */
};

void supervise_init(struct supervise *supervise);
void supervise_started(struct supervise *supervise, uint64_t now_ns);

/* The child ended: milliseconds until it is to be started again, or -1 when it is a crash loop. */
int supervise_exited(struct supervise *supervise, uint64_t now_ns);

#endif
