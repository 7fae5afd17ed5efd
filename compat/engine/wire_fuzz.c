/* wire_fuzz.c - bodies between engines, and areas. The first byte chooses; what is accepted keeps its limits and is accepted again
 * after encoding. A description made of any areas finds only what they cover. */
#include <stdlib.h>
#include <string.h>

#include "compat/engine/ce.h"
#include "compat/engine/impl.h"
#include "compat/engine/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void fuzz_answer(struct slice body, struct buf *again)
{
    struct ce_wire_answer a, b;
    const char *bad;

    if (ce_wire_answer_decode(body, &a, &bad) != MC_OK)
        return;
    check(a.version != 0 && a.count <= CE_AREAS_MAX && !(a.same && a.count));
    ce_wire_answer_encode(&a, again);
    check(ce_wire_answer_decode(buf_slice(again), &b, &bad) == MC_OK && a.version == b.version && a.count == b.count);
}

static void fuzz_note(struct slice body, struct buf *again)
{
    struct ce_wire_note a, b;
    const char *bad;

    if (ce_wire_note_decode(body, &a, &bad) != MC_OK)
        return;
    check(a.id != 0 && a.name.len + a.msg.len <= CE_NOTE_MAX);
    ce_wire_note_encode(&a, again);
    check(
        ce_wire_note_decode(buf_slice(again), &b, &bad) == MC_OK && slice_eq(a.name, b.name) && slice_eq(a.msg, b.msg));
}

static void fuzz_areas(struct slice body)
{
    struct ce_wire_answer head = {.version = 1, .count = (uint32_t)(body.len / CE_AREA_SIZE)};
    struct hello from = {.epoch = 1};
    struct ce_desc *desc;

    if (ce_desc_parse(&head, body.ptr, &from, &desc) != MC_OK)
        return;
    for (uint32_t i = 0; i < desc->count; i++) {
        const struct ce_spot *spot = ce_desc_find(desc, desc->spots[i].addr, desc->spots[i].end - desc->spots[i].addr);

        check(spot && spot->addr <= desc->spots[i].addr && spot->end >= desc->spots[i].end);
    }
    ce_desc_unref(desc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice body = size ? slice_of(data + 1, size - 1) : slice_of(NULL, 0);
    uint8_t which = size ? data[0] % 4 : 0;
    const char *bad;
    uint64_t known;
    struct buf again;

    buf_init(&again, 4u << 20);
    if (which == 0)
        fuzz_answer(body, &again);
    else if (which == 1)
        fuzz_note(body, &again);
    else if (which == 2)
        (void)ce_wire_ask_decode(body, &known, &bad);
    else
        fuzz_areas(body);
    buf_fini(&again);
    return 0;
}
