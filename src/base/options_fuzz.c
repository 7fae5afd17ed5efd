/* options_fuzz.c - libFuzzer: the input is split at NUL bytes into a command line, environment and a config file.
 *
 * Nothing may crash or leak; whatever is accepted must print, and what options_visit() gives must be accepted again. */
#undef NDEBUG /* asserts are what it looks for */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct opts {
    uint64_t memory, ttl;
    int64_t count;
    double ratio;
    bool flag;
    int mode;
    const char *text;
    struct opt_list list;
};

static const char *const modes[] = {"fast", "safe", NULL};
static const struct opt_row rows[] = {
    {"memory", OPT_SIZE, offsetof(struct opts, memory), "1G", .min = 4096, .short_name = 'm', .help = "x"},
    {"ttl", OPT_MS, offsetof(struct opts, ttl), "5s", .max = 1e9, .help = "x"},
    {"count", OPT_INT, offsetof(struct opts, count), "1", .min = -5, .max = 5, .help = "x"},
    {"ratio", OPT_FLOAT, offsetof(struct opts, ratio), "0.5", .help = "x"},
    {"flag", OPT_BOOL, offsetof(struct opts, flag), "yes", .short_name = 'f', .help = "x"},
    {"mode", OPT_ENUM, offsetof(struct opts, mode), "fast", .choices = modes, .help = "x"},
    {"text", OPT_STRING, offsetof(struct opts, text), NULL, .help = "x"},
    {"list", OPT_LIST, offsetof(struct opts, list), "a,b", .help = "x"},
};
#define ROWS      (sizeof(rows) / sizeof(rows[0]))
#define WORDS_MAX 64

struct fuzz {
    char *copy;
    const char *argv[WORDS_MAX + 1], *env[WORDS_MAX + 1];
    size_t argc, envc;
    const char *config;
    size_t config_len;
};

/* Words that begin with MOONCAKE_ go to the environment; what follows an empty word is the config file. */
static void split(struct fuzz *fuzz, const uint8_t *data, size_t size)
{
    char *at, *end;

    fuzz->copy = malloc(size + 1);
    memcpy(fuzz->copy, data, size);
    fuzz->copy[size] = 0;
    end = fuzz->copy + size;
    for (at = fuzz->copy; at < end && *at; at += strlen(at) + 1) {
        if (strncmp(at, "MOONCAKE_", 9) == 0 && fuzz->envc < WORDS_MAX)
            fuzz->env[fuzz->envc++] = at;
        else if (fuzz->argc < WORDS_MAX)
            fuzz->argv[fuzz->argc++] = at;
    }
    fuzz->config = at < end ? at + 1 : end;
    fuzz->config_len = (size_t)(end - fuzz->config);
}

static enum mc_status read_config(void *arg, const char *path, char **text, size_t *len)
{
    const struct fuzz *fuzz = arg;

    *text = malloc(fuzz->config_len + 1);
    memcpy(*text, fuzz->config, fuzz->config_len);
    (*text)[fuzz->config_len] = 0;
    *len = fuzz->config_len;
    return MC_OK;
}

/* A value that was accepted once must be accepted again, through another source. */
static void parse_again(void *arg, const struct opt_value *value)
{
    struct opts again;
    struct options *options;
    struct options_input input = {.argc = 1};
    struct buf word, message;
    const char *argv[1];

    if (value->row->type == OPT_LIST || strcmp(value->row->name, "config") == 0)
        return;
    buf_init(&word, SIZE_MAX);
    buf_init(&message, SIZE_MAX);
    buf_printf(&word, "--%s=%s", value->row->name, value->value);
    argv[0] = buf_cstr(&word);
    input.argv = argv;
    options = options_create("again", "x");
    options_add(options, rows, ROWS, &again);
    if (options_parse(options, &input, &message) != MC_OK) {
        fprintf(stderr, "%s", buf_cstr(&message));
        abort();
    }
    options_destroy(options);
    buf_fini(&word);
    buf_fini(&message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz fuzz = {0};
    struct opts opts;
    struct options *options = options_create("fuzz", "Some words about it.");
    struct options_input input = {.argv = fuzz.argv, .envp = fuzz.env, .read_file = read_config, .arg = &fuzz};
    struct buf out;

    split(&fuzz, data, size);
    buf_init(&out, SIZE_MAX);
    input.argc = (int)fuzz.argc;
    options_add(options, rows, ROWS, &opts);
    options_positional(options, "[X...]", 0, 5);
    if (options_parse(options, &input, &out) == MC_OK && !options_help_wanted(options)) {
        options_visit(options, parse_again, NULL);
        options_print_values(options, &out);
        options_print_help(options, &out, (int)(size % 200));
        options_print_markdown(options, &out);
        for (size_t i = 0; i < opts.list.count; i++)
            buf_append_str(&out, opts.list.items[i]);
    } else {
        assert(options_help_wanted(options) || out.len > 0);
    }
    options_destroy(options);
    buf_fini(&out);
    free(fuzz.copy);
    return 0;
}
