/* record_fuzz.c - libFuzzer over what other processes send about blocks: fingerprint record and geometry. What is accepted
 * must encode to exactly the bytes it came from: one byte string per meaning. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mooncake/kvcache.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_record(const uint8_t *data, size_t size)
{
    uint8_t again[MC_FP_RECORD_SIZE_MAX];
    struct mc_fp_record rec;
    char err[200];
    size_t length;

    if (mc_fp_record_decode(data, size, &rec, err, sizeof err) != MC_OK)
        return;
    if (mc_fp_record_encode(&rec, again, sizeof again, &length) != MC_OK || length != size ||
        memcmp(again, data, size) != 0)
        abort();
}

static void fuzz_geometry(const uint8_t *data, size_t size)
{
    struct mc_geometry *geo;
    struct mc_layout *lay;
    char err[200];
    size_t length;

    if (mc_geometry_decode(data, size, &geo, err, sizeof err) != MC_OK)
        return;
    uint8_t *again = malloc(MC_GEOMETRY_SIZE_MAX);
    if (!again || mc_geometry_encode(geo, again, MC_GEOMETRY_SIZE_MAX, &length) != MC_OK || length != size ||
        memcmp(again, data, size) != 0)
        abort();
    free(again);
    if (mc_layout_create(geo, 64, &lay) == MC_OK) {
        uint64_t end = 0;

        for (size_t i = 0; i < mc_layout_chunk_count(lay) && i < 10000; i++) {
            struct mc_byte_range chunk = mc_layout_chunk(lay, i);

            if (chunk.offset != end || chunk.length == 0)
                abort();
            end += chunk.length;
        }
        mc_layout_destroy(lay);
    }
    mc_geometry_destroy(geo);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        fuzz_record(data + 1, size - 1);
    else
        fuzz_geometry(data + 1, size - 1);
    return 0;
}
