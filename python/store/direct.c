/* direct.c - put from and get into memory that the caller names by its address. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

static void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

/* ---- register ---- */

static PyObject *register_buffer(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"buffer_ptr", "size", NULL};
    PyObject *buffer_object, *size_object;
    uint64_t address, size;
    int result;

    if (!arguments(args, kw, "OO:register_buffer", names, &buffer_object, &size_object) ||
        !number_take(buffer_object, "buffer_ptr", &address) || !number_take(size_object, "size", &size))
        return NULL;
    WITHOUT_GIL(result = compat_register(client_of(self), at(address), size));
    return PyLong_FromLong(result);
}

static PyObject *unregister_buffer(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"buffer_ptr", NULL};
    PyObject *object;
    uint64_t address;
    int result;

    if (!arguments(args, kw, "O:unregister_buffer", names, &object) || !number_take(object, "buffer_ptr", &address))
        return NULL;
    WITHOUT_GIL(result = compat_unregister(client_of(self), at(address)));
    return PyLong_FromLong(result);
}

/* ---- one object ---- */

static PyObject *put_address(PyObject *self, PyObject *args, PyObject *kw, const char *format, unsigned flags)
{
    static const char *const names[] = {"key", "buffer_ptr", "size", "config", NULL};
    PyObject *key, *buffer, *size, *object = NULL, *result = NULL;
    struct keys keys = {0};
    struct config config = {.held_n = 0};
    uint64_t address, len;

    if (arguments(args, kw, format, names, &key, &buffer, &size, &object) && keys_take_one(key, "key", &keys) &&
        number_take(buffer, "buffer_ptr", &address) && number_take(size, "size", &len) &&
        config_take(object, "config", &config)) {
        struct mc_span span = {at(address), len};
        struct compat_put put = {.key = keys.one, .spans = &span, .nspans = len > 0};
        int error = config_error(&config, 1);

        if (!error)
            WITHOUT_GIL(error = compat_put(client_of(self), &put, 1, &config.c, flags));
        result = PyLong_FromLong(error);
    }
    config_fini(&config);
    keys_fini(&keys);
    return result;
}

static PyObject *put_from(PyObject *self, PyObject *args, PyObject *kw)
{
    return put_address(self, args, kw, "OOO|O:put_from", 0);
}

static PyObject *upsert_from(PyObject *self, PyObject *args, PyObject *kw)
{
    return put_address(self, args, kw, "OOO|O:upsert_from", COMPAT_UPSERT);
}

/* Of a failure in the Store this one gives the positive number: so does the existing one, and callers test for 0. */
static PyObject *put_from_with_metadata(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {
        "key", "buffer_ptr", "metadata_buffer_ptr", "size", "metadata_size", "config", NULL};
    PyObject *key, *o[4], *object = NULL, *result = NULL;
    struct keys keys = {0};
    struct config config = {.held_n = 0};
    uint64_t v[4];

    if (arguments(args, kw, "OOOOO|O:put_from_with_metadata", names, &key, &o[0], &o[1], &o[2], &o[3], &object) &&
        keys_take_one(key, "key", &keys) && number_take(o[0], names[1], &v[0]) && number_take(o[1], names[2], &v[1]) &&
        number_take(o[2], names[3], &v[2]) && number_take(o[3], names[4], &v[3]) &&
        config_take(object, "config", &config)) {
        struct mc_span spans[2] = {{at(v[1]), v[3]}, {at(v[0]), v[2]}}; /* metadata first */
        struct compat_put put = {.key = keys.one, .spans = spans, .nspans = 2};
        int error = config_error(&config, 1);

        char name[COMPAT_HOST_MAX];

        if (!error) /* only the Store's own failures are positive */
            WITHOUT_GIL(error = compat_client_hostname(client_of(self), name));
        if (!error)
            WITHOUT_GIL(error = -compat_put(client_of(self), &put, 1, &config.c, 0));
        result = PyLong_FromLong(error);
    }
    config_fini(&config);
    keys_fini(&keys);
    return result;
}

static PyObject *get_into(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"key", "buffer_ptr", "size", NULL};
    PyObject *key, *buffer, *size, *result = NULL;
    struct keys keys = {0};
    uint64_t address, len;

    if (arguments(args, kw, "OOO:get_into", names, &key, &buffer, &size) && keys_take_one(key, "key", &keys) &&
        number_take(buffer, "buffer_ptr", &address) && number_take(size, "size", &len)) {
        struct mc_span span = {at(address), len};
        struct compat_get get = {.key = keys.one, .spans = &span, .nspans = len > 0};

        WITHOUT_GIL(compat_get(client_of(self), &get, 1));
        result = PyLong_FromLongLong(get.result);
    }
    keys_fini(&keys);
    return result;
}

/* ---- many objects, each of one or more pieces of memory ---- */

/* Spans of all entries, one after the other; of entry i those from first[i] on. NULL: MemoryError. */
static struct mc_span *spans_of(const struct numbers *addresses, const struct numbers *sizes)
{
    struct mc_span *spans = calloc(addresses->n + 1, sizeof(*spans));

    for (size_t i = 0; spans && i < addresses->n; i++)
        spans[i] = (struct mc_span){at(addresses->v[i]), sizes->v[i]};
    if (!spans)
        PyErr_NoMemory();
    return spans;
}

static PyObject *put_entries(PyObject *self, const struct keys *keys, const struct mc_span *spans, const size_t *first,
    const struct config *config, unsigned flags)
{
    struct compat_put *puts = calloc(keys->n + 1, sizeof(*puts));
    int *results = calloc(keys->n + 1, sizeof(*results)), error = config_error(config, keys->n);
    PyObject *list = NULL;

    for (size_t i = 0; puts && i < keys->n; i++)
        puts[i] = (struct compat_put){.key = keys->key[i],
            .spans = spans + (first ? first[i] : i),
            .nspans = first ? (uint32_t)(first[i + 1] - first[i]) : 1};
    if (!puts || !results) {
        PyErr_NoMemory();
    } else if (error) {
        list = list_of_same(error, keys->n);
    } else {
        WITHOUT_GIL(compat_put(client_of(self), puts, keys->n, &config->c, flags));
        for (size_t i = 0; i < keys->n; i++)
            results[i] = puts[i].result;
        list = list_of_ints(results, keys->n);
    }
    free(puts);
    free(results);
    return list;
}

static PyObject *get_entries(PyObject *self, const struct keys *keys, const struct mc_span *spans, const size_t *first)
{
    struct compat_get *gets = calloc(keys->n + 1, sizeof(*gets));
    PyObject *list;

    if (!gets)
        return PyErr_NoMemory();
    for (size_t i = 0; i < keys->n; i++)
        gets[i] = (struct compat_get){.key = keys->key[i],
            .spans = spans + (first ? first[i] : i),
            .nspans = first ? (uint32_t)(first[i + 1] - first[i]) : 1};
    WITHOUT_GIL(compat_get(client_of(self), gets, keys->n));
    list = PyList_New((Py_ssize_t)keys->n);
    for (size_t i = 0; list && i < keys->n; i++) {
        PyObject *item = PyLong_FromLongLong(gets[i].result);

        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(list);
    }
    free(gets);
    return list;
}

static PyObject *batch_put(PyObject *self, PyObject *args, PyObject *kw, const char *format, unsigned flags)
{
    static const char *const names[] = {"keys", "buffer_ptrs", "sizes", "config", NULL};
    PyObject *k, *b, *s, *object = NULL, *list = NULL;
    struct keys keys = {0};
    struct numbers addresses = {0}, sizes = {0};
    struct config config = {.held_n = 0};
    struct mc_span *spans = NULL;

    if (arguments(args, kw, format, names, &k, &b, &s, &object) && keys_take(k, "keys", &keys) &&
        numbers_take(b, "buffer_ptrs", &addresses) && numbers_take(s, "sizes", &sizes) &&
        config_take(object, "config", &config)) {
        if (addresses.n != keys.n || sizes.n != keys.n)
            list = list_of_same(COMPAT_INVALID_PARAMS, keys.n);
        else if ((spans = spans_of(&addresses, &sizes)) != NULL)
            list = put_entries(self, &keys, spans, NULL, &config, flags);
    }
    free(spans);
    config_fini(&config);
    numbers_fini(&addresses);
    numbers_fini(&sizes);
    keys_fini(&keys);
    return list;
}

static PyObject *batch_put_from(PyObject *self, PyObject *args, PyObject *kw)
{
    return batch_put(self, args, kw, "OOO|O:batch_put_from", 0);
}

static PyObject *batch_upsert_from(PyObject *self, PyObject *args, PyObject *kw)
{
    return batch_put(self, args, kw, "OOO|O:batch_upsert_from", COMPAT_UPSERT);
}

static PyObject *batch_get_into(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", "buffer_ptrs", "sizes", NULL};
    PyObject *k, *b, *s, *list = NULL;
    struct keys keys = {0};
    struct numbers addresses = {0}, sizes = {0};
    struct mc_span *spans = NULL;

    if (arguments(args, kw, "OOO:batch_get_into", names, &k, &b, &s) && keys_take(k, "keys", &keys) &&
        numbers_take(b, "buffer_ptrs", &addresses) && numbers_take(s, "sizes", &sizes)) {
        if (addresses.n != keys.n || sizes.n != keys.n)
            list = list_of_same(COMPAT_INVALID_PARAMS, keys.n);
        else if ((spans = spans_of(&addresses, &sizes)) != NULL)
            list = get_entries(self, &keys, spans, NULL);
    }
    free(spans);
    numbers_fini(&addresses);
    numbers_fini(&sizes);
    keys_fini(&keys);
    return list;
}

static bool same_shape(const struct keys *keys, const struct nested *a, const struct nested *b)
{
    if (a->n != keys->n || b->n != keys->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (nested_count(a, i) != nested_count(b, i))
            return false;
    return true;
}

/* What is not set up answers with an empty list here; so does the existing one. */
static PyObject *multi(PyObject *self, const struct keys *keys, const struct nested *addresses,
    const struct nested *sizes, const struct config *config)
{
    struct mc_span *spans;
    PyObject *list = NULL;
    char name[COMPAT_HOST_MAX];
    int error;

    WITHOUT_GIL(error = compat_client_hostname(client_of(self), name));
    if (error)
        return PyList_New(0);
    if (!same_shape(keys, addresses, sizes))
        return list_of_same(COMPAT_INVALID_PARAMS, keys->n);
    spans = spans_of(&addresses->all, &sizes->all);
    if (spans)
        list = config ? put_entries(self, keys, spans, addresses->first, config, 0)
                      : get_entries(self, keys, spans, addresses->first);
    free(spans);
    return list;
}

static PyObject *batch_put_from_multi_buffers(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", "all_buffer_ptrs", "all_sizes", "config", NULL};
    PyObject *k, *b, *s, *object = NULL, *list = NULL;
    struct keys keys = {0};
    struct nested addresses = {0}, sizes = {0};
    struct config config = {.held_n = 0};

    if (arguments(args, kw, "OOO|O:batch_put_from_multi_buffers", names, &k, &b, &s, &object) &&
        keys_take(k, "keys", &keys) && nested_take(b, "all_buffer_ptrs", &addresses) &&
        nested_take(s, "all_sizes", &sizes) && config_take(object, "config", &config))
        list = multi(self, &keys, &addresses, &sizes, &config);
    config_fini(&config);
    nested_fini(&addresses);
    nested_fini(&sizes);
    keys_fini(&keys);
    return list;
}

static PyObject *batch_get_into_multi_buffers(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", "all_buffer_ptrs", "all_sizes", "prefer_alloc_in_same_node", NULL};
    PyObject *k, *b, *s, *list = NULL;
    struct keys keys = {0};
    struct nested addresses = {0}, sizes = {0};
    int same_node = 0; /* near copies are read first anyway */

    if (arguments(args, kw, "OOO|p:batch_get_into_multi_buffers", names, &k, &b, &s, &same_node) &&
        keys_take(k, "keys", &keys) && nested_take(b, "all_buffer_ptrs", &addresses) &&
        nested_take(s, "all_sizes", &sizes))
        list = multi(self, &keys, &addresses, &sizes, NULL);
    nested_fini(&addresses);
    nested_fini(&sizes);
    keys_fini(&keys);
    return list;
}

#define CONFIG "config: ReplicateConfig. "

PyMethodDef store_direct_methods[] = {
    {METHOD(register_buffer),
        DOC("register_buffer", "buffer_ptr, size", "int", "0, or -600: nothing, or registered already.")},
    {METHOD(unregister_buffer), DOC("unregister_buffer", "buffer_ptr", "int",
                                    "Waits for calls that use the range. 0, or -600: it is not registered.")},
    {METHOD(put_from),
        DOC("put_from", "key, buffer_ptr, size, config=None", "int", CONFIG "As put(), from an address.")},
    {METHOD(upsert_from),
        DOC("upsert_from", "key, buffer_ptr, size, config=None", "int", CONFIG "As put_from(), but replaces.")},
    {METHOD(put_from_with_metadata),
        DOC("put_from_with_metadata", "key, buffer_ptr, metadata_buffer_ptr, size, metadata_size, config=None", "int",
            CONFIG "One object: metadata, then data. 0, or the number of the failure as a positive one.")},
    {METHOD(batch_put_from), DOC("batch_put_from", "keys, buffer_ptrs, sizes, config=None", "list[int]",
                                 CONFIG "0 or a negative number for each.")},
    {METHOD(batch_upsert_from), DOC("batch_upsert_from", "keys, buffer_ptrs, sizes, config=None", "list[int]",
                                    CONFIG "As batch_put_from(), but replaces.")},
    {METHOD(get_into), DOC("get_into", "key, buffer_ptr, size", "int", "Bytes read, or a negative number.")},
    {METHOD(batch_get_into),
        DOC("batch_get_into", "keys, buffer_ptrs, sizes", "list[int]", "As get_into(), for each.")},
    {METHOD(batch_put_from_multi_buffers),
        DOC("batch_put_from_multi_buffers", "keys, all_buffer_ptrs, all_sizes, config=None", "list[int]",
            CONFIG "Each object is made of several pieces of memory.")},
    {METHOD(batch_get_into_multi_buffers),
        DOC("batch_get_into_multi_buffers", "keys, all_buffer_ptrs, all_sizes, prefer_alloc_in_same_node=False",
            "list[int]", "Each object is spread over several pieces of memory.")},
    {NULL, NULL, 0, NULL},
};
