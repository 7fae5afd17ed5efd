/* settings.c - the rows of the option table, section by section. See settings.h. */
#include "cli/settings.h"

#define AT(field)   offsetof(struct settings, field)
#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

static const char *const log_names[] = {"error", "warn", "info", "debug", NULL};
const char *const settings_engine_names[] = {"auto", "synthetic", "llama", NULL};
const char *const settings_role_names[] = {"both", "prefill", "decode", NULL};
const char *const settings_op_names[] = {"read", "write", "put", "get", "exists", NULL};

static const struct opt_row log_rows[] = {
    {"log", OPT_ENUM, AT(log), "info", log_names, .help = "least serious lines that are written to standard error"},
};

static const struct opt_row net_rows[] = {
    {"transport", OPT_STRING, AT(transport), "auto", .unit = "NAME",
        .help = "auto, tcp or shm; a transport asked for by name never falls back"},
    {"fault", OPT_STRING, AT(fault), NULL, .unit = "SPEC", .flags = OPT_HIDDEN,
        .help = "inject faults: seed=7,drop=0.01,delay_ms=5,cut=0.001,corrupt=0.001"},
    {"host-id", OPT_STRING, AT(host_id), NULL, .unit = "TEXT",
        .help = "processes with equal host ids try shared memory; default the kernel's boot id"},
    {"run-dir", OPT_STRING, AT(run_dir), NULL, .unit = "DIR",
        .help = "0700 directory of the Unix sockets; default $XDG_RUNTIME_DIR/mooncake or /tmp/mooncake-UID"},
};

static const struct opt_row master_at_rows[] = {
    {"master", OPT_STRING, AT(master), "127.0.0.1:7400", .unit = "ADDR", .help = "where the master listens"},
};

static const struct opt_row master_rows[] = {
    {"master-listen", OPT_STRING, AT(master_listen), "127.0.0.1:7400", .unit = "ADDR",
        .help = "address of the master; port 0 takes a free one"},
    {"admin-listen", OPT_STRING, AT(admin_listen), "127.0.0.1:7401", .unit = "ADDR",
        .help = "address of the master's admin HTTP: /healthz, /metrics, /v1/nodes, /v1/where"},
    {"objects-max", OPT_INT, AT(objects_max), "4000000", .min = 1000, .max = 1e9, .help = "copies indexed at most"},
};

static const struct opt_row node_rows[] = {
    {"node-listen", OPT_STRING, AT(node_listen), "127.0.0.1:7402", .unit = "ADDR",
        .help = "address of the node; port 0 takes a free one"},
    {"memory", OPT_SIZE, AT(memory), "1G", .min = 1 << 20, .help = "memory the node gives to the cache"},
    {"segment-size", OPT_SIZE, AT(segment_size), NULL, .help = "size of one memfd; 0: as large as is sensible"},
    {"prefault", OPT_BOOL, AT(prefault), "yes", .help = "touch all memory in the background at start"},
    {"node-name", OPT_STRING, AT(node_name), NULL, .unit = "TEXT", .help = "name for people; default the host name"},
    {"zone", OPT_STRING, AT(zone), NULL, .unit = "TEXT", .help = "rack or room; nearer nodes are preferred"},
    {"state-dir", OPT_STRING, AT(state_dir), NULL, .unit = "DIR",
        .help = "identity and epoch; default node-PORT in $XDG_STATE_HOME/mooncake, none for port 0"},
    {"node-admin", OPT_STRING, AT(node_admin), NULL, .unit = "ADDR", .help = "admin HTTP of the node; default none"},
    {"advertise", OPT_STRING, AT(advertise), NULL, .unit = "ADDR", .help = "address others are told; default as bound"},
};

static const struct opt_row model_rows[] = {
    {"model", OPT_STRING, AT(model), NULL, .unit = "FILE",
        .help = "weights, a GGUF file; default what ./quickstart fetched; calc reads the geometry from it"},
};

static const struct opt_row engine_rows[] = {
    {"engine", OPT_ENUM, AT(engine), "auto", settings_engine_names,
        .help = "auto takes llama when plug-in and weights are there, else synthetic"},
    {"engine-path", OPT_STRING, AT(engine_path), NULL, .unit = "FILE",
        .help = "the engine's plug-in or its folder; default beside the binary, then the cache directory"},
    {"model-name", OPT_STRING, AT(model_name), NULL, .unit = "TEXT", .help = "name to serve it under; default its own"},
    {"threads", OPT_INT, AT(threads), "0", .min = 0, .max = 256,
        .help = "compute threads of an engine, 0: the cores; bench transfer and store: threads that submit"},
    {"context-tokens", OPT_INT, AT(context_tokens), "0", .min = 0, .max = 1 << 24,
        .help = "tokens an engine holds, all its sequences together; 0: 8192"},
    {"sequences", OPT_INT, AT(sequences), "0", .min = 0, .max = 254, .help = "requests an engine runs at once; 0: 16"},
    {"block-tokens", OPT_INT, AT(block_tokens), "64", .min = 16, .max = 4096,
        .help = "tokens of a block, a power of two, part of the fingerprint"},
    {"chunk-tokens", OPT_INT, AT(chunk_tokens), "0", .min = 0, .max = 65536,
        .help = "prompt tokens computed between two decode steps, a multiple of 64; 0: 256"},
    {"synthetic-prefill", OPT_FLOAT, AT(synthetic_prefill), "4000", .min = 0, .unit = "TOKENS/S",
        .help = "speed of the synthetic engine's prefill; 0: as fast as it can"},
    {"synthetic-decode", OPT_FLOAT, AT(synthetic_decode), "2", .min = 0, .unit = "MS",
        .help = "time of the synthetic engine's decode step; 0: as fast as it can"},
    {"synthetic-seed", OPT_INT, AT(synthetic_seed), "0", .min = 0, .help = "another seed is another synthetic model"},
};

static const struct opt_row worker_rows[] = {
    {"role", OPT_ENUM, AT(role), "both", settings_role_names, .help = "what the worker does"},
    {"workers-at", OPT_STRING, AT(workers_at), "127.0.0.1:7481", .unit = "ADDR",
        .help = "where the Conductor waits for workers"},
    {"worker-name", OPT_STRING, AT(worker_name), NULL, .unit = "TEXT", .help = "name for people; default role and pid"},
};

static const struct opt_row store_rows[] = {
    {"store", OPT_BOOL, AT(store), "yes", .help = "use the Store; --no-store computes everything"},
};

static const struct opt_row drain_rows[] = {
    {"drain-ms", OPT_MS, AT(drain_ms), "30s", .min = 0, .max = 86400000,
        .help = "how long SIGTERM lets running requests finish"},
};

static const struct opt_row conductor_rows[] = {
    {"conductor-listen", OPT_STRING, AT(conductor_listen), "127.0.0.1:7480", .unit = "ADDR",
        .help = "address of the HTTP API and the page"},
    {"workers-listen", OPT_STRING, AT(workers_listen), "127.0.0.1:7481", .unit = "ADDR",
        .help = "address workers dial in to"},
    {"record", OPT_STRING, AT(record), NULL, .unit = "FILE",
        .help = "write traffic as a trace, ids only, and every decision into FILE.decisions; see replay --decisions"},
    {"queue-max", OPT_INT, AT(queue_max), "256", .min = 1, .max = 1 << 20,
        .help = "requests that may wait; more are answered 429"},
};

static const struct opt_row evict_rows[] = {
    {"evict", OPT_STRING, AT(evict), NULL, .unit = "NAME",
        .help = "eviction policy; default mooncake; lru for a node too, density, s3fifo, arc and opt in a replay only"},
};

static const struct opt_row policy_rows[] = {
    {"policy", OPT_STRING, AT(policy), NULL, .unit = "NAME", .help = "scheduling policy; default mooncake"},
    {"slo-ttft-ms", OPT_MS, AT(slo_ttft_ms), "0", .help = "refuse what cannot have its first token by then; 0: never"},
    {"slo-tbt-ms", OPT_MS, AT(slo_tbt_ms), "0", .help = "refuse what would make tokens slower than this; 0: never"},
};

static const struct opt_row up_rows[] = {
    {"any-port", OPT_BOOL, AT(any_port), "no", .help = "take free ports instead of the fixed ones"},
    {"prefill-workers", OPT_INT, AT(prefill_workers), "1", .min = 0, .max = 16, .help = "prefill workers to start"},
    {"decode-workers", OPT_INT, AT(decode_workers), "1", .min = 0, .max = 16, .help = "decode workers to start"},
    {"log-files", OPT_BOOL, AT(log_files), "no",
        .help = "children write their logs to $XDG_STATE_HOME/mooncake/*.log instead of standard error"},
};

static const struct opt_row child_rows[] = {
    {"ready-fd", OPT_INT, AT(ready_fd), "-1", .min = -1, .max = 1 << 20, .flags = OPT_HIDDEN | OPT_ONLY_ARGV,
        .help = "write the bound addresses to this descriptor when ready"},
};

static const struct opt_row tool_rows[] = {
    {"json", OPT_BOOL, AT(json), "no", .flags = OPT_ONLY_ARGV, .help = "print JSON for programs"},
};

static const struct opt_row timeout_rows[] = {
    {"timeout-ms", OPT_MS, AT(timeout_ms), "5s", .min = 1, .max = 86400000, .help = "how long to wait for an answer"},
};

static const struct opt_row url_rows[] = {
    {"url", OPT_STRING, AT(url), "http://127.0.0.1:7480", .unit = "URL", .help = "where the Conductor is"},
};

static const struct opt_row kv_rows[] = {
    {"namespace", OPT_INT, AT(ns), "0", .min = 0, .max = 4294967295.0, .help = "tenant and model the keys belong to"},
    {"force", OPT_BOOL, AT(force), "no", .flags = OPT_ONLY_ARGV, .help = "remove even what is promised to a reader"},
};

static const struct opt_row chat_rows[] = {
    {"system", OPT_STRING, AT(system), NULL, .unit = "TEXT", .help = "system message in front of the conversation"},
    {"max-tokens", OPT_INT, AT(max_tokens), "256", .min = 1, .max = 1 << 20, .help = "longest answer"},
    {"temperature", OPT_FLOAT, AT(temperature), "0", .min = 0, .max = 2, .help = "0 always takes the likeliest token"},
    {"no-cache", OPT_BOOL, AT(no_cache), "no", .flags = OPT_ONLY_ARGV, .help = "compute without reading the cache"},
};

static const struct opt_row report_rows[] = {
    {"report", OPT_STRING, AT(report), NULL, .unit = "FILE", .flags = OPT_ONLY_ARGV,
        .help = "demo: the figures as JSON; replay: one HTML page with plots"},
};

static const struct opt_row calc_rows[] = {
    {"layers", OPT_INT, AT(layers), "0", .min = 0, .max = 65536, .help = "layers that keep a KVCache"},
    {"kv-heads", OPT_INT, AT(kv_heads), "0", .min = 0, .max = 65536, .help = "heads of K and V"},
    {"head-dim", OPT_INT, AT(head_dim), "0", .min = 0, .max = 65536, .help = "elements of a head"},
    {"dtype", OPT_STRING, AT(dtype), "fp16", .unit = "NAME", .help = "element type: fp32 fp16 bf16 fp8 int8 q8_0 q4_0"},
    {"tokens", OPT_STRING, AT(tokens), "32K", .unit = "COUNT", .help = "length of the context: 4096, 32K, 1M"},
};

static const struct opt_row bench_rows[] = {
    {"op", OPT_ENUM, AT(op), "read", settings_op_names, .help = "transfer: read or write; store: put, get or exists"},
    {"size", OPT_SIZE, AT(size), "1M", .min = 1, .max = 1 << 30, .help = "bytes of one operation"},
    {"batch", OPT_INT, AT(batch), "1", .min = 1, .max = 65536, .help = "operations submitted together"},
    {"seconds", OPT_FLOAT, AT(seconds), "3", .min = 0.1, .max = 86400, .help = "how long to measure"},
    {"rounds", OPT_INT, AT(rounds), "5", .min = 1, .max = 1000,
        .help = "serve, index: rounds, interleaved with the baseline"},
    {"instances", OPT_INT, AT(instances), "16", .min = 1, .max = 64, .help = "index: workers that report blocks"},
    {"queries", OPT_INT, AT(queries), "1000000", .min = 0, .max = 1e12,
        .help = "index: prompts whose answers are compared with a search from end to end"},
    {"plain", OPT_BOOL, AT(plain), "no", .help = "transfer: memory that is no memfd"},
    {"named", OPT_BOOL, AT(named), "no", .help = "store: named keys in place of block keys"},
    {"verify", OPT_BOOL, AT(verify), "no", .help = "compare what arrived with what was sent"},
};

static const struct opt_row top_rows[] = {
    {"once", OPT_BOOL, AT(once), "no", .flags = OPT_ONLY_ARGV, .help = "print one view and end"},
    {"interval-ms", OPT_MS, AT(interval_ms), "1s", .min = 100, .max = 3600000, .help = "time between two views"},
};

static const struct opt_row trace_rows[] = {
    {"trace", OPT_STRING, AT(trace), NULL, .unit = "FILE", .flags = OPT_ONLY_ARGV,
        .help = "requests, one JSON object a line: timestamp, input_length, output_length, hash_ids"},
    {"strict", OPT_BOOL, AT(strict), "no", .flags = OPT_ONLY_ARGV, .help = "a bad line of the trace is an error"},
    {"seed", OPT_INT, AT(seed), "0", .min = 0, .max = 9e15, .flags = OPT_ONLY_ARGV,
        .help = "replay: how ties are broken; other than 0: gaps between arrivals vary by 10 % too; bench index: of "
                "its prompts"},
};

static const struct opt_row cluster_rows[] = {
    {"cluster", OPT_STRING, AT(cluster), NULL, .unit = "FILE", .flags = OPT_ONLY_ARGV,
        .help = "what the cluster is made of, as JSON; default LLaMA3-70B on 8 + 8 nodes (docs/replay.md)"},
    {"fit", OPT_STRING, AT(fit), NULL, .unit = "FILE", .flags = OPT_ONLY_ARGV,
        .help = "coefficients that live workers have measured: what a Conductor answers to GET /v1/fits/MODEL"},
    {"prefill", OPT_INT, AT(prefill), "0", .min = 0, .max = 63, .flags = OPT_ONLY_ARGV,
        .help = "prefill instances; 0: as --cluster says"},
    {"decode", OPT_INT, AT(decode), "0", .min = 0, .max = 65, .flags = OPT_ONLY_ARGV,
        .help = "decode instances; 0: as --cluster says"},
    {"cache-tokens", OPT_STRING, AT(cache_tokens), NULL, .unit = "COUNT", .flags = OPT_ONLY_ARGV,
        .help = "cache of one node: 3000000, 3M (M is a million); default as --cluster says"},
    {"tiers", OPT_STRING, AT(tiers), NULL, .unit = "LIST", .flags = OPT_ONLY_ARGV,
        .help = "tokens of cache of one node by tier: dram=3M,ssd=30M; no SSD when it is not named"},
    {"speed", OPT_FLOAT, AT(speed), "1", .min = 1e-6, .max = 1e6, .flags = OPT_ONLY_ARGV,
        .help = "requests arrive that much faster than in the trace"},
    {"never-refuse", OPT_INT, AT(never_refuse), "-1", .min = -1, .max = 9e15, .flags = OPT_ONLY_ARGV,
        .help = "the request of this number (from 0) has no SLO: was it right to refuse it?"},
    {"stuck", OPT_INT, AT(stuck), "-1", .min = -1, .max = 62, .unit = "INSTANCE", .flags = OPT_ONLY_ARGV,
        .help = "this prefill instance (from 0) is at full load all the time; its cache is there"},
};

static const struct opt_row plan_rows[] = {
    {"share", OPT_FLOAT, AT(share), "0.9", .min = 1e-6, .max = 1, .flags = OPT_ONLY_ARGV,
        .help = "share of requests that must be within the SLO"},
    {"instances-max", OPT_INT, AT(instances_max), "63", .min = 1, .max = 63, .flags = OPT_ONLY_ARGV,
        .help = "most instances of a kind to consider"},
    {"price-instance", OPT_FLOAT, AT(price_instance), "1", .min = 0, .max = 1e12, .flags = OPT_ONLY_ARGV,
        .help = "price of an instance, in any unit"},
    {"price-cache", OPT_FLOAT, AT(price_cache), "0.02", .min = 0, .max = 1e12, .flags = OPT_ONLY_ARGV,
        .help = "price of a million tokens of cache, in the same unit; default 328 GB of memory to a node of 8 GPUs"},
};

static const struct opt_row replay_rows[] = {
    {"one-pool", OPT_INT, AT(one_pool), "0", .min = 0, .max = 1 << 28, .unit = "BLOCKS", .flags = OPT_ONLY_ARGV,
        .help = "no cluster: hit rate of one pool of so many blocks"},
    {"compare", OPT_STRING, AT(compare), NULL, .unit = "NAMES", .flags = OPT_ONLY_ARGV,
        .help = "several policies side by side, with commas; all: every one"},
    {"requests-out", OPT_STRING, AT(requests_out), NULL, .unit = "FILE", .flags = OPT_ONLY_ARGV,
        .help = "write how each request ended, one JSON object a line"},
    {"sweep", OPT_STRING, AT(sweep), NULL, .unit = "NAME=FROM..TO", .flags = OPT_ONLY_ARGV,
        .help = "runs over a range of cache-tokens, prefill, decode or speed: cache-tokens=1M..50M"},
    {"decisions", OPT_STRING, AT(decisions), NULL, .unit = "FILE", .flags = OPT_ONLY_ARGV,
        .help = "no cluster: make the decisions that a Conductor recorded (conductor --record) again, and compare"},
    {"regret", OPT_BOOL, AT(regret), "no", .flags = OPT_ONLY_ARGV,
        .help = "compare hits with those of one pool of all memory that knows the future; reads the trace twice more"},
};

static const struct opt_row help_rows[] = {
    {"markdown", OPT_BOOL, AT(markdown), "no", .flags = OPT_ONLY_ARGV | OPT_HIDDEN, .help = "print docs/options.md"},
};

const struct settings_rows settings_table[] = {
    {SET_LOG, "Log", log_rows, COUNT(log_rows)},
    {SET_NET, "Transport and identity", net_rows, COUNT(net_rows)},
    {SET_MASTER_AT, "Master, for those who use it", master_at_rows, COUNT(master_at_rows)},
    {SET_MASTER, "Master", master_rows, COUNT(master_rows)},
    {SET_NODE, "Node", node_rows, COUNT(node_rows)},
    {SET_ENGINE, "Engine", engine_rows, COUNT(engine_rows)},
    {SET_MODEL, "Weights", model_rows, COUNT(model_rows)},
    {SET_WORKER, "Worker", worker_rows, COUNT(worker_rows)},
    {SET_STORE, "Store", store_rows, COUNT(store_rows)},
    {SET_DRAIN, "Ending", drain_rows, COUNT(drain_rows)},
    {SET_CONDUCTOR, "Conductor", conductor_rows, COUNT(conductor_rows)},
    {SET_UP, "All on one machine", up_rows, COUNT(up_rows)},
    {SET_CHILD, "Child of up", child_rows, COUNT(child_rows)},
    {SET_TOOL, "Tools", tool_rows, COUNT(tool_rows)},
    {SET_TIMEOUT, "Patience", timeout_rows, COUNT(timeout_rows)},
    {SET_URL, "Conductor, for those who use it", url_rows, COUNT(url_rows)},
    {SET_KV, "Keys", kv_rows, COUNT(kv_rows)},
    {SET_CHAT, "Chat", chat_rows, COUNT(chat_rows)},
    {SET_CALC, "Size arithmetic", calc_rows, COUNT(calc_rows)},
    {SET_BENCH, "Measuring", bench_rows, COUNT(bench_rows)},
    {SET_TOP, "Live view", top_rows, COUNT(top_rows)},
    {SET_EVICT, "Eviction", evict_rows, COUNT(evict_rows)},
    {SET_POLICY, "Scheduling", policy_rows, COUNT(policy_rows)},
    {SET_REPORT, "Report", report_rows, COUNT(report_rows)},
    {SET_TRACE, "Traces", trace_rows, COUNT(trace_rows)},
    {SET_CLUSTER, "A simulated cluster", cluster_rows, COUNT(cluster_rows)},
    {SET_PLAN, "Plan", plan_rows, COUNT(plan_rows)},
    {SET_REPLAY, "Replay of a trace", replay_rows, COUNT(replay_rows)},
    {SET_HELP, "Help", help_rows, COUNT(help_rows)},
    {0, NULL, NULL, 0},
};

bool settings_has(unsigned sections, const struct opt_row *row)
{
    for (const struct settings_rows *part = settings_table; part->rows; part++)
        if (part->section & sections && row >= part->rows && row < part->rows + part->count)
            return true;
    return false;
}

void settings_add(struct options *options, unsigned sections, struct settings *set)
{
    for (const struct settings_rows *part = settings_table; part->rows; part++)
        options_add(options, part->rows, part->count, part->section & sections ? set : NULL);
}
