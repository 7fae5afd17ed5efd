/* key_fuzz.c - the parser of region keys: whatever 64 bytes come, it refuses or gives a key that encodes to the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "base/cursor.h"
#include "transfer/te.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mc_region_key raw = {{0}}, again;
    struct te_key key;
    const char *bad;

    memcpy(raw.bytes, data, size < sizeof(raw.bytes) ? size : sizeof(raw.bytes));
    if (size > sizeof(raw.bytes)) /* a longer input asks for a right checksum, so that the fields are reached */
        le32_put(raw.bytes + 60, crc32c(0, raw.bytes, 60));
    if (te_key_decode(&raw, &key, &bad) != MC_OK) {
        if (!bad)
            abort();
        return 0;
    }
    te_key_encode(&key, &again);
    if (memcmp(&raw, &again, sizeof(raw)) != 0)
        abort();
    return 0;
}
