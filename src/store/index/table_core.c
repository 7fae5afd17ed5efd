/* table_core.c - the index: flat hash tables of 8-byte slots over entries and copies that lie in slabs.
 *
 * A slot holds 32 bits of the hash and a number. Finding touches one or two cache lines of slots and then that of the entry, which
 * also says who has it. Growing re-places slots by their own hash bits and touches no entry, so that a table of a
 * million moves in about ten milliseconds; deleting shifts the run behind back, so there are no tombstones.
 *
 * Invariants: a slot's number is live; every copy is in the list of its entry, in the list of its owner, and in `by_copy`;
 * an entry has at least one copy. living[owner] counts its copies that are not doomed, and the owners
 * in an entry are theirs. */
#include "store/index/table_core.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"

enum { SLAB_BITS = 12, SLAB_ITEMS = 1 << SLAB_BITS, FLAT_BITS_MIN = 8, LINE = 64 };

struct slot {
    uint32_t hash;
    uint32_t item; /* 1 + number; 0: empty */
};

struct flat {
    struct slot *slots;
    uint32_t mask;
    uint32_t used;
};

/* Items of one size, by number; freed numbers are linked through their first word. */
struct slabs {
    uint8_t **slab;
    uint32_t slab_count, slab_max;
    uint32_t item_size;
    uint32_t free;  /* 1 + number */
    uint32_t fresh; /* numbers never used begin here */
};

struct entry {
    uint8_t id[16];
    uint32_t ns;
    uint16_t group, shard, shards;
    uint8_t kind;
    uint8_t live;
    uint32_t first; /* copy */
    uint32_t hash;
    uint32_t far; /* living copies at owners from TABLE_NEAR on */
    uint64_t promised;
    struct name *name;
    uint64_t near; /* a bit for each other owner of a living copy, so that prefix queries need not read copies */
};

struct name {
    uint32_t len;
    uint8_t text[];
};

struct copy {
    uint64_t generation, offset, version;
    uint32_t length, segment, head;
    uint32_t entry;
    uint32_t next; /* of the entry */
    uint32_t owner_prev, owner_next;
    uint16_t owner;
    bool doomed;
    uint8_t mark;
};

static_assert(
    sizeof(struct entry) == LINE, "a find waits for one line; counted in table_bytes: 200 B an object in all");
static_assert(sizeof(struct copy) <= LINE, "as above");

struct table {
    struct flat by_key, by_copy;
    struct slabs entries, copies;
    uint32_t entry_count, copy_count, living_count, copies_max;
    uint64_t seed;
    size_t name_bytes;
    uint32_t first_of[STORE_NODES_MAX];
    uint32_t living[STORE_NODES_MAX];
};

/* ---- slots ---- */

static bool flat_init(struct flat *flat, unsigned bits)
{
    flat->slots = calloc((size_t)1 << bits, sizeof(struct slot));
    flat->mask = (uint32_t)(((size_t)1 << bits) - 1);
    flat->used = 0;
    return flat->slots != NULL;
}

static void flat_place(struct flat *flat, uint32_t hash, uint32_t item)
{
    uint32_t i = hash & flat->mask;

    while (flat->slots[i].item)
        i = (i + 1) & flat->mask;
    flat->slots[i] = (struct slot){hash, item};
}

/* Room for one more at a load of at most 3/4. */
static bool flat_reserve(struct flat *flat)
{
    if ((uint64_t)flat->used * 4 < (uint64_t)flat->mask * 3)
        return true;

    size_t count = ((size_t)flat->mask + 1) * 2;
    struct flat bigger = {.mask = (uint32_t)(count - 1), .used = flat->used};

    bigger.slots = calloc(count, sizeof(struct slot));
    if (!bigger.slots)
        return flat->used < flat->mask; /* fuller and slower, but right */
    for (uint32_t i = 0; i <= flat->mask; i++)
        if (flat->slots[i].item)
            flat_place(&bigger, flat->slots[i].hash, flat->slots[i].item);
    free(flat->slots);
    *flat = bigger;
    return true;
}

static void flat_add(struct flat *flat, uint32_t hash, uint32_t number)
{
    flat_place(flat, hash, number + 1);
    flat->used++;
}

static void flat_del(struct flat *flat, uint32_t hash, uint32_t number)
{
    uint32_t hole = hash & flat->mask;

    while (flat->slots[hole].item != number + 1)
        hole = (hole + 1) & flat->mask;

    /* Whoever behind the hole would be found earlier in it moves there. */
    for (uint32_t i = (hole + 1) & flat->mask; flat->slots[i].item; i = (i + 1) & flat->mask) {
        uint32_t home = flat->slots[i].hash & flat->mask;

        if (((i - home) & flat->mask) >= ((i - hole) & flat->mask)) {
            flat->slots[hole] = flat->slots[i];
            hole = i;
        }
    }
    flat->slots[hole] = (struct slot){0, 0};
    flat->used--;
}

/* ---- slabs ---- */

static void *slabs_at(const struct slabs *slabs, uint32_t number)
{
    return slabs->slab[number >> SLAB_BITS] + (size_t)(number & (SLAB_ITEMS - 1)) * slabs->item_size;
}

static bool slabs_get(struct slabs *slabs, uint32_t *number)
{
    if (slabs->free) {
        *number = slabs->free - 1;
        memcpy(&slabs->free, slabs_at(slabs, *number), sizeof(slabs->free));
    } else {
        if (slabs->fresh >> SLAB_BITS == slabs->slab_count) {
            if (slabs->slab_count == slabs->slab_max)
                return false;
            slabs->slab[slabs->slab_count] = aligned_alloc(LINE, (size_t)SLAB_ITEMS * slabs->item_size);
            if (!slabs->slab[slabs->slab_count])
                return false;
            slabs->slab_count++;
        }
        *number = slabs->fresh++;
    }
    memset(slabs_at(slabs, *number), 0, slabs->item_size);
    return true;
}

static void slabs_put(struct slabs *slabs, uint32_t number)
{
    uint8_t *item = slabs_at(slabs, number);

    memset(item, 0, slabs->item_size);
    memcpy(item, &slabs->free, sizeof(slabs->free));
    slabs->free = number + 1;
}

static bool slabs_init(struct slabs *slabs, uint32_t item_size, uint32_t items_max)
{
    *slabs = (struct slabs){.item_size = item_size, .slab_max = items_max / SLAB_ITEMS + 1};
    slabs->slab = calloc(slabs->slab_max, sizeof(*slabs->slab));
    return slabs->slab != NULL;
}

static void slabs_fini(struct slabs *slabs)
{
    for (uint32_t i = 0; i < slabs->slab_count; i++)
        free(slabs->slab[i]);
    free(slabs->slab);
}

static struct entry *entry_at(const struct table *table, uint32_t number)
{
    return slabs_at(&table->entries, number);
}

static struct copy *copy_at(const struct table *table, uint32_t number)
{
    return slabs_at(&table->copies, number);
}

/* ---- life ---- */

struct table *table_create(uint32_t objects_max, uint64_t seed)
{
    struct table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->seed = seed;
    table->copies_max = objects_max;
    for (int i = 0; i < STORE_NODES_MAX; i++)
        table->first_of[i] = TABLE_NONE;
    if (flat_init(&table->by_key, FLAT_BITS_MIN) && flat_init(&table->by_copy, FLAT_BITS_MIN) &&
        slabs_init(&table->entries, sizeof(struct entry), objects_max) &&
        slabs_init(&table->copies, sizeof(struct copy), objects_max))
        return table;
    table_destroy(table);
    return NULL;
}

void table_destroy(struct table *table)
{
    if (!table)
        return;
    if (table->entries.slab)
        for (uint32_t i = 0; i < table->entries.fresh; i++)
            if (entry_at(table, i)->live)
                free(entry_at(table, i)->name);
    if (table->entries.slab)
        slabs_fini(&table->entries);
    if (table->copies.slab)
        slabs_fini(&table->copies);
    free(table->by_key.slots);
    free(table->by_copy.slots);
    free(table);
}

/* ---- finding ---- */

static uint32_t copy_hash(const struct table *table, uint16_t owner, uint64_t generation)
{
    return (uint32_t)hash_mix(generation ^ ((uint64_t)owner << 48) ^ table->seed);
}

static bool entry_is(const struct entry *entry, const struct store_key *key)
{
    return memcmp(entry->id, key->id, 16) == 0 && entry->ns == key->ns && entry->group == key->group &&
           entry->shard == key->shard && entry->shards == key->shards && entry->kind == key->kind;
}

static uint32_t find(const struct table *table, const struct store_key *key, uint32_t hash)
{
    const struct flat *flat = &table->by_key;

    for (uint32_t i = hash & flat->mask; flat->slots[i].item; i = (i + 1) & flat->mask)
        if (flat->slots[i].hash == hash && entry_is(entry_at(table, flat->slots[i].item - 1), key))
            return flat->slots[i].item - 1;
    return TABLE_NONE;
}

uint32_t table_find(const struct table *table, const struct store_key *key)
{
    return find(table, key, (uint32_t)store_key_hash(key, table->seed));
}

/* Where a find for this hash would look first: an entry, whoever's it is, or TABLE_NONE. */
static uint32_t likely(const struct flat *flat, uint32_t hash)
{
    for (uint32_t i = hash & flat->mask; flat->slots[i].item; i = (i + 1) & flat->mask)
        if (flat->slots[i].hash == hash)
            return flat->slots[i].item - 1;
    return TABLE_NONE;
}

/* Slot, entry and first copy are waited for by the whole group at a time. */
void table_find_group(
    const struct table *table, const struct store_key *key, const uint8_t (*ids)[16], uint32_t count, uint32_t *entries)
{
    struct store_key block = *key;
    uint32_t hashes[TABLE_GROUP_MAX];

    for (uint32_t i = 0; i < count; i++) {
        memcpy(block.id, ids[i], 16);
        hashes[i] = (uint32_t)store_key_hash(&block, table->seed);
        __builtin_prefetch(&table->by_key.slots[hashes[i] & table->by_key.mask]);
    }
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = likely(&table->by_key, hashes[i]);
        if (entries[i] != TABLE_NONE)
            __builtin_prefetch(entry_at(table, entries[i]));
    }
    for (uint32_t i = 0; i < count; i++) {
        if (entries[i] == TABLE_NONE)
            continue;
        memcpy(block.id, ids[i], 16);
        if (!entry_is(entry_at(table, entries[i]), &block))
            entries[i] = find(table, &block, hashes[i]);
        if (entries[i] != TABLE_NONE && entry_at(table, entries[i])->far)
            __builtin_prefetch(copy_at(table, entry_at(table, entries[i])->first));
    }
}

uint32_t table_find_copy(const struct table *table, uint16_t owner, uint64_t generation, uint32_t *at)
{
    const struct flat *flat = &table->by_copy;
    uint32_t hash = copy_hash(table, owner, generation);

    for (uint32_t i = hash & flat->mask; flat->slots[i].item; i = (i + 1) & flat->mask) {
        if (flat->slots[i].hash != hash)
            continue;

        const struct copy *copy = copy_at(table, flat->slots[i].item - 1);

        if (copy->generation == generation && copy->owner == owner) {
            *at = flat->slots[i].item - 1;
            return copy->entry;
        }
    }
    return TABLE_NONE;
}

uint64_t table_version(const struct table *table, uint32_t entry)
{
    for (uint32_t c = entry_at(table, entry)->first; c != TABLE_NONE; c = copy_at(table, c)->next)
        if (!copy_at(table, c)->doomed)
            return copy_at(table, c)->version;
    return 0;
}

uint64_t table_promised(const struct table *table, uint32_t entry)
{
    return entry_at(table, entry)->promised;
}

void table_promise(struct table *table, uint32_t entry, uint64_t until)
{
    struct entry *e = entry_at(table, entry);

    if (until > e->promised)
        e->promised = until;
}

static void copy_out(const struct copy *copy, struct table_copy *out)
{
    *out = (struct table_copy){
        .generation = copy->generation,
        .offset = copy->offset,
        .version = copy->version,
        .length = copy->length,
        .segment = copy->segment,
        .head = copy->head,
        .owner = copy->owner,
        .doomed = copy->doomed,
    };
}

bool table_next(const struct table *table, uint32_t entry, uint32_t *at, struct table_copy *copy)
{
    *at = *at == TABLE_NONE ? entry_at(table, entry)->first : copy_at(table, *at)->next;
    if (*at == TABLE_NONE)
        return false;
    copy_out(copy_at(table, *at), copy);
    return true;
}

struct table_owners table_owners(const struct table *table, uint32_t entry)
{
    const struct entry *e = entry_at(table, entry);

    return (struct table_owners){e->near, e->far};
}

uint32_t table_first_of(const struct table *table, uint16_t owner)
{
    return table->first_of[owner];
}

bool table_next_of(const struct table *table, uint32_t *next, uint32_t *at, uint32_t *entry, struct table_copy *copy)
{
    if (*next == TABLE_NONE)
        return false;
    *at = *next;
    *entry = copy_at(table, *at)->entry;
    *next = copy_at(table, *at)->owner_next;
    copy_out(copy_at(table, *at), copy);
    return true;
}

uint32_t table_walk(const struct table *table, uint32_t from)
{
    for (uint32_t i = from; i < table->entries.fresh; i++)
        if (entry_at(table, i)->live)
            return i;
    return TABLE_NONE;
}

struct store_key table_key(const struct table *table, uint32_t entry)
{
    const struct entry *e = entry_at(table, entry);
    struct store_key key = {.ns = e->ns, .group = e->group, .shard = e->shard, .shards = e->shards, .kind = e->kind};

    memcpy(key.id, e->id, 16);
    if (e->name)
        key.name = slice_of(e->name->text, e->name->len);
    return key;
}

/* ---- changing ---- */

static enum mc_status entry_create(struct table *table, const struct store_key *key, uint32_t hash, uint32_t *number)
{
    struct name *name = NULL;

    if (!flat_reserve(&table->by_key))
        return MC_ENOMEM;
    if (key->name.len) {
        name = malloc(sizeof(*name) + key->name.len);
        if (!name)
            return MC_ENOMEM;
        name->len = (uint32_t)key->name.len;
        memcpy(name->text, key->name.ptr, key->name.len);
    }
    if (!slabs_get(&table->entries, number)) {
        free(name);
        return MC_ENOMEM;
    }

    struct entry *e = entry_at(table, *number);

    *e = (struct entry){
        .ns = key->ns,
        .group = key->group,
        .shard = key->shard,
        .shards = key->shards,
        .kind = key->kind,
        .live = 1,
        .first = TABLE_NONE,
        .hash = hash,
        .name = name,
    };
    memcpy(e->id, key->id, 16);
    flat_add(&table->by_key, hash, *number);
    table->entry_count++;
    table->name_bytes += name ? sizeof(*name) + name->len : 0;
    return MC_OK;
}

static void entry_destroy(struct table *table, uint32_t number)
{
    struct entry *e = entry_at(table, number);

    flat_del(&table->by_key, e->hash, number);
    table->name_bytes -= e->name ? sizeof(*e->name) + e->name->len : 0;
    free(e->name);
    slabs_put(&table->entries, number); /* zeroes it: not live any more */
    table->entry_count--;
}

/* A copy came to life: counters, and owners of its entry. */
static void living_add(struct table *table, struct entry *e, uint16_t owner)
{
    if (owner < TABLE_NEAR)
        e->near |= UINT64_C(1) << owner;
    else
        e->far++;
    table->living_count++;
    table->living[owner]++;
}

/* One is not alive any more (it is doomed or out of the entry's list already); its owner may have another one. */
static void living_del(struct table *table, struct entry *e, uint16_t owner)
{
    bool more = false;

    table->living_count--;
    table->living[owner]--;
    if (owner >= TABLE_NEAR) {
        e->far--;
        return;
    }
    for (uint32_t c = e->first; c != TABLE_NONE && !more; c = copy_at(table, c)->next)
        more = copy_at(table, c)->owner == owner && !copy_at(table, c)->doomed;
    if (!more)
        e->near &= ~(UINT64_C(1) << owner);
}

static void copy_link(struct table *table, uint32_t entry, uint32_t number, const struct table_copy *from)
{
    struct copy *copy = copy_at(table, number);
    struct entry *e = entry_at(table, entry);

    *copy = (struct copy){
        .generation = from->generation,
        .offset = from->offset,
        .version = from->version,
        .length = (uint32_t)from->length,
        .segment = from->segment,
        .head = from->head,
        .entry = entry,
        .next = e->first,
        .owner_prev = TABLE_NONE,
        .owner_next = table->first_of[from->owner],
        .owner = from->owner,
        .doomed = from->doomed,
    };
    e->first = number;
    if (copy->owner_next != TABLE_NONE)
        copy_at(table, copy->owner_next)->owner_prev = number;
    table->first_of[from->owner] = number;
    flat_add(&table->by_copy, copy_hash(table, from->owner, from->generation), number);
    table->copy_count++;
    if (!from->doomed)
        living_add(table, e, from->owner);
}

enum mc_status table_add(struct table *table, const struct store_key *key, const struct table_copy *copy)
{
    uint32_t hash = (uint32_t)store_key_hash(key, table->seed);
    uint32_t number, entry;

    __builtin_prefetch(&table->by_key.slots[hash & table->by_key.mask]); /* while the other table is waited for */
    if (table_find_copy(table, copy->owner, copy->generation, &number) != TABLE_NONE)
        return MC_OK;
    if (table->copy_count >= table->copies_max)
        return MC_EBUSY;
    if (!flat_reserve(&table->by_copy) || !slabs_get(&table->copies, &number))
        return MC_ENOMEM;
    entry = find(table, key, hash);
    if (entry == TABLE_NONE && entry_create(table, key, hash, &entry) != MC_OK) {
        slabs_put(&table->copies, number);
        return MC_ENOMEM;
    }
    copy_link(table, entry, number, copy);
    return MC_OK;
}

void table_doom(struct table *table, uint32_t entry, uint32_t at)
{
    struct copy *copy = copy_at(table, at);

    assert(copy->entry == entry);
    if (copy->doomed)
        return;
    copy->doomed = true;
    living_del(table, entry_at(table, entry), copy->owner);
}

void table_remove(struct table *table, uint32_t entry, uint32_t at)
{
    struct copy *copy = copy_at(table, at);
    struct entry *e = entry_at(table, entry);
    uint32_t *link = &e->first;

    assert(copy->entry == entry);
    while (*link != at)
        link = &copy_at(table, *link)->next;
    *link = copy->next;

    if (copy->owner_prev == TABLE_NONE)
        table->first_of[copy->owner] = copy->owner_next;
    else
        copy_at(table, copy->owner_prev)->owner_next = copy->owner_next;
    if (copy->owner_next != TABLE_NONE)
        copy_at(table, copy->owner_next)->owner_prev = copy->owner_prev;

    flat_del(&table->by_copy, copy_hash(table, copy->owner, copy->generation), at);
    table->copy_count--;
    if (!copy->doomed)
        living_del(table, e, copy->owner);
    slabs_put(&table->copies, at);
    if (e->first == TABLE_NONE)
        entry_destroy(table, entry);
}

void table_mark(struct table *table, uint32_t at, uint8_t mark)
{
    copy_at(table, at)->mark = mark;
}

uint8_t table_marked(const struct table *table, uint32_t at)
{
    return copy_at(table, at)->mark;
}

/* ---- counting ---- */

uint32_t table_entries(const struct table *table)
{
    return table->entry_count;
}

uint32_t table_copies(const struct table *table)
{
    return table->living_count;
}

uint32_t table_copies_of(const struct table *table, uint16_t owner)
{
    return table->living[owner];
}

size_t table_bytes(const struct table *table)
{
    return sizeof(*table) + ((size_t)table->by_key.mask + table->by_copy.mask + 2) * sizeof(struct slot) +
           (size_t)table->entries.slab_count * SLAB_ITEMS * table->entries.item_size +
           (size_t)table->copies.slab_count * SLAB_ITEMS * table->copies.item_size +
           ((size_t)table->entries.slab_max + table->copies.slab_max) * sizeof(void *);
}

size_t table_name_bytes(const struct table *table)
{
    return table->name_bytes;
}
