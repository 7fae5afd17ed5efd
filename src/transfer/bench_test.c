/* bench_test.c - the measuring function itself: figures are there, bytes are verified, the way is the one asked for.
 *
 * With arguments it measures by hand: transport read|write size batch threads seconds */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transfer/bench.h"

static int show(const struct te_bench_opts *opts)
{
    struct te_bench_result r;
    enum mc_status status = te_bench_run(opts, &r);

    printf("%s %s size %llu batch %u threads %u: %s, %.3f GB/s, %.0f ops/s, p50 %.1f us, p99 %.1f us, cpu %.3f s/GB, "
           "%s, memcpy %.1f "
           "GB/s%s\n",
        opts->transport, opts->opcode == MC_READ ? "read" : "write", (unsigned long long)opts->size, opts->batch,
        opts->threads, mc_status_str(status), r.gbytes_per_s, r.ops_per_s, r.p50_us, r.p99_us, r.cpu_s_per_gb,
        mc_path_str(r.transport), r.memcpy_gbytes_per_s, r.verified ? ", verified" : "");
    fflush(stdout); /* or the next peer process has it in its buffer too */
    return !(status == MC_OK && r.gbytes_per_s > 0 && r.p50_us > 0 && r.p99_us >= r.p50_us && r.cpu_s_per_gb > 0 &&
             r.verified == opts->verify && r.memcpy_gbytes_per_s > 0);
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc == 7) {
        struct te_bench_opts opts = {argv[1], strcmp(argv[2], "write") == 0 ? MC_WRITE : MC_READ,
            strtoull(argv[3], NULL, 0), (uint32_t)atoi(argv[4]), (uint32_t)atoi(argv[5]), 0, atof(argv[6]), false,
            false};

        return show(&opts);
    }
    for (int opcode = MC_READ; opcode <= MC_WRITE; opcode++) {
        failed += show(&(struct te_bench_opts){"tcp", (enum mc_opcode)opcode, 4096, 8, 2, 0, 0.2, true, false});
        failed += show(&(struct te_bench_opts){"auto", (enum mc_opcode)opcode, 1000, 3, 1, 0, 0.2, true, false});
        failed += show(&(struct te_bench_opts){"shm-vm", (enum mc_opcode)opcode, 100000, 1, 1, 0, 0.2, true, true});
    }
    return failed;
}
