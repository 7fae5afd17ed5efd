/* settings_check.c - values that only the rooms below know to be right, checked before anything starts, so that a misspelt one
 * is one line and no half-started cluster. Names come from the tables of those rooms. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "mooncake/kvcache.h"
#include "mooncake/scheduler.h"
#include "net/addr.h"
#include "replay/evictions.h"
#include "replay/policies.h"
#include "store/evict/evict.h"

enum { TRANSPORT_NAME_MAX = 16 };

struct check {
    const struct cli *cli;
    unsigned sections;
    int code;
};

/* Name number `index` of a table; NULL behind the last. */
typedef const char *name_at_fn(size_t index);

static const char *policy_at(size_t index)
{
    const struct mc_sched_policy *policy = mc_sched_policy_at(index);

    return policy ? policy->name : NULL;
}

static const char *evict_at(size_t index)
{
    return evict_policies[index] ? evict_policies[index]->name : NULL;
}

static const char *replay_evict_at(size_t index)
{
    struct eviction eviction;

    return eviction_at(index, &eviction) ? eviction.policy->name : NULL;
}

static const char *replay_policy_name_at(size_t index)
{
    const struct mc_sched_policy *policy = replay_policy_at(index);

    return policy ? policy->name : NULL;
}

static const char *transport_at(size_t index)
{
    static const char *const names[] = {"auto", "tcp", "shm", "shm-memfd", "shm-vm", NULL};

    return names[index];
}

static const char *dtype_at(size_t index)
{
    static const char *const names[] = {"fp32", "fp16", "bf16", "fp8", "int8", "q8_0", "q4_0", NULL};

    return names[index];
}

static void check_name(struct check *check, const struct opt_value *value, const char *text, name_at_fn *name_at)
{
    const char *near = NULL, *name;
    size_t nearest = 3;
    char all[256] = "";

    for (size_t i = 0; (name = name_at(i)) != NULL; i++) {
        size_t distance = edit_distance(text, name);

        if (distance == 0)
            return;
        if (distance < nearest) {
            nearest = distance;
            near = name;
        }
        strncat(all, i ? "|" : "", sizeof(all) - strlen(all) - 1);
        strncat(all, name, sizeof(all) - strlen(all) - 1);
    }
    check->code = cli_fail(check->cli, CLI_USAGE, "--%s: '%s' is not one of %s%s%s%s (%s)", value->row->name, text, all,
        near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "", value->where);
}

static void check_policy(struct check *check, const struct opt_value *value)
{
    check_name(check, value, value->value, check->sections & SET_CLUSTER ? replay_policy_name_at : policy_at);
}

static void check_evict(struct check *check, const struct opt_value *value)
{
    check_name(check, value, value->value, check->sections & SET_CLUSTER ? replay_evict_at : evict_at);
}

static void check_dtype(struct check *check, const struct opt_value *value)
{
    if (!mc_dtype_find(value->value))
        check_name(check, value, value->value, dtype_at);
}

/* A list with commas. */
static void check_transport(struct check *check, const struct opt_value *value)
{
    for (const char *at = value->value; *at && check->code == CLI_OK;) {
        char name[TRANSPORT_NAME_MAX];
        size_t len = strcspn(at, ",");

        snprintf(name, sizeof(name), "%.*s", len > INT_MAX ? INT_MAX : (int)len, at);
        check_name(check, value, name, transport_at);
        at += len + (at[len] == ',');
    }
}

static void check_block_tokens(struct check *check, const struct opt_value *value)
{
    long tokens = strtol(value->value, NULL, 10);

    if (tokens & (tokens - 1))
        check->code = cli_fail(
            check->cli, CLI_USAGE, "--%s: %ld is no power of two (%s)", value->row->name, tokens, value->where);
}

static void check_chunk_tokens(struct check *check, const struct opt_value *value)
{
    long tokens = strtol(value->value, NULL, 10);

    if (tokens % 64)
        check->code = cli_fail(
            check->cli, CLI_USAGE, "--%s: %ld is no multiple of 64 (%s)", value->row->name, tokens, value->where);
}

/* A port may be left out where there is a usual one. */
static void check_address(struct check *check, const struct opt_value *value)
{
    struct addr addr;
    const char *why;

    if (addr_parse(value->value, 1, &addr, &why) != MC_OK)
        check->code =
            cli_fail(check->cli, CLI_USAGE, "--%s: '%s': %s (%s)", value->row->name, value->value, why, value->where);
}

static const struct {
    const char *option;
    void (*check)(struct check *check, const struct opt_value *value);
} checks[] = {
    {"transport", check_transport},
    {"policy", check_policy},
    {"evict", check_evict},
    {"dtype", check_dtype},
    {"block-tokens", check_block_tokens},
    {"chunk-tokens", check_chunk_tokens},
};
#define CHECKS (sizeof(checks) / sizeof(checks[0]))

static void check_value(void *arg, const struct opt_value *value)
{
    struct check *check = arg;

    if (check->code != CLI_OK || !value->value || !*value->value || !settings_has(check->sections, value->row))
        return;
    if (value->row->unit && strcmp(value->row->unit, "ADDR") == 0)
        check_address(check, value);
    for (size_t i = 0; i < CHECKS; i++)
        if (strcmp(value->row->name, checks[i].option) == 0)
            checks[i].check(check, value);
}

int cli_check_settings(const struct cli *cli)
{
    struct check check = {.cli = cli, .sections = cli->command->sections, .code = CLI_OK};

    options_visit(cli->options, check_value, &check);
    return check.code;
}
