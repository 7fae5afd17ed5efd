/* engine_life.c - TransferEngine: making, initialising, memory, peers, and what this build does not have. */
#include "python/engine_impl.h"

#include <stdlib.h>
#include <string.h>

/* ---- the handle ---- */

static struct handle *handle_new(void)
{
    struct handle *handle = PyMem_Calloc(1, sizeof(*handle));

    if (handle)
        handle->refs = 1;
    else
        PyErr_NoMemory();
    return handle;
}

static void handle_drop(struct handle *handle)
{
    if (!handle || --handle->refs)
        return;
    if (handle->engine) {
        Py_BEGIN_ALLOW_THREADS ce_destroy(handle->engine);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(handle);
}

/* Codes of the existing engine, for calls that return more than 0 and -1. */
static long code_of(enum mc_status status)
{
    switch (status) {
    case MC_OK: return 0;
    case MC_ENOENT: return -3; /* address not registered */
    case MC_ENOMEM: return -302;
    default: return -1;
    }
}

/* ---- TransferEngine: life ---- */

PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct engine_object *self = (struct engine_object *)alloc(type, 0);

    if (!self)
        return NULL;
    self->handle = handle_new();
    if (!self->handle) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

void engine_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    handle_drop(((struct engine_object *)self)->handle);
    release(self);
    Py_DECREF(type);
}

static PyObject *start(PyObject *self, const struct ce_opts *opts)
{
    struct handle *handle = ((struct engine_object *)self)->handle;
    struct ce_engine *engine = NULL;
    enum mc_status status;

    if (handle->engine)
        return PyLong_FromLong(-1);
    Py_BEGIN_ALLOW_THREADS status = ce_create(opts, &engine);
    Py_END_ALLOW_THREADS if (status == MC_OK && handle->engine)
    { /* another thread was faster */
        Py_BEGIN_ALLOW_THREADS ce_destroy(engine);
        Py_END_ALLOW_THREADS return PyLong_FromLong(-1);
    }
    if (status == MC_OK)
        handle->engine = engine;
    return zero_or_minus(status);
}

PyObject *engine_initialize(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"local_hostname", "metadata_server", "protocol", "device_name", NULL};
    PyObject *given[ARGS_MAX];
    struct ce_opts opts = {0};

    if (!args_bind("initialize", args, kwargs, names, 4, given) ||
        !args_text("initialize", names[0], given[0], "", &opts.host) ||
        !args_text("initialize", names[1], given[1], "", &opts.metadata) ||
        !args_text("initialize", names[2], given[2], "", &opts.protocol) ||
        !args_text("initialize", names[3], given[3], "", &opts.device))
        return NULL;
    return start(self, &opts);
}

/* The type of the service stands before its address, where the address does not say it itself. */
PyObject *engine_initialize_ext(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {
        "local_hostname", "metadata_server", "protocol", "device_name", "metadata_type", NULL};
    PyObject *given[ARGS_MAX], *whole, *out = NULL;
    struct ce_opts opts = {0};
    const char *type;

    if (!args_bind("initialize_ext", args, kwargs, names, 5, given) ||
        !args_text("initialize_ext", names[0], given[0], "", &opts.host) ||
        !args_text("initialize_ext", names[1], given[1], "", &opts.metadata) ||
        !args_text("initialize_ext", names[2], given[2], "", &opts.protocol) ||
        !args_text("initialize_ext", names[3], given[3], "", &opts.device) ||
        !args_text("initialize_ext", names[4], given[4], "", &type))
        return NULL;
    if (!*type || strcmp(opts.metadata, "P2PHANDSHAKE") == 0 || strstr(opts.metadata, "://"))
        return start(self, &opts);
    whole = PyUnicode_FromFormat("%s://%s", type, opts.metadata);
    if (whole && args_text("initialize_ext", names[1], whole, "", &opts.metadata))
        out = start(self, &opts);
    Py_XDECREF(whole);
    return out;
}

PyObject *engine_get_rpc_port(PyObject *self, PyObject *ignored)
{
    return PyLong_FromLong(engine_of(self) ? ce_port(engine_of(self)) : 0);
}

/* ---- memory ---- */

PyObject *engine_allocate_managed_buffer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"length", NULL};
    struct ce_engine *engine = engine_of(self);
    PyObject *given[ARGS_MAX];
    void *addr = NULL;
    uint64_t len;

    if (!args_bind("allocate_managed_buffer", args, kwargs, names, 1, given) ||
        !args_u64("allocate_managed_buffer", names[0], given[0], &len))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS addr = ce_managed_alloc(engine, len);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromUnsignedLongLong((uintptr_t)addr);
}

PyObject *engine_free_managed_buffer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"buffer_addr", "length", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t addr, len = 0;

    if (!args_bind("free_managed_buffer", args, kwargs, names, 1, given) ||
        !args_u64("free_managed_buffer", names[0], given[0], &addr) ||
        (given[1] && !args_u64("free_managed_buffer", names[1], given[1], &len)))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS status = ce_managed_free(engine, (void *)(uintptr_t)addr);
        Py_END_ALLOW_THREADS
    }
    return zero_or_minus(status);
}

/* location is where the memory lies ("cpu:0", "cuda:1", "*"): there is no device to choose by it. */
PyObject *engine_register_memory(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"buffer_addr", "capacity", "location", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t addr, len;
    const char *location;

    if (!args_bind("register_memory", args, kwargs, names, 2, given) ||
        !args_u64("register_memory", names[0], given[0], &addr) ||
        !args_u64("register_memory", names[1], given[1], &len) ||
        !args_text("register_memory", names[2], given[2], "*", &location))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS status = ce_register(engine, (void *)(uintptr_t)addr, len);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromLong(code_of(status));
}

PyObject *engine_unregister_memory(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"buffer_addr", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t addr;

    if (!args_bind("unregister_memory", args, kwargs, names, 1, given) ||
        !args_u64("unregister_memory", names[0], given[0], &addr))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS status = ce_unregister(engine, (void *)(uintptr_t)addr);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromLong(code_of(status));
}

static_assert(sizeof(void *) == sizeof(uint64_t), "a list of addresses is a list of numbers");

PyObject *engine_batch_register_memory(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"buffer_addresses", "capacities", "location", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t *addrs, *lens;
    const char *location;
    size_t n, m;

    if (!args_bind("batch_register_memory", args, kwargs, names, 2, given) ||
        !args_text("batch_register_memory", names[2], given[2], "*", &location) ||
        !args_u64s("batch_register_memory", names[0], given[0], &addrs, &n))
        return NULL;
    if (!args_u64s("batch_register_memory", names[1], given[1], &lens, &m)) {
        PyMem_Free(addrs);
        return NULL;
    }
    if (engine && n == m) {
        Py_BEGIN_ALLOW_THREADS status = ce_register_all(engine, (void *const *)addrs, lens, n);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(addrs);
    PyMem_Free(lens);
    return PyLong_FromLong(code_of(status));
}

PyObject *engine_batch_unregister_memory(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"buffer_addresses", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t *addrs;
    size_t n;

    if (!args_bind("batch_unregister_memory", args, kwargs, names, 1, given) ||
        !args_u64s("batch_unregister_memory", names[0], given[0], &addrs, &n))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS status = ce_unregister_all(engine, (void *const *)addrs, n);
        Py_END_ALLOW_THREADS
    }
    PyMem_Free(addrs);
    return PyLong_FromLong(code_of(status));
}

/* Into memory of this process, at an address the caller vouches for. */
PyObject *engine_write_bytes_to_buffer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"dest_address", "src_ptr", "length", NULL};
    PyObject *given[ARGS_MAX];
    uint64_t addr, len;
    Py_buffer src;
    bool fits;

    if (!args_bind("write_bytes_to_buffer", args, kwargs, names, 3, given) ||
        !args_u64("write_bytes_to_buffer", names[0], given[0], &addr) ||
        !args_u64("write_bytes_to_buffer", names[2], given[2], &len))
        return NULL;
    if (PyUnicode_Check(given[1])) {
        PyErr_SetString(PyExc_TypeError, "write_bytes_to_buffer(): argument 'src_ptr' must be bytes, not str");
        return NULL;
    }
    if (PyObject_GetBuffer(given[1], &src, PyBUF_SIMPLE) != 0)
        return NULL;
    fits = addr && len <= (uint64_t)src.len;
    if (fits) {
        Py_BEGIN_ALLOW_THREADS memcpy((void *)(uintptr_t)addr, src.buf, len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&src);
    return PyLong_FromLong(fits ? 0 : -1);
}

PyObject *engine_read_bytes_from_buffer(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"source_address", "length", NULL};
    PyObject *given[ARGS_MAX], *out;
    uint64_t addr, len;
    char *to;

    if (!args_bind("read_bytes_from_buffer", args, kwargs, names, 2, given) ||
        !args_u64("read_bytes_from_buffer", names[0], given[0], &addr) ||
        !args_u64("read_bytes_from_buffer", names[1], given[1], &len))
        return NULL;
    if (len > PY_SSIZE_T_MAX)
        return PyErr_NoMemory();
    out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    to = out ? PyBytes_AsString(out) : NULL;
    if (to && len) {
        Py_BEGIN_ALLOW_THREADS memcpy(to, (const void *)(uintptr_t)addr, len);
        Py_END_ALLOW_THREADS
    }
    return out;
}

/* ---- peers, notifications, the machine ---- */

PyObject *engine_send_probe(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"peer_server_name", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    const char *name;

    if (!args_bind("send_probe", args, kwargs, names, 1, given) ||
        !args_text("send_probe", names[0], given[0], "", &name))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS status = ce_probe(engine, name);
        Py_END_ALLOW_THREADS
    }
    return zero_or_minus(status);
}

PyObject *engine_get_first_buffer_address(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"segment_name", NULL};
    struct ce_engine *engine = engine_of(self);
    PyObject *given[ARGS_MAX];
    uint64_t addr = 0;
    const char *name;

    if (!args_bind("get_first_buffer_address", args, kwargs, names, 1, given) ||
        !args_text("get_first_buffer_address", names[0], given[0], "", &name))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS if (ce_first_address(engine, name, &addr) != MC_OK) addr = 0;
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromUnsignedLongLong(addr);
}

PyObject *engine_get_notifies(PyObject *self, PyObject *ignored)
{
    struct ce_notes notes = {0};
    PyObject *list = PyList_New(0);

    if (!list || !engine_of(self) || ce_notes_take(engine_of(self), &notes) != MC_OK)
        return list;
    for (size_t i = 0; list && i < notes.count; i++) {
        PyObject *notify = notify_of(&notes.note[i]);

        if (!notify || PyList_Append(list, notify) != 0)
            Py_CLEAR(list);
        Py_XDECREF(notify);
    }
    ce_notes_free(&notes);
    return list;
}

PyObject *engine_get_local_topology(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"device_name", NULL};
    PyObject *given[ARGS_MAX], *out;
    const char *device;
    char *text;

    if (!args_bind("get_local_topology", args, kwargs, names, 0, given) ||
        !args_text("get_local_topology", names[0], given[0], "", &device))
        return NULL;
    text = ce_topology();
    out = text ? PyUnicode_FromString(text) : PyErr_NoMemory();
    free(text);
    return out;
}

PyObject *engine_get_engine_ptr(PyObject *self, PyObject *ignored)
{
    return PyLong_FromVoidPtr(engine_of(self));
}

PyObject *engine_get_engine(PyObject *self, PyObject *ignored)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(engine_inner_type, Py_tp_alloc);
    struct engine_object *inner = (struct engine_object *)alloc(engine_inner_type, 0);

    if (!inner)
        return NULL;
    inner->handle = ((struct engine_object *)self)->handle;
    inner->handle->refs++;
    return (PyObject *)inner;
}

/* Calls that need what this build does not have say so, by name. */
static PyObject *missing(const char *call, const char *what)
{
    PyErr_Format(PyExc_NotImplementedError, "TransferEngine.%s(): there is no %s in this build", call, what);
    return NULL;
}

#define MISSING(name, what)                                                                                            \
    PyObject *engine_##name(PyObject *self, PyObject *args, PyObject *kwargs)                                          \
    {                                                                                                                  \
        return missing(#name, what);                                                                                   \
    }
MISSING(transfer_write_on_cuda, "CUDA")
MISSING(transfer_read_on_cuda, "CUDA")
MISSING(batch_transfer_write_on_cuda, "CUDA")
MISSING(batch_transfer_read_on_cuda, "CUDA")
MISSING(warmup_efa_segment, "EFA")
