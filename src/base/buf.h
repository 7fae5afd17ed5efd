/* buf.h - a growable run of bytes with a limit and a sticky failure.
 *
 * Writers append without checking each step and look at buf_status() once at the end: after the first append that would
 * pass the limit (MC_ETOOBIG) or for which there is no memory (MC_ENOMEM) every further append does nothing.
 * The content is always followed by a NUL byte that is not counted, so buf_cstr() is cheap.
 * Threads: the owner's only. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/slice.h"
#include "mooncake/status.h"

struct buf {
    uint8_t *data;
    size_t len, cap;
    size_t limit;          /* largest len allowed */
    enum mc_status status; /* MC_OK until the first failure */
    bool fixed;            /* `data` is the caller's memory: never grown, never freed */
};

/* Empty buffer that will not grow beyond `limit` bytes (SIZE_MAX = no limit). Allocates nothing. */
void buf_init(struct buf *buf, size_t limit);

/* Buffer over memory of the caller, which stays borrowed until buf_fini(); limit is size - 1 (the NUL). size >= 1. */
void buf_init_fixed(struct buf *buf, void *memory, size_t size);

/* Frees the memory; the buffer may be init'ed again. Harmless on a zeroed struct. */
void buf_fini(struct buf *buf);

/* Forget content and failure, keep the memory. */
void buf_reset(struct buf *buf);

static inline void buf_append(struct buf *buf, const void *bytes, size_t len);
void buf_append_str(struct buf *buf, const char *text);
void buf_append_slice(struct buf *buf, struct slice bytes);
void buf_append_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *buf, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

/* Room for `len` more bytes: pointer to where they go (then buf_commit what was written), or NULL after setting the
 * sticky failure. */
void *buf_reserve(struct buf *buf, size_t len);
void buf_commit(struct buf *buf, size_t len);

/* Append `len` bytes of value zero and give their offset; offsets stay valid when the buffer grows. */
size_t buf_skip(struct buf *buf, size_t len);

/* Drop `len` bytes from the front. */
void buf_consume(struct buf *buf, size_t len);

/* Hand the memory to the caller (who frees it) and leave the buffer empty; NULL when nothing was ever appended. */
void *buf_steal(struct buf *buf, size_t *len);

/* buf_append() of what does not fit as the buffer is. */
void buf_append_more(struct buf *buf, const void *bytes, size_t len);

/* Messages are put together from fields of 1 to 8 bytes: with the copy in line, that is one store each. */
static inline void buf_append(struct buf *buf, const void *bytes, size_t len)
{
    if (len >= buf->cap - buf->len || len > buf->limit - buf->len || buf->status != MC_OK) {
        buf_append_more(buf, bytes, len);
        return;
    }
    if (len > 0)
        memcpy(buf->data + buf->len, bytes, len);
    buf->len += len;
    buf->data[buf->len] = 0;
}

static inline enum mc_status buf_status(const struct buf *buf)
{
    return buf->status;
}

static inline struct slice buf_slice(const struct buf *buf)
{
    return slice_of(buf->data, buf->len);
}

/* Content as a C string, lent until the next change; "" when empty. */
static inline const char *buf_cstr(const struct buf *buf)
{
    return buf->data ? (const char *)buf->data : "";
}

#endif
