/* kv.c - mooncake kv: the Store from the shell. One row of `verbs` each.
 *
 * Keys are names; "block:" and 32 hex digits is a block. `prefix` takes the digits alone. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/options.h"
#include "cli/cli.h"
#include "mooncake/store.h"
#include "store/key.h"

#define BLOCK_PREFIX   "block:"
#define NAME_PREFIX    "name:"
#define PREFIX_IDS_MAX 65536

struct kv {
    struct cli *cli;
    struct mc_store *store;
    uint32_t timeout_ms;
    bool json;
    char name[MC_NAME_MAX]; /* of the key, unescaped */
};

/* ---- helpers ---- */

static int fail_status(const struct kv *kv, const char *key, enum mc_status status)
{
    int code = status == MC_ENOENT ? CLI_MISS : status == MC_EPEERDOWN ? CLI_UNREACHABLE : CLI_FAILED;

    return cli_fail(kv->cli, code, "%s: %s", key, status == MC_ENOENT ? "no such key" : mc_status_str(status));
}

static bool parse_id(const char *text, size_t len, uint8_t id[16])
{
    if (len != 32)
        return false;
    for (size_t i = 0; i < 32; i++) {
        if (!isxdigit((unsigned char)text[i]))
            return false;
        unsigned digit = (unsigned)(isdigit((unsigned char)text[i]) ? text[i] - '0' : (text[i] | 32) - 'a' + 10);
        id[i / 2] = (uint8_t)(i % 2 ? id[i / 2] | digit : digit << 4);
    }
    return true;
}

/* "block:HEX" and "name:ESCAPED" as `ls` prints them, with @group:shard/shards where there are any; everything else is a name
 * as it stands. */
static int make_key(struct kv *kv, const char *text, struct mc_key *key)
{
    bool block = strncmp(text, BLOCK_PREFIX, strlen(BLOCK_PREFIX)) == 0;
    size_t len = strlen(text);
    struct store_key parsed;
    const char *why;

    if (block || strncmp(text, NAME_PREFIX, strlen(NAME_PREFIX)) == 0) {
        if (store_key_parse(slice_str(block ? text + strlen(BLOCK_PREFIX) : text), &parsed, kv->name, &why) != MC_OK)
            return cli_fail(kv->cli, CLI_USAGE, "key %s: %s", text, why);
        *key = store_key_public(&parsed);
        return CLI_OK;
    }
    if (len == 0 || len > MC_NAME_MAX)
        return cli_fail(kv->cli, CLI_USAGE, "key: a name has 1 to %d bytes, this one %zu", MC_NAME_MAX, len);
    mc_key_named(key, text, len);
    return CLI_OK;
}

static void hex(const uint8_t *bytes, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
}

/* Prints and frees. */
static int print_json(json_t *value)
{
    if (!value)
        return CLI_FAILED;
    json_dumpf(value, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(value);
    return CLI_OK;
}

/* ---- put, get, rm ---- */

static int read_all(const struct kv *kv, const char *path, struct buf *data)
{
    FILE *file = path && strcmp(path, "-") != 0 ? fopen(path, "rbe") : stdin;
    int code = CLI_OK;

    if (!file)
        return cli_fail(kv->cli, CLI_FAILED, "%s: %m", path);
    for (;;) {
        void *room = buf_reserve(data, 1 << 16);
        size_t got = room ? fread(room, 1, 1 << 16, file) : 0;
        if (got == 0)
            break;
        buf_commit(data, got);
    }
    if (ferror(file))
        code = cli_fail(kv->cli, CLI_FAILED, "%s: %m", path ? path : "standard input");
    else if (buf_status(data) != MC_OK)
        code = cli_fail(kv->cli, CLI_FAILED, "more than %d bytes: an object is smaller", MC_OBJECT_MAX);
    if (file != stdin)
        fclose(file);
    return code;
}

static int kv_put(struct kv *kv, size_t count, const char *const *args)
{
    struct mc_store_op op = {.opcode = MC_UPSERT};
    struct mc_span span;
    struct buf data;
    int code = make_key(kv, args[0], &op.key);

    if (code != CLI_OK)
        return code;
    if (op.key.kind == MC_KEY_BLOCK)
        op.opcode = MC_PUT;
    buf_init(&data, MC_OBJECT_MAX);
    code = read_all(kv, count > 1 ? args[1] : NULL, &data);
    if (code != CLI_OK)
        goto undo_data;
    span = (struct mc_span){data.data, data.len};
    op.spans = &span;
    op.nspans = 1;
    enum mc_status status = mc_store_sync(kv->store, &op, 1, kv->timeout_ms);
    if (status == MC_OK)
        status = op.result.status;
    if (status != MC_OK) {
        code = fail_status(kv, args[0], status);
        goto undo_data;
    }
    char node[33];
    hex(op.result.node, 16, node);
    if (kv->json)
        code = print_json(json_pack("{s:s, s:I, s:I, s:s, s:b}", "key", args[0], "bytes", (json_int_t)data.len,
            "version", (json_int_t)op.result.version, "node", node, "existed", op.result.existed));
    else
        printf("%s: %zu bytes on node %.8s\n", args[0], data.len, node);
undo_data:
    buf_fini(&data);
    return code;
}

static int write_all(const struct kv *kv, const char *path, const void *data, size_t len)
{
    FILE *file = path && strcmp(path, "-") != 0 ? fopen(path, "wbe") : stdout;
    int code = CLI_OK;

    if (!file)
        return cli_fail(kv->cli, CLI_FAILED, "%s: %m", path);
    if (fwrite(data, 1, len, file) != len || fflush(file) != 0)
        code = cli_fail(kv->cli, CLI_FAILED, "%s: %m", path ? path : "standard output");
    if (file != stdout && fclose(file) != 0 && code == CLI_OK)
        code = cli_fail(kv->cli, CLI_FAILED, "%s: %m", path);
    return code;
}

/* The whole object into fresh memory; its length is asked for first, in a way that promises nothing. */
static int fetch(struct kv *kv, const char *text, struct mc_store_op *op, void **data)
{
    struct mc_location at;
    uint32_t n = 1;
    enum mc_status status = mc_store_where(kv->store, &op->key, kv->timeout_ms, &at, &n);

    if (status != MC_OK || n == 0)
        return fail_status(kv, text, status != MC_OK ? status : MC_ENOENT);
    *data = malloc(at.length ? at.length : 1);
    if (!*data)
        return cli_fail(kv->cli, CLI_FAILED, "%s: no memory for %" PRIu64 " bytes", text, at.length);
    struct mc_span span = {*data, at.length};
    op->opcode = MC_GET;
    op->spans = &span;
    op->nspans = 1;
    status = mc_store_sync(kv->store, op, 1, kv->timeout_ms);
    op->spans = NULL;
    if (status == MC_OK && op->result.status == MC_OK)
        return CLI_OK;
    free(*data);
    if (status == MC_OK && op->result.miss != MC_MISS_NONE)
        return cli_fail(kv->cli, CLI_MISS, "%s: miss, %s", text, mc_miss_str(op->result.miss));
    return fail_status(kv, text, status != MC_OK ? status : op->result.status);
}

static int kv_get(struct kv *kv, size_t count, const char *const *args)
{
    struct mc_store_op op = {0};
    void *data = NULL;
    char node[33];
    int code = make_key(kv, args[0], &op.key);

    if (code == CLI_OK)
        code = fetch(kv, args[0], &op, &data);
    if (code != CLI_OK)
        return code;
    hex(op.result.node, 16, node);
    if (count > 1 || !kv->json)
        code = write_all(kv, count > 1 ? args[1] : NULL, data, op.result.length);
    if (code == CLI_OK && kv->json)
        code = print_json(json_pack("{s:s, s:I, s:I, s:s}", "key", args[0], "bytes", (json_int_t)op.result.length,
            "version", (json_int_t)op.result.version, "node", node));
    free(data);
    return code;
}

static int kv_rm(struct kv *kv, size_t count, const char *const *args)
{
    struct mc_key key;
    int code = make_key(kv, args[0], &key);

    if (code != CLI_OK)
        return code;
    enum mc_status status = mc_store_remove(kv->store, &key, kv->cli->set->force, kv->timeout_ms);
    if (status == MC_EPERM)
        return cli_fail(kv->cli, CLI_FAILED, "%s: promised to a reader; --force removes it all the same", args[0]);
    if (status != MC_OK)
        return fail_status(kv, args[0], status);
    return kv->json ? print_json(json_pack("{s:s}", "removed", args[0])) : CLI_OK;
}

/* ---- ls, where, prefix ---- */

/* "KEY BYTES NODE" of the Store, the key in the form that the other verbs take. */
static int print_entry(const struct kv *kv, char *line)
{
    char *rest = NULL;
    const char *key = strtok_r(line, " ", &rest), *bytes = strtok_r(NULL, " ", &rest),
               *node = strtok_r(NULL, " ", &rest);
    const char *prefix = key && strncmp(key, "name", 4) == 0 ? "" : BLOCK_PREFIX;
    char text[KEY_TEXT_MAX + sizeof(BLOCK_PREFIX)];

    if (!node)
        return cli_fail(kv->cli, CLI_FAILED, "ls: the Store gave a line that is no entry");
    snprintf(text, sizeof(text), "%s%s", prefix, key);
    if (kv->json)
        return print_json(
            json_pack("{s:s, s:I, s:s}", "key", text, "bytes", (json_int_t)strtoull(bytes, NULL, 10), "node", node));
    printf("%s %s %s\n", text, bytes, node);
    return CLI_OK;
}

static int kv_ls(struct kv *kv, size_t count, const char *const *args)
{
    char *text = malloc(1 << 20);
    uint64_t cursor = 0;
    enum mc_status status = MC_OK;

    if (!text)
        return cli_fail(kv->cli, CLI_FAILED, "out of memory");
    do {
        text[0] = 0;
        status = mc_store_list(kv->store, count ? args[0] : "", &cursor, text, 1 << 20, kv->timeout_ms);
        for (char *line = text, *next; status == MC_OK && *line; line = next) {
            next = strchr(line, '\n');
            if (next)
                *next++ = 0;
            else
                next = line + strlen(line);
            if (print_entry(kv, line) != CLI_OK)
                status = MC_EPROTO;
        }
    } while (status == MC_OK && cursor != 0);
    free(text);
    return status == MC_OK ? CLI_OK : fail_status(kv, "ls", status);
}

static int kv_where(struct kv *kv, size_t count, const char *const *args)
{
    static const char *const states[] = {"up", "suspect", "unreachable", "draining"};
    struct mc_location rows[MC_REPLICAS_MAX];
    uint32_t n = MC_REPLICAS_MAX;
    struct mc_key key;
    int code = make_key(kv, args[0], &key);

    if (code != CLI_OK)
        return code;
    enum mc_status status = mc_store_where(kv->store, &key, kv->timeout_ms, rows, &n);
    if (status != MC_OK)
        return fail_status(kv, args[0], status);
    for (uint32_t i = 0; i < n; i++) {
        const struct mc_location *at = &rows[i];
        const char *state = at->state < 4 ? states[at->state] : "?";
        char node[33];
        hex(at->node, 16, node);
        if (kv->json)
            print_json(json_pack("{s:s, s:i, s:s, s:i, s:I, s:I, s:I, s:I}", "node", node, "epoch", (int)at->epoch,
                "state", state, "segment", (int)at->segment, "offset", (json_int_t)at->offset, "length",
                (json_int_t)at->length, "generation", (json_int_t)at->generation, "version", (json_int_t)at->version));
        else
            printf("node %s epoch %u %s segment %u offset %" PRIu64 " length %" PRIu64 " generation %" PRIu64 "\n",
                node, at->epoch, state, at->segment, at->offset, at->length, at->generation);
    }
    return CLI_OK;
}

static int kv_prefix(struct kv *kv, size_t count, const char *const *args)
{
    struct mc_prefix_node nodes[64];
    struct mc_prefix found = {0};
    uint32_t n = 0, node_count = 0;
    uint8_t(*ids)[16] = calloc(PREFIX_IDS_MAX, 16);
    int code = CLI_OK;

    if (!ids)
        return cli_fail(kv->cli, CLI_FAILED, "out of memory");
    for (const char *at = args[0]; *at && code == CLI_OK;) {
        size_t len = strcspn(at, ",");
        if (n == PREFIX_IDS_MAX || !parse_id(at, len, ids[n++]))
            code = cli_fail(kv->cli, CLI_USAGE, "block id %u is not 32 hex digits: %.*s", n, (int)len, at);
        at += len + (at[len] == ',');
    }
    if (code != CLI_OK)
        goto undo_ids;
    enum mc_status status =
        mc_store_prefix(kv->store, (const uint8_t(*)[16])ids, n, 0, kv->timeout_ms, &found, nodes, 64, &node_count);
    if (status != MC_OK) {
        code = fail_status(kv, "prefix", status);
        goto undo_ids;
    }
    if (kv->json)
        print_json(json_pack("{s:i, s:i, s:I, s:i}", "asked", (int)n, "blocks", (int)found.blocks, "bytes",
            (json_int_t)found.bytes, "local_blocks", (int)found.local_blocks));
    else
        printf(
            "%u of %u blocks, %" PRIu64 " bytes, %u on this host\n", found.blocks, n, found.bytes, found.local_blocks);
    for (uint32_t i = 0; i < node_count && !kv->json; i++) {
        char node[33];
        hex(nodes[i].node, 16, node);
        printf("  node %s has the first %u\n", node, nodes[i].blocks);
    }
undo_ids:
    free(ids);
    return code;
}

/* ---- which one ---- */

static const struct {
    const char *name, *usage;
    size_t args_min, args_max;
    int (*run)(struct kv *kv, size_t count, const char *const *args);
} verbs[] = {
    {"put", "put KEY [FILE]", 1, 2, kv_put},
    {"get", "get KEY [FILE]", 1, 2, kv_get},
    {"ls", "ls [PREFIX]", 0, 1, kv_ls},
    {"where", "where KEY", 1, 1, kv_where},
    {"prefix", "prefix ID,ID,...", 1, 1, kv_prefix},
    {"rm", "rm KEY", 1, 1, kv_rm},
};
#define VERBS (sizeof(verbs) / sizeof(verbs[0]))

static int find_verb(struct cli *cli, const char *name)
{
    int near = -1;

    for (size_t i = 0; i < VERBS; i++) {
        if (strcmp(name, verbs[i].name) == 0)
            return (int)i;
        if (edit_distance(name, verbs[i].name) <= 2)
            near = (int)i;
    }
    cli_fail(cli, CLI_USAGE, "no verb %s%s%s; there are put get ls where prefix rm", name,
        near < 0 ? "" : ", did you mean ", near < 0 ? "" : verbs[near].name);
    return -1;
}

int cmd_kv(struct cli *cli)
{
    struct settings *set = cli->set;
    struct kv kv = {.cli = cli, .timeout_ms = (uint32_t)set->timeout_ms, .json = set->json};
    size_t count = cli->arg_count - 1;
    int verb = find_verb(cli, cli->args[0]);

    if (verb < 0)
        return CLI_USAGE;
    if (count < verbs[verb].args_min || count > verbs[verb].args_max)
        return cli_fail(cli, CLI_USAGE, "usage: mooncake kv %s", verbs[verb].usage);
    struct mc_store_opts opts = {.size = sizeof(opts),
        .master = set->master,
        .transport = set->transport,
        .fault = set->fault,
        .host_id = set->host_id,
        .run_dir = set->run_dir,
        .ns = (uint32_t)set->ns,
        .connect_ms = kv.timeout_ms};
    enum mc_status status = mc_store_open(&opts, &kv.store);
    if (status == MC_EPEERDOWN)
        return cli_fail(cli, CLI_UNREACHABLE,
            "no master answers at %s; `mooncake up` starts one, --master names another", set->master);
    if (status != MC_OK)
        return cli_fail(cli, CLI_FAILED, "opening the Store: %s", mc_status_str(status));
    int code = verbs[verb].run(&kv, count, cli->args + 1);
    mc_store_close(kv.store);
    return code;
}
