/* wire_fuzz.c - the bodies of the transfer messages. The first byte chooses the message; what is accepted keeps its limits and
 * is accepted again, unchanged, after encoding. */
#include <stdlib.h>
#include <string.h>

#include "transfer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void fuzz_sync(struct slice body, struct buf *again)
{
    struct wire_sync a, b;
    const char *bad;

    if (wire_sync_decode(body, &a, &bad) != MC_OK)
        return;
    wire_sync_encode(&a, again);
    check(wire_sync_decode(buf_slice(again), &b, &bad) == MC_OK && a.clock_ns == b.clock_ns && a.please == b.please &&
          strcmp(a.unix_path, b.unix_path) == 0);
}

static void fuzz_request(struct slice body, struct buf *again)
{
    static struct wire_range one[WIRE_RANGES_MAX], two[WIRE_RANGES_MAX];
    struct wire_request a = {.ranges = one}, b = {.ranges = two};
    const char *bad;

    if (wire_request_decode(body, &a, &bad) != MC_OK)
        return;
    check(a.count >= 1 && a.count <= WIRE_RANGES_MAX && a.bytes >= a.count && a.bytes <= WIRE_BYTES_MAX);
    wire_request_encode(&a, again);
    check(wire_request_decode(buf_slice(again), &b, &bad) == MC_OK && a.count == b.count && a.bytes == b.bytes);
    for (uint32_t i = 0; i < a.count; i++)
        check(one[i].region == two[i].region && one[i].offset == two[i].offset && one[i].len == two[i].len);
}

static void fuzz_small(uint8_t which, struct slice body)
{
    uint8_t nonce[WIRE_NONCE];
    enum wire_fd kind;
    uint32_t number;
    const char *bad;

    if (which == 2)
        (void)wire_proof_decode(body, nonce, &bad);
    else if (which == 3)
        (void)wire_segment_decode(body, &number, &bad);
    else if (wire_fd_decode(body, &kind, &number, &bad) == MC_OK)
        check(kind == WIRE_FD_PAGE || kind == WIRE_FD_SEGMENT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice body = size ? slice_of(data + 1, size - 1) : slice_of(NULL, 0);
    uint8_t which = size ? data[0] % 5 : 0;
    struct buf again;

    buf_init(&again, 1u << 20);
    if (which == 0)
        fuzz_sync(body, &again);
    else if (which == 1)
        fuzz_request(body, &again);
    else
        fuzz_small(which, body);
    buf_fini(&again);
    return 0;
}
