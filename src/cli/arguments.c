/* arguments.c - command line of a child. See arguments.h. */
#include "cli/arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cli.h"

void arguments_init(struct arguments *args, const char *command)
{
    memset(args, 0, sizeof(*args));
    args->argv[0] = "mooncake";
    args->argv[1] = command;
    args->count = 2;
    args->sections = cli_command_find(command)->sections;
}

void arguments_add(struct arguments *args, const char *name, const char *value)
{
    char *text = args->text[args->count];

    if (args->count >= ARGUMENTS_MAX - 2 || snprintf(text, ARGUMENT_SIZE, "--%s=%s", name, value) >= ARGUMENT_SIZE) {
        log_warn("option --%s is not handed on to %s: too long", name, args->argv[1]);
        return;
    }
    args->argv[args->count++] = text;
}

static void forward(void *arg, const struct opt_value *value)
{
    struct arguments *args = arg;

    if (value->origin != OPT_FROM_DEFAULT && value->value && settings_has(args->sections, value->row))
        arguments_add(args, value->row->name, value->value);
}

void arguments_forward(struct arguments *args, const struct options *options)
{
    options_visit(options, forward, args);
}

char **arguments_environment(void)
{
    size_t count = 0, kept = 0;

    while (environ[count])
        count++;
    char **envp = calloc(count + 1, sizeof(char *));
    for (size_t i = 0; envp && i < count; i++)
        if (strncmp(environ[i], "MOONCAKE_", 9) != 0)
            envp[kept++] = environ[i];
    return envp;
}
