/* evictions.c - the table. See evictions.h. */
#include "replay/evictions.h"

#include <string.h>

static const struct eviction rows[] = {
    {.policy = &evict_mooncake},
    {.policy = &evict_lru},
    {.policy = &evict_density},
    {.policy = &evict_s3fifo},
    {.policy = &evict_arc},
    {.policy = &opt_policy, .clairvoyant = true},
};

bool eviction_at(size_t index, struct eviction *out)
{
    if (index >= sizeof(rows) / sizeof(rows[0]))
        return false;
    *out = rows[index];
    return true;
}

bool eviction_find(const char *name, struct eviction *out)
{
    for (size_t i = 0; eviction_at(i, out); i++)
        if (strcmp(out->policy->name, name) == 0)
            return true;
    return false;
}
