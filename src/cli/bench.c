/* bench.c - mooncake bench transfer|store|serve: which part is measured. */
#include "cli/bench.h"

#include <string.h>

int cmd_bench(struct cli *cli)
{
    const char *what = cli->args[0];

    if (strcmp(what, "serve") == 0)
        return bench_serve(cli);
    return cli_fail(cli, CLI_USAGE, "no bench %s; there are transfer, store, serve", what);
}
