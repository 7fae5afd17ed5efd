/* args.h - arguments of Python calls as C values, with errors that name the argument.
 *
 * What the existing package takes is taken: any object with __index__ as a number, any sequence but str and bytes as a list of
 * numbers. Everything else is a TypeError "call(): argument 'lengths' [3] must be an integer, not float".
 *
 *     static char *names[] = {"target_hostname", "length", "transport_hint", NULL};
 *     PyObject *given[3] = {NULL};
 *     if (!args_bind("transfer", args, kwargs, names, 2, given) || !args_u64("transfer", names[1], given[1], &length))
 *         return NULL;
 *
 * Threads: with the GIL. */
#ifndef PYTHON_ARGS_H
#define PYTHON_ARGS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARGS_MAX 16

/* Positional and keyword arguments in the order of `names` (ends with NULL); the first `required` must be there, others stay NULL.
 * Borrowed. False: a TypeError that names the argument is set. */
bool args_bind(
    const char *call, PyObject *args, PyObject *kwargs, const char *const *names, int required, PyObject **given);

/* UTF-8, lent as long as the object lives; NULL and None give `absent`. A NUL inside is a ValueError. */
bool args_text(const char *call, const char *name, PyObject *object, const char *absent, const char **out);

/* 0 to 2^64 - 1. */
bool args_u64(const char *call, const char *name, PyObject *object, uint64_t *out);

/* As args_u64() each; *values is given (PyMem_Free), NULL when there is none. */
bool args_u64s(const char *call, const char *name, PyObject *object, uint64_t **values, size_t *count);

#endif
