/* engine.c - the module mooncake.engine: the types' tables.
 *
 * Each call has its signature twice: for inspect.signature() (before "--") and as the first line of __doc__, because callers look for
 * words in either. */
#include "python/engine_impl.h"

PyTypeObject *engine_inner_type, *engine_notify_type;

#define MODULE "mooncake.engine"

/* ---- the type ---- */

#define KEYWORDS(name, signature, pybind, doc)                                                                         \
    {                                                                                                                  \
#name, (PyCFunction)(void (*)(void))engine_##name, METH_VARARGS | METH_KEYWORDS,                               \
            #name signature "\n--\n\n" #name pybind "\n\n" doc                                                         \
    }
#define PLAIN(name, pybind, doc)                                                                                       \
    {                                                                                                                  \
#name, engine_##name, METH_NOARGS, #name "($self)\n--\n\n" #name pybind "\n\n" doc                             \
    }

#define ONE  "($self, target_hostname, buffer, peer_buffer_address, length, transport_hint='')"
#define MANY "($self, target_hostname, buffers, peer_buffer_addresses, lengths, transport_hint='')"
#define ONE_P                                                                                                          \
    "(self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = '')"
#define MANY_P                                                                                                         \
    "(self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int], lengths: "             \
    "Sequence[int], transport_hint: str = '')"
#define SYNC_DOC "Returns 0 when done and -1 when it failed for good; then nothing is written any more at either end."
#define ASYNC_DOC                                                                                                      \
    "Returns the number of the batch for get_batch_transfer_status() or transfer_check_status(), 0 on failure."

static PyMethodDef engine_methods[] = {
    KEYWORDS(initialize, "($self, local_hostname, metadata_server, protocol, device_name)",
        "(self, local_hostname: str, metadata_server: str, protocol: str, device_name: str) -> int",
        "Start the engine: listen, and be known to peers as 'local_hostname:get_rpc_port()'. Returns 0 or -1."),
    KEYWORDS(initialize_ext, "($self, local_hostname, metadata_server, protocol, device_name, metadata_type)",
        "(self, local_hostname: str, metadata_server: str, protocol: str, device_name: str, metadata_type: str) -> int",
        "initialize() with the type of the metadata service apart from its address."),
    PLAIN(get_rpc_port, "(self) -> int", "The port that peers reach this engine by; 0 before initialize()."),
    KEYWORDS(allocate_managed_buffer, "($self, length)", "(self, length: int) -> int",
        "Registered memory of the engine's: its address, or 0."),
    KEYWORDS(free_managed_buffer, "($self, buffer_addr, length=0)", "(self, buffer_addr: int, length: int = 0) -> int",
        "Give it back. Returns 0 or -1."),
    KEYWORDS(transfer_sync_write, ONE, ONE_P " -> int", "Write local memory to the peer's address. " SYNC_DOC),
    KEYWORDS(transfer_sync_read, ONE, ONE_P " -> int", "Read the peer's memory into ours. " SYNC_DOC),
    KEYWORDS(batch_transfer_sync_write, MANY, MANY_P " -> int", "transfer_sync_write() of several ranges. " SYNC_DOC),
    KEYWORDS(batch_transfer_sync_read, MANY, MANY_P " -> int", "transfer_sync_read() of several ranges. " SYNC_DOC),
    KEYWORDS(batch_transfer_async_write, MANY, MANY_P " -> int", "Start it and return. " ASYNC_DOC),
    KEYWORDS(batch_transfer_async_read, MANY, MANY_P " -> int", "Start it and return. " ASYNC_DOC),
    KEYWORDS(transfer_sync,
        "($self, target_hostname, buffer, peer_buffer_address, length, opcode, notify=None, transport_hint='')",
        "(self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, opcode: TransferOpcode, "
        "notify: "
        "TransferNotify = None, transport_hint: str = '') -> int",
        "Read or write, then notify the peer. " SYNC_DOC),
    KEYWORDS(batch_transfer_sync,
        "($self, target_hostname, buffers, peer_buffer_addresses, lengths, opcode, notify=None, transport_hint='')",
        "(self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int], lengths: "
        "Sequence[int], opcode: TransferOpcode, notify: TransferNotify = None, transport_hint: str = '') -> int",
        "transfer_sync() of several ranges, and one notification. " SYNC_DOC),
    KEYWORDS(batch_transfer_async,
        "($self, target_hostname, buffers, peer_buffer_addresses, lengths, opcode, transport_hint='')",
        "(self, target_hostname: str, buffers: Sequence[int], peer_buffer_addresses: Sequence[int], lengths: "
        "Sequence[int], opcode: TransferOpcode, transport_hint: str = '') -> int",
        "Start it and return. " ASYNC_DOC),
    KEYWORDS(get_batch_transfer_status, "($self, batch_ids)", "(self, batch_ids: Sequence[int]) -> int",
        "Wait until all of these batches have ended. Returns 0, or -1 when one of them failed."),
    KEYWORDS(transfer_submit_write, ONE, ONE_P " -> int", "Start a write and return. " ASYNC_DOC),
    KEYWORDS(transfer_check_status, "($self, batch_id)", "(self, batch_id: int) -> int",
        "Returns 1 done, 0 under way, -1 failed, -2 timed out. Does not wait."),
    KEYWORDS(write_bytes_to_buffer, "($self, dest_address, src_ptr, length)",
        "(self, dest_address: int, src_ptr: bytes, length: int) -> int",
        "Copy bytes to an address of this process. Returns 0, or -1 when there are not so many."),
    KEYWORDS(read_bytes_from_buffer, "($self, source_address, length)",
        "(self, source_address: int, length: int) -> bytes", "Copy bytes from an address of this process."),
    KEYWORDS(register_memory, "($self, buffer_addr, capacity, location='*')",
        "(self, buffer_addr: int, capacity: int, location: str = '*') -> int",
        "Let peers read and write it. Ranges may overlap, and be registered twice. Returns 0 or a negative number."),
    KEYWORDS(unregister_memory, "($self, buffer_addr)", "(self, buffer_addr: int) -> int",
        "Take one registration that begins there back. Returns 0 or a negative number."),
    KEYWORDS(batch_register_memory, "($self, buffer_addresses, capacities, location='*')",
        "(self, buffer_addresses: Sequence[int], capacities: Sequence[int], location: str = '*') -> int",
        "Register all of them or none. Returns 0 or a negative number."),
    KEYWORDS(batch_unregister_memory, "($self, buffer_addresses)", "(self, buffer_addresses: Sequence[int]) -> int",
        "Unregister all of them. Returns 0, or a negative number when one was not registered."),
    KEYWORDS(get_local_topology, "($self, device_name=None)", "(self, device_name: str = None) -> str",
        "JSON: for each memory node its preferred and other network devices (none in this build)."),
    KEYWORDS(get_first_buffer_address, "($self, segment_name)", "(self, segment_name: str) -> int",
        "Address of the memory that this peer (or this engine, by its own name) registered first; 0 on failure."),
    PLAIN(get_notifies, "(self) -> list[TransferNotify]", "The notifications that came since the last call."),
    KEYWORDS(send_probe, "($self, peer_server_name)", "(self, peer_server_name: str) -> int",
        "0 when that peer answers, else -1."),
    PLAIN(get_engine, "(self) -> InnerTransferEngine", "The engine as an opaque object, for store.setup(engine=...)."),
    PLAIN(get_engine_ptr, "(self) -> int", "Address of the engine; 0 before initialize()."),
    KEYWORDS(warmup_efa_segment, "($self, segment_name)", "(self, segment_name: str) -> int",
        "NotImplementedError: there is no EFA in this build."),
    KEYWORDS(transfer_write_on_cuda,
        "($self, target_hostname, buffer, peer_buffer_address, length, stream_ptr=0, transport_hint='')",
        "(...) -> None", "NotImplementedError: there is no CUDA in this build."),
    KEYWORDS(transfer_read_on_cuda,
        "($self, target_hostname, buffer, peer_buffer_address, length, stream_ptr=0, transport_hint='')",
        "(...) -> None", "NotImplementedError: there is no CUDA in this build."),
    KEYWORDS(batch_transfer_write_on_cuda,
        "($self, target_hostname, buffers, peer_buffer_addresses, lengths, stream_ptr=0, transport_hint='')",
        "(...) -> None", "NotImplementedError: there is no CUDA in this build."),
    KEYWORDS(batch_transfer_read_on_cuda,
        "($self, target_hostname, buffers, peer_buffer_addresses, lengths, stream_ptr=0, transport_hint='')",
        "(...) -> None", "NotImplementedError: there is no CUDA in this build."),
    {NULL, NULL, 0, NULL},
};

static char engine_doc[] = "TransferEngine()\n--\n\nMoves bytes between registered memory of processes and hosts.";

static PyType_Slot engine_slots[] = {
    {Py_tp_doc, engine_doc},
    {Py_tp_new, engine_new},
    {Py_tp_dealloc, engine_dealloc},
    {Py_tp_methods, engine_methods},
    {0, NULL},
};

static PyType_Spec engine_spec = {
    .name = MODULE ".TransferEngine",
    .basicsize = sizeof(struct engine_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = engine_slots,
};

static char inner_doc[] = "An engine, opaque: it lives as long as this object or its TransferEngine does.";

static PyType_Slot inner_slots[] = {
    {Py_tp_doc, inner_doc},
    {Py_tp_dealloc, engine_dealloc},
    {0, NULL},
};

static PyType_Spec inner_spec = {
    .name = MODULE ".InnerTransferEngine",
    .basicsize = sizeof(struct engine_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = inner_slots,
};

/* ---- the module ---- */

static PyTypeObject *type_add(PyObject *module, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);

    if (type && PyModule_AddType(module, (PyTypeObject *)type) != 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

/* An IntEnum: Read and Write as the package has them, READ and WRITE as its documents do. */
static PyObject *opcode_make(void)
{
    PyObject *module = PyImport_ImportModule("enum"), *type = NULL;

    if (!module)
        return NULL;
    type = PyObject_CallMethod(module, "IntEnum", "s((si)(si)(si)(si))", "TransferOpcode", "Read", MC_READ, "Write",
        MC_WRITE, "READ", MC_READ, "WRITE", MC_WRITE);
    if (type) { /* as text it is its name, and not the number, as of an IntEnum since 3.11 */
        PyObject *base = PyObject_GetAttrString(module, "Enum"), *name = PyUnicode_FromString(MODULE);
        PyObject *str = base ? PyObject_GetAttrString(base, "__str__") : NULL;

        if (!name || !str || PyObject_SetAttrString(type, "__module__", name) != 0 ||
            PyObject_SetAttrString(type, "__str__", str) != 0)
            Py_CLEAR(type);
        Py_XDECREF(base);
        Py_XDECREF(name);
        Py_XDECREF(str);
    }
    Py_DECREF(module);
    return type;
}

/* Read and Write stand in the module, too. */
static int opcodes_add(PyObject *module, PyObject *opcode)
{
    static const char *const names[] = {"Read", "Write"};
    int result = PyModule_AddObjectRef(module, "TransferOpcode", opcode);

    for (int i = 0; result == 0 && i < 2; i++) {
        PyObject *value = PyObject_GetAttrString(opcode, names[i]);

        result = value ? PyModule_AddObjectRef(module, names[i], value) : -1;
        Py_XDECREF(value);
    }
    return result;
}

static int module_exec(PyObject *module)
{
    static const char *const features[] = {"CUDA", "EFA", "HIP", "MNNVL", "MUSA", "INTRA_NVLINK", NULL};
    PyTypeObject *engine_type = type_add(module, &engine_spec);
    PyObject *opcode = opcode_make();
    int result = -1;

    engine_inner_type = type_add(module, &inner_spec);
    engine_notify_type = type_add(module, &engine_notify_spec);
    if (engine_type && opcode && engine_inner_type && engine_notify_type &&
        PyObject_SetAttrString((PyObject *)engine_type, "TransferOpcode", opcode) == 0 &&
        opcodes_add(module, opcode) == 0)
        result = 0;
    for (int i = 0; result == 0 && features[i]; i++) {
        char name[32];

        PyOS_snprintf(name, sizeof(name), "SUPPORT_%s", features[i]);
        result = PyModule_AddObjectRef(module, name, Py_False);
    }
    Py_XDECREF(opcode);
    Py_XDECREF((PyObject *)engine_type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "engine",
    .m_doc = "The Transfer Engine with the interface of the existing Mooncake.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_engine(void);

PyMODINIT_FUNC PyInit_engine(void)
{
    return PyModuleDef_Init(&module_def);
}
