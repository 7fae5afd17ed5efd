/* c_api.c - transfer_engine_c.h over ce.h: segments and batches by number.
 *
 * A batch is a table of tasks; a submit makes one call (struct ce_call) for each target it names, and each task knows its call and
 * its place in it. Numbers are never used twice, so that a stale one is an error. Submitting waits for the first contact with
 * a peer without the lock, with the batch held (`busy`). */
#include "transfer_engine_c.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/hashmap.h"
#include "compat/engine/ce.h"
#include "compat/engine/settings.h"

#define API          __attribute__((visibility("default")))
#define SEGMENTS_MAX 65536
#define BATCH_MAX    (1u << 20)

/* error codes of the existing engine */
enum {
    INVALID_ARGUMENT = -1,
    TOO_MANY_REQUESTS = -2,
    NOT_REGISTERED = -3,
    BATCH_BUSY = -4,
    NO_MEMORY = -302,
    NOT_IMPLEMENTED = -303
};

static_assert(sizeof(struct transfer_request) == 40 && sizeof(struct transfer_status) == 16,
    "programs were compiled against these");
static_assert(
    sizeof(struct segment_desc) == 48 && sizeof(struct nic_load_stat) == 80, "programs were compiled against these");

struct task {
    struct ce_call *call; /* NULL: not begun, or failed */
    size_t at;            /* in the call */
    uint64_t len;
    enum mc_status failed; /* without a call */
    bool told;             /* the call has a notification */
};

struct batch {
    struct hnode node;
    uint64_t id;
    size_t room, used;
    unsigned busy; /* threads that submit to it */
    struct ce_call **calls;
    size_t call_count;
    struct task tasks[];
};

struct engine {
    struct ce_engine *ce;
    pthread_mutex_t lock;
    struct hashmap batches; /* guarded by lock, as are these: */
    uint64_t last;
    char **names; /* by segment id - 1 */
    size_t name_count;
};

static int code_of(enum mc_status status)
{
    switch (status) {
    case MC_OK: return 0;
    case MC_ENOENT: return NOT_REGISTERED;
    case MC_ENOMEM: return NO_MEMORY;
    default: return INVALID_ARGUMENT;
    }
}

/* NULL for NULL, and in a forked child: locks may be held there by threads that do not exist. */
static struct engine *use(transfer_engine_t handle)
{
    struct engine *engine = handle;

    return engine && ce_usable(engine->ce) ? engine : NULL;
}

/* ---- an engine ---- */

API transfer_engine_t createTransferEngine(const char *metadata_conn_string, const char *local_server_name,
    const char *ip_or_host_name, uint64_t rpc_port, int auto_discover)
{
    bool named = ip_or_host_name && *ip_or_host_name;
    struct ce_opts opts = {
        .host = named ? ip_or_host_name : local_server_name,
        .name = local_server_name,
        .port = rpc_port <= UINT16_MAX ? (uint16_t)rpc_port : 0,
        .metadata = metadata_conn_string,
        .protocol = "tcp",
        .without_pool = true, /* this interface gives out no memory */
    };
    struct engine *engine = calloc(1, sizeof(*engine));
    struct addr addr;

    if (!engine)
        return NULL;
    if (named && !opts.port && local_server_name && addr_parse(local_server_name, 0, &addr, NULL) == MC_OK)
        opts.port = addr.port;
    pthread_mutex_init(&engine->lock, NULL);
    if (hashmap_init(&engine->batches, 16, 0) == MC_OK && ce_create(&opts, &engine->ce) == MC_OK)
        return engine;
    hashmap_fini(&engine->batches);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
    return NULL;
}

static void batch_free(struct batch *batch)
{
    for (size_t i = 0; i < batch->call_count; i++)
        ce_call_free(batch->calls[i]);
    free(batch->calls);
    free(batch);
}

API void destroyTransferEngine(transfer_engine_t handle)
{
    struct engine *engine = use(handle);
    struct hashmap_iter it = {0};

    if (!engine)
        return; /* a forked child leaves what is the parent's */
    for (struct hnode *node; (node = hashmap_next(&engine->batches, &it)) != NULL;)
        batch_free(container_of(node, struct batch, node));
    hashmap_fini(&engine->batches);
    ce_destroy(engine->ce);
    for (size_t i = 0; i < engine->name_count; i++)
        free(engine->names[i]);
    free(engine->names);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

static int put_text(const char *text, char *out, size_t size)
{
    int n = out && text ? snprintf(out, size, "%s", text) : -1;

    return n >= 0 && (size_t)n < size ? 0 : INVALID_ARGUMENT;
}

API int getLocalIpAndPort(transfer_engine_t handle, char *buf_out, size_t buf_len)
{
    struct engine *engine = use(handle);

    return engine ? put_text(ce_session(engine->ce), buf_out, buf_len) : INVALID_ARGUMENT;
}

API transport_t installTransport(transfer_engine_t handle, const char *proto, void **args)
{
    bool there = proto && (strcmp(proto, "tcp") == 0 || ce_env_on("MC_FORCE_TCP"));

    return there ? handle : NULL;
}

API int uninstallTransport(transfer_engine_t handle, const char *proto)
{
    return 0;
}

API int discoverTopology(transfer_engine_t handle)
{
    return 0;
}

API void enableGracefulShutdown(transfer_engine_t handle)
{
}

/* ---- segments ---- */

/* A copy of the name of that segment (free), NULL: there is none. */
static char *segment_name_of(struct engine *engine, uint64_t id)
{
    char *name = NULL;

    pthread_mutex_lock(&engine->lock);
    if (id == LOCAL_SEGMENT)
        name = strdup(ce_session(engine->ce));
    else if (id <= engine->name_count)
        name = strdup(engine->names[id - 1]);
    pthread_mutex_unlock(&engine->lock);
    return name;
}

/* Lock held. 0: no memory, or too many. */
static segment_id_t segment_add(struct engine *engine, const char *name)
{
    char **names, *copy;

    for (size_t i = 0; i < engine->name_count; i++)
        if (strcmp(engine->names[i], name) == 0)
            return (segment_id_t)i + 1;
    if (engine->name_count == SEGMENTS_MAX)
        return 0;
    names = realloc(engine->names, (engine->name_count + 1) * sizeof(*names));
    if (!names)
        return 0;
    engine->names = names;
    copy = strdup(name);
    if (!copy)
        return 0;
    names[engine->name_count++] = copy;
    return (segment_id_t)engine->name_count;
}

static segment_id_t segment_of(struct engine *engine, const char *name)
{
    segment_id_t id;

    pthread_mutex_lock(&engine->lock);
    id = segment_add(engine, name);
    pthread_mutex_unlock(&engine->lock);
    return id ? id : NO_MEMORY;
}

API segment_id_t openSegment(transfer_engine_t handle, const char *segment_name)
{
    struct engine *engine = use(handle);

    if (!engine || !segment_name)
        return INVALID_ARGUMENT;
    if (strcmp(segment_name, ce_session(engine->ce)) == 0)
        return LOCAL_SEGMENT;
    return ce_open(engine->ce, segment_name) == MC_OK ? segment_of(engine, segment_name) : INVALID_ARGUMENT;
}

API segment_id_t openSegmentNoCache(transfer_engine_t handle, const char *segment_name)
{
    struct engine *engine = use(handle);
    enum mc_status status;
    uint64_t ignored;

    if (!engine || !segment_name)
        return INVALID_ARGUMENT;
    if (strcmp(segment_name, ce_session(engine->ce)) == 0)
        return LOCAL_SEGMENT;
    status = ce_first_address(engine->ce, segment_name, &ignored);
    return status == MC_OK || status == MC_ENOENT ? segment_of(engine, segment_name) : INVALID_ARGUMENT;
}

API int closeSegment(transfer_engine_t handle, segment_id_t segment_id)
{
    struct engine *engine = use(handle);
    int result;

    if (!engine)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&engine->lock);
    result = segment_id >= 0 && (size_t)segment_id <= engine->name_count ? 0 : INVALID_ARGUMENT;
    pthread_mutex_unlock(&engine->lock);
    return result;
}

API int syncSegmentCache(transfer_engine_t handle)
{
    struct engine *engine = use(handle);

    if (!engine)
        return INVALID_ARGUMENT;
    ce_forget(engine->ce);
    return 0;
}

API int removeLocalSegment(transfer_engine_t handle, const char *segment_name)
{
    return 0;
}

API int warmupEfaSegment(transfer_engine_t handle, const char *segment_name)
{
    return NOT_IMPLEMENTED;
}

/* ---- memory ---- */

API int registerLocalMemory(
    transfer_engine_t handle, void *addr, size_t length, const char *location, int remote_accessible)
{
    struct engine *engine = use(handle);

    return engine ? code_of(ce_register(engine->ce, addr, length)) : INVALID_ARGUMENT;
}

API int unregisterLocalMemory(transfer_engine_t handle, void *addr)
{
    struct engine *engine = use(handle);

    return engine ? code_of(ce_unregister(engine->ce, addr)) : INVALID_ARGUMENT;
}

API int registerLocalMemoryBatch(
    transfer_engine_t handle, buffer_entry_t *buffer_list, size_t buffer_len, const char *location)
{
    struct engine *engine = use(handle);
    size_t i;
    int code = 0;

    if (!engine || (!buffer_list && buffer_len))
        return INVALID_ARGUMENT;
    for (i = 0; i < buffer_len && code == 0; i++)
        code = code_of(ce_register(engine->ce, buffer_list[i].addr, buffer_list[i].length));
    if (code != 0)
        for (i--; i > 0; i--)
            ce_unregister(engine->ce, buffer_list[i - 1].addr);
    return code;
}

API int unregisterLocalMemoryBatch(transfer_engine_t handle, void **addr_list, size_t addr_len)
{
    struct engine *engine = use(handle);

    if (!engine || (!addr_list && addr_len))
        return INVALID_ARGUMENT;
    return code_of(ce_unregister_all(engine->ce, addr_list, addr_len));
}

/* ---- batches ---- */

static bool same_id(const struct hnode *node, const void *key)
{
    return container_of(node, struct batch, node)->id == *(const uint64_t *)key;
}

/* Lock held. */
static struct batch *batch_find(struct engine *engine, batch_id_t id)
{
    struct hnode *node = hashmap_find(&engine->batches, hash_mix(id), same_id, &id);

    return node ? container_of(node, struct batch, node) : NULL;
}

API batch_id_t allocateBatchID(transfer_engine_t handle, size_t batch_size)
{
    struct engine *engine = use(handle);
    struct batch *batch;
    batch_id_t id;

    if (!engine || batch_size == 0 || batch_size > BATCH_MAX)
        return INVALID_BATCH;
    batch = calloc(1, sizeof(*batch) + batch_size * sizeof(batch->tasks[0]));
    if (!batch)
        return INVALID_BATCH;
    batch->room = batch_size;
    pthread_mutex_lock(&engine->lock);
    id = batch->id = ++engine->last;
    hashmap_add(&engine->batches, &batch->node, hash_mix(id)); /* no bound: cannot fail */
    pthread_mutex_unlock(&engine->lock);
    return id;
}

/* Lock held. Calls of a submit are kept to be freed with the batch; room for them was made before they began. */
static bool calls_reserve(struct batch *batch, size_t more)
{
    struct ce_call **calls = realloc(batch->calls, (batch->call_count + more) * sizeof(struct ce_call *));

    if (calls)
        batch->calls = calls;
    return calls != NULL;
}

/* Those of `entries` that name the target of entries[first], and were not taken yet, as one call. */
struct group {
    struct ce_op *ops;
    size_t *tasks; /* index in `entries` of each op */
    size_t n;
};

static void group_fill(
    struct group *group, const struct transfer_request *entries, size_t count, size_t first, bool *taken)
{
    group->n = 0;
    for (size_t i = first; i < count; i++) {
        if (taken[i] || entries[i].target_id != entries[first].target_id)
            continue;
        taken[i] = true;
        group->tasks[group->n] = i;
        group->ops[group->n++] = (struct ce_op){
            .opcode = entries[i].opcode == OPCODE_WRITE ? MC_WRITE : MC_READ,
            .local = entries[i].source,
            .remote = entries[i].target_offset,
            .len = entries[i].length,
        };
    }
}

/* What became of a group: its tasks know their call, or why there is none. */
static void group_settle(struct engine *engine, struct batch *batch, size_t base, const struct group *group,
    struct ce_call *call, enum mc_status status, bool told)
{
    pthread_mutex_lock(&engine->lock);
    if (call && !calls_reserve(batch, 1)) {
        pthread_mutex_unlock(&engine->lock);
        ce_call_free(call);
        group_settle(engine, batch, base, group, NULL, MC_ENOMEM, told);
        return;
    }
    if (call)
        batch->calls[batch->call_count++] = call;
    for (size_t i = 0; i < group->n; i++) {
        struct task *task = &batch->tasks[base + group->tasks[i]];

        task->call = call;
        task->at = i;
        task->failed = status;
        task->told = told;
    }
    pthread_mutex_unlock(&engine->lock);
}

static enum mc_status group_start(struct engine *engine, struct batch *batch, size_t base, const struct group *group,
    segment_id_t target, const struct ce_note *note)
{
    char *name = target < 0 ? NULL : segment_name_of(engine, (uint64_t)target);
    struct ce_call *call = NULL;
    enum mc_status status = name ? ce_submit(engine->ce, name, group->ops, group->n, note, &call) : MC_EINVAL;

    group_settle(engine, batch, base, group, status == MC_OK ? call : NULL, status, note != NULL);
    free(name);
    return status;
}

static enum mc_status groups_start(struct engine *engine, struct batch *batch, size_t base,
    const struct transfer_request *entries, size_t count, const struct ce_note *note)
{
    struct group group = {.ops = calloc(count, sizeof(struct ce_op)), .tasks = calloc(count, sizeof(size_t))};
    bool *taken = calloc(count, sizeof(bool));
    enum mc_status worst = MC_OK;

    for (size_t i = 0; i < count; i++) {
        enum mc_status status = MC_ENOMEM;

        if (group.ops && group.tasks && taken) {
            if (taken[i])
                continue;
            group_fill(&group, entries, count, i, taken);
            status = group_start(engine, batch, base, &group, entries[i].target_id, i == 0 ? note : NULL);
        }
        worst = status == MC_OK ? worst : status;
    }
    free(group.ops);
    free(group.tasks);
    free(taken);
    return worst;
}

static int submit(struct engine *engine, batch_id_t id, const struct transfer_request *entries, size_t count,
    const struct ce_note *note)
{
    enum mc_status status;
    struct batch *batch;
    size_t base = 0;

    if (!engine || (!entries && count))
        return INVALID_ARGUMENT;
    for (size_t i = 0; i < count; i++)
        if (entries[i].opcode != OPCODE_READ && entries[i].opcode != OPCODE_WRITE)
            return INVALID_ARGUMENT;
    pthread_mutex_lock(&engine->lock);
    batch = batch_find(engine, id);
    if (!batch || count > batch->room - batch->used) {
        pthread_mutex_unlock(&engine->lock);
        return batch ? TOO_MANY_REQUESTS : INVALID_ARGUMENT;
    }
    base = batch->used;
    for (size_t i = 0; i < count; i++)
        batch->tasks[base + i] = (struct task){.len = entries[i].length, .failed = MC_PENDING};
    batch->used += count;
    batch->busy++;
    pthread_mutex_unlock(&engine->lock);
    status = groups_start(engine, batch, base, entries, count, note);
    pthread_mutex_lock(&engine->lock);
    batch->busy--;
    for (size_t i = 0; i < count; i++) /* without memory not even a group could be made */
        if (!batch->tasks[base + i].call && batch->tasks[base + i].failed == MC_PENDING)
            batch->tasks[base + i].failed = status;
    pthread_mutex_unlock(&engine->lock);
    return status == MC_OK ? 0 : INVALID_ARGUMENT;
}

API int submitTransfer(transfer_engine_t handle, batch_id_t batch_id, struct transfer_request *entries, size_t count)
{
    return submit(use(handle), batch_id, entries, count, NULL);
}

static struct ce_note note_of(const notify_msg_t *msg)
{
    const char *name = msg->name ? msg->name : "", *text = msg->msg ? msg->msg : "";

    return (struct ce_note){name, text, strlen(name), strlen(text)};
}

API int submitTransferWithNotify(transfer_engine_t handle, batch_id_t batch_id, struct transfer_request *entries,
    size_t count, notify_msg_t notify_msg)
{
    struct ce_note note = note_of(&notify_msg);

    return submit(use(handle), batch_id, entries, count, &note);
}

static int status_of(enum mc_status status)
{
    switch (status) {
    case MC_OK: return STATUS_COMPLETED;
    case MC_PENDING: return STATUS_PENDING;
    case MC_ETIMEDOUT: return STATUS_TIMEOUT;
    case MC_ECANCELED:
    case MC_ECLOSED: return STATUS_CANCELED;
    case MC_EINVAL: return STATUS_INVALID;
    default: return STATUS_FAILED;
    }
}

/* Lock held. A task whose bytes arrived has completed although others of its call failed, but not without its notification. */
static enum mc_status task_status(const struct task *task)
{
    enum mc_status whole, own;

    if (!task->call)
        return task->failed;
    whole = ce_call_wait(task->call, 0);
    if (whole == MC_OK || whole == MC_PENDING)
        return whole;
    own = ce_call_op(task->call, task->at);
    return own == MC_OK && task->told ? whole : own;
}

API int getTransferStatus(transfer_engine_t handle, batch_id_t batch_id, size_t task_id, struct transfer_status *status)
{
    struct engine *engine = use(handle);
    struct batch *batch;
    int result = INVALID_ARGUMENT;

    if (!engine || !status)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&engine->lock);
    batch = batch_find(engine, batch_id);
    if (batch && task_id < batch->used) {
        const struct task *task = &batch->tasks[task_id];

        status->status = status_of(task_status(task));
        status->transferred_bytes = status->status == STATUS_COMPLETED ? task->len : 0;
        result = 0;
    }
    pthread_mutex_unlock(&engine->lock);
    return result;
}

API int freeBatchID(transfer_engine_t handle, batch_id_t batch_id)
{
    struct engine *engine = use(handle);
    struct batch *batch;
    int result = 0;

    if (!engine)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&engine->lock);
    batch = batch_find(engine, batch_id);
    if (!batch)
        result = INVALID_ARGUMENT;
    else if (batch->busy)
        result = BATCH_BUSY;
    for (size_t i = 0; result == 0 && i < batch->call_count; i++)
        if (ce_call_wait(batch->calls[i], 0) == MC_PENDING)
            result = BATCH_BUSY;
    if (result == 0)
        hashmap_del(&engine->batches, &batch->node);
    pthread_mutex_unlock(&engine->lock);
    if (result == 0)
        batch_free(batch);
    return result;
}

/* ---- notifications ---- */

API notify_msg_t *getNotifsFromEngine(transfer_engine_t handle, int *size)
{
    struct engine *engine = use(handle);
    notify_msg_t *out;
    struct ce_notes notes;

    if (!size)
        return NULL;
    *size = 0;
    if (!engine || ce_notes_take(engine->ce, &notes) != MC_OK || notes.count == 0)
        return NULL;
    out = calloc(notes.count, sizeof(*out));
    for (size_t i = 0; out && i < notes.count; i++) {
        out[i].name = strdup(notes.note[i].name);
        out[i].msg = strdup(notes.note[i].msg);
        *size = (int)i + 1;
    }
    ce_notes_free(&notes);
    return out;
}

API int freeNotifsMsgBuf(notify_msg_t *msg, int size)
{
    for (int i = 0; msg && i < size; i++) {
        free(msg[i].name);
        free(msg[i].msg);
    }
    free(msg);
    return 0;
}

API int genNotifyInEngine(transfer_engine_t handle, uint64_t target_id, notify_msg_t notify_msg)
{
    struct ce_note note = note_of(&notify_msg);
    struct engine *engine = use(handle);
    enum mc_status status;
    char *name;

    if (!engine)
        return INVALID_ARGUMENT;
    name = segment_name_of(engine, target_id);
    status = name ? ce_notify(engine->ce, name, &note) : MC_EINVAL;
    free(name);
    return status == MC_OK ? 0 : INVALID_ARGUMENT;
}

/* ---- looking ---- */

API int getNicLoadStats(transfer_engine_t handle, nic_load_stat_t *stats, size_t *count)
{
    if (!handle || !count)
        return INVALID_ARGUMENT;
    *count = 0;
    return 0;
}

API int showLinks(transfer_engine_t handle, char *buf_out, size_t buf_len, int json)
{
    struct engine *engine = use(handle);
    char *text = engine ? ce_show_peers(engine->ce, json != 0) : NULL;
    int result = put_text(text, buf_out, buf_len);

    free(text);
    return result;
}
