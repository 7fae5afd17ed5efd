/* uncut_test.c - a thread that is stopped between its look and its call looks again.
 *
 * Method: a child of ours looks at a word and writes a byte into shared memory; we stop it with a breakpoint exactly at the
 * instruction of the call, where a random stop would have to be lucky, change the word, and let it go on. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/uncut.h"

enum { TAKEN_BACK = 42, STORED = 43 };

enum { COPIED = 1000 };

struct shared {
    volatile int wanted, looks;
    char byte;
    char copied[COPIED];
};

/* A byte into this process, by the call. */
static ssize_t write_byte(pid_t pid, char *to)
{
    static char source = 'x';
    struct iovec here = {&source, 1}, there = {to, 1};

    return uncut_process_vm_writev(pid, &here, 1, &there, 1);
}

static void simple(void **state)
{
    char byte = 0;
    ssize_t n;

    do
        uncut_begin();
    while ((n = write_byte(getpid(), &byte)) == UNCUT_AGAIN);
    assert_int_equal(n, 1);
    assert_int_equal(byte, 'x');
    do
        uncut_begin();
    while ((n = write_byte(-1, &byte)) == UNCUT_AGAIN);
    assert_int_equal(n, -1);
    assert_int_equal(errno, ESRCH);
}

/* ---- interrupted in the look ---- */

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
    alarms = alarms + 1;
}

static void interrupted_while_looking(void **state)
{
    struct itimerval soon = {.it_value.tv_usec = 1000};
    char byte = 0;

    if (!uncut_works()) {
        print_message("no restartable sequences here\n");
        skip();
    }
    signal(SIGALRM, on_alarm);
    uncut_begin();
    setitimer(ITIMER_REAL, &soon, NULL);
    while (!alarms)
        ;
    assert_int_equal(write_byte(getpid(), &byte), UNCUT_AGAIN);
    assert_int_equal(byte, 0);
    signal(SIGALRM, SIG_DFL);
}

/* ---- stopped at the call ---- */

static void look_and_call(struct shared *shared)
{
    pid_t pid = getpid();
    ssize_t n;

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(1);
    raise(SIGSTOP);
    do {
        uncut_begin();
        shared->looks++;
        if (!shared->wanted)
            _exit(TAKEN_BACK);
        n = write_byte(pid, &shared->byte);
    } while (n == UNCUT_AGAIN);
    _exit(n == 1 ? STORED : 1);
}

static enum mc_status look(void *arg)
{
    struct shared *shared = arg;

    shared->looks++;
    return shared->wanted ? MC_OK : MC_ECANCELED;
}

/* From COPIED bytes 'x'. */
static void look_and_copy(struct shared *shared)
{
    char from[COPIED];
    enum mc_status status;

    memset(from, 'x', sizeof(from));
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(1);
    raise(SIGSTOP);
    status = uncut_store(shared->copied, from, COPIED, look, shared);
    _exit(status == MC_OK ? STORED : status == MC_ECANCELED ? TAKEN_BACK : 1);
}

static void registers_step_back(pid_t pid, uintptr_t to)
{
#ifdef __x86_64__
    struct user_regs_struct registers;

    assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &registers), 0);
    assert_int_equal(registers.rip, to + 1); /* behind the breakpoint */
    registers.rip = to;
    assert_int_equal(ptrace(PTRACE_SETREGS, pid, NULL, &registers), 0);
#endif
}

/* Runs the child up to the instruction, then as `wanted` says. Its exit code. */
static int stopped_at(void *at, void (*child)(struct shared *shared), struct shared *shared, bool wanted)
{
    pid_t pid = fork();
    long code;
    int status;

    assert_true(pid >= 0);
    if (pid == 0)
        child(shared);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status)) {
        print_message("tracing a child is not allowed here\n");
        skip();
    }
    errno = 0;
    code = ptrace(PTRACE_PEEKTEXT, pid, at, NULL);
    assert_int_equal(errno, 0);
    assert_int_equal(ptrace(PTRACE_POKETEXT, pid, at, (void *)((code & ~0xffl) | 0xcc)), 0);
    assert_int_equal(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    assert_int_equal(ptrace(PTRACE_POKETEXT, pid, at, (void *)code), 0);
    registers_step_back(pid, (uintptr_t)at);
    shared->wanted = wanted;
    assert_int_equal(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* Memory for a child that is going to be stopped, which wants one byte; skips the test where that cannot be. */
static struct shared *shared_with_child(void)
{
    struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(shared != MAP_FAILED);
    if (!uncut_works()) {
        print_message("no restartable sequences here\n");
        skip();
    }
    shared->wanted = 1;
    return shared;
}

static void stopped_between_look_and_call(void **state)
{
    struct shared *shared = shared_with_child();

    assert_int_equal(stopped_at(uncut_instruction(), look_and_call, shared, false), TAKEN_BACK);
    assert_true(shared->looks >= 2);
    assert_int_equal(shared->byte, 0);
    shared->wanted = 1;
    shared->looks = 0;
    assert_int_equal(stopped_at(uncut_instruction(), look_and_call, shared, true), STORED);
    assert_true(shared->looks >= 2);
    assert_int_equal(shared->byte, 'x');
    munmap(shared, sizeof(*shared));
}

/* At the end of the first round of 64 bytes. */
static void stopped_in_the_copy(void **state)
{
    struct shared *shared = shared_with_child();

    assert_int_equal(stopped_at(uncut_copy_instruction(), look_and_copy, shared, false), TAKEN_BACK);
    assert_int_equal(shared->copied[63], 'x');
    for (int i = 64; i < COPIED; i++)
        assert_int_equal(shared->copied[i], 0);
    shared->wanted = 1;
    shared->looks = 0;
    assert_int_equal(stopped_at(uncut_copy_instruction(), look_and_copy, shared, true), STORED);
    assert_true(shared->looks >= 2);
    for (int i = 0; i < COPIED; i++)
        assert_int_equal(shared->copied[i], 'x');
    munmap(shared, sizeof(*shared));
}

/* Every length and alignment, and not a byte beside it. */
static void copies(void **state)
{
    uint8_t from[512], to[512], want[512];

    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (uint8_t)(i * 7 + 1);
    for (size_t len = 0; len <= 300; len++) {
        struct shared wanted = {.wanted = 1};
        size_t at = len % 17, off = len % 13;

        memset(to, 0xee, sizeof(to));
        memset(want, 0xee, sizeof(want));
        memcpy(want + at, from + off, len);
        assert_int_equal(uncut_store(to + at, from + off, len, look, &wanted), MC_OK);
        assert_memory_equal(to, want, sizeof(to));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simple),
        cmocka_unit_test(interrupted_while_looking),
        cmocka_unit_test(stopped_between_look_and_call),
        cmocka_unit_test(stopped_in_the_copy),
        cmocka_unit_test(copies),
    };

    return cmocka_run_group_tests_name("uncut", tests, NULL, NULL);
}
