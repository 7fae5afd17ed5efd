/* missing.c - methods of the existing class that are not there yet: each is found by hasattr(), says so in its __doc__, and raises
 * NotImplementedError that names it. docs/compatibility.md has the list with reasons. */
#include "store.h"

#define MISSING_NAMES(X)                                                                                               \
    X(create_copy_task, "copying by the master")                                                                       \
    X(create_move_task, "moving by the master")                                                                        \
    X(query_task, "copying and moving by the master")                                                                  \
    X(unmount_local_disk_segment, "copies on disk")                                                                    \
    X(get_offload_rpc_read_count, "copies on disk")                                                                    \
    X(put_tensor, "tensors")                                                                                           \
    X(get_tensor, "tensors")                                                                                           \
    X(batch_put_tensor, "tensors")                                                                                     \
    X(batch_get_tensor, "tensors")                                                                                     \
    X(pub_tensor, "tensors")                                                                                           \
    X(batch_pub_tensor, "tensors")                                                                                     \
    X(upsert_tensor, "tensors")                                                                                        \
    X(batch_upsert_tensor, "tensors")                                                                                  \
    X(upsert_pub_tensor, "tensors")                                                                                    \
    X(batch_upsert_pub_tensor, "tensors")                                                                              \
    X(get_tensor_into, "tensors")                                                                                      \
    X(batch_get_tensor_into, "tensors")                                                                                \
    X(put_tensor_from, "tensors")                                                                                      \
    X(batch_put_tensor_from, "tensors")                                                                                \
    X(upsert_tensor_from, "tensors")                                                                                   \
    X(batch_upsert_tensor_from, "tensors")                                                                             \
    X(get_tensor_into_cuda, "tensors and device memory")                                                               \
    X(batch_get_tensor_into_cuda, "tensors and device memory")                                                         \
    X(put_tensor_with_tp, "tensors")                                                                                   \
    X(get_tensor_with_tp, "tensors")                                                                                   \
    X(batch_put_tensor_with_tp, "tensors")                                                                             \
    X(batch_get_tensor_with_tp, "tensors")                                                                             \
    X(pub_tensor_with_tp, "tensors")                                                                                   \
    X(batch_pub_tensor_with_tp, "tensors")                                                                             \
    X(put_tensor_with_parallelism, "tensors")                                                                          \
    X(get_tensor_with_parallelism, "tensors")                                                                          \
    X(batch_put_tensor_with_parallelism, "tensors")                                                                    \
    X(batch_get_tensor_with_parallelism, "tensors")                                                                    \
    X(batch_get_tensor_with_parallelism_into, "tensors")                                                               \
    X(batch_get_tensor_with_tp_into, "tensors")                                                                        \
    X(batch_put_tensor_with_parallelism_from, "tensors")                                                               \
    X(batch_put_tensor_with_tp_from, "tensors")                                                                        \
    X(batch_upsert_tensor_with_parallelism, "tensors")                                                                 \
    X(batch_upsert_tensor_with_parallelism_from, "tensors")                                                            \
    X(get_tensor_with_parallelism_into, "tensors")                                                                     \
    X(get_tensor_with_tp_into, "tensors")                                                                              \
    X(put_tensor_with_parallelism_from, "tensors")                                                                     \
    X(put_tensor_with_tp_from, "tensors")                                                                              \
    X(upsert_tensor_with_parallelism, "tensors")                                                                       \
    X(upsert_tensor_with_parallelism_from, "tensors")                                                                  \
    X(save_tensor_to_safetensor, "tensors")                                                                            \
    X(load_tensor_from_safetensor, "tensors")

#define DEFINE(name, what)                                                                                             \
    static PyObject *name(PyObject *self, PyObject *args, PyObject *kw)                                                \
    {                                                                                                                  \
        return PyErr_Format(                                                                                           \
            PyExc_NotImplementedError, "MooncakeDistributedStore." #name "(): " what ": not there yet");               \
    }
MISSING_NAMES(DEFINE)

#define ROW(name, what)                                                                                                \
    {METHOD(name), DOC(#name, "*args, **kwargs", "NoReturn", "Not there yet (" what "): raises NotImplementedError.")},

PyMethodDef store_missing_methods[] = {MISSING_NAMES(ROW){NULL, NULL, 0, NULL}};
