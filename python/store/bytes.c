/* bytes.c - put and get of bytes: the caller's buffers are read where they lie, results are made here. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

enum { HINT_MIN = 4096, HINT_MAX = 8 << 20, GROWN = 4 };

/* ---- put ---- */

static int put_spans(PyObject *self, const struct compat_key *key, const struct mc_span *spans, size_t n,
    const struct config *config, unsigned flags)
{
    struct compat_put put = {.key = *key, .spans = spans, .nspans = (uint32_t)n};
    int error = config_error(config, 1);

    if (error)
        return error;
    WITHOUT_GIL(error = compat_put(client_of(self), &put, 1, &config->c, flags | COMPAT_BYTES));
    return error;
}

static PyObject *put_value(PyObject *self, PyObject *args, PyObject *kw, const char *format, unsigned flags)
{
    static const char *const names[] = {"key", "value", "config", NULL};
    PyObject *key, *value, *object = NULL, *result = NULL;
    struct keys keys = {0};
    struct buffers buffers = {0};
    struct config config = {.held_n = 0};

    if (arguments(args, kw, format, names, &key, &value, &object) && keys_take_one(key, "key", &keys) &&
        config_take(object, "config", &config) && buffers_take(&value, 1, "value", false, &buffers)) {
        if (config.c.same_node) /* as the existing one: this wish is for addresses only */
            config.error = COMPAT_INVALID_PARAMS;
        result = PyLong_FromLong(put_spans(self, keys.key, buffers.span, buffers.span[0].len > 0, &config, flags));
    }
    buffers_fini(&buffers);
    config_fini(&config);
    keys_fini(&keys);
    return result;
}

static PyObject *put(PyObject *self, PyObject *args, PyObject *kw)
{
    return put_value(self, args, kw, "OO|O:put", 0);
}

static PyObject *upsert(PyObject *self, PyObject *args, PyObject *kw)
{
    return put_value(self, args, kw, "OO|O:upsert", COMPAT_UPSERT);
}

/* config is the only keyword; the parts are whatever comes behind the key. */
static bool parts_config(const char *name, PyObject *kw, PyObject **config)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    *config = NULL;
    while (kw && PyDict_Next(kw, &at, &key, &value)) {
        if (PyUnicode_CompareWithASCIIString(key, "config") != 0) {
            PyErr_Format(PyExc_TypeError, "'%U' is an invalid keyword argument for %s()", key, name);
            return false;
        }
        *config = value;
    }
    return true;
}

static uint64_t total(const struct buffers *buffers)
{
    uint64_t size = 0;

    for (size_t i = 0; i < buffers->n; i++)
        size += buffers->span[i].len;
    return size;
}

static PyObject *parts(PyObject *self, PyObject *args, PyObject *kw, const char *name, unsigned flags)
{
    Py_ssize_t n = PyTuple_Size(args);
    PyObject *object, **values = calloc((size_t)n + 1, sizeof(*values)), *result = NULL;
    struct keys keys = {0};
    struct buffers buffers = {0};
    struct config config = {.held_n = 0};

    for (Py_ssize_t i = 1; values && i < n; i++)
        values[i - 1] = PyTuple_GetItem(args, i);
    if (!values)
        PyErr_NoMemory();
    else if (n < 1)
        PyErr_Format(PyExc_TypeError, "%s() missing required argument 'key'", name);
    else if (parts_config(name, kw, &object) && keys_take_one(PyTuple_GetItem(args, 0), "key", &keys) &&
             config_take(object, "config", &config) && buffers_take(values, (size_t)n - 1, "parts", true, &buffers))
        result = PyLong_FromLong(
            total(&buffers) ? put_spans(self, keys.key, buffers.span, buffers.n, &config, flags) : COMPAT_OK);
    buffers_fini(&buffers);
    config_fini(&config);
    keys_fini(&keys);
    free(values);
    return result;
}

static PyObject *put_parts(PyObject *self, PyObject *args, PyObject *kw)
{
    return parts(self, args, kw, "put_parts", 0);
}

static PyObject *upsert_parts(PyObject *self, PyObject *args, PyObject *kw)
{
    return parts(self, args, kw, "upsert_parts", COMPAT_UPSERT);
}

static int put_many(
    PyObject *self, const struct keys *keys, const struct buffers *buffers, const struct config *config, unsigned flags)
{
    struct compat_put *puts = calloc(keys->n + 1, sizeof(*puts));
    int error = config_error(config, keys->n);

    if (!puts)
        return COMPAT_INTERNAL;
    for (size_t i = 0; i < keys->n; i++)
        puts[i] =
            (struct compat_put){.key = keys->key[i], .spans = &buffers->span[i], .nspans = buffers->span[i].len > 0};
    if (!error)
        WITHOUT_GIL(error = compat_put(client_of(self), puts, keys->n, &config->c, flags | COMPAT_BYTES));
    free(puts);
    return error;
}

static PyObject *put_lists(PyObject *self, PyObject *args, PyObject *kw, const char *format, unsigned flags)
{
    static const char *const names[] = {"keys", "values", "config", NULL};
    PyObject *sequence, *list, *object = NULL, *values = NULL, *result = NULL, **items = NULL;
    struct keys keys = {0};
    struct buffers buffers = {0};
    struct config config = {.held_n = 0};
    bool ok = arguments(args, kw, format, names, &sequence, &list, &object) && keys_take(sequence, "keys", &keys) &&
              config_take(object, "config", &config) && (values = sequence_take(list, "values")) != NULL;
    size_t n = ok ? (size_t)PyTuple_Size(values) : 0;

    if (ok)
        items = calloc(n + 1, sizeof(*items));
    for (size_t i = 0; items && i < n; i++)
        items[i] = PyTuple_GetItem(values, (Py_ssize_t)i);
    if (ok && !items)
        PyErr_NoMemory();
    else if (ok && buffers_take(items, n, "values", false, &buffers))
        result = PyLong_FromLong(n == keys.n ? put_many(self, &keys, &buffers, &config, flags) : COMPAT_INVALID_PARAMS);
    buffers_fini(&buffers);
    free(items);
    Py_XDECREF(values);
    config_fini(&config);
    keys_fini(&keys);
    return result;
}

static PyObject *put_batch(PyObject *self, PyObject *args, PyObject *kw)
{
    return put_lists(self, args, kw, "OO|O:put_batch", 0);
}

static PyObject *upsert_batch(PyObject *self, PyObject *args, PyObject *kw)
{
    return put_lists(self, args, kw, "OO|O:upsert_batch", COMPAT_UPSERT);
}

/* ---- get ---- */

/* One try with that much room: at `few` when it is enough, else in a bytes object. */
static PyObject *get_try(struct compat_client *client, const struct compat_key *key, char few[HINT_MIN], uint64_t room,
    struct compat_get *one)
{
    PyObject *bytes = room > HINT_MIN ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room) : NULL;
    struct mc_span span = {bytes ? PyBytes_AsString(bytes) : few, bytes ? room : HINT_MIN};

    if (room > HINT_MIN && !bytes)
        return NULL;
    *one = (struct compat_get){.key = *key, .spans = &span, .nspans = 1};
    WITHOUT_GIL(compat_get(client, one, 1));
    if (bytes && one->result == (int64_t)room)
        return bytes; /* the size was guessed right: nothing is copied */
    PyObject *right = PyBytes_FromStringAndSize(span.addr, one->result > 0 ? (Py_ssize_t)one->result : 0);
    Py_XDECREF(bytes);
    return right;
}

/* Room is made for an object as large as the last one; when it is larger, once more. */
static PyObject *get(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"key", NULL};
    struct store_object *store = (struct store_object *)self;
    uint64_t room = atomic_load_explicit(&store->hint, memory_order_relaxed); /* only a guess */
    struct keys keys = {0};
    PyObject *key, *bytes = NULL;
    struct compat_get one = {.result = COMPAT_INTERNAL};
    char few[HINT_MIN];

    if (!arguments(args, kw, "O:get", names, &key) || !keys_take_one(key, "key", &keys))
        return NULL;
    for (int i = 0; i < GROWN; i++) {
        Py_XDECREF(bytes);
        bytes = get_try(store->client, &keys.one, few, room, &one);
        if (!bytes || one.result >= 0 || one.length <= room)
            break;
        room = one.length;
    }
    keys_fini(&keys);
    if (one.result > 0)
        atomic_store_explicit(
            &store->hint, (uint64_t)one.result < HINT_MAX ? (uint64_t)one.result : HINT_MAX, memory_order_relaxed);
    return bytes;
}

/* Make room for each of `keys` by what exists says, with `make`, and read into it. The list has NULL where nothing was found. */
typedef PyObject *make_fn(uint64_t size);
typedef void *place_fn(PyObject *object);

struct found {
    PyObject **object; /* NULL: not there */
    struct compat_get *get;
    struct mc_span *span;
    int64_t *size;
    size_t n;
};

static void found_fini(struct found *found)
{
    for (size_t i = 0; found->object && i < found->n; i++)
        Py_XDECREF(found->object[i]);
    free(found->object);
    free(found->get);
    free(found->span);
    free(found->size);
}

static bool find(PyObject *self, const struct keys *keys, make_fn *make, place_fn *place, struct found *out)
{
    size_t n = keys->n, wanted = 0;

    *out = (struct found){.object = calloc(n + 1, sizeof(*out->object)),
        .get = calloc(n + 1, sizeof(*out->get)),
        .span = calloc(n + 1, sizeof(*out->span)),
        .size = calloc(n + 1, sizeof(*out->size)),
        .n = n};
    if (!out->object || !out->get || !out->span || !out->size) {
        PyErr_NoMemory();
        return false;
    }
    WITHOUT_GIL(compat_exists(client_of(self), keys->key, n, out->size));
    for (size_t i = 0; i < n; i++) {
        if (out->size[i] < 0)
            continue;
        out->object[i] = make((uint64_t)out->size[i]);
        if (!out->object[i])
            return false;
        out->span[wanted] = (struct mc_span){place(out->object[i]), (uint64_t)out->size[i]};
        out->get[wanted] =
            (struct compat_get){.key = keys->key[i], .spans = &out->span[wanted], .nspans = out->size[i] > 0};
        wanted++;
    }
    WITHOUT_GIL(compat_get(client_of(self), out->get, wanted));
    for (size_t i = 0, at = 0; i < n; i++) {
        if (!out->object[i])
            continue;
        if (out->get[at++].result != out->size[i]) /* gone meanwhile, or replaced by one of another size */
            Py_CLEAR(out->object[i]);
    }
    return true;
}

/* A list of what was found, with `miss` in the other places. Takes the objects. */
static PyObject *found_list(struct found *found, PyObject *miss)
{
    PyObject *list = PyList_New((Py_ssize_t)found->n);

    for (size_t i = 0; list && i < found->n; i++) {
        PyObject *item = found->object[i] ? found->object[i] : miss;

        Py_INCREF(item);
        if (PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *bytes_new(uint64_t size)
{
    return PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
}

static void *bytes_place(PyObject *bytes)
{
    return PyBytes_AsString(bytes);
}

static PyObject *get_list(
    PyObject *self, PyObject *args, PyObject *kw, const char *format, make_fn *make, place_fn *place, PyObject *miss)
{
    static const char *const names[] = {"keys", NULL};
    struct keys keys = {0};
    struct found found = {0};
    PyObject *sequence, *list = NULL;

    if (miss && arguments(args, kw, format, names, &sequence) && keys_take(sequence, "keys", &keys) &&
        find(self, &keys, make, place, &found))
        list = found_list(&found, miss);
    found_fini(&found);
    keys_fini(&keys);
    return list;
}

static PyObject *get_batch(PyObject *self, PyObject *args, PyObject *kw)
{
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *list = get_list(self, args, kw, "O:get_batch", bytes_new, bytes_place, empty);

    Py_XDECREF(empty);
    return list;
}

static PyObject *batch_get_buffer(PyObject *self, PyObject *args, PyObject *kw)
{
    return get_list(self, args, kw, "O:batch_get_buffer", handle_new, handle_data, Py_None);
}

static PyObject *get_buffer(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"key", NULL};
    struct keys keys = {0};
    struct found found = {0};
    PyObject *key, *result = NULL;

    if (arguments(args, kw, "O:get_buffer", names, &key) && keys_take_one(key, "key", &keys) &&
        find(self, &keys, handle_new, handle_data, &found)) {
        result = found.object[0] ? found.object[0] : Py_None;
        Py_INCREF(result);
    }
    found_fini(&found);
    keys_fini(&keys);
    return result;
}

#define CONFIG "config: ReplicateConfig. "

PyMethodDef store_bytes_methods[] = {
    {METHOD(put), DOC("put", "key, value, config=None", "int",
                      CONFIG "0, also when the key is there already, whose bytes stay; or a negative number.")},
    {METHOD(put_parts), DOC("put_parts", "key, *parts, config=None", "int", CONFIG "One value of several buffers.")},
    {METHOD(put_batch), DOC("put_batch", "keys, values, config=None", "int", CONFIG "0, or the first failure.")},
    {METHOD(upsert), DOC("upsert", "key, value, config=None", "int", CONFIG "As put(), but replaces what is there.")},
    {METHOD(upsert_parts),
        DOC("upsert_parts", "key, *parts, config=None", "int", CONFIG "As put_parts(), but replaces.")},
    {METHOD(upsert_batch),
        DOC("upsert_batch", "keys, values, config=None", "int", CONFIG "As put_batch(), but replaces.")},
    {METHOD(get), DOC("get", "key", "bytes", "b'' when it is not there.")},
    {METHOD(get_batch), DOC("get_batch", "keys", "list[bytes]", "b'' for what is not there.")},
    {METHOD(get_buffer), DOC("get_buffer", "key", "BufferHandle | None", "None when it is not there.")},
    {METHOD(batch_get_buffer),
        DOC("batch_get_buffer", "keys", "list[BufferHandle | None]", "None for what is not there.")},
    {NULL, NULL, 0, NULL},
};
