/* geometry.c - planes of a model's KVCache, and where they lie in a block object of n tokens.
 *
 *   geometry: planes[0..count)    sorted by layer;   layer_first[l] = index of layer l's first plane, [layers] = count
 *   layout:   offset[p]           where plane p begins, 64-byte aligned;              offset[count] = object length
 *             chunk[p]            number of chunks before plane p;                    chunk[count] = all chunks
 *
 * A chunk covers at most 64 KiB of one plane and its padding, so a range can be verified from the chunks around it alone.
 * Invariants: offset ascends strictly; layers tile the object; chunks tile the object. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "kvcache/errtext.h"
#include "mooncake/kvcache.h"

struct mc_geometry {
    size_t plane_count;
    uint32_t layers;
    uint32_t *layer_first; /* layers + 1 entries, behind `planes` in the same allocation */
    struct mc_plane planes[];
};

struct mc_layout {
    size_t plane_count;
    uint32_t tokens;
    uint32_t layers;
    uint32_t *layer_first; /* layers + 1 */
    uint64_t *chunk;       /* plane_count + 1 */
    struct mc_plane *planes;
    uint64_t offset[]; /* plane_count + 1, then the arrays above */
};

enum { GEOMETRY_VERSION = 1 };

/* ---- geometry ---- */

/* First mistake in plane `i`, or NULL. */
static const char *plane_bad(const struct mc_plane *planes, size_t i)
{
    const struct mc_plane *plane = &planes[i];
    uint32_t before = i ? planes[i - 1].layer : 0;

    if (plane->layer >= MC_LAYERS_MAX || plane->layer < before || plane->layer > (i ? before + 1 : 0))
        return "layer";
    if (plane->row_size < 1 || plane->row_size > MC_ROW_SIZE_MAX)
        return "row size";
    if (plane->rows_per_token > 64) /* more rows per token than any known cache has heads: a mistake */
        return "rows per token";
    if (!plane->name[0] || !memchr(plane->name, 0, MC_PLANE_NAME_SIZE))
        return "name";
    for (size_t j = i; j-- > 0 && planes[j].layer == plane->layer;)
        if (strcmp(planes[j].name, plane->name) == 0)
            return "name";
    return NULL;
}

static enum mc_status geometry_build(
    const struct mc_plane *planes, size_t count, struct mc_geometry **geometry, char *err, size_t err_size)
{
    struct mc_geometry *geo;
    uint32_t layers;

    if (count == 0 || count > MC_PLANES_MAX) {
        errtext(err, err_size, "geometry: %zu planes, allowed are 1 to %d", count, MC_PLANES_MAX);
        return MC_EINVAL;
    }
    for (size_t i = 0; i < count; i++) {
        const char *bad = plane_bad(planes, i);

        if (bad) {
            errtext(err, err_size, "geometry: plane %zu: field %s: out of range or order", i, bad);
            return MC_EINVAL;
        }
    }
    layers = planes[count - 1].layer + 1;
    geo = calloc(1, sizeof *geo + count * sizeof *planes + (layers + 1) * sizeof(uint32_t));
    if (!geo)
        return MC_ENOMEM;
    geo->plane_count = count;
    geo->layers = layers;
    geo->layer_first = (uint32_t *)(geo->planes + count);
    for (size_t i = 0; i < count; i++) {
        struct mc_plane *plane = &geo->planes[i];

        plane->layer = planes[i].layer;
        plane->rows_per_token = planes[i].rows_per_token;
        plane->row_size = planes[i].row_size;
        strcpy(plane->name, planes[i].name); /* plane_bad() found its NUL; rest stays zero for comparisons */
        if (i == 0 || plane->layer != planes[i - 1].layer)
            geo->layer_first[plane->layer] = (uint32_t)i;
    }
    geo->layer_first[layers] = (uint32_t)count;
    *geometry = geo;
    return MC_OK;
}

enum mc_status mc_geometry_create(const struct mc_plane *planes, size_t plane_count, struct mc_geometry **geometry)
{
    return geometry_build(planes, plane_count, geometry, NULL, 0);
}

enum mc_status mc_geometry_create_kv(
    uint32_t layers, uint32_t k_row_size, uint32_t v_row_size, struct mc_geometry **geometry)
{
    size_t per_layer = v_row_size ? 2 : 1;
    enum mc_status st;

    if (layers == 0 || layers > MC_LAYERS_MAX)
        return MC_EINVAL;
    struct mc_plane *planes = calloc(layers * per_layer, sizeof *planes);
    if (!planes)
        return MC_ENOMEM;
    for (uint32_t layer = 0; layer < layers; layer++) {
        struct mc_plane *k = &planes[layer * per_layer];

        *k = (struct mc_plane){.layer = layer, .rows_per_token = 1, .row_size = k_row_size};
        strcpy(k->name, v_row_size ? "k" : "latent");
        if (v_row_size)
            k[1] = (struct mc_plane){.layer = layer, .rows_per_token = 1, .row_size = v_row_size, .name = "v"};
    }
    st = mc_geometry_create(planes, layers * per_layer, geometry);
    free(planes);
    return st;
}

void mc_geometry_destroy(struct mc_geometry *geometry)
{
    free(geometry);
}

size_t mc_geometry_plane_count(const struct mc_geometry *geometry)
{
    return geometry->plane_count;
}

const struct mc_plane *mc_geometry_plane(const struct mc_geometry *geometry, size_t index)
{
    assert(index < geometry->plane_count);
    return &geometry->planes[index];
}

uint32_t mc_geometry_layers(const struct mc_geometry *geometry)
{
    return geometry->layers;
}

uint64_t mc_geometry_bytes_per_token(const struct mc_geometry *geometry)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < geometry->plane_count; i++)
        bytes += (uint64_t)geometry->planes[i].rows_per_token * geometry->planes[i].row_size;
    return bytes;
}

static void geometry_put(const struct mc_geometry *geometry, struct buf *buf)
{
    put_u16(buf, GEOMETRY_VERSION);
    put_u32(buf, (uint32_t)geometry->plane_count);
    for (size_t i = 0; i < geometry->plane_count; i++) {
        const struct mc_plane *plane = &geometry->planes[i];

        put_u32(buf, plane->layer);
        put_u32(buf, plane->rows_per_token);
        put_u32(buf, plane->row_size);
        put_str(buf, slice_str(plane->name));
    }
}

/* Length of the encoded form, without writing it. */
static size_t geometry_length(const struct mc_geometry *geometry)
{
    size_t length = 6;

    for (size_t i = 0; i < geometry->plane_count; i++)
        length += 16 + strlen(geometry->planes[i].name);
    return length;
}

enum mc_status mc_geometry_encode(const struct mc_geometry *geometry, void *dst, size_t size, size_t *length)
{
    struct buf buf;
    enum mc_status st;

    *length = geometry_length(geometry);
    if (size < *length)
        return MC_ETOOBIG;
    buf_init(&buf, MC_GEOMETRY_SIZE_MAX);
    geometry_put(geometry, &buf);
    st = buf_status(&buf);
    if (st == MC_OK) {
        assert(buf.len == *length);
        memcpy(dst, buf.data, buf.len);
    }
    buf_fini(&buf);
    return st;
}

enum mc_status mc_geometry_decode(
    const void *src, size_t length, struct mc_geometry **geometry, char *err, size_t err_size)
{
    struct cur cur = cur_of(src, length);
    uint16_t version = cur_u16(&cur, "version");
    uint32_t count = cur_u32(&cur, "plane count");
    struct mc_plane *planes;
    enum mc_status st;

    if (cur_status(&cur) == MC_OK && version != GEOMETRY_VERSION)
        cur_fail(&cur, "version");
    /* 16: the least a plane takes, so a hostile count cannot make us allocate */
    if (cur_status(&cur) == MC_OK && (count == 0 || count > MC_PLANES_MAX || count > cur_left(&cur) / 16))
        cur_fail(&cur, "plane count");
    if (cur_status(&cur) != MC_OK) {
        errtext(err, err_size, "geometry: field %s: malformed or out of range", cur.bad);
        return MC_EPROTO;
    }
    planes = calloc(count, sizeof *planes);
    if (!planes)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        planes[i].layer = cur_u32(&cur, "plane layer");
        planes[i].rows_per_token = cur_u32(&cur, "plane rows per token");
        planes[i].row_size = cur_u32(&cur, "plane row size");
        struct slice name = cur_str(&cur, MC_PLANE_NAME_SIZE - 1, "plane name");
        if (name.len) {
            memcpy(planes[i].name, name.ptr, name.len);
            if (memchr(name.ptr, 0, name.len))
                cur_fail(&cur, "plane name");
        }
    }
    cur_done(&cur, "end");
    if (cur_status(&cur) != MC_OK) {
        errtext(err, err_size, "geometry: field %s: malformed", cur.bad);
        st = MC_EPROTO;
    } else {
        st = geometry_build(planes, count, geometry, err, err_size);
        if (st == MC_EINVAL)
            st = MC_EPROTO;
    }
    free(planes);
    return st;
}

void mc_geometry_hash(const struct mc_geometry *geometry, uint8_t hash[32])
{
    static const char tag[] = "mc-geometry-1";
    uint8_t memory[64];
    struct sha256_state *sha = sha256_create();
    struct buf buf;

    /* Hashed piece by piece so that it cannot fail for want of memory beyond the state's own few bytes. */
    if (!sha)
        abort(); /* cannot name our own data: nothing sensible can follow */
    sha256_add(sha, tag, sizeof tag - 1);
    buf_init_fixed(&buf, memory, sizeof memory);
    put_u16(&buf, GEOMETRY_VERSION);
    put_u32(&buf, (uint32_t)geometry->plane_count);
    for (size_t i = 0; i < geometry->plane_count; i++) {
        const struct mc_plane *plane = &geometry->planes[i];

        put_u32(&buf, plane->layer);
        put_u32(&buf, plane->rows_per_token);
        put_u32(&buf, plane->row_size);
        put_str(&buf, slice_str(plane->name));
        assert(buf_status(&buf) == MC_OK);
        sha256_add(sha, buf.data, buf.len);
        buf_reset(&buf);
    }
    sha256_finish(sha, hash);
    sha256_destroy(sha);
}

uint64_t mc_geometry_id(const struct mc_geometry *geometry)
{
    uint8_t hash[32];
    uint64_t id;

    mc_geometry_hash(geometry, hash);
    id = le64_get(hash);
    return id ? id : 1;
}

/* ---- layout ---- */

static uint64_t align_plane(uint64_t size)
{
    return (size + MC_PLANE_ALIGN - 1) & ~(uint64_t)(MC_PLANE_ALIGN - 1);
}

/* Bytes of a plane for that many tokens, without padding. */
static uint64_t plane_size(const struct mc_plane *plane, uint32_t tokens)
{
    return plane->rows_per_token ? (uint64_t)plane->row_size * plane->rows_per_token * tokens : plane->row_size;
}

enum mc_status mc_layout_create(const struct mc_geometry *geometry, uint32_t tokens, struct mc_layout **layout)
{
    size_t count = geometry->plane_count;
    struct mc_layout *lay;

    if (tokens == 0 || tokens > MC_BLOCK_TOKENS_MAX)
        return MC_EINVAL;
    lay = calloc(1, sizeof *lay + 2 * (count + 1) * sizeof(uint64_t) + count * sizeof(struct mc_plane) +
                        (geometry->layers + 1) * sizeof(uint32_t));
    if (!lay)
        return MC_ENOMEM;
    lay->plane_count = count;
    lay->tokens = tokens;
    lay->layers = geometry->layers;
    lay->chunk = lay->offset + count + 1;
    lay->planes = (struct mc_plane *)(lay->chunk + count + 1);
    lay->layer_first = (uint32_t *)(lay->planes + count);
    memcpy(lay->planes, geometry->planes, count * sizeof(struct mc_plane));
    memcpy(lay->layer_first, geometry->layer_first, (geometry->layers + 1) * sizeof(uint32_t));
    for (size_t i = 0; i < count; i++) {
        uint64_t size = align_plane(plane_size(&lay->planes[i], tokens));

        lay->offset[i + 1] = lay->offset[i] + size;
        lay->chunk[i + 1] = lay->chunk[i] + (size + MC_CHUNK_SIZE_MAX - 1) / MC_CHUNK_SIZE_MAX;
    }
    *layout = lay;
    return MC_OK;
}

void mc_layout_destroy(struct mc_layout *layout)
{
    free(layout);
}

uint32_t mc_layout_tokens(const struct mc_layout *layout)
{
    return layout->tokens;
}

uint64_t mc_layout_size(const struct mc_layout *layout)
{
    return layout->offset[layout->plane_count];
}

size_t mc_layout_plane_count(const struct mc_layout *layout)
{
    return layout->plane_count;
}

struct mc_byte_range mc_layout_plane(const struct mc_layout *layout, size_t plane)
{
    assert(plane < layout->plane_count);
    return (struct mc_byte_range){layout->offset[plane], plane_size(&layout->planes[plane], layout->tokens)};
}

enum mc_status mc_layout_layers(
    const struct mc_layout *layout, uint32_t first, uint32_t count, struct mc_byte_range *range)
{
    if (count == 0 || first >= layout->layers || count > layout->layers - first)
        return MC_EINVAL;
    range->offset = layout->offset[layout->layer_first[first]];
    range->length = layout->offset[layout->layer_first[first + count]] - range->offset;
    return MC_OK;
}

enum mc_status mc_layout_rows(
    const struct mc_layout *layout, uint32_t first, uint32_t count, struct mc_byte_range *pieces, size_t pieces_max)
{
    if (count == 0 || first >= layout->tokens || count > layout->tokens - first)
        return MC_EINVAL;
    if (pieces_max < layout->plane_count)
        return MC_ETOOBIG;
    for (size_t i = 0; i < layout->plane_count; i++) {
        const struct mc_plane *plane = &layout->planes[i];
        uint64_t per_token = (uint64_t)plane->rows_per_token * plane->row_size;

        pieces[i].offset = layout->offset[i] + per_token * first;
        pieces[i].length = per_token ? per_token * count : plane->row_size;
    }
    return MC_OK;
}

/* Largest i with table[i] <= value; table[0] is 0 and table ascends strictly. */
static size_t search(const uint64_t *table, size_t count, uint64_t value)
{
    size_t low = 0, high = count;

    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;

        if (table[mid] <= value)
            low = mid;
        else
            high = mid;
    }
    return low;
}

size_t mc_layout_chunk_count(const struct mc_layout *layout)
{
    return layout->chunk[layout->plane_count];
}

struct mc_byte_range mc_layout_chunk(const struct mc_layout *layout, size_t index)
{
    assert(index < mc_layout_chunk_count(layout));
    size_t plane = search(layout->chunk, layout->plane_count, index);
    uint64_t offset = layout->offset[plane] + (index - layout->chunk[plane]) * MC_CHUNK_SIZE_MAX;
    uint64_t left = layout->offset[plane + 1] - offset;

    return (struct mc_byte_range){offset, left < MC_CHUNK_SIZE_MAX ? left : MC_CHUNK_SIZE_MAX};
}

/* Index of the chunk that holds byte `at`. */
static size_t chunk_at(const struct mc_layout *layout, uint64_t at)
{
    size_t plane = search(layout->offset, layout->plane_count, at);

    return layout->chunk[plane] + (at - layout->offset[plane]) / MC_CHUNK_SIZE_MAX;
}

enum mc_status mc_layout_chunks_of(
    const struct mc_layout *layout, struct mc_byte_range range, size_t *first, size_t *count)
{
    uint64_t size = mc_layout_size(layout);

    if (range.length == 0 || range.offset >= size || range.length > size - range.offset)
        return MC_EINVAL;
    *first = chunk_at(layout, range.offset);
    *count = chunk_at(layout, range.offset + range.length - 1) - *first + 1;
    return MC_OK;
}
