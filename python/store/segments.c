/* segments.c - memory that a client gives to the pool beside that of setup(). */
#include "store.h"

/* What there is now, or the number for why there is nothing. */
static PyObject *mounted(int error, const char *id, uint64_t size)
{
    static const char with[] = "{s:i, s:[s], s:K}", without[] = "{s:i, s:[], s:i}";

    return error ? Py_BuildValue(without, "ret", error, "segment_ids", "allocated_size", 0)
                 : Py_BuildValue(with, "ret", 0, "segment_ids", id, "allocated_size", (unsigned long long)size);
}

static PyObject *allocate_and_mount_segment(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"size", "protocol", "location", NULL};
    PyObject *object;
    const char *protocol = "tcp", *location = ""; /* as setup() said, and anywhere */
    char id[COMPAT_SEGMENT_ID];
    uint64_t size;
    int error;

    if (!arguments(args, kw, "O|ss:allocate_and_mount_segment", names, &object, &protocol, &location) ||
        !number_take(object, "size", &size))
        return NULL;
    WITHOUT_GIL(error = compat_segment_mount(client_of(self), NULL, size, id));
    return mounted(error, id, size);
}

static PyObject *mount_segment(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"path", "size", "offset", "protocol", "location", NULL};
    PyObject *number, *offset = NULL;
    const char *protocol = "tcp", *location = ""; /* as above */
    struct compat_file file = {0};
    char id[COMPAT_SEGMENT_ID];
    uint64_t size;
    int error;

    if (!arguments(args, kw, "sO|Oss:mount_segment", names, &file.path, &number, &offset, &protocol, &location) ||
        !number_take(number, "size", &size) || (offset && !number_take(offset, "offset", &file.offset)))
        return NULL;
    if (size == 0) /* as the existing one */
        return Py_BuildValue("{s:i, s:[]}", "ret", 0, "segment_ids");
    WITHOUT_GIL(error = compat_segment_mount(client_of(self), &file, size, id));
    return error ? Py_BuildValue("{s:i, s:[]}", "ret", error, "segment_ids")
                 : Py_BuildValue("{s:i, s:[s]}", "ret", 0, "segment_ids", id);
}

/* The first failure of the ids in order, or 0; the others go nevertheless. */
static int unmount_all(PyObject *self, const struct keys *ids, uint32_t grace_s)
{
    int first = COMPAT_OK;

    for (size_t i = 0; i < ids->n; i++) {
        int error;

        WITHOUT_GIL(error = compat_segment_unmount(client_of(self), ids->key[i].name, grace_s));
        first = first ? first : error;
    }
    return first;
}

static PyObject *unmount(PyObject *self, PyObject *args, PyObject *kw, const char *format)
{
    static const char *const names[] = {"segment_ids", "grace_period_seconds", NULL};
    PyObject *list, *grace = NULL, *result = NULL;
    struct keys ids = {0};
    uint64_t seconds = 0;

    if (arguments(args, kw, format, names, &list, &grace) && keys_take(list, "segment_ids", &ids) &&
        (!grace || number_take(grace, "grace_period_seconds", &seconds)))
        result = PyLong_FromLong(unmount_all(self, &ids, seconds < 86400 ? (uint32_t)seconds : 86400));
    keys_fini(&ids);
    return result;
}

static PyObject *unmount_and_free_segment(PyObject *self, PyObject *args, PyObject *kw)
{
    return unmount(self, args, kw, "O|O:unmount_and_free_segment");
}

static PyObject *unmount_segment(PyObject *self, PyObject *args, PyObject *kw)
{
    return unmount(self, args, kw, "O|O:unmount_segment");
}

PyMethodDef store_segments_methods[] = {
    {METHOD(allocate_and_mount_segment), DOC("allocate_and_mount_segment", "size, protocol='tcp', location=''", "dict",
                                             "Give that much memory more to the pool: {'ret': 0 or a negative number, "
                                             "'segment_ids': [id], 'allocated_size': size}.")},
    {METHOD(mount_segment), DOC("mount_segment", "path, size, offset=0, protocol='tcp', location=''", "dict",
                                "Give a piece of a file, e.g. of /dev/shm, to the pool: {'ret': 0 or a negative "
                                "number, 'segment_ids': [id]}. Nobody else may write to it or cut it meanwhile.")},
    {METHOD(unmount_and_free_segment),
        DOC("unmount_and_free_segment", "segment_ids, grace_period_seconds=0", "int",
            "Take memory back, with what lies in it; readable for the time of grace. 0, or -1: no such segment.")},
    {METHOD(unmount_segment),
        DOC("unmount_segment", "segment_ids, grace_period_seconds=0", "int", "As unmount_and_free_segment().")},
    {NULL, NULL, 0, NULL},
};
