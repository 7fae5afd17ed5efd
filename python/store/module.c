/* module.c - the module mooncake.store: its types, and what belongs to no object. See store.h. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "store.h"

/* One per process: no function here is called before the module was made, and none after. */
static struct {
    PyObject *config, *handle, *store, *types;
} module_state;

PyObject *type_config(void)
{
    return module_state.config;
}

PyObject *type_handle(void)
{
    return module_state.handle;
}

/* The module _types lives as long as this one, and keeps its classes. */
PyObject *type_named(const char *name)
{
    return PyDict_GetItemString(PyModule_GetDict(module_state.types), name);
}

/* ---- MooncakeDistributedStore ---- */

static PyObject *store_new(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    struct store_object *store;

    if ((PyObject *)type == module_state.store && (PyTuple_Size(args) > 0 || (kw && PyDict_Size(kw) > 0)))
        return PyErr_Format(PyExc_TypeError, "MooncakeDistributedStore() takes no arguments: call setup()");
    store = (struct store_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!store)
        return NULL;
    store->client = compat_client_create();
    if (!store->client) {
        Py_DECREF(store);
        return PyErr_NoMemory();
    }
    return (PyObject *)store;
}

/* No method is inside: each holds the object. */
static void store_dealloc(PyObject *self)
{
    struct store_object *store = (struct store_object *)self;
    PyTypeObject *type = Py_TYPE(self);

    WITHOUT_GIL(compat_client_destroy(store->client));
    Py_XDECREF(store->engine);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

enum { METHODS_MAX = 128 };

/* The limited API takes one array, the files have one each. */
static PyMethodDef *all_methods(void)
{
    static PyMethodDef all[METHODS_MAX + 1];
    PyMethodDef *const lists[] = {store_life_methods, store_bytes_methods, store_direct_methods, store_ranges_methods,
        store_segments_methods, store_missing_methods};
    size_t n = 0;

    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        for (const PyMethodDef *method = lists[i]; method->ml_name && n < METHODS_MAX; method++)
            all[n++] = *method;
    all[n] = (PyMethodDef){NULL, NULL, 0, NULL};
    return all;
}

static PyObject *store_type(PyObject *module)
{
    PyType_Slot slots[] = {
        {Py_tp_doc, TEXT("A client of the Store. Empty until setup(); calls on one that is not set up return errors.")},
        {Py_tp_new, store_new},
        {Py_tp_dealloc, store_dealloc},
        {Py_tp_methods, all_methods()},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = "mooncake.store.MooncakeDistributedStore",
        .basicsize = sizeof(struct store_object),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
        .slots = slots,
    };

    return PyType_FromModuleAndSpec(module, &spec, NULL);
}

/* ---- bind_to_numa_node ---- */

enum { CPUS_MAX = 4096, MPOL_PREFERRED_MODE = 1 };

/* "0-3,8-11" of a node. False: there is no such node, or it has no processor. */
static bool cpus_of(int node, unsigned long *mask)
{
    char path[96], text[4096], *at = text;
    FILE *file;
    bool any = false;

    snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
    file = fopen(path, "re");
    if (!file)
        return false;
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    while (*at >= '0' && *at <= '9') {
        unsigned long from = strtoul(at, &at, 10), to = *at == '-' ? strtoul(at + 1, &at, 10) : from;

        for (unsigned long cpu = from; cpu <= to && cpu < CPUS_MAX; cpu++) {
            mask[cpu / (8 * sizeof(long))] |= 1ul << cpu % (8 * sizeof(long));
            any = true;
        }
        at += *at == ',';
    }
    return any;
}

/* By system calls: libnuma would be a library of its own for two of them. */
static PyObject *bind_to_numa_node(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"node", NULL};
    unsigned long cpus[CPUS_MAX / (8 * sizeof(long))] = {0}, nodes = 0;
    int node;

    if (!arguments(args, kw, "i:bind_to_numa_node", names, &node))
        return NULL;
    if (node < 0 || node >= 64 || !cpus_of(node, cpus))
        return PyErr_Format(PyExc_ValueError, "there is no NUMA node %d with processors", node);
    nodes = 1ul << node;
    if (syscall(SYS_sched_setaffinity, 0, sizeof(cpus), cpus) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    syscall(SYS_set_mempolicy, MPOL_PREFERRED_MODE, &nodes, 65); /* a wish: kernels without NUMA say no */
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"bind_to_numa_node", (PyCFunction)(void (*)(void))bind_to_numa_node, METH_VARARGS | METH_KEYWORDS,
        "bind_to_numa_node($module, node)\n--\n\nbind_to_numa_node(node: int) -> None\n\n"
        "Run this thread on the processors of the node and prefer its memory."},
    {NULL, NULL, 0, NULL},
};

/* ---- the module ---- */

/* Classes that need nothing of C come from mooncake._types. */
static int add_types(PyObject *module)
{
    PyObject *exports, *name, *value;
    Py_ssize_t at = 0;

    module_state.types = PyImport_ImportModule("mooncake._types");
    if (!module_state.types)
        return -1;
    exports = type_named("EXPORTS");
    while (exports && PyDict_Next(exports, &at, &name, &value))
        if (PyObject_SetAttr(module, name, value) < 0)
            return -1;
    return exports ? 0 : -1;
}

static int add_type(PyObject *module, const char *name, PyObject *type)
{
    return type ? PyModule_AddObjectRef(module, name, type) : -1;
}

static int execute(PyObject *module)
{
    PyObject *allocator, *window;
    int result = add_types(module);

    if (result < 0)
        return result;
    module_state.config = PyType_FromModuleAndSpec(module, &config_spec, NULL);
    module_state.handle = PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    module_state.store = store_type(module);
    window = PyType_FromModuleAndSpec(module, &window_spec, NULL);
    allocator = PyType_FromModuleAndSpec(module, &allocator_spec, NULL);
    if (add_type(module, "ReplicateConfig", module_state.config) < 0 ||
        add_type(module, "BufferHandle", module_state.handle) < 0 ||
        add_type(module, "MooncakeDistributedStore", module_state.store) < 0 ||
        add_type(module, "_Window", window) < 0 || add_type(module, "MooncakeHostMemAllocator", allocator) < 0)
        result = -1;
    Py_XDECREF(window);
    Py_XDECREF(allocator);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mooncake.store",
    .m_doc = "The Mooncake Store: everybody's memory as one pool. See docs/compatibility.md for what differs.",
    .m_size = 0,
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_store(void);
PyMODINIT_FUNC PyInit_store(void)
{
    return PyModuleDef_Init(&definition);
}
