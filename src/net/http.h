/* http.h - an HTTP/1.1 server on a loop: routes, JSON, streams. Over libevent's evhttp.
 *
 * A handler gets a struct http_req and answers it now or later with exactly one of http_reply...() or http_stream_begin() ..
 * http_stream_end(). Until then the request is the handler's; after that it is gone. When the client leaves first (also while
 * we compute and have sent nothing) on_leave runs once, and after it the request is gone: drop every pointer to it. Without an
 * on_leave callback the server waits for the reply and throws it away.
 *
 * Requests get a trace id: from the header `traceparent` or from a hash of `x-request-id`, else drawn; it is set as the log's
 * trace id during the handler, and `x-request-id` goes back in the answer.
 *
 * Limits: header 16 KiB, body per route, connections, idle time. A path that is not in the table: 404; a method that its path does not
 * serve: 405; a body longer than its route takes: 413, all with a JSON error object. What never becomes a request is answered by evhttp
 * itself, with the right code, a page of HTML, and the end of the connection: no HTTP at all, a header that is too long (400), a
 * method that nobody knows (501), a body longer than the largest that any route takes (413, its bytes are never held).
 * Threads: the loop's only. */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "mooncake/status.h"
#include "net/addr.h"
#include "net/frame.h"
#include "net/loop.h"

struct http_server;
struct http_req;

typedef void http_handler_fn(struct http_req *req);

struct http_route {
    const char *method;  /* "GET" (serves HEAD too), "POST", "PUT", "DELETE" */
    const char *pattern; /* "/v1/models/{id}": {x} takes one segment, a last {x...} takes the rest */
    http_handler_fn *fn;
    size_t body_max; /* 0 = 64 KiB */
};

/* Files kept in memory: the web page. */
struct http_file {
    const char *path; /* "/" or "/app.js" */
    const char *content_type;
    const void *data;
    size_t len;
};

struct http_opts {
    struct addr addr;                /* an addr_parse() of "" or ":port" is loopback */
    const struct http_route *routes; /* borrowed until destroy, first match wins */
    size_t route_count;
    const struct http_file *files; /* borrowed */
    size_t file_count;
    void *user;
    void (*on_sent)(
        void *user);          /* the last answer that was on its way has left, or its connection is gone; may be NULL */
    size_t stream_buffer_max; /* 0 = 1 MiB: a stream whose client is slower than that is cut */
    unsigned conns_max;       /* 0 = 1024: that many with a request; others cost a descriptor until idle_s is over */
    unsigned idle_s;          /* 0 = 60: connections without a request */
};

/* MC_OK, MC_EEXIST (address in use; logged), MC_EINVAL, MC_ENOMEM, MC_ESYS (logged). */
enum mc_status http_server_create(struct loop *loop, const struct http_opts *opts, struct http_server **out);

/* Stops listening and cuts all connections; on_leave of open requests runs inside. */
void http_server_destroy(struct http_server *server);

/* Accept no more connections; open requests go on (drain). */
void http_server_stop_accepting(struct http_server *server);

const struct addr *http_server_addr(const struct http_server *server);
size_t http_server_open_requests(const struct http_server *server);

/* Answers that have been given and still lie in our buffers. */
size_t http_server_sending(const struct http_server *server);

/* --- the request; everything lent until it is answered --- */

void *http_user(const struct http_req *req); /* of the server */
void http_set_data(struct http_req *req, void *data);
void *http_data(const struct http_req *req);
struct loop *http_loop(const struct http_req *req);
const char *http_method(const struct http_req *req);
const char *http_path(const struct http_req *req);                     /* decoded, without the query */
const char *http_param(const struct http_req *req, const char *name);  /* {name} of the pattern, decoded; "" if none */
const char *http_query(const struct http_req *req, const char *name);  /* decoded; NULL if it is not there */
const char *http_header(const struct http_req *req, const char *name); /* NULL if it is not there */
struct slice http_body(const struct http_req *req);
const uint8_t *http_trace(const struct http_req *req);   /* 16 bytes */
const char *http_request_id(const struct http_req *req); /* text that goes back in x-request-id */
const char *http_client(const struct http_req *req);     /* "127.0.0.1:51234" */
uint64_t http_started_ns(const struct http_req *req);    /* now_ns() when the request was complete */

/* Body as a JSON object, given to the caller. NULL: it was not one, and the request has been answered with 400. */
json_t *http_json_body(struct http_req *req);

typedef void http_leave_fn(struct http_req *req, void *arg);
void http_on_leave(struct http_req *req, http_leave_fn *fn, void *arg);

/* --- answers --- */

/* Before the answer; copied. A value with CR or LF is dropped. */
void http_set_header(struct http_req *req, const char *name, const char *value);

void http_reply(struct http_req *req, int code, const char *content_type, struct slice body);

/* `value` is given. */
void http_reply_json(struct http_req *req, int code, json_t *value);

/* {"error":{"message":..., "type":..., "param":..., "code":...}} as OpenAI clients expect. type NULL: from the code
 * ("invalid_request_error", "rate_limit_error", "server_error", ...). param and err_code may be NULL (null in the JSON).
 * 401 429 and 503: set retry-after yourself. */
void http_reply_error(struct http_req *req, int code, const char *type, const char *param, const char *err_code,
    const char *format, ...) __attribute__((format(printf, 6, 7)));

/* Chunked answer, piece by piece. `MC_ECLOSED` from write: the client is gone, on_leave has run or will; do nothing more.
 *   MC_OK     queued     MC_AGAIN  queued, but half of stream_buffer_max waits: better hold back until on_drain
 *   MC_EBUSY  beyond stream_buffer_max: the client was cut, on_leave follows */
enum mc_status http_stream_begin(struct http_req *req, int code, const char *content_type);
enum mc_status http_stream_write(struct http_req *req, struct slice bytes);
void http_stream_end(struct http_req *req);

/* Bytes waiting for the client fell below a quarter of stream_buffer_max. */
void http_on_drain(struct http_req *req, void (*fn)(struct http_req *req, void *arg), void *arg);

/* Cut a stream that went wrong after it began (the client must see that it is not complete). No on_leave. */
void http_stream_abort(struct http_req *req);

/* Server-sent events: begin sets the right headers; one `data:` event per call; `event` may be NULL. */
enum mc_status http_sse_begin(struct http_req *req);
enum mc_status http_sse_send(struct http_req *req, const char *event, struct slice data);
enum mc_status http_sse_json(struct http_req *req, const char *event, json_t *value); /* given */

#endif
