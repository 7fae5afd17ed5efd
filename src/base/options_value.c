/* options_value.c - from text to values and back: sizes, durations, numbers, choices; and the nearest word. Pure. */
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options_impl.h"

static const char *const type_names[] = {
    [OPT_STRING] = "TEXT",
    [OPT_INT] = "N",
    [OPT_SIZE] = "SIZE",
    [OPT_MS] = "TIME",
    [OPT_FLOAT] = "NUMBER",
    [OPT_LIST] = "ITEM",
};

void opt_value_name(const struct opt_row *row, struct buf *out)
{
    if (row->unit) {
        buf_append_str(out, row->unit);
    } else if (row->type == OPT_ENUM) {
        for (size_t i = 0; row->choices[i]; i++)
            buf_printf(out, "%s%s", i ? "|" : "", row->choices[i]);
    } else if (row->type != OPT_BOOL) {
        buf_append_str(out, type_names[row->type]);
    }
}

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"T", 1ull << 40},
    {"G", 1ull << 30},
    {"M", 1ull << 20},
    {"K", 1ull << 10},
    {"", 1},
    {"TiB", 1ull << 40},
    {"GiB", 1ull << 30},
    {"MiB", 1ull << 20},
    {"KiB", 1ull << 10},
    {"B", 1},
};
static const struct unit time_units[] = {
    {"d", 86400000},
    {"h", 3600000},
    {"m", 60000},
    {"s", 1000},
    {"ms", 1},
    {"", 1},
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Digits, an optional fraction ("1.5G"), and a unit of the table in any case. */
static enum mc_status parse_unit(const char *text, const struct unit *units, size_t count, uint64_t *value)
{
    const struct unit *unit = NULL;
    uint64_t whole = 0;
    double fraction = 0, scale = 0.1;
    const char *p = text;

    if (!isdigit((unsigned char)*p))
        return MC_EINVAL;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(whole, 10u, &whole) || __builtin_add_overflow(whole, (unsigned)(*p - '0'), &whole))
            return MC_ETOOBIG;
    if (*p == '.') {
        if (!isdigit((unsigned char)*++p))
            return MC_EINVAL;
        for (; isdigit((unsigned char)*p); p++, scale /= 10)
            fraction += (*p - '0') * scale;
    }
    while (*p == ' ')
        p++;
    for (size_t i = 0; i < count && !unit; i++)
        if (strcasecmp(p, units[i].name) == 0)
            unit = &units[i];
    if (!unit)
        return MC_EINVAL;
    if (__builtin_mul_overflow(whole, unit->factor, &whole) ||
        __builtin_add_overflow(whole, (uint64_t)llround(fraction * (double)unit->factor), &whole))
        return MC_ETOOBIG;
    *value = whole;
    return MC_OK;
}

enum mc_status size_parse(const char *text, uint64_t *bytes)
{
    return parse_unit(text, size_units, COUNT(size_units), bytes);
}

enum mc_status duration_parse(const char *text, uint64_t *ms)
{
    return parse_unit(text, time_units, COUNT(time_units), ms);
}

void size_format(uint64_t bytes, char *out)
{
    size_t i = 0;

    while (size_units[i].factor > 1 && (bytes == 0 || bytes % size_units[i].factor))
        i++;
    snprintf(out, 24, "%llu%s", (unsigned long long)(bytes / size_units[i].factor), size_units[i].name);
}

void duration_format(uint64_t ms, char *out)
{
    size_t i = 0;

    while (time_units[i].factor > 1 && (ms == 0 || ms % time_units[i].factor))
        i++;
    snprintf(out, 24, "%llu%s", (unsigned long long)(ms / time_units[i].factor), time_units[i].name);
}

#define WORD_MAX 48

size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][WORD_MAX + 1], *two_up = rows[0], *up = rows[1], *now = rows[2], *swap;
    size_t la = strnlen(a, WORD_MAX), lb = strnlen(b, WORD_MAX);

    memset(rows, 0, sizeof(rows));
    for (size_t j = 0; j <= lb; j++)
        up[j] = j;
    for (size_t i = 1; i <= la; i++) {
        now[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = up[j - 1] + (a[i - 1] != b[j - 1]);

            best = up[j] + 1 < best ? up[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && two_up[j - 2] + 1 < best)
                best = two_up[j - 2] + 1;
            now[j] = best;
        }
        swap = two_up;
        two_up = up;
        up = now;
        now = swap;
    }
    return up[lb];
}

/* --- ranges --- */

static void format_number(const struct opt_row *row, double value, struct buf *out)
{
    char text[32];

    if (row->type == OPT_SIZE)
        size_format((uint64_t)value, text);
    else if (row->type == OPT_MS)
        duration_format((uint64_t)value, text);
    else
        snprintf(text, sizeof(text), "%.15g", value);
    buf_append_str(out, text);
}

static bool is_number(enum opt_type type)
{
    return type == OPT_INT || type == OPT_SIZE || type == OPT_MS || type == OPT_FLOAT;
}

void opt_range(const struct opt_row *row, struct buf *out)
{
    if (!is_number(row->type) || (row->min == 0 && row->max == 0))
        return;
    buf_append_str(out, row->max != 0 ? "from " : "at least ");
    format_number(row, row->min, out);
    if (row->max == 0)
        return;
    buf_append_str(out, " to ");
    format_number(row, row->max, out);
}

static enum mc_status check_range(const struct opt_row *row, double value, const char *text, struct buf *why)
{
    bool any = row->min == 0 && row->max == 0;

    if (any || (value >= row->min && (row->max == 0 || value <= row->max)))
        return MC_OK;
    buf_printf(why, "%s is out of range: must be ", text);
    opt_range(row, why);
    return MC_EINVAL;
}

static void *field(const struct opt_row *row, void *target)
{
    return target ? (char *)target + row->offset : NULL;
}

/* --- one function a type --- */

void opt_clear(const struct opt_row *row, void *target)
{
    static const size_t sizes[] = {
        [OPT_STRING] = sizeof(const char *),
        [OPT_INT] = sizeof(int64_t),
        [OPT_SIZE] = sizeof(uint64_t),
        [OPT_MS] = sizeof(uint64_t),
        [OPT_BOOL] = sizeof(bool),
        [OPT_FLOAT] = sizeof(double),
        [OPT_ENUM] = sizeof(int),
        [OPT_LIST] = sizeof(struct opt_list),
    };

    if (target)
        memset(field(row, target), 0, sizes[row->type]);
}

static enum mc_status store_int(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    int64_t *to = field(row, target);
    enum mc_status status;
    long long value;
    char *end;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (end == text || *end || isspace((unsigned char)*text) || errno) {
        buf_printf(why, "'%s' is not a whole number", text);
        return MC_EINVAL;
    }
    status = check_range(row, (double)value, text, why);
    if (status == MC_OK && to)
        *to = value;
    return status;
}

static enum mc_status store_unit(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    uint64_t *to = field(row, target), value;
    enum mc_status status = row->type == OPT_SIZE ? size_parse(text, &value) : duration_parse(text, &value);

    if (status != MC_OK) {
        buf_printf(why, "'%s' %s", text,
            status == MC_ETOOBIG    ? "is too large"
            : row->type == OPT_SIZE ? "is not a size (write 4096, 64K, 512M, 8G or 2T)"
                                    : "is not a time (write 250ms, 2s, 5m or 1h)");
        return MC_EINVAL;
    }
    status = check_range(row, (double)value, text, why);
    if (status == MC_OK && to)
        *to = value;
    return status;
}

static enum mc_status store_float(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    double *to = field(row, target), value;
    enum mc_status status;
    char *end;

    value = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text) || !isfinite(value)) {
        buf_printf(why, "'%s' is not a number", text);
        return MC_EINVAL;
    }
    status = check_range(row, value, text, why);
    if (status == MC_OK && to)
        *to = value;
    return status;
}

static enum mc_status store_bool(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    bool *to = field(row, target);

    for (size_t i = 0; i < COUNT(words); i++)
        if (strcasecmp(text, words[i]) == 0) {
            if (to)
                *to = i % 2;
            return MC_OK;
        }
    buf_printf(why, "'%s' is neither yes nor no", text);
    return MC_EINVAL;
}

static enum mc_status store_enum(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    const char *nearest = NULL;
    size_t best = SIZE_MAX;
    int *to = field(row, target);

    for (int i = 0; row->choices[i]; i++) {
        size_t distance = edit_distance(text, row->choices[i]);

        if (strcmp(text, row->choices[i]) == 0) {
            if (to)
                *to = i;
            return MC_OK;
        }
        if (distance < best) {
            best = distance;
            nearest = row->choices[i];
        }
    }
    buf_printf(why, "'%s' is not one of ", text);
    opt_value_name(row, why);
    if (nearest && best <= 2)
        buf_printf(why, "; did you mean '%s'?", nearest);
    return MC_EINVAL;
}

static enum mc_status store_string(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    const char **to = field(row, target);

    if (to)
        *to = text;
    return MC_OK;
}

enum mc_status opt_store(const struct opt_row *row, void *target, const char *text, struct buf *why)
{
    switch (row->type) {
    case OPT_STRING: return store_string(row, target, text, why);
    case OPT_INT: return store_int(row, target, text, why);
    case OPT_SIZE:
    case OPT_MS: return store_unit(row, target, text, why);
    case OPT_BOOL: return store_bool(row, target, text, why);
    case OPT_FLOAT: return store_float(row, target, text, why);
    case OPT_ENUM: return store_enum(row, target, text, why);
    case OPT_LIST: break;
    }
    assert(!"lists are stored item by item");
    return MC_EINVAL;
}
