/* prefix.c - the Store's answer about a prefix, carried from its thread to the loop. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "conductor/prefix.h"

struct prefix_query {
    struct loop_task task;
    struct loop *loop;
    prefix_done_fn *done; /* NULL: forgotten. Written and read on the loop */
    void *arg;
    struct prefix_answer answer;     /* written on the Store's thread before the task is posted */
    uint8_t ids[][MC_BLOCK_ID_SIZE]; /* the Store borrows them until it answers */
};

static void on_loop(struct loop *loop, struct loop_task *task)
{
    struct prefix_query *query = container_of(task, struct prefix_query, task);

    if (query->done)
        query->done(query->arg, &query->answer);
    free(query);
}

static void on_answer(enum mc_status status, const struct mc_prefix *prefix, const struct mc_prefix_node *nodes,
    uint32_t node_count, void *arg)
{
    struct prefix_query *query = arg;
    uint32_t count = node_count < PREFIX_NODES_MAX ? node_count : PREFIX_NODES_MAX;

    query->answer.status = status;
    query->answer.blocks = prefix ? prefix->blocks : 0;
    query->answer.node_count = count;
    if (count)
        memcpy(query->answer.nodes, nodes, count * sizeof *nodes);
    loop_post(query->loop, &query->task);
}

enum mc_status prefix_ask(struct mc_store *store, struct loop *loop, const struct mc_block_id *ids, uint32_t count,
    uint32_t deadline_ms, prefix_done_fn *done, void *arg, struct prefix_query **out)
{
    static_assert(sizeof(struct mc_block_id) == MC_BLOCK_ID_SIZE, "an array of ids is an array of 16 bytes each");
    struct prefix_query *query = malloc(sizeof *query + (size_t)count * MC_BLOCK_ID_SIZE);
    enum mc_status status;

    if (!query)
        return MC_ENOMEM;
    *query = (struct prefix_query){.loop = loop, .done = done, .arg = arg};
    loop_task_init(&query->task, on_loop);
    memcpy(query->ids, ids, (size_t)count * MC_BLOCK_ID_SIZE);
    status = mc_store_prefix_async(store, (const uint8_t(*)[16])query->ids, count, 0, deadline_ms, on_answer, query);
    if (status != MC_OK)
        free(query);
    else
        *out = query;
    return status;
}

void prefix_forget(struct prefix_query *query)
{
    if (query)
        query->done = NULL;
}
