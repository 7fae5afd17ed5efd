/* loop.c - turns of the event loop, and its tasks.
 *
 *   turn:  wait (loop_io.c)  ->  posted tasks  ->  deferred tasks  ->  (sleep in the next wait)
 *             |- io callbacks
 *             |- timer_fd: all timers that are due (loop_time.c)
 *             `- wake_fd: somebody posted while we slept
 *
 * Posting. A lock-free stack: posters push with compare-and-swap, the loop takes the whole stack at once and reverses it. The
 * eventfd is written only when the loop said it sleeps. Both sides do "write mine, then read the other's" with sequentially
 * consistent operations, so at least one of them sees the other:
 *
 *   poster: push task;  if (sleeping) write eventfd          loop: sleeping = true;  if (stack not empty) do not sleep
 *
 * Owning. Everything is touched by the owner only, which is this thread but for its sleep, when somebody else may borrow the loop
 * (loop_lend.c): so nothing that was read before the wait may be believed after it. */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/loop_impl.h"

/* --- tasks --- */

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof(one));

    assert(n == sizeof(one) || errno == EAGAIN); /* EAGAIN: the counter is full, so it is awake */
    (void)n;
}

static void push(struct loop *loop, struct loop_task *task)
{
    struct loop_task *head = atomic_load_explicit(&loop->posted, memory_order_relaxed);

    do
        task->next = head;
    while (!atomic_compare_exchange_weak(&loop->posted, &head, task));
}

bool loop_post(struct loop *loop, struct loop_task *task)
{
    if (atomic_exchange(&task->queued, true))
        return false;
    push(loop, task);
    if (atomic_load(&loop->sleeping))
        loop_wake(loop);
    return true;
}

void loop_run_task(struct loop *loop, struct loop_task *task)
{
    /* From here on others may post it again, so nothing of it is read afterwards. */
    atomic_store(&task->queued, false);
    task->fn(loop, task);
}

static bool run_posted(struct loop *loop)
{
    struct loop_task *task = atomic_exchange(&loop->posted, NULL), *order = NULL;

    while (task) {
        struct loop_task *next = task->next;

        task->next = order;
        order = task;
        task = next;
    }
    if (!order)
        return false;
    while (order) {
        struct loop_task *next = order->next;

        loop_enter(loop);
        loop_run_task(loop, order); /* posted tasks are not taken back, so a gap cannot have freed it */
        order = next;
    }
    return true;
}

void loop_defer(struct loop *loop, struct loop_task *task)
{
    assert(loop_in_thread(loop));
    if (!atomic_exchange(&task->queued, true))
        list_push_back(&loop->deferred, &task->link);
}

void loop_defer_cancel(struct loop *loop, struct loop_task *task)
{
    assert(loop_in_thread(loop));
    if (!list_linked(&task->link))
        return;
    list_del(&task->link);
    atomic_store(&task->queued, false);
}

static bool run_deferred(struct loop *loop)
{
    struct list now;
    struct list *node;

    list_init(&now);
    list_splice_back(&now, &loop->deferred);
    if (list_empty(&now))
        return false;
    for (;;) {
        loop_enter(loop); /* before it is taken off the list: a gap watcher may cancel it */
        node = list_pop_front(&now);
        if (!node)
            return true;
        loop_run_task(loop, list_entry(node, struct loop_task, link));
    }
}

struct call {
    struct loop_task task;
    void (*fn)(struct loop *loop, void *arg);
    void *arg;
    sem_t done;
};

static void call_run(struct loop *loop, struct loop_task *task)
{
    struct call *call = container_of(task, struct call, task);

    call->fn(loop, call->arg);
    sem_post(&call->done);
}

void loop_call(struct loop *loop, void (*fn)(struct loop *loop, void *arg), void *arg)
{
    struct call call = {.fn = fn, .arg = arg};

    if (loop_in_thread(loop)) {
        fn(loop, arg);
        return;
    }
    loop_task_init(&call.task, call_run);
    sem_init(&call.done, 0, 0);
    loop_post(loop, &call.task);
    while (sem_wait(&call.done) != 0)
        ;
    sem_destroy(&call.done);
}

/* --- life --- */

static void loop_free(struct loop *loop)
{
    loop_time_fini(loop);
    loop_fds_fini(loop);
    pthread_mutex_destroy(&loop->own);
    sem_destroy(&loop->thread_ready);
    free(loop);
}

struct loop *loop_create(const char *name)
{
    struct loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return NULL;
    snprintf(loop->name, sizeof(loop->name), "%s", name);
    list_init(&loop->deferred);
    pthread_mutex_init(&loop->own, NULL);
    sem_init(&loop->thread_ready, 0, 0);
    loop->timer_fd = -1;
    if (loop_fds_init(loop) != MC_OK || loop_time_init(loop) != MC_OK) {
        log_error("cannot create loop %s: %m", name);
        loop_free(loop);
        return NULL;
    }
    return loop;
}

static void run_leftovers(struct loop *loop)
{
    bool more;

    do {
        more = run_posted(loop);
        more |= run_deferred(loop);
    } while (more);
    loop->awake = false;
}

void loop_hold(struct loop *loop)
{
    atomic_fetch_add(&loop->held, 1);
}

void loop_unhold(struct loop *loop)
{
    atomic_fetch_sub(&loop->held, 1);
}

void loop_destroy(struct loop *loop)
{
    struct timespec nap = {.tv_nsec = 5 * (long)NS_PER_MS};

    if (!loop)
        return;
    assert(!atomic_load(&loop->running));
    run_leftovers(loop);
    /* A name look-up cannot be cancelled. This is a rare end of a rare path: sleeping is good enough. */
    while (atomic_load(&loop->held) > 0)
        nanosleep(&nap, NULL);
    run_leftovers(loop);
    loop_free(loop);
}

static void turn(struct loop *loop)
{
    bool idle;

    loop_enter(loop); /* so that a long callback is not counted as part of the sleep */
    atomic_store(&loop->sleeping, true);
    idle = list_empty(&loop->deferred) && !atomic_load(&loop->posted) && !atomic_load(&loop->stop);
    if (!idle)
        atomic_store(&loop->sleeping, false);
    loop->awake = false;
    loop_wait(loop, idle);
    run_posted(loop);
    run_deferred(loop);
}

/* Broken pipes are statuses to us. Blocked in this thread only; one that is pending is eaten before the mask is restored. */
static void sigpipe_block(sigset_t *before)
{
    sigset_t pipe_only;

    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, before);
}

static void sigpipe_restore(const sigset_t *before)
{
    static const struct timespec zero;
    sigset_t pipe_only;

    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    if (!sigismember(before, SIGPIPE))
        while (sigtimedwait(&pipe_only, NULL, &zero) == SIGPIPE)
            ;
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

void loop_run(struct loop *loop)
{
    sigset_t mask;

    assert(!atomic_load(&loop->running));
    sigpipe_block(&mask);
    loop->thread = pthread_self();
    loop_own(loop);
    atomic_store(&loop->running, true);
    if (loop->thread_started)
        sem_post(&loop->thread_ready);
    loop->last_ns = now_ns();
    do
        turn(loop);
    while (!atomic_load(&loop->stop));
    run_leftovers(loop);
    atomic_store(&loop->stop, false);
    atomic_store(&loop->running, false);
    loop_disown(loop);
    sigpipe_restore(&mask);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    if (atomic_load(&loop->sleeping))
        loop_wake(loop);
}

static void *thread_main(void *arg)
{
    struct loop *loop = arg;

    pthread_setname_np(pthread_self(), loop->name);
    loop_run(loop);
    return NULL;
}

enum mc_status loop_thread_start(struct loop *loop)
{
    sigset_t all, before;
    pthread_t thread;
    int error;

    assert(!loop->thread_started);
    loop->thread_started = true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, thread_main, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        loop->thread_started = false;
        errno = error;
        log_error("cannot start thread of loop %s: %m", loop->name);
        return error == EAGAIN ? MC_ENOMEM : MC_ESYS;
    }
    while (sem_wait(&loop->thread_ready) != 0)
        ;
    return MC_OK;
}

void loop_thread_stop(struct loop *loop)
{
    if (!loop->thread_started)
        return;
    loop_stop(loop);
    pthread_join(loop->thread, NULL);
    loop->thread_started = false;
}

/* --- who owns it --- */

void loop_own(struct loop *loop)
{
    pthread_mutex_lock(&loop->own);
    atomic_store_explicit(&loop->owner, pthread_self(), memory_order_relaxed); /* published by `owned` */
    atomic_store_explicit(&loop->owned, true, memory_order_release);
}

void loop_disown(struct loop *loop)
{
    loop->awake = false;
    atomic_store_explicit(&loop->owned, false, memory_order_relaxed); /* only the owner's own look at it matters */
    pthread_mutex_unlock(&loop->own);
}

bool loop_in_thread(const struct loop *loop)
{
    if (!atomic_load_explicit(&loop->running, memory_order_acquire))
        return true;
    return atomic_load_explicit(&loop->owned, memory_order_acquire) &&
           pthread_equal(atomic_load_explicit(&loop->owner, memory_order_relaxed), pthread_self());
}

bool loop_at_home(const struct loop *loop)
{
    return !atomic_load_explicit(&loop->running, memory_order_acquire) || pthread_equal(loop->thread, pthread_self());
}
