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
#include "mooncake/engine.h"
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
    assert_error(post(body), 400, "messages", "4199 tokens, this model's context is 4096");
    assert_error(post(chat(",\"logit_bias\":{\"100000\":1}")), 400, "logit_bias", "logit_bias");
    assert_error(
        http_ask(conductor_http_address(conductor), "/v1/chat/completions", chat(""), "X-Mooncake-Cache: no", 0), 400,
        "X-Mooncake-Cache", "on or off");
    assert_error(
        post("{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]}"), 400, "messages", "empty");
    assert_error(get("/v1/nothing"), 404, NULL, "");
    fake_worker_stop(worker);
}

/* A text that cannot fit whatever its tokens are is refused without troubling a tokenizer. */
static void a_book_is_refused_at_once(void **state)
{
    enum { BYTES = 4 << 20 };
    struct fake_script script = good("w", 5);
    struct fake_worker *worker;
    char *body = malloc(BYTES + 200), *at_text;

    start_conductor(NULL);
    worker = start_worker(&script);
    at_text = body + sprintf(body, "{\"model\":\"fake\",\"prompt\":\"");
    memset(at_text, 'x', BYTES);
    strcpy(at_text + BYTES, "\"}");
    assert_error(http_ask(conductor_http_address(conductor), "/v1/completions", body, NULL, 0), 400, "prompt",
        "at least 16384 tokens, this model's context is 4096");
    assert_int_equal(fake_worker_counts(worker)->tokenized, 0);
    free(body);
    fake_worker_stop(worker);
}

/* Of a refusal; 0: it does not say when to come back. */
static unsigned retry_after_s(const struct http_answer *answer)
{
    const char *at = strcasestr(answer->headers, "retry-after: ");

    return at ? (unsigned)atoi(at + strlen("retry-after: ")) : 0;
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
    assert_in_range(retry_after_s(&answer), 5, 30); /* what is missing now, waiting so far included */
    assert_error(answer, 429, NULL, "predicted TTFT");
    assert_int_equal(fake_worker_counts(worker)->runs, 0);
    fake_worker_stop(worker);
}

/* Threads that ask at the same time. */
struct asker {
    pthread_t thread;
    struct http_answer answer;
    char *body;
    const char *header;
};

static void *asker_main(void *arg)
{
    struct asker *asker = arg;

    asker->answer = http_ask(conductor_http_address(conductor), "/v1/chat/completions", asker->body, asker->header, 0);
    return NULL;
}

static void asker_start(struct asker *asker, const char *body)
{
    asker->body = strdup(body); /* chat() has one buffer for all */
    pthread_create(&asker->thread, NULL, asker_main, asker);
}

static void asker_wait(struct asker *asker)
{
    pthread_join(asker->thread, NULL);
    free(asker->body);
}

/* Wait for the answer, and return its code alone. */
static long asker_join(struct asker *asker)
{
    long code;

    asker_wait(asker);
    code = asker->answer.code;
    http_answer_free(&asker->answer);
    return code;
}

/* Until a count is what it must become; the bound is for what never comes. */
static bool comes(const atomic_uint *count, unsigned value)
{
    uint64_t until = now_ns() + 30 * NS_PER_S;

    while (*count < value && now_ns() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return *count >= value;
}

/* Until /v1/status has this number at this place. */
static bool status_comes(const char *path, json_int_t value)
{
    uint64_t until = now_ns() + 30 * NS_PER_S;
    bool is = false;

    while (!is && now_ns() < until) {
        struct http_answer status = get("/v1/status");

        is = status.code == 200 && json_integer_value(at(&status, path)) == value;
        http_answer_free(&status);
    }
    return is;
}

static void refuses_too_many(void **state)
{
    struct fake_script script = good("w", 20);
    struct fake_worker *worker;
    struct asker askers[2] = {0};
    struct http_answer answer;

    script.mute = true; /* so the two stay open */
    start_conductor(small_limits);
    worker = start_worker(&script);
    for (int i = 0; i < 2; i++)
        asker_start(&askers[i], chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 2));
    answer = post(chat(""));
    assert_int_equal(retry_after_s(&answer), 1);
    assert_error(answer, 429, NULL, "2 are open");
    fake_worker_speak(worker);
    for (int i = 0; i < 2; i++)
        assert_int_equal(asker_join(&askers[i]), 200);
    assert_streams_whole(20); /* and there is room again */
    fake_worker_stop(worker);
}

static void short_queue(struct conductor_opts *opts)
{
    opts->queue_max = 2;
}

/* One sequence at a time: two wait their turn, and whoever comes then is refused. */
static void queues_and_refuses(void **state)
{
    struct fake_script script = good("w", 10);
    struct fake_worker *worker;
    struct asker askers[3] = {{.header = "X-Request-Id: runs"}, {.header = "X-Request-Id: waits"}};
    struct http_answer answer;

    script.sequences_max = 1;
    script.mute = true;
    start_conductor(short_queue);
    worker = start_worker(&script);
    asker_start(&askers[0], chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    asker_start(&askers[1], chat(""));
    assert_true(status_comes("requests.queued", 1));
    asker_start(&askers[2], chat(""));
    assert_true(status_comes("requests.queued", 2));
    answer = post(chat(""));
    assert_in_range(retry_after_s(&answer), 1, 30);
    assert_error(answer, 429, NULL, "the queue is full");
    answer = get("/v1/requests/waits/explain"); /* it can be asked why, while it waits */
    assert_string_equal(json_string_value(at(&answer, "decisions.0.decision.outcome")), "hold");
    assert_string_equal(json_string_value(at(&answer, "decisions.0.candidates.1.skipped")), "full");
    http_answer_free(&answer);
    fake_worker_speak(worker);
    for (int i = 0; i < 3; i++)
        assert_int_equal(asker_join(&askers[i]), 200);
    assert_int_equal(fake_worker_counts(worker)->runs, 3);
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

/* The worker that has the stream dies before each token in turn; another one goes on. It has the stream for sure: the other one
 * comes when it has been taken there. */
static void a_death_is_not_seen_in_the_stream(void **state)
{
    start_conductor(NULL);
    for (int die_at = 0; die_at < 8; die_at++) {
        struct fake_script bad = good("bad", 8), ok = good("ok", 8);
        struct fake_worker *dying, *healthy;
        struct asker asker = {0};
        struct stream stream;

        bad.die_at = die_at;
        bad.mute = true;
        bad.pace_ms = ok.pace_ms = 1;
        dying = start_worker(&bad);
        asker_start(&asker, chat(",\"stream\":true"));
        assert_true(comes(&fake_worker_counts(dying)->runs, 1));
        healthy = start_worker(&ok);
        fake_worker_speak(dying);
        asker_wait(&asker);
        stream_parse(asker.answer.body, &stream);
        assert_string_equal(stream.error, "");
        assert_words(stream.text, 8);
        assert_int_equal(json_integer_value(json_object_get(stream.mooncake, "moves")), 1);
        assert_int_equal(fake_worker_counts(healthy)->last_answer_count, die_at);
        stream_fini(&stream);
        http_answer_free(&asker.answer);
        fake_worker_stop(dying);
        fake_worker_stop(healthy);
    }
}

/* Soon: by the pings, about a second, not by the patience of a minute that a run has. */
static void silence_is_left_soon(void **state)
{
    struct fake_script bad = good("bad", 8), ok = good("ok", 8);
    struct fake_worker *silent, *healthy;
    struct asker asker = {0};
    struct stream stream;

    bad.silent_at = 3;
    bad.mute = true;
    start_conductor(NULL);
    silent = start_worker(&bad);
    asker_start(&asker, chat(",\"stream\":true"));
    assert_true(comes(&fake_worker_counts(silent)->runs, 1));
    healthy = start_worker(&ok);
    fake_worker_speak(silent);
    asker_wait(&asker);
    stream_parse(asker.answer.body, &stream);
    assert_string_equal(stream.error, "");
    assert_words(stream.text, 8);
    print_message("a silent worker was left within %.2f s\n", asker.answer.seconds);
    assert_true(asker.answer.seconds < 15);
    assert_int_equal(fake_worker_counts(healthy)->continued, 1);
    assert_int_equal(fake_worker_counts(healthy)->last_answer_count, 3);
    stream_fini(&stream);
    http_answer_free(&asker.answer);
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
    for (int i = 0; i < 1000 && fake_worker_counts(a)->runs == 0;
         i++) /* each is the first choice as often as the other */
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
    double best = 1e9;

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
    for (int i = 0; i < 10; i++) { /* not begun: a status. The best of some, as the machine may be busy with others */
        answer = post(chat(",\"stream\":true"));
        best = answer.seconds < best ? answer.seconds : best;
        assert_error(answer, 503, NULL, "no worker");
        if (best < 1)
            break;
    }
    print_message("503 within %.3f s\n", best);
    assert_true(best < 1);
    fake_worker_stop(worker);
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
    assert_true(comes(&fake_worker_counts(worker)->cancels, 1));
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
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    assert_true(status_comes("workers.0.running", 0)); /* the worker is done with it, and somebody else is served */
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

/* One who never reads is not waited for without end: when more text has gathered than REQUEST_PENDING_MAX (and the stream's buffer is
 * full), it is cut, its worker is told to stop, and what it finds in its socket is not a whole answer. */
static void a_reader_that_stops_is_cut(void **state)
{
    static char piece[MC_PIECE_SIZE_MAX];
    const char *const pieces[] = {memset(piece, 'x', sizeof piece - 1), NULL};
    struct fake_script script = good("w", 1000000);
    struct fake_worker *worker;
    struct http_answer metrics;
    char *answer = calloc(1, 64 << 20);
    size_t have = 0;
    ssize_t got;
    int fd;

    script.context_tokens = 100000;
    script.pieces = pieces;
    start_conductor(NULL);
    worker = start_worker(&script);
    fd = connect_and_ask(chat(",\"stream\":true,\"max_tokens\":60000")); /* 15 MB of text */
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    assert_true(status_comes("requests.open", 0));
    while ((got = read(fd, answer + have, (64 << 20) - 1 - have)) > 0)
        have += (size_t)got;
    close(fd);
    assert_non_null(strstr(answer, "xxx"));
    assert_null(strstr(answer, "[DONE]"));
    assert_true(have < 12 << 20); /* of more than 25 MB; the kernel's buffers included */
    metrics = get("/metrics");
    assert_non_null(strstr(metrics.body, "mooncake_requests_total{outcome=\"cancelled\"} 1"));
    http_answer_free(&metrics);
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
    struct asker asker = {0};

    script.pace_ms = 10;
    start_conductor(NULL);
    worker = start_worker(&script);
    asker_start(&asker, chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    assert_int_equal(conductor_drain(conductor, 30000), MC_OK);
    assert_int_equal(asker_join(&asker), 200);
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
        cmocka_unit_test_teardown(a_book_is_refused_at_once, teardown),
        cmocka_unit_test_teardown(refuses_what_breaks_the_slo, teardown),
        cmocka_unit_test_teardown(refuses_too_many, teardown),
        cmocka_unit_test_teardown(queues_and_refuses, teardown),
        cmocka_unit_test_teardown(refuses_another_record, teardown),
        cmocka_unit_test_teardown(a_death_is_not_seen_in_the_stream, teardown),
        cmocka_unit_test_teardown(silence_is_left_soon, teardown),
        cmocka_unit_test_teardown(repetitions_are_dropped_and_holes_are_left, teardown),
        cmocka_unit_test_teardown(refusing_workers_are_passed_by, teardown),
        cmocka_unit_test_teardown(nobody_left_is_said_within_a_second, teardown),
        cmocka_unit_test_teardown(a_client_that_leaves_is_cancelled, teardown),
        cmocka_unit_test_teardown(a_slow_reader_gets_everything, teardown),
        cmocka_unit_test_teardown(a_reader_that_stops_is_cut, teardown),
        cmocka_unit_test_teardown(shows_itself, teardown),
        cmocka_unit_test_teardown(drains, teardown),
        cmocka_unit_test_teardown(names_bad_options, teardown),
    };

    return cmocka_run_group_tests_name("conductor", tests, NULL, NULL);
}
