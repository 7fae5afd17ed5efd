/* fingerprint.c - the record that says which computation made the bytes, and its hash.
 *
 * One table describes the record; encode, decode, compare and print walk it. The canonical form is the base's field form
 * { u16 id, u32 length, bytes } with ids strictly ascending and every field there, so there is exactly one byte string
 * per record: decode refuses any other, and a hash of the bytes is a hash of the meaning.
 *
 * A field that is added later gets a new id and changes every fingerprint: that is what it is for. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "kvcache/errtext.h"
#include "mooncake/kvcache.h"

enum field_type { FIELD_TEXT, FIELD_HASH, FIELD_U32, FIELD_F64 };

struct fp_field {
    uint16_t id;
    enum field_type type;
    const char *name;
    size_t offset;
    size_t size; /* of a text with its NUL */
};

#define ROW(id, type, member)                                                                                          \
    {                                                                                                                  \
        id, type, #member, offsetof(struct mc_fp_record, member), sizeof(((struct mc_fp_record *)0)->member)           \
    }

/* Canonical order: coarse to fine, so that the first difference named is the one a user can act on. */
static const struct fp_field fp_fields[] = {
    ROW(1, FIELD_TEXT, engine),
    ROW(2, FIELD_TEXT, engine_version),
    ROW(3, FIELD_TEXT, model_arch),
    ROW(4, FIELD_U32, layers),
    ROW(5, FIELD_U32, kv_heads),
    ROW(6, FIELD_U32, head_dim),
    ROW(7, FIELD_TEXT, k_type),
    ROW(8, FIELD_TEXT, v_type),
    ROW(9, FIELD_U32, block_tokens),
    ROW(10, FIELD_TEXT, rope_type),
    ROW(11, FIELD_F64, rope_base),
    ROW(12, FIELD_F64, rope_scale),
    ROW(13, FIELD_TEXT, adapter),
    ROW(14, FIELD_HASH, tokenizer_hash),
    ROW(15, FIELD_HASH, geometry_hash),
    ROW(16, FIELD_HASH, model_hash),
};

enum { FP_FIELDS = sizeof fp_fields / sizeof fp_fields[0] };

static const void *field_of(const struct mc_fp_record *rec, const struct fp_field *field)
{
    return (const char *)rec + field->offset;
}

static uint32_t u32_of(const struct mc_fp_record *rec, const struct fp_field *field)
{
    uint32_t value;

    memcpy(&value, field_of(rec, field), sizeof value);
    return value;
}

/* Bits of a double, with the two zeros made one. */
static uint64_t f64_bits(const struct mc_fp_record *rec, const struct fp_field *field)
{
    double value;
    uint64_t bits;

    memcpy(&value, field_of(rec, field), sizeof value);
    if (value == 0)
        value = 0;
    memcpy(&bits, &value, sizeof bits);
    return value == 0 ? 0 : bits;
}

/* What no record may hold, wherever it came from. Name of the field, or NULL. */
static const char *record_bad(const struct mc_fp_record *rec)
{
    for (size_t i = 0; i < FP_FIELDS; i++) {
        const struct fp_field *field = &fp_fields[i];

        if (field->type == FIELD_TEXT && !memchr(field_of(rec, field), 0, field->size))
            return field->name;
    }
    if (rec->block_tokens < MC_BLOCK_TOKENS_MIN || rec->block_tokens > MC_BLOCK_TOKENS_MAX ||
        (rec->block_tokens & (rec->block_tokens - 1)) != 0)
        return "block_tokens";
    if (!isfinite(rec->rope_base))
        return "rope_base";
    if (!isfinite(rec->rope_scale))
        return "rope_scale";
    return NULL;
}

enum mc_status mc_fp_record_encode(const struct mc_fp_record *rec, void *dst, size_t size, size_t *length)
{
    uint8_t memory[MC_FP_RECORD_SIZE_MAX + 1];
    struct buf buf;

    if (record_bad(rec))
        return MC_EINVAL;
    buf_init_fixed(&buf, memory, sizeof memory);
    for (size_t i = 0; i < FP_FIELDS; i++) {
        const struct fp_field *field = &fp_fields[i];

        switch (field->type) {
        case FIELD_TEXT: put_field_text(&buf, field->id, field_of(rec, field)); break;
        case FIELD_HASH: put_field_bytes(&buf, field->id, field_of(rec, field), field->size); break;
        case FIELD_U32: put_field_u32(&buf, field->id, u32_of(rec, field)); break;
        case FIELD_F64: put_field_u64(&buf, field->id, f64_bits(rec, field)); break;
        }
    }
    assert(buf_status(&buf) == MC_OK); /* MC_FP_RECORD_SIZE_MAX is the sum of all fields at their longest, and more */
    if (buf.len > size)
        return MC_ETOOBIG;
    memcpy(dst, buf.data, buf.len);
    *length = buf.len;
    return MC_OK;
}

static void decode_field(struct field *in, const struct fp_field *field, struct mc_fp_record *rec)
{
    char *dst = (char *)rec + field->offset;

    switch (field->type) {
    case FIELD_TEXT: field_text(in, dst, field->size, field->name); break;
    case FIELD_HASH: field_copy(in, dst, field->size, field->name); break;
    case FIELD_U32: {
        uint32_t value = field_u32(in, field->name);

        memcpy(dst, &value, sizeof value);
        break;
    }
    case FIELD_F64: {
        uint64_t bits = field_u64(in, field->name);

        if (bits == 1ull << 63)
            cur_fail(in->from, field->name); /* minus zero: not canonical */
        memcpy(dst, &bits, sizeof bits);
        break;
    }
    }
}

enum mc_status mc_fp_record_decode(const void *src, size_t length, struct mc_fp_record *rec, char *err, size_t err_size)
{
    struct cur cur = cur_of(src, length);
    struct mc_fp_record out;
    struct field in;
    size_t next = 0;

    memset(&out, 0, sizeof out);
    while (field_next(&cur, &in)) {
        if (next == FP_FIELDS) {
            errtext(err, err_size, "fingerprint record: field id %u is not known to this version", in.id);
            return MC_EPROTO;
        }
        if (in.id != fp_fields[next].id || in.must) {
            errtext(
                err, err_size, "fingerprint record: field %s: expected here, found id %u", fp_fields[next].name, in.id);
            return MC_EPROTO;
        }
        decode_field(&in, &fp_fields[next++], &out);
    }
    if (cur_status(&cur) != MC_OK) {
        errtext(err, err_size, "fingerprint record: field %s: malformed", cur.bad ? cur.bad : "header");
        return MC_EPROTO;
    }
    if (next < FP_FIELDS) {
        errtext(err, err_size, "fingerprint record: field %s: missing", fp_fields[next].name);
        return MC_EPROTO;
    }
    const char *bad = record_bad(&out);
    if (bad) {
        errtext(err, err_size, "fingerprint record: field %s: out of range", bad);
        return MC_EPROTO;
    }
    *rec = out;
    return MC_OK;
}

enum mc_status mc_fp_record_hash(const struct mc_fp_record *rec, struct mc_fingerprint *fp)
{
    static const char tag[] = "mc-fingerprint-1";
    uint8_t bytes[MC_FP_RECORD_SIZE_MAX];
    size_t length;
    enum mc_status st = mc_fp_record_encode(rec, bytes, sizeof bytes, &length);

    if (st != MC_OK)
        return st;
    const struct slice parts[] = {slice_of(tag, sizeof tag - 1), slice_of(bytes, length)};
    sha256_parts(parts, 2, fp->bytes);
    return MC_OK;
}

static bool field_same(const struct mc_fp_record *a, const struct mc_fp_record *b, const struct fp_field *field)
{
    switch (field->type) {
    case FIELD_TEXT: return strncmp(field_of(a, field), field_of(b, field), field->size) == 0;
    case FIELD_HASH: return memcmp(field_of(a, field), field_of(b, field), field->size) == 0;
    case FIELD_U32: return u32_of(a, field) == u32_of(b, field);
    case FIELD_F64: return f64_bits(a, field) == f64_bits(b, field);
    }
    return false;
}

const char *mc_fp_record_diff(const struct mc_fp_record *a, const struct mc_fp_record *b)
{
    for (size_t i = 0; i < FP_FIELDS; i++)
        if (!field_same(a, b, &fp_fields[i]))
            return fp_fields[i].name;
    return NULL;
}

const char *mc_fp_record_field(size_t index)
{
    return index < FP_FIELDS ? fp_fields[index].name : NULL;
}

enum mc_status mc_fp_record_text(const struct mc_fp_record *rec, const char *name, char *dst, size_t size)
{
    const struct fp_field *field = NULL;
    char hex[2 * 32 + 1];
    double real;

    if (size)
        dst[0] = 0;
    for (size_t i = 0; i < FP_FIELDS; i++)
        if (strcmp(fp_fields[i].name, name) == 0)
            field = &fp_fields[i];
    if (!field)
        return MC_ENOENT;
    switch (field->type) {
    case FIELD_TEXT: errtext(dst, size, "%.*s", (int)field->size, (const char *)field_of(rec, field)); break;
    case FIELD_U32: errtext(dst, size, "%u", u32_of(rec, field)); break;
    case FIELD_HASH:
        hex_encode(hex, field_of(rec, field), field->size);
        errtext(dst, size, "%s", hex);
        break;
    case FIELD_F64:
        memcpy(&real, field_of(rec, field), sizeof real);
        errtext(dst, size, "%.17g", real);
        break;
    }
    return MC_OK;
}
