/* doctor_host.c - what this machine allows: run directory, copies between processes, memory, locked memory, how soon its
 * cores wake up. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/xdg.h"
#include "cli/doctor.h"

void doctor_run_dir(struct cli *cli, struct doctor_finding *finding)
{
    char path[512];
    enum mc_status status;

    if (cli->set->run_dir) {
        snprintf(path, sizeof(path), "%s", cli->set->run_dir);
        status = path_private_dir(path);
    } else {
        status = xdg_path(XDG_RUNTIME, NULL, path, sizeof(path));
    }
    if (status == MC_OK)
        doctor_say(finding, DOCTOR_OK, "", "%s is ours alone", path);
    else
        doctor_say(finding, DOCTOR_BROKEN, "remove it, chmod 0700 it, or give --run-dir a directory of your own",
            "the directory of the Unix sockets cannot be used: %s", mc_status_str(status));
}

/* Reads 8 bytes of a sibling, as two processes of ours would; an ancestor may always read, so it proves nothing. */
static int read_sibling(pid_t sibling, volatile uint64_t *word)
{
    uint64_t got = 0;
    struct iovec to = {&got, sizeof(got)}, from = {(void *)word, sizeof(*word)};

    return process_vm_readv(sibling, &to, 1, &from, 1, 0) == (ssize_t)sizeof(got) && got == *word ? 0 : 1;
}

static bool siblings_can_read(void)
{
    static volatile uint64_t word = 0x6d6f6f6e63616b65;
    int gate[2], status = 1;
    char byte;

    if (pipe(gate) != 0)
        return false;
    pid_t owner = fork();
    if (owner == 0) {
        close(gate[1]);
        _exit(read(gate[0], &byte, 1) < 0); /* until the parent closes the gate */
    }
    pid_t reader = owner > 0 ? fork() : -1;
    if (reader == 0)
        _exit(read_sibling(owner, &word));
    if (reader > 0)
        waitpid(reader, &status, 0);
    close(gate[0]);
    close(gate[1]);
    if (owner > 0)
        waitpid(owner, NULL, 0);
    return reader > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void doctor_same_host(struct cli *cli, struct doctor_finding *finding)
{
    char *text = NULL;
    size_t len;
    char scope = '?';

    if (siblings_can_read()) {
        doctor_say(
            finding, DOCTOR_OK, "", "memfd and process_vm_readv both work between processes of uid %u", getuid());
        return;
    }
    if (path_read("/proc/sys/kernel/yama/ptrace_scope", 16, &text, &len) == MC_OK && len)
        scope = text[0];
    free(text);
    if (scope > '0' && scope <= '3')
        doctor_say(finding, DOCTOR_NOTE, "sysctl kernel.yama.ptrace_scope=0, or allocate with mc_te_alloc()",
            "process_vm_readv is forbidden (kernel.yama.ptrace_scope is %c): memory outside a memfd goes over tcp",
            scope);
    else
        doctor_say(finding, DOCTOR_NOTE,
            "allow ptrace between processes of uid in this container (CAP_SYS_PTRACE, seccomp)",
            "process_vm_readv is forbidden here: memory outside a memfd goes over tcp");
}

/* kB behind "MemAvailable:". */
static uint64_t available_bytes(void)
{
    char line[128];
    uint64_t kb = 0;
    FILE *file = fopen("/proc/meminfo", "re");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kb) == 1)
            break;
    if (file)
        fclose(file);
    return kb * 1024;
}

void doctor_memory(struct cli *cli, struct doctor_finding *finding)
{
    uint64_t there = available_bytes(), wanted = cli->set->memory;
    char a[24], b[24];

    size_format(wanted, a);
    size_format(there & ~(((uint64_t)1 << 20) - 1), b);
    if (there >= wanted)
        doctor_say(finding, DOCTOR_OK, "", "--memory %s, %s available", a, b);
    else
        doctor_say(finding, DOCTOR_NOTE, "give a smaller --memory (what runs now may hold it already)",
            "--memory %s, but only %s are available", a, b);
}

void doctor_memlock(struct cli *cli, struct doctor_finding *finding)
{
    struct rlimit limit = {0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur == RLIM_INFINITY)
        doctor_say(finding, DOCTOR_OK, "", "no limit on locked memory");
    else
        doctor_say(finding, DOCTOR_NOTE, "",
            "%" PRIu64 " KiB may be locked; tcp and shared memory lock nothing, RDMA will",
            (uint64_t)limit.rlim_cur / 1024);
}

/* The first line of a file of the kernel; "" where there is none. */
static void kernel_word(const char *path, char *out, size_t size)
{
    char *text;
    size_t len;

    out[0] = 0;
    if (path_read(path, size - 1, &text, &len) != MC_OK)
        return;
    snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
    free(text);
}

static bool virtual_machine(void)
{
    char line[4096];
    bool found = false;
    FILE *file = fopen("/proc/cpuinfo", "re");

    while (file && !found && fgets(line, sizeof(line), file))
        found = strncmp(line, "flags", 5) == 0 && strstr(line, " hypervisor");
    if (file)
        fclose(file);
    return found;
}

/* A virtual core that halts is woken by an interrupt through the hypervisor, which takes 15 to 50 us, and a small call to
 * another process has two of them: three to five times what it takes where the kernel polls for a moment before it halts
 * (bench/README.md, "Two speeds"). Only the kernel can do that well: it knows who else wants the core. */
void doctor_idle_cores(struct cli *cli, struct doctor_finding *finding)
{
    char driver[32], governor[32], ns[32];

    (void)cli;
    kernel_word("/sys/devices/system/cpu/cpuidle/current_driver", driver, sizeof(driver));
    kernel_word("/sys/devices/system/cpu/cpuidle/current_governor", governor, sizeof(governor));
    kernel_word("/sys/module/haltpoll/parameters/guest_halt_poll_ns", ns, sizeof(ns));
    bool polls_first = strcmp(governor, "haltpoll") == 0 && ns[0];
    if (polls_first && strcmp(ns, "0") == 0)
        doctor_say(finding, DOCTOR_NOTE,
            "as root: echo 200000 > /sys/module/haltpoll/parameters/guest_halt_poll_ns (a setting of the kernel, "
            "not ours; idle cores then poll for up to 200 us before they halt)",
            "idle cores of this virtual machine halt at once: small calls between processes take 3 to 5 times as long");
    else if (polls_first)
        doctor_say(finding, DOCTOR_OK, "", "the kernel polls for up to %s ns before it halts a core", ns);
    else if (virtual_machine() && (!driver[0] || strcmp(driver, "none") == 0))
        doctor_say(finding, DOCTOR_NOTE,
            "as root: modprobe cpuidle_haltpoll force=1 (a module of the kernel, not ours; idle cores then poll for up "
            "to 200 us before they halt)",
            "no cpuidle driver: idle cores of this virtual machine halt at once, and small calls between processes "
            "take several times as long");
    else
        doctor_say(finding, DOCTOR_OK, "", "cpuidle driver %s, governor %s", driver[0] ? driver : "none",
            governor[0] ? governor : "none");
}

/* ---- who listens ---- */

/* Inode of the socket listening on `port`, from /proc/net/tcp or tcp6; 0: none. */
static uint64_t listening_inode(const char *path, unsigned port)
{
    FILE *file = fopen(path, "re");
    char line[512];
    uint64_t inode = 0;

    while (file && fgets(line, sizeof(line), file)) {
        unsigned local = 0, state = 0;
        uint64_t found = 0;
        if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*s %*s %" SCNu64, &local, &state,
                &found) == 3 &&
            state == 0x0a && local == port)
            inode = found;
    }
    if (file)
        fclose(file);
    return inode;
}

/* Does process `pid` hold the socket? */
static bool holds(const char *pid, uint64_t inode)
{
    char folder[64], path[384], want[48], link[64];
    bool found = false;

    snprintf(folder, sizeof(folder), "/proc/%.20s/fd", pid);
    snprintf(want, sizeof(want), "socket:[%" PRIu64 "]", inode);
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && !found && (entry = readdir(dir)) != NULL;) {
        snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        ssize_t len = readlink(path, link, sizeof(link) - 1);
        link[len > 0 ? len : 0] = 0;
        found = strcmp(link, want) == 0;
    }
    if (dir)
        closedir(dir);
    return found;
}

bool doctor_listener(unsigned port, char *out, size_t size)
{
    uint64_t inode = listening_inode("/proc/net/tcp", port);
    bool found = false;

    if (inode == 0)
        inode = listening_inode("/proc/net/tcp6", port);
    DIR *dir = inode ? opendir("/proc") : NULL;
    for (struct dirent *entry; dir && !found && (entry = readdir(dir)) != NULL;) {
        char path[64], *name = NULL;
        size_t len;
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !holds(entry->d_name, inode))
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
        found = true;
        if (path_read(path, 64, &name, &len) == MC_OK && len)
            name[len - 1] = 0;
        snprintf(out, size, "pid %s (%s)", entry->d_name, name ? name : "?");
        free(name);
    }
    if (dir)
        closedir(dir);
    return found;
}
