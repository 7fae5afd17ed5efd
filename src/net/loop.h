/* loop.h - an event loop: sockets, timers, tasks from other threads. One thread owns everything registered with it.
 *
 * An epoll set of our own; libevent, which serves HTTP, is a guest that waits in its place once somebody asks for it
 * (docs/decisions/010-libevent.md).
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
 * Threads: loop_post(), loop_stop(), loop_call(), loop_borrow() from any thread; everything else from the loop's thread, or from
 * any one thread while the loop does not run. Functions check this with assertions. Who has borrowed the loop is its thread. */
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

/* Is it the loop's own (or does it not run)? Not whoever has borrowed it. */
bool loop_at_home(const struct loop *loop);

/* For the HTTP glue and other users of libevent on the same loop; they call loop_enter() first in their callbacks. From the first
 * call on the loop is not lent any more. NULL: no memory (logged). */
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
    bool home; /* never run by a borrower: it calls what belongs to the application. Set after loop_task_init() */
    atomic_bool queued; /* set by whoever queues it, cleared by the loop just before fn runs */
};

static inline void loop_task_init(struct loop_task *task, loop_task_fn *fn)
{
    task->fn = fn;
    task->next = NULL;
    list_init(&task->link);
    task->home = false;
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
    bool watched; /* in the epoll set */
    bool led;     /* a borrower waits for it */
};

/* Begin watching fd for `want` (may be 0); one loop_io per descriptor. It stays the caller's and must stay open until loop_io_stop().
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

/* --- lending: who waits for an answer runs the connection himself, in place of a switch of threads each way ---
 *
 *     if (loop_borrow(loop)) {
 *         ... start something that will be answered over `ios` ...
 *         if (loop_lead_begin(loop, ios, count))
 *             while (!answered && loop_lead_wait(loop))
 *                 ;
 *         loop_return(loop);
 *     }
 *
 * The borrower owns the loop, but runs only what he began: no timers, no posted tasks, no descriptors but those he leads, no
 * deferred task that is `home`. */
#define LOOP_LED_MAX 16

/* Be the loop's thread until loop_return(). Does not wait. False: it is busy, or was stopped just now, or is never lent (it does not run, or
 * libevent waits for it); post something to it. */
bool loop_borrow(struct loop *loop);

/* Runs what was deferred meanwhile, or leaves it to the loop's thread. */
void loop_return(struct loop *loop);

/* From here to loop_return() these descriptors (at most LOOP_LED_MAX) are waited for by loop_lead_wait() only. False: there are none, or
 * another thread leads. */
bool loop_lead_begin(struct loop *loop, struct loop_io *const *ios, unsigned count);

/* Run what was deferred, lend the loop on while waiting for one of the descriptors, and run its callbacks. Also returns after
 * loop_lead_kick(). False: the process was stopped for so long that the loop's thread has to look first; go and wait otherwise. */
bool loop_lead_wait(struct loop *loop);

/* Make the loop_lead_wait() of another thread return: what it waits for has come by another way. Loop's thread; nothing happens when
 * nobody waits. */
void loop_lead_kick(struct loop *loop);

#endif
