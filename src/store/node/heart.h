/* heart.h - a node's heartbeat: a thread and a connection of its own, so that no work of the node's loop makes it look dead.
 *
 * With the answer comes for how long the node's word on its names counts, from when the beat was sent: what it extends in the node's
 * directory (store/names.h) lapses by itself when this process is stopped, killed or cut off.
 *
 * Threads: start and stop from one thread; heart_set from any (the node's loop). */
#ifndef STORE_NODE_HEART_H
#define STORE_NODE_HEART_H

#include "net/addr.h"
#include "net/frame.h"
#include "store/names.h"
#include "store/proto.h"

struct heart;

enum { HEART_MS = 200, HEART_EAGER_MS = 50 };

/* `self`: role ROLE_HEARTBEAT. `names` is borrowed. NULL: out of memory (logged). */
struct heart *heart_start(const struct addr *master, const struct hello *self, struct names *names);
void heart_stop(struct heart *heart); /* NULL is allowed */

/* What the beats say from now on. Until the first time none is sent. `now`: send one at once (a change of state). */
void heart_set(struct heart *heart, const struct store_beat *beat, bool now);

#endif
