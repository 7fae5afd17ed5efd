/* proto_master.c - messages 0x03xx: to or of the master. One pair of functions per body, in the order of docs/wire-store.md. */
#include "store/proto_impl.h"

/* ---- fields ---- */

static struct slice field_keys(struct field *f, uint32_t *count, const char *name)
{
    struct slice s = field_bytes(f, 0, FRAME_BODY_MAX, name);
    struct cur c = cur_of_slice(s);

    for (*count = 0; store_key_check_next(&c); ++*count)
        if (*count == STORE_KEYS_MAX)
            cur_fail(&c, name);
    field_join(f, &c);
    return s;
}

static struct slice field_entries(struct field *f, const char *name)
{
    struct slice s = field_bytes(f, 0, FRAME_BODY_MAX, name);
    struct cur c = cur_of_slice(s);

    for (uint32_t n = 0; store_entry_check_next(&c); n++)
        if (n == STORE_RECORDS_MAX)
            cur_fail(&c, name);
    field_join(f, &c);
    return s;
}

static void put_member(struct buf *body, uint16_t id, const struct store_member *member)
{
    size_t mark = put_field_begin(body, id);

    store_member_put(body, member);
    put_field_end(body, mark);
}

static void field_member(struct field *f, struct store_member *member, const char *name)
{
    struct cur c = field_cur(f);

    if (!store_member_next(&c, member))
        cur_fail(&c, name);
    cur_done(&c, name);
    field_join(f, &c);
}

/* ---- bodies ---- */

static void register_put(const struct store_msg *m, struct buf *b)
{
    put_member(b, 1, &m->reg.self);
    put_field_u64(b, 2, m->reg.term_max);
}

static void register_get(struct cur *c, struct store_msg *m)
{
    bool named = false;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: field_member(&f, &m->reg.self, "member"), named = true; break;
        case 2: m->reg.term_max = field_u64(&f, "term"); break;
        default: field_unknown(&f);
        }
    }
    if (!named)
        cur_fail(c, "member");
}

static void welcome_put(const struct store_msg *m, struct buf *b)
{
    put_field_u64(b, 1, m->welcome.term);
    put_field_u64(b, 2, m->welcome.instance);
    put_field_u32(b, 3, m->welcome.forget_ms);
}

static void welcome_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->welcome.term = field_u64(&f, "term"); break;
        case 2: m->welcome.instance = field_u64(&f, "instance"); break;
        case 3: m->welcome.forget_ms = field_u32(&f, "forget time"); break;
        default: field_unknown(&f);
        }
    }
}

static void beat_put(const struct store_msg *m, struct buf *b)
{
    const struct store_beat *t = &m->beat;
    size_t mark;

    put_field_bytes(b, 1, t->uuid, 16);
    put_field_u32(b, 2, t->epoch);
    put_field_u8(b, 3, t->draining);
    put_field_u64(b, 4, t->capacity);
    put_field_u64(b, 5, t->used);
    put_field_u64(b, 6, t->objects);
    put_field_u64(b, 7, t->puts);
    put_field_u64(b, 8, t->evictions);
    put_field_u64(b, 9, t->hits);
    put_field_u64(b, 10, t->pinned);
    put_field_u64(b, 11, t->unindexed);
    mark = put_field_begin(b, 12);
    for (int i = 0; i < LEDGER_ROWS; i++) {
        put_u64(b, t->ledger.row[i].objects);
        put_u64(b, t->ledger.row[i].bytes);
    }
    put_field_end(b, mark);
}

static void beat_get(struct cur *c, struct store_msg *m)
{
    struct store_beat *t = &m->beat;
    struct slice s;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: field_copy(&f, t->uuid, 16, "uuid"); break;
        case 2: t->epoch = field_u32(&f, "epoch"); break;
        case 3: t->draining = field_u8(&f, "draining") != 0; break;
        case 4: t->capacity = field_u64(&f, "capacity"); break;
        case 5: t->used = field_u64(&f, "used"); break;
        case 6: t->objects = field_u64(&f, "objects"); break;
        case 7: t->puts = field_u64(&f, "puts"); break;
        case 8: t->evictions = field_u64(&f, "evictions"); break;
        case 9: t->hits = field_u64(&f, "hits"); break;
        case 10: t->pinned = field_u64(&f, "pinned"); break;
        case 11: t->unindexed = field_u64(&f, "unindexed"); break;
        case 12: /* rows may be appended later: those not known here are left out, those missing are zero */
            s = proto_list_get(&f, 16, 64, "ledger");
            for (size_t i = 0; i < s.len / 16 && i < LEDGER_ROWS; i++) {
                t->ledger.row[i].objects = le64_get(s.ptr + 16 * i);
                t->ledger.row[i].bytes = le64_get(s.ptr + 16 * i + 8);
            }
            break;
        default: field_unknown(&f);
        }
    }
}

static void authority_put(const struct store_msg *m, struct buf *b)
{
    put_field_u32(b, 1, m->authority_ms);
}

static void authority_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->authority_ms = field_u32(&f, "authority"); break;
        default: field_unknown(&f);
        }
    }
}

static void commit_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->commit.entries);
    put_field_u8(b, 2, m->commit.last);
    if (m->commit.whole)
        put_field_u8(b, 3, 1);
}

static void commit_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->commit.entries = field_entries(&f, "entries"); break;
        case 2: m->commit.last = field_u8(&f, "last") != 0; break;
        case 3: m->commit.whole = field_u8(&f, "whole") != 0; break;
        default: field_unknown(&f);
        }
    }
}

void proto_verdicts_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->verdicts);
}

void proto_verdicts_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->verdicts = proto_list_get(&f, STORE_VERDICT_SIZE, STORE_RECORDS_MAX, "verdicts"); break;
        default: field_unknown(&f);
        }
    }
}

static void gone_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->gone.generations);
}

static void gone_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->gone.generations = proto_list_get(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void lookup_put(const struct store_msg *m, struct buf *b)
{
    put_field_u32(b, 1, m->lookup.ns);
    proto_slice_put(b, 2, m->lookup.keys);
    put_field_u32(b, 3, m->lookup.promise_ms);
}

static void lookup_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->lookup.ns = field_u32(&f, "namespace"); break;
        case 2: m->lookup.keys = field_keys(&f, &m->lookup.count, "keys"); break;
        case 3: m->lookup.promise_ms = field_u32(&f, "promise time"); break;
        default: field_unknown(&f);
        }
    }
}

static void prefix_put(const struct store_msg *m, struct buf *b)
{
    const struct store_prefix *p = &m->prefix;

    put_field_u32(b, 1, p->ns);
    put_field_u16(b, 2, p->group);
    put_field_u16(b, 3, p->shard);
    put_field_u16(b, 4, p->shards);
    put_field_u32(b, 5, p->promise_ms);
    put_field_u8(b, 6, p->no_locations);
    proto_slice_put(b, 7, p->ids);
}

static void prefix_get(struct cur *c, struct store_msg *m)
{
    struct store_prefix *p = &m->prefix;

    p->shards = 1;
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: p->ns = field_u32(&f, "namespace"); break;
        case 2: p->group = field_u16(&f, "group"); break;
        case 3: p->shard = field_u16(&f, "shard"); break;
        case 4: p->shards = field_u16(&f, "shards"); break;
        case 5: p->promise_ms = field_u32(&f, "promise time"); break;
        case 6: p->no_locations = field_u8(&f, "no locations") != 0; break;
        case 7: p->ids = proto_list_get(&f, 16, STORE_KEYS_MAX, "ids"); break;
        default: field_unknown(&f);
        }
    }
    if (p->shards == 0 || p->shard >= p->shards)
        cur_fail(c, "shard");
}

static void found_put(const struct store_msg *m, struct buf *b)
{
    const struct store_found *r = &m->found;

    put_field_u32(b, 1, r->blocks);
    put_field_u64(b, 2, r->bytes);
    put_field_u8(b, 3, r->rebuilding);
    proto_slice_put(b, 4, r->rows);
    proto_slice_put(b, 5, r->locs);
    proto_slice_put(b, 6, r->misses);
}

static void found_get(struct cur *c, struct store_msg *m)
{
    struct store_found *r = &m->found;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: r->blocks = field_u32(&f, "blocks"); break;
        case 2: r->bytes = field_u64(&f, "bytes"); break;
        case 3: r->rebuilding = field_u8(&f, "rebuilding") != 0; break;
        case 4: r->rows = proto_list_get(&f, STORE_ROW_SIZE, STORE_NODES_MAX, "nodes"); break;
        case 5: r->locs = proto_list_get(&f, STORE_LOC_SIZE, FRAME_BODY_MAX / STORE_LOC_SIZE, "locations"); break;
        case 6: r->misses = field_bytes(&f, 0, STORE_KEYS_MAX, "misses"); break;
        default: field_unknown(&f);
        }
    }
    for (uint32_t i = 0; i < store_loc_count(r->locs); i++) {
        struct store_loc loc = store_loc_at(r->locs, i);

        if (loc.node >= store_row_count(r->rows) || loc.key >= STORE_KEYS_MAX || loc.length > MC_OBJECT_MAX) {
            cur_fail(c, "locations");
            break;
        }
    }
}

static void remove_put(const struct store_msg *m, struct buf *b)
{
    proto_key_put(b, 1, &m->remove.key);
    put_field_u8(b, 2, m->remove.force);
    proto_slice_put(b, 3, m->remove.node);
}

static void remove_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: proto_key_get(&f, &m->remove.key, "key"); break;
        case 2: m->remove.force = field_u8(&f, "force") != 0; break;
        case 3: m->remove.node = field_bytes(&f, 0, MC_NAME_MAX, "node"); break;
        default: field_unknown(&f);
        }
    }
    if (m->remove.key.kind == 0)
        cur_fail(c, "key");
}

static void members_put(const struct store_msg *m, struct buf *b)
{
    put_field_u64(b, 1, m->members.term);
    put_field_u8(b, 2, m->members.full);
    proto_slice_put(b, 3, m->members.list);
    proto_slice_put(b, 4, m->members.forgotten);
}

static void members_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->members.term = field_u64(&f, "term"); break;
        case 2: m->members.full = field_u8(&f, "full") != 0; break;
        case 3: {
            struct store_member member;
            struct cur inner = field_cur(&f);

            m->members.list = f.body;
            for (uint32_t n = 0; store_member_next(&inner, &member); n++)
                if (n == STORE_NODES_MAX)
                    cur_fail(&inner, "members");
            field_join(&f, &inner);
            break;
        }
        case 4: m->members.forgotten = proto_list_get(&f, 16, STORE_NODES_MAX, "forgotten"); break;
        default: field_unknown(&f);
        }
    }
}

static void model_put(const struct store_msg *m, struct buf *b)
{
    proto_slice_put(b, 1, m->model.name);
    proto_slice_put(b, 2, m->model.record);
}

static void model_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->model.name = field_bytes(&f, 1, 256, "model"); break;
        case 2: m->model.record = field_bytes(&f, 0, 4096, "record"); break;
        default: field_unknown(&f);
        }
    }
}

static void list_put(const struct store_msg *m, struct buf *b)
{
    put_field_u32(b, 1, m->list.ns);
    proto_slice_put(b, 2, m->list.prefix);
    put_field_u64(b, 3, m->list.cursor);
    put_field_u32(b, 4, m->list.max);
    proto_slice_put(b, 5, m->list.entries);
    proto_slice_put(b, 6, m->list.rows);
}

static void list_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->list.ns = field_u32(&f, "namespace"); break;
        case 2: m->list.prefix = field_bytes(&f, 0, MC_NAME_MAX, "prefix"); break;
        case 3: m->list.cursor = field_u64(&f, "cursor"); break;
        case 4: m->list.max = field_u32(&f, "max"); break;
        case 5: m->list.entries = field_entries(&f, "entries"); break;
        case 6: m->list.rows = proto_list_get(&f, STORE_ROW_SIZE, STORE_NODES_MAX, "nodes"); break;
        default: field_unknown(&f);
        }
    }
}

const struct proto_row proto_master_rows[] = {
    {MSG_NODE_REGISTER, register_put, welcome_put, register_get, welcome_get},
    {MSG_NODE_BEAT, beat_put, authority_put, beat_get, authority_get},
    {MSG_NODE_COMMIT, commit_put, proto_verdicts_put, commit_get, proto_verdicts_get},
    {MSG_NODE_GONE, gone_put, NULL, gone_get, NULL},
    {MSG_NODE_INVENTORY, commit_put, NULL, commit_get, NULL},
    {MSG_MASTER_LOOKUP, lookup_put, found_put, lookup_get, found_get},
    {MSG_MASTER_PREFIX, prefix_put, found_put, prefix_get, found_get},
    {MSG_MASTER_REMOVE, remove_put, NULL, remove_get, NULL},
    {MSG_MASTER_SUBSCRIBE, NULL, members_put, NULL, members_get},
    {MSG_MASTER_MEMBERS, members_put, NULL, members_get, NULL},
    {MSG_MASTER_MODEL, model_put, model_put, model_get, model_get},
    {MSG_MASTER_LIST, list_put, list_put, list_get, list_get},
    {0},
};
