/* own.c - see own.h. */
#include "store/client/own.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "store/client/shell.h"
#include "store/node/node.h"
#include "store/node/node_core.h"

void shell_own(struct mc_store *store, struct store_node *node)
{
    atomic_store(&store->own.node, node);
}

/* ---- promises ---- */

struct promise {
    struct job job;
    struct mc_store_op op;
    char name[];
};

static void promise_finish(struct job *job)
{
    free(container_of(job, struct promise, job)); /* whatever came of it */
}

/* Was it promised a moment ago? If not, it is now. */
static bool promised_lately(struct own *own, const struct store_key *key)
{
    uint64_t hash = store_key_hash(key, 0), now_ms = now_ns() / NS_PER_MS & UINT32_MAX;
    _Atomic uint64_t *word = &own->promised[hash % OWN_PROMISES];
    uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);

    if (seen >> 32 == hash >> 32 && (uint32_t)(now_ms - (uint32_t)seen) < OWN_PROMISE_MS)
        return true;
    atomic_store_explicit(word, (hash >> 32) << 32 | now_ms, memory_order_relaxed);
    return false;
}

/* A question whether it is there is a promise. */
static void promise(struct mc_store *store, const struct store_key *key, const struct mc_key *name)
{
    struct promise *p;
    struct list jobs;

    if (!store->own.promises || promised_lately(&store->own, key))
        return;
    p = malloc(sizeof(*p) + name->name_len);
    if (!p)
        return;
    memcpy(p->name, name->name, name->name_len);
    p->op = (struct mc_store_op){.opcode = MC_EXISTS, .key = *name};
    p->op.key.name = p->name;
    p->job = (struct job){.store = store, .finish = promise_finish};
    p->job.call.kind = CALL_OP;
    p->job.call.op = &p->op;
    p->job.call.deadline_ns = deadline_after_ms(now_ns(), OWN_PROMISE_MS * 10);
    list_init(&jobs);
    list_push_back(&jobs, &p->job.link);
    if (job_submit(store, &jobs, 1) == MC_OK)
        shell_ring(store);
    else
        free(p);
}

/* ---- reading ---- */

bool own_read(struct mc_store *store, struct mc_store_op *op)
{
    struct store_node *node = atomic_load_explicit(&store->own.node, memory_order_acquire);
    struct node_place place;
    struct store_key key;

    if (!node || op->opcode != MC_GET || op->key.kind != MC_KEY_NAMED ||
        store_key_from(store->ns, &op->key, &key) != MC_OK || !store_node_find(node, &key, &place) ||
        !hot_copy(place.object, &key, place.head, place.length, place.generation, op))
        return false;
    op->result = (struct mc_store_result){
        .status = MC_OK, .length = place.length, .version = place.version, .path = MC_PATH_SHM_MEMFD};
    memcpy(op->result.node, store_node_uuid(node), 16);
    atomic_fetch_add_explicit(&store->hot.gets, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&store->hot.bytes, place.length, memory_order_relaxed);
    promise(store, &key, &op->key);
    return true;
}
