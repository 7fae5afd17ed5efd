/* evict_mooncake.c - the default: evict as several experts would, each with as much say as it has earned.
 *
 *     experts     density | lru | s3fifo | arc on shadows: ids only, each tells what it would have hit, and has its votes by that
 *                   /                     \
 *     whole       up to 64 Ki objects      \    a queue for each set of shadows that hold a block
 *     sample                    above those     a queue for each number of uses; the experts choose among the queues
 *                                    |
 *     leaves      the queues, leaves first, pins and promises
 *
 * Here is the row: what a node says goes to the shadows and to the part that decides now. How many objects fit is what there was when one
 * had to go; when that is more than 64 Ki, samples take the place of whole shadows, and stay.
 *
 * Sizes: victims go until there is room, and how many fit follows; a shadow counts blocks.
 * State: 24 B an object as lru has, and 6 beside samples, whose shadows take 0.4 MB together; whole ones take 0.4 KB a block
 * (evict_bench.c). */
#include "store/evict/leaves.h"
#include "store/evict/sample.h"
#include "store/evict/whole.h"

struct mooncake {
    struct evict base;
    struct leaves leaves;
    struct experts experts;
    struct whole whole;   /* as long as sample.shift is 0 */
    struct sample sample; /* from then on */
    uint32_t size;        /* objects that fit; EVICT_UNKNOWN */
    uint32_t count, clock;
};

static struct mooncake *mooncake_of(struct evict *e)
{
    return (struct mooncake *)(void *)e;
}

static bool whole(const struct mooncake *m)
{
    return m->sample.shift == 0;
}

static void mooncake_fini(struct evict *e)
{
    struct mooncake *m = mooncake_of(e);

    whole_fini(&m->whole);
    sample_fini(&m->sample);
    experts_fini(&m->experts);
    leaves_fini(&m->leaves);
}

static enum mc_status mooncake_init(struct evict *e)
{
    struct mooncake *m = mooncake_of(e);
    bool known = e->capacity != EVICT_UNKNOWN;

    leaves_init(&m->leaves, true);
    whole_init(&m->whole, &m->experts, &m->leaves);
    sample_init(&m->sample, &m->experts, &m->leaves);
    m->size = e->capacity;
    m->sample.shift = known ? sample_shift(e->capacity) : 0;
    if (experts_init(&m->experts, known ? e->capacity >> m->sample.shift : EVICT_UNKNOWN) == MC_OK)
        return MC_OK;
    mooncake_fini(e);
    return MC_ENOMEM;
}

/* ---- size ---- */

static void sample_if(struct mooncake *m, uint32_t objects)
{
    unsigned shift = sample_shift(objects);

    if (shift <= m->sample.shift)
        return;
    whole_fini(&m->whole);
    sample_less(&m->sample, shift, m->clock);
}

/* How many objects fit: what the owner says, else as many as are here, now that one must go. */
static uint32_t fitting(const struct mooncake *m)
{
    if (m->base.capacity != EVICT_UNKNOWN)
        return m->base.capacity;
    return m->size == EVICT_UNKNOWN || m->count > m->size || m->count < m->size - m->size / 8 ? m->count : m->size;
}

static void resize(struct mooncake *m, uint32_t objects)
{
    m->size = objects;
    sample_if(m, objects);
    if (whole(m))
        whole_resize(&m->whole, objects, m->clock);
    else
        sample_resize(&m->sample, objects, m->clock);
}

/* ---- what happens ---- */

static enum mc_status mooncake_ask(struct evict *e, const struct evict_run *run, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);
    uint32_t objects = m->size == EVICT_UNKNOWN ? m->count : m->size;

    m->clock += run->count;
    return whole(m) ? whole_ask(&m->whole, run, objects, m->clock) : sample_ask(&m->sample, run, objects, m->clock);
}

static enum mc_status mooncake_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);

    if (leaves_add(&m->leaves, slot, object, 0, now) != MC_OK)
        return MC_ENOMEM;
    m->leaves.used[slot] = m->clock;
    if (!whole(m)) {
        sample_add(&m->sample, slot, object->id);
    } else if (whole_add(&m->whole, slot, object->id) != MC_OK) {
        leaves_remove(&m->leaves, slot, now);
        return MC_ENOMEM;
    }
    m->count++;
    if (m->size == EVICT_UNKNOWN)
        sample_if(m, m->count);
    return MC_OK;
}

static void mooncake_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);

    if (whole(m))
        whole_touch(&m->whole, slot, m->clock, now);
    else
        sample_touch(&m->sample, slot, m->clock, now);
}

static void mooncake_promise(struct evict *e, uint32_t slot, uint64_t until, uint64_t now)
{
    leaves_promise(&mooncake_of(e)->leaves, slot, until, now);
}

static void mooncake_pin(struct evict *e, uint32_t slot, bool pinned, uint64_t now)
{
    leaves_pin(&mooncake_of(e)->leaves, slot, pinned, now);
}

static void mooncake_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);

    if (whole(m))
        whole_remove(&m->whole, slot);
    else
        sample_remove(&m->sample, slot, id, why);
    leaves_remove(&m->leaves, slot, now);
    m->count--;
}

static uint32_t mooncake_victim(struct evict *e, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);
    uint32_t slot;

    if (m->count > 0 && fitting(m) != m->size)
        resize(m, fitting(m));
    leaves_expire(&m->leaves, now);
    slot = whole(m) ? whole_victim(&m->whole) : sample_victim(&m->sample, m->clock);
    return slot != EVICT_NONE ? slot : leaves_guarded(&m->leaves);
}

const struct evict_policy evict_mooncake = {
    .name = "mooncake",
    .help = "as density, lru, s3fifo and arc vote, each by what its shadow hit; leaves first",
    .handle_size = sizeof(struct mooncake),
    .init = mooncake_init,
    .fini = mooncake_fini,
    .add = mooncake_add,
    .touch = mooncake_touch,
    .promise = mooncake_promise,
    .pin = mooncake_pin,
    .remove = mooncake_remove,
    .victim = mooncake_victim,
    .ask = mooncake_ask,
};
