/* knock.c - one connection attempt, to learn whether the port refuses. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "compat/engine/impl.h"

#define KNOCK_MS 1000

void ce_knock_stop(struct ce_knock *knock)
{
    loop_io_stop(&knock->io);
    loop_timer_cancel(knock->loop, &knock->timer);
    if (knock->fd >= 0)
        close(knock->fd);
    knock->fd = -1;
}

static void ended(struct ce_knock *knock, int error)
{
    ce_knock_stop(knock);
    knock->fn(knock, error == ECONNREFUSED);
}

static void connected(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct ce_knock *knock = container_of(io, struct ce_knock, io);
    socklen_t len = sizeof(int);
    int error = 0;

    getsockopt(knock->fd, SOL_SOCKET, SO_ERROR, &error, &len);
    ended(knock, error);
}

static void expired(struct loop *loop, struct loop_timer *timer)
{
    struct ce_knock *knock = container_of(timer, struct ce_knock, timer);

    ended(knock, knock->error);
}

void ce_knock_init(struct ce_knock *knock, struct loop *loop)
{
    *knock = (struct ce_knock){.loop = loop, .fd = -1};
    loop_timer_init(&knock->timer, expired);
}

/* What is known at once is told by the timer too, in the next turn. */
enum mc_status ce_knock_start(
    struct ce_knock *knock, const struct addr *addr, void (*fn)(struct ce_knock *, bool refused))
{
    struct sockaddr_storage sa;
    enum mc_status status;
    socklen_t len;
    bool waits;

    knock->fn = fn;
    knock->error = EHOSTUNREACH;
    if (addr_resolve(addr, &sa, &len) == MC_OK)
        knock->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (knock->fd >= 0)
        knock->error = connect(knock->fd, (struct sockaddr *)&sa, len) == 0 ? 0 : errno;
    waits = knock->fd >= 0 && knock->error == EINPROGRESS;
    status = loop_timer_set(knock->loop, &knock->timer, deadline_after_ms(now_ns(), waits ? KNOCK_MS : 0));
    if (status == MC_OK && waits)
        status = loop_io_start(knock->loop, &knock->io, knock->fd, LOOP_WRITE, connected);
    if (status != MC_OK)
        ce_knock_stop(knock);
    return status;
}
