/* buffer.c - memory as Python objects: BufferHandle (what get_buffer() found), the window of a BufferPool's lease, and
 * MooncakeHostMemAllocator.
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

/* ---- _Window: memory of somebody else as a buffer, counting who looks at it ---- */

struct window_object {
    PyObject ob_base;
    void *data;
    PyObject *owner; /* of the memory; kept as long as anybody may look */
    uint64_t size;
    Py_ssize_t views;
    bool closed;
};

static PyObject *window_new(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"ptr", "size", "owner", NULL};
    PyObject *at, *length, *owner;
    struct window_object *window;
    uint64_t address, bytes;

    if (!arguments(args, kw, "OOO:_Window", names, &at, &length, &owner) || !number_take(at, "ptr", &address) ||
        !number_take(length, "size", &bytes))
        return NULL;
    window = (struct window_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!window)
        return NULL;
    Py_INCREF(owner);
    window->owner = owner;
    window->data = (void *)(uintptr_t)address;
    window->size = bytes;
    return (PyObject *)window;
}

static void window_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(((struct window_object *)self)->owner);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int window_buffer(PyObject *self, Py_buffer *view, int flags)
{
    struct window_object *window = (struct window_object *)self;
    int result = -1;

    if (window->closed)
        PyErr_SetString(PyExc_BufferError, "the window is closed");
    else
        result = PyBuffer_FillInfo(view, self, window->data, (Py_ssize_t)window->size, 0, flags);
    window->views += result == 0;
    return result;
}

static void window_release(PyObject *self, Py_buffer *view)
{
    ((struct window_object *)self)->views--;
}

static PyObject *window_close(PyObject *self, PyObject *none)
{
    struct window_object *window = (struct window_object *)self;

    window->closed |= window->views == 0;
    return PyBool_FromLong(window->closed);
}

static PyMethodDef window_methods[] = {
    {"close", (PyCFunction)window_close, METH_NOARGS,
        DOC0("close", "bool", "No view any more. False: somebody looks.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot window_slots[] = {
    {Py_tp_doc, TEXT("Memory of somebody else as a buffer.")},
    {Py_tp_new, window_new},
    {Py_tp_dealloc, window_dealloc},
    {Py_tp_methods, window_methods},
    {Py_bf_getbuffer, window_buffer},
    {Py_bf_releasebuffer, window_release},
    {0, NULL},
};

PyType_Spec window_spec = {
    .name = "mooncake.store._Window",
    .basicsize = sizeof(struct window_object),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = window_slots,
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
