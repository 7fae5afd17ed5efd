/* conn_handshake.c - HELLO, HELLO_OK, REFUSE.
 *
 *   dialer                      acceptor
 *   HELLO  ------------------>  decode; hello_check(); owner decides
 *          <------------------  HELLO_OK (its own hello)   or   REFUSE(status, text), close
 *   hello_check(); ready        ready as soon as HELLO_OK is queued
 *
 * A dialer that does not like the acceptor says so with REFUSE too, so that both logs hold the reason. */
#include <stdio.h>

#include "base/log.h"
#include "net/conn_impl.h"

static enum mc_status send_hello(struct conn *conn, uint16_t type)
{
    struct conn_msg msg = {.type = type};
    enum mc_status status;
    struct buf body;

    buf_init(&body, FRAME_BODY_MAX);
    hello_encode(&conn->self, &body);
    msg.body = buf_slice(&body);
    status = buf_status(&body);
    if (status == MC_OK)
        status = conn_queue(conn, &msg, -1, true);
    buf_fini(&body);
    return status;
}

void conn_handshake_start(struct conn *conn)
{
    enum mc_status status;

    if (!conn->dialer)
        return; /* the other side speaks first */
    status = send_hello(conn, MSG_HELLO);
    if (status != MC_OK)
        conn_fail(conn, status);
}

static void malformed(struct conn *conn, enum mc_status status, const char *field)
{
    char text[256];

    snprintf(text, sizeof(text), "malformed %s in the handshake, here %s: run one version at both ends", field,
        conn->self.build);
    conn_refuse(conn, status, text);
}

/* Decode and check the peer's hello. False: the connection is closing. */
static bool peer_fits(struct conn *conn, const struct frame *frame)
{
    const char *bad;
    enum mc_status status = hello_decode(frame->body, &conn->peer, &bad);
    char text[512];
    struct buf why;

    if (status != MC_OK) {
        malformed(conn, status, bad);
        return false;
    }
    buf_init_fixed(&why, text, sizeof(text));
    status = hello_check(&conn->self, &conn->peer, &conn->expect, &conn->protocol, &why);
    if (status == MC_OK && !conn->dialer)
        status = listener_decide(conn, &why);
    if (status != MC_OK && conn->state != CONN_CLOSED)
        conn_refuse(conn, status, buf_cstr(&why));
    return status == MC_OK;
}

static void on_hello(struct conn *conn, const struct frame *frame)
{
    enum mc_status status;

    if (!peer_fits(conn, frame))
        return;
    conn->owner_knows = true; /* on_hello said yes and may have tied something to it */
    status = send_hello(conn, MSG_HELLO_OK);
    if (status == MC_OK)
        conn_become_ready(conn);
    else
        conn_fail(conn, status);
}

void conn_refused(struct conn *conn, const struct frame *frame)
{
    enum mc_status status;

    refuse_decode(frame->body, &status, conn->refusal, sizeof(conn->refusal));
    log_info("peer %s refuses us: %s (%s)", conn->name, conn->refusal, mc_status_str(status));
    conn_fail(conn, status);
}

void conn_handshake_frame(struct conn *conn, const struct frame *frame)
{
    if (frame->type == MSG_HELLO && !conn->dialer)
        on_hello(conn, frame);
    else if (frame->type == MSG_HELLO_OK && conn->dialer) {
        if (peer_fits(conn, frame))
            conn_become_ready(conn);
    } else if (frame->type == MSG_REFUSE)
        conn_refused(conn, frame);
    else
        malformed(conn, MC_EPROTO, "message type");
}
