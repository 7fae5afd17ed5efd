/* crc_bench.c - speed of each back end, and of the fused copy against memcpy, the best of several runs.
 *
 *     build/src/base/crc_bench
 *
 * The goal is fused >= 0.8 x memcpy for 1 MiB with the back end that is chosen by itself (the last one listed). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/rng.h"

#define AREA     (16u << 20)
#define BUDGET   (256u << 20) /* bytes per measurement */
#define RUNS_MAX 400

enum what { MEMCPY, FUSED, HASH };

static uint8_t *from, *to;

static void once(enum what what, size_t len)
{
    volatile uint32_t sink;

    if (what == MEMCPY)
        memcpy(to, from, len);
    else
        sink = what == FUSED ? crc32c_copy(0, to, from, len) : crc32c(0, from, len);
    (void)sink;
    __asm__ volatile("" : : "r"(to) : "memory");
}

static double gigabytes_per_second(enum what what, size_t len)
{
    size_t runs = BUDGET / len < RUNS_MAX ? BUDGET / len : RUNS_MAX;
    uint64_t best = UINT64_MAX;

    for (size_t i = 0; i < runs; i++) {
        uint64_t start = now_ns(), took;

        once(what, len);
        took = now_ns() - start;
        best = took < best ? took : best;
    }
    return (double)len / (double)(best ? best : 1);
}

int main(void)
{
    struct rng rng;

    from = aligned_alloc(4096, AREA);
    to = aligned_alloc(4096, AREA);
    if (!from || !to)
        return 1;
    rng_seed(&rng, 1);
    rng_bytes(&rng, from, AREA);
    memset(to, 1, AREA);
    printf("%-16s %10s %12s %12s %8s %12s\n", "back end", "bytes", "memcpy GB/s", "fused GB/s", "ratio", "hash GB/s");
    for (int backend = CRC_TABLE; backend < CRC_BACKENDS; backend++) {
        if (!crc_backend_force((enum crc_backend)backend))
            continue;
        for (size_t len = 4096; len <= AREA; len *= 4) {
            double copy = gigabytes_per_second(MEMCPY, len), fused = gigabytes_per_second(FUSED, len);

            printf("%-16s %10zu %12.1f %12.1f %8.2f %12.1f\n", crc_backend_name((enum crc_backend)backend), len, copy,
                fused, fused / copy, gigabytes_per_second(HASH, len));
        }
    }
    free(from);
    free(to);
    return 0;
}
