/* trace.h - requests out of a trace file, one after the other, in memory that does not grow with the file.
 *
 * One JSON object a line: {"timestamp" (ms), "input_length", "output_length", "hash_ids" (one per block of the prompt, from
 * the first on)}; other fields are ignored, empty lines too. What is no such object is a *bad line*: left out, counted, and the
 * first few are told to the caller with number and reason. A prompt may have fewer ids than blocks (what has no id is never
 * cached), not more. A request that is stamped earlier than the one before it comes at the time of that one and is counted.
 *
 * Ownership: what trace_next() gives is lent until the next call. Threads: one. */
#ifndef REPLAY_TRACE_H
#define REPLAY_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

enum { TRACE_LINE_MAX = 16 << 20 }; /* bytes: a prompt of a million blocks */

struct trace_request {
    double at_ms; /* never less than that of the one before */
    uint32_t input_tokens, output_tokens;
    const uint64_t *ids;
    uint32_t id_count;
    uint64_t line;
};

/* Called for each bad line. */
typedef void trace_bad_fn(void *arg, uint64_t line, const char *why);

struct trace_options {
    const char *path;
    uint32_t block_tokens; /* that one id stands for */
    bool whole_blocks;     /* leave out the id of a last block that is not full: nobody caches it */
    bool strict;           /* a bad line ends the reading with MC_EINVAL */
    trace_bad_fn *bad;     /* may be NULL */
    void *arg;
};

struct trace;

/* MC_OK; MC_ESYS: errno says why the file cannot be read; MC_ENOMEM. */
enum mc_status trace_open(const struct trace_options *options, struct trace **out);
void trace_close(struct trace *trace); /* NULL is allowed */

/* MC_OK: `out` is filled. MC_ENOENT: the end. MC_EINVAL: a bad line, when strict. MC_ESYS: errno. MC_ENOMEM. */
enum mc_status trace_next(struct trace *trace, struct trace_request *out);

uint64_t trace_bad_lines(const struct trace *trace);
uint64_t trace_reordered(const struct trace *trace); /* requests stamped earlier than the one before */

bool trace_seekable(const struct trace *trace); /* a file that can be read again, no pipe */

/* How much of the file has been read, 0 to 1; 0 when it has no size (a pipe). */
double trace_progress(const struct trace *trace);

#endif
