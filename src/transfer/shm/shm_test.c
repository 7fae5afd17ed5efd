/* shm_test.c - what is refused between processes of one host, and views in place. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/scratch_test.h"
#include "net/messages.h"
#include "transfer/shm/shm_impl.h"

static char said[512];

static void listen_log(void *arg, enum log_level level, const char *text)
{
    if (level <= LOG_LEVEL_WARN)
        snprintf(said, sizeof(said), "%s", text);
}

static void unsealed_memfd(void **state)
{
    int fd = memfd_create("loose", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    const uint8_t *addr;
    uint64_t len;

    assert_int_equal(ftruncate(fd, 8192), 0);
    log_capture(listen_log, NULL);
    assert_int_equal(map_sealed(fd, "test", &addr, &len), MC_EPERM);
    log_capture(NULL, NULL);
    assert_non_null(strstr(said, "F_SEAL_SHRINK"));
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(map_sealed(fd, "test", &addr, &len), MC_OK);
    assert_int_equal(len, 8192);
    munmap((void *)(uintptr_t)addr, len);
    close(fd);
}

/* What is passed of a segment can be mapped for writing only when all of the segment may be written. */
static void descriptors_passed(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir};
    struct mc_te *te;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &te), MC_OK);
    for (uint32_t flags = MC_REGION_READ; flags <= (MC_REGION_READ | MC_REGION_WRITE); flags++) {
        struct te_memory memory;
        uint8_t *at;
        int fd;

        assert_int_equal(te_alloc(te, 5000, flags, &memory), MC_OK);
        assert_int_equal(memory.len, 8192);
        fd = segment_share(te, memory.segment);
        at = map_writable(fd, memory.len);
        assert_int_equal(at != NULL, (flags & MC_REGION_WRITE) != 0);
        if (at)
            munmap(at, memory.len);
        assert_int_not_equal(ftruncate(memory.fd, 0), 0);
        close(fd);
        assert_int_equal(segment_share(te, memory.segment + 1), -1);
        mc_te_free(te, memory.addr);
    }
    mc_te_destroy(te);
    assert_int_equal(rmdir(dir), 0);
}

static void open_directory_refused(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir};
    struct mc_te *te;

    scratch_dir(dir);
    assert_int_equal(chmod(dir, 0755), 0);
    log_capture(listen_log, NULL);
    assert_int_equal(mc_te_create(&opts, &te), MC_EPERM);
    log_capture(NULL, NULL);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- another user ---- */

/* Runs in a child as "nobody": what does the socket say? The text of the refusal, "" when it did not get that far. */
static void knock(const char *path, char *text, size_t size)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    uint8_t bytes[FRAME_HEADER_SIZE + 1024];
    struct frame frame;
    enum mc_status status;
    const char *bad;
    size_t got = 0;
    ssize_t n;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    text[0] = 0;
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0) {
        snprintf(text, size, "%s", strerror(errno));
        return;
    }
    while (got < sizeof(bytes) && (n = read(fd, bytes + got, sizeof(bytes) - got)) > 0)
        got += (size_t)n;
    if (got >= FRAME_HEADER_SIZE && frame_decode(bytes, 1024, &frame, &bad) == MC_OK && frame.type == MSG_REFUSE)
        refuse_decode(slice_of(bytes + FRAME_HEADER_SIZE, frame.body_len), &status, text, size);
    close(fd);
}

static void as_nobody(const char *path, char *text, size_t size)
{
    int pipes[2], status;
    size_t got = 0;
    ssize_t n;
    pid_t pid;

    assert_int_equal(pipe(pipes), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(10);
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(1);
        knock(path, text, size);
        _exit(write(pipes[1], text, strlen(text)) < 0);
    }
    close(pipes[1]);
    while (got < size - 1 && (n = read(pipes[0], text + got, size - 1 - got)) > 0)
        got += (size_t)n;
    text[got] = 0;
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* The directory keeps others out; should somebody open it up, the socket itself asks who is there. */
static void foreign_user(void **state)
{
    char dir[SCRATCH_PATH], text[256];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir};
    struct mc_te *te;

    if (geteuid() != 0)
        skip(); /* only root can become somebody else */
    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &te), MC_OK);
    as_nobody(shm_path(te->shm), text, sizeof(text));
    assert_string_equal(text, strerror(EACCES));
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(chmod(shm_path(te->shm), 0777), 0);
    as_nobody(shm_path(te->shm), text, sizeof(text));
    assert_non_null(strstr(text, "0, not 65534"));
    assert_non_null(strstr(text, "run both processes as one user"));
    assert_int_equal(chmod(dir, 0700), 0);
    mc_te_destroy(te);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- descriptors out ---- */

static uint64_t cpu_ns(void)
{
    struct timespec at;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
}

enum { CROWD = 16 };

/* A child that connects and says nothing until the pipe is closed. */
static pid_t crowd_start(const char *path, int *up, int *down)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int ups[2], downs[2];
    char byte = 0;
    pid_t pid;

    assert_int_equal(pipe(ups), 0);
    assert_int_equal(pipe(downs), 0);
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(20);
        close(downs[1]);
        if (read(downs[0], &byte, 1) != 1)
            _exit(1);
        for (int i = 0; i < CROWD; i++)
            if (connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&sun, sizeof(sun)) != 0)
                _exit(1);
        if (write(ups[1], &byte, 1) != 1)
            _exit(1);
        _exit(read(downs[0], &byte, 1) != 0);
    }
    close(ups[1]);
    close(downs[0]);
    *up = ups[0];
    *down = downs[1];
    return pid;
}

/* When accepting fails for want of descriptors the engine neither burns a processor nor stops listening for good. */
static void no_descriptors(void **state)
{
    char dir[SCRATCH_PATH], byte = 0;
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir};
    struct rlimit all, few;
    struct mc_peer *peer;
    struct mc_region_key key;
    struct mc_te *a, *b;
    uint64_t before;
    int up, down, status;
    void *addr;
    pid_t pid;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &a), MC_OK);
    assert_int_equal(mc_te_create(&opts, &b), MC_OK);
    assert_int_equal(mc_te_alloc(a, 4096, MC_REGION_READ, &addr, &key), MC_OK);
    pid = crowd_start(shm_path(a->shm), &up, &down);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
    few = (struct rlimit){.rlim_cur = (rlim_t)dup(0), .rlim_max = all.rlim_max};
    close((int)few.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(write(down, &byte, 1), 1);
    assert_int_equal(read(up, &byte, 1), 1); /* all of them wait now */
    before = cpu_ns();
    usleep(400000);
    assert_in_range((cpu_ns() - before) / NS_PER_MS, 0, 100);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
    assert_int_equal(mc_peer_open(b, mc_te_address(a), NULL, &peer), MC_OK);
    assert_int_equal(mc_peer_path(peer, &key), MC_PATH_SHM_MEMFD);
    close(down);
    close(up);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    mc_te_destroy(b);
    mc_te_destroy(a);
    assert_int_equal(rmdir(dir), 0);
}

/* Another host id: shared memory is not tried, by name it is refused, auto goes over tcp. */
static void other_host(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir, .host_id = "host-a"};
    struct mc_te *a, *b, *c;
    struct mc_peer *auto_peer, *shm_peer;
    struct mc_region_key key;
    uint8_t byte = 0;
    struct mc_op op;
    void *addr;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &a), MC_OK);
    opts.host_id = "host-b";
    assert_int_equal(mc_te_create(&opts, &b), MC_OK);
    opts.transport = "shm";
    assert_int_equal(mc_te_create(&opts, &c), MC_OK);
    assert_int_equal(mc_te_alloc(a, 4096, MC_REGION_READ, &addr, &key), MC_OK);
    assert_int_equal(mc_peer_open(b, mc_te_address(a), NULL, &auto_peer), MC_OK);
    assert_int_equal(mc_peer_open(c, mc_te_address(a), NULL, &shm_peer), MC_OK);
    op = (struct mc_op){.opcode = MC_READ, .local = &byte, .len = 1, .region = key};
    assert_int_equal(mc_peer_path(auto_peer, &key), MC_PATH_TCP);
    assert_int_equal(mc_transfer_sync(auto_peer, &op, 1, 1000), MC_OK);
    assert_int_equal(mc_peer_path(shm_peer, &key), MC_PATH_NONE);
    assert_int_equal(mc_transfer_sync(shm_peer, &op, 1, 1000), MC_ENOSUP);
    mc_te_destroy(c);
    mc_te_destroy(b);
    mc_te_destroy(a);
    assert_int_equal(rmdir(dir), 0);
}

static void views(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir};
    struct mc_region_key key;
    struct mc_peer *peer;
    struct mc_te *a, *b;
    const void *view;
    char *addr;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &a), MC_OK);
    assert_int_equal(mc_te_create(&opts, &b), MC_OK);
    assert_int_equal(mc_te_alloc(a, 1 << 20, MC_REGION_READ, (void **)&addr, &key), MC_OK);
    assert_int_equal(mc_peer_open(b, mc_te_address(a), NULL, &peer), MC_OK);
    memcpy(addr + 5000, "hello", 6);
    assert_int_equal(mc_peer_map(peer, &key, 5000, 6, &view), MC_OK);
    assert_string_equal(view, "hello");
    memcpy(addr + 5000, "world", 6);
    assert_string_equal(view, "world");
    assert_int_equal(mc_peer_map(peer, &key, 1 << 20, 1, &view), MC_EINVAL);
    mc_te_free(a, addr); /* the view stays mapped, its pages are given back */
    mc_peer_close(peer);
    mc_te_destroy(b);
    mc_te_destroy(a);
    assert_int_equal(rmdir(dir), 0);
}

/* ---- segments that come and go ---- */

static unsigned descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* A peer lets go of what was freed: neither descriptors nor address space pile up with the allocations of a long life. */
static void freed_segments(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir, .transport = "shm-memfd"};
    uint64_t until = deadline_after_ms(now_ns(), 20000);
    struct mc_te *a, *b;
    struct mc_peer *peer;
    unsigned before = 0;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &a), MC_OK);
    assert_int_equal(mc_te_create(&opts, &b), MC_OK);
    assert_int_equal(mc_peer_open(b, mc_te_address(a), NULL, &peer), MC_OK);
    for (int i = 0; i < 100; i++) {
        struct mc_region_key key;
        char byte = 0;
        struct mc_op op = {.opcode = MC_READ, .local = &byte, .len = 1};
        const void *view;
        char *addr;

        assert_int_equal(mc_te_alloc(a, 4096, MC_REGION_READ, (void **)&addr, &key), MC_OK);
        addr[0] = 'x';
        op.region = key;
        assert_int_equal(mc_transfer_sync(peer, &op, 1, 5000), MC_OK);
        assert_int_equal(byte, 'x');
        assert_int_equal(mc_peer_map(peer, &key, 0, 1, &view), MC_OK);
        mc_te_free(a, addr);
        assert_true(*(const volatile char *)view == 0 || *(const volatile char *)view == 'x'); /* still mapped */
        mc_peer_unmap(peer, view);
        assert_int_equal(mc_transfer_sync(peer, &op, 1, 5000), MC_ENOENT);
        if (i == 0)
            before = descriptors();
    }
    while (descriptors() > before && now_ns() < until)
        usleep(1000);
    assert_true(descriptors() <= before);
    mc_te_destroy(b);
    mc_te_destroy(a);
    assert_int_equal(rmdir(dir), 0);
}

/* A key that names a segment which its owner does not pass: auto goes another way, and the path says which. */
static void refused_segment(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir};
    struct mc_op op = {.opcode = MC_READ, .local = &(char){0}, .len = 1};
    struct mc_te *a, *b;
    struct mc_peer *peer;
    struct te_key in;
    void *addr;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &a), MC_OK);
    assert_int_equal(mc_te_create(&opts, &b), MC_OK);
    assert_int_equal(mc_peer_open(b, mc_te_address(a), NULL, &peer), MC_OK);
    assert_int_equal(mc_te_alloc(a, 4096, MC_REGION_READ, &addr, &op.region), MC_OK);
    assert_int_equal(te_key_decode(&op.region, &in, NULL), MC_OK);
    in.segment += 1000;
    te_key_encode(&in, &op.region);
    assert_int_equal(mc_peer_path(peer, &op.region), MC_PATH_SHM_MEMFD);
    assert_int_equal(mc_transfer_sync(peer, &op, 1, 5000), MC_OK);
    assert_int_not_equal(mc_peer_path(peer, &op.region), MC_PATH_SHM_MEMFD);
    mc_te_destroy(b);
    mc_te_destroy(a);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unsealed_memfd),
        cmocka_unit_test(descriptors_passed),
        cmocka_unit_test(open_directory_refused),
        cmocka_unit_test(foreign_user),
        cmocka_unit_test(no_descriptors),
        cmocka_unit_test(other_host),
        cmocka_unit_test(views),
        cmocka_unit_test(freed_segments),
        cmocka_unit_test(refused_segment),
    };

    return cmocka_run_group_tests_name("shm", tests, NULL, NULL);
}
