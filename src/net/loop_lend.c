/* loop_lend.c - a caller's thread in the place of the loop's, and waiting there for an answer.
 *
 * A request that goes through the loop's thread costs four switches of threads: caller to loop, loop to peer, peer to loop, loop to
 * caller. Sleeping threads are woken by an interrupt to another core, which takes longer than everything else of a small request.
 * When the loop sleeps, the caller borrows it, sends by himself, and waits for the answer at the socket by himself: two switches.
 *
 * The sockets a leader waits for ("led") stay in the epoll set without events, so that the loop's thread sleeps on; hang-ups are
 * reported to both, and whoever owns the loop first deals with them. One leader at a time: what others wait for on the same sockets he
 * takes in too, and when he goes the loop's thread has them again.
 *
 * Invariants: led_waiting only while a leader waits without owning the loop. led[] names no descriptor that was stopped. */
#include <assert.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/loop_impl.h"

#define RETURN_TASKS 64 /* deferred tasks that a borrower runs before he leaves the rest to the loop */

bool loop_borrow(struct loop *loop)
{
    if (!atomic_load_explicit(&loop->running, memory_order_acquire) || pthread_mutex_trylock(&loop->own) != 0)
        return false;
    if (!atomic_load(&loop->running) || loop->base || loop_gap_due(loop)) {
        pthread_mutex_unlock(&loop->own);
        return false;
    }
    atomic_store_explicit(&loop->owner, pthread_self(), memory_order_relaxed); /* published by `owned` */
    atomic_store_explicit(&loop->owned, true, memory_order_release);
    loop->borrows++;
    loop_enter(loop);
    return true;
}

static struct loop_task *next_deferred(struct loop *loop)
{
    list_for_each (it, &loop->deferred) {
        struct loop_task *task = list_entry(it, struct loop_task, link);

        if (!task->home)
            return task;
    }
    return NULL;
}

/* False: there was nothing to run. What a stop makes old is not sent before the loop's thread has looked; it is woken for what is
 * left. */
static bool run_deferred(struct loop *loop)
{
    struct loop_task *task;
    bool ran = false;

    for (int i = 0; i < RETURN_TASKS && !loop_gap_due(loop) && (task = next_deferred(loop)) != NULL; i++) {
        list_del(&task->link);
        loop_enter(loop);
        loop_run_task(loop, task);
        ran = true;
    }
    if (!list_empty(&loop->deferred) || loop_gap_due(loop))
        loop_wake(loop);
    return ran;
}

static void lead_end(struct loop *loop)
{
    for (unsigned i = 0; i < loop->led_count; i++) {
        struct loop_io *io = loop->led[i];

        if (!io)
            continue;
        io->led = false;
        loop_io_arm(io, io->want);
    }
    loop->led_count = 0;
}

void loop_return(struct loop *loop)
{
    assert(loop_in_thread(loop) && !loop_at_home(loop));
    run_deferred(loop);
    if (!loop->led_waiting)
        lead_end(loop);
    loop_disown(loop);
}

bool loop_lead_begin(struct loop *loop, struct loop_io *const *ios, unsigned count)
{
    assert(loop_in_thread(loop) && count <= LOOP_LED_MAX);
    if (loop->led_count > 0 || count == 0)
        return false;
    for (unsigned i = 0; i < count; i++) {
        ios[i]->led = true;
        loop_io_arm(ios[i], ios[i]->want);
        loop->led[i] = ios[i];
    }
    loop->led_count = count;
    return true;
}

static void kick_taken(struct loop *loop)
{
    uint64_t count;
    ssize_t n = read(loop->kick_fd, &count, sizeof(count));

    (void)n;
}

bool loop_lead_wait(struct loop *loop)
{
    struct pollfd fds[LOOP_LED_MAX + 1];
    unsigned count = loop->led_count;

    if (run_deferred(loop))
        return !loop_gap_due(loop);
    for (unsigned i = 0; i < count; i++) {
        const struct loop_io *io = loop->led[i];
        unsigned want = io ? io->want : 0;

        fds[i] = (struct pollfd){.fd = want ? io->fd : -1, .events = (short)loop_events_of(want)};
    }
    fds[count] = (struct pollfd){.fd = loop->kick_fd, .events = POLLIN};
    loop->led_waiting = true;
    loop_disown(loop);
    poll(fds, count + 1, -1);
    loop_own(loop);
    loop->led_waiting = false;
    loop->borrows++;
    if (fds[count].revents)
        kick_taken(loop);
    if (loop_gap_due(loop))
        return false;
    loop_enter(loop);
    for (unsigned i = 0; i < count; i++)
        if (loop->led[i] && fds[i].revents)
            loop_io_event(loop->led[i], (uint16_t)fds[i].revents);
    return true;
}

void loop_lead_kick(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t n;

    assert(loop_in_thread(loop));
    if (!loop->led_waiting)
        return;
    n = write(loop->kick_fd, &one, sizeof(one));
    (void)n;
}

void loop_led_stopped(struct loop_io *io)
{
    struct loop *loop = io->loop;

    for (unsigned i = 0; i < loop->led_count; i++)
        if (loop->led[i] == io)
            loop->led[i] = NULL;
    loop_lead_kick(loop);
}
