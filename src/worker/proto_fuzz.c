/* proto_fuzz.c - any bytes as any message of 0x04xx: no crash, no leak, and what decodes encodes and decodes again. The first
 * byte chooses the kind. */
#include <stdlib.h>

#include "worker/proto_examples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf once, twice;
    const char *bad = NULL;

    if (size == 0)
        return 0;
    buf_init(&once, 1 << 20);
    buf_init(&twice, 1 << 20);
    if (proto_example_decode(data[0] % PROTO_EXAMPLES, slice_of(data + 1, size - 1), &once, &bad) == MC_OK) {
        if (proto_example_decode(data[0] % PROTO_EXAMPLES, buf_slice(&once), &twice, &bad) != MC_OK ||
            !slice_eq(buf_slice(&once), buf_slice(&twice)))
            abort();
    } else if (!bad) {
        abort();
    }
    buf_fini(&once);
    buf_fini(&twice);
    return 0;
}
