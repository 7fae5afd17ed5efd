/* object_fuzz.c - any bytes as an object: nothing is read outside of them, and what parses can be walked.
 * The CRC would stop nearly every input, so it is made to fit first. */
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "store/object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct object_header *header)
{
    struct object_cover cover;

    (void)object_payload_crc(header);
    if (object_cover(header, header->length / 3, header->length / 3, &cover) != MC_OK)
        abort();
    (void)object_cover_crc(header, &cover);
    if (object_is(header, &header->key, header->generation) != MC_OK && !(header->flags & OBJECT_DEAD))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct object_header header;
    uint8_t *bytes = malloc(size ? size : 1);

    if (!bytes)
        return 0;
    memcpy(bytes, data, size);
    if (object_parse(bytes, size, &header) == MC_OK)
        walk(&header);
    uint32_t len = object_header_len(bytes, size);
    if (len != 0 && len <= size) {
        le32_put(bytes + 12, 0);
        le32_put(bytes + 12, crc32c(0, bytes, len));
        if (object_parse(bytes, size, &header) == MC_OK)
            walk(&header);
    }
    free(bytes);
    return 0;
}
