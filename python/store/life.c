/* life.c - setup and close, probes, removal, replicas of MooncakeDistributedStore. */
#include <stdlib.h>
#include <string.h>

#include "compat/program/flags.h"
#include "store.h"

/* ---- set up ---- */

/* setup() of one dict: values of any type, as their str(). */
struct words {
    PyObject *held[16];
    size_t n;
};

static const char *word(PyObject *dict, const char *name, const char *fallback, struct words *words)
{
    PyObject *value = PyDict_GetItemString(dict, name), *text;

    if (!value)
        return fallback;
    text = PyObject_Str(value);
    if (!text)
        return NULL;
    words->held[words->n++] = text;
    return PyUnicode_AsUTF8AndSize(text, NULL);
}

/* "16777216", "16MB", "4 GB": 0 or at least 1 KB. */
static bool size_of(const char *text, uint64_t *out)
{
    return flag_size_of(text, out) && (*out == 0 || *out >= 1024);
}

static bool is_true(const char *text)
{
    return strcmp(text, "1") == 0 || strcmp(text, "True") == 0 || strcmp(text, "true") == 0;
}

static PyObject *set_up(PyObject *self, const struct compat_setup *setup)
{
    int result;

    WITHOUT_GIL(result = compat_client_setup(client_of(self), setup));
    return PyLong_FromLong(result);
}

/* Named, so that nobody believes to have what is not there. */
static bool refuse(bool wanted, const char *what)
{
    if (wanted)
        PyErr_Format(PyExc_NotImplementedError, "setup(): %s is not there yet", what);
    return wanted;
}

static PyObject *setup_of_dict(PyObject *self, PyObject *dict)
{
    struct words words = {.n = 0};
    struct compat_setup setup = {0};
    const char *global, *local, *ssd, *http, *ipc;
    PyObject *result = NULL;

    setup.local_hostname = word(dict, "local_hostname", "", &words);
    setup.metadata_server = word(dict, "metadata_server", "", &words);
    global = word(dict, "global_segment_size", "16777216", &words);
    local = word(dict, "local_buffer_size", "16777216", &words);
    setup.protocol = word(dict, "protocol", "tcp", &words);
    /* LMCache hands its configuration on as it stands, with the names of the configuration file. */
    setup.devices = word(dict, "rdma_devices", word(dict, "device_name", "", &words), &words);
    setup.master =
        word(dict, "master_server_addr", word(dict, "master_server_address", "127.0.0.1:50051", &words), &words);
    setup.tenant = word(dict, "tenant_id", "default", &words);
    ssd = word(dict, "enable_ssd_offload", "False", &words);
    http = word(dict, "enable_client_http_server", "False", &words);
    ipc = word(dict, "ipc_socket_path", "", &words);
    if (!PyErr_Occurred() && !refuse(is_true(ssd), "enable_ssd_offload") &&
        !refuse(is_true(http), "enable_client_http_server") && !refuse(*ipc != '\0', "ipc_socket_path")) {
        if (!size_of(global, &setup.global_segment_size) || !size_of(local, &setup.local_buffer_size))
            result = PyLong_FromLong(COMPAT_INVALID_PARAMS);
        else
            result = set_up(self, &setup);
    }
    while (words.n > 0)
        Py_DECREF(words.held[--words.n]);
    return result;
}

static PyObject *setup(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"local_hostname", "metadata_server", "global_segment_size", "local_buffer_size",
        "protocol", "rdma_devices", "master_server_addr", "engine", "enable_ssd_offload", "ssd_offload_path",
        "tenant_id", "enable_client_http_server", "client_http_port", NULL};
    struct store_object *store = (struct store_object *)self;
    struct compat_setup setup = {.tenant = "default"};
    PyObject *global, *local, *engine = Py_None, *old;
    const char *ssd_path = "";
    int ssd = 0, http = 0, http_port = 9300;

    if (PyTuple_Size(args) == 1 && (!kw || PyDict_Size(kw) == 0) && PyDict_Check(PyTuple_GetItem(args, 0)))
        return setup_of_dict(self, PyTuple_GetItem(args, 0));
    if (!arguments(args, kw, "ssOOsss|Opsspi:setup", names, &setup.local_hostname, &setup.metadata_server, &global,
            &local, &setup.protocol, &setup.devices, &setup.master, &engine, &ssd, &ssd_path, &setup.tenant, &http,
            &http_port))
        return NULL;
    if (!number_take(global, "global_segment_size", &setup.global_segment_size) ||
        !number_take(local, "local_buffer_size", &setup.local_buffer_size))
        return NULL;
    if (refuse(ssd, "enable_ssd_offload") || refuse(http, "enable_client_http_server"))
        return NULL;
    setup.name_only = engine != Py_None; /* callers name the store after the engine */
    Py_INCREF(engine);
    old = store->engine;
    store->engine = engine;
    Py_XDECREF(old);
    return set_up(self, &setup);
}

static PyObject *init_all(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"protocol", "device_name", "mount_segment_size", NULL};
    struct compat_setup setup = {.local_hostname = "localhost:12345",
        .metadata_server = "127.0.0.1:2379",
        .global_segment_size = 16 << 20,
        .local_buffer_size = 16 << 20,
        .master = "127.0.0.1:50051"};
    PyObject *size = NULL;

    if (!arguments(args, kw, "ss|O:init_all", names, &setup.protocol, &setup.devices, &size))
        return NULL;
    if (size && !number_take(size, "mount_segment_size", &setup.global_segment_size))
        return NULL;
    return set_up(self, &setup);
}

static PyObject *setup_dummy(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"mem_pool_size", "local_buffer_size", "server_address", NULL};
    PyObject *pool, *local;
    uint64_t pool_size, local_size;
    const char *server;
    int result;

    if (!arguments(args, kw, "OOs:setup_dummy", names, &pool, &local, &server) ||
        !number_take(pool, "mem_pool_size", &pool_size) || !number_take(local, "local_buffer_size", &local_size))
        return NULL;
    WITHOUT_GIL(result = compat_client_setup_dummy(client_of(self), pool_size, local_size, server));
    return PyLong_FromLong(result);
}

static PyObject *alloc_from_mem_pool(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"size", NULL};
    PyObject *object;
    uint64_t size;

    if (!arguments(args, kw, "O:alloc_from_mem_pool", names, &object) || !number_take(object, "size", &size))
        return NULL;
    return PyLong_FromVoidPtr(compat_pool_alloc(client_of(self), size));
}

/* `close` is a function of unistd.h, `remove` one of stdio.h. */
static PyObject *close_store(PyObject *self, PyObject *none)
{
    int result;

    WITHOUT_GIL(result = compat_client_close(client_of(self)));
    return PyLong_FromLong(result);
}

static PyObject *health_check(PyObject *self, PyObject *none)
{
    int result;

    WITHOUT_GIL(result = compat_client_health(client_of(self)));
    return PyLong_FromLong(result);
}

static PyObject *get_hostname(PyObject *self, PyObject *none)
{
    char name[COMPAT_HOST_MAX];

    WITHOUT_GIL(compat_client_hostname(client_of(self), name));
    return PyUnicode_FromString(name);
}

/* ---- is it there ---- */

static int64_t *exists(PyObject *self, const struct keys *keys)
{
    int64_t *sizes = malloc((keys->n + 1) * sizeof(*sizes));

    if (!sizes) {
        PyErr_NoMemory();
        return NULL;
    }
    WITHOUT_GIL(compat_exists(client_of(self), keys->key, keys->n, sizes));
    return sizes;
}

static int64_t *exists_one(PyObject *self, PyObject *args, PyObject *kw, const char *format)
{
    static const char *const names[] = {"key", NULL};
    struct keys keys = {0};
    PyObject *key;
    int64_t *sizes = NULL;

    if (arguments(args, kw, format, names, &key) && keys_take_one(key, "key", &keys))
        sizes = exists(self, &keys);
    keys_fini(&keys);
    return sizes;
}

static PyObject *is_exist(PyObject *self, PyObject *args, PyObject *kw)
{
    int64_t *sizes = exists_one(self, args, kw, "O:is_exist"), size = sizes ? *sizes : 0;

    if (!sizes)
        return NULL;
    free(sizes);
    return PyLong_FromLong(size >= 0 ? 1 : size == COMPAT_NOT_FOUND ? 0 : (long)size);
}

static PyObject *get_size(PyObject *self, PyObject *args, PyObject *kw)
{
    int64_t *sizes = exists_one(self, args, kw, "O:get_size"), size = sizes ? *sizes : 0;

    if (!sizes)
        return NULL;
    free(sizes);
    return PyLong_FromLongLong(size);
}

static PyObject *batch_is_exist(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", NULL};
    struct keys keys = {0};
    PyObject *sequence, *list = NULL;
    int64_t *sizes = NULL;

    if (arguments(args, kw, "O:batch_is_exist", names, &sequence) && keys_take(sequence, "keys", &keys))
        sizes = exists(self, &keys);
    if (sizes)
        list = PyList_New((Py_ssize_t)keys.n);
    for (size_t i = 0; list && i < keys.n; i++) {
        PyObject *item = PyLong_FromLong(sizes[i] >= 0 ? 1 : sizes[i] == COMPAT_NOT_FOUND ? 0 : -1);

        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(list);
    }
    free(sizes);
    keys_fini(&keys);
    return list;
}

/* ---- removal ---- */

static int *removed(PyObject *self, const struct keys *keys, const char *segment, bool force)
{
    int *results = malloc((keys->n + 1) * sizeof(*results));

    if (!results) {
        PyErr_NoMemory();
        return NULL;
    }
    WITHOUT_GIL(compat_remove(client_of(self), keys->key, keys->n, segment, force, results));
    return results;
}

static PyObject *remove_one(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"key", "force", NULL};
    struct keys keys = {0};
    PyObject *key, *result = NULL;
    int force = 0, *results = NULL;

    if (arguments(args, kw, "O|p:remove", names, &key, &force) && keys_take_one(key, "key", &keys))
        results = removed(self, &keys, NULL, force);
    if (results)
        result = PyLong_FromLong(*results);
    free(results);
    keys_fini(&keys);
    return result;
}

static PyObject *batch_remove(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", "force", NULL};
    struct keys keys = {0};
    PyObject *sequence, *list = NULL;
    int force = 0, *results = NULL;

    if (arguments(args, kw, "O|p:batch_remove", names, &sequence, &force) && keys_take(sequence, "keys", &keys))
        results = removed(self, &keys, NULL, force);
    if (results)
        list = list_of_ints(results, keys.n);
    free(results);
    keys_fini(&keys);
    return list;
}

static PyObject *remove_by_regex(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"regex_pattern", "force", NULL};
    struct keys pattern = {0};
    PyObject *text, *result = NULL;
    int force = 0;
    int64_t gone;

    if (arguments(args, kw, "O|p:remove_by_regex", names, &text, &force) &&
        keys_take_one(text, "regex_pattern", &pattern)) {
        WITHOUT_GIL(gone = compat_remove_matching(client_of(self), pattern.one.name, pattern.one.len, force));
        result = PyLong_FromLongLong(gone);
    }
    keys_fini(&pattern);
    return result;
}

static PyObject *remove_all(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"force", NULL};
    int force = 0;
    int64_t gone;

    if (!arguments(args, kw, "|p:remove_all", names, &force))
        return NULL;
    WITHOUT_GIL(gone = compat_remove_matching(client_of(self), NULL, 0, force));
    return PyLong_FromLongLong(gone);
}

/* ---- replicas ---- */

/* A list of ReplicaDescriptor, empty when there is none. */
static PyObject *descriptors(PyObject *self, const struct compat_key *key)
{
    struct compat_replica rows[MC_REPLICAS_MAX];
    uint32_t n = MC_REPLICAS_MAX;
    PyObject *list;
    int64_t size;

    WITHOUT_GIL(compat_exists(client_of(self), key, 1, &size)); /* who looks is promised what he sees */
    WITHOUT_GIL(compat_replicas(client_of(self), key, rows, &n));
    list = PyList_New(0);
    for (uint32_t i = 0; list && i < n; i++) {
        PyObject *row = PyObject_CallFunction(type_named("ReplicaDescriptor"), "sKK", rows[i].segment,
            (unsigned long long)rows[i].address, (unsigned long long)rows[i].size);

        if (!row || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

static PyObject *get_replica_desc(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"key", NULL};
    struct keys keys = {0};
    PyObject *key, *list = NULL;

    if (arguments(args, kw, "O:get_replica_desc", names, &key) && keys_take_one(key, "key", &keys))
        list = descriptors(self, keys.key);
    keys_fini(&keys);
    return list;
}

static PyObject *batch_get_replica_desc(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", NULL};
    struct keys keys = {0};
    PyObject *sequence, *dict = NULL;

    if (arguments(args, kw, "O:batch_get_replica_desc", names, &sequence) && keys_take(sequence, "keys", &keys))
        dict = PyDict_New();
    for (size_t i = 0; dict && i < keys.n; i++) {
        PyObject *list = descriptors(self, &keys.key[i]);

        if (!list ||
            (PyList_Size(list) > 0 && PyDict_SetItem(dict, PyTuple_GetItem(keys.held, (Py_ssize_t)i), list) < 0))
            Py_CLEAR(dict);
        Py_XDECREF(list);
    }
    keys_fini(&keys);
    return dict;
}

static PyObject *batch_replica_clear(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", "segment_name", NULL};
    struct keys keys = {0};
    PyObject *sequence, *list = NULL;
    const char *segment = "";
    int *gone = NULL;

    if (arguments(args, kw, "O|s:batch_replica_clear", names, &sequence, &segment) &&
        keys_take(sequence, "keys", &keys)) {
        gone = removed(self, &keys, *segment ? segment : NULL, false);
        list = gone ? PyList_New(0) : NULL;
    }
    for (size_t i = 0; list && i < keys.n; i++)
        if (gone[i] == COMPAT_OK && PyList_Append(list, PyTuple_GetItem(keys.held, (Py_ssize_t)i)) < 0)
            Py_CLEAR(list);
    free(gone);
    keys_fini(&keys);
    return list;
}

#define SETUP_ARGS                                                                                                     \
    "local_hostname, metadata_server, global_segment_size, local_buffer_size, protocol, rdma_devices, "                \
    "master_server_addr, engine=None, enable_ssd_offload=False, ssd_offload_path='', tenant_id='default', "            \
    "enable_client_http_server=False, client_http_port=9300"

PyMethodDef store_life_methods[] = {
    {METHOD(setup),
        DOC("setup", SETUP_ARGS, "int",
            "setup(self, config: dict) -> int\n\nConnect to the master; with global_segment_size > 0 this process "
            "gives that much memory to the pool. 0, or a negative number.")},
    {METHOD(setup_dummy), DOC("setup_dummy", "mem_pool_size, local_buffer_size, server_address", "int",
                              "Connect as a client without a segment, beside the mooncake_client at server_address.")},
    {METHOD(alloc_from_mem_pool),
        DOC("alloc_from_mem_pool", "size", "int", "Address in the pool of setup_dummy(); 0: no room.")},
    {METHOD(init_all), DOC("init_all", "protocol, device_name, mount_segment_size=16777216", "int",
                           "setup() as localhost:12345 with a master at 127.0.0.1:50051.")},
    {"close", (PyCFunction)close_store, METH_NOARGS,
        DOC0("close", "int", "Leave. Calls of other threads return; what lay in this process's segment is gone.")},
    {METHOD0(health_check),
        DOC0("health_check", "int", "0 well, 1 not set up or closed, 2 the master does not answer.")},
    {METHOD0(get_hostname), DOC0("get_hostname", "str", "'host:port', the name of this client's segment.")},
    {METHOD(is_exist),
        DOC("is_exist", "key", "int", "1, 0, or a negative number. What is found is promised for the lease.")},
    {METHOD(batch_is_exist), DOC("batch_is_exist", "keys", "list[int]", "1, 0 or -1 for each.")},
    {METHOD(get_size), DOC("get_size", "key", "int", "Bytes, or a negative number (-704: not there).")},
    {"remove", (PyCFunction)(void (*)(void))remove_one, METH_VARARGS | METH_KEYWORDS,
        DOC("remove", "key, force=False", "int", "0, -704 not there, -706 promised to somebody (force does not ask).")},
    {METHOD(batch_remove), DOC("batch_remove", "keys, force=False", "list[int]", "As remove(), for each.")},
    {METHOD(remove_by_regex), DOC("remove_by_regex", "regex_pattern, force=False", "int",
                                  "How many keys in which the pattern is found were removed. Linear time.")},
    {METHOD(remove_all), DOC("remove_all", "force=False", "int", "How many were removed.")},
    {METHOD(get_replica_desc), DOC("get_replica_desc", "key", "list[ReplicaDescriptor]", "[] when it is not there.")},
    {METHOD(batch_get_replica_desc),
        DOC("batch_get_replica_desc", "keys", "dict[str, list[ReplicaDescriptor]]", "Those that are there.")},
    {METHOD(batch_replica_clear),
        DOC("batch_replica_clear", "keys, segment_name=''", "list[str]",
            "Remove what nobody was promised; those that went. With a segment: only what lies there alone.")},
    {NULL, NULL, 0, NULL},
};
