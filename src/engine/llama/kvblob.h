/* kvblob.h - llama.cpp's private form of a sequence's state, built and read by us so that it never travels.
 *
 * Form of llama.cpp v0.5.0 for plain full attention with flash attention on (all little-endian, no alignment):
 *
 *   u32 magic 0xaf143cd8 | i32 sequence | u32 streams = 1 | u32 cells
 *   cells x { i32 position, u32 sequences = 1, i32 sequence }
 *   u32 v_transposed = 0 | u32 layers
 *   layers x { i32 type, u64 row size, cells x row }     K
 *   layers x { i32 type, u64 row size, cells x row }     V (layers that have one)
 *
 * Older tags (b6673) begin with `streams`, without magic and sequence. The form is unversioned and may change with any tag:
 * try_out.c compares a blob the library wrote with these rules when it opens, and refuses the library if they differ.
 * Pure functions; any thread. */
#ifndef LLAMA_KVBLOB_H
#define LLAMA_KVBLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/kvcache.h"

/* Rows of a model, from its geometry: planes k[, v] or latent per layer. In place, no destroy. */
struct kvblob_shape {
    const struct mc_geometry *geometry; /* borrowed */
    int32_t type;                       /* ggml type of all rows */
    uint32_t layers;
    uint64_t row_bytes; /* of all planes together */
    uint32_t planes;
    bool bare; /* the older form, without magic and sequence */
};

/* MC_ENOSUP: a plane that llama.cpp's form has no place for. */
enum mc_status kvblob_shape_init(struct kvblob_shape *shape, const struct mc_geometry *geometry, int32_t type);

/* Find out by its size which form a blob of `cells` cells has; false: none that is known. */
bool kvblob_adapt(struct kvblob_shape *shape, size_t size, uint32_t cells);

/* Bytes of a blob of that many cells. */
size_t kvblob_size(const struct kvblob_shape *shape, uint32_t cells);

/* Write all but the rows: cells hold positions first..first+cells-1 in order, of sequence `seq`. */
void kvblob_frame(const struct kvblob_shape *shape, uint8_t *blob, uint32_t cells, int32_t seq, uint32_t first);

/* Where the rows of plane `plane` (geometry's index) begin in a blob of `cells`. */
size_t kvblob_rows(const struct kvblob_shape *shape, uint32_t cells, uint32_t plane);

/* Is `blob` a blob of exactly `cells` cells of sequence `seq` that hold positions first..first+cells-1, each once? Fills
 * order[i] = row (position - first) of cell i. The library wrote it, so "no" means another version or a bug of ours.
 * `what` (not NULL) gets the field that differs. */
bool kvblob_check(const struct kvblob_shape *shape, const uint8_t *blob, size_t size, uint32_t cells, int32_t seq,
    uint32_t first, uint32_t *order, const char **what);

#endif
