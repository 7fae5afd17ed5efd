/* rows.h - plain fields of a message as a table: id and place in the struct; and arrays of u32, by hand.
 *
 * The same row encodes and decodes a field, so the two cannot drift apart. Zero, false and empty are not sent: a field
 * that is missing decodes to what the struct held before, which is zero unless the message says otherwise.
 * Threads: any. */
#ifndef WORKER_ROWS_H
#define WORKER_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/slice.h"
#include "mooncake/status.h"

enum row_type { ROW_U8, ROW_U16, ROW_U32, ROW_U64, ROW_BOOL, ROW_F32, ROW_F64, ROW_TEXT, ROW_BYTES, ROW_NESTED };

struct row {
    uint16_t id;
    uint8_t type;    /* enum row_type */
    uint32_t offset; /* in the struct */
    uint32_t size;   /* of the member */
    const char *name;
    const struct row *nested; /* ROW_NESTED: its rows */
};

/* The type of a row is that of the member, so a table says only what the struct does not: the id. */
#define ROW(id, strct, member)          ROW_(id, ROW_TYPE(((struct strct *)0)->member), strct, member, NULL)
#define ROW_OF(id, strct, member, rows) ROW_(id, ROW_NESTED, strct, member, rows)
#define ROW_(id, type, strct, member, nested)                                                                          \
    {                                                                                                                  \
        id, type, offsetof(struct strct, member), sizeof(((struct strct *)0)->member), #member, nested                 \
    }
/* clang-format off */
#define ROW_TYPE(member)                                                                                               \
    _Generic((member),                                                                                                 \
        uint8_t: ROW_U8, uint16_t: ROW_U16, uint32_t: ROW_U32, uint64_t: ROW_U64, bool: ROW_BOOL,                      \
        float: ROW_F32, double: ROW_F64, char *: ROW_TEXT, uint8_t *: ROW_BYTES)
/* clang-format on */
#define ROW_LAST                                                                                                       \
    {                                                                                                                  \
        0                                                                                                              \
    }

void rows_encode(const struct row *rows, const void *msg, struct buf *out);

/* Decode all fields that are left in `cur`; failures stick there. */
void rows_decode(const struct row *rows, void *msg, struct cur *cur);

/* Decode `field` if there is a row for it. */
bool rows_take(const struct row *rows, void *msg, struct field *field);

/* A message of plain fields only: zeroed, then decoded. *bad (may be NULL) names the field of a failure. */
enum mc_status rows_decode_all(const struct row *rows, void *msg, size_t size, struct slice body, const char **bad);

/* How a decode ended: the cursor's status, and *bad (may be NULL) the field that it names. */
enum mc_status rows_end(const struct cur *cur, const char **bad);

/* ---- arrays ---- */

void u32s_put(struct buf *out, uint16_t id, const uint32_t *array, uint32_t count);

/* A field of at most `max` u32s as an array on the heap. *array must be NULL or an array already: a field that comes twice
 * replaces the first. MC_EPROTO sticks in the field's cursor as well. */
enum mc_status u32s_take(struct field *field, uint32_t max, uint32_t **array, uint32_t *count, const char *name);

#endif
