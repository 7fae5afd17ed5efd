/* loop_io.c - waiting for descriptors.
 *
 * One epoll set, level triggered. While the loop's thread waits for it it does not own the loop: others may borrow it and stop what
 * the kernel has just reported. So when it was lent meanwhile the report is thrown away and asked for again, which costs nothing to
 * get right: what still stands is reported again.
 *
 * libevent is a guest. Once somebody asks for its event_base it does the waiting, with our set as one of its descriptors, and the
 * loop is not lent any more, because libevent calls its own callbacks before we could own the loop again. */
#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "net/loop_impl.h"

/* ---- the set ---- */

uint32_t loop_events_of(unsigned want)
{
    return (want & LOOP_READ ? EPOLLIN : 0u) | (want & LOOP_WRITE ? EPOLLOUT : 0u) |
           (want & LOOP_CLOSED ? EPOLLRDHUP : 0u);
}

bool loop_io_arm(struct loop_io *io, unsigned want)
{
    struct epoll_event event = {.events = loop_events_of(io->led ? 0 : want), .data.ptr = io};
    int op = !io->watched ? EPOLL_CTL_ADD : want ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

    if (op == EPOLL_CTL_ADD && !want)
        return true;
    if (epoll_ctl(io->loop->ep, op, io->fd, &event) != 0) {
        log_error("cannot watch descriptor %d: %m", io->fd);
        return false;
    }
    io->watched = op != EPOLL_CTL_DEL;
    return true;
}

enum mc_status loop_io_want(struct loop_io *io, unsigned want)
{
    assert(loop_in_thread(io->loop));
    if (want == io->want)
        return MC_OK;
    io->want = want;
    if (io->led) {                /* it is in the set without events already */
        loop_lead_kick(io->loop); /* he waits for what was wanted before */
        return MC_OK;
    }
    return loop_io_arm(io, want) ? MC_OK : MC_ESYS;
}

enum mc_status loop_io_start(struct loop *loop, struct loop_io *io, int fd, unsigned want, loop_io_fn *fn)
{
    enum mc_status status;

    assert(loop_in_thread(loop));
    *io = (struct loop_io){.fd = fd, .fn = fn, .loop = loop};
    status = loop_io_want(io, want);
    if (status != MC_OK)
        *io = (struct loop_io){.fd = -1};
    return status;
}

void loop_io_stop(struct loop_io *io)
{
    struct loop *loop = io->loop;

    if (!loop)
        return;
    assert(loop_in_thread(loop));
    if (io->led)
        loop_led_stopped(io);
    if (io->watched)
        epoll_ctl(loop->ep, EPOLL_CTL_DEL, io->fd, NULL);
    for (int i = 0; i < loop->ready_count; i++)
        if (loop->ready[i].data.ptr == io)
            loop->ready[i].data.ptr = NULL;
    *io = (struct loop_io){.fd = -1};
}

/* An error or a hang-up is told to whoever wants anything. Closing is told once: it would be reported for ever. */
void loop_io_event(struct loop_io *io, uint32_t events)
{
    bool failed = events & (EPOLLERR | EPOLLHUP);
    unsigned seen = (events & EPOLLIN || failed ? LOOP_READ : 0u) | (events & EPOLLOUT || failed ? LOOP_WRITE : 0u) |
                    (events & EPOLLRDHUP || failed ? LOOP_CLOSED : 0u);

    seen &= io->want;
    if (seen & LOOP_CLOSED)
        loop_io_want(io, io->want & ~(unsigned)LOOP_CLOSED);
    if (seen)
        io->fn(io->loop, io, seen);
}

/* ---- a turn's wait ---- */

static int gather(struct loop *loop, int timeout_ms)
{
    int n = epoll_wait(loop->ep, loop->ready, READY_MAX, timeout_ms);

    if (n < 0 && errno != EINTR)
        log_error("epoll_wait: %m");
    return n < 0 ? 0 : n;
}

static void run_ready(struct loop *loop, int count)
{
    loop->ready_count = count;
    for (int i = 0; i < count; i++) {
        loop_enter(loop); /* first: a gap watcher may stop what was gathered, as each callback may */
        if (loop->ready[i].data.ptr)
            loop_io_event(loop->ready[i].data.ptr, loop->ready[i].events);
    }
    loop->ready_count = 0;
}

void loop_wait(struct loop *loop, bool idle)
{
    unsigned borrows = loop->borrows;
    int count;

    if (loop->base) {
        event_base_loop(loop->base, idle ? EVLOOP_ONCE : EVLOOP_ONCE | EVLOOP_NONBLOCK);
        atomic_store(&loop->sleeping, false);
        return;
    }
    if (!idle) {
        run_ready(loop, gather(loop, 0));
        return;
    }
    loop_disown(loop);
    count = gather(loop, -1);
    loop_own(loop);
    atomic_store(&loop->sleeping, false);
    run_ready(loop, borrows == loop->borrows ? count : gather(loop, 0));
}

/* ---- libevent as a guest ---- */

static void on_ep(evutil_socket_t fd, short events, void *arg)
{
    struct loop *loop = arg;

    run_ready(loop, gather(loop, 0));
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
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct event_config *config = event_config_new();
    struct event_base *base;

    pthread_once(&once, libevent_setup);
    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK); /* one thread owns it */
    event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME);
    event_config_require_features(config, EV_FEATURE_O1);
    base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

struct event_base *loop_event_base(struct loop *loop)
{
    assert(loop_in_thread(loop));
    if (loop->base)
        return loop->base;
    loop->base = base_create();
    loop->ep_event = loop->base ? event_new(loop->base, loop->ep, EV_READ | EV_PERSIST, on_ep, loop) : NULL;
    if (loop->ep_event && event_add(loop->ep_event, NULL) == 0)
        return loop->base;
    log_error("loop %s: no event base of libevent", loop->name);
    if (loop->ep_event)
        event_free(loop->ep_event);
    if (loop->base)
        event_base_free(loop->base);
    loop->ep_event = NULL;
    loop->base = NULL;
    return NULL;
}

/* ---- life ---- */

static void on_wake_fd(struct loop *loop, struct loop_io *io, unsigned events)
{
    uint64_t count;
    ssize_t n = read(io->fd, &count, sizeof(count));

    (void)n;
}

enum mc_status loop_fds_init(struct loop *loop)
{
    loop->ep = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->ep < 0 || loop->wake_fd < 0 || loop->kick_fd < 0)
        return MC_ESYS;
    return loop_io_start(loop, &loop->wake_io, loop->wake_fd, LOOP_READ, on_wake_fd);
}

void loop_fds_fini(struct loop *loop)
{
    int fds[] = {loop->wake_fd, loop->kick_fd, loop->ep};

    loop_io_stop(&loop->wake_io);
    if (loop->base) {
        event_free(loop->ep_event);
        event_base_free(loop->base);
    }
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}
