/* flow.c - see flow.h. */
#include "transfer/tcp/flow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "base/log.h"
#include "base/uncut.h"
#include "transfer/core.h"
#include "transfer/fault/fault.h"

enum mc_status flow_init(struct flow *flow, struct mc_te *te, uint32_t count)
{
    *flow = (struct flow){.te = te, .runs = malloc(count * sizeof(struct run))};
    return flow->runs ? MC_OK : MC_ENOMEM;
}

void flow_fini(struct flow *flow)
{
    free(flow->runs);
    free(flow->buffer);
    *flow = (struct flow){0};
}

void flow_seek(struct flow *flow, uint64_t off)
{
    assert(off < flow->bytes);
    if (off < flow->at_off) {
        flow->at = 0;
        flow->at_off = 0;
    }
    while (off >= flow->at_off + flow->runs[flow->at].len)
        flow->at_off += flow->runs[flow->at++].len;
}

static bool run_alive(const struct flow *flow, const struct run *run)
{
    return run->region == 0 || region_alive(flow->te, run->region);
}

/* ---- sending ---- */

static bool need_buffer(struct flow *flow)
{
    if (!flow->buffer)
        flow->buffer = malloc(flow->bytes < PIECE_MAX ? flow->bytes : PIECE_MAX);
    return flow->buffer != NULL;
}

/* Small ranges from `off` on, one behind the other. */
static enum mc_status gather(struct flow *flow, uint64_t off, size_t max, struct conn_piece *piece)
{
    size_t skip = (size_t)(off - flow->at_off), got = 0;
    uint32_t crc = 0;

    for (uint32_t i = flow->at; i < flow->count && got < max && flow->runs[i].len < FLOW_SMALL; i++) {
        const struct run *run = &flow->runs[i];
        size_t n = run->len - skip < max - got ? run->len - skip : max - got;

        if (!run_alive(flow, run))
            return MC_ENOENT;
        crc = crc32c_copy(crc, flow->buffer + got, run->ptr + skip, n);
        got += n;
        skip = 0;
    }
    *piece = (struct conn_piece){.ptr = flow->buffer, .len = got, .crc = crc, .has_crc = true};
    return MC_OK;
}

/* The same bytes with one bit flipped, checksum of the right ones. */
static void corrupt(struct flow *flow, struct conn_piece *piece, size_t bit)
{
    uint32_t crc = piece->has_crc ? piece->crc : crc32c(0, piece->ptr, piece->len);

    if (!need_buffer(flow)) {
        piece->crc = crc ^ 1u << bit % 32; /* no memory: the damage hits the checksum on the way */
        piece->has_crc = true;
        return;
    }
    if (piece->ptr != flow->buffer)
        memcpy(flow->buffer, piece->ptr, piece->len);
    flow->buffer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    *piece = (struct conn_piece){.ptr = flow->buffer, .len = piece->len, .crc = crc, .has_crc = true};
}

enum mc_status flow_source(void *arg, uint64_t off, size_t max, struct conn_piece *piece)
{
    struct flow *flow = arg;
    enum mc_status status = MC_OK;
    const struct run *run;
    size_t skip, left, bit;

    if (flow->cancelled)
        return MC_ECANCELED;
    flow->started = true;
    flow_seek(flow, off);
    run = &flow->runs[flow->at];
    skip = (size_t)(off - flow->at_off);
    left = run->len - skip;
    if (!run_alive(flow, run))
        return MC_ENOENT;
    if (run->len < FLOW_SMALL && left < max && need_buffer(flow))
        status = gather(flow, off, max, piece);
    else
        *piece = (struct conn_piece){.ptr = run->ptr + skip, .len = left < max ? left : max, .stays = true};
    if (status == MC_OK && fault_corrupts(flow->te->fault, piece->len, &bit))
        corrupt(flow, piece, bit);
    return status;
}

/* ---- receiving ---- */

/* Once a byte of a piece went to the buffer, the rest of the piece follows it there. */
size_t flow_place(struct flow *flow, uint64_t off, size_t max, bool direct, bool uncut, void **dst)
{
    const struct run *run;
    size_t skip, left;

    flow_seek(flow, off);
    run = &flow->runs[flow->at];
    skip = (size_t)(off - flow->at_off);
    left = run->len - skip;
    if (!flow->staging && (direct ? run->len < FLOW_SMALL && left < max : uncut) && need_buffer(flow)) {
        flow->staging = true;
        flow->staged_off = off;
    }
    if (flow->staging) {
        *dst = flow->buffer + (off - flow->staged_off);
        return max;
    }
    *dst = run->ptr + skip;
    return left < max ? left : max;
}

enum mc_status flow_spread(struct flow *flow, uint64_t end, uncut_look_fn *look, void *arg)
{
    const uint8_t *src = flow->buffer;
    enum mc_status status = MC_OK;
    bool staged = flow->staging;

    flow->staging = false;
    for (uint64_t off = flow->staged_off; staged && status == MC_OK && off < end;) {
        const struct run *run;
        size_t skip, n;

        flow_seek(flow, off);
        run = &flow->runs[flow->at];
        skip = (size_t)(off - flow->at_off);
        n = run->len - skip < end - off ? run->len - skip : (size_t)(end - off);
        if (!run_alive(flow, run))
            status = MC_ENOENT;
        else if (look)
            status = uncut_store(run->ptr + skip, src, n, look, arg);
        else
            memcpy(run->ptr + skip, src, n);
        src += n;
        off += n;
    }
    return status;
}
