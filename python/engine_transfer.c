/* engine_transfer.c - transfers, synchronous and not. */
#include "python/engine_impl.h"

#include <string.h>

/* ---- arguments ---- */

/* transport_hint names a transport of the existing engine: the best one is taken here, whatever it says. */
struct transfer_args {
    const char *target, *hint;
    struct ce_op *ops;
    size_t n;
    bool unequal; /* lists of unequal length: no error, but -1 */
};

static void transfer_args_drop(struct transfer_args *out)
{
    PyMem_Free(out->ops);
    out->ops = NULL;
}

static bool get_opcode(const char *call, PyObject *object, enum mc_opcode *opcode)
{
    uint64_t value;

    if (!args_u64(call, "opcode", object, &value))
        return false;
    if (value > 1) {
        PyErr_Format(
            PyExc_TypeError, "%s(): argument 'opcode' must be TransferOpcode.Read or TransferOpcode.Write", call);
        return false;
    }
    *opcode = value ? MC_WRITE : MC_READ;
    return true;
}

static bool get_one(
    const char *call, const char *const *names, PyObject **given, enum mc_opcode opcode, struct transfer_args *out)
{
    uint64_t local, remote, len;

    if (!args_u64(call, names[1], given[1], &local) || !args_u64(call, names[2], given[2], &remote) ||
        !args_u64(call, names[3], given[3], &len))
        return false;
    out->ops = PyMem_Malloc(sizeof(*out->ops));
    if (!out->ops) {
        PyErr_NoMemory();
        return false;
    }
    out->ops[0] = (struct ce_op){.opcode = opcode, .local = (void *)(uintptr_t)local, .remote = remote, .len = len};
    out->n = 1;
    return true;
}

static bool ops_of_lists(
    uint64_t *const lists[3], const size_t counts[3], enum mc_opcode opcode, struct transfer_args *out)
{
    size_t n = counts[0];

    out->unequal = counts[1] != n || counts[2] != n;
    if (out->unequal || n == 0)
        return true;
    out->ops = PyMem_Malloc(n * sizeof(*out->ops));
    if (!out->ops) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < n; i++)
        out->ops[i] = (struct ce_op){
            .opcode = opcode, .local = (void *)(uintptr_t)lists[0][i], .remote = lists[1][i], .len = lists[2][i]};
    out->n = n;
    return true;
}

static bool get_lists(
    const char *call, const char *const *names, PyObject **given, enum mc_opcode opcode, struct transfer_args *out)
{
    uint64_t *lists[3] = {NULL};
    size_t counts[3];
    bool fine = true;

    for (int i = 0; i < 3 && fine; i++)
        fine = args_u64s(call, names[i + 1], given[i + 1], &lists[i], &counts[i]);
    if (fine)
        fine = ops_of_lists(lists, counts, opcode, out);
    for (int i = 0; i < 3; i++)
        PyMem_Free(lists[i]);
    return fine;
}

static const char *const one_names[] = {
    "target_hostname", "buffer", "peer_buffer_address", "length", "transport_hint", NULL};
static const char *const many_names[] = {
    "target_hostname", "buffers", "peer_buffer_addresses", "lengths", "transport_hint", NULL};
static const char *const one_opcode_names[] = {
    "target_hostname", "buffer", "peer_buffer_address", "length", "opcode", "notify", "transport_hint", NULL};
static const char *const many_opcode_names[] = {
    "target_hostname", "buffers", "peer_buffer_addresses", "lengths", "opcode", "notify", "transport_hint", NULL};
static const char *const many_async_names[] = {
    "target_hostname", "buffers", "peer_buffer_addresses", "lengths", "opcode", "transport_hint", NULL};

/* Arguments of any of the calls below, by its names. `opcode` NULL: it is an argument. */
static bool get_args(const char *call, const char *const *names, PyObject *args, PyObject *kwargs,
    const enum mc_opcode *opcode, struct transfer_args *out, PyObject **notify)
{
    bool many = strcmp(names[1], "buffers") == 0;
    PyObject *given[ARGS_MAX];
    enum mc_opcode asked;
    int last = 0;

    *out = (struct transfer_args){0};
    while (names[last + 1])
        last++;
    if (!args_bind(call, args, kwargs, names, opcode ? 4 : 5, given) ||
        !args_text(call, names[0], given[0], "", &out->target) ||
        !args_text(call, names[last], given[last], "", &out->hint))
        return false;
    if (opcode)
        asked = *opcode;
    else if (!get_opcode(call, given[4], &asked))
        return false;
    if (notify)
        *notify = given[5];
    return many ? get_lists(call, names, given, asked, out) : get_one(call, names, given, asked, out);
}

static PyObject *run_sync(PyObject *self, struct transfer_args *ready, const struct ce_note *note)
{
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_EINVAL;

    if (engine && !ready->unequal) {
        Py_BEGIN_ALLOW_THREADS status = ce_transfer(engine, ready->target, ready->ops, ready->n, note);
        Py_END_ALLOW_THREADS
    }
    transfer_args_drop(ready);
    return zero_or_minus(status);
}

static PyObject *run_async(PyObject *self, struct transfer_args *ready)
{
    struct ce_engine *engine = engine_of(self);
    uint64_t id = 0;

    if (engine && !ready->unequal) {
        Py_BEGIN_ALLOW_THREADS id = ce_ids_start(engine, ready->target, ready->ops, ready->n);
        Py_END_ALLOW_THREADS
    }
    transfer_args_drop(ready);
    return PyLong_FromUnsignedLongLong(id);
}

static PyObject *sync_call(
    const char *call, const char *const *names, PyObject *self, PyObject *args, PyObject *kwargs, enum mc_opcode opcode)
{
    struct transfer_args ready;

    return get_args(call, names, args, kwargs, &opcode, &ready, NULL) ? run_sync(self, &ready, NULL) : NULL;
}

static PyObject *async_call(
    const char *call, const char *const *names, PyObject *self, PyObject *args, PyObject *kwargs, enum mc_opcode opcode)
{
    struct transfer_args ready;

    return get_args(call, names, args, kwargs, &opcode, &ready, NULL) ? run_async(self, &ready) : NULL;
}

static PyObject *sync_opcode_call(
    const char *call, const char *const *names, PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct transfer_args ready;
    const struct ce_note *note;
    struct note_arg arg;
    PyObject *notify, *out;

    if (!get_args(call, names, args, kwargs, NULL, &ready, &notify))
        return NULL;
    if (!note_arg_get(call, notify, &arg, &note)) {
        transfer_args_drop(&ready);
        return NULL;
    }
    out = run_sync(self, &ready, note);
    note_arg_drop(&arg);
    return out;
}

PyObject *engine_transfer_sync_write(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return sync_call("transfer_sync_write", one_names, self, args, kwargs, MC_WRITE);
}

PyObject *engine_transfer_sync_read(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return sync_call("transfer_sync_read", one_names, self, args, kwargs, MC_READ);
}

PyObject *engine_batch_transfer_sync_write(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return sync_call("batch_transfer_sync_write", many_names, self, args, kwargs, MC_WRITE);
}

PyObject *engine_batch_transfer_sync_read(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return sync_call("batch_transfer_sync_read", many_names, self, args, kwargs, MC_READ);
}

PyObject *engine_transfer_sync(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return sync_opcode_call("transfer_sync", one_opcode_names, self, args, kwargs);
}

PyObject *engine_batch_transfer_sync(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return sync_opcode_call("batch_transfer_sync", many_opcode_names, self, args, kwargs);
}

PyObject *engine_batch_transfer_async_write(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return async_call("batch_transfer_async_write", many_names, self, args, kwargs, MC_WRITE);
}

PyObject *engine_batch_transfer_async_read(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return async_call("batch_transfer_async_read", many_names, self, args, kwargs, MC_READ);
}

PyObject *engine_batch_transfer_async(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct transfer_args ready;

    return get_args("batch_transfer_async", many_async_names, args, kwargs, NULL, &ready, NULL)
               ? run_async(self, &ready)
               : NULL;
}

PyObject *engine_transfer_submit_write(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return async_call("transfer_submit_write", one_names, self, args, kwargs, MC_WRITE);
}

/* Waits for all of them, also after one has failed: then none is written to any more. */
PyObject *engine_get_batch_transfer_status(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"batch_ids", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = engine ? MC_OK : MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t *ids;
    size_t n;

    if (!args_bind("get_batch_transfer_status", args, kwargs, names, 1, given) ||
        !args_u64s("get_batch_transfer_status", names[0], given[0], &ids, &n))
        return NULL;
    Py_BEGIN_ALLOW_THREADS for (size_t i = 0; engine && i < n; i++)
    {
        enum mc_status one = ce_ids_wait(engine, ids[i]);

        status = one == MC_OK ? status : one;
    }
    Py_END_ALLOW_THREADS PyMem_Free(ids);
    return zero_or_minus(status);
}

PyObject *engine_transfer_check_status(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static const char *const names[] = {"batch_id", NULL};
    struct ce_engine *engine = engine_of(self);
    enum mc_status status = MC_ECLOSED;
    PyObject *given[ARGS_MAX];
    uint64_t id;

    if (!args_bind("transfer_check_status", args, kwargs, names, 1, given) ||
        !args_u64("transfer_check_status", names[0], given[0], &id))
        return NULL;
    if (engine) {
        Py_BEGIN_ALLOW_THREADS status = ce_ids_check(engine, id);
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromLong(status == MC_OK ? 1 : status == MC_PENDING ? 0 : status == MC_ETIMEDOUT ? -2 : -1);
}
