/* helper.c - what the equality test needs of the engine and cannot ask the service for.
 *
 *   helper alone   PLUGIN MODEL THREADS                      the engine alone: one line of JSON in, one out
 *   helper damaged PLUGIN MODEL THREADS MASTER CONDUCTOR     a decode worker that damages one bit of each prompt it imports,
 *                                                            behind the checksums; prints "ready", ends with its input
 *
 * alone in:   {"messages": [...]} or {"tokens": [...]}, "max_tokens": N, "near": 0.15, "keep": true (the next prompt goes on
 *             from this one's KV, which it must begin with)
 * alone out:  {"prompt": [ids], "steps": [{"token": id, "piece": hex, "end": bool, "near": [hex, ...]}]}
 *             near: pieces of the other tokens whose logit is less than that below the chosen one's; an end token's is ""
 *
 * One thread, the engine thread; the damaged worker has its own. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mooncake/engine.h"
#include "worker/baseline.h"
#include "worker/worker.h"

enum { NEAR_MAX = 64, EXIT_USAGE = 2 };

struct alone {
    struct mc_engine *engine;
    uint32_t seq; /* kept from the last run, UINT32_MAX: none */
    double near_;
    json_t *steps;
};

static int die(const char *what, const char *why)
{
    fprintf(stderr, "helper: %s: %s\n", what, why);
    return EXIT_FAILURE;
}

/* ---- the engine alone ---- */

static json_t *piece_hex(const struct mc_engine *engine, uint32_t token)
{
    char piece[MC_PIECE_SIZE_MAX], hex[2 * MC_PIECE_SIZE_MAX + 1] = "";
    size_t size = 0;

    if (mc_engine_piece(engine, token, false, piece, sizeof(piece), &size) != MC_OK)
        size = 0;
    for (size_t i = 0; i < size; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned char)piece[i]);
    return json_string(hex);
}

static void on_choice(void *arg, uint32_t token, const float *logits, uint32_t vocab_size)
{
    struct alone *alone = arg;
    json_t *near_ = json_array();

    for (uint32_t i = 0; i < vocab_size && json_array_size(near_) < NEAR_MAX; i++)
        if (i != token && logits[token] - logits[i] < alone->near_)
            json_array_append_new(near_, piece_hex(alone->engine, i));
    json_array_append_new(alone->steps,
        json_pack("{s:I, s:o, s:b, s:o}", "token", (json_int_t)token, "piece", piece_hex(alone->engine, token), "end",
            mc_engine_is_end(alone->engine, token), "near", near_));
}

static uint32_t *tokens_given(const json_t *list, size_t *count)
{
    uint32_t *tokens = calloc(json_array_size(list) + 1, sizeof(*tokens));

    *count = json_array_size(list);
    for (size_t i = 0; tokens && i < *count; i++)
        tokens[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return tokens;
}

/* A chat as a worker renders and tokenises it. NULL: refused. */
static uint32_t *tokens_of_chat(const struct mc_engine *engine, const json_t *messages, size_t *count)
{
    size_t n = json_array_size(messages), length = 0;
    struct mc_chat_message *chat = calloc(n + 1, sizeof(*chat));
    uint32_t *tokens = NULL;
    char *text = NULL;

    for (size_t i = 0; chat && i < n; i++) {
        const json_t *message = json_array_get(messages, i);

        chat[i].role = json_string_value(json_object_get(message, "role"));
        chat[i].content = json_string_value(json_object_get(message, "content"));
    }
    if (chat && mc_engine_chat(engine, chat, n, true, NULL, 0, &length) == MC_ETOOBIG)
        text = malloc(length);
    if (text && mc_engine_chat(engine, chat, n, true, text, length, &length) == MC_OK)
        tokens = calloc(length, sizeof(*tokens)); /* no token is shorter than a byte */
    if (tokens && mc_engine_tokenize(
                      engine, text, length, MC_TOKENIZE_BOS | MC_TOKENIZE_SPECIAL, tokens, length, count) != MC_OK) {
        free(tokens);
        tokens = NULL;
    }
    free(text);
    free(chat);
    return tokens;
}

/* The answer to one request, or {"error": why}. */
static json_t *answer(struct alone *alone, const json_t *request)
{
    const json_t *given = json_object_get(request, "tokens");
    struct baseline_run run = {.max_tokens = (uint32_t)json_integer_value(json_object_get(request, "max_tokens")),
        .on_choice = on_choice,
        .arg = alone};
    bool keep = json_is_true(json_object_get(request, "keep"));
    size_t count = 0;
    uint32_t *tokens = given ? tokens_given(given, &count)
                             : tokens_of_chat(alone->engine, json_object_get(request, "messages"), &count);
    json_t *prompt = json_array(), *reply;
    enum mc_status status = tokens ? MC_OK : MC_EINVAL;

    alone->near_ = json_number_value(json_object_get(request, "near"));
    alone->steps = json_array();
    run.prompt = tokens;
    run.prompt_count = (uint32_t)count;
    mc_sampling_init(&run.sampling);
    run.sampling.temperature = 0;
    if (status == MC_OK)
        status = worker_baseline_run(alone->engine, &run, &alone->seq);
    if (!keep && alone->seq != UINT32_MAX) {
        mc_engine_seq_free(alone->engine, alone->seq);
        alone->seq = UINT32_MAX;
    }
    for (size_t i = 0; i < count; i++)
        json_array_append_new(prompt, json_integer(tokens[i]));
    reply = status == MC_OK ? json_pack("{s:O, s:O}", "prompt", prompt, "steps", alone->steps)
                            : json_pack("{s:s}", "error", mc_status_str(status));
    json_decref(prompt);
    json_decref(alone->steps);
    baseline_run_fini(&run);
    free(tokens);
    return reply;
}

static int serve_alone(struct mc_engine *engine)
{
    struct alone alone = {.engine = engine, .seq = UINT32_MAX};
    char *line = NULL;
    size_t room = 0;

    while (getline(&line, &room, stdin) > 0) {
        json_t *request = json_loads(line, 0, NULL), *reply = answer(&alone, request);

        json_dumpf(reply, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(reply);
        json_decref(request);
    }
    free(line);
    return EXIT_SUCCESS;
}

/* ---- the planted bug ---- */

static int serve_damaged(struct mc_engine *engine, uint32_t threads, const char *master, const char *conductor)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct worker_stats stats = {0};
    struct worker_opts opts;
    struct worker *worker;
    char why[512], byte;

    worker_opts_init(&opts);
    opts.engine = engine;
    opts.conductors = &conductor;
    opts.conductor_count = 1;
    opts.role = WMSG_ROLE_DECODE;
    opts.name = "damaged";
    opts.master = master;
    opts.threads_fixed = threads;
    opts.flip_imported_bit = true;
    if (worker_create(&opts, &worker, why, sizeof(why)) != MC_OK)
        return die("worker", why);
    while (!stats.conductors_up) {
        nanosleep(&pause, NULL);
        worker_stats(worker, &stats);
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        continue;
    worker_stats(worker, &stats);
    printf("%llu\n", (unsigned long long)stats.blocks_loaded);
    worker_destroy(worker);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct mc_engine_options options;
    struct mc_engine *engine;
    char why[512] = "";
    bool damaged = argc == 7 && strcmp(argv[1], "damaged") == 0;
    int code;

    if (!damaged && !(argc == 5 && strcmp(argv[1], "alone") == 0)) {
        fprintf(stderr,
            "usage: helper alone PLUGIN MODEL THREADS | helper damaged PLUGIN MODEL THREADS MASTER CONDUCTOR\n");
        return EXIT_USAGE;
    }
    mc_engine_options_init(&options);
    options.engine = "llama";
    options.engine_path = argv[2];
    options.model_path = argv[3];
    options.threads = (uint32_t)strtoul(argv[4], NULL, 10);
    if (mc_engine_open(&options, &engine, why, sizeof(why)) != MC_OK)
        return die("engine", why);
    code = damaged ? serve_damaged(engine, options.threads, argv[5], argv[6]) : serve_alone(engine);
    mc_engine_close(engine);
    return code;
}
