/* doctor.c - mooncake doctor: which link is broken, and what to do. */
#include "cli/doctor.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/term.h"

/* In the order in which one thing needs another. */
static const struct {
    const char *name;
    doctor_check_fn *run;
} checks[] = {
    {"run directory", doctor_run_dir},
    {"same-host path", doctor_same_host},
    {"memory", doctor_memory},
    {"memlock", doctor_memlock},
    {"idle cores", doctor_idle_cores},
    {"conductor", doctor_conductor},
    {"workers", doctor_workers},
    {"master", doctor_master},
    {"nodes", doctor_nodes},
    {"fingerprint", doctor_fingerprint},
    {"clock", doctor_clock},
};
#define CHECKS (sizeof(checks) / sizeof(checks[0]))

static const char *const state_names[] = {"ok", "note", "broken"};

void doctor_say(struct doctor_finding *finding, enum doctor_state state, const char *fix, const char *format, ...)
{
    va_list args;

    finding->state = state;
    va_start(args, format);
    vsnprintf(finding->text, sizeof(finding->text), format, args);
    va_end(args);
    snprintf(finding->fix, sizeof(finding->fix), "%s", fix);
}

static void print_text(const char *name, const struct doctor_finding *finding)
{
    static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
    bool colour = term_colour(STDOUT_FILENO);

    printf("%-15s %s%-6s%s %s\n", name, colour ? colours[finding->state] : "", state_names[finding->state],
        colour ? "\033[0m" : "", finding->text);
    if (finding->fix[0])
        printf("%-22s -> %s\n", "", finding->fix);
    fflush(stdout);
}

int cmd_doctor(struct cli *cli)
{
    json_t *all = json_array();
    size_t broken = 0;

    for (size_t i = 0; i < CHECKS; i++) {
        struct doctor_finding finding = {0};
        checks[i].run(cli, &finding);
        broken += finding.state == DOCTOR_BROKEN;
        if (cli->set->json)
            json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:s}", "link", checks[i].name, "state",
                                           state_names[finding.state], "text", finding.text, "fix", finding.fix));
        else
            print_text(checks[i].name, &finding);
    }
    if (cli->set->json) {
        json_t *report = json_pack("{s:I, s:O}", "broken", (json_int_t)broken, "links", all);
        json_dumpf(report, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(report);
    } else {
        printf("\n%zu of %zu links broken\n", broken, CHECKS);
    }
    json_decref(all);
    return broken ? CLI_FAILED : CLI_OK;
}
