/* net_test.h - what the tests of this room share: running a loop until something is true, and a fixed random state.
 *
 * Include after <cmocka.h>. */
#ifndef NET_NET_TEST_H
#define NET_NET_TEST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "net/addr.h"
#include "net/loop.h"

struct until {
    struct loop_timer timer;
    bool (*cond)(void *arg);
    void *arg;
    uint64_t end_ns;
    bool met;
};

static inline void until_tick(struct loop *loop, struct loop_timer *timer)
{
    struct until *until = container_of(timer, struct until, timer);

    until->met = until->cond(until->arg);
    if (until->met || now_ns() >= until->end_ns)
        loop_stop(loop);
    else
        loop_timer_set(loop, timer, now_ns() + NS_PER_MS / 5);
}

/* Run the loop in this thread until cond(arg), at most `ms`. Says whether it came true. */
static inline bool run_until(struct loop *loop, bool (*cond)(void *arg), void *arg, unsigned ms)
{
    struct until until = {.cond = cond, .arg = arg, .end_ns = now_ns() + ms * NS_PER_MS};

    loop_timer_init(&until.timer, until_tick);
    loop_timer_set(loop, &until.timer, now_ns());
    loop_run(loop);
    loop_timer_cancel(loop, &until.timer);
    return until.met;
}

static inline bool flag_is_set(void *arg)
{
    return *(bool *)arg;
}

static inline bool never(void *arg)
{
    return false;
}

static inline void run_for(struct loop *loop, unsigned ms)
{
    run_until(loop, never, NULL, ms);
}

static inline struct addr loopback(void)
{
    struct addr addr;

    assert_int_equal(addr_parse("127.0.0.1:0", 0, &addr, NULL), MC_OK);
    return addr;
}

#endif
