/* api.c - the routes: what OpenAI clients ask, what Prometheus asks, what people ask. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "conductor/http/api.h"
#include "conductor/http/fits.h"
#include "conductor/http/parse.h"
#include "conductor/http/status.h"
#include "conductor/request.h"

enum { BODY_MAX = 16 << 20 };

#define CACHE_HEADER "X-Mooncake-Cache"

/* Why a request ends before it has begun. */
static void refuse(struct http_req *req, int code, const char *param, const char *err_code, const char *text)
{
    struct conductor *conductor = http_user(req);

    metric_add(metric_with(conductor->count.requests, code < 500 ? "invalid" : "failed"), 1);
    http_reply_error(req, code, NULL, param, err_code, "%s", text);
}

/* A misspelt value must not measure a warm cache as a cold one. False: the request was refused. */
static bool read_cache_header(struct http_req *req, struct api_request *api)
{
    const char *value = http_header(req, CACHE_HEADER);

    api->cache_off = value && strcasecmp(value, "off") == 0;
    if (!value || api->cache_off || strcasecmp(value, "on") == 0)
        return true;
    refuse(req, 400, CACHE_HEADER, NULL, "header " CACHE_HEADER " must be on or off");
    return false;
}

static void completion(struct http_req *req, enum api_kind kind)
{
    struct conductor *conductor = http_user(req);
    struct api_request api;
    struct api_error error;
    enum mc_status status = api_request_parse(kind, http_body(req), &api, &error);
    char text[128];

    if (status == MC_ENOMEM) {
        refuse(req, 503, NULL, "out_of_memory", "out of memory");
        return;
    }
    if (status != MC_OK) {
        refuse(req, 400, *error.param ? error.param : NULL, NULL, error.message);
        return;
    }
    if (!read_cache_header(req, &api)) {
        api_request_fini(&api);
        return;
    }
    if (fleet_model_find(conductor->fleet, api.model)) {
        request_begin(conductor, req, &api);
        return;
    }
    snprintf(text, sizeof text, "the model '%.64s' is not served here", api.model);
    if (list_empty(fleet_models(conductor->fleet)))
        refuse(req, 503, NULL, "no_worker", "no worker has registered yet");
    else
        refuse(req, 404, "model", "model_not_found", text);
    api_request_fini(&api);
}

static void on_chat(struct http_req *req)
{
    completion(req, API_CHAT);
}

static void on_completion(struct http_req *req)
{
    completion(req, API_COMPLETION);
}

static json_t *model_json(const struct fleet_model *model)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:I, s:I}", "id", model->name, "object", "model", "created",
        (json_int_t)model->since_s, "owned_by", model->engine, "max_model_len", (json_int_t)model->sequence_tokens_max,
        "block_tokens", (json_int_t)model->block_tokens);
}

static void on_models(struct http_req *req)
{
    struct conductor *conductor = http_user(req);
    json_t *data = json_array();

    list_for_each (it, fleet_models(conductor->fleet))
        json_array_append_new(data, model_json(list_entry(it, struct fleet_model, link)));
    http_reply_json(req, 200, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

static void on_model(struct http_req *req)
{
    struct conductor *conductor = http_user(req);
    struct fleet_model *model = fleet_model_find(conductor->fleet, http_param(req, "id"));

    if (model)
        http_reply_json(req, 200, model_json(model));
    else
        http_reply_error(
            req, 404, NULL, "model", "model_not_found", "the model '%.64s' is not served here", http_param(req, "id"));
}

/* Healthy: somebody can answer. */
static void on_health(struct http_req *req)
{
    struct conductor *conductor = http_user(req);
    unsigned ready = 0;

    list_for_each (it, fleet_workers(conductor->fleet))
        ready += list_entry(it, struct fleet_worker, link)->state == MC_WORKER_READY;
    http_reply_json(req, ready ? 200 : 503,
        json_pack("{s:s, s:I}", "status", ready ? "ok" : "no worker is ready", "workers", (json_int_t)ready));
}

static void on_metrics(struct http_req *req)
{
    struct conductor *conductor = http_user(req);
    struct buf text;

    buf_init(&text, BODY_MAX);
    metrics_expose(conductor->count.metrics, &text);
    if (buf_status(&text) == MC_OK)
        http_reply(req, 200, METRICS_CONTENT_TYPE, buf_slice(&text));
    else
        http_reply_error(req, 503, NULL, NULL, "out_of_memory", "out of memory");
    buf_fini(&text);
}

static void on_explain(struct http_req *req)
{
    struct conductor *conductor = http_user(req);
    json_t *explanation = explain_json(&conductor->explains, http_param(req, "id"));

    if (explanation)
        http_reply_json(req, 200, explanation);
    else
        http_reply_error(req, 404, NULL, "id", "request_not_found",
            "no decision of request '%.64s' is kept (the last %u are)", http_param(req, "id"), conductor->explains.max);
}

static void on_status(struct http_req *req)
{
    struct conductor *conductor = http_user(req);

    survey_poke(conductor->survey);
    http_reply_json(req, 200, status_json(conductor));
}

static void on_fits(struct http_req *req)
{
    struct conductor *conductor = http_user(req);
    struct fleet_model *model = fleet_model_find(conductor->fleet, http_param(req, "id"));
    json_t *fits = model ? fits_json(conductor->fleet, model) : NULL;

    if (fits)
        http_reply_json(req, 200, fits);
    else if (model)
        http_reply_error(
            req, 404, NULL, NULL, "nothing_measured", "no worker of '%.64s' has measured anything yet", model->name);
    else
        http_reply_error(
            req, 404, NULL, "model", "model_not_found", "the model '%.64s' is not served here", http_param(req, "id"));
}

const struct http_route api_routes[] = {
    {"POST", "/v1/chat/completions", on_chat, BODY_MAX},
    {"POST", "/v1/completions", on_completion, BODY_MAX},
    {"GET", "/v1/models", on_models},
    {"GET", "/v1/models/{id...}", on_model},
    {"GET", "/v1/requests/{id}/explain", on_explain},
    {"GET", "/v1/fits/{id...}", on_fits},
    {"GET", "/v1/status", on_status},
    {"GET", "/healthz", on_health},
    {"GET", "/metrics", on_metrics},
};
const size_t api_route_count = sizeof api_routes / sizeof api_routes[0];
