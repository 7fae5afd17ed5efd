/* script.h - a Conductor that does what the test says: real frames over loopback, one thread, no policy.
 *
 * Tests start workers (objects of the library, or processes), give them runs and wait for what comes back. Every wait has a
 * limit and fails the test when it passes. */
#ifndef TESTS_WORKER_SCRIPT_H
#define TESTS_WORKER_SCRIPT_H

#include "worker/proto.h"

enum { SCRIPT_WORKERS_MAX = 8, SCRIPT_TOKENS_MAX = 4096 };

struct script;

struct script *script_start(void);
void script_stop(struct script *script);
const char *script_address(const struct script *script); /* lent */

/* Index of the n-th worker that registered (they stay numbered when their connection goes). Waits. */
void script_wait_workers(struct script *script, unsigned count);
unsigned script_find(struct script *script, const char *name); /* waits for it */
const struct wmsg_register *script_card(struct script *script, unsigned worker);
void script_status(struct script *script, unsigned worker, struct wmsg_status *status); /* the last one */
bool script_connected(struct script *script, unsigned worker);
bool script_drained(struct script *script, unsigned worker); /* it said W_DRAIN */
void script_refuse(struct script *script, bool refuse);      /* refuse registrations from now on */

/* What comes back of a run. The test owns it; it must outlive the run. */
struct answer {
    uint32_t tokens[SCRIPT_TOKENS_MAX];
    uint64_t times_ns[SCRIPT_TOKENS_MAX]; /* arrival here */
    uint32_t first, count;                /* index of the first token, how many came */
    bool ended;                           /* the last one was an end token (not counted) */
    bool gap;                             /* an index came twice or was left out */
    bool done, lost;                      /* last frame came; connection went first */
    enum mc_status status;
    struct wmsg_finish finish;
    uint32_t loaded_events, progress_events;
    uint64_t first_us; /* when the worker picked the first token, since the run arrived there */
    uint64_t begun_ns, done_ns;
    uint64_t request;
    unsigned worker;
    struct script *script;
};

void script_run(struct script *script, unsigned worker, const struct wmsg_run *run, struct answer *answer);
void answer_wait(struct answer *answer);                        /* done or lost */
void answer_wait_tokens(struct answer *answer, uint32_t count); /* or done, or lost */
void answer_wait_progress(struct answer *answer);               /* its prompt is being computed; or done, or lost */
bool answer_over(struct answer *answer);                        /* is it done or lost by now */
void script_cancel(struct answer *answer);
void script_release(struct answer *answer);
void script_cut(struct script *script, unsigned worker); /* abort the connection */
void script_drain(struct script *script, unsigned worker);

/* Tokens of a text, through the worker. *tokens is given (free). */
enum mc_status script_tokenize(
    struct script *script, unsigned worker, const struct wmsg_tokenize *msg, uint32_t **tokens, uint32_t *count);

#endif
