/* near.c - see near.h. */
#include "store/client/near.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/client/shell.h"
#include "store/node/node.h"

void shell_own(struct mc_store *store, struct store_node *node)
{
    struct names_view names = store_node_names(node);
    struct hot_segment *segments;
    uint32_t n = 0;
    void *base;
    uint64_t size;

    while (store_node_segment(node, n, &base, &size))
        n++;
    segments = calloc(n, sizeof(*segments));
    for (uint32_t i = 0; segments && store_node_segment(node, i, &base, &size); i++)
        segments[i] = (struct hot_segment){base, size};
    memcpy(store->near.own, store_node_uuid(node), 16);
    if (segments && hot_node_set(&store->hot, HOT_OWN, store->near.own, segments, n, &names) == MC_OK)
        hot_node_up(&store->hot, HOT_OWN, true);
    free(segments);
}

/* ---- telling ---- */

struct question {
    struct job job;
    struct mc_store_op op;
    char name[];
};

static void question_finish(struct job *job)
{
    free(container_of(job, struct question, job)); /* whatever came of it */
}

/* Milliseconds since the master was asked about it; UINT32_MAX: that is not known. */
static uint32_t told_ago(struct near *near, uint64_t hash)
{
    uint64_t seen = atomic_load_explicit(&near->told[hash % NEAR_TOLD], memory_order_relaxed);

    return seen >> 32 == hash >> 32 ? (uint32_t)(now_ns() / NS_PER_MS) - (uint32_t)seen : UINT32_MAX;
}

static void told_now(struct near *near, uint64_t hash)
{
    uint64_t word = (hash >> 32) << 32 | (now_ns() / NS_PER_MS & UINT32_MAX);

    atomic_store_explicit(&near->told[hash % NEAR_TOLD], word, memory_order_relaxed);
}

/* What a question promises is told apart from what gets do. */
static uint64_t told_hash(const struct mc_store_op *op)
{
    return store_key_quick_hash(&op->key) ^ (op->opcode == MC_EXISTS);
}

/* Whether it is there, which promises, or only where. */
static void ask(struct mc_store *store, const struct mc_key *name, bool promises, struct near_tell *tell)
{
    struct question *q = malloc(sizeof(*q) + name->name_len);

    if (!q)
        return;
    memcpy(q->name, name->name, name->name_len);
    q->op = (struct mc_store_op){.opcode = MC_EXISTS, .key = *name};
    q->op.key.name = q->name;
    q->job = (struct job){.store = store, .finish = question_finish};
    q->job.call.kind = promises ? CALL_OP : CALL_WHERE;
    if (promises)
        q->job.call.op = &q->op;
    else
        q->job.call.where.key = q->op.key;
    q->job.call.deadline_ns = deadline_after_ms(now_ns(), NEAR_TELL_MS * 10);
    list_push_back(&tell->jobs, &q->job.link);
    tell->count++;
}

void near_told(struct mc_store *store, struct near_tell *tell)
{
    if (tell->touched)
        loop_post(store->loop, &store->touch_task);
    if (tell->count == 0)
        return;
    if (job_submit(store, &tell->jobs, tell->count) == MC_OK)
        shell_push(store);
    else
        list_for_each_safe (it, tmp, &tell->jobs)
            question_finish(list_entry(it, struct job, link));
}

/* ---- reading ---- */

bool near_read(struct mc_store *store, struct mc_store_op *op, struct near_tell *tell)
{
    bool promises = op->opcode == MC_EXISTS || store->near.get_promises;
    struct store_key key;
    struct hot_object object;
    uint64_t told;
    uint32_t ago;

    if ((op->opcode != MC_GET && op->opcode != MC_EXISTS) || op->key.kind != MC_KEY_NAMED ||
        store_key_valid(&op->key) != MC_OK)
        return false;
    told = told_hash(op);
    ago = told_ago(&store->near, told);
    if (op->opcode == MC_EXISTS && ago >= NEAR_STANDS_MS)
        return false;
    if (store_key_from(store->ns, &op->key, &key) != MC_OK ||
        !hot_named(&store->hot, &key, store_key_hash(&key, 0), op, &object))
        return false;
    op->result = (struct mc_store_result){
        .status = MC_OK, .length = object.length, .version = object.version, .path = MC_PATH_SHM_MEMFD};
    memcpy(op->result.node, object.node, 16);
    if (ago < NEAR_TELL_MS)
        return true;
    told_now(&store->near, told);
    tell->touched |= hot_touched(&store->hot, object.peer, object.generation);
    ask(store, &op->key, promises, tell);
    return true;
}

void near_promised(struct mc_store *store, const struct mc_store_op *ops, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].opcode == MC_EXISTS && ops[i].result.status == MC_OK && ops[i].result.path == MC_PATH_NONE &&
            ops[i].key.kind == MC_KEY_NAMED)
            told_now(&store->near, told_hash(&ops[i]));
}
