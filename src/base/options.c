/* options.c - from the four sources to values.
 *
 *   defaults -> config file -> environment -> command line     each goes through apply(), which checks, stores, and remembers
 *                                                              where the value came from
 *
 * The command line is read first (for --help and --config) into a list of assignments that is applied last.
 *
 * Memory: every string we keep is on one list that goes with the options; nothing is freed before. */
#include "base/options.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options_impl.h"
#include "base/xdg.h"

#define CONFIG_FILE_MAX (1u << 20)
#define ITEMS_MAX       4096
#define NAME_MAX_LEN    64
#define ENV_PREFIX      "MOONCAKE_"

struct opt_memory {
    struct opt_memory *next;
    char text[];
};

static const struct opt_row config_row = {
    .name = "config",
    .type = OPT_STRING,
    .offset = offsetof(struct options, config),
    .group = "General",
    .unit = "FILE",
    .help = "read options from this file first (lines of name = value)",
};

/* --- memory --- */

static char *keep_alloc(struct options *options, size_t len)
{
    struct opt_memory *memory = malloc(sizeof(*memory) + len + 1);

    if (!memory)
        return NULL;
    memory->next = options->memory;
    options->memory = memory;
    memory->text[len] = 0;
    return memory->text;
}

static char *keep(struct options *options, const char *text, size_t len)
{
    char *copy = keep_alloc(options, len);

    if (copy)
        memcpy(copy, text, len);
    return copy;
}

struct options *options_create(const char *command, const char *summary)
{
    struct options *options = calloc(1, sizeof(*options));

    if (!options)
        return NULL;
    options->command = command;
    options->summary = summary;
    options_add(options, &config_row, 1, options);
    return options;
}

void options_destroy(struct options *options)
{
    struct opt_memory *memory, *next;

    if (!options)
        return;
    for (memory = options->memory; memory; memory = next) {
        next = memory->next;
        free(memory);
    }
    for (size_t i = 0; i < options->count; i++)
        free(options->entries[i].items);
    free(options->entries);
    free(options->args);
    free(options);
}

void options_add(struct options *options, const struct opt_row *rows, size_t count, void *target)
{
    size_t need = options->count + count;
    struct opt_entry *entries;

    if (need > options->cap) {
        entries = reallocarray(options->entries, need * 2, sizeof(*entries));
        if (!entries) {
            options->failed = true;
            return;
        }
        options->entries = entries;
        options->cap = need * 2;
    }
    for (size_t i = 0; i < count; i++)
        options->entries[options->count++] = (struct opt_entry){.row = &rows[i], .target = target, .where = "default"};
}

void options_positional(struct options *options, const char *usage, size_t min, size_t max)
{
    options->args_usage = usage;
    options->args_min = min;
    options->args_max = max;
}

void options_footer(struct options *options, const char *text)
{
    options->footer = text;
}

/* --- finding --- */

void opt_env_name(const char *name, char *out)
{
    strcpy(out, ENV_PREFIX);
    for (out += strlen(ENV_PREFIX); *name; name++)
        *out++ = *name == '-' ? '_' : (char)toupper((unsigned char)*name);
    *out = 0;
}

/* A row of this command is preferred to one of the same name that is only known elsewhere. */
static struct opt_entry *find(const struct options *options, const char *name)
{
    struct opt_entry *found = NULL;

    for (size_t i = 0; i < options->count; i++) {
        struct opt_entry *entry = &options->entries[i];

        if (strcmp(entry->row->name, name) == 0 && (!found || !found->target))
            found = entry;
    }
    return found;
}

static struct opt_entry *find_short(const struct options *options, char letter)
{
    for (size_t i = 0; i < options->count; i++)
        if (options->entries[i].row->short_name == letter && options->entries[i].target)
            return &options->entries[i];
    return NULL;
}

/* NULL when nothing is near: a wrong suggestion is worse than none. */
static const char *nearest(const struct options *options, const char *name, bool only_ours)
{
    size_t best = strlen(name) / 3 + 1;
    const char *found = NULL;

    for (size_t i = 0; i < options->count; i++) {
        const struct opt_entry *entry = &options->entries[i];
        size_t distance = edit_distance(name, entry->row->name);

        if (distance <= best && (entry->target || !only_ours) && !(entry->row->flags & OPT_HIDDEN)) {
            if (distance < best || !found)
                found = entry->row->name;
            best = distance;
        }
    }
    return found;
}

/* --- applying --- */

struct source {
    enum opt_origin origin;
    const char *where; /* kept: "default", "node.conf:3", "MOONCAKE_MEMORY", "command line" */
};

static enum mc_status list_add(struct options *options, struct opt_entry *entry, const char *text, size_t len)
{
    struct opt_list *list =
        entry->target ? (struct opt_list *)(void *)((char *)entry->target + entry->row->offset) : NULL;
    const char **items;

    if (entry->item_count == ITEMS_MAX)
        return MC_EINVAL;
    if ((entry->item_count & (entry->item_count - 1)) == 0) { /* 0, 1, 2, 4, ...: double */
        items = reallocarray(entry->items, entry->item_count ? entry->item_count * 2 : 1, sizeof(*items));
        if (!items)
            return MC_ENOMEM;
        entry->items = items;
    }
    entry->items[entry->item_count] = keep(options, text, len);
    if (!entry->items[entry->item_count])
        return MC_ENOMEM;
    entry->item_count++;
    if (list)
        *list = (struct opt_list){entry->items, entry->item_count};
    return MC_OK;
}

static enum mc_status list_join(struct options *options, struct opt_entry *entry)
{
    struct buf joined;

    buf_init(&joined, SIZE_MAX);
    for (size_t i = 0; i < entry->item_count; i++)
        buf_printf(&joined, "%s%s", i ? "," : "", entry->items[i]);
    entry->text = buf_status(&joined) == MC_OK ? keep(options, buf_cstr(&joined), joined.len) : NULL;
    buf_fini(&joined);
    return entry->text ? MC_OK : MC_ENOMEM;
}

/* One item per use on the command line; elsewhere split at commas. */
static enum mc_status apply_list(
    struct options *options, struct opt_entry *entry, const char *text, const struct source *source)
{
    enum mc_status status = MC_OK;
    bool more = true;

    if (entry->origin != source->origin || source->origin != OPT_FROM_ARGV)
        entry->item_count = 0;
    if (source->origin == OPT_FROM_ARGV) {
        status = list_add(options, entry, text, strlen(text));
    } else {
        while (more && status == MC_OK) {
            size_t len = strcspn(text, ",");

            more = text[len] == ',';
            if (len > 0)
                status = list_add(options, entry, text, len);
            text += len + more;
        }
    }
    return status == MC_OK ? list_join(options, entry) : status;
}

static enum mc_status apply(struct options *options, struct opt_entry *entry, const char *text,
    const struct source *source, struct buf *message)
{
    enum mc_status status;
    struct buf why;

    buf_init(&why, 4096);
    text = keep(options, text, strlen(text));
    if (!text)
        status = MC_ENOMEM;
    else if (entry->row->type == OPT_LIST)
        status = apply_list(options, entry, text, source);
    else
        status = opt_store(entry->row, entry->target, text, &why);
    if (status == MC_OK) {
        if (entry->row->type != OPT_LIST)
            entry->text = text;
        entry->origin = source->origin;
        entry->where = source->where;
    } else if (status == MC_EINVAL) {
        if (source->origin == OPT_FROM_ARGV)
            buf_printf(message, "--%s: ", entry->row->name);
        else if (source->origin == OPT_FROM_FILE)
            buf_printf(message, "%s: %s: ", source->where, entry->row->name);
        else
            buf_printf(message, "%s: ", source->where);
        buf_printf(message, "%s\n", why.len ? buf_cstr(&why) : "too many items");
    }
    buf_fini(&why);
    return status;
}

static enum mc_status apply_defaults(struct options *options, struct buf *message)
{
    static const struct source source = {OPT_FROM_DEFAULT, "default"};

    for (size_t i = 0; i < options->count; i++) {
        struct opt_entry *entry = &options->entries[i];
        enum mc_status status;

        assert(strlen(entry->row->name) < NAME_MAX_LEN);
        assert(entry->row->type != OPT_ENUM || entry->row->choices);
        if (!entry->row->def) {
            if (entry->row != &config_row) /* was read from the command line before */
                opt_clear(entry->row, entry->target);
            continue;
        }
        status = apply(options, entry, entry->row->def, &source, message);
        assert(status != MC_EINVAL); /* a default its own row refuses */
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

/* --- config file --- */

static char *trim(char *text)
{
    size_t len;

    while (isspace((unsigned char)*text))
        text++;
    len = strlen(text);
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        text[--len] = 0;
    return text;
}

/* A '#' at the start or after a blank, outside of quotes, ends the line. */
static void cut_comment(char *line)
{
    bool quoted = false;

    for (char *p = line; *p; p++) {
        if (*p == '"')
            quoted = !quoted;
        if (*p == '#' && !quoted && (p == line || isspace((unsigned char)p[-1]))) {
            *p = 0;
            return;
        }
    }
}

static char *unquote(char *value)
{
    size_t len = strlen(value);

    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        value[len - 1] = 0;
        value++;
    }
    return value;
}

static enum mc_status unknown_in_file(struct options *options, const char *where, const char *name, struct buf *message)
{
    const char *near = nearest(options, name, false);

    buf_printf(message, "%s: unknown option '%.64s'", where, name);
    if (near)
        buf_printf(message, "; did you mean '%s'?", near);
    buf_append_char(message, '\n');
    return MC_EINVAL;
}

static enum mc_status config_line(
    struct options *options, const char *path, unsigned number, char *line, struct buf *message)
{
    struct source source = {OPT_FROM_FILE, NULL};
    struct opt_entry *entry;
    char *equals, *name;
    size_t where_len = strlen(path) + 16;
    char *where = keep_alloc(options, where_len);

    if (!where)
        return MC_ENOMEM;
    snprintf(where, where_len, "%s:%u", path, number);
    source.where = where;
    cut_comment(line);
    name = trim(line);
    if (!*name)
        return MC_OK;
    equals = strchr(name, '=');
    if (!equals) {
        buf_printf(message, "%s: '%.64s' is not of the form name = value\n", where, name);
        return MC_EINVAL;
    }
    *equals = 0;
    name = trim(name);
    entry = find(options, name);
    if (!entry)
        return unknown_in_file(options, where, name, message);
    if (entry->row == &config_row || entry->row->flags & OPT_ONLY_ARGV) {
        buf_printf(message, "%s: %s: may be given on the command line only\n", where, name);
        return MC_EINVAL;
    }
    if (entry->line) {
        buf_printf(message, "%s: %s: was already set in line %u\n", where, name, entry->line);
        return MC_EINVAL;
    }
    entry->line = number;
    return apply(options, entry, unquote(trim(equals + 1)), &source, message);
}

static enum mc_status config_text(
    struct options *options, const char *path, char *text, size_t len, struct buf *message)
{
    unsigned number = 0;
    char *line = text, *end = text + len;

    if (memchr(text, 0, len)) {
        buf_printf(message, "%s: holds a NUL byte: not a text file\n", path);
        return MC_EINVAL;
    }
    while (line < end) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        enum mc_status status;

        if (next)
            *next = 0;
        status = config_line(options, path, ++number, line, message);
        if (status != MC_OK)
            return status;
        line = next ? next + 1 : end;
    }
    return MC_OK;
}

enum mc_status options_read_file(void *arg, const char *path, char **text, size_t *len)
{
    return path_read(path, CONFIG_FILE_MAX, text, len);
}

static enum mc_status apply_config(
    struct options *options, const struct options_input *input, const char *path, struct buf *message)
{
    enum mc_status status;
    char *text;
    size_t len;

    if (!path)
        return MC_OK;
    status = (input->read_file ? input->read_file : options_read_file)(input->arg, path, &text, &len);
    if (status == MC_ENOMEM)
        return status;
    if (status != MC_OK) {
        buf_printf(message, "cannot read config file %s: %s\n", path, mc_status_str(status));
        return MC_EINVAL;
    }
    status = config_text(options, path, text, len, message);
    free(text);
    return status;
}

/* --- environment --- */

/* "MOONCAKE_SOME_NAME=value" -> "some-name"; false when it is not ours. */
static bool env_split(const char *variable, char name[NAME_MAX_LEN], const char **value)
{
    const char *equals = strchr(variable, '=');
    size_t prefix = strlen(ENV_PREFIX), n = 0;

    if (!equals || strncmp(variable, ENV_PREFIX, prefix) != 0 || equals == variable + prefix)
        return false;
    for (const char *p = variable + prefix; p < equals; p++) {
        if (n + 1 < NAME_MAX_LEN)
            name[n++] = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
    }
    name[n] = 0;
    *value = equals + 1;
    return true;
}

static void unknown_variable(struct options *options, const char *variable, const char *name, struct buf *message)
{
    const char *near = nearest(options, name, false);
    char env[NAME_MAX_LEN + 16];

    buf_printf(message, "unknown variable %.*s", (int)strnlen(variable, strcspn(variable, "=")), variable);
    if (near) {
        opt_env_name(near, env);
        buf_printf(message, "; did you mean %s?", env);
    }
    buf_append_char(message, '\n');
}

static enum mc_status apply_env(struct options *options, const char *const *envp, struct buf *message)
{
    char name[NAME_MAX_LEN];
    const char *value;

    for (; envp && *envp; envp++) {
        struct source source = {OPT_FROM_ENV, NULL};
        struct opt_entry *entry;
        enum mc_status status;

        if (!env_split(*envp, name, &value))
            continue;
        entry = find(options, name);
        if (!entry || entry->row->flags & OPT_ONLY_ARGV) {
            unknown_variable(options, *envp, name, message);
            continue;
        }
        if (entry->row == &config_row)
            continue; /* was used before */
        source.where = keep(options, *envp, strcspn(*envp, "="));
        status = source.where ? apply(options, entry, value, &source, message) : MC_ENOMEM;
        if (status != MC_OK)
            return status;
    }
    return MC_OK;
}

static const char *env_config(const char *const *envp)
{
    for (; envp && *envp; envp++)
        if (strncmp(*envp, ENV_PREFIX "CONFIG=", 16) == 0 && (*envp)[16])
            return *envp + 16;
    return NULL;
}

/* --- command line --- */

struct assignment {
    struct opt_entry *entry;
    const char *value;
};

struct line {
    struct options *options;
    const char *const *argv;
    int argc, at;
    struct assignment *list;
    size_t count;
    struct buf *message;
};

static enum mc_status unknown_option(struct line *line, const char *name, const char *shown)
{
    const char *near = nearest(line->options, name, true);

    buf_printf(line->message, "unknown option %.80s", shown);
    if (near)
        buf_printf(line->message, "; did you mean --%s?", near);
    buf_append_char(line->message, '\n');
    return MC_EINVAL;
}

static enum mc_status assign(struct line *line, struct opt_entry *entry, const char *value)
{
    if (!entry->target) {
        buf_printf(line->message, "option --%s belongs to another command than %s\n", entry->row->name,
            line->options->command);
        return MC_EINVAL;
    }
    if (entry->row == &config_row)
        line->options->config = value;
    line->list[line->count++] = (struct assignment){entry, value};
    return MC_OK;
}

/* The value of an option without '=': booleans need none, others take the next word. */
static enum mc_status assign_next(struct line *line, struct opt_entry *entry)
{
    if (entry->row->type == OPT_BOOL)
        return assign(line, entry, "yes");
    if (line->at >= line->argc || strncmp(line->argv[line->at], "--", 2) == 0) {
        buf_printf(line->message, "--%s needs a value\n", entry->row->name);
        return MC_EINVAL;
    }
    return assign(line, entry, line->argv[line->at++]);
}

static enum mc_status long_option(struct line *line, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : strlen(word);
    char name[NAME_MAX_LEN];
    struct opt_entry *entry;

    if (len >= sizeof(name))
        return unknown_option(line, "", word);
    memcpy(name, word, len);
    name[len] = 0;
    if (strcmp(name, "help") == 0 && !equals) {
        line->options->help = true;
        return MC_OK;
    }
    entry = find(line->options, name);
    if (entry)
        return equals ? assign(line, entry, equals + 1) : assign_next(line, entry);
    if (strncmp(name, "no-", 3) == 0 && !equals) {
        entry = find(line->options, name + 3);
        if (entry && entry->row->type == OPT_BOOL)
            return assign(line, entry, "no");
    }
    return unknown_option(line, name, line->argv[line->at - 1]);
}

static enum mc_status short_option(struct line *line, const char *word)
{
    struct opt_entry *entry = find_short(line->options, word[0]);

    if (word[0] == 'h' && !word[1] && !entry) {
        line->options->help = true;
        return MC_OK;
    }
    if (!entry || (word[1] && entry->row->type == OPT_BOOL))
        return unknown_option(line, "", line->argv[line->at - 1]);
    return word[1] ? assign(line, entry, word + 1) : assign_next(line, entry);
}

static enum mc_status positional(struct line *line, const char *word)
{
    struct options *options = line->options;

    if (!options->args_usage || options->arg_count == options->args_max) {
        buf_printf(line->message, "unexpected argument '%.80s'\n", word);
        return MC_EINVAL;
    }
    options->args[options->arg_count] = keep(options, word, strlen(word));
    return options->args[options->arg_count++] ? MC_OK : MC_ENOMEM;
}

static enum mc_status read_line(struct line *line)
{
    enum mc_status status = MC_OK;
    bool only_args = false;

    while (line->at < line->argc && status == MC_OK) {
        const char *word = line->argv[line->at++];

        if (only_args || word[0] != '-' || !word[1])
            status = positional(line, word);
        else if (strcmp(word, "--") == 0)
            only_args = true;
        else if (word[1] == '-')
            status = long_option(line, word + 2);
        else
            status = short_option(line, word + 1);
    }
    return status;
}

static enum mc_status check_args(struct options *options, struct buf *message)
{
    if (options->arg_count >= options->args_min)
        return MC_OK;
    buf_printf(message, "%s needs %s\n", options->command, options->args_usage);
    return MC_EINVAL;
}

static enum mc_status apply_line(struct line *line)
{
    static const struct source source = {OPT_FROM_ARGV, "command line"};
    enum mc_status status = MC_OK;

    for (size_t i = 0; i < line->count && status == MC_OK; i++)
        status = apply(line->options, line->list[i].entry, line->list[i].value, &source, line->message);
    return status;
}

enum mc_status options_parse(struct options *options, const struct options_input *input, struct buf *message)
{
    size_t words = input->argc > 0 ? (size_t)input->argc : 0;
    struct line line = {.options = options, .argv = input->argv, .argc = input->argc, .message = message};
    enum mc_status status = MC_ENOMEM;
    const char *config;

    assert(!options->args); /* parse once */
    line.list = calloc(words + 1, sizeof(*line.list));
    options->args = calloc(words + 1, sizeof(*options->args));
    if (!options->failed && line.list && options->args)
        status = read_line(&line);
    if (status == MC_OK && options->help)
        goto out;
    config = options->config ? options->config : env_config(input->envp);
    if (status == MC_OK)
        status = check_args(options, message);
    if (status == MC_OK)
        status = apply_defaults(options, message);
    if (status == MC_OK)
        status = apply_config(options, input, config, message);
    if (status == MC_OK)
        status = apply_env(options, input->envp, message);
    if (status == MC_OK)
        status = apply_line(&line);
out:
    free(line.list);
    return status;
}

bool options_help_wanted(const struct options *options)
{
    return options->help;
}

size_t options_args(const struct options *options, const char *const **args)
{
    *args = options->args;
    return options->arg_count;
}

bool options_given(const struct options *options, const char *name)
{
    const struct opt_entry *entry = find(options, name);

    return entry && entry->origin != OPT_FROM_DEFAULT;
}

void options_visit(const struct options *options, options_visit_fn *fn, void *arg)
{
    for (size_t i = 0; i < options->count; i++) {
        const struct opt_entry *entry = &options->entries[i];
        struct opt_value value = {.row = entry->row, .origin = entry->origin, .where = entry->where};

        if (!entry->target)
            continue;
        value.value = !entry->text ? "" : entry->row->flags & OPT_SECRET ? "***" : entry->text;
        fn(arg, &value);
    }
}
