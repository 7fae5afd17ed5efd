/* pins.h - a helper thread for the Store's calls that block: registering the model, pinning and unpinning blocks.
 *
 * The blocks of a prefill are pinned when they are stored and let go when the Conductor says that a decode worker has
 * them (W_RELEASE), when their time is over, or when this process ends (pins die with their client's connection).
 *
 * A model whose record could not be registered at the start, because no master answered, is registered when one does; if that
 * shows another record under the same name, `mismatch` is called once. From then on it is said again now and then: a master that
 * was replaced knows no records, and a worker of another kind must not be the first to tell it.
 * Threads: pins_add and pins_release from any thread; own thread inside. */
#ifndef WORKER_PINS_H
#define WORKER_PINS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "mooncake/store.h"

struct pins {
    struct mc_store *store; /* borrowed */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t bell;
    struct list todo, held; /* struct pin */
    uint32_t count;
    bool stop;
    bool rung;            /* there may be something new to do */
    bool registered;      /* the model's record was taken once */
    uint64_t register_ns; /* when it is said next */
    const char *model;
    const void *record;
    uint32_t record_size;
    void (*mismatch)(void *arg, const char *field);
    void *arg;
};

enum { PINS_MAX = 4096 };

/* Set the fields of registration before; texts are borrowed. MC_OK, MC_ESYS. */
enum mc_status pins_start(struct pins *pins, struct mc_store *store);
void pins_stop(struct pins *pins); /* harmless when not started */

/* Pin `count` keys (given: free()) for hold_ms, under a name made of owner and request. Beyond PINS_MAX: not pinned. */
void pins_add(
    struct pins *pins, const void *owner, uint64_t request, struct mc_key *keys, uint32_t count, uint32_t hold_ms);
void pins_release(struct pins *pins, const void *owner, uint64_t request);

#endif
