/* proto.c - bodies of the messages 0x04xx but W_RUN's (proto_run.c): one table row per plain field (rows.h), arrays by hand.
 *
 * What a message cannot do without, and what ranges the receiver relies on, is checked at the end of its decode. */
#include "worker/proto.h"

#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "worker/rows.h"

static const struct row speed_rows[] = {
    ROW(1, wmsg_speed, prefill_base),
    ROW(2, wmsg_speed, prefill_token),
    ROW(3, wmsg_speed, prefill_pair),
    ROW(4, wmsg_speed, decode_base),
    ROW(5, wmsg_speed, decode_sequence),
    ROW(6, wmsg_speed, decode_kv),
    ROW(7, wmsg_speed, load_base),
    ROW(8, wmsg_speed, load_byte),
    ROW(9, wmsg_speed, prefill_samples),
    ROW(10, wmsg_speed, decode_samples),
    ROW(11, wmsg_speed, load_samples),
    ROW_LAST,
};

enum { REGISTER_RECORD = 8 };
static const struct row register_rows[] = {
    ROW(1, wmsg_register, uuid),
    ROW(2, wmsg_register, name),
    ROW(3, wmsg_register, role),
    ROW(4, wmsg_register, model),
    ROW(5, wmsg_register, engine),
    ROW(6, wmsg_register, host_id),
    ROW_OF(7, wmsg_register, speed, speed_rows),
    /* 8: record */
    ROW(9, wmsg_register, block_tokens),
    ROW(10, wmsg_register, block_size),
    ROW(11, wmsg_register, bytes_per_token),
    ROW(12, wmsg_register, sequence_tokens_max),
    ROW(13, wmsg_register, context_tokens),
    ROW(14, wmsg_register, sequences_max),
    ROW(15, wmsg_register, vocab_size),
    ROW(16, wmsg_register, has_chat),
    ROW(17, wmsg_register, has_store),
    ROW_LAST,
};

static const struct row status_rows[] = {
    ROW(1, wmsg_status, time_us),
    ROW(2, wmsg_status, loading),
    ROW(3, wmsg_status, prefilling),
    ROW(4, wmsg_status, decoding),
    ROW(5, wmsg_status, waiting),
    ROW(6, wmsg_status, prefill_queued),
    ROW(7, wmsg_status, kv_used),
    ROW(8, wmsg_status, kv_promised),
    ROW(9, wmsg_status, draining),
    ROW(10, wmsg_status, store_up),
    ROW(11, wmsg_status, threads),
    ROW(12, wmsg_status, puts_queued),
    ROW_OF(13, wmsg_status, speed, speed_rows),
    ROW_LAST,
};

static const struct row finish_rows[] = {
    ROW(1, wmsg_finish, reason),
    ROW(2, wmsg_finish, answer_tokens),
    ROW(3, wmsg_finish, prompt_tokens),
    ROW(4, wmsg_finish, reused_tokens),
    ROW(5, wmsg_finish, computed_tokens),
    ROW(6, wmsg_finish, replayed_tokens),
    ROW(7, wmsg_finish, stored_blocks),
    ROW(8, wmsg_finish, store_failed),
    ROW(9, wmsg_finish, queue_us),
    ROW(10, wmsg_finish, load_us),
    ROW(11, wmsg_finish, prefill_us),
    ROW(12, wmsg_finish, first_us),
    ROW(13, wmsg_finish, decode_us),
    ROW(14, wmsg_finish, miss),
    ROW(15, wmsg_finish, text),
    ROW_LAST,
};

static const struct row release_rows[] = {ROW(1, wmsg_release, request), ROW_LAST};
static const struct row text_rows[] = {ROW(1, wmsg_text, text), ROW_LAST};

enum { TOKENIZE_TEXT = 1, TOKENIZE_MESSAGES = 2, TOKENIZE_MAX = 3 };
enum { TOKENS_TOKENS = 1 };

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
    return rows_end(&cur, bad);
}

void wmsg_status_encode(const struct wmsg_status *msg, struct buf *out)
{
    rows_encode(status_rows, msg, out);
}

enum mc_status wmsg_status_decode(struct slice body, struct wmsg_status *msg, const char **bad)
{
    return rows_decode_all(status_rows, msg, sizeof(*msg), body, bad);
}

void wmsg_text_encode(const char *text, struct buf *out)
{
    struct wmsg_text msg = {.text = ""};

    memcpy(msg.text, text, strnlen(text, WMSG_TEXT_MAX));
    rows_encode(text_rows, &msg, out);
}

enum mc_status wmsg_text_decode(struct slice body, struct wmsg_text *msg, const char **bad)
{
    return rows_decode_all(text_rows, msg, sizeof(*msg), body, bad);
}

void wmsg_finish_encode(const struct wmsg_finish *msg, struct buf *out)
{
    rows_encode(finish_rows, msg, out);
}

enum mc_status wmsg_finish_decode(struct slice body, struct wmsg_finish *msg, const char **bad)
{
    enum mc_status status = rows_decode_all(finish_rows, msg, sizeof(*msg), body, bad);

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
    return rows_decode_all(release_rows, msg, sizeof(*msg), body, bad);
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
        status = rows_end(&cur, bad);
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
    u32s_put(out, TOKENS_TOKENS, tokens, count);
}

enum mc_status wmsg_tokens_decode(struct slice body, struct wmsg_tokens *msg, const char **bad)
{
    struct cur cur = cur_of_slice(body);
    enum mc_status status = MC_OK;
    struct field field;

    memset(msg, 0, sizeof(*msg));
    while (status == MC_OK && field_next(&cur, &field)) {
        if (field.id == TOKENS_TOKENS)
            status = u32s_take(&field, WMSG_TOKENS_MAX, &msg->tokens, &msg->count, "tokens");
        else
            field_unknown(&field);
    }
    if (status != MC_ENOMEM)
        status = rows_end(&cur, bad);
    if (status != MC_OK)
        wmsg_tokens_fini(msg);
    return status;
}

void wmsg_tokens_fini(struct wmsg_tokens *msg)
{
    free(msg->tokens);
    memset(msg, 0, sizeof(*msg));
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
