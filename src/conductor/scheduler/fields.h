/* fields.h - what a decision is made of, field by field, so that it can be written down and made again.
 *
 * A row per field of the structs in mooncake/scheduler.h. The Conductor writes them (--record), the replayer reads them back
 * (mooncake replay --decisions); a field that is added there without a row here does not compile.
 *
 * Pure; threads: any. */
#ifndef CONDUCTOR_SCHEDULER_FIELDS_H
#define CONDUCTOR_SCHEDULER_FIELDS_H

#include "mooncake/scheduler.h"

enum sched_field_kind { SCHED_U8, SCHED_U16, SCHED_U32, SCHED_U64, SCHED_BOOL, SCHED_ENUM, SCHED_DOUBLE };

struct sched_field {
    const char *name; /* NULL: the end of the table */
    uint16_t offset;
    uint8_t kind; /* enum sched_field_kind */
};

/* Pointers and arrays are not in them: workers, links, fits and node_blocks are written one by one. Of a fit only what it predicts
 * with. */
extern const struct sched_field sched_snapshot_fields[], sched_worker_fields[], sched_link_fields[], sched_fit_fields[],
    sched_request_fields[], sched_decision_fields[];

/* Value of a field that is no double; 64 bits are kept, the sign is the reader's. */
int64_t sched_field_int(const void *object, const struct sched_field *field);
void sched_field_set_int(void *object, const struct sched_field *field, int64_t value);

double sched_field_double(const void *object, const struct sched_field *field);
void sched_field_set_double(void *object, const struct sched_field *field, double value);

#endif
