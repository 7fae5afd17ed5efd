/* request_impl.h - shared by request.c (states, time, the end), prompt.c (tokens and prefix), queue.c (whose turn it is), place.c
 * (scheduling) and answer.c (tokens to text). Marked with "gone": the request may be gone afterwards. */
#ifndef CONDUCTOR_REQUEST_IMPL_H
#define CONDUCTOR_REQUEST_IMPL_H

#include "conductor/request.h"

enum {
    REQUEST_SILENT_MS = 5000, /* what a suspect worker without a stand-in was asked for is given up after so long */
    REQUEST_PENDING_MAX = 4 << 20, /* bytes of text that wait for a slow client; then it is cut */
};

/* --- request.c --- */

/* The one function that moves between states. */
void request_move(struct request *request, enum request_state next);

uint64_t request_now(const struct request *request);

/* Its timer fires so much later, but not behind its deadline. */
void request_wake_in(struct request *request, uint64_t ms);

/* Something came of what it waits for: its state may last as long again. */
void request_stays(struct request *request);

/* What the decode worker was to load needs no pin any more. */
void request_release_pins(struct request *request);

/* The HTTP request has been answered or has gone; take everything else apart. Gone. */
void request_end(struct request *request, const char *outcome);

/* Answer with an error: HTTP `code` when nothing was sent yet, else an error event in the stream. Gone. */
void request_fail(struct request *request, int code, const char *err_code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with 400 and the name of the offending field. Gone. */
void request_fail_field(struct request *request, const char *param, const char *err_code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with 429 and Retry-After. Gone. */
void request_refuse(struct request *request, double retry_after_ms, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- prompt.c --- */

/* Ask a worker for the prompt's tokens, or another one than those asked before; nobody is left: 503. Gone. */
void request_tokenise(struct request *request);

/* No tokens yet, for as long as they should take: somebody else is asked, if there is somebody. Gone. */
void request_tokens_late(struct request *request);

/* The client has sent tokens: check and take them, and go on to the prefix. Gone. */
void request_take_tokens(struct request *request);

/* Ids of the prompt's full blocks of so many tokens; given. NULL: there are none, or no memory. */
struct mc_block_id *request_block_ids(const struct request *request, uint32_t block_tokens, uint32_t *count);

/* The Store has not answered about the prefix in time. Gone. */
void request_looked_long_enough(struct request *request);

/* --- queue.c --- */

/* (Back) into the queue, and try at once. Gone. */
void request_queue(struct request *request);

/* --- answer.c --- */

extern const struct fleet_call_ops request_run_ops;

/* Leave this worker and go on elsewhere with what we have. Gone. */
void request_go_elsewhere(struct request *request, const char *why);

/* Nothing more will come from workers. Gone. */
void request_complete(struct request *request);

/* The client cannot be answered any more. Gone. */
void request_cut(struct request *request, const char *why);

#endif
