/* bench.h - measures the Transfer Engine between two processes; `mooncake bench transfer` parses the options and prints.
 *
 * The peer is a second process made by fork() before any thread exists here, so call it from a process that has none yet.
 * Threads: the caller's; it makes `threads` more for the time of the run. */
#ifndef TRANSFER_BENCH_H
#define TRANSFER_BENCH_H

#include <stdbool.h>

#include "mooncake/transfer.h"

struct te_bench_opts {
    const char *transport; /* as in struct mc_te_opts; NULL = auto */
    enum mc_opcode opcode;
    uint64_t size;    /* bytes of one operation */
    uint32_t batch;   /* operations per batch */
    uint32_t threads; /* each with its own buffers, on one engine */
    uint32_t links;   /* 0 = default */
    double seconds;
    bool verify; /* compare every byte after each batch (outside of its time) */
    bool plain;  /* memory that is no memfd: same-host reads go by process_vm_readv */
};

struct te_bench_result {
    double gbytes_per_s; /* 10^9 bytes */
    double ops_per_s;
    double p50_us, p99_us;  /* of a batch */
    bool verified;          /* asked for, and every byte was right */
    enum mc_path transport; /* the way the bytes took */
    double cpu_s_per_gb;    /* of both processes */
    double
        first_read_us; /* of a batch that was read: how long its bytes take to be read for the first time afterwards; 0: written */
    double
        memcpy_gbytes_per_s; /* glibc memcpy of `size` through windows of the same total, in the same process, just before */
};

/* MC_OK; MC_EINVAL (an option out of range; logged), MC_ECORRUPT (verify found wrong bytes), or the status of the first failure. */
enum mc_status te_bench_run(const struct te_bench_opts *opts, struct te_bench_result *out);

#endif
