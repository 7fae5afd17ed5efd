/* store_c.c - the 19 functions of store_c.h over compat_client. */
#include "compat/include/store_c.h"

#include <stdlib.h>
#include <string.h>

#include "compat/store/client.h"

#define API __attribute__((visibility("default")))

/* Bad arguments are -1 here, where the client says -600: the existing library makes that difference. */
enum { BAD_ARGUMENT = -1 };

static struct compat_key key_of(const char *text)
{
    return (struct compat_key){text, text ? strlen(text) : 0};
}

static const struct compat_config *config_of(const mooncake_replicate_config_t *config, struct compat_config *out)
{
    if (!config)
        return NULL;
    *out = (struct compat_config){
        .replicas = config->replica_num,
        .soft_pin = config->with_soft_pin,
        .hard_pin = config->with_hard_pin,
        .preferred = config->preferred_segments,
        .preferred_n = config->preferred_segments ? config->preferred_segments_count : 0,
    };
    return out;
}

API mooncake_store_t mooncake_store_create(void)
{
    return compat_client_create();
}

API void mooncake_store_destroy(mooncake_store_t store)
{
    compat_client_destroy(store);
}

API int mooncake_store_setup(mooncake_store_t store, const char *local_hostname, const char *metadata_server,
    uint64_t global_segment_size, uint64_t local_buffer_size, const char *protocol, const char *device_name,
    const char *master_server_addr)
{
    struct compat_setup setup = {
        .local_hostname = local_hostname,
        .metadata_server = metadata_server,
        .global_segment_size = global_segment_size,
        .local_buffer_size = local_buffer_size,
        .protocol = protocol,
        .devices = device_name,
        .master = master_server_addr,
    };

    return store && local_hostname && master_server_addr ? compat_client_setup(store, &setup) : BAD_ARGUMENT;
}

API int mooncake_store_init_all(
    mooncake_store_t store, const char *protocol, const char *device_name, uint64_t mount_segment_size)
{
    struct compat_setup setup = {
        .local_hostname = "localhost:12345",
        .metadata_server = "127.0.0.1:2379",
        .global_segment_size = mount_segment_size,
        .local_buffer_size = 16 << 20,
        .protocol = protocol,
        .devices = device_name,
        .master = "127.0.0.1:50051",
    };

    return store ? compat_client_setup(store, &setup) : BAD_ARGUMENT;
}

API int mooncake_store_health_check(mooncake_store_t store)
{
    return compat_client_health(store);
}

static int put_one(mooncake_store_t store, const char *key, const void *data, size_t size,
    const mooncake_replicate_config_t *config, unsigned flags)
{
    struct mc_span span = {(void *)(uintptr_t)data, size}; /* a source is only read */
    struct compat_put put = {.key = key_of(key), .spans = &span, .nspans = size > 0};
    struct compat_config ours;

    if (!store || !key || (!data && size))
        return BAD_ARGUMENT;
    return compat_put(store, &put, 1, config_of(config, &ours), flags);
}

API int mooncake_store_put(
    mooncake_store_t store, const char *key, const void *value, size_t size, const mooncake_replicate_config_t *config)
{
    return put_one(store, key, value, size, config, COMPAT_BYTES);
}

API int mooncake_store_put_from(
    mooncake_store_t store, const char *key, void *buffer, size_t size, const mooncake_replicate_config_t *config)
{
    return put_one(store, key, buffer, size, config, 0);
}

API int mooncake_store_batch_put_from(mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes,
    size_t count, const mooncake_replicate_config_t *config, int *results_out)
{
    struct compat_put *puts;
    struct mc_span *spans;
    struct compat_config ours;
    int error = BAD_ARGUMENT;

    if (!store || (count && (!keys || !buffers || !sizes || !results_out)))
        return error;
    puts = calloc(count + 1, sizeof(*puts));
    spans = calloc(count + 1, sizeof(*spans));
    for (size_t i = 0; puts && spans && i < count; i++) {
        spans[i] = (struct mc_span){buffers[i], sizes[i]};
        puts[i] = (struct compat_put){.key = key_of(keys[i]), .spans = &spans[i], .nspans = sizes[i] > 0};
    }
    if (puts && spans) {
        compat_put(store, puts, count, config_of(config, &ours), 0);
        for (size_t i = 0; i < count; i++)
            results_out[i] = puts[i].result;
        error = 0;
    }
    free(puts);
    free(spans);
    return error;
}

API int64_t mooncake_store_get_into(mooncake_store_t store, const char *key, void *buffer, size_t size)
{
    struct mc_span span = {buffer, size};
    struct compat_get get = {.key = key_of(key), .spans = &span, .nspans = size > 0};

    if (!store || !key || (!buffer && size))
        return BAD_ARGUMENT;
    compat_get(store, &get, 1);
    return get.result;
}

API int mooncake_store_batch_get_into(
    mooncake_store_t store, const char **keys, void **buffers, const size_t *sizes, size_t count, int64_t *results_out)
{
    struct compat_get *gets;
    struct mc_span *spans;
    int error = BAD_ARGUMENT;

    if (!store || (count && (!keys || !buffers || !sizes || !results_out)))
        return error;
    gets = calloc(count + 1, sizeof(*gets));
    spans = calloc(count + 1, sizeof(*spans));
    for (size_t i = 0; gets && spans && i < count; i++) {
        spans[i] = (struct mc_span){buffers[i], sizes[i]};
        gets[i] = (struct compat_get){.key = key_of(keys[i]), .spans = &spans[i], .nspans = sizes[i] > 0};
    }
    if (gets && spans) {
        compat_get(store, gets, count);
        for (size_t i = 0; i < count; i++)
            results_out[i] = gets[i].result;
        error = 0;
    }
    free(gets);
    free(spans);
    return error;
}

static int exist_of(int64_t size)
{
    return size >= 0 ? 1 : size == COMPAT_NOT_FOUND ? 0 : (int)size;
}

API int mooncake_store_is_exist(mooncake_store_t store, const char *key)
{
    struct compat_key name = key_of(key);
    int64_t size;

    if (!store || !key)
        return BAD_ARGUMENT;
    compat_exists(store, &name, 1, &size);
    return exist_of(size);
}

API int mooncake_store_batch_is_exist(mooncake_store_t store, const char **keys, size_t count, int *results_out)
{
    struct compat_key *names;
    int64_t *found;
    int error = BAD_ARGUMENT;

    if (!store || (count && (!keys || !results_out)))
        return error;
    names = calloc(count + 1, sizeof(*names));
    found = calloc(count + 1, sizeof(*found));
    for (size_t i = 0; names && found && i < count; i++)
        names[i] = key_of(keys[i]);
    if (names && found) {
        compat_exists(store, names, count, found);
        for (size_t i = 0; i < count; i++)
            results_out[i] = exist_of(found[i]);
        error = 0;
    }
    free(names);
    free(found);
    return error;
}

API int64_t mooncake_store_get_size(mooncake_store_t store, const char *key)
{
    struct compat_key name = key_of(key);
    int64_t size;

    if (!store || !key)
        return BAD_ARGUMENT;
    compat_exists(store, &name, 1, &size);
    return size;
}

API int mooncake_store_get_hostname(mooncake_store_t store, char *buf_out, size_t buf_len)
{
    char name[COMPAT_HOST_MAX];
    int error;

    if (!store || !buf_out || buf_len == 0)
        return BAD_ARGUMENT;
    error = compat_client_hostname(store, name);
    if (error == COMPAT_OK && strlen(name) >= buf_len)
        error = COMPAT_INVALID_PARAMS;
    strcpy(buf_out, "");
    if (error == COMPAT_OK)
        strcpy(buf_out, name);
    return error;
}

API int mooncake_store_remove(mooncake_store_t store, const char *key, int force)
{
    struct compat_key name = key_of(key);
    int result;

    if (!store || !key)
        return BAD_ARGUMENT;
    compat_remove(store, &name, 1, NULL, force, &result);
    return result;
}

API int64_t mooncake_store_remove_by_regex(mooncake_store_t store, const char *pattern, int force)
{
    return store && pattern ? compat_remove_matching(store, pattern, strlen(pattern), force) : BAD_ARGUMENT;
}

API int64_t mooncake_store_remove_all(mooncake_store_t store, int force)
{
    return store ? compat_remove_matching(store, NULL, 0, force) : BAD_ARGUMENT;
}

API int mooncake_store_register_buffer(mooncake_store_t store, void *buffer, size_t size)
{
    return store ? compat_register(store, buffer, size) : BAD_ARGUMENT;
}

API int mooncake_store_unregister_buffer(mooncake_store_t store, void *buffer)
{
    return store ? compat_unregister(store, buffer) : BAD_ARGUMENT;
}
