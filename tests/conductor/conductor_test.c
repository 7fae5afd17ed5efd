/* conductor_test.c - the Conductor as its clients and workers see it: real HTTP on one side, the real worker protocol on the other,
 * scripted workers behind it (fake_worker.h).
 *
 * Goal: whatever a worker does - dies, falls silent, repeats, leaves out, refuses - the client gets the whole text once, or an error
 * it can tell from an answer, in bounded time. Real engines and the Store are tested in tests/conductor/cluster_test.py. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <cmocka.h>

#include <jansson.h>

#include "base/clock.h"
#include "conductor/conductor.h"
#include "fake_worker.h"
#include "http_client.h"

static struct conductor *conductor;

static void start_conductor(void (*change)(struct conductor_opts *opts))
{
    struct conductor_opts opts;
    char err[256] = "";

    conductor_opts_init(&opts);
    opts.http_listen = opts.fleet_listen = "127.0.0.1:0";
    if (change)
        change(&opts);
    if (conductor_create(&opts, &conductor, err, sizeof err) != MC_OK)
        fail_msg("%s", err);
    assert_int_equal(conductor_start(conductor), MC_OK);
}

static int teardown(void **state)
{
    conductor_destroy(conductor);
    conductor = NULL;
    return 0;
}

static struct fake_worker *start_worker(const struct fake_script *script)
{
    bool accepted;
    char why[WMSG_TEXT_MAX + 1];
    struct fake_worker *worker = fake_worker_start(conductor_fleet_address(conductor), script, &accepted, why);

    if (!accepted)
        fail_msg("refused: %s", why);
    return worker;
}

/* A worker that behaves. */
static struct fake_script good(const char *name, uint32_t answer_tokens)
{
    return (struct fake_script){.name = name,
        .role = WMSG_ROLE_BOTH,
        .answer_tokens = answer_tokens,
        .die_at = -1,
        .silent_at = -1,
        .hole_at = -1};
}

static struct http_answer post(const char *body)
{
    return http_ask(conductor_http_address(conductor), "/v1/chat/completions", body, NULL, 0);
}

static struct http_answer get(const char *path)
{
    return http_ask(conductor_http_address(conductor), path, NULL, NULL, 0);
}

/* A chat request with these members added. */
static const char *chat(const char *more)
{
    static char body[4096];

    snprintf(
        body, sizeof body, "{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]%s}", more);
    return body;
}

/* --- streams taken apart --- */

struct stream {
    char text[65536];
    char finish[32];
    char error[256];
    unsigned chunks;
    bool done;
    json_t *mooncake, *usage; /* of the last chunk that had one */
};

static void take_chunk(struct stream *stream, const char *data)
{
    json_t *chunk = json_loads(data, 0, NULL), *choice, *value;

    if (!chunk)
        fail_msg("chunk is no JSON (UTF-8 split?): %s", data);
    stream->chunks++;
    choice = json_array_get(json_object_get(chunk, "choices"), 0);
    value = json_object_get(json_object_get(choice, "delta"), "content");
    if (value)
        strcat(stream->text, json_string_value(value));
    value = json_object_get(choice, "finish_reason");
    if (json_is_string(value))
        strcpy(stream->finish, json_string_value(value));
    value = json_object_get(json_object_get(chunk, "error"), "message");
    if (value)
        snprintf(stream->error, sizeof stream->error, "%s", json_string_value(value));
    if (json_is_object(json_object_get(chunk, "mooncake")))
        stream->mooncake = json_incref(json_object_get(chunk, "mooncake"));
    if (json_is_object(json_object_get(chunk, "usage")))
        stream->usage = json_incref(json_object_get(chunk, "usage"));
    json_decref(chunk);
}

static void stream_parse(const char *body, struct stream *stream)
{
    char *copy = strdup(body), *rest = copy, *line;

    memset(stream, 0, sizeof *stream);
    while ((line = strsep(&rest, "\n")) != NULL) {
        if (strncmp(line, "data: ", 6) != 0)
            continue;
        if (strcmp(line + 6, "[DONE]") == 0)
            stream->done = true;
        else
            take_chunk(stream, line + 6);
    }
    free(copy);
}

static void stream_fini(struct stream *stream)
{
    json_decref(stream->mooncake);
    json_decref(stream->usage);
}

static void assert_words(const char *text, unsigned count)
{
    char expected[65536] = "";

    for (unsigned i = 0; i < count; i++)
        snprintf(expected + strlen(expected), 16, " w%u", i);
    assert_string_equal(text, expected);
}

/* Ask for a stream and check that all of `count` words came, once each. */
static void assert_streams_whole(unsigned count)
{
    struct http_answer answer = post(chat(",\"stream\":true"));
    struct stream stream;

    assert_int_equal(answer.code, 200);
    assert_false(answer.cut);
    stream_parse(answer.body, &stream);
    assert_string_equal(stream.error, "");
    assert_words(stream.text, count);
    assert_string_equal(stream.finish, "stop");
    assert_true(stream.done);
    assert_non_null(stream.mooncake);
    stream_fini(&stream);
    http_answer_free(&answer);
}

static json_t *at(const struct http_answer *answer, const char *path)
{
    static json_t *root;
    json_t *node;
    char copy[128], *rest = copy, *key;

    json_decref(root);
    node = root = json_loads(answer->body, 0, NULL);
    snprintf(copy, sizeof copy, "%s", path);
    while (node && (key = strsep(&rest, ".")) != NULL)
        node = json_is_array(node) ? json_array_get(node, (size_t)atoi(key)) : json_object_get(node, key);
    return node;
}

static void assert_error(struct http_answer answer, long code, const char *param, const char *part)
{
    assert_int_equal(answer.code, code);
    assert_non_null(at(&answer, "error.type"));
    if (param)
        assert_string_equal(json_string_value(at(&answer, "error.param")), param);
    if (!strstr(json_string_value(at(&answer, "error.message")), part))
        fail_msg("'%s' is not in: %s", part, answer.body);
    http_answer_free(&answer);
}

/* --- answers --- */

static void answers_in_one_body(void **state)
{
    struct fake_script script = good("w", 5);
    struct fake_worker *worker;
    struct http_answer answer;

    start_conductor(NULL);
    worker = start_worker(&script);
    answer = http_ask(conductor_http_address(conductor), "/v1/chat/completions", chat(""), "X-Request-Id: my-id-7", 0);
    assert_int_equal(answer.code, 200);
    assert_words(json_string_value(at(&answer, "choices.0.message.content")), 5);
    assert_string_equal(json_string_value(at(&answer, "choices.0.finish_reason")), "stop");
    assert_int_equal(json_integer_value(at(&answer, "usage.prompt_tokens")), 5);
    assert_int_equal(json_integer_value(at(&answer, "usage.completion_tokens")), 5);
    assert_int_equal(json_integer_value(at(&answer, "usage.total_tokens")), 10);
    assert_int_equal(json_integer_value(at(&answer, "usage.prompt_tokens_details.cached_tokens")), 0);
    assert_string_equal(json_string_value(at(&answer, "mooncake.decode_worker")), "w");
    assert_string_equal(json_string_value(at(&answer, "mooncake.request_id")), "my-id-7");
    assert_true(json_real_value(at(&answer, "mooncake.timing.ttft_ms")) > 0);
    assert_non_null(strstr(answer.headers, "my-id-7"));
    http_answer_free(&answer);

    answer = get("/v1/requests/my-id-7/explain");
    assert_int_equal(answer.code, 200);
    assert_string_equal(json_string_value(at(&answer, "decisions.0.decision.outcome")), "run");
    assert_int_equal(json_array_size(at(&answer, "decisions.0.candidates")), 2);
    assert_true(json_real_value(at(&answer, "decisions.0.actual_ttft_ms")) > 0);
    http_answer_free(&answer);
    assert_error(get("/v1/requests/nobody/explain"), 404, "id", "nobody");
    fake_worker_stop(worker);
}

static void streams_with_usage(void **state)
{
    struct fake_script script = good("w", 5);
    struct fake_worker *worker;
    struct http_answer answer;
    struct stream stream;

    start_conductor(NULL);
    worker = start_worker(&script);
    answer = post(chat(",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":3"));
    stream_parse(answer.body, &stream);
    assert_words(stream.text, 3);
    assert_string_equal(stream.finish, "length");
    assert_int_equal(json_integer_value(json_object_get(stream.usage, "completion_tokens")), 3);
    assert_non_null(stream.mooncake);
    assert_true(stream.done);
    stream_fini(&stream);
    http_answer_free(&answer);
    fake_worker_stop(worker);
}

static void answers_completions(void **state)
{
    struct fake_script script = good("w", 50);
    struct fake_worker *worker;
    struct http_answer answer;

    start_conductor(NULL);
    worker = start_worker(&script);
    answer = http_ask(
        conductor_http_address(conductor), "/v1/completions", "{\"model\":\"fake\",\"prompt\":[1,2,3]}", NULL, 0);
    assert_int_equal(answer.code, 200);
    assert_words(json_string_value(at(&answer, "choices.0.text")), 16);
    assert_int_equal(json_integer_value(at(&answer, "usage.prompt_tokens")), 3);
    http_answer_free(&answer);
    assert_error(http_ask(conductor_http_address(conductor), "/v1/completions",
                     "{\"model\":\"fake\",\"prompt\":[1,100000]}", NULL, 0),
        400, NULL, "100000");
    fake_worker_stop(worker);
}

/* Characters come in pieces of a byte or two; every chunk must be UTF-8 (jansson refuses others). */
static void never_splits_utf8(void **state)
{
    static const char *const pieces[] = {"\xe4", "\xbd\xa0", "\xf0\x9f", "\x98", "\x80", "a", NULL};
    struct fake_script script = good("w", 6);
    struct fake_worker *worker;
    struct http_answer answer;
    struct stream stream;

    script.pieces = pieces;
    start_conductor(NULL);
    worker = start_worker(&script);
    answer = post(chat(",\"stream\":true"));
    stream_parse(answer.body, &stream);
    assert_string_equal(stream.text, "\xe4\xbd\xa0\xf0\x9f\x98\x80"
                                     "a");
    stream_fini(&stream);
    http_answer_free(&answer);
    fake_worker_stop(worker);
}

static void never_leaks_stop_strings(void **state)
{
    static const char *const pieces[] = {"one ", "S", "T", "ay ", "ST", "O", "P no", NULL};
    struct fake_script script = good("w", 1000000);
    struct fake_worker *worker;
    struct http_answer answer;
    struct stream stream;

    script.pieces = pieces;
    script.pace_ms = 2;
    start_conductor(NULL);
    worker = start_worker(&script);
    answer = post(chat(",\"stream\":true,\"stop\":[\"STOP\"],\"max_tokens\":1000"));
    stream_parse(answer.body, &stream);
    assert_string_equal(stream.text, "one STay ");
    assert_string_equal(stream.finish, "stop");
    stream_fini(&stream);
    http_answer_free(&answer);
    assert_int_equal(fake_worker_counts(worker)->cancels, 1);
    fake_worker_stop(worker);
}

/* --- refusals --- */

static void small_limits(struct conductor_opts *opts)
{
    opts->requests_max = 2;
}

static void tell_whats_wrong(void **state)
{
    struct fake_script script = good("w", 5);
    struct fake_worker *worker;
    static char body[8192], text[4200];

    start_conductor(NULL);
    assert_error(post(chat("")), 503, NULL, "no worker");
    script.context_tokens = 4096;
    worker = start_worker(&script);
    assert_error(
        post("{\"model\":\"other\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"), 404, "model", "other");
    assert_error(post(chat(",\"n\":2")), 400, "n", "n");
    assert_error(post("{"), 400, NULL, "");
    memset(text, 'x', sizeof text - 1);
    snprintf(body, sizeof body, "{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}", text);
    assert_error(post(body), 400, NULL, "4199 tokens, this model's context is 4096");
    assert_error(get("/v1/nothing"), 404, NULL, "");
    fake_worker_stop(worker);
}

static void slo(struct conductor_opts *opts)
{
    opts->slo_ttft_ms = 100;
}

static void refuses_what_breaks_the_slo(void **state)
{
    struct fake_script script = good("w", 5);
    struct fake_worker *worker;
    struct http_answer answer;

    script.prefill_ms_per_token = 1000; /* five tokens: five seconds */
    start_conductor(slo);
    worker = start_worker(&script);
    answer = post(chat(""));
    assert_non_null(strcasestr(answer.headers, "retry-after: 5"));
    assert_error(answer, 429, NULL, "predicted TTFT");
    assert_int_equal(fake_worker_counts(worker)->runs, 0);
    fake_worker_stop(worker);
}

/* Threads that ask at the same time. */
struct asker {
    pthread_t thread;
    struct http_answer answer;
    const char *body;
};

static void *asker_main(void *arg)
{
    struct asker *asker = arg;

    asker->answer = post(asker->body);
    return NULL;
}

static void ask_all(struct asker *askers, unsigned count, const char *body)
{
    for (unsigned i = 0; i < count; i++) {
        askers[i].body = body;
        pthread_create(&askers[i].thread, NULL, asker_main, &askers[i]);
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(askers[i].thread, NULL);
}

static void refuses_too_many(void **state)
{
    struct fake_script script = good("w", 20);
    struct fake_worker *worker;
    struct asker askers[6];
    unsigned ok = 0, refused = 0;

    script.pace_ms = 20;
    start_conductor(small_limits);
    worker = start_worker(&script);
    ask_all(askers, 6, strdup(chat("")));
    for (int i = 0; i < 6; i++) {
        ok += askers[i].answer.code == 200;
        refused += askers[i].answer.code == 429 && strcasestr(askers[i].answer.headers, "retry-after: 1") != NULL;
        http_answer_free(&askers[i].answer);
    }
    assert_int_equal(ok + refused, 6);
    assert_in_range(ok, 2, 5);
    free((char *)(uintptr_t)askers[0].body);
    fake_worker_stop(worker);
}

static void short_queue(struct conductor_opts *opts)
{
    opts->queue_max = 2;
}

/* One sequence at a time: two wait their turn, and the others are refused. */
static void queues_and_refuses(void **state)
{
    struct fake_script script = good("w", 10);
    struct fake_worker *worker;
    struct asker askers[6];
    unsigned ok = 0, refused = 0;

    script.sequences_max = 1;
    script.pace_ms = 30;
    start_conductor(short_queue);
    worker = start_worker(&script);
    ask_all(askers, 6, strdup(chat("")));
    for (int i = 0; i < 6; i++) {
        ok += askers[i].answer.code == 200;
        refused += askers[i].answer.code == 429;
        http_answer_free(&askers[i].answer);
    }
    assert_int_equal(ok, 3);
    assert_int_equal(refused, 3);
    free((char *)(uintptr_t)askers[0].body);
    fake_worker_stop(worker);
}

static void refuses_another_record(void **state)
{
    struct fake_script script = good("w", 5), other = good("x", 5);
    struct fake_worker *worker, *refused;
    char why[WMSG_TEXT_MAX + 1];
    bool accepted;

    start_conductor(NULL);
    worker = start_worker(&script);
    other.rope_base = 500000;
    refused = fake_worker_start(conductor_fleet_address(conductor), &other, &accepted, why);
    assert_false(accepted);
    assert_non_null(strstr(why, "rope_base"));
    assert_non_null(strstr(why, "10000"));
    fake_worker_stop(refused);
    fake_worker_stop(worker);
}

/* --- failures --- */

/* The worker that has the stream dies before each token in turn; another one goes on. Which of the two gets the request first
 * does not matter: the one that dies does so whenever it is its turn. */
static void a_death_is_not_seen_in_the_stream(void **state)
{
    start_conductor(NULL);
    for (int die_at = 0; die_at < 8; die_at++) {
        struct fake_script bad = good("bad", 8), ok = good("ok", 8);
        struct fake_worker *dying, *healthy;

        bad.die_at = die_at;
        bad.pace_ms = ok.pace_ms = 1;
        dying = start_worker(&bad);
        healthy = NULL;
        if (die_at % 2) { /* half of the time the other one is there from the start */
            healthy = start_worker(&ok);
            assert_streams_whole(8);
        } else {
            struct asker asker = {.body = strdup(chat(",\"stream\":true"))};
            struct stream stream;

            pthread_create(&asker.thread, NULL, asker_main, &asker);
            healthy = start_worker(&ok);
            pthread_join(asker.thread, NULL);
            stream_parse(asker.answer.body, &stream);
            assert_string_equal(stream.error, "");
            assert_words(stream.text, 8);
            stream_fini(&stream);
            http_answer_free(&asker.answer);
            free((char *)(uintptr_t)asker.body);
        }
        fake_worker_stop(dying);
        fake_worker_stop(healthy);
    }
}

static void silence_is_left_within_two_seconds(void **state)
{
    struct fake_script bad = good("bad", 8), ok = good("ok", 8);
    struct fake_worker *silent, *healthy;
    struct asker asker = {.body = strdup(chat(",\"stream\":true"))};
    struct stream stream;

    bad.silent_at = 3;
    start_conductor(NULL);
    silent = start_worker(&bad);
    pthread_create(&asker.thread, NULL, asker_main, &asker);
    while (fake_worker_counts(silent)->runs == 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    healthy = start_worker(&ok);
    pthread_join(asker.thread, NULL);
    stream_parse(asker.answer.body, &stream);
    assert_string_equal(stream.error, "");
    assert_words(stream.text, 8);
    assert_true(asker.answer.seconds < 2);
    assert_int_equal(fake_worker_counts(healthy)->continued, 1);
    assert_int_equal(fake_worker_counts(healthy)->last_answer_count, 3);
    stream_fini(&stream);
    http_answer_free(&asker.answer);
    free((char *)(uintptr_t)asker.body);
    assert_streams_whole(8); /* and nobody is sent to the silent one */
    fake_worker_stop(silent);
    fake_worker_stop(healthy);
}

static void repetitions_are_dropped_and_holes_are_left(void **state)
{
    struct fake_script repeats = good("repeats", 8), leaves_out = good("leaves-out", 8);
    struct fake_worker *a, *b;

    repeats.repeat = true;
    leaves_out.hole_at = 4;
    start_conductor(NULL);
    a = start_worker(&repeats);
    assert_streams_whole(8);
    b = start_worker(&leaves_out);
    for (int i = 0; i < 6; i++)
        assert_streams_whole(8);
    fake_worker_stop(a);
    fake_worker_stop(b);
}

static void refusing_workers_are_passed_by(void **state)
{
    struct fake_script refuses = good("refuses", 8), ok = good("ok", 8);
    struct fake_worker *a, *b;

    refuses.refuse_runs = true;
    start_conductor(NULL);
    a = start_worker(&refuses);
    b = start_worker(&ok);
    for (int i = 0; i < 6; i++)
        assert_streams_whole(8);
    assert_true(fake_worker_counts(a)->runs > 0);
    fake_worker_stop(b);
    assert_error(post(chat("")), 503, NULL, "failed");
    fake_worker_stop(a);
}

static void nobody_left_is_said_within_a_second(void **state)
{
    struct fake_script script = good("w", 1000);
    struct fake_worker *worker;
    struct http_answer answer;
    struct stream stream;

    start_conductor(NULL);
    script.die_at = 5;
    script.pace_ms = 1;
    worker = start_worker(&script);
    answer = post(chat(",\"stream\":true")); /* begun: an error event */
    assert_int_equal(answer.code, 200);
    stream_parse(answer.body, &stream);
    assert_words(stream.text, 5);
    assert_non_null(strstr(stream.error, "no worker"));
    assert_non_null(strstr(answer.body, "event: error"));
    assert_false(stream.done);
    stream_fini(&stream);
    http_answer_free(&answer);
    answer = post(chat(",\"stream\":true")); /* not begun: a status */
    assert_true(answer.seconds < 1);
    assert_error(answer, 503, NULL, "no worker");
    fake_worker_stop(worker);
}

static bool within_a_second(const atomic_uint *count)
{
    uint64_t until = now_ns() + NS_PER_S;

    while (*count == 0 && now_ns() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return *count > 0;
}

static void a_client_that_leaves_is_cancelled(void **state)
{
    struct fake_script script = good("w", 1000000);
    struct fake_worker *worker;
    struct http_answer answer;

    start_conductor(NULL);
    script.pace_ms = 5;
    worker = start_worker(&script);
    answer = http_ask(conductor_http_address(conductor), "/v1/chat/completions", chat(",\"stream\":true"), NULL, 1000);
    assert_true(answer.cut);
    assert_true(within_a_second(&fake_worker_counts(worker)->cancels));
    http_answer_free(&answer);
    fake_worker_stop(worker);
}

/* A client that asks and then reads nothing for as long as the answer takes: the worker is not held up, what is kept for the client is
 * bounded, and all of it comes when he reads. */
static int connect_and_ask(const char *body)
{
    const char *address = conductor_http_address(conductor);
    struct sockaddr_in to = {.sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(strchr(address, ':') + 1)),
        .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), size = 4096;

    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    dprintf(fd, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
        strlen(body), body);
    return fd;
}

/* The text of a stream, in place: what waits for a slow reader is sent in pieces that may end inside a word. */
static void join_content(char *stream)
{
    static const char key[] = "\"content\":\"";
    char *to = stream;

    for (const char *from = stream; (from = strstr(from, key)) != NULL;)
        for (from += sizeof key - 1; *from && *from != '"';)
            *to++ = *from++;
    *to = 0;
}

static void a_slow_reader_gets_everything(void **state)
{
    enum { WORDS = 60000 };
    struct fake_script script = good("w", 1000000);
    struct fake_worker *worker;
    char *answer = calloc(1, 64 << 20), *at_word = answer;
    size_t have = 0;
    ssize_t got;
    int fd;

    script.context_tokens = 100000;
    start_conductor(NULL);
    worker = start_worker(&script);
    fd = connect_and_ask(chat(",\"stream\":true,\"max_tokens\":60000"));
    for (;;) { /* until the worker is done with it, and somebody else is served */
        struct http_answer status = get("/v1/status");
        bool done = fake_worker_counts(worker)->runs && json_integer_value(at(&status, "workers.0.running")) == 0;

        http_answer_free(&status);
        if (done)
            break;
    }
    while ((got = read(fd, answer + have, (64 << 20) - 1 - have)) > 0)
        have += (size_t)got;
    close(fd);
    assert_non_null(strstr(answer, "data: [DONE]"));
    join_content(answer);
    for (unsigned i = 0; i < WORDS; i += 997) { /* in order, nothing left out on the way */
        char word[16];

        snprintf(word, sizeof word, " w%u", i);
        at_word = strstr(at_word, word);
        if (!at_word)
            fail_msg("no %s in what came", word);
    }
    assert_non_null(strstr(at_word, " w59999"));
    free(answer);
    fake_worker_stop(worker);
}

/* --- looking inside --- */

static void shows_itself(void **state)
{
    struct fake_script script = good("w", 5);
    struct fake_worker *worker;
    struct http_answer answer;

    start_conductor(NULL);
    answer = get("/healthz");
    assert_int_equal(answer.code, 503);
    http_answer_free(&answer);
    worker = start_worker(&script);
    assert_streams_whole(5);
    answer = get("/healthz");
    assert_int_equal(answer.code, 200);
    http_answer_free(&answer);
    answer = get("/v1/models");
    assert_string_equal(json_string_value(at(&answer, "data.0.id")), "fake");
    assert_int_equal(json_integer_value(at(&answer, "data.0.max_model_len")), 4096);
    http_answer_free(&answer);
    answer = get("/v1/models/fake");
    assert_int_equal(answer.code, 200);
    http_answer_free(&answer);
    answer = get("/v1/status");
    assert_string_equal(json_string_value(at(&answer, "workers.0.name")), "w");
    assert_string_equal(json_string_value(at(&answer, "workers.0.state")), "ready");
    assert_int_equal(json_integer_value(at(&answer, "workers.0.running")), 0); /* nothing is left behind */
    assert_string_equal(json_string_value(at(&answer, "store")), "none");
    assert_int_equal(json_integer_value(at(&answer, "requests.open")), 0);
    assert_int_equal(json_array_size(at(&answer, "history")), 1);
    http_answer_free(&answer);
    answer = get("/metrics");
    assert_non_null(strstr(answer.body, "mooncake_requests_total{outcome=\"answered\"} 1"));
    assert_non_null(strstr(answer.body, "mooncake_ttft_ratio_count 1"));
    http_answer_free(&answer);
    answer = get("/");
    assert_non_null(strstr(answer.body, "<title>Mooncake</title>"));
    http_answer_free(&answer);
    fake_worker_stop(worker);
}

static void drains(void **state)
{
    struct fake_script script = good("w", 30);
    struct fake_worker *worker;
    struct asker asker = {.body = strdup(chat(""))};

    script.pace_ms = 10;
    start_conductor(NULL);
    worker = start_worker(&script);
    pthread_create(&asker.thread, NULL, asker_main, &asker);
    assert_true(within_a_second(&fake_worker_counts(worker)->runs));
    assert_int_equal(conductor_drain(conductor, 5000), MC_OK);
    pthread_join(asker.thread, NULL);
    assert_int_equal(asker.answer.code, 200);
    http_answer_free(&asker.answer);
    free((char *)(uintptr_t)asker.body);
    fake_worker_stop(worker);
}

static void names_bad_options(void **state)
{
    struct conductor_opts opts;
    struct conductor *c;
    char err[256] = "";

    conductor_opts_init(&opts);
    opts.http_listen = opts.fleet_listen = "127.0.0.1:0";
    opts.policy = "nonsense";
    assert_int_equal(conductor_create(&opts, &c, err, sizeof err), MC_EINVAL);
    assert_non_null(strstr(err, "policy"));
    opts.policy = NULL;
    opts.http_listen = "127.0.0.1:99999";
    assert_int_equal(conductor_create(&opts, &c, err, sizeof err), MC_EINVAL);
    assert_non_null(strstr(err, "99999"));
    start_conductor(NULL);
    opts.http_listen = conductor_http_address(conductor);
    assert_int_equal(conductor_create(&opts, &c, err, sizeof err), MC_EEXIST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(answers_in_one_body, teardown),
        cmocka_unit_test_teardown(streams_with_usage, teardown),
        cmocka_unit_test_teardown(answers_completions, teardown),
        cmocka_unit_test_teardown(never_splits_utf8, teardown),
        cmocka_unit_test_teardown(never_leaks_stop_strings, teardown),
        cmocka_unit_test_teardown(tell_whats_wrong, teardown),
        cmocka_unit_test_teardown(refuses_what_breaks_the_slo, teardown),
        cmocka_unit_test_teardown(refuses_too_many, teardown),
        cmocka_unit_test_teardown(queues_and_refuses, teardown),
        cmocka_unit_test_teardown(refuses_another_record, teardown),
        cmocka_unit_test_teardown(a_death_is_not_seen_in_the_stream, teardown),
        cmocka_unit_test_teardown(silence_is_left_within_two_seconds, teardown),
        cmocka_unit_test_teardown(repetitions_are_dropped_and_holes_are_left, teardown),
        cmocka_unit_test_teardown(refusing_workers_are_passed_by, teardown),
        cmocka_unit_test_teardown(nobody_left_is_said_within_a_second, teardown),
        cmocka_unit_test_teardown(a_client_that_leaves_is_cancelled, teardown),
        cmocka_unit_test_teardown(a_slow_reader_gets_everything, teardown),
        cmocka_unit_test_teardown(shows_itself, teardown),
        cmocka_unit_test_teardown(drains, teardown),
        cmocka_unit_test_teardown(names_bad_options, teardown),
    };

    return cmocka_run_group_tests_name("conductor", tests, NULL, NULL);
}
