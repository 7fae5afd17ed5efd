/* http.c - server and requests.
 *
 * evhttp parses and frames; we decide who serves what, find out when a client leaves, and bound what it can make us hold.
 *
 * A client that leaves is noticed in two ways that end in the same place, on_conn_closed():
 *   - evhttp sees an error or the end of the stream while it writes;
 *   - our hang-up watch (evhttp does not read while a request is being worked on) fires, and we free the connection.
 * In the first case evhttp has let go of the request and leaves it to us; in the second it frees it itself.
 *
 * While descriptors are out, accept(2) would fail again and again at once: listening pauses for ACCEPT_RETRY_MS. */
#include "net/http.h"

#include <assert.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/http_impl.h"
#include "net/json.h"

#define ACCEPT_RETRY_MS 50
#define BACKLOG         512
#define ROUTE_BODY_MAX  (64u << 10)

/* Also those that no route serves: else evhttp would answer them itself, in HTML. CONNECT has no path, and we are no proxy. */
static const struct {
    enum evhttp_cmd_type type;
    const char *name;
} methods[] = {
    {EVHTTP_REQ_GET, "GET"},
    {EVHTTP_REQ_POST, "POST"},
    {EVHTTP_REQ_HEAD, "HEAD"},
    {EVHTTP_REQ_PUT, "PUT"},
    {EVHTTP_REQ_DELETE, "DELETE"},
    {EVHTTP_REQ_OPTIONS, "OPTIONS"},
    {EVHTTP_REQ_TRACE, "TRACE"},
    {EVHTTP_REQ_PATCH, "PATCH"},
};
enum { METHODS = sizeof(methods) / sizeof(methods[0]) };

/* --- end of a request --- */

static void req_free(struct http_req *req)
{
    loop_io_stop(&req->hup);
    loop_defer_cancel(req->loop, &req->cut_task);
    list_del(&req->link);
    if (req->server)
        req->server->request_count--;
    http_params_free(req);
    if (req->query) {
        evhttp_clear_headers(req->query);
        free(req->query);
    }
    free(req->path);
    free(req);
}

/* --- answers on their way: the request is done, its connection belongs to evhttp --- */

static void sending_ends(struct http_server *server)
{
    loop_enter(server->loop);
    if (--server->sending == 0 && server->opts.on_sent)
        server->opts.on_sent(server->opts.user);
}

static void on_sent(struct evhttp_request *ev, void *arg)
{
    evhttp_connection_set_closecb(evhttp_request_get_connection(ev), NULL, NULL);
    sending_ends(arg);
}

static void on_lost(struct evhttp_connection *conn, void *arg)
{
    sending_ends(arg);
}

static void sending_begins(struct http_req *req)
{
    req->server->sending++;
    evhttp_request_set_on_complete_cb(req->ev, on_sent, req->server);
    evhttp_connection_set_closecb(req->conn, on_lost, req->server);
}

void http_req_done(struct http_req *req)
{
    if (req->conn)
        evhttp_connection_set_closecb(req->conn, NULL, NULL);
    if (req->conn && req->server)
        sending_begins(req);
    req->state = HTTP_ENDED;
    loop_io_stop(&req->hup);
    if (!req->in_handler)
        req_free(req);
}

static void on_conn_closed(struct evhttp_connection *conn, void *arg)
{
    struct http_req *req = arg;
    http_leave_fn *leave = req->leave;

    loop_enter(req->loop);
    loop_io_stop(&req->hup);
    /* evhttp let go of the request if it found the error; it is ours to free then. */
    if (!req->freeing_conn && !evhttp_request_get_connection(req->ev))
        evhttp_request_free(req->ev);
    req->ev = NULL;
    req->conn = NULL;
    req->body = slice_of(NULL, 0);
    if (req->state != HTTP_ENDED)
        log_debug("http client %s left during %s", req->client, req->path);
    if (!leave && req->state != HTTP_ENDED) {
        req->state = HTTP_GONE;
        return;
    }
    req->state = HTTP_ENDED;
    if (leave)
        leave(req, req->leave_arg);
    if (!req->in_handler)
        req_free(req);
}

static void cut(struct http_req *req)
{
    req->freeing_conn = true;
    evhttp_connection_free(req->conn); /* calls on_conn_closed */
}

static void on_cut_task(struct loop *loop, struct loop_task *task)
{
    struct http_req *req = container_of(task, struct http_req, cut_task);

    if (req->conn)
        cut(req);
}

static void on_hup(struct loop *loop, struct loop_io *io, unsigned events)
{
    cut(container_of(io, struct http_req, hup));
}

static void watch_client(struct http_req *req)
{
    int fd = bufferevent_getfd(evhttp_connection_get_bufferevent(req->conn));

    if (loop_io_start(req->loop, &req->hup, fd, LOOP_CLOSED, on_hup) != MC_OK)
        log_every_ms(
            LOG_LEVEL_WARN, 1000, "cannot watch http client %s: its leaving will be noticed late", req->client);
}

/* --- begin of a request --- */

static bool id_is_good(const char *id)
{
    size_t len = strlen(id);

    for (size_t i = 0; i < len; i++)
        if (id[i] < 0x21 || id[i] > 0x7e)
            return false;
    return len > 0 && len <= HTTP_ID_MAX;
}

/* Version 00 of W3C trace context: 00-<32 hex>-<16 hex>-<2 hex>. */
static bool traceparent_read(const char *text, uint8_t trace[TRACE_SIZE])
{
    char hex[2 * TRACE_SIZE + 1];

    if (!text || strlen(text) < 55 || memcmp(text, "00-", 3) != 0 || text[35] != '-')
        return false;
    memcpy(hex, text + 3, 2 * TRACE_SIZE);
    hex[2 * TRACE_SIZE] = 0;
    return hex_decode(trace, TRACE_SIZE, hex) == MC_OK;
}

static void identify(struct http_req *req)
{
    const char *id = http_header(req, "x-request-id");
    uint8_t digest[SHA256_SIZE];
    bool good = id && id_is_good(id);

    if (!traceparent_read(http_header(req, "traceparent"), req->trace)) {
        if (good)
            sha256(id, strlen(id), digest);
        else
            random_bytes(digest, sizeof(digest));
        memcpy(req->trace, digest, TRACE_SIZE);
    }
    if (good)
        strcpy(req->id, id);
    else
        hex_encode(req->id, req->trace, TRACE_SIZE);
}

static void name_client(struct http_req *req)
{
    char *host = NULL;
    ev_uint16_t port = 0;

    evhttp_connection_get_peer(req->conn, &host, &port);
    snprintf(req->client, sizeof(req->client), "%s:%u", host ? host : "unix", port);
}

static struct http_req *req_create(struct http_server *server, struct evhttp_request *ev)
{
    struct http_req *req = calloc(1, sizeof(*req));
    struct evbuffer *body = evhttp_request_get_input_buffer(ev);

    if (!req)
        return NULL;
    req->server = server;
    req->loop = server->loop;
    req->ev = ev;
    req->conn = evhttp_request_get_connection(ev);
    req->started_ns = loop_now_ns(server->loop);
    req->body = slice_of(evbuffer_pullup(body, -1), evbuffer_get_length(body));
    loop_task_init(&req->cut_task, on_cut_task);
    list_push_back(&server->requests, &req->link);
    server->request_count++;
    name_client(req);
    identify(req);
    evhttp_connection_set_closecb(req->conn, on_conn_closed, req);
    return req;
}

static bool decode_path(struct http_req *req, const char *raw)
{
    size_t len;

    req->path = evhttp_uridecode(raw, 0, &len);
    return req->path && strlen(req->path) == len;
}

static void serve_file(struct http_req *req, const struct http_file *file)
{
    http_set_header(req, "cache-control", "no-cache");
    http_set_header(req, "x-content-type-options", "nosniff");
    http_reply(req, 200, file->content_type, slice_of(file->data, file->len));
}

static void serve_route(struct http_req *req, const struct http_route *route)
{
    size_t body_max = route->body_max ? route->body_max : ROUTE_BODY_MAX;

    if (req->body.len > body_max)
        http_reply_error(req, 413, NULL, NULL, "body_too_large", "the body has %zu bytes; this path takes at most %zu",
            req->body.len, body_max);
    else
        route->fn(req);
}

static void serve(struct http_req *req, const char *raw_path)
{
    const struct http_server *server = req->server;
    const struct http_file *file;
    const struct http_route *route;
    char allow[64];

    if (!decode_path(req, raw_path)) {
        http_reply_error(req, 400, NULL, NULL, "bad_path", "the path cannot be decoded");
        return;
    }
    if (server->opts.conns_max && server->request_count > server->opts.conns_max) {
        http_set_header(req, "retry-after", "1");
        http_reply_error(
            req, 503, NULL, NULL, "too_many_requests_open", "%u requests are open already", server->opts.conns_max);
        return;
    }
    route = http_route_find(server, http_method(req), raw_path, req, allow, sizeof(allow));
    if (route) {
        serve_route(req, route);
        return;
    }
    file = http_file_find(server, req->path);
    if (file && http_method_serves("GET", http_method(req))) {
        serve_file(req, file);
        return;
    }
    if (file)
        snprintf(allow, sizeof(allow), "GET");
    if (allow[0]) {
        http_set_header(req, "allow", allow);
        http_reply_error(req, 405, NULL, NULL, "method_not_allowed", "%s serves %s only", req->path, allow);
    } else {
        http_reply_error(req, 404, NULL, NULL, "unknown_path", "there is nothing at %s", req->path);
    }
}

static void on_request(struct evhttp_request *ev, void *arg)
{
    struct http_server *server = arg;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(ev);
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    struct http_req *req;

    loop_enter(server->loop);
    req = req_create(server, ev);
    if (!req) {
        evhttp_send_error(ev, 503, "Service Unavailable");
        return;
    }
    log_set_trace(req->trace);
    req->in_handler = true;
    serve(req, path && *path ? path : "/");
    req->in_handler = false;
    log_set_trace(NULL);
    if (req->state == HTTP_ENDED && !atomic_load(&req->cut_task.queued))
        req_free(req);
    else if (req->state == HTTP_OPEN || req->state == HTTP_STREAMING)
        watch_client(req);
}

/* --- looking at a request --- */

void *http_user(const struct http_req *req)
{
    return req->server ? req->server->opts.user : NULL;
}

void http_set_data(struct http_req *req, void *data)
{
    req->data = data;
}

void *http_data(const struct http_req *req)
{
    return req->data;
}

struct loop *http_loop(const struct http_req *req)
{
    return req->loop;
}

const char *http_method(const struct http_req *req)
{
    for (size_t i = 0; req->ev && i < METHODS; i++)
        if (methods[i].type == evhttp_request_get_command(req->ev))
            return methods[i].name;
    return "";
}

const char *http_path(const struct http_req *req)
{
    return req->path;
}

const char *http_param(const struct http_req *req, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < req->param_count; i++)
        if (req->params[i].name_len == len && memcmp(req->params[i].name, name, len) == 0)
            return req->params[i].value;
    return "";
}

/* Parsed when first asked for. */
static struct evkeyvalq *query_of(struct http_req *req)
{
    const struct evhttp_uri *uri = req->ev ? evhttp_request_get_evhttp_uri(req->ev) : NULL;
    const char *text = uri ? evhttp_uri_get_query(uri) : NULL;

    if (req->query || !text)
        return req->query;
    req->query = calloc(1, sizeof(*req->query));
    if (req->query && evhttp_parse_query_str(text, req->query) != 0) {
        free(req->query);
        req->query = NULL;
    }
    return req->query;
}

const char *http_query(const struct http_req *req, const char *name)
{
    struct evkeyvalq *query = query_of((struct http_req *)(uintptr_t)req);

    return query ? evhttp_find_header(query, name) : NULL;
}

const char *http_header(const struct http_req *req, const char *name)
{
    return req->ev ? evhttp_find_header(evhttp_request_get_input_headers(req->ev), name) : NULL;
}

struct slice http_body(const struct http_req *req)
{
    return req->body;
}

const uint8_t *http_trace(const struct http_req *req)
{
    return req->trace;
}

const char *http_request_id(const struct http_req *req)
{
    return req->id;
}

const char *http_client(const struct http_req *req)
{
    return req->client;
}

uint64_t http_started_ns(const struct http_req *req)
{
    return req->started_ns;
}

json_t *http_json_body(struct http_req *req)
{
    char why[256] = "the body must be a JSON object";
    json_t *value = req->body.len ? json_parse(req->body, why, sizeof(why)) : NULL;

    if (value && json_is_object(value))
        return value;
    if (value) {
        json_decref(value);
        snprintf(why, sizeof(why), "the body must be a JSON object");
    }
    http_reply_error(req, 400, NULL, NULL, "bad_json", "%s", why);
    return NULL;
}

void http_on_leave(struct http_req *req, http_leave_fn *fn, void *arg)
{
    req->leave = fn;
    req->leave_arg = arg;
}

/* --- server --- */

static void on_accept_retry(struct loop *loop, struct loop_timer *timer)
{
    struct http_server *server = container_of(timer, struct http_server, accept_timer);

    if (server->listener)
        evconnlistener_enable(server->listener);
}

static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    struct http_server *server = arg;

    loop_enter(server->loop);
    log_every_ms(LOG_LEVEL_ERROR, 1000, "http cannot accept: %m");
    evconnlistener_disable(listener);
    loop_timer_set(server->loop, &server->accept_timer, deadline_after_ms(loop_now_ns(server->loop), ACCEPT_RETRY_MS));
}

static enum mc_status listen_failed(struct http_server *server, int fd, const char *what)
{
    char text[ADDR_TEXT_MAX];
    int error = errno;

    log_error("http cannot %s %s: %m", what, addr_format(&server->addr, text));
    if (fd >= 0)
        close(fd);
    return error == EADDRINUSE ? MC_EEXIST : error == EADDRNOTAVAIL ? MC_EINVAL : MC_ESYS;
}

static enum mc_status listen_on(struct http_server *server)
{
    struct evhttp_bound_socket *bound;
    struct sockaddr_storage sa;
    socklen_t len;
    int fd, on = 1;

    if (addr_resolve(&server->addr, &sa, &len) != MC_OK)
        return MC_EINVAL;
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return listen_failed(server, fd, "make a socket for");
    if (sa.ss_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&sa, len) != 0)
        return listen_failed(server, fd, "bind to");
    if (listen(fd, BACKLOG) != 0)
        return listen_failed(server, fd, "listen on");
    bound = evhttp_accept_socket_with_handle(server->evhttp, fd);
    if (!bound) {
        close(fd);
        return MC_ENOMEM;
    }
    server->listener = evhttp_bound_socket_get_listener(bound);
    evconnlistener_set_error_cb(server->listener, on_accept_error);
    return server->addr.kind == ADDR_UNIX ? MC_OK : addr_of_socket(fd, &server->addr);
}

static void limits_set(struct http_server *server)
{
    size_t body_max = ROUTE_BODY_MAX;
    unsigned known = 0;

    for (size_t i = 0; i < METHODS; i++)
        known |= methods[i].type;
    for (size_t i = 0; i < server->opts.route_count; i++)
        if (server->opts.routes[i].body_max > body_max)
            body_max = server->opts.routes[i].body_max;
    if (!server->opts.stream_buffer_max)
        server->opts.stream_buffer_max = 1u << 20;
    if (!server->opts.conns_max)
        server->opts.conns_max = 1024;
    if (!server->opts.idle_s)
        server->opts.idle_s = 60;
    evhttp_set_allowed_methods(server->evhttp, (ev_uint16_t)known);
    evhttp_set_max_headers_size(server->evhttp, HTTP_HEAD_MAX);
    evhttp_set_max_body_size(server->evhttp, (ev_ssize_t)body_max);
    evhttp_set_timeout(server->evhttp, (int)server->opts.idle_s);
    evhttp_set_default_content_type(server->evhttp, NULL);
}

enum mc_status http_server_create(struct loop *loop, const struct http_opts *opts, struct http_server **out)
{
    struct http_server *server = calloc(1, sizeof(*server));
    enum mc_status status = MC_ENOMEM;

    assert(loop_in_thread(loop));
    if (!server)
        return MC_ENOMEM;
    server->loop = loop;
    server->opts = *opts;
    server->addr = opts->addr;
    list_init(&server->requests);
    loop_timer_init(&server->accept_timer, on_accept_retry);
    server->evhttp = evhttp_new(loop_event_base(loop));
    if (server->evhttp && loop_timer_reserve(loop, 1) == MC_OK) {
        limits_set(server);
        evhttp_set_gencb(server->evhttp, on_request, server);
        status = listen_on(server);
    }
    if (status != MC_OK) {
        http_server_destroy(server);
        return status;
    }
    *out = server;
    return MC_OK;
}

void http_server_stop_accepting(struct http_server *server)
{
    loop_timer_cancel(server->loop, &server->accept_timer);
    if (server->listener)
        evconnlistener_disable(server->listener);
    server->listener = NULL;
}

void http_server_destroy(struct http_server *server)
{
    if (!server)
        return;
    assert(loop_in_thread(server->loop));
    http_server_stop_accepting(server);
    server->opts.on_sent = NULL;
    list_for_each (node, &server->requests)
        list_entry(node, struct http_req, link)->freeing_conn = true;
    if (server->evhttp)
        evhttp_free(server->evhttp); /* frees the connections, whose close callbacks tell the handlers */
    list_for_each_safe (node, next, &server->requests) {
        struct http_req *req = list_entry(node, struct http_req, link); /* GONE: waits for its answer */

        list_del(&req->link);
        req->server = NULL;
    }
    if (server->addr.kind == ADDR_UNIX)
        unlink(server->addr.host);
    free(server);
}

const struct addr *http_server_addr(const struct http_server *server)
{
    return &server->addr;
}

size_t http_server_open_requests(const struct http_server *server)
{
    return server->request_count;
}

size_t http_server_sending(const struct http_server *server)
{
    return server->sending;
}
