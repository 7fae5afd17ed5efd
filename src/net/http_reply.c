/* http_reply.c - answers: whole, JSON, errors, streams.
 *
 * A stream is a chunked answer. What the client has not taken yet lies in the output buffer of its connection; its length is what
 * stream_buffer_max bounds. evhttp tells when that buffer has run empty: that is on_drain. */
#include <assert.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/http_impl.h"
#include "net/json.h"

#define READ_AHEAD_MAX (64u << 10) /* of a client that sends while it is being answered */

static const char *reason_of(int code)
{
    switch (code) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return code < 300 ? "OK" : code < 500 ? "Refused" : "Error";
    }
}

/* OpenAI clients choose what to raise by this. */
static const char *type_of(int code)
{
    switch (code) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "overloaded_error";
    default: return code < 500 ? "invalid_request_error" : "server_error";
    }
}

void http_set_header(struct http_req *req, const char *name, const char *value)
{
    struct evkeyvalq *headers;

    if (!req->ev)
        return;
    headers = evhttp_request_get_output_headers(req->ev);
    evhttp_remove_header(headers, name);
    evhttp_add_header(headers, name, value); /* refuses CR and LF */
}

/* The client of this one is gone: nobody to answer. */
static bool answered_into_void(struct http_req *req)
{
    assert(req->state != HTTP_ENDED);
    if (req->state != HTTP_GONE)
        return false;
    http_req_done(req);
    return true;
}

static void common_headers(struct http_req *req, const char *content_type)
{
    if (content_type)
        http_set_header(req, "content-type", content_type);
    http_set_header(req, "x-request-id", req->id);
}

void http_reply(struct http_req *req, int code, const char *content_type, struct slice body)
{
    struct evhttp_request *ev = req->ev;
    struct evbuffer *out;

    if (answered_into_void(req))
        return;
    assert(req->state == HTTP_OPEN);
    common_headers(req, content_type);
    log_debug("http %s %s from %s: %d, %zu bytes", http_method(req), req->path, req->client, code, body.len);
    http_req_done(req); /* before evhttp sees the answer: it may close the connection at once */
    out = evbuffer_new();
    if (out && body.len && evhttp_request_get_command(ev) != EVHTTP_REQ_HEAD) /* evhttp would send it */
        evbuffer_add(out, body.ptr, body.len);
    evhttp_send_reply(ev, code, reason_of(code), out);
    if (out)
        evbuffer_free(out);
}

void http_reply_json(struct http_req *req, int code, json_t *value)
{
    struct buf text;

    buf_init(&text, SIZE_MAX);
    if (!value || !json_write(value, &text)) {
        buf_reset(&text);
        buf_append_str(&text,
            "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,\"code\":null}}");
        code = 500;
    }
    buf_append_char(&text, '\n');
    http_reply(req, code, "application/json", buf_slice(&text));
    buf_fini(&text);
    json_decref(value);
}

static void put_nullable(struct buf *out, const char *text)
{
    if (text)
        json_write_str(out, slice_str(text));
    else
        buf_append_str(out, "null");
}

void http_reply_error(
    struct http_req *req, int code, const char *type, const char *param, const char *err_code, const char *format, ...)
{
    struct buf text, message;
    va_list args;

    buf_init(&text, SIZE_MAX);
    buf_init(&message, 4096);
    va_start(args, format);
    buf_vprintf(&message, format, args);
    va_end(args);
    buf_append_str(&text, "{\"error\":{\"message\":");
    json_write_str(&text, buf_slice(&message));
    buf_append_str(&text, ",\"type\":");
    json_write_str(&text, slice_str(type ? type : type_of(code)));
    buf_append_str(&text, ",\"param\":");
    put_nullable(&text, param);
    buf_append_str(&text, ",\"code\":");
    put_nullable(&text, err_code);
    buf_append_str(&text, "}}\n");
    http_reply(req, code, "application/json", buf_slice(&text));
    buf_fini(&text);
    buf_fini(&message);
}

/* --- streams --- */

static struct bufferevent *bev_of(const struct http_req *req)
{
    return evhttp_connection_get_bufferevent(req->conn);
}

static void stream_timeouts(struct http_req *req, bool streaming)
{
    struct timeval idle = {.tv_sec = (time_t)req->server->opts.idle_s};

    /* A client that reads a long stream sends nothing: that is no reason to cut it. One that does not read is. */
    bufferevent_set_timeouts(bev_of(req), streaming ? NULL : &idle, &idle);
    bufferevent_setwatermark(bev_of(req), EV_READ, 0, streaming ? READ_AHEAD_MAX : 0);
}

enum mc_status http_stream_begin(struct http_req *req, int code, const char *content_type)
{
    if (req->state == HTTP_GONE)
        return MC_ECLOSED;
    assert(req->state == HTTP_OPEN);
    common_headers(req, content_type);
    req->state = HTTP_STREAMING;
    stream_timeouts(req, true);
    evhttp_send_reply_start(req->ev, code, reason_of(code));
    return MC_OK;
}

static void on_drained(struct evhttp_connection *conn, void *arg)
{
    struct http_req *req = arg;

    loop_enter(req->loop);
    if (!req->want_drain || req->state != HTTP_STREAMING)
        return;
    req->want_drain = false;
    if (req->drain)
        req->drain(req, req->drain_arg);
}

enum mc_status http_stream_write(struct http_req *req, struct slice bytes)
{
    size_t waiting, limit;
    struct evbuffer *out;

    if (req->state != HTTP_STREAMING || atomic_load(&req->cut_task.queued))
        return MC_ECLOSED;
    if (bytes.len == 0)
        return MC_OK; /* an empty chunk would end the stream */
    limit = req->server->opts.stream_buffer_max;
    waiting = evbuffer_get_length(bufferevent_get_output(bev_of(req))) + bytes.len;
    if (waiting > limit) {
        log_info("http client %s is too slow: %zu bytes wait, cutting it", req->client, waiting);
        loop_defer(req->loop, &req->cut_task);
        return MC_EBUSY;
    }
    out = evbuffer_new();
    if (!out || evbuffer_add(out, bytes.ptr, bytes.len) != 0) {
        if (out)
            evbuffer_free(out);
        loop_defer(req->loop, &req->cut_task); /* a hole in a stream is worse than its end */
        return MC_EBUSY;
    }
    evhttp_send_reply_chunk_with_cb(req->ev, out, on_drained, req);
    evbuffer_free(out);
    if (waiting <= limit / 2)
        return MC_OK;
    req->want_drain = true;
    return MC_AGAIN;
}

void http_stream_end(struct http_req *req)
{
    struct evhttp_request *ev = req->ev;

    if (answered_into_void(req))
        return;
    assert(req->state == HTTP_STREAMING);
    stream_timeouts(req, false);
    http_req_done(req);
    evhttp_send_reply_end(ev);
}

/* Later, because we may be below evhttp's own reading here. Without the last chunk: the client sees that it is not complete. */
void http_stream_abort(struct http_req *req)
{
    if (answered_into_void(req))
        return;
    assert(req->state == HTTP_STREAMING);
    req->leave = NULL;
    req->state = HTTP_ENDED;
    loop_defer(req->loop, &req->cut_task);
}

void http_on_drain(struct http_req *req, void (*fn)(struct http_req *req, void *arg), void *arg)
{
    req->drain = fn;
    req->drain_arg = arg;
}

enum mc_status http_sse_begin(struct http_req *req)
{
    http_set_header(req, "cache-control", "no-cache");
    http_set_header(req, "x-accel-buffering", "no"); /* proxies that collect whole answers */
    return http_stream_begin(req, 200, "text/event-stream; charset=utf-8");
}

/* A line break inside the data would end the event: each line gets its own `data:`. */
static void put_data_lines(struct buf *out, struct slice data)
{
    size_t at = 0;

    do {
        const uint8_t *start = data.len ? data.ptr + at : NULL;
        const uint8_t *end = start ? memchr(start, '\n', data.len - at) : NULL;
        size_t len = end ? (size_t)(end - start) : data.len - at;

        buf_append_str(out, "data: ");
        buf_append(out, start, len);
        buf_append_char(out, '\n');
        at += len + 1;
    } while (at < data.len);
}

enum mc_status http_sse_send(struct http_req *req, const char *event, struct slice data)
{
    enum mc_status status;
    struct buf text;

    buf_init(&text, SIZE_MAX);
    if (event)
        buf_printf(&text, "event: %s\n", event);
    put_data_lines(&text, data);
    buf_append_char(&text, '\n');
    status = buf_status(&text) == MC_OK ? http_stream_write(req, buf_slice(&text)) : MC_ENOMEM;
    buf_fini(&text);
    return status;
}

enum mc_status http_sse_json(struct http_req *req, const char *event, json_t *value)
{
    enum mc_status status = MC_ENOMEM;
    struct buf text;

    buf_init(&text, SIZE_MAX);
    if (value && json_write(value, &text))
        status = http_sse_send(req, event, buf_slice(&text));
    buf_fini(&text);
    json_decref(value);
    return status;
}
