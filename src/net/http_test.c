/* http_test.c - the server with libcurl as client, and with plain sockets where a client has to misbehave.
 *
 * The loop runs in a thread of its own; handlers record what they saw. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <curl/curl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>

#include "base/hash.h"
#include "net/http.h"
#include "net/json.h"
#include "net/net_test.h"

static struct loop *loop;
static struct http_server *server;
static char base[64];
static struct addr server_addr;

static struct {
    atomic_uint calls, leaves, drains, again, busy, gone_writes;
    _Atomic(struct http_req *) held;
    struct loop_timer timer;
    unsigned ticks;
} seen;

/* --- handlers --- */

static void echo(struct http_req *req)
{
    atomic_fetch_add(&seen.calls, 1);
    http_set_header(req, "x-client", http_client(req));
    http_reply(req, 200, "application/octet-stream", http_body(req));
}

static void show(struct http_req *req)
{
    const char *q = http_query(req, "q");

    http_reply_json(req, 200,
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "id", http_param(req, "id"), "q", q ? q : "(none)", "method",
            http_method(req), "path", http_path(req), "user", http_user(req)));
}

static void rest(struct http_req *req)
{
    http_reply(req, 200, "text/plain", slice_str(http_param(req, "rest")));
}

static void json(struct http_req *req)
{
    json_t *body = http_json_body(req);
    struct json_in in;
    int64_t n;

    if (!body)
        return;
    in = json_in_of(body);
    n = json_need_int(&in, "n", 0, 100);
    if (in.status != MC_OK)
        http_reply_error(req, 400, NULL, in.param, NULL, "%s", in.message);
    else
        http_reply_json(req, 200, json_pack("{s:I}", "twice", (json_int_t)(2 * n)));
    json_decref(body);
}

static void limited(struct http_req *req)
{
    http_set_header(req, "retry-after", "3");
    http_reply_error(req, 429, NULL, NULL, "slo", "come back later");
}

static void left(struct http_req *req, void *arg)
{
    assert_ptr_equal(arg, &seen);
    atomic_store(&seen.held, NULL);
    loop_timer_cancel(loop, &seen.timer);
    atomic_fetch_add(&seen.leaves, 1);
}

/* Answers when told to. */
static void hold(struct http_req *req)
{
    http_on_leave(req, left, &seen);
    atomic_store(&seen.held, req);
}

/* The same without caring whether the client leaves. */
static void hold_blind(struct http_req *req)
{
    atomic_store(&seen.held, req);
}

static void later(struct loop *l, struct loop_timer *timer)
{
    http_reply(seen.held, 200, "text/plain", slice_str("later"));
}

static void slow(struct http_req *req)
{
    seen.held = req;
    loop_timer_init(&seen.timer, later);
    loop_timer_set(http_loop(req), &seen.timer, now_ns() + 20 * NS_PER_MS);
}

static void tick(struct loop *l, struct loop_timer *timer)
{
    struct http_req *req = seen.held;

    if (seen.ticks++ < 5) {
        http_sse_json(req, NULL, json_pack("{s:i}", "tick", seen.ticks));
        loop_timer_set(l, timer, now_ns() + 5 * NS_PER_MS);
        return;
    }
    http_sse_send(req, "end", slice_str("[DONE]\nsecond line"));
    http_stream_end(req);
}

static void stream(struct http_req *req)
{
    http_on_leave(req, left, &seen);
    seen.held = req;
    seen.ticks = 0;
    assert_int_equal(http_sse_begin(req), MC_OK);
    loop_timer_init(&seen.timer, tick);
    loop_timer_set(loop, &seen.timer, now_ns());
}

static void flood_more(struct http_req *req, void *arg)
{
    static uint8_t bytes[10000];
    enum mc_status status;

    atomic_fetch_add(&seen.drains, 1);
    while ((status = http_stream_write(req, slice_of(bytes, sizeof(bytes)))) == MC_OK)
        ;
    if (status == MC_AGAIN)
        atomic_fetch_add(&seen.again, 1);
}

/* Writes as much as it may, waiting for on_drain. */
static void flood(struct http_req *req)
{
    http_on_leave(req, left, &seen);
    http_on_drain(req, flood_more, NULL);
    seen.held = req;
    http_stream_begin(req, 200, "application/octet-stream");
    flood_more(req, NULL);
}

/* Writes without caring. */
static void careless(struct http_req *req)
{
    static uint8_t bytes[100000];
    enum mc_status status;

    http_on_leave(req, left, &seen);
    http_stream_begin(req, 200, "application/octet-stream");
    do
        status = http_stream_write(req, slice_of(bytes, sizeof(bytes)));
    while (status == MC_OK || status == MC_AGAIN);
    assert_int_equal(status, MC_EBUSY);
    atomic_fetch_add(&seen.busy, 1);
    assert_int_equal(http_stream_write(req, slice_of(bytes, 1)), MC_ECLOSED);
}

static void breaks(struct http_req *req)
{
    http_stream_begin(req, 200, "text/plain");
    http_stream_write(req, slice_str("half"));
    http_stream_abort(req);
}

static void log_trace_id(struct http_req *req)
{
    char hex[33];

    hex_encode(hex, log_trace(), 16);
    http_reply(req, 200, "text/plain", slice_str(hex));
}

static const struct http_route routes[] = {
    {"POST", "/echo", echo, 1 << 20},
    {"GET", "/v1/models/{id}", show},
    {"GET", "/v1/models/{id}/sub/{x}", show},
    {"PUT", "/v1/models/{id}", show},
    {"GET", "/rest/{rest...}", rest},
    {"POST", "/json", json},
    {"GET", "/limited", limited},
    {"GET", "/hold", hold},
    {"GET", "/hold-blind", hold_blind},
    {"GET", "/slow", slow},
    {"GET", "/stream", stream},
    {"GET", "/flood", flood},
    {"GET", "/careless", careless},
    {"GET", "/breaks", breaks},
    {"GET", "/trace", log_trace_id},
};
static const struct http_file files[] = {
    {"/", "text/html", "<html>", 6},
    {"/app.js", "text/javascript", "x()", 3},
};

/* --- set-up --- */

static int setup(void **state)
{
    struct http_opts opts = {.addr = loopback(),
        .routes = routes,
        .route_count = sizeof(routes) / sizeof(routes[0]),
        .files = files,
        .file_count = 2,
        .user = (void *)"tester",
        .stream_buffer_max = 300000};

    memset(&seen, 0, sizeof(seen));
    loop = loop_create("http");
    assert_int_equal(http_server_create(loop, &opts, &server), MC_OK);
    server_addr = *http_server_addr(server);
    snprintf(base, sizeof(base), "http://127.0.0.1:%u", server_addr.port);
    return loop_thread_start(loop) == MC_OK ? 0 : -1;
}

static int teardown(void **state)
{
    loop_thread_stop(loop);
    http_server_destroy(server);
    loop_destroy(loop);
    return 0;
}

/* --- client --- */

struct reply {
    CURLcode code;
    long status;
    char body[1 << 16];
    size_t len;
    char header[1024]; /* the one asked for */
};

static size_t collect(char *bytes, size_t size, size_t count, void *arg)
{
    struct reply *reply = arg;
    size_t n = size * count, room = sizeof(reply->body) - 1 - reply->len;

    memcpy(reply->body + reply->len, bytes, n < room ? n : room);
    reply->len += n < room ? n : room;
    reply->body[reply->len] = 0;
    return n;
}

static struct reply reply;

struct ask {
    const char *method, *path, *body, *header, *want_header;
    size_t body_len;
    CURL *reuse;
};

static void ask(const struct ask *what)
{
    struct curl_slist *headers = what->header ? curl_slist_append(NULL, what->header) : NULL;
    CURL *curl = what->reuse ? what->reuse : curl_easy_init();
    struct curl_header *found;
    char url[512];

    memset(&reply, 0, sizeof(reply));
    curl_easy_reset(curl);
    snprintf(url, sizeof(url), "%s%s", base, what->path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 10000L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (what->body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE, (long)(what->body_len ? what->body_len : strlen(what->body)));
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, what->body);
    }
    if (what->method && strcmp(what->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else if (what->method)
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, what->method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    reply.code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &reply.status);
    if (what->want_header && curl_easy_header(curl, what->want_header, 0, CURLH_HEADER, -1, &found) == CURLHE_OK)
        snprintf(reply.header, sizeof(reply.header), "%s", found->value);
    curl_slist_free_all(headers);
    if (!what->reuse)
        curl_easy_cleanup(curl);
}

static void get(const char *path)
{
    ask(&(struct ask){.path = path});
}

/* Message, type, param and code of an error reply. */
static void check_error(long status, const char *type, const char *param, const char *code)
{
    char why[256];
    json_t *value = json_parse(slice_of(reply.body, reply.len), why, sizeof(why));
    json_t *error = json_object_get(value, "error");
    const char *p = json_string_value(json_object_get(error, "param")),
               *c = json_string_value(json_object_get(error, "code"));

    assert_int_equal(reply.status, status);
    assert_non_null(json_string_value(json_object_get(error, "message")));
    assert_string_equal(json_string_value(json_object_get(error, "type")), type);
    assert_string_equal(p ? p : "(null)", param ? param : "(null)");
    assert_string_equal(c ? c : "(null)", code ? code : "(null)");
    json_decref(value);
}

static int raw(const char *text)
{
    struct sockaddr_storage sa;
    socklen_t len;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(addr_resolve(&server_addr, &sa, &len), MC_OK);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(send(fd, text, strlen(text), 0), strlen(text));
    return fd;
}

static bool wait_for(atomic_uint *number, unsigned value)
{
    for (int i = 0; i < 3000 && atomic_load(number) < value; i++)
        usleep(1000);
    return atomic_load(number) >= value;
}

static bool wait_held(void)
{
    for (int i = 0; i < 3000 && !atomic_load(&seen.held); i++)
        usleep(1000);
    return atomic_load(&seen.held) != NULL;
}

/* --- tests --- */

static void test_echo(void **state)
{
    char *big = malloc(1 << 20);
    CURL *curl = curl_easy_init();

    memset(big, 'x', 1 << 20);
    ask(&(struct ask){.path = "/echo", .body = "hello", .reuse = curl});
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "hello");
    for (int i = 0; i < 20; i++) /* the same connection */
        ask(&(struct ask){.path = "/echo", .body = "again", .reuse = curl, .want_header = "x-client"});
    assert_string_equal(reply.body, "again");
    ask(&(struct ask){.path = "/echo", .body = big, .body_len = 1 << 20, .reuse = curl});
    assert_int_equal(reply.status, 200);
    assert_int_equal(seen.calls, 22);
    curl_easy_cleanup(curl);
    free(big);
}

static void test_routes(void **state)
{
    get("/v1/models/a%20b?q=1%262&x=y");
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body,
        "{\"id\":\"a b\",\"q\":\"1&2\",\"method\":\"GET\",\"path\":\"/v1/models/a b\",\"user\":\"tester\"}\n");
    get("/v1/models/a%2Fb"); /* an encoded slash stays in its segment */
    assert_non_null(strstr(reply.body, "\"id\":\"a/b\""));
    get("/v1/models/m/sub/y");
    assert_non_null(strstr(reply.body, "\"id\":\"m\""));
    ask(&(struct ask){.path = "/v1/models/m", .method = "PUT", .body = "x"});
    assert_non_null(strstr(reply.body, "\"method\":\"PUT\""));
    get("/rest/a/b/c");
    assert_string_equal(reply.body, "a/b/c");
    ask(&(struct ask){.path = "/v1/models/m", .method = "HEAD"});
    assert_int_equal(reply.status, 200);
    assert_int_equal(reply.len, 0);
}

static void test_wrong_paths(void **state)
{
    get("/v1/models/");
    check_error(404, "not_found_error", NULL, "unknown_path");
    get("/v1/models/a/b");
    check_error(404, "not_found_error", NULL, "unknown_path");
    ask(&(struct ask){.path = "/v1/models/m", .method = "DELETE", .want_header = "allow"});
    check_error(405, "invalid_request_error", NULL, "method_not_allowed");
    assert_string_equal(reply.header, "GET, PUT");
    for (size_t i = 0; i < 3; i++) { /* methods that no route has */
        static const char *const methods[] = {"PATCH", "OPTIONS", "TRACE"};

        ask(&(struct ask){.path = "/v1/models/m", .method = methods[i], .want_header = "allow"});
        check_error(405, "invalid_request_error", NULL, "method_not_allowed");
        assert_string_equal(reply.header, "GET, PUT");
    }
    ask(&(struct ask){.path = "/app.js", .method = "DELETE", .want_header = "allow"});
    check_error(405, "invalid_request_error", NULL, "method_not_allowed");
    assert_string_equal(reply.header, "GET");
    get("/v1/models/a%00b");
    assert_int_equal(reply.status, 400);
    get("/../etc/passwd");
    assert_int_equal(reply.status, 404);
}

static void test_files(void **state)
{
    ask(&(struct ask){.path = "/", .want_header = "content-type"});
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "<html>");
    assert_string_equal(reply.header, "text/html");
    get("/app.js");
    assert_string_equal(reply.body, "x()");
}

static void test_errors(void **state)
{
    ask(&(struct ask){.path = "/json", .body = "{\"n\":21}"});
    assert_string_equal(reply.body, "{\"twice\":42}\n");
    ask(&(struct ask){.path = "/json", .body = "{\"n\":101}"});
    check_error(400, "invalid_request_error", "n", NULL);
    ask(&(struct ask){.path = "/json", .body = "{\"n\":"});
    check_error(400, "invalid_request_error", NULL, "bad_json");
    ask(&(struct ask){.path = "/json", .body = "[1]"});
    check_error(400, "invalid_request_error", NULL, "bad_json");
    ask(&(struct ask){.path = "/limited", .want_header = "retry-after"});
    check_error(429, "rate_limit_error", NULL, "slo");
    assert_string_equal(reply.header, "3");
}

static void test_body_limits(void **state)
{
    char *big = malloc(3 << 20);

    memset(big, ' ', 3 << 20);
    ask(&(struct ask){.path = "/json", .body = big, .body_len = 70000}); /* more than its route takes */
    check_error(413, "invalid_request_error", NULL, "body_too_large");
    ask(&(struct ask){.path = "/echo", .body = big, .body_len = 3 << 20}); /* more than any takes */
    assert_true(reply.status == 413 || reply.code != CURLE_OK);
    ask(&(struct ask){.path = "/echo", .body = "x"});
    assert_int_equal(reply.status, 200);
    free(big);
}

static void test_request_id(void **state)
{
    ask(&(struct ask){.path = "/trace", .header = "x-request-id: abc-1", .want_header = "x-request-id"});
    assert_string_equal(reply.header, "abc-1");
    assert_int_equal(strlen(reply.body), 32);
    ask(&(struct ask){.path = "/trace",
        .header = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        .want_header = "x-request-id"});
    assert_string_equal(reply.body, "0af7651916cd43dd8448eb211c80319c");
    assert_string_equal(reply.header, "0af7651916cd43dd8448eb211c80319c");
    ask(&(struct ask){.path = "/trace", .header = "x-request-id: a b", .want_header = "x-request-id"});
    assert_string_equal(reply.header, reply.body);
}

static void test_reply_later(void **state)
{
    get("/slow");
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "later");
}

static void test_stream(void **state)
{
    ask(&(struct ask){.path = "/stream", .want_header = "content-type"});
    assert_int_equal(reply.code, CURLE_OK);
    assert_string_equal(reply.header, "text/event-stream; charset=utf-8");
    assert_string_equal(reply.body,
        "data: {\"tick\":1}\n\ndata: {\"tick\":2}\n\ndata: {\"tick\":3}\n\ndata: {\"tick\":4}\n\n"
        "data: {\"tick\":5}\n\nevent: end\ndata: [DONE]\ndata: second line\n\n");
    assert_int_equal(seen.leaves, 0);
}

static void test_stream_breaks(void **state)
{
    get("/breaks");
    assert_true(reply.code != CURLE_OK);
}

/* The client goes while the handler computes and has sent nothing. */
static void leaves(const char *text, bool reset)
{
    struct linger linger = {1, 0};
    unsigned before = atomic_load(&seen.leaves);
    int fd = raw(text);

    assert_true(wait_held());
    if (reset)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
    assert_true(wait_for(&seen.leaves, before + 1));
    usleep(20000);
    assert_int_equal(seen.leaves, before + 1);
    assert_null(atomic_load(&seen.held));
}

static void test_client_leaves(void **state)
{
    leaves("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", false);
    leaves("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", true);
    get("/");
    assert_int_equal(reply.status, 200);
}

static void test_client_leaves_a_stream(void **state)
{
    leaves("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n", false);
    leaves("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n", true);
    assert_true(seen.again > 0);
}

static void answer_held(struct loop *l, void *arg)
{
    http_reply(seen.held, 200, "text/plain", slice_str("x"));
}

static void test_nobody_cares_that_it_left(void **state)
{
    int fd = raw("GET /hold-blind HTTP/1.1\r\nHost: x\r\n\r\n");

    assert_true(wait_held());
    close(fd);
    usleep(30000);
    loop_call(loop, answer_held, NULL);
    get("/");
    assert_int_equal(reply.status, 200);
    assert_int_equal(http_server_open_requests(server), 0);
}

/* A reader that takes its time gets everything; nothing is buffered without end. */
static void test_slow_reader_is_waited_for(void **state)
{
    int fd = raw("GET /flood HTTP/1.1\r\nHost: x\r\n\r\n");
    size_t total = 0;
    char bytes[100000];

    while (total < (20u << 20)) {
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

        assert_true(n > 0);
        total += (size_t)n;
    }
    assert_true(seen.drains > 3);
    assert_int_equal(seen.leaves, 0);
    close(fd);
    assert_true(wait_for(&seen.leaves, 1));
}

static void test_careless_writer_is_cut(void **state)
{
    int fd = raw("GET /careless HTTP/1.1\r\nHost: x\r\n\r\n");

    assert_true(wait_for(&seen.leaves, 1));
    assert_int_equal(seen.busy, 1);
    close(fd);
}

static void test_malformed(void **state)
{
    static const struct {
        const char *text, *code;
    } cases[] = {
        {"\r\n\r\n", "400"},
        {"GET\r\n\r\n", "400"},
        {"GET / HTTP/9.9\r\n\r\n", "400"},
        {"BREW /pot HTTP/1.1\r\n\r\n", "501"},
        {"POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"},
        {"POST /echo HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", "413"},
        {"GET http://[/ HTTP/1.1\r\n\r\n", "400"},
        {"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", "413"},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = raw(cases[i].text);
        char answer[4096] = "";
        size_t have = 0;
        ssize_t got;

        while ((got = recv(fd, answer + have, sizeof(answer) - 1 - have, 0)) > 0) /* until it is closed */
            have += (size_t)got;
        assert_memory_equal(answer, "HTTP/1.", 7);
        assert_memory_equal(answer + 9, cases[i].code, 3);
        close(fd);
    }
    get("/");
    assert_int_equal(reply.status, 200);
}

static void test_header_limit(void **state)
{
    char *header = malloc(40000);

    snprintf(header, 40000, "x-big: %030000d", 1);
    ask(&(struct ask){.path = "/", .header = header});
    assert_true(reply.status >= 400 || reply.code != CURLE_OK);
    free(header);
}

static void test_destroy_with_open_requests(void **state)
{
    int fd = raw("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");

    assert_true(wait_held());
    loop_thread_stop(loop);
    http_server_destroy(server);
    server = NULL;
    assert_int_equal(seen.leaves, 1);
    close(fd);
}

static void test_address_in_use(void **state)
{
    struct http_opts opts = {.addr = server_addr};
    struct http_server *second = NULL;
    struct loop *other = loop_create("other");

    assert_int_equal(http_server_create(other, &opts, &second), MC_EEXIST);
    assert_null(second);
    loop_destroy(other);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_echo),
        T(test_routes),
        T(test_wrong_paths),
        T(test_files),
        T(test_errors),
        T(test_body_limits),
        T(test_request_id),
        T(test_reply_later),
        T(test_stream),
        T(test_stream_breaks),
        T(test_client_leaves),
        T(test_client_leaves_a_stream),
        T(test_nobody_cares_that_it_left),
        T(test_slow_reader_is_waited_for),
        T(test_careless_writer_is_cut),
        T(test_malformed),
        T(test_header_limit),
        T(test_destroy_with_open_requests),
        T(test_address_in_use),
    };
    int failed;

    curl_global_init(CURL_GLOBAL_DEFAULT);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    curl_global_cleanup();
    return failed;
}
