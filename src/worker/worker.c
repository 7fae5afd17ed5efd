/* worker.c - create, drain and destroy: which thread starts when, and who may still call whom at the end.
 *
 *     start   Store client -> (calibration) -> helper thread -> net thread -> engine thread
 *     stop    engine thread (cancels what runs) -> net thread -> helper thread -> puts and loads -> buffers -> Store client
 *
 * The Store's callbacks post notes until mc_store_close() has returned; those that come after the engine thread has gone
 * are run by whoever destroys the worker. */
#include "worker/impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/xdg.h"

enum {
    STORE_CONNECT_MS = 1000,
    BUFFER_DEFAULT = 64 << 20,
};

void worker_opts_init(struct worker_opts *opts)
{
    *opts = (struct worker_opts){.role = WMSG_ROLE_BOTH, .calibrate = true};
}

/* ---- set-up ---- */

/* Copy of a text that lives as long as the worker. */
static const char *text_keep(struct worker *worker, const char *text)
{
    char *copy;

    if (!text)
        return NULL;
    copy = strdup(text);
    if (copy)
        worker->texts[worker->text_count++] = copy;
    return copy;
}

static enum mc_status opts_take(struct worker *worker, const struct worker_opts *opts, char *err, size_t err_size)
{
    const char *why = NULL;

    if (!opts->engine)
        why = "no engine";
    else if (opts->conductor_count < 1 || opts->conductor_count > WORKER_CONDUCTORS_MAX)
        why = "the number of conductors is not 1 to 8";
    else if (opts->role < WMSG_ROLE_PREFILL || opts->role > WMSG_ROLE_BOTH)
        why = "role is none of prefill, decode, both";
    if (why) {
        snprintf(err, err_size, "worker: %s", why);
        return MC_EINVAL;
    }
    worker->opts = *opts;
    worker->opts.master = text_keep(worker, opts->master);
    worker->opts.store_transport = text_keep(worker, opts->store_transport);
    worker->opts.store_fault = text_keep(worker, opts->store_fault);
    worker->opts.host_id = text_keep(worker, opts->host_id);
    worker->opts.run_dir = text_keep(worker, opts->run_dir);
    worker->opts.conductors = opts->conductors; /* parsed before create returns */
    worker->opts.buffer_size = opts->buffer_size ? opts->buffer_size : BUFFER_DEFAULT;
    worker->opts.stall_ms = opts->stall_ms ? opts->stall_ms : 60;
    worker->opts.queue_max = opts->queue_max ? opts->queue_max : 256;
    worker->opts.store_wait_ms = opts->store_wait_ms ? opts->store_wait_ms : 2000;
    worker->engine = opts->engine;
    worker->info = mc_engine_info(opts->engine);
    return MC_OK;
}

static const char *role_word(enum wmsg_role role)
{
    return role == WMSG_ROLE_PREFILL ? "prefill" : role == WMSG_ROLE_DECODE ? "decode" : "both";
}

static void host_id_default(char *dst, size_t size)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    dst[0] = 0;
    if (file) {
        if (!fgets(dst, (int)size, file))
            dst[0] = 0;
        fclose(file);
    }
    dst[strcspn(dst, "\n")] = 0;
}

static enum mc_status card_fill(struct worker *worker)
{
    const struct mc_engine_info *info = worker->info;
    struct wmsg_register *card = &worker->card;
    size_t record_size;
    size_t length = 0;
    char host[HELLO_HOST_MAX + 1];
    struct mc_chat_message message = {"user", "?"};
    enum mc_status status;

    if (worker->opts.name)
        snprintf(worker->name, sizeof(worker->name), "%s", worker->opts.name);
    else
        snprintf(worker->name, sizeof(worker->name), "%s-%d", role_word(worker->opts.role), getpid());
    random_bytes(worker->uuid, sizeof(worker->uuid));
    host_id_default(host, sizeof(host));

    memcpy(card->uuid, worker->uuid, sizeof(card->uuid));
    snprintf(card->name, sizeof(card->name), "%s", worker->name);
    snprintf(card->model, sizeof(card->model), "%s", info->model);
    snprintf(card->engine, sizeof(card->engine), "%s %s", info->engine, info->engine_version);
    snprintf(card->host_id, sizeof(card->host_id), "%s", worker->opts.host_id ? worker->opts.host_id : host);
    card->role = (uint8_t)worker->opts.role;
    status = mc_fp_record_encode(info->record, card->record, sizeof(card->record), &record_size);
    if (status != MC_OK)
        return status;
    card->record_size = (uint16_t)record_size;
    card->block_tokens = info->block_tokens;
    card->block_size = (uint32_t)info->block_size;
    card->bytes_per_token = mc_geometry_bytes_per_token(info->geometry);
    card->sequence_tokens_max = info->sequence_tokens_max;
    card->context_tokens = info->context_tokens;
    card->sequences_max = info->sequences_max;
    card->vocab_size = info->vocab_size;
    card->has_chat = mc_engine_chat(worker->engine, &message, 1, true, NULL, 0, &length) != MC_ENOSUP;
    card->has_store = worker->opts.master != NULL;
    return MC_OK;
}

static void budget_join(struct worker *worker)
{
    char dir[256];
    const char *path = worker->opts.run_dir;
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    worker->opts.cores = worker->opts.cores ? worker->opts.cores : online > 0 ? (uint32_t)online : 1;
    if (worker->opts.cores > worker->info->threads_max)
        worker->opts.cores = worker->info->threads_max;
    if (!path && xdg_path(XDG_RUNTIME, NULL, dir, sizeof(dir)) == MC_OK)
        path = dir;
    if (!path || budget_open(path, worker->opts.cores, &worker->budget) != MC_OK) {
        worker->budget = NULL;
        log_warn("worker: no core budget: all %u cores are used, also beside other workers", worker->opts.cores);
    }
}

/* The record could be registered only now, and another one is there. On the helper thread. */
static void record_mismatch(void *arg, const char *field)
{
    struct worker *worker = arg;

    worker_give_up(worker, MC_EMISMATCH, "the Store has another fingerprint record for model %s: field %s differs",
        worker->card.model, field);
}

static enum mc_status record_register(struct worker *worker, char *err, size_t err_size)
{
    char field[64] = "";
    enum mc_status status = mc_store_register_model(
        worker->store, worker->card.model, worker->card.record, worker->card.record_size, STORE_CONNECT_MS, field);

    if (status == MC_EMISMATCH) {
        snprintf(err, err_size,
            "the Store has another fingerprint record under the model name \"%s\": field %s differs. Serve this model "
            "under another name, or give all its workers the same engine, weights and options",
            worker->card.model, field);
        return status;
    }
    if (status != MC_OK)
        log_warn(
            "worker: fingerprint record not registered (%s), trying again in the background", mc_status_str(status));
    worker->pins.registered = status == MC_OK;
    return MC_OK;
}

static void fits_init(struct worker *worker)
{
    /* Guesses of a small model on one core; a few measurements outweigh them. */
    fit_init(&worker->prefill_fit, (const double[FIT_TERMS]){5e-3, 2e-3, 1e-7});
    fit_init(&worker->decode_fit, (const double[FIT_TERMS]){10e-3, 5e-3, 5e-6});
    fit_init(&worker->load_fit, (const double[FIT_TERMS]){2e-3, 1e-9, 0});
}

/* A Store that cannot be had at all is no reason not to serve. */
static enum mc_status store_start(struct worker *worker, char *err, size_t err_size)
{
    struct mc_store_opts opts = {.size = sizeof(opts),
        .master = worker->opts.master,
        .transport = worker->opts.store_transport,
        .fault = worker->opts.store_fault,
        .host_id = worker->opts.host_id,
        .run_dir = worker->opts.run_dir,
        .ns = worker->opts.ns,
        .connect_ms = STORE_CONNECT_MS};
    enum mc_status status;
    struct mc_te *te;

    if (!worker->opts.master)
        return MC_OK;
    status = mc_store_open(&opts, &worker->store);
    if (status == MC_EPEERDOWN) {
        log_warn("worker: no master at %s yet: computing without the Store until it comes", opts.master);
        opts.connect_ms = 0;
        status = mc_store_open(&opts, &worker->store);
    }
    if (status != MC_OK) {
        worker->store = NULL;
        snprintf(err, err_size, "cannot open the Store at %s: %s", opts.master, mc_status_str(status));
        return status;
    }
    te = mc_store_te(worker->store);
    status = slots_init(&worker->load_slots, te, worker->info->block_size, worker->opts.buffer_size);
    if (status == MC_OK)
        status = slots_init(&worker->put_slots, te, worker->info->block_size, worker->opts.buffer_size);
    if (status != MC_OK) {
        snprintf(err, err_size, "no buffers for blocks: %s", mc_status_str(status));
        return status;
    }
    put_init(worker);
    status = record_register(worker, err, err_size);
    if (status != MC_OK)
        return status;
    worker->pins.model = worker->card.model;
    worker->pins.record = worker->card.record;
    worker->pins.record_size = worker->card.record_size;
    worker->pins.mismatch = record_mismatch;
    worker->pins.arg = worker;
    return MC_OK;
}

static void shared_init(struct worker *worker)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&worker->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->changed, &attr);
    pthread_condattr_destroy(&attr);
    list_init(&worker->outbox);
    list_init(&worker->runs);
    list_init(&worker->puts);
    list_init(&worker->windows);
    inbox_init(&worker->inbox);
}

/* ---- life ---- */

enum mc_status worker_create(const struct worker_opts *opts, struct worker **out, char *err, size_t err_size)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    char scratch[512];
    enum mc_status status;

    if (!err || !err_size) {
        err = scratch;
        err_size = sizeof(scratch);
    }
    err[0] = 0;
    if (!worker)
        return MC_ENOMEM;
    shared_init(worker);
    fits_init(worker);
    status = opts_take(worker, opts, err, err_size);
    if (status == MC_OK)
        status = card_fill(worker);
    if (status != MC_OK)
        goto undo;
    status = net_init(worker);
    if (status != MC_OK)
        goto undo;
    budget_join(worker);
    status = store_start(worker, err, err_size);
    if (status != MC_OK)
        goto undo;
    if (worker->opts.calibrate)
        pace_calibrate(worker);
    worker->snapshot.speed = pace_speed(worker);
    if (worker->store)
        status = pins_start(&worker->pins, worker->store);
    if (status == MC_OK)
        status = net_start(worker, err, err_size);
    if (status != MC_OK)
        goto undo;
    if (pthread_create(&worker->engine_thread, NULL, engine_main, worker) != 0) {
        log_error("worker: cannot start the engine thread: %m");
        status = MC_ESYS;
        goto undo;
    }
    pthread_setname_np(worker->engine_thread, "engine");
    worker->engine_started = true;
    *out = worker;
    return MC_OK;

undo:
    if (!err[0])
        snprintf(err, err_size, "worker: %s", mc_status_str(status));
    worker_destroy(worker);
    return status;
}

void worker_drain(struct worker *worker)
{
    atomic_store(&worker->draining, true);
    loop_post(worker->loop, &worker->drain_task);
    inbox_kick(&worker->inbox);
}

void worker_give_up(struct worker *worker, enum mc_status why, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_error("worker %s: %s", worker->name, text);
    pthread_mutex_lock(&worker->lock);
    if (worker->verdict == MC_OK)
        worker->verdict = why;
    pthread_mutex_unlock(&worker->lock);
    worker_drain(worker);
}

enum mc_status worker_wait(struct worker *worker, uint32_t timeout_ms)
{
    uint64_t until = timeout_ms == UINT32_MAX ? DEADLINE_NONE : deadline_after_ms(now_ns(), timeout_ms);
    struct timespec ts = {.tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S)};
    enum mc_status status = MC_OK;
    int rc = 0;

    pthread_mutex_lock(&worker->lock);
    while (!worker->drained && rc == 0) {
        if (until == DEADLINE_NONE)
            pthread_cond_wait(&worker->changed, &worker->lock);
        else
            rc = pthread_cond_timedwait(&worker->changed, &worker->lock, &ts);
    }
    status = worker->drained ? worker->verdict : MC_ETIMEDOUT;
    pthread_mutex_unlock(&worker->lock);
    return status;
}

void worker_destroy(struct worker *worker)
{
    if (!worker)
        return;
    if (worker->engine_started) {
        atomic_store(&worker->draining, true);
        atomic_store(&worker->stopping, true);
        inbox_kick(&worker->inbox);
        pthread_join(worker->engine_thread, NULL);
    }
    net_stop(worker);
    pins_stop(&worker->pins);
    if (worker->store) {
        put_cancel_all(worker);
        load_cancel_all(worker);
        inbox_run(&worker->inbox, worker);
        slots_fini(&worker->put_slots);
        slots_fini(&worker->load_slots);
        mc_store_close(worker->store);
        inbox_run(&worker->inbox, worker);
    }
    budget_close(worker->budget);
    inbox_fini(&worker->inbox);
    pthread_cond_destroy(&worker->changed);
    pthread_mutex_destroy(&worker->lock);
    free(worker->plane_bytes);
    while (worker->text_count)
        free(worker->texts[--worker->text_count]);
    free(worker);
}

void worker_stats(struct worker *worker, struct worker_stats *out)
{
    pthread_mutex_lock(&worker->lock);
    *out = worker->stats;
    pthread_mutex_unlock(&worker->lock);
}
