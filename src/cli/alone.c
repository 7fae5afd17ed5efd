/* alone.c - the engine alone in a child process. See alone.h. */
#include "cli/alone.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/arguments.h"
#include "cli/model.h"
#include "cli/signals.h"
#include "net/json.h"
#include "worker/baseline.h"

/* ---- the asking side ---- */

struct alone {
    pid_t pid;
    FILE *down, *up;
};

static void become(struct cli *cli, struct arguments *args, int in, int out, pid_t parent)
{
    signals_restore();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(127);
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
        _exit(127);
    execv(cli->program, (char *const *)args->argv);
    _exit(127);
}

static pid_t start_child(struct cli *cli, const char *engine, int in, int out)
{
    struct arguments *args = malloc(sizeof(*args));
    pid_t parent = getpid();

    if (!args)
        return -1;
    arguments_init(args, "alone");
    arguments_forward(args, cli->options);
    arguments_add(args, "engine", engine);
    pid_t pid = fork();
    if (pid == 0)
        become(cli, args, in, out, parent);
    free(args);
    return pid;
}

bool alone_start(struct cli *cli, const char *engine, struct alone **out)
{
    struct alone *alone = calloc(1, sizeof(*alone));
    int down[2] = {-1, -1}, up[2] = {-1, -1};

    signal(SIGPIPE, SIG_IGN);
    if (!alone || pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0)
        goto undo;
    alone->pid = start_child(cli, engine, down[0], up[1]);
    if (alone->pid < 0)
        goto undo;
    close(down[0]);
    close(up[1]);
    alone->down = fdopen(down[1], "w");
    alone->up = fdopen(up[0], "r");
    if (!alone->down || !alone->up) {
        alone_stop(alone);
        return false;
    }
    *out = alone;
    return true;
undo:
    cli_fail(cli, CLI_FAILED, "starting the engine alone: %m");
    for (int i = 0; i < 2; i++) {
        if (down[i] >= 0)
            close(down[i]);
        if (up[i] >= 0)
            close(up[i]);
    }
    free(alone);
    return false;
}

static void read_answer(json_t *reply, struct alone_answer *answer)
{
    const char *error = json_string_value(json_object_get(reply, "error"));
    const char *text = json_string_value(json_object_get(reply, "text"));

    if (!text) {
        snprintf(answer->error, sizeof(answer->error), "%s", error ? error : "the process ended without a word");
        return;
    }
    answer->ok = true;
    answer->ttft_ms = json_number_value(json_object_get(reply, "ttft_ms"));
    answer->tbt_ms_p50 = json_number_value(json_object_get(reply, "tbt_ms_p50"));
    answer->prompt_tokens = json_integer_value(json_object_get(reply, "prompt_tokens"));
    answer->answer_tokens = json_integer_value(json_object_get(reply, "answer_tokens"));
    buf_append_str(&answer->text, text);
}

void alone_ask(struct alone *alone, json_t *messages, int64_t max_tokens, struct alone_answer *answer)
{
    json_t *request = json_pack("{s:O, s:I}", "messages", messages, "max_tokens", (json_int_t)max_tokens);
    char *line = NULL;
    size_t room = 0;

    memset(answer, 0, sizeof(*answer));
    buf_init(&answer->text, 1 << 24);
    if (request && json_dumpf(request, alone->down, JSON_COMPACT) == 0 && fputc('\n', alone->down) != EOF &&
        fflush(alone->down) == 0 && getline(&line, &room, alone->up) > 0) {
        json_t *reply = json_loads(line, 0, NULL);
        read_answer(reply, answer);
        json_decref(reply);
    } else {
        snprintf(answer->error, sizeof(answer->error), "the process of the engine alone ended");
    }
    free(line);
    json_decref(request);
}

void alone_answer_fini(struct alone_answer *answer)
{
    buf_fini(&answer->text);
}

void alone_stop(struct alone *alone)
{
    if (!alone)
        return;
    if (alone->down)
        fclose(alone->down);
    if (alone->up)
        fclose(alone->up);
    while (waitpid(alone->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    free(alone);
}

/* ---- the child's side ---- */

/* Messages to tokens, as a worker does it. NULL: `why` says so. */
static uint32_t *tokenize(struct mc_engine *engine, json_t *messages, size_t *count, const char **why)
{
    size_t n = json_array_size(messages), length = 0;
    struct mc_chat_message *chat = calloc(n ? n : 1, sizeof(*chat));
    const uint32_t flags = MC_TOKENIZE_BOS | MC_TOKENIZE_SPECIAL; /* as a worker does it */
    char *text = NULL;
    uint32_t *tokens = NULL;

    *why = "out of memory";
    if (!chat)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
        const char *content = json_string_value(json_object_get(json_array_get(messages, i), "content"));
        chat[i] = (struct mc_chat_message){role ? role : "", content ? content : ""};
    }
    enum mc_status status = mc_engine_chat(engine, chat, n, true, NULL, 0, &length);
    if (status != MC_ETOOBIG && status != MC_OK) {
        *why = mc_status_str(status);
        goto undo_chat;
    }
    text = malloc(length + 1);
    if (!text || mc_engine_chat(engine, chat, n, true, text, length, &length) != MC_OK)
        goto undo_text;
    status = mc_engine_tokenize(engine, text, length, flags, NULL, 0, count);
    tokens = status == MC_ETOOBIG ? malloc(*count * sizeof(*tokens)) : NULL;
    if (tokens && mc_engine_tokenize(engine, text, length, flags, tokens, *count, count) != MC_OK) {
        free(tokens);
        tokens = NULL;
    }
undo_text:
    free(text);
undo_chat:
    free(chat);
    return tokens;
}

static void print_answer(const struct baseline_run *run)
{
    struct buf out;

    buf_init(&out, 1 << 26);
    buf_append_str(&out, "{\"text\":");
    json_write_str(&out, buf_slice(&run->text));
    buf_printf(&out, ",\"ttft_ms\":%.3f,\"tbt_ms_p50\":%.3f,\"prompt_tokens\":%u,\"answer_tokens\":%u}",
        (double)baseline_ttft_us(run) / 1e3, (double)baseline_tbt_p50_us(run) / 1e3, run->prompt_count, run->count);
    puts(buf_cstr(&out));
    buf_fini(&out);
}

static void answer_line(struct mc_engine *engine, const char *line)
{
    json_t *request = json_loads(line, 0, NULL);
    struct baseline_run run = {.max_tokens = (uint32_t)json_integer_value(json_object_get(request, "max_tokens"))};
    const char *why = "out of memory";
    size_t count = 0;
    uint32_t *tokens = tokenize(engine, json_object_get(request, "messages"), &count, &why);

    if (!tokens) {
        printf("{\"error\":\"the engine alone cannot tokenise: %s\"}\n", why);
        goto undo_request;
    }
    run.prompt = tokens;
    run.prompt_count = (uint32_t)count;
    mc_sampling_init(&run.sampling);
    run.sampling.temperature = 0;
    enum mc_status status = worker_baseline_run(engine, &run, NULL);
    if (status == MC_OK)
        print_answer(&run);
    else
        printf("{\"error\":\"the engine alone failed: %s\"}\n", mc_status_str(status));
    baseline_run_fini(&run);
    free(tokens);
undo_request:
    fflush(stdout);
    json_decref(request);
}

int cmd_alone(struct cli *cli)
{
    struct mc_engine *engine;
    char *line = NULL;
    size_t room = 0;
    int code = model_open(cli, &engine);

    if (code != CLI_OK)
        return code;
    while (getline(&line, &room, stdin) > 0)
        answer_line(engine, line);
    free(line);
    mc_engine_close(engine);
    return CLI_OK;
}
