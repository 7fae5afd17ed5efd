/* model.c - open the engine that the options ask for. See model.h. */
#include "cli/model.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/xdg.h"

/* The weights that tools/fetch-engine left in the cache; false: none. */
static bool cached_weights(char *path, size_t size)
{
    char folder[400], pattern[420];
    glob_t found;
    bool there = false;

    if (xdg_path(XDG_CACHE, "engine", folder, sizeof(folder)) != MC_OK)
        return false;
    snprintf(pattern, sizeof(pattern), "%s/*.gguf", folder);
    if (glob(pattern, 0, NULL, &found) == 0) {
        there = snprintf(path, size, "%s", found.gl_pathv[0]) < (int)size;
        globfree(&found);
    }
    return there;
}

static void fill_options(const struct settings *set, struct mc_engine_options *options)
{
    mc_engine_options_init(options);
    options->engine_path = set->engine_path;
    options->model_name = set->model_name;
    options->threads = (uint32_t)set->threads;
    options->context_tokens = (uint32_t)set->context_tokens;
    options->sequences_max = (uint32_t)set->sequences;
    options->block_tokens = (uint32_t)set->block_tokens;
    options->chunk_tokens = (uint32_t)set->chunk_tokens;
    options->prefill_tokens_per_s = set->synthetic_prefill;
    options->decode_ms_per_step = set->synthetic_decode;
    options->seed = (uint64_t)set->synthetic_seed;
}

int model_open(struct cli *cli, struct mc_engine **engine)
{
    struct mc_engine_options options;
    char weights[512],
        why[512] = "no weights in the cache directory; ./quickstart fetches some, --model FILE names others";
    enum mc_status status = MC_ENOENT;
    int want = cli->set->engine;

    fill_options(cli->set, &options);
    if (want != ENGINE_SYNTHETIC) {
        options.engine = "llama";
        options.model_path = cli->set->model;
        if (!options.model_path && cached_weights(weights, sizeof(weights)))
            options.model_path = weights;
        if (options.model_path)
            status = mc_engine_open(&options, engine, why, sizeof(why));
        if (status == MC_OK)
            return CLI_OK;
        /* Only what is not there is replaced; what is there and broken is told. */
        if (want == ENGINE_LLAMA || status != MC_ENOENT || cli->set->model)
            return cli_fail(cli, CLI_FAILED, "%s%s%s", why, options.model_path ? "; model " : "",
                options.model_path ? options.model_path : "");
        log_info("engine auto takes synthetic: %s", why);
    }
    options.engine = "synthetic";
    options.model_path = NULL;
    if (mc_engine_open(&options, engine, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_FAILED, "%s", why);
    return CLI_OK;
}
