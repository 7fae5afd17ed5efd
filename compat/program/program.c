/* program.c - see program.h. */
#include "compat/program/program.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "net/addr.h"

bool program_address(const char *flag, const char *host, uint32_t port, bool insecure, char out[PROGRAM_ADDRESS_MAX])
{
    struct addr addr;
    const char *why;

    snprintf(out, PROGRAM_ADDRESS_MAX, strchr(host, ':') && host[0] != '[' ? "[%s]:%u" : "%s:%u", host, port);
    if (addr_parse(out, 0, &addr, &why) != MC_OK) {
        log_error("--%s=%s: %s", flag, host, why);
        return false;
    }
    if ((strcmp(addr.host, "0.0.0.0") == 0 || strcmp(addr.host, "::") == 0) && !insecure) {
        log_error("--%s=%s is every interface, and nothing is authenticated: name one address, or add --insecure", flag,
            host);
        return false;
    }
    if (!addr_is_loopback(&addr))
        log_warn("%s is reachable from outside and unauthenticated: keep it on a trusted network", out);
    return true;
}

static void ends(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

void program_block_signals(void)
{
    sigset_t set;

    signal(SIGTERM, SIG_DFL); /* a shell may have had them ignored, and an ignored signal is not waited for */
    signal(SIGINT, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    ends(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static struct {
    void (*stop)(void *arg);
    void *arg;
    pthread_t thread;
} waiting;

static void *wait_for_signal(void *none)
{
    sigset_t set;
    int got;

    ends(&set);
    sigwait(&set, &got);
    waiting.stop(waiting.arg);
    return NULL;
}

enum mc_status program_on_signal(void (*stop)(void *arg), void *arg)
{
    waiting.stop = stop;
    waiting.arg = arg;
    return pthread_create(&waiting.thread, NULL, wait_for_signal, NULL) == 0 ? MC_OK : MC_ESYS;
}

void program_join_signal(void)
{
    pthread_join(waiting.thread, NULL);
}

/* ---- the frame of main() ---- */

static const char *called;

struct buf program_begin(const char *name)
{
    struct buf message;

    called = name;
    log_set_name(name);
    buf_init(&message, 1 << 20);
    return message;
}

bool program_goes_on(
    struct buf *message, enum mc_status status, bool help, bool version, void (*print_help)(struct buf *out), int *code)
{
    bool goes_on = status == MC_OK && !version && !help;

    *code = status == MC_OK ? 0 : PROGRAM_USAGE;
    if (status == MC_OK && version) {
        printf("%s %s\n", called, PROGRAM_VERSION);
    } else if (status == MC_OK && help) {
        buf_reset(message);
        print_help(message);
        fwrite(message->data, 1, message->len, stdout);
    } else if (message->len) {
        fwrite(message->data, 1, message->len, stderr);
    }
    buf_fini(message);
    return goes_on;
}
