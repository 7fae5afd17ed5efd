/* copy_test.c - writes into memory of another engine: what is refused, and how its owner waits for those who copy.
 *
 * Method: two engines of one process, of which one owns and the other writes; tests/transfer has what needs a second process. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/scratch_test.h"
#include "transfer/shm/shm_impl.h"

/* ---- what may be written, and by which way ---- */

static struct {
    struct mc_te *owner, *writer;
    struct mc_peer *peer;
    char dir[SCRATCH_PATH];
} pair;

static void pair_open(const char *transport)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = pair.dir, .transport = transport};

    scratch_dir(pair.dir);
    assert_int_equal(mc_te_create(&opts, &pair.owner), MC_OK);
    assert_int_equal(mc_te_create(&opts, &pair.writer), MC_OK);
    assert_int_equal(mc_peer_open(pair.writer, mc_te_address(pair.owner), NULL, &pair.peer), MC_OK);
}

static void pair_close(void)
{
    mc_te_destroy(pair.writer);
    mc_te_destroy(pair.owner);
    assert_int_equal(rmdir(pair.dir), 0);
}

static enum mc_status write_text(const struct mc_region_key *key, uint64_t offset, const char *text)
{
    struct mc_op op = {
        .opcode = MC_WRITE, .local = (void *)(uintptr_t)text, .len = strlen(text), .region = *key, .offset = offset};

    return mc_transfer_sync(pair.peer, &op, 1, 5000);
}

static uint64_t written(enum mc_path path)
{
    struct mc_peer_stats stats;

    mc_peer_stats(pair.peer, &stats);
    return stats.write_bytes[path];
}

/* A view of memory that we may write is nevertheless one to look at. */
static void views_are_not_written(void **state)
{
    struct mc_region_key key;
    const void *view;
    char *addr;

    pair_open("shm-memfd");
    assert_int_equal(mc_te_alloc(pair.owner, 4096, MC_REGION_READ | MC_REGION_WRITE, (void **)&addr, &key), MC_OK);
    assert_int_equal(write_text(&key, 0, "hello"), MC_OK);
    assert_int_equal(mc_peer_map(pair.peer, &key, 0, 5, &view), MC_OK);
    assert_memory_equal(view, "hello", 5);
    assert_true(process_vm_writev(getpid(), &(struct iovec){(char[]){"x"}, 1}, 1,
                    &(struct iovec){(void *)(uintptr_t)view, 1}, 1, 0) < 0);
    assert_memory_equal(addr, "hello", 5);
    pair_close();
}

/* Part of a segment may be written: nobody gets a descriptor by which all of it could, so it goes by a call. */
static void writable_part(void **state)
{
    struct mc_region_key all, part;
    char *addr;

    pair_open("shm");
    assert_int_equal(mc_te_alloc(pair.owner, 8192, MC_REGION_READ, (void **)&addr, &all), MC_OK);
    assert_int_equal(mc_te_register(pair.owner, addr + 100, 50, MC_REGION_WRITE, &part), MC_OK);
    assert_int_equal(write_text(&all, 0, "hello"), MC_EPERM);
    assert_int_equal(write_text(&part, 7, "hello"), MC_OK);
    assert_memory_equal(addr + 107, "hello", 5);
    assert_int_equal(written(MC_PATH_SHM_VM), 5);
    assert_int_equal(written(MC_PATH_SHM_MEMFD), 0);
    pair_close();
    pair_open("shm-memfd");
    assert_int_equal(mc_te_alloc(pair.owner, 8192, MC_REGION_READ, (void **)&addr, &all), MC_OK);
    assert_int_equal(mc_te_register(pair.owner, addr, 50, MC_REGION_WRITE, &part), MC_OK);
    assert_int_equal(write_text(&part, 0, "hello"), MC_ENOSUP);
    pair_close();
}

/* What a key says of place, length and rights is not believed: only its id is, and the row decides. */
static void forged_keys(void **state)
{
    static const char *const transports[] = {"shm-memfd", "shm-vm"};

    for (int i = 0; i < 2; i++) {
        struct mc_region_key good, readable, key;
        struct te_key in;
        char *addr;

        pair_open(transports[i]);
        assert_int_equal(
            mc_te_alloc(pair.owner, 16384, MC_REGION_READ | MC_REGION_WRITE, (void **)&addr, &good), MC_OK);
        assert_int_equal(mc_te_register(pair.owner, addr + 4096, 100, MC_REGION_READ, &readable), MC_OK);
        assert_int_equal(write_text(&good, 0, "first"), MC_OK);
        assert_int_equal(te_key_decode(&good, &in, NULL), MC_OK);
        in.base += 8192; /* another place */
        te_key_encode(&in, &key);
        assert_int_equal(write_text(&key, 5, "second"), MC_OK);
        assert_memory_equal(addr, "firstsecond", 11);
        assert_int_equal(te_key_decode(&readable, &in, NULL), MC_OK);
        in.flags |= MC_REGION_WRITE;
        te_key_encode(&in, &key);
        assert_int_equal(write_text(&key, 0, "third"), MC_EPERM);
        assert_int_equal(te_key_decode(&good, &in, NULL), MC_OK);
        in.len += 4096;
        te_key_encode(&in, &key);
        assert_int_equal(write_text(&key, 16380, "fourth"), MC_EINVAL);
        in.id ^= 1ull << 40;
        te_key_encode(&in, &key);
        assert_int_equal(write_text(&key, 0, "fifth"), MC_ENOENT);
        for (int at = 11; at < 16384; at++)
            assert_int_equal(addr[at], 0);
        pair_close();
    }
}

/* ---- withdrawing what is being copied ---- */

struct withdrawing {
    struct mc_region_key key;
    uint64_t id;
    enum mc_status status;
    _Atomic int done;
};

static void *withdraw(void *arg)
{
    struct withdrawing *w = arg;

    w->status = mc_te_unregister(pair.owner, &w->key);
    atomic_store(&w->done, 1);
    return NULL;
}

static void part_on_loop(struct loop *loop, void *arg)
{
    conn_abort(((struct session *)arg)->conn, MC_EPROTO);
}

/* As a thread of the writer's that is in the middle of a piece: with the session, and under the hazard. The owner waits for it, also
 * when he has ended the session, and longer than for anything that is only slow. */
static void withdrawn_while_copied(bool parted)
{
    struct withdrawing w = {.status = MC_PENDING};
    struct session *session;
    struct hazard *hazard;
    struct te_key in;
    uint64_t start;
    pthread_t thread;
    void *addr;

    pair_open("shm");
    assert_int_equal(mc_te_alloc(pair.owner, 4096, MC_REGION_WRITE, &addr, &w.key), MC_OK);
    assert_int_equal(te_key_decode(&w.key, &in, NULL), MC_OK);
    session = session_get(pair.peer);
    assert_non_null(session);
    hazard = hazard_set(pair.writer->shm, in.id);
    if (parted) {
        struct session *theirs = session_find(pair.owner->shm, te_uuid(pair.writer));

        loop_call(pair.owner->loop, part_on_loop, theirs);
        for (uint64_t until = deadline_after_ms(now_ns(), 20000); atomic_load(&session->up) && now_ns() < until;)
            usleep(1000);
        assert_false(atomic_load(&session->up));
    }
    start = now_ns();
    assert_int_equal(pthread_create(&thread, NULL, withdraw, &w), 0);
    while (grant_read(session->page, in.id, NULL))
        usleep(1000);
    usleep(100000); /* twice what it would wait for somebody who cannot be seen */
    if (now_ns() - start < 900 * NS_PER_MS)
        assert_false(atomic_load(&w.done));
    hazard_clear(hazard);
    session_put(session);
    pthread_join(thread, NULL);
    assert_int_equal(w.status, MC_OK);
    pair_close();
}

static void waits_for_copies(void **state)
{
    withdrawn_while_copied(false);
    withdrawn_while_copied(true);
}

/* ---- what a process does ---- */

static bool state_becomes(pid_t pid, enum process_state state)
{
    for (uint64_t until = deadline_after_ms(now_ns(), 10000); now_ns() < until; poll(NULL, 0, 1))
        if (process_state(pid) == state)
            return true;
    return false;
}

static void states_of_a_process(void **state)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(60);
        for (;;)
            ;
    }
    assert_true(state_becomes(pid, PROCESS_RUNNABLE));
    kill(pid, SIGSTOP);
    assert_true(state_becomes(pid, PROCESS_STOPPED));
    kill(pid, SIGCONT);
    assert_true(state_becomes(pid, PROCESS_RUNNABLE));
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(process_state(pid), PROCESS_STOPPED); /* gone */
    assert_int_equal(process_state(0), PROCESS_UNKNOWN);   /* of another PID namespace */
}

static bool waits_uninterruptibly(pid_t pid)
{
    char path[64], text[512] = "";
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    assert_non_null(file);
    assert_non_null(fgets(text, sizeof(text), file));
    fclose(file);
    return strstr(text, ") D ") != NULL;
}

/* As one whose page is on its way from somewhere: it will go on, though it is no processor that it waits for. Here it waits for the
 * child of its vfork(), which waits for us. */
static void state_of_waiting(void **state)
{
    int gate[2];
    pid_t pid;
    char byte;

#ifdef __SANITIZE_THREAD__
    print_message("vfork() is fork() under this sanitizer\n");
    skip();
#endif
    assert_int_equal(pipe(gate), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        close(gate[1]);
        if (vfork() == 0)
            _exit(read(gate[0], &byte, 1) < 0);
        _exit(0);
    }
    close(gate[0]);
    for (uint64_t until = deadline_after_ms(now_ns(), 10000); !waits_uninterruptibly(pid) && now_ns() < until;)
        usleep(1000);
    assert_true(waits_uninterruptibly(pid));
    assert_int_equal(process_state(pid), PROCESS_RUNNABLE);
    close(gate[1]);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(views_are_not_written),
        cmocka_unit_test(writable_part),
        cmocka_unit_test(forged_keys),
        cmocka_unit_test(waits_for_copies),
        cmocka_unit_test(states_of_a_process),
        cmocka_unit_test(state_of_waiting),
    };

    return cmocka_run_group_tests_name("copy", tests, NULL, NULL);
}
