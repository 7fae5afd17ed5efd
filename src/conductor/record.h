/* record.h - live traffic as a trace, and beside it what was decided about it: `mooncake conductor --record FILE`.
 *
 *   FILE             a line a request, in order of arrival: {"timestamp","input_length","output_length","hash_ids"}; an id a 512 tokens
 *                    of the prompt, from the chain of block ids, so equal prefixes are equal ids. No text, no tokens
 *   FILE.decisions   a line a decision: policy, snapshot, request, and what came of it (scheduler/fields.h). Made again by
 *                    `mooncake replay --decisions`
 *
 * A line of FILE is known when its request has ended; those that came after wait for it, at most RECORD_WAITING_MAX, then the oldest is
 * written as far as it is. Requests that ended before they had tokens are no traffic and are left out.
 *
 * Threads: the loop's only. */
#ifndef CONDUCTOR_RECORD_H
#define CONDUCTOR_RECORD_H

#include "mooncake/scheduler.h"

enum { RECORD_BLOCK_TOKENS = 512, RECORD_WAITING_MAX = 4096 };

struct record;
struct record_line;
struct request;

/* Both files are made anew. MC_OK; MC_ESYS (errno); MC_ENOMEM. */
enum mc_status record_open(const char *path, struct record **out);
/* Writes what waits. NULL is allowed. */
void record_close(struct record *record);

/* A request has come: its place in the order. NULL: no memory, it is left out. */
struct record_line *record_begin(struct record *record, struct request *request);
/* It ends. `line` may be NULL. */
void record_end(struct record *record, struct record_line *line);

void record_decision(struct record *record, const char *policy, const struct mc_sched_snapshot *snapshot,
    const struct mc_sched_request *request, const struct mc_sched_decision *decision);

#endif
