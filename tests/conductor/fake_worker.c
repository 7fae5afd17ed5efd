/* fake_worker.c - a scripted worker on a loop of its own. */
#include "fake_worker.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "mooncake/engine.h"
#include "net/conn.h"

struct run {
    struct list link;
    struct fake_worker *worker;
    struct loop_timer timer;
    uint64_t request;
    uint8_t kind;
    uint32_t next, max, prompt;
};

struct fake_worker {
    struct fake_script script;
    struct fake_counts counts;
    struct loop *loop;
    struct conn *conn;
    struct list runs;
    struct addr addr;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool decided, accepted, silent; /* the first two guarded by lock */
    char why[WMSG_TEXT_MAX + 1];
};

static void decide(struct fake_worker *w, bool accepted, const char *why)
{
    pthread_mutex_lock(&w->lock);
    if (!w->decided) {
        w->decided = true;
        w->accepted = accepted;
        snprintf(w->why, sizeof w->why, "%s", why);
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
}

/* MC_AGAIN: the connection's queue is full, nothing was sent. */
static enum mc_status answer(
    struct fake_worker *w, uint64_t request, uint32_t flags, enum mc_status status, struct buf *body)
{
    enum mc_status sent = MC_ECLOSED;
    struct conn_msg msg = {
        .type = MSG_W_RUN, .flags = FRAME_REPLY | flags, .status = status, .request = request, .body = buf_slice(body)};

    if (w->conn)
        sent = conn_send(w->conn, &msg);
    buf_fini(body);
    return sent;
}

static enum mc_status send_token(struct run *run, uint32_t index)
{
    const struct fake_script *script = &run->worker->script;
    char text[MC_PIECE_SIZE_MAX];
    struct wmsg_event event = {.kind = WMSG_TOKEN, .token = {.index = index, .token = FAKE_TOKEN_BASE + index}};
    struct buf body;
    uint32_t count = 0;

    while (script->pieces && script->pieces[count])
        count++;
    if (count)
        snprintf(text, sizeof text, "%s", script->pieces[index % count]);
    else
        snprintf(text, sizeof text, " w%u", index);
    event.token.piece = (const uint8_t *)text;
    event.token.piece_size = (uint16_t)strlen(text);
    buf_init(&body, 4096);
    wmsg_event_encode(&event, &body);
    return answer(run->worker, run->request, FRAME_MORE, MC_OK, &body);
}

static void run_free(struct run *run)
{
    loop_timer_cancel(run->worker->loop, &run->timer);
    list_del(&run->link);
    free(run);
}

static void run_finish(struct run *run, uint8_t reason, enum mc_status status)
{
    struct wmsg_finish finish = {.reason = reason,
        .answer_tokens = run->next,
        .prompt_tokens = run->prompt,
        .computed_tokens = run->prompt,
        .prefill_us = 1000 * run->prompt};
    struct buf body;

    if (status != MC_OK)
        strcpy(finish.text, "scripted failure");
    buf_init(&body, 4096);
    wmsg_finish_encode(&finish, &body);
    if (answer(run->worker, run->request, 0, status, &body) != MC_AGAIN)
        run_free(run);
}

static bool misbehave(struct run *run)
{
    struct fake_worker *w = run->worker;

    if ((int)run->next == w->script.die_at) {
        conn_abort(w->conn, MC_ECLOSED);
        return true;
    }
    if ((int)run->next == w->script.silent_at) {
        w->silent = true;
        conn_pause(w->conn);
        return true;
    }
    return false;
}

/* One token, or the end. False: nothing more will come of this run. */
static bool run_step(struct run *run)
{
    const struct fake_script *script = &run->worker->script;

    if (run->worker->silent || misbehave(run))
        return false;
    if (run->next == run->max || run->next == script->answer_tokens) {
        run_finish(run, run->next == run->max ? WMSG_LENGTH : WMSG_END, MC_OK);
        return false;
    }
    if ((int)run->next != script->hole_at && send_token(run, run->next) == MC_AGAIN)
        return false;
    if (script->repeat)
        (void)send_token(run, run->next);
    run->next++;
    if (run->kind == WMSG_PREFILL) {
        run_finish(run, WMSG_PREFILLED, MC_OK);
        return false;
    }
    return true;
}

static void on_pace(struct loop *loop, struct loop_timer *timer)
{
    struct run *run = container_of(timer, struct run, timer);
    uint32_t pace_ms = run->worker->script.pace_ms;

    if (run_step(run))
        (void)loop_timer_set(loop, &run->timer, loop_now_ns(loop) + pace_ms * NS_PER_MS);
}

static void run_begin(struct run *run)
{
    struct fake_worker *w = run->worker;

    if (w->script.refuse_runs)
        run_finish(run, WMSG_ERROR, MC_ESYS);
    else if (w->script.pace_ms)
        on_pace(w->loop, &run->timer);
    else
        while (run_step(run))
            ;
}

static void on_run(struct fake_worker *w, const struct frame *frame)
{
    struct wmsg_run msg;
    const char *bad;
    struct run *run = calloc(1, sizeof *run);

    assert(run);
    if (wmsg_run_decode(frame->body, &msg, &bad) != MC_OK)
        abort();
    *run = (struct run){.worker = w,
        .request = frame->request,
        .kind = msg.kind,
        .next = msg.answer_count,
        .max = msg.max_tokens,
        .prompt = msg.token_count - msg.answer_count};
    for (uint32_t i = 0; i < msg.answer_count; i++) /* the answer so far is what we would have sent */
        if (msg.tokens[run->prompt + i] != FAKE_TOKEN_BASE + i)
            abort();
    w->counts.runs++;
    w->counts.continued += msg.answer_count > 0;
    w->counts.last_kind = msg.kind;
    w->counts.last_answer_count = msg.answer_count;
    w->counts.last_max_tokens = msg.max_tokens;
    wmsg_run_fini(&msg);
    list_push_back(&w->runs, &run->link);
    loop_timer_init(&run->timer, on_pace);
    if (!w->script.mute)
        run_begin(run);
}

static void on_cancel(struct fake_worker *w, uint64_t request)
{
    w->counts.cancels++;
    list_for_each_safe (it, next, &w->runs) {
        struct run *run = list_entry(it, struct run, link);

        if (run->request == request)
            run_finish(run, WMSG_CANCELLED, MC_ECANCELED);
    }
}

static void refuse_tokens(struct fake_worker *w, const struct frame *frame, uint32_t max)
{
    char text[WMSG_TEXT_MAX];
    struct buf body;

    snprintf(text, sizeof text, "the prompt has at least %d tokens, this model's context is %u", FAKE_PROMPT_MAX, max);
    buf_init(&body, 4096);
    wmsg_text_encode(text, &body);
    (void)conn_reply(w->conn, frame, MC_ETOOBIG, buf_slice(&body));
    buf_fini(&body);
}

/* One token per byte of all contents. */
static void on_tokenize(struct fake_worker *w, const struct frame *frame)
{
    struct wmsg_tokenize msg;
    const char *bad;
    uint32_t tokens[FAKE_PROMPT_MAX], count = 0, max;
    struct buf body;

    if (wmsg_tokenize_decode(frame->body, &msg, &bad) != MC_OK)
        abort();
    max = msg.tokens_max;
    for (uint32_t m = 0; m < msg.message_count || (m == 0 && msg.message_count == 0); m++) {
        const char *text = msg.message_count ? msg.messages[m].content : msg.text;

        for (size_t i = 0; text[i] && count < FAKE_PROMPT_MAX; i++)
            tokens[count++] = (uint8_t)text[i];
    }
    wmsg_tokenize_fini(&msg);
    w->counts.tokenized++;
    if (count == FAKE_PROMPT_MAX) {
        refuse_tokens(w, frame, max);
        return;
    }
    buf_init(&body, FRAME_BODY_MAX);
    wmsg_tokens_encode(tokens, count, &body);
    (void)conn_reply(w->conn, frame, MC_OK, buf_slice(&body));
    buf_fini(&body);
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct fake_worker *w = conn_user(conn);
    struct wmsg_text text = {""};
    const char *bad;

    switch (frame->type) {
    case MSG_W_REGISTER:
        if (frame->status != MC_OK)
            (void)wmsg_text_decode(frame->body, &text, &bad);
        decide(w, frame->status == MC_OK, text.text);
        break;
    case MSG_W_TOKENIZE: on_tokenize(w, frame); break;
    case MSG_W_RUN: on_run(w, frame); break;
    case MSG_CANCEL: on_cancel(w, frame->request); break;
    case MSG_W_RELEASE: w->counts.releases++; break;
    default: conn_reply_unknown(conn, frame);
    }
}

static void on_ready(struct conn *conn)
{
    struct fake_worker *w = conn_user(conn);
    const struct fake_script *script = &w->script;
    uint32_t context = script->context_tokens ? script->context_tokens : 4096;
    struct mc_fp_record record = {.engine = "fake",
        .model_arch = "none",
        .block_tokens = 64,
        .rope_base = script->rope_base ? script->rope_base : 10000,
        .rope_scale = 1};
    struct wmsg_register card = {
        .role = (uint8_t)script->role,
        .model = "fake",
        .engine = "fake",
        .block_tokens = 64,
        .block_size = 4096,
        .bytes_per_token = 64,
        .sequence_tokens_max = context,
        .context_tokens = context * 16,
        .sequences_max = script->sequences_max ? script->sequences_max : 16,
        .vocab_size = 100000,
        .has_chat = true,
        .has_store = true,
        .speed = {.prefill_token = (script->prefill_ms_per_token ? script->prefill_ms_per_token : 1) / 1e3,
            .decode_base = 0.01},
    };
    struct conn_msg msg = {.type = MSG_W_REGISTER, .request = 1};
    struct buf body;
    size_t size;

    snprintf(card.name, sizeof card.name, "%s", script->name);
    if (mc_fp_record_encode(&record, card.record, sizeof card.record, &size) != MC_OK)
        abort();
    card.record_size = (uint16_t)size;
    buf_init(&body, 65536);
    wmsg_register_encode(&card, &body);
    msg.body = buf_slice(&body);
    (void)conn_send(conn, &msg);
    buf_fini(&body);
}

static void on_writable(struct conn *conn)
{
    struct fake_worker *w = conn_user(conn);

    list_for_each_safe (it, next, &w->runs) {
        struct run *run = list_entry(it, struct run, link);

        while (!w->script.pace_ms && !w->script.mute && run_step(run))
            ;
    }
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct fake_worker *w = conn_user(conn);

    w->conn = NULL;
    list_for_each_safe (it, next, &w->runs)
        run_free(list_entry(it, struct run, link));
    decide(w, false, mc_status_str(status));
}

static const struct conn_ops ops = {
    .on_ready = on_ready, .on_frame = on_frame, .on_writable = on_writable, .on_close = on_close};

static void dial(struct loop *loop, void *arg)
{
    struct fake_worker *w = arg;
    struct hello self = {.role = ROLE_WORKER};
    struct conn_opts opts = {.self = &self, .ops = &ops, .user = w};

    if (conn_connect(loop, &w->addr, &opts, &w->conn) != MC_OK)
        abort();
}

struct fake_worker *fake_worker_start(
    const char *conductor, const struct fake_script *script, bool *accepted, char why[WMSG_TEXT_MAX + 1])
{
    struct fake_worker *w = calloc(1, sizeof *w);

    assert(w);
    w->script = *script;
    list_init(&w->runs);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->loop = loop_create("fake");
    if (!w->loop || addr_parse(conductor, 0, &w->addr, NULL) != MC_OK || loop_thread_start(w->loop) != MC_OK)
        abort();
    loop_call(w->loop, dial, w);
    pthread_mutex_lock(&w->lock);
    while (!w->decided)
        pthread_cond_wait(&w->wake, &w->lock);
    pthread_mutex_unlock(&w->lock);
    *accepted = w->accepted;
    if (why)
        strcpy(why, w->why);
    return w;
}

static void speak(struct loop *loop, void *arg)
{
    struct fake_worker *w = arg;

    w->script.mute = false;
    list_for_each_safe (it, next, &w->runs)
        run_begin(list_entry(it, struct run, link));
}

void fake_worker_speak(struct fake_worker *w)
{
    loop_call(w->loop, speak, w);
}

static void hang_up(struct loop *loop, void *arg)
{
    struct fake_worker *w = arg;

    if (w->conn)
        conn_abort(w->conn, MC_ECLOSED);
}

void fake_worker_stop(struct fake_worker *w)
{
    loop_call(w->loop, hang_up, w);
    loop_thread_stop(w->loop);
    loop_destroy(w->loop);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

const struct fake_counts *fake_worker_counts(const struct fake_worker *w)
{
    return &w->counts;
}
