/* args.c - see args.h. */
#include "python/args.h"

#include <string.h>

static const char *type_name(PyObject *object, PyObject **keep)
{
    const char *text;

    *keep = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "__name__");
    text = *keep ? PyUnicode_AsUTF8AndSize(*keep, NULL) : NULL;
    PyErr_Clear();
    return text ? text : "something else";
}

/* `at` < 0: the argument itself, else an element of it. */
static bool wrong_type(const char *call, const char *name, Py_ssize_t at, const char *wanted, PyObject *object)
{
    PyObject *keep;
    const char *type = type_name(object, &keep);

    if (at < 0)
        PyErr_Format(PyExc_TypeError, "%s(): argument '%s' must be %s, not %s", call, name, wanted, type);
    else
        PyErr_Format(PyExc_TypeError, "%s(): argument '%s' [%zd] must be %s, not %s", call, name, at, wanted, type);
    Py_XDECREF(keep);
    return false;
}

/* ---- binding ---- */

static int index_of(const char *const *names, PyObject *key)
{
    for (int i = 0; names[i]; i++)
        if (PyUnicode_CompareWithASCIIString(key, names[i]) == 0)
            return i;
    return -1;
}

static bool bind_keywords(const char *call, PyObject *kwargs, const char *const *names, PyObject **given)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (PyDict_Next(kwargs, &at, &key, &value)) {
        int i = index_of(names, key);

        if (i < 0) {
            PyErr_Format(PyExc_TypeError, "'%U' is an invalid keyword argument for %s()", key, call);
            return false;
        }
        if (given[i]) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%s'", call, names[i]);
            return false;
        }
        given[i] = value;
    }
    return true;
}

bool args_bind(
    const char *call, PyObject *args, PyObject *kwargs, const char *const *names, int required, PyObject **given)
{
    Py_ssize_t count = PyTuple_Size(args), max = 0;

    while (names[max])
        given[max++] = NULL;
    if (count > max) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)", call, max, count);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        given[i] = PyTuple_GetItem(args, i);
    if (kwargs && !bind_keywords(call, kwargs, names, given))
        return false;
    for (int i = 0; i < required; i++) {
        if (!given[i]) {
            PyErr_Format(PyExc_TypeError, "%s() missing required argument '%s' (pos %d)", call, names[i], i + 1);
            return false;
        }
    }
    return true;
}

/* ---- values ---- */

bool args_text(const char *call, const char *name, PyObject *object, const char *absent, const char **out)
{
    const char *text;
    Py_ssize_t len;

    if (!object || object == Py_None) {
        *out = absent;
        return true;
    }
    if (!PyUnicode_Check(object))
        return wrong_type(call, name, -1, "str", object);
    text = PyUnicode_AsUTF8AndSize(object, &len);
    if (!text)
        return false;
    if (strlen(text) != (size_t)len) {
        PyErr_Format(PyExc_ValueError, "%s(): argument '%s' has a NUL inside", call, name);
        return false;
    }
    *out = text;
    return true;
}

static bool number(const char *call, const char *name, Py_ssize_t at, PyObject *object, uint64_t *out)
{
    PyObject *index = PyIndex_Check(object) ? PyNumber_Index(object) : NULL;

    if (!index)
        return PyErr_Occurred() ? false : wrong_type(call, name, at, "an integer", object);
    *out = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (*out == (uint64_t)-1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return false;
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError, "%s(): argument '%s' must be from 0 to 2**64 - 1", call, name);
        return false;
    }
    return true;
}

bool args_u64(const char *call, const char *name, PyObject *object, uint64_t *out)
{
    return number(call, name, -1, object, out);
}

/* Elements may run code of their own (__index__), which may change the sequence: each is fetched anew and held. */
bool args_u64s(const char *call, const char *name, PyObject *object, uint64_t **values, size_t *count)
{
    Py_ssize_t n;
    uint64_t *out;

    *values = NULL;
    *count = 0;
    if (!PySequence_Check(object) || PyUnicode_Check(object) || PyBytes_Check(object))
        return wrong_type(call, name, -1, "a sequence of integers", object);
    n = PySequence_Size(object);
    if (n < 0)
        return false;
    if (n == 0)
        return true;
    out = PyMem_Malloc((size_t)n * sizeof(*out));
    if (!out) {
        PyErr_NoMemory();
        return false;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_GetItem(object, i);
        bool fine = item && number(call, name, i, item, &out[i]);

        Py_XDECREF(item);
        if (!fine) {
            PyMem_Free(out);
            return false;
        }
    }
    *values = out;
    *count = (size_t)n;
    return true;
}
