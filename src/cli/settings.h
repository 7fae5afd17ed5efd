/* settings.h - the one option table: every option of every command, what it means, where its value goes.
 *
 * A name means the same everywhere: --master is the flag of each command that talks to the master, MOONCAKE_MASTER the
 * variable, `master = ...` the line of a config file. Rows stand in sections; a command names the sections it reads, the
 * others are known but not its own. docs/options.md is printed from here.
 *
 * Threads: filled once by main(), read-only afterwards. */
#ifndef CLI_SETTINGS_H
#define CLI_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/options.h"

enum settings_section {
    SET_LOG = 1 << 0,
    SET_NET = 1 << 1,       /* transport and identity of any process of the data path */
    SET_MASTER_AT = 1 << 2, /* where the master is */
    SET_MASTER = 1 << 3,
    SET_NODE = 1 << 4,
    SET_ENGINE = 1 << 5,
    SET_WORKER = 1 << 6,
    SET_CONDUCTOR = 1 << 7,
    SET_UP = 1 << 8,
    SET_CHILD = 1 << 9, /* how `up` talks to its children; hidden */
    SET_TOOL = 1 << 10,
    SET_URL = 1 << 11, /* where the Conductor is */
    SET_KV = 1 << 12,
    SET_CHAT = 1 << 13,
    SET_REPORT = 1 << 14,
    SET_CALC = 1 << 15,
    SET_BENCH = 1 << 16,
    SET_TOP = 1 << 17,
    SET_HELP = 1 << 18,
    SET_DRAIN = 1 << 19,
    SET_MODEL = 1 << 20,
    SET_TIMEOUT = 1 << 21,
    SET_STORE = 1 << 22,
    SET_EVICT = 1 << 23,
    SET_POLICY = 1 << 24, /* who gets a request, and when it is refused */
    SET_REPLAY = 1 << 25,
    SET_TRACE = 1 << 26, /* a file of requests */
    SET_CLUSTER = 1 << 27,
    SET_PLAN = 1 << 28,
    SET_EVERY = (1 << 29) - 1,
};

enum settings_engine { ENGINE_AUTO, ENGINE_SYNTHETIC, ENGINE_LLAMA };
enum settings_role { ROLE_SET_BOTH, ROLE_SET_PREFILL, ROLE_SET_DECODE };

struct settings {
    int log; /* enum log_level */

    const char *transport, *fault, *host_id, *run_dir;

    const char *master;

    const char *master_listen, *admin_listen;
    int64_t objects_max;

    const char *node_listen, *node_admin, *advertise, *node_name, *zone, *state_dir, *evict;
    uint64_t memory, segment_size;
    bool prefault;

    int engine; /* enum settings_engine */
    const char *engine_path, *model, *model_name;
    int64_t threads, context_tokens, sequences, block_tokens, chunk_tokens;
    double synthetic_prefill, synthetic_decode;
    int64_t synthetic_seed;

    int role; /* enum settings_role */
    const char *workers_at, *worker_name;
    uint64_t drain_ms;
    bool store;

    const char *conductor_listen, *workers_listen, *policy, *record;
    uint64_t slo_ttft_ms, slo_tbt_ms;
    int64_t queue_max;

    bool any_port, log_files;
    int64_t prefill_workers, decode_workers;

    int64_t ready_fd;

    bool json;
    uint64_t timeout_ms;

    const char *url;

    int64_t ns;
    bool force;

    const char *system;
    int64_t max_tokens;
    double temperature;
    bool no_cache;

    bool once;
    const char *report;

    int64_t layers, kv_heads, head_dim;
    const char *dtype, *tokens;

    int op; /* index of op_names */
    uint64_t size;
    int64_t batch, rounds, instances, queries;
    double seconds;
    bool plain, named, verify;

    uint64_t interval_ms;

    const char *trace;
    int64_t one_pool;
    bool strict;
    const char *cluster, *cache_tokens, *compare, *requests_out, *sweep;
    int64_t prefill, decode, seed, never_refuse, stuck;
    double speed;

    const char *fit, *tiers, *decisions;
    bool regret;
    double share, price_instance, price_cache;
    int64_t instances_max;

    bool markdown;
};

struct settings_rows {
    unsigned section;
    const char *title;
    const struct opt_row *rows;
    size_t count;
};

/* Ended by a row without rows. */
extern const struct settings_rows settings_table[];

/* Names of the enums, ended by NULL. */
extern const char *const settings_engine_names[];
extern const char *const settings_role_names[];
extern const char *const settings_op_names[];

/* Does the row stand in one of the sections? */
bool settings_has(unsigned sections, const struct opt_row *row);

/* Add every section to `options`: those in `sections` fill `set`, the others are only known. `set` may be NULL. */
void settings_add(struct options *options, unsigned sections, struct settings *set);

#endif
