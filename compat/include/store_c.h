/* store_c.h - the C interface of the existing Mooncake Store, on ours. Link with -lmooncake_store.
 *
 * Names, arguments, structs and numbers are those callers were compiled against; docs/compatibility.md says what differs.
 * Results are 0 (sizes: 0 and more), or a negative number: -200 no space, -400 key, -600 arguments or not set up, -704 not
 * there, -706 promised to somebody, -800 the bytes could not be moved, -801 they did not verify, -900 no answer, -901 in time.
 * A NULL store, key or buffer is -1, never a crash. Strings are not kept after return. Buffers need not be registered.
 * Threads: any call from any thread on one store, except that destroy must be the last. */
#ifndef MOONCAKE_STORE_C_H
#define MOONCAKE_STORE_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void *mooncake_store_t;

struct mooncake_replicate_config {
    size_t replica_num; /* on distinct segments, as many as there are */
    int with_soft_pin;  /* evicted after everything that is not */
    int with_hard_pin;  /* never evicted */
    const char **preferred_segments;
    size_t preferred_segments_count;
};
typedef struct mooncake_replicate_config mooncake_replicate_config_t;

mooncake_store_t mooncake_store_create(void);
void mooncake_store_destroy(mooncake_store_t store);

/* With global_segment_size > 0 this process gives that much memory to the pool. */
int mooncake_store_setup(mooncake_store_t store, const char *local_hostname, const char *metadata_server,
    uint64_t global_segment_size, uint64_t local_buffer_size, const char *protocol, const char *device_name,
    const char *master_server_addr);
/* The same with "localhost:12345" and a master at 127.0.0.1:50051. */
int mooncake_store_init_all(
    mooncake_store_t store, const char *protocol, const char *device_name, uint64_t mount_segment_size);
/* 0 well, 1 not set up, 2 the master does not answer. */
int mooncake_store_health_check(mooncake_store_t store);

/* A key that is there already is success, and keeps its bytes. `config` may be NULL. */
int mooncake_store_put(
    mooncake_store_t store, const char *key, const void *value, size_t size, const mooncake_replicate_config_t *config);
int mooncake_store_put_from(
    mooncake_store_t store, const char *key, void *buffer, size_t size, const mooncake_replicate_config_t *config);
/* results_out: one per key. 0 when the call could be made; else -1 and results_out says why. */
int mooncake_store_batch_put_from(mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes,
    size_t count, const mooncake_replicate_config_t *config, int *results_out);

/* Bytes read. A buffer that is too small is -600. */
int64_t mooncake_store_get_into(mooncake_store_t store, const char *key, void *buffer, size_t size);
int mooncake_store_batch_get_into(
    mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes, size_t count, int64_t *results_out);

/* 1, 0, or negative. */
int mooncake_store_is_exist(mooncake_store_t store, const char *key);
int mooncake_store_batch_is_exist(mooncake_store_t store, const char **keys, size_t count, int *results_out);
int64_t mooncake_store_get_size(mooncake_store_t store, const char *key);
/* "host:port" with its NUL; -600 when it does not fit or nothing is set up. */
int mooncake_store_get_hostname(mooncake_store_t store, char *buf_out, size_t buf_len);

int mooncake_store_remove(mooncake_store_t store, const char *key, int force);
/* How many went. The pattern is found anywhere in a key, in linear time. */
int64_t mooncake_store_remove_by_regex(mooncake_store_t store, const char *pattern, int force);
int64_t mooncake_store_remove_all(mooncake_store_t store, int force);

int mooncake_store_register_buffer(mooncake_store_t store, void *buffer, size_t size);
int mooncake_store_unregister_buffer(mooncake_store_t store, void *buffer);

#ifdef __cplusplus
}
#endif
#endif
