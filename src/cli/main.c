/* main.c - mooncake COMMAND [OPTION...]: finds the command, reads its options, runs it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/term.h"
#include "cli/cli.h"

/* Every line of `text` on standard error, behind the command's name and `kind`. */
static void print_lines(const char *command, const char *kind, const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\n");
        fprintf(stderr, "mooncake %s: %s%.*s\n", command, kind, (int)len, text);
        text += len + (text[len] == '\n');
    }
}

/* Parse and run. Options live as long as the command: strings of the settings are theirs. */
static int run_command(const struct cli_command *command, const char *program, int argc, char **argv, char **envp)
{
    struct settings set = {0};
    struct cli cli = {.command = command, .set = &set, .program = program};
    struct options_input input = {.argc = argc, .argv = (const char *const *)argv, .envp = (const char *const *)envp};
    struct buf message;
    char title[64];
    int code = CLI_USAGE;

    buf_init(&message, 1 << 20);
    snprintf(title, sizeof(title), "mooncake %s", command->name);
    cli.options = options_create(title, command->summary);
    if (!cli.options) {
        code = cli_fail(&cli, CLI_FAILED, "out of memory");
        goto undo_buf;
    }
    settings_add(cli.options, command->sections, &set);
    if (command->usage)
        options_positional(cli.options, command->usage, command->args_min, command->args_max);
    if (command->footer)
        options_footer(cli.options, command->footer);

    if (options_parse(cli.options, &input, &message) != MC_OK) {
        print_lines(command->name, "", buf_cstr(&message));
        goto undo_options;
    }
    if (options_help_wanted(cli.options)) {
        buf_reset(&message);
        options_print_help(cli.options, &message, term_width(STDOUT_FILENO));
        fputs(buf_cstr(&message), stdout);
        code = CLI_OK;
        goto undo_options;
    }
    print_lines(command->name, "warning: ", buf_cstr(&message));
    if (command->sections & SET_LOG)
        log_set_level((enum log_level)set.log);
    log_set_name(command->name);
    snprintf(title, sizeof(title), "mc-%s", command->name);
    prctl(PR_SET_NAME, title); /* we start children through /proc/self/exe: ps would show "exe" */
    cli.arg_count = options_args(cli.options, &cli.args);
    code = cli_check_settings(&cli);
    if (code == CLI_OK)
        code = command->run(&cli);
    if (fflush(stdout) != 0 && code == CLI_OK)
        code = cli_fail(&cli, CLI_FAILED, "standard output: %m");
undo_options:
    options_destroy(cli.options);
undo_buf:
    buf_fini(&message);
    return code;
}

int main(int argc, char **argv, char **envp)
{
    const char *name = argc > 1 ? argv[1] : "help";

    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";

    const struct cli_command *command = cli_command_find(name);
    if (!command) {
        const char *near = cli_command_nearest(name);
        fprintf(stderr, "mooncake: no command %s", name);
        if (near)
            fprintf(stderr, "; did you mean %s?", near);
        fputs(" (mooncake help lists them)\n", stderr);
        return CLI_USAGE;
    }
    return run_command(command, "/proc/self/exe", argc > 2 ? argc - 2 : 0, argv + (argc > 1 ? 2 : 1), envp);
}
