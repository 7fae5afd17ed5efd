/* prompt.c - from a prompt to what is known of it: its tokens (a worker's tokenizer makes them, or the client has sent them), and
 * how much of it the Store has.
 *
 * Neither may hold a request up: a worker that does not answer at once is passed by for another one, and a Store that does not
 * answer in time counts as one that has nothing. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "conductor/request_impl.h"

#define TOO_LONG "context_length_exceeded"

static void look_up(struct request *request);

/* --- tokenising --- */

static const char *prompt_field(const struct request *request)
{
    return request->api.kind == API_CHAT ? "messages" : "prompt";
}

/* False: it was refused, and is gone. */
static bool take_tokens(struct request *request, const uint32_t *tokens, uint32_t count)
{
    uint32_t context = request->model->sequence_tokens_max;

    if (count == 0) {
        request_fail_field(request, prompt_field(request), "invalid_prompt", "the prompt is empty: it has 0 tokens");
        return false;
    }
    if (count >= context) {
        request_fail_field(request, prompt_field(request), TOO_LONG,
            "the prompt has %u tokens, this model's context is %u tokens (prompt and answer together)", count, context);
        return false;
    }
    request->answer_max = request->api.max_tokens ? request->api.max_tokens : request->conductor->opts.answer_tokens;
    if (request->answer_max > context - count)
        request->answer_max = context - count;
    request->token_max = count + request->answer_max;
    request->tokens = malloc(request->token_max * sizeof *request->tokens);
    if (!request->tokens) {
        request_fail(request, 503, "out_of_memory", "out of memory");
        return false;
    }
    memcpy(request->tokens, tokens, count * sizeof *tokens);
    request->prompt_count = count;
    return true;
}

static void on_tokens(struct fleet_call *call, struct fleet_worker *worker, const struct frame *frame)
{
    struct request *request = container_of(call, struct request, call);
    struct wmsg_tokens tokens;
    struct wmsg_text text = {""};
    const char *bad = "";
    enum mc_status status = frame->status;

    log_set_trace(request->trace);
    if (status == MC_OK)
        status = wmsg_tokens_decode(frame->body, &tokens, &bad);
    else
        (void)wmsg_text_decode(frame->body, &text, &bad); /* without a text the status has to do */
    if (status == MC_ETOOBIG) {
        request_fail_field(
            request, prompt_field(request), TOO_LONG, "%s", *text.text ? text.text : mc_status_str(status));
        return;
    }
    if (status == MC_EINVAL || status == MC_ENOSUP) {
        request_fail_field(
            request, prompt_field(request), "invalid_prompt", "%s", *text.text ? text.text : mc_status_str(status));
        return;
    }
    if (status != MC_OK) { /* that worker cannot: ask another one */
        log_warn("request %s: tokenising failed: %s %s", request->id, mc_status_str(status), bad);
        request_tokenise(request);
        return;
    }
    if (take_tokens(request, tokens.tokens, tokens.count))
        look_up(request);
    wmsg_tokens_fini(&tokens);
}

static void on_tokenise_lost(struct fleet_call *call, enum mc_status status)
{
    request_tokenise(container_of(call, struct request, call));
}

static void on_tokenise_silent(struct fleet_call *call)
{
    request_tokens_late(container_of(call, struct request, call));
}

static const struct fleet_call_ops tokenise_ops = {
    .reply = on_tokens,
    .lost = on_tokenise_lost,
    .silent = on_tokenise_silent,
};

void request_tokenise(struct request *request)
{
    struct wmsg_tokenize msg = {.messages = request->api.messages,
        .message_count = request->api.message_count,
        .text = request->api.text,
        .tokens_max = request->model->sequence_tokens_max};
    struct fleet_worker *worker;

    fleet_drop(&request->call);
    while ((worker = fleet_any(request->conductor->fleet, request->model, &request->tried)) != NULL) {
        fleet_tried_add(&request->tried, worker->serial);
        request->call.ops = &tokenise_ops;
        if (fleet_tokenize(worker, &request->call, &msg, request->trace) == MC_OK) {
            request_move(request, REQ_TOKENISING);
            return;
        }
        if (request->tried.count == FLEET_TRIES_MAX)
            break;
    }
    request_fail(request, 503, "no_worker", "no worker for model '%s' answers", request->model->name);
}

/* A text of megabytes takes its time on a busy host: the last who can be asked is waited for. */
void request_tokens_late(struct request *request)
{
    bool last = !fleet_any(request->conductor->fleet, request->model, &request->tried);

    if (last && request_now(request) - request->started_ns < REQUEST_SILENT_MS * NS_PER_MS)
        request_stays(request);
    else
        request_tokenise(request);
}

/* --- looking for the prefix --- */

static void on_prefix(void *arg, const struct prefix_answer *answer)
{
    struct request *request = arg;
    struct conductor *c = request->conductor;

    log_set_trace(request->trace);
    request->prefix = NULL;
    request->prefix_ns = request_now(request);
    request->store_up = answer->status == MC_OK;
    c->prefix_failed_ns = answer->status == MC_OK ? 0 : request_now(request);
    request->prefix_blocks = answer->blocks;
    for (uint32_t i = 0; i < answer->node_count; i++) {
        uint16_t node = fleet_node_index(c->fleet, answer->nodes[i].node);

        if (node != MC_SCHED_NONE)
            request->node_blocks[node] = answer->nodes[i].blocks;
    }
    request_queue(request);
}

struct mc_block_id *request_block_ids(const struct request *request, uint32_t block_tokens, uint32_t *count)
{
    const struct fleet_model *model = request->model;
    struct mc_block_chain chain;
    struct mc_block_id *ids;
    uint32_t max = request->prompt_count / block_tokens;
    const char *salt = request->api.salt;

    ids = max ? malloc(max * sizeof *ids) : NULL;
    if (!ids ||
        mc_block_chain_init(&chain, &model->fingerprint, block_tokens, *salt ? salt : NULL, strlen(salt)) != MC_OK) {
        free(ids);
        return NULL;
    }
    *count = (uint32_t)mc_block_chain_extend(&chain, request->tokens, request->prompt_count, ids, max);
    return ids;
}

/* A Store that has just failed to answer is not asked by every request: it would cost each of them prefix_ms. */
static bool store_rests(const struct conductor *c)
{
    return c->prefix_failed_ns && loop_now_ns(c->loop) - c->prefix_failed_ns < NS_PER_S;
}

static void look_up(struct request *request)
{
    struct conductor *c = request->conductor;
    struct mc_block_id *ids;
    uint32_t count = 0;
    enum mc_status status = MC_ENOENT;

    survey_poke(c->survey);   /* which node lies beside which worker has to be known while requests come */
    request->tried.count = 0; /* those were asked for tokens */
    request->store_up = c->store && !store_rests(c);
    ids = request->store_up && !request->api.cache_off
              ? request_block_ids(request, request->model->block_tokens, &count)
              : NULL;
    if (ids)
        status = prefix_ask(c->store, c->loop, ids, count, c->opts.prefix_ms, on_prefix, request, &request->prefix);
    free(ids);
    if (status == MC_OK)
        request_move(request, REQ_LOOKUP);
    else
        request_queue(request);
}

/* The Store is dead or slow: compute. */
void request_looked_long_enough(struct request *request)
{
    prefix_forget(request->prefix);
    request->prefix = NULL;
    request->store_up = false;
    request->conductor->prefix_failed_ns = request_now(request);
    request_queue(request);
}

/* --- tokens that the client has sent --- */

void request_take_tokens(struct request *request)
{
    for (uint32_t i = 0; i < request->api.token_count; i++) {
        if (request->api.tokens[i] >= request->model->vocab_size) {
            request_fail_field(request, prompt_field(request), "invalid_prompt",
                "prompt: token %u is not in the vocabulary of %u", request->api.tokens[i], request->model->vocab_size);
            return;
        }
    }
    if (take_tokens(request, request->api.tokens, request->api.token_count))
        look_up(request);
}
