/* loop_impl.h - inside src/net: struct loop, shared by loop.c (turns, tasks, life), loop_time.c (timers, gaps), loop_io.c
 * (descriptors) and loop_lend.c (a caller's thread in the place of the loop's). */
#ifndef NET_LOOP_IMPL_H
#define NET_LOOP_IMPL_H

#include <pthread.h>
#include <semaphore.h>
#include <sys/epoll.h>

#include "net/loop.h"

#define READY_MAX 32 /* descriptors reported by one wait: more come with the next, so this bounds nothing */

struct loop {
    char name[16];

    pthread_mutex_t own;      /* held by whoever runs the loop; the loop's thread gives it up while it waits */
    _Atomic(pthread_t) owner; /* valid while somebody holds it */
    atomic_bool owned;        /* acquire before `owner` is read */
    atomic_bool running;      /* release after the first `owner` is set */
    pthread_t thread;         /* valid while running: the loop's own */
    bool thread_started;      /* by loop_thread_start, whose caller also stops */
    sem_t thread_ready;

    _Atomic(struct loop_task *) posted; /* newest first */
    atomic_bool sleeping, stop;
    struct list deferred;

    /* descriptors */
    int ep, wake_fd, timer_fd;
    struct loop_io wake_io, timer_io;
    struct epoll_event ready[READY_MAX]; /* gathered in this turn; those stopped meanwhile have no pointer any more */
    int ready_count;
    struct event_base *base; /* NULL until somebody asks for it; then libevent waits, for `ep` too */
    struct event *ep_event;

    /* lending */
    unsigned borrows; /* how often it was lent: what was gathered before the last time may be gone */
    struct loop_io *led[LOOP_LED_MAX];
    unsigned led_count;
    bool led_waiting; /* the leader waits, without owning the loop */
    int kick_fd;

    /* time */
    struct heap timers;
    uint64_t timer_armed_ns; /* DEADLINE_NONE = not armed */
    uint64_t firing_ns;      /* while timers fire: those up to here; else 0 */
    uint64_t now;            /* cached, valid while awake */
    bool awake;
    uint64_t last_ns;
    bool in_gap;
    struct list gaps;
    struct loop_timer gap_tick;

    atomic_int held; /* helper threads that will still post */
};

/* Helper threads that will post to the loop keep it alive: between the two, loop_destroy() waits. hold: loop's thread; unhold: any
 * thread, as its last use of the loop. */
void loop_hold(struct loop *loop);
void loop_unhold(struct loop *loop);

/* loop.c */
void loop_own(struct loop *loop);
void loop_disown(struct loop *loop);
void loop_wake(struct loop *loop); /* any thread */
void loop_run_task(struct loop *loop, struct loop_task *task);

/* loop_time.c */
enum mc_status loop_time_init(struct loop *loop);
void loop_time_fini(struct loop *loop);
bool loop_gap_due(const struct loop *loop); /* would entering now run the gap watchers? */

/* loop_io.c */
enum mc_status loop_fds_init(struct loop *loop);
void loop_fds_fini(struct loop *loop);
void loop_wait(struct loop *loop,
    bool idle); /* wait for descriptors, at most now and not at all unless idle; run their callbacks */
bool loop_io_arm(struct loop_io *io, unsigned want);
void loop_io_event(struct loop_io *io, uint32_t events); /* of epoll(7) or poll(2), whose bits are the same */
uint32_t loop_events_of(unsigned want);

/* loop_lend.c */
void loop_led_stopped(struct loop_io *io);

#endif
