/* loop.c - the event loop.
 *
 * libevent waits for descriptors; the rest is ours, because it must not allocate per use and has to run in a known order:
 *
 *   turn:  event_base_loop(ONCE)  ->  posted tasks  ->  deferred tasks  ->  (sleep in the next event_base_loop)
 *             |- io callbacks
 *             |- timer_fd: all timers that are due (heap)
 *             `- wake_fd: somebody posted while we slept
 *
 * Posting. A lock-free stack: posters push with compare-and-swap, the loop takes the whole stack at once and reverses it. The
 * eventfd is written only when the loop said it sleeps. Both sides do "write mine, then read the other's" with sequentially
 * consistent operations, so at least one of them sees the other:
 *
 *   poster: push task;  if (sleeping) write eventfd          loop: sleeping = true;  if (stack not empty) do not sleep
 *
 * Hang-ups. libevent 2.1 turns EPOLLERR into "readable, writable" only; a watcher that asked just for EV_CLOSED would never be
 * called and the level-triggered poll would spin. So LOOP_CLOSED uses a second epoll set, one shot each, whose descriptor
 * is watched like any other.
 *
 * Invariants: timer_armed_ns <= key of the first timer (it may be earlier: a cancelled timer costs one idle wake-up, not a
 * system call). last_ns is the last time we know the loop to have run. */
#include "net/loop.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/loop_impl.h"

#define GAP_TICK_MS 100

struct loop {
    struct event_base *base;
    char name[16];

    pthread_t thread;    /* valid while running */
    atomic_bool running; /* release after `thread` is set; acquire before it is read */
    bool thread_started; /* by loop_thread_start, whose caller also stops */
    sem_t thread_ready;

    _Atomic(struct loop_task *) posted; /* newest first */
    atomic_bool sleeping, stop;
    int wake_fd, timer_fd, hup_fd;
    struct event *wake_event, *timer_event, *hup_event;

    struct list deferred;
    struct heap timers;
    uint64_t timer_armed_ns; /* DEADLINE_NONE = not armed */
    uint64_t firing_ns;      /* while timers fire: those up to here; else 0 */

    uint64_t now; /* cached, valid while awake */
    bool awake;
    uint64_t last_ns;
    bool in_gap;
    struct list gaps;
    struct loop_timer gap_tick;

    atomic_int held; /* helper threads that will still post */
};

/* --- tasks --- */

static void wake(struct loop *loop)
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
        wake(loop);
    return true;
}

static void run_task(struct loop *loop, struct loop_task *task)
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
        run_task(loop, order); /* posted tasks are not taken back, so a gap cannot have freed it */
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
        run_task(loop, list_entry(node, struct loop_task, link));
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

/* --- time --- */

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

/* True: watchers ran. They may have stopped, and their owners freed, whatever the caller was about to call. */
static bool enter(struct loop *loop)
{
    uint64_t now = now_ns(), gap = now - loop->last_ns;

    loop->now = loop->last_ns = now;
    loop->awake = true;
    if (gap <= LOOP_GAP_NS || !heap_has(&loop->gap_tick.node) || loop->in_gap)
        return false;
    loop->in_gap = true;
    run_gaps(loop, gap);
    loop->in_gap = false;
    loop->now = loop->last_ns = now_ns();
    return true;
}

void loop_enter(struct loop *loop)
{
    (void)enter(loop);
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

/* --- timers --- */

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

static void on_timer_fd(evutil_socket_t fd, short events, void *arg)
{
    struct loop *loop = arg;
    struct heap_node *top;
    uint64_t expirations;
    ssize_t n = read(fd, &expirations, sizeof(expirations));

    (void)n; /* EAGAIN: armed anew since it fired */
    loop->timer_armed_ns = DEADLINE_NONE;
    loop_enter(loop);
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

/* --- descriptors --- */

static void on_io(evutil_socket_t fd, short events, void *arg)
{
    struct loop_io *io = arg;

    if (enter(io->loop))
        return; /* level triggered: what still stands is reported again */
    io->fn(io->loop, io, (events & EV_READ ? LOOP_READ : 0u) | (events & EV_WRITE ? LOOP_WRITE : 0u));
}

static void on_hup_fd(evutil_socket_t fd, short events, void *arg)
{
    struct loop *loop = arg;
    struct epoll_event event;

    /* One at a time: a callback or a gap watcher may stop others. */
    for (;;) {
        struct loop_io *io;

        loop_enter(loop);
        if (epoll_wait(loop->hup_fd, &event, 1, 0) != 1)
            return;
        io = event.data.ptr;
        io->want &= ~(unsigned)LOOP_CLOSED;
        epoll_ctl(loop->hup_fd, EPOLL_CTL_DEL, io->fd, NULL);
        io->fn(loop, io, LOOP_CLOSED);
    }
}

static bool watch_closed(struct loop_io *io, bool on)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.ptr = io};

    return epoll_ctl(io->loop->hup_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, io->fd, &event) == 0;
}

enum mc_status loop_io_want(struct loop_io *io, unsigned want)
{
    unsigned change = io->want ^ want;
    bool ok = true;

    assert(loop_in_thread(io->loop));
    for (int i = 0; i < 2; i++) {
        unsigned bit = i == 0 ? LOOP_READ : LOOP_WRITE;

        if (!(change & bit))
            continue;
        if ((want & bit ? event_add(io->events[i], NULL) : event_del(io->events[i])) != 0)
            ok = false;
    }
    if (change & LOOP_CLOSED && !watch_closed(io, (want & LOOP_CLOSED) != 0))
        ok = false;
    io->want = want;
    if (!ok)
        log_error("cannot watch descriptor %d: %m", io->fd);
    return ok ? MC_OK : MC_ESYS;
}

enum mc_status loop_io_start(struct loop *loop, struct loop_io *io, int fd, unsigned want, loop_io_fn *fn)
{
    enum mc_status status;

    assert(loop_in_thread(loop));
    *io = (struct loop_io){.fd = fd, .fn = fn, .loop = loop};
    io->events[0] = event_new(loop->base, fd, EV_READ | EV_PERSIST, on_io, io);
    io->events[1] = event_new(loop->base, fd, EV_WRITE | EV_PERSIST, on_io, io);
    status = io->events[0] && io->events[1] ? loop_io_want(io, want) : MC_ENOMEM;
    if (status != MC_OK)
        loop_io_stop(io);
    return status;
}

void loop_io_stop(struct loop_io *io)
{
    if (!io->loop)
        return;
    assert(loop_in_thread(io->loop));
    if (io->want & LOOP_CLOSED)
        watch_closed(io, false);
    for (int i = 0; i < 2; i++)
        if (io->events[i])
            event_free(io->events[i]); /* also takes it from the queue of active ones */
    *io = (struct loop_io){.fd = -1};
}

/* --- life --- */

static void on_wake_fd(evutil_socket_t fd, short events, void *arg)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof(count));

    (void)n;
}

static struct event *watch(struct loop *loop, int fd, event_callback_fn fn)
{
    struct event *event = fd >= 0 ? event_new(loop->base, fd, EV_READ | EV_PERSIST, fn, loop) : NULL;

    if (event && event_add(event, NULL) != 0) {
        event_free(event);
        event = NULL;
    }
    return event;
}

/* libevent writes to standard error by itself otherwise. What it warns about is a mistake of ours. */
static void libevent_log(int severity, const char *text)
{
    if (severity >= EVENT_LOG_WARN)
        log_warn("libevent: %s", text);
    else
        log_debug("libevent: %s", text);
}

static void libevent_setup(void)
{
    event_set_log_callback(libevent_log);
}

static struct event_base *base_create(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base;

    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK); /* one thread owns it */
    event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME);
    event_config_require_features(config, EV_FEATURE_O1);
    base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static void loop_free(struct loop *loop)
{
    struct event *events[] = {loop->wake_event, loop->timer_event, loop->hup_event};
    int fds[] = {loop->wake_fd, loop->timer_fd, loop->hup_fd};

    for (int i = 0; i < 3; i++) {
        if (events[i])
            event_free(events[i]);
        if (fds[i] >= 0)
            close(fds[i]);
    }
    if (loop->base)
        event_base_free(loop->base);
    heap_fini(&loop->timers);
    sem_destroy(&loop->thread_ready);
    free(loop);
}

struct loop *loop_create(const char *name)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct loop *loop = calloc(1, sizeof(*loop));

    if (!loop)
        return NULL;
    pthread_once(&once, libevent_setup);
    snprintf(loop->name, sizeof(loop->name), "%s", name);
    list_init(&loop->deferred);
    list_init(&loop->gaps);
    sem_init(&loop->thread_ready, 0, 0);
    loop->timer_armed_ns = DEADLINE_NONE;
    loop_timer_init(&loop->gap_tick, gap_tick);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    loop->hup_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->base = base_create();
    if (loop->base) {
        loop->wake_event = watch(loop, loop->wake_fd, on_wake_fd);
        loop->timer_event = watch(loop, loop->timer_fd, on_timer_fd);
        loop->hup_event = watch(loop, loop->hup_fd, on_hup_fd);
    }
    if (!loop->wake_event || !loop->timer_event || !loop->hup_event || heap_reserve(&loop->timers, 16) != MC_OK) {
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
    event_base_loop(loop->base, idle ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
    atomic_store(&loop->sleeping, false);
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
    sigpipe_restore(&mask);
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    if (atomic_load(&loop->sleeping))
        wake(loop);
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

bool loop_in_thread(const struct loop *loop)
{
    return !atomic_load_explicit(&((struct loop *)(uintptr_t)loop)->running, memory_order_acquire) ||
           pthread_equal(loop->thread, pthread_self());
}

struct event_base *loop_event_base(struct loop *loop)
{
    return loop->base;
}
