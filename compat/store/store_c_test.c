/* store_c_test.c - a program as users of the C interface write it: includes store_c.h, links libmooncake_store.so, nothing else of
 * ours. `store_c_test HOST:PORT` with a master there. Every function of the header is called; results are the numbers it names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store_c.h"

static int failures;

#define CHECK(what, expected)                                                                                          \
    do {                                                                                                               \
        long long got_ = (long long)(what), want_ = (long long)(expected);                                             \
        if (got_ != want_) {                                                                                           \
            printf("%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #what, got_, want_);                           \
            failures++;                                                                                                \
        }                                                                                                              \
    } while (0)

static void before_setup(mooncake_store_t store)
{
    char name[64] = "x";
    int results[1] = {7};
    const char *keys[] = {"k"};
    void *buffers[] = {name};
    size_t sizes[] = {1};

    CHECK(mooncake_store_health_check(store), 1);
    CHECK(mooncake_store_put(store, "k", "v", 1, NULL), -600);
    CHECK(mooncake_store_put_from(store, "k", name, 1, NULL), -600);
    CHECK(mooncake_store_get_into(store, "k", name, 1), -600);
    CHECK(mooncake_store_is_exist(store, "k"), -600);
    CHECK(mooncake_store_get_size(store, "k"), -600);
    CHECK(mooncake_store_remove(store, "k", 0), -600);
    CHECK(mooncake_store_remove_all(store, 0), -600);
    CHECK(mooncake_store_register_buffer(store, name, 1), -600);
    CHECK(mooncake_store_get_hostname(store, name, sizeof(name)), -600);
    CHECK(mooncake_store_batch_put_from(store, keys, buffers, sizes, 1, NULL, results), 0);
    CHECK(results[0], -600);
}

static void bad_arguments(mooncake_store_t store)
{
    char byte;

    CHECK(mooncake_store_put(NULL, "k", "v", 1, NULL), -1);
    CHECK(mooncake_store_put(store, NULL, "v", 1, NULL), -1);
    CHECK(mooncake_store_put(store, "k", NULL, 1, NULL), -1);
    CHECK(mooncake_store_get_into(store, "k", NULL, 1), -1);
    CHECK(mooncake_store_put(store, "", "v", 1, NULL), -600);
    CHECK(mooncake_store_register_buffer(store, &byte, 0), -600);
    CHECK(mooncake_store_unregister_buffer(store, &byte), -600);
    CHECK(mooncake_store_remove_by_regex(store, "(", 0), -600);
    mooncake_store_destroy(NULL);
}

static void one_at_a_time(mooncake_store_t store)
{
    char buffer[32] = {0}, name[64];

    CHECK(mooncake_store_health_check(store), 0);
    CHECK(mooncake_store_get_hostname(store, name, sizeof(name)), 0);
    CHECK(strncmp(name, "localhost:", 10), 0);
    CHECK(mooncake_store_get_hostname(store, name, 3), -600);
    CHECK(mooncake_store_register_buffer(store, buffer, sizeof(buffer)), 0);
    CHECK(mooncake_store_put(store, "c/one", "hello", 5, NULL), 0);
    CHECK(mooncake_store_put(store, "c/one", "other", 5, NULL), 0); /* the first stays */
    CHECK(mooncake_store_get_into(store, "c/one", buffer, sizeof(buffer)), 5);
    CHECK(memcmp(buffer, "hello", 5), 0);
    CHECK(mooncake_store_get_into(store, "c/one", buffer, 4), -600);
    CHECK(mooncake_store_get_into(store, "c/none", buffer, 4), -704);
    CHECK(mooncake_store_get_size(store, "c/one"), 5);
    CHECK(mooncake_store_get_size(store, "c/none"), -704);
    CHECK(mooncake_store_is_exist(store, "c/one"), 1);
    CHECK(mooncake_store_is_exist(store, "c/none"), 0);
    CHECK(mooncake_store_put_from(store, "c/two", buffer, 3, NULL), 0);
    CHECK(mooncake_store_put(store, "c/empty", NULL, 0, NULL), 0);
    CHECK(mooncake_store_get_size(store, "c/empty"), 0);
    CHECK(mooncake_store_remove(store, "c/one", 0), -706); /* promised to who asked */
    CHECK(mooncake_store_remove(store, "c/one", 1), 0);
    CHECK(mooncake_store_remove(store, "c/one", 1), -704);
    CHECK(mooncake_store_unregister_buffer(store, buffer), 0);
}

static void many_at_a_time(mooncake_store_t store, mooncake_store_t other)
{
    enum { N = 100, SIZE = 10000 };
    static char keys_text[N][16], from[N][SIZE], into[N][SIZE];
    const char *keys[N + 1], *preferred[1];
    void *froms[N + 1], *intos[N + 1];
    size_t sizes[N + 1];
    int results[N + 1], wrong = 0;
    int64_t read[N + 1];
    char segment[64];
    mooncake_replicate_config_t config = {.replica_num = 2, .with_soft_pin = 1, .preferred_segments_count = 1};

    for (int i = 0; i < N; i++) {
        snprintf(keys_text[i], sizeof(keys_text[i]), "c/batch/%d", i);
        memset(from[i], i + 1, SIZE);
        keys[i] = keys_text[i];
        froms[i] = from[i];
        intos[i] = into[i];
        sizes[i] = SIZE;
    }
    keys[N] = "c/batch/none";
    intos[N] = froms[N] = into[0];
    sizes[N] = SIZE;
    CHECK(mooncake_store_get_hostname(other, segment, sizeof(segment)), 0);
    preferred[0] = segment;
    config.preferred_segments = preferred;
    CHECK(mooncake_store_batch_put_from(store, keys, froms, sizes, N, &config, results), 0);
    for (int i = 0; i < N; i++)
        CHECK(results[i], 0);
    CHECK(mooncake_store_batch_is_exist(other, keys, N + 1, results), 0);
    CHECK(results[0] + results[N - 1], 2);
    CHECK(results[N], 0);
    CHECK(mooncake_store_batch_get_into(other, keys, intos, sizes, N + 1, read), 0);
    for (int i = 0; i < N; i++)
        wrong += read[i] != SIZE || memcmp(into[i], from[i], SIZE) != 0;
    CHECK(wrong, 0);
    CHECK(read[N], -704);
    CHECK(mooncake_store_remove_by_regex(store, "^c/batch/[0-4]", 0), 0); /* all promised */
    CHECK(mooncake_store_remove_by_regex(store, "^c/batch/1\\d$", 1), 10);
    CHECK(mooncake_store_remove_all(store, 1), N - 10 + 2); /* and c/two, c/empty */
}

/* A child has none of the parent's threads: it is told so, may have a store of its own, and ends without harm. */
static void forked(mooncake_store_t store, const char *master)
{
    pid_t child = fork();
    int status = -1;

    if (child == 0) {
        mooncake_store_t own = mooncake_store_create();
        char buffer[8];

        failures = 0;
        CHECK(mooncake_store_health_check(store), 1);
        CHECK(mooncake_store_put(store, "c/fork", "v", 1, NULL), -600);
        CHECK(mooncake_store_setup(own, "localhost", "P2PHANDSHAKE", 0, 1 << 20, "tcp", "", master), 0);
        CHECK(mooncake_store_get_into(own, "c/parent", buffer, 8), 6);
        mooncake_store_destroy(own);
        mooncake_store_destroy(store);
        _exit(failures ? 1 : 0);
    }
    waitpid(child, &status, 0);
    CHECK(status, 0);
}

int main(int argc, char **argv)
{
    mooncake_store_t store = mooncake_store_create(), other = mooncake_store_create();
    const char *master = argc > 1 ? argv[1] : "127.0.0.1:50051";

    before_setup(store);
    CHECK(mooncake_store_setup(store, "localhost", "P2PHANDSHAKE", 64 << 20, 1 << 20, "rdma", "", master), -600);
    CHECK(mooncake_store_setup(store, "localhost", "P2PHANDSHAKE", 64 << 20, 1 << 20, "tcp", "", "127.0.0.1:1"), -900);
    CHECK(mooncake_store_setup(store, "localhost", "P2PHANDSHAKE", 64 << 20, 1 << 20, "tcp", "", master), 0);
    CHECK(mooncake_store_setup(other, "localhost", "P2PHANDSHAKE", 64 << 20, 0, "tcp", "", master), 0);
    bad_arguments(store);
    CHECK(mooncake_store_put(other, "c/no-buffer", "v", 1, NULL), -600); /* local_buffer_size 0 */
    CHECK(mooncake_store_is_exist(other, "c/no-buffer"), 0);
    one_at_a_time(store);
    many_at_a_time(store, other);
    CHECK(mooncake_store_put(store, "c/parent", "parent", 6, NULL), 0);
    forked(store, master);
    CHECK(mooncake_store_is_exist(store, "c/parent"), 1); /* the child's end did nothing to it */
    mooncake_store_destroy(other);
    mooncake_store_destroy(store);
    store = mooncake_store_create();
    CHECK(mooncake_store_init_all(store, "rdma", "", 0), -600);
    mooncake_store_destroy(store);
    printf("%s\n", failures ? "failed" : "ok");
    return failures ? 1 : 0;
}
