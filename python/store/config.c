/* config.c - ReplicateConfig: how a put wants its object kept.
 *
 * Each attribute is a Python object that was checked when it was set; lists are copied in and out. A call takes what is there
 * when it begins: engines change one shared object before every put. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

enum field {
    REPLICA_NUM,
    NOF_REPLICA_NUM,
    DFS_REPLICA_NUM,
    SOFT_PIN_ACTION,
    SOFT_PIN_TTL_MS,
    WITH_HARD_PIN,
    PREFERRED_SEGMENTS,
    PREFERRED_NOF_SEGMENTS,
    PREFERRED_SEGMENT,
    PREFER_ALLOC_IN_SAME_NODE,
    DATA_TYPE,
    GROUP_IDS,
    FIELDS,
};

enum kind { NUMBER, NUMBER_OR_NONE, BOOL, TEXT, TEXTS, TEXTS_OR_NONE, ENUM };

static const struct {
    const char *name;
    enum kind kind;
    const char *type; /* ENUM: class in mooncake._types, and its first member */
    const char *first;
} fields[FIELDS] = {
    [REPLICA_NUM] = {"replica_num", NUMBER},
    [NOF_REPLICA_NUM] = {"nof_replica_num", NUMBER},
    [DFS_REPLICA_NUM] = {"dfs_replica_num", NUMBER},
    [SOFT_PIN_ACTION] = {"soft_pin_action", ENUM, "SoftPinAction", "PRESERVE"},
    [SOFT_PIN_TTL_MS] = {"soft_pin_ttl_ms", NUMBER_OR_NONE},
    [WITH_HARD_PIN] = {"with_hard_pin", BOOL},
    [PREFERRED_SEGMENTS] = {"preferred_segments", TEXTS},
    [PREFERRED_NOF_SEGMENTS] = {"preferred_nof_segments", TEXTS},
    [PREFERRED_SEGMENT] = {"preferred_segment", TEXT},
    [PREFER_ALLOC_IN_SAME_NODE] = {"prefer_alloc_in_same_node", BOOL},
    [DATA_TYPE] = {"data_type", ENUM, "ObjectDataType", "UNKNOWN"},
    [GROUP_IDS] = {"group_ids", TEXTS_OR_NONE},
};

enum { PRESERVE, ENABLE };

struct config_object {
    PyObject ob_base;
    PyObject *value[FIELDS];
};

/* ---- attributes ---- */

static PyObject *texts(PyObject *value, const char *name)
{
    PyObject *tuple = sequence_take(value, name), *list;

    for (Py_ssize_t i = 0; tuple && i < PyTuple_Size(tuple); i++)
        if (!PyUnicode_Check(PyTuple_GetItem(tuple, i))) {
            PyErr_Format(PyExc_TypeError, "%s must be a list of str", name);
            Py_CLEAR(tuple);
        }
    list = tuple ? PySequence_List(tuple) : NULL;
    Py_XDECREF(tuple);
    return list;
}

/* What is kept for `value`: a new reference, NULL and TypeError. */
static PyObject *checked(enum field field, PyObject *value)
{
    const char *name = fields[field].name;
    enum kind kind = fields[field].kind;
    uint64_t number;
    int is;

    if ((kind == NUMBER_OR_NONE || kind == TEXTS_OR_NONE) && value == Py_None)
        Py_RETURN_NONE;
    switch (kind) {
    case NUMBER:
    case NUMBER_OR_NONE: return number_take(value, name, &number) ? PyLong_FromUnsignedLongLong(number) : NULL;
    case BOOL: is = PyObject_IsTrue(value); return is < 0 ? NULL : PyBool_FromLong(is);
    case TEXT:
        if (!PyUnicode_Check(value))
            return PyErr_Format(PyExc_TypeError, "%s must be str, not %R", name, (PyObject *)Py_TYPE(value));
        Py_INCREF(value);
        return value;
    case TEXTS:
    case TEXTS_OR_NONE: return texts(value, name);
    case ENUM: break;
    }
    return PyObject_CallFunctionObjArgs(type_named(fields[field].type), value, NULL);
}

static PyObject *initial(enum field field)
{
    switch (fields[field].kind) {
    case NUMBER: return PyLong_FromLong(field == REPLICA_NUM);
    case BOOL: return PyBool_FromLong(0);
    case TEXT: return PyUnicode_FromString("");
    case TEXTS: return PyList_New(0);
    case ENUM: return PyObject_GetAttrString(type_named(fields[field].type), fields[field].first);
    default: Py_RETURN_NONE;
    }
}

static PyObject *get(PyObject *self, void *closure)
{
    enum field field = (enum field)(uintptr_t)closure;
    PyObject *value = ((struct config_object *)self)->value[field];

    if (PyList_Check(value))
        return PySequence_List(value);
    Py_INCREF(value);
    return value;
}

static int set(PyObject *self, PyObject *value, void *closure)
{
    enum field field = (enum field)(uintptr_t)closure;
    struct config_object *config = (struct config_object *)self;
    PyObject *kept, *old = config->value[field];

    if (!value) {
        PyErr_Format(PyExc_AttributeError, "%s cannot be deleted", fields[field].name);
        return -1;
    }
    kept = checked(field, value);
    if (!kept)
        return -1;
    config->value[field] = kept;
    Py_XDECREF(old);
    return 0;
}

static long action_of(const struct config_object *config)
{
    return PyLong_AsLong(config->value[SOFT_PIN_ACTION]);
}

/* The name this had before 0.3.12, and that much code still sets. */
static PyObject *get_soft_pin(PyObject *self, void *closure)
{
    return PyBool_FromLong(action_of((struct config_object *)self) == ENABLE);
}

static int set_soft_pin(PyObject *self, PyObject *value, void *closure)
{
    int is = value ? PyObject_IsTrue(value) : -1;
    PyObject *action = is < 0 ? NULL : PyLong_FromLong(is ? ENABLE : PRESERVE);
    int result = action ? set(self, action, (void *)(uintptr_t)SOFT_PIN_ACTION) : -1;

    Py_XDECREF(action);
    return result;
}

/* ---- life ---- */

static PyObject *config_new(PyTypeObject *type, PyObject *args, PyObject *kw)
{
    struct config_object *config;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);

    if (PyTuple_Size(args) > 0 || (kw && PyDict_Size(kw) > 0))
        return PyErr_Format(PyExc_TypeError, "ReplicateConfig() takes no arguments: set its attributes");
    config = (struct config_object *)alloc(type, 0);
    for (enum field field = 0; config && field < FIELDS; field++) {
        config->value[field] = initial(field);
        if (!config->value[field])
            Py_CLEAR(config);
    }
    return (PyObject *)config;
}

static void config_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    for (enum field field = 0; field < FIELDS; field++)
        Py_XDECREF(((struct config_object *)self)->value[field]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

/* ['a', 'b'] as the existing one writes it: [a, b]. New reference. */
static PyObject *joined(PyObject *list)
{
    PyObject *comma = PyUnicode_FromString(", "), *text = comma ? PyUnicode_Join(comma, list) : NULL;

    Py_XDECREF(comma);
    return text;
}

/* Callers log it, and a test of theirs looks for the number of replicas in it. */
static PyObject *config_repr(PyObject *self)
{
    PyObject *const *value = ((struct config_object *)self)->value;
    PyObject *preferred = joined(value[PREFERRED_SEGMENTS]), *nof = joined(value[PREFERRED_NOF_SEGMENTS]);
    PyObject *action = PyObject_GetAttrString(value[SOFT_PIN_ACTION], "name");
    PyObject *type = PyObject_GetAttrString(value[DATA_TYPE], "name"), *text = NULL;

    if (preferred && nof && action && type) {
        PyObject *none = PyUnicode_FromString("default");

        text = PyUnicode_FromFormat(
            "ReplicateConfig: { replica_num: %S, nof_replica_num: %S, dfs_replica_num: %S, "
            "soft_pin_action: %U, soft_pin_ttl_ms: %S, with_hard_pin: %d, preferred_segments: [%U], "
            "preferred_nof_segments: [%U], prefer_alloc_in_same_node: %d, data_type: %U }",
            value[REPLICA_NUM], value[NOF_REPLICA_NUM], value[DFS_REPLICA_NUM], action,
            value[SOFT_PIN_TTL_MS] == Py_None ? none : value[SOFT_PIN_TTL_MS], value[WITH_HARD_PIN] == Py_True,
            preferred, nof, value[PREFER_ALLOC_IN_SAME_NODE] == Py_True, type);
        Py_XDECREF(none);
    }
    Py_XDECREF(preferred);
    Py_XDECREF(nof);
    Py_XDECREF(action);
    Py_XDECREF(type);
    return text;
}

#define ATTRIBUTE(field, name, doc)                                                                                    \
    {                                                                                                                  \
        name, get, set, doc, (void *)(uintptr_t)field                                                                  \
    }

static PyGetSetDef config_attributes[] = {
    ATTRIBUTE(REPLICA_NUM, "replica_num", "copies on distinct segments, as many as there are"),
    ATTRIBUTE(NOF_REPLICA_NUM, "nof_replica_num", "not there yet: above 0 a put raises NotImplementedError"),
    ATTRIBUTE(DFS_REPLICA_NUM, "dfs_replica_num", "not there yet: above 0 a put raises NotImplementedError"),
    ATTRIBUTE(SOFT_PIN_ACTION, "soft_pin_action", "ENABLE: evicted after everything that is not"),
    ATTRIBUTE(SOFT_PIN_TTL_MS, "soft_pin_ttl_ms", "only with ENABLE; a soft pin here ends with its object"),
    ATTRIBUTE(WITH_HARD_PIN, "with_hard_pin", "never evicted"),
    ATTRIBUTE(PREFERRED_SEGMENTS, "preferred_segments", "names of segments to try first, in this order"),
    ATTRIBUTE(PREFERRED_NOF_SEGMENTS, "preferred_nof_segments", "not there yet"),
    ATTRIBUTE(PREFERRED_SEGMENT, "preferred_segment", "one name; goes before preferred_segments"),
    ATTRIBUTE(PREFER_ALLOC_IN_SAME_NODE, "prefer_alloc_in_same_node", "the own segment first"),
    ATTRIBUTE(DATA_TYPE, "data_type", "for people"),
    ATTRIBUTE(GROUP_IDS, "group_ids", "one id per key: those of one call are kept all or not at all"),
    {"with_soft_pin", get_soft_pin, set_soft_pin, "the older name of soft_pin_action == ENABLE", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot config_slots[] = {
    {Py_tp_doc, TEXT("How a put wants its object kept.")},
    {Py_tp_new, config_new},
    {Py_tp_dealloc, config_dealloc},
    {Py_tp_repr, config_repr},
    {Py_tp_getset, config_attributes},
    {0, NULL},
};

PyType_Spec config_spec = {
    .name = "mooncake.store.ReplicateConfig",
    .basicsize = sizeof(struct config_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = config_slots,
};

/* ---- what a call takes of it ---- */

static bool take_name(struct config *out, PyObject *name)
{
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);

    if (!text)
        return false;
    if (!*text || out->held_n == sizeof(out->held) / sizeof(*out->held))
        return true;
    Py_INCREF(name);
    out->held[out->held_n] = name;
    out->names[out->held_n++] = text;
    return true;
}

static bool take_names(struct config *out, const struct config_object *config)
{
    PyObject *list = config->value[PREFERRED_SEGMENTS];

    if (!take_name(out, config->value[PREFERRED_SEGMENT]))
        return false;
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++)
        if (!take_name(out, PyList_GetItem(list, i)))
            return false;
    out->c.preferred = out->names;
    out->c.preferred_n = out->held_n;
    return true;
}

/* The list is ours alone: attributes copy in and out. */
static bool take_groups(struct config *out, PyObject *ids)
{
    if (ids == Py_None)
        return true;
    out->ids_n = (size_t)PyList_Size(ids);
    out->groups = malloc((out->ids_n + 1) * sizeof(*out->groups));
    if (!out->groups) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < out->ids_n; i++) {
        out->groups[i] = PyUnicode_AsUTF8AndSize(PyList_GetItem(ids, (Py_ssize_t)i), NULL);
        if (!out->groups[i])
            return false;
    }
    Py_INCREF(ids);
    out->ids = ids;
    out->c.groups = out->groups;
    return true;
}

static bool none_of(const struct config_object *config, enum field field)
{
    if (PyLong_AsLong(config->value[field]) == 0)
        return true;
    PyErr_Format(
        PyExc_NotImplementedError, "ReplicateConfig.%s: this Store keeps copies in memory only", fields[field].name);
    return false;
}

bool config_take(PyObject *object, const char *what, struct config *out)
{
    const struct config_object *config = (const struct config_object *)object;
    int is;

    *out = (struct config){.c = {.replicas = 1}};
    if (!object || object == Py_None)
        return true;
    is = PyObject_IsInstance(object, type_config());
    if (is <= 0) {
        if (is == 0)
            PyErr_Format(
                PyExc_TypeError, "argument '%s' must be ReplicateConfig, not %R", what, (PyObject *)Py_TYPE(object));
        return false;
    }
    if (!none_of(config, NOF_REPLICA_NUM) || !none_of(config, DFS_REPLICA_NUM))
        return false;
    out->c.replicas = PyLong_AsSize_t(config->value[REPLICA_NUM]);
    if (PyErr_Occurred())
        return false;
    out->c.soft_pin = action_of(config) == ENABLE;
    out->c.hard_pin = config->value[WITH_HARD_PIN] == Py_True;
    out->c.same_node = config->value[PREFER_ALLOC_IN_SAME_NODE] == Py_True;
    if (config->value[SOFT_PIN_TTL_MS] != Py_None && !out->c.soft_pin)
        out->error = COMPAT_INVALID_PARAMS;
    return take_groups(out, config->value[GROUP_IDS]) && take_names(out, config);
}

void config_fini(struct config *config)
{
    while (config->held_n > 0)
        Py_DECREF(config->held[--config->held_n]);
    free(config->groups);
    Py_XDECREF(config->ids);
}

int config_error(const struct config *config, size_t keys)
{
    if (config->error)
        return config->error;
    return config->ids && config->ids_n != keys ? COMPAT_INVALID_PARAMS : 0;
}
