/* addr_fuzz.c - libFuzzer: any text through the address parser; what it accepts must print to a text it reads as the same. */
#undef NDEBUG /* asserts are what it looks for */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "net/addr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), printed[ADDR_TEXT_MAX];
    struct sockaddr_storage sa;
    struct addr addr, again;
    const char *why = NULL;
    socklen_t len;

    memcpy(text, data, size);
    text[size] = 0;
    if (addr_parse(text, 7, &addr, &why) != MC_OK) {
        assert(why);
    } else {
        if (addr_parse(addr_format(&addr, printed), 1, &again, NULL) != MC_OK || !addr_equal(&addr, &again))
            abort();
        if (addr_is_numeric(&addr) && addr.kind != ADDR_IP6) /* zones would be looked up */
            assert(addr_resolve(&addr, &sa, &len) == MC_OK);
        addr_is_loopback(&addr);
    }
    free(text);
    return 0;
}
