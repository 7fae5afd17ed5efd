/* options.h - the one options system: tables in, typed struct out.
 *
 * A room declares rows that say where in its own struct each value goes; the command adds the tables it uses and parses.
 * Sources, later ones win: default < --config FILE < environment MOONCAKE_* < command line.
 *
 *     struct node_opts { uint64_t memory; bool prefault; const char *listen; };
 *     static const struct opt_row node_rows[] = {
 *         {"memory", OPT_SIZE, offsetof(struct node_opts, memory), "1G", .min = 1 << 20, .group = "Store",
 *          .help = "memory given to the cache"},
 *     };
 *
 * From the name follow the flag --memory, the variable MOONCAKE_MEMORY and the line `memory = 1G` of a config file.
 * Booleans are --name, --no-name or --name=yes|no. "--" ends the options. A repeated option (OPT_LIST) takes one item per
 * use on the command line and a comma-separated list elsewhere; a later source replaces the list of an earlier one.
 *
 * Pure: argv, environment and config text come in as data; no exit, no printing. Every mistake is one message that names
 * the source (file:line, variable, or the option), the value, and the nearest valid name.
 * --help and --config are built in. Options that hold secrets (OPT_SECRET) are printed as ***.
 *
 * Ownership: rows and tables are borrowed for the life of the struct options; strings in the target structs are lent until
 * options_destroy(). Threads: one. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

enum opt_type {
    OPT_STRING, /* const char *: NULL when the default is NULL and nothing was given */
    OPT_INT,    /* int64_t */
    OPT_SIZE,   /* uint64_t, bytes: 64K 8G 1T 512M, also KiB MiB ... (all powers of two), plain number = bytes */
    OPT_MS,     /* uint64_t, milliseconds: 250ms 2s 5m 1h, plain number = ms */
    OPT_BOOL,   /* bool */
    OPT_FLOAT,  /* double */
    OPT_ENUM,   /* int: index in `choices` */
    OPT_LIST,   /* struct opt_list */
};

struct opt_list {
    const char *const *items;
    size_t count;
};

enum opt_flags {
    OPT_SECRET = 1,    /* never print the value */
    OPT_HIDDEN = 2,    /* not in --help nor in the docs table */
    OPT_ONLY_ARGV = 4, /* not from environment or config file */
};

struct opt_row {
    const char *name; /* lower case, words joined by '-' */
    enum opt_type type;
    size_t offset;              /* of the value in the target struct */
    const char *def;            /* default, as text with units; NULL = zero/empty */
    const char *const *choices; /* OPT_ENUM: NULL-terminated */
    double min, max;            /* of numbers, sizes, durations; max 0 = no upper limit; both 0 = any */
    const char *group;          /* heading in --help */
    const char *unit;           /* what to print for the value: "ADDR", "FILE"; NULL = from the type */
    const char *help;           /* one sentence, lower case, no full stop */
    char short_name;            /* one letter, or 0 */
    unsigned flags;
};

struct options;

/* `command` as in "mooncake node", `summary` one line; both borrowed. NULL when memory is out. */
struct options *options_create(const char *command, const char *summary);
void options_destroy(struct options *options);

/* Add a table. With target NULL the rows are "known elsewhere": a config file or environment shared with other commands may
 * hold them without a warning, and on the command line they are refused by name.
 * Programming errors (two rows of one name and type, bad default) are asserted by options_parse(). */
void options_add(struct options *options, const struct opt_row *rows, size_t count, void *target);

/* Accept positional arguments, between min and max of them; `usage` is printed in the usage line: "[FILE...]". */
void options_positional(struct options *options, const char *usage, size_t min, size_t max);

/* Text for the end of --help: examples. Borrowed. */
void options_footer(struct options *options, const char *text);

/* Where everything comes from. argv without the program and command names. environ-style envp (may be NULL).
 * read_file gives the content of the --config file (given to us, we free()); NULL = options_read_file. */
struct options_input {
    int argc;
    const char *const *argv;
    const char *const *envp;
    enum mc_status (*read_file)(void *arg, const char *path, char **text, size_t *len);
    void *arg;
};

/* Fill the targets.
 *   MC_OK      all set; `message` holds warnings (unknown variables), one per line, maybe none
 *   MC_EINVAL  `message` says what is wrong; targets are in an unspecified state
 *   MC_ENOMEM
 * When help was asked for: MC_OK at once, options_help_wanted() is true, targets unspecified. */
enum mc_status options_parse(struct options *options, const struct options_input *input, struct buf *message);
bool options_help_wanted(const struct options *options);

/* The positional arguments, lent. */
size_t options_args(const struct options *options, const char *const **args);

/* Reads a file of at most 1 MiB. */
enum mc_status options_read_file(void *arg, const char *path, char **text, size_t *len);

/* Was it set by anything but the default? */
bool options_given(const struct options *options, const char *name);

enum opt_origin { OPT_FROM_DEFAULT, OPT_FROM_FILE, OPT_FROM_ENV, OPT_FROM_ARGV };

/* What is in effect, row by row, in the order the tables were added. `value` is text in the form the parser accepts;
 * `where` is "default", "file:line", the variable, or "command line". All lent for the call. */
struct opt_value {
    const struct opt_row *row;
    const char *value;
    enum opt_origin origin;
    const char *where;
};
typedef void options_visit_fn(void *arg, const struct opt_value *value);
void options_visit(const struct options *options, options_visit_fn *fn, void *arg);

/* --help wrapped to `width` columns; a markdown table of all rows; `name = value  # origin` lines. */
void options_print_help(const struct options *options, struct buf *out, int width);
void options_print_markdown(const struct options *options, struct buf *out);
void options_print_values(const struct options *options, struct buf *out);

/* --- parts, for others that read such values --- */

/* "64K" -> 65536. MC_EINVAL: not a size; MC_ETOOBIG: beyond 64 bits. */
enum mc_status size_parse(const char *text, uint64_t *bytes);

/* "2s" -> 2000. */
enum mc_status duration_parse(const char *text, uint64_t *ms);

/* 65536 -> "64K": the shortest exact form. `out` of at least 24 bytes. */
void size_format(uint64_t bytes, char *out);
void duration_format(uint64_t ms, char *out);

/* Number of single-letter edits (insert, delete, change, swap neighbours) between two short words. */
size_t edit_distance(const char *a, const char *b);

#endif
