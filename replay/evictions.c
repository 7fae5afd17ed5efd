/* evictions.c - the table. See evictions.h. */
#include "replay/evictions.h"

#include <string.h>

static const struct eviction rows[] = {
    {.policy = &density_policy, .expect = density_expect},
    {.policy = &s3fifo_policy, .tail_first = true},
    {.policy = &arc_policy, .tail_first = true, .expect = arc_expect},
    {.policy = &opt_policy, .clairvoyant = true, .expect = opt_expect},
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

bool eviction_at(size_t index, struct eviction *out)
{
    size_t live = 0;

    while (evict_policies[live]) {
        if (live == index) {
            *out = (struct eviction){.policy = evict_policies[live]};
            return true;
        }
        live++;
    }
    if (index - live >= ROWS)
        return false;
    *out = rows[index - live];
    return true;
}

bool eviction_find(const char *name, struct eviction *out)
{
    for (size_t i = 0; eviction_at(i, out); i++)
        if (strcmp(out->policy->name, name) == 0)
            return true;
    return false;
}
