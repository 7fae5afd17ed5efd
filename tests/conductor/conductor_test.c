/* conductor_test.c - the Conductor as its clients see it: real HTTP on one side, the real worker protocol on the other, scripted workers behind
 * it (fake_worker.h).
 *
 * Goal: answers are those that OpenAI clients expect, refusals say what is wrong and come when they must, and what is going on can be
 * seen. Workers that fail are in failures_test.c, real engines and the Store in cluster_test.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fixture.h"

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

/* A worker does not count a text to its end that is far too long, and is told what is too long. */
static void a_book_is_refused(void **state)
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
        "at least 8192 tokens, this model's context is 4096");
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

static void refuses_too_many(void **state)
{
    struct fake_script script = good("w", 20);
    struct fake_worker *worker;
    struct asker *askers[2];
    struct http_answer answer;

    script.mute = true; /* so the two stay open */
    start_conductor(small_limits);
    worker = start_worker(&script);
    for (int i = 0; i < 2; i++)
        askers[i] = asker_start(NULL, chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 2));
    answer = post(chat(""));
    assert_int_equal(retry_after_s(&answer), 1);
    assert_error(answer, 429, NULL, "2 are open");
    fake_worker_speak(worker);
    for (int i = 0; i < 2; i++)
        assert_int_equal(asker_join(askers[i]), 200);
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
    struct asker *askers[3];
    struct http_answer answer;

    script.sequences_max = 1;
    script.mute = true;
    start_conductor(short_queue);
    worker = start_worker(&script);
    askers[0] = asker_start("X-Request-Id: runs", chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    askers[1] = asker_start("X-Request-Id: waits", chat(""));
    assert_true(status_comes("requests.queued", 1));
    askers[2] = asker_start(NULL, chat(""));
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
        assert_int_equal(asker_join(askers[i]), 200);
    assert_int_equal(fake_worker_counts(worker)->runs, 3);
    fake_worker_stop(worker);
}

/* A long prompt and then a short one wait for the only sequence. Whose run begins first, in ms of wall time: the explanation has it. */
static json_int_t begins_at(const char *path)
{
    struct http_answer answer = get(path);
    json_int_t ms = json_integer_value(at(&answer, "decisions.0.time_ms"));

    assert_string_equal(json_string_value(at(&answer, "decisions.0.decision.outcome")), "run");
    http_answer_free(&answer);
    return ms;
}

static void long_and_short(void (*change)(struct conductor_opts *opts), json_int_t begins[2])
{
    struct fake_script script = good("w", 10);
    struct fake_worker *worker;
    struct asker *askers[3];
    char prompt[3000];

    script.sequences_max = 1;
    script.mute = true;
    script.pace_ms = 5; /* so that one run lasts for some ms */
    start_conductor(change);
    worker = start_worker(&script);
    memset(prompt, 'x', sizeof prompt - 1);
    prompt[sizeof prompt - 1] = '\0';
    askers[0] = asker_start("X-Request-Id: runs", chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    askers[1] = asker_start("X-Request-Id: long", chat_saying(prompt));
    assert_true(status_comes("requests.queued", 1));
    askers[2] = asker_start("X-Request-Id: short", chat(""));
    assert_true(status_comes("requests.queued", 2));
    fake_worker_speak(worker);
    for (int i = 0; i < 3; i++)
        assert_int_equal(asker_join(askers[i]), 200);
    begins[0] = begins_at("/v1/requests/long/explain");
    begins[1] = begins_at("/v1/requests/short/explain");
    fake_worker_stop(worker);
    stop_conductor(NULL);
}

static void as_published(struct conductor_opts *opts)
{
    opts->policy = "global";
}

static void the_policy_says_whose_turn_it_is(void **state)
{
    json_int_t begins[2];

    long_and_short(NULL, begins);
    assert_true(begins[1] < begins[0]);
    long_and_short(as_published, begins); /* first come, first served */
    assert_true(begins[0] < begins[1]);
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
    struct asker *asker;

    script.pace_ms = 10;
    start_conductor(NULL);
    worker = start_worker(&script);
    asker = asker_start(NULL, chat(""));
    assert_true(comes(&fake_worker_counts(worker)->runs, 1));
    assert_int_equal(conductor_drain(conductor, 30000), MC_OK);
    assert_int_equal(asker_join(asker), 200);
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
        cmocka_unit_test_teardown(answers_in_one_body, stop_conductor),
        cmocka_unit_test_teardown(streams_with_usage, stop_conductor),
        cmocka_unit_test_teardown(answers_completions, stop_conductor),
        cmocka_unit_test_teardown(never_splits_utf8, stop_conductor),
        cmocka_unit_test_teardown(never_leaks_stop_strings, stop_conductor),
        cmocka_unit_test_teardown(tell_whats_wrong, stop_conductor),
        cmocka_unit_test_teardown(a_book_is_refused, stop_conductor),
        cmocka_unit_test_teardown(refuses_what_breaks_the_slo, stop_conductor),
        cmocka_unit_test_teardown(refuses_too_many, stop_conductor),
        cmocka_unit_test_teardown(queues_and_refuses, stop_conductor),
        cmocka_unit_test(the_policy_says_whose_turn_it_is),
        cmocka_unit_test_teardown(refuses_another_record, stop_conductor),
        cmocka_unit_test_teardown(shows_itself, stop_conductor),
        cmocka_unit_test_teardown(drains, stop_conductor),
        cmocka_unit_test_teardown(names_bad_options, stop_conductor),
    };

    return cmocka_run_group_tests_name("conductor", tests, NULL, NULL);
}
