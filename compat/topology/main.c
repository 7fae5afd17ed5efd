/* main.c - transfer_engine_topology_dump: which memory is near which network device, as JSON. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "compat/engine/ce.h"
#include "compat/program/flags.h"
#include "compat/program/program.h"

struct topology_flags {
    bool help, version;
};

static const struct flag_row rows[] = {
    {"help", FLAG_SWITCH, FLAG_AT(topology_flags, help), NULL, "print this"},
    {"version", FLAG_SWITCH, FLAG_AT(topology_flags, version), NULL, "print the version"},

    {"device_name", FLAG_TEXT, FLAG_TUNES},

    {"backend", FLAG_TEXT, FLAG_WITHOUT("auto|te"), "a second engine beside this one"},
    {"use_custom_topo", FLAG_SWITCH, FLAG_WITHOUT("false"), "a topology from a file"},
    {"custom_topo_json", FLAG_TEXT, FLAG_WITHOUT(""), "a topology from a file"},
};

enum { ROWS = sizeof(rows) / sizeof(*rows) };

static void print_help(struct buf *out)
{
    buf_printf(out, "transfer_engine_topology_dump - which memory is near which network device, as JSON\n\n");
    flags_help(rows, ROWS, out);
}

static int dump(void)
{
    char *text = ce_topology();

    if (!text) {
        log_error("there is no memory");
        return PROGRAM_FAILED;
    }
    puts(text);
    free(text);
    return 0;
}

int main(int argc, char **argv)
{
    struct topology_flags flags = {0};
    struct buf message = program_begin("transfer_engine_topology_dump");
    enum mc_status status = flags_parse(rows, ROWS, argc, argv, &flags, &message);
    int code;

    if (program_goes_on(&message, status, flags.help, flags.version, print_help, &code))
        code = dump();
    return code;
}
