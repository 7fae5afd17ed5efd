/* flags.c - the flags of transfer_engine_bench. See flags.h and compat/program/flags.h. */
#include "compat/bench/flags.h"

#include <string.h>

#include "compat/program/flags.h"

enum { THREADS_MAX = 1024, BATCH_MAX = 65536, PRECISION_MAX = 15 };

static const struct flag_row rows[] = {
    {"mode", FLAG_TEXT, FLAG_AT(bench_flags, mode), NULL,
        "initiator, or target, whose memory is read or written (initiator)"},
    {"segment_id", FLAG_TEXT, FLAG_AT(bench_flags, segment), NULL, "the target, as it names itself when it starts"},
    {"operation", FLAG_TEXT, FLAG_AT(bench_flags, operation), NULL, "read or write (read)"},
    {"local_server_name", FLAG_TEXT, FLAG_AT(bench_flags, local), NULL, "address or name of this process (127.0.0.1)"},
    {"metadata_server", FLAG_TEXT, FLAG_AT(bench_flags, metadata), NULL,
        "P2PHANDSHAKE, http://HOST:PORT/metadata or etcd://HOST:PORT (P2PHANDSHAKE)"},
    {"protocol", FLAG_TEXT, FLAG_AT(bench_flags, protocol), NULL,
        "tcp: any way without RDMA; MC_FORCE_TCP=1: tcp only (tcp)"},
    {"buffer_size", FLAG_SIZE, FLAG_AT(bench_flags, buffer_size), NULL, "memory of each side (1 GiB)"},
    {"block_size", FLAG_SIZE, FLAG_AT(bench_flags, block_size), NULL, "bytes of a request (64 KiB)"},
    {"batch_size", FLAG_NUMBER, FLAG_AT(bench_flags, batch_size), NULL, "requests of a batch (128)"},
    {"threads", FLAG_NUMBER, FLAG_AT(bench_flags, threads), NULL, "threads with a batch each (12)"},
    {"duration", FLAG_NUMBER, FLAG_AT(bench_flags, duration_s), NULL, "seconds (10)"},
    {"init_mem", FLAG_SWITCH, FLAG_AT(bench_flags, init_mem), NULL, "touch the memory first (true)"},
    {"report_unit", FLAG_TEXT, FLAG_AT(bench_flags, unit), NULL,
        "GB, GiB, Gb, MB, MiB, Mb, KB, KiB or Kb a second (GB)"},
    {"report_precision", FLAG_NUMBER, FLAG_AT(bench_flags, precision), NULL, "digits behind the point (2)"},
    {"help", FLAG_SWITCH, FLAG_AT(bench_flags, help), NULL, "print this"},
    {"version", FLAG_SWITCH, FLAG_AT(bench_flags, version), NULL, "print the version"},

    {"device_name", FLAG_TEXT, FLAG_TUNES},
    {"nic_priority_matrix", FLAG_TEXT, FLAG_TUNES},
    {"auto_discovery", FLAG_SWITCH, FLAG_TUNES},
    {"gpu_id", FLAG_NUMBER, FLAG_TUNES},

    {"use_vram", FLAG_SWITCH, FLAG_WITHOUT("false"), "memory of devices"},
    {"backend", FLAG_TEXT, FLAG_WITHOUT("classic"), "a second engine beside this one"},
};

enum { ROWS = sizeof(rows) / sizeof(*rows) };

double bench_unit(const char *name)
{
    static const struct {
        const char *name;
        double bytes;
    } units[] = {{"GB", 1e9}, {"GiB", 1 << 30}, {"Gb", 1e9 / 8}, {"MB", 1e6}, {"MiB", 1 << 20}, {"Mb", 1e6 / 8},
        {"KB", 1e3}, {"KiB", 1 << 10}, {"Kb", 1e3 / 8}};

    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (strcmp(units[i].name, name) == 0)
            return units[i].bytes;
    return 0;
}

static bool one_of(const char *value, const char *one, const char *other)
{
    return strcmp(value, one) == 0 || strcmp(value, other) == 0;
}

/* What is wrong with the values, NULL: nothing. */
static const char *problem(const struct bench_flags *flags)
{
    bool initiator = strcmp(flags->mode, "initiator") == 0;

    if (!one_of(flags->mode, "initiator", "target"))
        return "--mode: initiator or target";
    if (!one_of(flags->operation, "read", "write"))
        return "--operation: read or write";
    if (bench_unit(flags->unit) == 0)
        return "--report_unit: GB, GiB, Gb, MB, MiB, Mb, KB, KiB or Kb";
    if (flags->precision > PRECISION_MAX)
        return "--report_precision: at most 15";
    if (flags->buffer_size == 0)
        return "--buffer_size: at least a byte";
    if (!initiator)
        return NULL;
    if (!flags->segment[0])
        return "--segment_id: which target?";
    if (flags->threads == 0 || flags->threads > THREADS_MAX || flags->batch_size == 0 || flags->batch_size > BATCH_MAX)
        return "--threads: 1 to 1024, --batch_size: 1 to 65536";
    if (flags->block_size == 0 || flags->block_size > flags->buffer_size / flags->threads / flags->batch_size)
        return "--buffer_size: threads x batch_size x block_size do not fit into it";
    return NULL;
}

enum mc_status bench_flags_parse(int argc, char **argv, struct bench_flags *out, struct buf *message)
{
    const char *wrong;
    enum mc_status status;

    *out = (struct bench_flags){.local = "127.0.0.1",
        .metadata = "P2PHANDSHAKE",
        .mode = "initiator",
        .operation = "read",
        .protocol = "tcp",
        .unit = "GB",
        .buffer_size = 1 << 30,
        .block_size = 65536,
        .batch_size = 128,
        .duration_s = 10,
        .threads = 12,
        .precision = 2,
        .init_mem = true};
    status = flags_parse(rows, ROWS, argc, argv, out, message);
    wrong = status == MC_OK && !out->help && !out->version ? problem(out) : NULL;
    if (!wrong)
        return status;
    buf_printf(message, "command line: %s\n", wrong);
    return MC_EINVAL;
}

void bench_flags_help(struct buf *out)
{
    buf_printf(out, "transfer_engine_bench - throughput between two Transfer Engines, with the flags of the existing "
                    "Mooncake\n\n");
    flags_help(rows, ROWS, out);
}
