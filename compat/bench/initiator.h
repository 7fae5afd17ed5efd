/* initiator.h - threads that read or write a target's memory for a while. */
#ifndef COMPAT_BENCH_INITIATOR_H
#define COMPAT_BENCH_INITIATOR_H

#include "compat/bench/flags.h"
#include "compat/engine/ce.h"

struct bench_result {
    uint64_t batches;
    double seconds;
};

/* Each thread moves its own part of `memory` to or from the same offsets of the target's first registration, a batch after the other,
 * for flags->duration_s. The first failure ends all of them and is logged. Blocks; threads end before it returns. */
enum mc_status bench_initiate(
    const struct bench_flags *flags, struct ce_engine *engine, uint8_t *memory, struct bench_result *out);

#endif
