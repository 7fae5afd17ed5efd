/* ids.c - asynchronous calls by number.
 *
 * A number is good until its end has been told; after that the end itself is remembered for the last ENDS numbers, so that a
 * caller who asks twice, or from two threads, gets the same answer. */
#include <stdlib.h>

#include "base/hash.h"
#include "compat/engine/impl.h"

#define ENDS 8192

struct id {
    struct hnode node;
    struct list order;
    uint64_t id;
    struct ce_call *call;
    unsigned waiting; /* threads that look at the call now */
};

static bool same_id(const struct hnode *node, const void *key)
{
    return container_of(node, struct id, node)->id == *(const uint64_t *)key;
}

enum mc_status ce_ids_init(struct ce_ids *ids)
{
    *ids = (struct ce_ids){.ends = calloc(ENDS, sizeof(struct ce_end))};
    pthread_mutex_init(&ids->lock, NULL);
    list_init(&ids->order);
    if (!ids->ends)
        return MC_ENOMEM;
    return hashmap_init(&ids->table, 16, CE_IDS_MAX);
}

/* Lock held. */
static void take_out(struct ce_ids *ids, struct id *id)
{
    hashmap_del(&ids->table, &id->node);
    list_del(&id->order);
}

static void id_free(struct id *id)
{
    if (id)
        ce_call_free(id->call);
    free(id);
}

void ce_ids_fini(struct ce_ids *ids)
{
    while (!list_empty(&ids->order)) {
        struct id *id = list_first(&ids->order, struct id, order);

        take_out(ids, id);
        id_free(id);
    }
    hashmap_fini(&ids->table);
    free(ids->ends);
    pthread_mutex_destroy(&ids->lock);
}

/* Lock held. The oldest that has ended and that nobody looks at makes room. */
static struct id *oldest_ended(struct ce_ids *ids)
{
    if (ids->table.count < CE_IDS_MAX)
        return NULL;
    list_for_each (it, &ids->order) {
        struct id *id = list_entry(it, struct id, order);

        if (id->waiting == 0 && ce_call_wait(id->call, 0) != MC_PENDING) {
            take_out(ids, id);
            return id;
        }
    }
    return NULL;
}

uint64_t ce_ids_start(struct ce_engine *engine, const char *target, const struct ce_op *ops, size_t n)
{
    struct ce_ids *ids = &engine->ids;
    struct id *id = calloc(1, sizeof(*id)), *old;
    enum mc_status status = id ? ce_submit(engine, target, ops, n, NULL, &id->call) : MC_ENOMEM;
    uint64_t number;

    if (status != MC_OK) {
        free(id);
        return 0;
    }
    pthread_mutex_lock(&ids->lock);
    old = oldest_ended(ids);
    number = id->id = ids->last + 1;
    status = hashmap_add(&ids->table, &id->node, hash_mix(number));
    if (status == MC_OK) {
        ids->last = number;
        list_push_back(&ids->order, &id->order);
    }
    pthread_mutex_unlock(&ids->lock);
    id_free(old);
    if (status == MC_OK)
        return number;
    id_free(id);
    return 0;
}

static enum mc_status remembered(const struct ce_ids *ids, uint64_t number)
{
    const struct ce_end *end = &ids->ends[number % ENDS];

    return number && end->id == number ? end->status : MC_ENOENT;
}

static enum mc_status look(struct ce_engine *engine, uint64_t number, uint32_t timeout_ms)
{
    struct ce_ids *ids = &engine->ids;
    struct hnode *node;
    struct id *id;
    enum mc_status status;

    pthread_mutex_lock(&ids->lock);
    node = hashmap_find(&ids->table, hash_mix(number), same_id, &number);
    if (!node) {
        status = remembered(ids, number);
        pthread_mutex_unlock(&ids->lock);
        return status;
    }
    id = container_of(node, struct id, node);
    id->waiting++;
    pthread_mutex_unlock(&ids->lock);
    status = ce_call_wait(id->call, timeout_ms);
    pthread_mutex_lock(&ids->lock);
    if (status != MC_PENDING)
        ids->ends[number % ENDS] = (struct ce_end){number, status};
    if (--id->waiting == 0 && status != MC_PENDING)
        take_out(ids, id);
    else
        id = NULL;
    pthread_mutex_unlock(&ids->lock);
    id_free(id);
    return status;
}

static enum mc_status look_inside(struct ce_engine *engine, uint64_t number, uint32_t timeout_ms)
{
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    status = look(engine, number, timeout_ms);
    ce_leave(engine);
    return status;
}

enum mc_status ce_ids_check(struct ce_engine *engine, uint64_t id)
{
    return look_inside(engine, id, 0);
}

enum mc_status ce_ids_wait(struct ce_engine *engine, uint64_t id)
{
    return look_inside(engine, id, UINT32_MAX);
}
