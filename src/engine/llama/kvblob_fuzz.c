/* kvblob_fuzz.c - libFuzzer over the check of a state blob: no input reads outside it, and what passes has every position
 * once. */
#include <stdint.h>
#include <stdlib.h>

#include "engine/llama/kvblob.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mc_geometry *geo;
    static struct kvblob_shape shape;
    uint32_t order[4], seen = 0;
    const char *what;

    if (!geo && (mc_geometry_create_kv(1, 2, 2, &geo) != MC_OK || kvblob_shape_init(&shape, geo, 1) != MC_OK))
        abort();
    if (!kvblob_check(&shape, data, size, 4, 1, 64, order, &what)) {
        if (!what)
            abort();
        return 0;
    }
    for (int i = 0; i < 4; i++)
        seen |= 1u << order[i];
    if (seen != 15)
        abort();
    return 0;
}
