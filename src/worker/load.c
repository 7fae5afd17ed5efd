/* load.c - prefixes from the Store into the engine.
 *
 * One query says how many blocks of the prefix are readable. They are fetched in windows, straight into registered buffers
 * that are used again and again, two windows of a run in flight; the engine imports a window when all before it are in. So
 * a long prefix needs little memory, and importing goes on beside fetching.
 *
 *     Store:   | window 0 | window 1 | window 2 | ...
 *     engine:             | import 0 | import 1 | ...
 *
 * The whole load may take as long as computing those tokens would, not longer. The first block that is not there, in time
 * and whole, ends it: what is before it counts, the rest is computed. Inside the prompt what counts is cut to a multiple of 64
 * tokens, so that the batches that follow are those of a run without reuse. */
#include "worker/impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    LOAD_WINDOW = 32,     /* blocks fetched in one batch: 46 MB of a 135M model's, 2 ms at memory speed */
    LOAD_WINDOWS_MAX = 2, /* of a run in flight: one to import, one under way */
    LOAD_DEADLINE_MS_MIN = 30,
    LOAD_DEADLINE_MS_MAX = 60000,
    LOAD_QUERY_MS_MAX = 1000,
};

struct load_window {
    struct note done;
    struct list all;  /* in worker->windows */
    struct list link; /* in run->load.windows */
    struct run *run;  /* a reference */
    uint32_t first, count;
    bool complete;
    bool dropped; /* out of the run's list: nobody waits for it */
    uint64_t begun_ns;
    struct mc_store_batch *batch;
    struct mc_store_op ops[LOAD_WINDOW];
    struct mc_span spans[LOAD_WINDOW];
    uint32_t slots[LOAD_WINDOW];
};

static uint32_t deadline_left_ms(const struct run *run)
{
    uint64_t left = deadline_left_ns(run->load.deadline_ns, now_ns());

    return (uint32_t)((left + NS_PER_MS - 1) / NS_PER_MS);
}

static void load_stop(struct worker *worker, struct run *run, const char *why, enum mc_status status)
{
    uint64_t now = now_ns();

    if (run->load.stopped)
        return;
    run->load.stopped = true;
    if (run->load.imported >= run->load.wanted)
        return;
    snprintf(run->finish.miss, sizeof(run->finish.miss), "%s", why);
    STAT_ADD(worker, loads_stopped, 1);
    if (gate_counts(status))
        gate_failed(&worker->load_gate, now);
}

/* ---- the query ---- */

static void query_answered(struct worker *worker, struct note *note)
{
    struct run_load *load = container_of(note, struct run_load, answered);
    struct run *run = container_of(load, struct run, load);

    load->asking = false;
    if (run->state == RUN_LOADING) {
        if (load->found < load->wanted) {
            const char *why = load->answer == MC_OK ? mc_miss_str(MC_MISS_NEVER) : mc_status_str(load->answer);

            snprintf(run->finish.miss, sizeof(run->finish.miss), "%s", why);
            load->wanted = load->found;
        }
        if (load->answer == MC_OK)
            gate_passed(&worker->load_gate);
        else if (gate_counts(load->answer))
            gate_failed(&worker->load_gate, now_ns());
        load_pump(worker, run);
    }
    run_unref(run);
}

/* On the Store's thread. */
static void query_done(enum mc_status status, const struct mc_prefix *prefix, const struct mc_prefix_node *nodes,
    uint32_t nodes_n, void *arg)
{
    struct run *run = arg;

    run->load.answer = status;
    run->load.found = prefix ? prefix->blocks : 0;
    inbox_post(&run->peer->worker->inbox, &run->load.answered, query_answered);
}

static void query_send(struct worker *worker, struct run *run)
{
    const uint8_t(*ids)[16] = (const uint8_t(*)[16])(const void *)run->ids;
    uint32_t deadline = deadline_left_ms(run);
    enum mc_status status;

    run->load.asking = true;
    run_ref(run);
    status = mc_store_prefix_async(worker->store, ids, run->load.wanted, 0,
        deadline < LOAD_QUERY_MS_MAX ? deadline : LOAD_QUERY_MS_MAX, query_done, run);
    if (status == MC_OK)
        return;
    run->load.asking = false;
    run_unref(run);
    load_stop(worker, run, mc_status_str(status), status);
}

/* ---- windows ---- */

static void window_free(struct worker *worker, struct load_window *window)
{
    if (!window->dropped) {
        list_del(&window->link);
        window->run->load.windows_count--;
    }
    list_del(&window->all);
    for (uint32_t i = 0; i < window->count; i++)
        slots_give(&worker->load_slots, window->slots[i]);
    if (window->batch)
        mc_store_batch_free(window->batch);
    run_unref(window->run);
    free(window);
}

static void window_note(struct worker *worker, struct note *note)
{
    struct load_window *window = container_of(note, struct load_window, done);
    struct run *run = window->run;

    window->complete = true;
    if (window->dropped)
        window_free(worker, window);
    else
        load_pump(worker, run);
}

/* On the Store's thread. */
static void window_done(struct mc_store_batch *batch, void *arg)
{
    struct load_window *window = arg;

    inbox_post(&window->run->peer->worker->inbox, &window->done, window_note);
}

static void window_fill(struct worker *worker, struct load_window *window)
{
    for (uint32_t i = 0; i < window->count; i++) {
        struct mc_store_op *op = &window->ops[i];

        window->slots[i] = slots_take(&worker->load_slots);
        window->spans[i] = (struct mc_span){slots_at(&worker->load_slots, window->slots[i]), worker->info->block_size};
        *op = (struct mc_store_op){.opcode = MC_GET, .spans = &window->spans[i], .nspans = 1};
        run_block_key(window->run, window->first + i, &op->key);
    }
}

/* Ask for the next window. False: there is nothing (more) to ask for, or no buffer now. */
static bool window_send(struct worker *worker, struct run *run)
{
    struct run_load *load = &run->load;
    uint32_t count = load->wanted - load->asked, free_slots = worker->load_slots.free_count;
    uint32_t quantum =
        MC_PREFILL_QUANTUM > worker->info->block_tokens ? MC_PREFILL_QUANTUM / worker->info->block_tokens : 1;
    struct load_window *window;
    enum mc_status status;

    if (load->stopped || load->asking || count == 0 || load->windows_count == LOAD_WINDOWS_MAX)
        return false;
    count = count < LOAD_WINDOW ? count : LOAD_WINDOW;
    count = count < free_slots ? count : free_slots;
    if (load->asked + count < load->wanted)
        count -= count % quantum; /* windows begin at multiples of 64 tokens, as imports may have to */
    if (count == 0)
        return false;
    window = calloc(1, sizeof(*window));
    if (!window) {
        load_stop(worker, run, mc_status_str(MC_ENOMEM), MC_ENOMEM);
        return false;
    }
    list_push_back(&worker->windows, &window->all);
    window->run = run;
    run_ref(run);
    window->first = load->asked;
    window->count = count;
    window->begun_ns = now_ns();
    list_push_back(&load->windows, &window->link);
    load->windows_count++;
    window_fill(worker, window);
    status =
        mc_store_submit(worker->store, window->ops, count, deadline_left_ms(run), window_done, window, &window->batch);
    if (status != MC_OK) {
        window->batch = NULL;
        window_free(worker, window);
        load_stop(worker, run, mc_status_str(status), status);
        return false;
    }
    load->asked += count;
    return true;
}

static void load_missed(struct worker *worker, struct run *run, const struct mc_store_result *result)
{
    bool slow = result->miss == MC_MISS_TIMEOUT || result->miss == MC_MISS_MASTER_DOWN;
    const char *why = result->status == MC_OK ? mc_miss_str(MC_MISS_MISMATCH)
                      : result->miss          ? mc_miss_str(result->miss)
                                              : mc_status_str(result->status);

    load_stop(worker, run, why, slow ? MC_ETIMEDOUT : result->status);
}

/* Blocks of the window that are good, from its start on. */
static uint32_t window_good(struct worker *worker, struct run *run, const struct load_window *window)
{
    for (uint32_t i = 0; i < window->count; i++) {
        const struct mc_store_result *result = &window->ops[i].result;

        if (result->status == MC_OK && result->length == worker->info->block_size)
            continue;
        load_missed(worker, run, result);
        return i;
    }
    return window->count;
}

/* Inside the prompt the sequence must stand at a multiple of 64 afterwards. */
static uint32_t import_cut(const struct worker *worker, const struct run *run, uint32_t first, uint32_t count)
{
    uint32_t block_tokens = worker->info->block_tokens, end = (first + count) * block_tokens;

    if (end < run->prompt)
        end -= end % MC_PREFILL_QUANTUM;
    return end / block_tokens > first ? end / block_tokens - first : 0;
}

static enum mc_status window_import(struct worker *worker, struct run *run, const struct load_window *window)
{
    uint32_t block_tokens = worker->info->block_tokens, good = window_good(worker, run, window);
    struct mc_block_in blocks[LOAD_WINDOW];
    uint32_t before = run->length;
    enum mc_status status;
    size_t imported = 0;

    good = import_cut(worker, run, window->first, good);
    for (uint32_t i = 0; i < good; i++) {
        uint32_t index = window->first + i;
        uint8_t *bytes = slots_at(&worker->load_slots, window->slots[i]);

        if (worker->opts.flip_imported_bit && index == 0)
            bytes[worker->info->block_size / 2 + 1] ^= 0x40; /* of a half float the highest bit of the exponent */
        blocks[i] = (struct mc_block_in){.index = index,
            .rows = block_tokens,
            .tokens = run->tokens + (size_t)index * block_tokens,
            .bytes = bytes,
            .size = worker->info->block_size};
    }
    if (good == 0) {
        run->load.stopped = true;
        return MC_OK;
    }
    status = mc_engine_import(worker->engine, run->seq, blocks, good, &imported);
    run->length = mc_engine_seq_length(worker->engine, run->seq);
    run->load.imported += (uint32_t)imported;
    run->finish.reused_tokens += run_gained(run, before);
    STAT_ADD(worker, blocks_loaded, imported);
    if (status == MC_ECORRUPT)
        STAT_ADD(worker, blocks_corrupt, 1);
    if (imported < good)
        load_stop(worker, run, mc_status_str(status), MC_OK);
    run->load.stopped |= imported < window->count; /* also when the cut left some out */
    return status;
}

/* ---- the run's view ---- */

/* Windows under way keep their buffers until the Store is done with them, and then free themselves. */
void load_drop(struct worker *worker, struct run *run)
{
    list_for_each_safe (it, tmp, &run->load.windows) {
        struct load_window *window = list_entry(it, struct load_window, link);

        if (window->complete) {
            window_free(worker, window);
        } else {
            list_del(&window->link);
            run->load.windows_count--;
            window->dropped = true;
        }
    }
}

/* Imported blocks that need not be put: they are in the Store. Those that the scheduler had us fetch from elsewhere are put once
 * more, near us, so that whoever is sent here next does not fetch them again: so a hot prefix spreads. */
static uint32_t stored_already(const struct worker *worker, const struct run *run)
{
    uint32_t asked = run->msg.load_tokens / worker->info->block_tokens;
    uint32_t near = asked > run->msg.copy_blocks ? asked - run->msg.copy_blocks : 0;

    return near < run->load.imported ? near : run->load.imported;
}

static void load_end(struct worker *worker, struct run *run)
{
    struct run_load *load = &run->load;
    uint64_t now = now_ns();
    struct wmsg_event event = {.kind = WMSG_LOADED, .progress = {.loaded_tokens = run->finish.reused_tokens}};

    if (load->imported) {
        uint64_t bytes = load->imported * worker->info->block_size;

        fit_add(
            &worker->load_fit, (const double[FIT_TERMS]){1, (double)bytes, 0}, (double)(now - load->begun_ns) * 1e-9);
        gate_passed(&worker->load_gate);
    }
    load_drop(worker, run);
    if (run->put_next < load->imported)
        run->put_next = stored_already(worker, run);
    run->state = RUN_COMPUTING;
    run->finish.load_us += (now - load->begun_ns) / NS_PER_US;
    run->computing_ns = now;
    if (!run->finish_sent)
        net_send(worker, run, &event);
}

void load_pump(struct worker *worker, struct run *run)
{
    struct run_load *load = &run->load;
    enum mc_status status;

    while (window_send(worker, run))
        continue;
    while (!list_empty(&load->windows)) {
        struct load_window *window = list_first(&load->windows, struct load_window, link);

        if (!window->complete)
            break;
        status = load->stopped ? MC_OK : window_import(worker, run, window);
        window_free(worker, window);
        /* An engine that can tell right bytes from wrong ones is there to be loud; another one's refusal is a miss. */
        if (status == MC_ESYS || (status == MC_ECORRUPT && worker->info->verifies)) {
            engine_run_fail(worker, run, status, "the engine refused an imported block: %s", mc_status_str(status));
            return;
        }
        while (window_send(worker, run))
            continue;
    }
    /* A stopped load does not wait for what is still under way. */
    if (!load->asking && (load->stopped || load->imported >= load->wanted))
        load_end(worker, run);
}

/* How many blocks to ask for: the scheduler's decision, or our own when it left that to us. */
static uint32_t blocks_wanted(const struct worker *worker, const struct run *run)
{
    uint32_t block_tokens = worker->info->block_tokens, blocks = run_load_max(run);
    uint32_t asked_blocks = run->msg.load_tokens / block_tokens;
    struct wmsg_speed speed = pace_speed(worker);
    uint32_t prompt_part;

    if (!worker->store || !run->msg.cache_read || !gate_open(&worker->load_gate, now_ns()))
        return 0;
    if (run->msg.load_tokens != WMSG_LOAD_AUTO)
        return asked_blocks < blocks ? asked_blocks : blocks;
    /* Answer tokens would be replayed one by one: loading those pays always. */
    if (blocks * block_tokens > run->prompt)
        return blocks;
    prompt_part = blocks * block_tokens;
    return wmsg_load_s(&speed, blocks * worker->info->block_size) < wmsg_prefill_s(&speed, prompt_part, 0) ? blocks : 0;
}

/* As long as computing those tokens here would take. */
static uint64_t load_budget_ms(const struct worker *worker, const struct run *run, uint32_t blocks)
{
    uint32_t tokens = blocks * worker->info->block_tokens, prompt = tokens < run->prompt ? tokens : run->prompt;
    struct wmsg_speed speed = pace_speed(worker);
    double seconds = wmsg_prefill_s(&speed, prompt, 0) + (tokens - prompt) * wmsg_decode_s(&speed, 1, tokens);
    double ms = seconds * 1e3;

    return ms < LOAD_DEADLINE_MS_MIN   ? LOAD_DEADLINE_MS_MIN
           : ms > LOAD_DEADLINE_MS_MAX ? LOAD_DEADLINE_MS_MAX
                                       : (uint64_t)ms;
}

void load_begin(struct worker *worker, struct run *run)
{
    struct run_load *load = &run->load;
    uint32_t wanted = blocks_wanted(worker, run);

    load->begun_ns = now_ns();
    load->stopped = false;
    load->asked = load->imported = 0;
    load->wanted = wanted;
    run->state = RUN_LOADING;
    if (wanted == 0) {
        load_end(worker, run);
        return;
    }
    load->deadline_ns = deadline_after_ms(load->begun_ns, load_budget_ms(worker, run, wanted));
    query_send(worker, run);
    if (load->stopped)
        load_end(worker, run);
}

void load_cancel_all(struct worker *worker)
{
    list_for_each (it, &worker->windows)
        mc_store_cancel(list_entry(it, struct load_window, all)->batch);
}
