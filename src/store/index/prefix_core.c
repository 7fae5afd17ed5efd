/* prefix_core.c - see prefix_core.h.
 *
 * A look-up waits for memory twice: slot, entry. Blocks are therefore looked up in groups (table_find_group), whose cache misses
 * overlap; what was looked up behind the end of the prefix is thrown away. The first group is small, because most prompts that miss
 * do so within the first blocks.
 *
 * Owners below TABLE_NEAR lead as bits of a word: a block clears those that lack it, and only then is the lead of one written
 * down. */
#include "store/index/prefix_core.h"

enum { GROUP_FIRST = 4 };

/* A query under way. */
struct walk {
    const struct prefix_query *q;
    struct prefix_leads *leads;
    uint64_t readable; /* near owners that may answer */
    uint64_t leading;  /* of those, who has everything so far */
};

static void find_group(const struct prefix_query *q, uint32_t from, uint32_t count, uint16_t shard, uint32_t *entries)
{
    struct store_key key = {.ns = q->ns, .group = q->group, .shard = shard, .shards = q->shards, .kind = MC_KEY_BLOCK};

    table_find_group(q->table, &key, q->ids + from, count, entries);
}

static bool may_answer(const struct prefix_query *q, uint16_t owner)
{
    return !q->readable || q->readable(q->arg, owner);
}

static uint64_t near_readable(const struct prefix_query *q)
{
    uint64_t set = q->readable ? 0 : UINT64_MAX;

    for (uint16_t owner = 0; q->readable && owner < TABLE_NEAR; owner++)
        set |= (uint64_t)q->readable(q->arg, owner) << owner;
    return set;
}

static void set_leads(struct prefix_leads *leads, uint64_t owners, uint32_t blocks)
{
    for (; owners; owners &= owners - 1)
        leads->led[__builtin_ctzll(owners)] = leads->stamp << 32 | blocks;
}

/* Is a far owner able to answer? With `leads` the leads of all of them go on, if they led so far. */
static bool far_owners(const struct walk *w, uint32_t block, uint32_t entry, struct prefix_leads *leads)
{
    uint64_t so_far = w->leads->stamp << 32 | block;
    struct table_copy copy;
    bool any = false;

    for (uint32_t at = TABLE_NONE; table_next(w->q->table, entry, &at, &copy);) {
        if (copy.doomed || copy.owner < TABLE_NEAR || !may_answer(w->q, copy.owner))
            continue;
        any = true;
        if (leads && (block == 0 || leads->led[copy.owner] == so_far))
            leads->led[copy.owner] = so_far + 1;
    }
    return any;
}

static bool is_readable(const struct walk *w, uint32_t entry)
{
    if (entry == TABLE_NONE)
        return false;
    struct table_owners owners = table_owners(w->q->table, entry);
    return (owners.near & w->readable) || (owners.far && far_owners(w, 0, entry, NULL));
}

/* The same for the part that is asked for; who lacks it leads no further. */
static bool count_leads(struct walk *w, uint32_t block, uint32_t entry)
{
    if (entry == TABLE_NONE)
        return false;
    struct table_owners owners = table_owners(w->q->table, entry);
    uint64_t near = owners.near & w->readable;
    bool far = owners.far && far_owners(w, block, entry, w->leads);
    if (!near && !far)
        return false;
    if (block == 0)
        w->leading = near;
    set_leads(w->leads, w->leading & ~near, block);
    w->leading &= near;
    return true;
}

/* How many of the group's blocks, from its first on, have all other parts readable. */
static uint32_t other_parts(const struct walk *w, uint32_t from, uint32_t count)
{
    uint32_t entries[TABLE_GROUP_MAX];

    for (uint16_t shard = 0; shard < w->q->shards && count > 0; shard++) {
        if (shard == w->q->shard)
            continue;
        find_group(w->q, from, count, shard, entries);
        for (uint32_t i = 0; i < count; i++)
            if (!is_readable(w, entries[i]))
                count = i;
    }
    return count;
}

static void tell_group(const struct prefix_query *q, uint32_t from, uint32_t count, const uint32_t *mine)
{
    uint32_t entries[TABLE_GROUP_MAX];

    for (uint16_t shard = 0; shard < q->shards; shard++) {
        if (shard != q->shard)
            find_group(q, from, count, shard, entries);
        for (uint32_t i = 0; i < count; i++)
            q->found(q->arg, from + i, shard, shard == q->shard ? mine[i] : entries[i]);
    }
}

uint32_t prefix_walk(const struct prefix_query *q, struct prefix_leads *leads)
{
    struct walk w = {q, leads, near_readable(q), 0};
    uint32_t block = 0, group = GROUP_FIRST;

    if (++leads->stamp > UINT32_MAX) /* an old stamp must not look like this one */
        *leads = (struct prefix_leads){.stamp = 1};
    while (block < q->count) {
        uint32_t mine[TABLE_GROUP_MAX], all = q->count - block < group ? q->count - block : group, whole, i = 0;

        find_group(q, block, all, q->shard, mine);
        whole = other_parts(&w, block, all);
        while (i < whole && count_leads(&w, block + i, mine[i]))
            i++;
        if (q->found)
            tell_group(q, block, i, mine);
        block += i;
        if (i < all)
            break;
        group = group * 2 < TABLE_GROUP_MAX ? group * 2 : TABLE_GROUP_MAX;
    }
    set_leads(leads, w.leading, block);
    return block;
}
