/* experts.c - see experts.h. */
#include "store/evict/experts.h"

#include <assert.h>
#include <math.h>

#define WINDOW_CAPACITIES 64.0
#define WINDOW_MIN        4000.0 /* uses */

enum mc_status experts_init(struct experts *experts, uint32_t objects)
{
    *experts = (struct experts){0};
    for (; evict_experts[experts->count]; experts->count++) {
        assert(experts->count < EXPERTS_MAX);
        struct expert *expert = &experts->at[experts->count];

        if (idpool_create(evict_experts[experts->count], objects, &expert->shadow) != MC_OK)
            return MC_ENOMEM;
        expert->vote = 1;
    }
    return MC_OK;
}

void experts_fini(struct experts *experts)
{
    for (unsigned x = 0; x < experts->count; x++)
        idpool_destroy(experts->at[x].shadow);
    experts->count = 0;
}

void experts_forget(struct experts *experts)
{
    for (unsigned x = 0; x < experts->count; x++)
        experts->at[x] = (struct expert){.shadow = experts->at[x].shadow, .vote = 1};
}

static unsigned best_of(const struct experts *experts)
{
    unsigned best = 0;

    for (unsigned x = 1; x < experts->count; x++)
        if (experts->at[x].hits > experts->at[best].hits)
            best = x;
    return best;
}

void experts_count(struct experts *experts, const uint32_t hits[EXPERTS_MAX], uint32_t uses, uint32_t objects)
{
    double window = WINDOW_CAPACITIES * objects + WINDOW_MIN, fade = uses < window ? 1 - uses / window : 0;

    for (unsigned x = 0; x < experts->count; x++)
        experts->at[x].hits = experts->at[x].hits * fade + hits[x];
    unsigned best = best_of(experts);
    for (unsigned x = 0; x < experts->count; x++) {
        struct expert *expert = &experts->at[x];
        double less = (double)hits[best] - hits[x];

        expert->spread = expert->spread * fade + less * less;
        expert->vote = exp((expert->hits - experts->at[best].hits) / (sqrt(expert->spread) + 1));
    }
}
