/* own.h - gets of names that lie in a node of this process, in the caller's own thread.
 *
 * The master decides which object a name means, and it is this node that it has to tell before anybody hears of another: so while node
 * and master are in touch the node's own table is as good as the master's. The caller borrows the node's loop for the
 * look-up, when that sleeps, and copies and verifies as every reader does. Anything else: the long way.
 *
 * A get promises (mc_store_opts.get_promises), and promises are the master's to keep: it is told afterwards, once per name in
 * OWN_PROMISE_MS. On one client that comes before whatever is asked after the get.
 *
 * Threads: any. */
#ifndef STORE_CLIENT_OWN_H
#define STORE_CLIENT_OWN_H

#include <stdatomic.h>
#include <stdint.h>

#include "mooncake/store.h"

enum { OWN_PROMISE_MS = 100, OWN_PROMISES = 4096 };

struct store_node;

struct own {
    struct store_node *_Atomic node; /* NULL: none */
    bool promises;
    /* When names were promised last: the upper bits of a name's hash with milliseconds, at the place of its lower bits. A hint:
     * lost or overwritten, it costs a message. */
    _Atomic uint64_t promised[OWN_PROMISES];
};

/* From now on; NULL: no more. The node outlives the client, or this is called before it goes and no get is under way. */
void shell_own(struct mc_store *store, struct store_node *node);

/* Do this get, and fill op->result. False: op is untouched, the content of its destination is undefined. */
bool own_read(struct mc_store *store, struct mc_store_op *op);

#endif
