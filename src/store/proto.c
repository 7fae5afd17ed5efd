/* proto.c - messages of the Store to bytes and back. docs/wire-store.md has the fields by number.
 *
 *     proto_node.c  proto_master.c    bodies, one row per type
 *     proto_records.c                 records of lists inside of bodies
 *
 * Records have a fixed layout; everything else is a numbered field, so it can grow. */
#include "store/proto.h"

#include <assert.h>

#include "base/clock.h"
#include "store/proto_impl.h"

/* ---- fields that several messages share ---- */

void proto_slice_put(struct buf *body, uint16_t id, struct slice s)
{
    if (s.len)
        put_field_bytes(body, id, s.ptr, s.len);
}

struct slice proto_list_get(struct field *f, size_t size, size_t max, const char *name)
{
    struct slice s = field_bytes(f, 0, size * max, name);

    if (s.len % size != 0) {
        cur_fail(f->from, name);
        s.len = 0;
    }
    return s;
}

void proto_key_put(struct buf *body, uint16_t id, const struct store_key *key)
{
    size_t mark = put_field_begin(body, id);

    put_u32(body, key->ns);
    store_key_put(body, key);
    put_field_end(body, mark);
}

void proto_key_get(struct field *f, struct store_key *key, const char *name)
{
    struct cur c = field_cur(f);
    uint32_t ns = cur_u32(&c, name);

    store_key_get(&c, key, name);
    key->ns = ns;
    cur_done(&c, name);
    field_join(f, &c);
}

/* ---- messages ---- */

static const struct proto_row *type_find(uint16_t type)
{
    static const struct proto_row *const tables[] = {proto_node_rows, proto_master_rows};

    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        for (const struct proto_row *row = tables[i]; row->type; row++)
            if (row->type == type)
                return row;
    return NULL;
}

/* A body that is empty today may have fields tomorrow. */
static void body_get(proto_get_fn *get, struct cur *c, struct store_msg *m)
{
    if (get) {
        get(c, m);
        return;
    }
    for (struct field f; field_next(c, &f);)
        field_unknown(&f);
}

/* A failed answer has no body, but a refused model brings the record that is there. */
static bool has_body(const struct store_msg *msg)
{
    return !msg->reply || msg->status == MC_OK || msg->type == MSG_MASTER_MODEL;
}

void store_msg_encode(const struct store_msg *msg, struct buf *body)
{
    const struct proto_row *row = type_find(msg->type);

    assert(row && "a type of the Store");

    proto_put_fn *put = msg->reply ? row->put_reply : row->put;

    if (put && has_body(msg))
        put(msg, body);
}

enum mc_status store_msg_decode(const struct frame *frame, struct store_msg *msg, const char **bad)
{
    const struct proto_row *row = type_find(frame->type);
    struct cur c = frame_body(frame);

    *bad = "type";
    if (!row)
        return MC_ENOSUP;
    *msg = (struct store_msg){
        .type = frame->type,
        .reply = frame->flags & FRAME_REPLY,
        .status = frame->flags & FRAME_REPLY ? frame->status : MC_OK,
        .request = frame->request,
        .deadline_ms = frame->deadline_ms,
    };
    memcpy(msg->trace, frame->trace, TRACE_SIZE);
    if (has_body(msg))
        body_get(msg->reply ? row->get_reply : row->get, &c, msg);
    *bad = c.bad;
    return cur_status(&c);
}

struct store_msg store_msg_reply(const struct store_msg *request, enum mc_status status)
{
    struct store_msg reply = {
        .type = request->type,
        .reply = true,
        .status = status,
        .request = request->request,
        .deadline_ms = DEADLINE_MS_NONE,
    };

    memcpy(reply.trace, request->trace, TRACE_SIZE);
    return reply;
}
