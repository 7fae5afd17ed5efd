/* serve.c - the requests of peers: TE_READ is answered from our regions, TE_WRITE is received into them.
 *
 * A read holds its regions (the row is not used again meanwhile) but not their registration: that is looked at before each piece.
 * A write looks, before each receive and before each copy into place, at its registration, its fence and the clock.
 *
 * Bytes of a write reach the region by a receive or by an uncut copy from the buffer (base/uncut.h): neither goes on after a SIGSTOP. The
 * second half of a memcpy could follow a SIGCONT that comes an hour later. Nor is there a stop between the look and either. */
#include <stdlib.h>

#include "base/log.h"
#include "transfer/tcp/tcp.h"

/* The nearer the instant after which no byte may be stored, the smaller the pieces: a receive that loses its processor half-way is
 * the one thing that looking cannot prevent, and what is never begun cannot be late. */
#define CAREFUL_NS    (50 * NS_PER_MS)
#define CAREFUL_BYTES (16u << 10)

struct serve {
    struct list link;
    struct tcp_link *on;
    uint64_t request;
    struct flow flow;
};

static void flow_drop(struct flow *flow)
{
    for (uint32_t i = 0; i < flow->count; i++)
        region_release(flow->te, flow->runs[i].region);
    flow_fini(flow);
}

/* The ranges of a request as runs of our memory, each held. */
static enum mc_status flow_of_regions(
    struct mc_te *te, const struct wire_request *request, uint32_t need, struct flow *flow)
{
    enum mc_status status = flow_init(flow, te, request->count);

    for (uint32_t i = 0; status == MC_OK && i < request->count; i++) {
        const struct wire_range *range = &request->ranges[i];
        uint8_t *addr;

        status = region_find(te, range->region, range->offset, range->len, need, true, &addr);
        if (status == MC_OK)
            flow_add(flow, addr, range->len, range->region);
    }
    if (status != MC_OK)
        flow_drop(flow);
    return status;
}

static void reply(struct tcp_link *link, const struct frame *frame, enum mc_status status)
{
    if (conn_reply(link->conn, frame, status, slice_of(NULL, 0)) == MC_AGAIN)
        conn_abort(link->conn, MC_EBUSY); /* it asks without reading our answers */
}

/* ---- reads ---- */

static void serve_sent(void *arg, enum mc_status status)
{
    struct serve *serve = arg;
    struct mc_peer *peer = serve->on->peer;

    if (status == MC_OK && peer)
        atomic_fetch_add_explicit(&peer->count.served_bytes, serve->flow.bytes, memory_order_relaxed);
    list_del(&serve->link);
    flow_drop(&serve->flow);
    free(serve);
}

static void serve_read(struct tcp_link *link, const struct frame *frame, const struct wire_request *request)
{
    struct serve *serve = calloc(1, sizeof(*serve));
    struct conn_msg msg = {
        .type = MSG_TE_READ,
        .flags = FRAME_REPLY,
        .request = frame->request,
        .trace = frame->trace,
        .source = flow_source,
        .payload_len = request->bytes,
        .sent = serve_sent,
        .sent_arg = serve,
    };
    enum mc_status status;

    if (!serve) {
        reply(link, frame, MC_ENOMEM);
        return;
    }
    serve->on = link;
    serve->request = frame->request;
    list_init(&serve->link);
    status = flow_of_regions(link->te, request, MC_REGION_READ, &serve->flow);
    if (status != MC_OK) {
        free(serve);
        reply(link, frame, status);
        return;
    }
    msg.source_arg = &serve->flow;
    list_push_back(&link->serves, &serve->link);
    if (conn_send(link->conn, &msg) != MC_OK) {
        list_del(&serve->link);
        flow_drop(&serve->flow);
        free(serve);
        conn_abort(link->conn, MC_EBUSY);
    }
}

void serve_cancel(struct tcp_link *link, uint64_t request)
{
    list_for_each (it, &link->serves) {
        struct serve *serve = list_entry(it, struct serve, link);

        if (serve->request == request)
            serve->flow.cancelled = true;
    }
}

bool serves_region(const struct tcp_link *link, uint64_t id)
{
    list_for_each (it, &link->serves) {
        const struct serve *serve = list_entry(it, struct serve, link);

        for (uint32_t i = 0; serve->flow.started && i < serve->flow.count; i++)
            if (serve->flow.runs[i].region == id)
                return true;
    }
    return false;
}

/* ---- writes ---- */

static enum mc_status write_deadline(
    const struct tcp_link *link, const struct wire_request *request, uint64_t *deadline)
{
    uint64_t now = now_ns();

    if (!link->sync_known || now - link->clock_read_ns > CLOCK_OLD_NS)
        return MC_ESTALE; /* the writer asks us to read its clock again, and comes back */
    *deadline = request->not_after == 0 ? 0 : (uint64_t)((int64_t)request->not_after + link->clock_offset);
    return MC_OK;
}

static enum mc_status write_allowed(const struct tcp_link *link, const struct inbound_write *write)
{
    if (write->status != MC_OK)
        return write->status;
    if (!link->peer || write->request.fence < link->peer->fence_seen)
        return MC_ESTALE;
    return now_ns() < write->deadline_ns ? MC_OK : MC_ETIMEDOUT;
}

static void serve_write(struct tcp_link *link, const struct frame *frame, const struct wire_request *request)
{
    struct inbound_write *write = calloc(1, sizeof(*write));

    if (!write) {
        conn_abort(link->conn, MC_ENOMEM);
        return;
    }
    write->request = *request;
    write->request.ranges = NULL;
    write->status = write_deadline(link, request, &write->deadline_ns);
    if (write->status == MC_OK)
        write->status = flow_of_regions(link->te, request, MC_REGION_WRITE, &write->flow);
    if (request->fence > link->peer->fence_seen)
        link->peer->fence_seen = request->fence;
    link->writing = write;
}

static enum mc_status look(void *arg)
{
    const struct tcp_link *link = arg;

    return write_allowed(link, link->writing);
}

static size_t throw_away(size_t max, void **dst)
{
    *dst = NULL;
    return max;
}

size_t serve_write_dst(struct tcp_link *link, uint64_t off, size_t max, void **dst)
{
    struct inbound_write *write = link->writing;
    struct flow *flow = &write->flow;
    bool direct = conn_buffered(link->conn) == 0;

    write->status = write_allowed(link, write);
    if (write->status != MC_OK)
        return throw_away(max, dst);
    if (max > CAREFUL_BYTES && now_ns() + CAREFUL_NS > write->deadline_ns)
        max = CAREFUL_BYTES;
    flow_seek(flow, off);
    if (!region_alive(link->te, flow->runs[flow->at].region))
        write->status = MC_ENOENT;
    else if (direct && flow->staging && flow->runs[flow->at].len >= FLOW_SMALL) /* what follows need not go that way */
        write->status = flow_spread(flow, off, look, link);
    return write->status == MC_OK ? flow_place(flow, off, max, direct, true, dst) : throw_away(max, dst);
}

void serve_write_piece(struct tcp_link *link, uint64_t off, uint32_t len)
{
    struct inbound_write *write = link->writing;

    write->status = write_allowed(link, write);
    if (write->status == MC_OK)
        write->status = flow_spread(&write->flow, off + len, look, link);
}

void serve_write_end(struct tcp_link *link, const struct frame *frame, enum mc_status status)
{
    struct inbound_write *write = link->writing;

    link->writing = NULL;
    if (write->status != MC_OK)
        status = write->status;
    if (link->peer)
        reply(link, frame, status);
    flow_drop(&write->flow);
    free(write);
}

/* ---- requests ---- */

void serve_frame(struct tcp_link *link, const struct frame *frame)
{
    static _Thread_local struct wire_range ranges[WIRE_RANGES_MAX];
    struct wire_request request = {.ranges = ranges};
    bool write = frame->type == MSG_TE_WRITE;
    const char *bad = "payload length";
    enum mc_status status = wire_request_decode(frame->body, &request, &bad);

    if (status == MC_OK && frame->payload_len != (write ? request.bytes : 0))
        status = MC_EPROTO;
    if (status == MC_OK && frame->request == 0) { /* it would count against no credit */
        status = MC_EPROTO;
        bad = "request id";
    }
    if (status != MC_OK) {
        log_warn(
            "transfer: peer %s: malformed %s in a %s request", conn_name(link->conn), bad, write ? "write" : "read");
        conn_abort(link->conn, status);
        return;
    }
    if (write)
        serve_write(link, frame, &request);
    else
        serve_read(link, frame, &request);
}
