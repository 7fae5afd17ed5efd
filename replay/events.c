/* events.c - see events.h. */
#include "replay/events.h"

#include <stdbool.h>
#include <stdlib.h>

void events_fini(struct events *events)
{
    free(events->heap);
    *events = (struct events){0};
}

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

enum mc_status events_add(struct events *events, uint64_t at, uint32_t kind, uint32_t index, void *arg)
{
    if (events->count == events->cap) {
        size_t cap = events->cap ? 2 * events->cap : 64;
        struct event *heap = realloc(events->heap, cap * sizeof(*heap));

        if (!heap)
            return MC_ENOMEM;
        events->heap = heap;
        events->cap = cap;
    }
    struct event event = {at, events->told++, kind, index, arg};
    size_t i = events->count++;
    for (; i > 0 && before(&event, &events->heap[(i - 1) / 2]); i = (i - 1) / 2)
        events->heap[i] = events->heap[(i - 1) / 2];
    events->heap[i] = event;
    return MC_OK;
}

void events_pop(struct events *events, struct event *out)
{
    *out = events->heap[0];
    struct event last = events->heap[--events->count];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < events->count; i = child) {
        if (child + 1 < events->count && before(&events->heap[child + 1], &events->heap[child]))
            child++;
        if (!before(&events->heap[child], &last))
            break;
        events->heap[i] = events->heap[child];
    }
    events->heap[i] = last;
}
