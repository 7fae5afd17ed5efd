/* memory_store.c - the Store's client interface over a table in this process. */
#include "tests/worker/memory_store.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/cursor.h"
#include "base/hashmap.h"
#include "base/list.h"
#include "mooncake/store.h"
#include "mooncake/transfer.h"

struct memory_store_faults memory_store_faults;

struct object {
    struct hnode node;
    uint8_t id[16];
    uint32_t flags;
    uint64_t committed_ns, length;
    uint8_t bytes[];
};

static struct {
    pthread_mutex_t lock;
    struct hashmap objects;
    bool ready;
    uint64_t gets_seen;
    struct memory_store_counts counts;
    uint8_t record[1024];
    uint32_t record_size;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct mc_store_batch {
    struct list link;
    struct mc_store *store;
    struct mc_store_op *ops;
    uint32_t n;
    uint64_t due_ns, deadline_ns;
    mc_store_done_fn *done;
    mc_prefix_done_fn *prefix_done;
    uint8_t (*ids)[16]; /* of a prefix query */
    void *arg;
    bool complete, cancelled;
};

struct mc_store {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t bell, completed;
    struct list queue;
    bool stop;
};

/* ---- the table ---- */

static bool object_eq(const struct hnode *node, const void *key)
{
    return memcmp(container_of(node, struct object, node)->id, key, 16) == 0;
}

/* With table.lock held. */
static struct object *object_find(const uint8_t id[16])
{
    struct hnode *node;

    if (!table.ready) {
        hashmap_init(&table.objects, 0, 0);
        table.ready = true;
    }
    node = hashmap_find(&table.objects, le64_get(id), object_eq, id);
    return node ? container_of(node, struct object, node) : NULL;
}

static void op_put(struct mc_store_op *op)
{
    struct object *object;
    uint64_t length = 0, at = 0;

    for (uint32_t i = 0; i < op->nspans; i++)
        length += op->spans[i].len;
    table.counts.puts++;
    op->result.length = length;
    op->result.existed = object_find(op->key.id) != NULL;
    if (op->result.existed)
        return;
    if (memory_store_faults.full) {
        op->result.status = MC_ENOSPC;
        return;
    }
    object = malloc(sizeof(*object) + length);
    assert(object);
    memcpy(object->id, op->key.id, 16);
    object->flags = op->meta ? op->meta->flags : 0;
    object->length = length;
    object->committed_ns = now_ns();
    for (uint32_t i = 0; i < op->nspans; at += op->spans[i++].len)
        memcpy(object->bytes + at, op->spans[i].addr, op->spans[i].len);
    hashmap_add(&table.objects, &object->node, le64_get(object->id));
    table.counts.objects++;
    table.counts.decode_objects += (object->flags & MC_OBJ_DECODE) != 0;
}

static void op_get(struct mc_store_op *op)
{
    const struct object *object = object_find(op->key.id);
    uint32_t lose = memory_store_faults.lose_every;
    uint64_t at = 0;

    table.counts.gets++;
    table.gets_seen++;
    if (!object || (lose && table.gets_seen % lose == 0)) {
        op->result.status = MC_ENOENT;
        op->result.miss = object ? MC_MISS_EVICTED : MC_MISS_NEVER;
        return;
    }
    op->result.length = object->length;
    for (uint32_t i = 0; i < op->nspans && at < object->length; at += op->spans[i++].len)
        memcpy(op->spans[i].addr, object->bytes + at, op->spans[i].len);
    table.counts.hits++;
}

static void ops_fail(struct mc_store_batch *batch, enum mc_status status, enum mc_miss miss)
{
    for (uint32_t i = 0; i < batch->n; i++) {
        batch->ops[i].result.status = batch->ops[i].opcode == MC_GET && miss ? MC_ENOENT : status;
        batch->ops[i].result.miss = miss;
    }
}

static void batch_work(struct mc_store_batch *batch)
{
    if (batch->cancelled) {
        ops_fail(batch, MC_ECANCELED, MC_MISS_NONE);
    } else if (memory_store_faults.dead) {
        ops_fail(batch, MC_EPEERDOWN, MC_MISS_PEER_DOWN);
    } else if (batch->due_ns > batch->deadline_ns) {
        ops_fail(batch, MC_ETIMEDOUT, MC_MISS_TIMEOUT);
    } else {
        pthread_mutex_lock(&table.lock);
        for (uint32_t i = 0; i < batch->n; i++)
            batch->ops[i].opcode == MC_PUT ? op_put(&batch->ops[i]) : op_get(&batch->ops[i]);
        pthread_mutex_unlock(&table.lock);
    }
}

static void prefix_work(struct mc_store_batch *batch)
{
    struct mc_prefix prefix = {0};
    enum mc_status status = batch->cancelled                     ? MC_ECLOSED
                            : memory_store_faults.dead           ? MC_EPEERDOWN
                            : batch->due_ns > batch->deadline_ns ? MC_ETIMEDOUT
                                                                 : MC_OK;

    pthread_mutex_lock(&table.lock);
    while (status == MC_OK && prefix.blocks < batch->n) {
        const struct object *object = object_find(batch->ids[prefix.blocks]);

        if (!object)
            break;
        prefix.blocks++;
        prefix.bytes += object->length;
    }
    pthread_mutex_unlock(&table.lock);
    batch->prefix_done(status, &prefix, NULL, 0, batch->arg);
    free(batch->ids);
    free(batch);
}

/* ---- the handle's thread ---- */

static struct mc_store_batch *earliest(struct mc_store *store)
{
    struct mc_store_batch *best = NULL;

    list_for_each (it, &store->queue) {
        struct mc_store_batch *batch = list_entry(it, struct mc_store_batch, link);

        if (!best || batch->due_ns < best->due_ns)
            best = batch;
    }
    return best;
}

static void batch_finish(struct mc_store *store, struct mc_store_batch *batch)
{
    list_del(&batch->link);
    if (store->stop)
        batch->cancelled = true;
    pthread_mutex_unlock(&store->lock);
    if (batch->prefix_done) {
        prefix_work(batch);
        pthread_mutex_lock(&store->lock);
        return;
    }
    batch_work(batch);
    pthread_mutex_lock(&store->lock);
    if (batch->done) { /* it may be freed by another thread as soon as it was told */
        mc_store_done_fn *done = batch->done;

        batch->complete = true;
        done(batch, batch->arg);
    }
    pthread_cond_broadcast(&store->completed);
}

static void *store_main(void *arg)
{
    struct mc_store *store = arg;

    pthread_mutex_lock(&store->lock);
    for (;;) {
        struct mc_store_batch *batch = earliest(store);
        uint64_t at = batch ? batch->due_ns < batch->deadline_ns ? batch->due_ns : batch->deadline_ns : 0;
        struct timespec ts = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};

        if (batch && (store->stop || batch->cancelled || now_ns() >= at))
            batch_finish(store, batch);
        else if (batch)
            pthread_cond_timedwait(&store->bell, &store->lock, &ts);
        else if (store->stop)
            break;
        else
            pthread_cond_wait(&store->bell, &store->lock);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

/* Count it; is it one that hangs? */
static bool batch_arrived(const struct mc_store_batch *batch)
{
    bool gets = !batch->prefix_done && batch->n && batch->ops[0].opcode == MC_GET, hangs = memory_store_faults.hang;

    pthread_mutex_lock(&table.lock);
    table.counts.queries += batch->prefix_done != NULL;
    table.counts.get_batches += gets;
    hangs |= gets && memory_store_faults.hang_after && table.counts.get_batches > memory_store_faults.hang_after;
    pthread_mutex_unlock(&table.lock);
    return hangs;
}

static void batch_queue(struct mc_store *store, struct mc_store_batch *batch, uint32_t deadline_ms)
{
    uint64_t now = now_ns();

    batch->store = store;
    batch->deadline_ns = now + deadline_ms * NS_PER_MS;
    batch->due_ns = batch_arrived(batch) ? batch->deadline_ns + 1 : now + memory_store_faults.delay_ms * NS_PER_MS;
    pthread_mutex_lock(&store->lock);
    list_push_back(&store->queue, &batch->link);
    pthread_cond_signal(&store->bell);
    pthread_mutex_unlock(&store->lock);
}

/* ---- store.h ---- */

enum mc_status mc_store_open(const struct mc_store_opts *opts, struct mc_store **out)
{
    struct mc_store *store;
    pthread_condattr_t attr;

    if (memory_store_faults.dead && opts->connect_ms)
        return MC_EPEERDOWN;
    store = calloc(1, sizeof(*store));
    assert(store);
    list_init(&store->queue);
    pthread_mutex_init(&store->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&store->bell, &attr);
    pthread_cond_init(&store->completed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_create(&store->thread, NULL, store_main, store);
    *out = store;
    return MC_OK;
}

void mc_store_close(struct mc_store *store)
{
    pthread_mutex_lock(&store->lock);
    store->stop = true;
    pthread_cond_signal(&store->bell);
    pthread_mutex_unlock(&store->lock);
    pthread_join(store->thread, NULL);
    pthread_cond_destroy(&store->bell);
    pthread_cond_destroy(&store->completed);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

struct mc_te *mc_store_te(struct mc_store *store)
{
    return (struct mc_te *)store;
}

enum mc_status mc_te_alloc(struct mc_te *te, uint64_t len, uint32_t flags, void **addr, struct mc_region_key *key)
{
    *addr = aligned_alloc(4096, (len + 4095) & ~4095ull);
    return *addr ? MC_OK : MC_ENOMEM;
}

void mc_te_free(struct mc_te *te, void *addr)
{
    free(addr);
}

void mc_key_block(struct mc_key *key, const uint8_t id[16])
{
    *key = (struct mc_key){.kind = MC_KEY_BLOCK};
    memcpy(key->id, id, 16);
}

const char *mc_miss_str(enum mc_miss miss)
{
    static const char *const words[] = {
        "none", "never", "evicted", "stale", "corrupt", "peer down", "timeout", "mismatch", "master down"};

    return words[miss];
}

enum mc_status mc_store_submit(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint32_t deadline_ms,
    mc_store_done_fn *done, void *arg, struct mc_store_batch **out)
{
    struct mc_store_batch *batch = calloc(1, sizeof(*batch));

    assert(batch && done);
    batch->ops = ops;
    batch->n = n;
    batch->done = done;
    batch->arg = arg;
    for (uint32_t i = 0; i < n; i++)
        ops[i].result = (struct mc_store_result){.status = MC_OK};
    *out = batch;
    batch_queue(store, batch, deadline_ms);
    return MC_OK;
}

void mc_store_cancel(struct mc_store_batch *batch)
{
    struct mc_store *store = batch->store;

    pthread_mutex_lock(&store->lock);
    batch->cancelled = true;
    pthread_cond_signal(&store->bell);
    while (!batch->complete)
        pthread_cond_wait(&store->completed, &store->lock);
    pthread_mutex_unlock(&store->lock);
}

void mc_store_batch_free(struct mc_store_batch *batch)
{
    struct mc_store *store = batch->store;

    mc_store_cancel(batch);
    pthread_mutex_lock(&store->lock); /* the thread that completed it is out of its callback */
    pthread_mutex_unlock(&store->lock);
    free(batch);
}

enum mc_status mc_store_prefix_async(struct mc_store *store, const uint8_t (*ids)[16], uint32_t n, uint32_t lease_ms,
    uint32_t deadline_ms, mc_prefix_done_fn *done, void *arg)
{
    struct mc_store_batch *batch = calloc(1, sizeof(*batch));

    assert(batch);
    batch->ids = malloc(n * 16 + 1);
    assert(batch->ids);
    memcpy(batch->ids, ids, n * 16);
    batch->n = n;
    batch->prefix_done = done;
    batch->arg = arg;
    batch_queue(store, batch, deadline_ms);
    return MC_OK;
}

enum mc_status mc_store_pin(struct mc_store *store, const struct mc_key *keys, uint32_t n, uint32_t pin_ms,
    uint32_t deadline_ms, uint64_t *token)
{
    pthread_mutex_lock(&table.lock);
    *token = ++table.counts.pins;
    pthread_mutex_unlock(&table.lock);
    return MC_OK;
}

void mc_store_unpin(struct mc_store *store, uint64_t token)
{
    pthread_mutex_lock(&table.lock);
    table.counts.unpins++;
    pthread_mutex_unlock(&table.lock);
}

enum mc_status mc_store_register_model(struct mc_store *store, const char *model, const void *record,
    uint32_t record_len, uint32_t deadline_ms, char field[64])
{
    enum mc_status status = MC_OK;

    if (memory_store_faults.dead)
        return MC_EPEERDOWN;
    pthread_mutex_lock(&table.lock);
    if (!table.record_size) {
        memcpy(table.record, record, record_len);
        table.record_size = record_len;
    }
    if (memory_store_faults.other_record || record_len != table.record_size ||
        memcmp(record, table.record, record_len)) {
        snprintf(field, 64, "engine_version");
        status = MC_EMISMATCH;
    }
    pthread_mutex_unlock(&table.lock);
    return status;
}

/* ---- for the tests ---- */

void memory_store_counts(struct memory_store_counts *out)
{
    pthread_mutex_lock(&table.lock);
    *out = table.counts;
    pthread_mutex_unlock(&table.lock);
}

bool memory_store_has(const uint8_t id[16], uint64_t *committed_ns)
{
    const struct object *object;

    pthread_mutex_lock(&table.lock);
    object = object_find(id);
    if (object && committed_ns)
        *committed_ns = object->committed_ns;
    pthread_mutex_unlock(&table.lock);
    return object != NULL;
}

void memory_store_reset(void)
{
    struct hashmap_iter it = {0};
    struct hnode *node;

    pthread_mutex_lock(&table.lock);
    while (table.ready && (node = hashmap_next(&table.objects, &it))) {
        hashmap_del(&table.objects, node);
        free(container_of(node, struct object, node));
    }
    if (table.ready)
        hashmap_fini(&table.objects);
    table.ready = false;
    table.gets_seen = 0;
    table.record_size = 0;
    memset(&table.counts, 0, sizeof(table.counts));
    memset(&memory_store_faults, 0, sizeof(memory_store_faults));
    pthread_mutex_unlock(&table.lock);
}
