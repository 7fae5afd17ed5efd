/* rows.h - plain fields of a message as a table: id, type and place in the struct.
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

enum row_type { ROW_U8, ROW_U16, ROW_U32, ROW_U64, ROW_BOOL, ROW_F32, ROW_F64, ROW_TEXT, ROW_BYTES, ROW_NESTED };

struct row {
    uint16_t id;
    uint8_t type;    /* enum row_type */
    uint32_t offset; /* in the struct */
    uint32_t size;   /* of the member */
    const char *name;
    const struct row *nested; /* ROW_NESTED: its rows */
};

#define ROW(id, type, strct, member)                                                                                   \
    {                                                                                                                  \
        id, type, offsetof(struct strct, member), sizeof(((struct strct *)0)->member), #member, NULL                   \
    }
#define ROW_OF(id, strct, member, rows)                                                                                \
    {                                                                                                                  \
        id, ROW_NESTED, offsetof(struct strct, member), sizeof(((struct strct *)0)->member), #member, rows             \
    }
#define ROW_LAST                                                                                                       \
    {                                                                                                                  \
        0                                                                                                              \
    }

void rows_encode(const struct row *rows, const void *msg, struct buf *out);

/* Decode all fields that are left in `cur`; failures stick there. */
void rows_decode(const struct row *rows, void *msg, struct cur *cur);

/* Decode `field` if there is a row for it. */
bool rows_take(const struct row *rows, void *msg, struct field *field);

#endif
