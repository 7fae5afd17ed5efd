/* proto.c - messages of the Store to bytes and back. docs/wire.md, section Store, has the fields by number.
 *
 * One pair of functions per message, in the order of net/messages.h; a table at the end binds them to types. Records inside of
 * lists have a fixed layout (they are many); everything else is a numbered field, so it can grow. */
#include "store/proto.h"

#include <assert.h>

#include "base/clock.h"

/* ---- records ---- */

void store_loc_put(struct buf *list, const struct store_loc *loc)
{
    put_u32(list, loc->key);
    put_u16(list, loc->node);
    put_u8(list, loc->tier);
    put_u8(list, loc->flags);
    put_u32(list, loc->segment);
    put_u32(list, loc->head);
    put_u64(list, loc->offset);
    put_u64(list, loc->length);
    put_u64(list, loc->generation);
    put_u64(list, loc->version);
}

struct store_loc store_loc_at(struct slice list, uint32_t index)
{
    const uint8_t *p = list.ptr + (size_t)index * STORE_LOC_SIZE;

    assert(index < store_loc_count(list));
    return (struct store_loc){
        .key = le32_get(p),
        .node = le16_get(p + 4),
        .tier = p[6],
        .flags = p[7],
        .segment = le32_get(p + 8),
        .head = le32_get(p + 12),
        .offset = le64_get(p + 16),
        .length = le64_get(p + 24),
        .generation = le64_get(p + 32),
        .version = le64_get(p + 40),
    };
}

void store_row_put(struct buf *list, const struct store_row *row)
{
    put_bytes(list, row->uuid, 16);
    put_u32(list, row->epoch);
    put_u32(list, row->state);
    put_u32(list, row->lead);
}

struct store_row store_row_at(struct slice list, uint32_t index)
{
    const uint8_t *p = list.ptr + (size_t)index * STORE_ROW_SIZE;
    struct store_row row = {.epoch = le32_get(p + 16), .state = le32_get(p + 20), .lead = le32_get(p + 24)};

    assert(index < store_row_count(list));
    memcpy(row.uuid, p, 16);
    return row;
}

void store_entry_put(struct buf *list, const struct store_entry *entry)
{
    put_u32(list, entry->key.ns);
    store_key_put(list, &entry->key);
    put_u64(list, entry->generation);
    put_u64(list, entry->version);
    put_u64(list, entry->offset);
    put_u64(list, entry->length);
    put_u32(list, entry->segment);
    put_u32(list, entry->head);
    put_u32(list, entry->flags);
}

bool store_entry_next(struct cur *list, struct store_entry *entry)
{
    if (cur_left(list) == 0 || cur_status(list) != MC_OK)
        return false;

    uint32_t ns = cur_u32(list, "entry namespace");

    store_key_get(list, &entry->key, "entry key");
    entry->key.ns = ns;
    entry->generation = cur_u64(list, "entry generation");
    entry->version = cur_u64(list, "entry version");
    entry->offset = cur_u64(list, "entry offset");
    entry->length = cur_u64(list, "entry length");
    entry->segment = cur_u32(list, "entry segment");
    entry->head = cur_u32(list, "entry head");
    entry->flags = cur_u32(list, "entry flags");
    if (entry->length > MC_OBJECT_MAX)
        cur_fail(list, "entry length");
    return cur_status(list) == MC_OK;
}

void store_verdict_put(struct buf *list, const struct store_verdict *verdict)
{
    put_u32(list, (uint32_t)verdict->status);
    put_u64(list, verdict->version);
}

struct store_verdict store_verdict_at(struct slice list, uint32_t index)
{
    const uint8_t *p = list.ptr + (size_t)index * STORE_VERDICT_SIZE;

    assert(index < store_verdict_count(list));
    return (struct store_verdict){(enum mc_status)(int32_t)le32_get(p), le64_get(p + 4)};
}

bool store_key_next(struct cur *list, uint32_t ns, struct store_key *key)
{
    if (cur_left(list) == 0 || cur_status(list) != MC_OK)
        return false;
    store_key_get(list, key, "key");
    key->ns = ns;
    return cur_status(list) == MC_OK;
}

static void text_put(struct buf *list, const char *text)
{
    put_str(list, slice_str(text));
}

static void text_get(struct cur *list, char *dst, size_t size, const char *field)
{
    struct slice s = cur_str(list, size - 1, field);

    if (s.len && memchr(s.ptr, 0, s.len)) {
        cur_fail(list, field);
        s.len = 0;
    }
    if (s.len)
        memcpy(dst, s.ptr, s.len);
    dst[s.len] = 0;
}

void store_member_put(struct buf *list, const struct store_member *member)
{
    put_bytes(list, member->uuid, 16);
    put_u32(list, member->epoch);
    put_u8(list, member->state);
    put_u8(list, member->ephemeral);
    text_put(list, member->name);
    text_put(list, member->address);
    text_put(list, member->host_id);
    text_put(list, member->zone);
    put_u64(list, member->capacity);
    put_u64(list, member->used);
    put_u64(list, member->objects);
    put_u64(list, member->puts);
    put_u64(list, member->evictions);
    put_u64(list, member->hits);
}

bool store_member_next(struct cur *list, struct store_member *member)
{
    if (cur_left(list) == 0 || cur_status(list) != MC_OK)
        return false;
    cur_copy(list, member->uuid, 16, "member uuid");
    member->epoch = cur_u32(list, "member epoch");
    member->state = cur_u8(list, "member state");
    member->ephemeral = cur_u8(list, "member ephemeral") != 0;
    text_get(list, member->name, sizeof(member->name), "member name");
    text_get(list, member->address, sizeof(member->address), "member address");
    text_get(list, member->host_id, sizeof(member->host_id), "member host id");
    text_get(list, member->zone, sizeof(member->zone), "member zone");
    member->capacity = cur_u64(list, "member capacity");
    member->used = cur_u64(list, "member used");
    member->objects = cur_u64(list, "member objects");
    member->puts = cur_u64(list, "member puts");
    member->evictions = cur_u64(list, "member evictions");
    member->hits = cur_u64(list, "member hits");
    if (member->state > NODE_DRAINING)
        cur_fail(list, "member state");
    return cur_status(list) == MC_OK;
}

void store_segment_put(struct buf *list, const struct store_segment *segment)
{
    put_u32(list, segment->id);
    put_u64(list, segment->size);
    put_bytes(list, segment->region, STORE_REGION_KEY);
}

struct store_segment store_segment_at(struct slice list, uint32_t index)
{
    const uint8_t *p = list.ptr + (size_t)index * STORE_SEGMENT_SIZE;
    struct store_segment segment = {.id = le32_get(p), .size = le64_get(p + 4)};

    assert(index < store_segment_count(list));
    memcpy(segment.region, p + 12, STORE_REGION_KEY);
    return segment;
}

void store_span_put(struct buf *list, const struct store_span *span)
{
    put_bytes(list, span->region, STORE_REGION_KEY);
    put_u64(list, span->offset);
    put_u64(list, span->length);
}

struct store_span store_span_at(struct slice list, uint32_t index)
{
    const uint8_t *p = list.ptr + (size_t)index * STORE_SPAN_SIZE;
    struct store_span span = {.offset = le64_get(p + STORE_REGION_KEY), .length = le64_get(p + STORE_REGION_KEY + 8)};

    assert(index < store_span_count(list));
    memcpy(span.region, p, STORE_REGION_KEY);
    return span;
}

static const char *const ledger_names[LEDGER_ROWS] = {
    [LEDGER_ACCEPTED] = "accepted",
    [LEDGER_PRESENT] = "present",
    [LEDGER_IN_FLIGHT] = "in_flight",
    [LEDGER_REMOVED] = "removed",
    [LEDGER_REPLACED] = "replaced",
    [LEDGER_EVICTED_SPACE] = "evicted_space",
    [LEDGER_EVICTED_WATERMARK] = "evicted_watermark",
    [LEDGER_ABORTED_WRITER] = "aborted_writer",
    [LEDGER_ABORTED_IDLE] = "aborted_idle",
    [LEDGER_ABORTED_LOST] = "aborted_lost_race",
    [LEDGER_ABORTED_MASTER] = "aborted_master",
    [LEDGER_ABORTED_DEADLINE] = "aborted_deadline",
    [LEDGER_ABORTED_CALLER] = "aborted_caller",
};

const char *store_ledger_name(enum store_ledger_row row)
{
    return row < LEDGER_ROWS ? ledger_names[row] : "unknown";
}

bool store_ledger_exact(const struct store_ledger *ledger)
{
    struct store_count sum = {0};

    for (int i = LEDGER_ACCEPTED + 1; i < LEDGER_ROWS; i++) {
        sum.objects += ledger->row[i].objects;
        sum.bytes += ledger->row[i].bytes;
    }
    return sum.objects == ledger->row[LEDGER_ACCEPTED].objects && sum.bytes == ledger->row[LEDGER_ACCEPTED].bytes;
}

/* ---- fields that several messages share ---- */

static void put_slice(struct buf *body, uint16_t id, struct slice s)
{
    if (s.len)
        put_field_bytes(body, id, s.ptr, s.len);
}

/* A list of fixed-size records. */
static struct slice field_list(struct field *f, size_t size, size_t max, const char *name)
{
    struct slice s = field_bytes(f, 0, size * max, name);

    if (s.len % size != 0) {
        cur_fail(f->from, name);
        s.len = 0;
    }
    return s;
}

static struct slice field_keys(struct field *f, uint32_t *count, const char *name)
{
    struct slice s = field_bytes(f, 0, FRAME_BODY_MAX, name);
    struct cur c = cur_of_slice(s);
    struct store_key key;

    for (*count = 0; store_key_next(&c, 0, &key); ++*count)
        if (*count == STORE_KEYS_MAX)
            cur_fail(&c, name);
    field_join(f, &c);
    return s;
}

static struct slice field_entries(struct field *f, const char *name)
{
    struct slice s = field_bytes(f, 0, FRAME_BODY_MAX, name);
    struct cur c = cur_of_slice(s);
    struct store_entry entry;

    for (uint32_t n = 0; store_entry_next(&c, &entry); n++)
        if (n == STORE_RECORDS_MAX)
            cur_fail(&c, name);
    field_join(f, &c);
    return s;
}

static void put_key(struct buf *body, uint16_t id, const struct store_key *key)
{
    size_t mark = put_field_begin(body, id);

    put_u32(body, key->ns);
    store_key_put(body, key);
    put_field_end(body, mark);
}

static void field_key(struct field *f, struct store_key *key, const char *name)
{
    struct cur c = field_cur(f);
    uint32_t ns = cur_u32(&c, name);

    store_key_get(&c, key, name);
    key->ns = ns;
    cur_done(&c, name);
    field_join(f, &c);
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

/* ---- messages of the node ---- */

static void info_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->segments);
}

static void info_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->segments = field_list(&f, STORE_SEGMENT_SIZE, STORE_SEGMENTS_MAX, "segments"); break;
        default: field_unknown(&f);
        }
    }
}

static void put_put(const struct store_msg *m, struct buf *b)
{
    const struct store_put *p = &m->put;

    put_key(b, 1, &p->key);
    put_field_u64(b, 2, p->length);
    put_field_u32(b, 3, p->flags);
    put_field_u64(b, 4, p->version);
    put_field_bytes(b, 5, p->meta.parent, 16);
    put_field_u32(b, 6, p->meta.depth);
    put_field_u32(b, 7, p->meta.tokens);
    put_field_u64(b, 8, p->meta.geometry);
    put_field_u32(b, 9, p->meta.flags);
    put_slice(b, 10, p->meta.planes);
    put_slice(b, 11, p->spans);
    put_slice(b, 12, p->data);
}

static void put_get(struct cur *c, struct store_msg *m)
{
    struct store_put *p = &m->put;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: field_key(&f, &p->key, "key"); break;
        case 2: p->length = field_u64(&f, "length"); break;
        case 3: p->flags = field_u32(&f, "flags"); break;
        case 4: p->version = field_u64(&f, "version"); break;
        case 5: field_copy(&f, p->meta.parent, 16, "parent"); break;
        case 6: p->meta.depth = field_u32(&f, "depth"); break;
        case 7: p->meta.tokens = field_u32(&f, "tokens"); break;
        case 8: p->meta.geometry = field_u64(&f, "geometry"); break;
        case 9: p->meta.flags = field_u32(&f, "object flags"); break;
        case 10: p->meta.planes = field_list(&f, 8, 8192, "planes"); break;
        case 11: p->spans = field_list(&f, STORE_SPAN_SIZE, STORE_SPANS_MAX, "spans"); break;
        case 12: p->data = field_bytes(&f, 0, STORE_INLINE_MAX, "data"); break;
        default: field_unknown(&f);
        }
    }
    if (p->key.kind == 0)
        cur_fail(c, "key");
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
    put_slice(b, 3, m->part.spans);
    put_slice(b, 4, m->part.data);
}

static void part_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->part.part = field_u64(&f, "part"); break;
        case 2: m->part.offset = field_u64(&f, "offset"); break;
        case 3: m->part.spans = field_list(&f, STORE_SPAN_SIZE, STORE_SPANS_MAX, "spans"); break;
        case 4: m->part.data = field_bytes(&f, 0, STORE_INLINE_MAX, "data"); break;
        default: field_unknown(&f);
        }
    }
}

static void pin_put(const struct store_msg *m, struct buf *b)
{
    put_field_u64(b, 1, m->pin.token);
    put_field_u32(b, 2, m->pin.pin_ms);
    put_slice(b, 3, m->pin.generations);
}

static void pin_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->pin.token = field_u64(&f, "token"); break;
        case 2: m->pin.pin_ms = field_u32(&f, "pin time"); break;
        case 3: m->pin.generations = field_list(&f, 8, STORE_KEYS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void touch_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->touch);
}

static void touch_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->touch = field_list(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void drop_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->drop.generations);
    put_field_u8(b, 2, m->drop.replaced);
}

static void drop_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->drop.generations = field_list(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        case 2: m->drop.replaced = field_u8(&f, "replaced") != 0; break;
        default: field_unknown(&f);
        }
    }
}

static void promise_put(const struct store_msg *m, struct buf *b)
{
    put_field_u32(b, 1, m->promise.ms);
    put_slice(b, 2, m->promise.generations);
}

static void promise_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->promise.ms = field_u32(&f, "promise time"); break;
        case 2: m->promise.generations = field_list(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

/* ---- messages of the master ---- */

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
            s = field_list(&f, 16, 64, "ledger");
            for (size_t i = 0; i < s.len / 16 && i < LEDGER_ROWS; i++) {
                t->ledger.row[i].objects = le64_get(s.ptr + 16 * i);
                t->ledger.row[i].bytes = le64_get(s.ptr + 16 * i + 8);
            }
            break;
        default: field_unknown(&f);
        }
    }
}

static void commit_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->commit.entries);
    put_field_u8(b, 2, m->commit.last);
}

static void commit_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->commit.entries = field_entries(&f, "entries"); break;
        case 2: m->commit.last = field_u8(&f, "last") != 0; break;
        default: field_unknown(&f);
        }
    }
}

static void verdicts_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->verdicts);
}

static void verdicts_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->verdicts = field_list(&f, STORE_VERDICT_SIZE, STORE_RECORDS_MAX, "verdicts"); break;
        default: field_unknown(&f);
        }
    }
}

static void gone_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->gone.generations);
}

static void gone_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: m->gone.generations = field_list(&f, 8, STORE_RECORDS_MAX, "generations"); break;
        default: field_unknown(&f);
        }
    }
}

static void lookup_put(const struct store_msg *m, struct buf *b)
{
    put_field_u32(b, 1, m->lookup.ns);
    put_slice(b, 2, m->lookup.keys);
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
    put_slice(b, 7, p->ids);
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
        case 7: p->ids = field_list(&f, 16, STORE_KEYS_MAX, "ids"); break;
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
    put_slice(b, 4, r->rows);
    put_slice(b, 5, r->locs);
    put_slice(b, 6, r->misses);
}

static void found_get(struct cur *c, struct store_msg *m)
{
    struct store_found *r = &m->found;

    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: r->blocks = field_u32(&f, "blocks"); break;
        case 2: r->bytes = field_u64(&f, "bytes"); break;
        case 3: r->rebuilding = field_u8(&f, "rebuilding") != 0; break;
        case 4: r->rows = field_list(&f, STORE_ROW_SIZE, STORE_NODES_MAX, "nodes"); break;
        case 5: r->locs = field_list(&f, STORE_LOC_SIZE, FRAME_BODY_MAX / STORE_LOC_SIZE, "locations"); break;
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
    put_key(b, 1, &m->remove.key);
    put_field_u8(b, 2, m->remove.force);
}

static void remove_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);) {
        switch (f.id) {
        case 1: field_key(&f, &m->remove.key, "key"); break;
        case 2: m->remove.force = field_u8(&f, "force") != 0; break;
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
    put_slice(b, 3, m->members.list);
    put_slice(b, 4, m->members.forgotten);
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
        case 4: m->members.forgotten = field_list(&f, 16, STORE_NODES_MAX, "forgotten"); break;
        default: field_unknown(&f);
        }
    }
}

static void model_put(const struct store_msg *m, struct buf *b)
{
    put_slice(b, 1, m->model.name);
    put_slice(b, 2, m->model.record);
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
    put_slice(b, 2, m->list.prefix);
    put_field_u64(b, 3, m->list.cursor);
    put_field_u32(b, 4, m->list.max);
    put_slice(b, 5, m->list.entries);
    put_slice(b, 6, m->list.rows);
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
        case 6: m->list.rows = field_list(&f, STORE_ROW_SIZE, STORE_NODES_MAX, "nodes"); break;
        default: field_unknown(&f);
        }
    }
}

static void empty_put(const struct store_msg *m, struct buf *b)
{
}

static void empty_get(struct cur *c, struct store_msg *m)
{
    for (struct field f; field_next(c, &f);)
        field_unknown(&f);
}

/* ---- types ---- */

typedef void put_fn(const struct store_msg *m, struct buf *b);
typedef void get_fn(struct cur *c, struct store_msg *m);

static const struct type_row {
    uint16_t type;
    put_fn *put, *put_reply;
    get_fn *get, *get_reply;
} types[] = {
    {MSG_NODE_INFO, info_put, empty_put, info_get, empty_get},
    {MSG_NODE_PUT, put_put, put_reply_put, put_get, put_reply_get},
    {MSG_PART_BEGIN, put_put, put_reply_put, put_get, put_reply_get},
    {MSG_PART_WRITE, part_put, empty_put, part_get, empty_get},
    {MSG_PART_COMMIT, part_put, put_reply_put, part_get, put_reply_get},
    {MSG_PART_ABORT, part_put, empty_put, part_get, empty_get},
    {MSG_NODE_PIN, pin_put, empty_put, pin_get, empty_get},
    {MSG_NODE_UNPIN, pin_put, empty_put, pin_get, empty_get},
    {MSG_NODE_TOUCH, touch_put, empty_put, touch_get, empty_get},
    {MSG_NODE_DROP, drop_put, drop_put, drop_get, drop_get},
    {MSG_NODE_PROMISE, promise_put, empty_put, promise_get, empty_get},
    {MSG_NODE_REGISTER, register_put, welcome_put, register_get, welcome_get},
    {MSG_NODE_BEAT, beat_put, empty_put, beat_get, empty_get},
    {MSG_NODE_COMMIT, commit_put, verdicts_put, commit_get, verdicts_get},
    {MSG_NODE_GONE, gone_put, empty_put, gone_get, empty_get},
    {MSG_NODE_INVENTORY, commit_put, empty_put, commit_get, empty_get},
    {MSG_MASTER_LOOKUP, lookup_put, found_put, lookup_get, found_get},
    {MSG_MASTER_PREFIX, prefix_put, found_put, prefix_get, found_get},
    {MSG_MASTER_REMOVE, remove_put, empty_put, remove_get, empty_get},
    {MSG_MASTER_SUBSCRIBE, empty_put, members_put, empty_get, members_get},
    {MSG_MASTER_MEMBERS, members_put, empty_put, members_get, empty_get},
    {MSG_MASTER_MODEL, model_put, model_put, model_get, model_get},
    {MSG_MASTER_LIST, list_put, list_put, list_get, list_get},
};

static const struct type_row *type_find(uint16_t type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (types[i].type == type)
            return &types[i];
    return NULL;
}

/* A failed answer has no body, but a refused model brings the record that is there. */
static bool has_body(const struct store_msg *msg)
{
    return !msg->reply || msg->status == MC_OK || msg->type == MSG_MASTER_MODEL;
}

void store_msg_encode(const struct store_msg *msg, struct buf *body)
{
    const struct type_row *row = type_find(msg->type);

    assert(row && "a type of the Store");
    if (has_body(msg))
        (msg->reply ? row->put_reply : row->put)(msg, body);
}

enum mc_status store_msg_decode(const struct frame *frame, struct store_msg *msg, const char **bad)
{
    const struct type_row *row = type_find(frame->type);
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
        (msg->reply ? row->get_reply : row->get)(&c, msg);
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
