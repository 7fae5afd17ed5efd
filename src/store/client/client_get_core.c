/* client_get_core.c - gets: read header and payload at once, then believe nothing that does not verify.
 *
 *   early     a name that was seen at a far node is read there while the master is asked; its answer decides whether that counts
 *   read      header + chunk table, and the payload pieces straight to their places, as one batch
 *   verify    header parses, is the key and generation asked for; checksums of what was *stored* agree
 *   edges     ranges that cut chunks: the cut chunks are read whole into a buffer of ours, verified, and the part copied
 *   rehead    something did not agree: the header once more; changed: stale, unchanged: corrupt
 *
 * A copy that fails is forgotten and the next one is read from byte 0; when none is left the master is asked once more. */
#include "store/client/client_impl.h"

#include <assert.h>
#include <stdlib.h>

#include "base/crc.h"

/* ---- ends ---- */

void client_get_fini(struct client_core *core, struct client_private *p)
{
    if (p->reading) {
        core->port.read_cancel(core->port.ctx, (uint64_t)(uintptr_t)p);
        p->reading = false;
    }
    list_del(&p->read_link);
    if (p->reads != p->reads_few)
        free(p->reads);
    if (p->head != p->head_few)
        free(p->head);
    free(p->bounce);
    p->reads = p->reads_few;
    p->head = p->head_few;
    p->bounce = NULL;
}

void client_get_miss(struct client_core *core, struct client_private *p, enum mc_status status, enum mc_miss miss)
{
    core->stats.gets++;
    core->stats.misses[miss]++;
    p->call->op->result.miss = miss;
    client_end(core, p, status);
}

static void hit(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct mc_store_op *op = p->call->op;
    const struct place *place = &p->places[p->place_at];

    op->result.length = p->header.length;
    op->result.version = place->version ? place->version : p->header.version;
    op->result.maybe_stale = p->maybe_stale;
    memcpy(op->result.node, core->peers[place->peer].member.uuid, 16);
    core->stats.gets++;
    core->stats.hits++;
    core->stats.misses[MC_MISS_NONE]++;
    for (uint32_t i = 0; i < op->nranges; i++)
        core->stats.hit_bytes += op->ranges[i].len;
    core->stats.hit_bytes += op->nranges ? 0 : p->header.length;
    client_touch(core, now, place->peer, place->generation);
    client_end(core, p, MC_OK);
}

/* ---- reading ---- */

static enum mc_status read_start(struct client_core *core, uint64_t now, struct client_private *p, uint32_t count)
{
    uint32_t peer = p->places[p->place_at].peer;
    enum mc_status status;

    p->read_count = count;
    p->waiting_since = now;
    status = core->port.read(core->port.ctx, (uint64_t)(uintptr_t)p, peer, p->reads, count);
    if (status != MC_OK)
        return status;
    p->reading = true;
    list_push_back(&core->peers[peer].reads, &p->read_link);
    return MC_OK;
}

/* The same pieces for every copy: header first, then payload. MC_ETOOBIG: the caller's memory is too small. */
static enum mc_status reads_plan(struct client_private *p, uint32_t *count)
{
    const struct mc_store_op *op = p->call->op;
    const struct place *place = &p->places[p->place_at];
    uint32_t max = 1 + (op->nranges ? op->nranges : op->nspans), n = 1;
    uint64_t at = 0, payload = place->offset + place->head;

    if (max > GET_READS && p->reads == p->reads_few) {
        p->reads = malloc(max * sizeof(*p->reads));
        if (!p->reads) {
            p->reads = p->reads_few;
            return MC_ENOMEM;
        }
    }
    if (p->head != p->head_few)
        free(p->head);
    p->head = place->head <= sizeof(p->head_few) ? p->head_few : malloc(place->head);
    if (!p->head) {
        p->head = p->head_few;
        return MC_ENOMEM;
    }
    p->reads[0] =
        (struct store_read){.segment = place->segment, .offset = place->offset, .len = place->head, .dst = p->head};
    for (uint32_t i = 0; i < op->nranges; i++) {
        if (op->ranges[i].offset > place->length || op->ranges[i].len > place->length - op->ranges[i].offset)
            return MC_EMISMATCH;
        p->reads[n++] = (struct store_read){.segment = place->segment,
            .offset = payload + op->ranges[i].offset,
            .len = op->ranges[i].len,
            .dst = op->ranges[i].local};
    }
    for (uint32_t i = 0; op->nranges == 0 && i < op->nspans && at < place->length; i++) {
        uint64_t len = op->spans[i].len < place->length - at ? op->spans[i].len : place->length - at;

        p->reads[n++] = (struct store_read){
            .segment = place->segment, .offset = payload + at, .len = len, .dst = op->spans[i].addr};
        at += len;
    }
    *count = n;
    return op->nranges == 0 && at < place->length ? MC_ETOOBIG : MC_OK;
}

static void next_copy(struct client_core *core, uint64_t now, struct client_private *p);
static void verify(struct client_core *core, uint64_t now, struct client_private *p);

/* This copy will not do; why. */
static void copy_failed(struct client_core *core, uint64_t now, struct client_private *p, enum mc_miss miss)
{
    p->miss = miss;
    if (miss == MC_MISS_STALE || miss == MC_MISS_CORRUPT)
        client_uncache(core, &p->key, p->places[p->place_at].generation);
    p->place_at++;
    core->stats.failovers += p->place_at < p->place_count;
    next_copy(core, now, p);
}

/* Start on the copy at place_at, or on the next one that can be read. */
static void next_copy(struct client_core *core, uint64_t now, struct client_private *p)
{
    for (; p->place_at < p->place_count; p->place_at++) {
        const struct place *place = &p->places[p->place_at];
        uint32_t count = 0;
        enum mc_status status;

        p->miss = MC_MISS_PEER_DOWN;
        if (core->peers[place->peer].member.epoch != place->epoch) {
            p->miss = MC_MISS_STALE; /* its owner restarted */
            client_uncache(core, &p->key, place->generation);
            continue;
        }
        if (core->peers[place->peer].health == PEER_CONNECTING &&
            now - core->peers[place->peer].since < WAIT_NODE_MS * NS_PER_MS) {
            client_retry_at(core, p, core->peers[place->peer].since + WAIT_NODE_MS * NS_PER_MS);
            return;
        }
        if (!client_peer_usable(core, place->peer))
            continue;
        if (place->head < OBJECT_FIXED || place->head > OBJECT_HEADER_MAX) {
            p->miss = MC_MISS_STALE;
            continue;
        }
        status = reads_plan(p, &count);
        if (status == MC_ETOOBIG || status == MC_EMISMATCH || status == MC_ENOMEM) {
            p->call->op->result.length = place->length;
            client_get_miss(core, p, status, status == MC_ENOMEM ? MC_MISS_NONE : MC_MISS_MISMATCH);
            return;
        }
        status = read_start(core, now, p, count);
        if (status == MC_OK) {
            p->stage = STAGE_READ;
            return;
        }
        if (status == MC_AGAIN) {
            client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
            return;
        }
        p->miss = status == MC_ENOENT ? MC_MISS_STALE : MC_MISS_PEER_DOWN;
    }
    if (p->asks < 2 && client_master_up(core, now) && !p->maybe_stale) {
        p->no_cache = true;
        p->place_count = p->place_at = 0;
        client_locate(core, now, p, core->limits.get_promises ? core->limits.lease_ms : 0);
        return;
    }
    client_get_miss(core, p, MC_ENOENT, p->miss);
}

void client_get_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    if (p->place_count > p->place_at)
        next_copy(core, now, p); /* after a wait */
    else
        client_locate(core, now, p, core->limits.get_promises ? core->limits.lease_ms : 0);
}

/* ---- early ---- */

static bool early_will_do(struct client_core *core, const struct client_private *p, const struct place *place)
{
    return core->port.far && core->peers[place->peer].member.epoch == place->epoch &&
           client_peer_usable(core, place->peer) && core->port.far(core->port.ctx, place->peer) &&
           place->length <= EARLY_MAX && place->head >= OBJECT_FIXED && place->head <= OBJECT_HEADER_MAX;
}

void client_get_early(struct client_core *core, uint64_t now, struct client_private *p)
{
    const struct client_call *call = p->call;
    struct cached *c;
    uint32_t count;

    if (call->kind != CALL_OP || call->op->opcode != MC_GET || call->op->nranges || p->no_cache || p->reading)
        return;
    c = client_cached(core, &p->key);
    if (!c || c->n == 0 || !early_will_do(core, p, &c->places[0]))
        return;
    p->early_place = p->places[0] = c->places[0];
    p->place_at = 0;
    if (reads_plan(p, &count) == MC_OK && read_start(core, now, p, count) == MC_OK)
        p->early = EARLY_READING;
}

static bool same_copy(const struct place *a, const struct place *b)
{
    return a->peer == b->peer && a->epoch == b->epoch && a->generation == b->generation && a->segment == b->segment &&
           a->offset == b->offset && a->length == b->length && a->head == b->head;
}

/* The master has answered. False: what was read early is not what it names. */
static bool early_take(struct client_core *core, uint64_t now, struct client_private *p)
{
    enum early early = p->early;
    uint32_t i = 0;

    p->early = EARLY_NONE;
    while (i < p->place_count && !same_copy(&p->places[i], &p->early_place))
        i++;
    if (early == EARLY_READING && i == p->place_count) {
        core->port.read_cancel(core->port.ctx, (uint64_t)(uintptr_t)p);
        p->reading = false;
        list_del(&p->read_link);
    }
    if (early == EARLY_NONE || i == p->place_count)
        return false;
    p->early_place = p->places[i];
    p->places[i] = p->places[0];
    p->places[0] = p->early_place;
    p->place_at = 0;
    p->stage = STAGE_READ;
    if (early == EARLY_READ)
        verify(core, now, p);
    return true;
}

void client_get_located(struct client_core *core, uint64_t now, struct client_private *p)
{
    if (p->early && early_take(core, now, p))
        return;
    if (p->place_count == 0) {
        client_get_miss(core, p, MC_ENOENT, p->miss == MC_MISS_NONE ? MC_MISS_NEVER : p->miss);
        return;
    }
    next_copy(core, now, p);
}

/* ---- verifying ---- */

/* MC_OK, MC_ESTALE, MC_ECORRUPT, MC_EMISMATCH. */
static enum mc_status verify_header(struct client_core *core, struct client_private *p)
{
    const struct place *place = &p->places[p->place_at];
    enum mc_status status = object_parse(p->head, place->head, &p->header);

    if (core->bugs.skip_generation && status == MC_OK && p->header.length == place->length)
        return MC_OK;
    if (status == MC_OK)
        status = object_is(&p->header, &p->key, place->generation);
    if (status != MC_OK)
        return status;
    if (p->header.header_len != place->head || p->header.length != place->length)
        return MC_ESTALE;
    if (place->version && p->header.version && place->version != p->header.version)
        return MC_ESTALE;
    return MC_OK;
}

static enum mc_status verify_whole(const struct client_private *p)
{
    uint32_t crc = 0;

    for (uint32_t i = 1; i < p->read_count; i++)
        crc = i == 1 ? p->reads[i].crc : crc32c_combine(crc, p->reads[i].crc, p->reads[i].len);
    return crc == object_payload_crc(&p->header) ? MC_OK : MC_ECORRUPT;
}

/* Where the chunks of a cover that a range cuts lie: the first, the last, or one that is both. */
struct edges {
    struct object_cover cover;
    uint64_t first_len, last_len; /* of cut chunks; 0: that end is not cut */
    uint64_t last_at;
};

static struct edges edges_of(const struct client_private *p, const struct mc_range *range)
{
    struct edges e = {0};
    uint64_t end = range->offset + range->len;

    object_cover(&p->header, range->offset, range->len, &e.cover);
    if (e.cover.count == 0)
        return e;

    uint32_t first_len = object_chunk(&p->header, e.cover.first).length;
    uint32_t last_len = object_chunk(&p->header, e.cover.first + e.cover.count - 1).length;

    e.last_at = e.cover.offset + e.cover.length - last_len;
    if (range->offset > e.cover.offset || (e.cover.count == 1 && end < e.cover.offset + e.cover.length))
        e.first_len = first_len;
    if (e.cover.count > 1 && end < e.cover.offset + e.cover.length)
        e.last_len = last_len;
    return e;
}

/* The chunks of a range that lie wholly in it, from the bytes as they are at their destination. */
static enum mc_status verify_inner(const struct client_private *p, const struct mc_range *range, const struct edges *e)
{
    struct object_cover inner = e->cover;
    uint64_t skip = e->first_len;

    if (e->first_len) {
        inner.first++;
        inner.count--;
    }
    inner.count -= e->last_len ? 1 : 0;
    return object_verify_cover(
        &p->header, &inner, (const uint8_t *)range->local + (e->cover.offset + skip - range->offset));
}

/* Checks what can be checked; *cut is how many bytes of cut chunks have to be read. */
static enum mc_status verify_ranges(struct client_private *p, uint64_t *cut)
{
    const struct mc_store_op *op = p->call->op;
    enum mc_status status = MC_OK;

    *cut = 0;
    for (uint32_t i = 0; i < op->nranges && status == MC_OK; i++) {
        struct edges e = edges_of(p, &op->ranges[i]);

        if (e.cover.count == 0)
            continue;
        if (e.first_len == 0 && e.last_len == 0)
            status = p->reads[1 + i].crc == object_cover_crc(&p->header, &e.cover) ? MC_OK : MC_ECORRUPT;
        else
            status = verify_inner(p, &op->ranges[i], &e);
        *cut += e.first_len + e.last_len;
    }
    return status;
}

/* Read the cut chunks into memory of ours. */
static enum mc_status edges_read(struct client_core *core, uint64_t now, struct client_private *p, uint64_t cut)
{
    const struct mc_store_op *op = p->call->op;
    const struct place *place = &p->places[p->place_at];
    struct store_read *reads = malloc((1 + 2 * (size_t)op->nranges) * sizeof(*reads));
    uint64_t payload = place->offset + place->head;
    uint32_t n = 1;
    uint8_t *at;

    free(p->bounce);
    p->bounce = malloc(cut);
    if (!reads || !p->bounce) {
        free(reads);
        return MC_ENOMEM;
    }
    at = p->bounce;
    reads[0] = p->reads[0];
    reads[0].len = 0; /* the header was read */
    for (uint32_t i = 0; i < op->nranges; i++) {
        struct edges e = edges_of(p, &op->ranges[i]);

        if (e.first_len) {
            reads[n++] = (struct store_read){
                .segment = place->segment, .offset = payload + e.cover.offset, .len = e.first_len, .dst = at};
            at += e.first_len;
        }
        if (e.last_len) {
            reads[n++] = (struct store_read){
                .segment = place->segment, .offset = payload + e.last_at, .len = e.last_len, .dst = at};
            at += e.last_len;
        }
    }
    if (p->reads != p->reads_few)
        free(p->reads);
    p->reads = reads;
    p->stage = STAGE_EDGES;
    return read_start(core, now, p, n);
}

/* Copy the wanted part of a verified chunk that begins at `chunk_at` of the payload. */
static void edge_copy(const struct mc_range *range, const uint8_t *chunk, uint64_t chunk_at, uint64_t chunk_len)
{
    uint64_t from = range->offset > chunk_at ? range->offset : chunk_at;
    uint64_t end = range->offset + range->len, to = end < chunk_at + chunk_len ? end : chunk_at + chunk_len;

    memcpy((uint8_t *)range->local + (from - range->offset), chunk + (from - chunk_at), to - from);
}

static enum mc_status edges_take(struct client_private *p)
{
    const struct mc_store_op *op = p->call->op;
    const uint8_t *at = p->bounce;
    uint32_t n = 1;

    for (uint32_t i = 0; i < op->nranges; i++) {
        struct edges e = edges_of(p, &op->ranges[i]);

        if (e.first_len) {
            if (p->reads[n++].crc != object_chunk(&p->header, e.cover.first).crc32c)
                return MC_ECORRUPT;
            edge_copy(&op->ranges[i], at, e.cover.offset, e.first_len);
            at += e.first_len;
        }
        if (e.last_len) {
            if (p->reads[n++].crc != object_chunk(&p->header, e.cover.first + e.cover.count - 1).crc32c)
                return MC_ECORRUPT;
            edge_copy(&op->ranges[i], at, e.last_at, e.last_len);
            at += e.last_len;
        }
    }
    return MC_OK;
}

/* Did the header change, or is it the bytes? */
static void rehead(struct client_core *core, uint64_t now, struct client_private *p)
{
    const struct place *place = &p->places[p->place_at];

    core->stats.checksum_errors++;
    p->head_crc = crc32c(0, p->head, place->head);
    p->reads[0] =
        (struct store_read){.segment = place->segment, .offset = place->offset, .len = place->head, .dst = p->head};
    p->stage = STAGE_REHEAD;
    if (read_start(core, now, p, 1) != MC_OK)
        copy_failed(core, now, p, MC_MISS_PEER_DOWN);
}

static void reheaded(struct client_core *core, uint64_t now, struct client_private *p)
{
    const struct place *place = &p->places[p->place_at];
    bool same = crc32c(0, p->head, place->head) == p->head_crc;
    enum mc_status status = verify_header(core, p);

    if (same || status == MC_ECORRUPT)
        copy_failed(core, now, p, status == MC_ESTALE ? MC_MISS_STALE : MC_MISS_CORRUPT);
    else if (status == MC_OK && p->tries++ < core->limits.attempts_max)
        next_copy(core, now, p); /* it was being given its version: the same copy again, from byte 0 */
    else
        copy_failed(core, now, p, MC_MISS_STALE);
}

static void verify(struct client_core *core, uint64_t now, struct client_private *p)
{
    enum mc_status status = verify_header(core, p);
    uint64_t cut = 0;

    if (status == MC_OK && !core->bugs.skip_crc)
        status = p->call->op->nranges ? verify_ranges(p, &cut) : verify_whole(p);
    if (status == MC_OK && cut > 0) {
        status = edges_read(core, now, p, cut);
        if (status != MC_OK)
            copy_failed(core, now, p, MC_MISS_PEER_DOWN);
        return;
    }
    if (status == MC_OK)
        hit(core, now, p);
    else if (status == MC_ESTALE)
        copy_failed(core, now, p, MC_MISS_STALE);
    else
        rehead(core, now, p);
}

/* MC_EPROTO: every attempt to bring it here was damaged on the way, which the engine's own checksums tell. */
static enum mc_miss io_miss(enum mc_status status)
{
    switch (status) {
    case MC_ENOENT:
    case MC_EINVAL: return MC_MISS_STALE;
    case MC_EPROTO: return MC_MISS_CORRUPT;
    default: return MC_MISS_PEER_DOWN;
    }
}

void client_get_on_io(struct client_core *core, uint64_t now, struct client_private *p, enum mc_status status)
{
    p->reading = false;
    list_del(&p->read_link);
    if (p->early) { /* whether anybody wants it is not known yet */
        p->early = status == MC_OK ? EARLY_READ : EARLY_NONE;
        return;
    }
    if (status != MC_OK) {
        core->stats.checksum_errors += status == MC_EPROTO;
        copy_failed(core, now, p, io_miss(status));
        return;
    }
    if (p->stage == STAGE_REHEAD) {
        reheaded(core, now, p);
    } else if (p->stage == STAGE_EDGES) {
        if (edges_take(p) == MC_OK) {
            hit(core, now, p);
        } else {
            rehead(core, now, p);
        }
    } else {
        verify(core, now, p);
    }
}
