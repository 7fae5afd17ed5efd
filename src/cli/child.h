/* child.h - one child process of `mooncake up`: this binary with another command.
 *
 * The child inherits a pipe (--ready-fd) and writes one line on it when it serves: "master=127.0.0.1:7400 admin=...". It is
 * killed by the kernel when its parent dies. Its end is seen through a pidfd on the parent's loop.
 *
 * Threads: the loop's. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

#include "net/loop.h"

enum { CHILD_READY_MAX = 512 };

struct child;

struct child_ops {
    void (*ready)(struct child *child, const char *line); /* its line, without newline; lent */
    void (*exited)(struct child *child, int status);      /* as waitpid() gives it; the child may be started again */
};

/* Embedded or in an array of the owner; zeroed before the first start. */
struct child {
    const char *name;     /* "prefill-1"; borrowed */
    const char *log_path; /* where its standard error goes, appended; NULL: ours */
    const struct child_ops *ops;
    struct loop *loop;
    pid_t pid; /* 0: not running */
    struct loop_io exit_io, ready_io;
    char line[CHILD_READY_MAX];
    size_t line_len;
};

/* Run `program` with `argv` (NULL-terminated, argv[0] included; the --ready-fd option is added at its end: leave room for
 * one more) and `envp`. MC_OK: `exited` will be called once. MC_ESYS: nothing runs (logged). */
enum mc_status child_start(struct child *child, const char *program, const char **argv, char **envp);

/* Nothing when it does not run. */
void child_signal(struct child *child, int signal);

/* "exit 1", "killed by signal 9 (Killed)"; `out` of 64 bytes. */
const char *child_status_text(int status, char out[64]);

/* In the child: say that we serve. Nothing when no --ready-fd was given. Once. */
void child_say_ready(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
