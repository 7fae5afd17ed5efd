/* initiator.c - see initiator.h.
 *
 * A batch is one ce_transfer(), the call that stands under the C and Python interfaces: the thread sleeps until its bytes have
 * arrived, so what is measured costs no spinning. Times are of batches that ended, so a long last one counts with its time. */
#include "compat/bench/initiator.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

struct run {
    const struct bench_flags *flags;
    struct ce_engine *engine;
    uint8_t *memory;
    uint64_t there, until_ns; /* address at the target; end */
    _Atomic int failed;       /* enum mc_status of the first */
};

struct worker {
    struct run *run;
    uint32_t index;
    uint64_t batches;
    pthread_t thread;
    struct ce_op *ops;
};

static void ops_fill(struct worker *worker)
{
    const struct bench_flags *flags = worker->run->flags;
    uint64_t at = (uint64_t)worker->index * flags->batch_size * flags->block_size;
    bool write = strcmp(flags->operation, "write") == 0;

    for (uint32_t i = 0; i < flags->batch_size; i++, at += flags->block_size)
        worker->ops[i] = (struct ce_op){.opcode = write ? MC_WRITE : MC_READ,
            .local = worker->run->memory + at,
            .remote = worker->run->there + at,
            .len = flags->block_size};
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct run *run = worker->run;

    while (now_ns() < run->until_ns && atomic_load(&run->failed) == MC_OK) {
        enum mc_status status;

        ops_fill(worker);
        status = ce_transfer(run->engine, run->flags->segment, worker->ops, run->flags->batch_size, NULL);
        if (status == MC_OK) {
            worker->batches++;
        } else {
            int none = MC_OK;

            atomic_compare_exchange_strong(&run->failed, &none, status);
        }
    }
    return NULL;
}

static enum mc_status workers_run(struct run *run, struct worker *workers, struct bench_result *out)
{
    uint32_t begun = 0;
    uint64_t start = now_ns();

    run->until_ns = deadline_after_ms(start, run->flags->duration_s * 1000ull);
    for (; begun < run->flags->threads; begun++) {
        struct worker *worker = &workers[begun];

        *worker = (struct worker){.run = run, .index = begun};
        worker->ops = calloc(run->flags->batch_size, sizeof(*worker->ops));
        if (!worker->ops || pthread_create(&worker->thread, NULL, work, worker) != 0) {
            free(worker->ops);
            atomic_store(&run->failed, MC_ENOMEM);
            break;
        }
    }
    for (uint32_t i = 0; i < begun; i++) {
        pthread_join(workers[i].thread, NULL);
        free(workers[i].ops);
        out->batches += workers[i].batches;
    }
    out->seconds = (double)(now_ns() - start) / NS_PER_S;
    return (enum mc_status)atomic_load(&run->failed);
}

enum mc_status bench_initiate(
    const struct bench_flags *flags, struct ce_engine *engine, uint8_t *memory, struct bench_result *out)
{
    struct run run = {.flags = flags, .engine = engine, .memory = memory};
    struct worker *workers = calloc(flags->threads, sizeof(*workers));
    enum mc_status status = workers ? ce_first_address(engine, flags->segment, &run.there) : MC_ENOMEM;

    *out = (struct bench_result){0};
    if (status == MC_OK)
        status = workers_run(&run, workers, out);
    if (status == MC_ENOENT)
        log_error(
            "%s has not registered %llu bytes in one piece", flags->segment, (unsigned long long)flags->buffer_size);
    else if (status != MC_OK)
        log_error("%s: %s", flags->segment, mc_status_str(status));
    free(workers);
    return status;
}
