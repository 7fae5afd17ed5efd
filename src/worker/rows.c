/* rows.c - table rows and arrays of u32 to bytes and back. */
#include "worker/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t bits_of(const struct row *row, const void *at)
{
    uint64_t bits64 = 0;
    uint32_t bits32 = 0;
    float f32;

    switch (row->type) {
    case ROW_U8: return *(const uint8_t *)at;
    case ROW_U16: return *(const uint16_t *)at;
    case ROW_U32: return *(const uint32_t *)at;
    case ROW_U64: return *(const uint64_t *)at;
    case ROW_BOOL: return *(const bool *)at;
    case ROW_F32:
        memcpy(&f32, at, sizeof(f32));
        memcpy(&bits32, at, sizeof(bits32));
        return isfinite(f32) ? bits32 : 0;
    case ROW_F64: memcpy(&bits64, at, sizeof(bits64)); return bits64;
    default: return 0;
    }
}

void rows_encode(const struct row *rows, const void *msg, struct buf *out)
{
    for (const struct row *row = rows; row->id; row++) {
        const char *at = (const char *)msg + row->offset;
        uint64_t bits = bits_of(row, at);
        size_t mark;

        switch (row->type) {
        case ROW_U8:
        case ROW_BOOL:
            if (bits)
                put_field_u8(out, row->id, (uint8_t)bits);
            break;
        case ROW_U16:
            if (bits)
                put_field_u16(out, row->id, (uint16_t)bits);
            break;
        case ROW_U32:
        case ROW_F32:
            if (bits)
                put_field_u32(out, row->id, (uint32_t)bits);
            break;
        case ROW_U64:
        case ROW_F64:
            if (bits)
                put_field_u64(out, row->id, bits);
            break;
        case ROW_TEXT:
            if (*at)
                put_field_text(out, row->id, at);
            break;
        case ROW_BYTES: put_field_bytes(out, row->id, at, row->size); break;
        case ROW_NESTED:
            mark = put_field_begin(out, row->id);
            rows_encode(row->nested, at, out);
            put_field_end(out, mark);
            break;
        }
    }
}

static void row_decode(const struct row *row, void *at, struct field *field)
{
    uint32_t bits32;
    uint64_t bits64;
    float f32;
    double f64;

    switch (row->type) {
    case ROW_U8: *(uint8_t *)at = field_u8(field, row->name); break;
    case ROW_U16: *(uint16_t *)at = field_u16(field, row->name); break;
    case ROW_U32: *(uint32_t *)at = field_u32(field, row->name); break;
    case ROW_U64: *(uint64_t *)at = field_u64(field, row->name); break;
    case ROW_BOOL: *(bool *)at = field_u8(field, row->name) != 0; break;
    case ROW_F32:
        bits32 = field_u32(field, row->name);
        memcpy(&f32, &bits32, sizeof(f32));
        if (!isfinite(f32))
            cur_fail(field->from, row->name);
        memcpy(at, &f32, sizeof(f32));
        break;
    case ROW_F64: /* times and rates only: never below zero */
        bits64 = field_u64(field, row->name);
        memcpy(&f64, &bits64, sizeof(f64));
        if (!isfinite(f64) || f64 < 0)
            cur_fail(field->from, row->name);
        memcpy(at, &f64, sizeof(f64));
        break;
    case ROW_TEXT: field_text(field, at, row->size, row->name); break;
    case ROW_BYTES: field_copy(field, at, row->size, row->name); break;
    case ROW_NESTED: {
        struct cur inner = field_cur(field);

        rows_decode(row->nested, at, &inner);
        field_join(field, &inner);
        break;
    }
    }
}

bool rows_take(const struct row *rows, void *msg, struct field *field)
{
    for (const struct row *row = rows; row->id; row++) {
        if (row->id == field->id) {
            row_decode(row, (char *)msg + row->offset, field);
            return true;
        }
    }
    return false;
}

void rows_decode(const struct row *rows, void *msg, struct cur *cur)
{
    struct field field;

    while (field_next(cur, &field)) {
        if (!rows_take(rows, msg, &field))
            field_unknown(&field);
    }
}

enum mc_status rows_end(const struct cur *cur, const char **bad)
{
    if (cur_status(cur) != MC_OK && bad)
        *bad = cur->bad ? cur->bad : "unknown field that must be understood";
    return cur_status(cur);
}

enum mc_status rows_decode_all(const struct row *rows, void *msg, size_t size, struct slice body, const char **bad)
{
    struct cur cur = cur_of_slice(body);

    memset(msg, 0, size);
    rows_decode(rows, msg, &cur);
    return rows_end(&cur, bad);
}

/* ---- arrays ---- */

void u32s_put(struct buf *out, uint16_t id, const uint32_t *array, uint32_t count)
{
    size_t mark = put_field_begin(out, id);

    for (uint32_t i = 0; i < count; i++)
        put_u32(out, array[i]);
    put_field_end(out, mark);
}

enum mc_status u32s_take(struct field *field, uint32_t max, uint32_t **array, uint32_t *count, const char *name)
{
    uint32_t *taken;
    size_t n = field->body.len / 4;

    if (field->body.len % 4 || n > max) {
        cur_fail(field->from, name);
        return MC_EPROTO;
    }
    taken = malloc(n ? n * 4 : 1);
    if (!taken)
        return MC_ENOMEM;
    for (size_t i = 0; i < n; i++)
        taken[i] = le32_get(field->body.ptr + 4 * i);
    free(*array);
    *array = taken;
    *count = (uint32_t)n;
    return MC_OK;
}
