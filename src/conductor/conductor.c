/* conductor.c - wires loop, HTTP server, fleet, Store client and survey together; creates and takes them down.
 *
 * Order of the end: the loop's thread stops; then, on the caller's thread, requests are cut, HTTP and fleet go, the Store's
 * client (whose last callbacks still post to the loop), and the loop last, which runs what was posted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "conductor/http/api.h"
#include "conductor/request.h"

#define VERSION "0.1.0"

void conductor_opts_init(struct conductor_opts *opts)
{
    *opts = (struct conductor_opts){
        .http_listen = "127.0.0.1:7480",
        .fleet_listen = "127.0.0.1:7481",
        .queue_max = 256,
        .requests_max = 1024,
        .queue_ms = 30000,
        .request_ms = 600000,
        .prefix_ms = 200,
        .prefill_depth = 8,
        .answer_tokens = 1024,
        .explain_max = 1024,
    };
}

/* --- what the parts tell us --- */

static void on_pump(struct loop *loop, struct loop_task *task)
{
    conductor_pump(container_of(task, struct conductor, pump));
}

static void on_again(struct loop *loop, struct loop_timer *timer)
{
    conductor_pump(container_of(timer, struct conductor, again));
}

static void on_fleet_change(void *arg)
{
    struct conductor *conductor = arg;
    unsigned count = 0;

    list_for_each (it, fleet_workers(conductor->fleet))
        count++;
    atomic_store_explicit(&conductor->worker_count, count, memory_order_relaxed); /* a figure, orders nothing */
    conductor_pump(conductor);
}

static void on_survey(void *arg, enum mc_status status, const struct mc_node_info *rows, uint32_t count)
{
    struct conductor *conductor = arg;

    conductor->survey_status = status;
    if (status == MC_OK)
        fleet_nodes_set(conductor->fleet, rows, count);
}

static void on_collect(void *arg)
{
    struct conductor *conductor = arg;

    metric_set(conductor->count.running, conductor->request_count);
    metric_set(conductor->count.queued, conductor->queue_count);
    metric_set(conductor->count.workers, conductor_workers(conductor));
    metric_set(conductor->count.copies, (int64_t)fleet_copied(conductor->fleet));
}

/* --- creating --- */

static enum mc_status fail(char *err, size_t size, enum mc_status status, const char *what)
{
    if (err && size)
        snprintf(err, size, "%s: %s", what, mc_status_str(status));
    return status;
}

static enum mc_status parse_address(const char *text, const char *option, struct addr *addr, char *err, size_t size)
{
    const char *why = "";

    if (addr_parse(text, 0, addr, &why) == MC_OK)
        return MC_OK;
    if (err && size)
        snprintf(err, size, "%s '%s': %s", option, text, why);
    return MC_EINVAL;
}

static enum mc_status open_fleet(struct conductor *c, const struct conductor_opts *opts, char *err, size_t err_size)
{
    struct fleet_opts fleet = {
        .host_id = opts->host_id, .prefill_depth = opts->prefill_depth, .on_change = on_fleet_change, .arg = c};
    enum mc_status status = parse_address(opts->fleet_listen, "fleet address", &fleet.addr, err, err_size);

    if (status != MC_OK)
        return status;
    random_bytes(fleet.uuid, sizeof fleet.uuid);
    status = fleet_create(c->loop, &fleet, &c->fleet);
    if (status != MC_OK)
        return fail(err, err_size, status, opts->fleet_listen);
    addr_format(fleet_addr(c->fleet), c->fleet_address);
    return MC_OK;
}

static void on_sent(void *arg)
{
    conductor_note_idle(arg);
}

static enum mc_status open_http(struct conductor *c, const struct conductor_opts *opts, char *err, size_t err_size)
{
    struct http_opts http = {
        .routes = api_routes,
        .route_count = api_route_count,
        .files = web_files,
        .file_count = web_file_count,
        .user = c,
        .on_sent = on_sent,
        .conns_max = opts->requests_max + 64, /* the page, metrics and refusals need some, too */
    };
    enum mc_status status = parse_address(opts->http_listen, "http address", &http.addr, err, err_size);

    if (status != MC_OK)
        return status;
    status = http_server_create(c->loop, &http, &c->http);
    if (status != MC_OK)
        return fail(err, err_size, status, opts->http_listen);
    addr_format(http_server_addr(c->http), c->http_address);
    return MC_OK;
}

/* A Store that is not there (yet) does not keep us from serving. */
static enum mc_status open_store(struct conductor *c, const struct conductor_opts *opts, char *err, size_t err_size)
{
    struct mc_store_opts store = {
        .size = sizeof store,
        .master = opts->master,
        .transport = opts->store_transport,
        .host_id = opts->host_id,
        .ns = opts->ns,
    };
    enum mc_status status;

    if (!opts->master)
        return MC_OK;
    status = mc_store_open(&store, &c->store);
    if (status != MC_OK)
        return fail(err, err_size, status, "store client");
    c->survey = survey_start(c->store, c->loop, on_survey, c);
    return c->survey ? MC_OK : fail(err, err_size, MC_ENOMEM, "survey");
}

static enum mc_status check_opts(const struct conductor_opts *opts, char *err, size_t size)
{
    const char *bad = NULL;

    if (opts->requests_max == 0 || opts->requests_max > 100000)
        bad = "requests_max must be 1 to 100000";
    else if (opts->explain_max == 0)
        bad = "explain_max must be at least 1";
    else if (opts->request_ms == 0 || opts->prefix_ms == 0 || opts->answer_tokens == 0)
        bad = "request_ms, prefix_ms and answer_tokens must be above 0";
    else if (!(opts->slo_ttft_ms >= 0) || !(opts->slo_tbt_ms >= 0))
        bad = "an SLO must be 0 (none) or above";
    else if (opts->policy && !mc_sched_policy_find(opts->policy))
        bad = "there is no such scheduling policy";
    if (bad && err && size)
        snprintf(err, size, "%s", bad);
    return bad ? MC_EINVAL : MC_OK;
}

static void init_idle(struct conductor *c)
{
    pthread_condattr_t monotonic;

    pthread_mutex_init(&c->idle_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->idle_wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

enum mc_status conductor_create(const struct conductor_opts *opts, struct conductor **out, char *err, size_t err_size)
{
    struct conductor *c;
    struct metrics *metrics;
    enum mc_status status = check_opts(opts, err, err_size);

    if (status != MC_OK)
        return status;
    c = calloc(1, sizeof *c);
    if (!c)
        return fail(err, err_size, MC_ENOMEM, "conductor");
    c->opts = *opts;
    c->policy = opts->policy ? mc_sched_policy_find(opts->policy) : mc_sched_policy_at(0);
    c->started_s = wall_ms() / 1000;
    rng_seed(&c->rng, hash_seed());
    list_init(&c->requests);
    list_init(&c->queue);
    loop_task_init(&c->pump, on_pump);
    loop_timer_init(&c->again, on_again);
    init_idle(c);
    metrics = metrics_create();
    c->loop = loop_create("conductor");
    status = metrics && c->loop ? explain_init(&c->explains, opts->explain_max) : MC_ENOMEM;
    if (status == MC_OK)
        status = loop_timer_reserve(c->loop, 1); /* for c->again */
    if (status == MC_OK) {
        conductor_counters_init(&c->count, metrics);
        metrics_add_process(metrics, VERSION);
        metrics_collector(metrics, on_collect, c);
        status = open_fleet(c, opts, err, err_size);
    } else {
        fail(err, err_size, status, "conductor");
        metrics_destroy(metrics);
    }
    if (status == MC_OK)
        status = open_http(c, opts, err, err_size);
    if (status == MC_OK)
        status = open_store(c, opts, err, err_size);
    if (status == MC_OK && opts->record && (status = record_open(opts->record, &c->record)) != MC_OK)
        fail(err, err_size, status, opts->record);
    c->opts.http_listen = c->opts.fleet_listen = c->opts.master = c->opts.policy = NULL;
    c->opts.store_transport = c->opts.host_id = c->opts.record = NULL;
    if (status != MC_OK) {
        conductor_destroy(c);
        return status;
    }
    *out = c;
    return MC_OK;
}

enum mc_status conductor_start(struct conductor *conductor)
{
    return loop_thread_start(conductor->loop);
}

/* --- the end: all requests have been answered and the answers have left --- */

static void begin_drain(struct loop *loop, void *arg)
{
    struct conductor *c = arg;

    c->draining = true;
    http_server_stop_accepting(c->http);
    conductor_note_idle(c);
}

void conductor_note_idle(struct conductor *c)
{
    if (!c->draining || c->request_count > 0 || http_server_sending(c->http) > 0)
        return;
    pthread_mutex_lock(&c->idle_lock);
    c->idle = true;
    pthread_cond_signal(&c->idle_wake);
    pthread_mutex_unlock(&c->idle_lock);
}

enum mc_status conductor_drain(struct conductor *c, uint32_t timeout_ms)
{
    uint64_t at = now_ns() + timeout_ms * NS_PER_MS;
    struct timespec until = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};
    int error = 0;

    loop_call(c->loop, begin_drain, c);
    pthread_mutex_lock(&c->idle_lock);
    while (!c->idle && error == 0)
        error = pthread_cond_timedwait(&c->idle_wake, &c->idle_lock, &until);
    pthread_mutex_unlock(&c->idle_lock);
    return error ? MC_ETIMEDOUT : MC_OK;
}

void conductor_destroy(struct conductor *c)
{
    if (!c)
        return;
    if (c->loop)
        loop_thread_stop(c->loop);
    survey_stop(c->survey);
    list_for_each_safe (it, next, &c->requests)
        request_abandon(list_entry(it, struct request, link));
    if (c->http)
        http_server_destroy(c->http);
    if (c->fleet)
        fleet_destroy(c->fleet);
    if (c->store)
        mc_store_close(c->store);
    if (c->loop) {
        loop_defer_cancel(c->loop, &c->pump);
        loop_timer_cancel(c->loop, &c->again);
        loop_destroy(c->loop);
    }
    record_close(c->record);
    survey_free(c->survey);
    explain_fini(&c->explains);
    if (c->count.metrics)
        metrics_destroy(c->count.metrics);
    pthread_cond_destroy(&c->idle_wake);
    pthread_mutex_destroy(&c->idle_lock);
    free(c);
}

const char *conductor_http_address(const struct conductor *conductor)
{
    return conductor->http_address;
}

const char *conductor_fleet_address(const struct conductor *conductor)
{
    return conductor->fleet_address;
}

unsigned conductor_workers(const struct conductor *conductor)
{
    return atomic_load_explicit(&conductor->worker_count, memory_order_relaxed); /* a figure, orders nothing */
}
