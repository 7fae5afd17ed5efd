/* http_once.c - see http_once.h. */
#include "compat/engine/http_once.h"

#include <string.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>

#define TIMEOUT_S 5

struct once {
    struct event_base *base;
    int code; /* 0: no answer */
    struct buf *answer;
};

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct once *once = arg;

    once->code = request ? evhttp_request_get_response_code(request) : 0;
    if (once->code) {
        struct evbuffer *body = evhttp_request_get_input_buffer(request);

        buf_append(once->answer, evbuffer_pullup(body, -1), evbuffer_get_length(body));
    }
    event_base_loopbreak(once->base);
}

static void headers(struct evhttp_request *request, const char *host, const char *body)
{
    struct evkeyvalq *out = evhttp_request_get_output_headers(request);

    evhttp_add_header(out, "Host", host);
    evhttp_add_header(out, "Connection", "close");
    evhttp_add_header(out, "Content-Type", "application/json");
    if (body)
        evbuffer_add(evhttp_request_get_output_buffer(request), body, strlen(body));
}

static enum mc_status run(struct once *once, const struct addr *at, const char *host, enum http_once_method method,
    const char *target, const char *body)
{
    static const enum evhttp_cmd_type methods[] = {EVHTTP_REQ_GET, EVHTTP_REQ_PUT, EVHTTP_REQ_POST, EVHTTP_REQ_DELETE};
    struct evhttp_connection *conn = evhttp_connection_base_new(once->base, NULL, at->host, at->port);
    struct evhttp_request *request = conn ? evhttp_request_new(on_answer, once) : NULL;

    if (!request) {
        if (conn)
            evhttp_connection_free(conn);
        return MC_ENOMEM;
    }
    evhttp_connection_set_timeout(conn, TIMEOUT_S);
    evhttp_connection_set_max_body_size(conn, HTTP_ONCE_ANSWER_MAX);
    headers(request, host, body);
    if (evhttp_make_request(conn, request, methods[method], target) ==
        0) /* the connection owns it, also when it fails */
        event_base_dispatch(once->base);
    evhttp_connection_free(conn);
    return once->code ? MC_OK : MC_EPEERDOWN;
}

enum mc_status http_once(const struct addr *at, const char *host, enum http_once_method method, const char *target,
    const char *body, int *code, struct buf *answer)
{
    struct once once = {.base = event_base_new(), .answer = answer};
    enum mc_status status = once.base ? run(&once, at, host, method, target, body) : MC_ENOMEM;

    *code = once.code;
    if (once.base)
        event_base_free(once.base);
    return status == MC_OK ? buf_status(answer) : status;
}
