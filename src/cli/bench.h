/* bench.h - mooncake bench serve: the whole service against the engine alone. Threads: main's. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/cli.h"

int bench_serve(struct cli *cli);

#endif
