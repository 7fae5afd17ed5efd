/* reply.c - answers as OpenAI clients expect them. Chunks are written as text, not built as trees: there is one per token. */
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "conductor/http/reply.h"
#include "net/json.h"

enum {
    CHUNK_MAX = 16 << 20,
    TEXT_MAX = 16 << 10, /* bytes of text in a chunk: a few percent of what may wait in a stream */
};

static bool is_chat(const struct request *request)
{
    return request->api.kind == API_CHAT;
}

/* {"id":..,"object":..,"created":..,"model":..   without the closing brace */
static void write_head(const struct request *request, struct buf *out, const char *object)
{
    buf_printf(out, "{\"id\":\"%s-", is_chat(request) ? "chatcmpl" : "cmpl");
    for (int i = 0; i < TRACE_SIZE; i++)
        buf_printf(out, "%02x", request->trace[i]);
    buf_printf(out, "\",\"object\":\"%s\",\"created\":%llu,\"model\":", object, (unsigned long long)request->created_s);
    json_write_str(out, slice_str(request->model->name));
}

static const char *chunk_object(const struct request *request)
{
    return is_chat(request) ? "chat.completion.chunk" : "text_completion";
}

/* ,"choices":[{"index":0, delta or text, "finish_reason":..}] */
static void write_choice(
    const struct request *request, struct buf *out, const char *finish, const char *role, struct slice text)
{
    buf_append_str(out, ",\"choices\":[{\"index\":0,");
    if (is_chat(request)) {
        buf_append_str(out, "\"delta\":{");
        if (role)
            buf_printf(out, "\"role\":\"%s\",", role);
        if (role || text.len) {
            buf_append_str(out, "\"content\":");
            json_write_str(out, text);
        }
        buf_append_char(out, '}');
    } else {
        buf_append_str(out, "\"text\":");
        json_write_str(out, text);
    }
    buf_append_str(out, ",\"logprobs\":null,\"finish_reason\":");
    if (finish)
        buf_printf(out, "\"%s\"}]", finish);
    else
        buf_append_str(out, "null}]");
}

static void write_usage(const struct request *request, struct buf *out)
{
    buf_printf(out,
        ",\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u,"
        "\"prompt_tokens_details\":{\"cached_tokens\":%u}}",
        request->prompt_count, request->answer_count, request->prompt_count + request->answer_count,
        request->account.reused_tokens);
}

static void write_worker(struct buf *out, const char *key, const char *name)
{
    buf_printf(out, ",\"%s\":", key);
    if (*name)
        json_write_str(out, slice_str(name));
    else
        buf_append_str(out, "null");
}

/* Where it ran and what took how long, in ms. `queue` is waiting here and at the worker. */
static void write_mooncake(const struct request *request, struct buf *out)
{
    const struct request_account *a = &request->account;
    double waited = request->placed_ns ? (double)(request->placed_ns - request->started_ns) / NS_PER_MS : 0;
    double ttft = request->first_ns ? (double)(request->first_ns - request->started_ns) / NS_PER_MS : 0;

    buf_append_str(out, ",\"mooncake\":{\"request_id\":");
    json_write_str(out, slice_str(request->id));
    buf_printf(out, ",\"route\":\"%s\"", mc_sched_route_str(request->decision.route));
    write_worker(out, "prefill_worker", request->prefill_name);
    write_worker(out, "decode_worker", request->decode_name);
    buf_printf(out,
        ",\"prompt_tokens\":%u,\"reused_tokens\":%u,\"computed_tokens\":%u,\"replayed_tokens\":%u,\"moves\":%u",
        request->prompt_count, a->reused_tokens, a->computed_tokens, a->replayed_tokens, request->moves);
    write_worker(out, "miss", a->miss);
    buf_printf(out, ",\"store\":%s", request->store_up ? "true" : "false");
    buf_printf(out,
        ",\"timing\":{\"queue_ms\":%.3f,\"load_ms\":%.3f,\"prefill_ms\":%.3f,\"first_decode_ms\":%.3f,\"ttft_ms\":%.3f,"
        "\"ttft_predicted_ms\":%.3f,\"tbt_ms_p50\":%.3f}}",
        waited + (double)a->queue_us / 1e3, (double)a->load_us / 1e3, (double)a->prefill_us / 1e3,
        (double)a->first_us / 1e3, ttft, request->predicted_ms, request_tbt_p50_ms(request));
}

static enum mc_status send_chunk(struct request *request, struct buf *chunk)
{
    enum mc_status status = buf_status(chunk);

    if (status == MC_OK)
        status = http_sse_send(request->http, NULL, buf_slice(chunk));
    buf_fini(chunk);
    return status;
}

static enum mc_status send_choice(struct request *request, const char *finish, const char *role, struct slice text)
{
    bool last = finish && !request->api.include_usage;
    struct buf chunk;

    buf_init(&chunk, CHUNK_MAX);
    write_head(request, &chunk, chunk_object(request));
    write_choice(request, &chunk, finish, role, text);
    if (request->api.include_usage)
        buf_append_str(&chunk, ",\"usage\":null");
    if (last)
        write_mooncake(request, &chunk);
    buf_append_char(&chunk, '}');
    return send_chunk(request, &chunk);
}

enum mc_status reply_stream_begin(struct request *request)
{
    enum mc_status status = http_sse_begin(request->http);

    if (status != MC_OK)
        return status;
    request->streaming = true;
    return is_chat(request) ? send_choice(request, NULL, "assistant", (struct slice){0}) : MC_OK;
}

/* Where to cut so that no character is split: at most `max` bytes. The text is valid UTF-8. */
static size_t cut_at(const struct buf *text, size_t max)
{
    size_t len = text->len < max ? text->len : max;

    while (len < text->len && (text->data[len] & 0xc0) == 0x80)
        len--;
    return len;
}

enum mc_status reply_text(struct request *request)
{
    size_t len;
    const char *text = mc_text_take(request->text, &len);
    enum mc_status status = MC_OK;

    if (len)
        buf_append(&request->pending, text, len);
    while (request->pending.len && !request->holding && status >= MC_OK) {
        len = cut_at(&request->pending, TEXT_MAX);
        status = send_choice(request, NULL, NULL, slice_of(request->pending.data, len));
        buf_consume(&request->pending, len);
        request->holding = status == MC_AGAIN;
    }
    return status;
}

static void send_usage(struct request *request)
{
    struct buf chunk;

    buf_init(&chunk, CHUNK_MAX);
    write_head(request, &chunk, chunk_object(request));
    buf_append_str(&chunk, ",\"choices\":[]");
    write_usage(request, &chunk);
    write_mooncake(request, &chunk);
    buf_append_char(&chunk, '}');
    (void)send_chunk(request, &chunk);
}

void reply_stream_finish(struct request *request)
{
    (void)send_choice(request, request->finish_reason, NULL, (struct slice){0});
    if (request->api.include_usage)
        send_usage(request);
    (void)http_sse_send(request->http, NULL, slice_str("[DONE]"));
    http_stream_end(request->http);
}

void reply_stream_error(struct request *request, const char *type, const char *code, const char *text)
{
    json_t *error =
        json_pack("{s:{s:s, s:s, s:n, s:s?}}", "error", "message", text, "type", type, "param", "code", code);

    (void)http_sse_json(request->http, "error", error);
    http_stream_end(request->http);
}

void reply_body(struct request *request)
{
    struct buf body;
    size_t len;
    const char *text = mc_text_take(request->text, &len);

    buf_init(&body, CHUNK_MAX);
    write_head(request, &body, is_chat(request) ? "chat.completion" : "text_completion");
    if (is_chat(request)) {
        buf_append_str(&body, ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
        json_write_str(&body, slice_of(text, len));
        buf_printf(&body, "},\"logprobs\":null,\"finish_reason\":\"%s\"}]", request->finish_reason);
    } else {
        write_choice(request, &body, request->finish_reason, NULL, slice_of(text, len));
    }
    write_usage(request, &body);
    write_mooncake(request, &body);
    buf_append_char(&body, '}');
    if (buf_status(&body) == MC_OK)
        http_reply(request->http, 200, "application/json", buf_slice(&body));
    else
        http_reply_error(request->http, 500, NULL, NULL, "answer_too_long", "the answer cannot be built: %s",
            mc_status_str(buf_status(&body)));
    buf_fini(&body);
}
