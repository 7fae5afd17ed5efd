/* conn_bench.c - round trips and payload over loopback, client and server on loops of their own.
 *
 *     build/src/net/conn_bench [tcp|unix]
 *
 * Prints round trips one at a time, 64 at a time, and payload of 64 MiB with checksums on both sides. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/rpc.h"

#define ROUND_TRIPS 100000
#define PAYLOAD     (64u << 20)
#define TRANSFERS   40

enum { ECHO = 0x7001, FETCH = 0x7002 };

static uint8_t *source, *place;

static void server_frame(struct conn *conn, const struct frame *frame)
{
    struct conn_span span = {.ptr = source, .len = PAYLOAD};
    struct conn_msg msg = {
        .type = frame->type, .flags = FRAME_REPLY, .request = frame->request, .spans = &span, .span_count = 1};

    if (frame->type == FETCH)
        conn_send(conn, &msg);
    else
        conn_reply(conn, frame, MC_OK, frame->body);
}

static void server_close(struct conn *conn, enum mc_status status)
{
}

static const struct conn_ops server_ops = {.on_frame = server_frame, .on_close = server_close};

struct run {
    struct rpc_peer *peer;
    struct rpc_call calls[64];
    struct loop *loop;
    uint16_t type;
    unsigned left, open;
    enum mc_status status;
};

static void next(struct run *run, struct rpc_call *call)
{
    struct conn_msg msg = {.type = run->type, .body = slice_str("sixteen bytes...")};

    run->left--;
    run->open++;
    if (rpc_send(run->peer, call, &msg) != MC_OK)
        abort();
}

static void done(struct rpc_call *call, enum mc_status status, const struct frame *frame)
{
    struct run *run = call->user;

    run->open--;
    if (status != MC_OK)
        run->status = status;
    if (run->left > 0 && run->status == MC_OK)
        next(run, call);
    else if (run->open == 0)
        loop_stop(run->loop);
}

static size_t payload_dst(struct rpc_call *call, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    *dst = place + off;
    return max;
}

static const struct rpc_call_ops call_ops = {.done = done, .payload_dst = payload_dst};

static double seconds(struct run *run, uint16_t type, unsigned count, unsigned depth)
{
    uint64_t start = now_ns();

    run->type = type;
    run->left = count;
    run->status = MC_OK;
    for (unsigned i = 0; i < depth && run->left > 0; i++) {
        run->calls[i] = (struct rpc_call){.ops = &call_ops, .user = run};
        next(run, &run->calls[i]);
    }
    loop_run(run->loop);
    if (run->status != MC_OK) {
        fprintf(stderr, "failed: %s\n", mc_status_str(run->status));
        exit(1);
    }
    return (double)(now_ns() - start) * 1e-9;
}

struct listening {
    struct addr addr;
    struct listener *listener;
};

static void listen_here(struct loop *loop, void *arg)
{
    static const struct hello hello = {.role = ROLE_NODE};
    struct listening *listening = arg;
    struct listener_opts opts = {.self = &hello, .ops = &server_ops};

    if (conn_listen(loop, &listening->addr, &opts, &listening->listener) != MC_OK)
        exit(1);
    listening->addr = *listener_addr(listening->listener);
}

static void stop_listening(struct loop *loop, void *arg)
{
    listener_close(((struct listening *)arg)->listener);
}

int main(int argc, char **argv)
{
    static const struct hello hello = {.role = ROLE_TOOL};
    struct loop *server = loop_create("server");
    struct run run = {.loop = loop_create("client")};
    struct rpc_peer_opts opts = {.self = &hello};
    struct listening listening;
    bool local = argc > 1 && strcmp(argv[1], "unix") == 0;
    char dir[] = "/tmp/mc-bench-XXXXXX";
    double took;

    source = malloc(PAYLOAD);
    place = malloc(PAYLOAD);
    if (!server || !run.loop || !source || !place || !mkdtemp(dir))
        return 1;
    memset(source, 7, PAYLOAD);
    memset(place, 1, PAYLOAD);
    addr_parse("127.0.0.1:0", 0, &listening.addr, NULL);
    if (local) {
        listening.addr.kind = ADDR_UNIX;
        snprintf(listening.addr.host, sizeof(listening.addr.host), "%s/sock", dir);
    }
    loop_thread_start(server);
    loop_call(server, listen_here, &listening);
    opts.addr = listening.addr;
    run.peer = rpc_peer_create(run.loop, &opts);
    seconds(&run, ECHO, 1000, 1);
    took = seconds(&run, ECHO, ROUND_TRIPS, 1);
    printf("round trip          %8.1f us\n", took / ROUND_TRIPS * 1e6);
    took = seconds(&run, ECHO, ROUND_TRIPS * 5, 64);
    printf("64 at a time        %8.0f per second\n", ROUND_TRIPS * 5 / took);
    seconds(&run, FETCH, 2, 1);
    took = seconds(&run, FETCH, TRANSFERS, 1);
    printf("payload of 64 MiB   %8.2f GB/s\n", (double)PAYLOAD * TRANSFERS / took * 1e-9);
    rpc_peer_destroy(run.peer);
    loop_destroy(run.loop);
    loop_call(server, stop_listening, &listening);
    loop_thread_stop(server);
    loop_destroy(server);
    rmdir(dir);
    free(source);
    free(place);
    return 0;
}
