/* fixture.h - a Conductor of the test's own, scripted workers behind it (fake_worker.h), clients in front of it, and what they got taken
 * apart. What does not hold fails the test in here. */
#ifndef TESTS_CONDUCTOR_FIXTURE_H
#define TESTS_CONDUCTOR_FIXTURE_H

#include <jansson.h>
#include <pthread.h>

#include "conductor/conductor.h"
#include "fake_worker.h"
#include "http_client.h"

extern struct conductor *conductor;

/* On free ports. `change` (may be NULL) changes the options before. */
void start_conductor(void (*change)(struct conductor_opts *opts));
int stop_conductor(void **state); /* a teardown of cmocka */

/* A script of a worker that behaves; and one that runs, accepted by the Conductor. */
struct fake_script good(const char *name, uint32_t answer_tokens);
struct fake_worker *start_worker(const struct fake_script *script);

/* A chat request with these members added, or with this prompt, a token per byte; the next call of either overwrites it. */
const char *chat(const char *more);
const char *chat_saying(const char *content);
struct http_answer post(const char *body); /* to /v1/chat/completions */
struct http_answer get(const char *path);

/* --- answers --- */

struct stream {
    char text[65536];
    char finish[32];
    char error[256];
    unsigned chunks;
    bool done;
    json_t *mooncake, *usage; /* of the last chunk that had one */
};
void stream_parse(const char *body, struct stream *stream);
void stream_fini(struct stream *stream);

/* " w0 w1 w2", as a worker without pieces says it. */
void assert_words(const char *text, unsigned count);
/* Ask for a stream and check that all of `count` words came, once each. */
void assert_streams_whole(unsigned count);

/* "choices.0.text" of a body; lent until the next call. NULL: it is not there. */
json_t *at(const struct http_answer *answer, const char *path);
/* Takes the answer apart and frees it. `param` NULL: whatever it is. `part` is in the message. */
void assert_error(struct http_answer answer, long code, const char *param, const char *part);

/* --- clients that ask beside us --- */

struct asker {
    pthread_t thread;
    struct http_answer answer;
    char *body;         /* NULL: nobody asks here */
    const char *header; /* may be NULL */
};
struct asker *asker_start(const char *header, const char *body);
struct http_answer asker_wait(struct asker *asker); /* the answer is the caller's */
long asker_join(struct asker *asker);               /* wait, and return the answer's code alone */

/* Wait until a count is what it must become, or /v1/status has this number at this place; the bound is for what never comes. */
bool comes(const atomic_uint *count, unsigned value);
bool status_comes(const char *path, json_int_t value);

#endif
