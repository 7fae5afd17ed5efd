/* rows.c - table rows to bytes and back. */
#include "worker/rows.h"

#include <math.h>
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
