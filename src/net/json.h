/* json.h - reading JSON objects of users with errors that name the field. Over jansson.
 *
 *     struct json_in in = json_in_of(object);
 *     const char *model = json_need_str(&in, "model");
 *     int64_t n = json_opt_int(&in, "max_tokens", 16, 1, 1 << 20);
 *     if (in.status != MC_OK) http_reply_error(req, 400, NULL, in.param, NULL, "%s", in.message);
 *
 * The first error stays; reads after it give the default. Values are lent by the object.
 * Threads: one per object. */
#ifndef NET_JSON_H
#define NET_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/slice.h"
#include "mooncake/status.h"

struct json_in {
    json_t *object;        /* borrowed */
    enum mc_status status; /* MC_OK or MC_EINVAL */
    char param[64];        /* the field */
    char message[192];     /* "field 'max_tokens' must be an integer from 1 to 1048576" */
};

struct json_in json_in_of(json_t *object);

/* Say that a field is bad for a reason of the caller's; the first one stays. */
void json_fail(struct json_in *in, const char *field, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Missing (or null), or of another type: error. */
const char *json_need_str(struct json_in *in, const char *field);
int64_t json_need_int(struct json_in *in, const char *field, int64_t min, int64_t max);
json_t *json_need_array(struct json_in *in, const char *field);
json_t *json_need_object(struct json_in *in, const char *field);

/* Missing or null: the default. */
const char *json_opt_str(struct json_in *in, const char *field, const char *def);
int64_t json_opt_int(struct json_in *in, const char *field, int64_t def, int64_t min, int64_t max);
double json_opt_num(struct json_in *in, const char *field, double def, double min, double max);
bool json_opt_bool(struct json_in *in, const char *field, bool def);
json_t *json_opt_array(struct json_in *in, const char *field);  /* NULL */
json_t *json_opt_object(struct json_in *in, const char *field); /* NULL */

/* Parse text from outside: one value, no duplicate keys, nesting as jansson bounds it. Given to the caller; NULL and `why` filled
 * (line, column, reason) when it is not JSON. */
json_t *json_parse(struct slice text, char *why, size_t size);

/* Compact text appended to `out`; false when memory is out. */
bool json_write(const json_t *value, struct buf *out);

/* Append `text` as a JSON string with quotes; bytes that are no UTF-8 become U+FFFD. */
void json_write_str(struct buf *out, struct slice text);

#endif
