/* kv.c - see kv.h. */
#include "replay/kv.h"

#include <stdlib.h>

#include "replay/directory.h"
#include "base/idmap.h"
#include "store/evict/idpool.h"

enum { GONE_MAX = 1 << 20 };

struct kv {
    const struct model *model;
    uint32_t nodes;
    struct idpool *pools[MODEL_PREFILL_MAX];
    struct directory where;
    struct idpool *ssds[MODEL_PREFILL_MAX]; /* NULL: none */
    struct directory on_ssd;
    struct idmap gone, gone_before; /* blocks nobody has any more, those of late and GONE_MAX before them */
    uint64_t ssd_free[MODEL_PREFILL_MAX];
    uint64_t out_free[MODEL_PREFILL_MAX],
        in_free[MODEL_WORKERS_MAX]; /* when a link's side is free; in: decode behind prefill */
    uint64_t out_busy[MODEL_PREFILL_MAX],
        in_busy[MODEL_WORKERS_MAX]; /* for how long it was, or will be as far as is known */
    uint64_t clock, duplicated_max;
    double moved;
};

enum mc_status kv_create(const struct model *model, const struct eviction *eviction, struct kv **out)
{
    struct kv *kv = calloc(1, sizeof(*kv));

    if (!kv)
        return MC_ENOMEM;
    kv->model = model;
    kv->nodes = (uint32_t)model->prefill;
    uint32_t blocks = (uint32_t)(model->cache_tokens / model->block_tokens);
    uint32_t ssd = (uint32_t)(model->ssd_tokens / model->block_tokens);
    if (directory_init(&kv->where, (uint64_t)blocks * kv->nodes) != MC_OK)
        goto undo;
    for (uint32_t n = 0; n < kv->nodes; n++)
        if (idpool_create(eviction->policy, blocks, &kv->pools[n]) != MC_OK)
            goto undo;
    if (ssd > 0 && directory_init(&kv->on_ssd, (uint64_t)ssd * kv->nodes) != MC_OK)
        goto undo;
    for (uint32_t n = 0; ssd > 0 && n < kv->nodes; n++)
        if (idpool_create(eviction->policy, ssd, &kv->ssds[n]) != MC_OK)
            goto undo;
    *out = kv;
    return MC_OK;
undo:
    kv_destroy(kv);
    return MC_ENOMEM;
}

void kv_destroy(struct kv *kv)
{
    if (!kv)
        return;
    for (uint32_t n = 0; n < kv->nodes; n++)
        idpool_destroy(kv->pools[n]);
    for (uint32_t n = 0; n < kv->nodes; n++)
        idpool_destroy(kv->ssds[n]);
    directory_fini(&kv->where);
    directory_fini(&kv->on_ssd);
    idmap_fini(&kv->gone);
    idmap_fini(&kv->gone_before);
    free(kv);
}

enum mc_status kv_reserve(struct kv *kv, uint32_t count)
{
    return directory_reserve(&kv->where, count);
}

uint32_t kv_prefix(struct kv *kv, const uint64_t *ids, uint32_t count, uint32_t *node_blocks)
{
    uint32_t blocks = directory_prefix(&kv->where, ids, count);

    for (uint16_t n = 0; n < kv->nodes; n++)
        node_blocks[n] = prefix_lead(&kv->where.leads, n);
    return blocks;
}

uint32_t kv_own(const struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t count)
{
    return idpool_prefix(kv->pools[node], ids + from, count - from);
}

/* ---- what comes and goes ---- */

static uint64_t ssd_holders(const struct kv *kv, uint64_t id)
{
    return kv->on_ssd.table ? directory_holders(&kv->on_ssd, id) : 0;
}

/* Nobody has it any more: remembered, in bounded memory, to tell later what was evicted from what is new. */
static enum mc_status note_gone(struct kv *kv, uint64_t id)
{
    if (directory_holders(&kv->where, id) || ssd_holders(kv, id))
        return MC_OK;
    if (kv->gone.count >= GONE_MAX) {
        idmap_fini(&kv->gone_before);
        kv->gone_before = kv->gone;
        kv->gone = (struct idmap){0};
    }
    return idmap_set(&kv->gone, id, 1);
}

/* Memory evicted it: to the SSD, if there is one. */
static enum mc_status move_down(struct kv *kv, uint32_t node, uint64_t id)
{
    struct idpool *ssd = kv->ssds[node];
    enum mc_status status;
    uint32_t gone;

    if (!ssd)
        return note_gone(kv, id);
    if ((status = idpool_use(ssd, &(struct evict_run){&id, 1, EVICT_NO_ID}, kv->clock++)) != MC_OK)
        return status;
    const uint64_t *victims = idpool_victims(ssd, &gone);
    for (uint32_t i = 0; i < gone && status == MC_OK; i++) {
        directory_remove(&kv->on_ssd, (uint16_t)node, victims[i]);
        status = note_gone(kv, victims[i]);
    }
    if (status != MC_OK)
        return status;
    return idpool_has(ssd, id) ? directory_add(&kv->on_ssd, (uint16_t)node, id) : note_gone(kv, id);
}

enum mc_status kv_store(struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t to)
{
    struct idpool *pool = kv->pools[node];
    enum mc_status status;
    uint32_t gone;

    if (from >= to)
        return MC_OK;
    const struct evict_run run = {ids + from, to - from, from > 0 ? ids[from - 1] : EVICT_NO_ID};
    status = idpool_use(pool, &run, kv->clock);
    kv->clock += to - from;
    const uint64_t *victims = idpool_victims(pool, &gone);
    for (uint32_t i = 0; i < gone && status == MC_OK; i++) {
        if (idpool_has(pool, victims[i]))
            continue;
        directory_remove(&kv->where, (uint16_t)node, victims[i]);
        status = move_down(kv, node, victims[i]);
    }
    for (uint32_t i = from; i < to && status == MC_OK; i++)
        if (idpool_has(pool, ids[i]))
            status = directory_add(&kv->where, (uint16_t)node, ids[i]);
    uint64_t twice = directory_copies(&kv->where) - directory_blocks(&kv->where);
    if (twice > kv->duplicated_max)
        kv->duplicated_max = twice;
    return status;
}

void kv_missed(const struct kv *kv, const uint64_t *ids, uint32_t from, uint32_t to, struct kv_missed *add)
{
    for (uint32_t i = from; i < to; i++) {
        if (directory_holders(&kv->where, ids[i]) || ssd_holders(kv, ids[i]))
            add->elsewhere++;
        else if (idmap_find(&kv->gone, ids[i]) != IDMAP_NONE || idmap_find(&kv->gone_before, ids[i]) != IDMAP_NONE)
            add->evicted++;
        else
            add->fresh++;
    }
}

/* ---- links ---- */

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* One transfer; when it ends. The sides are busy until its last byte has left. */
static uint64_t transfer(struct kv *kv, uint32_t from, uint32_t to, double bytes, uint64_t now)
{
    uint64_t begin = later(now, later(kv->out_free[from], kv->in_free[to]));
    uint64_t end = begin + (uint64_t)(bytes / kv->model->link_gb_s); /* GB/s are bytes a nanosecond */

    kv->out_free[from] = kv->in_free[to] = end;
    kv->out_busy[from] += end - begin;
    kv->in_busy[to] += end - begin;
    kv->moved += bytes;
    return end + (uint64_t)(kv->model->link_latency_ms * 1e6);
}

/* Of those who have it, the one that may send soonest; the node itself before all. */
static uint32_t nearest(const struct kv *kv, uint32_t node, uint64_t set)
{
    uint32_t best = 0;
    bool any = false;

    if (node < kv->nodes && set & UINT64_C(1) << node)
        return node;
    for (; set; set &= set - 1) {
        uint32_t n = (uint32_t)__builtin_ctzll(set);

        if (!any || kv->out_free[n] < kv->out_free[best])
            best = n;
        any = true;
    }
    return best;
}

uint64_t kv_fetch(
    struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t to, uint64_t now, uint32_t *fetched)
{
    uint64_t blocks_of[MODEL_PREFILL_MAX] = {0}, end = now, set;
    uint32_t i = from;
    bool own = true; /* so far */

    for (; i < to && (set = directory_holders(&kv->where, ids[i])) != 0; i++) {
        uint32_t n = nearest(kv, node, set);

        own = own && n == node;
        blocks_of[n]++;
        if (own)
            idpool_renew(kv->pools[n], ids[i], kv->clock++);
        else
            idpool_touch(kv->pools[n], ids[i], kv->clock++);
    }
    *fetched = i - from;
    for (uint32_t n = 0; n < kv->nodes; n++) {
        double bytes = (double)blocks_of[n] * kv->model->block_tokens * kv->model->kv_token_bytes;

        if (n == node)
            end = later(end, now + (uint64_t)(bytes / kv->model->own_gb_s));
        else if (bytes > 0)
            end = later(end, transfer(kv, n, node, bytes, now));
    }
    return end;
}

/* When `blocks` of an SSD are with `node`, if they were asked for now. The SSD reads one thing at a time. */
static uint64_t ssd_read(struct kv *kv, uint32_t from, uint32_t node, uint64_t blocks, uint64_t now)
{
    double bytes = (double)blocks * kv->model->block_tokens * kv->model->kv_token_bytes;

    kv->ssd_free[from] = later(now, kv->ssd_free[from]) + (uint64_t)(bytes / kv->model->ssd_gb_s);
    uint64_t end = kv->ssd_free[from] + (uint64_t)(kv->model->ssd_latency_ms * 1e6);
    return from == node ? end : later(end, transfer(kv, from, node, bytes, now));
}

/* The same without doing it: what the SSD alone needs, at the speed of the slower of SSD and link. */
static double ssd_ms(const struct kv *kv, uint32_t from, uint32_t node, uint64_t blocks, uint64_t now)
{
    double bytes = (double)blocks * kv->model->block_tokens * kv->model->kv_token_bytes;
    double wait = kv->ssd_free[from] > now ? (double)(kv->ssd_free[from] - now) / 1e6 : 0;
    double gb_s =
        from != node && kv->model->link_gb_s < kv->model->ssd_gb_s ? kv->model->link_gb_s : kv->model->ssd_gb_s;

    return wait + bytes / gb_s / 1e6 + kv->model->ssd_latency_ms;
}

uint64_t kv_fetch_ssd(struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t to, uint64_t now,
    double compute_ms_per_block, uint32_t *end)
{
    uint64_t blocks_of[MODEL_PREFILL_MAX] = {0}, done = now, set;
    double longest = 0;
    uint32_t i = from, count = 0, more;

    *end = from;
    for (; i < to; i++) {
        if (directory_holders(&kv->where, ids[i]))
            continue;
        if ((set = ssd_holders(kv, ids[i])) == 0)
            break;
        count++;
        blocks_of[set & UINT64_C(1) << node ? node : (uint32_t)__builtin_ctzll(set)]++;
    }
    for (uint32_t n = 0; n < kv->nodes; n++)
        if (blocks_of[n] > 0 && ssd_ms(kv, n, node, blocks_of[n], now) > longest)
            longest = ssd_ms(kv, n, node, blocks_of[n], now);
    if (count == 0 || longest >= compute_ms_per_block * (i - from))
        return now;
    for (uint32_t j = from; j < i; j++) {
        if (directory_holders(&kv->where, ids[j])) {
            done = later(done, kv_fetch(kv, node, ids, j, j + 1, now, &more));
            continue;
        }
        for (set = ssd_holders(kv, ids[j]); set; set &= set - 1)
            idpool_touch(kv->ssds[__builtin_ctzll(set)], ids[j], kv->clock++);
    }
    for (uint32_t n = 0; n < kv->nodes; n++)
        if (blocks_of[n] > 0)
            done = later(done, ssd_read(kv, n, node, blocks_of[n], now));
    *end = i;
    return done;
}

/* Of a side's busy time, what is over. */
static uint64_t over(uint64_t busy, uint64_t free, uint64_t now)
{
    return free > now ? busy - (free - now) : busy;
}

void kv_hand_over_begin(const struct kv *kv, uint32_t node, uint32_t decode, uint64_t now, struct kv_handover *handover)
{
    uint32_t to = kv->nodes + decode;

    *handover = (struct kv_handover){.begun = now,
        .out_busy = over(kv->out_busy[node], kv->out_free[node], now),
        .in_busy = over(kv->in_busy[to], kv->in_free[to], now)};
}

uint64_t kv_hand_over_end(
    struct kv *kv, uint32_t node, uint32_t decode, uint32_t tokens, uint64_t now, const struct kv_handover *handover)
{
    uint32_t to = kv->nodes + decode;
    double bytes = tokens * kv->model->kv_token_bytes;
    uint64_t busy = later(over(kv->out_busy[node], kv->out_free[node], now) - handover->out_busy,
        over(kv->in_busy[to], kv->in_free[to], now) - handover->in_busy);
    uint64_t idle = now - handover->begun > busy ? now - handover->begun - busy : 0;
    uint64_t needs = (uint64_t)(bytes / kv->model->link_gb_s), sent = needs < idle ? needs : idle;

    /* What was sent in between was no idle time for other prompts. */
    kv->out_busy[node] += sent;
    kv->in_busy[to] += sent;
    kv->moved += (double)sent * kv->model->link_gb_s;
    if (sent == needs)
        return now + (uint64_t)(kv->model->link_latency_ms * 1e6);
    return transfer(kv, node, to, (double)(needs - sent) * kv->model->link_gb_s, now);
}

double kv_link_queue_ms(const struct kv *kv, uint32_t from, uint32_t to, uint64_t now)
{
    uint64_t free = later(kv->out_free[from], kv->in_free[to]);

    return free > now ? (double)(free - now) / 1e6 : 0;
}

uint64_t kv_copy_room(const struct kv *kv)
{
    double max = MC_SCHED_COPIES_PART * kv->nodes * kv->model->cache_tokens;
    double are = (double)(directory_copies(&kv->where) - directory_blocks(&kv->where)) * kv->model->block_tokens;

    return max > are ? (uint64_t)(max - are) : 0;
}

double kv_bytes_moved(const struct kv *kv)
{
    return kv->moved;
}

uint64_t kv_duplicated_max(const struct kv *kv)
{
    return kv->duplicated_max;
}
