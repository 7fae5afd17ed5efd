/* conformance_blocks.c - blocks out of every engine and into it: export while it computes, hostile bytes, misuse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conformance.h"

/* ---- export ---- */

struct ready_log {
    uint8_t *blocks;
    uint32_t next_block, next_layer;
};

static void on_ready(void *arg, struct mc_engine *e, uint32_t seq, uint32_t block, uint32_t first, uint32_t count)
{
    const struct mc_engine_info *info = mc_engine_info(e);
    struct ready_log *log = arg;
    struct mc_byte_range range;

    assert_int_equal(block, log->next_block);
    assert_int_equal(first, log->next_layer);
    log->next_layer = first + count;
    assert_int_equal(mc_layout_layers(info->layout, first, count, &range), MC_OK);
    assert_int_equal(mc_engine_export(e, seq, block, first, count,
                         log->blocks + block * info->block_size + range.offset, range.length),
        MC_OK);
    if (log->next_layer < info->layers) /* what was not announced is not there */
        assert_int_equal(mc_engine_export(e, seq, block, 0, info->layers, log->blocks, info->block_size), MC_EINVAL);
    if (log->next_layer == info->layers) {
        log->next_layer = 0;
        log->next_block++;
    }
}

/* Blocks taken while they are made are those taken later, whole or layer by layer. */
void export_while_computing(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    struct ready_log log = {.blocks = malloc(info->block_size * 4)};
    uint32_t seq = new_seq(a);
    struct mc_prefill p = {.seq = seq, .end = 290, .tokens = prompt, .ready = on_ready, .arg = &log};

    while (mc_engine_seq_length(a, seq) < p.end)
        assert_int_equal(mc_engine_prefill(a, &p, NULL), MC_OK);
    assert_int_equal(log.next_block, 4);
    for (uint32_t i = 0; i < 4; i++) {
        uint8_t *whole = export_block(a, seq, i), *parts = malloc(info->block_size);

        assert_memory_equal(whole, log.blocks + i * info->block_size, info->block_size);
        for (uint32_t layer = 0; layer < info->layers; layer++) {
            struct mc_byte_range range;

            mc_layout_layers(info->layout, layer, 1, &range);
            assert_int_equal(mc_engine_export(a, seq, i, layer, 1, parts + range.offset, range.length), MC_OK);
        }
        assert_memory_equal(whole, parts, info->block_size);
        free(whole);
        free(parts);
    }
    uint8_t byte;
    assert_int_equal(mc_engine_export(a, seq, 4, 0, info->layers, log.blocks, info->block_size), MC_EINVAL);
    assert_int_equal(mc_engine_export(a, seq, 0, 0, info->layers, &byte, 1), MC_EMISMATCH);
    assert_int_equal(mc_engine_export(a, seq, 0, info->layers, 1, &byte, 1), MC_EINVAL);
    assert_int_equal(mc_engine_export(a, seq + 1, 0, 0, 1, &byte, 1), MC_EINVAL);
    mc_engine_seq_free(a, seq);
    free(log.blocks);
}

/* ---- wrong bytes ---- */

/* One flipped bit in an imported block. An engine that verifies says so, wherever the bit is; another computes something
 * else: the text equality test would fail. */
void flipped_byte(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), other, n = 100;
    float *want = malloc(info->vocab_size * sizeof *want);
    uint8_t *block;

    memcpy(want, prefill_all(a, seq, prompt, n, 0), info->vocab_size * sizeof *want);
    block = export_block(a, seq, 0);
    size_t step = info->verifies ? 37 : info->block_size / 3 | 1;
    for (size_t at = 1; at < info->block_size; at += step) {
        struct mc_block_in in = {0, info->block_tokens, prompt, block, info->block_size};
        size_t done = 7;

        block[at] ^= 0x40;
        other = new_seq(b);
        if (info->verifies) {
            assert_int_equal(mc_engine_import(b, other, &in, 1, &done), MC_ECORRUPT);
            assert_int_equal(done, 0);
            assert_int_equal(mc_engine_seq_length(b, other), 0);
        } else {
            enum mc_status st = mc_engine_import(b, other, &in, 1, &done);

            if (st != MC_ECORRUPT) { /* which says that it became no finite number */
                assert_int_equal(st, MC_OK);
                assert_memory_not_equal(prefill_all(b, other, prompt, n, 0), want, info->vocab_size * sizeof *want);
            }
        }
        block[at] ^= 0x40;
        mc_engine_seq_free(b, other);
    }
    free(block);
    free(want);
    mc_engine_seq_free(a, seq);
}

/* Bytes that are right, but for another place or prefix. */
void foreign_blocks(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq, swapped = new_seq(a), other, bt = info->block_tokens, tokens[256];
    struct mc_block_in in[2];
    size_t done;

    if (!info->verifies) {
        print_message("         (engine %s cannot tell; the fingerprinted block id does)\n", engine_name);
        mc_engine_seq_free(a, swapped);
        return;
    }
    seq = new_seq(a);
    prefill_all(a, seq, prompt, 3 * bt, 0);
    /* same tokens in the second block, another first block */
    memcpy(tokens, prompt + 2 * bt, bt * sizeof *tokens);
    memcpy(tokens + bt, prompt + bt, bt * sizeof *tokens);
    prefill_all(a, swapped, tokens, 2 * bt, 0);
    in[0] = (struct mc_block_in){0, bt, prompt, export_block(a, seq, 0), info->block_size};
    in[1] = (struct mc_block_in){1, bt, prompt + bt, export_block(a, swapped, 1), info->block_size};
    other = new_seq(b);
    assert_int_equal(mc_engine_import(b, other, in, 2, &done), MC_ECORRUPT);
    assert_int_equal(done, 1); /* valid up to there */
    assert_int_equal(mc_engine_seq_length(b, other), bt);
    prefill_all(b, other, prompt, 2 * bt, 0);
    free((void *)(uintptr_t)in[1].bytes);
    /* the tokens asked for are not those the bytes were made from */
    mc_engine_seq_free(b, other);
    other = new_seq(b);
    in[0].tokens = prompt + 1;
    assert_int_equal(mc_engine_import(b, other, in, 1, &done), MC_ECORRUPT);
    free((void *)(uintptr_t)in[0].bytes);
    mc_engine_seq_free(b, other);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(a, swapped);
}

enum { HOSTILE_BLOCKS = 3, HOSTILE_TOKENS = 230 };

static void half_put(uint8_t *at, uint16_t half)
{
    at[0] = (uint8_t)half;
    at[1] = (uint8_t)(half >> 8);
}

/* Spoil a block in way number `way`; its name, or NULL when there are no more. *number: all halves stay finite. */
static const char *spoil(uint8_t *block, const struct mc_engine_info *info, uint32_t way, bool *number)
{
    struct mc_byte_range x, y;
    uint8_t *other = malloc(info->block_size);

    *number = way >= 6;
    memcpy(other, block, info->block_size);
    mc_layout_layers(info->layout, 0, 1, &x);
    mc_layout_layers(info->layout, info->layers - 1, 1, &y);
    switch (way) {
    case 0: half_put(block, 0x7e00); break; /* a NaN, first of all */
    case 1:
        half_put(block + y.offset + y.length / 2 - 2, 0xfc00);
        break; /* minus infinity, the last K of the last layer */
    case 2: half_put(block + info->block_size / 4 * 2, 0x7c01); break;
    case 3: memset(block, 0xff, info->block_size); break;
    case 4: memset(block + x.offset, 0x7c, x.length); break;
    case 5:
        for (uint64_t i = 0, word = 1; i < info->block_size; i++, word = word * 6364136223846793005ull + 1)
            block[i] = (uint8_t)(word >> 56);
        break;
    case 6: memset(block, 0, info->block_size); break;
    case 7: /* layers exchanged */
        memcpy(block + x.offset, other + y.offset, x.length);
        memcpy(block + y.offset, other + x.offset, y.length);
        break;
    case 8: /* K and V of a layer exchanged */
        memcpy(block, other + x.length / 2, x.length / 2);
        memcpy(block + x.length / 2, other, x.length / 2);
        break;
    case 9: /* the largest number there is, everywhere: what is computed from it need not be one */
        for (uint64_t i = 0; i < info->block_size; i += 2)
            half_put(block + i, 0x7bff);
        break;
    default: free(other); return NULL;
    }
    free(other);
    static const char *const names[] = {"a NaN", "an infinity", "a NaN in the middle", "all ones",
        "a layer of infinities", "noise", "zeros", "layers exchanged", "K and V exchanged", "the largest number"};
    return names[way];
}

enum { WITNESS_TOKENS = 77, WITNESS_STEPS = 24 };

/* A sequence beside the hostile one, and what it says step by step when it is alone. */
struct witness {
    uint32_t seq, steps;
    float *want;
};

static void witness_begin(struct witness *w)
{
    size_t vocab = mc_engine_info(a)->vocab_size;
    uint32_t seq = new_seq(a);

    *w = (struct witness){.seq = new_seq(b), .want = malloc(WITNESS_STEPS * vocab * sizeof(float))};
    prefill_all(a, seq, prompt + 9, WITNESS_TOKENS, 0);
    for (uint32_t i = 0; i < WITNESS_STEPS; i++)
        memcpy(w->want + i * vocab, decode_one(a, seq, prompt[i]), vocab * sizeof(float));
    mc_engine_seq_free(a, seq);
    prefill_all(b, w->seq, prompt + 9, WITNESS_TOKENS, 0);
}

/* The witness goes on with the same bits, and so does a prompt that gets cells which hostile bytes were in. */
static void no_trace(struct witness *w, const float *want)
{
    size_t vocab = mc_engine_info(b)->vocab_size;
    uint32_t seq = new_seq(b);

    assert_true(w->steps < WITNESS_STEPS);
    assert_memory_equal(decode_one(b, w->seq, prompt[w->steps]), w->want + w->steps * vocab, vocab * sizeof(float));
    w->steps++;
    assert_memory_equal(prefill_all(b, seq, prompt, HOSTILE_TOKENS, 0), want, vocab * sizeof(float));
    mc_engine_seq_free(b, seq);
}

/* A block in the middle is hostile, in every way that lengths and order allow. It is refused, with what was before it kept, or
 * it is numbers that no engine can tell from right ones: then nothing but this one sequence is concerned. */
void hostile_blocks(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    size_t size = info->vocab_size * sizeof(float), done;
    float *want = malloc(size);
    uint32_t seq, bt = info->block_tokens;
    struct witness witness;
    struct mc_block_in in[HOSTILE_BLOCKS];
    uint8_t *spoilt = malloc(info->block_size);
    const char *name;
    bool number;

    witness_begin(&witness);
    seq = new_seq(a);
    memcpy(want, prefill_all(a, seq, prompt, HOSTILE_TOKENS, 0), size);
    for (uint32_t i = 0; i < HOSTILE_BLOCKS; i++)
        in[i] = (struct mc_block_in){i, bt, prompt + i * bt, export_block(a, seq, i), info->block_size};
    mc_engine_seq_free(a, seq);
    const void *good = in[1].bytes;
    in[1].bytes = spoilt;
    for (uint32_t way = 0; memcpy(spoilt, good, info->block_size), (name = spoil(spoilt, info, way, &number)); way++) {
        bool refused = info->verifies || !number;
        uint32_t other = new_seq(b);
        enum mc_status st = mc_engine_import(b, other, in, HOSTILE_BLOCKS, &done);

        if (st != (refused ? MC_ECORRUPT : MC_OK) || done != (refused ? 1 : HOSTILE_BLOCKS))
            fail_msg("%s: %s, %zu blocks imported", name, mc_status_str(st), done);
        assert_int_equal(mc_engine_seq_length(b, other), done * bt);
        const float *logits = prefill_all(b, other, prompt, HOSTILE_TOKENS, 0);
        if (refused != (memcmp(logits, want, size) == 0))
            fail_msg("%s: logits %s", name, refused ? "differ after the refusal" : "are those of the right bytes");
        decode_one(b, other, prompt[0]);
        no_trace(&witness, want);
        mc_engine_seq_free(b, other);
        no_trace(&witness, want);
    }
    for (uint32_t i = 0; i < HOSTILE_BLOCKS; i++)
        free(i == 1 ? (void *)(uintptr_t)good : (void *)(uintptr_t)in[i].bytes);
    mc_engine_seq_free(b, witness.seq);
    free(witness.want);
    free(spoilt);
    free(want);
}

void import_misuse(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), other = new_seq(b), bt = info->block_tokens, wild[256];
    uint8_t *bytes;
    struct mc_block_in in[2];
    size_t done = 9;

    prefill_all(a, seq, prompt, 2 * bt, 0);
    bytes = export_block(a, seq, 0);
    const struct mc_block_in good = {0, bt, prompt, bytes, info->block_size};
#define REFUSED(status, change)                                                                                        \
    do {                                                                                                               \
        in[0] = good;                                                                                                  \
        change;                                                                                                        \
        assert_int_equal(mc_engine_import(b, other, in, 1, &done), status);                                            \
        assert_int_equal(done, 0);                                                                                     \
        assert_int_equal(mc_engine_seq_length(b, other), 0);                                                           \
        assert_int_equal(mc_engine_space(b).tokens_used, 0);                                                           \
    } while (0)
    REFUSED(MC_EINVAL, in[0].index = 1); /* gap */
    REFUSED(MC_EINVAL, in[0].index = UINT32_MAX);
    REFUSED(MC_EINVAL, in[0].rows = 0);
    REFUSED(MC_EMISMATCH, in[0].rows = bt + 1);
    REFUSED(MC_EMISMATCH, in[0].rows = bt - 1); /* size is that of a whole one */
    REFUSED(MC_EMISMATCH, in[0].size -= 64);
    REFUSED(MC_EMISMATCH, in[0].size += 64);
    REFUSED(MC_EMISMATCH, in[0].size -= 1);
    REFUSED(MC_EMISMATCH, in[0].size = 0);
    REFUSED(MC_EMISMATCH, in[0].size = SIZE_MAX);
    REFUSED(MC_EMISMATCH, in[0].rows = UINT32_MAX);
    for (uint32_t i = 0; i < bt; i++)
        wild[i] = info->vocab_size;
    REFUSED(MC_EINVAL, in[0].tokens = wild);
    assert_int_equal(mc_engine_import(b, other + 1, &good, 1, &done), MC_EINVAL);
    in[0] = good;
    in[1] = good;
    assert_int_equal(mc_engine_import(b, other, in, 2, &done), MC_EINVAL); /* twice */
    assert_int_equal(mc_engine_seq_length(b, other), 0);
    assert_int_equal(mc_engine_import(b, other, in, 1, &done), MC_OK);
    assert_int_equal(mc_engine_import(b, other, in, 1, &done), MC_EINVAL); /* again */
    assert_int_equal(mc_engine_seq_length(b, other), bt);
    free(bytes);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(b, other);
}

/* Part of a block, as after a range read: rows below block_tokens, in a layout of that many. */
void partial_block(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), other, rows = info->block_tokens / 2, n = info->block_tokens + rows + 3;
    struct mc_byte_range from[2 * MC_LAYERS_MAX];
    struct mc_layout *part;
    uint8_t *block, *bytes;

    prefill_all(a, seq, prompt, n, 0);
    block = export_block(a, seq, 0);
    assert_int_equal(mc_layout_create(info->geometry, rows, &part), MC_OK);
    assert_int_equal(mc_layout_rows(info->layout, 0, rows, from, 2 * MC_LAYERS_MAX), MC_OK);
    bytes = calloc(1, mc_layout_size(part));
    for (size_t i = 0; i < mc_layout_plane_count(part); i++)
        memcpy(bytes + mc_layout_plane(part, i).offset, block + from[i].offset, from[i].length);
    other = new_seq(b);
    const struct mc_block_in in = {0, rows, prompt, bytes, mc_layout_size(part)};
    assert_int_equal(mc_engine_import(b, other, &in, 1, NULL), MC_OK);
    assert_int_equal(mc_engine_seq_length(b, other), rows);
    const struct mc_block_in next = {1, info->block_tokens, prompt, block, info->block_size};
    assert_int_equal(mc_engine_import(b, other, &next, 1, NULL), MC_EINVAL); /* nothing may follow a short one */
    prefill_all(b, other, prompt, n, 0);
    if (info->verifies) {
        uint8_t *again = export_block(b, other, 0);

        assert_memory_equal(again, block, info->block_size);
        free(again);
    }
    mc_layout_destroy(part);
    free(bytes);
    free(block);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(b, other);
}
