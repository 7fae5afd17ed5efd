/* failures_test.c - workers and clients that fail, before a Conductor with scripted workers (fake_worker.h).
 *
 * Goal: whatever a worker does - dies, falls silent, repeats, leaves out, refuses - the client gets the whole text once, or an error it can
 * tell from an answer, in bounded time; and whatever a client does - leaves, reads slowly, does not read - costs bounded memory and
 * holds up nobody. */
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

#include "fixture.h"
#include "mooncake/engine.h"

/* The worker that has the stream dies before each token in turn; another one goes on. It has the stream for sure: the other one
 * comes when it has been taken there. */
static void a_death_is_not_seen_in_the_stream(void **state)
{
    start_conductor(NULL);
    for (int die_at = 0; die_at < 8; die_at++) {
        struct fake_script bad = good("bad", 8), ok = good("ok", 8);
        struct fake_worker *dying, *healthy;
        struct asker *asker;
        struct http_answer answer;
        struct stream stream;

        bad.die_at = die_at;
        bad.mute = true;
        bad.pace_ms = ok.pace_ms = 1;
        dying = start_worker(&bad);
        asker = asker_start(NULL, chat(",\"stream\":true"));
        assert_true(comes(&fake_worker_counts(dying)->runs, 1));
        healthy = start_worker(&ok);
        fake_worker_speak(dying);
        answer = asker_wait(asker);
        stream_parse(answer.body, &stream);
        assert_string_equal(stream.error, "");
        assert_words(stream.text, 8);
        assert_int_equal(json_integer_value(json_object_get(stream.mooncake, "moves")), 1);
        assert_int_equal(fake_worker_counts(healthy)->last_answer_count, die_at);
        stream_fini(&stream);
        http_answer_free(&answer);
        fake_worker_stop(dying);
        fake_worker_stop(healthy);
    }
}

/* Soon: by the pings, about a second, not by the patience of a minute that a run has. */
static void silence_is_left_soon(void **state)
{
    struct fake_script bad = good("bad", 8), ok = good("ok", 8);
    struct fake_worker *silent, *healthy;
    struct asker *asker;
    struct http_answer answer;
    struct stream stream;

    bad.silent_at = 3;
    bad.mute = true;
    start_conductor(NULL);
    silent = start_worker(&bad);
    asker = asker_start(NULL, chat(",\"stream\":true"));
    assert_true(comes(&fake_worker_counts(silent)->runs, 1));
    healthy = start_worker(&ok);
    fake_worker_speak(silent);
    answer = asker_wait(asker);
    stream_parse(answer.body, &stream);
    assert_string_equal(stream.error, "");
    assert_words(stream.text, 8);
    print_message("a silent worker was left within %.2f s\n", answer.seconds);
    assert_true(answer.seconds < 15);
    assert_int_equal(fake_worker_counts(healthy)->continued, 1);
    assert_int_equal(fake_worker_counts(healthy)->last_answer_count, 3);
    stream_fini(&stream);
    http_answer_free(&answer);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_death_is_not_seen_in_the_stream, stop_conductor),
        cmocka_unit_test_teardown(silence_is_left_soon, stop_conductor),
        cmocka_unit_test_teardown(repetitions_are_dropped_and_holes_are_left, stop_conductor),
        cmocka_unit_test_teardown(refusing_workers_are_passed_by, stop_conductor),
        cmocka_unit_test_teardown(nobody_left_is_said_within_a_second, stop_conductor),
        cmocka_unit_test_teardown(a_client_that_leaves_is_cancelled, stop_conductor),
        cmocka_unit_test_teardown(a_slow_reader_gets_everything, stop_conductor),
        cmocka_unit_test_teardown(a_reader_that_stops_is_cut, stop_conductor),
    };

    return cmocka_run_group_tests_name("failures", tests, NULL, NULL);
}
