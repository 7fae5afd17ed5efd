/* proto_test.c - goal: bodies on the wire never change by accident, and nothing hostile is accepted. Method: one message of each
 * kind is encoded, compared with the golden file (CRC32C and length of each body), decoded, encoded again and compared;
 * then every body is cut at every length and has every byte changed: refused or harmless, never beyond its end (ASan). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/crc.h"
#include "store/proto.h"

static struct store_key block(void)
{
    struct store_key key = {.ns = 7, .group = 1, .shard = 2, .shards = 4, .kind = MC_KEY_BLOCK};

    memset(key.id, 0xab, 16);
    return key;
}

static struct store_key named(void)
{
    struct mc_key public;
    struct store_key key;

    mc_key_named(&public, "models/a", 8);
    assert_int_equal(store_key_from(7, &public, &key), MC_OK);
    return key;
}

static struct store_member member(void)
{
    struct store_member m = {.epoch = 3,
        .state = NODE_SUSPECT,
        .ephemeral = true,
        .capacity = 1 << 30,
        .used = 5,
        .objects = 6,
        .puts = 7,
        .evictions = 8,
        .hits = 9,
        .name = "node-a",
        .address = "127.0.0.1:7402",
        .host_id = "host",
        .zone = "z"};

    memset(m.uuid, 0x11, 16);
    return m;
}

struct lists {
    struct buf entries, rows, locs, members, keys, numbers, spans, segments, verdicts;
};

static void lists_make(struct lists *l)
{
    struct store_entry entry = {.key = named(),
        .generation = 1ull << 40 | 5,
        .version = 2ull << 32 | 9,
        .offset = 4096,
        .length = 700,
        .segment = 1,
        .head = 192,
        .flags = STORE_REPLACE};
    struct store_row row = {.epoch = 3, .state = NODE_UP, .lead = 12};
    struct store_loc loc = {
        .key = 3, .segment = 1, .head = 192, .offset = 64, .length = 700, .generation = 5, .version = 9};
    struct store_member m = member();
    struct store_key key = block();
    struct store_span span = {.offset = 10, .length = 700};
    struct store_segment segment = {.id = 1, .size = 1 << 20};
    struct store_verdict verdict = {MC_EEXIST, 9};
    struct buf *all = (struct buf *)l;

    for (size_t i = 0; i < sizeof(*l) / sizeof(*all); i++)
        buf_init(&all[i], 1 << 20);
    memset(row.uuid, 0x11, 16);
    memset(span.region, 0x22, sizeof(span.region));
    memset(segment.region, 0x33, sizeof(segment.region));
    store_entry_put(&l->entries, &entry);
    entry.key = block();
    store_entry_put(&l->entries, &entry);
    store_row_put(&l->rows, &row);
    store_loc_put(&l->locs, &loc);
    store_member_put(&l->members, &m);
    store_key_put(&l->keys, &key);
    put_u64(&l->numbers, 1ull << 40 | 5);
    put_u64(&l->numbers, 700);
    store_span_put(&l->spans, &span);
    store_segment_put(&l->segments, &segment);
    store_verdict_put(&l->verdicts, &verdict);
}

static void lists_free(struct lists *l)
{
    struct buf *all = (struct buf *)l;

    for (size_t i = 0; i < sizeof(*l) / sizeof(*all); i++)
        buf_fini(&all[i]);
}

enum { SAMPLES = 32 };

static uint32_t samples_make(struct store_msg *s, struct lists *l)
{
    struct store_found found = {.blocks = 4,
        .bytes = 2800,
        .rebuilding = true,
        .rows = buf_slice(&l->rows),
        .locs = buf_slice(&l->locs),
        .misses = slice_of("\0\2\1\0", 4)};
    struct store_put_reply stored = {
        .existed = true, .version = 9, .part = 4, .has_loc = true, .loc = {.segment = 1, .head = 192}};
    uint32_t n = 0;

#define SAMPLE(t, r, ...) s[n++] = (struct store_msg){.type = MSG_##t, .reply = r, .request = 7, __VA_ARGS__}
    SAMPLE(NODE_INFO, false, .segments = buf_slice(&l->segments));
    SAMPLE(NODE_PUT, false,
        .put = {.key = named(),
            .length = 700,
            .flags = STORE_REPLACE,
            .spans = buf_slice(&l->spans),
            .meta = {.depth = 3, .tokens = 64, .geometry = 99, .planes = buf_slice(&l->numbers)}});
    SAMPLE(NODE_PUT, false, .put = {.key = block(), .length = 5, .data = slice_of("hello", 5)});
    SAMPLE(NODE_PUT, true, .put_reply = stored);
    SAMPLE(PART_BEGIN, false, .put = {.key = block(), .length = 700});
    SAMPLE(PART_WRITE, false, .part = {.part = 4, .offset = 100, .data = slice_of("hello", 5)});
    SAMPLE(PART_COMMIT, true, .put_reply = stored);
    SAMPLE(NODE_PIN, false, .pin = {.token = 77, .pin_ms = 500, .generations = buf_slice(&l->numbers)});
    SAMPLE(NODE_TOUCH, false, .touch = buf_slice(&l->numbers));
    SAMPLE(NODE_DROP, true, .drop = {.generations = buf_slice(&l->numbers), .replaced = true});
    SAMPLE(NODE_PROMISE, false, .promise = {.ms = 5000, .generations = buf_slice(&l->numbers)});
    SAMPLE(NODE_REGISTER, false, .reg = {.self = member(), .term_max = 12});
    SAMPLE(NODE_REGISTER, true, .welcome = {.term = 13, .instance = 99, .forget_ms = 600000});
    SAMPLE(NODE_BEAT, false, .beat = {.epoch = 3, .used = 5, .ledger.row[LEDGER_PRESENT] = {4, 2800}});
    SAMPLE(NODE_BEAT, true, .authority_ms = 300);
    SAMPLE(NODE_COMMIT, false, .commit = {.entries = buf_slice(&l->entries)});
    SAMPLE(NODE_COMMIT, true, .verdicts = buf_slice(&l->verdicts));
    SAMPLE(NODE_GONE, false, .gone = {.generations = buf_slice(&l->numbers)});
    SAMPLE(NODE_INVENTORY, false, .commit = {.entries = buf_slice(&l->entries), .last = true});
    SAMPLE(MASTER_LOOKUP, false, .lookup = {.ns = 7, .keys = buf_slice(&l->keys), .promise_ms = 5000});
    SAMPLE(MASTER_LOOKUP, true, .found = found);
    SAMPLE(MASTER_PREFIX, false, .prefix = {.ns = 7, .shards = 1, .ids = slice_of("0123456789abcdef", 16)});
    SAMPLE(MASTER_REMOVE, false, .remove = {.key = named(), .force = true});
    SAMPLE(MASTER_REMOVE, false, .remove = {.key = named(), .node = slice_str("localhost:12345")});
    SAMPLE(MASTER_SUBSCRIBE, true, .members = {.term = 13, .full = true, .list = buf_slice(&l->members)});
    SAMPLE(MASTER_MEMBERS, false, .members = {.term = 13, .forgotten = slice_of("0123456789abcdef", 16)});
    SAMPLE(MASTER_MODEL, true, .status = MC_EMISMATCH, .model = {slice_str("m"), slice_str("record")});
    SAMPLE(MASTER_LIST, true,
        .list = {.ns = 7, .cursor = 5, .entries = buf_slice(&l->entries), .rows = buf_slice(&l->rows)});
    SAMPLE(NODE_PUT, false, .put = {.key = named(), .length = 5, .bundle = 78, .data = slice_of("hello", 5)});
    SAMPLE(NODE_BUNDLE, false, .bundle = {.number = 78, .generations = buf_slice(&l->numbers)});
    SAMPLE(NODE_BUNDLE, true, .verdicts = buf_slice(&l->verdicts));
    SAMPLE(NODE_COMMIT, false, .commit = {.entries = buf_slice(&l->entries), .whole = true});
#undef SAMPLE
    assert_true(n <= SAMPLES);
    return n;
}

static enum mc_status decode(const struct store_msg *like, struct slice body, struct store_msg *out, const char **bad)
{
    struct frame frame = {.type = like->type,
        .flags = like->reply ? FRAME_REPLY : 0,
        .status = like->status,
        .request = like->request,
        .body = body};

    return store_msg_decode(&frame, out, bad);
}

/* GOLDEN_WRITE=1 writes the file anew: for a message that was added, never for one that changed. */
static void test_golden(void **state)
{
    FILE *file = fopen(PROTO_GOLDEN, getenv("GOLDEN_WRITE") ? "w" : "r");
    struct store_msg samples[SAMPLES], back;
    struct lists lists;
    uint32_t n;

    assert_non_null(file);
    lists_make(&lists);
    n = samples_make(samples, &lists);
    for (uint32_t i = 0; i < n; i++) {
        char line[128], want[128];
        struct buf body, again;
        const char *bad;

        buf_init(&body, FRAME_BODY_MAX);
        buf_init(&again, FRAME_BODY_MAX);
        store_msg_encode(&samples[i], &body);
        assert_int_equal(buf_status(&body), MC_OK);
        snprintf(line, sizeof(line), "%s%s %zu %08x\n", message_name(samples[i].type), samples[i].reply ? "-reply" : "",
            body.len, crc32c(0, body.data, body.len));
        if (getenv("GOLDEN_WRITE")) {
            fputs(line, file);
        } else {
            assert_non_null(fgets(want, sizeof(want), file));
            assert_string_equal(line, want);
        }
        assert_int_equal(decode(&samples[i], buf_slice(&body), &back, &bad), MC_OK);
        store_msg_encode(&back, &again);
        assert_true(slice_eq(buf_slice(&body), buf_slice(&again)));
        buf_fini(&body);
        buf_fini(&again);
    }
    fclose(file);
    lists_free(&lists);
}

static void test_hostile(void **state)
{
    struct store_msg samples[SAMPLES], back;
    struct lists lists;
    uint32_t n, refused = 0;

    lists_make(&lists);
    n = samples_make(samples, &lists);
    for (uint32_t i = 0; i < n; i++) {
        struct buf body;
        const char *bad = NULL;

        buf_init(&body, FRAME_BODY_MAX);
        store_msg_encode(&samples[i], &body);
        for (size_t cut = 0; cut < body.len; cut++) {
            uint8_t *exact = malloc(cut + 1);

            assert_non_null(exact);
            memcpy(exact + 1, body.data, cut); /* ends where the allocation ends */
            if (decode(&samples[i], slice_of(exact + 1, cut), &back, &bad) != MC_OK) {
                assert_non_null(bad);
                refused++;
            }
            free(exact);
        }
        for (size_t at = 0; at < body.len; at++) {
            body.data[at] ^= 0x80;
            if (decode(&samples[i], buf_slice(&body), &back, &bad) != MC_OK) {
                assert_non_null(bad);
                refused++;
            }
            body.data[at] ^= 0x80;
        }
        buf_fini(&body);
    }
    assert_true(refused > 1000);
    lists_free(&lists);
}

static void test_location_out_of_table(void **state)
{
    struct buf locs, body;
    struct store_loc loc = {.node = 1};
    struct store_msg msg = {.type = MSG_MASTER_LOOKUP, .reply = true}, back;
    const char *bad;

    buf_init(&locs, 4096);
    buf_init(&body, 4096);
    store_loc_put(&locs, &loc);
    msg.found.locs = buf_slice(&locs);
    store_msg_encode(&msg, &body);
    assert_int_equal(decode(&msg, buf_slice(&body), &back, &bad), MC_EPROTO);
    assert_string_equal(bad, "locations");
    buf_fini(&locs);
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_location_out_of_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
