/* main.c - transfer_engine_bench: throughput between two Transfer Engines.
 *
 *     transfer_engine_bench --mode=target                                   prints  ready segment=HOST:PORT
 *     transfer_engine_bench --segment_id=HOST:PORT --operation=write        prints  Test completed: duration ...
 *
 * A target does nothing but be there until SIGTERM or SIGINT. Its memory is what its engine registers first, so an initiator finds it
 * without being told an address; any engine that has registered enough is a target. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "compat/bench/initiator.h"
#include "compat/program/program.h"

static void stop(void *arg)
{
}

static enum mc_status target(const struct ce_engine *engine)
{
    enum mc_status status = program_on_signal(stop, NULL);

    if (status != MC_OK)
        return status;
    printf("ready segment=%s\n", ce_session(engine));
    fflush(stdout);
    program_join_signal();
    return MC_OK;
}

static enum mc_status initiator(const struct bench_flags *flags, struct ce_engine *engine, uint8_t *memory)
{
    struct bench_result result;
    enum mc_status status = bench_initiate(flags, engine, memory, &result);
    double bytes = (double)result.batches * flags->batch_size * (double)flags->block_size;

    if (status == MC_OK)
        printf("Test completed: duration %.2f, batch count %llu, throughput %.*f %s/s\n", result.seconds,
            (unsigned long long)result.batches, (int)flags->precision, bytes / result.seconds / bench_unit(flags->unit),
            flags->unit);
    return status;
}

static int run(const struct bench_flags *flags)
{
    struct ce_opts opts = {
        .host = flags->local, .metadata = flags->metadata, .protocol = flags->protocol, .without_pool = true};
    struct ce_engine *engine;
    enum mc_status status = ce_create(&opts, &engine);
    uint8_t *memory;

    if (status != MC_OK)
        return PROGRAM_FAILED; /* logged */
    memory = ce_managed_alloc(engine, flags->buffer_size);
    if (!memory) {
        log_error("--buffer_size: there is not that much memory");
        status = MC_ENOMEM;
    } else {
        if (flags->init_mem)
            memset(memory, 0xa5, flags->buffer_size);
        status = strcmp(flags->mode, "target") == 0 ? target(engine) : initiator(flags, engine, memory);
    }
    ce_destroy(engine);
    return status == MC_OK ? 0 : PROGRAM_FAILED;
}

int main(int argc, char **argv)
{
    struct bench_flags flags;
    struct buf message = program_begin("transfer_engine_bench");
    enum mc_status status = bench_flags_parse(argc, argv, &flags, &message);
    int code;

    if (program_goes_on(&message, status, flags.help, flags.version, bench_flags_help, &code)) {
        if (strcmp(flags.mode, "target") == 0)
            program_block_signals();
        code = run(&flags);
    }
    return code;
}
