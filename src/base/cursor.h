/* cursor.h - the one way bytes from outside are read, and the writer that matches it.
 *
 * Reading: a cursor over a range; each read names the field it is for. A read beyond the end gives zero (or an empty slice)
 * and sets a sticky failure with that name, so a parser reads like the layout of the message and checks once:
 *
 *     struct cur c = cur_of(data, len);
 *     hdr.magic = cur_u32(&c, "magic");
 *     hdr.type = cur_u16(&c, "type");
 *     if (cur_status(&c) != MC_OK) log_warn("peer %s: malformed field %s", who, c.bad);
 *
 * Writing: put_...() into a struct buf, whose failure is sticky too.
 *
 * Fields (docs/wire.md): a message body is a sequence of { u16 id, u32 length, bytes }. Unknown ids are skipped, unless the
 * top bit FIELD_MUST of the id says "whoever does not understand this must refuse" (MC_ENOSUP). Ids are compared without
 * that bit. A field that comes twice: the last one counts, unless the message says it is repeated.
 *
 *     struct field f;
 *     while (field_next(&c, &f)) {
 *         switch (f.id) {
 *         case GET_KEY: key = field_bytes(&f, 1, 1024, "key"); break;
 *         case GET_OFFSET: offset = field_u64(&f, "offset"); break;
 *         default: field_unknown(&f);
 *         }
 *     }
 *     return cur_status(&c);
 *
 * All numbers are little-endian. Threads: a cursor belongs to one thread. Nothing here allocates (except buf). */
#ifndef BASE_CURSOR_H
#define BASE_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"
#include "mooncake/status.h"

struct cur {
    const uint8_t *at, *end;
    const char *bad;       /* name of the first field that could not be read, else NULL */
    enum mc_status status; /* MC_OK, MC_EPROTO (malformed), or MC_ENOSUP (must-understand field not understood) */
};

static inline struct cur cur_of(const void *data, size_t len)
{
    const uint8_t *at = (const uint8_t *)data;

    return (struct cur){.at = at, .end = at ? at + len : at};
}

static inline struct cur cur_of_slice(struct slice s)
{
    return cur_of(s.ptr, s.len);
}

static inline size_t cur_left(const struct cur *cur)
{
    return (size_t)(cur->end - cur->at);
}

static inline enum mc_status cur_status(const struct cur *cur)
{
    return cur->status;
}

/* Say that `field` is bad for a reason of the caller's (value out of range): sticky MC_EPROTO; the first one stays. */
void cur_fail(struct cur *cur, const char *field);

uint8_t cur_u8(struct cur *cur, const char *field);
uint16_t cur_u16(struct cur *cur, const char *field);
uint32_t cur_u32(struct cur *cur, const char *field);
uint64_t cur_u64(struct cur *cur, const char *field);

/* `len` bytes, lent from the range under the cursor; {NULL, 0} on failure. */
struct slice cur_bytes(struct cur *cur, size_t len, const char *field);

/* Copy `len` bytes out; zeros on failure. */
void cur_copy(struct cur *cur, void *dst, size_t len, const char *field);

/* u32 length then bytes, at most len_max; lent. */
struct slice cur_str(struct cur *cur, size_t len_max, const char *field);

/* Nothing may be left: else the failure is set with this name. */
void cur_done(struct cur *cur, const char *field);

/* --- fields --- */

#define FIELD_MUST 0x8000u

struct field {
    uint16_t id;       /* without FIELD_MUST */
    bool must;         /* the sender wants a refusal if this is not understood */
    struct slice body; /* lent from the range under the cursor */
    struct cur *from;  /* failures of field_...() are set here */
};

/* The next field, or false at the end or after a failure (see cur_status). */
bool field_next(struct cur *cur, struct field *field);

/* To be called for ids one does not know: sticky MC_ENOSUP when the field must be understood, else nothing. */
void field_unknown(struct field *field);

/* Value of a field; a length that does not fit sets the failure and gives zero. */
uint8_t field_u8(struct field *field, const char *name);
uint16_t field_u16(struct field *field, const char *name);
uint32_t field_u32(struct field *field, const char *name);
uint64_t field_u64(struct field *field, const char *name);

/* Exactly `len` bytes copied to dst; zeros on failure. */
void field_copy(struct field *field, void *dst, size_t len, const char *name);

/* Between min and max bytes, lent. */
struct slice field_bytes(struct field *field, size_t len_min, size_t len_max, const char *name);

/* Text of less than `size` bytes without NUL inside, copied with a NUL behind it; "" on failure. */
void field_text(struct field *field, char *dst, size_t size, const char *name);

/* A cursor over the field's bytes (for nested fields and arrays). Hand failures up with field_join() afterwards. */
struct cur field_cur(const struct field *field);
void field_join(struct field *field, const struct cur *inner);

/* --- writing --- */

void put_u8(struct buf *buf, uint8_t value);
void put_u16(struct buf *buf, uint16_t value);
void put_u32(struct buf *buf, uint32_t value);
void put_u64(struct buf *buf, uint64_t value);
void put_bytes(struct buf *buf, const void *bytes, size_t len);
void put_str(struct buf *buf, struct slice text); /* u32 length, bytes: what cur_str reads */

/* `id` may carry FIELD_MUST. */
void put_field_u8(struct buf *buf, uint16_t id, uint8_t value);
void put_field_u16(struct buf *buf, uint16_t id, uint16_t value);
void put_field_u32(struct buf *buf, uint16_t id, uint32_t value);
void put_field_u64(struct buf *buf, uint16_t id, uint64_t value);
void put_field_bytes(struct buf *buf, uint16_t id, const void *bytes, size_t len);
void put_field_text(struct buf *buf, uint16_t id, const char *text);

/* A field written piece by piece: begin gives a mark, end sets the length of what was put in between. */
size_t put_field_begin(struct buf *buf, uint16_t id);
void put_field_end(struct buf *buf, size_t mark);

/* --- plain little-endian access to memory that is known to be large enough --- */

static inline uint16_t le16_get(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;

    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t le32_get(const void *p)
{
    const uint8_t *b = (const uint8_t *)p;

    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t le64_get(const void *p)
{
    return le32_get(p) | (uint64_t)le32_get((const uint8_t *)p + 4) << 32;
}

static inline void le16_put(void *p, uint16_t v)
{
    uint8_t *b = (uint8_t *)p;

    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void le32_put(void *p, uint32_t v)
{
    le16_put(p, (uint16_t)v);
    le16_put((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

static inline void le64_put(void *p, uint64_t v)
{
    le32_put(p, (uint32_t)v);
    le32_put((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

#endif
