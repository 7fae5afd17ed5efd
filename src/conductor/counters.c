/* counters.c - the rows of /metrics. */
#include "conductor/conductor_impl.h"

static const double ratio_buckets[] = {0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2, 4, 0};

static const struct metric_row rows[] = {
    {"mooncake_requests_total", METRIC_COUNTER, "Requests by how they ended.", {"outcome"}},
    {"mooncake_routes_total", METRIC_COUNTER, "Answered requests by route.", {"route"}},
    {"mooncake_prompt_tokens_total", METRIC_COUNTER, "Tokens of answered prompts."},
    {"mooncake_reused_tokens_total", METRIC_COUNTER, "Of them, imported from the cache."},
    {"mooncake_answer_tokens_total", METRIC_COUNTER, "Tokens of answers."},
    {"mooncake_ttft_seconds", METRIC_HISTOGRAM, "Time to first token, since the request was complete."},
    {"mooncake_ttft_predicted_seconds", METRIC_HISTOGRAM, "The same as predicted when the request was placed."},
    {"mooncake_ttft_ratio", METRIC_HISTOGRAM, "Actual over predicted time to first token.", .buckets = ratio_buckets},
    {"mooncake_tbt_seconds", METRIC_HISTOGRAM, "Time between tokens."},
    {"mooncake_placement_seconds", METRIC_HISTOGRAM, "From the request until a worker was given it."},
    {"mooncake_moves_total", METRIC_COUNTER, "Times a request left a worker that failed."},
    {"mooncake_slo_refusals_total", METRIC_COUNTER, "Requests refused because the predicted latency breaks the SLO."},
    {"mooncake_clients_left_total", METRIC_COUNTER, "Requests cancelled because the client went away."},
    {"mooncake_copied_bytes_total", METRIC_COUNTER,
        "KV that workers were told to put beside them though it lies elsewhere."},
    {"mooncake_requests_open", METRIC_GAUGE, "Requests in the house."},
    {"mooncake_requests_queued", METRIC_GAUGE, "Of them, waiting for room."},
    {"mooncake_workers", METRIC_GAUGE, "Workers that are registered."},
    {"mooncake_copies_bytes", METRIC_GAUGE, "Of what was copied, about so much is still there."},
};

enum row {
    REQUESTS,
    ROUTES,
    PROMPT_TOKENS,
    REUSED_TOKENS,
    ANSWER_TOKENS,
    TTFT,
    TTFT_PREDICTED,
    TTFT_RATIO,
    TBT,
    PLACEMENT,
    MOVES,
    SLO_REFUSALS,
    CLIENTS_LEFT,
    COPIED_BYTES,
    OPEN,
    QUEUED,
    WORKERS,
    COPIES,
    ROWS
};
static_assert(sizeof rows / sizeof rows[0] == ROWS, "one name per row");

void conductor_counters_init(struct conductor_counters *count, struct metrics *metrics)
{
    struct metric *family[ROWS];

    for (int i = 0; i < ROWS; i++)
        family[i] = metrics_add(metrics, &rows[i]);
    *count = (struct conductor_counters){
        .metrics = metrics,
        .requests = family[REQUESTS],
        .routes = family[ROUTES],
        .prompt_tokens = metric_only(family[PROMPT_TOKENS]),
        .reused_tokens = metric_only(family[REUSED_TOKENS]),
        .answer_tokens = metric_only(family[ANSWER_TOKENS]),
        .ttft = metric_only(family[TTFT]),
        .ttft_predicted = metric_only(family[TTFT_PREDICTED]),
        .ttft_ratio = metric_only(family[TTFT_RATIO]),
        .tbt = metric_only(family[TBT]),
        .queue = metric_only(family[PLACEMENT]),
        .moved = metric_only(family[MOVES]),
        .refused_slo = metric_only(family[SLO_REFUSALS]),
        .cancelled = metric_only(family[CLIENTS_LEFT]),
        .copied_bytes = metric_only(family[COPIED_BYTES]),
        .running = metric_only(family[OPEN]),
        .queued = metric_only(family[QUEUED]),
        .workers = metric_only(family[WORKERS]),
        .copies = metric_only(family[COPIES]),
    };
}
