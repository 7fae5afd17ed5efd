/* wire.c - see wire.h. */
#include "transfer/wire.h"

#include <string.h>

#include "base/cursor.h"

enum { SYNC_CLOCK = 1, SYNC_PATH = 2, SYNC_PLEASE = 3 };
enum { REQUEST_RANGES = 1, REQUEST_NOT_AFTER = 2, REQUEST_FENCE = 3 };
enum { FD_KIND = 1, FD_NUMBER = 2 };
enum { PROOF_NONCE = 1 };
enum { SEGMENT_NUMBER = 1 };

static enum mc_status verdict(const struct cur *cur, const char **bad)
{
    if (cur_status(cur) != MC_OK)
        *bad = cur->bad;
    return cur_status(cur);
}

void wire_sync_encode(const struct wire_sync *in, struct buf *body)
{
    put_field_u64(body, SYNC_CLOCK, in->clock_ns);
    if (in->unix_path[0])
        put_field_text(body, SYNC_PATH, in->unix_path);
    if (in->please)
        put_field_u8(body, SYNC_PLEASE, 1);
}

enum mc_status wire_sync_decode(struct slice body, struct wire_sync *out, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    memset(out, 0, sizeof(*out));
    while (field_next(&cur, &f)) {
        switch (f.id) {
        case SYNC_CLOCK: out->clock_ns = field_u64(&f, "clock"); break;
        case SYNC_PATH: field_text(&f, out->unix_path, sizeof(out->unix_path), "unix path"); break;
        case SYNC_PLEASE: out->please = field_u8(&f, "please") != 0; break;
        default: field_unknown(&f);
        }
    }
    if (out->clock_ns == 0 || out->clock_ns > WIRE_CLOCK_MAX)
        cur_fail(&cur, "clock");
    return verdict(&cur, bad);
}

void wire_request_encode(const struct wire_request *in, struct buf *body)
{
    size_t mark = put_field_begin(body, REQUEST_RANGES | FIELD_MUST);

    for (uint32_t i = 0; i < in->count; i++) {
        put_u64(body, in->ranges[i].region);
        put_u64(body, in->ranges[i].offset);
        put_u32(body, in->ranges[i].len);
    }
    put_field_end(body, mark);
    if (in->not_after) {
        put_field_u64(body, REQUEST_NOT_AFTER | FIELD_MUST, in->not_after);
        put_field_u64(body, REQUEST_FENCE | FIELD_MUST, in->fence);
    }
}

static void ranges_decode(struct field *f, struct wire_request *out)
{
    struct cur cur = field_cur(f);
    size_t count = cur_left(&cur) / WIRE_RANGE_SIZE;

    if (cur_left(&cur) % WIRE_RANGE_SIZE || count == 0 || count > WIRE_RANGES_MAX)
        cur_fail(&cur, "ranges");
    for (out->count = 0; cur_status(&cur) == MC_OK && out->count < count; out->count++) {
        struct wire_range *range = &out->ranges[out->count];

        range->region = cur_u64(&cur, "region");
        range->offset = cur_u64(&cur, "offset");
        range->len = cur_u32(&cur, "length");
        if (range->len == 0)
            cur_fail(&cur, "length");
        out->bytes += range->len;
    }
    if (out->bytes > WIRE_BYTES_MAX)
        cur_fail(&cur, "length");
    field_join(f, &cur);
}

enum mc_status wire_request_decode(struct slice body, struct wire_request *out, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    out->count = 0;
    out->bytes = out->not_after = out->fence = 0;
    while (field_next(&cur, &f)) {
        switch (f.id) {
        case REQUEST_RANGES:
            out->bytes = 0;
            ranges_decode(&f, out);
            break;
        case REQUEST_NOT_AFTER: out->not_after = field_u64(&f, "not after"); break;
        case REQUEST_FENCE: out->fence = field_u64(&f, "fence"); break;
        default: field_unknown(&f);
        }
    }
    if (out->count == 0)
        cur_fail(&cur, "ranges");
    if (out->not_after > WIRE_CLOCK_MAX)
        cur_fail(&cur, "not after");
    return verdict(&cur, bad);
}

void wire_fd_encode(enum wire_fd kind, uint32_t number, struct buf *body)
{
    put_field_u8(body, FD_KIND, (uint8_t)kind);
    put_field_u32(body, FD_NUMBER, number);
}

enum mc_status wire_fd_decode(struct slice body, enum wire_fd *kind, uint32_t *number, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    *kind = 0;
    *number = 0;
    while (field_next(&cur, &f)) {
        switch (f.id) {
        case FD_KIND: *kind = (enum wire_fd)field_u8(&f, "kind"); break;
        case FD_NUMBER: *number = field_u32(&f, "number"); break;
        default: field_unknown(&f);
        }
    }
    if (*kind != WIRE_FD_PAGE && *kind != WIRE_FD_SEGMENT)
        cur_fail(&cur, "kind");
    return verdict(&cur, bad);
}

void wire_proof_encode(const uint8_t nonce[WIRE_NONCE], struct buf *body)
{
    put_field_bytes(body, PROOF_NONCE, nonce, WIRE_NONCE);
}

enum mc_status wire_proof_decode(struct slice body, uint8_t nonce[WIRE_NONCE], const char **bad)
{
    struct cur cur = cur_of_slice(body);
    bool there = false;
    struct field f;

    while (field_next(&cur, &f)) {
        if (f.id == PROOF_NONCE) {
            field_copy(&f, nonce, WIRE_NONCE, "nonce");
            there = true;
        } else {
            field_unknown(&f);
        }
    }
    if (!there)
        cur_fail(&cur, "nonce");
    return verdict(&cur, bad);
}

void wire_segment_encode(uint32_t number, struct buf *body)
{
    put_field_u32(body, SEGMENT_NUMBER, number);
}

enum mc_status wire_segment_decode(struct slice body, uint32_t *number, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field f;

    *number = 0;
    while (field_next(&cur, &f)) {
        if (f.id == SEGMENT_NUMBER)
            *number = field_u32(&f, "number");
        else
            field_unknown(&f);
    }
    if (*number == 0)
        cur_fail(&cur, "number");
    return verdict(&cur, bad);
}
