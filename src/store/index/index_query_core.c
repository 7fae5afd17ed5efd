/* index_query_core.c - answers: lookups, longest prefixes, lists, models. They change nothing but promises. */
#include "store/index/index_impl.h"

#include <stdlib.h>

enum { LIST_MAX = 4096, PROMISE_STEP_MS = 250 };

/* ---- rows: the nodes an answer names ---- */

static void answer_begin(struct index_core *core)
{
    buf_reset(&core->rows);
    buf_reset(&core->locs);
    buf_reset(&core->misses);
    core->stamp++;
}

static uint16_t row_of(struct index_core *core, uint16_t owner, uint32_t lead)
{
    const struct member *m = &core->members[owner];
    struct store_row row = {.epoch = m->info.epoch, .state = m->info.state, .lead = lead};

    if (core->row_stamp[owner] != core->stamp) {
        memcpy(row.uuid, m->info.uuid, 16);
        core->row_stamp[owner] = core->stamp;
        core->row_of[owner] = (uint16_t)store_row_count(buf_slice(&core->rows));
        store_row_put(&core->rows, &row);
    }
    return core->row_of[owner];
}

static void loc_put(struct index_core *core, uint32_t key, const struct table_copy *copy, uint32_t lead)
{
    struct store_loc loc = {
        .key = key,
        .node = row_of(core, copy->owner, lead),
        .segment = copy->segment,
        .head = copy->head,
        .offset = copy->offset,
        .length = copy->length,
        .generation = copy->generation,
        .version = copy->version,
    };

    store_loc_put(&core->locs, &loc);
}

/* ---- evictions remembered, to tell `evicted` from `never` ---- */

static uint32_t *ghost_of(struct index_core *core, const struct store_key *key, uint32_t *tag)
{
    uint64_t hash = store_key_hash(key, ~core->seed);

    *tag = (uint32_t)(hash >> 32) | 1;
    return &core->ghosts[hash % GHOSTS];
}

void index_ghost_set(struct index_core *core, const struct store_key *key, bool evicted)
{
    uint32_t tag, *ghost = ghost_of(core, key, &tag);

    if (evicted)
        *ghost = tag;
    else if (*ghost == tag)
        *ghost = 0;
}

static enum mc_miss miss_of(struct index_core *core, const struct store_key *key)
{
    uint32_t tag, *ghost = ghost_of(core, key, &tag);

    return *ghost == tag ? MC_MISS_EVICTED : MC_MISS_NEVER;
}

static uint32_t promise_ms_of(const struct index_core *core, uint32_t asked)
{
    if (asked == MC_LEASE_MASTER)
        return core->limits.lease_ms;
    return asked < core->limits.promise_max_ms ? asked : core->limits.promise_max_ms;
}

/* Promise an entry, and say for how long its owners have to hear of it; 0: what they were told last covers this, too. A key that is
 * asked for all the time would cost its owner a notice each time: so they are told when the promise gets into another step, and
 * a step more than anybody was promised. */
static uint32_t promise(struct index_core *core, uint64_t now, uint32_t entry, uint32_t ms)
{
    uint64_t until = now + ms * NS_PER_MS, before = table_promised(core->table, entry);

    if (ms == 0 || until <= before)
        return 0;
    table_promise(core->table, entry, until);
    return until / (PROMISE_STEP_MS * NS_PER_MS) == before / (PROMISE_STEP_MS * NS_PER_MS) ? 0 : ms + PROMISE_STEP_MS;
}

static bool rebuilding(const struct index_core *core)
{
    for (uint32_t i = 0; i < core->members_top; i++)
        if (core->members[i].used && core->members[i].reporting && core->members[i].info.state != NODE_UNREACHABLE)
            return true;
    return false;
}

/* ---- lookup ---- */

/* All copies whose owner may answer, the sure ones first. */
static enum mc_miss lookup_one(
    struct index_core *core, uint64_t now, const struct store_key *key, uint32_t index, uint32_t promise_ms)
{
    uint32_t entry = table_find(core->table, key), found = 0, down = 0, tell_ms = 0;
    struct table_copy copy;

    for (int suspects = 0; entry != TABLE_NONE && suspects <= 1; suspects++) {
        for (uint32_t at = TABLE_NONE; table_next(core->table, entry, &at, &copy);) {
            enum store_node_state state = core->members[copy.owner].info.state;

            if (copy.doomed || (state == NODE_SUSPECT) != suspects)
                continue;
            if (state == NODE_UNREACHABLE) {
                down++;
                continue;
            }
            if (found < MC_REPLICAS_MAX)
                loc_put(core, index, &copy, 0);
            if (found++ == 0)
                tell_ms = promise(core, now, entry, promise_ms);
            if (tell_ms)
                index_promise(core, now, copy.owner, copy.generation, tell_ms);
        }
    }
    if (!found)
        return down ? MC_MISS_PEER_DOWN : miss_of(core, key);
    return MC_MISS_NONE;
}

void index_on_lookup(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct store_msg reply = store_msg_reply(msg, MC_OK);
    struct cur list = cur_of_slice(msg->lookup.keys);
    uint32_t promise_ms = promise_ms_of(core, msg->lookup.promise_ms);
    struct store_key key;

    answer_begin(core);
    for (uint32_t i = 0; store_key_next(&list, msg->lookup.ns, &key); i++)
        put_u8(&core->misses, (uint8_t)lookup_one(core, now, &key, i, promise_ms));
    core->stats.lookups++;
    reply.found = (struct store_found){
        .rebuilding = rebuilding(core),
        .rows = buf_slice(&core->rows),
        .locs = buf_slice(&core->locs),
        .misses = buf_slice(&core->misses),
    };
    if (buf_status(&core->locs) != MC_OK)
        reply.status = MC_ETOOBIG;
    index_reply(core, peer, &reply);
}

/* ---- prefix ---- */

/* A prefix query being answered. */
struct prefix_answer {
    struct index_core *core;
    const struct store_prefix *query;
    uint64_t now;
    uint32_t promise_ms;
    uint64_t bytes;
};

static bool prefix_readable(const void *arg, uint16_t owner)
{
    const struct prefix_answer *answer = arg;

    return index_readable(answer->core, owner);
}

/* A part of a block of the prefix: promise its copies, and name those of the part that is asked for. */
static void prefix_found(void *arg, uint32_t block, uint16_t shard, uint32_t entry)
{
    struct prefix_answer *answer = arg;
    struct index_core *core = answer->core;
    uint32_t tell_ms = promise(core, answer->now, entry, answer->promise_ms);
    struct table_copy copy;
    uint32_t n = 0;

    for (uint32_t at = TABLE_NONE; table_next(core->table, entry, &at, &copy);) {
        if (copy.doomed || !index_readable(core, copy.owner))
            continue;
        if (tell_ms)
            index_promise(core, answer->now, copy.owner, copy.generation, tell_ms);
        if (shard != answer->query->shard)
            continue;
        row_of(core, copy.owner, 0);
        if (!answer->query->no_locations && n < MC_REPLICAS_MAX)
            loc_put(core, block, &copy, 0);
        if (n++ == 0)
            answer->bytes += copy.length;
    }
}

/* Rows were written when the node was first seen; what they lead is known only now. */
static void leads_write(struct index_core *core)
{
    for (uint32_t i = 0; i < core->members_top; i++)
        if (core->row_stamp[i] == core->stamp)
            le32_put(core->rows.data + (size_t)core->row_of[i] * STORE_ROW_SIZE + 24,
                prefix_lead(&core->leads, (uint16_t)i));
}

void index_on_prefix(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    const struct store_prefix *q = &msg->prefix;
    struct prefix_answer answer = {core, q, now, promise_ms_of(core, q->promise_ms), 0};
    const struct prefix_query query = {.table = core->table,
        .ns = q->ns,
        .group = q->group,
        .shard = q->shard,
        .shards = q->shards,
        .ids = (const uint8_t(*)[16])q->ids.ptr,
        .count = (uint32_t)(q->ids.len / 16),
        .readable = prefix_readable,
        .found = prefix_found,
        .arg = &answer};
    struct store_msg reply = store_msg_reply(msg, MC_OK);

    answer_begin(core);
    uint32_t blocks = prefix_walk(&query, &core->leads);
    leads_write(core);
    core->stats.prefixes++;
    core->stats.prefix_blocks += blocks;
    reply.found = (struct store_found){
        .bytes = answer.bytes,
        .blocks = blocks,
        .rebuilding = rebuilding(core),
        .rows = buf_slice(&core->rows),
        .locs = buf_slice(&core->locs),
    };
    if (buf_status(&core->locs) != MC_OK)
        reply.status = MC_ETOOBIG;
    index_reply(core, peer, &reply);
}

/* ---- list ---- */

static bool listed(const struct store_key *key, const struct store_list *q)
{
    return key->ns == q->ns && (q->prefix.len == 0 || (key->kind == MC_KEY_NAMED && key->name.len >= q->prefix.len &&
                                                          memcmp(key->name.ptr, q->prefix.ptr, q->prefix.len) == 0));
}

void index_on_list(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    const struct store_list *q = &msg->list;
    struct store_msg reply = store_msg_reply(msg, MC_OK);
    uint32_t max = q->max && q->max < LIST_MAX ? q->max : LIST_MAX, n = 0, scanned = 0;
    uint32_t entry = q->cursor < UINT32_MAX ? table_walk(core->table, (uint32_t)q->cursor) : TABLE_NONE;

    answer_begin(core);
    buf_reset(&core->out);
    for (; entry != TABLE_NONE && n < max && scanned < 16 * LIST_MAX; scanned++) {
        struct store_entry e = {.key = table_key(core->table, entry)};
        struct table_copy copy;

        if (listed(&e.key, q)) {
            for (uint32_t at = TABLE_NONE; table_next(core->table, entry, &at, &copy);) {
                if (copy.doomed)
                    continue;
                e.generation = copy.generation;
                e.version = copy.version;
                e.length = copy.length;
                e.segment = row_of(core, copy.owner, 0);
                store_entry_put(&core->out, &e);
                n++;
                break;
            }
        }
        entry = table_walk(core->table, entry + 1);
    }
    reply.list = (struct store_list){
        .ns = q->ns,
        .cursor = entry == TABLE_NONE ? 0 : entry,
        .entries = buf_slice(&core->out),
        .rows = buf_slice(&core->rows),
    };
    index_reply(core, peer, &reply);
}

/* ---- models ---- */

static struct model *model_find(struct index_core *core, struct slice name)
{
    list_for_each (it, &core->models) {
        struct model *model = list_entry(it, struct model, link);

        if (slice_eq(slice_of(model->bytes, model->name_len), name))
            return model;
    }
    return NULL;
}

static enum mc_status model_add(struct index_core *core, struct slice name, struct slice record)
{
    struct model *model;
    uint32_t n = 0;

    list_for_each (it, &core->models)
        n++;
    if (n >= core->limits.models_max)
        return MC_EBUSY;
    model = malloc(sizeof(*model) + name.len + record.len);
    if (!model)
        return MC_ENOMEM;
    model->name_len = name.len;
    model->record_len = record.len;
    memcpy(model->bytes, name.ptr, name.len);
    if (record.len)
        memcpy(model->bytes + name.len, record.ptr, record.len);
    list_push_back(&core->models, &model->link);
    return MC_OK;
}

/* The first record of a name stays; a different one is answered with it, so that the caller can name the field. */
void index_on_model(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct store_msg reply = store_msg_reply(msg, MC_OK);
    struct model *model = model_find(core, msg->model.name);

    if (!msg->model.name.len) {
        reply.status = MC_EINVAL;
    } else if (!model) {
        reply.status = model_add(core, msg->model.name, msg->model.record);
    } else {
        struct slice record = slice_of(model->bytes + model->name_len, model->record_len);

        reply.model = (struct store_model){msg->model.name, record};
        if (!slice_eq(record, msg->model.record))
            reply.status = MC_EMISMATCH;
    }
    index_reply(core, peer, &reply);
}
