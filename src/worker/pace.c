/* pace.c - how fast the engine is: threads for the next step, times of those before, and what follows from them.
 *
 * Every engine call of a worker stands between pace_begin() and pace_end(). Begin asks the core budget for this worker's share, and
 * takes fewer threads while somebody else is on the cores (crowd.h). The times go into the fits that the Conductor plans
 * with. */
#include "worker/impl.h"

#include <time.h>

#include "base/clock.h"
#include "base/log.h"

static uint64_t cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

struct pace pace_begin(struct worker *worker)
{
    struct pace clock = {now_ns(), cpu_ns(), worker->info->threads_max};
    uint32_t threads;

    if (worker->opts.threads_fixed)
        clock.share = worker->opts.threads_fixed;
    else if (worker->budget)
        clock.share = budget_take(worker->budget);
    if (clock.share > worker->info->threads_max)
        clock.share = worker->info->threads_max;
    threads = worker->opts.threads_fixed ? clock.share : crowd_threads(&worker->crowd, clock.share, clock.wall_ns);
    mc_engine_set_threads(worker->engine, threads);
    worker->threads = threads;
    return clock;
}

double pace_end(struct worker *worker, const struct pace *clock)
{
    uint64_t now = now_ns(), wall = now - clock->wall_ns;

    crowd_step(&worker->crowd, clock->share, worker->threads, wall, cpu_ns() - clock->cpu_ns, now);
    return (double)wall * 1e-9;
}

struct wmsg_speed pace_speed(const struct worker *worker)
{
    const double *p = worker->prefill_fit.c, *d = worker->decode_fit.c, *l = worker->load_fit.c;

    return (struct wmsg_speed){.prefill_base = p[0],
        .prefill_token = p[1],
        .prefill_pair = p[2],
        .decode_base = d[0],
        .decode_sequence = d[1],
        .decode_kv = d[2],
        .load_base = l[0],
        .load_byte = l[1],
        .prefill_samples = worker->prefill_fit.samples,
        .decode_samples = worker->decode_fit.samples,
        .load_samples = worker->load_fit.samples};
}

/* ---- before the first request ---- */

enum { CALIBRATE_TOKENS = 192, CALIBRATE_STEPS = 4, CALIBRATE_MS_MAX = 600 };

/* Half of the threads that are ours: workers of a host start together, and whoever started them is busy too. Spinning threads
 * that wait for a core would take seconds. The real speed is learned from the first prompts. */
static struct pace calibrate_begin(struct worker *worker)
{
    struct pace clock = pace_begin(worker);

    worker->threads = clock.share / 2 ? clock.share / 2 : 1;
    mc_engine_set_threads(worker->engine, worker->threads);
    return clock;
}

/* The first step of all is one token, to see whether we are alone on the cores before anything long is computed. */
static void calibrate_alone(struct worker *worker, uint32_t seq, const uint32_t *tokens)
{
    struct mc_prefill prefill = {.seq = seq, .end = 1, .tokens = tokens};
    struct pace clock = pace_begin(worker);

    if (mc_engine_prefill(worker->engine, &prefill, NULL) == MC_OK)
        pace_end(worker, &clock);
    mc_engine_seq_free(worker->engine, seq);
}

static bool calibrate_prefill(struct worker *worker, uint32_t seq, const uint32_t *tokens, uint32_t end)
{
    struct mc_prefill prefill = {.seq = seq, .end = end, .tokens = tokens, .tokens_max = CALIBRATE_TOKENS};
    uint32_t before = mc_engine_seq_length(worker->engine, seq), n;
    struct pace clock = calibrate_begin(worker);

    if (mc_engine_prefill(worker->engine, &prefill, NULL) != MC_OK)
        return false;
    n = mc_engine_seq_length(worker->engine, seq) - before;
    fit_add(&worker->prefill_fit, (const double[FIT_TERMS]){1, n, n * (before + n / 2.0)}, pace_end(worker, &clock));
    return true;
}

static bool calibrate_decode(struct worker *worker, uint32_t seq, uint32_t token)
{
    struct mc_decode_slot slot = {.seq = seq, .token = token};
    uint32_t length = mc_engine_seq_length(worker->engine, seq);
    struct pace clock = calibrate_begin(worker);

    if (length == 0 || mc_engine_decode(worker->engine, &slot, 1) != MC_OK || slot.status != MC_OK)
        return false;
    fit_add(&worker->decode_fit, (const double[FIT_TERMS]){1, 1, length}, pace_end(worker, &clock));
    return true;
}

/* Two prefill lengths and a few decode steps. None is begun that is not likely to end within CALIBRATE_MS_MAX; what a real
 * prompt costs is learned as they come. */
void pace_calibrate(struct worker *worker)
{
    uint32_t tokens[CALIBRATE_TOKENS], seq, max = worker->info->sequence_tokens_max;
    uint64_t begun = now_ns(), until = begun + CALIBRATE_MS_MAX * NS_PER_MS;
    struct wmsg_speed speed;
    bool going;

    for (uint32_t i = 0; i < CALIBRATE_TOKENS; i++)
        tokens[i] = (i * 7 + 1) % worker->info->vocab_size;
    if (mc_engine_seq_create(worker->engine, &seq) == MC_OK)
        calibrate_alone(worker, seq, tokens);
    if (mc_engine_seq_create(worker->engine, &seq) != MC_OK)
        return;
    going = max > CALIBRATE_TOKENS + CALIBRATE_STEPS && calibrate_prefill(worker, seq, tokens, MC_PREFILL_QUANTUM);
    for (int i = 0; going && i < CALIBRATE_STEPS && (i == 0 || now_ns() < until); i++)
        going = calibrate_decode(worker, seq, tokens[i]);
    mc_engine_seq_free(worker->engine, seq);
    speed = pace_speed(worker);
    if (going && now_ns() + (uint64_t)(wmsg_prefill_s(&speed, CALIBRATE_TOKENS, 0) * NS_PER_S) < until &&
        mc_engine_seq_create(worker->engine, &seq) == MC_OK) {
        calibrate_prefill(worker, seq, tokens, CALIBRATE_TOKENS);
        mc_engine_seq_free(worker->engine, seq);
    }
    if (worker->budget)
        budget_idle(worker->budget);
    speed = pace_speed(worker);
    log_info("worker %s: measured in %u ms: 64 tokens of prefill %.1f ms, a decode step %.1f ms, %u threads",
        worker->name, (unsigned)((now_ns() - begun) / NS_PER_MS), wmsg_prefill_s(&speed, MC_PREFILL_QUANTUM, 0) * 1e3,
        wmsg_decode_s(&speed, 1, MC_PREFILL_QUANTUM) * 1e3, worker->threads);
}
