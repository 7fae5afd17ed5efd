/* model.h - from options to an open engine: which one, which weights, how many threads.
 *
 * Threads: see engine.h. */
#ifndef CLI_MODEL_H
#define CLI_MODEL_H

#include "cli/cli.h"
#include "mooncake/engine.h"

/* Open the engine the options ask for; `auto` is llama where plug-in and weights are there, else synthetic, said in one line.
 * CLI_OK: *engine is given, mc_engine_close(). Anything else: said on standard error. */
int model_open(struct cli *cli, struct mc_engine **engine);

#endif
