/* cursor.c - bounds-checked reading and the matching writers. Every read goes through take(). */
#include "base/cursor.h"

static void fail_with(struct cur *cur, enum mc_status status, const char *field)
{
    if (cur->status != MC_OK)
        return;
    cur->status = status;
    cur->bad = field;
    cur->at = cur->end; /* nothing more can be read */
}

void cur_fail(struct cur *cur, const char *field)
{
    fail_with(cur, MC_EPROTO, field);
}

/* The next `len` bytes, or NULL. */
static const uint8_t *take(struct cur *cur, size_t len, const char *field)
{
    const uint8_t *at = cur->at;

    if (cur->status != MC_OK)
        return NULL;
    if (len > cur_left(cur)) {
        cur_fail(cur, field);
        return NULL;
    }
    cur->at += len;
    return at;
}

uint8_t cur_u8(struct cur *cur, const char *field)
{
    const uint8_t *p = take(cur, 1, field);

    return p ? *p : 0;
}

uint16_t cur_u16(struct cur *cur, const char *field)
{
    const uint8_t *p = take(cur, 2, field);

    return p ? le16_get(p) : 0;
}

uint32_t cur_u32(struct cur *cur, const char *field)
{
    const uint8_t *p = take(cur, 4, field);

    return p ? le32_get(p) : 0;
}

uint64_t cur_u64(struct cur *cur, const char *field)
{
    const uint8_t *p = take(cur, 8, field);

    return p ? le64_get(p) : 0;
}

struct slice cur_bytes(struct cur *cur, size_t len, const char *field)
{
    const uint8_t *p = len ? take(cur, len, field) : NULL;

    return slice_of(p, p ? len : 0);
}

void cur_copy(struct cur *cur, void *dst, size_t len, const char *field)
{
    const uint8_t *p = take(cur, len, field);

    if (p && len)
        memcpy(dst, p, len);
    else if (len)
        memset(dst, 0, len);
}

struct slice cur_str(struct cur *cur, size_t len_max, const char *field)
{
    uint32_t len = cur_u32(cur, field);

    if (len > len_max) {
        cur_fail(cur, field);
        len = 0;
    }
    return cur_bytes(cur, len, field);
}

void cur_done(struct cur *cur, const char *field)
{
    if (cur_left(cur) > 0)
        cur_fail(cur, field);
}

bool field_next(struct cur *cur, struct field *field)
{
    uint16_t id;
    uint32_t len;

    if (cur->status != MC_OK || cur_left(cur) == 0)
        return false;
    id = cur_u16(cur, "field id");
    len = cur_u32(cur, "field length");
    *field = (struct field){.id = id & (uint16_t)~FIELD_MUST, .must = (id & FIELD_MUST) != 0, .from = cur};
    field->body = cur_bytes(cur, len, "field length");
    return cur->status == MC_OK;
}

void field_unknown(struct field *field)
{
    if (field->must)
        fail_with(field->from, MC_ENOSUP, "unknown field that must be understood");
}

static const uint8_t *fixed(struct field *field, size_t len, const char *name)
{
    if (field->body.len == len)
        return field->body.ptr;
    cur_fail(field->from, name);
    return NULL;
}

uint8_t field_u8(struct field *field, const char *name)
{
    const uint8_t *p = fixed(field, 1, name);

    return p ? *p : 0;
}

uint16_t field_u16(struct field *field, const char *name)
{
    const uint8_t *p = fixed(field, 2, name);

    return p ? le16_get(p) : 0;
}

uint32_t field_u32(struct field *field, const char *name)
{
    const uint8_t *p = fixed(field, 4, name);

    return p ? le32_get(p) : 0;
}

uint64_t field_u64(struct field *field, const char *name)
{
    const uint8_t *p = fixed(field, 8, name);

    return p ? le64_get(p) : 0;
}

void field_copy(struct field *field, void *dst, size_t len, const char *name)
{
    const uint8_t *p = fixed(field, len, name);

    if (p)
        memcpy(dst, p, len);
    else
        memset(dst, 0, len);
}

struct slice field_bytes(struct field *field, size_t len_min, size_t len_max, const char *name)
{
    if (field->body.len >= len_min && field->body.len <= len_max)
        return field->body;
    cur_fail(field->from, name);
    return slice_of(NULL, 0);
}

void field_text(struct field *field, char *dst, size_t size, const char *name)
{
    struct slice text = field_bytes(field, 0, size - 1, name);

    if (text.len && memchr(text.ptr, 0, text.len)) {
        cur_fail(field->from, name);
        text.len = 0;
    }
    if (text.len)
        memcpy(dst, text.ptr, text.len);
    dst[text.len] = 0;
}

struct cur field_cur(const struct field *field)
{
    return cur_of_slice(field->body);
}

void field_join(struct field *field, const struct cur *inner)
{
    if (inner->status != MC_OK)
        fail_with(field->from, inner->status, inner->bad);
}

/* --- writing --- */

void put_u8(struct buf *buf, uint8_t value)
{
    buf_append(buf, &value, 1);
}

void put_u16(struct buf *buf, uint16_t value)
{
    uint8_t b[2];

    le16_put(b, value);
    buf_append(buf, b, sizeof(b));
}

void put_u32(struct buf *buf, uint32_t value)
{
    uint8_t b[4];

    le32_put(b, value);
    buf_append(buf, b, sizeof(b));
}

void put_u64(struct buf *buf, uint64_t value)
{
    uint8_t b[8];

    le64_put(b, value);
    buf_append(buf, b, sizeof(b));
}

void put_bytes(struct buf *buf, const void *bytes, size_t len)
{
    buf_append(buf, bytes, len);
}

void put_str(struct buf *buf, struct slice text)
{
    put_u32(buf, (uint32_t)text.len);
    buf_append_slice(buf, text);
}

static void put_field_head(struct buf *buf, uint16_t id, size_t len)
{
    put_u16(buf, id);
    put_u32(buf, (uint32_t)len);
}

void put_field_u8(struct buf *buf, uint16_t id, uint8_t value)
{
    put_field_head(buf, id, 1);
    put_u8(buf, value);
}

void put_field_u16(struct buf *buf, uint16_t id, uint16_t value)
{
    put_field_head(buf, id, 2);
    put_u16(buf, value);
}

void put_field_u32(struct buf *buf, uint16_t id, uint32_t value)
{
    put_field_head(buf, id, 4);
    put_u32(buf, value);
}

void put_field_u64(struct buf *buf, uint16_t id, uint64_t value)
{
    put_field_head(buf, id, 8);
    put_u64(buf, value);
}

void put_field_bytes(struct buf *buf, uint16_t id, const void *bytes, size_t len)
{
    put_field_head(buf, id, len);
    buf_append(buf, bytes, len);
}

void put_field_text(struct buf *buf, uint16_t id, const char *text)
{
    put_field_bytes(buf, id, text, strlen(text));
}

size_t put_field_begin(struct buf *buf, uint16_t id)
{
    put_field_head(buf, id, 0);
    return buf->len;
}

void put_field_end(struct buf *buf, size_t mark)
{
    if (buf->status == MC_OK)
        le32_put(buf->data + mark - 4, (uint32_t)(buf->len - mark));
}
