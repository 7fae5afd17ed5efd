/* ask.h - one chat completion over the HTTP API, timed: what chat, demo and bench serve have in common.
 *
 * Threads: any; blocks until the answer is complete. */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

struct ask {
    /* in */
    const char *url;
    const char *model; /* as ask_model() found it */
    json_t *messages;  /* borrowed: [{"role": ..., "content": ...}] */
    int64_t max_tokens;
    double temperature;
    bool no_cache;                                /* compute without reading the cache */
    uint32_t timeout_ms;                          /* without a byte coming */
    void (*on_text)(void *arg, const char *text); /* each piece as it comes; may be NULL */
    void *arg;

    /* out; `text` is given: ask_fini() */
    struct buf text;
    int64_t prompt_tokens, reused_tokens, answer_tokens;
    double ttft_ms;    /* request sent to first text */
    double tbt_ms_p50; /* median between two pieces; 0 with fewer than two */
    char route[32];    /* how it was served */
    /* where the Conductor says the time to the first token went; 0 where it did not say */
    double queue_ms, load_ms, prefill_ms, first_ms;
    char error[256]; /* why it failed */
    int code;        /* enum cli_exit that says so */
};

/* What the Conductor serves first. */
struct ask_model {
    char name[128], engine[64];
    int64_t block_tokens;
    char error[256];
    int code; /* enum cli_exit */
};

/* True: filled. False: `error` and `code` say why (nobody answers, no worker yet). */
bool ask_model(const char *url, uint32_t timeout_ms, struct ask_model *model);

/* True: a whole answer. False: `error` and `code` say why. */
bool ask_run(struct ask *ask);
void ask_fini(struct ask *ask);

/* Median of `count` numbers; sorts them. 0 of none. */
double median(double *values, size_t count);

#endif
