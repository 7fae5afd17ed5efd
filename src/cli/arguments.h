/* arguments.h - the command line of a child that is this binary with another command.
 *
 * What the user set (anywhere) and the child's command reads is handed on; its environment is ours without MOONCAKE_*, so
 * that nothing is read, or warned about, twice.
 *
 * Threads: the owner's. */
#ifndef CLI_ARGUMENTS_H
#define CLI_ARGUMENTS_H

#include <stddef.h>

#include "base/options.h"

enum { ARGUMENTS_MAX = 128, ARGUMENT_SIZE = 1024 };

struct arguments {
    const char *argv[ARGUMENTS_MAX]; /* NULL behind the last; two slots are kept free */
    size_t count;
    unsigned sections; /* what the child's command reads */
    char text[ARGUMENTS_MAX][ARGUMENT_SIZE];
};

/* `command` is in the command table. */
void arguments_init(struct arguments *args, const char *command);

/* --name=value; the last of a name wins. */
void arguments_add(struct arguments *args, const char *name, const char *value);

/* All that was set by file, environment or command line and that the child reads. */
void arguments_forward(struct arguments *args, const struct options *options);

/* Given to the caller: free() the array, not its strings. NULL when memory is out. */
char **arguments_environment(void);

#endif
