/* proto.h - what Conductor and worker say to each other: message bodies 0x04xx as structs.
 *
 * The worker dials the Conductor (role ROLE_WORKER in its hello) and asks W_REGISTER; from then on both sides send:
 *
 *     worker -> Conductor   W_REGISTER  request        who I am; answered with MC_OK or a refusal with text
 *                           W_STATUS    notice         every 200 ms while something changes, every 1 s while idle
 *                           W_DRAIN     notice         I take nothing new; what runs is finished; then I close
 *     Conductor -> worker   W_TOKENIZE  request        chat messages or text to tokens (answered at once, any load)
 *                           W_RUN       request        prefill, decode or both; answered by a stream of events
 *                           CANCEL      common notice  give the W_RUN of this request id up
 *                           W_RELEASE   notice         blocks that W_RUN made need no pin any more
 *                           W_DRAIN     notice         finish what runs, take nothing new
 *
 * A W_RUN is answered by frames of type W_RUN with FRAME_REPLY: events with FRAME_MORE in order, and exactly one last frame
 * without it (struct wmsg_finish), whose frame status says how it went (MC_OK, MC_ECANCELED, ...), also after CANCEL. The
 * request id of the frame names the run; its trace id stands in the worker's log lines.
 *
 *     Conductor               prefill worker          Store           decode worker
 *        |--- W_RUN prefill ------->|                   |                   |
 *        |<-- WMSG_PROGRESS --------|--- blocks, one by one -->             |
 *        |<-- WMSG_TOKEN (first) ---|                   |                   |
 *        |<-- finish: all stored ---|                   |                   |
 *        |--- W_RUN decode (prompt + first token) ------------------------->|
 *        |                          |                   |<----- blocks -----|
 *        |<-- WMSG_LOADED ------------------------------------------------- |
 *        |--- W_RELEASE ----------->|                                       |
 *        |<-- WMSG_TOKEN ... finish ----------------------------------------|
 *
 * A decode worker dies: send the same W_RUN decode, with all tokens so far, to another one. It loads what is stored,
 * computes the rest of the prompt as one does, replays the answer token by token, and goes on at the next index; sampling
 * is a pure function of (logits, parameters, tokens, index), so the text continues as if nothing had happened.
 *
 * Ownership: encode borrows everything. decode copies arrays and texts into memory of the struct: end with the _fini of
 * its kind (only where there is one); on failure nothing is left to fini.
 * decode: MC_OK, MC_EPROTO with *bad naming the field (static text), MC_ENOSUP (a must-understand field), MC_ENOMEM.
 * Threads: any; nothing here blocks. docs/wire.md has the field tables. */
#ifndef WORKER_PROTO_H
#define WORKER_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"
#include "mooncake/kvcache.h"
#include "mooncake/sampling.h"
#include "mooncake/status.h"
#include "net/frame.h"

enum {
    WMSG_NAME_MAX = 63,            /* bytes of names */
    WMSG_TEXT_MAX = 511,           /* bytes of an error text */
    WMSG_TOKENS_MAX = 1 << 21,     /* tokens of a prompt and its answer: half a frame body */
    WMSG_CHAT_MAX = 4096,          /* messages of a chat */
    WMSG_CHAT_BYTES_MAX = 8 << 20, /* all texts of one W_TOKENIZE */
    WMSG_ROLE_MAX = 31,            /* bytes of a chat role */
};

/* What a worker has measured of itself, in seconds; the scheduler's T_prefill and TBT are made of it.
 *     prefill of n tokens behind c others   prefill_base + n * prefill_token + n * (c + n / 2) * prefill_pair
 *     decode step of s sequences, k tokens of KV in all    decode_base + s * decode_sequence + k * decode_kv
 *     load of b bytes from the Store, import included      load_base + b * load_byte */
struct wmsg_speed {
    double prefill_base, prefill_token, prefill_pair;
    double decode_base, decode_sequence, decode_kv;
    double load_base, load_byte;
    uint32_t prefill_samples, decode_samples, load_samples; /* measurements behind each; 0: a guess */
};

enum wmsg_role { WMSG_ROLE_PREFILL = 1, WMSG_ROLE_DECODE = 2, WMSG_ROLE_BOTH = 3 }; /* a bit mask */

/* W_REGISTER. The reply has no body when MC_OK, else a text for the user (struct wmsg_text). */
struct wmsg_register {
    uint8_t uuid[UUID_SIZE]; /* of this worker process; a new one per start */
    char name[WMSG_NAME_MAX + 1];
    uint8_t role;                  /* enum wmsg_role */
    char model[WMSG_NAME_MAX + 1]; /* name it is served under */
    char engine[WMSG_NAME_MAX + 1];
    char host_id[HELLO_HOST_MAX + 1];      /* blocks of nodes with an equal one come through shared memory */
    uint8_t record[MC_FP_RECORD_SIZE_MAX]; /* mc_fp_record_encode(); the fingerprint follows from it */
    uint16_t record_size;
    uint32_t block_tokens;
    uint32_t block_size;          /* bytes of a full block object */
    uint64_t bytes_per_token;     /* KV */
    uint32_t sequence_tokens_max; /* longest prompt + answer */
    uint32_t context_tokens;      /* KV cells of all sequences together */
    uint32_t sequences_max;
    uint32_t vocab_size;
    bool has_chat;  /* the model has a chat template */
    bool has_store; /* started with a Store */
    struct wmsg_speed speed;
};

/* W_STATUS: a snapshot. */
struct wmsg_status {
    uint64_t time_us;        /* worker's CLOCK_MONOTONIC when taken: only differences mean something */
    uint32_t loading;        /* runs waiting for the Store */
    uint32_t prefilling;     /* runs with prompt tokens to compute */
    uint32_t decoding;       /* sequences in the decode batch */
    uint32_t waiting;        /* runs accepted but not begun: no sequence or no room yet */
    uint64_t prefill_queued; /* prompt tokens of all runs still to be computed (what may yet be loaded counts) */
    uint32_t kv_used;        /* cells */
    uint32_t kv_promised;    /* cells that accepted runs may come to need, kv_used included */
    bool draining;
    bool store_up;        /* loads and puts work at present */
    uint32_t threads;     /* compute threads of the last step */
    uint64_t puts_queued; /* bytes of blocks exported or waiting, not yet acknowledged */
    struct wmsg_speed speed;
};

/* W_TOKENIZE: `messages` through the chat template, with the assistant's opening behind it; or, when message_count is 0,
 * `text` as it is. The model's begin token stands in front of both, once, if it wants one. */
struct wmsg_chat {
    const char *role; /* NUL-terminated */
    const char *content;
};
struct wmsg_tokenize {
    const struct wmsg_chat *messages;
    uint32_t message_count;
    const char *text;    /* NUL-terminated; NULL or "" with messages */
    uint32_t tokens_max; /* a prompt of more need not be counted to its end; 0: WMSG_TOKENS_MAX */
    void *memory;        /* decode's */
};

/* Tokens, in the reply of W_TOKENIZE. Failure replies carry struct wmsg_text: MC_EINVAL (unknown role, no messages),
 * MC_ENOSUP (no chat template), MC_ETOOBIG (more than tokens_max, both numbers in the text). */
struct wmsg_tokens {
    uint32_t *tokens;
    uint32_t count;
};

struct wmsg_text {
    char text[WMSG_TEXT_MAX + 1];
};

enum wmsg_run_kind {
    WMSG_PREFILL = 1, /* compute the prompt, store its blocks, pick one token. Needs WMSG_ROLE_PREFILL */
    WMSG_DECODE = 2,  /* the answer has begun (or a full hit lets it begin here): load, compute what is missing, go on.
                         Needs WMSG_ROLE_DECODE. answer_count may be 0: then the first token is picked here */
    WMSG_GENERATE =
        3, /* all of it on one worker (route "single"); any role may be asked to: the cache is never in the way */
};

#define WMSG_LOAD_AUTO UINT32_MAX /* load what is there where the worker's own prediction says that it pays */

struct wmsg_run {
    uint8_t kind;           /* enum wmsg_run_kind */
    const uint32_t *tokens; /* prompt, then the answer so far */
    uint32_t token_count;
    uint32_t answer_count; /* of them, tokens of the answer: picked and sent already. The next token has this index */
    uint32_t max_tokens;   /* length of the whole answer, those answer tokens included; >= 1 and > answer_count */
    bool cache_read;       /* may load blocks; false: compute everything here */
    bool cache_write;      /* put blocks that were computed here */
    bool ignore_end;       /* go on behind end tokens (benchmarks) */
    bool want_logprob;     /* tokens carry their log probability before filters */
    uint32_t load_tokens;  /* most of the prefix to load: the scheduler's decision, or WMSG_LOAD_AUTO */
    uint32_t copy_blocks;  /* the last of them come from elsewhere: put these again, into the node beside the worker */
    uint32_t hold_ms;      /* WMSG_PREFILL: pin the blocks until W_RELEASE, at most this long; 0: do not pin */
    struct mc_sampling sampling; /* bias borrowed on encode */
    const uint8_t *salt;         /* cache salt of the tenant */
    uint16_t salt_size;          /* <= MC_SALT_SIZE_MAX */
    void *memory;                /* decode's */
};

/* ---- events of a run, each a frame with FRAME_MORE; the first field is the kind ---- */

enum wmsg_event_kind {
    WMSG_PROGRESS = 1, /* at most every 100 ms: struct wmsg_progress */
    WMSG_LOADED = 2,   /* the prefix is imported (or given up): the blocks need no pin any more; struct wmsg_progress */
    WMSG_TOKEN = 3,    /* struct wmsg_token */
};

struct wmsg_progress {
    uint32_t loaded_tokens;   /* imported from the cache, as counted by this worker */
    uint32_t computed_tokens; /* prompt tokens computed so far */
    uint32_t stored_blocks;   /* acknowledged puts */
};

struct wmsg_token {
    uint32_t index; /* in the answer, 0 first */
    uint32_t token;
    bool end;             /* an end token: nothing follows, piece is empty */
    const uint8_t *piece; /* its bytes; may be part of a character. Lent from the frame on decode */
    uint16_t piece_size;
    uint64_t time_us; /* since the W_RUN arrived here */
    float logprob;    /* with want_logprob, else NaN */
};

struct wmsg_event {
    uint8_t kind;
    struct wmsg_progress progress;
    struct wmsg_token token;
};

enum wmsg_reason {
    WMSG_END = 1,       /* the model ended its answer */
    WMSG_LENGTH = 2,    /* max_tokens, or the context is full */
    WMSG_PREFILLED = 3, /* WMSG_PREFILL: first token sent, blocks stored (or given up: see stored_blocks) */
    WMSG_CANCELLED = 4,
    WMSG_ERROR = 5, /* frame status and text say why; other runs are not concerned unless the connection goes */
};

/* The last frame of a run. Times in microseconds, each a part of the time since arrival. */
struct wmsg_finish {
    uint8_t reason;         /* enum wmsg_reason */
    uint32_t answer_tokens; /* length of the whole answer, the end token not counted */
    uint32_t prompt_tokens;
    uint32_t reused_tokens; /* imported from the cache, as counted here */
    uint32_t computed_tokens;
    uint32_t replayed_tokens;             /* answer tokens decoded again */
    uint32_t stored_blocks, store_failed; /* puts acknowledged; puts refused, failed or dropped */
    uint64_t queue_us;                    /* waiting for a place */
    uint64_t load_us;                     /* waiting for the Store and importing */
    uint64_t prefill_us;                  /* computing prompt tokens, others' steps in between included */
    uint64_t first_us;                    /* the step of the first token sent here (replay included) */
    uint64_t decode_us;                   /* from the first token sent here to the last */
    char miss[32];                        /* why loading stopped early: mc_miss_str(); "" when it did not */
    char text[WMSG_TEXT_MAX + 1];         /* for the user, when reason is WMSG_ERROR */
};

/* W_RELEASE */
struct wmsg_release {
    uint64_t request; /* of the WMSG_PREFILL */
};

/* ---- encode: append the body to `out`, failure sticks there ---- */

void wmsg_register_encode(const struct wmsg_register *msg, struct buf *out);
void wmsg_status_encode(const struct wmsg_status *msg, struct buf *out);
void wmsg_tokenize_encode(const struct wmsg_tokenize *msg, struct buf *out);
void wmsg_tokens_encode(const uint32_t *tokens, uint32_t count, struct buf *out);
void wmsg_text_encode(const char *text, struct buf *out);
void wmsg_run_encode(const struct wmsg_run *msg, struct buf *out);
void wmsg_event_encode(const struct wmsg_event *msg, struct buf *out);
void wmsg_finish_encode(const struct wmsg_finish *msg, struct buf *out);
void wmsg_release_encode(const struct wmsg_release *msg, struct buf *out);

/* ---- decode ---- */

enum mc_status wmsg_register_decode(struct slice body, struct wmsg_register *msg, const char **bad);
enum mc_status wmsg_status_decode(struct slice body, struct wmsg_status *msg, const char **bad);
enum mc_status wmsg_tokenize_decode(struct slice body, struct wmsg_tokenize *msg, const char **bad);
enum mc_status wmsg_tokens_decode(struct slice body, struct wmsg_tokens *msg, const char **bad);
enum mc_status wmsg_text_decode(struct slice body, struct wmsg_text *msg, const char **bad);
enum mc_status wmsg_run_decode(struct slice body, struct wmsg_run *msg, const char **bad);
enum mc_status wmsg_event_decode(struct slice body, struct wmsg_event *msg, const char **bad);
enum mc_status wmsg_finish_decode(struct slice body, struct wmsg_finish *msg, const char **bad);
enum mc_status wmsg_release_decode(struct slice body, struct wmsg_release *msg, const char **bad);

void wmsg_tokenize_fini(struct wmsg_tokenize *msg);
void wmsg_tokens_fini(struct wmsg_tokens *msg);
void wmsg_run_fini(struct wmsg_run *msg);

/* Words for logs and explanations: "prefill", "end". Static storage, never NULL. */
const char *wmsg_run_kind_str(uint8_t kind);
const char *wmsg_reason_str(uint8_t reason);

/* Predictions from a wmsg_speed, in seconds. */
double wmsg_prefill_s(const struct wmsg_speed *speed, uint32_t tokens, uint32_t behind);
double wmsg_decode_s(const struct wmsg_speed *speed, uint32_t sequences, uint64_t kv_tokens);
double wmsg_load_s(const struct wmsg_speed *speed, uint64_t bytes);

#endif
