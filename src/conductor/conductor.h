/* conductor.h - the front of the cluster: OpenAI-compatible HTTP on one port, workers dial in on another.
 *
 *   struct conductor   one loop (thread), its HTTP server, the fleet of workers, a Store client for prefix queries, and a
 *                      small thread that asks the Store for its nodes
 *
 * Works without a Store and without workers (then requests are 503 within a second).
 * Threads: create, start, stop, destroy from one thread; the rest as said. */
#ifndef CONDUCTOR_CONDUCTOR_H
#define CONDUCTOR_CONDUCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

struct conductor;

/* Start from conductor_opts_init(). Texts are borrowed during create only. */
struct conductor_opts {
    const char *http_listen;     /* "127.0.0.1:7480"; port 0: any */
    const char *fleet_listen;    /* "127.0.0.1:7481": framed, workers dial it */
    const char *master;          /* of the Store; NULL: no Store, everything is computed */
    const char *store_transport; /* as in mc_store_opts; NULL: auto */
    const char *host_id;         /* NULL: the kernel's boot id */
    uint32_t ns;                 /* Store namespace */
    const char *policy;          /* name in the table of policies; NULL: the first one */
    const char *record;          /* file that traffic is recorded into (record.h); NULL: none */
    double slo_ttft_ms;          /* 0: none; beyond it a request is refused with 429 */
    double slo_tbt_ms;           /* 0: none */
    uint32_t queue_max;          /* requests waiting for room; more are 429 */
    uint32_t requests_max;       /* requests in the house */
    uint32_t queue_ms;           /* longest wait for room */
    uint32_t request_ms;         /* longest life of a request */
    uint32_t prefix_ms;          /* longest wait for the Store's answer about a prefix */
    uint32_t prefill_depth;      /* prompts given to a worker before it finished others */
    uint32_t answer_tokens;      /* of a chat that sets no maximum */
    uint32_t explain_max;        /* explanations kept */
};
void conductor_opts_init(struct conductor_opts *opts);

/* Open both ports. `err` (may be NULL) gets one sentence on failure.
 *   MC_EINVAL  an option; err names it     MC_EEXIST  a port is taken     MC_ENOMEM, MC_ESYS */
enum mc_status conductor_create(const struct conductor_opts *opts, struct conductor **out, char *err, size_t err_size);

/* Serve on a thread of its own, from now on. MC_OK, MC_ENOMEM, MC_ESYS. */
enum mc_status conductor_start(struct conductor *conductor);

/* Accept nothing new; wait until open requests have ended, at most timeout_ms. MC_OK or MC_ETIMEDOUT (what is open will be cut by
 * destroy). */
enum mc_status conductor_drain(struct conductor *conductor, uint32_t timeout_ms);

/* Stop serving; open requests are cut. NULL is allowed. */
void conductor_destroy(struct conductor *conductor);

/* "127.0.0.1:7480", as bound. Lent. Any thread. */
const char *conductor_http_address(const struct conductor *conductor);
const char *conductor_fleet_address(const struct conductor *conductor);

/* Registered workers at this moment; any thread. */
unsigned conductor_workers(const struct conductor *conductor);

#endif
