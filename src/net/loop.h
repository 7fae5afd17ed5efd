/* loop.h - an event loop: sockets, timers, tasks from other threads. One thread owns everything registered with it.
 *
 * A thin shell over one libevent event_base (docs/decisions/010-libevent.md), which the HTTP glue shares.
 *
 * Order within one turn: socket and timer callbacks as they come, then tasks posted by other threads, then deferred tasks,
 * then sleep until something happens. Nothing runs while nothing happens: an idle loop uses no CPU.
 *
 * Being stopped: while gap watchers are registered and a timer is set the loop wakes every 100 ms, and before *every* callback
 * it looks how long ago it last ran. More than 250 ms (SIGSTOP, frozen VM, a callback that blocked) makes the watchers run
 * first, before any socket is read or written, so that queued writes can be dropped and peers re-checked. Without a timer
 * nothing is waited for that a gap could be held against, and the loop sleeps for good.
 *
 * Ownership: struct loop_task, loop_timer and loop_io are embedded in objects of the caller and must be cancelled/stopped
 * before those are freed.
 * Threads: loop_post(), loop_stop(), loop_call() from any thread; everything else from the loop's thread, or from any one
 * thread while the loop does not run. Functions check this with assertions. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/heap.h"
#include "base/list.h"
#include "mooncake/status.h"

struct loop;
struct event;      /* libevent */
struct event_base; /* libevent */

/* `name` (copied, 15 bytes) becomes the name of the loop's thread. NULL when memory or descriptors are out (logged). */
struct loop *loop_create(const char *name);

/* Runs what is still posted or deferred, then frees. The loop must not be running; io and timers must be stopped. */
void loop_destroy(struct loop *loop);

/* Run in this thread until loop_stop(). Tasks posted before the stop have all run when it returns. May be run again. */
void loop_run(struct loop *loop);

/* Make loop_run() return soon. Any thread, also before loop_run() (which then returns after one turn). */
void loop_stop(struct loop *loop);

/* Run in a thread of its own. MC_OK, MC_ENOMEM/MC_ESYS (logged). Signals are blocked in that thread. */
enum mc_status loop_thread_start(struct loop *loop);

/* loop_stop() and join. Not from the loop's own thread. Harmless when not started. */
void loop_thread_stop(struct loop *loop);

/* Is the caller the thread that runs the loop (or does it not run at all)? For assertions. */
bool loop_in_thread(const struct loop *loop);

/* For the HTTP glue and other users of libevent on the same loop; they call loop_enter() first in their callbacks. */
struct event_base *loop_event_base(struct loop *loop);

/* Update the cached time and run the gap watchers if we were stopped. Done before every callback of this header; what a watcher
 * stops or cancels is not called any more. */
void loop_enter(struct loop *loop);

/* CLOCK_MONOTONIC at the start of the running callback; outside of callbacks: now. */
uint64_t loop_now_ns(const struct loop *loop);

/* --- tasks --- */

struct loop_task;
typedef void loop_task_fn(struct loop *loop, struct loop_task *task);

struct loop_task {
    loop_task_fn *fn;
    struct loop_task *next; /* posted: the one posted before */
    struct list link;       /* deferred */
    atomic_bool queued;     /* set by whoever queues it, cleared by the loop just before fn runs */
};

static inline void loop_task_init(struct loop_task *task, loop_task_fn *fn)
{
    task->fn = fn;
    task->next = NULL;
    list_init(&task->link);
    atomic_init(&task->queued, false);
}

/* Run the task on the loop, later. From any thread; does not allocate, does not block. Tasks of one thread run in the order
 * posted. Posting a task that is already queued and has not begun does nothing (false): so a task can be a doorbell. */
bool loop_post(struct loop *loop, struct loop_task *task);

/* Run the task after the callbacks of this turn, before sleeping. Loop's thread only. A deferred task that defers itself runs
 * again in the next turn, after sockets were polled. Already queued: nothing. */
void loop_defer(struct loop *loop, struct loop_task *task);

/* Take back a deferred task (not a posted one). Harmless when it is not queued. */
void loop_defer_cancel(struct loop *loop, struct loop_task *task);

/* Run fn(loop, arg) on the loop and wait until it has returned. From any other thread while the loop runs (in the loop's own
 * thread, or while no thread runs it, it is simply called). */
void loop_call(struct loop *loop, void (*fn)(struct loop *loop, void *arg), void *arg);

/* --- timers: one timerfd for all; resolution of the kernel (well below 1 ms) --- */

struct loop_timer;
typedef void loop_timer_fn(struct loop *loop, struct loop_timer *timer);

struct loop_timer {
    struct heap_node node;
    loop_timer_fn *fn;
};

static inline void loop_timer_init(struct loop_timer *timer, loop_timer_fn *fn)
{
    *timer = (struct loop_timer){.fn = fn};
}

/* Fire once at `when_ns` (CLOCK_MONOTONIC; in the past: this turn or the next; DEADLINE_NONE: cancel). Set again = moved.
 * MC_OK or MC_ENOMEM (only for a timer that was not set; see loop_timer_reserve). */
enum mc_status loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t when_ns);

/* Harmless when not set. */
void loop_timer_cancel(struct loop *loop, struct loop_timer *timer);

static inline bool loop_timer_pending(const struct loop_timer *timer)
{
    return heap_has(&timer->node);
}

/* Make room so that the next `count` loop_timer_set() of new timers cannot fail. */
enum mc_status loop_timer_reserve(struct loop *loop, size_t count);

/* --- descriptors, level triggered --- */

enum loop_events {
    LOOP_READ = 1,
    LOOP_WRITE = 2,
    LOOP_CLOSED = 4, /* the peer closed its end (EPOLLRDHUP), seen also while LOOP_READ is off */
};

struct loop_io;
typedef void loop_io_fn(struct loop *loop, struct loop_io *io, unsigned events);

struct loop_io {
    int fd;
    unsigned want; /* enum loop_events */
    loop_io_fn *fn;
    struct loop *loop;
    struct event *events[2];
};

/* Begin watching fd for `want` (may be 0). The descriptor stays the caller's and must stay open until loop_io_stop().
 * MC_OK, MC_ENOMEM, MC_ESYS: nothing registered. */
enum mc_status loop_io_start(struct loop *loop, struct loop_io *io, int fd, unsigned want, loop_io_fn *fn);

/* Change what is watched. Cheap when nothing changes. MC_OK or MC_ESYS. */
enum mc_status loop_io_want(struct loop_io *io, unsigned want);

/* Stop watching; no callback after this, also not one already gathered in this turn. Harmless on a zeroed struct. */
void loop_io_stop(struct loop_io *io);

/* --- being stopped --- */

struct loop_gap {
    struct list link;
    void (*fn)(struct loop *loop, struct loop_gap *gap, uint64_t gap_ns);
};

#define LOOP_GAP_NS (250ull * 1000 * 1000)

/* `fn` runs when more than LOOP_GAP_NS passed without this loop running while a timer was set. In the order registered. */
void loop_gap_watch(struct loop *loop, struct loop_gap *gap);
void loop_gap_unwatch(struct loop *loop, struct loop_gap *gap);

#endif
