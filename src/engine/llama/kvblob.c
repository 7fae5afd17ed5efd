/* kvblob.c - see kvblob.h. The K section goes over all layers before V begins; our blocks have K and V of a layer side by
 * side. So a plane's place is computed from the planes before it in its own section. */
#include <assert.h>
#include <string.h>

#include "base/cursor.h"
#include "engine/llama/kvblob.h"

enum {
    MAGIC_SIZE = 8,       /* magic, sequence */
    COUNTS_SIZE = 8,      /* streams, cells */
    CELL_SIZE = 12,       /* position, sequences, sequence */
    SECTIONS_SIZE = 8,    /* v_transposed, layers */
    PLANE_HEAD_SIZE = 12, /* type, row size */
};

#define BLOB_MAGIC 0xaf143cd8u

static bool is_v(const struct mc_plane *plane)
{
    return strcmp(plane->name, "v") == 0;
}

enum mc_status kvblob_shape_init(struct kvblob_shape *shape, const struct mc_geometry *geometry, int32_t type)
{
    *shape = (struct kvblob_shape){
        .geometry = geometry,
        .type = type,
        .layers = mc_geometry_layers(geometry),
        .row_bytes = mc_geometry_bytes_per_token(geometry),
        .planes = (uint32_t)mc_geometry_plane_count(geometry),
    };
    for (uint32_t i = 0; i < shape->planes; i++) {
        const struct mc_plane *plane = mc_geometry_plane(geometry, i);
        bool first = i == 0 || mc_geometry_plane(geometry, i - 1)->layer != plane->layer;

        if (plane->rows_per_token != 1 || first == is_v(plane))
            return MC_ENOSUP; /* K (or latent) comes first in its layer, V second, nothing else */
        if (first && strcmp(plane->name, "k") != 0 && strcmp(plane->name, "latent") != 0)
            return MC_ENOSUP;
    }
    return MC_OK;
}

static size_t head_size(const struct kvblob_shape *shape)
{
    return (shape->bare ? 0 : MAGIC_SIZE) + COUNTS_SIZE;
}

bool kvblob_adapt(struct kvblob_shape *shape, size_t size, uint32_t cells)
{
    shape->bare = false;
    if (size == kvblob_size(shape, cells))
        return true;
    shape->bare = true;
    return size == kvblob_size(shape, cells);
}

size_t kvblob_size(const struct kvblob_shape *shape, uint32_t cells)
{
    return head_size(shape) + SECTIONS_SIZE + (size_t)cells * CELL_SIZE + (size_t)shape->planes * PLANE_HEAD_SIZE +
           (size_t)(shape->row_bytes * cells);
}

/* All planes that come earlier in blob order: every K before the first V, each section by layer. */
size_t kvblob_rows(const struct kvblob_shape *shape, uint32_t cells, uint32_t plane)
{
    size_t at = head_size(shape) + SECTIONS_SIZE + (size_t)cells * CELL_SIZE;
    bool wanted_v = is_v(mc_geometry_plane(shape->geometry, plane));

    for (uint32_t i = 0; i < shape->planes; i++) {
        const struct mc_plane *p = mc_geometry_plane(shape->geometry, i);

        if (i == plane || (is_v(p) && !wanted_v) || (is_v(p) == wanted_v && i > plane))
            continue;
        at += PLANE_HEAD_SIZE + (size_t)p->row_size * cells;
    }
    return at + PLANE_HEAD_SIZE;
}

void kvblob_frame(const struct kvblob_shape *shape, uint8_t *blob, uint32_t cells, int32_t seq, uint32_t first)
{
    uint8_t *at = blob;

    if (!shape->bare) {
        le32_put(at, BLOB_MAGIC);
        le32_put(at + 4, (uint32_t)seq);
        at += MAGIC_SIZE;
    }
    le32_put(at, 1);
    le32_put(at + 4, cells);
    at += COUNTS_SIZE;
    for (uint32_t i = 0; i < cells; i++, at += CELL_SIZE) {
        le32_put(at, first + i);
        le32_put(at + 4, 1);
        le32_put(at + 8, (uint32_t)seq);
    }
    le32_put(at, 0);
    le32_put(at + 4, shape->layers);
    for (uint32_t i = 0; i < shape->planes; i++) {
        uint8_t *head = blob + kvblob_rows(shape, cells, i) - PLANE_HEAD_SIZE;

        le32_put(head, (uint32_t)shape->type);
        le64_put(head + 4, mc_geometry_plane(shape->geometry, i)->row_size);
    }
}

/* Note the first field that differs. */
static bool expect(bool same, const char *field, const char **what)
{
    if (!same && !*what)
        *what = field;
    return same;
}

static bool check_cells(
    const uint8_t *at, uint32_t cells, int32_t seq, uint32_t first, uint32_t *order, const char **what)
{
    /* each position once: rows seen are marked by order itself being a permutation; count them in place */
    uint64_t sum = 0, wanted = 0;

    for (uint32_t i = 0; i < cells; i++, at += CELL_SIZE) {
        uint32_t row = le32_get(at) - first;

        if (!expect(row < cells, "cell position", what) ||
            !expect(le32_get(at + 4) == 1, "cell sequence count", what) ||
            !expect(le32_get(at + 8) == (uint32_t)seq, "cell sequence", what))
            return false;
        order[i] = row;
        sum += row;
        wanted += i;
    }
    if (!expect(sum == wanted, "cell position", what))
        return false;
    for (uint32_t i = 0; i < cells; i++) /* blocks are small: quadratic only for cells that are out of place */
        if (order[i] != i)
            for (uint32_t k = 0; k < i; k++)
                if (!expect(order[k] != order[i], "cell position", what))
                    return false;
    return true;
}

bool kvblob_check(const struct kvblob_shape *shape, const uint8_t *blob, size_t size, uint32_t cells, int32_t seq,
    uint32_t first, uint32_t *order, const char **what)
{
    *what = NULL;
    if (!expect(size == kvblob_size(shape, cells), "size", what))
        return false;
    if (!shape->bare && (!expect(le32_get(blob) == BLOB_MAGIC, "magic", what) ||
                            !expect(le32_get(blob + 4) == (uint32_t)seq, "sequence", what)))
        return false;
    const uint8_t *counts = blob + head_size(shape) - COUNTS_SIZE;
    if (!expect(le32_get(counts) == 1, "streams", what) || !expect(le32_get(counts + 4) == cells, "cells", what))
        return false;
    if (!check_cells(counts + COUNTS_SIZE, cells, seq, first, order, what))
        return false;
    const uint8_t *sections = counts + COUNTS_SIZE + (size_t)cells * CELL_SIZE;
    if (!expect(le32_get(sections) == 0, "v transposed", what) ||
        !expect(le32_get(sections + 4) == shape->layers, "layers", what))
        return false;
    for (uint32_t i = 0; i < shape->planes; i++) {
        const uint8_t *head = blob + kvblob_rows(shape, cells, i) - PLANE_HEAD_SIZE;

        if (!expect(le32_get(head) == (uint32_t)shape->type, "row type", what) ||
            !expect(le64_get(head + 4) == mc_geometry_plane(shape->geometry, i)->row_size, "row size", what))
            return false;
    }
    return true;
}
