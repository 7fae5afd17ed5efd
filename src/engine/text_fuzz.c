/* text_fuzz.c - libFuzzer over stop strings and UTF-8: whatever comes in and however it is cut, what comes out is valid UTF-8,
 * holds no stop string, and is the same as when it came in one piece.
 *
 * Input: a byte of push size, up to three stop strings ended by NUL, then text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mooncake/sampling.h"

enum { INPUT_MAX = 4096, OUTPUT_MAX = 3 * INPUT_MAX + 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(const char *const *stops, size_t stop_count, const char *in, size_t length, size_t step, char *out)
{
    struct mc_text *text;
    size_t end = 0, n;
    const char *piece;
    int stopped;

    if (mc_text_create(stops, stop_count, &text) != MC_OK)
        return -2;
    for (size_t at = 0; at < length; at += n) {
        n = length - at < step ? length - at : step;
        if (mc_text_push(text, in + at, n) != MC_OK)
            abort();
        size_t taken;
        piece = mc_text_take(text, &taken);
        if (end + taken >= OUTPUT_MAX)
            abort();
        memcpy(out + end, piece, taken);
        end += taken;
    }
    mc_text_finish(text);
    piece = mc_text_take(text, &n);
    if (end + n >= OUTPUT_MAX)
        abort();
    memcpy(out + end, piece, n);
    out[end + n] = 0;
    stopped = mc_text_stopped(text);
    mc_text_destroy(text);
    return stopped;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char whole[OUTPUT_MAX], parts[OUTPUT_MAX];
    const char *stops[3];
    size_t stop_count = 0, step;
    char *copy;

    if (size < 2 || size > INPUT_MAX)
        return 0;
    step = 1 + data[0] % 7;
    copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    copy[size - 1] = 0;
    size_t at = 0;
    while (stop_count < 3 && at < size - 1 && memchr(copy + at, 0, size - 1 - at)) {
        stops[stop_count++] = copy + at;
        at += strlen(copy + at) + 1;
    }
    for (size_t i = at; i < size - 1; i++) /* NUL bytes in the text would end the comparisons below */
        if (!copy[i])
            copy[i] = ' ';
    int a = run(stops, stop_count, copy + at, size - 1 - at, size, whole);
    int b = run(stops, stop_count, copy + at, size - 1 - at, step, parts);
    if (a != b || (a != -2 && strcmp(whole, parts) != 0))
        abort();
    for (size_t i = 0; a != -2 && i < stop_count; i++)
        if (strstr(whole, stops[i]))
            abort();
    free(copy);
    return 0;
}
