/* proto.c - bodies of the messages 0x04xx: one table row per plain field (rows.h), arrays by hand.
 *
 * What a message cannot do without, and what ranges the receiver relies on, is checked at the end of its decode. */
#include "worker/proto.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "worker/rows.h"

static const struct row speed_rows[] = {
    ROW(1, ROW_F64, wmsg_speed, prefill_base),
    ROW(2, ROW_F64, wmsg_speed, prefill_token),
    ROW(3, ROW_F64, wmsg_speed, prefill_pair),
    ROW(4, ROW_F64, wmsg_speed, decode_base),
    ROW(5, ROW_F64, wmsg_speed, decode_sequence),
    ROW(6, ROW_F64, wmsg_speed, decode_kv),
    ROW(7, ROW_F64, wmsg_speed, load_base),
    ROW(8, ROW_F64, wmsg_speed, load_byte),
    ROW(9, ROW_U32, wmsg_speed, prefill_samples),
    ROW(10, ROW_U32, wmsg_speed, decode_samples),
    ROW(11, ROW_U32, wmsg_speed, load_samples),
    ROW_LAST,
};

enum { REGISTER_RECORD = 8 };
static const struct row register_rows[] = {
    ROW(1, ROW_BYTES, wmsg_register, uuid),
    ROW(2, ROW_TEXT, wmsg_register, name),
    ROW(3, ROW_U8, wmsg_register, role),
    ROW(4, ROW_TEXT, wmsg_register, model),
    ROW(5, ROW_TEXT, wmsg_register, engine),
    ROW(6, ROW_TEXT, wmsg_register, host_id),
    ROW_OF(7, wmsg_register, speed, speed_rows),
    /* 8: record */
    ROW(9, ROW_U32, wmsg_register, block_tokens),
    ROW(10, ROW_U32, wmsg_register, block_size),
    ROW(11, ROW_U64, wmsg_register, bytes_per_token),
    ROW(12, ROW_U32, wmsg_register, sequence_tokens_max),
    ROW(13, ROW_U32, wmsg_register, context_tokens),
    ROW(14, ROW_U32, wmsg_register, sequences_max),
    ROW(15, ROW_U32, wmsg_register, vocab_size),
    ROW(16, ROW_BOOL, wmsg_register, has_chat),
    ROW(17, ROW_BOOL, wmsg_register, has_store),
    ROW_LAST,
};

static const struct row status_rows[] = {
    ROW(1, ROW_U64, wmsg_status, time_us),
    ROW(2, ROW_U32, wmsg_status, loading),
    ROW(3, ROW_U32, wmsg_status, prefilling),
    ROW(4, ROW_U32, wmsg_status, decoding),
    ROW(5, ROW_U32, wmsg_status, waiting),
    ROW(6, ROW_U64, wmsg_status, prefill_queued),
    ROW(7, ROW_U32, wmsg_status, kv_used),
    ROW(8, ROW_U32, wmsg_status, kv_promised),
    ROW(9, ROW_BOOL, wmsg_status, draining),
    ROW(10, ROW_BOOL, wmsg_status, store_up),
    ROW(11, ROW_U32, wmsg_status, threads),
    ROW(12, ROW_U64, wmsg_status, puts_queued),
    ROW_OF(13, wmsg_status, speed, speed_rows),
    ROW_LAST,
};

enum { SAMPLING_BIAS = 8 };
static const struct row sampling_rows[] = {
    ROW(1, ROW_F32, mc_sampling, temperature),
    ROW(2, ROW_U32, mc_sampling, top_k),
    ROW(3, ROW_F32, mc_sampling, top_p),
    ROW(4, ROW_F32, mc_sampling, min_p),
    ROW(5, ROW_F32, mc_sampling, repetition_penalty),
    ROW(6, ROW_F32, mc_sampling, frequency_penalty),
    ROW(7, ROW_F32, mc_sampling, presence_penalty),
    /* 8: bias */
    ROW(9, ROW_U64, mc_sampling, seed),
    ROW_LAST,
};

enum { RUN_TOKENS = 2, RUN_SAMPLING = 11, RUN_SALT = 12 };
static const struct row run_rows[] = {
    ROW(1, ROW_U8, wmsg_run, kind),
    /* 2: tokens */
    ROW(3, ROW_U32, wmsg_run, answer_count),
    ROW(4, ROW_U32, wmsg_run, max_tokens),
    ROW(5, ROW_BOOL, wmsg_run, cache_read),
    ROW(6, ROW_BOOL, wmsg_run, cache_write),
    ROW(7, ROW_BOOL, wmsg_run, ignore_end),
    ROW(8, ROW_BOOL, wmsg_run, want_logprob),
    ROW(9, ROW_U32, wmsg_run, load_tokens),
    ROW(10, ROW_U32, wmsg_run, hold_ms),
    /* 11: sampling, 12: salt */
    ROW(13, ROW_U32, wmsg_run, copy_blocks),
    ROW_LAST,
};

static const struct row progress_rows[] = {
    ROW(1, ROW_U32, wmsg_progress, loaded_tokens),
    ROW(2, ROW_U32, wmsg_progress, computed_tokens),
    ROW(3, ROW_U32, wmsg_progress, stored_blocks),
    ROW_LAST,
};

enum { TOKEN_PIECE = 4, TOKEN_LOGPROB = 6 };
static const struct row token_rows[] = {
    ROW(1, ROW_U32, wmsg_token, index),
    ROW(2, ROW_U32, wmsg_token, token),
    ROW(3, ROW_BOOL, wmsg_token, end),
    /* 4: piece */
    ROW(5, ROW_U64, wmsg_token, time_us),
    /* 6: logprob, absent when it was not asked for */
    ROW_LAST,
};

enum { EVENT_KIND = 1, EVENT_PROGRESS = 2, EVENT_TOKEN = 3 };

static const struct row finish_rows[] = {
    ROW(1, ROW_U8, wmsg_finish, reason),
    ROW(2, ROW_U32, wmsg_finish, answer_tokens),
    ROW(3, ROW_U32, wmsg_finish, prompt_tokens),
    ROW(4, ROW_U32, wmsg_finish, reused_tokens),
    ROW(5, ROW_U32, wmsg_finish, computed_tokens),
    ROW(6, ROW_U32, wmsg_finish, replayed_tokens),
    ROW(7, ROW_U32, wmsg_finish, stored_blocks),
    ROW(8, ROW_U32, wmsg_finish, store_failed),
    ROW(9, ROW_U64, wmsg_finish, queue_us),
    ROW(10, ROW_U64, wmsg_finish, load_us),
    ROW(11, ROW_U64, wmsg_finish, prefill_us),
    ROW(12, ROW_U64, wmsg_finish, first_us),
    ROW(13, ROW_U64, wmsg_finish, decode_us),
    ROW(14, ROW_TEXT, wmsg_finish, miss),
    ROW(15, ROW_TEXT, wmsg_finish, text),
    ROW_LAST,
};

static const struct row release_rows[] = {ROW(1, ROW_U64, wmsg_release, request), ROW_LAST};
static const struct row text_rows[] = {ROW(1, ROW_TEXT, wmsg_text, text), ROW_LAST};

enum { TOKENIZE_TEXT = 1, TOKENIZE_MESSAGES = 2, TOKENIZE_MAX = 3 };
enum { TOKENS_TOKENS = 1 };

/* ---- plain decode ---- */

static enum mc_status ended(const struct cur *cur, const char **bad)
{
    if (cur_status(cur) != MC_OK && bad)
        *bad = cur->bad ? cur->bad : "unknown field that must be understood";
    return cur_status(cur);
}

static enum mc_status plain_decode(const struct row *rows, void *msg, size_t size, struct slice body, const char **bad)
{
    struct cur cur = cur_of_slice(body);

    memset(msg, 0, size);
    rows_decode(rows, msg, &cur);
    return ended(&cur, bad);
}

/* ---- arrays ---- */

static void tokens_put(struct buf *out, uint16_t id, const uint32_t *tokens, uint32_t count)
{
    size_t mark = put_field_begin(out, id);

    for (uint32_t i = 0; i < count; i++)
        put_u32(out, tokens[i]);
    put_field_end(out, mark);
}

/* A field of u32s as an array on the heap; a field that comes twice replaces the first. */
static enum mc_status tokens_take(struct field *field, uint32_t **tokens, uint32_t *count, const char *name)
{
    uint32_t *array;
    size_t n = field->body.len / 4;

    if (field->body.len % 4 || n > WMSG_TOKENS_MAX) {
        cur_fail(field->from, name);
        return MC_EPROTO;
    }
    array = malloc(n ? n * 4 : 1);
    if (!array)
        return MC_ENOMEM;
    for (size_t i = 0; i < n; i++)
        array[i] = le32_get(field->body.ptr + 4 * i);
    free(*tokens);
    *tokens = array;
    *count = (uint32_t)n;
    return MC_OK;
}

/* ---- plain messages ---- */

void wmsg_register_encode(const struct wmsg_register *msg, struct buf *out)
{
    rows_encode(register_rows, msg, out);
    put_field_bytes(out, REGISTER_RECORD, msg->record, msg->record_size);
}

enum mc_status wmsg_register_decode(struct slice body, struct wmsg_register *msg, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    struct field field;
    struct slice record;

    memset(msg, 0, sizeof(*msg));
    while (field_next(&cur, &field)) {
        if (rows_take(register_rows, msg, &field))
            continue;
        if (field.id == REGISTER_RECORD) {
            record = field_bytes(&field, 1, sizeof(msg->record), "record");
            if (record.len)
                memcpy(msg->record, record.ptr, record.len);
            msg->record_size = (uint16_t)record.len;
        } else {
            field_unknown(&field);
        }
    }
    if (msg->role < WMSG_ROLE_PREFILL || msg->role > WMSG_ROLE_BOTH)
        cur_fail(&cur, "role");
    if (!msg->model[0])
        cur_fail(&cur, "model");
    if (!msg->record_size)
        cur_fail(&cur, "record");
    if (msg->block_tokens < MC_BLOCK_TOKENS_MIN || msg->block_tokens > MC_BLOCK_TOKENS_MAX ||
        (msg->block_tokens & (msg->block_tokens - 1)))
        cur_fail(&cur, "block_tokens");
    if (!msg->sequences_max || !msg->sequence_tokens_max || !msg->context_tokens)
        cur_fail(&cur, "sequences_max, sequence_tokens_max or context_tokens");
    return ended(&cur, bad);
}

void wmsg_status_encode(const struct wmsg_status *msg, struct buf *out)
{
    rows_encode(status_rows, msg, out);
}

enum mc_status wmsg_status_decode(struct slice body, struct wmsg_status *msg, const char **bad)
{
    return plain_decode(status_rows, msg, sizeof(*msg), body, bad);
}

void wmsg_text_encode(const char *text, struct buf *out)
{
    struct wmsg_text msg = {.text = ""};

    memcpy(msg.text, text, strnlen(text, WMSG_TEXT_MAX));
    rows_encode(text_rows, &msg, out);
}

enum mc_status wmsg_text_decode(struct slice body, struct wmsg_text *msg, const char **bad)
{
    return plain_decode(text_rows, msg, sizeof(*msg), body, bad);
}

void wmsg_finish_encode(const struct wmsg_finish *msg, struct buf *out)
{
    rows_encode(finish_rows, msg, out);
}

enum mc_status wmsg_finish_decode(struct slice body, struct wmsg_finish *msg, const char **bad)
{
    enum mc_status status = plain_decode(finish_rows, msg, sizeof(*msg), body, bad);

    if (status == MC_OK && (msg->reason < WMSG_END || msg->reason > WMSG_ERROR)) {
        if (bad)
            *bad = "reason";
        return MC_EPROTO;
    }
    return status;
}

void wmsg_release_encode(const struct wmsg_release *msg, struct buf *out)
{
    rows_encode(release_rows, msg, out);
}

enum mc_status wmsg_release_decode(struct slice body, struct wmsg_release *msg, const char **bad)
{
    return plain_decode(release_rows, msg, sizeof(*msg), body, bad);
}

/* ---- W_TOKENIZE ---- */

void wmsg_tokenize_encode(const struct wmsg_tokenize *msg, struct buf *out)
{
    size_t mark;

    put_field_u32(out, TOKENIZE_MAX, msg->tokens_max);
    if (msg->message_count == 0) {
        put_field_text(out, TOKENIZE_TEXT, msg->text ? msg->text : "");
        return;
    }
    mark = put_field_begin(out, TOKENIZE_MESSAGES);
    for (uint32_t i = 0; i < msg->message_count; i++) {
        put_str(out, slice_str(msg->messages[i].role));
        put_str(out, slice_str(msg->messages[i].content));
    }
    put_field_end(out, mark);
}

/* Copy `text` to *at with a NUL behind it, and step over. A NUL inside is a failure: the engine takes C strings. */
static const char *text_copy(struct cur *cur, struct slice text, char **at, const char *name)
{
    char *copy = *at;

    if (text.len && memchr(text.ptr, 0, text.len)) {
        cur_fail(cur, name);
        return "";
    }
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    copy[text.len] = 0;
    *at += text.len + 1;
    return copy;
}

static enum mc_status chat_take(struct field *field, struct wmsg_tokenize *msg)
{
    struct cur count_cur = field_cur(field), cur = count_cur;
    struct wmsg_chat *messages;
    uint32_t n = 0;
    char *at;

    for (; cur_left(&count_cur) && n <= WMSG_CHAT_MAX && cur_status(&count_cur) == MC_OK; n++) {
        cur_str(&count_cur, WMSG_ROLE_MAX, "role");
        cur_str(&count_cur, WMSG_CHAT_BYTES_MAX, "content");
    }
    if (n > WMSG_CHAT_MAX || field->body.len > WMSG_CHAT_BYTES_MAX)
        cur_fail(&count_cur, "messages");
    field_join(field, &count_cur);
    if (cur_status(&count_cur) != MC_OK)
        return cur_status(&count_cur);

    /* Each text had a u32 in front of it, so its NUL finds room in the size of the field. */
    messages = malloc(n * sizeof(*messages) + field->body.len + 1);
    if (!messages)
        return MC_ENOMEM;
    at = (char *)(messages + n);
    for (uint32_t i = 0; i < n; i++) {
        messages[i].role = text_copy(&cur, cur_str(&cur, WMSG_ROLE_MAX, "role"), &at, "role");
        messages[i].content = text_copy(&cur, cur_str(&cur, WMSG_CHAT_BYTES_MAX, "content"), &at, "content");
    }
    field_join(field, &cur);
    free(msg->memory);
    *msg = (struct wmsg_tokenize){.messages = messages, .message_count = n, .memory = messages};
    return MC_OK;
}

static enum mc_status text_take(struct field *field, struct wmsg_tokenize *msg)
{
    struct slice text = field_bytes(field, 0, WMSG_CHAT_BYTES_MAX, "text");
    char *memory = malloc(text.len + 1), *at = memory;

    if (!memory)
        return MC_ENOMEM;
    free(msg->memory);
    *msg = (struct wmsg_tokenize){.memory = memory};
    msg->text = text_copy(field->from, text, &at, "text");
    return MC_OK;
}

enum mc_status wmsg_tokenize_decode(struct slice body, struct wmsg_tokenize *msg, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    enum mc_status status = MC_OK;
    uint32_t tokens_max = 0;
    struct field field;

    memset(msg, 0, sizeof(*msg));
    while (status == MC_OK && field_next(&cur, &field)) {
        switch (field.id) {
        case TOKENIZE_MAX: tokens_max = field_u32(&field, "tokens_max"); break;
        case TOKENIZE_TEXT: status = text_take(&field, msg); break;
        case TOKENIZE_MESSAGES: status = chat_take(&field, msg); break;
        default: field_unknown(&field);
        }
    }
    if (status != MC_ENOMEM) {
        if (!msg->memory)
            cur_fail(&cur, "text or messages");
        status = ended(&cur, bad);
    }
    msg->tokens_max = tokens_max;
    if (status != MC_OK)
        wmsg_tokenize_fini(msg);
    return status;
}

void wmsg_tokenize_fini(struct wmsg_tokenize *msg)
{
    free(msg->memory);
    memset(msg, 0, sizeof(*msg));
}

void wmsg_tokens_encode(const uint32_t *tokens, uint32_t count, struct buf *out)
{
    tokens_put(out, TOKENS_TOKENS, tokens, count);
}

enum mc_status wmsg_tokens_decode(struct slice body, struct wmsg_tokens *msg, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    enum mc_status status = MC_OK;
    struct field field;

    memset(msg, 0, sizeof(*msg));
    while (status == MC_OK && field_next(&cur, &field)) {
        if (field.id == TOKENS_TOKENS)
            status = tokens_take(&field, &msg->tokens, &msg->count, "tokens");
        else
            field_unknown(&field);
    }
    if (status != MC_ENOMEM)
        status = ended(&cur, bad);
    if (status != MC_OK)
        wmsg_tokens_fini(msg);
    return status;
}

void wmsg_tokens_fini(struct wmsg_tokens *msg)
{
    free(msg->tokens);
    memset(msg, 0, sizeof(*msg));
}

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
    tokens_put(out, RUN_TOKENS, msg->tokens, msg->token_count);
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
        case RUN_TOKENS: status = tokens_take(&field, &memory->tokens, &msg->token_count, "tokens"); break;
        case RUN_SAMPLING: sampling_take(&field, &msg->sampling, memory); break;
        case RUN_SALT: run_salt_take(&field, msg, memory); break;
        default: field_unknown(&field);
        }
    }
    msg->tokens = memory->tokens;
    if (status != MC_ENOMEM) {
        run_check(msg, &cur);
        status = ended(&cur, bad);
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
    return ended(&cur, bad);
}

/* ---- words and predictions ---- */

const char *wmsg_run_kind_str(uint8_t kind)
{
    static const char *const words[] = {"unknown", "prefill", "decode", "generate"};

    return words[kind <= WMSG_GENERATE ? kind : 0];
}

const char *wmsg_reason_str(uint8_t reason)
{
    static const char *const words[] = {"unknown", "end", "length", "prefilled", "cancelled", "error"};

    return words[reason <= WMSG_ERROR ? reason : 0];
}

double wmsg_prefill_s(const struct wmsg_speed *speed, uint32_t tokens, uint32_t behind)
{
    double n = tokens;

    return tokens ? speed->prefill_base + n * speed->prefill_token + n * (behind + n / 2) * speed->prefill_pair : 0;
}

double wmsg_decode_s(const struct wmsg_speed *speed, uint32_t sequences, uint64_t kv_tokens)
{
    return speed->decode_base + sequences * speed->decode_sequence + (double)kv_tokens * speed->decode_kv;
}

double wmsg_load_s(const struct wmsg_speed *speed, uint64_t bytes)
{
    return bytes ? speed->load_base + (double)bytes * speed->load_byte : 0;
}
