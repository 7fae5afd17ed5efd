/* args.c - arguments of methods, taken apart. See store.h.
 *
 * As the existing binding does: any sequence that is not text will do for a list, anything with __index__ for a number; floats,
 * negative numbers and wrong shapes are a TypeError, which here also names the argument. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

bool arguments(PyObject *args, PyObject *kw, const char *format, const char *const *names, ...)
{
    va_list into;
    int ok;

    va_start(into, names);
    ok = PyArg_VaParseTupleAndKeywords(args, kw, format, (char **)(uintptr_t)names, into);
    va_end(into);
    return ok;
}

PyObject *sequence_take(PyObject *sequence, const char *what)
{
    if (PyUnicode_Check(sequence) || PyBytes_Check(sequence) || !PySequence_Check(sequence)) {
        PyErr_Format(PyExc_TypeError, "argument '%s' must be a sequence, not %R", what, (PyObject *)Py_TYPE(sequence));
        return NULL;
    }
    return PySequence_Tuple(sequence);
}

/* ---- keys ---- */

static bool key_of(PyObject *text, const char *what, struct compat_key *key)
{
    Py_ssize_t len;
    char *bytes;

    if (PyUnicode_Check(text)) {
        key->name = PyUnicode_AsUTF8AndSize(text, &len); /* lives as long as the string */
        if (!key->name)
            return false;
    } else if (PyBytes_Check(text)) {
        if (PyBytes_AsStringAndSize(text, &bytes, &len) < 0)
            return false;
        key->name = bytes;
    } else {
        PyErr_Format(PyExc_TypeError, "argument '%s' must be str, not %R", what, (PyObject *)Py_TYPE(text));
        return false;
    }
    key->len = (size_t)len;
    return true;
}

bool keys_take_one(PyObject *text, const char *what, struct keys *out)
{
    *out = (struct keys){.n = 1};
    if (!key_of(text, what, &out->one))
        return false;
    Py_INCREF(text);
    out->held = text;
    out->key = &out->one;
    return true;
}

bool keys_take(PyObject *sequence, const char *what, struct keys *out)
{
    *out = (struct keys){.held = sequence_take(sequence, what)};
    if (!out->held)
        return false;
    out->n = (size_t)PyTuple_Size(out->held);
    out->key = malloc((out->n + 1) * sizeof(*out->key));
    if (!out->key) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < out->n; i++)
        if (!key_of(PyTuple_GetItem(out->held, (Py_ssize_t)i), what, &out->key[i]))
            return false;
    return true;
}

void keys_fini(struct keys *keys)
{
    if (keys->key != &keys->one)
        free(keys->key);
    Py_XDECREF(keys->held);
    keys->held = NULL;
    keys->key = NULL;
}

/* ---- numbers ---- */

bool number_take(PyObject *value, const char *what, uint64_t *out)
{
    PyObject *index = PyNumber_Index(value);

    if (index) {
        *out = PyLong_AsUnsignedLongLong(index);
        Py_DECREF(index);
    }
    if (!PyErr_Occurred())
        return true;
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "argument '%s' must be integers from 0 on, not %R", what, value);
    return false;
}

static bool numbers_append(PyObject *tuple, const char *what, struct numbers *out)
{
    size_t more = (size_t)PyTuple_Size(tuple);
    uint64_t *v = realloc(out->v, (out->n + more + 1) * sizeof(*v));

    if (!v) {
        PyErr_NoMemory();
        return false;
    }
    out->v = v;
    for (size_t i = 0; i < more; i++)
        if (!number_take(PyTuple_GetItem(tuple, (Py_ssize_t)i), what, &out->v[out->n++]))
            return false;
    return true;
}

bool numbers_take(PyObject *sequence, const char *what, struct numbers *out)
{
    PyObject *tuple = sequence_take(sequence, what);
    bool ok;

    *out = (struct numbers){0};
    if (!tuple)
        return false;
    ok = numbers_append(tuple, what, out);
    Py_DECREF(tuple);
    return ok;
}

void numbers_fini(struct numbers *numbers)
{
    free(numbers->v);
    numbers->v = NULL;
}

bool nested_take(PyObject *sequence, const char *what, struct nested *out)
{
    PyObject *outer = sequence_take(sequence, what);
    bool ok = outer != NULL;

    *out = (struct nested){0};
    if (!outer)
        return false;
    out->n = (size_t)PyTuple_Size(outer);
    out->first = calloc(out->n + 1, sizeof(*out->first));
    if (!out->first) {
        PyErr_NoMemory();
        ok = false;
    }
    for (size_t i = 0; ok && i < out->n; i++) {
        PyObject *inner = sequence_take(PyTuple_GetItem(outer, (Py_ssize_t)i), what);

        ok = inner && numbers_append(inner, what, &out->all);
        out->first[i + 1] = out->all.n;
        Py_XDECREF(inner);
    }
    Py_DECREF(outer);
    return ok;
}

void nested_fini(struct nested *nested)
{
    numbers_fini(&nested->all);
    free(nested->first);
    nested->first = NULL;
}

/* ---- buffers ---- */

/* What is not contiguous is copied into something that is; the view keeps that alive. */
static int buffer_get(PyObject *object, int flags, Py_buffer *view)
{
    PyObject *copy;
    int result = PyObject_GetBuffer(object, view, flags);

    if (result == 0 || flags != PyBUF_SIMPLE || !PyErr_ExceptionMatches(PyExc_BufferError))
        return result;
    PyErr_Clear();
    copy = PyMemoryView_GetContiguous(object, PyBUF_READ, 'C');
    result = copy ? PyObject_GetBuffer(copy, view, flags) : -1;
    Py_XDECREF(copy);
    return result;
}

static bool buffer_take(PyObject *object, const char *what, bool part, Py_buffer *view)
{
    if (buffer_get(object, part ? PyBUF_FULL_RO : PyBUF_SIMPLE, view) < 0) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            PyErr_Format(
                PyExc_TypeError, "argument '%s' must be bytes-like, not %R", what, (PyObject *)Py_TYPE(object));
        }
        return false;
    }
    if (part && (view->ndim > 1 || view->itemsize != 1 || !PyBuffer_IsContiguous(view, 'C'))) {
        PyErr_Format(PyExc_RuntimeError, "argument '%s': each must be one dimension of single bytes", what);
        PyBuffer_Release(view);
        return false;
    }
    return true;
}

bool buffers_take(PyObject *const *objects, size_t n, const char *what, bool parts, struct buffers *out)
{
    *out = (struct buffers){.view = calloc(n + 1, sizeof(*out->view)), .span = calloc(n + 1, sizeof(*out->span))};
    if (!out->view || !out->span) {
        PyErr_NoMemory();
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (!buffer_take(objects[i], what, parts, &out->view[i]))
            return false;
        out->n++;
        out->span[i] = (struct mc_span){out->view[i].buf, (uint64_t)out->view[i].len};
    }
    return true;
}

void buffers_fini(struct buffers *buffers)
{
    for (size_t i = 0; i < buffers->n; i++)
        PyBuffer_Release(&buffers->view[i]);
    free(buffers->view);
    free(buffers->span);
    *buffers = (struct buffers){0};
}

/* ---- results ---- */

PyObject *list_of_ints(const int *v, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list && i < n; i++) {
        PyObject *item = PyLong_FromLong(v[i]);

        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

PyObject *list_of_same(int value, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list && i < n; i++) {
        PyObject *item = PyLong_FromLong(value);

        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}
