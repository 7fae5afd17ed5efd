/* chat.c - mooncake chat: a conversation in the terminal, and after each answer what the cache did for it. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/term.h"
#include "cli/ask.h"
#include "cli/cli.h"

static void print_piece(void *arg, const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

static void print_figures(const struct ask *ask)
{
    bool colour = term_colour(STDERR_FILENO);

    fprintf(stderr, "%s%lld prompt tokens, %lld from the cache | TTFT %.0f ms, TBT %.1f ms | route %s%s\n",
        colour ? "\033[2m" : "", (long long)ask->prompt_tokens, (long long)ask->reused_tokens, ask->ttft_ms,
        ask->tbt_ms_p50, ask->route[0] ? ask->route : "?", colour ? "\033[0m" : "");
}

/* Ask with all messages so far; the answer joins them. */
static int one_turn(struct cli *cli, const struct ask_model *model, json_t *messages, const char *text)
{
    struct ask ask = {.url = cli->set->url,
        .model = model->name,
        .messages = messages,
        .max_tokens = cli->set->max_tokens,
        .temperature = cli->set->temperature,
        .no_cache = cli->set->no_cache,
        .timeout_ms = cli->set->timeout_ms > 60000 ? (uint32_t)cli->set->timeout_ms : 60000,
        .on_text = cli->set->json ? NULL : print_piece};

    json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "user", "content", text));
    if (!ask_run(&ask)) {
        json_array_remove(messages, json_array_size(messages) - 1);
        int code = cli_fail(cli, ask.code, "%s%s", ask.error,
            ask.code == CLI_UNREACHABLE ? "; `mooncake up` starts a service, --url names another" : "");
        ask_fini(&ask);
        return code;
    }
    json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "assistant", "content", buf_cstr(&ask.text)));
    if (cli->set->json) {
        json_t *all = json_pack("{s:s, s:I, s:I, s:f, s:f, s:s}", "text", buf_cstr(&ask.text), "prompt_tokens",
            (json_int_t)ask.prompt_tokens, "reused_tokens", (json_int_t)ask.reused_tokens, "ttft_ms", ask.ttft_ms,
            "tbt_ms_p50", ask.tbt_ms_p50, "route", ask.route);
        json_dumpf(all, stdout, JSON_COMPACT);
        json_decref(all);
        putchar('\n');
        fflush(stdout);
    } else {
        putchar('\n');
        fflush(stdout);
        print_figures(&ask);
    }
    ask_fini(&ask);
    return CLI_OK;
}

int cmd_chat(struct cli *cli)
{
    struct ask_model model;
    bool prompt = isatty(STDIN_FILENO) && !cli->set->json;
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    int code = CLI_OK;

    if (!ask_model(cli->set->url, (uint32_t)cli->set->timeout_ms, &model))
        return cli_fail(cli, model.code, "%s%s", model.error,
            model.code == CLI_UNREACHABLE ? "; `mooncake up` starts a service, --url names another" : "");
    json_t *messages = json_array();
    if (cli->set->system)
        json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", cli->set->system));
    if (cli->arg_count > 0) {
        code = one_turn(cli, &model, messages, cli->args[0]);
        goto undo_messages;
    }
    for (;;) {
        if (prompt)
            fputs("> ", stdout);
        fflush(stdout);
        if ((len = getline(&line, &room, stdin)) < 0)
            break;
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = 0;
        if (len == 0)
            continue;
        code = one_turn(cli, &model, messages, line);
        if (code != CLI_OK && !prompt)
            break;
    }
    if (prompt)
        putchar('\n');
    free(line);
undo_messages:
    json_decref(messages);
    return code;
}
