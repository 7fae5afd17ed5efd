/* child.c - start a child, hear when it serves and when it ends. See child.h. */
#include "cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "cli/signals.h"

/* Between fork and exec: only system calls. Ends the process when something fails; the parent sees exit 127. */
static void become(
    const struct child *child, const char *program, const char **argv, char **envp, int ready_fd, pid_t parent)
{
    signals_restore();
    setpgid(0, 0); /* Ctrl-C goes to the parent alone, which ends us in order */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(127);
    if (child->log_path) {
        int fd = open(child->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
            _exit(127);
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        _exit(127);
    if (fcntl(ready_fd, F_SETFD, 0) != 0)
        _exit(127);
    execve(program, (char *const *)argv, envp);
    _exit(127);
}

static void stop_ready(struct child *child)
{
    if (child->ready_io.loop) {
        int fd = child->ready_io.fd;
        loop_io_stop(&child->ready_io);
        child->ready_io.loop = NULL;
        close(fd);
    }
}

static void on_ready(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct child *child = container_of(io, struct child, ready_io);
    ssize_t got = read(io->fd, child->line + child->line_len, sizeof(child->line) - 1 - child->line_len);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0)
        child->line_len += (size_t)got;
    child->line[child->line_len] = 0;
    char *end = strchr(child->line, '\n');
    bool over = got <= 0 || end || child->line_len == sizeof(child->line) - 1;
    if (over)
        stop_ready(child);
    if (end) {
        *end = 0;
        child->ops->ready(child, child->line);
    }
}

static void on_exit_seen(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct child *child = container_of(io, struct child, exit_io);
    int status = 0, fd = io->fd;

    if (waitpid(child->pid, &status, WNOHANG) != child->pid)
        return;
    loop_io_stop(io);
    close(fd);
    stop_ready(child);
    child->pid = 0;
    child->ops->exited(child, status);
}

/* Watch the pidfd and the pipe of a child that has just been made. */
static enum mc_status watch_child(struct child *child, int ready_fd)
{
    int fd = (int)syscall(SYS_pidfd_open, child->pid, 0);

    if (fd < 0) {
        log_error("pidfd_open of %s: %m", child->name);
        goto undo_ready;
    }
    if (loop_io_start(child->loop, &child->exit_io, fd, LOOP_READ, on_exit_seen) != MC_OK)
        goto undo_pidfd;
    if (loop_io_start(child->loop, &child->ready_io, ready_fd, LOOP_READ, on_ready) != MC_OK)
        goto undo_exit_io;
    return MC_OK;
undo_exit_io:
    loop_io_stop(&child->exit_io);
undo_pidfd:
    close(fd);
undo_ready:
    close(ready_fd);
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    child->pid = 0;
    return MC_ESYS;
}

enum mc_status child_start(struct child *child, const char *program, const char **argv, char **envp)
{
    int ends[2];
    char option[32];
    size_t count = 0;
    pid_t parent = getpid();

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        log_error("pipe for %s: %m", child->name);
        return MC_ESYS;
    }
    while (argv[count])
        count++;
    snprintf(option, sizeof(option), "--ready-fd=%d", ends[1]);
    argv[count] = option;
    argv[count + 1] = NULL;
    child->line_len = 0;
    child->pid = fork();
    if (child->pid == 0)
        become(child, program, argv, envp, ends[1], parent);
    argv[count] = NULL;
    close(ends[1]);
    if (child->pid < 0) {
        log_error("fork of %s: %m", child->name);
        child->pid = 0;
        close(ends[0]);
        return MC_ESYS;
    }
    return watch_child(child, ends[0]);
}

void child_signal(struct child *child, int signal)
{
    if (child->pid > 0)
        kill(child->pid, signal);
}

const char *child_status_text(int status, char out[64])
{
    if (WIFSIGNALED(status))
        snprintf(out, 64, "killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        snprintf(out, 64, "exit %d", WEXITSTATUS(status));
    return out;
}

void child_say_ready(int fd, const char *format, ...)
{
    char line[CHILD_READY_MAX];
    va_list args;

    if (fd < 0)
        return;
    va_start(args, format);
    int len = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    if (len < 0 || len >= (int)sizeof(line) - 1)
        len = (int)sizeof(line) - 2;
    line[len] = '\n';
    /* The line is shorter than PIPE_BUF: written whole or, when the parent has gone, not at all. */
    if (write(fd, line, (size_t)len + 1) < 0)
        log_debug("telling the parent: %m");
    close(fd);
}
