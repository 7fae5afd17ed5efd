/* bench.h - measures the Store: a client here, master and node in a second process; `mooncake bench store` parses the options
 * and prints.
 *
 * The second process is made by fork() before any thread exists here, so call it from a process that has none yet.
 * Threads: the caller's; it makes `threads` more for the time of the run. */
#ifndef STORE_BENCH_H
#define STORE_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "mooncake/store.h"

struct store_bench_opts {
    const char *transport;       /* as in struct mc_te_opts; NULL = auto */
    enum mc_store_opcode opcode; /* MC_PUT, MC_GET or MC_EXISTS */
    uint64_t size;               /* bytes of one object */
    uint32_t batch;              /* operations per call */
    uint32_t threads;            /* all on one client */
    double seconds;
    bool named;  /* named keys in place of block keys */
    bool verify; /* compare the bytes of each get (outside of its time) */
};

struct store_bench_result {
    double gbytes_per_s; /* 10^9 bytes */
    double ops_per_s;
    double p50_us, p99_us; /* of a call */
    bool verified;
    uint8_t path;        /* enum mc_path of the gets; MC_PATH_NONE for others */
    double cpu_s_per_gb; /* of both processes; 0 when no bytes moved */
    uint64_t failed;     /* operations that did not succeed */
};

/* MC_OK; MC_EINVAL (an option out of range; logged), MC_ECORRUPT (verify found wrong bytes), or the first failure. */
enum mc_status store_bench_run(const struct store_bench_opts *opts, struct store_bench_result *out);

#endif
