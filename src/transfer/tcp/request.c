/* request.c - the tcp transport's slots: an xfer becomes one request in a slot of a link.
 *
 * A slot is busy until its answer has come completely and its own payload has left, also when the xfer was taken back meanwhile: so
 * what still comes for it is known and thrown away, and the window counts what is really in flight. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "base/log.h"
#include "transfer/tcp/tcp.h"

#define SILENT_NS                                                                                                      \
    (500 * NS_PER_MS) /* nothing at all received for so long when a request times out: the link is given up */

static void slot_free(struct slot *slot)
{
    struct tcp_link *link = slot->link;

    link->in_flight -= slot->bytes;
    flow_fini(&slot->flow);
    slot->busy = false;
    slot->xfer = NULL;
    link->free_slots[link->free_count++] = (uint16_t)(slot - link->slots);
    te_pump_later(link->te);
}

static struct slot *slot_take(struct tcp_link *link)
{
    struct slot *slot = &link->slots[link->free_slots[--link->free_count]];

    slot->busy = true;
    slot->sent = slot->answered = false;
    slot->sequence++;
    return slot;
}

/* Ids of requests: sequence and slot; 1 is TE_SYNC's. */
static uint64_t slot_request(const struct slot *slot)
{
    return (uint64_t)slot->sequence << 16 | (uint64_t)(slot - slot->link->slots + 16);
}

static struct slot *slot_of(struct tcp_link *link, uint64_t request)
{
    uint64_t index = (request & 0xffff) - 16;
    struct slot *slot = index < SLOTS ? &link->slots[index] : NULL;

    return slot && slot->busy && slot_request(slot) == request ? slot : NULL;
}

/* ---- choosing a link ---- */

/* One whose connection has ended is still here until the loop has told us; what was given to it would only fail. */
static bool link_has_room(const struct tcp_link *link, uint32_t bytes)
{
    return link->ready && conn_ready(link->conn) && link->free_count &&
           (link->in_flight == 0 || link->in_flight + bytes <= link->te->window);
}

static struct tcp_link *link_choose(struct mc_peer *peer, const struct xfer *xfer)
{
    uint64_t now = xfer->opcode == MC_WRITE ? now_ns() : 0;
    struct tcp_link *best = NULL;

    list_for_each (it, &peer->links) {
        struct tcp_link *link = list_entry(it, struct tcp_link, peer_link);

        if (!link_has_room(link, xfer->bytes) || (xfer->opcode == MC_WRITE && !link_may_write(link, now)))
            continue;
        if (!best || link->in_flight < best->in_flight)
            best = link;
    }
    return best;
}

static enum transport_fit tcp_fit(struct transport *self, struct mc_peer *peer, const struct xfer *xfer)
{
    bool writable = xfer->opcode == MC_READ;
    uint64_t now = now_ns();

    if (atomic_load(&peer->ready_count) == 0)
        return peer->link_count ? FIT_WAIT : FIT_NO;
    list_for_each (it, &peer->links) {
        struct tcp_link *link = list_entry(it, struct tcp_link, peer_link);

        if (writable || link_may_write(link, now))
            return FIT_YES;
        if (link->ready)
            link_ask_clock(link, true);
    }
    return FIT_WAIT;
}

/* ---- starting ---- */

/* Answer and payload are complete. */
static void slot_end(struct slot *slot)
{
    struct mc_peer *peer = slot->link->peer;
    struct xfer *xfer = slot->xfer;

    if (xfer && slot->answer == MC_OK && xfer->opcode == MC_WRITE)
        atomic_fetch_add_explicit(&peer->count.write_bytes[MC_PATH_TCP], xfer->bytes, memory_order_relaxed);
    if (xfer)
        xfer_end(xfer, slot->answer);
    slot_free(slot);
}

static void on_sent(void *arg, enum mc_status status)
{
    struct slot *slot = arg;

    slot->sent = true;
    slot->sent_status = status;
    if (!slot->busy || !slot->answered)
        return;
    slot_end(slot);
}

static enum mc_status slot_fill(struct slot *slot, struct xfer *xfer)
{
    enum mc_status status = flow_init(&slot->flow, slot->link->te, xfer->part_count);

    for (uint32_t i = 0; status == MC_OK && i < xfer->part_count; i++)
        flow_add(&slot->flow, xfer->parts[i].local, xfer->parts[i].len, 0);
    return status;
}

static enum mc_status request_encode(const struct tcp_link *link, const struct xfer *xfer, struct buf *body)
{
    struct wire_range *ranges = malloc(xfer->part_count * sizeof(*ranges));
    struct wire_request request = {.ranges = ranges, .count = xfer->part_count};

    if (!ranges)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < xfer->part_count; i++)
        ranges[i] = (struct wire_range){xfer->parts[i].region, xfer->parts[i].offset, xfer->parts[i].len};
    if (xfer->opcode == MC_WRITE) {
        request.not_after = xfer->batch->deadline_ns;
        request.fence = link->peer->fence;
    }
    wire_request_encode(&request, body);
    free(ranges);
    return buf_status(body);
}

static enum mc_status request_send(struct slot *slot, struct xfer *xfer, struct slice body)
{
    bool write = xfer->opcode == MC_WRITE;
    struct conn_msg msg = {
        .type = write ? MSG_TE_WRITE : MSG_TE_READ,
        .request = slot_request(slot),
        .deadline_ns = xfer->batch->deadline_ns,
        .body = body,
        .sent = on_sent,
        .sent_arg = slot,
    };

    if (write) {
        msg.source = flow_source;
        msg.source_arg = &slot->flow;
        msg.payload_len = xfer->bytes;
    }
    return conn_send(slot->link->conn, &msg);
}

static enum mc_status tcp_submit(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    struct tcp_link *link = link_choose(peer, xfer);
    enum mc_status status;
    struct slot *slot;
    struct buf body;

    if (!link)
        return MC_AGAIN; /* slot_free() and on_writable() pump again */
    slot = slot_take(link);
    slot->bytes = xfer->bytes;
    slot->opcode = xfer->opcode;
    link->in_flight += xfer->bytes;
    buf_init(&body, 64u << 10);
    status = slot_fill(slot, xfer);
    if (status == MC_OK)
        status = request_encode(link, xfer, &body);
    if (status == MC_OK)
        status = request_send(slot, xfer, buf_slice(&body));
    buf_fini(&body);
    if (status != MC_OK) {
        slot_free(slot);
        return status;
    }
    slot->xfer = xfer;
    xfer->slot = slot;
    return MC_OK;
}

/* ---- answers ---- */

/* One lost to a damaged payload, or ended by the peer. */
static void slot_answered(struct slot *slot, enum mc_status status)
{
    slot->answered = true;
    slot->answer = status;
    if (slot->sent)
        slot_end(slot);
}

void request_frame(struct tcp_link *link, const struct frame *frame)
{
    struct slot *slot = slot_of(link, frame->request);
    struct xfer *xfer = slot ? slot->xfer : NULL;
    bool payload = frame->payload_len > 0;

    /* Only reads are answered with bytes: those of a write lie in memory that nobody may write, and in a smaller buffer. */
    if (!slot || slot->answered ||
        (payload && (slot->opcode != MC_READ || frame->status != MC_OK || frame->payload_len != slot->flow.bytes))) {
        log_every_ms(LOG_LEVEL_WARN, 1000, "transfer: peer %s: answer to no request of ours", conn_name(link->conn));
        conn_abort(link->conn, MC_EPROTO);
        return;
    }
    if (payload) {
        link->receiving = slot;
        return;
    }
    if (frame->status == MC_OK && xfer && xfer->opcode == MC_READ) {
        log_every_ms(LOG_LEVEL_WARN, 1000, "transfer: peer %s: answer to a read without bytes", conn_name(link->conn));
        conn_abort(link->conn, MC_EPROTO);
        return;
    }
    if (frame->status == MC_ECORRUPT)
        atomic_fetch_add_explicit(&link->peer->count.crc_errors, 1, memory_order_relaxed);
    slot_answered(slot, frame->status <= MC_OK ? frame->status : MC_EPROTO);
}

/* Checksums for ops that want them: that of the piece when it lies within one part, else made anew while the bytes are warm. */
static void piece_crcs(struct slot *slot, uint64_t off, uint32_t len, uint32_t crc)
{
    struct flow *flow = &slot->flow;
    struct xfer *xfer = slot->xfer;

    for (uint64_t at = off; at < off + len;) {
        struct part *part;
        uint64_t skip, n;

        flow_seek(flow, at);
        part = &xfer->parts[flow->at];
        skip = at - flow->at_off;
        n = part->len - skip < off + len - at ? part->len - skip : off + len - at;
        if (n == len)
            part->crc = crc32c_combine(part->crc, crc, n);
        else
            part->crc = crc32c(part->crc, part->local + skip, n);
        at += n;
    }
}

void request_piece(struct tcp_link *link, uint64_t off, uint32_t len, uint32_t crc)
{
    struct slot *slot = link->receiving;

    if (!slot || !slot->xfer)
        return;
    flow_spread(&slot->flow, off + len, NULL, NULL);
    if (slot->xfer->want_crc)
        piece_crcs(slot, off, len, crc);
}

static void count_read(struct mc_peer *peer, const struct xfer *xfer)
{
    uint64_t took = now_ns() - xfer->started_ns;
    uint32_t old_rtt = atomic_load_explicit(&peer->count.rtt_us, memory_order_relaxed);
    uint64_t old_rate = atomic_load_explicit(&peer->count.bytes_per_s, memory_order_relaxed);

    atomic_fetch_add_explicit(&peer->count.read_bytes[MC_PATH_TCP], xfer->bytes, memory_order_relaxed);
    if (xfer->bytes <= 4096) {
        uint32_t rtt = (uint32_t)(took / NS_PER_US) + 1;

        atomic_store_explicit(
            &peer->count.rtt_us, old_rtt ? old_rtt - old_rtt / 8 + rtt / 8 : rtt, memory_order_relaxed);
    } else if (xfer->bytes == XFER_BYTES) {
        uint64_t rate = (uint64_t)xfer->bytes * NS_PER_S / (took + 1);

        atomic_store_explicit(
            &peer->count.bytes_per_s, old_rate ? old_rate - old_rate / 8 + rate / 8 : rate, memory_order_relaxed);
    }
}

void request_payload_end(struct tcp_link *link, enum mc_status status)
{
    struct slot *slot = link->receiving;

    link->receiving = NULL;
    if (!slot || !link->peer)
        return;
    if (status == MC_ECORRUPT)
        atomic_fetch_add_explicit(&link->peer->count.crc_errors, 1, memory_order_relaxed);
    if (status == MC_OK && slot->xfer)
        count_read(link->peer, slot->xfer);
    if (slot->xfer)
        for (uint32_t i = 0; status != MC_OK && i < slot->xfer->part_count; i++)
            slot->xfer->parts[i].crc = 0;
    slot_answered(slot, status);
}

/* ---- taking back ---- */

/* The link is gone. Its slots stay as they are until the connection has told all it owes; nothing flies in them. */
void requests_lost(struct tcp_link *link, bool fenced)
{
    bool writes = false;

    for (unsigned i = 0; i < SLOTS; i++) {
        struct slot *slot = &link->slots[i];
        struct xfer *xfer = slot->xfer;

        slot->xfer = NULL;
        if (!slot->busy || !xfer)
            continue;
        writes |= xfer->opcode == MC_WRITE;
        for (uint32_t p = 0; p < xfer->part_count; p++)
            xfer->parts[p].crc = 0;
        if (fenced)
            xfer_requeue(xfer);
        else
            xfer_end(xfer, MC_ECLOSED);
    }
    if (writes)
        link->peer->fence++;
}

static void cancel_send(struct tcp_link *link, const struct slot *slot)
{
    struct conn_msg msg = {.type = MSG_CANCEL, .request = slot_request(slot)};

    (void)conn_send(link->conn, &msg); /* only saves the peer work: without it the answer comes and is thrown away */
}

static uint64_t tcp_cancel(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    struct slot *slot = xfer->slot;
    struct tcp_link *link = slot->link;
    uint64_t now = now_ns();

    slot->xfer = NULL;
    if (xfer->opcode == MC_WRITE) {
        atomic_fetch_add_explicit(&peer->count.fences, 1, memory_order_relaxed);
        peer->fence++;
        link_cut(link, true);
        return now + FENCE_GRACE_NS;
    }
    if (now - link->received_ns > SILENT_NS && now - xfer->started_ns > SILENT_NS)
        link_cut(link, true);
    else
        cancel_send(link, slot);
    return 0;
}

static struct loop_io *tcp_answers(const struct xfer *xfer)
{
    const struct slot *slot = xfer->slot;

    return conn_ready(slot->link->conn) ? conn_io(slot->link->conn) : NULL;
}

static void tcp_cut(struct transport *self, struct mc_peer *peer)
{
    list_for_each (it, &peer->links) {
        struct tcp_link *link = list_entry(it, struct tcp_link, peer_link);

        if (link->in_flight == 0)
            continue;
        link_cut(link, false);
        return;
    }
}

const struct transport_ops tcp_ops = {
    .name = "tcp",
    .path = MC_PATH_TCP,
    .caps = TRANSPORT_READ | TRANSPORT_WRITE | TRANSPORT_CHECKSUM | TRANSPORT_LINKS,
    .fit = tcp_fit,
    .submit = tcp_submit,
    .cancel = tcp_cancel,
    .answers = tcp_answers,
    .cut = tcp_cut,
};
