/* dummy.c - clients without memory of their own, beside a mooncake_client.
 *
 * The existing one sends every call of such a client through that process. Ours asks it once where the master is, and then is a client
 * like any other: the memory of that process is read where it lies. The pool is memory of this process, committed when it is used;
 * it stays until the client is destroyed, because addresses in it may be in use after close. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "compat/store/client_impl.h"
#include "net/addr.h"

enum { CLIENT_PORT = 50052, ANSWER_MAX = 16384, POOL_ALIGN = 4096 };

/* ---- one question over HTTP ---- */

static bool wait_io(int fd, short events, uint64_t deadline)
{
    uint64_t now = now_ns();
    struct pollfd p = {.fd = fd, .events = events};

    return now < deadline && poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) > 0;
}

static int dial(const struct addr *addr, uint64_t deadline)
{
    struct sockaddr_storage sa;
    socklen_t len, size = sizeof(int);
    int fd, error = 0;

    if (addr_resolve(addr, &sa, &len) != MC_OK)
        return -1;
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&sa, len) == 0)
        return fd;
    if (errno == EINPROGRESS && wait_io(fd, POLLOUT, deadline) &&
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0)
        return fd;
    close(fd);
    return -1;
}

/* The body of the answer in `answer`, NULL: there was none. */
static const char *ask(const struct addr *addr, uint64_t deadline, char answer[ANSWER_MAX])
{
    static const char question[] = "GET /v1/store HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    size_t len = 0;
    ssize_t got = -1;
    int fd = dial(addr, deadline);
    const char *body;

    if (fd < 0)
        return NULL;
    if (send(fd, question, sizeof(question) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(question) - 1)
        while (len < ANSWER_MAX - 1 && wait_io(fd, POLLIN, deadline) &&
               (got = read(fd, answer + len, ANSWER_MAX - 1 - len)) > 0)
            len += (size_t)got;
    close(fd);
    answer[len] = '\0';
    body = strstr(answer, "\r\n\r\n");
    return got == 0 && strncmp(answer, "HTTP/1.", 7) == 0 && strncmp(answer + 8, " 200", 4) == 0 && body ? body + 4
                                                                                                         : NULL;
}

/* ---- the pool ---- */

static int pool_make(struct compat_client *client, uint64_t size)
{
    void *pool;

    if (client->pool && client->pool_size >= size)
        return COMPAT_OK;
    size = (size + POOL_ALIGN - 1) / POOL_ALIGN * POOL_ALIGN;
    pool = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool == MAP_FAILED)
        return COMPAT_INTERNAL;
    compat_pool_free(client);
    client->pool = pool;
    client->pool_size = size;
    return COMPAT_OK;
}

void compat_pool_free(struct compat_client *client)
{
    if (client->pool)
        munmap(client->pool, client->pool_size);
    client->pool = NULL;
    client->pool_size = client->pool_used = 0;
}

void *compat_pool_alloc(struct compat_client *client, uint64_t size)
{
    struct compat_call call;
    void *at = NULL;

    if (!compat_enter(client, &call, 0, 0))
        return NULL;
    pthread_mutex_lock(&client->lock);
    size = (size + POOL_ALIGN - 1) / POOL_ALIGN * POOL_ALIGN;
    if (client->pool && size > 0 && size <= client->pool_size - client->pool_used) {
        at = (char *)client->pool + client->pool_used;
        client->pool_used += size;
    }
    pthread_mutex_unlock(&client->lock);
    compat_leave(client, &call);
    return at;
}

/* ---- set up ---- */

int compat_client_setup_dummy(
    struct compat_client *client, uint64_t pool_size, uint64_t local_buffer_size, const char *server)
{
    uint64_t deadline = deadline_after_ms(now_ns(), compat_env_u32("MC_RPC_CONNECT_TIMEOUT_MS", COMPAT_ASK_MS));
    struct addr addr;
    char answer[ANSWER_MAX];
    const char *why = "no mooncake_client answers there", *body, *master;
    json_t *told;
    int error = COMPAT_RPC_FAIL;

    if (addr_parse(server, CLIENT_PORT, &addr, &why) != MC_OK || addr.kind == ADDR_UNIX) {
        log_error("compat: server_address %s: %s", server, why);
        return COMPAT_INVALID_PARAMS;
    }
    body = ask(&addr, deadline, answer);
    told = body ? json_loads(body, 0, NULL) : NULL;
    master = json_string_value(json_object_get(told, "master"));
    if (master) {
        struct compat_setup setup = {.local_hostname = "localhost",
            .metadata_server = "P2PHANDSHAKE",
            .local_buffer_size = local_buffer_size,
            .protocol = json_string_value(json_object_get(told, "protocol")),
            .master = master,
            .tenant = json_string_value(json_object_get(told, "tenant"))};

        error = compat_client_setup(client, &setup);
        if (error == COMPAT_OK && pool_size) {
            error = pool_make(client, pool_size);
            if (error != COMPAT_OK)
                compat_client_close(client);
        }
    } else {
        log_error("compat: server_address %s: %s", server, why ? why : "no mooncake_client answers there");
    }
    json_decref(told);
    return error;
}
