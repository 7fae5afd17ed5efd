/* wire_test.c - bodies between engines: golden bytes, round trips, every truncation, and what must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "compat/engine/ce.h"
#include "compat/engine/impl.h"
#include "compat/engine/wire.h"

static const struct ce_wire_answer answer_sample = {.version = 0x1122334455667788, .first = 0x7f0000001000, .count = 3};

static const char *hex_of(const struct buf *body)
{
    static char hex[1024];

    assert_int_equal(buf_status(body), MC_OK);
    hex_encode(hex, body->data, body->len);
    return hex;
}

static void golden(void **state)
{
    struct ce_wire_note note = {.id = 9, .name = slice_str("n"), .msg = slice_str("mm")};
    struct buf body;

    buf_init(&body, 4096);
    ce_wire_ask_encode(5, &body);
    assert_string_equal(hex_of(&body), "01800200000001000200080000000500000000000000");
    buf_reset(&body);
    ce_wire_answer_encode(&answer_sample, &body);
    assert_string_equal(hex_of(&body), "01800200000001000200080000008877665544332211030008000000001000"
                                       "00007f00000400040000000300000005000100000000");
    buf_reset(&body);
    ce_wire_note_encode(&note, &body);
    assert_string_equal(hex_of(&body), "010008000000090000000000000002000100"
                                       "00006e0300020000006d6d");
    buf_fini(&body);
}

static void area(void **state)
{
    struct ce_area in = {.addr = 0x1000, .len = 0x20, .key = {{1, 2, 3}}}, out;
    uint8_t bytes[CE_AREA_SIZE];
    char hex[2 * CE_AREA_SIZE + 1];

    ce_wire_area_put(&in, bytes);
    hex_encode(hex, bytes, 20);
    assert_string_equal(hex, "0010000000000000200000000000000001020300");
    assert_int_equal(ce_wire_area_get(bytes, &out), MC_OK);
    assert_memory_equal(&in, &out, sizeof(in));
    memset(bytes + 8, 0, 8);
    assert_int_equal(ce_wire_area_get(bytes, &out), MC_EPROTO);
    memset(bytes + 8, 0xff, 8);
    assert_int_equal(ce_wire_area_get(bytes, &out), MC_EPROTO);
}

/* Cut anywhere: refused, or as if the fields behind were never sent. */
static void truncated(void **state)
{
    struct ce_wire_answer answer;
    struct ce_wire_note note = {.id = 9, .name = slice_str("name"), .msg = slice_str("message")}, got;
    const char *bad;
    struct buf body;

    buf_init(&body, 4096);
    ce_wire_answer_encode(&answer_sample, &body);
    for (size_t len = 0; len < body.len; len++)
        if (ce_wire_answer_decode(slice_of(body.data, len), &answer, &bad) == MC_OK)
            assert_int_equal(answer.version, answer_sample.version);
    assert_int_equal(ce_wire_answer_decode(buf_slice(&body), &answer, &bad), MC_OK);
    assert_memory_equal(&answer, &answer_sample, sizeof(answer));
    buf_reset(&body);
    ce_wire_note_encode(&note, &body);
    for (size_t len = 0; len < body.len; len++)
        if (ce_wire_note_decode(slice_of(body.data, len), &got, &bad) == MC_OK)
            assert_int_equal(got.id, 9);
    assert_int_equal(ce_wire_note_decode(buf_slice(&body), &got, &bad), MC_OK);
    assert_true(slice_eq(got.name, note.name) && slice_eq(got.msg, note.msg));
    buf_fini(&body);
}

static void refused(void **state)
{
    static const struct ce_wire_answer wrong[] = {
        {.version = 0}, {.version = 1, .count = CE_AREAS_MAX + 1}, {.version = 1, .count = 1, .same = true}};
    struct ce_wire_note note = {.id = 0, .name = slice_str("n")}, got;
    struct ce_wire_answer answer;
    const char *bad;
    uint64_t known;
    struct buf body;

    buf_init(&body, 4096);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        buf_reset(&body);
        ce_wire_answer_encode(&wrong[i], &body);
        assert_int_equal(ce_wire_answer_decode(buf_slice(&body), &answer, &bad), MC_EPROTO);
    }
    buf_reset(&body);
    ce_wire_note_encode(&note, &body);
    assert_int_equal(ce_wire_note_decode(buf_slice(&body), &got, &bad), MC_EPROTO);
    buf_reset(&body);
    ce_wire_ask_encode(1, &body);
    body.data[6] = 2; /* a layout of the future */
    assert_int_equal(ce_wire_ask_decode(buf_slice(&body), &known, &bad), MC_ENOSUP);
    buf_fini(&body);
}

/* Ranges that overlap in every way: whatever one range covers is found, what none covers is not. */
static void look_up(void **state)
{
    enum { SPOTS = 40, SPACE = 200 };
    struct ce_wire_answer head = {.version = 1, .count = SPOTS};
    uint8_t areas[SPOTS * CE_AREA_SIZE];
    struct hello from = {.epoch = 1};
    uint32_t seed = 1;

    for (int round = 0; round < 50; round++) {
        struct ce_area list[SPOTS];
        struct ce_desc *desc;

        for (int i = 0; i < SPOTS; i++) {
            seed = seed * 1664525u + 1013904223u;
            list[i] = (struct ce_area){.addr = 1 + (seed >> 8) % SPACE, .len = 1 + (seed >> 20) % 30};
            ce_wire_area_put(&list[i], areas + i * CE_AREA_SIZE);
        }
        assert_int_equal(ce_desc_parse(&head, areas, &from, &desc), MC_OK);
        for (uint64_t addr = 0; addr < SPACE + 40; addr++)
            for (uint64_t len = 1; len < 35; len++) {
                const struct ce_spot *spot = ce_desc_find(desc, addr, len);
                bool covered = false;

                for (int i = 0; i < SPOTS; i++)
                    covered |= list[i].addr <= addr && addr + len <= list[i].addr + list[i].len;
                assert_int_equal(spot != NULL, covered);
                if (spot)
                    assert_true(spot->addr <= addr && addr + len <= spot->end);
            }
        ce_desc_unref(desc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(area),
        cmocka_unit_test(truncated),
        cmocka_unit_test(refused),
        cmocka_unit_test(look_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
