/* put.c - blocks out of the engine into the Store, one by one while the run goes on.
 *
 * A block that became full is copied into a registered buffer (mc_engine_export) and handed to the Store at once; the node
 * pulls it from there. Buffers are bounded: when none is free, blocks wait inside the engine, where their sequence holds
 * them, and are exported when a put is acknowledged. A Store that does not answer closes the gate: blocks are then given
 * up and counted, the run never waits. */
#include "worker/impl.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    PUT_DEADLINE_MS = 5000,
    PUT_AGAIN_MS = 5, /* the Store's client had too much in flight */
};

struct put {
    struct note done;
    struct list link; /* in worker->puts */
    struct run *run;  /* a reference */
    uint32_t block, slot;
    struct mc_store_op op;
    struct mc_span span;
    struct mc_object_meta meta;
    struct mc_store_batch *batch;
};

void put_init(struct worker *worker)
{
    const struct mc_layout *layout = worker->info->layout;
    size_t planes = mc_layout_plane_count(layout);

    worker->geometry = mc_geometry_id(worker->info->geometry);
    worker->plane_bytes = malloc(planes * sizeof(*worker->plane_bytes));
    if (!worker->plane_bytes)
        return; /* the object is then one plane: coarser ranges, nothing else */
    worker->plane_count = (uint32_t)planes;
    for (size_t i = 0; i < planes; i++) {
        uint64_t end = i + 1 < planes ? mc_layout_plane(layout, i + 1).offset : mc_layout_size(layout);

        worker->plane_bytes[i] = end - mc_layout_plane(layout, i).offset;
    }
}

static void put_free(struct worker *worker, struct put *put)
{
    list_del(&put->link);
    slots_give(&worker->put_slots, put->slot);
    if (put->batch)
        mc_store_batch_free(put->batch);
    run_unref(put->run);
    free(put);
}

static void put_note(struct worker *worker, struct note *note)
{
    struct put *put = container_of(note, struct put, done);
    enum mc_status status = put->op.result.status;
    struct run *run = put->run;

    run->puts_flying--;
    worker->puts_flying--;
    if (status == MC_OK) {
        run->finish.stored_blocks++;
        gate_passed(&worker->put_gate);
        STAT_ADD(worker, blocks_stored, 1);
    } else {
        run->finish.store_failed++;
        if (gate_counts(status))
            gate_failed(&worker->put_gate, now_ns());
        STAT_ADD(worker, stores_failed, 1);
        log_every_ms(LOG_LEVEL_WARN, 5000, "put of block %u failed: %s", put->block, mc_status_str(status));
    }
    put_free(worker, put);
}

/* On the Store's thread. */
static void put_done(struct mc_store_batch *batch, void *arg)
{
    struct put *put = arg;

    inbox_post(&put->run->peer->worker->inbox, &put->done, put_note);
}

static void put_describe(struct worker *worker, struct put *put)
{
    struct run *run = put->run;
    uint32_t block_tokens = worker->info->block_tokens, block = put->block;

    put->span = (struct mc_span){slots_at(&worker->put_slots, put->slot), worker->info->block_size};
    put->meta = (struct mc_object_meta){
        .depth = block,
        .tokens = block_tokens,
        .geometry = worker->geometry,
        .plane_bytes = worker->plane_bytes,
        .planes = worker->plane_count,
        .flags = (block + 1) * block_tokens > run->prompt ? MC_OBJ_DECODE : 0,
    };
    if (block)
        memcpy(put->meta.parent, run->ids[block - 1].bytes, sizeof(put->meta.parent));
    put->op = (struct mc_store_op){.opcode = MC_PUT, .spans = &put->span, .nspans = 1, .meta = &put->meta};
    run_block_key(run, block, &put->op.key);
}

/* One block from the engine to the Store. MC_AGAIN: not now. */
static enum mc_status put_block(struct worker *worker, struct run *run, uint32_t block)
{
    struct put *put;
    enum mc_status status;
    uint32_t slot = slots_take(&worker->put_slots);

    if (slot == UINT32_MAX)
        return MC_AGAIN;
    put = calloc(1, sizeof(*put));
    if (!put) {
        slots_give(&worker->put_slots, slot);
        return MC_ENOMEM;
    }
    list_push_back(&worker->puts, &put->link);
    put->run = run;
    put->block = block;
    put->slot = slot;
    run_ref(run);
    status = mc_engine_export(worker->engine, run->seq, block, 0, worker->info->layers,
        slots_at(&worker->put_slots, slot), worker->info->block_size);
    if (status != MC_OK)
        goto undo;
    put_describe(worker, put);
    status = mc_store_submit(worker->store, &put->op, 1, PUT_DEADLINE_MS, put_done, put, &put->batch);
    if (status != MC_OK)
        goto undo;
    run->puts_flying++;
    worker->puts_flying++;
    return MC_OK;

undo:
    put->batch = NULL;
    put_free(worker, put);
    return status;
}

static void put_give_up(struct worker *worker, struct run *run, uint32_t blocks)
{
    run->put_next += blocks;
    run->finish.store_failed += blocks;
    STAT_ADD(worker, stores_failed, blocks);
}

void put_pump(struct worker *worker, struct run *run, uint32_t limit)
{
    enum mc_status status;

    if (!run->putting || !worker->store) {
        run->put_next = limit > run->put_next ? limit : run->put_next;
        return;
    }
    while (run->put_next < limit) {
        if (!gate_open(&worker->put_gate, now_ns())) {
            put_give_up(worker, run, limit - run->put_next);
            return;
        }
        status = put_block(worker, run, run->put_next);
        if (status == MC_AGAIN) {
            if (worker->puts_flying == 0) /* no acknowledgement will wake us */
                worker->retry_ns = now_ns() + PUT_AGAIN_MS * NS_PER_MS;
            return;
        }
        if (status == MC_OK) {
            run->put_next++;
            continue;
        }
        if (gate_counts(status))
            gate_failed(&worker->put_gate, now_ns());
        put_give_up(worker, run, 1);
    }
}

void put_cancel_all(struct worker *worker)
{
    list_for_each (it, &worker->puts)
        mc_store_cancel(list_entry(it, struct put, link)->batch);
}

void put_block_ready(
    void *arg, struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first, uint32_t layer_count)
{
    struct put_ready *ready = arg;

    /* Blocks travel whole: the last layer's call is the one that counts. */
    if (layer_first + layer_count == ready->worker->info->layers)
        put_pump(ready->worker, ready->run, block_index + 1);
}
