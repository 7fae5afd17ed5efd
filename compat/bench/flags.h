/* flags.h - what transfer_engine_bench was told. Threads: one. */
#ifndef COMPAT_BENCH_FLAGS_H
#define COMPAT_BENCH_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

struct bench_flags {
    char local[256], metadata[512], mode[16], operation[16], protocol[32], segment[256], unit[8];
    uint64_t buffer_size, block_size; /* bytes */
    uint32_t batch_size, duration_s, threads, precision;
    bool init_mem, help, version;
};

/* As flags_parse(), with the defaults; MC_EINVAL also for values that do not go together. */
enum mc_status bench_flags_parse(int argc, char **argv, struct bench_flags *out, struct buf *message);
void bench_flags_help(struct buf *out);

/* Bytes of a unit that throughput is reported in (GB, GiB, Gb, ... Kb: bits); 0: there is no such unit. */
double bench_unit(const char *name);

#endif
