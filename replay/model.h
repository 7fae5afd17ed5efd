/* model.h - what a simulated cluster is made of: how long prefill, decode and transfers take, and how much memory there is.
 *
 * Times follow from the machine and the model unless a coefficient is given itself:
 *
 *     prefill of n tokens, h of them reused  = base + token (n - h) + pair (n^2 - h^2)
 *         token = layers 22 d^2 / (flops utilisation),  pair = layers 4 d / (flops utilisation)
 *     decode step of b sequences with k tokens of KV  = base + sequence b + kv k
 *         base = weights / memory bandwidth,  kv = bytes per token / memory bandwidth
 *     transfer of x bytes = latency + x / bandwidth, after what is queued at the sender and at the receiver
 *
 * All of it can be set from a JSON file of the names in model.c; docs/replay.md lists them with units, sources and defaults.
 *
 * Threads: filled once, read-only then. */
#ifndef REPLAY_MODEL_H
#define REPLAY_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/scheduler.h"
#include "mooncake/status.h"

enum { MODEL_PREFILL_MAX = 63, MODEL_WORKERS_MAX = 128 };

struct model {
    /* the model */
    double layers, d_model, gqa, element_bytes, weight_bytes;
    /* an instance */
    double flops, utilisation, memory_gb_s, memory_utilisation;
    double link_gb_s, link_latency_ms, own_gb_s, ssd_gb_s, ssd_latency_ms;
    /* coefficients; negative: from the above */
    double prefill_base_ms, prefill_token_ms, prefill_pair_ms;
    double decode_base_ms, decode_sequence_ms, decode_kv_token_ns;
    double kv_token_bytes;
    /* the engine */
    double block_tokens, chunk_tokens, sequences, direct_tokens_max;
    double first_token_by_decode; /* 1: the first token comes out of a decode step, 0: of the prefill */
    double handover;              /* 1: KV travels from prefill to decode, 0: that costs nothing */
    /* the cluster */
    double prefill, decode, cache_tokens, ssd_tokens, decode_kv_tokens; /* ssd_tokens 0: no SSD */
    double shared; /* 1: a node's cache can be read by all, 0: by its own instance only */
};

/* LLaMA3-70B on nodes of 8 x 312 TFLOP/s: docs/replay.md. */
void model_init(struct model *model);

/* Set what the file names. MC_OK; MC_EINVAL or MC_ESYS and `why` filled. */
enum mc_status model_read(struct model *model, const char *path, char *why, size_t size);

/* Set the coefficients that live workers have measured: what a Conductor answers to GET /v1/fits/MODEL. As model_read(), and a value
 * that is no coefficient is MC_EINVAL. */
enum mc_status model_read_fit(struct model *model, const char *path, char *why, size_t size);

/* Fill the coefficients that are still negative. MC_OK; MC_EINVAL and `why`: a value makes no sense. */
enum mc_status model_complete(struct model *model, char *why, size_t size);

/* The same as the scheduler's fits, which a live worker has learned by measuring. */
void model_fits(const struct model *model, struct mc_fit *prefill, struct mc_fit *decode);

double model_prefill_ms(const struct model *model, double from, double to);
double model_decode_ms(const struct model *model, double sequences, double kv_tokens);

#endif
