/* demo.c - mooncake demo: questions about one document, cold, from the cache, and beside the engine alone.
 *
 *   1  first question        nothing cached yet: the document is prefilled           -> cold
 *   2  second question       the document comes from the cache                       -> hit
 *   3  third, in Chinese     as the second
 *   4  first question again  nearly all of the prompt comes from the cache           -> its text must equal the first's
 *   baseline                 first question, the same engine on all cores, no Mooncake (a process of its own)
 *
 * "Cold" must be cold on a service that has seen the demonstration before too: request 1 says X-Mooncake-Cache: off. It still
 * writes its blocks, so the others find them. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/term.h"
#include "base/xdg.h"
#include "cli/alone.h"
#include "cli/ask.h"
#include "cli/cli.h"
#include "cli/demo_text.h"

enum { ANSWER_TOKENS = 96, REQUESTS = 4, HITS_FIRST = 1, HITS_LAST = 3, IDLE_MS = 300000 };

static const char *const questions[REQUESTS] = {
    "In two sentences: what is a KVCache?",
    "Why does a shared prefix shorten the time to the first token?",
    "请用中文简短回答：为什么要把预填充和解码分开？",
    "In two sentences: what is a KVCache?",
};

struct demo {
    struct cli *cli;
    struct ask_model model;
    struct ask asks[REQUESTS];
    struct alone_answer alone; /* the first question, by the engine alone */
    double cold_ms, hit_ms;
    bool outputs_equal;
};

/* The document first, the question behind it: so the document is the shared prefix. */
static json_t *make_messages(const char *question)
{
    struct buf text;

    buf_init(&text, 1 << 20);
    buf_printf(&text, "%s\n\n%s", demo_document, question);
    json_t *messages = json_pack("[{s:s, s:s}, {s:s, s:s}]", "role", "system", "content",
        "You answer questions about the document the user gives you.", "role", "user", "content", buf_cstr(&text));
    buf_fini(&text);
    return messages;
}

/* ---- what it prints ---- */

static void print_piece(void *arg, const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

static void print_figures(const struct ask *ask)
{
    printf("\n  %lld prompt tokens, %lld reused | TTFT %.0f ms | TBT %.1f ms | route %s\n",
        (long long)ask->prompt_tokens, (long long)ask->reused_tokens, ask->ttft_ms, ask->tbt_ms_p50,
        ask->route[0] ? ask->route : "?");
    printf("  where it went: queue %.0f ms, load %.0f ms, prefill %.0f ms, first decode %.0f ms\n\n", ask->queue_ms,
        ask->load_ms, ask->prefill_ms, ask->first_ms);
}

static void print_bar(const char *label, double value, double longest, int width, const char *colour)
{
    int length = longest > 0 ? (int)(value / longest * width + 0.5) : 0;

    printf("  %-28s %s", label, colour);
    for (int i = 0; i < (length > 0 ? length : 1); i++)
        fputs("█", stdout);
    printf("%s %.0f ms\n", *colour ? "\033[0m" : "", value);
}

static void print_bars(const struct demo *demo)
{
    bool colour = term_colour(STDOUT_FILENO);
    int width = term_width(STDOUT_FILENO) - 44;
    double longest = demo->cold_ms;

    if (demo->alone.ok && demo->alone.ttft_ms > longest)
        longest = demo->alone.ttft_ms;
    width = width < 10 ? 10 : width > 60 ? 60 : width;
    puts("time to the first token");
    if (demo->alone.ok)
        print_bar("engine alone, no Mooncake", demo->alone.ttft_ms, longest, width, colour ? "\033[90m" : "");
    print_bar("cold: document prefilled", demo->cold_ms, longest, width, colour ? "\033[33m" : "");
    print_bar("hit: document from the cache", demo->hit_ms, longest, width, colour ? "\033[32m" : "");
    if (demo->hit_ms > 0)
        printf("  %.1f times sooner; the same text as the engine alone: %s\n\n", demo->cold_ms / demo->hit_ms,
            demo->alone.ok ? (demo->outputs_equal ? "yes" : "NO") : "not compared");
}

/* ---- the run ---- */

static int run_request(struct demo *demo, size_t index, bool quiet)
{
    struct ask *ask = &demo->asks[index];
    json_t *messages = make_messages(questions[index]);

    if (!messages)
        return cli_fail(demo->cli, CLI_FAILED, "out of memory");
    *ask = (struct ask){.url = demo->cli->set->url,
        .model = demo->model.name,
        .messages = messages,
        .max_tokens = ANSWER_TOKENS,
        .no_cache = index == 0,
        .timeout_ms = IDLE_MS,
        .on_text = quiet ? NULL : print_piece};
    if (!quiet)
        printf("[%zu/%d] %s%s\n  ", index + 1, REQUESTS, questions[index], index == 3 ? "  (once more)" : "");
    fflush(stdout);
    bool ok = ask_run(ask);
    json_decref(messages);
    if (!ok)
        return cli_fail(demo->cli, ask->code, "request %zu: %s", index + 1, ask->error);
    if (!quiet)
        print_figures(ask);
    return CLI_OK;
}

static int run_baseline(struct demo *demo, bool quiet)
{
    json_t *messages = make_messages(questions[0]);
    struct alone *alone;

    if (!messages)
        return cli_fail(demo->cli, CLI_FAILED, "out of memory");
    if (!quiet)
        printf("the first question to the engine alone, on all cores ...\n");
    fflush(stdout);
    if (!alone_start(demo->cli, demo->model.engine, &alone)) {
        json_decref(messages);
        return CLI_FAILED;
    }
    alone_ask(alone, messages, ANSWER_TOKENS, &demo->alone);
    alone_stop(alone);
    json_decref(messages);
    if (!demo->alone.ok)
        return cli_fail(demo->cli, CLI_FAILED, "the engine alone gave no answer: %s", demo->alone.error);
    if (!quiet)
        printf("  TTFT %.0f ms | TBT %.1f ms\n\n", demo->alone.ttft_ms, demo->alone.tbt_ms_p50);
    return CLI_OK;
}

static void conclude(struct demo *demo)
{
    double hits[REQUESTS];
    size_t count = 0;

    for (size_t i = HITS_FIRST; i <= HITS_LAST; i++)
        hits[count++] = demo->asks[i].ttft_ms;
    demo->cold_ms = demo->asks[0].ttft_ms;
    demo->hit_ms = median(hits, count);
    /* Cold against hit, and both against the engine alone. */
    demo->outputs_equal = demo->alone.ok && strcmp(buf_cstr(&demo->asks[0].text), buf_cstr(&demo->asks[3].text)) == 0 &&
                          strcmp(buf_cstr(&demo->asks[0].text), buf_cstr(&demo->alone.text)) == 0;
}

static json_t *make_report(const struct demo *demo)
{
    json_t *requests = json_array();

    for (size_t i = 0; i < REQUESTS; i++) {
        const struct ask *ask = &demo->asks[i];
        json_array_append_new(
            requests, json_pack("{s:I, s:I, s:f, s:f, s:s, s:s}", "prompt_tokens", (json_int_t)ask->prompt_tokens,
                          "reused_tokens", (json_int_t)ask->reused_tokens, "ttft_ms", ask->ttft_ms, "tbt_ms_p50",
                          ask->tbt_ms_p50, "text", buf_cstr(&ask->text), "route", ask->route));
    }
    return json_pack("{s:s, s:s, s:I, s:o, s:f, s:f, s:{s:f, s:f, s:s}, s:b}", "engine", demo->model.engine, "model",
        demo->model.name, "block_tokens", (json_int_t)demo->model.block_tokens, "requests", requests, "cold_ttft_ms",
        demo->cold_ms, "hit_ttft_ms", demo->hit_ms, "baseline", "ttft_ms", demo->alone.ttft_ms, "tbt_ms_p50",
        demo->alone.tbt_ms_p50, "text", demo->alone.ok ? buf_cstr(&demo->alone.text) : "", "outputs_equal",
        demo->outputs_equal);
}

static int write_report(struct demo *demo)
{
    json_t *report = make_report(demo);
    char *text = report ? json_dumps(report, JSON_INDENT(2)) : NULL;
    int code = CLI_OK;

    if (!text)
        code = cli_fail(demo->cli, CLI_FAILED, "the report cannot be made: a text is not UTF-8, or out of memory");
    else if (demo->cli->set->report && path_write_atomic(demo->cli->set->report, text, strlen(text)) != MC_OK)
        code = cli_fail(demo->cli, CLI_FAILED, "%s: cannot be written", demo->cli->set->report);
    else if (demo->cli->set->json)
        puts(text);
    free(text);
    json_decref(report);
    return code;
}

int cmd_demo(struct cli *cli)
{
    struct demo *demo = calloc(1, sizeof(*demo));
    bool quiet = cli->set->json;
    int code;

    if (!demo)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    demo->cli = cli;
    code = ask_model(cli->set->url, (uint32_t)cli->set->timeout_ms, &demo->model)
               ? CLI_OK
               : cli_fail(cli, demo->model.code, "%s", demo->model.error);
    if (code == CLI_OK && !quiet)
        printf("engine %s, model %s, blocks of %lld tokens; questions about demo/kvcache.txt\n\n", demo->model.engine,
            demo->model.name, (long long)demo->model.block_tokens);
    for (size_t i = 0; code == CLI_OK && i < REQUESTS; i++)
        code = run_request(demo, i, quiet);
    if (code == CLI_OK)
        code = run_baseline(demo, quiet);
    if (code == CLI_OK) {
        conclude(demo);
        if (!quiet)
            print_bars(demo);
        code = write_report(demo);
    }
    for (size_t i = 0; i < REQUESTS; i++)
        ask_fini(&demo->asks[i]);
    alone_answer_fini(&demo->alone);
    free(demo);
    return code;
}
