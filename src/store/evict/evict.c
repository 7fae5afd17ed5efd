/* evict.c - the tables. See evict.h. */
#include "store/evict/evict.h"

#include <stdlib.h>
#include <string.h>

const struct evict_policy *const evict_policies[] = {&evict_mooncake, &evict_lru, NULL};
const struct evict_policy *const evict_experts[] = {&evict_density, &evict_lru, &evict_s3fifo, &evict_arc, NULL};

const struct evict_policy *evict_policy_find(const char *name)
{
    for (const struct evict_policy *const *p = evict_policies; *p; p++)
        if (strcmp((*p)->name, name) == 0)
            return *p;
    return NULL;
}

enum mc_status evict_create(
    const struct evict_policy *policy, uint32_t slots_max, uint32_t capacity, struct evict **out)
{
    struct evict *e = calloc(1, policy->handle_size);

    if (!e)
        return MC_ENOMEM;
    e->policy = policy;
    e->slots_max = slots_max;
    e->capacity = capacity;
    if (policy->init(e) != MC_OK) {
        free(e);
        return MC_ENOMEM;
    }
    *out = e;
    return MC_OK;
}

void evict_destroy(struct evict *e)
{
    if (!e)
        return;
    e->policy->fini(e);
    free(e);
}
