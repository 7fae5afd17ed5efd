/* engine_c_test.c - libtransfer_engine.so as a C program uses it, and NIXL in particular: two processes, every call.
 *
 * Goal: each of the 27 calls of transfer_engine_c.h does what its comment says, between processes. This file includes nothing of
 * the tree but that header. The program starts itself again as the far side, which prints its name and the address of a
 * megabyte it registered, then obeys one word a line:
 *
 *     sum        print a checksum of the megabyte        notes      print what notifications came
 *     back NAME  notify NAME                             (end of input) leave
 */
#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "transfer_engine_c.h"

#define SIZE (1u << 20)
#define LEN  4096u

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                                  \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

/* The interface takes char *, and only reads. */
static notify_msg_t note_of(const char *name, const char *msg)
{
    return (notify_msg_t){(char *)(uintptr_t)name, (char *)(uintptr_t)msg};
}

static uint64_t checksum(const uint8_t *p, size_t len)
{
    uint64_t sum = 14695981039346656037ull;

    for (size_t i = 0; i < len; i++)
        sum = (sum ^ p[i]) * 1099511628211ull;
    return sum;
}

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
}

/* ---- the far side ---- */

static void print_notes(transfer_engine_t engine)
{
    int count;
    notify_msg_t *notes = getNotifsFromEngine(engine, &count);

    printf("%d", count);
    for (int i = 0; i < count; i++)
        printf(" %s=%s", notes[i].name, notes[i].msg);
    printf("\n");
    CHECK(freeNotifsMsgBuf(notes, count) == 0);
}

static int far_main(void)
{
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "", 0, 1);
    uint8_t *memory = calloc(1, SIZE);
    char name[64], line[128];

    CHECK(engine && getLocalIpAndPort(engine, name, sizeof(name)) == 0);
    CHECK(registerLocalMemory(engine, memory, SIZE, "*", 1) == 0);
    printf("%s %" PRIu64 "\n", name, (uint64_t)(uintptr_t)memory);
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) {
        notify_msg_t note = note_of("from", "far");

        line[strcspn(line, "\n")] = 0;
        if (strcmp(line, "sum") == 0)
            printf("%" PRIu64 "\n", checksum(memory, SIZE));
        else if (strcmp(line, "notes") == 0)
            print_notes(engine);
        else
            printf("%d\n", genNotifyInEngine(engine, (uint64_t)openSegment(engine, line + strlen("back ")), note));
        fflush(stdout);
    }
    CHECK(unregisterLocalMemory(engine, memory) == 0);
    CHECK(unregisterLocalMemory(engine, memory) == -3);
    destroyTransferEngine(engine);
    free(memory);
    return 0;
}

struct far {
    pid_t pid;
    FILE *in, *out;
    char name[64], line[256];
    uint64_t addr;
};

static void far_start(struct far *far)
{
    int to[2], from[2];

    CHECK(pipe(to) == 0 && pipe(from) == 0);
    far->pid = fork();
    CHECK(far->pid >= 0);
    if (far->pid == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        execl("/proc/self/exe", "far", "far", (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    far->in = fdopen(to[1], "w");
    far->out = fdopen(from[0], "r");
    CHECK(fgets(far->line, sizeof(far->line), far->out));
    CHECK(sscanf(far->line, "%63s %" SCNu64, far->name, &far->addr) == 2);
}

static const char *far_ask(struct far *far, const char *what)
{
    fprintf(far->in, "%s\n", what);
    fflush(far->in);
    CHECK(fgets(far->line, sizeof(far->line), far->out));
    far->line[strcspn(far->line, "\n")] = 0;
    return far->line;
}

static void far_end(struct far *far, int expected)
{
    int status;

    fclose(far->in);
    CHECK(waitpid(far->pid, &status, 0) == far->pid);
    CHECK(expected < 0 || (WIFEXITED(status) && WEXITSTATUS(status) == expected));
    fclose(far->out);
}

/* ---- the near side ---- */

/* As NIXL polls; gives the status at the end. */
static int wait_task(transfer_engine_t engine, batch_id_t batch, size_t task, uint64_t len)
{
    struct transfer_status status = {0};
    struct timespec pause = {0, 100000};

    for (;;) {
        CHECK(getTransferStatus(engine, batch, task, &status) == 0);
        if (status.status != STATUS_PENDING && status.status != STATUS_WAITING)
            break;
        nanosleep(&pause, NULL);
    }
    CHECK(status.transferred_bytes == (status.status == STATUS_COMPLETED ? len : 0));
    return status.status;
}

static struct transfer_request request(
    int opcode, uint8_t *source, segment_id_t target, uint64_t offset, uint64_t length)
{
    return (struct transfer_request){opcode, source, target, offset, length};
}

static void engines_and_segments(transfer_engine_t engine, struct far *far)
{
    char name[64], text[4096];
    nic_load_stat_t stats[4];
    size_t count = 4;

    CHECK(getLocalIpAndPort(engine, name, 3) < 0);
    CHECK(getLocalIpAndPort(engine, name, sizeof(name)) == 0 && strncmp(name, "127.0.0.1:", 10) == 0);
    CHECK(installTransport(engine, "tcp", NULL) != NULL);
    CHECK(installTransport(engine, "rdma", NULL) == NULL || getenv("MC_FORCE_TCP"));
    CHECK(uninstallTransport(engine, "tcp") == 0 && discoverTopology(engine) == 0);
    enableGracefulShutdown(engine);
    CHECK(openSegment(engine, name) == LOCAL_SEGMENT);
    CHECK(
        openSegment(engine, far->name) > 0 && openSegment(engine, far->name) == openSegmentNoCache(engine, far->name));
    CHECK(openSegment(engine, "127.0.0.1:9") < 0 && openSegment(engine, "nobody.invalid:9") < 0 &&
          openSegment(engine, "") < 0);
    CHECK(closeSegment(engine, openSegment(engine, far->name)) == 0 && closeSegment(engine, 999) < 0);
    CHECK(syncSegmentCache(engine) == 0 && removeLocalSegment(engine, name) == 0);
    CHECK(warmupEfaSegment(engine, name) == -303);
    CHECK(getNicLoadStats(engine, stats, &count) == 0 && count == 0);
    CHECK(showLinks(engine, text, sizeof(text), 0) == 0 && strstr(text, far->name));
    CHECK(showLinks(engine, text, sizeof(text), 1) == 0 && text[0] == '[');
    CHECK(showLinks(engine, text, 2, 1) < 0);
    CHECK(createTransferEngine("redis://127.0.0.1:6379", "127.0.0.1", "", 0, 1) == NULL);
    CHECK(createTransferEngine("P2PHANDSHAKE", "", "", 0, 1) == NULL);
}

/* Many requests, both directions, with a notification, as one batch of 1,024. */
static void transfers(transfer_engine_t engine, struct far *far)
{
    enum { N = 200 };
    static uint8_t mirror[SIZE], here[SIZE], back[N * LEN];
    segment_id_t peer = openSegment(engine, far->name);
    struct transfer_request requests[N];
    notify_msg_t note = note_of("agent-1", "block 7 is there");
    batch_id_t batch = allocateBatchID(engine, 1024);
    char expected[64];

    CHECK(registerLocalMemory(engine, here, SIZE, "cpu:0", 0) == 0);
    fill(here, SIZE, 1);
    for (size_t i = 0; i < N; i++) {
        requests[i] = request(OPCODE_WRITE, here + i * LEN, peer, far->addr + (N - i) * (LEN + 3), LEN);
        memcpy(mirror + (N - i) * (LEN + 3), here + i * LEN, LEN);
    }
    CHECK(submitTransferWithNotify(engine, batch, requests, N, note) == 0);
    for (size_t i = 0; i < N; i++)
        CHECK(wait_task(engine, batch, i, LEN) == STATUS_COMPLETED);
    snprintf(expected, sizeof(expected), "%" PRIu64, checksum(mirror, SIZE));
    CHECK(strcmp(far_ask(far, "sum"), expected) == 0);
    CHECK(strcmp(far_ask(far, "notes"), "1 agent-1=block 7 is there") == 0);
    for (size_t i = 0; i < N; i++) {
        requests[i].opcode = OPCODE_READ;
        requests[i].source = back + i * LEN;
    }
    CHECK(submitTransfer(engine, batch, requests, N) == 0);
    for (size_t i = N; i < 2 * N; i++)
        CHECK(wait_task(engine, batch, i, LEN) == STATUS_COMPLETED);
    CHECK(memcmp(back, here, sizeof(back)) == 0);
    CHECK(freeBatchID(engine, batch) == 0 && freeBatchID(engine, batch) == -1);
    CHECK(unregisterLocalMemory(engine, here) == 0);
}

static void what_goes_wrong(transfer_engine_t engine, struct far *far)
{
    static uint8_t here[LEN], mine[LEN], there[LEN];
    segment_id_t peer = openSegment(engine, far->name);
    batch_id_t batch = allocateBatchID(engine, 3);
    struct transfer_request good = request(OPCODE_READ, here, peer, far->addr, LEN), bad = good;
    struct transfer_request mixed[4] = {
        good, request(OPCODE_WRITE, mine, LOCAL_SEGMENT, (uintptr_t)there, LEN), good, good};
    struct transfer_status status;

    fill(mine, LEN, 3);
    mixed[2].target_offset = 16; /* nothing is registered there */
    CHECK(submitTransfer(engine, batch, mixed, 4) == -2);
    CHECK(registerLocalMemory(engine, there, LEN, "*", 1) == 0);
    CHECK(submitTransfer(engine, batch, mixed, 3) == 0);
    CHECK(wait_task(engine, batch, 1, LEN) == STATUS_COMPLETED && memcmp(mine, there, LEN) == 0);
    CHECK(wait_task(engine, batch, 2, LEN) == STATUS_FAILED);
    CHECK(getTransferStatus(engine, batch, 3, &status) == -1 && getTransferStatus(engine, batch + 1, 0, &status) == -1);
    CHECK(freeBatchID(engine, batch) == 0);
    CHECK(unregisterLocalMemory(engine, there) == 0);
    batch = allocateBatchID(engine, 2);
    bad.target_id = 4711;
    CHECK(submitTransfer(engine, batch, &bad, 1) == -1);
    CHECK(wait_task(engine, batch, 0, LEN) == STATUS_INVALID);
    bad = good;
    bad.opcode = 2;
    CHECK(submitTransfer(engine, batch, &bad, 1) == -1);
    CHECK(submitTransfer(engine, 4711, &good, 1) == -1);
    CHECK(freeBatchID(engine, batch) == 0);
    CHECK(allocateBatchID(engine, 0) == INVALID_BATCH && allocateBatchID(NULL, 1) == INVALID_BATCH);
    CHECK(registerLocalMemory(engine, here, 0, "*", 1) == -1 && registerLocalMemory(NULL, here, 1, "*", 1) == -1);
}

static void batch_registration(transfer_engine_t engine)
{
    static uint8_t here[3][LEN];
    buffer_entry_t list[3] = {{here[0], LEN}, {here[1], LEN}, {here[2], LEN}};
    void *addrs[3] = {here[0], here[1], here[2]};

    CHECK(registerLocalMemoryBatch(engine, list, 3, "*") == 0);
    CHECK(unregisterLocalMemoryBatch(engine, addrs, 3) == 0);
    list[2].length = 0;
    CHECK(registerLocalMemoryBatch(engine, list, 3, "*") == -1);
    CHECK(unregisterLocalMemoryBatch(engine, addrs, 1) == -3);
    CHECK(registerLocalMemoryBatch(engine, NULL, 0, "*") == 0);
}

static void notifications(transfer_engine_t engine, struct far *far)
{
    notify_msg_t note = note_of("a", "b"), empty = {NULL, NULL}, *got;
    segment_id_t peer = openSegment(engine, far->name);
    char line[128] = "back ";
    int count;

    CHECK(
        genNotifyInEngine(engine, (uint64_t)peer, note) == 0 && genNotifyInEngine(engine, (uint64_t)peer, empty) == 0);
    CHECK(strcmp(far_ask(far, "notes"), "2 a=b =") == 0);
    CHECK(genNotifyInEngine(engine, 4711, note) < 0);
    CHECK(getNotifsFromEngine(engine, &count) == NULL && count == 0);
    CHECK(getLocalIpAndPort(engine, line + 5, sizeof(line) - 5) == 0);
    CHECK(strcmp(far_ask(far, line), "0") == 0);
    got = getNotifsFromEngine(engine, &count);
    CHECK(count == 1 && strcmp(got[0].name, "from") == 0 && strcmp(got[0].msg, "far") == 0);
    CHECK(freeNotifsMsgBuf(got, count) == 0);
}

/* Over tcp a batch to a peer that is stopped is busy until the peer dies; on one host the caller has written it himself. What goes to a
 * dead peer fails, and its batch can be freed. */
static void a_dead_peer(transfer_engine_t engine, struct far *far)
{
    static uint8_t here[SIZE];
    segment_id_t peer = openSegment(engine, far->name);
    struct transfer_request one = request(OPCODE_WRITE, here, peer, far->addr, SIZE);
    batch_id_t batch = allocateBatchID(engine, 1);
    siginfo_t end;
    int status;

    kill(far->pid, SIGSTOP);
    CHECK(submitTransfer(engine, batch, &one, 1) == 0);
    if (getenv("MC_FORCE_TCP"))
        CHECK(freeBatchID(engine, batch) == -4);
    else
        CHECK(wait_task(engine, batch, 0, SIZE) == STATUS_COMPLETED && freeBatchID(engine, batch) == 0);
    kill(far->pid, SIGKILL);
    CHECK(waitid(P_PID, (id_t)far->pid, &end, WEXITED | WNOWAIT) == 0);
    if (!getenv("MC_FORCE_TCP")) {
        batch = allocateBatchID(engine, 1);
        if (submitTransfer(engine, batch, &one, 1) != 0) { /* its end has been noticed */
            CHECK(freeBatchID(engine, batch) == 0);
            return;
        }
    }
    status = wait_task(engine, batch, 0, SIZE);
    CHECK(status == STATUS_FAILED || status == STATUS_TIMEOUT);
    CHECK(freeBatchID(engine, batch) == 0);
    CHECK(openSegmentNoCache(engine, far->name) < 0);
}

/* Destroying with a transfer under way ends it. */
static void destroyed_meanwhile(void)
{
    static uint8_t here[SIZE];
    transfer_engine_t engine = createTransferEngine("P2PHANDSHAKE", "localhost:0", "", 0, 0);
    struct far far;
    struct transfer_request one;
    batch_id_t batch;

    CHECK(engine);
    far_start(&far);
    one = request(OPCODE_READ, here, openSegment(engine, far.name), far.addr, SIZE);
    kill(far.pid, SIGSTOP);
    batch = allocateBatchID(engine, 1);
    CHECK(submitTransfer(engine, batch, &one, 1) == 0);
    destroyTransferEngine(engine);
    kill(far.pid, SIGCONT);
    far_end(&far, 0);
}

/* Libraries must not run anything in a child that does not use them. */
static void forked(transfer_engine_t engine)
{
    uint8_t byte;
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        int code = registerLocalMemory(engine, &byte, 1, "*", 1) < 0 ? 0 : 1;

        destroyTransferEngine(engine);
        _exit(code);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    transfer_engine_t engine;
    struct far far;

    if (argc > 1 && strcmp(argv[1], "far") == 0)
        return far_main();
    if (argc > 1 && strcmp(argv[1], "tcp") == 0)
        setenv("MC_FORCE_TCP", "1", 1);
    far_start(&far);
    engine = createTransferEngine("P2PHANDSHAKE", "127.0.0.1:12345", "127.0.0.1", 0, 1);
    CHECK(engine);
    engines_and_segments(engine, &far);
    transfers(engine, &far);
    what_goes_wrong(engine, &far);
    batch_registration(engine);
    notifications(engine, &far);
    forked(engine);
    a_dead_peer(engine, &far);
    far_end(&far, -1);
    destroyTransferEngine(engine);
    destroyTransferEngine(NULL);
    destroyed_meanwhile();
    printf("1 passed, 0 failed\n");
    return 0;
}
