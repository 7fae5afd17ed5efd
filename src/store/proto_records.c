/* proto_records.c - records of lists in messages of the Store: a fixed layout, because they are many; and the ledger's rows. */
#include <assert.h>

#include "base/hash.h"
#include "store/proto.h"

void store_loc_put(struct buf *list, const struct store_loc *loc)
{
    uint8_t row[STORE_LOC_SIZE]; /* an answer may have hundreds: one append each */

    le32_put(row, loc->key);
    le16_put(row + 4, loc->node);
    row[6] = loc->tier;
    row[7] = loc->flags;
    le32_put(row + 8, loc->segment);
    le32_put(row + 12, loc->head);
    le64_put(row + 16, loc->offset);
    le64_put(row + 24, loc->length);
    le64_put(row + 32, loc->generation);
    le64_put(row + 40, loc->version);
    buf_append(list, row, sizeof(row));
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

static void entry_rest_get(struct cur *list, struct store_entry *entry)
{
    entry->generation = cur_u64(list, "entry generation");
    entry->version = cur_u64(list, "entry version");
    entry->offset = cur_u64(list, "entry offset");
    entry->length = cur_u64(list, "entry length");
    entry->segment = cur_u32(list, "entry segment");
    entry->head = cur_u32(list, "entry head");
    entry->flags = cur_u32(list, "entry flags");
    if (entry->length > MC_OBJECT_MAX)
        cur_fail(list, "entry length");
}

bool store_entry_next(struct cur *list, struct store_entry *entry)
{
    if (cur_left(list) == 0 || cur_status(list) != MC_OK)
        return false;

    uint32_t ns = cur_u32(list, "entry namespace");

    store_key_get(list, &entry->key, "entry key");
    entry->key.ns = ns;
    entry_rest_get(list, entry);
    return cur_status(list) == MC_OK;
}

bool store_entry_check_next(struct cur *list)
{
    struct store_entry entry;

    if (cur_left(list) == 0 || cur_status(list) != MC_OK)
        return false;
    cur_u32(list, "entry namespace");
    store_key_check(list, "entry key");
    entry_rest_get(list, &entry);
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

bool store_key_check_next(struct cur *list)
{
    if (cur_left(list) == 0 || cur_status(list) != MC_OK)
        return false;
    store_key_check(list, "key");
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

bool store_member_is(const struct store_member *member, struct slice meant)
{
    char hex[33];

    hex_encode(hex, member->uuid, 16);
    return slice_eq_str(meant, hex) || slice_eq_str(meant, member->name);
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
