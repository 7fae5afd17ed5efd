/* wire.c - see wire.h. */
#include "compat/engine/wire.h"

#include <string.h>

#include "base/cursor.h"
#include "compat/engine/ce.h"

enum { ASK_LAYOUT = 1, ASK_KNOWN = 2 };
enum { ANSWER_LAYOUT = 1, ANSWER_VERSION = 2, ANSWER_FIRST = 3, ANSWER_COUNT = 4, ANSWER_SAME = 5 };
enum { NOTE_ID = 1, NOTE_NAME = 2, NOTE_MSG = 3 };

static enum mc_status verdict(const struct cur *cur, const char **bad)
{
    if (cur_status(cur) != MC_OK)
        *bad = cur->bad;
    return cur_status(cur);
}

/* A layout of areas that we do not know is "not supported": the other side is newer, not broken. */
static void layout_check(struct field *f)
{
    if (field_u16(f, "layout") != CE_LAYOUT) {
        f->must = true;
        field_unknown(f);
    }
}

void ce_wire_ask_encode(uint64_t known, struct buf *body)
{
    put_field_u16(body, ASK_LAYOUT | FIELD_MUST, CE_LAYOUT);
    put_field_u64(body, ASK_KNOWN, known);
}

enum mc_status ce_wire_ask_decode(struct slice body, uint64_t *known, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    *known = 0;
    while (field_next(&cur, &f)) {
        switch (f.id) {
        case ASK_LAYOUT: layout_check(&f); break;
        case ASK_KNOWN: *known = field_u64(&f, "known version"); break;
        default: field_unknown(&f);
        }
    }
    return verdict(&cur, bad);
}

void ce_wire_answer_encode(const struct ce_wire_answer *in, struct buf *body)
{
    put_field_u16(body, ANSWER_LAYOUT | FIELD_MUST, CE_LAYOUT);
    put_field_u64(body, ANSWER_VERSION, in->version);
    put_field_u64(body, ANSWER_FIRST, in->first);
    put_field_u32(body, ANSWER_COUNT, in->count);
    put_field_u8(body, ANSWER_SAME, in->same);
}

enum mc_status ce_wire_answer_decode(struct slice body, struct ce_wire_answer *out, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    memset(out, 0, sizeof(*out));
    while (field_next(&cur, &f)) {
        switch (f.id) {
        case ANSWER_LAYOUT: layout_check(&f); break;
        case ANSWER_VERSION: out->version = field_u64(&f, "version"); break;
        case ANSWER_FIRST: out->first = field_u64(&f, "first"); break;
        case ANSWER_COUNT: out->count = field_u32(&f, "count"); break;
        case ANSWER_SAME: out->same = field_u8(&f, "same") != 0; break;
        default: field_unknown(&f);
        }
    }
    if (out->version == 0)
        cur_fail(&cur, "version");
    if (out->count > CE_AREAS_MAX || (out->same && out->count))
        cur_fail(&cur, "count");
    return verdict(&cur, bad);
}

void ce_wire_area_put(const struct ce_area *in, uint8_t out[CE_AREA_SIZE])
{
    le64_put(out, in->addr);
    le64_put(out + 8, in->len);
    memcpy(out + 16, in->key.bytes, sizeof(in->key.bytes));
}

enum mc_status ce_wire_area_get(const uint8_t in[CE_AREA_SIZE], struct ce_area *out)
{
    out->addr = le64_get(in);
    out->len = le64_get(in + 8);
    memcpy(out->key.bytes, in + 16, sizeof(out->key.bytes));
    return out->len && out->addr <= UINT64_MAX - out->len ? MC_OK : MC_EPROTO;
}

void ce_wire_note_encode(const struct ce_wire_note *in, struct buf *body)
{
    put_field_u64(body, NOTE_ID, in->id);
    put_field_bytes(body, NOTE_NAME, in->name.ptr, in->name.len);
    put_field_bytes(body, NOTE_MSG, in->msg.ptr, in->msg.len);
}

enum mc_status ce_wire_note_decode(struct slice body, struct ce_wire_note *out, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    memset(out, 0, sizeof(*out));
    while (field_next(&cur, &f)) {
        switch (f.id) {
        case NOTE_ID: out->id = field_u64(&f, "id"); break;
        case NOTE_NAME: out->name = field_bytes(&f, 0, CE_NOTE_MAX, "name"); break;
        case NOTE_MSG: out->msg = field_bytes(&f, 0, CE_NOTE_MAX, "message"); break;
        default: field_unknown(&f);
        }
    }
    if (out->id == 0)
        cur_fail(&cur, "id");
    if (out->name.len + out->msg.len > CE_NOTE_MAX)
        cur_fail(&cur, "message");
    return verdict(&cur, bad);
}
