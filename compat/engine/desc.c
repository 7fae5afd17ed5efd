/* desc.c - what a peer has registered, as one object that never changes: whoever uses it holds a reference.
 *
 * Ranges may overlap, so a look-up needs the one that reaches furthest of those that begin at or before an address:
 *
 *     spots   | 10..20 | 12..90 | 40..50 | 95..99 |        sorted by address
 *     best    |   0    |   1    |   1    |   3    |        look up 60: last that begins before is 2, its best is 1
 */
#include <stdlib.h>
#include <string.h>

#include "compat/engine/impl.h"

struct ce_desc *ce_desc_ref(struct ce_desc *desc)
{
    if (desc)
        atomic_fetch_add_explicit(&desc->refs, 1, memory_order_relaxed); /* the caller has one already */
    return desc;
}

void ce_desc_unref(struct ce_desc *desc)
{
    if (desc && atomic_fetch_sub(&desc->refs, 1) == 1)
        free(desc);
}

bool ce_desc_same_process(const struct ce_desc *a, const struct ce_desc *b)
{
    return a->epoch == b->epoch && memcmp(a->uuid, b->uuid, UUID_SIZE) == 0;
}

static int by_address(const void *a, const void *b)
{
    const struct ce_spot *x = a, *y = b;

    return x->addr < y->addr ? -1 : x->addr > y->addr;
}

enum mc_status ce_desc_parse(
    const struct ce_wire_answer *head, const uint8_t *areas, const struct hello *from, struct ce_desc **out)
{
    struct ce_desc *desc = malloc(sizeof(*desc) + head->count * sizeof(desc->spots[0]));

    if (!desc)
        return MC_ENOMEM;
    atomic_init(&desc->refs, 1);
    memcpy(desc->uuid, from->uuid, UUID_SIZE);
    desc->epoch = from->epoch;
    desc->version = head->version;
    desc->first = head->first;
    desc->count = head->count;
    for (uint32_t i = 0; i < head->count; i++) {
        struct ce_area area;

        if (ce_wire_area_get(areas + (size_t)i * CE_AREA_SIZE, &area) != MC_OK) {
            free(desc);
            return MC_EPROTO;
        }
        desc->spots[i] = (struct ce_spot){.addr = area.addr, .end = area.addr + area.len, .key = area.key};
    }
    qsort(desc->spots, desc->count, sizeof(desc->spots[0]), by_address);
    for (uint32_t i = 0; i < desc->count; i++) {
        uint32_t before = i ? desc->spots[i - 1].best : 0;

        desc->spots[i].best = desc->spots[before].end > desc->spots[i].end ? before : i;
    }
    *out = desc;
    return MC_OK;
}

const struct ce_spot *ce_desc_find(const struct ce_desc *desc, uint64_t addr, uint64_t len)
{
    uint32_t low = 0, high = desc->count;
    const struct ce_spot *spot;

    while (low < high) { /* first that begins behind addr */
        uint32_t middle = low + (high - low) / 2;

        if (desc->spots[middle].addr <= addr)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    spot = &desc->spots[desc->spots[low - 1].best];
    return addr <= spot->end && len <= spot->end - addr ? spot : NULL;
}
