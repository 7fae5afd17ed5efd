/* store.h - the extension module mooncake.store: what its files share.
 *
 *     module.c     the module, its types, what belongs to no object
 *     args.c       arguments: keys, addresses, sizes, lists of lists, buffers, configs
 *     config.c     ReplicateConfig
 *     buffer.c     BufferHandle, MooncakeHostMemAllocator
 *     life.c       setup, close, probes, removal, replicas
 *     bytes.c      put and get of bytes and buffers
 *     direct.c     put from and get into addresses
 *     ranges.c     parts of objects, sessions
 *     segments.c   more memory for the pool
 *     missing.c    what the existing class has and this one not yet
 *
 * A method takes its arguments apart, holds what must not go away, releases the GIL, calls compat/store, takes it again and
 * makes Python objects of the result. What is lent to the call (names, buffers, a config's strings) is held by references of our
 * own, so that another thread may change the caller's lists meanwhile. Addresses are numbers; nobody can hold them.
 *
 * Over the limited API of CPython 3.11: one file serves all later versions. Threads: any, as compat_client. */
#ifndef PYTHON_STORE_H
#define PYTHON_STORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdatomic.h>
#include <stdbool.h>

#include "compat/store/client.h"

struct store_object {
    PyObject ob_base;
    struct compat_client *client;
    PyObject *engine;      /* setup(engine=...): kept alive, nothing else is wanted of it */
    _Atomic uint64_t hint; /* size of the last object read: what get() makes room for before it knows better */
};

static inline struct compat_client *client_of(PyObject *self)
{
    return ((struct store_object *)self)->client;
}

/* Run one statement while other threads of Python may run. */
#define WITHOUT_GIL(statement)                                                                                         \
    do {                                                                                                               \
        PyThreadState *gil_ = PyEval_SaveThread();                                                                     \
        statement;                                                                                                     \
        PyEval_RestoreThread(gil_);                                                                                    \
    } while (0)

/* First line: for inspect.signature(). Then what help() and probes of __doc__ see. */
#define DOC(name, args, returns, text) name "($self, " args ")\n--\n\n" name "(self, " args ") -> " returns "\n\n" text
#define DOC0(name, returns, text)      name "($self)\n--\n\n" name "(self) -> " returns "\n\n" text
#define TEXT(text)                     (void *)(uintptr_t)(text) /* slots are not const */
#define METHOD(name)                   #name, (PyCFunction)(void (*)(void))name, METH_VARARGS | METH_KEYWORDS
#define METHOD0(name)                  #name, (PyCFunction)(void (*)(void))name, METH_NOARGS

extern PyMethodDef store_life_methods[], store_bytes_methods[], store_direct_methods[], store_ranges_methods[],
    store_segments_methods[], store_missing_methods[];

/* ---- args.c ---- */

/* PyArg_ParseTupleAndKeywords() with names that are constant. */
bool arguments(PyObject *args, PyObject *kw, const char *format, const char *const *names, ...);

/* Several keys, or one. `held` keeps the strings. Zeroed is empty; fini always. */
struct keys {
    PyObject *held;
    struct compat_key *key;
    struct compat_key one;
    size_t n;
};
/* A sequence of str or bytes. False: TypeError naming `what`. */
bool keys_take(PyObject *sequence, const char *what, struct keys *out);
bool keys_take_one(PyObject *text, const char *what, struct keys *out);
void keys_fini(struct keys *keys);

/* Addresses or sizes: numbers from 0 to 2^64 - 1, everything with __index__. */
struct numbers {
    uint64_t *v;
    size_t n;
};
bool number_take(PyObject *value, const char *what, uint64_t *out);
bool numbers_take(PyObject *sequence, const char *what, struct numbers *out);
void numbers_fini(struct numbers *numbers);

/* A list of lists of them: those of entry i are v[first[i]] to v[first[i + 1] - 1]. */
struct nested {
    struct numbers all;
    size_t *first;
    size_t n;
};
bool nested_take(PyObject *sequence, const char *what, struct nested *out);
void nested_fini(struct nested *nested);
static inline size_t nested_count(const struct nested *nested, size_t i)
{
    return nested->first[i + 1] - nested->first[i];
}

/* Buffers of bytes-like objects as spans. */
struct buffers {
    Py_buffer *view;
    struct mc_span *span;
    size_t n, max;
};
/* `parts`: one dimension of single bytes, or RuntimeError. The others: anything contiguous, or TypeError. */
bool buffers_take(PyObject *const *objects, size_t n, const char *what, bool parts, struct buffers *out);
void buffers_fini(struct buffers *buffers);

/* A tuple of the same elements; NULL and TypeError for what is no sequence, or text. New reference. */
PyObject *sequence_take(PyObject *sequence, const char *what);

PyObject *list_of_ints(const int *v, size_t n);
PyObject *list_of_same(int value, size_t n);

/* ---- config.c ---- */

/* What a put was told, as it was when the call began. */
struct config {
    struct compat_config c;
    const char *names[32];
    PyObject *held[32];
    size_t held_n;
    PyObject *ids; /* of groups, a list; NULL: none */
    size_t ids_n;
    const char **groups; /* their texts, of c */
    int error;           /* != 0: the call's result, nothing is done */
};
extern PyType_Spec config_spec;
bool config_take(PyObject *config, const char *what, struct config *out); /* NULL and None: the default */
void config_fini(struct config *config);
/* 0, or what every one of `keys` entries gets: ids of groups come one per key. */
int config_error(const struct config *config, size_t keys);

/* ---- buffer.c ---- */

extern PyType_Spec handle_spec, window_spec, allocator_spec;
PyObject *handle_new(uint64_t size); /* uninitialised bytes */
void *handle_data(PyObject *handle);

/* ---- module.c: types of this module, borrowed ---- */

PyObject *type_config(void);
PyObject *type_handle(void);
PyObject *type_named(const char *name); /* of mooncake._types */

#endif
