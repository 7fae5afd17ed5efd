/* buffer.c - memory that Python objects own: BufferHandle (what get_buffer() found) and MooncakeHostMemAllocator.
 *
 * A handle owns its bytes and outlives the store it came from: no view of it can dangle. */
#include <stdlib.h>
#include <sys/mman.h>

#include "store.h"

enum { ALIGNMENT = 4096 };

struct handle_object {
    PyObject ob_base;
    void *data;
    uint64_t size;
};

PyObject *handle_new(uint64_t size)
{
    PyTypeObject *type = (PyTypeObject *)type_handle();
    struct handle_object *handle = (struct handle_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);

    if (!handle)
        return NULL;
    handle->size = size;
    if (posix_memalign(&handle->data, ALIGNMENT, size ? size : 1) != 0) {
        handle->data = NULL;
        Py_DECREF(handle);
        return PyErr_NoMemory();
    }
    return (PyObject *)handle;
}

void *handle_data(PyObject *handle)
{
    return ((struct handle_object *)handle)->data;
}

static void handle_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    free(((struct handle_object *)self)->data);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyObject *ptr(PyObject *self, PyObject *none)
{
    return PyLong_FromVoidPtr(((struct handle_object *)self)->data);
}

static PyObject *size(PyObject *self, PyObject *none)
{
    return PyLong_FromUnsignedLongLong(((struct handle_object *)self)->size);
}

static Py_ssize_t handle_len(PyObject *self)
{
    return (Py_ssize_t)((struct handle_object *)self)->size;
}

static int handle_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct handle_object *handle = (struct handle_object *)self;

    return PyBuffer_FillInfo(view, self, handle->data, (Py_ssize_t)handle->size, 0, flags);
}

static PyMethodDef handle_methods[] = {
    {METHOD0(ptr), DOC0("ptr", "int", "Address of the first byte.")},
    {METHOD0(size), DOC0("size", "int", "How many bytes.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, TEXT("The bytes of an object that was read: memoryview() and torch.frombuffer() take it.")},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_methods, handle_methods},
    {Py_sq_length, handle_len},
    {Py_bf_getbuffer, handle_buffer},
    {0, NULL},
};

PyType_Spec handle_spec = {
    .name = "mooncake.store.BufferHandle",
    .basicsize = sizeof(struct handle_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

/* ---- MooncakeHostMemAllocator ---- */

/* The mapping's length stands in a page of its own before what the caller gets, so that free() needs the address only. */
static PyObject *alloc(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"size", NULL};
    PyObject *object;
    uint64_t want;
    uint8_t *base;

    if (!arguments(args, kw, "O:alloc", names, &object) || !number_take(object, "size", &want))
        return NULL;
    if (want == 0 || want > (UINT64_MAX >> 1))
        return PyLong_FromLong(0);
    base = mmap(NULL, want + ALIGNMENT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return PyLong_FromLong(0);
    *(uint64_t *)(void *)base = want + ALIGNMENT;
    return PyLong_FromVoidPtr(base + ALIGNMENT);
}

static PyObject *free_memory(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"ptr", NULL};
    PyObject *object;
    uint64_t at;

    if (!arguments(args, kw, "O:free", names, &object) || !number_take(object, "ptr", &at))
        return NULL;
    if (at > ALIGNMENT) {
        uint64_t *base = (uint64_t *)(uintptr_t)(at - ALIGNMENT);

        munmap(base, *base);
    }
    Py_RETURN_NONE;
}

static PyMethodDef allocator_methods[] = {
    {METHOD(alloc), DOC("alloc", "size", "int",
                        "Address of page-aligned memory, committed when it is touched; 0 when there is none.")},
    {"free", (PyCFunction)(void (*)(void))free_memory, METH_VARARGS | METH_KEYWORDS,
        DOC("free", "ptr", "None", "Give back what alloc() gave.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot allocator_slots[] = {
    {Py_tp_doc, TEXT("Host memory for pools of KV blocks.")},
    {Py_tp_methods, allocator_methods},
    {0, NULL},
};

PyType_Spec allocator_spec = {
    .name = "mooncake.store.MooncakeHostMemAllocator",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = allocator_slots,
};
