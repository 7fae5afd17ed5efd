/* request.h - the life of one request, as one state machine.
 *
 *     NEW -> TOKENISING -> LOOKUP -> QUEUED -> PREFILL -> QUEUED -> DECODE -> (STOPPING) -> (FLUSHING) -> DONE
 *                 \___________________/ \________________________/                                   ^
 *              (prompt came as tokens)     (direct and single routes)     from everywhere: answered, refused, left
 *
 * QUEUED is passed through, not only waited in: every placement goes through the queue, whose order is the policy's. When a
 * worker fails, the request returns to QUEUED with all tokens it has sent, and goes on where the scheduler says.
 *
 * Ownership: a request owns its parsed body, tokens and text; the HTTP request is its until it has been answered.
 * Threads: the loop's only. */
#ifndef CONDUCTOR_REQUEST_H
#define CONDUCTOR_REQUEST_H

#include "conductor/conductor_impl.h"
#include "conductor/http/parse.h"
#include "conductor/prefix.h"

enum request_state {
    REQ_NEW,        /* parsed, nothing asked yet */
    REQ_TOKENISING, /* a worker turns the prompt into tokens */
    REQ_LOOKUP,     /* the Store looks for the longest prefix it has */
    REQ_QUEUED,     /* to be placed: as soon as somebody has room, or (nobody there) comes */
    REQ_PREFILL,    /* a worker computes the prompt and sends the first token */
    REQ_DECODE,     /* a worker generates the answer (direct and single: computes the prompt, too) */
    REQ_STOPPING,   /* the answer is complete (stop string); we wait for the worker's account, not for long */
    REQ_FLUSHING,   /* everything is known; a slow client has not taken all of it yet */
    REQ_DONE,       /* answered, refused or abandoned: nothing refers to it any more */
    REQ_STATES
};
const char *request_state_str(enum request_state state);

enum { REQUEST_GAPS_MAX = 512 };

/* What the workers said it took. */
struct request_account {
    uint32_t reused_tokens, computed_tokens, replayed_tokens;
    uint64_t queue_us, load_us, prefill_us, first_us;
    char miss[32];
};

struct request {
    struct list link;   /* conductor->requests */
    struct list queued; /* conductor->queue */
    struct conductor *conductor;
    struct record_line *record; /* NULL: nothing is recorded, or this one is written already */
    struct http_req *http;
    struct api_request api;
    enum request_state state;
    struct fleet_model *model; /* models are never forgotten while the fleet lives */
    uint8_t trace[TRACE_SIZE];
    char id[EXPLAIN_ID_MAX + 1];
    uint64_t created_s;
    uint64_t deadline_ns;
    struct loop_timer timer; /* of the state */

    uint32_t *tokens; /* prompt, then the answer so far */
    uint32_t prompt_count, answer_count, token_max;
    uint32_t answer_max;
    struct mc_text *text; /* what may be sent of the answer */

    struct prefix_query *prefix;
    bool store_up;
    uint64_t prefix_ns; /* when it was answered */
    uint32_t prefix_blocks;
    uint32_t node_blocks[FLEET_NODES_MAX];

    struct fleet_call call; /* the one thing asked at a time */
    uint64_t worker_serial; /* of whom it was asked */
    struct fleet_tried tried;
    unsigned moves;                           /* how often it had to go elsewhere */
    uint64_t nobody_ns;                       /* since when nobody is there for it; 0: somebody is */
    uint64_t queued_ns;                       /* since when it waits; 0: it does not */
    uint64_t queued_pass;                     /* in which pass of the queue it began to */
    double retry_after_ms;                    /* what it would be told if it were refused now */
    uint64_t pass;                            /* through the queue, in which its turn was last */
    double work_ms;                           /* for its rank there (mc_sched_waiting) */
    struct mc_sched_decision decision;        /* the first that ran */
    uint64_t explain;                         /* number of its row */
    uint64_t prefill_serial, prefill_request; /* whose pin is to be released; 0: none */
    char prefill_name[WMSG_NAME_MAX + 1], decode_name[WMSG_NAME_MAX + 1];

    bool streaming;            /* the stream has begun */
    bool holding;              /* the client is slow: text is gathered until on_drain */
    struct buf pending;        /* text on its way into chunks, bounded */
    const char *finish_reason; /* NULL: not finished */
    struct request_account account;
    uint64_t started_ns, placed_ns, first_ns, last_ns;
    double predicted_ms;                /* TTFT since arrival, as predicted when placed */
    uint32_t gaps_us[REQUEST_GAPS_MAX]; /* between tokens, the last ones */
    uint32_t gap_count;
};

/* Take over a parsed body (given in any case) and answer `http` in due time, also with a refusal at once. */
void request_begin(struct conductor *conductor, struct http_req *http, struct api_request *api);

/* Its turn in the queue: place it if it can be placed now. */
enum request_turn {
    TURN_TAKEN,     /* placed, or answered (then gone), or it waits for something that keeps nobody else waiting */
    TURN_HELD,      /* it waits, and so should those of its model behind it */
    TURN_PASSED_ON, /* it waits for one worker while others are free */
};
enum request_turn request_place(struct request *request);

/* It stays in the queue, unless it has been there for too long. Gone. */
void request_wait(struct request *request, double retry_after_ms);

/* What its prompt costs the quickest worker. */
double request_work_ms(const struct request *request);

/* End it because the house closes: the client is cut, workers are told. */
void request_abandon(struct request *request);

/* Median of the gaps between tokens, in ms; 0 with less than two tokens. */
double request_tbt_p50_ms(const struct request *request);

#endif
