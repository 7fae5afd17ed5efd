/* hot.c - see hot.h. */
#include "store/client/hot.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/hash.h"
#include "base/pages.h"
#include "transfer/te.h"

enum {
    WAYS = 4,
    SETS_MIN = HOT_LOCKS,
    SETS_MAX = 1 << 20,
    TOUCH_MS = 100, /* one hint per object and this long is enough */
    EDGE_MAX = MC_CHUNK_MAX,
};

struct hot_entry {
    struct store_key key; /* without a name */
    uint64_t generation, offset, length;
    uint32_t peer, segment, head;
    uint32_t used_ms;    /* of the last read, low 32 bits of milliseconds */
    uint32_t touched_ms; /* of the last hint */
    bool valid;
};

struct hot_set {
    struct hot_entry way[WAYS]; /* guarded by the set's lock */
};

struct hot_node {
    uint8_t uuid[16];
    _Atomic bool up;
    struct names_view names;
    uint32_t segments;
    struct hot_segment segment[];
};

enum mc_status hot_init(struct hot *hot, uint32_t entries, uint32_t nodes_max)
{
    uint32_t sets = SETS_MIN;

    *hot = (struct hot){.seed = hash_seed(), .nodes_max = nodes_max};
    while (sets < SETS_MAX && sets * WAYS < entries)
        sets *= 2;
    hot->sets_mask = sets - 1;
    hot->sets = pages_get(sets * sizeof(*hot->sets));
    hot->nodes = calloc(nodes_max, sizeof(*hot->nodes));
    hot->named = calloc(nodes_max, sizeof(*hot->named));
    if (!hot->sets || !hot->nodes || !hot->named) {
        pages_put(hot->sets, sets * sizeof(*hot->sets));
        free(hot->nodes);
        free(hot->named);
        hot->sets = NULL;
        return MC_ENOMEM;
    }
    for (uint32_t i = 0; i < HOT_LOCKS; i++)
        pthread_mutex_init(&hot->locks[i], NULL);
    pthread_rwlock_init(&hot->nodes_lock, NULL);
    pthread_mutex_init(&hot->touch_lock, NULL);
    return MC_OK;
}

void hot_fini(struct hot *hot)
{
    if (!hot->sets)
        return;
    for (uint32_t i = 0; i < hot->nodes_max; i++)
        free(hot->nodes[i]);
    for (uint32_t i = 0; i < HOT_LOCKS; i++)
        pthread_mutex_destroy(&hot->locks[i]);
    pthread_rwlock_destroy(&hot->nodes_lock);
    pthread_mutex_destroy(&hot->touch_lock);
    pages_put(hot->sets, (hot->sets_mask + 1) * sizeof(*hot->sets));
    free(hot->nodes);
    free(hot->named);
}

/* ---- nodes ---- */

/* Which nodes are asked for names: each once, also when it is of this process and mapped besides. nodes_lock is held. */
static void named_find(struct hot *hot)
{
    const struct hot_node *own = hot->nodes[HOT_OWN];

    hot->named_count = 0;
    for (uint32_t i = 0; i < hot->nodes_max; i++) {
        const struct hot_node *node = hot->nodes[i];

        if (node && node->names.names && (node == own || !own || memcmp(node->uuid, own->uuid, 16) != 0))
            hot->named[hot->named_count++] = i;
    }
}

/* Returns what was there. */
static struct hot_node *node_change(struct hot *hot, uint32_t peer, struct hot_node *node)
{
    struct hot_node *old;

    pthread_rwlock_wrlock(&hot->nodes_lock);
    old = hot->nodes[peer];
    hot->nodes[peer] = node;
    named_find(hot);
    pthread_rwlock_unlock(&hot->nodes_lock);
    return old;
}

enum mc_status hot_node_set(struct hot *hot, uint32_t peer, const uint8_t uuid[16], const struct hot_segment *segments,
    uint32_t count, const struct names_view *names)
{
    struct hot_node *node;

    if (peer >= hot->nodes_max)
        return MC_EINVAL;
    node = calloc(1, sizeof(*node) + count * sizeof(node->segment[0]));
    if (!node)
        return MC_ENOMEM;
    memcpy(node->uuid, uuid, 16);
    node->names = *names;
    node->segments = count;
    memcpy(node->segment, segments, count * sizeof(node->segment[0]));
    free(node_change(hot, peer, node));
    return MC_OK;
}

void hot_node_up(struct hot *hot, uint32_t peer, bool up)
{
    if (peer < hot->nodes_max && hot->nodes[peer])
        atomic_store(&hot->nodes[peer]->up, up);
}

void hot_node_clear(struct hot *hot, uint32_t peer)
{
    if (peer < hot->nodes_max)
        free(node_change(hot, peer, NULL));
}

/* Where an object lies in our address space; NULL: not readable here. *room: bytes from there to the end. nodes_lock is held. */
static const uint8_t *mapped(const struct hot_node *node, uint32_t segment, uint64_t offset, uint64_t *room)
{
    if (!node || !atomic_load(&node->up) || segment >= node->segments || !node->segment[segment].base ||
        offset > node->segment[segment].size)
        return NULL;
    *room = node->segment[segment].size - offset;
    return node->segment[segment].base + offset;
}

/* ---- the table ---- */

/* Set of a key, locked. */
static struct hot_set *set_lock(struct hot *hot, const struct store_key *key)
{
    uint32_t number = (uint32_t)store_key_hash(key, hot->seed) & hot->sets_mask;

    pthread_mutex_lock(&hot->locks[number % HOT_LOCKS]);
    return &hot->sets[number];
}

static void set_unlock(struct hot *hot, const struct hot_set *set)
{
    pthread_mutex_unlock(&hot->locks[(uint32_t)(set - hot->sets) % HOT_LOCKS]);
}

static struct hot_entry *find(struct hot_set *set, const struct store_key *key)
{
    for (unsigned i = 0; i < WAYS; i++)
        if (set->way[i].valid && store_key_eq(&set->way[i].key, key))
            return &set->way[i];
    return NULL;
}

static uint32_t now_ms(void)
{
    return (uint32_t)(now_ns() / NS_PER_MS);
}

void hot_learn(struct hot *hot, uint32_t peer, uint32_t segment, uint64_t offset, const void *bytes, uint64_t size)
{
    struct object_header header;
    uint32_t now = now_ms();

    if (peer >= hot->nodes_max || !hot->nodes[peer] || object_parse(bytes, size, &header) != MC_OK)
        return;
    if (header.key.kind != MC_KEY_BLOCK || header.flags & OBJECT_DEAD || header.header_len > OBJECT_HEADER_SMALL ||
        header.length > HOT_LENGTH_MAX)
        return;
    header.key.name = (struct slice){0};
    struct hot_set *set = set_lock(hot, &header.key);
    struct hot_entry *e = find(set, &header.key);
    for (unsigned i = 0; !e && i < WAYS; i++)
        if (!set->way[i].valid)
            e = &set->way[i];
    if (!e) {
        e = &set->way[0];
        for (unsigned i = 1; i < WAYS; i++)
            if (now - set->way[i].used_ms > now - e->used_ms)
                e = &set->way[i];
    }
    *e = (struct hot_entry){.key = header.key,
        .generation = header.generation,
        .offset = offset,
        .length = header.length,
        .peer = peer,
        .segment = segment,
        .head = header.header_len,
        .used_ms = now,
        .touched_ms = now,
        .valid = true};
    set_unlock(hot, set);
}

static void forget(struct hot *hot, const struct hot_entry *seen)
{
    struct hot_set *set = set_lock(hot, &seen->key);
    struct hot_entry *e = find(set, &seen->key);
    if (e && e->generation == seen->generation && e->peer == seen->peer)
        e->valid = false;
    set_unlock(hot, set);
}

/* ---- reading ---- */

/* Whole object into the spans, hashed as it is stored. */
static bool copy_whole(const struct object_header *header, const uint8_t *payload, const struct mc_store_op *op)
{
    uint32_t crc = 0;
    uint64_t at = 0;

    for (uint32_t i = 0; i < op->nspans && at < header->length; i++) {
        uint64_t len = op->spans[i].len < header->length - at ? op->spans[i].len : header->length - at;

        crc = crc32c_copy(crc, op->spans[i].addr, payload + at, len);
        at += len;
    }
    return at == header->length && crc == object_payload_crc(header);
}

/* One range: the chunks it covers, each hashed as it is stored; the chunks at its edges by way of the stack. */
static bool copy_range(const struct object_header *header, const uint8_t *payload, const struct mc_range *range)
{
    uint8_t edge[EDGE_MAX];
    struct object_cover cover;

    if (object_cover(header, range->offset, range->len, &cover) != MC_OK)
        return false;
    uint64_t at = cover.offset, end = range->offset + range->len;
    for (uint32_t i = cover.first; i < cover.first + cover.count; i++) {
        struct object_chunk chunk = object_chunk(header, i);
        uint64_t from = at > range->offset ? at : range->offset;
        uint64_t to = at + chunk.length < end ? at + chunk.length : end;
        bool whole = to - from == chunk.length;
        uint8_t *dst = (uint8_t *)range->local + (from - range->offset);

        if (crc32c_copy(0, whole ? dst : edge, payload + at, chunk.length) != chunk.crc32c)
            return false;
        if (!whole)
            memcpy(dst, edge + (from - at), to - from);
        at += chunk.length;
    }
    return true;
}

static bool fits(const struct mc_store_op *op, uint64_t length)
{
    uint64_t room = 0;

    for (uint32_t i = 0; i < op->nranges; i++)
        if (op->ranges[i].offset > length || op->ranges[i].len > length - op->ranges[i].offset)
            return false;
    for (uint32_t i = 0; op->nranges == 0 && i < op->nspans; i++)
        room += op->spans[i].len;
    return op->nranges > 0 || room >= length;
}

/* Is the object of this key and generation (0: any) there? *header is lent from `head`. */
static bool look(const uint8_t *object, uint64_t room, const struct store_key *key, uint64_t generation,
    uint8_t head[OBJECT_HEADER_SMALL], struct object_header *header)
{
    uint32_t len;

    if (room < OBJECT_FIXED)
        return false;
    memcpy(head, object, OBJECT_FIXED);
    len = object_header_len(head, OBJECT_FIXED);
    if (len == 0 || len > OBJECT_HEADER_SMALL || len > room)
        return false;
    memcpy(head + OBJECT_FIXED, object + OBJECT_FIXED, len - OBJECT_FIXED);
    return object_parse(head, len, header) == MC_OK && object_is(header, key, generation) == MC_OK &&
           header->length <= room - len;
}

/* Into op's spans or ranges, verified as every reader does. */
static bool copy(const struct object_header *header, const uint8_t *object, const struct mc_store_op *op)
{
    if (!fits(op, header->length))
        return false;
    for (uint32_t i = 0; i < op->nranges; i++)
        if (!copy_range(header, object + header->header_len, &op->ranges[i]))
            return false;
    return op->nranges > 0 || copy_whole(header, object + header->header_len, op);
}

static void count_get(struct hot *hot, uint64_t length)
{
    atomic_fetch_add_explicit(&hot->gets, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&hot->bytes, length, memory_order_relaxed);
}

bool hot_touched(struct hot *hot, uint32_t peer, uint64_t generation)
{
    bool first = false;

    pthread_mutex_lock(&hot->touch_lock);
    if (hot->touch_count < HOT_TOUCHES) {
        first = hot->touch_count == 0;
        hot->touches[hot->touch_count++] = (struct hot_touch){peer, generation};
    }
    pthread_mutex_unlock(&hot->touch_lock);
    return first;
}

bool hot_read(struct hot *hot, uint32_t ns, struct mc_store_op *op, bool *touched)
{
    struct store_key key;
    struct hot_entry seen, *e;
    uint32_t now;
    bool good = false, touch = false;

    *touched = false;
    if (op->opcode != MC_GET || op->key.kind != MC_KEY_BLOCK || store_key_from(ns, &op->key, &key) != MC_OK)
        return false;
    now = now_ms();
    struct hot_set *set = set_lock(hot, &key);
    e = find(set, &key);
    if (e) {
        e->used_ms = now;
        touch = now - e->touched_ms >= TOUCH_MS;
        if (touch)
            e->touched_ms = now;
        seen = *e;
    }
    set_unlock(hot, set);
    if (!e)
        return false;

    uint8_t uuid[16], head[OBJECT_HEADER_SMALL] __attribute__((aligned(8)));
    struct object_header header;
    uint64_t room;
    pthread_rwlock_rdlock(&hot->nodes_lock);
    const uint8_t *object = mapped(hot->nodes[seen.peer], seen.segment, seen.offset, &room);
    if (object) {
        good = look(object, room, &key, seen.generation, head, &header) && copy(&header, object, op);
        memcpy(uuid, hot->nodes[seen.peer]->uuid, 16);
    }
    pthread_rwlock_unlock(&hot->nodes_lock);
    if (!good) {
        if (object && fits(op, seen.length))
            forget(hot, &seen);
        return false;
    }
    op->result = (struct mc_store_result){.status = MC_OK, .length = seen.length, .path = MC_PATH_SHM_MEMFD};
    memcpy(op->result.node, uuid, 16);
    count_get(hot, seen.length);
    if (touch)
        *touched = hot_touched(hot, seen.peer, seen.generation);
    return true;
}

/* ---- names ---- */

/* One place where a name may lie. */
static bool read_at(const struct hot_node *node, const struct names_place *place, const struct store_key *key,
    const struct mc_store_op *op, uint64_t length_max, struct hot_object *out)
{
    uint8_t head[OBJECT_HEADER_SMALL] __attribute__((aligned(8)));
    struct object_header header;
    uint64_t room;
    const uint8_t *object = mapped(node, place->segment, place->offset, &room);

    if (!object || !look(object, room, key, 0, head, &header))
        return false;
    if (op->opcode == MC_GET && (header.length > length_max || !copy(&header, object, op)))
        return false;
    out->generation = header.generation;
    out->version = header.version;
    out->length = header.length;
    return true;
}

/* In this order: the word, the header, the clock (near.h). */
static bool read_node(const struct hot_node *node, const struct store_key *key, uint64_t hash,
    const struct mc_store_op *op, uint64_t length_max, struct hot_object *out)
{
    struct names_place places[NAMES_WAYS];
    uint64_t until = names_until(&node->names);
    unsigned n = names_find(&node->names, hash, places);
    bool good = false;

    if (n == 0 || names_clock() >= until) /* before anything is copied in vain */
        return false;
    for (unsigned i = 0; i < n && !good; i++)
        good = read_at(node, &places[i], key, op, length_max, out);
    atomic_thread_fence(memory_order_acquire);
    return good && names_clock() < until;
}

bool hot_named(
    struct hot *hot, const struct store_key *key, uint64_t hash, const struct mc_store_op *op, struct hot_object *out)
{
    bool good = false;

    pthread_rwlock_rdlock(&hot->nodes_lock);
    for (uint32_t i = 0; i < hot->named_count && !good; i++) {
        const struct hot_node *node = hot->nodes[hot->named[i]];

        out->peer = hot->named[i];
        memcpy(out->node, node->uuid, 16);
        good = read_node(node, key, hash, op, out->peer == HOT_OWN ? UINT64_MAX : HOT_LENGTH_MAX, out);
    }
    pthread_rwlock_unlock(&hot->nodes_lock);
    if (good && op->opcode == MC_GET)
        count_get(hot, out->length);
    return good;
}

uint32_t hot_touches(struct hot *hot, struct hot_touch *out)
{
    pthread_mutex_lock(&hot->touch_lock);
    uint32_t count = hot->touch_count;
    memcpy(out, hot->touches, count * sizeof(*out));
    hot->touch_count = 0;
    pthread_mutex_unlock(&hot->touch_lock);
    return count;
}
