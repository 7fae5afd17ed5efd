/* ranges.c - parts of objects: ranges into buffers, and the sessions that engines use layer by layer.
 *
 * A get session is a promise: starting one finds the objects and has them promised for the lease, as any probe does. A put session
 * is an object that is invisible until it is ended. */
#include <stdlib.h>
#include <string.h>

#include "store.h"

/* ---- get_into_ranges: [buffer][key][range] ---- */

/* One key into one buffer. Everything has at least as many numbers as sizes, or `fits` is false. */
struct piece {
    struct keys key;
    struct numbers dst, src, size;
    uint64_t buffer, room; /* room: 0, not known */
    int64_t *result;
    bool fits, absent; /* absent: no sizes at all were given for this key */
};

struct job {
    struct piece *piece;
    size_t n, max;
};

static PyObject *item(PyObject *tuple, size_t i)
{
    return i < (size_t)PyTuple_Size(tuple) ? PyTuple_GetItem(tuple, (Py_ssize_t)i) : NULL;
}

/* What stands at [i][k] of a nested argument; borrowed from `inner`, which is a new reference or NULL. */
static bool inner_take(PyObject *outer, size_t i, const char *what, PyObject **inner)
{
    PyObject *sequence = item(outer, i);

    *inner = sequence ? sequence_take(sequence, what) : PyTuple_New(0);
    return *inner != NULL;
}

static bool piece_add(struct job *job, uint64_t buffer, uint64_t room, PyObject *key, PyObject *const numbers[3])
{
    static const char *const what[3] = {"all_dst_offsets", "all_src_offsets", "all_sizes"};
    struct piece *piece, *more;

    if (job->n == job->max) {
        size_t max = job->max ? 2 * job->max : 16;

        more = realloc(job->piece, max * sizeof(*more));
        if (!more) {
            PyErr_NoMemory();
            return false;
        }
        for (size_t i = 0; i < job->n; i++) /* a single key points into itself */
            more[i].key.key = &more[i].key.one;
        job->piece = more;
        job->max = max;
    }
    piece = &job->piece[job->n++];
    *piece = (struct piece){.buffer = buffer, .room = room};
    if (!keys_take_one(key, "all_keys", &piece->key))
        return false;
    struct numbers *into[3] = {&piece->dst, &piece->src, &piece->size};
    for (int i = 0; i < 3; i++)
        if (numbers[i] && !numbers_take(numbers[i], what[i], into[i]))
            return false;
    piece->absent = !numbers[2];
    piece->fits = piece->dst.n == piece->size.n && piece->src.n == piece->size.n;
    piece->result = calloc(piece->size.n + 1, sizeof(*piece->result));
    if (!piece->result) {
        PyErr_NoMemory();
        return false;
    }
    return true;
}

static bool buffer_add(
    PyObject *self, struct job *job, uint64_t buffer, PyObject *const outer[4], size_t i, size_t *keys)
{
    static const char *const what[4] = {"all_keys", "all_dst_offsets", "all_src_offsets", "all_sizes"};
    PyObject *inner[4] = {NULL};
    size_t first = job->n;
    bool fits = true;
    uint64_t room = compat_registered(client_of(self), (void *)(uintptr_t)buffer);
    bool ok = true;

    for (int k = 0; ok && k < 4; k++)
        ok = inner_take(outer[k], i, what[k], &inner[k]);
    *keys = ok ? (size_t)PyTuple_Size(inner[0]) : 0;
    for (size_t k = 0; ok && k < *keys; k++) {
        PyObject *numbers[3] = {item(inner[1], k), item(inner[2], k), item(inner[3], k)};

        ok = piece_add(job, buffer, room, item(inner[0], k), numbers);
        fits = fits && ok && job->piece[job->n - 1].fits && numbers[0] && numbers[1] && numbers[2];
    }
    for (size_t k = first; k < job->n; k++) /* one wrong shape, and nothing of this buffer is read */
        job->piece[k].fits = fits;
    for (int k = 0; k < 4; k++)
        Py_XDECREF(inner[k]);
    return ok;
}

static void job_fini(struct job *job)
{
    for (size_t i = 0; i < job->n; i++) {
        keys_fini(&job->piece[i].key);
        numbers_fini(&job->piece[i].dst);
        numbers_fini(&job->piece[i].src);
        numbers_fini(&job->piece[i].size);
        free(job->piece[i].result);
    }
    free(job->piece);
}

static bool range_fits(const struct piece *piece, size_t i, uint64_t object)
{
    uint64_t dst = piece->dst.v[i], src = piece->src.v[i], size = piece->size.v[i];

    if (src > object || size > object - src)
        return false;
    return piece->room == 0 || (dst <= piece->room && size <= piece->room - dst);
}

/* The ranges of one piece that can be had become one read; the others keep their number. */
static struct mc_range *piece_ranges(struct piece *piece, int64_t object, uint32_t *n)
{
    struct mc_range *ranges = calloc(piece->size.n + 1, sizeof(*ranges));

    *n = 0;
    for (size_t i = 0; i < piece->size.n; i++) {
        bool fits = piece->fits && object >= 0 && range_fits(piece, i, (uint64_t)object);

        piece->result[i] = !piece->fits ? COMPAT_INVALID_PARAMS : object < 0 ? object : COMPAT_INVALID_PARAMS;
        if (!fits || !ranges)
            continue;
        piece->result[i] = COMPAT_OK; /* to be read */
        ranges[(*n)++] =
            (struct mc_range){piece->src.v[i], piece->size.v[i], (void *)(uintptr_t)(piece->buffer + piece->dst.v[i])};
    }
    return ranges;
}

static void piece_read(PyObject *self, struct piece *piece, int64_t object)
{
    uint32_t n;
    struct mc_range *ranges = piece_ranges(piece, object, &n);
    int64_t failed = COMPAT_OK;

    for (uint32_t at = 0; at < n && failed == COMPAT_OK; at += MC_RANGES_MAX) {
        struct compat_get get = {
            .key = piece->key.one, .ranges = ranges + at, .nranges = n - at < MC_RANGES_MAX ? n - at : MC_RANGES_MAX};

        compat_get(client_of(self), &get, 1);
        failed = get.result < 0 ? get.result : COMPAT_OK;
    }
    for (size_t i = 0; i < piece->size.n; i++)
        if (piece->result[i] == COMPAT_OK)
            piece->result[i] = failed < 0 ? failed : (int64_t)piece->size.v[i];
    free(ranges);
}

/* Without the GIL: how large each object is, then the reads. */
static bool job_run(PyObject *self, struct job *job)
{
    struct compat_key *keys = calloc(job->n + 1, sizeof(*keys));
    int64_t *objects = calloc(job->n + 1, sizeof(*objects));
    bool ok = keys && objects;

    for (size_t i = 0; ok && i < job->n; i++)
        keys[i] = job->piece[i].key.one;
    if (ok)
        compat_exists(client_of(self), keys, job->n, objects);
    for (size_t i = 0; ok && i < job->n; i++)
        piece_read(self, &job->piece[i], objects[i]);
    free(keys);
    free(objects);
    return ok;
}

static PyObject *piece_list(const struct piece *piece)
{
    if (piece->absent)
        return list_of_same(COMPAT_INVALID_PARAMS, 1);

    PyObject *list = PyList_New((Py_ssize_t)piece->size.n);

    for (size_t i = 0; list && i < piece->size.n; i++) {
        PyObject *number = PyLong_FromLongLong(piece->result[i]);

        if (!number || PyList_SetItem(list, (Py_ssize_t)i, number) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *job_list(const struct job *job, const size_t *keys, size_t buffers)
{
    PyObject *list = PyList_New((Py_ssize_t)buffers);
    size_t at = 0;

    for (size_t i = 0; list && i < buffers; i++) {
        PyObject *of_buffer = PyList_New((Py_ssize_t)keys[i]);

        for (size_t k = 0; of_buffer && k < keys[i]; k++) {
            PyObject *of_key = piece_list(&job->piece[at++]);

            if (!of_key || PyList_SetItem(of_buffer, (Py_ssize_t)k, of_key) < 0)
                Py_CLEAR(of_buffer);
        }
        if (!of_buffer || PyList_SetItem(list, (Py_ssize_t)i, of_buffer) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *get_into_ranges(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {
        "buffer_ptrs", "all_keys", "all_dst_offsets", "all_src_offsets", "all_sizes", NULL};
    PyObject *b, *given[4], *outer[4] = {NULL}, *list = NULL;
    struct numbers buffers = {0};
    struct job job = {0};
    size_t *keys = NULL;
    bool ok = arguments(args, kw, "OOOOO:get_into_ranges", names, &b, &given[0], &given[1], &given[2], &given[3]) &&
              numbers_take(b, "buffer_ptrs", &buffers);

    for (int i = 0; ok && i < 4; i++)
        ok = (outer[i] = sequence_take(given[i], names[i + 1])) != NULL;
    if (ok && (keys = calloc(buffers.n + 1, sizeof(*keys))) == NULL)
        ok = PyErr_NoMemory() != NULL;
    for (size_t i = 0; ok && i < buffers.n; i++)
        ok = buffer_add(self, &job, buffers.v[i], outer, i, &keys[i]);
    if (ok) {
        WITHOUT_GIL(ok = job_run(self, &job));
        list = ok ? job_list(&job, keys, buffers.n) : PyErr_NoMemory();
    }
    for (int i = 0; i < 4; i++)
        Py_XDECREF(outer[i]);
    free(keys);
    job_fini(&job);
    numbers_fini(&buffers);
    return list;
}

/* ---- sessions ---- */

/* Calls of sessions on what is not set up answer with an empty list; so does the existing one. */
static size_t entries_of(PyObject *self, size_t n)
{
    char name[COMPAT_HOST_MAX];
    int error;

    WITHOUT_GIL(error = compat_client_hostname(client_of(self), name));
    return error == COMPAT_OK ? n : 0;
}

typedef int each_fn(struct compat_client *client, const struct compat_key *key);

static void call_each(PyObject *self, const struct keys *keys, each_fn *fn, int *results)
{
    for (size_t i = 0; i < keys->n; i++)
        results[i] = fn(client_of(self), &keys->key[i]);
}

static PyObject *each(PyObject *self, PyObject *args, PyObject *kw, const char *format, each_fn *fn)
{
    static const char *const names[] = {"keys", NULL};
    struct keys keys = {0};
    PyObject *sequence, *list = NULL;
    int *results = NULL;

    if (arguments(args, kw, format, names, &sequence) && keys_take(sequence, "keys", &keys)) {
        results = calloc(keys.n + 1, sizeof(*results));
        if (results) {
            WITHOUT_GIL(call_each(self, &keys, fn, results));
            list = list_of_ints(results, entries_of(self, keys.n));
        } else {
            PyErr_NoMemory();
        }
    }
    free(results);
    keys_fini(&keys);
    return list;
}

static int found(struct compat_client *client, const struct compat_key *key)
{
    int64_t size;

    compat_exists(client, key, 1, &size);
    return size >= 0 ? COMPAT_OK : (int)size;
}

static int keep(struct compat_client *client, const struct compat_key *key)
{
    return compat_session_end(client, key, true);
}

static int give_up(struct compat_client *client, const struct compat_key *key)
{
    return compat_session_end(client, key, false);
}

static PyObject *batch_get_session_start(PyObject *self, PyObject *args, PyObject *kw)
{
    return each(self, args, kw, "O:batch_get_session_start", found);
}

static PyObject *batch_get_session_end(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", NULL};
    struct keys keys = {0};
    PyObject *sequence, *result = NULL;

    if (arguments(args, kw, "O:batch_get_session_end", names, &sequence) && keys_take(sequence, "keys", &keys))
        result = PyLong_FromLong(COMPAT_OK); /* promises end by themselves */
    keys_fini(&keys);
    return result;
}

static void begin_each(
    PyObject *self, const struct keys *keys, const struct numbers *sizes, const struct config *config, int *results)
{
    int error = sizes->n == keys->n ? config_error(config, keys->n) : COMPAT_INVALID_PARAMS;

    for (size_t i = 0; i < keys->n; i++)
        results[i] = error ? error : compat_session_begin(client_of(self), &keys->key[i], sizes->v[i], &config->c);
}

static PyObject *batch_put_session_start(PyObject *self, PyObject *args, PyObject *kw)
{
    static const char *const names[] = {"keys", "sizes", "config", NULL};
    PyObject *k, *s, *object = NULL, *list = NULL;
    struct keys keys = {0};
    struct numbers sizes = {0};
    struct config config = {.held_n = 0};
    int *results = NULL;

    if (arguments(args, kw, "OO|O:batch_put_session_start", names, &k, &s, &object) && keys_take(k, "keys", &keys) &&
        numbers_take(s, "sizes", &sizes) && config_take(object, "config", &config)) {
        results = calloc(keys.n + 1, sizeof(*results));
        if (results) {
            WITHOUT_GIL(begin_each(self, &keys, &sizes, &config, results));
            list = list_of_ints(results, entries_of(self, keys.n));
        } else {
            PyErr_NoMemory();
        }
    }
    free(results);
    config_fini(&config);
    numbers_fini(&sizes);
    keys_fini(&keys);
    return list;
}

/* The pieces of entry i as ranges; NULL: no memory. */
static struct mc_range *ranges_of(
    const struct nested *addresses, const struct nested *sizes, const struct nested *offsets, size_t i)
{
    size_t n = nested_count(addresses, i), first = addresses->first[i];
    struct mc_range *ranges = calloc(n + 1, sizeof(*ranges));

    for (size_t k = 0; ranges && k < n; k++)
        ranges[k] = (struct mc_range){
            offsets->all.v[first + k], sizes->all.v[first + k], (void *)(uintptr_t)addresses->all.v[first + k]};
    return ranges;
}

static bool same_shape(const struct keys *keys, const struct nested *a, const struct nested *b, const struct nested *c)
{
    if (a->n != keys->n || b->n != keys->n || c->n != keys->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (nested_count(a, i) != nested_count(b, i) || nested_count(a, i) != nested_count(c, i))
            return false;
    return true;
}

static int64_t read_ranges(
    struct compat_client *client, const struct compat_key *key, struct mc_range *ranges, size_t n)
{
    int64_t bytes = 0;

    for (size_t at = 0; at < n; at += MC_RANGES_MAX) {
        struct compat_get get = {
            .key = *key, .ranges = ranges + at, .nranges = (uint32_t)(n - at < MC_RANGES_MAX ? n - at : MC_RANGES_MAX)};

        compat_get(client, &get, 1);
        if (get.result < 0)
            return get.result;
        bytes += get.result;
    }
    return bytes;
}

/* Bytes, as reading gives them. */
static int64_t write_ranges(
    struct compat_client *client, const struct compat_key *key, struct mc_range *ranges, size_t n)
{
    int64_t result = compat_session_write(client, key, ranges, (uint32_t)n);

    for (size_t i = 0; result >= 0 && i < n; i++)
        result += (int64_t)ranges[i].len;
    return result;
}

/* What three lists of lists say of each key. */
struct pieces {
    struct nested addresses, sizes, offsets;
};

static int64_t pieces_move(
    PyObject *self, const struct compat_key *key, const struct pieces *pieces, size_t i, bool write)
{
    struct mc_range *ranges = ranges_of(&pieces->addresses, &pieces->sizes, &pieces->offsets, i);
    size_t n = nested_count(&pieces->addresses, i);
    int64_t result = COMPAT_INTERNAL;

    if (ranges)
        result = write ? write_ranges(client_of(self), key, ranges, n) : read_ranges(client_of(self), key, ranges, n);
    free(ranges);
    return result;
}

static PyObject *pieces_list(PyObject *self, const struct keys *keys, const struct pieces *pieces, bool write)
{
    bool fits = same_shape(keys, &pieces->addresses, &pieces->sizes, &pieces->offsets);
    size_t n = entries_of(self, keys->n);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list && i < n; i++) {
        int64_t result = COMPAT_INVALID_PARAMS;
        PyObject *number;

        if (fits)
            WITHOUT_GIL(result = pieces_move(self, &keys->key[i], pieces, i, write));
        number = PyLong_FromLongLong(result);
        if (!number || PyList_SetItem(list, (Py_ssize_t)i, number) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *ranges_each(
    PyObject *self, PyObject *args, PyObject *kw, const char *format, const char *offsets_name, bool write)
{
    const char *const names[] = {"keys", "all_buffer_ptrs", "all_sizes", offsets_name, NULL};
    PyObject *k, *b, *s, *o, *list = NULL;
    struct keys keys = {0};
    struct pieces pieces = {0};

    if (arguments(args, kw, format, names, &k, &b, &s, &o) && keys_take(k, "keys", &keys) &&
        nested_take(b, names[1], &pieces.addresses) && nested_take(s, names[2], &pieces.sizes) &&
        nested_take(o, names[3], &pieces.offsets))
        list = pieces_list(self, &keys, &pieces, write);
    nested_fini(&pieces.addresses);
    nested_fini(&pieces.sizes);
    nested_fini(&pieces.offsets);
    keys_fini(&keys);
    return list;
}

static PyObject *batch_get_into_multi_buffer_ranges(PyObject *self, PyObject *args, PyObject *kw)
{
    return ranges_each(self, args, kw, "OOOO:batch_get_into_multi_buffer_ranges", "all_src_offsets", false);
}

static PyObject *batch_put_from_multi_buffer_ranges(PyObject *self, PyObject *args, PyObject *kw)
{
    return ranges_each(self, args, kw, "OOOO:batch_put_from_multi_buffer_ranges", "all_dst_offsets", true);
}

static PyObject *batch_put_session_end(PyObject *self, PyObject *args, PyObject *kw)
{
    return each(self, args, kw, "O:batch_put_session_end", keep);
}

static PyObject *batch_put_session_revoke(PyObject *self, PyObject *args, PyObject *kw)
{
    return each(self, args, kw, "O:batch_put_session_revoke", give_up);
}

PyMethodDef store_ranges_methods[] = {
    {METHOD(get_into_ranges),
        DOC("get_into_ranges", "buffer_ptrs, all_keys, all_dst_offsets, all_src_offsets, all_sizes",
            "list[list[list[int]]]", "Ranges [buffer][key][range]; bytes or a negative number for each.")},
    {METHOD(batch_get_session_start), DOC("batch_get_session_start", "keys", "list[int]",
                                          "0 for what is there and promised from now on for the lease.")},
    {METHOD(batch_get_into_multi_buffer_ranges),
        DOC("batch_get_into_multi_buffer_ranges", "keys, all_buffer_ptrs, all_sizes, all_src_offsets", "list[int]",
            "Bytes, or a negative number.")},
    {METHOD(batch_get_session_end), DOC("batch_get_session_end", "keys", "int", "0.")},
    {METHOD(batch_put_session_start), DOC("batch_put_session_start", "keys, sizes, config=None", "list[int]",
                                          "Begin objects that are written in pieces.")},
    {METHOD(batch_put_from_multi_buffer_ranges),
        DOC("batch_put_from_multi_buffer_ranges", "keys, all_buffer_ptrs, all_sizes, all_dst_offsets", "list[int]",
            "Write pieces; none twice.")},
    {METHOD(batch_put_session_end),
        DOC("batch_put_session_end", "keys", "list[int]", "Make them visible, when they are whole.")},
    {METHOD(batch_put_session_revoke), DOC("batch_put_session_revoke", "keys", "list[int]", "Give them up.")},
    {NULL, NULL, 0, NULL},
};
