/* flags.c - see flags.h. */
#include "compat/program/flags.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/options.h"

enum { ROWS_MAX = 128 };

struct parse {
    const struct flag_row *rows;
    size_t count;
    void *target;
    struct buf *message;
    bool named[ROWS_MAX]; /* as without effect */
    const char *where;
};

static enum mc_status bad(struct parse *p, const char *name, const char *value, const char *what)
{
    buf_printf(p->message, "%s: --%s=%s: %s\n", p->where, name, value, what);
    return MC_EINVAL;
}

/* ---- values ---- */

static bool switch_of(const char *text, bool *out)
{
    *out = strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0 || strcasecmp(text, "yes") == 0 ||
           strcasecmp(text, "t") == 0;
    return *out || strcasecmp(text, "false") == 0 || strcmp(text, "0") == 0 || strcasecmp(text, "no") == 0 ||
           strcasecmp(text, "f") == 0;
}

/* Plain numbers are milliseconds. */
static bool duration_of(const char *text, uint32_t *ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;
    double value = strtod(text, &end);

    for (size_t i = 0; end != text && i < sizeof(units) / sizeof(*units); i++)
        if (strcmp(end, units[i].unit) == 0 && value >= 0 && value * units[i].ms < UINT32_MAX) {
            *ms = (uint32_t)(value * units[i].ms);
            return true;
        }
    return false;
}

bool flag_size_of(const char *text, uint64_t *out)
{
    static const char units[] = "kmgt";
    char *end;
    double value = strtod(text, &end);

    end += strspn(end, " ");
    if (end == text || !(value >= 0 && value < 1e18))
        return false;
    if (*end) {
        const char *unit = strchr(units, *end | 0x20);

        value *= unit ? (double)(1ull << 10 * (unit - units + 1)) : 1;
        end += unit != NULL;
        end += (*end | 0x20) == 'i';
        end += (*end | 0x20) == 'b';
    }
    *out = (uint64_t)value;
    return *end == '\0';
}

static bool number_of(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return end != text && *end == '\0' && !errno && *text != '-';
}

static enum mc_status take(struct parse *p, const struct flag_row *row, const char *value)
{
    char *field = (char *)p->target + row->offset;
    uint64_t number;
    uint32_t ms;
    bool on, port;

    switch (row->kind) {
    case FLAG_TEXT:
        if (strlen(value) >= row->size)
            return bad(p, row->name, value, "too long");
        strcpy(field, value);
        return MC_OK;
    case FLAG_SWITCH:
        if (!switch_of(value, &on))
            return bad(p, row->name, value, "expected true or false");
        memcpy(field, &on, sizeof(on));
        return MC_OK;
    case FLAG_DURATION:
        if (!duration_of(value, &ms))
            return bad(p, row->name, value, "expected milliseconds, or a number with ms, s, m or h");
        memcpy(field, &ms, sizeof(ms));
        return MC_OK;
    case FLAG_SIZE:
        if (!flag_size_of(value, &number))
            return bad(p, row->name, value, "expected bytes, or a number with KB, MB, GB or TB");
        memcpy(field, &number, sizeof(number));
        return MC_OK;
    case FLAG_NUMBER:
    case FLAG_PORT:
        port = row->kind == FLAG_PORT;
        if (!number_of(value, &number) || number > (port ? UINT16_MAX : UINT32_MAX))
            return bad(p, row->name, value, port ? "expected a port, 0 to 65535" : "expected a whole number");
        ms = (uint32_t)number;
        memcpy(field, &ms, sizeof(ms));
        return MC_OK;
    }
    return MC_EINVAL;
}

/* Is the value one of those that ask for nothing? */
static bool asks_nothing(const struct flag_row *row, const char *value)
{
    const char *at = row->off;
    bool on, off_on;

    if (row->kind == FLAG_SWITCH)
        return switch_of(value, &on) && switch_of(row->off, &off_on) && on == off_on;
    for (;;) {
        size_t len = strcspn(at, "|");

        if (strlen(value) == len && memcmp(at, value, len) == 0)
            return true;
        if (!at[len])
            return false;
        at += len + 1;
    }
}

static enum mc_status apply(struct parse *p, size_t i, const char *value)
{
    const struct flag_row *row = &p->rows[i];
    bool on;
    uint64_t number;
    uint32_t ms;

    if (row->fate == FLAG_TAKEN)
        return take(p, row, value);
    if ((row->kind == FLAG_SWITCH && !switch_of(value, &on)) ||
        (row->kind == FLAG_NUMBER && !number_of(value, &number)) ||
        (row->kind == FLAG_DURATION && !duration_of(value, &ms)))
        return bad(p, row->name, value, "no such value");
    if (row->fate == FLAG_ABSENT && !asks_nothing(row, value)) {
        buf_printf(p->message, "%s: --%s=%s: not there yet: %s\n", p->where, row->name, value, row->help);
        return MC_EINVAL;
    }
    p->named[i] = row->fate == FLAG_TUNES && strcmp(row->name, "config_path") != 0;
    return MC_OK;
}

/* ---- names ---- */

static size_t find(const struct parse *p, const char *name, size_t len)
{
    for (size_t i = 0; i < p->count; i++)
        if (strlen(p->rows[i].name) == len && memcmp(p->rows[i].name, name, len) == 0)
            return i;
    return p->count;
}

static enum mc_status unknown(struct parse *p, const char *name)
{
    size_t best = strlen(name) / 3 + 1;
    const char *near = NULL;

    for (size_t i = 0; i < p->count; i++) {
        size_t distance = edit_distance(name, p->rows[i].name);

        if (distance < best || (distance == best && !near)) {
            best = distance;
            near = p->rows[i].name;
        }
    }
    buf_printf(p->message, "%s: no flag is called '%s'", p->where, name);
    if (near)
        buf_printf(p->message, "; did you mean '%s'?", near);
    buf_printf(p->message, "\n");
    return MC_EINVAL;
}

static bool is_word(const char *text)
{
    bool on;

    return strlen(text) > 1 && switch_of(text, &on);
}

/* argv[*at] and, when its value stands apart, the one behind it. */
static enum mc_status argument(struct parse *p, int argc, char **argv, int *at)
{
    const char *text = argv[*at], *value;
    char name[128];
    size_t len, i;

    if (text[0] != '-' || !text[1]) {
        buf_printf(p->message, "%s: '%s' is no flag\n", p->where, text);
        return MC_EINVAL;
    }
    text += text[1] == '-' ? 2 : 1;
    len = strcspn(text, "=");
    value = text[len] ? text + len + 1 : NULL;
    snprintf(name, sizeof(name), "%.*s", (int)len, text);
    for (char *c = name; *c; c++) /* both ways to write it are in use */
        *c = *c == '-' ? '_' : *c;
    i = find(p, name, strlen(name));
    if (i == p->count && !value && strncmp(name, "no", 2) == 0) {
        i = find(p, name + 2, strlen(name) - 2);
        value = "false";
        if (i < p->count && p->rows[i].kind != FLAG_SWITCH)
            i = p->count;
    }
    if (i == p->count)
        return unknown(p, name);
    if (!value && p->rows[i].kind == FLAG_SWITCH)
        value = *at + 1 < argc && is_word(argv[*at + 1]) ? argv[++*at] : "true";
    if (!value) {
        if (*at + 1 == argc)
            return bad(p, name, "", "a value is missing");
        value = argv[++*at];
    }
    return apply(p, i, value);
}

/* ---- the file ---- */

static enum mc_status json_file(struct parse *p, json_t *object)
{
    const char *name;
    json_t *value;
    enum mc_status status = MC_OK;

    json_object_foreach(object, name, value)
    {
        char text[64];
        const char *shown = text;
        size_t i = find(p, name, strlen(name));

        if (json_is_string(value))
            shown = json_string_value(value);
        else if (json_is_boolean(value))
            shown = json_is_true(value) ? "true" : "false";
        else if (json_is_integer(value))
            snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
        else
            snprintf(text, sizeof(text), "%.17g", json_number_value(value));
        status = i == p->count ? unknown(p, name) : apply(p, i, shown);
        if (status != MC_OK)
            break;
    }
    return status;
}

static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (end > text && strchr(" \t\r\n", end[-1]))
        *--end = '\0';
    text += strspn(text, " \t");
    if ((*text == '"' || *text == '\'') && end > text + 1 && end[-1] == *text) {
        end[-1] = '\0';
        text++;
    }
    return text;
}

/* The YAML these files are written in: one `name: value` a line. */
static enum mc_status yaml_file(struct parse *p, char *text)
{
    char *save, *line = strtok_r(text, "\n", &save);
    enum mc_status status = MC_OK;

    for (; line && status == MC_OK; line = strtok_r(NULL, "\n", &save)) {
        char *comment = strstr(line, " #"), *colon, *name, *value;
        size_t i;

        if (comment)
            *comment = '\0';
        name = trim(line);
        if (!*name || *name == '#' || strcmp(name, "---") == 0)
            continue;
        colon = strchr(name, ':');
        if (!colon) {
            buf_printf(p->message, "%s: '%s' is no 'name: value'\n", p->where, name);
            return MC_EINVAL;
        }
        *colon = '\0';
        value = trim(colon + 1);
        name = trim(name);
        i = find(p, name, strlen(name));
        status = i == p->count ? unknown(p, name) : apply(p, i, value);
    }
    return status;
}

static enum mc_status read_file(struct parse *p, const char *path)
{
    char *text;
    size_t len;
    enum mc_status status = options_read_file(NULL, path, &text, &len);

    p->where = path;
    if (status != MC_OK) {
        buf_printf(p->message, "--config_path=%s: it cannot be read\n", path);
        return MC_EINVAL;
    }
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(object)) {
        status = json_file(p, object);
    } else {
        char *ended = strndup(text, len);

        status = ended ? yaml_file(p, ended) : MC_ENOMEM;
        free(ended);
    }
    json_decref(object);
    free(text);
    return status;
}

/* Where the file is has to be known before anything else. */
static const char *config_path(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i] + strspn(argv[i], "-");

        if (text - argv[i] > 2 || strncmp(text, "config_path", 11) != 0)
            continue;
        if (text[11] == '=')
            return text + 12;
        if (!text[11] && i + 1 < argc)
            return argv[i + 1];
    }
    return NULL;
}

/* ---- all of it ---- */

static void name_idle(const struct parse *p)
{
    bool any = false;

    for (size_t i = 0; i < p->count; i++) {
        if (!p->named[i])
            continue;
        buf_printf(p->message, "%s%s", any ? ", " : "flags without effect here: ", p->rows[i].name);
        any = true;
    }
    if (any)
        buf_printf(p->message, "\n");
}

enum mc_status flags_parse(
    const struct flag_row *rows, size_t count, int argc, char **argv, void *target, struct buf *message)
{
    struct parse p = {.rows = rows, .count = count, .target = target, .message = message};
    const char *path = config_path(argc, argv);
    enum mc_status status = MC_OK;

    assert(count <= ROWS_MAX);
    if (path && *path)
        status = read_file(&p, path);
    p.where = "command line";
    for (int i = 1; i < argc && status == MC_OK; i++)
        status = argument(&p, argc, argv, &i);
    if (status == MC_OK)
        name_idle(&p);
    return status;
}

void flags_help(const struct flag_row *rows, size_t count, struct buf *out)
{
    static const struct {
        enum flag_fate fate;
        const char *head;
    } groups[] = {{FLAG_TAKEN, ""}, {FLAG_TUNES, "\nTaken without effect (done here without being asked):\n"},
        {FLAG_ABSENT, "\nNot there yet (refused when it asks for something):\n"}};

    for (size_t g = 0; g < sizeof(groups) / sizeof(*groups); g++) {
        buf_printf(out, "%s", groups[g].head);
        for (size_t i = 0; i < count; i++)
            if (rows[i].fate == groups[g].fate)
                buf_printf(out, "  --%-44s %s\n", rows[i].name, rows[i].help ? rows[i].help : "");
    }
}
