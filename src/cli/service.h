/* service.h - a `mooncake up` of our own, for the time of a measurement: free ports, state in a directory of its own.
 *
 * Threads: main's. */
#ifndef CLI_SERVICE_H
#define CLI_SERVICE_H

#include <sys/types.h>

#include "cli/cli.h"

struct service {
    pid_t pid;
    char url[320];
    char state[64]; /* made for it, removed with it */
};

/* Start it with our options and wait until it is healthy. CLI_OK: service_stop() ends it. Else: said on standard error. */
int service_start(struct cli *cli, struct service *service);
void service_stop(struct service *service);

#endif
