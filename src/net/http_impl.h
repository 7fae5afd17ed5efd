/* http_impl.h - inside src/net: shared by http.c (server, requests), http_route.c (matching) and http_reply.c (answers).
 *
 *   state       who holds what
 *   OPEN        the handler has it; evhttp waits for an answer
 *   STREAMING   http_stream_begin was called
 *   GONE        the client left and nobody wanted to be told: `ev` is NULL, the handler's answer will free it
 *   ENDED       answered or left: freed as soon as our own code is off the stack; aborted streams: when their connection is cut */
#ifndef NET_HTTP_IMPL_H
#define NET_HTTP_IMPL_H

#include "base/buf.h"
#include "base/list.h"
#include "net/http.h"

#define HTTP_PARAMS_MAX  8
#define HTTP_HEADERS_MAX 16
#define HTTP_HEAD_MAX    (16u << 10)
#define HTTP_ID_MAX      128

struct evhttp;
struct evhttp_request;
struct evhttp_connection;
struct evkeyvalq;
struct evconnlistener;

enum http_state { HTTP_OPEN, HTTP_STREAMING, HTTP_GONE, HTTP_ENDED };

struct http_server {
    struct loop *loop;
    struct http_opts opts;
    struct evhttp *evhttp;
    struct evconnlistener *listener;
    struct loop_timer accept_timer; /* listening pauses while descriptors are out */
    struct addr addr;
    struct list requests;
    size_t request_count;
    size_t sending; /* answers given that have not left yet */
};

struct http_param {
    const char *name; /* in the pattern */
    size_t name_len;
    char *value;
};

struct http_req {
    struct list link;
    struct http_server *server; /* NULL after the server went */
    struct loop *loop;
    struct evhttp_request *ev;
    struct evhttp_connection *conn;
    enum http_state state;
    bool freeing_conn; /* we are inside evhttp_connection_free: it frees `ev` */
    bool in_handler;

    char *path;
    struct http_param params[HTTP_PARAMS_MAX];
    size_t param_count;
    struct evkeyvalq *query;
    struct slice body;
    uint8_t trace[TRACE_SIZE];
    char id[HTTP_ID_MAX + 1];
    char client[64];
    uint64_t started_ns;
    void *data;

    struct loop_io hup; /* watches for the client leaving */
    http_leave_fn *leave;
    void *leave_arg;
    void (*drain)(struct http_req *req, void *arg);
    void *drain_arg;
    bool want_drain;
    struct loop_task cut_task; /* cut the connection, later */
};

/* http_route.c. On a match fills params (values to be freed with http_params_free) and returns the route; else NULL and
 * *path_known says whether another method would have matched, *allow lists those methods. */
const struct http_route *http_route_find(const struct http_server *server, const char *method, const char *path,
    struct http_req *req, char *allow, size_t allow_size);
bool http_method_serves(const char *route, const char *method); /* GET serves HEAD, too */
const struct http_file *http_file_find(const struct http_server *server, const char *path);
void http_params_free(struct http_req *req);

/* http.c: the request is answered; evhttp has what it needs. Frees req. */
void http_req_done(struct http_req *req);

#endif
