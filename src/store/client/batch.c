/* batch.c - operations in arrays: submit, wait, cancel; and the short forms.
 *
 * Each operation that is not answered by the caller's own thread (hot.h, near.h) is a job. Operations on one key keep their order: a
 * job begins when the one before it on its key has finished. That is looked for only when something in the batch writes.
 *
 * Where all only ask whether something is there, up to CLIENT_EXISTS_MAX of them are one job, one message and one answer.
 *
 * A batch ends on the loop: `done` runs, then `finished` is set and waiters wake; after that nothing of it is touched here. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "store/client/shell.h"

#define NO_OP UINT32_MAX

enum { ASYNC_COPY_MAX = 64 << 10 }; /* bytes that an asynchronous submit copies in the caller's thread */

struct batch_job {
    struct job job;
    struct mc_store_batch *batch;
    uint32_t next; /* op of the same key that waits for this one, NO_OP */
    bool open;     /* neither finished nor waiting for another */
};

struct mc_store_batch {
    struct mc_store *store;
    struct mc_store_op *ops;
    struct batch_job *jobs; /* by op, or by what is asked at once; NULL when the caller's thread did everything */
    struct job ending;      /* carries `done` to the loop when there was nothing else to do there */
    mc_store_done_fn *done;
    void *arg;
    uint32_t n, jobs_n, left;
    bool cancelling, in_done, freed; /* the loop's */
    struct waiter waiter;
};

/* ---- the end ---- */

static void batch_end(struct mc_store_batch *batch)
{
    if (batch->done) {
        batch->in_done = true;
        batch->done(batch, batch->arg);
        batch->in_done = false;
        if (batch->freed) {
            free(batch->jobs);
            free(batch);
            return;
        }
    }
    waiter_tell(batch->store, &batch->waiter);
}

static void ending_finish(struct job *job)
{
    batch_end(container_of(job, struct mc_store_batch, ending));
}

static void op_finish(struct job *job)
{
    struct batch_job *bj = container_of(job, struct batch_job, job);
    struct mc_store_batch *batch = bj->batch;
    struct mc_store_op *op = &batch->ops[bj - batch->jobs];
    uint32_t next = bj->next;

    bj->open = false;
    if (op->opcode == MC_GET && op->result.status == MC_OK)
        op->result.path = shell_path(batch->store, op->result.node);
    if (next != NO_OP) {
        struct batch_job *after = &batch->jobs[next];

        after->open = true;
        if (batch->cancelling || job->call.status == MC_ECLOSED) {
            enum mc_status status = batch->cancelling ? MC_ECANCELED : MC_ECLOSED;

            after->job.call.status = status;
            batch->ops[next].result = (struct mc_store_result){.status = status};
            op_finish(&after->job);
        } else {
            job_again(&after->job);
        }
    }
    if (--batch->left == 0)
        batch_end(batch);
}

static void exists_finish(struct job *job)
{
    struct batch_job *bj = container_of(job, struct batch_job, job);

    bj->open = false;
    if (--bj->batch->left == 0)
        batch_end(bj->batch);
}

/* ---- order of operations on one key ---- */

static bool key_same(const struct mc_key *a, const struct mc_key *b)
{
    if (a->kind != b->kind || a->group != b->group || a->shard != b->shard || a->shards != b->shards)
        return false;
    if (a->kind == MC_KEY_BLOCK)
        return memcmp(a->id, b->id, 16) == 0;
    return a->name_len == b->name_len && memcmp(a->name, b->name, a->name_len) == 0;
}

static bool writes(const struct mc_store_op *ops, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].opcode != MC_GET && ops[i].opcode != MC_EXISTS)
            return true;
    return false;
}

/* Set `next` of each job to the following op of its key, and `open` of those that are first. */
static enum mc_status chain(struct mc_store_batch *batch)
{
    uint32_t slots = 4;

    while (slots < batch->n * 2)
        slots *= 2;
    uint32_t *last = malloc(slots * sizeof(*last)); /* op seen last with a key, by hash */
    if (!last)
        return MC_ENOMEM;
    memset(last, 0xff, slots * sizeof(*last));
    for (uint32_t i = 0; i < batch->n; i++) {
        uint32_t at = (uint32_t)store_key_quick_hash(&batch->ops[i].key) & (slots - 1);

        while (last[at] != NO_OP && !key_same(&batch->ops[last[at]].key, &batch->ops[i].key))
            at = (at + 1) & (slots - 1);
        batch->jobs[i].open = last[at] == NO_OP;
        if (last[at] != NO_OP)
            batch->jobs[last[at]].next = i;
        last[at] = i;
    }
    free(last);
    return MC_OK;
}

/* ---- submit ---- */

/* Operations the caller's thread can do at once. Returns how many; those have a result, the others MC_PENDING. */
static uint32_t read_hot(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint64_t bytes_max)
{
    uint32_t hits = 0;
    uint64_t bytes = 0;
    struct near_tell tell = {0};

    list_init(&tell.jobs);
    for (uint32_t i = 0; i < n; i++) {
        bool ring;

        ops[i].result = (struct mc_store_result){.status = MC_PENDING};
        if (bytes >= bytes_max || atomic_load_explicit(&store->shut, memory_order_acquire))
            continue;
        if (hot_read(&store->hot, store->ns, &ops[i], &ring))
            tell.touched |= ring;
        else if (!near_read(store, &ops[i], &tell))
            continue;
        bytes += ops[i].opcode == MC_GET ? ops[i].result.length : 0;
        hits++;
    }
    near_told(store, &tell);
    return hits;
}

/* Nothing but questions whether it is there, and more than one. */
static bool only_asks(const struct mc_store_op *ops, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].opcode != MC_EXISTS)
            return false;
    return n > 1;
}

static struct batch_job *job_init(struct mc_store_batch *batch, uint32_t i, uint64_t deadline_ns)
{
    struct batch_job *bj = &batch->jobs[i];

    bj->batch = batch;
    bj->next = NO_OP;
    bj->job.store = batch->store;
    bj->job.home = batch->done != NULL;
    bj->job.call.deadline_ns = deadline_ns;
    list_init(&bj->job.link);
    return bj;
}

static enum mc_status make_exists_jobs(struct mc_store_batch *batch, uint64_t deadline_ns, struct list *jobs)
{
    batch->jobs_n = batch->left = (batch->n + CLIENT_EXISTS_MAX - 1) / CLIENT_EXISTS_MAX;
    batch->jobs = calloc(batch->jobs_n, sizeof(*batch->jobs));
    if (!batch->jobs)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < batch->jobs_n; i++) {
        struct batch_job *bj = job_init(batch, i, deadline_ns);
        uint32_t at = i * CLIENT_EXISTS_MAX, rest = batch->n - at;

        bj->open = true;
        bj->job.finish = exists_finish;
        bj->job.call.kind = CALL_EXISTS;
        bj->job.call.exists.ops = batch->ops + at;
        bj->job.call.exists.n = rest < CLIENT_EXISTS_MAX ? rest : CLIENT_EXISTS_MAX;
        list_push_back(jobs, &bj->job.link);
    }
    return MC_OK;
}

static enum mc_status make_jobs(struct mc_store_batch *batch, uint64_t deadline_ns, struct list *jobs)
{
    if (only_asks(batch->ops, batch->n))
        return make_exists_jobs(batch, deadline_ns, jobs);
    batch->jobs = calloc(batch->n, sizeof(*batch->jobs));
    if (!batch->jobs)
        return MC_ENOMEM;
    batch->jobs_n = batch->n;
    for (uint32_t i = 0; i < batch->n; i++) {
        struct batch_job *bj = job_init(batch, i, deadline_ns);

        bj->open = batch->ops[i].result.status == MC_PENDING;
        bj->job.finish = op_finish;
        bj->job.call.kind = CALL_OP;
        bj->job.call.op = &batch->ops[i];
    }
    if (batch->n > 1 && writes(batch->ops, batch->n) && chain(batch) != MC_OK)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < batch->n; i++)
        if (batch->jobs[i].open)
            list_push_back(jobs, &batch->jobs[i].job.link);
    return MC_OK;
}

static uint32_t list_length(const struct list *head)
{
    uint32_t n = 0;

    list_for_each (it, head)
        n++;
    return n;
}

/* `hits` of the ops have their result already. */
static enum mc_status submit_rest(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint32_t hits,
    uint64_t deadline_ns, mc_store_done_fn *done, void *arg, struct mc_store_batch **out)
{
    struct mc_store_batch *batch = calloc(1, sizeof(*batch));
    struct list jobs;
    enum mc_status status = MC_OK;

    if (!batch)
        return MC_ENOMEM;
    *batch = (struct mc_store_batch){.store = store, .ops = ops, .n = n, .left = n - hits, .done = done, .arg = arg};
    batch->ending = (struct job){.store = store, .finish = ending_finish, .home = true};
    list_init(&jobs);
    if (batch->left > 0)
        status = make_jobs(batch, deadline_ns, &jobs);
    else if (done)
        list_push_back(&jobs, &batch->ending.link);
    else
        atomic_store(&batch->waiter.finished, 1);
    *out = batch; /* before the loop can run `done` */
    if (status == MC_OK && !list_empty(&jobs))
        status = job_submit(store, &jobs, list_length(&jobs));
    if (status != MC_OK) {
        *out = NULL;
        free(batch->jobs);
        free(batch);
    }
    return status;
}

/* Do its bytes travel apart from its messages? */
static bool moves_bytes(const struct mc_store_op *ops, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ops[i].opcode == MC_GET || ((ops[i].opcode == MC_PUT || ops[i].opcode == MC_UPSERT) && ops[i].nspans))
            return true;
    return false;
}

static bool args_fit(const struct mc_store_op *ops, uint32_t n)
{
    return ops && n > 0 && n <= MC_STORE_OPS_MAX;
}

enum mc_status mc_store_submit(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint32_t deadline_ms,
    mc_store_done_fn *done, void *arg, struct mc_store_batch **out)
{
    uint64_t deadline = deadline_after_ms(now_ns(), deadline_ms);
    uint32_t hits;

    if (!args_fit(ops, n))
        return MC_EINVAL;
    hits = writes(ops, n) ? 0 : read_hot(store, ops, n, ASYNC_COPY_MAX);
    for (uint32_t i = 0; hits == 0 && i < n; i++)
        ops[i].result = (struct mc_store_result){.status = MC_PENDING};

    enum mc_status status = submit_rest(store, ops, n, hits, deadline, done, arg, out);

    if (status == MC_OK && (hits < n || done))
        shell_ring(store);
    return status;
}

enum mc_status mc_store_sync(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint32_t deadline_ms)
{
    uint64_t deadline = deadline_after_ms(now_ns(), deadline_ms);
    struct mc_store_batch *batch;
    uint32_t hits = 0;

    if (!args_fit(ops, n))
        return MC_EINVAL;
    assert(!loop_in_thread(store->loop));
    if (!writes(ops, n))
        hits = read_hot(store, ops, n, UINT64_MAX);
    if (hits == n)
        return MC_OK;
    for (uint32_t i = 0; hits == 0 && i < n; i++)
        ops[i].result = (struct mc_store_result){.status = MC_PENDING};
    enum mc_status status = submit_rest(store, ops, n, hits, deadline, NULL, NULL, &batch);
    if (status != MC_OK)
        return status;
    shell_wait(store, &batch->waiter, moves_bytes(ops, n));
    mc_store_batch_free(batch);
    near_promised(store, ops, n);
    return MC_OK;
}

/* ---- wait, cancel, free ---- */

enum mc_status mc_store_wait(struct mc_store_batch *batch, uint32_t timeout_ms)
{
    uint64_t deadline = timeout_ms == UINT32_MAX ? DEADLINE_NONE : deadline_after_ms(now_ns(), timeout_ms);

    while (!atomic_load(&batch->waiter.finished)) {
        if (deadline_passed(deadline, now_ns()))
            return MC_PENDING;
        word_sleep(&batch->waiter.finished, 0, deadline);
    }
    return MC_OK;
}

static void cancel_on_loop(struct loop *loop, void *arg)
{
    struct mc_store_batch *batch = arg;

    if (atomic_load(&batch->waiter.finished) || batch->cancelling || batch->in_done)
        return;
    batch->cancelling = true;
    /* The last job's end may run `done`, which may free the batch: count what is open first. */
    for (uint32_t i = 0, n = batch->jobs_n; i < n; i++) {
        bool last = batch->left == 1;

        if (!batch->jobs[i].open)
            continue;
        job_cancel(&batch->jobs[i].job);
        if (last)
            return;
    }
}

void mc_store_cancel(struct mc_store_batch *batch)
{
    if (atomic_load(&batch->waiter.finished))
        return;
    loop_call(batch->store->loop, cancel_on_loop, batch);
    if (loop_in_thread(batch->store->loop))
        waiters_tell(batch->store);
    else
        mc_store_wait(batch, UINT32_MAX);
}

void mc_store_batch_free(struct mc_store_batch *batch)
{
    if (!batch)
        return;
    if (loop_in_thread(batch->store->loop) && batch->in_done) {
        batch->freed = true;
        return;
    }
    if (!atomic_load(&batch->waiter.finished))
        mc_store_cancel(batch);
    free(batch->jobs);
    free(batch);
}

const char *mc_miss_str(enum mc_miss miss)
{
    static const char *const names[] = {
        [MC_MISS_NONE] = "none",
        [MC_MISS_NEVER] = "never",
        [MC_MISS_EVICTED] = "evicted",
        [MC_MISS_STALE] = "stale",
        [MC_MISS_CORRUPT] = "corrupt",
        [MC_MISS_PEER_DOWN] = "peer down",
        [MC_MISS_TIMEOUT] = "timeout",
        [MC_MISS_MISMATCH] = "mismatch",
        [MC_MISS_MASTER_DOWN] = "master down",
    };

    return (unsigned)miss < sizeof(names) / sizeof(*names) ? names[miss] : "unknown";
}

/* ---- short forms ---- */

static enum mc_status one(struct mc_store *store, struct mc_store_op *op, uint32_t deadline_ms)
{
    enum mc_status status = mc_store_sync(store, op, 1, deadline_ms);

    return status == MC_OK ? op->result.status : status;
}

enum mc_status mc_store_put(struct mc_store *store, const struct mc_key *key, const void *data, uint64_t len,
    const struct mc_object_meta *meta, uint32_t deadline_ms)
{
    struct mc_span span = {(void *)(uintptr_t)data, len}; /* a source is only read */
    struct mc_store_op op = {.opcode = MC_PUT, .key = *key, .spans = &span, .nspans = len > 0, .meta = meta};

    return one(store, &op, deadline_ms);
}

enum mc_status mc_store_get(
    struct mc_store *store, const struct mc_key *key, void *data, uint64_t cap, uint64_t *len, uint32_t deadline_ms)
{
    struct mc_span span = {data, cap};
    struct mc_store_op op = {.opcode = MC_GET, .key = *key, .spans = &span, .nspans = cap > 0};
    enum mc_status status = one(store, &op, deadline_ms);

    if (len && (status == MC_OK || status == MC_ETOOBIG))
        *len = op.result.length;
    return status;
}

enum mc_status mc_store_exists(struct mc_store *store, const struct mc_key *key, uint32_t deadline_ms)
{
    struct mc_store_op op = {.opcode = MC_EXISTS, .key = *key};

    return one(store, &op, deadline_ms);
}

enum mc_status mc_store_remove(struct mc_store *store, const struct mc_key *key, bool force, uint32_t deadline_ms)
{
    struct mc_store_op op = {.opcode = MC_REMOVE, .key = *key, .force = force};

    return one(store, &op, deadline_ms);
}
