/* fail.c - the one line that a command says when it cannot go on. */
#include <stdarg.h>
#include <stdio.h>

#include "cli/cli.h"

int cli_fail(const struct cli *cli, int code, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fprintf(stderr, "mooncake %s: %s\n", cli->command->name, text); /* one write: other processes print too */
    return code;
}
