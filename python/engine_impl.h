/* engine_impl.h - the module mooncake.engine, shared by its files.
 *
 *     engine.c            the types' tables, with the signatures and documentation of every call
 *     engine_life.c       TransferEngine: making, initialising, memory, peers
 *     engine_transfer.c   transfers, synchronous and not
 *     engine_notify.c     TransferNotify
 *
 *     TransferEngine -- handle -- ce_engine      get_engine() gives a second owner of the handle; the last one ends the engine
 *
 * Errors are integers, as the existing package returns them and callers test them; exceptions are for arguments of the wrong shape
 * only. An engine that was never initialised, or failed to, answers -1 (0 where the number of a batch is asked for).
 *
 * Every call that may wait or copy runs without the GIL. Arguments are copied out of Python objects before that; the memory they
 * name is the caller's to keep alive.
 * Threads: with the GIL. */
#ifndef PYTHON_ENGINE_IMPL_H
#define PYTHON_ENGINE_IMPL_H

#include "python/args.h"

#include "compat/engine/ce.h"

/* Types that calls must find. One interpreter of a process uses the module. */
extern PyTypeObject *engine_inner_type, *engine_notify_type;
extern PyType_Spec engine_notify_spec;

struct handle {
    Py_ssize_t refs; /* with the GIL */
    struct ce_engine *engine;
};

struct engine_object {
    PyObject_HEAD struct handle *handle;
};

static inline struct ce_engine *engine_of(PyObject *self)
{
    return ((struct engine_object *)self)->handle->engine;
}

static inline PyObject *zero_or_minus(enum mc_status status)
{
    return PyLong_FromLong(status == MC_OK ? 0 : -1);
}

/* A notify argument as bytes; `keep` holds the objects they belong to. */
struct note_arg {
    struct ce_note note;
    PyObject *keep[2];
};

/* None or NULL: *note NULL. False: a TypeError is set. End with note_arg_drop(). */
bool note_arg_get(const char *call, PyObject *object, struct note_arg *arg, const struct ce_note **note);
void note_arg_drop(struct note_arg *arg);

/* A TransferNotify of what came. */
PyObject *notify_of(const struct ce_note *note);

PyObject *engine_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
void engine_dealloc(PyObject *self);

/* Calls, one row each: name(self, args, kwargs). */
#define ENGINE_CALLS(X)                                                                                                \
    X(initialize)                                                                                                      \
    X(initialize_ext)                                                                                                  \
    X(allocate_managed_buffer)                                                                                         \
    X(free_managed_buffer)                                                                                             \
    X(transfer_sync_write)                                                                                             \
    X(transfer_sync_read)                                                                                              \
    X(batch_transfer_sync_write)                                                                                       \
    X(batch_transfer_sync_read)                                                                                        \
    X(batch_transfer_async_write)                                                                                      \
    X(batch_transfer_async_read)                                                                                       \
    X(transfer_sync)                                                                                                   \
    X(batch_transfer_sync)                                                                                             \
    X(batch_transfer_async)                                                                                            \
    X(get_batch_transfer_status)                                                                                       \
    X(transfer_submit_write)                                                                                           \
    X(transfer_check_status)                                                                                           \
    X(write_bytes_to_buffer)                                                                                           \
    X(read_bytes_from_buffer)                                                                                          \
    X(register_memory)                                                                                                 \
    X(unregister_memory)                                                                                               \
    X(batch_register_memory)                                                                                           \
    X(batch_unregister_memory)                                                                                         \
    X(get_local_topology)                                                                                              \
    X(get_first_buffer_address)                                                                                        \
    X(send_probe)                                                                                                      \
    X(warmup_efa_segment)                                                                                              \
    X(transfer_write_on_cuda)                                                                                          \
    X(transfer_read_on_cuda)                                                                                           \
    X(batch_transfer_write_on_cuda)                                                                                    \
    X(batch_transfer_read_on_cuda)

#define X(name) PyObject *engine_##name(PyObject *self, PyObject *args, PyObject *kwargs);
ENGINE_CALLS(X)
#undef X

/* Calls without arguments. */
PyObject *engine_get_rpc_port(PyObject *self, PyObject *ignored);
PyObject *engine_get_notifies(PyObject *self, PyObject *ignored);
PyObject *engine_get_engine_ptr(PyObject *self, PyObject *ignored);
PyObject *engine_get_engine(PyObject *self, PyObject *ignored);

#endif
