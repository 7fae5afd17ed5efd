/* flags.h - flags of the existing Mooncake's programs, as their users write them.
 *
 *     --flag value   --flag=value   --flag (switches: true)   --noflag   -flag   --with-dashes; below them a YAML or JSON file
 *     by --config_path
 *
 * Each flag of the existing program has a row that says what becomes of it here: it is taken; it only tunes what ours does by
 * itself, and is named once as without effect; or it turns on what is not there yet, and then the program does not start. What is
 * no flag at all is refused with the nearest name.
 * Pure but for reading the file. Threads: any. */
#ifndef COMPAT_PROGRAM_FLAGS_H
#define COMPAT_PROGRAM_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

enum flag_kind {
    FLAG_TEXT,     /* char[size] */
    FLAG_NUMBER,   /* uint32_t */
    FLAG_PORT,     /* uint32_t, 0 to 65535 */
    FLAG_SWITCH,   /* bool */
    FLAG_DURATION, /* uint32_t, ms: 250ms 10s 5m 1h, plain numbers are ms */
    FLAG_SIZE,     /* uint64_t, bytes: 16MB, "4 GB" */
};

enum flag_fate {
    FLAG_TAKEN,  /* goes to `offset` of the target */
    FLAG_TUNES,  /* has no effect */
    FLAG_ABSENT, /* refused, unless its value is one of `off` */
};

struct flag_row {
    const char *name;
    enum flag_kind kind;
    enum flag_fate fate;
    size_t offset, size;
    const char *off;  /* absent: values that ask for nothing, separated by '|' */
    const char *help; /* absent: what is not there */
};

#define FLAG_AT(type, field) FLAG_TAKEN, offsetof(struct type, field), sizeof(((struct type *)0)->field)
#define FLAG_WITHOUT(is)     FLAG_ABSENT, 0, 0, is

/* argv with the program's name; `target` holds the defaults. MC_OK: `message` has what has no effect, or nothing. MC_EINVAL: it says
 * what is wrong. */
enum mc_status flags_parse(
    const struct flag_row *rows, size_t count, int argc, char **argv, void *target, struct buf *message);

/* Every flag with what becomes of it. */
void flags_help(const struct flag_row *rows, size_t count, struct buf *out);

/* A size as FLAG_SIZE takes it. */
bool flag_size_of(const char *text, uint64_t *out);

#endif
