/* signals.c - a thread that waits for SIGTERM and SIGINT. See signals.h.
 *
 * A thread with sigwait() and not a handler: `stop` may then take locks and log. */
#include "cli/signals.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

static struct {
    pthread_t thread;
    void (*stop)(void *arg);
    void *arg;
    uint64_t drain_ms;
    bool running; /* of the thread that calls watch and unwatch */
} watch;

static void fill(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

void signals_block(void)
{
    sigset_t set;

    fill(&set);
    sigaddset(&set, SIGCHLD);
    /* A shell starts background jobs with SIGINT ignored; an ignored signal is dropped even while it is blocked. */
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

void signals_restore(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
}

/* Waits for the first signal and says so, then for the second, or the end of patience, and ends the process. */
static void *wait_signals(void *unused)
{
    struct timespec patience = {
        .tv_sec = (time_t)(watch.drain_ms / 1000), .tv_nsec = (long)(watch.drain_ms % 1000) * 1000000};
    sigset_t set;
    int got;

    fill(&set);
    if (sigwait(&set, &got) != 0)
        return NULL;
    log_info("signal %d: finishing what runs, a second one ends at once", got);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL); /* unwatch waits for `stop` to return */
    watch.stop(watch.arg);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    got = sigtimedwait(&set, NULL, &patience);
    if (got > 0)
        log_warn("second signal %d: ending at once", got);
    else
        log_warn("not finished after %llu ms: ending at once", (unsigned long long)watch.drain_ms);
    _exit(CLI_INTERRUPTED);
}

enum mc_status signals_watch(void (*stop)(void *arg), void *arg, uint64_t drain_ms)
{
    watch.stop = stop;
    watch.arg = arg;
    watch.drain_ms = drain_ms;
    if (pthread_create(&watch.thread, NULL, wait_signals, NULL) != 0)
        return MC_ESYS;
    watch.running = true;
    return MC_OK;
}

void signals_unwatch(void)
{
    if (!watch.running)
        return;
    pthread_cancel(watch.thread); /* sigwait() is a cancellation point */
    pthread_join(watch.thread, NULL);
    watch.running = false;
}
