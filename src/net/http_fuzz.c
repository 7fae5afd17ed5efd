/* http_fuzz.c - libFuzzer: the bytes of a client through a real server, with handlers that read everything there is to read.
 *
 * The parser is libevent's; what is tested is our glue: routes, parameters, JSON bodies, answers, clients that leave. */
#undef NDEBUG /* asserts are what it looks for */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/http.h"
#include "net/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_json(struct http_req *req)
{
    json_t *body = http_json_body(req);
    struct json_in in;

    if (!body)
        return;
    in = json_in_of(body);
    json_opt_str(&in, "model", http_param(req, "id"));
    json_opt_int(&in, "n", 1, 1, 100);
    json_opt_num(&in, "temperature", 1, 0, 2);
    json_opt_bool(&in, "stream", false);
    if (in.status != MC_OK)
        http_reply_error(req, 400, NULL, in.param, NULL, "%s", in.message);
    else
        http_reply_json(req, 200, json_incref(body));
    json_decref(body);
}

static void on_stream(struct http_req *req)
{
    const char *q = http_query(req, "q");

    if (http_sse_begin(req) != MC_OK)
        return;
    http_sse_send(req, NULL, slice_str(q ? q : http_param(req, "rest")));
    if (http_header(req, "x-abort"))
        http_stream_abort(req);
    else
        http_stream_end(req);
}

static void on_left(struct http_req *req, void *arg)
{
}

static void on_hold(struct http_req *req)
{
    http_on_leave(req, on_left, NULL);
}

static const struct http_route routes[] = {
    {"POST", "/v1/{id}/chat", on_json, 100000},
    {"POST", "/j", on_json},
    {"GET", "/s/{rest...}", on_stream},
    {"PUT", "/h", on_hold},
};

/* Turns that do not sleep: what came over loopback is there at once. */
static void run(struct loop *loop)
{
    for (int i = 0; i < 5; i++) {
        loop_stop(loop);
        loop_run(loop);
    }
}

/* The first byte chooses what the rest is: the body, the path, the query, a header, or the whole request. */
static void request_of(const uint8_t *data, size_t size, struct buf *out)
{
    const char *text = (const char *)data + 1;
    int len = size ? (int)(size - 1) : 0;

    switch (size ? data[0] % 7 : 6) {
    case 0: buf_printf(out, "POST /v1/m/chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len); break;
    case 1: buf_printf(out, "POST /j HTTP/1.1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", len); break;
    case 2: buf_printf(out, "GET %.*s HTTP/1.1\r\n\r\n", len, text); return;
    case 3: buf_printf(out, "GET /s/x?%.*s HTTP/1.1\r\n\r\n", len, text); return;
    case 4: buf_printf(out, "PUT /h HTTP/1.1\r\n%.*s\r\n\r\n", len, text); return;
    case 5: buf_printf(out, "GET /s/%.*s HTTP/1.0\r\nx-abort: 1\r\n\r\n", len, text); return;
    default: break;
    }
    buf_append(out, text, (size_t)len);
}

static void feed(struct loop *loop, int fd, const struct buf *request, size_t cut)
{
    (void)!send(fd, request->data, cut, MSG_DONTWAIT | MSG_NOSIGNAL);
    run(loop);
    (void)!send(fd, request->data + cut, request->len - cut, MSG_DONTWAIT | MSG_NOSIGNAL);
    run(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_opts opts = {.routes = routes, .route_count = 4};
    struct http_server *server;
    struct loop *loop = loop_create("fuzz");
    struct sockaddr_storage sa;
    struct buf request;
    socklen_t len;
    int fd;

    log_set_level(LOG_LEVEL_ERROR);
    assert(addr_parse("127.0.0.1:0", 0, &opts.addr, NULL) == MC_OK);
    if (http_server_create(loop, &opts, &server) != MC_OK)
        abort();
    buf_init(&request, SIZE_MAX);
    request_of(data, size, &request);
    addr_resolve(http_server_addr(server), &sa, &len);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&sa, len) == 0 && request.len)
        feed(loop, fd, &request, size % request.len);
    close(fd);
    run(loop);
    http_server_destroy(server);
    loop_destroy(loop);
    buf_fini(&request);
    return 0;
}
