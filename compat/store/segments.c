/* segments.c - memory that a client gives to the pool: that of setup, and more of it while it lives.
 *
 * Each is an ephemeral node of our Store in this process. All have the client's name; one more is known to the caller by its node's
 * UUID as text. Its memory is the node's own, or a piece of a file that is mapped here: that piece is locked, so that nobody
 * gives it a second time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "compat/store/client_impl.h"

#define SEGMENT_MIN (1ull << 20) /* of our nodes */
#define SEGMENT_MAX (1ull << 30) /* one memfd, unless that would be too many of them */
enum { SEGMENTS = 200, ROWS_MAX = 1024 };

struct segment {
    struct list link; /* client->segments */
    struct store_node *node;
    char id[COMPAT_SEGMENT_ID];
    void *memory; /* of a file, or NULL */
    uint64_t size;
    int file; /* it, with the lock on that piece; -1 */
};

enum mc_status compat_node_create(const struct compat_plan *plan, uint64_t memory, void *lent, uint16_t port,
    const char *name, struct store_node **out)
{
    char listen[320];
    struct store_node_opts opts = {
        .listen = listen,
        .master = plan->master,
        .name = name,
        .transport = plan->transport,
        .memory = memory < SEGMENT_MIN && !lent ? SEGMENT_MIN : memory,
        .lent = lent,
        .segment_size = memory / SEGMENTS > SEGMENT_MAX ? memory / SEGMENTS : SEGMENT_MAX,
        .ephemeral = true,
        .no_prefault = true,
    };

    snprintf(listen, sizeof(listen), strchr(plan->listen, ':') ? "[%s]:%u" : "%s:%u", plan->listen, port);
    return store_node_create(&opts, out);
}

enum mc_status compat_node_wait(struct mc_store *store, const struct store_node *node, uint32_t timeout_ms)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t deadline = deadline_after_ms(now_ns(), timeout_ms);
    struct mc_node_info *rows = malloc(ROWS_MAX * sizeof(*rows));
    enum mc_status status = rows ? MC_PENDING : MC_ENOMEM;

    while (status == MC_PENDING) {
        uint32_t n = ROWS_MAX;

        if (now_ns() >= deadline)
            status = MC_ETIMEDOUT;
        if (mc_store_nodes(store, timeout_ms, rows, &n) != MC_OK)
            n = 0;
        for (uint32_t i = 0; i < n; i++)
            if (memcmp(rows[i].uuid, store_node_uuid(node), 16) == 0 && rows[i].state == 0)
                status = MC_OK;
        if (status == MC_PENDING)
            nanosleep(&pause, NULL);
    }
    free(rows);
    return status;
}

/* ---- more of it ---- */

static void id_of(const struct store_node *node, char out[COMPAT_SEGMENT_ID])
{
    const uint8_t *u = store_node_uuid(node);

    snprintf(out, COMPAT_SEGMENT_ID, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
        u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static enum mc_status segment_start(struct compat_client *client, struct mc_store *store, struct segment *segment)
{
    enum mc_status status =
        compat_node_create(&client->plan, segment->size, segment->memory, 0, client->hostname, &segment->node);

    if (status == MC_OK)
        status = store_node_start(segment->node);
    if (status == MC_OK)
        status = compat_node_wait(store, segment->node, client->plan.connect_ms);
    return status;
}

static void segment_free(struct segment *segment)
{
    store_node_destroy(segment->node);
    if (segment->memory)
        munmap(segment->memory, segment->size);
    if (segment->file >= 0)
        close(segment->file);
    free(segment);
}

static struct segment *segment_create(uint64_t size)
{
    struct segment *segment = size ? calloc(1, sizeof(*segment)) : NULL;

    if (segment) {
        segment->size = size;
        segment->file = -1;
    }
    return segment;
}

/* False, and why was said. What the file system has no room for is missed here, not when it is written to. */
static bool file_map(struct segment *segment, const char *path, uint64_t offset)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), size = segment->size & ~(page - 1);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = (off_t)size};
    struct stat file;
    void *memory;

    segment->file = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (segment->file < 0 || fstat(segment->file, &file) != 0) {
        log_error("compat: cannot mount %s: %m", path);
        return false;
    }
    if (!S_ISREG(file.st_mode) || offset % page || size < SEGMENT_MIN || offset > (uint64_t)file.st_size ||
        segment->size > (uint64_t)file.st_size - offset) {
        log_error(
            "compat: cannot mount %llu bytes at %llu of %s: at least 1 MiB at a multiple of %llu inside of a file",
            (unsigned long long)segment->size, (unsigned long long)offset, path, (unsigned long long)page);
        return false;
    }
    if (fcntl(segment->file, F_OFD_SETLK, &lock) != 0) {
        log_error("compat: cannot mount %llu bytes at %llu of %s, or it is mounted already: %m",
            (unsigned long long)size, (unsigned long long)offset, path);
        return false;
    }
    memory = fallocate(segment->file, 0, (off_t)offset, (off_t)size) == 0 || errno == EOPNOTSUPP
                 ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, segment->file, (off_t)offset)
                 : MAP_FAILED;
    if (memory == MAP_FAILED) {
        log_error("compat: cannot map %llu bytes of %s: %m", (unsigned long long)size, path);
        return false;
    }
    segment->memory = memory;
    segment->size = size;
    return true;
}

int compat_segment_mount(
    struct compat_client *client, const struct compat_file *file, uint64_t size, char id[COMPAT_SEGMENT_ID])
{
    struct segment *segment;
    struct compat_call call;
    enum mc_status status = MC_ENOMEM;

    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    segment = segment_create(size);
    if (segment && (!file || file_map(segment, file->path, file->offset)))
        status = segment_start(client, call.store, segment);
    if (status == MC_OK) {
        id_of(segment->node, segment->id);
        memcpy(id, segment->id, COMPAT_SEGMENT_ID);
        pthread_mutex_lock(&client->lock);
        list_push_back(&client->segments, &segment->link);
        pthread_mutex_unlock(&client->lock);
    } else if (segment) {
        segment_free(segment);
    }
    compat_leave(client, &call);
    return compat_error(status);
}

static struct segment *segment_take(struct compat_client *client, const char *id)
{
    struct segment *found = NULL;

    pthread_mutex_lock(&client->lock);
    list_for_each (it, &client->segments) {
        struct segment *segment = list_entry(it, struct segment, link);

        if (strcmp(segment->id, id) == 0)
            found = segment;
    }
    if (found)
        list_del(&found->link);
    pthread_mutex_unlock(&client->lock);
    return found;
}

/* Nothing new comes; what reads there now, or is told to within that time, may end. */
static void segment_let_go(struct compat_client *client, struct segment *segment, uint32_t grace_s)
{
    uint64_t deadline = deadline_after_ms(now_ns(), grace_s * 1000ull);
    struct timespec until;

    store_node_drain(segment->node);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += grace_s;
    pthread_mutex_lock(&client->lock);
    while (client->state == COMPAT_OPEN && !deadline_passed(deadline, now_ns()))
        if (pthread_cond_timedwait(&client->left, &client->lock, &until) != 0)
            break;
    pthread_mutex_unlock(&client->lock);
    segment_free(segment);
}

int compat_segment_unmount(struct compat_client *client, const char *id, uint32_t grace_s)
{
    struct segment *segment;
    struct compat_call call;

    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    segment = segment_take(client, id);
    if (segment)
        segment_let_go(client, segment, grace_s);
    compat_leave(client, &call);
    return segment ? COMPAT_OK : COMPAT_INTERNAL;
}

void compat_segments_drop(struct compat_client *client)
{
    struct list *it;

    while ((it = list_pop_front(&client->segments)) != NULL)
        segment_free(list_entry(it, struct segment, link));
}
