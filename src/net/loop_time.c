/* loop_time.c - the loop's clock: cached time, timers, and noticing that the process was stopped.
 *
 * Invariants: timer_armed_ns <= key of the first timer (it may be earlier: a cancelled timer costs one idle wake-up, not a
 * system call). last_ns is the last time we know the loop to have run. */
#include <assert.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/loop_impl.h"

#define GAP_TICK_MS 100

uint64_t loop_now_ns(const struct loop *loop)
{
    return loop->awake ? loop->now : now_ns();
}

static void run_gaps(struct loop *loop, uint64_t gap_ns)
{
    struct list todo, *node;

    log_warn("loop %s did not run for %llu ms: dropping what is queued", loop->name,
        (unsigned long long)(gap_ns / NS_PER_MS));
    list_init(&todo);
    list_splice_back(&todo, &loop->gaps);
    while ((node = list_pop_front(&todo)) != NULL) {
        struct loop_gap *gap = list_entry(node, struct loop_gap, link);

        list_push_back(&loop->gaps, node); /* first: the callback may unwatch itself */
        gap->fn(loop, gap, gap_ns);
    }
}

/* How long the loop has not run, when that counts as having been stopped. */
static uint64_t gap_of(const struct loop *loop, uint64_t now)
{
    uint64_t gap = now - loop->last_ns;

    return gap > LOOP_GAP_NS && heap_has(&loop->gap_tick.node) && !loop->in_gap ? gap : 0;
}

bool loop_gap_due(const struct loop *loop)
{
    return gap_of(loop, now_ns()) != 0;
}

/* A borrower leaves the watchers to the loop's own thread: they are not his. */
void loop_enter(struct loop *loop)
{
    uint64_t now = now_ns(), gap = gap_of(loop, now);

    loop->now = now;
    loop->awake = true;
    if (gap && !loop_at_home(loop))
        return;
    loop->last_ns = now;
    if (!gap)
        return;
    loop->in_gap = true;
    run_gaps(loop, gap);
    loop->in_gap = false;
    loop->now = loop->last_ns = now_ns();
}

/* Tick while somebody watches for gaps and some timer is set: a gap is held against times that are waited for, and where none
 * is, sleeping long is no sign of anything. The timer has a slot in the heap's array, so setting it cannot fail. */
static void tick_arm(struct loop *loop)
{
    if (list_empty(&loop->gaps) || heap_has(&loop->gap_tick.node) || !heap_top(&loop->timers))
        return;
    loop->last_ns = now_ns();
    loop_timer_set(loop, &loop->gap_tick, deadline_after_ms(loop->last_ns, GAP_TICK_MS));
}

static void gap_tick(struct loop *loop, struct loop_timer *timer)
{
    tick_arm(loop); /* having woken up is the point */
}

void loop_gap_watch(struct loop *loop, struct loop_gap *gap)
{
    assert(loop_in_thread(loop));
    list_push_back(&loop->gaps, &gap->link);
    tick_arm(loop);
}

void loop_gap_unwatch(struct loop *loop, struct loop_gap *gap)
{
    assert(loop_in_thread(loop));
    list_del(&gap->link);
    if (list_empty(&loop->gaps))
        loop_timer_cancel(loop, &loop->gap_tick);
}

/* --- timers: one timerfd for all --- */

static void timer_arm(struct loop *loop, uint64_t when_ns)
{
    struct itimerspec at = {.it_value = {(time_t)(when_ns / NS_PER_S), (long)(when_ns % NS_PER_S)}};

    if (timerfd_settime(loop->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) != 0)
        log_error("timerfd_settime: %m");
    loop->timer_armed_ns = when_ns;
}

enum mc_status loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t when_ns)
{
    assert(loop_in_thread(loop));
    if (when_ns == DEADLINE_NONE) {
        loop_timer_cancel(loop, timer);
        return MC_OK;
    }
    if (when_ns <= loop->firing_ns)
        when_ns = loop->firing_ns + 1; /* a timer that sets itself to the past must not keep us from the sockets */
    if (when_ns == 0)
        when_ns = 1; /* zero would disarm the timerfd */
    if (heap_has(&timer->node))
        heap_move(&loop->timers, &timer->node, when_ns);
    else if (heap_add(&loop->timers, &timer->node, when_ns) != MC_OK)
        return MC_ENOMEM;
    tick_arm(loop);
    if (when_ns < loop->timer_armed_ns && !loop->firing_ns)
        timer_arm(loop, when_ns);
    return MC_OK;
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
    assert(loop_in_thread(loop));
    heap_del(&loop->timers, &timer->node);
}

enum mc_status loop_timer_reserve(struct loop *loop, size_t count)
{
    return heap_reserve(&loop->timers, count + 1); /* one is the gap tick's */
}

static void on_timer_fd(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct heap_node *top;
    uint64_t expirations;
    ssize_t n = read(io->fd, &expirations, sizeof(expirations));

    (void)n; /* EAGAIN: armed anew since it fired */
    loop->timer_armed_ns = DEADLINE_NONE;
    loop->firing_ns = loop->now;
    while ((top = heap_top(&loop->timers)) != NULL && top->key <= loop->firing_ns) {
        struct loop_timer *timer = container_of(top, struct loop_timer, node);

        heap_del(&loop->timers, top);
        timer->fn(loop, timer);
        loop_enter(loop); /* before the heap is looked at again: a gap watcher may cancel timers */
    }
    loop->firing_ns = 0;
    if (top)
        timer_arm(loop, top->key);
}

/* --- life --- */

enum mc_status loop_time_init(struct loop *loop)
{
    list_init(&loop->gaps);
    loop->timer_armed_ns = DEADLINE_NONE;
    loop_timer_init(&loop->gap_tick, gap_tick);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (loop->timer_fd < 0 || heap_reserve(&loop->timers, 16) != MC_OK)
        return MC_ENOMEM;
    return loop_io_start(loop, &loop->timer_io, loop->timer_fd, LOOP_READ, on_timer_fd);
}

void loop_time_fini(struct loop *loop)
{
    loop_io_stop(&loop->timer_io);
    if (loop->timer_fd >= 0)
        close(loop->timer_fd);
    heap_fini(&loop->timers);
}
