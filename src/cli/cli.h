/* cli.h - what the subcommands share: the command table, their context, exit codes.
 *
 * A command is one row of commands.c: name, summary, which sections of the option table it reads, and a function. main()
 * parses the options (default < --config FILE < MOONCAKE_* < command line) and calls the function; help, the documents and
 * `mooncake config` are made from the same rows.
 *
 * Threads: a command runs in main()'s thread; signals are taken by a thread of their own (signals.h). */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/options.h"
#include "cli/settings.h"

/* What a process of ours tells its caller. Printed by `mooncake help`. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,      /* it did not work; the reason is on standard error */
    CLI_USAGE = 2,       /* an option, argument or config line is wrong */
    CLI_MISS = 3,        /* kv: no such key */
    CLI_UNREACHABLE = 4, /* nobody answers at the address */
    CLI_TAKEN = 5,       /* the port is taken */
    CLI_INTERRUPTED = 130,
};

struct cli {
    const struct cli_command *command;
    struct settings *set;
    const char *program;     /* path of this binary, to start others */
    const char *const *args; /* positional arguments */
    size_t arg_count;
    struct options *options;
};

struct cli_command {
    const char *name;
    const char *group; /* heading in `mooncake help`; NULL: a child of ours, not shown */
    const char *summary;
    const char *usage; /* of positional arguments; NULL: takes none */
    size_t args_min, args_max;
    unsigned sections; /* enum settings_section, or'ed */
    int (*run)(struct cli *cli);
    const char *footer; /* examples, for --help; may be NULL */
};

/* The table, ended by a row without a name. */
extern const struct cli_command cli_commands[];
const struct cli_command *cli_command_find(const char *name);
const char *cli_command_nearest(const char *name); /* NULL: nothing is near */

/* "mooncake kv: no key x" on standard error; returns `code`. */
int cli_fail(const struct cli *cli, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Values that the option table cannot judge; CLI_OK, or CLI_USAGE and the reason on standard error. */
int cli_check_settings(const struct cli *cli);

int cmd_master(struct cli *cli);
int cmd_node(struct cli *cli);
int cmd_worker(struct cli *cli);
int cmd_conductor(struct cli *cli);
int cmd_up(struct cli *cli);
int cmd_kv(struct cli *cli);
int cmd_chat(struct cli *cli);
int cmd_demo(struct cli *cli);
int cmd_calc(struct cli *cli);
int cmd_bench(struct cli *cli);
int cmd_replay(struct cli *cli);
int cmd_plan(struct cli *cli);
int cmd_top(struct cli *cli);
int cmd_doctor(struct cli *cli);
int cmd_config(struct cli *cli);
int cmd_version(struct cli *cli);
int cmd_help(struct cli *cli);

#endif
