/* bench.c - mooncake bench transfer|store|serve|index: one row each. The parts are measured by their rooms. */
#include "cli/bench.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mooncake/transfer.h"
#include "store/bench.h"
#include "transfer/bench.h"

enum op { OP_READ, OP_WRITE, OP_PUT, OP_GET, OP_EXISTS }; /* in the order of settings_op_names */

/* What both parts report. */
struct figures {
    double gbytes_per_s, ops_per_s, p50_us, p99_us, cpu_s_per_gb;
    bool verified;
    uint64_t failed;
    const char *transport;
    double memcpy_gbytes_per_s, first_read_us; /* 0: not measured */
};

static int print_figures(const struct cli *cli, const struct figures *f)
{
    char size[24];

    size_format(cli->set->size, size);
    if (cli->set->json) {
        json_t *all = json_pack("{s:f, s:f, s:f, s:f, s:b, s:s, s:f, s:I, s:I, s:I, s:f, s:f}", "gbytes_per_s",
            f->gbytes_per_s, "ops_per_s", f->ops_per_s, "p50_us", f->p50_us, "p99_us", f->p99_us, "verified",
            f->verified, "transport", f->transport, "cpu_s_per_gb", f->cpu_s_per_gb, "size", (json_int_t)cli->set->size,
            "batch", (json_int_t)cli->set->batch, "failed", (json_int_t)f->failed, "memcpy_gbytes_per_s",
            f->memcpy_gbytes_per_s, "first_read_us", f->first_read_us);
        if (!all)
            return cli_fail(cli, CLI_FAILED, "a figure is no number");
        json_dumpf(all, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(all);
        return CLI_OK;
    }
    printf("%s %s, %s x %" PRId64 " per batch, over %s\n", cli->args[0], settings_op_names[cli->set->op], size,
        cli->set->batch, f->transport);
    printf("  %.2f GB/s, %.0f operations/s, p50 %.1f us, p99 %.1f us, %.3f CPU s per GB%s\n", f->gbytes_per_s,
        f->ops_per_s, f->p50_us, f->p99_us, f->cpu_s_per_gb, f->verified ? ", every byte compared" : "");
    if (f->memcpy_gbytes_per_s > 0)
        printf("  glibc memcpy of that size, just before: %.2f GB/s\n", f->memcpy_gbytes_per_s);
    if (f->first_read_us > 0)
        printf("  reading a batch for the first time afterwards: %.1f us\n", f->first_read_us);
    if (f->failed)
        printf("  %" PRIu64 " operations failed\n", f->failed);
    return CLI_OK;
}

static int measured(const struct cli *cli, enum mc_status status, const struct figures *figures)
{
    if (status == MC_EINVAL)
        return cli_fail(cli, CLI_USAGE, "an option is out of range (see above)");
    if (status != MC_OK)
        return cli_fail(cli, CLI_FAILED, "%s", mc_status_str(status));
    return print_figures(cli, figures);
}

static uint32_t threads_of(const struct settings *set)
{
    return set->threads ? (uint32_t)set->threads : 1;
}

static int bench_transfer(struct cli *cli)
{
    const struct settings *set = cli->set;
    struct te_bench_opts opts = {.transport = set->transport,
        .opcode = set->op == OP_WRITE ? MC_WRITE : MC_READ,
        .size = set->size,
        .batch = (uint32_t)set->batch,
        .threads = threads_of(set),
        .seconds = set->seconds,
        .verify = set->verify,
        .plain = set->plain};
    struct te_bench_result result = {0};

    if (set->op != OP_READ && set->op != OP_WRITE)
        return cli_fail(cli, CLI_USAGE, "bench transfer: --op is read or write");
    enum mc_status status = te_bench_run(&opts, &result);
    struct figures figures = {.gbytes_per_s = result.gbytes_per_s,
        .ops_per_s = result.ops_per_s,
        .p50_us = result.p50_us,
        .p99_us = result.p99_us,
        .cpu_s_per_gb = result.cpu_s_per_gb,
        .verified = result.verified,
        .transport = mc_path_str(result.transport),
        .memcpy_gbytes_per_s = result.memcpy_gbytes_per_s,
        .first_read_us = result.first_read_us};
    return measured(cli, status, &figures);
}

static int bench_store(struct cli *cli)
{
    static const enum mc_store_opcode opcodes[] = {[OP_PUT] = MC_PUT, [OP_GET] = MC_GET, [OP_EXISTS] = MC_EXISTS};
    struct settings *set = cli->set;
    struct store_bench_result result = {0};

    if (!options_given(cli->options, "op"))
        set->op = OP_GET;
    if (set->op != OP_PUT && set->op != OP_GET && set->op != OP_EXISTS)
        return cli_fail(cli, CLI_USAGE, "bench store: --op is put, get or exists");
    struct store_bench_opts opts = {.transport = set->transport,
        .opcode = opcodes[set->op],
        .size = set->size,
        .batch = (uint32_t)set->batch,
        .threads = threads_of(set),
        .seconds = set->seconds,
        .named = set->named,
        .verify = set->verify};
    enum mc_status status = store_bench_run(&opts, &result);
    struct figures figures = {.gbytes_per_s = result.gbytes_per_s,
        .ops_per_s = result.ops_per_s,
        .p50_us = result.p50_us,
        .p99_us = result.p99_us,
        .cpu_s_per_gb = result.cpu_s_per_gb,
        .verified = result.verified,
        .failed = result.failed,
        .transport = mc_path_str((enum mc_path)result.path)};
    return measured(cli, status, &figures);
}

static const struct {
    const char *name;
    int (*run)(struct cli *cli);
} parts[] = {{"transfer", bench_transfer}, {"store", bench_store}, {"serve", bench_serve}, {"index", bench_index}};

int cmd_bench(struct cli *cli)
{
    const char *near = NULL;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (strcmp(cli->args[0], parts[i].name) == 0)
            return parts[i].run(cli);
        if (edit_distance(cli->args[0], parts[i].name) <= 2)
            near = parts[i].name;
    }
    return cli_fail(cli, CLI_USAGE, "no bench %s%s%s; there are transfer, store, serve and index", cli->args[0],
        near ? ", did you mean " : "", near ? near : "");
}
