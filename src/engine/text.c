/* text.c - from token bytes to text that may be sent: whole UTF-8 characters, no stop string, no beginning of one.
 *
 *   raw bytes --> valid UTF-8 (whole characters; impossible bytes become U+FFFD) --> `pending` --> `ready`
 *
 * `partial` holds at most three bytes of an unfinished character. Stop strings are searched in `pending`, which keeps only
 * what could still be the beginning of one: at most MC_STOP_SIZE_MAX - 1 bytes. Stop strings that are not valid UTF-8 never
 * match, as the text they are looked for in always is.
 *
 * The match that begins first ends the text; of several that begin at the same place the shortest, as it is complete first:
 * so the outcome does not depend on how the bytes were cut into pushes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "mooncake/sampling.h"

struct stop {
    size_t length;
    char bytes[MC_STOP_SIZE_MAX];
};

struct mc_text {
    struct buf ready;   /* may be sent */
    struct buf pending; /* valid UTF-8 held back */
    size_t taken;       /* of ready, by the last take */
    unsigned char partial[4];
    size_t partial_length;
    int stopped; /* index, or -1 */
    bool finished;
    size_t stop_count;
    struct stop stops[];
};

static const char replacement[] = "\xef\xbf\xbd";

enum mc_status mc_text_create(const char *const *stops, size_t stop_count, struct mc_text **text)
{
    struct mc_text *out;

    if (stop_count > MC_STOP_STRINGS_MAX)
        return MC_EINVAL;
    for (size_t i = 0; i < stop_count; i++) {
        if (!stops[i] || !stops[i][0])
            return MC_EINVAL;
        if (strlen(stops[i]) > MC_STOP_SIZE_MAX)
            return MC_ETOOBIG;
    }
    out = calloc(1, sizeof *out + stop_count * sizeof out->stops[0]);
    if (!out)
        return MC_ENOMEM;
    buf_init(&out->ready, SIZE_MAX);
    buf_init(&out->pending, SIZE_MAX);
    out->stopped = -1;
    out->stop_count = stop_count;
    for (size_t i = 0; i < stop_count; i++) {
        out->stops[i].length = strlen(stops[i]);
        memcpy(out->stops[i].bytes, stops[i], out->stops[i].length);
    }
    *text = out;
    return MC_OK;
}

void mc_text_destroy(struct mc_text *text)
{
    if (!text)
        return;
    buf_fini(&text->ready);
    buf_fini(&text->pending);
    free(text);
}

/* ---- UTF-8 ---- */

/* Length of the character that a lead byte announces; 0 for a byte that cannot lead. */
static size_t lead_length(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (c >= 0xe0 && c <= 0xef)
        return 3;
    return c >= 0xf0 && c <= 0xf4 ? 4 : 0;
}

/* May `c` follow at place `at` (1..3) after lead byte `lead`? Rejects overlong forms, surrogates, and beyond U+10FFFF. */
static bool follows(unsigned char lead, size_t at, unsigned char c)
{
    if (at == 1) {
        switch (lead) {
        case 0xe0: return c >= 0xa0 && c <= 0xbf;
        case 0xed: return c >= 0x80 && c <= 0x9f;
        case 0xf0: return c >= 0x90 && c <= 0xbf;
        case 0xf4: return c >= 0x80 && c <= 0x8f;
        default: break;
        }
    }
    return c >= 0x80 && c <= 0xbf;
}

/* One byte into the character being put together; whole characters go to pending. */
static void add_byte(struct mc_text *text, unsigned char c)
{
    if (text->partial_length && !follows(text->partial[0], text->partial_length, c)) {
        buf_append_str(&text->pending, replacement); /* one for the broken beginning, then c starts anew */
        text->partial_length = 0;
    }
    if (text->partial_length == 0 && lead_length(c) == 0) {
        buf_append_str(&text->pending, replacement);
        return;
    }
    text->partial[text->partial_length++] = c;
    if (text->partial_length == lead_length(text->partial[0])) {
        buf_append(&text->pending, text->partial, text->partial_length);
        text->partial_length = 0;
    }
}

/* ---- stop strings ---- */

/* Does `stop` stand at `at`: 1 wholly, 0 no, -1 as far as there are bytes. */
static int stop_at(const struct stop *stop, const unsigned char *at, size_t left)
{
    size_t n = left < stop->length ? left : stop->length;

    if (memcmp(at, stop->bytes, n) != 0)
        return 0;
    return n == stop->length ? 1 : -1;
}

/* Move to ready what cannot belong to a stop string any more; end the text at a match. */
static void release(struct mc_text *text)
{
    size_t at = 0;

    for (; at < text->pending.len; at++) {
        const unsigned char *here = text->pending.data + at;
        size_t shortest = SIZE_MAX;
        bool maybe = false;

        for (size_t i = 0; i < text->stop_count; i++) {
            int match = stop_at(&text->stops[i], here, text->pending.len - at);

            if (match == 1 && text->stops[i].length < shortest) {
                shortest = text->stops[i].length;
                text->stopped = (int)i;
            }
            maybe |= match == -1;
        }
        if (shortest < SIZE_MAX || (maybe && !text->finished))
            break;
    }
    buf_append(&text->ready, text->pending.data, at);
    if (text->stopped >= 0)
        buf_reset(&text->pending);
    else
        buf_consume(&text->pending, at);
}

enum mc_status mc_text_push(struct mc_text *text, const char *bytes, size_t length)
{
    if (text->stopped >= 0 || text->finished)
        return MC_OK;
    /* room first, so that nothing is half added: each byte becomes at most two replacement characters */
    if (!buf_reserve(&text->pending, 6 * length + 8) ||
        !buf_reserve(&text->ready, text->pending.len + 6 * length + 8)) {
        text->pending.status = text->ready.status = MC_OK;
        return MC_ENOMEM;
    }
    for (size_t i = 0; i < length; i++)
        add_byte(text, (unsigned char)bytes[i]);
    release(text);
    return MC_OK;
}

void mc_text_finish(struct mc_text *text)
{
    if (text->finished)
        return;
    text->finished = true;
    if (text->stopped >= 0)
        return;
    if (text->partial_length)
        buf_append_str(&text->pending, replacement); /* push() left room */
    text->partial_length = 0;
    release(text);
}

const char *mc_text_take(struct mc_text *text, size_t *length)
{
    buf_consume(&text->ready, text->taken);
    text->taken = text->ready.len;
    *length = text->ready.len;
    return buf_cstr(&text->ready);
}

int mc_text_stopped(const struct mc_text *text)
{
    return text->stopped;
}
