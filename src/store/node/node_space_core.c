/* node_space_core.c - objects and the space they take: making room, giving back, pins.
 *
 * One rule holds it together: space goes back to the allocator only in obj_release(), which kills the header first, and which
 * is reached only when nothing is pulled into the object and nobody pins it. */
#include "store/node/node_impl.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"

struct obj *node_obj_at(const struct node_core *core, uint32_t slot)
{
    return &core->slabs[slot >> SLAB_BITS][slot & (SLAB_OBJS - 1)];
}

static bool key_is(const struct hnode *node, const void *arg)
{
    const struct obj *obj = container_of(node, struct obj, by_key);

    return (obj->state == OBJ_PRESENT || obj->state == OBJ_UNINDEXED) && store_key_eq(&obj->key, arg);
}

struct obj *node_obj_find(const struct node_core *core, const struct store_key *key)
{
    struct hnode *node = hashmap_find(&core->by_key, store_key_hash(key, core->seed), key_is, key);

    return node ? container_of(node, struct obj, by_key) : NULL;
}

static bool generation_is(const struct hnode *node, const void *arg)
{
    return container_of(node, struct obj, by_gen)->generation == *(const uint64_t *)arg;
}

struct obj *node_obj_by_generation(const struct node_core *core, uint64_t generation)
{
    struct hnode *node = hashmap_find(&core->by_gen, hash_mix(generation), generation_is, &generation);

    return node ? container_of(node, struct obj, by_gen) : NULL;
}

/* ---- what the policy is told ---- */

static uint64_t evict_id(const struct store_key *key)
{
    return store_key_hash(key, 0);
}

static uint64_t parent_id(const struct store_key *key, const uint8_t parent[16])
{
    struct store_key up = *key;

    if (key->kind != MC_KEY_BLOCK)
        return EVICT_NO_ID;
    memcpy(up.id, parent, 16);
    return evict_id(&up);
}

/* Without memory for it policy and curve know less, and nothing else is lost. */
static void asked(struct node_core *core, uint64_t now, const struct evict_run *run, uint32_t hits)
{
    (void)evict_ask(core->evict, run, now);
    (void)curve_ask(core->curve, run, hits);
}

/* And its bundle. */
static void touch(struct node_core *core, uint64_t now, const struct obj *obj)
{
    struct bundle *bundle = obj->bundle;

    if (!bundle || now - bundle->used_at < BUNDLE_TOUCH_MS * NS_PER_MS) {
        if (obj->evictable)
            evict_touch(core->evict, obj->slot, now);
        return;
    }
    bundle->used_at = now;
    list_for_each (it, &bundle->objs)
        touch(core, now, list_entry(it, struct obj, mate));
}

void node_objs_used(struct node_core *core, uint64_t now, struct obj *const *objs, uint32_t count)
{
    uint64_t ids[TOUCH_RUN];

    for (uint32_t i = 0, n; i < count; i += n) {
        for (n = 0; i + n < count && n < TOUCH_RUN && (n == 0 || objs[i + n]->up == ids[n - 1]); n++)
            ids[n] = evict_id(&objs[i + n]->key);
        asked(core, now, &(struct evict_run){ids, n, objs[i]->up}, n);
        for (uint32_t j = i; j < i + n; j++)
            touch(core, now, objs[j]);
    }
}

static uint32_t next_victim(struct node_core *core, uint64_t now)
{
    (void)curve_full(core->curve, core->evictable);
    return evict_victim(core->evict, now);
}

/* ---- ledger ---- */

void node_obj_move(struct node_core *core, struct obj *obj, enum store_ledger_row row)
{
    struct store_count *from = &core->ledger.row[obj->row], *to = &core->ledger.row[row];

    from->objects--;
    from->bytes -= obj->length;
    to->objects++;
    to->bytes += obj->length;
    obj->row = (uint8_t)row;
}

/* ---- slots ---- */

static struct obj *slot_get(struct node_core *core)
{
    struct list *link = list_pop_front(&core->free_slots);
    uint32_t slot = core->slots;
    struct obj *obj;

    if (link) {
        obj = list_entry(link, struct obj, link);
        slot = obj->slot;
    } else {
        if (slot >= core->limits.objects_max)
            return NULL;
        if (!core->slabs[slot >> SLAB_BITS]) {
            core->slabs[slot >> SLAB_BITS] = malloc(SLAB_OBJS * sizeof(struct obj));
            if (!core->slabs[slot >> SLAB_BITS])
                return NULL;
        }
        core->slots++;
        obj = node_obj_at(core, slot);
    }
    *obj = (struct obj){.slot = slot, .block = ALLOC_NONE};
    list_init(&obj->link);
    list_init(&obj->mate);
    return obj;
}

static void slot_put(struct node_core *core, struct obj *obj)
{
    obj->state = OBJ_FREE;
    list_push_front(&core->free_slots, &obj->link);
}

/* ---- giving back ---- */

static void obj_release(struct node_core *core, struct obj *obj)
{
    assert(obj->pins == 0);
    if (!core->bugs.keep_header)
        object_kill(obj->at);
    alloc_put(core->alloc, obj->block);
    hashmap_del(&core->by_gen, &obj->by_gen);
    slot_put(core, obj);
}

/* Members of a bundle are seen together, by one answer of the master. */
void node_obj_publish(struct node_core *core, const struct obj *obj)
{
    if (core->names.table && obj->key.kind == MC_KEY_NAMED && !obj->bundle)
        names_add(core->names.table, store_key_hash(&obj->key, 0), obj->segment, obj->offset);
}

static void unpublish(struct node_core *core, const struct obj *obj)
{
    if (core->names.table && obj->key.kind == MC_KEY_NAMED)
        names_remove(core->names.table, store_key_hash(&obj->key, 0), obj->segment, obj->offset);
}

static void forget_key(struct node_core *core, uint64_t now, struct obj *obj, enum evict_why why)
{
    if (obj->evictable) {
        evict_remove(core->evict, obj->slot, evict_id(&obj->key), why, now);
        core->evictable--;
    }
    obj->evictable = false;
    if (obj->state == OBJ_COMMITTING || obj->state == OBJ_UNINDEXED || obj->state == OBJ_PRESENT)
        hashmap_del(&core->by_key, &obj->by_key);
    if (obj->state == OBJ_PRESENT)
        unpublish(core, obj);
    if (obj->state == OBJ_UNINDEXED)
        core->unindexed--;
}

void node_obj_free(struct node_core *core, uint64_t now, struct obj *obj, enum store_ledger_row row)
{
    bool evicted = row == LEDGER_EVICTED_SPACE || row == LEDGER_EVICTED_WATERMARK;

    assert(obj->state != OBJ_DEAD && obj->state != OBJ_FREE);
    forget_key(core, now, obj, evicted ? EVICT_EVICTED : EVICT_REMOVED);
    list_del(&obj->link);
    node_obj_move(core, obj, row);
    if (evicted)
        core->evictions++;
    if (obj->bundle)
        node_bundle_leave(core, now, obj);
    if (obj->pins) {
        object_stamp_dead(obj->at, obj->header_len);
        obj->state = OBJ_DEAD;
        return;
    }
    obj_release(core, obj);
}

/* ---- making room ---- */

static void let_go(struct node_core *core, uint64_t now, struct obj *obj, enum store_ledger_row row)
{
    node_gone(core, obj);
    node_obj_free(core, now, obj, row);
}

/* With its bundle, if it is of one: that goes with its last member. */
static void evict_one(struct node_core *core, uint64_t now, struct obj *obj, enum store_ledger_row row)
{
    struct bundle *bundle = obj->bundle;

    if (!bundle)
        let_go(core, now, obj, row);
    for (uint32_t left = bundle ? bundle->count : 0; left > 0; left--)
        let_go(core, now, list_first(&bundle->objs, struct obj, mate), row);
}

static uint64_t cost_of(void *arg, uint32_t slot, uint64_t length)
{
    const struct obj *obj = node_obj_at(arg, slot);

    if (!obj->evictable || obj->pins || obj->hard_pin || (obj->bundle && obj->bundle->pins))
        return ALLOC_NEVER;
    if (obj->bundle)
        length = obj->bundle->bytes;
    return length * (obj->promised ? 4 : 1) * (obj->soft_pin ? 16 : 1);
}

/* Free the cheapest run of neighbours near the policy's next victim and allocate there. */
static enum mc_status take_run(struct node_core *core, uint64_t now, uint64_t size, uint32_t owner, uint32_t *block)
{
    uint32_t victim = next_victim(core, now), slot;
    struct alloc_place place;
    struct alloc_run run;
    struct alloc_run_iter it;
    enum mc_status status;

    if (victim == EVICT_NONE)
        return MC_ENOSPC;
    status = alloc_plan(core->alloc, size, node_obj_at(core, victim)->block, cost_of, core, &run);
    if (status != MC_OK)
        return status;
    place = alloc_where(core->alloc, run.first);
    buf_reset(&core->owners); /* first collected: freeing merges blocks */
    for (it = alloc_run_begin(&run); alloc_run_next(core->alloc, &it, &slot);)
        put_u32(&core->owners, slot);
    if (buf_status(&core->owners) != MC_OK)
        return MC_ENOMEM;
    for (size_t i = 0; i < core->owners.len; i += 4) {
        struct obj *obj = node_obj_at(core, le32_get(core->owners.data + i));

        if (obj->evictable) /* else it went with its bundle */
            evict_one(core, now, obj, LEDGER_EVICTED_SPACE);
    }
    return alloc_take(core->alloc, place.segment, place.offset, size, owner, block);
}

static enum mc_status space_get(struct node_core *core, uint64_t now, uint64_t size, uint32_t owner, uint32_t *block)
{
    enum mc_status status = alloc_get(core->alloc, size, owner, block);

    if (status != MC_ENOSPC)
        return status;
    while (alloc_free_bytes(core->alloc) < size) {
        uint32_t victim = next_victim(core, now);

        if (victim == EVICT_NONE)
            return MC_ENOSPC;
        evict_one(core, now, node_obj_at(core, victim), LEDGER_EVICTED_SPACE);
    }
    status = alloc_get(core->alloc, size, owner, block);
    return status == MC_ENOSPC ? take_run(core, now, size, owner, block) : status;
}

static uint64_t used_bytes(const struct node_core *core)
{
    return alloc_total_bytes(core->alloc) - alloc_free_bytes(core->alloc);
}

void node_watermark(struct node_core *core, uint64_t now)
{
    uint64_t total = alloc_total_bytes(core->alloc);

    if (used_bytes(core) > total / 100 * core->limits.high_percent)
        core->evicting = true;
    for (int i = 0; core->evicting && i < EVICT_SLICE; i++) {
        uint32_t victim = EVICT_NONE;

        if (used_bytes(core) > total / 100 * core->limits.low_percent)
            victim = next_victim(core, now);
        if (victim == EVICT_NONE)
            core->evicting = false;
        else
            evict_one(core, now, node_obj_at(core, victim), LEDGER_EVICTED_WATERMARK);
    }
    if (core->evicting)
        node_wake_at(core, now);
}

/* ---- life of an object ---- */

enum mc_status node_obj_create(struct node_core *core, uint64_t now, const struct store_key *key,
    const uint8_t parent[16], const struct object_plan *plan, struct obj **out)
{
    uint64_t id = evict_id(key), up = parent_id(key, parent);
    struct obj *obj;
    struct alloc_place place;
    enum mc_status status;

    asked(core, now, &(struct evict_run){&id, 1, up}, 0);
    obj = slot_get(core);
    if (!obj) { /* at the ceiling of objects: one goes */
        uint32_t victim = next_victim(core, now);

        if (victim == EVICT_NONE)
            return MC_ENOSPC;
        evict_one(core, now, node_obj_at(core, victim), LEDGER_EVICTED_SPACE);
        obj = slot_get(core);
        if (!obj)
            return MC_ENOSPC;
    }
    status = space_get(core, now, object_size(plan), obj->slot, &obj->block);
    if (status != MC_OK) {
        slot_put(core, obj);
        return status == MC_ETOOBIG ? MC_ENOSPC : status;
    }
    place = alloc_where(core->alloc, obj->block);
    obj->at = (uint8_t *)core->memory[place.segment].base + place.offset;
    obj->segment = place.segment;
    obj->offset = place.offset;
    obj->header_len = plan->header_len;
    obj->length = plan->length;
    obj->key = *key;
    obj->up = up;
    obj->generation = (uint64_t)core->self.epoch << 40 | ++core->next_generation;
    obj->state = OBJ_WRITING;
    obj->row = LEDGER_IN_FLIGHT;
    object_kill(obj->at); /* whatever payload lay here before */
    hashmap_add(&core->by_gen, &obj->by_gen, hash_mix(obj->generation));
    core->ledger.row[LEDGER_ACCEPTED].objects++;
    core->ledger.row[LEDGER_ACCEPTED].bytes += obj->length;
    core->ledger.row[LEDGER_IN_FLIGHT].objects++;
    core->ledger.row[LEDGER_IN_FLIGHT].bytes += obj->length;
    *out = obj;
    return MC_OK;
}

/* Header and payload are in place: its key can be found, and its name lies in the header. */
void node_obj_sealed(struct node_core *core, struct obj *obj)
{
    obj->state = OBJ_COMMITTING;
    if (obj->key.name.len)
        obj->key.name = slice_of(obj->at + OBJECT_FIXED, obj->key.name.len);
    hashmap_add(&core->by_key, &obj->by_key, store_key_hash(&obj->key, core->seed));
}

void node_obj_present(struct node_core *core, uint64_t now, struct obj *obj)
{
    struct object_header header;
    struct evict_object what = {
        .id = evict_id(&obj->key),
        .size = object_size(&(struct object_plan){.length = obj->length, .header_len = obj->header_len}),
        .parent = EVICT_NONE,
        .soft_pin = obj->soft_pin,
    };

    if (obj->evictable)
        return;
    if (object_parse(obj->at, obj->header_len, &header) == MC_OK) {
        struct store_key parent = obj->key;
        struct obj *there;

        memcpy(parent.id, header.parent, 16);
        there = obj->key.kind == MC_KEY_BLOCK ? node_obj_find(core, &parent) : NULL;
        if (there && there->evictable && there != obj)
            what.parent = there->slot;
        what.depth = header.depth;
    }
    obj->evictable = evict_add(core->evict, obj->slot, &what, now) == MC_OK;
    core->evictable += obj->evictable;
    if (obj->evictable && (obj->pins || obj->hard_pin || (obj->bundle && obj->bundle->pins)))
        evict_pin(core->evict, obj->slot, now);
    if (used_bytes(core) > alloc_total_bytes(core->alloc) / 100 * core->limits.high_percent)
        node_wake_at(core, now);
}

void node_obj_pin(struct node_core *core, uint64_t now, struct obj *obj)
{
    if (obj->pins++ > 0)
        return;
    core->pinned += obj->header_len + obj->length;
    if (obj->bundle)
        node_bundle_pin(core, now, obj->bundle, true);
    else if (obj->evictable && !obj->hard_pin)
        evict_pin(core->evict, obj->slot, now);
}

void node_obj_unpin(struct node_core *core, uint64_t now, struct obj *obj)
{
    if (--obj->pins > 0)
        return;
    core->pinned -= obj->header_len + obj->length;
    if (obj->state == OBJ_DEAD)
        obj_release(core, obj);
    else if (obj->bundle)
        node_bundle_pin(core, now, obj->bundle, false);
    else if (obj->evictable && !obj->hard_pin)
        evict_unpin(core->evict, obj->slot, now);
}
