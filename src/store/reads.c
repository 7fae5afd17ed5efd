/* reads.c - see reads.h. */
#include "store/reads.h"

#include <stdlib.h>

static void on_deliver(struct loop *loop, struct loop_task *task)
{
    struct store_reads *reads = container_of(task, struct store_reads, deliver);
    struct list *it;

    while ((it = list_pop_front(&reads->ended)) != NULL) {
        struct store_batch *batch = list_entry(it, struct store_batch, link);

        mc_batch_free(batch->batch);
        reads->fn(reads->user, batch);
        free(batch);
    }
}

void store_reads_init(struct store_reads *reads, struct loop *loop, store_batch_ended_fn *fn, void *user)
{
    *reads = (struct store_reads){.loop = loop, .fn = fn, .user = user};
    loop_task_init(&reads->deliver, on_deliver);
    list_init(&reads->flying);
    list_init(&reads->ended);
}

void store_reads_fini(struct store_reads *reads)
{
    if (!reads->loop)
        return;
    loop_defer_cancel(reads->loop, &reads->deliver);
    list_splice_back(&reads->ended, &reads->flying);
    list_for_each_safe (it, tmp, &reads->ended)
        free(list_entry(it, struct store_batch, link));
}

struct store_batch *store_batch_create(struct store_reads *reads, uint64_t cookie, uint32_t count)
{
    struct store_batch *batch = calloc(1, sizeof(*batch) + count * sizeof(batch->ops[0]));

    if (!batch)
        return NULL;
    batch->reads = reads;
    batch->cookie = cookie;
    batch->count = count;
    for (uint32_t i = 0; i < count; i++)
        batch->ops[i].opcode = MC_READ;
    return batch;
}

void store_batch_free(struct store_batch *batch)
{
    free(batch);
}

static void on_done(struct mc_batch *mc_batch, enum mc_status status, void *arg)
{
    struct store_batch *batch = arg;

    if (!list_linked(&batch->link))
        return; /* dropped */
    batch->status = status;
    list_del(&batch->link);
    list_push_back(&batch->reads->ended, &batch->link);
    loop_defer(batch->reads->loop, &batch->reads->deliver);
}

enum mc_status store_batch_submit(struct store_batch *batch, struct mc_peer *engine, uint32_t deadline_ms)
{
    enum mc_status status;

    list_push_back(&batch->reads->flying, &batch->link);
    status = mc_transfer_submit(engine, batch->ops, batch->count, deadline_ms, on_done, batch, &batch->batch);
    if (status != MC_OK) {
        list_del(&batch->link);
        free(batch);
    }
    return status;
}

static struct store_batch *find(struct list *head, uint64_t cookie)
{
    list_for_each (it, head) {
        struct store_batch *batch = list_entry(it, struct store_batch, link);

        if (batch->cookie == cookie)
            return batch;
    }
    return NULL;
}

void store_batch_cancel(struct store_reads *reads, uint64_t cookie)
{
    struct store_batch *batch = find(&reads->flying, cookie);

    if (batch)
        mc_batch_cancel(batch->batch);
}

void store_batch_drop(struct store_reads *reads, uint64_t cookie)
{
    struct store_batch *batch = find(&reads->flying, cookie);

    if (!batch)
        batch = find(&reads->ended, cookie);
    if (!batch)
        return;
    list_del(&batch->link);
    mc_batch_free(batch->batch);
    free(batch);
}
