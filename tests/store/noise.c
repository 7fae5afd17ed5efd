/* noise.c - see noise.h. One thread polls all connections; writes block, which is fine between loops that always read. */
#include "noise.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"

enum { PAIRS_MAX = 32, HEAD = 64, CHUNK = 64 << 10 };

enum armed { ARMED_NOT, ARMED_ANY, ARMED_HEAD };

struct noise {
    pthread_t thread;
    int listener, wake[2];
    char address[64];
    _Atomic uint16_t target; /* port on loopback; 0: none yet */
    _Atomic int armed;       /* enum armed */
    _Atomic uint64_t flips;
    struct rng rng;
    int pair[PAIRS_MAX][2]; /* the client's socket and the target's; -1: free */
    uint8_t chunk[CHUNK];
};

static int dial(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        return fd;
    }
    close(fd);
    return -1;
}

static void pair_close(int pair[2])
{
    close(pair[0]);
    close(pair[1]);
    pair[0] = pair[1] = -1;
}

static void take(struct noise *n)
{
    int fd = accept(n->listener, NULL, NULL), on = 1, far = n->target ? dial(n->target) : -1;

    for (int i = 0; i < PAIRS_MAX && fd >= 0 && far >= 0; i++)
        if (n->pair[i][0] < 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            n->pair[i][0] = fd;
            n->pair[i][1] = far;
            return;
        }
    close(fd);
    close(far);
}

static void flip(struct noise *n, size_t len)
{
    int armed = atomic_exchange(&n->armed, ARMED_NOT);
    size_t bytes = armed == ARMED_HEAD && len > HEAD ? HEAD : len;
    uint64_t bit = rng_below(&n->rng, 8 * bytes);

    if (armed == ARMED_NOT)
        return;
    n->chunk[bit / 8] ^= (uint8_t)(1u << bit % 8);
    n->flips++;
}

/* From one end of a pair to the other. */
static void pass(struct noise *n, int pair[2], int from)
{
    ssize_t got = recv(pair[from], n->chunk, CHUNK, 0);

    if (got > 0 && from == 1)
        flip(n, (size_t)got);
    for (ssize_t at = 0; at < got;) {
        ssize_t sent = send(pair[!from], n->chunk + at, (size_t)(got - at), MSG_NOSIGNAL);

        got = sent > 0 ? got : -1;
        at += sent;
    }
    if (got <= 0)
        pair_close(pair);
}

static void *run(void *arg)
{
    struct noise *n = arg;
    struct pollfd fds[2 + 2 * PAIRS_MAX];

    for (;;) {
        fds[0] = (struct pollfd){.fd = n->wake[0], .events = POLLIN};
        fds[1] = (struct pollfd){.fd = n->listener, .events = POLLIN};
        for (int i = 0; i < 2 * PAIRS_MAX; i++)
            fds[2 + i] = (struct pollfd){.fd = n->pair[i / 2][i % 2], .events = POLLIN};
        if (poll(fds, 2 + 2 * PAIRS_MAX, -1) < 0)
            continue;
        if (fds[0].revents)
            return NULL;
        for (int i = 0; i < 2 * PAIRS_MAX; i++)
            if (fds[2 + i].revents && n->pair[i / 2][0] >= 0)
                pass(n, n->pair[i / 2], i % 2);
        if (fds[1].revents)
            take(n);
    }
}

struct noise *noise_start(uint64_t seed)
{
    struct noise *n = calloc(1, sizeof(*n));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);

    assert_non_null(n);
    rng_seed(&n->rng, seed);
    memset(n->pair, -1, sizeof(n->pair));
    n->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(n->listener, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(n->listener, PAIRS_MAX), 0);
    assert_int_equal(getsockname(n->listener, (struct sockaddr *)&at, &len), 0);
    snprintf(n->address, sizeof(n->address), "127.0.0.1:%u", ntohs(at.sin_port));
    assert_int_equal(pipe(n->wake), 0);
    assert_int_equal(pthread_create(&n->thread, NULL, run, n), 0);
    return n;
}

void noise_stop(struct noise *n)
{
    assert_int_equal(write(n->wake[1], "", 1), 1);
    pthread_join(n->thread, NULL);
    for (int i = 0; i < PAIRS_MAX; i++)
        if (n->pair[i][0] >= 0)
            pair_close(n->pair[i]);
    close(n->listener);
    close(n->wake[0]);
    close(n->wake[1]);
    free(n);
}

const char *noise_address(const struct noise *n)
{
    return n->address;
}

void noise_target(struct noise *n, const char *address)
{
    n->target = (uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10);
}

void noise_arm(struct noise *n, bool head)
{
    n->armed = head ? ARMED_HEAD : ARMED_ANY;
}

uint64_t noise_flips(const struct noise *n)
{
    return n->flips;
}
