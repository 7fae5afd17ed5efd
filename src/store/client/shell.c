/* shell.c - jobs between the callers' threads and the core on the loop. See shell.h. */
#include "store/client/shell.h"

#include <assert.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    JOBS_MAX = 1 << 20,
    PUTS_MAX = 512, /* of one client at once: with 64 KiB inline each that is half of what a link queues */
};

/* ---- futex words ---- */

void word_sleep(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / NS_PER_S), .tv_nsec = (long)(deadline_ns % NS_PER_S)};

    /* FUTEX_WAIT_BITSET takes an absolute CLOCK_MONOTONIC time. A spurious return is the caller's loop to handle. */
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline_ns == DEADLINE_NONE ? NULL : &until, NULL,
        FUTEX_BITSET_MATCH_ANY);
}

void word_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* ---- the loop's side ---- */

static bool is_put(const struct job *job)
{
    return job->call.kind == CALL_OP && (job->call.op->opcode == MC_PUT || job->call.op->opcode == MC_UPSERT);
}

static void job_end(struct job *job)
{
    struct mc_store *store = job->store;

    if (job->started && is_put(job))
        store->puts--;
    job->started = false;
    atomic_fetch_sub_explicit(&store->jobs, 1, memory_order_relaxed);
    if (!job->home || loop_at_home(store->loop)) {
        job->finish(job);
        return;
    }
    job->ended = true;
    list_push_back(&store->ended, &job->link);
    loop_defer(store->loop, &store->ended_task);
}

static void on_ended(struct loop *loop, struct loop_task *task)
{
    struct mc_store *store = container_of(task, struct mc_store, ended_task);
    struct list *it;

    while ((it = list_pop_front(&store->ended)) != NULL)
        list_entry(it, struct job, link)->finish(list_entry(it, struct job, link));
}

static void job_fail(struct job *job, enum mc_status status)
{
    client_call_end(&job->call, status);
    job_end(job);
}

static bool take_done(struct mc_store *store)
{
    struct client_call *call;
    bool any = false;

    while ((call = client_core_done(store->core)) != NULL) {
        job_end((struct job *)(void *)call);
        any = true;
    }
    return any;
}

/* The core is full: false, and the job is still the caller's. */
static bool job_start(struct mc_store *store, struct job *job)
{
    uint64_t now = loop_now_ns(store->loop);
    enum mc_status status;

    if (job->call.kind == 0) { /* nothing for the core: only to be finished here */
        job->call.status = MC_OK;
        job_end(job);
        return true;
    }
    if (deadline_passed(job->call.deadline_ns, now)) {
        job_fail(job, MC_ETIMEDOUT);
        return true;
    }
    status = client_core_start(store->core, now, &job->call);
    if (status == MC_AGAIN)
        return false;
    if (status != MC_OK) {
        job_fail(job, status);
        return true;
    }
    job->started = true;
    store->puts += is_put(job);
    return true;
}

/* True: something was started. */
static bool start_ready(struct mc_store *store, struct list *ready, uint32_t puts_max)
{
    struct list *it;
    bool any = false;

    while (store->puts < puts_max && (it = list_pop_front(ready)) != NULL) {
        struct job *job = list_entry(it, struct job, link);

        if (!job_start(store, job)) {
            list_push_front(ready, &job->link);
            break;
        }
        any = true;
    }
    return any;
}

static void queue(struct mc_store *store, struct job *job)
{
    list_push_back(is_put(job) ? &store->ready_puts : &store->ready, &job->link);
}

static void pump(struct mc_store *store)
{
    uint64_t now = loop_now_ns(store->loop);
    bool any;

    do {
        any = take_done(store);
        any |= start_ready(store, &store->ready, UINT32_MAX);
        any |= start_ready(store, &store->ready_puts, PUTS_MAX);
        if (client_core_wake(store->core) <= now)
            client_core_on_tick(store->core, now);
        any |= take_done(store);
    } while (any);
}

/* When the loop has to look again: the core's wish, or the deadline of the first job that it has not taken. */
static void set_wake(struct mc_store *store)
{
    struct job *first = list_first(&store->ready, struct job, link);
    struct job *first_put = list_first(&store->ready_puts, struct job, link);
    uint64_t wake = client_core_wake(store->core);

    if (first)
        wake = deadline_min(wake, first->call.deadline_ns);
    if (first_put)
        wake = deadline_min(wake, first_put->call.deadline_ns);
    loop_timer_set(store->loop, &store->wake, wake);
}

static void on_settle(struct loop *loop, struct loop_task *task)
{
    struct mc_store *store = container_of(task, struct mc_store, settle_task);

    pump(store);
    nodes_settle(store);
    set_wake(store);
}

void shell_settle(struct mc_store *store)
{
    loop_defer(store->loop, &store->settle_task);
}

static void on_wake(struct loop *loop, struct loop_timer *timer)
{
    struct mc_store *store = container_of(timer, struct mc_store, wake);

    client_core_on_tick(store->core, loop_now_ns(loop));
    shell_settle(store);
}

static void take_intake(struct mc_store *store)
{
    struct list jobs, *it;

    list_init(&jobs);
    pthread_mutex_lock(&store->lock);
    list_splice_back(&jobs, &store->intake);
    pthread_mutex_unlock(&store->lock);
    while ((it = list_pop_front(&jobs)) != NULL)
        queue(store, list_entry(it, struct job, link));
}

static void serve_intake(struct mc_store *store)
{
    take_intake(store);
    pump(store);
    set_wake(store);
}

static void on_intake(struct loop *loop, struct loop_task *task)
{
    struct mc_store *store = container_of(task, struct mc_store, intake_task);

    serve_intake(store);
}

static void on_gap(struct loop *loop, struct loop_gap *gap, uint64_t gap_ns)
{
    struct mc_store *store = container_of(gap, struct mc_store, gap);

    client_core_on_gap(store->core, loop_now_ns(loop));
    shell_settle(store);
}

void job_again(struct job *job)
{
    atomic_fetch_add_explicit(&job->store->jobs, 1, memory_order_relaxed);
    queue(job->store, job);
    shell_settle(job->store);
}

void job_cancel(struct job *job)
{
    struct mc_store *store = job->store;

    if (job->ended) {
        list_del(&job->link);
        job->finish(job);
        return;
    }
    if (!job->started) {
        pthread_mutex_lock(&store->lock);
        list_del(&job->link);
        pthread_mutex_unlock(&store->lock);
        job_fail(job, MC_ECANCELED);
        return;
    }
    client_core_cancel(store->core, loop_now_ns(store->loop), &job->call);
    take_done(store);
    shell_settle(store);
}

/* ---- the callers' side ---- */

enum mc_status job_submit(struct mc_store *store, struct list *jobs, uint32_t count)
{
    enum mc_status status = MC_OK;

    if (atomic_fetch_add_explicit(&store->jobs, count, memory_order_relaxed) + count > JOBS_MAX) {
        atomic_fetch_sub_explicit(&store->jobs, count, memory_order_relaxed);
        return MC_AGAIN;
    }
    pthread_mutex_lock(&store->lock);
    if (store->closing)
        status = MC_ECLOSED;
    else
        list_splice_back(&store->intake, jobs);
    pthread_mutex_unlock(&store->lock);
    if (status != MC_OK)
        atomic_fetch_sub_explicit(&store->jobs, count, memory_order_relaxed);
    return status;
}

void shell_ring(struct mc_store *store)
{
    loop_post(store->loop, &store->intake_task);
}

/* ---- waiting ---- */

void waiter_tell(struct mc_store *store, struct waiter *waiter)
{
    if (waiter->leads) { /* he looks when he owns the loop, perhaps now */
        atomic_store(&waiter->finished, 1);
        loop_lead_kick(store->loop);
        return;
    }
    list_push_back(&store->told, &waiter->link);
    loop_defer(store->loop, &store->told_task);
}

void waiters_tell(struct mc_store *store)
{
    struct list *it;

    while ((it = list_pop_front(&store->told)) != NULL) {
        struct waiter *waiter = list_entry(it, struct waiter, link);

        atomic_store(&waiter->finished, 1); /* he may be gone now; waking an address nobody waits at is harmless */
        word_wake_all(&waiter->finished);
    }
}

static void on_told(struct loop *loop, struct loop_task *task)
{
    waiters_tell(container_of(task, struct mc_store, told_task));
}

/* By which connections come the answers that are awaited now, and the bytes after them? */
static unsigned answers(const struct mc_store *store, bool bytes, struct loop_io *ios[LOOP_LED_MAX])
{
    unsigned count = 0;

    if (client_core_awaits(store->core, STORE_PEER_MASTER) && store_link_io(store->master))
        ios[count++] = store_link_io(store->master);
    for (uint32_t i = 1; i < store->nodes_top; i++) {
        const struct node *node = store->nodes[i];

        if (!node || !node->announced)
            continue;
        if (count < LOOP_LED_MAX && client_core_awaits(store->core, i))
            ios[count++] = store_link_io(node->link);
        if (bytes && node->path == MC_PATH_TCP)
            count += te_peer_ios(node->engine, ios + count, LOOP_LED_MAX - count);
    }
    return count;
}

void shell_push(struct mc_store *store)
{
    if (!loop_borrow(store->loop)) {
        shell_ring(store);
        return;
    }
    serve_intake(store);
    loop_return(store->loop);
}

/* In the loop's place. */
static void lead(struct mc_store *store, struct waiter *waiter, bool bytes)
{
    struct loop_io *ios[LOOP_LED_MAX];

    waiter->leads = true;
    serve_intake(store);
    if (!atomic_load(&waiter->finished) && loop_lead_begin(store->loop, ios, answers(store, bytes, ios)))
        while (!atomic_load(&waiter->finished) && loop_lead_wait(store->loop))
            ;
    waiter->leads = false;
    loop_return(store->loop);
}

void shell_wait(struct mc_store *store, struct waiter *waiter, bool bytes)
{
    assert(!loop_in_thread(store->loop));
    if (loop_borrow(store->loop))
        lead(store, waiter, bytes);
    else
        shell_ring(store);
    while (!atomic_load(&waiter->finished))
        word_sleep(&waiter->finished, 0, DEADLINE_NONE);
}

static void wake_waiter(struct job *job)
{
    waiter_tell(job->store, job->call.user);
}

enum mc_status job_run(struct mc_store *store, struct job *job, uint32_t deadline_ms)
{
    struct waiter waiter = {0};
    struct list jobs;
    enum mc_status status;

    job->store = store;
    job->finish = wake_waiter;
    job->call.user = &waiter;
    job->call.deadline_ns = deadline_after_ms(now_ns(), deadline_ms);
    list_init(&jobs);
    list_push_back(&jobs, &job->link);
    status = job_submit(store, &jobs, 1);
    if (status != MC_OK)
        return status;
    shell_wait(store, &waiter, job->call.kind == CALL_PART_WRITE);
    return job->call.status;
}

/* ---- life ---- */

static void close_on_loop(struct loop *loop, void *arg)
{
    struct mc_store *store = arg;
    struct list *it;

    take_intake(store);
    list_splice_back(&store->ready, &store->ready_puts);
    client_core_close(store->core, loop_now_ns(loop));
    take_done(store);
    while ((it = list_pop_front(&store->ready)) != NULL)
        job_fail(list_entry(it, struct job, link), MC_ECLOSED);
}

static void shell_fini(struct mc_store *store)
{
    if (store->loop)
        loop_thread_stop(store->loop);
    shell_close(store);
    if (store->loop) {
        loop_timer_cancel(store->loop, &store->wake);
        loop_defer_cancel(store->loop, &store->settle_task);
        if (store->gap.link.next)
            loop_gap_unwatch(store->loop, &store->gap);
        loop_destroy(store->loop);
    }
    pthread_mutex_destroy(&store->lock);
    free(store);
}

void mc_store_shutdown(struct mc_store *store)
{
    pthread_mutex_lock(&store->lock);
    store->closing = true;
    pthread_mutex_unlock(&store->lock);
    atomic_store(&store->shut, true);
    loop_call(store->loop, close_on_loop, store);
}

void mc_store_close(struct mc_store *store)
{
    if (!store)
        return;
    mc_store_shutdown(store);
    shell_fini(store);
}

static enum mc_status wait_for_master(struct mc_store *store, uint32_t connect_ms)
{
    uint64_t deadline = deadline_after_ms(now_ns(), connect_ms);

    while (!atomic_load(&store->master_up)) {
        if (now_ns() >= deadline)
            return shell_master_error(store);
        word_sleep(&store->master_up, 0, deadline);
    }
    return MC_OK;
}

enum mc_status mc_store_open(const struct mc_store_opts *opts, struct mc_store **out)
{
    static const struct mc_store_opts defaults = {.size = sizeof(defaults)};
    struct mc_store *store;
    enum mc_status status = MC_ENOMEM;

    opts = opts ? opts : &defaults;
    if (opts->size != sizeof(*opts))
        return MC_EINVAL;
    store = calloc(1, sizeof(*store));
    if (!store)
        return MC_ENOMEM;
    pthread_mutex_init(&store->lock, NULL);
    list_init(&store->ready);
    list_init(&store->ready_puts);
    list_init(&store->intake);
    list_init(&store->ended);
    list_init(&store->told);
    loop_task_init(&store->ended_task, on_ended);
    store->ended_task.home = true;
    loop_task_init(&store->told_task, on_told);
    loop_task_init(&store->intake_task, on_intake);
    loop_task_init(&store->settle_task, on_settle);
    loop_timer_init(&store->wake, on_wake);
    store->gap.fn = on_gap;
    store->near.get_promises = opts->get_promises;
    store->loop = loop_create("mc-store");
    if (store->loop && loop_timer_reserve(store->loop, 1) == MC_OK)
        status = shell_open(store, opts);
    if (status == MC_OK) {
        loop_gap_watch(store->loop, &store->gap);
        status = loop_thread_start(store->loop);
    }
    if (status != MC_OK) {
        shell_fini(store);
        return status;
    }
    if (opts->connect_ms)
        status = wait_for_master(store, opts->connect_ms);
    if (status != MC_OK) {
        mc_store_close(store);
        return status;
    }
    *out = store;
    return MC_OK;
}

struct mc_te *mc_store_te(struct mc_store *store)
{
    return store->te;
}
