/* doctor.h - the checks of `mooncake doctor`: each looks at one link and says one sentence.
 *
 * Threads: main's. */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

#include "cli/cli.h"

enum doctor_state {
    DOCTOR_OK,
    DOCTOR_NOTE, /* works, could be better; or cannot be looked at from here */
    DOCTOR_BROKEN,
};

struct doctor_finding {
    enum doctor_state state;
    char text[256]; /* what is */
    char fix[256];  /* what to do; "" when nothing */
};

/* Each fills one finding; may block for the user's --timeout-ms. */
typedef void doctor_check_fn(struct cli *cli, struct doctor_finding *finding);

/* doctor_host.c: this machine */
doctor_check_fn doctor_run_dir, doctor_same_host, doctor_memory, doctor_memlock, doctor_idle_cores;

/* doctor_links.c: the service */
doctor_check_fn doctor_conductor, doctor_workers, doctor_master, doctor_nodes, doctor_fingerprint, doctor_clock;

/* Says what is and what to do. */
void doctor_say(struct doctor_finding *finding, enum doctor_state state, const char *fix, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* "pid 123 (nginx)" of who listens on a TCP port of this machine; false: nobody, or not to be seen by us. */
bool doctor_listener(unsigned port, char *out, size_t size);

#endif
