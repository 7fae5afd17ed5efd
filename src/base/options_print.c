/* options_print.c - help text, markdown table and value listing, all from the rows. Pure. */
#include <stdio.h>
#include <string.h>

#include "base/options_impl.h"

#define HELP_COLUMN 30
#define WIDTH_MIN   50
#define WIDTH_MAX   100

/* "  -m, --memory SIZE" */
static void print_flag(const struct opt_row *row, struct buf *out)
{
    if (row->short_name)
        buf_printf(out, "  -%c, ", row->short_name);
    else
        buf_append_str(out, "      ");
    buf_printf(out, row->type == OPT_BOOL ? "--[no-]%s" : "--%s", row->name);
    if (row->type == OPT_BOOL)
        return;
    buf_append_char(out, ' ');
    opt_value_name(row, out);
}

/* Help, range and default as one run of words. */
static void help_words(const struct opt_row *row, struct buf *out)
{
    struct buf notes;

    buf_init(&notes, SIZE_MAX);
    opt_range(row, &notes);
    if (row->def && *row->def && !(row->type == OPT_BOOL && strcmp(row->def, "no") == 0))
        buf_printf(&notes, "%sdefault %s", notes.len ? ", " : "", row->def);
    if (row->type == OPT_LIST)
        buf_printf(&notes, "%smay be given again", notes.len ? ", " : "");
    buf_append_str(out, row->help ? row->help : "");
    if (notes.len)
        buf_printf(out, " (%s)", buf_cstr(&notes));
    buf_fini(&notes);
}

/* Words wrapped at `width`, each further line indented; `column` is where the first word goes. */
static void wrap(struct buf *out, const char *words, size_t column, size_t indent, size_t width)
{
    bool first = true;

    while (*words) {
        size_t len = strcspn(words, " ");

        if (!first && column + 1 + len > width) {
            buf_printf(out, "\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        if (!first)
            buf_append_char(out, ' ');
        column += len + !first;
        buf_append(out, words, len);
        words += len;
        words += strspn(words, " ");
        first = false;
    }
    buf_append_char(out, '\n');
}

static void print_entry(const struct opt_row *row, struct buf *out, size_t width)
{
    struct buf flag, words;

    buf_init(&flag, SIZE_MAX);
    buf_init(&words, SIZE_MAX);
    print_flag(row, &flag);
    help_words(row, &words);
    buf_append_slice(out, buf_slice(&flag));
    if (flag.len + 2 > HELP_COLUMN)
        buf_printf(out, "\n%*s", HELP_COLUMN, "");
    else
        buf_printf(out, "%*s", (int)(HELP_COLUMN - flag.len), "");
    wrap(out, buf_cstr(&words), HELP_COLUMN, HELP_COLUMN, width);
    buf_fini(&flag);
    buf_fini(&words);
}

static const char *group_of(const struct opt_row *row)
{
    return row->group ? row->group : "Options";
}

static bool shown(const struct opt_entry *entry)
{
    return entry->target && !(entry->row->flags & OPT_HIDDEN);
}

/* Is this the first shown entry of its group? Then the group is printed here, whole. */
static bool opens_group(const struct options *options, size_t at)
{
    if (!shown(&options->entries[at]))
        return false;
    for (size_t i = 0; i < at; i++)
        if (shown(&options->entries[i]) &&
            strcmp(group_of(options->entries[i].row), group_of(options->entries[at].row)) == 0)
            return false;
    return true;
}

/* Calls fn for each shown row, group by group; first is true for the first of a group. "General" (--config) comes last. */
static void each_by_group(
    const struct options *options, void (*fn)(void *arg, const struct opt_entry *entry, bool first), void *arg)
{
    for (size_t turn = 0; turn < 2; turn++)
        for (size_t i = 0; i < options->count; i++) {
            const char *group = group_of(options->entries[i].row);
            bool first = true;

            if (!opens_group(options, i) || (strcmp(group, "General") == 0) != (turn == 1))
                continue;
            for (size_t j = i; j < options->count; j++) {
                if (!shown(&options->entries[j]) || strcmp(group_of(options->entries[j].row), group) != 0)
                    continue;
                fn(arg, &options->entries[j], first);
                first = false;
            }
        }
}

struct help {
    struct buf *out;
    size_t width;
};

static void help_row(void *arg, const struct opt_entry *entry, bool first)
{
    struct help *help = arg;

    if (first)
        buf_printf(help->out, "\n%s:\n", group_of(entry->row));
    print_entry(entry->row, help->out, help->width);
}

void options_print_help(const struct options *options, struct buf *out, int width)
{
    struct help help = {out, width < WIDTH_MIN ? WIDTH_MIN : width > WIDTH_MAX ? WIDTH_MAX : (size_t)width};

    buf_printf(out, "usage: %s [options]%s%s\n\n", options->command, options->args_usage ? " " : "",
        options->args_usage ? options->args_usage : "");
    wrap(out, options->summary, 0, 0, help.width);
    each_by_group(options, help_row, &help);
    buf_printf(out, "  -h, --help%*sshow this\n", HELP_COLUMN - 12, "");
    buf_append_str(out, "\nEach option may also be set as MOONCAKE_NAME=value in the environment, or as a line\n"
                        "`name = value` of the --config file; the command line wins, then the environment.\n");
    if (options->footer)
        buf_printf(out, "\n%s", options->footer);
}

static void markdown_cell(struct buf *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            buf_append_char(out, '\\');
        buf_append_char(out, *text);
    }
}

static void markdown_row(void *arg, const struct opt_entry *entry, bool first)
{
    const struct opt_row *row = entry->row;
    struct buf *out = arg, cell;
    char env[128];

    if (first)
        buf_printf(out, "\n### %s\n\n| option | value | default | variable | meaning |\n|---|---|---|---|---|\n",
            group_of(row));
    buf_init(&cell, SIZE_MAX);
    opt_value_name(row, &cell);
    buf_printf(out, "| `--%s` | ", row->name);
    markdown_cell(out, row->type == OPT_BOOL ? "yes|no" : buf_cstr(&cell));
    opt_env_name(row->name, env);
    buf_printf(out, " | %s%s%s | `%s` | ", row->def ? "`" : "", row->def ? row->def : "", row->def ? "`" : "", env);
    markdown_cell(out, row->help ? row->help : "");
    buf_reset(&cell);
    opt_range(row, &cell);
    if (cell.len)
        buf_printf(out, " (%s)", buf_cstr(&cell));
    buf_append_str(out, " |\n");
    buf_fini(&cell);
}

void options_print_markdown(const struct options *options, struct buf *out)
{
    buf_printf(out, "## %s\n\n%s\n", options->command, options->summary);
    each_by_group(options, markdown_row, out);
}

static void print_value(void *arg, const struct opt_value *value)
{
    struct buf *out = arg;
    size_t start = out->len, used;
    bool quote = strchr(value->value, '#') || strchr(value->value, ' ');

    buf_printf(out, "%s = %s%s%s", value->row->name, quote ? "\"" : "", value->value, quote ? "\"" : "");
    used = out->len - start;
    buf_printf(out, "%*s # %s\n", used < 40 ? (int)(40 - used) : 1, "", value->where);
}

void options_print_values(const struct options *options, struct buf *out)
{
    options_visit(options, print_value, out);
}
