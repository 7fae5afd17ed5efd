/* buf.c - growable bytes. Invariants: len < cap once anything was allocated (room for the NUL), len <= limit. */
#include "base/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define CAP_MIN 64

void buf_init(struct buf *buf, size_t limit)
{
    *buf = (struct buf){.limit = limit};
}

void buf_init_fixed(struct buf *buf, void *memory, size_t size)
{
    assert(size >= 1);
    *buf = (struct buf){.data = memory, .cap = size, .limit = size - 1, .fixed = true};
    buf->data[0] = 0;
}

void buf_fini(struct buf *buf)
{
    if (!buf->fixed)
        free(buf->data);
    *buf = (struct buf){0};
}

void buf_reset(struct buf *buf)
{
    buf->len = 0;
    buf->status = MC_OK;
    if (buf->data)
        buf->data[0] = 0;
}

static void fail(struct buf *buf, enum mc_status status)
{
    if (buf->status == MC_OK)
        buf->status = status;
}

static bool make_room(struct buf *buf, size_t len)
{
    size_t need, cap = buf->cap ? buf->cap : CAP_MIN;
    uint8_t *data;

    if (buf->status != MC_OK)
        return false;
    if (len > buf->limit - buf->len || len >= SIZE_MAX / 2 - buf->len) {
        fail(buf, MC_ETOOBIG);
        return false;
    }
    need = buf->len + len + 1;
    if (need <= buf->cap)
        return true;
    assert(!buf->fixed);
    while (cap < need)
        cap *= 2;
    data = realloc(buf->data, cap);
    if (!data) {
        fail(buf, MC_ENOMEM);
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

void *buf_reserve(struct buf *buf, size_t len)
{
    return make_room(buf, len) ? buf->data + buf->len : NULL;
}

void buf_commit(struct buf *buf, size_t len)
{
    assert(len == 0 || buf->len + len < buf->cap);
    if (len == 0)
        return;
    buf->len += len;
    buf->data[buf->len] = 0;
}

void buf_append_more(struct buf *buf, const void *bytes, size_t len)
{
    if (len == 0 || !make_room(buf, len))
        return;
    memcpy(buf->data + buf->len, bytes, len);
    buf_commit(buf, len);
}

void buf_append_str(struct buf *buf, const char *text)
{
    buf_append(buf, text, strlen(text));
}

void buf_append_slice(struct buf *buf, struct slice bytes)
{
    buf_append(buf, bytes.ptr, bytes.len);
}

void buf_append_char(struct buf *buf, char c)
{
    buf_append(buf, &c, 1);
}

void buf_vprintf(struct buf *buf, const char *format, va_list args)
{
    char small[256];
    va_list again;
    void *room;
    int len;

    va_copy(again, args);
    len = vsnprintf(small, sizeof(small), format, args);
    if (len < 0)
        fail(buf, MC_EINVAL);
    else if ((size_t)len < sizeof(small))
        buf_append(buf, small, (size_t)len);
    else if ((room = buf_reserve(buf, (size_t)len)) != NULL) {
        vsnprintf(room, (size_t)len + 1, format, again);
        buf_commit(buf, (size_t)len);
    }
    va_end(again);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    buf_vprintf(buf, format, args);
    va_end(args);
}

size_t buf_skip(struct buf *buf, size_t len)
{
    size_t at = buf->len;
    void *room = buf_reserve(buf, len);

    if (room) {
        memset(room, 0, len);
        buf_commit(buf, len);
    }
    return at;
}

void buf_consume(struct buf *buf, size_t len)
{
    assert(len <= buf->len);
    if (len == 0)
        return;
    memmove(buf->data, buf->data + len, buf->len - len);
    buf->len -= len;
    buf->data[buf->len] = 0;
}

void *buf_steal(struct buf *buf, size_t *len)
{
    void *data = buf->data;
    size_t limit = buf->limit;

    assert(!buf->fixed);
    *len = buf->len;
    buf_init(buf, limit);
    return data;
}
