/* bench_serve.c - mooncake bench serve: cold, hit and decode speed of the service beside the engine alone.
 *
 * Each round has a document nobody has seen (its first line names the round), so that its first request is cold:
 *
 *   cold      document + first question, through the service
 *   alone     the same prompt, the engine alone on all cores; before the cold one in odd rounds (ABBA)
 *   hit       document + second question, through the service
 *
 * so the three come within seconds of each other and a machine that slows down slows all of them. Medians over the rounds; a ratio is
 * the median of the rounds' own ratios, so that what drifts between rounds does not enter it. */
#include "cli/bench.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/alone.h"
#include "cli/ask.h"
#include "cli/demo_text.h"
#include "cli/service.h"

enum { ANSWER_TOKENS = 48, IDLE_MS = 300000 };

struct round {
    double cold_ms, hit_ms, alone_ms; /* TTFT */
    double cold_tbt, hit_tbt, alone_tbt;
    int64_t prompt_tokens, reused_tokens;
    bool equal; /* cold text and the engine's alone */
};

struct bench {
    struct cli *cli;
    const char *url;
    struct ask_model model;
    struct alone *alone;
    struct round *rounds;
    uint64_t run; /* makes documents of this run unlike those of others */
    bool progress;
};

static json_t *make_messages(const struct bench *bench, int round, const char *question)
{
    struct buf text;

    buf_init(&text, 1 << 20);
    buf_printf(
        &text, "Run %llx, round %d.\n\n%s\n\n%s", (unsigned long long)bench->run, round, demo_document, question);
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", buf_cstr(&text));
    buf_fini(&text);
    return messages;
}

static int ask_service(struct bench *bench, json_t *messages, struct ask *ask)
{
    *ask = (struct ask){.url = bench->url,
        .model = bench->model.name,
        .messages = messages,
        .max_tokens = ANSWER_TOKENS,
        .timeout_ms = IDLE_MS};
    return ask_run(ask) ? CLI_OK : cli_fail(bench->cli, ask->code, "%s", ask->error);
}

static int ask_alone(struct bench *bench, json_t *messages, struct alone_answer *answer)
{
    alone_ask(bench->alone, messages, ANSWER_TOKENS, answer);
    return answer->ok ? CLI_OK : cli_fail(bench->cli, CLI_FAILED, "%s", answer->error);
}

static int run_round(struct bench *bench, int index)
{
    json_t *first = make_messages(bench, index, "In two sentences: what is a KVCache?");
    json_t *second = make_messages(bench, index, "Why does a shared prefix shorten the time to the first token?");
    struct round *round = &bench->rounds[index];
    struct alone_answer alone = {0};
    struct ask cold = {0}, hit = {0};
    int code = first && second ? CLI_OK : cli_fail(bench->cli, CLI_FAILED, "out of memory");

    if (code == CLI_OK && index % 2)
        code = ask_alone(bench, first, &alone);
    if (code == CLI_OK)
        code = ask_service(bench, first, &cold);
    if (code == CLI_OK && index % 2 == 0)
        code = ask_alone(bench, first, &alone);
    if (code == CLI_OK)
        code = ask_service(bench, second, &hit);
    if (code == CLI_OK)
        *round = (struct round){.cold_ms = cold.ttft_ms,
            .hit_ms = hit.ttft_ms,
            .alone_ms = alone.ttft_ms,
            .cold_tbt = cold.tbt_ms_p50,
            .hit_tbt = hit.tbt_ms_p50,
            .alone_tbt = alone.tbt_ms_p50,
            .prompt_tokens = hit.prompt_tokens,
            .reused_tokens = hit.reused_tokens,
            .equal = strcmp(buf_cstr(&cold.text), buf_cstr(&alone.text)) == 0};
    ask_fini(&cold);
    ask_fini(&hit);
    alone_answer_fini(&alone);
    json_decref(first);
    json_decref(second);
    return code;
}

/* Median over all rounds of one figure, or with `under` of its ratio to another one of the same round. */
static double over_rounds(const struct bench *bench, size_t offset, const size_t *under)
{
    size_t count = (size_t)bench->cli->set->rounds;
    double *values = count <= 1000 ? calloc(count, sizeof(double)) : NULL, result;

    if (!values)
        return 0;
    for (size_t i = 0; i < count; i++) {
        const char *round = (const char *)&bench->rounds[i];
        double below = under ? *(const double *)(round + *under) : 1;

        values[i] = below > 0 ? *(const double *)(round + offset) / below : 0;
    }
    result = median(values, count);
    free(values);
    return result;
}
#define OVER(bench, field) over_rounds(bench, offsetof(struct round, field), NULL)
#define RATIO(bench, field, under)                                                                                     \
    over_rounds(bench, offsetof(struct round, field), &(size_t){offsetof(struct round, under)})

static json_t *make_report(const struct bench *bench)
{
    json_t *raw = json_array();
    int64_t reused = bench->rounds[0].reused_tokens;
    bool equal = true;

    for (int64_t i = 0; i < bench->cli->set->rounds; i++) {
        const struct round *r = &bench->rounds[i];
        equal = equal && r->equal;
        reused = r->reused_tokens < reused ? r->reused_tokens : reused;
        json_array_append_new(
            raw, json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:b}", "cold_ttft_ms", r->cold_ms, "hit_ttft_ms",
                     r->hit_ms, "baseline_ttft_ms", r->alone_ms, "cold_tbt_ms", r->cold_tbt, "hit_tbt_ms", r->hit_tbt,
                     "baseline_tbt_ms", r->alone_tbt, "prompt_tokens", (json_int_t)r->prompt_tokens, "reused_tokens",
                     (json_int_t)r->reused_tokens, "equal", r->equal));
    }
    double cold = OVER(bench, cold_ms), hit = OVER(bench, hit_ms), alone = OVER(bench, alone_ms);
    double tbt = OVER(bench, cold_tbt), alone_tbt = OVER(bench, alone_tbt);
    return json_pack("{s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:b, s:o}", "engine",
        bench->model.engine, "model", bench->model.name, "rounds", (json_int_t)bench->cli->set->rounds, "cold_ttft_ms",
        cold, "hit_ttft_ms", hit, "baseline_ttft_ms", alone, "tbt_ms_p50", tbt, "baseline_tbt_ms_p50", alone_tbt,
        "cold_over_baseline", RATIO(bench, cold_ms, alone_ms), "tbt_over_baseline", RATIO(bench, cold_tbt, alone_tbt),
        "hit_over_cold", RATIO(bench, hit_ms, cold_ms), "reused_tokens", (json_int_t)reused, "outputs_equal", equal,
        "raw", raw);
}

static void print_text(const struct bench *bench)
{
    double cold = OVER(bench, cold_ms), hit = OVER(bench, hit_ms), alone = OVER(bench, alone_ms);
    double tbt = OVER(bench, cold_tbt), alone_tbt = OVER(bench, alone_tbt);

    printf("engine %s, model %s, %lld rounds, medians\n\n", bench->model.engine, bench->model.name,
        (long long)bench->cli->set->rounds);
    printf("%-34s %10s %10s %8s\n", "", "mooncake", "baseline", "ratio");
    printf("%-34s %7.1f ms %7.1f ms %8.3f\n", "TTFT, cold", cold, alone, RATIO(bench, cold_ms, alone_ms));
    printf("%-34s %7.1f ms %7.1f ms %8.3f\n", "TBT p50", tbt, alone_tbt, RATIO(bench, cold_tbt, alone_tbt));
    printf(
        "%-34s %7.1f ms %10s %8.3f of cold\n", "TTFT, document from the cache", hit, "", RATIO(bench, hit_ms, cold_ms));
    printf("%lld of %lld prompt tokens reused\n", (long long)bench->rounds[0].reused_tokens,
        (long long)bench->rounds[0].prompt_tokens);
}

static int measure(struct bench *bench)
{
    int64_t rounds = bench->cli->set->rounds;
    int code = CLI_OK;

    for (int64_t i = 0; i < rounds && code == CLI_OK; i++) {
        if (bench->progress)
            fprintf(stderr, "\rround %lld of %lld ", (long long)i + 1, (long long)rounds);
        code = run_round(bench, (int)i);
    }
    if (bench->progress)
        fprintf(stderr, "\r\033[K");
    return code;
}

static int run(struct bench *bench)
{
    struct cli *cli = bench->cli;
    int code;

    if (!ask_model(bench->url, (uint32_t)cli->set->timeout_ms, &bench->model))
        return cli_fail(cli, bench->model.code, "%s", bench->model.error);
    if (!alone_start(cli, bench->model.engine, &bench->alone))
        return CLI_FAILED;
    code = measure(bench);
    if (code == CLI_OK && cli->set->json) {
        json_t *report = make_report(bench);
        json_dumpf(report, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(report);
    } else if (code == CLI_OK) {
        print_text(bench);
    }
    alone_stop(bench->alone);
    return code;
}

int bench_serve(struct cli *cli)
{
    struct bench bench = {.cli = cli, .run = now_ns(), .progress = isatty(STDERR_FILENO)};
    struct service service;
    bool own = !options_given(cli->options, "url");
    int code = CLI_OK;

    bench.rounds = calloc((size_t)cli->set->rounds, sizeof(struct round));
    if (!bench.rounds)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    if (own)
        code = service_start(cli, &service);
    if (code != CLI_OK)
        goto undo_rounds;
    bench.url = own ? service.url : cli->set->url;
    code = run(&bench);
    if (own)
        service_stop(&service);
undo_rounds:
    free(bench.rounds);
    return code;
}
