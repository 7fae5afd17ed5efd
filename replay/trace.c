/* trace.c - see trace.h. A line is parsed by jansson into a tree that is dropped at once; the buffers for line and ids are kept
 * and only ever grow to the longest line seen. */
#include "replay/trace.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "net/json.h"

enum { WHY_SIZE = 256, READ_SIZE = 256 << 10, TOKENS_MAX = 100 * 1000 * 1000 };

struct trace {
    struct trace_options options;
    FILE *file;
    char *line;
    size_t line_cap;
    uint64_t *ids;
    size_t ids_cap;
    uint64_t number, bad, reordered, bytes, size;
    double last_ms;
    bool regular;
};

enum mc_status trace_open(const struct trace_options *options, struct trace **out)
{
    struct trace *trace = calloc(1, sizeof(*trace));
    struct stat st;

    if (!trace)
        return MC_ENOMEM;
    trace->options = *options;
    trace->file = fopen(options->path, "re");
    if (!trace->file || fstat(fileno(trace->file), &st) < 0)
        goto undo;
    if (S_ISDIR(st.st_mode)) {
        errno = EISDIR;
        goto undo;
    }
    trace->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    trace->regular = S_ISREG(st.st_mode);
    setvbuf(trace->file, NULL, _IOFBF, READ_SIZE);
    *out = trace;
    return MC_OK;
undo:;
    int reason = errno;
    trace_close(trace);
    errno = reason;
    return MC_ESYS;
}

void trace_close(struct trace *trace)
{
    if (!trace)
        return;
    if (trace->file)
        fclose(trace->file);
    free(trace->line);
    free(trace->ids);
    free(trace);
}

/* ---- lines ---- */

static enum mc_status line_room(struct trace *trace, size_t need)
{
    size_t cap = trace->line_cap ? trace->line_cap : 4096;

    while (cap < need)
        cap *= 2;
    if (cap == trace->line_cap)
        return MC_OK;
    char *line = realloc(trace->line, cap);
    if (!line)
        return MC_ENOMEM;
    trace->line = line;
    trace->line_cap = cap;
    return MC_OK;
}

/* The next line without its end. MC_ETOOBIG: it was read past and is not kept. MC_ENOENT: no more. */
static enum mc_status next_line(struct trace *trace, size_t *len)
{
    size_t at = 0;
    bool too_long = false, any = false;

    for (int c; (c = getc_unlocked(trace->file)) != EOF;) {
        trace->bytes++;
        any = true;
        if (c == '\n')
            break;
        if (at >= TRACE_LINE_MAX) {
            too_long = true;
            continue;
        }
        if (at >= trace->line_cap && line_room(trace, at + 1) != MC_OK)
            return MC_ENOMEM;
        trace->line[at++] = (char)c;
    }
    if (ferror(trace->file))
        return MC_ESYS;
    if (!any)
        return MC_ENOENT;
    trace->number++;
    *len = at;
    return too_long ? MC_ETOOBIG : MC_OK;
}

static bool is_blank(const char *line, size_t len)
{
    while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t' || line[len - 1] == '\r'))
        len--;
    return len == 0;
}

/* ---- one request ---- */

static enum mc_status take_ids(struct trace *trace, struct json_in *in, uint32_t tokens, uint32_t *count)
{
    json_t *array = json_need_array(in, "hash_ids");
    size_t n = array ? json_array_size(array) : 0;
    uint64_t blocks = ((uint64_t)tokens + trace->options.block_tokens - 1) / trace->options.block_tokens;

    if (n > blocks) {
        json_fail(in, "hash_ids", "holds %zu ids for %u tokens in blocks of %u: at most %llu", n, tokens,
            trace->options.block_tokens, (unsigned long long)blocks);
        return MC_OK;
    }
    if (n > trace->ids_cap) {
        uint64_t *ids = realloc(trace->ids, n * sizeof(*ids));

        if (!ids)
            return MC_ENOMEM;
        trace->ids = ids;
        trace->ids_cap = n;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(array, i);

        if (!json_is_integer(id)) {
            json_fail(in, "hash_ids", "must be integers, and number %zu of them is none", i + 1);
            return MC_OK;
        }
        trace->ids[i] = (uint64_t)json_integer_value(id);
    }
    *count = (uint32_t)n;
    return MC_OK;
}

static enum mc_status take_request(struct trace *trace, json_t *object, struct trace_request *out, char why[WHY_SIZE])
{
    struct json_in in = json_in_of(object);
    struct trace_request request = {.ids = NULL, .line = trace->number};

    json_t *stamp = json_object_get(object, "timestamp");
    if (!json_is_number(stamp) || !isfinite(json_number_value(stamp)) || json_number_value(stamp) < 0)
        json_fail(&in, "timestamp", "must be milliseconds, 0 or more");
    request.at_ms = json_number_value(stamp);
    request.input_tokens = (uint32_t)json_need_int(&in, "input_length", 1, TOKENS_MAX);
    request.output_tokens = (uint32_t)json_need_int(&in, "output_length", 0, TOKENS_MAX);
    if (in.status == MC_OK && take_ids(trace, &in, request.input_tokens, &request.id_count) != MC_OK)
        return MC_ENOMEM;
    if (in.status != MC_OK) {
        snprintf(why, WHY_SIZE, "%s", in.message);
        return MC_EINVAL;
    }
    if (trace->options.whole_blocks && request.id_count > request.input_tokens / trace->options.block_tokens)
        request.id_count = request.input_tokens / trace->options.block_tokens;
    request.ids = trace->ids;
    *out = request;
    return MC_OK;
}

static enum mc_status parse(struct trace *trace, size_t len, struct trace_request *out, char why[WHY_SIZE])
{
    json_t *object = json_parse(slice_of(trace->line, len), why, WHY_SIZE);
    enum mc_status status = MC_EINVAL;

    if (object && !json_is_object(object))
        snprintf(why, WHY_SIZE, "this is JSON, but no object");
    else if (object)
        status = take_request(trace, object, out, why);
    json_decref(object);
    return status;
}

static void bad_line(struct trace *trace, const char *why)
{
    trace->bad++;
    if (trace->options.bad)
        trace->options.bad(trace->options.arg, trace->number, why);
}

enum mc_status trace_next(struct trace *trace, struct trace_request *out)
{
    for (;;) {
        char why[WHY_SIZE] = "";
        size_t len = 0;
        enum mc_status status = next_line(trace, &len);

        if (status == MC_ETOOBIG)
            snprintf(why, sizeof(why), "longer than %d bytes", TRACE_LINE_MAX);
        else if (status != MC_OK)
            return status;
        else if (is_blank(trace->line, len))
            continue;
        else
            status = parse(trace, len, out, why);
        if (status == MC_ENOMEM)
            return status;
        if (status == MC_OK)
            break;
        bad_line(trace, why);
        if (trace->options.strict)
            return MC_EINVAL;
    }
    if (out->at_ms < trace->last_ms) {
        out->at_ms = trace->last_ms;
        trace->reordered++;
    }
    trace->last_ms = out->at_ms;
    return MC_OK;
}

uint64_t trace_bad_lines(const struct trace *trace)
{
    return trace->bad;
}

uint64_t trace_reordered(const struct trace *trace)
{
    return trace->reordered;
}

bool trace_seekable(const struct trace *trace)
{
    return trace->regular;
}

double trace_progress(const struct trace *trace)
{
    double part = trace->size ? (double)trace->bytes / (double)trace->size : 0;

    return part < 1 ? part : 1;
}
