/* commands.c - the command table. See cli.h. */
#include "cli/alone.h"
#include "cli/cli.h"

#include <string.h>

#define SET_DAEMON (SET_LOG | SET_NET | SET_CHILD)

const struct cli_command cli_commands[] = {
    {"up", "Serve", "all of it on this machine: master, node, workers, Conductor", NULL, 0, 0,
        SET_LOG | SET_NET | SET_MASTER | SET_NODE | SET_EVICT | SET_POLICY | SET_ENGINE | SET_MODEL | SET_CONDUCTOR |
            SET_UP | SET_CHILD | SET_STORE | SET_DRAIN | SET_TOOL,
        cmd_up, "  mooncake up\n  mooncake up --engine synthetic --any-port\n"},
    {"master", "Serve", "index of the Store", NULL, 0, 0, SET_DAEMON | SET_MASTER, cmd_master,
        "  mooncake master --master-listen 10.0.0.1:7400\n"},
    {"node", "Serve", "memory of this host as part of the Store", NULL, 0, 0,
        SET_DAEMON | SET_MASTER_AT | SET_NODE | SET_EVICT, cmd_node,
        "  mooncake node --master 10.0.0.1:7400 --node-listen 10.0.0.2:7402 --memory 64G\n"},
    {"worker", "Serve", "an engine that prefills, decodes, or both", NULL, 0, 0,
        SET_DAEMON | SET_MASTER_AT | SET_ENGINE | SET_MODEL | SET_WORKER | SET_STORE | SET_DRAIN, cmd_worker,
        "  mooncake worker --role prefill --engine synthetic\n"},
    {"conductor", "Serve", "HTTP API, scheduler and page", NULL, 0, 0,
        SET_DAEMON | SET_MASTER_AT | SET_CONDUCTOR | SET_POLICY | SET_STORE | SET_DRAIN, cmd_conductor,
        "  mooncake conductor --conductor-listen 10.0.0.1:7480 --workers-listen 10.0.0.1:7481\n"},

    {"chat", "Use", "talk to the model", "[MESSAGE]", 0, 1, SET_LOG | SET_URL | SET_TOOL | SET_TIMEOUT | SET_CHAT,
        cmd_chat, "  mooncake chat\n  mooncake chat 'What is a KVCache?'\n"},
    {"kv", "Use", "put, get and look at what the Store holds", "put|get|ls|where|prefix|rm [ARG...]", 1, 3,
        SET_LOG | SET_NET | SET_MASTER_AT | SET_TOOL | SET_TIMEOUT | SET_KV, cmd_kv,
        "  mooncake kv put NAME [FILE]     store a file, or standard input\n"
        "  mooncake kv get NAME [FILE]     bring it back, to standard output without FILE\n"
        "  mooncake kv ls [PREFIX]         keys, sizes and owners; keys as the other verbs take them\n"
        "  mooncake kv where KEY           where it lies; a block by its 32 hex digits\n"
        "  mooncake kv prefix ID,ID,...    how many of these block ids are readable from the first on\n"
        "  mooncake kv rm NAME             remove it\n"
        "  exit 3: no such key; exit 4: no master\n"},
    {"top", "Look", "live view of workers, memory and latency", NULL, 0, 0,
        SET_LOG | SET_URL | SET_TOOL | SET_TIMEOUT | SET_TOP, cmd_top,
        "  mooncake top\n  mooncake top --once --json\n"},
    {"doctor", "Look", "find the broken link", NULL, 0, 0,
        SET_LOG | SET_NET | SET_MASTER_AT | SET_NODE | SET_EVICT | SET_POLICY | SET_ENGINE | SET_MODEL | SET_CONDUCTOR |
            SET_URL | SET_TOOL | SET_TIMEOUT,
        cmd_doctor, "  exit 0: all links stand; exit 1: one is broken, the line says which and what to do\n"},
    {"config", "Look", "values in effect and where each comes from", NULL, 0, 0, SET_EVERY, cmd_config,
        "  MOONCAKE_MEMORY=8G mooncake config\n  mooncake config --config mooncake.conf --json\n"},
    {"bench", "Measure", "speed of a part", "transfer|store|serve|index", 1, 1,
        SET_LOG | SET_NET | SET_URL | SET_MASTER | SET_NODE | SET_CONDUCTOR | SET_ENGINE | SET_MODEL | SET_TOOL |
            SET_TIMEOUT | SET_BENCH | SET_TRACE,
        cmd_bench,
        "  mooncake bench transfer --op read --size 1M --json\n  mooncake bench store --op get --size 64K\n"
        "  mooncake bench serve --engine synthetic\n  mooncake bench index --trace FILE --instances 16 --json\n"},
    {"demo", "Measure", "three questions about one document, cold and from the cache", NULL, 0, 0,
        SET_LOG | SET_URL | SET_ENGINE | SET_MODEL | SET_TOOL | SET_TIMEOUT | SET_REPORT, cmd_demo,
        "  mooncake demo --report report.json\n"},
    {"replay", "Measure", "a trace of requests through scheduler and eviction under simulated time", NULL, 0, 0,
        SET_TRACE | SET_CLUSTER | SET_REPLAY | SET_EVICT | SET_POLICY | SET_REPORT | SET_TOOL, cmd_replay,
        "  mooncake replay --trace FILE --policy global --speed 2\n"
        "  mooncake replay --trace FILE --compare random,least-load,local,global,mooncake\n"
        "  mooncake replay --trace FILE --compare all --report out.html\n"
        "  mooncake replay --trace FILE --one-pool 5859 --evict lru --json\n"},
    {"plan", "Measure", "the cheapest cluster that keeps the SLO for a trace", NULL, 0, 0,
        SET_TRACE | SET_CLUSTER | SET_PLAN | SET_EVICT | SET_POLICY | SET_TOOL, cmd_plan,
        "  mooncake plan --trace FILE --slo-ttft-ms 30s --slo-tbt-ms 100 --share 0.95\n"
        "  mooncake plan --trace FILE --slo-ttft-ms 5s --speed 2 --json\n"},
    {"calc", "Measure", "size and transfer time of a KVCache", NULL, 0, 0, SET_CALC | SET_MODEL | SET_TOOL, cmd_calc,
        "  mooncake calc --layers 80 --kv-heads 8 --head-dim 128 --dtype fp16 --tokens 32K\n"
        "  mooncake calc --model SmolLM2.gguf --tokens 8K --json\n"},
    {"alone", NULL, "the engine without anything around it; child of demo and bench", NULL, 0, 0,
        SET_LOG | SET_ENGINE | SET_MODEL, cmd_alone, NULL},
    {"version", "Help", "version of this binary", NULL, 0, 0, 0, cmd_version, NULL},
    {"help", "Help", "this overview, or a command's options", "[COMMAND]", 0, 1, SET_HELP, cmd_help, NULL},
    {0},
};

const struct cli_command *cli_command_find(const char *name)
{
    for (const struct cli_command *command = cli_commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

const char *cli_command_nearest(const char *name)
{
    const char *best = NULL;
    size_t best_distance = 3; /* further away it is no misspelling */

    for (const struct cli_command *command = cli_commands; command->name; command++) {
        if (!command->group)
            continue;
        size_t distance = edit_distance(name, command->name);
        if (distance < best_distance) {
            best_distance = distance;
            best = command->name;
        }
    }
    return best;
}
