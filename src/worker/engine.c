/* engine.c - the engine thread: takes runs in, chooses the next step, computes it, says what came of it.
 *
 * One turn: notes from other threads, a sweep over all runs (cancel, admit, load, store), one engine call. Without
 * anything to compute the thread sleeps on its inbox, and its cores are the other workers'.
 *
 * Room. A run is admitted when the cells that all admitted runs hold or will need next leave room for its tokens. Answers
 * grow, so the context can still fill up: then the youngest run is preempted. It goes back to the front of the line with
 * everything it has said, loads its blocks again and replays the rest, as on another worker after a death. */
#include "worker/impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum { GROW_TOKENS = 64 }; /* room a run gets beyond what it has, so that admission does not preempt at once */

/* ---- the end of a run ---- */

static void seq_free(struct worker *worker, struct run *run)
{
    if (run->has_seq)
        mc_engine_seq_free(worker->engine, run->seq);
    worker->room_made |= run->has_seq;
    run->has_seq = false;
    run->length = 0;
}

static void finish_say(struct worker *worker, struct run *run)
{
    struct wmsg_finish *finish = &run->finish;

    if (run->finish_sent)
        return;
    run->finish_sent = true;
    if (run->picked)
        finish->decode_us = (run->last_ns - run->first_ns) / NS_PER_US;
    /* Who is destroyed in the middle does not say that it was the client's wish: the Conductor sees the connection go, and
     * asks another worker to go on. */
    if (!atomic_load(&worker->stopping))
        net_send_finish(worker, run);
    pthread_mutex_lock(&worker->lock);
    worker->stats.finished += finish->reason < WMSG_CANCELLED;
    worker->stats.cancelled += finish->reason == WMSG_CANCELLED;
    worker->stats.failed += finish->reason == WMSG_ERROR;
    pthread_mutex_unlock(&worker->lock);
}

/* Nothing more will be said of the answer. A prefill's last frame waits for its puts; an answer's does not. */
static void run_over(struct worker *worker, struct run *run, enum wmsg_reason reason, enum mc_status status)
{
    if (run->state >= RUN_STORING && reason < WMSG_CANCELLED)
        return;
    load_drop(worker, run);
    if (!run->finish_sent) {
        run->finish.reason = reason;
        run->status = status;
    }
    run->put_deadline_ns = deadline_after_ms(now_ns(), worker->opts.store_wait_ms);
    if (reason >= WMSG_CANCELLED) {
        run->state = RUN_OVER;
        finish_say(worker, run);
        return;
    }
    run->state = RUN_STORING;
    if (run->msg.kind != WMSG_PREFILL)
        finish_say(worker, run);
}

void engine_run_fail(struct worker *worker, struct run *run, enum mc_status status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(run->finish.text, sizeof(run->finish.text), format, args);
    va_end(args);
    log_error(
        "run %llu (%s): %s", (unsigned long long)run->request, wmsg_run_kind_str(run->msg.kind), run->finish.text);
    run_over(worker, run, WMSG_ERROR, status);
}

/* Pin what the decode worker is going to load. */
static void prefill_pin(struct worker *worker, struct run *run)
{
    uint32_t blocks = run->prompt / worker->info->block_tokens;
    struct mc_key *keys;

    if (!worker->store || !run->msg.hold_ms || !run->msg.cache_write || !blocks || run->finish.store_failed)
        return;
    keys = malloc(blocks * sizeof(*keys));
    if (!keys)
        return;
    for (uint32_t i = 0; i < blocks; i++)
        run_block_key(run, i, &keys[i]);
    pins_add(&worker->pins, run->peer, run->request, keys, blocks, run->msg.hold_ms);
}

/* Export what is left, then wait for the acknowledgements (a prefill) or not (an answer). */
static void storing_sweep(struct worker *worker, struct run *run, uint64_t now)
{
    bool late = now >= run->put_deadline_ns, prefill = run->msg.kind == WMSG_PREFILL;
    uint32_t full = run_full_blocks(run);

    if (run->has_seq && !late)
        put_pump(worker, run, full);
    if (run->has_seq && (late || run->put_next >= full)) {
        run->finish.store_failed += full > run->put_next ? full - run->put_next : 0;
        seq_free(worker, run);
    }
    if (run->has_seq || (prefill && run->puts_flying && !late))
        return;
    if (prefill)
        prefill_pin(worker, run);
    finish_say(worker, run);
    run->state = RUN_OVER;
}

/* ---- tokens ---- */

static float logprob_of(const float *logits, uint32_t vocab, uint32_t token)
{
    float top = -INFINITY;
    double sum = 0;

    for (uint32_t i = 0; i < vocab; i++)
        top = logits[i] > top ? logits[i] : top;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - top);
    return (float)((double)logits[token] - top - log(sum));
}

static void token_say(struct worker *worker, struct run *run, uint32_t token, bool end, const float *logits)
{
    char piece[MC_PIECE_SIZE_MAX];
    size_t size = 0;
    struct wmsg_event event = {.kind = WMSG_TOKEN};

    if (!end && mc_engine_piece(worker->engine, token, false, piece, sizeof(piece), &size) != MC_OK)
        size = 0;
    event.token = (struct wmsg_token){
        .index = run->count - run->prompt,
        .token = token,
        .end = end,
        .piece = (const uint8_t *)piece,
        .piece_size = (uint16_t)size,
        .time_us = (run->last_ns - run->arrived_ns) / NS_PER_US,
        .logprob = run->msg.want_logprob ? logprob_of(logits, worker->info->vocab_size, token) : NAN,
    };
    net_send(worker, run, &event);
}

/* The sequence holds all tokens that are known: choose the next one, say it, and see whether the run ends with it. */
static void token_pick(struct worker *worker, struct run *run, const float *logits)
{
    uint32_t index = run->count - run->prompt, token = mc_sampler_pick(run->sampler, logits, index);
    bool end = !run->msg.ignore_end && mc_engine_is_end(worker->engine, token);

    run->last_ns = now_ns();
    if (!run->picked) {
        run->picked = true;
        run->first_ns = run->last_ns;
        run->finish.first_us = (run->first_ns - run->prefilled_ns) / NS_PER_US;
    }
    token_say(worker, run, token, end, logits);
    if (end) {
        run->finish.answer_tokens = index;
        run_over(worker, run, run->msg.kind == WMSG_PREFILL ? WMSG_PREFILLED : WMSG_END, MC_OK);
        return;
    }
    run->finish.answer_tokens = index + 1;
    mc_sampler_accept(run->sampler, token);
    if (run_append(run, token) != MC_OK) {
        engine_run_fail(worker, run, MC_ENOMEM, "no memory for token %u of the answer", index);
        return;
    }
    if (run->msg.kind == WMSG_PREFILL)
        run_over(worker, run, WMSG_PREFILLED, MC_OK);
    else if (index + 1 >= run->msg.max_tokens || run->count >= worker->info->sequence_tokens_max)
        run_over(worker, run, WMSG_LENGTH, MC_OK);
}

/* ---- room ---- */

static uint32_t run_cells(const struct run *run)
{
    return run->msg.kind == WMSG_PREFILL ? run->prompt : run->count + GROW_TOKENS;
}

static uint32_t cells_promised(const struct worker *worker)
{
    uint32_t cells = 0;

    list_for_each (it, &worker->runs) {
        const struct run *run = list_entry(it, struct run, link);

        if (run->has_seq)
            cells += run->state == RUN_STORING ? run->length : run_cells(run);
    }
    return cells;
}

/* Begin a run if there is a sequence and room for it. The only one is always let in: its prompt fits, or it would have been
 * refused. */
static bool admit(struct worker *worker, struct run *run)
{
    uint32_t promised = cells_promised(worker);

    if (run->load.asking) /* preempted while it asked: that answer comes first, and wakes us */
        return false;
    if (promised && promised + run_cells(run) > worker->info->context_tokens)
        return false;
    if (mc_engine_seq_create(worker->engine, &run->seq) != MC_OK)
        return false;
    run->has_seq = true;
    run->length = 0;
    if (!run->begun_ns) {
        run->begun_ns = now_ns();
        run->finish.queue_us = (run->begun_ns - run->arrived_ns) / NS_PER_US;
    }
    load_begin(worker, run);
    return true;
}

/* The context is full: send the youngest that loads or computes back to the front of the line. False: there is only one. */
static bool preempt(struct worker *worker)
{
    struct run *victim = NULL;
    unsigned holding = 0;

    list_for_each (it, &worker->runs) {
        struct run *run = list_entry(it, struct run, link);

        if (run->state == RUN_STORING && run->has_seq) { /* its answer is complete: only puts are lost */
            run->put_deadline_ns = 0;
            return true;
        }
        if (run->state != RUN_COMPUTING && run->state != RUN_LOADING)
            continue;
        holding++;
        if (!victim || run->order > victim->order)
            victim = run;
    }
    if (holding < 2)
        return false;
    log_debug("context full: run %llu is preempted at %u tokens", (unsigned long long)victim->request, victim->length);
    load_drop(worker, victim);
    seq_free(worker, victim);
    victim->state = RUN_WAITING;
    list_del(&victim->link);
    list_push_front(&worker->runs, &victim->link);
    return true;
}

/* ---- steps ---- */

/* An engine call failed for the runs in it. */
static void step_failed(struct worker *worker, struct run *run, enum mc_status status, const char *what)
{
    if (status == MC_ENOSPC && preempt(worker))
        return;
    if (status == MC_ECANCELED) {
        run_over(worker, run, WMSG_CANCELLED, MC_ECANCELED);
        return;
    }
    if (status == MC_ESYS)
        worker->engine_failures++;
    engine_run_fail(worker, run, status, "%s at token %u: %s", what, run->length, mc_status_str(status));
}

static void progress_say(struct worker *worker, struct run *run, uint64_t now)
{
    struct wmsg_event event = {.kind = WMSG_PROGRESS,
        .progress = {.loaded_tokens = run->finish.reused_tokens,
            .computed_tokens = run->finish.computed_tokens,
            .stored_blocks = run->finish.stored_blocks}};

    if (now - run->progress_ns < PROGRESS_MS * NS_PER_MS)
        return;
    run->progress_ns = now;
    net_send(worker, run, &event);
}

static void step_prefill(struct worker *worker, struct run *run, uint32_t tokens)
{
    struct put_ready ready = {worker, run};
    struct mc_prefill prefill = {.seq = run->seq,
        .end = run->prompt,
        .tokens = run->tokens,
        .tokens_max = tokens,
        .ready = put_block_ready,
        .arg = &ready,
        .cancel = &run->cancel};
    const float *logits = NULL;
    uint32_t before = run->length, computed;
    struct pace clock = pace_begin(worker);
    enum mc_status status = mc_engine_prefill(worker->engine, &prefill, &logits);
    double seconds = pace_end(worker, &clock);
    uint64_t ended = now_ns();

    run->length = mc_engine_seq_length(worker->engine, run->seq);
    computed = run->length - before;
    run->finish.computed_tokens += run_gained(run, before);
    STAT_ADD(worker, tokens_computed, computed);
    if (status != MC_OK) {
        step_failed(worker, run, status, "prefill");
        return;
    }
    worker->engine_failures = 0;
    fit_add(
        &worker->prefill_fit, (const double[FIT_TERMS]){1, computed, computed * (before + computed / 2.0)}, seconds);
    put_pump(worker, run, run_full_blocks(run));
    if (run->length < run->prompt) {
        progress_say(worker, run, ended);
        return;
    }
    run->prefilled_ns = ended;
    run->finish.prefill_us += (ended - run->computing_ns) / NS_PER_US;
    if (run->count == run->prompt)
        token_pick(worker, run, logits);
}

/* One sequence of a decode step: its token is in. */
static void decoded(struct worker *worker, struct run *run, const struct mc_decode_slot *slot)
{
    if (slot->status != MC_OK) {
        step_failed(worker, run, slot->status, "decode");
        return;
    }
    run->length++;
    run_gained(run, run->length - 1);
    if (run->length % worker->info->block_tokens == 0)
        put_pump(worker, run, run_full_blocks(run));
    if (run->length == run->count) {
        STAT_ADD(worker, tokens_decoded, 1);
        token_pick(worker, run, slot->logits);
    } else {
        run->finish.replayed_tokens++;
        STAT_ADD(worker, tokens_replayed, 1);
    }
}

static void step_decode(struct worker *worker, struct run **runs, size_t count)
{
    struct mc_decode_slot slots[MC_ENGINE_SEQUENCES_MAX];
    struct pace clock = pace_begin(worker);
    uint64_t cells = 0;
    enum mc_status status;
    double seconds;

    for (size_t i = 0; i < count; i++) {
        slots[i] = (struct mc_decode_slot){.seq = runs[i]->seq, .token = runs[i]->tokens[runs[i]->length]};
        if (!runs[i]->prefilled_ns)
            runs[i]->prefilled_ns = clock.wall_ns; /* everything was loaded */
        cells += runs[i]->length;
    }
    status = mc_engine_decode(worker->engine, slots, count);
    seconds = pace_end(worker, &clock);
    if (status != MC_OK) {
        if (status == MC_ENOSPC && preempt(worker))
            return;
        for (size_t i = 0; i < count; i++)
            step_failed(worker, runs[i], status, "decode");
        return;
    }
    worker->engine_failures = 0;
    fit_add(&worker->decode_fit, (const double[FIT_TERMS]){1, (double)count, (double)cells}, seconds);
    for (size_t i = 0; i < count; i++) {
        log_set_trace(runs[i]->trace);
        decoded(worker, runs[i], &slots[i]);
    }
}

/* Choose and compute one step. False: there is nothing to compute. */
static bool step(struct worker *worker)
{
    struct run *runs[MC_ENGINE_SEQUENCES_MAX], *decoding[MC_ENGINE_SEQUENCES_MAX];
    struct batch_run views[MC_ENGINE_SEQUENCES_MAX];
    struct wmsg_speed speed = pace_speed(worker);
    struct batch_limits limits = {worker->info->chunk_tokens, worker->opts.stall_ms * 1e-3, &speed};
    struct batch_step choice;
    size_t count = 0, decoding_count = 0;

    list_for_each (it, &worker->runs) {
        struct run *run = list_entry(it, struct run, link);

        if (run->state != RUN_COMPUTING)
            continue;
        if (!run_prefill_left(run))
            decoding[decoding_count++] = run;
        runs[count] = run;
        views[count++] = (struct batch_run){.prefill_left = run_prefill_left(run),
            .length = run->length,
            .order = run->order,
            .urgent = run->msg.kind == WMSG_DECODE};
    }
    choice = batch_pick(&worker->batcher, views, count, &limits);
    if (choice.what == BATCH_NONE)
        return false;
    if (choice.what == BATCH_PREFILL && crowd_tries(&worker->crowd, now_ns()))
        choice.tokens = MC_PREFILL_QUANTUM;
    if (choice.what == BATCH_PREFILL) {
        log_set_trace(runs[choice.run]->trace);
        step_prefill(worker, runs[choice.run], choice.tokens);
    } else {
        step_decode(worker, decoding, decoding_count);
    }
    log_set_trace(NULL);
    return true;
}

/* ---- sweep ---- */

static void run_remove(struct worker *worker, struct run *run)
{
    seq_free(worker, run);
    list_del(&run->link);
    worker->runs_count--;
    pthread_mutex_lock(&worker->lock);
    worker->stats.tokens_loaded += run->finish.reused_tokens;
    pthread_mutex_unlock(&worker->lock);
    run_unref(run);
    if (atomic_fetch_sub(&worker->accepted, 1) == 1 && atomic_load(&worker->draining))
        loop_post(worker->loop, &worker->drain_task);
}

/* Look after every run; returns when the next deadline is. */
static uint64_t sweep(struct worker *worker)
{
    uint64_t now = now_ns(), next = worker->retry_ns ? worker->retry_ns : DEADLINE_NONE;
    bool line = true, stopping = atomic_load(&worker->stopping);

    worker->retry_ns = 0;
    worker->room_made = false;
    list_for_each_safe (it, tmp, &worker->runs) {
        struct run *run = list_entry(it, struct run, link);

        log_set_trace(run->trace);
        if (run->state != RUN_OVER && (stopping || run_cancelled(run)))
            run_over(worker, run, WMSG_CANCELLED, MC_ECANCELED);
        if (run->state == RUN_WAITING && line)
            line = admit(worker, run); /* first come first served: who does not fit holds up those behind */
        else if (run->state == RUN_LOADING)
            load_pump(worker, run); /* a buffer may have become free */
        if (run->state == RUN_STORING) {
            storing_sweep(worker, run, now);
            next = run->state == RUN_STORING ? deadline_min(next, run->put_deadline_ns) : next;
        }
        if (run->state == RUN_OVER)
            run_remove(worker, run);
    }
    log_set_trace(NULL);
    /* Room was made behind a run that waits for it: come again at once. */
    if (worker->room_made && !line)
        next = now;
    return next;
}

void engine_run_arrived(struct worker *worker, struct note *note)
{
    struct run *run = container_of(note, struct run, arrived);

    run->order = worker->order++;
    list_push_back(&worker->runs, &run->link);
    worker->runs_count++;
    STAT_ADD(worker, runs, 1);
}

/* ---- what others are told ---- */

static void count_run(struct wmsg_status *status, const struct run *run)
{
    uint32_t left = run->state == RUN_COMPUTING ? run_prefill_left(run) : run->state < RUN_COMPUTING ? run->prompt : 0;

    status->prefill_queued += left;
    status->waiting += run->state == RUN_WAITING;
    status->loading += run->state == RUN_LOADING;
    status->prefilling += run->state == RUN_COMPUTING && left;
    status->decoding += run->state == RUN_COMPUTING && !left;
}

/* Put a snapshot where the net thread finds it. */
static void publish(struct worker *worker)
{
    uint64_t now = now_ns();
    struct wmsg_status status = {.time_us = now / NS_PER_US,
        .kv_used = mc_engine_space(worker->engine).tokens_used,
        .kv_promised = cells_promised(worker),
        .draining = atomic_load(&worker->draining),
        .store_up = worker->store && gate_open(&worker->load_gate, now) && gate_open(&worker->put_gate, now),
        .threads = worker->threads,
        .puts_queued = worker->puts_flying * worker->info->block_size,
        .speed = pace_speed(worker)};

    list_for_each (it, &worker->runs)
        count_run(&status, list_entry(it, struct run, link));
    pthread_mutex_lock(&worker->lock);
    worker->snapshot = status;
    worker->stats.speed = status.speed;
    worker->stats.store_up = status.store_up;
    pthread_mutex_unlock(&worker->lock);
    net_status_changed(worker);
}

/* ---- the thread ---- */

void *engine_main(void *arg)
{
    struct worker *worker = arg;

    for (;;) {
        uint64_t next;
        bool computed;

        inbox_run(&worker->inbox, worker);
        next = sweep(worker);
        if (atomic_load(&worker->stopping) && list_empty(&worker->runs))
            break;
        computed = step(worker);
        publish(worker);
        if (worker->engine_failures >= ENGINE_FAILURES_MAX) {
            worker_give_up(worker, MC_ESYS, "the engine failed %d times in a row", ENGINE_FAILURES_MAX);
            worker->engine_failures = 0;
        }
        if (computed)
            continue;
        if (worker->budget)
            budget_idle(worker->budget);
        inbox_wait(&worker->inbox, next);
    }
    return NULL;
}
