/* calc.c - mooncake calc: bytes of a KVCache and the time to move them. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "mooncake/kvcache.h"

static const double links_gbps[] = {25, 100, 200, 400};
#define LINKS (sizeof(links_gbps) / sizeof(links_gbps[0]))

/* 1.25 GiB, 512 MiB: three digits that matter, trailing zeros dropped. */
static const char *bytes_text(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.4g %s", value, units[unit]);
    return out;
}

static const char *seconds_text(double seconds, char out[32])
{
    if (seconds < 1e-3)
        snprintf(out, 32, "%.3g us", seconds * 1e6);
    else if (seconds < 1)
        snprintf(out, 32, "%.3g ms", seconds * 1e3);
    else
        snprintf(out, 32, "%.3g s", seconds);
    return out;
}

/* Of a GGUF file; its layers may differ from each other. */
static int describe_file(struct cli *cli, uint64_t *per_token, char *shape, size_t size)
{
    const struct settings *set = cli->set;
    char why[256] = "";
    struct mc_gguf_model model;
    struct mc_geometry *geometry;
    struct mc_gguf *gguf;
    int code = CLI_FAILED;

    if (mc_gguf_open(set->model, &gguf, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_FAILED, "%s: %s", set->model, why);
    if (mc_gguf_model(gguf, &model, why, sizeof(why)) != MC_OK ||
        mc_gguf_geometry(gguf, set->dtype, set->dtype, &geometry, why, sizeof(why)) != MC_OK) {
        cli_fail(cli, CLI_FAILED, "%s: %s", set->model, why);
        goto undo_gguf;
    }
    *per_token = mc_geometry_bytes_per_token(geometry);
    snprintf(shape, size, "%s (%s): %u layers, %u KV heads of %u, %s", model.name, model.arch, model.layers,
        model.kv_heads, model.k_dim, set->dtype);
    mc_geometry_destroy(geometry);
    code = CLI_OK;
undo_gguf:
    mc_gguf_destroy(gguf);
    return code;
}

/* Bytes per token of what the user described: options, or a model file. `shape` tells people what it was. */
static int describe(struct cli *cli, uint64_t *per_token, char *shape, size_t size)
{
    const struct settings *set = cli->set;
    struct mc_kv_shape kv = {.name = "yours",
        .layers = (uint32_t)set->layers,
        .kv_heads = (uint32_t)set->kv_heads,
        .k_dim = (uint32_t)set->head_dim,
        .v_dim = (uint32_t)set->head_dim,
        .dtype = set->dtype};

    if (!mc_dtype_find(set->dtype))
        return cli_fail(
            cli, CLI_USAGE, "option --dtype: no type %s; there are fp32 fp16 bf16 fp8 int8 q8_0 q4_0", set->dtype);
    if (set->model)
        return describe_file(cli, per_token, shape, size);
    if (!set->layers || !set->kv_heads || !set->head_dim)
        return cli_fail(cli, CLI_USAGE, "give --layers, --kv-heads and --head-dim, or --model FILE");
    if (mc_kv_bytes_per_token(&kv, per_token) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "a head of %u elements is no whole number of %s blocks", kv.k_dim, kv.dtype);
    snprintf(shape, size, "%u layers, %u KV heads of %u, %s", kv.layers, kv.kv_heads, kv.k_dim, kv.dtype);
    return CLI_OK;
}

static int print_json(uint64_t per_token, uint64_t tokens, uint64_t total)
{
    json_t *transfer = json_object();
    char name[16];

    for (size_t i = 0; i < LINKS; i++) {
        snprintf(name, sizeof(name), "%.0f", links_gbps[i]);
        json_object_set_new(transfer, name, json_real(mc_kv_transfer_s(total, links_gbps[i])));
    }
    json_t *all = json_pack("{s:I, s:I, s:I, s:o}", "bytes_per_token", (json_int_t)per_token, "tokens",
        (json_int_t)tokens, "total_bytes", (json_int_t)total, "transfer_s", transfer);
    if (!all)
        return CLI_FAILED;
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return CLI_OK;
}

/* Common models at the lengths people ask about. */
static void print_models(void)
{
    static const uint64_t lengths[] = {4096, 32768, 131072, 1048576};
    char text[32];

    printf("\n%-28s %10s %10s %10s %10s %10s\n", "model", "B/token", "4K", "32K", "128K", "1M");
    for (size_t i = 0; mc_kv_common_model(i); i++) {
        const struct mc_kv_shape *shape = mc_kv_common_model(i);
        uint64_t bytes = 0;
        if (mc_kv_bytes_per_token(shape, &bytes) != MC_OK)
            continue;
        printf("%-28s %10" PRIu64, shape->name, bytes);
        for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++)
            printf(" %10s", bytes_text(bytes * lengths[j], text));
        putchar('\n');
    }
}

static void print_text(const char *shape, uint64_t per_token, uint64_t tokens, uint64_t total)
{
    char text[32];

    printf("%s\n", shape);
    printf("per token  %" PRIu64 " B\n", per_token);
    printf("total      %s for %" PRIu64 " tokens (%" PRIu64 " B)\n", bytes_text(total, text), tokens, total);
    printf("to move    ");
    for (size_t i = 0; i < LINKS; i++)
        printf("%s%s at %.0f Gbps", i ? ", " : "", seconds_text(mc_kv_transfer_s(total, links_gbps[i]), text),
            links_gbps[i]);
    putchar('\n');
    print_models();
}

int cmd_calc(struct cli *cli)
{
    uint64_t tokens, per_token, total;
    char shape[160];
    int code = describe(cli, &per_token, shape, sizeof(shape));

    if (code != CLI_OK)
        return code;
    if (mc_kv_tokens_parse(cli->set->tokens, &tokens) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "option --tokens: %s is no count like 4096, 32K or 1M", cli->set->tokens);
    if (__builtin_mul_overflow(per_token, tokens, &total))
        return cli_fail(cli, CLI_USAGE, "option --tokens: %s tokens of %" PRIu64 " B are more than 64 bits hold",
            cli->set->tokens, per_token);
    if (cli->set->json)
        return print_json(per_token, tokens, total);
    print_text(shape, per_token, tokens, total);
    return CLI_OK;
}
