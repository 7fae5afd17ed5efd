/* evict_s3fifo.c - S3-FIFO ("FIFO queues are all you need", SOSP'23), with ids only.
 *
 * What is new goes to a small FIFO queue of a tenth of the pool. At its end, what was read in the meantime goes on to the main
 * queue, the rest is evicted and remembered as a ghost; what comes back while a ghost goes to the main queue at once. The main
 * queue is a FIFO with second chances, up to three. Ghosts: as many as the main queue is long. It knows no tree, pins or promises. */
#include "store/evict/queues.h"
#include "store/evict/tails.h"

enum { SMALL, MAIN, GHOST };
enum { CHANCES_MAX = 3 };

struct s3fifo {
    struct evict base;
    struct queues q;
    uint32_t victim; /* chosen already */
};

static struct s3fifo *s3_of(struct evict *e)
{
    return (struct s3fifo *)(void *)e;
}

static uint32_t small_max(const struct s3fifo *s3)
{
    return s3->base.capacity / 10 ? s3->base.capacity / 10 : 1;
}

static uint32_t ghosts_max(const struct s3fifo *s3)
{
    return (uint32_t)((uint64_t)s3->base.capacity * 9 / 10);
}

static enum mc_status s3_init(struct evict *e)
{
    struct s3fifo *s3 = s3_of(e);

    s3->victim = EVICT_NONE;
    queues_init(&s3->q);
    return MC_OK;
}

static void s3_fini(struct evict *e)
{
    queues_fini(&s3_of(e)->q);
}

static enum mc_status s3_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct s3fifo *s3 = s3_of(e);
    uint32_t entry = queues_find(&s3->q, object->id);

    s3->victim = EVICT_NONE;
    if (entry == ENTRY_NONE)
        return queues_add(&s3->q, SMALL, object->id, slot);
    return queues_return(&s3->q, MAIN, entry, slot);
}

static void s3_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct s3fifo *s3 = s3_of(e);
    struct queue_entry *entry = &s3->q.entries[s3->q.of_slot[slot]];

    s3->victim = EVICT_NONE;
    if (entry->count < CHANCES_MAX)
        entry->count++;
}

static void s3_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    struct s3fifo *s3 = s3_of(e);
    uint32_t entry = s3->q.of_slot[slot];

    s3->victim = EVICT_NONE;
    if (why != EVICT_EVICTED || s3->q.entries[entry].queue == MAIN || ghosts_max(s3) == 0) {
        queues_drop(&s3->q, entry);
        return;
    }
    queues_move(&s3->q, GHOST, entry);
    if (s3->q.ends[GHOST].length > ghosts_max(s3))
        queues_drop_oldest(&s3->q, GHOST);
}

static uint32_t main_victim(struct s3fifo *s3)
{
    for (uint32_t at; (at = s3->q.ends[MAIN].oldest) != ENTRY_NONE;) {
        struct queue_entry *entry = &s3->q.entries[at];

        if (entry->count == 0)
            return entry->slot;
        entry->count--;
        queues_move(&s3->q, MAIN, at);
    }
    return EVICT_NONE;
}

static uint32_t find_victim(struct s3fifo *s3)
{
    if (s3->q.ends[SMALL].length < small_max(s3) && s3->q.ends[MAIN].length > 0)
        return main_victim(s3);
    for (uint32_t at; (at = s3->q.ends[SMALL].oldest) != ENTRY_NONE;) {
        struct queue_entry *entry = &s3->q.entries[at];

        if (entry->count == 0)
            return entry->slot;
        entry->count = 0;
        queues_move(&s3->q, MAIN, at);
        if (s3->q.ends[MAIN].length > s3->base.capacity - small_max(s3))
            return main_victim(s3);
    }
    return main_victim(s3);
}

static uint32_t s3_victim(struct evict *e, uint64_t now)
{
    struct s3fifo *s3 = s3_of(e);

    if (s3->victim == EVICT_NONE)
        s3->victim = find_victim(s3);
    return s3->victim;
}

static unsigned s3_choose(const struct evict *e, const struct evict_tails *tails)
{
    const struct queue_ends *ends = ((const struct s3fifo *)(const void *)e)->q.ends;

    return tails_by_share(tails, ends[SMALL].length, ends[SMALL].length + ends[MAIN].length);
}

const struct evict_policy evict_s3fifo = {
    .name = "s3fifo",
    .help = "small and main FIFO queue with ghosts; knows no tree",
    .handle_size = sizeof(struct s3fifo),
    .tail_first = true,
    .init = s3_init,
    .fini = s3_fini,
    .add = s3_add,
    .touch = s3_touch,
    .remove = s3_remove,
    .victim = s3_victim,
    .choose = s3_choose,
};
