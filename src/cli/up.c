/* up.c - mooncake up: master, node, Conductor and workers as children of one supervisor.
 *
 *   master ready --> node, conductor --> (workers' port known) --> prefill-1.. decode-1..
 *
 * Each child is this binary with another command and with those of our options that its command reads; addresses are read
 * back from it, so that port 0 works, and stay the same over restarts. A crashed child is started again (supervise.h); a
 * crash loop ends everything. The end is in order: conductor (its streams run out), workers, node, master. When we die
 * without that, the kernel kills the children.
 *
 * Threads: one, with a loop; it sleeps unless a child or the user does something. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/xdg.h"
#include "cli/api.h"
#include "cli/child.h"
#include "cli/arguments.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "cli/supervise.h"
#include "net/addr.h"

enum { CHILDREN_MAX = 3 + 32, ADDRESS_MAX = 300 };

/* In the order of ending, backwards. */
enum part { PART_MASTER, PART_NODE, PART_WORKER, PART_CONDUCTOR, PARTS };

/* What children tell us; also the options that a part is started with. */
enum address { AT_MASTER, AT_ADMIN, AT_NODE, AT_HTTP, AT_WORKERS, ADDRESSES };
static const struct {
    const char *key, *option;
    enum part part;
} address_rows[ADDRESSES] = {
    [AT_MASTER] = {"master", "master-listen", PART_MASTER},
    [AT_ADMIN] = {"admin", "admin-listen", PART_MASTER},
    [AT_NODE] = {"node", "node-listen", PART_NODE},
    [AT_HTTP] = {"http", "conductor-listen", PART_CONDUCTOR},
    [AT_WORKERS] = {"workers", "workers-listen", PART_CONDUCTOR},
};

static const char *const part_commands[PARTS] = {"master", "node", "worker", "conductor"};

struct member {
    struct child child;
    struct supervise supervise;
    struct loop_timer restart;
    struct up *up;
    enum part part;
    const char *role; /* of workers */
    char name[32], log_path[512];
    bool ready, wanted; /* wanted: it is to run */
    int asked;          /* signals that told it to end */
};

struct up {
    struct cli *cli;
    struct loop *loop;
    struct member members[CHILDREN_MAX];
    size_t count;
    char address[ADDRESSES][ADDRESS_MAX];
    char **envp;
    struct loop_io signal_io;
    struct loop_timer health, patience;
    uint64_t start_ns;
    bool healthy, ending;
    int signals, code;
};

static void start_what_can(struct up *up);
static void end_next(struct up *up);

/* ---- arguments of a child ---- */

static void make_arguments(struct member *member, struct arguments *args)
{
    struct up *up = member->up;

    arguments_init(args, part_commands[member->part]);
    arguments_forward(args, up->cli->options);
    for (size_t i = 0; i < ADDRESSES; i++)
        if (address_rows[i].part == member->part)
            arguments_add(args, address_rows[i].option, up->address[i]);
    if (member->part != PART_MASTER)
        arguments_add(args, "master", up->address[AT_MASTER]);
    if (member->part == PART_WORKER) {
        arguments_add(args, "role", member->role);
        arguments_add(args, "worker-name", member->name);
        arguments_add(args, "workers-at", up->address[AT_WORKERS]);
    }
}

/* ---- start, restart ---- */

static void start_member(struct member *member)
{
    struct arguments *args = malloc(sizeof(*args));

    if (!args) {
        log_error("no memory to start %s", member->name);
        return;
    }
    make_arguments(member, args);
    supervise_started(&member->supervise, now_ns());
    if (child_start(&member->child, member->up->cli->program, args->argv, member->up->envp) != MC_OK) {
        member->up->code = CLI_FAILED;
        end_next(member->up);
    }
    free(args);
}

static bool part_ready(const struct up *up, enum part part)
{
    bool ready = true;

    for (size_t i = 0; i < up->count; i++)
        if (up->members[i].part == part)
            ready = ready && up->members[i].ready;
    return ready;
}

static void start_what_can(struct up *up)
{
    for (size_t i = 0; i < up->count; i++) {
        struct member *member = &up->members[i];
        bool may = member->part == PART_MASTER || up->healthy ||
                   (member->part == PART_WORKER ? part_ready(up, PART_CONDUCTOR) : part_ready(up, PART_MASTER));
        if (member->wanted && may && member->child.pid == 0 && !loop_timer_pending(&member->restart))
            start_member(member);
    }
}

static void on_restart(struct loop *loop, struct loop_timer *timer)
{
    struct member *member = container_of(timer, struct member, restart);

    if (member->wanted)
        start_member(member);
}

static void take_addresses(struct up *up, const char *line)
{
    char copy[CHILD_READY_MAX], *rest = copy;

    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        char *value = strchr(word, '=');
        for (size_t i = 0; value && i < ADDRESSES; i++)
            if ((size_t)(value - word) == strlen(address_rows[i].key) &&
                strncmp(word, address_rows[i].key, (size_t)(value - word)) == 0)
                snprintf(up->address[i], ADDRESS_MAX, "%s", value + 1);
    }
}

static void on_child_ready(struct child *child, const char *line)
{
    struct member *member = container_of(child, struct member, child);
    struct up *up = member->up;

    member->ready = true;
    take_addresses(up, line);
    if (up->healthy)
        log_info("%s serves again, pid %d", member->name, (int)child->pid);
    else if (!up->ending)
        start_what_can(up);
}

static void give_up(struct member *member, const char *how)
{
    log_error("%s: %s; it ended %u times, no use in starting it again%s%s", member->name, how, member->supervise.exits,
        member->child.log_path ? ": see " : "", member->child.log_path ? member->child.log_path : "");
    member->up->code = CLI_FAILED;
    end_next(member->up);
}

static void on_child_exited(struct child *child, int status)
{
    struct member *member = container_of(child, struct member, child);
    struct up *up = member->up;
    char how[64];

    member->ready = false;
    if (up->ending) {
        end_next(up);
        return;
    }
    child_status_text(status, how);
    if (!up->healthy && WIFEXITED(status)) {
        /* It said why: a wrong option, a taken port, no such model. Again would be no different. */
        log_error("%s could not start: %s%s%s", member->name, how, child->log_path ? "; see " : "",
            child->log_path ? child->log_path : "");
        up->code = WEXITSTATUS(status) ? WEXITSTATUS(status) : CLI_FAILED;
        end_next(up);
        return;
    }
    int delay = supervise_exited(&member->supervise, now_ns());
    if (delay < 0) {
        give_up(member, how);
        return;
    }
    log_warn("%s: %s; starting it again in %d ms", member->name, how, delay);
    if (loop_timer_set(up->loop, &member->restart, now_ns() + (uint64_t)delay * NS_PER_MS) != MC_OK)
        give_up(member, "no memory for a timer");
}

static const struct child_ops child_ops = {.ready = on_child_ready, .exited = on_child_exited};

/* ---- healthy ---- */

static void print_json(struct up *up)
{
    json_t *processes = json_object();

    for (size_t i = 0; i < up->count; i++)
        json_object_set_new(processes, up->members[i].name, json_integer(up->members[i].child.pid));
    char url[ADDRESS_MAX + 8];
    snprintf(url, sizeof(url), "http://%s", up->address[AT_HTTP]);
    json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:s, s:f, s:o}", "url", url, "master", up->address[AT_MASTER],
        "admin", up->address[AT_ADMIN], "node", up->address[AT_NODE], "workers", up->address[AT_WORKERS], "seconds",
        (double)(now_ns() - up->start_ns) / 1e9, "pids", processes);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    puts(text ? text : "{}");
    free(text);
    json_decref(all);
}

static void print_text(struct up *up)
{
    printf("mooncake is up after %.1f s: http://%s\n", (double)(now_ns() - up->start_ns) / 1e9, up->address[AT_HTTP]);
    for (size_t i = 0; i < up->count; i++) {
        const struct member *member = &up->members[i];
        const char *address = member->part == PART_MASTER      ? up->address[AT_MASTER]
                              : member->part == PART_NODE      ? up->address[AT_NODE]
                              : member->part == PART_CONDUCTOR ? up->address[AT_HTTP]
                                                               : up->address[AT_WORKERS];
        printf("  %-12s %s %-21s pid %d\n", member->name, member->part == PART_WORKER ? "dials" : "at   ", address,
            (int)member->child.pid);
    }
    puts("Ctrl-C ends it");
}

static bool all_ready(const struct up *up)
{
    for (size_t i = 0; i < up->count; i++)
        if (!up->members[i].ready)
            return false;
    return true;
}

/* All children said ready: ask the Conductor as a user would, until it agrees. Then never again. */
static void on_health(struct loop *loop, struct loop_timer *timer)
{
    struct up *up = container_of(timer, struct up, health);
    char url[ADDRESS_MAX + 8];
    struct api_reply reply = {0};

    if (up->ending)
        return;
    if (all_ready(up)) {
        snprintf(url, sizeof(url), "http://%s", up->address[AT_HTTP]);
        api_call(&(struct api_call){.url = url, .path = "/healthz", .timeout_ms = 1000}, &reply);
        up->healthy = reply.status == 200;
        api_reply_fini(&reply);
    }
    if (!up->healthy) {
        loop_timer_set(loop, timer, now_ns() + 10 * NS_PER_MS);
        return;
    }
    loop_timer_cancel(loop, &up->patience);
    if (up->cli->set->json)
        print_json(up);
    else
        print_text(up);
    fflush(stdout);
    child_say_ready((int)up->cli->set->ready_fd, "http=%s", up->address[AT_HTTP]);
}

/* Every 2 s until healthy: what we are waiting for. */
static void on_patience(struct loop *loop, struct loop_timer *timer)
{
    struct up *up = container_of(timer, struct up, patience);
    char names[256] = "";
    size_t len = 0;

    for (size_t i = 0; i < up->count && len < sizeof(names) - 1; i++)
        if (!up->members[i].ready)
            len += (size_t)snprintf(names + len, sizeof(names) - len, " %s", up->members[i].name);
    fprintf(stderr, "%.0f s, waiting for%s\n", (double)(now_ns() - up->start_ns) / 1e9, *names ? names : " /healthz");
    loop_timer_set(loop, timer, now_ns() + 2 * NS_PER_S);
}

/* ---- the end ---- */

/* Once SIGTERM (a second one would end the child at once), SIGKILL when the user insists. */
static void ask_end(struct member *member)
{
    bool insist = member->up->signals > 1;

    if (member->asked > insist)
        return;
    member->asked = insist + 1;
    child_signal(&member->child, insist ? SIGKILL : SIGTERM);
}

/* Ask the next part to end; when all have, stop the loop. Parts end one after the other, the Conductor first. */
static void end_next(struct up *up)
{
    up->ending = true;
    loop_timer_cancel(up->loop, &up->health);
    loop_timer_cancel(up->loop, &up->patience);
    for (size_t i = 0; i < up->count; i++) {
        up->members[i].wanted = false;
        loop_timer_cancel(up->loop, &up->members[i].restart);
    }
    for (int part = PART_CONDUCTOR; part >= PART_MASTER; part--) {
        bool running = false;
        for (size_t i = 0; i < up->count; i++) {
            if ((int)up->members[i].part != part || up->members[i].child.pid == 0)
                continue;
            running = true;
            ask_end(&up->members[i]);
        }
        if (running && up->signals <= 1)
            return;
    }
    for (size_t i = 0; i < up->count; i++)
        if (up->members[i].child.pid != 0)
            return;
    loop_stop(up->loop);
}

static void on_signal(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct up *up = container_of(io, struct up, signal_io);
    struct signalfd_siginfo info;

    if (read(io->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    up->signals++;
    if (up->signals == 1)
        log_info("signal %u: finishing what runs, a second one ends at once", info.ssi_signo);
    end_next(up);
}

/* ---- set-up ---- */

static void add_member(struct up *up, enum part part, const char *role, int number)
{
    struct member *member = &up->members[up->count++];
    char state[400];

    member->up = up;
    member->part = part;
    member->role = role;
    member->wanted = true;
    if (role)
        snprintf(member->name, sizeof(member->name), "%s-%d", role, number);
    else
        snprintf(member->name, sizeof(member->name), "%s", part_commands[part]);
    member->child = (struct child){.name = member->name, .ops = &child_ops, .loop = up->loop};
    if (up->cli->set->log_files && xdg_path(XDG_STATE, NULL, state, sizeof(state)) == MC_OK) {
        snprintf(
            member->log_path, sizeof(member->log_path), "%s/%s.log", state, role ? member->name : part_commands[part]);
        member->child.log_path = member->log_path;
    }
    supervise_init(&member->supervise);
    loop_timer_init(&member->restart, on_restart);
}

/* Can we bind there? A clear word now instead of a child's later. */
static int test_address(struct up *up, enum address which)
{
    struct addr addr;
    struct sockaddr_storage where;
    socklen_t len = sizeof(where);
    const char *why, *option = address_rows[which].option;
    int one = 1, code = CLI_OK;

    if (addr_parse(up->address[which], 0, &addr, &why) != MC_OK)
        return cli_fail(up->cli, CLI_USAGE, "option --%s: %s: %s", option, up->address[which], why);
    if (addr_resolve(&addr, &where, &len) != MC_OK)
        return cli_fail(up->cli, CLI_USAGE, "option --%s: no such host as %s", option, addr.host);
    int fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&where, len) != 0 || listen(fd, 1) != 0)
        code = errno == EADDRINUSE
                   ? cli_fail(up->cli, CLI_TAKEN,
                         "%s (--%s) is taken: another mooncake up may be running. End that one, or give this one "
                         "--any-port or another --%s",
                         up->address[which], option, option)
                   : cli_fail(up->cli, CLI_FAILED, "option --%s: %s: %m", option, up->address[which]);
    if (fd >= 0)
        close(fd);
    return code;
}

static int set_addresses(struct up *up)
{
    const struct settings *set = up->cli->set;
    const char *const given[ADDRESSES] = {
        set->master_listen, set->admin_listen, set->node_listen, set->conductor_listen, set->workers_listen};

    for (size_t i = 0; i < ADDRESSES; i++) {
        bool any = set->any_port && !options_given(up->cli->options, address_rows[i].option);
        snprintf(up->address[i], ADDRESS_MAX, "%s", any ? "127.0.0.1:0" : given[i]);
        int code = test_address(up, (enum address)i);
        if (code != CLI_OK)
            return code;
    }
    return CLI_OK;
}

static enum mc_status watch_signals(struct up *up)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? MC_ESYS : loop_io_start(up->loop, &up->signal_io, fd, LOOP_READ, on_signal);
}

static void add_members(struct up *up)
{
    const struct settings *set = up->cli->set;

    add_member(up, PART_MASTER, NULL, 0);
    add_member(up, PART_NODE, NULL, 0);
    add_member(up, PART_CONDUCTOR, NULL, 0);
    for (int i = 1; i <= set->prefill_workers; i++)
        add_member(up, PART_WORKER, "prefill", i);
    for (int i = 1; i <= set->decode_workers; i++)
        add_member(up, PART_WORKER, "decode", i);
}

int cmd_up(struct cli *cli)
{
    struct up *up = calloc(1, sizeof(*up));
    int code;

    if (!up)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    up->cli = cli;
    up->start_ns = now_ns();
    signals_block();
    code = set_addresses(up);
    if (code != CLI_OK)
        goto undo_up;
    code = CLI_FAILED;
    up->envp = arguments_environment();
    up->loop = loop_create("up");
    if (!up->envp || !up->loop || watch_signals(up) != MC_OK) {
        cli_fail(cli, CLI_FAILED, "cannot watch children: %m");
        goto undo_loop;
    }
    add_members(up);
    loop_timer_init(&up->health, on_health);
    loop_timer_init(&up->patience, on_patience);
    loop_timer_set(up->loop, &up->health, up->start_ns + 50 * NS_PER_MS);
    loop_timer_set(up->loop, &up->patience, up->start_ns + 2 * NS_PER_S);
    start_what_can(up);
    loop_run(up->loop);
    code = up->code;
    loop_io_stop(&up->signal_io);
    close(up->signal_io.fd);
undo_loop:
    if (up->loop)
        loop_destroy(up->loop);
    free(up->envp);
undo_up:
    free(up);
    return code;
}
