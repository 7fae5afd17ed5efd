/* names.c - see names.h. */
#include "store/names.h"

#include <assert.h>
#include <stdalign.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"

#define MAGIC  0x3144434du /* "MCD1" */
#define LAYOUT 1

enum {
    TAG_SHIFT = 40,
    SEGMENT_SHIFT = 32,
    SEGMENTS = 1 << 8,
    UNIT = 64, /* OBJECT_ALIGN */
};

struct names {
    uint32_t magic, layout;
    uint64_t sets;
    uint64_t clock;
    alignas(64) _Atomic uint64_t until; /* by the heart, read by any: release and acquire, see names_extend() */
    /* By the loop, read by any: release and acquire, so that the header a word names is there. An old word does no harm. */
    alignas(64) _Atomic uint64_t words[][NAMES_WAYS];
};

/* Two processes read the same time only in the same time namespace. 0: this kernel has none. */
static uint64_t clock_identity(void)
{
    struct stat st;

    return stat("/proc/self/ns/time", &st) == 0 ? st.st_ino : 0;
}

uint64_t names_clock(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t sets_for(uint64_t capacity)
{
    uint64_t sets = 1;

    while (sets * NAMES_WAYS < NAMES_WORDS_MAX && sets * NAMES_WAYS < capacity / NAMES_BYTES_A_WORD)
        sets *= 2;
    return sets;
}

static size_t size_of(uint64_t sets)
{
    return sizeof(struct names) + sets * NAMES_WAYS * sizeof(uint64_t);
}

size_t names_size(uint64_t capacity)
{
    return size_of(sets_for(capacity));
}

struct names *names_init(void *memory, size_t size)
{
    struct names *names = memory;
    uint64_t sets = (size - sizeof(*names)) / (NAMES_WAYS * sizeof(uint64_t));

    assert((uintptr_t)memory % alignof(struct names) == 0);
    while (sets & (sets - 1)) /* the memory may be a little larger than what was asked for */
        sets &= sets - 1;
    assert(sets > 0);
    names->layout = LAYOUT;
    names->sets = sets;
    names->clock = clock_identity();
    names->magic = MAGIC;
    return names;
}

/* ---- the node ---- */

static _Atomic uint64_t *set_of(struct names *names, uint64_t hash)
{
    return names->words[hash & (names->sets - 1)];
}

/* 0: it cannot be said in one. The tag is of other bits than the set's. */
static uint64_t word_of(uint64_t hash, uint32_t segment, uint64_t offset)
{
    uint64_t tag = hash >> TAG_SHIFT ? hash >> TAG_SHIFT : 1; /* so that no word is 0 */

    assert(offset % UNIT == 0);
    if (segment >= SEGMENTS || offset / UNIT > UINT32_MAX)
        return 0;
    return tag << TAG_SHIFT | (uint64_t)segment << SEGMENT_SHIFT | offset / UNIT;
}

void names_add(struct names *names, uint64_t hash, uint32_t segment, uint64_t offset)
{
    _Atomic uint64_t *set = set_of(names, hash);
    uint64_t word = word_of(hash, segment, offset);
    unsigned at = 0;

    if (!word)
        return;
    while (at < NAMES_WAYS && atomic_load_explicit(&set[at], memory_order_relaxed))
        at++;
    if (at == NAMES_WAYS)
        at = (unsigned)(word % NAMES_WAYS); /* any: by its place, which is as good as random */
    atomic_store_explicit(&set[at], word, memory_order_release);
}

void names_remove(struct names *names, uint64_t hash, uint32_t segment, uint64_t offset)
{
    _Atomic uint64_t *set = set_of(names, hash);
    uint64_t word = word_of(hash, segment, offset);

    for (unsigned at = 0; word && at < NAMES_WAYS; at++)
        if (atomic_load_explicit(&set[at], memory_order_relaxed) == word)
            atomic_store_explicit(&set[at], 0, memory_order_relaxed);
}

/* Behind everything the node did before: who sees this time sees the headers that had been killed when it was granted. */
void names_extend(struct names *names, uint64_t until_ns)
{
    if (until_ns > atomic_load_explicit(&names->until, memory_order_relaxed))
        atomic_store_explicit(&names->until, until_ns, memory_order_release);
}

/* ---- readers ---- */

bool names_open(const void *addr, uint64_t size, struct names_view *out)
{
    const struct names *names = addr;
    uint64_t sets;

    if (size < sizeof(*names) || names->magic != MAGIC || names->layout != LAYOUT)
        return false;
    sets = names->sets;
    if (sets == 0 || sets & (sets - 1) || sets * NAMES_WAYS > NAMES_WORDS_MAX || size_of(sets) > size ||
        names->clock != clock_identity())
        return false;
    *out = (struct names_view){names, sets - 1};
    return true;
}

uint64_t names_until(const struct names_view *view)
{
    return atomic_load_explicit(&view->names->until, memory_order_acquire);
}

unsigned names_find(const struct names_view *view, uint64_t hash, struct names_place places[NAMES_WAYS])
{
    const _Atomic uint64_t *set = view->names->words[hash & view->sets_mask];
    uint64_t tag = word_of(hash, 0, 0) >> TAG_SHIFT;
    unsigned n = 0;

    for (unsigned at = 0; at < NAMES_WAYS; at++) {
        uint64_t word = atomic_load_explicit(&set[at], memory_order_acquire);

        if (word >> TAG_SHIFT == tag)
            places[n++] = (struct names_place){word >> SEGMENT_SHIFT & (SEGMENTS - 1), (word & UINT32_MAX) * UNIT};
    }
    return n;
}
