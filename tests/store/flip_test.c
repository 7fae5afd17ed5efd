/* flip_test.c - goal: no flipped bit ever becomes wrong bytes of a get.
 * Method: master, two nodes and a client in this process, so that the nodes' memory can be reached; 10,000 random flips each in
 * header, chunk table and payload, of objects with one copy (the outcome is a counted miss `corrupt` or `stale`) and with two (the other
 * one is read); 10,000 bits of the frames in which a node answers; then 10,000 reads each over a wire so bad that reads give up,
 * without and with a second copy elsewhere. The seed is printed.
 *
 *     flip_test [auto|tcp]   flips in memory, read by that transport
 *     flip_test wire         flips on the way, which is tcp */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/scratch_test.h"
#include "content.h"
#include "noise.h"
#include "store/index/master.h"
#include "store/node/node.h"
#include "store/object.h"

enum { MS = 5000, FLIPS = 10000, OBJECTS = 50, LEN = 150000, WIRE_LEN = 20000 };

static struct store_master *master;
static struct store_node *node[2];
static char run_dir[SCRATCH_PATH];
static struct rng rng;
static const char *transport = "auto";

static struct mc_store *open_client(const char *by, const char *host_id)
{
    struct mc_store_opts opts = {
        .size = sizeof(opts),
        .master = store_master_address(master),
        .transport = by,
        .host_id = host_id,
        .run_dir = run_dir,
        .connect_ms = 5000,
    };
    struct mc_store *store;

    assert_int_equal(mc_store_open(&opts, &store), MC_OK);
    return store;
}

/* Where the copies are. On a crowded machine the master may seem silent for a moment: then it is asked again. */
static uint32_t where(struct mc_store *store, const struct mc_key *key, struct mc_location rows[4])
{
    uint32_t n = 4;

    for (uint64_t start = now_ns(); mc_store_where(store, key, MS, rows, &n) != MC_OK; n = 4)
        assert_true(now_ns() - start < 10 * NS_PER_S);
    return n;
}

static void take_away(struct mc_store *store, uint64_t number)
{
    struct mc_key key = block(number);
    enum mc_status status = MC_EPEERDOWN;

    for (uint64_t start = now_ns(); status == MC_EPEERDOWN; status = mc_store_remove(store, &key, true, MS))
        assert_true(now_ns() - start < 10 * NS_PER_S);
    assert_true(status == MC_OK || status == MC_ENOENT); /* the latter when only the answer was missed */
}

/* Put until `copies` nodes have it: at first they may not be connected yet. */
static void put_copies(struct mc_store *store, uint64_t number, uint64_t len, uint32_t copies)
{
    struct mc_key key = block(number);
    struct mc_object_meta meta = {.replicas = copies};
    struct mc_location rows[4];
    uint8_t *data = malloc(len);
    uint32_t n = 0;

    fill(data, len, number);
    for (uint64_t start = now_ns(); n != copies;) {
        assert_true(now_ns() - start < 10 * NS_PER_S);
        if (mc_store_put(store, &key, data, len, &meta, MS) == MC_OK)
            n = where(store, &key, rows);
        if (n != copies)
            mc_store_remove(store, &key, true, MS);
    }
    free(data);
}

/* Where a copy lies in this process. */
static uint8_t *memory_of(const struct mc_location *at)
{
    for (int i = 0; i < 2; i++) {
        void *base;
        uint64_t size;

        if (memcmp(store_node_uuid(node[i]), at->node, 16) != 0)
            continue;
        assert_true(store_node_segment(node[i], at->segment, &base, &size));
        assert_true(at->offset + at->length <= size);
        return (uint8_t *)base + at->offset;
    }
    fail_msg("a copy at an unknown node");
    return NULL;
}

enum part { HEADER, TABLE, PAYLOAD };

/* A random bit of that part of the object. */
static uint64_t pick_bit(const uint8_t *object, enum part part)
{
    struct object_header h;

    assert_int_equal(object_parse(object, OBJECT_HEADER_MAX, &h), MC_OK);
    uint64_t table = (uint64_t)(h.table - object);
    switch (part) {
    case HEADER: return rng_below(&rng, table * 8);
    case TABLE: return table * 8 + rng_below(&rng, 8ull * 8 * h.chunks);
    default: return h.header_len * 8ull + rng_below(&rng, h.length * 8);
    }
}

static struct mc_store_result get_once(struct mc_store *store, uint64_t number, uint64_t len, bool range)
{
    static uint8_t data[LEN];
    struct mc_span span = {data, len};
    struct mc_range part = {rng_below(&rng, len - 100), 100, data};
    struct mc_store_op op = {.opcode = MC_GET, .key = block(number)};

    if (range) {
        op.ranges = &part;
        op.nranges = 1;
    } else {
        op.spans = &span;
        op.nspans = 1;
    }
    memset(data, 0, len);
    assert_int_equal(mc_store_sync(store, &op, 1, MS), MC_OK);
    if (op.result.status == MC_OK) {
        static uint8_t want[LEN];

        fill(want, len, number);
        assert_memory_equal(data, want + (range ? part.offset : 0), range ? 100 : len);
    }
    return op.result;
}

/* Right bytes, or why not. Nothing is down here: what seems so on a crowded machine is read again. */
static struct mc_store_result get_checked(struct mc_store *store, uint64_t number, uint64_t len, bool range)
{
    for (uint64_t start = now_ns();;) {
        struct mc_store_result result = get_once(store, number, len, range);

        if (result.miss != MC_MISS_PEER_DOWN && result.miss != MC_MISS_MASTER_DOWN)
            return result;
        assert_true(now_ns() - start < 10 * NS_PER_S);
    }
}

static void flip(struct mc_store *store, enum part part, uint32_t copies, uint64_t first)
{
    struct mc_store_stats before, after;
    uint64_t hits = 0, misses = 0;

    for (uint64_t i = 0; i < OBJECTS; i++)
        put_copies(store, first + i, LEN, copies);
    mc_store_stats(store, &before);
    for (int i = 0; i < FLIPS; i++) {
        uint64_t number = first + rng_below(&rng, OBJECTS);
        struct mc_location rows[4];
        struct mc_key key = block(number);
        uint32_t n = where(store, &key, rows);

        assert_int_equal(n, copies);
        uint8_t *object = memory_of(&rows[rng_below(&rng, n)]);
        uint64_t bit = pick_bit(object, part);
        bool range = i % 4 == 0;
        object[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct mc_store_result result = get_checked(store, number, LEN, range);
        object[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (result.status == MC_OK) {
            hits++;
            assert_true(copies > 1 || (part == PAYLOAD && range)); /* a range that does not hold the bit */
        } else {
            misses++;
            assert_int_equal(result.status, MC_ENOENT);
            assert_true(result.miss == MC_MISS_CORRUPT || result.miss == MC_MISS_STALE);
            assert_int_equal(copies, 1);
        }
    }
    mc_store_stats(store, &after);
    print_message("part %d copies %u: hits %llu misses %llu failovers %llu checksum errors %llu\n", part, copies,
        (unsigned long long)hits, (unsigned long long)misses, (unsigned long long)(after.failovers - before.failovers),
        (unsigned long long)(after.checksum_errors - before.checksum_errors));
    assert_int_equal(after.misses[MC_MISS_CORRUPT] + after.misses[MC_MISS_STALE] - before.misses[MC_MISS_CORRUPT] -
                         before.misses[MC_MISS_STALE],
        misses);
    if (copies > 1)
        assert_true(after.failovers > before.failovers);
    if (part == PAYLOAD)
        assert_true(after.checksum_errors - before.checksum_errors >= misses);
    for (uint64_t i = 0; i < OBJECTS; i++) { /* every bit is back in its place */
        assert_int_equal(get_checked(store, first + i, LEN, false).status, MC_OK);
        take_away(store, first + i);
    }
}

static void flips_with_copies(uint32_t copies)
{
    struct mc_store *store = open_client(transport, "flip");

    for (enum part part = HEADER; part <= PAYLOAD; part++)
        flip(store, part, copies, 10000 + 1000 * part + 100000 * copies);
    mc_store_close(store);
}

static void flips_of_a_single_copy_are_misses(void **state)
{
    flips_with_copies(1);
}

static void flips_of_one_of_two_are_hits(void **state)
{
    flips_with_copies(2);
}

/* Put until that node has the first copy, and `copies` nodes have one: at first the client may not be connected to them. */
static void put_at(
    struct mc_store *store, const struct store_node *first, const char *name, uint64_t number, uint32_t copies)
{
    struct mc_object_meta meta = {.node = name, .replicas = copies};
    uint8_t data[WIRE_LEN];
    struct mc_span span = {data, WIRE_LEN};
    struct mc_store_op op = {.opcode = MC_PUT, .key = block(number), .spans = &span, .nspans = 1, .meta = &meta};
    uint32_t n = 0;

    fill(data, WIRE_LEN, number);
    for (uint64_t begun = now_ns(); n != copies || memcmp(op.result.node, store_node_uuid(first), 16) != 0;) {
        struct mc_location rows[4];

        assert_true(now_ns() - begun < 10 * NS_PER_S);
        mc_store_remove(store, &op.key, true, MS);
        assert_int_equal(mc_store_sync(store, &op, 1, MS), MC_OK);
        n = op.result.status == MC_OK ? where(store, &op.key, rows) : 0;
    }
}

/* One bit of each answer: in the data, and now and then where its frame begins, which ends the connection. The engine reads again,
 * and what it cannot mend is a miss. */
static void flips_of_frames_are_never_seen(void **state)
{
    struct noise *noise = noise_start(rng_u64(&rng));
    struct store_node_opts opts = {
        .listen = "127.0.0.1:0",
        .advertise = noise_address(noise),
        .master = store_master_address(master),
        .host_id = "elsewhere",
        .run_dir = run_dir,
        .name = "noisy",
        .transport = "tcp",
        .memory = 64 << 20,
        .ephemeral = true,
    };
    uint64_t hits = 0, heads = 0;
    struct store_node *noisy;

    assert_int_equal(store_node_create(&opts, &noisy), MC_OK);
    noise_target(noise, store_node_address(noisy));
    assert_int_equal(store_node_start(noisy), MC_OK);
    struct mc_store *store = open_client("tcp", "far");
    for (uint64_t i = 0; i < OBJECTS; i++)
        put_at(store, noisy, "noisy", 1 + i, 1);
    for (int i = 0; i < FLIPS; i++) {
        bool head = i % 20 == 0;

        heads += head;
        noise_arm(noise, head);
        struct mc_store_result result = get_checked(store, 1 + rng_below(&rng, OBJECTS), WIRE_LEN, i % 4 == 0);
        hits += result.status == MC_OK;
        assert_true(result.status == MC_OK || result.miss == MC_MISS_CORRUPT || result.miss == MC_MISS_STALE);
    }
    print_message("frames: %llu flips, %llu at their beginning; %llu hits of %d\n",
        (unsigned long long)noise_flips(noise), (unsigned long long)heads, (unsigned long long)hits, FLIPS);
    assert_true(noise_flips(noise) >= FLIPS - 1); /* the last one may be on its way */
    assert_true(hits > FLIPS / 2);
    for (uint64_t i = 0; i < OBJECTS; i++)
        take_away(store, 1 + i);
    mc_store_close(store);
    store_node_destroy(noisy);
    noise_stop(noise);
}

/* A node whose answers are damaged on the wire: seven of ten pieces have a bit flipped. */
static struct store_node *damaged_start(void)
{
    struct store_node_opts opts = {
        .listen = "127.0.0.1:0",
        .master = store_master_address(master),
        .host_id = "elsewhere",
        .run_dir = run_dir,
        .name = "damaged",
        .transport = "tcp",
        .fault = "seed=3,corrupt=0.7",
        .memory = 64 << 20,
        .ephemeral = true,
    };
    struct store_node *damaged;

    assert_int_equal(store_node_create(&opts, &damaged), MC_OK);
    assert_int_equal(store_node_start(damaged), MC_OK);
    return damaged;
}

/* Most reads succeed all the same, because damaged pieces are asked for again. Some give up, which shows that there was damage:
 * without another copy they are misses, counted as what they are, with one they are hits. */
static void flips_on_the_wire(uint32_t copies)
{
    struct store_node *damaged = damaged_start();
    struct mc_store *store = open_client("tcp", "far"); /* from all nodes alike */
    struct mc_store_stats before, after;
    uint64_t misses = 0;

    for (uint64_t i = 0; i < OBJECTS; i++)
        put_at(store, damaged, "damaged", 1 + i, copies);
    mc_store_stats(store, &before);
    for (int i = 0; i < FLIPS; i++) {
        uint64_t number = 1 + rng_below(&rng, OBJECTS);
        struct mc_location rows[4];
        struct mc_key key = block(number);

        assert_int_equal(where(store, &key, rows), copies); /* and both copies are known again */
        struct mc_store_result result = get_checked(store, number, WIRE_LEN, i % 4 == 0);
        if (result.status == MC_OK)
            continue;
        misses++;
        assert_int_equal(result.status, MC_ENOENT);
        assert_int_equal(result.miss, MC_MISS_CORRUPT);
    }
    mc_store_stats(store, &after);
    print_message("copies %u: %llu of %d reads over a wire that flips bits are misses, failovers %llu\n", copies,
        (unsigned long long)misses, FLIPS, (unsigned long long)(after.failovers - before.failovers));
    assert_int_equal(after.misses[MC_MISS_CORRUPT] - before.misses[MC_MISS_CORRUPT], misses);
    assert_true(after.checksum_errors > before.checksum_errors);
    if (copies == 1)
        assert_true(misses > 0 && misses < FLIPS / 2);
    else
        assert_true(misses == 0 && after.failovers > before.failovers);
    for (uint64_t i = 0; i < OBJECTS; i++)
        take_away(store, 1 + i);
    mc_store_close(store);
    store_node_destroy(damaged);
}

static void flips_on_the_wire_are_misses(void **state)
{
    flips_on_the_wire(1);
}

static void flips_on_the_wire_of_one_of_two_are_hits(void **state)
{
    flips_on_the_wire(2);
}

static int start(void **state)
{
    struct store_master_opts master_opts = {.listen = "127.0.0.1:0", .admin = "none", .state_dir = "none"};
    uint64_t seed = now_ns();

    print_message("seed %llu\n", (unsigned long long)seed);
    rng_seed(&rng, seed);
    log_set_level(LOG_LEVEL_ERROR); /* each flip is a warning, as it should be */
    scratch_dir(run_dir);
    assert_int_equal(store_master_create(&master_opts, &master), MC_OK);
    assert_int_equal(store_master_start(master), MC_OK);
    for (int i = 0; i < 2; i++) {
        struct store_node_opts opts = {
            .listen = "127.0.0.1:0",
            .master = store_master_address(master),
            .host_id = "flip",
            .run_dir = run_dir,
            .memory = 64 << 20,
            .ephemeral = true,
        };

        assert_int_equal(store_node_create(&opts, &node[i]), MC_OK);
        assert_int_equal(store_node_start(node[i]), MC_OK);
    }
    return 0;
}

static int stop(void **state)
{
    for (int i = 0; i < 2; i++)
        store_node_destroy(node[i]);
    store_master_destroy(master);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest memory[] = {
        cmocka_unit_test(flips_of_a_single_copy_are_misses),
        cmocka_unit_test(flips_of_one_of_two_are_hits),
    };
    const struct CMUnitTest wire[] = {
        cmocka_unit_test(flips_of_frames_are_never_seen),
        cmocka_unit_test(flips_on_the_wire_are_misses),
        cmocka_unit_test(flips_on_the_wire_of_one_of_two_are_hits),
    };

    if (argc > 1 && strcmp(argv[1], "wire") == 0)
        return cmocka_run_group_tests_name("wire", wire, start, stop);
    transport = argc > 1 ? argv[1] : transport;
    return cmocka_run_group_tests_name(transport, memory, start, stop);
}
