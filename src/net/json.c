/* json.c - jansson with errors that name the field. */
#include "net/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct json_in json_in_of(json_t *object)
{
    return (struct json_in){.object = object, .status = MC_OK};
}

void json_fail(struct json_in *in, const char *field, const char *format, ...)
{
    va_list args;
    int n;

    if (in->status != MC_OK)
        return;
    in->status = MC_EINVAL;
    snprintf(in->param, sizeof(in->param), "%s", field);
    n = snprintf(in->message, sizeof(in->message), "field '%s' ", in->param);
    va_start(args, format);
    if (n > 0 && (size_t)n < sizeof(in->message))
        vsnprintf(in->message + n, sizeof(in->message) - (size_t)n, format, args);
    va_end(args);
}

/* NULL when it is missing or null, or an earlier field was bad. */
static json_t *get(struct json_in *in, const char *field)
{
    json_t *value = in->status == MC_OK ? json_object_get(in->object, field) : NULL;

    return json_is_null(value) ? NULL : value;
}

static json_t *need(struct json_in *in, const char *field)
{
    json_t *value = get(in, field);

    if (!value)
        json_fail(in, field, "is missing");
    return value;
}

static const char *as_str(struct json_in *in, const char *field, json_t *value, const char *def)
{
    if (!value)
        return def;
    if (json_is_string(value) && strlen(json_string_value(value)) == json_string_length(value))
        return json_string_value(value);
    json_fail(in, field, "must be a string");
    return def;
}

static int64_t as_int(struct json_in *in, const char *field, json_t *value, int64_t def, int64_t min, int64_t max)
{
    double real = json_is_real(value) ? json_real_value(value) : 0.5;

    if (!value)
        return def;
    /* 16.0 is an integer to many a JavaScript client */
    if (json_is_integer(value) && json_integer_value(value) >= min && json_integer_value(value) <= max)
        return json_integer_value(value);
    if (real == floor(real) && real >= -0x1p53 && real <= 0x1p53 && (int64_t)real >= min && (int64_t)real <= max)
        return (int64_t)real;
    json_fail(in, field, "must be an integer from %lld to %lld", (long long)min, (long long)max);
    return def;
}

const char *json_need_str(struct json_in *in, const char *field)
{
    return as_str(in, field, need(in, field), "");
}

int64_t json_need_int(struct json_in *in, const char *field, int64_t min, int64_t max)
{
    return as_int(in, field, need(in, field), min, min, max);
}

static json_t *typed(struct json_in *in, const char *field, json_t *value, json_type type, const char *what)
{
    if (!value || json_typeof(value) == type)
        return value;
    json_fail(in, field, "must be %s", what);
    return NULL;
}

json_t *json_need_array(struct json_in *in, const char *field)
{
    return typed(in, field, need(in, field), JSON_ARRAY, "an array");
}

json_t *json_need_object(struct json_in *in, const char *field)
{
    return typed(in, field, need(in, field), JSON_OBJECT, "an object");
}

json_t *json_opt_array(struct json_in *in, const char *field)
{
    return typed(in, field, get(in, field), JSON_ARRAY, "an array");
}

json_t *json_opt_object(struct json_in *in, const char *field)
{
    return typed(in, field, get(in, field), JSON_OBJECT, "an object");
}

const char *json_opt_str(struct json_in *in, const char *field, const char *def)
{
    return as_str(in, field, get(in, field), def);
}

int64_t json_opt_int(struct json_in *in, const char *field, int64_t def, int64_t min, int64_t max)
{
    return as_int(in, field, get(in, field), def, min, max);
}

double json_opt_num(struct json_in *in, const char *field, double def, double min, double max)
{
    json_t *value = get(in, field);

    if (!value)
        return def;
    if (json_is_number(value) && json_number_value(value) >= min && json_number_value(value) <= max)
        return json_number_value(value);
    json_fail(in, field, "must be a number from %g to %g", min, max);
    return def;
}

bool json_opt_bool(struct json_in *in, const char *field, bool def)
{
    json_t *value = get(in, field);

    if (!value || json_is_boolean(value))
        return value ? json_is_true(value) : def;
    json_fail(in, field, "must be true or false");
    return def;
}

json_t *json_parse(struct slice text, char *why, size_t size)
{
    json_error_t error;
    json_t *value;

    if (text.len == 0) {
        snprintf(why, size, "not valid JSON: it is empty");
        return NULL;
    }
    value =
        json_loadb((const char *)text.ptr, text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value)
        snprintf(why, size, "not valid JSON at line %d column %d: %s", error.line, error.column, error.text);
    return value;
}

static int append(const char *bytes, size_t len, void *arg)
{
    struct buf *out = arg;

    buf_append(out, bytes, len);
    return buf_status(out) == MC_OK ? 0 : -1;
}

bool json_write(const json_t *value, struct buf *out)
{
    return json_dump_callback(value, append, out, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(12)) == 0;
}

/* Length of the well-formed UTF-8 sequence at p, 0 if there is none (also for surrogates and overlong forms). */
static size_t utf8_len(const uint8_t *p, size_t left)
{
    size_t len = p[0] < 0x80                   ? 1
                 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
                 : (p[0] & 0xf0) == 0xe0       ? 3
                 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                               : 0;

    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return len;
}

static void write_ascii(struct buf *out, uint8_t c)
{
    static const char escapes[] = "btn\0fr"; /* 8 9 10 - 12 13 */

    if (c == '"' || c == '\\')
        buf_printf(out, "\\%c", c);
    else if (c >= 8 && c <= 13 && c != 11)
        buf_printf(out, "\\%c", escapes[c - 8]);
    else if (c < 0x20 || c == 0x7f)
        buf_printf(out, "\\u%04x", c);
    else
        buf_append_char(out, (char)c);
}

void json_write_str(struct buf *out, struct slice text)
{
    buf_append_char(out, '"');
    for (size_t i = 0; i < text.len;) {
        size_t len = utf8_len(text.ptr + i, text.len - i);

        if (len == 1)
            write_ascii(out, text.ptr[i]);
        else if (len > 1)
            buf_append(out, text.ptr + i, len);
        else
            buf_append_str(out, "\xef\xbf\xbd");
        i += len ? len : 1;
    }
    buf_append_char(out, '"');
}
