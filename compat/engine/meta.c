/* meta.c - see meta.h. Over libevent's HTTP client on an event base of the call's own. */
#include "compat/engine/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>

#include "base/buf.h"
#include "base/log.h"
#include "net/json.h"

#define TIMEOUT_S  5
#define ANSWER_MAX 65536

struct exchange {
    struct event_base *base;
    int code; /* of HTTP; 0: no answer */
    struct buf answer;
};

static void on_answer(struct evhttp_request *request, void *arg)
{
    struct exchange *x = arg;

    x->code = request ? evhttp_request_get_response_code(request) : 0;
    if (x->code) {
        struct evbuffer *body = evhttp_request_get_input_buffer(request);

        buf_append(&x->answer, evbuffer_pullup(body, -1), evbuffer_get_length(body));
    }
    event_base_loopbreak(x->base);
}

/* The path and query of the request; MC_ENOMEM. */
static enum mc_status target_of(const struct ce_settings *set, const char *name, struct buf *out)
{
    const char *cluster = getenv("MC_METADATA_CLUSTER_ID");
    struct buf key;
    char *encoded;

    buf_init(&key, 4096);
    buf_printf(
        &key, "mooncake/%s%srpc_meta/%s", cluster && *cluster ? cluster : "", cluster && *cluster ? "/" : "", name);
    encoded = buf_status(&key) == MC_OK ? evhttp_encode_uri(buf_cstr(&key)) : NULL;
    buf_fini(&key);
    if (!encoded)
        return MC_ENOMEM;
    buf_printf(out, "%s?key=%s", set->meta_path, encoded);
    free(encoded);
    return buf_status(out);
}

static enum mc_status request(struct exchange *x, const struct ce_settings *set, enum evhttp_cmd_type method,
    const char *target, const char *body)
{
    struct evhttp_connection *conn;
    struct evhttp_request *req;
    struct addr numeric;
    char host[ADDR_TEXT_MAX];
    enum mc_status status = ce_numeric(&set->meta, set->ip6, &numeric);

    if (status != MC_OK)
        return status;
    conn = evhttp_connection_base_new(x->base, NULL, numeric.host, numeric.port);
    req = conn ? evhttp_request_new(on_answer, x) : NULL;
    if (!req) {
        if (conn)
            evhttp_connection_free(conn);
        return MC_ENOMEM;
    }
    evhttp_connection_set_timeout(conn, TIMEOUT_S);
    evhttp_connection_set_max_body_size(conn, ANSWER_MAX);
    evhttp_add_header(evhttp_request_get_output_headers(req), "Host", addr_format(&set->meta, host));
    evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
    evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", "application/json");
    if (body)
        evbuffer_add(evhttp_request_get_output_buffer(req), body, strlen(body));
    if (evhttp_make_request(conn, req, method, target) == 0)
        event_base_dispatch(x->base);
    evhttp_connection_free(conn);
    return x->code ? MC_OK : MC_EPEERDOWN;
}

/* One request and its answer. MC_OK: x->code and x->answer; exchange_fini() in any case. */
static enum mc_status exchange(
    struct exchange *x, const struct ce_settings *set, enum evhttp_cmd_type method, const char *name, const char *body)
{
    char where[ADDR_TEXT_MAX];
    struct buf target;
    enum mc_status status;

    *x = (struct exchange){.base = event_base_new()};
    buf_init(&x->answer, ANSWER_MAX);
    buf_init(&target, 16384);
    status = x->base ? target_of(set, name, &target) : MC_ENOMEM;
    if (status == MC_OK)
        status = request(x, set, method, buf_cstr(&target), body);
    buf_fini(&target);
    if (status != MC_OK)
        log_error("engine: metadata service %s: %s", addr_format(&set->meta, where),
            status == MC_EPEERDOWN ? "no answer" : mc_status_str(status));
    return status;
}

static void exchange_fini(struct exchange *x)
{
    buf_fini(&x->answer);
    if (x->base)
        event_base_free(x->base);
}

/* ---- finding ---- */

static enum mc_status answer_parse(const struct exchange *x, const char *name, struct addr *at)
{
    json_error_t error;
    json_t *answer = json_loadb(buf_cstr(&x->answer), x->answer.len, 0, &error);
    const char *host = json_string_value(json_object_get(answer, "ip_or_host_name")), *why;
    json_int_t port = json_integer_value(json_object_get(answer, "rpc_port"));
    enum mc_status status = MC_EPROTO;

    if (host && port > 0 && port <= UINT16_MAX && addr_parse(host, (uint16_t)port, at, &why) == MC_OK &&
        at->kind != ADDR_UNIX) {
        at->port = (uint16_t)port;
        status = MC_OK;
    } else {
        log_error("engine: metadata service: what it says of %s is no address", name);
    }
    json_decref(answer);
    return status;
}

enum mc_status ce_meta_find(const struct ce_settings *set, const char *name, struct addr *at)
{
    struct exchange x;
    enum mc_status status = exchange(&x, set, EVHTTP_REQ_GET, name, NULL);

    if (status == MC_OK && x.code == 404)
        status = MC_ENOENT;
    else if (status == MC_OK && x.code != 200)
        status = MC_EPROTO;
    if (status == MC_OK)
        status = answer_parse(&x, name, at);
    exchange_fini(&x);
    return status;
}

/* ---- publishing ---- */

static enum mc_status put(const struct ce_settings *set, const char *name, const struct addr *at, int *code)
{
    json_t *object = json_pack("{s:s, s:i}", "ip_or_host_name", at->host, "rpc_port", (int)at->port);
    char *body = object ? json_dumps(object, JSON_COMPACT) : NULL;
    struct exchange x;
    enum mc_status status;

    json_decref(object);
    if (!body)
        return MC_ENOMEM;
    status = exchange(&x, set, EVHTTP_REQ_PUT, name, body);
    *code = x.code;
    exchange_fini(&x);
    free(body);
    return status;
}

/* Nobody: the port refuses. Anything else may be somebody. */
static bool nobody_listens(const struct ce_settings *set, const struct addr *at)
{
    struct sockaddr_storage sa;
    struct addr numeric;
    socklen_t len;
    bool refused;
    int fd;

    if (ce_numeric(at, set->ip6, &numeric) != MC_OK || addr_resolve(&numeric, &sa, &len) != MC_OK)
        return false;
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = 1}, sizeof(struct timeval));
    refused = connect(fd, (struct sockaddr *)&sa, len) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

enum mc_status ce_meta_publish(const struct ce_settings *set, const char *name, const struct addr *at)
{
    struct addr there;
    enum mc_status status;
    int code;

    status = put(set, name, at, &code);
    if (status != MC_OK || code == 200)
        return status;
    status = ce_meta_find(set, name, &there); /* left over from a predecessor that was killed? */
    if (status == MC_OK && addr_equal(&there, at))
        return MC_OK;
    if (status == MC_OK && nobody_listens(set, &there)) {
        ce_meta_withdraw(set, name);
        status = put(set, name, at, &code);
        if (status == MC_OK && code == 200)
            return MC_OK;
    }
    log_error("engine: metadata service: name %s is not taken: HTTP %d", name, code);
    return status == MC_OK ? MC_EEXIST : status;
}

void ce_meta_withdraw(const struct ce_settings *set, const char *name)
{
    struct exchange x;

    exchange(&x, set, EVHTTP_REQ_DELETE, name, NULL);
    exchange_fini(&x);
}
