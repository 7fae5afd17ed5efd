/* regex_fuzz.c - any bytes as expression and text: a reason or an answer, and always soon.
 * The first byte says how much of the rest is the expression. */
#include <stddef.h>
#include <stdint.h>

#include "compat/store/regex.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data + 1, *why;
    struct regex *regex;
    size_t len;

    if (size < 1 || size > 1024)
        return 0;
    len = data[0] < size - 1 ? data[0] : size - 1;
    regex = regex_create(bytes, len, &why);
    if (regex)
        regex_found(regex, bytes + len, size - 1 - len);
    regex_destroy(regex);
    return 0;
}
