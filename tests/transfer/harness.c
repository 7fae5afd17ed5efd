/* harness.c - see harness.h. */
#include "harness.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"

#define ROLE_FLAG "--harness-role"
#define ARGS_MAX  6

static void die(const char *what)
{
    fprintf(stderr, "harness: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void *must(void *p, const char *what)
{
    if (!p || p == MAP_FAILED)
        die(what);
    return p;
}

/* ---- second processes ---- */

void harness_far_start(struct far *far, const char *role, const char *const *args)
{
    char *argv[ARGS_MAX + 4] = {(char *)(uintptr_t) "far", (char *)(uintptr_t)ROLE_FLAG, (char *)(uintptr_t)role};
    int in[2], out[2];
    size_t got = 0;

    for (int i = 0; args && args[i] && i < ARGS_MAX; i++)
        argv[3 + i] = (char *)(uintptr_t)args[i];
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        die("pipe");
    far->pid = fork();
    if (far->pid < 0)
        die("fork");
    if (far->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    far->input = in[1];
    while (got < sizeof(far->line) - 1) {
        ssize_t n = read(out[0], far->line + got, 1);

        if (n <= 0)
            die("second process ended before it was ready");
        if (far->line[got] == '\n')
            break;
        got++;
    }
    far->line[got] = 0;
    close(out[0]);
}

void harness_far_end(struct far *far)
{
    close(far->input);
    kill(far->pid, SIGCONT);
    for (int i = 0; i < 200; i++) {
        if (waitpid(far->pid, NULL, WNOHANG) == far->pid)
            return;
        poll(NULL, 0, 10);
    }
    kill(far->pid, SIGKILL);
    waitpid(far->pid, NULL, 0);
}

void harness_far_ready(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

void harness_far_wait(void)
{
    char byte;
    ssize_t n;

    do
        n = read(0, &byte, 1);
    while (n > 0 || (n < 0 && errno == EINTR));
}

uint8_t *harness_map_fd(pid_t pid, int fd, size_t len)
{
    char path[64];
    uint8_t *addr;
    int ours;

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
    ours = open(path, O_RDWR | O_CLOEXEC);
    if (ours < 0)
        die(path);
    addr = must(mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, ours, 0), "mmap of the second process' memory");
    close(ours);
    return addr;
}

/* ---- relay ---- */

struct leg {
    int from, to;
    uint8_t data[64 << 10];
    size_t at, len;
    bool ended;
};

struct pipe_pair {
    struct leg legs[2];
};

#define PAIRS_MAX 64

static bool leg_move(struct leg *leg)
{
    ssize_t n;

    if (leg->at == leg->len && !leg->ended) {
        n = recv(leg->from, leg->data, sizeof(leg->data), MSG_DONTWAIT);
        if (n == 0)
            leg->ended = true;
        else if (n < 0)
            return errno == EAGAIN;
        leg->at = 0;
        leg->len = n > 0 ? (size_t)n : 0;
        if (leg->ended)
            shutdown(leg->to, SHUT_WR);
    }
    if (leg->at < leg->len) {
        n = send(leg->to, leg->data + leg->at, leg->len - leg->at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN;
        leg->at += (size_t)n;
    }
    return true;
}

static void pair_close(struct pipe_pair *pair)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};

    for (int i = 0; i < 2; i++) {
        setsockopt(pair->legs[i].from, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        close(pair->legs[i].from);
    }
    free(pair);
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void relay_accept(int listener, int port, struct pipe_pair **pairs)
{
    struct sockaddr_in target = loopback(port);
    int a = accept4(listener, NULL, NULL, SOCK_CLOEXEC), b = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (a < 0 || b < 0)
        die("relay accept");
    if (connect(b, (struct sockaddr *)&target, sizeof(target)) != 0) {
        close(a);
        close(b);
        return;
    }
    for (int i = 0; i < PAIRS_MAX; i++) {
        if (pairs[i])
            continue;
        pairs[i] = must(calloc(1, sizeof(*pairs[i])), "memory");
        pairs[i]->legs[0].from = pairs[i]->legs[1].to = a;
        pairs[i]->legs[1].from = pairs[i]->legs[0].to = b;
        return;
    }
    die("relay: too many connections");
}

static int relay_run(int argc, char **argv)
{
    struct pipe_pair *pairs[PAIRS_MAX] = {0};
    struct sockaddr_in at = loopback(0);
    socklen_t len = sizeof(at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
        port = argc > 0 ? atoi(strrchr(argv[0], ':') + 1) : 0;

    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(listener, 64) != 0 ||
        getsockname(listener, (struct sockaddr *)&at, &len) != 0)
        die("relay listen");
    harness_far_ready("127.0.0.1:%d", ntohs(at.sin_port));
    for (;;) {
        struct pollfd fds[2 + 2 * PAIRS_MAX] = {{.fd = 0, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
        int count = 2;

        for (int i = 0; i < PAIRS_MAX; i++)
            for (int l = 0; pairs[i] && l < 2; l++) {
                const struct leg *mine = &pairs[i]->legs[l], *other = &pairs[i]->legs[!l];

                fds[count++] = (struct pollfd){.fd = mine->from,
                    .events = (short)((mine->at == mine->len && !mine->ended ? POLLIN : 0) |
                                      (other->at < other->len ? POLLOUT : 0))};
            }
        if (poll(fds, (nfds_t)count, -1) < 0)
            die("relay poll");
        if (fds[0].revents)
            return 0;
        for (int i = 0; i < PAIRS_MAX; i++) {
            if (!pairs[i])
                continue;
            if (!leg_move(&pairs[i]->legs[0]) || !leg_move(&pairs[i]->legs[1]) ||
                (pairs[i]->legs[0].ended && pairs[i]->legs[1].ended)) {
                pair_close(pairs[i]);
                pairs[i] = NULL;
            }
        }
        if (fds[1].revents)
            relay_accept(listener, port, pairs);
    }
}

void harness_relay_start(struct relay *relay, const char *target)
{
    const char *args[] = {target, NULL};

    harness_far_start(&relay->far, "relay", args);
    snprintf(relay->address, sizeof(relay->address), "%.63s", relay->far.line);
}

void harness_role(int argc, char **argv, const struct role *roles, int count)
{
    if (argc < 3 || strcmp(argv[1], ROLE_FLAG) != 0)
        return;
    if (strcmp(argv[2], "relay") == 0)
        exit(relay_run(argc - 3, argv + 3));
    for (int i = 0; i < count; i++)
        if (strcmp(argv[2], roles[i].name) == 0)
            exit(roles[i].run(argc - 3, argv + 3));
    fprintf(stderr, "harness: unknown role %s\n", argv[2]);
    exit(2);
}

/* ---- stopping ---- */

static void *stop_main(void *arg)
{
    struct stopper *stopper = arg;
    struct timespec ts = {stopper->after_us / 1000000, (long)(stopper->after_us % 1000000) * 1000};

    nanosleep(&ts, NULL);
    kill(stopper->pid, SIGSTOP);
    atomic_store(&stopper->stopped_ns, now_ns());
    return NULL;
}

void harness_stop_after(struct stopper *stopper, pid_t pid, uint32_t after_us)
{
    stopper->pid = pid;
    stopper->after_us = after_us;
    atomic_store(&stopper->stopped_ns, 0);
    if (pthread_create(&stopper->thread, NULL, stop_main, stopper) != 0)
        die("thread");
}

void harness_stop_join(struct stopper *stopper)
{
    pthread_join(stopper->thread, NULL);
}

void harness_continue(pid_t pid)
{
    kill(pid, SIGCONT);
}

/* ---- watching ---- */

static uint64_t word_at(uint64_t pattern, size_t i)
{
    uint64_t state = pattern + i;

    return rng_splitmix(&state);
}

void harness_refill(struct watch *watch)
{
    static uint64_t last;
    uint64_t *words = (uint64_t *)(void *)watch->addr;

    watch->pattern = ++last << 32;
    for (size_t i = 0; i < watch->len / 8; i++)
        words[i] = word_at(watch->pattern, i);
}

static bool watch_once(const struct watch *watch)
{
    const volatile uint64_t *words = (const volatile uint64_t *)(const void *)watch->addr;

    for (size_t i = 0; i < watch->len / 8; i++)
        if (words[i] != word_at(watch->pattern, i)) {
            fprintf(stderr, "late write: %s changed at offset %zu of %zu\n", watch->name, i * 8, watch->len);
            return false;
        }
    return true;
}

bool harness_watch(const struct watch *watches, int count, uint32_t ms)
{
    uint64_t until = deadline_after_ms(now_ns(), ms);
    bool ok = true;

    do {
        for (int i = 0; ok && i < count; i++)
            ok = watch_once(&watches[i]);
        poll(NULL, 0, 20);
    } while (ok && now_ns() < until);
    return ok;
}
