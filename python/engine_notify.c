/* engine_notify.c - TransferNotify: a message for the application of a peer.
 *
 * Bytes that are no UTF-8 come as surrogate escapes and go back as the same bytes. */
#include "python/engine_impl.h"

struct notify_object {
    PyObject_HEAD PyObject *text[2]; /* name, msg: str */
};

static const char *const notify_names[] = {"name", "msg", NULL};

static int notify_set_at(struct notify_object *notify, size_t i, PyObject *value)
{
    if (!value || !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "TransferNotify: '%s' must be str", notify_names[i]);
        return -1;
    }
    Py_INCREF(value);
    Py_XDECREF(notify->text[i]);
    notify->text[i] = value;
    return 0;
}

static PyObject *notify_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    struct notify_object *notify = (struct notify_object *)alloc(type, 0);

    for (size_t i = 0; notify && i < 2; i++)
        notify->text[i] = PyUnicode_FromString("");
    return (PyObject *)notify;
}

static int notify_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *given[ARGS_MAX];

    if (!args_bind("TransferNotify", args, kwargs, notify_names, 0, given))
        return -1;
    for (size_t i = 0; i < 2; i++)
        if (given[i] && notify_set_at((struct notify_object *)self, i, given[i]) != 0)
            return -1;
    return 0;
}

static void notify_dealloc(PyObject *self)
{
    struct notify_object *notify = (struct notify_object *)self;
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

    Py_XDECREF(notify->text[0]);
    Py_XDECREF(notify->text[1]);
    release(self);
    Py_DECREF(type);
}

static PyObject *notify_get(PyObject *self, void *which)
{
    PyObject *text = ((struct notify_object *)self)->text[(uintptr_t)which];

    Py_XINCREF(text);
    return text;
}

static int notify_set(PyObject *self, PyObject *value, void *which)
{
    return notify_set_at((struct notify_object *)self, (uintptr_t)which, value);
}

static PyObject *notify_repr(PyObject *self)
{
    const struct notify_object *notify = (const struct notify_object *)self;

    return PyUnicode_FromFormat("TransferNotify(name=%R, msg=%R)", notify->text[0], notify->text[1]);
}

static PyGetSetDef notify_fields[] = {
    {"name", notify_get, notify_set, "what the message is about", (void *)0},
    {"msg", notify_get, notify_set, "the message", (void *)1},
    {NULL, NULL, NULL, NULL, NULL},
};

static char notify_doc[] =
    "TransferNotify(name='', msg='')\n--\n\nTransferNotify(name: str, msg: str)\n\nA message for the "
    "application of a peer.";

static PyType_Slot notify_slots[] = {
    {Py_tp_doc, notify_doc},
    {Py_tp_new, notify_new},
    {Py_tp_init, notify_init},
    {Py_tp_dealloc, notify_dealloc},
    {Py_tp_repr, notify_repr},
    {Py_tp_getset, notify_fields},
    {0, NULL},
};

PyType_Spec engine_notify_spec = {
    .name = "mooncake.engine.TransferNotify",
    .basicsize = sizeof(struct notify_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = notify_slots,
};

void note_arg_drop(struct note_arg *arg)
{
    Py_XDECREF(arg->keep[0]);
    Py_XDECREF(arg->keep[1]);
}

bool note_arg_get(const char *call, PyObject *object, struct note_arg *arg, const struct ce_note **note)
{
    *arg = (struct note_arg){0};
    *note = NULL;
    if (!object || object == Py_None)
        return true;
    if (!PyObject_TypeCheck(object, engine_notify_type)) {
        PyErr_Format(PyExc_TypeError, "%s(): argument 'notify' must be TransferNotify or None", call);
        return false;
    }
    for (size_t i = 0; i < 2; i++) {
        arg->keep[i] = PyUnicode_AsEncodedString(((struct notify_object *)object)->text[i], "utf-8", "surrogateescape");
        if (!arg->keep[i]) {
            note_arg_drop(arg);
            return false;
        }
    }
    arg->note = (struct ce_note){
        .name = PyBytes_AsString(arg->keep[0]),
        .msg = PyBytes_AsString(arg->keep[1]),
        .name_len = (size_t)PyBytes_Size(arg->keep[0]),
        .msg_len = (size_t)PyBytes_Size(arg->keep[1]),
    };
    *note = &arg->note;
    return true;
}

PyObject *notify_of(const struct ce_note *note)
{
    struct notify_object *notify = (struct notify_object *)notify_new(engine_notify_type, NULL, NULL);
    const char *bytes[2] = {note->name, note->msg};
    size_t lens[2] = {note->name_len, note->msg_len};

    for (size_t i = 0; notify && i < 2; i++) {
        PyObject *text = PyUnicode_DecodeUTF8(bytes[i], (Py_ssize_t)lens[i], "surrogateescape");

        if (!text) {
            Py_DECREF(notify);
            return NULL;
        }
        Py_XDECREF(notify->text[i]);
        notify->text[i] = text;
    }
    return (PyObject *)notify;
}
