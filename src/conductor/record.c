/* record.c - see record.h. Written through stdio's buffers by the loop itself: a line is some hundred bytes. A file that cannot be
 * written any more ends the recording with one line in the log, not the service. */
#include "conductor/record.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/cursor.h"
#include "base/log.h"
#include "conductor/request_impl.h"
#include "conductor/scheduler/fields.h"

struct record_line {
    struct list link;        /* record->lines, in order of arrival */
    struct request *request; /* NULL: it has ended, or was written already */
    char *text;              /* NULL: nothing is to be written */
};

struct record {
    FILE *trace, *decisions;
    struct list lines;
    uint32_t waiting;
    uint64_t began_ns;
    bool failed;
};

enum mc_status record_open(const char *path, struct record **out)
{
    struct record *record = calloc(1, sizeof *record);
    size_t size = strlen(path) + sizeof ".decisions";
    char *beside = malloc(size);
    enum mc_status status = MC_ENOMEM;

    if (!record || !beside)
        goto undo;
    snprintf(beside, size, "%s.decisions", path);
    list_init(&record->lines);
    status = MC_ESYS;
    if (!(record->trace = fopen(path, "we")) || !(record->decisions = fopen(beside, "we")))
        goto undo;
    free(beside);
    *out = record;
    return MC_OK;
undo:;
    int reason = errno;
    if (record && record->trace)
        fclose(record->trace);
    free(record);
    free(beside);
    errno = reason;
    return status;
}

static void write_line(struct record *record, FILE *file, const char *text)
{
    if (record->failed)
        return;
    if (fputs(text, file) < 0 || putc('\n', file) < 0) {
        record->failed = true;
        log_error("recording ends: %m");
    }
}

/* ---- the trace ---- */

/* 63 bits of a block's id: JSON readers take signed numbers. */
static int64_t number_of(const struct mc_block_id *id)
{
    return (int64_t)(le64_get((const uint8_t *)id) & INT64_MAX);
}

static char *line_of(struct record *record, const struct request *request)
{
    uint32_t count = 0;
    struct mc_block_id *ids = request_block_ids(request, RECORD_BLOCK_TOKENS, &count);
    struct buf out;
    char *text = NULL;

    buf_init(&out, SIZE_MAX);
    buf_printf(&out, "{\"timestamp\": %.3f, \"input_length\": %u, \"output_length\": %u, \"hash_ids\": [",
        (double)(request->started_ns - record->began_ns) / NS_PER_MS, request->prompt_count, request->answer_count);
    for (uint32_t i = 0; i < count; i++)
        buf_printf(&out, "%s%" PRId64, i ? ", " : "", number_of(&ids[i]));
    buf_append_str(&out, "]}");
    if (buf_status(&out) == MC_OK)
        text = strdup(buf_cstr(&out));
    buf_fini(&out);
    free(ids);
    return text;
}

static void settle(struct record *record, struct record_line *line)
{
    if (line->request->tokens)
        line->text = line_of(record, line->request);
    line->request->record = NULL;
    line->request = NULL;
}

static void write_first(struct record *record)
{
    struct record_line *line = list_first(&record->lines, struct record_line, link);

    if (line->text)
        write_line(record, record->trace, line->text);
    list_del(&line->link);
    record->waiting--;
    free(line->text);
    free(line);
}

static void write_settled(struct record *record)
{
    while (!list_empty(&record->lines) && !list_first(&record->lines, struct record_line, link)->request)
        write_first(record);
}

struct record_line *record_begin(struct record *record, struct request *request)
{
    struct record_line *line = calloc(1, sizeof *line);

    if (!line)
        return NULL;
    if (!record->began_ns)
        record->began_ns = request->started_ns;
    if (record->waiting >= RECORD_WAITING_MAX) {
        settle(record, list_first(&record->lines, struct record_line, link));
        write_settled(record);
    }
    line->request = request;
    list_push_back(&record->lines, &line->link);
    record->waiting++;
    return line;
}

void record_end(struct record *record, struct record_line *line)
{
    if (!line)
        return;
    settle(record, line);
    write_settled(record);
}

void record_close(struct record *record)
{
    if (!record)
        return;
    while (!list_empty(&record->lines)) {
        struct record_line *line = list_first(&record->lines, struct record_line, link);

        if (line->request)
            settle(record, line);
        write_first(record);
    }
    if (fclose(record->trace) != 0 || fclose(record->decisions) != 0)
        log_error("the recording is not whole: %m");
    free(record);
}

/* ---- decisions ---- */

/* What is no number in JSON (a time that never comes) is null. */
static void put_double(struct buf *out, double value)
{
    if (isfinite(value))
        buf_printf(out, "%.17g", value);
    else
        buf_append_str(out, "null");
}

static void put_fields(struct buf *out, const void *object, const struct sched_field *fields)
{
    buf_append_char(out, '[');
    for (const struct sched_field *field = fields; field->name; field++) {
        if (field != fields)
            buf_append_char(out, ',');
        if (field->kind == SCHED_DOUBLE)
            put_double(out, sched_field_double(object, field));
        else
            buf_printf(out, "%" PRId64, sched_field_int(object, field));
    }
    buf_append_char(out, ']');
}

static void put_worker(struct buf *out, const struct mc_sched_worker *worker, uint32_t nodes)
{
    buf_append_str(out, "{\"is\":");
    put_fields(out, worker, sched_worker_fields);
    buf_append_str(out, ",\"prefill\":");
    put_fields(out, worker->prefill, sched_fit_fields);
    buf_append_str(out, ",\"decode\":");
    put_fields(out, worker->decode, sched_fit_fields);
    buf_append_str(out, worker->links ? ",\"links\":[" : ",\"links\":null");
    for (uint32_t i = 0; worker->links && i < nodes; i++) {
        buf_append_str(out, i ? "," : "");
        put_fields(out, &worker->links[i], sched_link_fields);
    }
    buf_append_str(out, worker->links ? "]}" : "}");
}

void record_decision(struct record *record, const char *policy, const struct mc_sched_snapshot *snapshot,
    const struct mc_sched_request *request, const struct mc_sched_decision *decision)
{
    struct buf out;

    buf_init(&out, SIZE_MAX);
    buf_printf(&out, "{\"policy\":\"%s\",\"snapshot\":", policy);
    put_fields(&out, snapshot, sched_snapshot_fields);
    buf_append_str(&out, ",\"workers\":[");
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        buf_append_str(&out, i ? "," : "");
        put_worker(&out, &snapshot->workers[i], snapshot->node_count);
    }
    buf_append_str(&out, "],\"request\":");
    put_fields(&out, request, sched_request_fields);
    buf_append_str(&out, request->node_blocks ? ",\"node_blocks\":[" : ",\"node_blocks\":null");
    for (uint32_t i = 0; request->node_blocks && i < snapshot->node_count; i++)
        buf_printf(&out, "%s%u", i ? "," : "", request->node_blocks[i]);
    buf_append_str(&out, request->node_blocks ? "],\"decision\":" : ",\"decision\":");
    put_fields(&out, decision, sched_decision_fields);
    buf_append_char(&out, '}');
    if (buf_status(&out) == MC_OK)
        write_line(record, record->decisions, buf_cstr(&out));
    buf_fini(&out);
}
