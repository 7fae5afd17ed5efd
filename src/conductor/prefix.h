/* prefix.h - ask the Store how much of a prompt it has, without waiting for it.
 *
 * The Store answers on its own thread; the answer is carried over to the loop. Who asked may forget the question at any
 * time: it is answered by its deadline and then thrown away.
 * Threads: the loop's only, except the Store's callback inside. */
#ifndef CONDUCTOR_PREFIX_H
#define CONDUCTOR_PREFIX_H

#include "mooncake/kvcache.h"
#include "mooncake/store.h"
#include "net/loop.h"

enum { PREFIX_NODES_MAX = 64 };

struct prefix_query;

struct prefix_answer {
    enum mc_status status; /* MC_OK, or why `blocks` may be less than there is */
    uint32_t blocks;
    struct mc_prefix_node nodes[PREFIX_NODES_MAX];
    uint32_t node_count;
};

/* On the loop, at most once, never after prefix_forget(). */
typedef void prefix_done_fn(void *arg, const struct prefix_answer *answer);

/* MC_OK: `done` will run, unless forgotten. Otherwise it will not. `ids` is borrowed for the call. */
enum mc_status prefix_ask(struct mc_store *store, struct loop *loop, const struct mc_block_id *ids, uint32_t count,
    uint32_t deadline_ms, prefix_done_fn *done, void *arg, struct prefix_query **out);

void prefix_forget(struct prefix_query *query);

#endif
