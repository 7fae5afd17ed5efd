/* proto_run.c - bodies of W_RUN: the run with its sampling, and the events that answer it. The rest is in proto.c. */
#include "worker/proto.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "worker/rows.h"

enum { SAMPLING_BIAS = 8 };
static const struct row sampling_rows[] = {
    ROW(1, mc_sampling, temperature),
    ROW(2, mc_sampling, top_k),
    ROW(3, mc_sampling, top_p),
    ROW(4, mc_sampling, min_p),
    ROW(5, mc_sampling, repetition_penalty),
    ROW(6, mc_sampling, frequency_penalty),
    ROW(7, mc_sampling, presence_penalty),
    /* 8: bias */
    ROW(9, mc_sampling, seed),
    ROW_LAST,
};

enum { RUN_TOKENS = 2, RUN_SAMPLING = 11, RUN_SALT = 12 };
static const struct row run_rows[] = {
    ROW(1, wmsg_run, kind),
    /* 2: tokens */
    ROW(3, wmsg_run, answer_count),
    ROW(4, wmsg_run, max_tokens),
    ROW(5, wmsg_run, cache_read),
    ROW(6, wmsg_run, cache_write),
    ROW(7, wmsg_run, ignore_end),
    ROW(8, wmsg_run, want_logprob),
    ROW(9, wmsg_run, load_tokens),
    ROW(10, wmsg_run, hold_ms),
    /* 11: sampling, 12: salt */
    ROW(13, wmsg_run, copy_blocks),
    ROW_LAST,
};

static const struct row progress_rows[] = {
    ROW(1, wmsg_progress, loaded_tokens),
    ROW(2, wmsg_progress, computed_tokens),
    ROW(3, wmsg_progress, stored_blocks),
    ROW_LAST,
};

enum { TOKEN_PIECE = 4, TOKEN_LOGPROB = 6 };
static const struct row token_rows[] = {
    ROW(1, wmsg_token, index),
    ROW(2, wmsg_token, token),
    ROW(3, wmsg_token, end),
    /* 4: piece */
    ROW(5, wmsg_token, time_us),
    /* 6: logprob, absent when it was not asked for */
    ROW_LAST,
};

enum { EVENT_KIND = 1, EVENT_PROGRESS = 2, EVENT_TOKEN = 3 };

/* ---- W_RUN ---- */

static void sampling_encode(const struct mc_sampling *sampling, struct buf *out)
{
    size_t mark;

    rows_encode(sampling_rows, sampling, out);
    if (sampling->bias_count == 0)
        return;
    mark = put_field_begin(out, SAMPLING_BIAS);
    for (size_t i = 0; i < sampling->bias_count; i++) {
        uint32_t bits;

        memcpy(&bits, &sampling->bias[i].bias, sizeof(bits));
        put_u32(out, sampling->bias[i].token);
        put_u32(out, bits);
    }
    put_field_end(out, mark);
}

/* Parts of a run that live on the heap; one allocation each while decoding, owned by `memory`. */
struct run_memory {
    uint32_t *tokens;
    struct mc_logit_bias bias[MC_LOGIT_BIAS_MAX];
    uint8_t salt[MC_SALT_SIZE_MAX];
};

static void bias_take(struct field *field, struct mc_sampling *sampling, struct run_memory *memory)
{
    struct cur cur = field_cur(field);
    size_t n = field->body.len / 8;

    if (field->body.len % 8 || n > MC_LOGIT_BIAS_MAX) {
        cur_fail(field->from, "logit bias");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t token = cur_u32(&cur, "logit bias"), bits = cur_u32(&cur, "logit bias");

        memory->bias[i].token = token;
        memcpy(&memory->bias[i].bias, &bits, sizeof(bits));
        if (!isfinite(memory->bias[i].bias))
            cur_fail(field->from, "logit bias");
    }
    sampling->bias = memory->bias;
    sampling->bias_count = n;
}

static void sampling_take(struct field *field, struct mc_sampling *sampling, struct run_memory *memory)
{
    struct cur cur = field_cur(field);
    struct field inner;

    memset(sampling, 0, sizeof(*sampling));
    while (field_next(&cur, &inner)) {
        if (rows_take(sampling_rows, sampling, &inner))
            continue;
        if (inner.id == SAMPLING_BIAS)
            bias_take(&inner, sampling, memory);
        else
            field_unknown(&inner);
    }
    field_join(field, &cur);
}

void wmsg_run_encode(const struct wmsg_run *msg, struct buf *out)
{
    size_t mark;

    rows_encode(run_rows, msg, out);
    u32s_put(out, RUN_TOKENS, msg->tokens, msg->token_count);
    mark = put_field_begin(out, RUN_SAMPLING);
    sampling_encode(&msg->sampling, out);
    put_field_end(out, mark);
    if (msg->salt_size)
        put_field_bytes(out, RUN_SALT, msg->salt, msg->salt_size);
}

static void run_salt_take(struct field *field, struct wmsg_run *msg, struct run_memory *memory)
{
    struct slice salt = field_bytes(field, 0, MC_SALT_SIZE_MAX, "salt");

    if (salt.len)
        memcpy(memory->salt, salt.ptr, salt.len);
    msg->salt = memory->salt;
    msg->salt_size = (uint16_t)salt.len;
}

static void run_check(const struct wmsg_run *msg, struct cur *cur)
{
    if (msg->kind < WMSG_PREFILL || msg->kind > WMSG_GENERATE)
        cur_fail(cur, "kind");
    if (msg->token_count == 0)
        cur_fail(cur, "tokens");
    else if (msg->answer_count >= msg->token_count || (msg->answer_count && msg->kind == WMSG_PREFILL))
        cur_fail(cur, "answer_count");
    if (msg->max_tokens <= msg->answer_count || msg->max_tokens > WMSG_TOKENS_MAX)
        cur_fail(cur, "max_tokens");
}

enum mc_status wmsg_run_decode(struct slice body, struct wmsg_run *msg, const char **bad)
{
    struct run_memory *memory = calloc(1, sizeof(*memory));
    struct cur cur = cur_of_slice(body);
    enum mc_status status = MC_OK;
    struct field field;

    memset(msg, 0, sizeof(*msg));
    if (!memory)
        return MC_ENOMEM;
    msg->memory = memory;
    mc_sampling_init(&msg->sampling);
    while (status == MC_OK && field_next(&cur, &field)) {
        if (rows_take(run_rows, msg, &field))
            continue;
        switch (field.id) {
        case RUN_TOKENS:
            status = u32s_take(&field, WMSG_TOKENS_MAX, &memory->tokens, &msg->token_count, "tokens");
            break;
        case RUN_SAMPLING: sampling_take(&field, &msg->sampling, memory); break;
        case RUN_SALT: run_salt_take(&field, msg, memory); break;
        default: field_unknown(&field);
        }
    }
    msg->tokens = memory->tokens;
    if (status != MC_ENOMEM) {
        run_check(msg, &cur);
        status = rows_end(&cur, bad);
    }
    if (status != MC_OK)
        wmsg_run_fini(msg);
    return status;
}

void wmsg_run_fini(struct wmsg_run *msg)
{
    struct run_memory *memory = msg->memory;

    if (memory)
        free(memory->tokens);
    free(memory);
    memset(msg, 0, sizeof(*msg));
}

/* ---- events ---- */

static void token_put(const struct wmsg_token *token, struct buf *out)
{
    uint32_t bits;

    rows_encode(token_rows, token, out);
    if (token->piece_size)
        put_field_bytes(out, TOKEN_PIECE, token->piece, token->piece_size);
    if (isfinite(token->logprob)) {
        memcpy(&bits, &token->logprob, sizeof(bits));
        put_field_u32(out, TOKEN_LOGPROB, bits);
    }
}

void wmsg_event_encode(const struct wmsg_event *msg, struct buf *out)
{
    bool is_token = msg->kind == WMSG_TOKEN;
    size_t mark;

    put_field_u8(out, EVENT_KIND, msg->kind);
    mark = put_field_begin(out, is_token ? EVENT_TOKEN : EVENT_PROGRESS);
    if (is_token)
        token_put(&msg->token, out);
    else
        rows_encode(progress_rows, &msg->progress, out);
    put_field_end(out, mark);
}

static void token_take(struct field *field, struct wmsg_token *token)
{
    struct cur cur = field_cur(field);
    struct field inner;
    struct slice piece;
    uint32_t bits;

    *token = (struct wmsg_token){.logprob = NAN};
    while (field_next(&cur, &inner)) {
        if (rows_take(token_rows, token, &inner))
            continue;
        switch (inner.id) {
        case TOKEN_PIECE:
            piece = field_bytes(&inner, 0, UINT16_MAX, "piece");
            token->piece = piece.ptr;
            token->piece_size = (uint16_t)piece.len;
            break;
        case TOKEN_LOGPROB:
            bits = field_u32(&inner, "logprob");
            memcpy(&token->logprob, &bits, sizeof(bits));
            break;
        default: field_unknown(&inner);
        }
    }
    field_join(field, &cur);
}

enum mc_status wmsg_event_decode(struct slice body, struct wmsg_event *msg, const char **bad)
{
    struct cur cur = cur_of_slice(body), inner;
    struct field field;

    memset(msg, 0, sizeof(*msg));
    while (field_next(&cur, &field)) {
        switch (field.id) {
        case EVENT_KIND: msg->kind = field_u8(&field, "kind"); break;
        case EVENT_PROGRESS:
            inner = field_cur(&field);
            rows_decode(progress_rows, &msg->progress, &inner);
            field_join(&field, &inner);
            break;
        case EVENT_TOKEN: token_take(&field, &msg->token); break;
        default: field_unknown(&field);
        }
    }
    if (msg->kind < WMSG_PROGRESS || msg->kind > WMSG_TOKEN)
        cur_fail(&cur, "kind");
    return rows_end(&cur, bad);
}
