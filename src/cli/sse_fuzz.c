/* sse_fuzz.c - server-sent events from anybody: cut anywhere, events come out the same. */
#include <stdlib.h>
#include <string.h>

#include "cli/api.h"

static bool gather(void *arg, const char *data, size_t len)
{
    buf_append(arg, data, len + 1);
    return len != 7; /* some callbacks have had enough */
}

/* The events of `len` bytes fed in pieces of `step`. */
static void feed(const uint8_t *bytes, size_t len, size_t step, struct buf *out)
{
    struct sse sse;

    sse_init(&sse);
    for (size_t at = 0; at < len; at += step)
        if (!sse_feed(&sse, (const char *)bytes + at, len - at < step ? len - at : step, gather, out))
            break;
    sse_fini(&sse);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct buf whole, cut;

    buf_init(&whole, SIZE_MAX);
    buf_init(&cut, SIZE_MAX);
    feed(bytes, len, len ? len : 1, &whole);
    feed(bytes, len, 3, &cut);
    if (whole.len != cut.len || (whole.len && memcmp(whole.data, cut.data, whole.len) != 0))
        abort();
    buf_fini(&whole);
    buf_fini(&cut);
    return 0;
}
