/* proto_node.c - messages 0x02xx: to a node, or of a node to its clients. One pair of functions per body, in the order of
 * docs/wire-store.md. */
#include "store/proto_impl.h"

static void info_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->segments);
}

static void info_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->segments = proto_list_get(&f, STORE_SEGMENT_SIZE, STORE_SEGMENTS_MAX, "segments"); break;
        default: field_unknown(&f);
        }
    }
}

static void put_put(const struct store_msg *m, struct buf *b)
{
    const struct store_put *p = &m->put;

    proto_key_put(b, 1, &p->key);
    put_field_u64(b, 2, p->length);
    put_field_u32(b, 3, p->flags);
    put_field_u64(b, 4, p->version);
    put_field_bytes(b, 5, p->meta.parent, 16);
    put_field_u32(b, 6, p->meta.depth);
    put_field_u32(b, 7, p->meta.tokens);
    put_field_u64(b, 8, p->meta.geometry);
    put_field_u32(b, 9, p->meta.flags);
    proto_slice_put(b, 10, p->meta.planes);
    proto_slice_put(b, 11, p->spans);
    proto_slice_put(b, 12, p->data);
    if (p->bundle)
        put_field_u64(b, 13, p->bundle);
}

static void put_get(struct cur *c, struct store_msg *m)
{
    struct store_put *p = &m->put;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: proto_key_get(&f, &p->key, "key"); break;
        case 2: p->length = field_u64(&f, "length"); break;
        case 3: p->flags = field_u32(&f, "flags"); break;
        case 4: p->version = field_u64(&f, "version"); break;
        case 5: field_copy(&f, p->meta.parent, 16, "parent"); break;
        case 6: p->meta.depth = field_u32(&f, "depth"); break;
        case 7: p->meta.tokens = field_u32(&f, "tokens"); break;
        case 8: p->meta.geometry = field_u64(&f, "geometry"); break;
        case 9: p->meta.flags = field_u32(&f, "object flags"); break;
        case 10: p->meta.planes = proto_list_get(&f, 8, 8192, "planes"); break;
        case 11: p->spans = proto_list_get(&f, STORE_SPAN_SIZE, STORE_SPANS_MAX, "spans"); break;
        case 12: p->data = field_bytes(&f, 0, STORE_INLINE_MAX, "data"); break;
        case 13: p->bundle = field_u64(&f, "bundle"); break;
        default: field_unknown(&f);
        }
    }
    if (p->key.kind == 0)
        cur_fail(c, "key");
    if (p->bundle && p->key.kind != MC_KEY_NAMED)
        cur_fail(c, "bundle");
}

static void put_reply_put(const struct store_msg *m, struct buf *b)
{
    const struct store_put_reply *r = &m->put_reply;

    put_field_u8(b, 1, (uint8_t)(r->existed | r->unindexed << 1));
    put_field_u64(b, 2, r->version);
    put_field_u64(b, 3, r->part);
    if (r->has_loc) {
        size_t mark = put_field_begin(b, 4);

        store_loc_put(b, &r->loc);
        put_field_end(b, mark);
    }
}

static void put_reply_get(struct cur *c, struct store_msg *m)
{
    struct store_put_reply *r = &m->put_reply;
    struct slice loc;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1:
            r->existed = field_u8(&f, "flags") & 1;
            r->unindexed = f.body.len == 1 && (f.body.ptr[0] & 2);
            break;
        case 2: r->version = field_u64(&f, "version"); break;
        case 3: r->part = field_u64(&f, "part"); break;
        case 4:
            loc = field_bytes(&f, STORE_LOC_SIZE, STORE_LOC_SIZE, "location");
            r->has_loc = loc.len == STORE_LOC_SIZE;
            if (r->has_loc)
                r->loc = store_loc_at(loc, 0);
            break;
        default: field_unknown(&f);
        }
    }
}

static void part_put(const struct store_msg *m, struct buf *b)
{
    put_field_u64(b, 1, m->part.part);
    put_field_u64(b, 2, m->part.offset);
    proto_slice_put(b, 3, m->part.spans);
    proto_slice_put(b, 4, m->part.data);
}

static void part_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->part.part = field_u64(&f, "part"); break;
        case 2: m->part.offset = field_u64(&f, "offset"); break;
        case 3: m->part.spans = proto_list_get(&f, STORE_SPAN_SIZE, STORE_SPANS_MAX, "spans"); break;
        case 4: m->part.data = field_bytes(&f, 0, STORE_INLINE_MAX, "data"); break;
        default: field_unknown(&f);
        }
    }
}

static void pin_put(const struct store_msg *m, struct buf *b)
{
    put_field_u64(b, 1, m->pin.token);
    put_field_u32(b, 2, m->pin.pin_ms);
    proto_slice_put(b, 3, m->pin.generations);
}

static void pin_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->pin.token = field_u64(&f, "token"); break;
        case 2: m->pin.pin_ms = field_u32(&f, "pin time"); break;
        case 3: m->pin.generations = proto_list_get(&f, 8, STORE_KEYS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void touch_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->touch);
}

static void touch_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->touch = proto_list_get(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void drop_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->drop.generations);
    put_field_u8(b, 2, m->drop.replaced);
}

static void drop_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->drop.generations = proto_list_get(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        case 2: m->drop.replaced = field_u8(&f, "replaced") != 0; break;
        default: field_unknown(&f);
        }
    }
}

static void promise_put(const struct store_msg *m, struct buf *b)
{
    put_field_u32(b, 1, m->promise.ms);
    proto_slice_put(b, 2, m->promise.generations);
}

static void promise_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->promise.ms = field_u32(&f, "promise time"); break;
        case 2: m->promise.generations = proto_list_get(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void bundle_put(const struct store_msg *m, struct buf *b)
{
    put_field_u64(b, 1, m->bundle.number);
    proto_slice_put(b, 2, m->bundle.generations);
}

static void bundle_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->bundle.number = field_u64(&f, "number"); break;
        case 2: m->bundle.generations = proto_list_get(&f, 8, STORE_BUNDLE_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

const struct proto_row proto_node_rows[] = {
    {MSG_NODE_INFO, info_put, NULL, info_get, NULL},
    {MSG_NODE_PUT, put_put, put_reply_put, put_get, put_reply_get},
    {MSG_PART_BEGIN, put_put, put_reply_put, put_get, put_reply_get},
    {MSG_PART_WRITE, part_put, NULL, part_get, NULL},
    {MSG_PART_COMMIT, part_put, put_reply_put, part_get, put_reply_get},
    {MSG_PART_ABORT, part_put, NULL, part_get, NULL},
    {MSG_NODE_PIN, pin_put, NULL, pin_get, NULL},
    {MSG_NODE_UNPIN, pin_put, NULL, pin_get, NULL},
    {MSG_NODE_TOUCH, touch_put, NULL, touch_get, NULL},
    {MSG_NODE_DROP, drop_put, drop_put, drop_get, drop_get},
    {MSG_NODE_PROMISE, promise_put, NULL, promise_get, NULL},
    {MSG_NODE_BUNDLE, bundle_put, proto_verdicts_put, bundle_get, proto_verdicts_get},
    {0},
};
