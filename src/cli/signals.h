/* signals.h - SIGTERM and SIGINT as a call: the first asks for an orderly end, a second one (or time) ends at once.
 *
 * signals_block() before any thread is made, so that no thread is interrupted; signals_watch() starts a thread that waits for
 * them. Threads: `stop` runs on that thread and must be callable from any thread. */
#ifndef CLI_SIGNALS_H
#define CLI_SIGNALS_H

#include <stdint.h>

#include "mooncake/status.h"

/* Block SIGTERM, SIGINT and SIGCHLD in this thread and those it makes; ignore SIGPIPE. */
void signals_block(void);

/* Call stop(arg) at the first SIGTERM or SIGINT; at the second, or when `drain_ms` have passed without signals_unwatch(), end
 * the process with 130. MC_OK or MC_ESYS. */
enum mc_status signals_watch(void (*stop)(void *arg), void *arg, uint64_t drain_ms);

/* No call of `stop` after this returns. */
void signals_unwatch(void);

/* Undo signals_block() in a child between fork and exec. */
void signals_restore(void);

#endif
