/* bench.h - parts of mooncake bench with a file of their own: the whole service against the engine alone, the prefix index against
 * prompts of a trace. Threads: main's. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/cli.h"

int bench_serve(struct cli *cli);
int bench_index(struct cli *cli);

#endif
