/* service.c - start and end a service for a measurement. See service.h. */
#include "cli/service.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/arguments.h"
#include "cli/signals.h"

static void become(struct cli *cli, const struct service *service, struct arguments *args, int out, pid_t parent)
{
    signals_restore();
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
        _exit(127);
    setenv("XDG_STATE_HOME", service->state, 1);
    if (dup2(out, STDOUT_FILENO) < 0)
        _exit(127);
    execv(cli->program, (char *const *)args->argv);
    _exit(127);
}

/* The one line it prints when healthy: {"url": ...}. */
static bool read_url(int fd, struct service *service)
{
    FILE *file = fdopen(fd, "r");
    char *line = NULL;
    size_t room = 0;
    bool found = false;

    if (file && getline(&line, &room, file) > 0) {
        json_t *root = json_loads(line, 0, NULL);
        const char *url = json_string_value(json_object_get(root, "url"));
        found = url != NULL;
        if (url)
            snprintf(service->url, sizeof(service->url), "%s", url);
        json_decref(root);
    }
    free(line);
    if (file)
        fclose(file);
    else
        close(fd);
    return found;
}

int service_start(struct cli *cli, struct service *service)
{
    struct arguments *args = malloc(sizeof(*args));
    pid_t parent = getpid();
    int out[2];

    memset(service, 0, sizeof(*service));
    strcpy(service->state, "/tmp/mooncake-bench-XXXXXX");
    if (!args || !mkdtemp(service->state) || pipe2(out, O_CLOEXEC) != 0) {
        free(args);
        return cli_fail(cli, CLI_FAILED, "starting a service: %m");
    }
    arguments_init(args, "up");
    arguments_forward(args, cli->options);
    arguments_add(args, "any-port", "yes");
    arguments_add(args, "log-files", "yes");
    arguments_add(args, "log", "warn");
    arguments_add(args, "json", "yes");
    service->pid = fork();
    if (service->pid == 0)
        become(cli, service, args, out[1], parent);
    free(args);
    close(out[1]);
    if (service->pid < 0 || !read_url(out[0], service)) {
        service_stop(service);
        return cli_fail(cli, CLI_FAILED, "the service did not start");
    }
    return CLI_OK;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    return remove(path);
}

void service_stop(struct service *service)
{
    if (service->pid > 0) {
        kill(service->pid, SIGTERM);
        while (waitpid(service->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    nftw(service->state, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    service->pid = 0;
}
