/* fake_worker.h - a scripted worker: the real protocol over a real connection, and an answer known in advance.
 *
 * Token k of an answer is 1000 + k and its text is given by the script, so what a client receives can be compared byte for byte
 * whoever sent which part. The script says when the worker dies, falls silent, lies, or holds back.
 * Threads: start and stop from the test's thread; what is counted may be read at any time. */
#ifndef TESTS_CONDUCTOR_FAKE_WORKER_H
#define TESTS_CONDUCTOR_FAKE_WORKER_H

#include <stdatomic.h>

#include "worker/proto.h"

enum { FAKE_TOKEN_BASE = 1000, FAKE_PROMPT_MAX = 8192 /* tokens; one per byte */ };

struct fake_script {
    const char *name;
    enum wmsg_role role;
    uint32_t answer_tokens;      /* then the end token */
    const char *const *pieces;   /* texts of tokens in turn, ended by NULL; NULL: " w<k>" */
    uint32_t pace_ms;            /* between tokens; 0: all at once */
    int die_at;                  /* connection cut before the token of this index; -1: never */
    int silent_at;               /* falls silent before this token, also for pings; -1: never */
    int hole_at;                 /* leaves this token out; -1: never */
    bool repeat;                 /* sends every token twice */
    bool refuse_runs;            /* every run ends with MC_ESYS */
    bool mute;                   /* takes runs and does not answer them until it is told to speak, but pings */
    uint32_t sequences_max;      /* 0: 16 */
    uint32_t context_tokens;     /* 0: 4096 */
    double prefill_ms_per_token; /* what it says of its speed; 0: 1 */
    uint32_t rope_base;          /* of its fingerprint record; 0: 10000 */
};

struct fake_worker;

/* Dial the Conductor and register. Returns once the Conductor has accepted (or refused: *accepted false, `why` filled). */
struct fake_worker *fake_worker_start(
    const char *conductor, const struct fake_script *script, bool *accepted, char why[WMSG_TEXT_MAX + 1]);
void fake_worker_stop(struct fake_worker *worker);

/* A mute one answers from now on, what it has taken before first. */
void fake_worker_speak(struct fake_worker *worker);

struct fake_counts {
    atomic_uint tokenized, runs, cancels, releases, continued; /* continued: runs that came with an answer begun */
    atomic_uint last_kind, last_answer_count, last_max_tokens;
};
const struct fake_counts *fake_worker_counts(const struct fake_worker *worker);

#endif
