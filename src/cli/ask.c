/* ask.c - a streamed chat completion, timed. See ask.h. */
#include "cli/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cli/api.h"
#include "cli/cli.h"

#define GAPS_MAX 65536

/* What the stream's callback fills. */
struct listening {
    struct ask *ask;
    uint64_t start_ns, last_ns;
    double *gaps; /* ms between pieces */
    size_t gap_count;
    bool done; /* [DONE] came: the answer is whole */
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double median(double *values, size_t count)
{
    if (count == 0)
        return 0;
    qsort(values, count, sizeof(values[0]), compare);
    return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void take_text(struct listening *listening, const char *text)
{
    struct ask *ask = listening->ask;
    uint64_t now = now_ns();

    if (!*text)
        return;
    if (listening->last_ns == 0)
        ask->ttft_ms = (double)(now - listening->start_ns) / 1e6;
    else if (listening->gap_count < GAPS_MAX)
        listening->gaps[listening->gap_count++] = (double)(now - listening->last_ns) / 1e6;
    listening->last_ns = now;
    buf_append_str(&ask->text, text);
    if (ask->on_text)
        ask->on_text(ask->arg, text);
}

static void take_number(const json_t *object, const char *name, double *out)
{
    const json_t *value = json_object_get(object, name);

    if (json_is_number(value))
        *out = json_number_value(value);
}

/* The last chunk: counts, and where the time went. */
static void take_usage(struct ask *ask, const json_t *chunk)
{
    const json_t *usage = json_object_get(chunk, "usage");
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    const json_t *ours = json_object_get(chunk, "mooncake");
    const json_t *timing = json_object_get(ours, "timing");
    const char *route = json_string_value(json_object_get(ours, "route"));

    if (json_is_object(usage)) {
        ask->prompt_tokens = json_integer_value(json_object_get(usage, "prompt_tokens"));
        ask->answer_tokens = json_integer_value(json_object_get(usage, "completion_tokens"));
        ask->reused_tokens = json_integer_value(json_object_get(details, "cached_tokens"));
    }
    if (route)
        snprintf(ask->route, sizeof(ask->route), "%s", route);
    take_number(timing, "queue_ms", &ask->queue_ms);
    take_number(timing, "load_ms", &ask->load_ms);
    take_number(timing, "prefill_ms", &ask->prefill_ms);
    take_number(timing, "first_decode_ms", &ask->first_ms);
}

static bool on_event(void *arg, const char *data, size_t len)
{
    struct listening *listening = arg;
    struct ask *ask = listening->ask;
    bool go_on = true;

    if (strcmp(data, "[DONE]") == 0) {
        listening->done = true;
        return true;
    }
    json_t *chunk = json_loadb(data, len, 0, NULL);
    const json_t *error = json_object_get(chunk, "error");
    const char *text = json_string_value(
        json_object_get(json_object_get(json_array_get(json_object_get(chunk, "choices"), 0), "delta"), "content"));
    if (!chunk || error) {
        const char *why = json_string_value(json_object_get(error, "message"));
        snprintf(ask->error, sizeof(ask->error), "%s", why ? why : "an event of the stream is not JSON");
        go_on = false;
    } else {
        if (text)
            take_text(listening, text);
        take_usage(ask, chunk);
    }
    json_decref(chunk);
    return go_on;
}

bool ask_model(const char *url, uint32_t timeout_ms, struct ask_model *model)
{
    struct api_reply reply;

    memset(model, 0, sizeof(*model));
    api_call(&(struct api_call){.url = url, .path = "/v1/models", .timeout_ms = timeout_ms}, &reply);
    json_t *root = reply.status == 200 ? json_loadb(buf_cstr(&reply.body), reply.body.len, 0, NULL) : NULL;
    const json_t *row = json_array_get(json_object_get(root, "data"), 0);
    const char *name = json_string_value(json_object_get(row, "id"));
    const char *engine = json_string_value(json_object_get(row, "owned_by"));
    if (name) {
        snprintf(model->name, sizeof(model->name), "%s", name);
        /* "llama v0.5.0": the version is its own affair */
        snprintf(
            model->engine, sizeof(model->engine), "%.*s", engine ? (int)strcspn(engine, " ") : 0, engine ? engine : "");
        model->block_tokens = json_integer_value(json_object_get(row, "block_tokens"));
    } else if (reply.status == 200) {
        snprintf(model->error, sizeof(model->error), "%s: no worker serves a model yet", url);
        model->code = CLI_FAILED;
    } else {
        snprintf(model->error, sizeof(model->error), "%s", reply.error);
        model->code = reply.status ? CLI_FAILED : CLI_UNREACHABLE;
    }
    json_decref(root);
    api_reply_fini(&reply);
    return model->code == CLI_OK;
}

static char *make_body(const struct ask *ask)
{
    json_t *body = json_pack("{s:s, s:O, s:b, s:{s:b}, s:I, s:f}", "model", ask->model, "messages", ask->messages,
        "stream", 1, "stream_options", "include_usage", 1, "max_tokens", (json_int_t)ask->max_tokens, "temperature",
        ask->temperature);
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    return text;
}

bool ask_run(struct ask *ask)
{
    static const char *const no_cache[] = {"X-Mooncake-Cache: off", NULL};
    struct listening listening = {.ask = ask};
    struct api_reply reply;
    char *body = make_body(ask);

    buf_init(&ask->text, (size_t)16 << 20);
    ask->code = CLI_FAILED;
    listening.gaps = malloc(GAPS_MAX * sizeof(double));
    if (!body || !listening.gaps) {
        snprintf(ask->error, sizeof(ask->error), "out of memory");
        goto undo;
    }
    listening.start_ns = now_ns();
    struct api_call call = {.url = ask->url,
        .path = "/v1/chat/completions",
        .body = body,
        .headers = ask->no_cache ? no_cache : NULL,
        .timeout_ms = ask->timeout_ms,
        .event = on_event,
        .arg = &listening};
    api_call(&call, &reply);
    if (reply.status != 200) {
        snprintf(ask->error, sizeof(ask->error), "%s", reply.error);
        ask->code = reply.status ? CLI_FAILED : CLI_UNREACHABLE;
    } else if (listening.done) {
        ask->code = CLI_OK;
    } else if (!ask->error[0]) {
        snprintf(ask->error, sizeof(ask->error), "the stream ended in the middle of the answer");
    }
    ask->tbt_ms_p50 = median(listening.gaps, listening.gap_count);
    api_reply_fini(&reply);
undo:
    free(listening.gaps);
    free(body);
    return ask->code == CLI_OK;
}

void ask_fini(struct ask *ask)
{
    buf_fini(&ask->text);
}
