/* gguf.c - index over the header and metadata of a GGUF model file; every byte is treated as hostile.
 *
 *   magic "GGUF" | u32 version | u64 tensors | u64 entries
 *   entry:   u64 key length, key | u32 type | value        (array: u32 element type | u64 count | elements)
 *   tensor:  u64 name length, name | u32 dims | dims x u64 | u32 type | u64 offset
 *   padding to general.alignment | tensor data
 *
 * One pass through the base's cursor builds a sorted table of entries; nothing is copied. Bounds: an entry takes at least
 * 13 bytes and a tensor 24, so a count that cannot fit in what is left is refused before it allocates; sorting makes the
 * search for duplicate keys n log n. The inference library reads the same file later with less suspicion, which is why
 * tensor extents are checked here too.
 *
 * Threads: immutable after parse. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "kvcache/errtext.h"
#include "kvcache/gguf.h"

enum {
    ENTRIES_MAX = 65536, /* files in the wild have 20 to 60 */
    TENSORS_MAX = 65536, /* the largest mixture-of-experts files have about 2,000 */
    KEY_SIZE_MAX = 65535,
    TENSOR_DIMS_MAX = 4,
    ENTRY_SIZE_MIN = 8 + 4 + 1,
    TENSOR_SIZE_MIN = 8 + 4 + 4 + 8,
};

struct entry {
    struct slice key;
    enum mc_gguf_type type;
    enum mc_gguf_type element; /* of an array */
    uint64_t count;            /* of an array */
    const uint8_t *value;      /* of an array: its first element; of a string: its bytes */
    size_t size;               /* of value */
    const uint8_t *begin;      /* of the whole entry, for hashing in file order */
    size_t length;
};

struct mc_gguf {
    struct entry *entries; /* sorted by key */
    size_t entry_count;
    uint64_t tensor_count;
    void *map; /* ours to unmap, or NULL */
    size_t map_size;
};

/* State of one parse: what to say when it fails. */
struct parse {
    struct cur cur;
    const uint8_t *begin;
    char *err;
    size_t err_size;
};

static enum mc_status fail(struct parse *parse, const char *format, ...) __attribute__((format(printf, 2, 3)));
static enum mc_status fail(struct parse *parse, const char *format, ...)
{
    char what[256];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    /* keys come from the file: keep the message one printable line */
    for (char *c = what; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f)
            *c = '?';
    errtext(parse->err, parse->err_size, "gguf: %s (at offset %zu)", what, (size_t)(parse->cur.at - parse->begin));
    return MC_EPROTO;
}

static size_t scalar_size(enum mc_gguf_type type)
{
    switch (type) {
    case MC_GGUF_U8:
    case MC_GGUF_I8:
    case MC_GGUF_BOOL: return 1;
    case MC_GGUF_U16:
    case MC_GGUF_I16: return 2;
    case MC_GGUF_U32:
    case MC_GGUF_I32:
    case MC_GGUF_F32: return 4;
    case MC_GGUF_U64:
    case MC_GGUF_I64:
    case MC_GGUF_F64: return 8;
    case MC_GGUF_STRING:
    case MC_GGUF_ARRAY: return 0;
    }
    return 0;
}

/* u64 length then bytes. The length is compared with what is left before it is used for anything. */
static enum mc_status read_string(struct parse *parse, const char *what, uint64_t index, struct slice *text)
{
    uint64_t length = cur_u64(&parse->cur, what);

    if (cur_status(&parse->cur) != MC_OK)
        return fail(parse, "%s %llu: cut off in its length", what, (unsigned long long)index);
    if (length > cur_left(&parse->cur))
        return fail(parse, "%s %llu: string of %llu bytes passes the end of the data", what, (unsigned long long)index,
            (unsigned long long)length);
    *text = slice_of(parse->cur.at, (size_t)length); /* never NULL, also for an empty string */
    cur_bytes(&parse->cur, (size_t)length, what);
    return MC_OK;
}

static enum mc_status read_array(struct parse *parse, struct entry *entry, const char *name)
{
    uint32_t element = cur_u32(&parse->cur, "element type");
    uint64_t count = cur_u64(&parse->cur, "element count");
    struct slice text;

    if (cur_status(&parse->cur) != MC_OK)
        return fail(parse, "%s: array cut off in its head", name);
    if (element > MC_GGUF_F64 || element == MC_GGUF_ARRAY)
        return fail(parse, "%s: array of unknown element type %u", name, element);
    entry->element = (enum mc_gguf_type)element;
    entry->count = count;
    entry->value = parse->cur.at;
    size_t size = scalar_size(entry->element);
    if (size) {
        if (count > cur_left(&parse->cur) / size)
            return fail(
                parse, "%s: array of %llu elements passes the end of the data", name, (unsigned long long)count);
        cur_bytes(&parse->cur, (size_t)count * size, "array");
    } else {
        if (count > cur_left(&parse->cur) / 8)
            return fail(parse, "%s: array of %llu strings passes the end of the data", name, (unsigned long long)count);
        for (uint64_t i = 0; i < count; i++) {
            enum mc_status st = read_string(parse, name, i, &text);

            if (st != MC_OK)
                return st;
        }
    }
    entry->size = (size_t)(parse->cur.at - entry->value);
    return MC_OK;
}

static enum mc_status read_entry(struct parse *parse, uint64_t index, struct entry *entry)
{
    char name[160];
    struct slice text = {0};
    enum mc_status st;

    entry->begin = parse->cur.at;
    st = read_string(parse, "metadata entry", index, &entry->key);
    if (st != MC_OK)
        return st;
    if (entry->key.len == 0 || entry->key.len > KEY_SIZE_MAX || memchr(entry->key.ptr, 0, entry->key.len))
        return fail(
            parse, "metadata entry %llu: key of %zu bytes is no key", (unsigned long long)index, entry->key.len);
    snprintf(name, sizeof name, "metadata entry %llu '%.*s'", (unsigned long long)index,
        (int)(entry->key.len < 96 ? entry->key.len : 96), (const char *)entry->key.ptr);

    uint32_t type = cur_u32(&parse->cur, "type");
    if (cur_status(&parse->cur) != MC_OK)
        return fail(parse, "%s: cut off before its type", name);
    if (type > MC_GGUF_F64)
        return fail(parse, "%s: unknown type %u", name, type);
    entry->type = (enum mc_gguf_type)type;
    if (type == MC_GGUF_ARRAY) {
        st = read_array(parse, entry, name);
    } else if (type == MC_GGUF_STRING) {
        st = read_string(parse, name, 0, &text);
        if (st == MC_OK) {
            entry->value = text.ptr;
            entry->size = text.len;
        }
    } else {
        text = cur_bytes(&parse->cur, scalar_size(entry->type), "value");
        if (cur_status(&parse->cur) != MC_OK)
            return fail(parse, "%s: cut off in its value", name);
        entry->value = text.ptr;
        entry->size = text.len;
        if (type == MC_GGUF_BOOL && text.ptr[0] > 1)
            return fail(parse, "%s: bool of value %u", name, text.ptr[0]);
    }
    entry->length = (size_t)(parse->cur.at - entry->begin);
    return st;
}

static int key_compare(struct slice a, struct slice b)
{
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int entry_compare(const void *a, const void *b)
{
    return key_compare(((const struct entry *)a)->key, ((const struct entry *)b)->key);
}

static const struct entry *find(const struct mc_gguf *gguf, const char *key)
{
    struct entry wanted = {.key = slice_str(key)};

    if (gguf->entry_count == 0)
        return NULL;
    return bsearch(&wanted, gguf->entries, gguf->entry_count, sizeof wanted, entry_compare);
}

static enum mc_status read_entries(struct parse *parse, struct mc_gguf *gguf, uint64_t count)
{
    if (count > ENTRIES_MAX || count > cur_left(&parse->cur) / ENTRY_SIZE_MIN)
        return fail(parse, "header field entry count: %llu cannot be", (unsigned long long)count);
    gguf->entries = calloc(count ? count : 1, sizeof *gguf->entries);
    if (!gguf->entries)
        return MC_ENOMEM;
    for (uint64_t i = 0; i < count; i++) {
        enum mc_status st = read_entry(parse, i, &gguf->entries[i]);

        if (st != MC_OK)
            return st;
        gguf->entry_count++;
    }
    qsort(gguf->entries, gguf->entry_count, sizeof *gguf->entries, entry_compare);
    for (size_t i = 1; i < gguf->entry_count; i++)
        if (entry_compare(&gguf->entries[i - 1], &gguf->entries[i]) == 0)
            return fail(parse, "metadata key '%.*s' comes twice",
                (int)(gguf->entries[i].key.len < 96 ? gguf->entries[i].key.len : 96),
                (const char *)gguf->entries[i].key.ptr);
    return MC_OK;
}

/* Elements and bytes of one pack of a ggml type; {0, 0} for types this table does not know: their length is not checked. */
static void tensor_pack(uint32_t type, uint64_t *elements, uint64_t *size)
{
    static const uint16_t packs[][3] = {{0, 1, 4}, {1, 1, 2}, {2, 32, 18}, {3, 32, 20}, {6, 32, 22}, {7, 32, 24},
        {8, 32, 34}, {9, 32, 36}, {10, 256, 84}, {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210},
        {15, 256, 292}, {24, 1, 1}, {25, 1, 2}, {26, 1, 4}, {27, 1, 8}, {28, 1, 8}, {30, 1, 2}};

    *elements = *size = 0;
    for (size_t i = 0; i < sizeof packs / sizeof packs[0]; i++)
        if (packs[i][0] == type) {
            *elements = packs[i][1];
            *size = packs[i][2];
        }
}

struct tensor {
    struct slice name;
    uint64_t elements;
    uint32_t type;
    uint64_t offset;
};

/* Bytes of a tensor's data, 0 if its type is unknown; false if its shape cannot be. */
static bool tensor_size(const struct tensor *tensor, uint64_t *size)
{
    uint64_t pack_elements, pack_size;

    tensor_pack(tensor->type, &pack_elements, &pack_size);
    *size = 0;
    if (pack_elements == 0)
        return true;
    return tensor->elements % pack_elements == 0 &&
           !__builtin_mul_overflow(tensor->elements / pack_elements, pack_size, size);
}

static enum mc_status read_tensor(struct parse *parse, uint64_t index, uint64_t alignment, struct tensor *tensor)
{
    unsigned long long n = (unsigned long long)index;
    enum mc_status st = read_string(parse, "tensor", index, &tensor->name);

    if (st != MC_OK)
        return st;
    uint32_t dims = cur_u32(&parse->cur, "dims");
    if (cur_status(&parse->cur) != MC_OK || dims > TENSOR_DIMS_MAX)
        return fail(parse, "tensor %llu: field dims: %u, at most %d are possible", n, dims, TENSOR_DIMS_MAX);
    tensor->elements = 1;
    for (uint32_t d = 0; d < dims; d++) {
        uint64_t extent = cur_u64(&parse->cur, "extent");

        if (extent == 0 || extent >> 62 || __builtin_mul_overflow(tensor->elements, extent, &tensor->elements))
            return fail(parse, "tensor %llu: extent %u of %llu cannot be", n, d, (unsigned long long)extent);
    }
    tensor->type = cur_u32(&parse->cur, "type");
    tensor->offset = cur_u64(&parse->cur, "offset");
    if (cur_status(&parse->cur) != MC_OK)
        return fail(parse, "tensor %llu: cut off", n);
    if (tensor->offset % alignment)
        return fail(parse, "tensor %llu: field offset: %llu is no multiple of the alignment", n,
            (unsigned long long)tensor->offset);
    return MC_OK;
}

/* Walk the tensor list twice: lengths can be compared with the file's end only once the list's own end is known. */
static enum mc_status read_tensors(struct parse *parse, const struct mc_gguf *gguf, uint64_t file_size)
{
    struct cur list = parse->cur;
    uint64_t alignment = 32, data_begin, size;
    struct tensor tensor;
    enum mc_status st;

    if (gguf->tensor_count > TENSORS_MAX || gguf->tensor_count > cur_left(&parse->cur) / TENSOR_SIZE_MIN)
        return fail(parse, "header field tensor count: %llu cannot be", (unsigned long long)gguf->tensor_count);
    st = mc_gguf_u64(gguf, "general.alignment", &alignment);
    if (st == MC_EMISMATCH || alignment == 0 || alignment > 1 << 20 || (alignment & (alignment - 1)))
        return fail(parse, "metadata 'general.alignment': no power of two up to 2^20");
    for (uint64_t i = 0; i < gguf->tensor_count; i++) {
        st = read_tensor(parse, i, alignment, &tensor);
        if (st != MC_OK)
            return st;
        if (!tensor_size(&tensor, &size))
            return fail(parse, "tensor %llu: shape does not fit type %u", (unsigned long long)i, tensor.type);
    }
    data_begin = (uint64_t)(parse->cur.at - parse->begin);
    data_begin = (data_begin + alignment - 1) / alignment * alignment;
    if (gguf->tensor_count && data_begin > file_size)
        return fail(parse, "tensor data begins at %llu, the file ends at %llu", (unsigned long long)data_begin,
            (unsigned long long)file_size);
    parse->cur = list;
    for (uint64_t i = 0; i < gguf->tensor_count; i++) {
        read_tensor(parse, i, alignment, &tensor);
        tensor_size(&tensor, &size);
        if (tensor.offset > file_size - data_begin || size > file_size - data_begin - tensor.offset)
            return fail(parse, "tensor %llu: data of %llu bytes at offset %llu pass the end of the file",
                (unsigned long long)i, (unsigned long long)size, (unsigned long long)tensor.offset);
    }
    return MC_OK;
}

enum mc_status mc_gguf_parse(
    const void *data, size_t size, uint64_t file_size, struct mc_gguf **gguf, char *err, size_t err_size)
{
    struct parse parse = {.cur = cur_of(data, size), .begin = data, .err = err, .err_size = err_size};
    struct mc_gguf *out;
    enum mc_status st;

    uint32_t magic = cur_u32(&parse.cur, "magic");
    uint32_t version = cur_u32(&parse.cur, "version");
    uint64_t tensors = cur_u64(&parse.cur, "tensor count");
    uint64_t entries = cur_u64(&parse.cur, "entry count");

    if (size >= 4 && magic != 0x46554747) /* "GGUF" */
        return fail(&parse, "field magic: 0x%08x, this is no GGUF file", magic);
    if (cur_status(&parse.cur) != MC_OK)
        return fail(&parse, "header field %s: the data ends in it", parse.cur.bad);
    if (version != 2 && version != 3) {
        fail(&parse, "header field version: %u, known are 2 and 3", version);
        return MC_EVERSION;
    }
    out = calloc(1, sizeof *out);
    if (!out)
        return MC_ENOMEM;
    out->tensor_count = tensors;
    st = read_entries(&parse, out, entries);
    if (st == MC_OK)
        st = read_tensors(&parse, out, file_size > size ? file_size : size);
    if (st != MC_OK) {
        mc_gguf_destroy(out);
        return st;
    }
    *gguf = out;
    return MC_OK;
}

enum mc_status mc_gguf_open(const char *path, struct mc_gguf **gguf, char *err, size_t err_size)
{
    enum mc_status st = MC_ESYS;
    struct stat stat;
    void *map;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        st = errno == ENOENT ? MC_ENOENT : MC_ESYS;
        errtext(err, err_size, "%s: %m", path);
        return st;
    }
    if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
        errtext(err, err_size, "%s: not a regular file", path);
        goto undo_fd;
    }
    if (stat.st_size == 0) {
        errtext(err, err_size, "gguf: header field magic: the file is empty");
        st = MC_EPROTO;
        goto undo_fd;
    }
    map = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        errtext(err, err_size, "%s: cannot map %lld bytes: %m", path, (long long)stat.st_size);
        goto undo_fd;
    }
    st = mc_gguf_parse(map, (size_t)stat.st_size, (uint64_t)stat.st_size, gguf, err, err_size);
    if (st == MC_OK) {
        (*gguf)->map = map;
        (*gguf)->map_size = (size_t)stat.st_size;
    } else {
        munmap(map, (size_t)stat.st_size);
    }
undo_fd:
    close(fd);
    return st;
}

void mc_gguf_destroy(struct mc_gguf *gguf)
{
    if (!gguf)
        return;
    if (gguf->map)
        munmap(gguf->map, gguf->map_size);
    free(gguf->entries);
    free(gguf);
}

/* ---- reading values ---- */

/* An integer of any width that fits into u64. */
static enum mc_status integer(enum mc_gguf_type type, const uint8_t *at, uint64_t *value)
{
    int64_t sign;

    switch (type) {
    case MC_GGUF_U8: *value = at[0]; return MC_OK;
    case MC_GGUF_U16: *value = le16_get(at); return MC_OK;
    case MC_GGUF_U32: *value = le32_get(at); return MC_OK;
    case MC_GGUF_U64: *value = le64_get(at); return MC_OK;
    case MC_GGUF_I8: sign = (int8_t)at[0]; break;
    case MC_GGUF_I16: sign = (int16_t)le16_get(at); break;
    case MC_GGUF_I32: sign = (int32_t)le32_get(at); break;
    case MC_GGUF_I64: sign = (int64_t)le64_get(at); break;
    default: return MC_EMISMATCH;
    }
    if (sign < 0)
        return MC_EMISMATCH;
    *value = (uint64_t)sign;
    return MC_OK;
}

enum mc_status mc_gguf_u64(const struct mc_gguf *gguf, const char *key, uint64_t *value)
{
    const struct entry *entry = find(gguf, key);

    return entry ? integer(entry->type, entry->value, value) : MC_ENOENT;
}

enum mc_status mc_gguf_f64(const struct mc_gguf *gguf, const char *key, double *value)
{
    const struct entry *entry = find(gguf, key);
    uint32_t bits32;
    uint64_t bits64;
    float single;

    if (!entry)
        return MC_ENOENT;
    switch (entry->type) {
    case MC_GGUF_F32:
        bits32 = le32_get(entry->value);
        memcpy(&single, &bits32, sizeof single);
        *value = (double)single;
        return MC_OK;
    case MC_GGUF_F64:
        bits64 = le64_get(entry->value);
        memcpy(value, &bits64, sizeof *value);
        return MC_OK;
    default: return MC_EMISMATCH;
    }
}

enum mc_status mc_gguf_bool(const struct mc_gguf *gguf, const char *key, bool *value)
{
    const struct entry *entry = find(gguf, key);

    if (!entry)
        return MC_ENOENT;
    if (entry->type != MC_GGUF_BOOL)
        return MC_EMISMATCH;
    *value = entry->value[0] != 0;
    return MC_OK;
}

enum mc_status mc_gguf_string(const struct mc_gguf *gguf, const char *key, const char **text, size_t *length)
{
    const struct entry *entry = find(gguf, key);

    if (!entry)
        return MC_ENOENT;
    if (entry->type != MC_GGUF_STRING)
        return MC_EMISMATCH;
    *text = (const char *)entry->value;
    *length = entry->size;
    return MC_OK;
}

enum mc_status mc_gguf_array(const struct mc_gguf *gguf, const char *key, enum mc_gguf_type *element, uint64_t *count)
{
    const struct entry *entry = find(gguf, key);

    if (!entry)
        return MC_ENOENT;
    if (entry->type != MC_GGUF_ARRAY)
        return MC_EMISMATCH;
    *element = entry->element;
    *count = entry->count;
    return MC_OK;
}

enum mc_status mc_gguf_array_u64(const struct mc_gguf *gguf, const char *key, uint64_t index, uint64_t *value)
{
    const struct entry *entry = find(gguf, key);
    size_t size;

    if (!entry)
        return MC_ENOENT;
    if (entry->type != MC_GGUF_ARRAY || !(size = scalar_size(entry->element)))
        return MC_EMISMATCH;
    if (index >= entry->count)
        return MC_EINVAL;
    return integer(entry->element, entry->value + index * size, value);
}

uint64_t mc_gguf_tensor_count(const struct mc_gguf *gguf)
{
    return gguf->tensor_count;
}

bool gguf_any_key(const struct mc_gguf *gguf, const char *part)
{
    size_t length = strlen(part);

    for (size_t i = 0; i < gguf->entry_count; i++)
        if (memmem(gguf->entries[i].key.ptr, gguf->entries[i].key.len, part, length))
            return true;
    return false;
}

static int begin_compare(const void *a, const void *b)
{
    const uint8_t *x = (*(const struct entry *const *)a)->begin, *y = (*(const struct entry *const *)b)->begin;

    return (x > y) - (x < y);
}

void mc_gguf_tokenizer_hash(const struct mc_gguf *gguf, uint8_t hash[32])
{
    static const char prefix[] = "tokenizer.";
    struct sha256_state *sha = sha256_create();
    const struct entry **order = calloc(gguf->entry_count + 1, sizeof *order);
    size_t count = 0;

    if (!sha || !order)
        abort(); /* a few hundred bytes, once per process at start: without them nothing can follow */
    for (size_t i = 0; i < gguf->entry_count; i++) {
        const struct entry *entry = &gguf->entries[i];

        if (entry->key.len >= sizeof prefix - 1 && memcmp(entry->key.ptr, prefix, sizeof prefix - 1) == 0)
            order[count++] = entry;
    }
    qsort(order, count, sizeof *order, begin_compare);
    for (size_t i = 0; i < count; i++)
        sha256_add(sha, order[i]->begin, order[i]->length);
    sha256_finish(sha, hash);
    sha256_destroy(sha);
    free(order);
}
