/* cluster.c - see cluster.h. */
#include "cluster.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/scratch_test.h"

/* Path of the server program: beside the test. */
static void server_path(char *path, size_t size)
{
    ssize_t len = readlink("/proc/self/exe", path, size - 1);

    assert_true(len > 0);
    path[len] = '\0';
    char *slash = strrchr(path, '/');
    assert_true((size_t)(slash - path) + sizeof("/store_server") <= size);
    strcpy(slash, "/store_server");
}

static void spawn(struct server *server, const char *const argv[])
{
    char path[512];
    int out[2];

    server_path(path, sizeof(path));
    assert_int_equal(pipe(out), 0);
    fflush(NULL);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0) {
        dup2(out[1], STDOUT_FILENO);
        close(out[0]);
        close(out[1]);
        execv(path, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(out[1]);
    server->out = out[0];
    server->line_len = 0;
}

/* Next line a server prints that begins with `word`; its rest is left in server->line. */
static const char *read_line(struct server *server, const char *word, uint32_t timeout_ms)
{
    uint64_t deadline = deadline_after_ms(now_ns(), timeout_ms);

    for (;;) {
        char *end = memchr(server->line, '\n', server->line_len);

        if (end) {
            static char line[sizeof(server->line)];
            size_t len = (size_t)(end - server->line);

            memcpy(line, server->line, len);
            line[len] = '\0';
            server->line_len -= len + 1;
            memmove(server->line, end + 1, server->line_len);
            if (strncmp(line, word, strlen(word)) == 0)
                return line + strlen(word);
            continue;
        }
        struct pollfd p = {.fd = server->out, .events = POLLIN};
        uint64_t now = now_ns();
        if (now >= deadline || poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) <= 0)
            fail_msg("server %d did not say '%s' within %u ms", server->pid, word, timeout_ms);
        ssize_t got = read(server->out, server->line + server->line_len, sizeof(server->line) - server->line_len);
        if (got <= 0)
            fail_msg("server %d ended before it said '%s'", server->pid, word);
        server->line_len += (size_t)got;
    }
}

static void wait_ready(struct server *server)
{
    const char *rest = read_line(server, "ready", 10000);

    assert_int_equal(sscanf(rest, "%63s %63s", server->address, server->admin), 2);
}

void cluster_master_start(struct cluster *c)
{
    char state[128], listen[64];

    snprintf(listen, sizeof(listen), "%s", c->master.address[0] ? c->master.address : "127.0.0.1:0");
    snprintf(state, sizeof(state), "%s/master", c->dir);
    const char *argv[] = {"store_server", "master", listen, state, NULL};
    spawn(&c->master, argv);
    wait_ready(&c->master);
}

void cluster_node_start(struct cluster *c, uint32_t i, const char *host_id)
{
    struct server *server = &c->node[i];
    char state[128], run[128], listen[64], name[16], memory[16], transport[32], host[80];

    snprintf(listen, sizeof(listen), "%s", server->address[0] ? server->address : "127.0.0.1:0");
    snprintf(state, sizeof(state), "%s/node%u", c->dir, i);
    snprintf(run, sizeof(run), "%s/run", c->dir);
    snprintf(name, sizeof(name), "node%u", i);
    snprintf(memory, sizeof(memory), "%u", c->memory_mib);
    snprintf(transport, sizeof(transport), "%s", c->transport);
    snprintf(host, sizeof(host), "%s", host_id ? host_id : c->host_id);
    const char *argv[] = {
        "store_server", "node", listen, c->master.address, state, run, name, memory, host, transport, NULL};
    spawn(server, argv);
    wait_ready(server);
}

void cluster_writer_start(struct cluster *c, struct server *writer, uint64_t first)
{
    char run[128], number[32];

    snprintf(run, sizeof(run), "%s/run", c->dir);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)first);
    const char *argv[] = {"store_server", "writer", c->master.address, run, c->host_id, c->transport, number, NULL};
    spawn(writer, argv);
    wait_ready(writer);
}

void cluster_start(struct cluster *c, uint32_t nodes)
{
    scratch_dir(c->dir);
    c->transport = c->transport ? c->transport : "auto";
    c->host_id = c->host_id ? c->host_id : "test-host";
    c->memory_mib = c->memory_mib ? c->memory_mib : 64;
    c->nodes = nodes;
    cluster_master_start(c);
    for (uint32_t i = 0; i < nodes; i++)
        cluster_node_start(c, i, NULL);
}

void cluster_kill(struct server *server, int sig)
{
    int status;

    if (server->pid == 0)
        return;
    assert_int_equal(kill(server->pid, sig), 0);
    if (sig != SIGKILL)
        return;
    while (waitpid(server->pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(server->out);
    server->pid = 0;
}

void cluster_stop(struct cluster *c)
{
    for (uint32_t i = 0; i < c->nodes; i++)
        cluster_kill(&c->node[i], SIGKILL);
    cluster_kill(&c->master, SIGKILL);
}

static uint32_t nodes_up(struct mc_store *store)
{
    struct mc_node_info rows[CLUSTER_NODES_MAX * 4];
    uint32_t n = CLUSTER_NODES_MAX * 4, up = 0;

    mc_store_nodes(store, 1000, rows, &n);
    for (uint32_t i = 0; i < n; i++)
        up += rows[i].state == 0;
    return up;
}

uint64_t cluster_wait_nodes(struct cluster *c, struct mc_store *store, uint32_t up, uint32_t timeout_ms)
{
    uint64_t start = now_ns();

    while (nodes_up(store) != up) {
        if (now_ns() - start > timeout_ms * NS_PER_MS)
            fail_msg("%u nodes are up after %u ms, wanted %u", nodes_up(store), timeout_ms, up);
        usleep(2000);
    }
    return (now_ns() - start) / NS_PER_MS;
}

struct mc_store *cluster_client(struct cluster *c, const char *fault)
{
    char run[128];
    struct mc_store_opts opts = {
        .size = sizeof(opts),
        .master = c->master.address,
        .transport = c->transport,
        .fault = fault,
        .host_id = c->host_id,
        .run_dir = run,
        .connect_ms = 5000,
    };
    struct mc_store *store;
    uint32_t up = 0;

    snprintf(run, sizeof(run), "%s/run", c->dir);
    assert_int_equal(mc_store_open(&opts, &store), MC_OK);
    for (uint32_t i = 0; i < c->nodes; i++)
        up += c->node[i].pid != 0;
    cluster_wait_nodes(c, store, up, 5000);
    return store;
}

static uint64_t row_of(const char *text, const char *name, uint64_t *bytes)
{
    char pattern[48];
    unsigned long long objects = 0, size = 0;

    snprintf(pattern, sizeof(pattern), " %s=", name);
    const char *at = strstr(text, pattern);
    assert_non_null(at);
    assert_true(sscanf(at + strlen(pattern), "%llu:%llu", &objects, &size) >= 1);
    if (bytes)
        *bytes = size;
    return objects;
}

/* Sum of all rows but the first, which is printed first: exact means it is equal to it. */
static bool exact(const char *text)
{
    unsigned long long objects, bytes, accepted = 0, accepted_bytes = 0, sum = 0, sum_bytes = 0;
    int count = 0, used;
    char name[48];

    while (sscanf(text, " %47[^= ]=%llu:%llu%n", name, &objects, &bytes, &used) == 3) {
        if (count++ == 0) {
            accepted = objects;
            accepted_bytes = bytes;
        } else {
            sum += objects;
            sum_bytes += bytes;
        }
        text += used;
    }
    return count > 5 && accepted == sum && accepted_bytes == sum_bytes;
}

struct ledger cluster_ledger(struct server *node)
{
    struct ledger out;
    uint64_t quiet_since = 0, start = now_ns();
    const char *text;

    assert_true(node->pid > 0); /* 0 would be our own group */
    for (;;) {
        assert_int_equal(kill(node->pid, SIGUSR1), 0);
        text = read_line(node, "ledger", 5000);
        if (!strstr(text, " quiet=1"))
            quiet_since = 0;
        else if (quiet_since == 0)
            quiet_since = now_ns();
        else if (now_ns() - quiet_since > 500 * NS_PER_MS)
            break;
        if (now_ns() - start > 15 * NS_PER_S)
            fail_msg("node %d is not quiet: %s", node->pid, text);
        usleep(20000);
    }
    if (!exact(text))
        fail_msg("ledger is not exact: %s", text);
    out.accepted = row_of(text, "accepted", NULL);
    out.present = row_of(text, "present", &out.bytes);
    out.in_flight = row_of(text, "in_flight", NULL);
    out.used = row_of(text, "used", NULL);
    const char *ratio = strstr(text, " hit_ratio=");
    assert_true(ratio && sscanf(ratio, " hit_ratio=%lf,%lf,%lf,%lf", &out.hit_ratio[0], &out.hit_ratio[1],
                             &out.hit_ratio[2], &out.hit_ratio[3]) == 4);
    return out;
}

double cluster_cpu(const struct server *server)
{
    char path[64], text[1024];
    unsigned long user = 0, system_time = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", server->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    const char *at = strrchr(text, ')');
    assert_true(at && sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system_time) == 2);
    return (double)(user + system_time) / (double)sysconf(_SC_CLK_TCK);
}
