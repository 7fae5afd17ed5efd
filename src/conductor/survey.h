/* survey.h - a thread that asks the Store for its nodes once a second, because that call blocks.
 *
 * It sleeps on a condition between questions, and does not ask while the Conductor is idle for long.
 * Threads: start, stop: the owner's. `fn` runs on the loop. */
#ifndef CONDUCTOR_SURVEY_H
#define CONDUCTOR_SURVEY_H

#include "mooncake/store.h"
#include "net/loop.h"

enum { SURVEY_NODES_MAX = 64, SURVEY_MS = 1000 };

struct survey;

/* The last answer. MC_OK, or why the Store did not say (count 0). Lent for the call. */
typedef void survey_fn(void *arg, enum mc_status status, const struct mc_node_info *rows, uint32_t count);

/* NULL: memory or threads are out. */
struct survey *survey_start(struct mc_store *store, struct loop *loop, survey_fn *fn, void *arg);

/* Somebody wants to know (any thread): go on asking for some seconds. */
void survey_poke(struct survey *survey);

/* Ends the thread; no `fn` after that. While the loop does not run. NULL is allowed. */
void survey_stop(struct survey *survey);

/* After the loop was destroyed (it may still have had an answer under way). NULL is allowed. */
void survey_free(struct survey *survey);

#endif
