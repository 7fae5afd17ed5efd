/* serve.c - the other side of peer.c: says what is registered here, and takes notifications.
 *
 * Connections come in by the engine's one listener; those of the Transfer Engine (role bulk or engine) are given to it, those of
 * role client are kept here. */
#include <stdlib.h>

#include "base/log.h"
#include "compat/engine/impl.h"

struct served {
    struct list link; /* engine->served */
    struct ce_engine *engine;
    struct conn *conn;
};

static void reply(struct conn *conn, const struct frame *frame, enum mc_status status)
{
    if (conn_reply(conn, frame, status, slice_of(NULL, 0)) == MC_AGAIN)
        conn_abort(conn, MC_EBUSY); /* it asks without reading our answers */
}

static void areas_sent(void *arg, enum mc_status status)
{
    free(arg);
}

static enum mc_status answer(
    struct conn *conn, const struct frame *frame, const struct ce_wire_answer *head, uint8_t *areas)
{
    struct conn_span span = {.ptr = areas, .len = (size_t)head->count * CE_AREA_SIZE};
    struct conn_msg msg = {
        .type = MSG_CE_DESCRIBE,
        .flags = FRAME_REPLY,
        .request = frame->request,
        .trace = frame->trace,
        .spans = &span,
        .span_count = head->count ? 1 : 0,
        .sent = areas_sent,
        .sent_arg = areas,
    };
    enum mc_status status;
    struct buf body;

    buf_init(&body, 256);
    ce_wire_answer_encode(head, &body);
    msg.body = buf_slice(&body);
    status = buf_status(&body) == MC_OK ? conn_send(conn, &msg) : MC_ENOMEM;
    buf_fini(&body);
    return status;
}

static void describe(struct served *served, const struct frame *frame, uint64_t known)
{
    struct ce_wire_answer head;
    uint8_t *areas;

    if (ce_memory_describe(&served->engine->memory, known, &head, &areas) != MC_OK) {
        reply(served->conn, frame, MC_ENOMEM);
        return;
    }
    if (answer(served->conn, frame, &head, areas) != MC_OK) {
        free(areas);
        conn_abort(served->conn, MC_EBUSY);
    }
}

static void malformed(struct served *served, const char *bad, enum mc_status status)
{
    log_warn("engine: peer %s: malformed %s", conn_name(served->conn), bad);
    conn_abort(served->conn, status);
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct served *served = conn_user(conn);
    struct ce_wire_note note;
    const char *bad = "request";
    enum mc_status status;
    uint64_t known;

    if (frame->type == MSG_CANCEL)
        return; /* nothing here takes time */
    if (frame->request == 0 || frame->payload_len) {
        malformed(served, bad, MC_EPROTO);
        return;
    }
    switch (frame->type) {
    case MSG_CE_DESCRIBE:
        status = ce_wire_ask_decode(frame->body, &known, &bad);
        if (status == MC_OK)
            describe(served, frame, known);
        break;
    case MSG_CE_NOTIFY:
        status = ce_wire_note_decode(frame->body, &note, &bad);
        if (status == MC_OK)
            reply(conn, frame, ce_inbox_put(&served->engine->inbox, &note));
        break;
    case MSG_CE_PROBE:
        status = MC_OK;
        reply(conn, frame, MC_OK);
        break;
    default: status = MC_OK; conn_reply_unknown(conn, frame);
    }
    if (status == MC_ENOSUP)
        reply(conn, frame, status);
    else if (status != MC_OK)
        malformed(served, bad, status);
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct served *served = conn_user(conn);

    list_del(&served->link);
    free(served);
}

static const struct conn_ops served_ops = {.on_frame = on_frame, .on_close = on_close};

enum mc_status ce_serve_hello(struct conn *conn, const struct hello *peer, struct buf *why)
{
    struct ce_engine *engine = conn_user(conn);
    struct served *served;

    if (te_wants(peer))
        return te_adopt(engine->te, conn, peer, why);
    served = calloc(1, sizeof(*served));
    if (!served)
        return MC_ENOMEM;
    served->engine = engine;
    served->conn = conn;
    list_push_back(&engine->served, &served->link);
    conn_set_user(conn, served);
    conn_set_ops(conn, &served_ops);
    return MC_OK;
}

/* Connections that never said hello end here, with the engine as user pointer. */
static void unknown_frame(struct conn *conn, const struct frame *frame)
{
    conn_reply_unknown(conn, frame);
}

static void unknown_close(struct conn *conn, enum mc_status status)
{
}

const struct conn_ops ce_serve_unknown = {.on_frame = unknown_frame, .on_close = unknown_close};

void ce_serve_close(struct ce_engine *engine)
{
    list_for_each_safe (it, tmp, &engine->served)
        conn_abort(list_entry(it, struct served, link)->conn, MC_ECLOSED);
}
