/* options_impl.h - inside src/base: struct options, shared by options.c (sources) and options_print.c (help, tables). */
#ifndef BASE_OPTIONS_IMPL_H
#define BASE_OPTIONS_IMPL_H

#include "base/options.h"

/* One row and its value. */
struct opt_entry {
    const struct opt_row *row;
    void *target;     /* start of the struct that row->offset is in; NULL = the row belongs to other commands */
    const char *text; /* what is in effect, NULL = nothing; lists joined by commas */
    enum opt_origin origin;
    const char *where;
    const char **items; /* OPT_LIST */
    size_t item_count;
    unsigned line; /* of the config file where it was set, 0 = not there */
};

struct opt_memory; /* strings that live as long as the options */

struct options {
    const char *command, *summary, *footer;
    struct opt_entry *entries;
    size_t count, cap;
    bool failed; /* memory ran out while tables were added */

    const char *args_usage; /* NULL = no positional arguments */
    size_t args_min, args_max;
    const char **args;
    size_t arg_count;

    bool help;
    const char *config; /* value of --config */
    struct opt_memory *memory;
};

/* "MOONCAKE_SOME_NAME" for "some-name"; out of at least strlen(name) + 10 bytes. */
void opt_env_name(const char *name, char *out);

/* What stands for the value in help: "SIZE", "TIME", "a|b|c". Appended. */
void opt_value_name(const struct opt_row *row, struct buf *out);

/* "from 1M to 8G", "at least 1", or nothing. Appended. */
void opt_range(const struct opt_row *row, struct buf *out);

/* options_value.c: check `text` against the row and store it in the target (if any). MC_OK, or MC_EINVAL with the reason appended
 * to `why`. OPT_STRING stores the pointer, so text must live long. Not for OPT_LIST. */
enum mc_status opt_store(const struct opt_row *row, void *target, const char *text, struct buf *why);

/* Zero: what a row without default has when nothing was given. */
void opt_clear(const struct opt_row *row, void *target);

#endif
