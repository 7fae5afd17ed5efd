/* fixture.c - a Conductor with clients, and streams taken apart. */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/clock.h"

struct conductor *conductor;

void start_conductor(void (*change)(struct conductor_opts *opts))
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

static void let_askers_go(void);

int stop_conductor(void **state)
{
    conductor_destroy(conductor);
    conductor = NULL;
    let_askers_go();
    return 0;
}

struct fake_worker *start_worker(const struct fake_script *script)
{
    bool accepted;
    char why[WMSG_TEXT_MAX + 1];
    struct fake_worker *worker = fake_worker_start(conductor_fleet_address(conductor), script, &accepted, why);

    if (!accepted)
        fail_msg("refused: %s", why);
    return worker;
}

struct fake_script good(const char *name, uint32_t answer_tokens)
{
    return (struct fake_script){.name = name,
        .role = WMSG_ROLE_BOTH,
        .answer_tokens = answer_tokens,
        .die_at = -1,
        .silent_at = -1,
        .hole_at = -1};
}

struct http_answer post(const char *body)
{
    return http_ask(conductor_http_address(conductor), "/v1/chat/completions", body, NULL, 0);
}

struct http_answer get(const char *path)
{
    return http_ask(conductor_http_address(conductor), path, NULL, NULL, 0);
}

static const char *body_of(const char *content, const char *more)
{
    static char body[8192];

    snprintf(body, sizeof body, "{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]%s}", content,
        more);
    return body;
}

const char *chat(const char *more)
{
    return body_of("hello", more);
}

const char *chat_saying(const char *content)
{
    return body_of(content, "");
}

/* --- streams taken apart --- */

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

void stream_parse(const char *body, struct stream *stream)
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

void stream_fini(struct stream *stream)
{
    json_decref(stream->mooncake);
    json_decref(stream->usage);
}

void assert_words(const char *text, unsigned count)
{
    char expected[65536] = "";

    for (unsigned i = 0; i < count; i++)
        snprintf(expected + strlen(expected), 16, " w%u", i);
    assert_string_equal(text, expected);
}

void assert_streams_whole(unsigned count)
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

json_t *at(const struct http_answer *answer, const char *path)
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

void assert_error(struct http_answer answer, long code, const char *param, const char *part)
{
    assert_int_equal(answer.code, code);
    assert_non_null(at(&answer, "error.type"));
    if (param)
        assert_string_equal(json_string_value(at(&answer, "error.param")), param);
    if (!strstr(json_string_value(at(&answer, "error.message")), part))
        fail_msg("'%s' is not in: %s", part, answer.body);
    http_answer_free(&answer);
}

/* --- clients that ask beside us --- */

/* Here and not in the frames of the tests: a test that fails leaves its frame while they still ask. */
static struct asker askers[4];

static void *asker_main(void *arg)
{
    struct asker *asker = arg;

    asker->answer = http_ask(conductor_http_address(conductor), "/v1/chat/completions", asker->body, asker->header, 0);
    return NULL;
}

struct asker *asker_start(const char *header, const char *body)
{
    struct asker *asker = askers;

    while (asker->body)
        asker++;
    assert_true(asker < askers + sizeof askers / sizeof askers[0]);
    asker->header = header;
    asker->body = strdup(body); /* chat() has one buffer for all */
    assert_int_equal(pthread_create(&asker->thread, NULL, asker_main, asker), 0);
    return asker;
}

struct http_answer asker_wait(struct asker *asker)
{
    pthread_join(asker->thread, NULL);
    free(asker->body);
    asker->body = NULL;
    return asker->answer;
}

long asker_join(struct asker *asker)
{
    struct http_answer answer = asker_wait(asker);
    long code = answer.code;

    http_answer_free(&answer);
    return code;
}

static void let_askers_go(void)
{
    for (struct asker *asker = askers; asker < askers + sizeof askers / sizeof askers[0]; asker++)
        if (asker->body)
            (void)asker_join(asker);
}

bool comes(const atomic_uint *count, unsigned value)
{
    uint64_t until = now_ns() + 30 * NS_PER_S;

    while (*count < value && now_ns() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return *count >= value;
}

bool status_comes(const char *path, json_int_t value)
{
    uint64_t until = now_ns() + 30 * NS_PER_S;
    bool is = false;

    while (!is && now_ns() < until) {
        struct http_answer status = get("/v1/status");

        is = status.code == 200 && json_integer_value(at(&status, path)) == value;
        if (!is && now_ns() >= until)
            print_message("%s is not %lld: %s\n", path, (long long)value, status.body);
        http_answer_free(&status);
    }
    return is;
}
