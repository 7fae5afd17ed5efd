/* help.c - mooncake help, version, config: what the tables say, for people and for docs/options.md. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/term.h"
#include "cli/cli.h"

static void print_overview(void)
{
    const char *group = "";

    puts("mooncake - a distributed KVCache for LLM serving: prefill and decode apart, a cache between them\n");
    puts("usage: mooncake COMMAND [OPTION...]");
    for (const struct cli_command *command = cli_commands; command->name; command++) {
        if (!command->group)
            continue;
        if (strcmp(group, command->group) != 0)
            printf("\n%s\n", command->group);
        group = command->group;
        printf("  %-10s %s\n", command->name, command->summary);
    }
    puts("\nmooncake COMMAND --help lists its options. Each can also stand in a file (--config FILE, lines `name = "
         "value`)\n"
         "or in the environment (MOONCAKE_NAME). mooncake config shows what is in effect.\n\n"
         "exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such key, 4 nobody answers, 5 port taken, 130 interrupted");
}

/* Which commands read a section: "`node`, `up`". */
static void print_users(unsigned section)
{
    const char *comma = "";

    for (const struct cli_command *command = cli_commands; command->name; command++) {
        /* config shows every option, which says nothing about where it works */
        if (!command->group || command->sections == SET_EVERY || !(command->sections & section))
            continue;
        printf("%s`%s`", comma, command->name);
        comma = ", ";
    }
    puts("\n");
}

/* The section's rows; --config, which every command has, stands in a second table that is said once in the introduction. */
static void print_first_table(const char *markdown)
{
    const char *table = strchr(markdown, '|');
    const char *end = table ? strstr(table, "\n\n") : NULL;

    if (table)
        printf("%.*s\n\n", end ? (int)(end - table) : (int)strlen(table), table);
}

static bool section_visible(const struct settings_rows *part)
{
    for (size_t i = 0; i < part->count; i++)
        if (!(part->rows[i].flags & OPT_HIDDEN))
            return true;
    return false;
}

static int print_markdown(struct cli *cli)
{
    puts("# Options\n\nPrinted by `mooncake help --markdown` from the option table (`src/cli/settings.c`); `./check "
         "docs` holds the\n"
         "two equal. A name means the same in every command. From `--name` follow the variable `MOONCAKE_NAME` (`-` "
         "becomes\n"
         "`_`) and the line `name = value` of a `--config FILE`; the command line wins over the environment, that over "
         "the\n"
         "file, that over the default.\n");
    for (const struct settings_rows *part = settings_table; part->rows; part++) {
        struct settings set;
        struct options *options;
        struct buf out;

        if (!section_visible(part))
            continue;
        buf_init(&out, 1 << 20);
        options = options_create("mooncake", "");
        if (!options)
            return cli_fail(cli, CLI_FAILED, "out of memory");
        options_add(options, part->rows, part->count, &set);
        options_print_markdown(options, &out);
        printf("## %s\n\nRead by ", part->title);
        print_users(part->section);
        print_first_table(buf_cstr(&out));
        options_destroy(options);
        buf_fini(&out);
    }
    return CLI_OK;
}

static int print_command(struct cli *cli, const char *name)
{
    const struct cli_command *command = cli_command_find(name);
    const char *near = cli_command_nearest(name);
    struct settings set;
    struct buf out;

    if (!command)
        return cli_fail(cli, CLI_USAGE, "no command %s%s%s", name, near ? "; did you mean " : "", near ? near : "");
    char title[64];
    snprintf(title, sizeof(title), "mooncake %s", command->name);
    struct options *options = options_create(title, command->summary);
    if (!options)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    settings_add(options, command->sections, &set);
    if (command->usage)
        options_positional(options, command->usage, command->args_min, command->args_max);
    if (command->footer)
        options_footer(options, command->footer);
    buf_init(&out, 1 << 20);
    options_print_help(options, &out, term_width(STDOUT_FILENO));
    fputs(buf_cstr(&out), stdout);
    buf_fini(&out);
    options_destroy(options);
    return CLI_OK;
}

int cmd_help(struct cli *cli)
{
    if (cli->set->markdown)
        return print_markdown(cli);
    if (cli->arg_count > 0)
        return print_command(cli, cli->args[0]);
    print_overview();
    return CLI_OK;
}

int cmd_version(struct cli *cli)
{
    (void)cli;
    puts("mooncake " CLI_VERSION);
    return CLI_OK;
}

static void config_field(void *arg, const struct opt_value *value)
{
    json_object_set_new(arg, value->row->name, json_pack("{s:s, s:s}", "value", value->value, "origin", value->where));
}

static int print_config_json(struct cli *cli)
{
    json_t *all = json_object();

    options_visit(cli->options, config_field, all);
    json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return CLI_OK;
}

int cmd_config(struct cli *cli)
{
    struct buf out;

    if (cli->set->json)
        return print_config_json(cli);
    buf_init(&out, 1 << 20);
    options_print_values(cli->options, &out);
    fputs(buf_cstr(&out), stdout);
    buf_fini(&out);
    return CLI_OK;
}
