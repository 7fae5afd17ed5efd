/* evict_test.c - goal: what evict.h promises of every policy, the order of LRU, what a pool of ids asks.
 * Method: each rule in a scene of its own with times made up; then a long random run against a model that knows pins,
 * promises and children, for every policy in the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/evict/idpool.h"
#include "store/evict/leaves.h"

#define MS (UINT64_C(1) << LEAVES_TICK) /* what promises are kept to */

static struct evict *make(const char *name, uint32_t slots)
{
    struct evict *e = NULL;

    assert_int_equal(evict_create(evict_policy_find(name), slots, slots, &e), MC_OK);
    return e;
}

static void add(struct evict *e, uint32_t slot, uint32_t parent, bool soft, uint64_t now)
{
    struct evict_object object = {.id = slot, .size = 4096, .parent = parent, .soft_pin = soft};

    assert_int_equal(evict_add(e, slot, &object, now), MC_OK);
}

static uint32_t pop(struct evict *e, uint64_t now)
{
    uint32_t slot = evict_victim(e, now);

    if (slot != EVICT_NONE) {
        assert_int_equal(evict_victim(e, now), slot);
        evict_remove(e, slot, slot, EVICT_EVICTED, now);
    }
    return slot;
}

static void table_has_names(void **state)
{
    assert_non_null(evict_policies[0]);
    assert_ptr_equal(evict_policy_find("mooncake"), evict_policies[0]);
    assert_ptr_equal(evict_policy_find("lru"), &evict_lru);
    assert_null(evict_policy_find("s3fifo")); /* it knows no pins */
    assert_null(evict_policy_find("no such policy"));
    for (const struct evict_policy *const *p = evict_policies; *p; p++)
        assert_true((*p)->help && (*p)->handle_size >= sizeof(struct evict));
}

static void lru_goes_by_last_use(void **state)
{
    struct evict *e = make("lru", 8);

    for (uint32_t i = 0; i < 4; i++)
        add(e, i, EVICT_NONE, false, i);
    evict_touch(e, 0, 10);
    evict_touch(e, 2, 11);
    assert_int_equal(pop(e, 12), 1);
    assert_int_equal(pop(e, 12), 3);
    assert_int_equal(pop(e, 12), 0);
    assert_int_equal(pop(e, 12), 2);
    assert_int_equal(pop(e, 12), EVICT_NONE);
    evict_destroy(e);
}

/* A chain put in order 0 <- 1 <- 2, and 3 alone and younger: eaten from the end, although 0 is the coldest. */
static void chain_is_eaten_from_its_end(void **state)
{
    struct evict *e = make("lru", 8);

    add(e, 0, EVICT_NONE, false, 0);
    add(e, 1, 0, false, 1);
    add(e, 2, 1, false, 2);
    add(e, 3, EVICT_NONE, false, 3);
    assert_int_equal(pop(e, 4), 2);
    assert_int_equal(pop(e, 4), 1);
    assert_int_equal(pop(e, 4), 0);
    assert_int_equal(pop(e, 4), 3);
    evict_destroy(e);
}

/* A parked parent that is read goes to the front again: it must not come back as the coldest. */
static void parked_parent_is_warmed_by_a_read(void **state)
{
    struct evict *e = make("lru", 8);

    add(e, 0, EVICT_NONE, false, 0);
    add(e, 1, 0, false, 1);
    add(e, 2, EVICT_NONE, false, 2);
    evict_touch(e, 1, 3);
    assert_int_equal(evict_victim(e, 4), 2); /* 0 is parked in passing */
    evict_touch(e, 0, 5);
    evict_remove(e, 1, 1, EVICT_REMOVED, 6);
    assert_int_equal(pop(e, 7), 2);
    assert_int_equal(pop(e, 7), 0);
    evict_destroy(e);
}

static void pins_hold_and_inner_objects_go_last(void **state)
{
    struct evict *e = make("lru", 8);

    add(e, 0, EVICT_NONE, false, 0);
    add(e, 1, 0, false, 1);
    add(e, 2, EVICT_NONE, false, 2);
    evict_pin(e, 1, 3);
    assert_int_equal(pop(e, 4), 2);
    assert_int_equal(pop(e, 4), 0); /* its only leaf is pinned, and nothing else is left */
    assert_int_equal(pop(e, 4), EVICT_NONE);
    evict_unpin(e, 1, 5);
    assert_int_equal(pop(e, 6), 1);

    /* The slot of the parent that went may be used again; its former child does not count for the new one. */
    add(e, 0, EVICT_NONE, false, 7);
    add(e, 3, 0, false, 8);
    evict_remove(e, 0, 0, EVICT_REMOVED, 9);
    add(e, 0, EVICT_NONE, false, 10);
    evict_remove(e, 3, 3, EVICT_REMOVED, 11);
    assert_int_equal(pop(e, 12), 0);
    evict_destroy(e);
}

static void promises_and_soft_pins_go_later(void **state)
{
    struct evict *e = make("lru", 8);

    add(e, 0, EVICT_NONE, true, 0);
    for (uint32_t i = 1; i < 6; i++)
        add(e, i, EVICT_NONE, false, i * MS);
    evict_promise(e, 2, 100 * MS, 10 * MS);
    evict_promise(e, 1, 50 * MS, 11 * MS);
    evict_promise(e, 3, 20 * MS, 12 * MS);
    evict_touch(e, 2, 13 * MS); /* a read does not renew a promise */
    assert_int_equal(pop(e, 15 * MS), 4);
    assert_int_equal(evict_victim(e, 15 * MS), 5);
    assert_int_equal(pop(e, 15 * MS), 5);
    assert_int_equal(evict_victim(e, 15 * MS), 2); /* only promised ones are left: the oldest promise */
    assert_int_equal(pop(e, 200 * MS), 2);         /* all have ended: in the order they were promised */
    assert_int_equal(pop(e, 200 * MS), 1);
    assert_int_equal(pop(e, 200 * MS), 3);
    assert_int_equal(pop(e, 200 * MS), 0);
    assert_int_equal(pop(e, 200 * MS), EVICT_NONE);
    evict_destroy(e);
}

/* ---- random run against a model ---- */

enum { SLOTS = 96, STEPS = 100000 };
#define LEASE (150 * MS)

struct model {
    bool present[SLOTS], pinned[SLOTS], soft[SLOTS];
    uint32_t parent[SLOTS];
    uint64_t until[SLOTS];
};

static bool leaf(const struct model *m, uint32_t slot)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        if (m->present[i] && m->parent[i] == slot)
            return false;
    return true;
}

/* The class a victim falls into; lower goes first. */
static unsigned rank(const struct model *m, uint32_t slot, uint64_t now)
{
    if (!leaf(m, slot))
        return 3;
    return m->soft[slot] ? 2 : m->until[slot] > now ? 1 : 0;
}

static void check_victim(const struct model *m, uint32_t victim, uint64_t now)
{
    unsigned best = 4;

    for (uint32_t i = 0; i < SLOTS; i++)
        if (m->present[i] && !m->pinned[i] && rank(m, i, now) < best)
            best = rank(m, i, now);
    if (best == 4) {
        assert_int_equal(victim, EVICT_NONE);
        return;
    }
    assert_true(victim < SLOTS && m->present[victim] && !m->pinned[victim]);
    assert_int_equal(rank(m, victim, now), best);
}

/* Two slots share an id: a node has two objects of one key while one takes the other's place. */
static uint64_t id_of(uint32_t slot)
{
    return slot % (SLOTS / 2);
}

static void drop(struct evict *e, struct model *m, uint32_t slot, enum evict_why why, uint64_t now)
{
    evict_remove(e, slot, id_of(slot), why, now);
    m->present[slot] = m->pinned[slot] = false;
    for (uint32_t i = 0; i < SLOTS; i++)
        if (m->present[i] && m->parent[i] == slot)
            m->parent[i] = EVICT_NONE;
}

static void random_run(const char *policy, uint64_t seed)
{
    static struct model m;
    struct evict *e = make(policy, SLOTS);
    struct rng rng;

    memset(&m, 0, sizeof(m));
    rng_seed(&rng, seed);
    for (uint64_t now = MS; now < STEPS * MS; now += MS) {
        uint32_t slot = (uint32_t)rng_below(&rng, SLOTS), other = (uint32_t)rng_below(&rng, SLOTS);

        if (!m.present[slot]) {
            m.parent[slot] = other != slot && m.present[other] ? other : EVICT_NONE;
            m.soft[slot] = rng_chance(&rng, 0.1);
            m.until[slot] = 0;
            m.present[slot] = true;
            assert_int_equal(
                evict_add(e, slot,
                    &(struct evict_object){
                        .id = id_of(slot), .size = 4096, .parent = m.parent[slot], .soft_pin = m.soft[slot]},
                    now),
                MC_OK);
            continue;
        }
        switch (rng_below(&rng, 8)) {
        case 0:
        case 1: {
            uint64_t id = id_of(slot);

            assert_int_equal(evict_ask(e, &(struct evict_run){.ids = &id, .count = 1, .up = EVICT_NO_ID}, now), MC_OK);
            evict_touch(e, slot, now);
            break;
        }
        case 2:
            m.until[slot] = now + LEASE;
            evict_promise(e, slot, m.until[slot], now);
            break;
        case 3:
            if (m.pinned[slot])
                evict_unpin(e, slot, now);
            else if (rng_chance(&rng, 0.3))
                evict_pin(e, slot, now);
            else
                break;
            m.pinned[slot] = !m.pinned[slot];
            break;
        case 4: drop(e, &m, slot, EVICT_REMOVED, now); break;
        default: {
            uint32_t victim = evict_victim(e, now);

            check_victim(&m, victim, now);
            if (victim != EVICT_NONE)
                drop(e, &m, victim, EVICT_EVICTED, now);
        }
        }
    }
    evict_destroy(e);
}

static void rules_hold_for_every_policy(void **state)
{
    for (const struct evict_policy *const *p = evict_policies; *p; p++)
        for (uint64_t seed = 1; seed <= 2; seed++)
            random_run((*p)->name, seed);
}

/* ---- the default follows ---- */

enum { PROMPT = 8, FRESH = 4 };

struct scene {
    struct evict *e;
    uint32_t capacity, count, hits;
    uint32_t *slot_of, *block_in;
};

static uint32_t use_block(struct scene *s, uint32_t block, uint32_t parent, uint64_t now)
{
    struct evict_object object = {.id = block, .size = 1, .parent = parent, .depth = block % PROMPT};
    uint32_t slot = s->slot_of[block];

    if (slot != EVICT_NONE) {
        s->hits++;
        evict_touch(s->e, slot, now);
        return slot;
    }
    if (s->count < s->capacity) {
        slot = s->count++;
    } else {
        uint32_t victim = s->block_in[slot = evict_victim(s->e, now)];

        assert_true(
            slot != parent && (victim % PROMPT == PROMPT - 1 || s->slot_of[victim + 1] == EVICT_NONE)); /* a leaf */
        evict_remove(s->e, slot, victim, EVICT_EVICTED, now);
        s->slot_of[victim] = EVICT_NONE;
    }
    assert_int_equal(evict_add(s->e, slot, &object, now), MC_OK);
    s->slot_of[block] = slot;
    s->block_in[slot] = block;
    return slot;
}

/* One prompt of some that take turns, then four that never come again, and so on: what comes back has been pushed out of an LRU by then.
 * Part of the blocks hit in the last of the rounds; at most a fifth can be. */
static double hits_beside_scan(const char *policy, uint32_t capacity, uint32_t rounds)
{
    uint32_t hot = capacity / PROMPT * 3 / 10, prompts = hot * (1 + FRESH), fresh = hot;
    size_t blocks = (size_t)hot * (1 + FRESH * rounds) * PROMPT;
    struct scene s = {.capacity = capacity};

    s.slot_of = malloc(blocks * sizeof(*s.slot_of));
    s.block_in = malloc(capacity * sizeof(*s.block_in));
    memset(s.slot_of, 0xff, blocks * sizeof(*s.slot_of));
    assert_int_equal(evict_create(evict_policy_find(policy), capacity, EVICT_UNKNOWN, &s.e), MC_OK);
    for (uint32_t at = 0; at < prompts * rounds; at++) {
        uint32_t which = at % (1 + FRESH) ? fresh++ : at / (1 + FRESH) % hot, parent = EVICT_NONE;
        uint64_t ids[PROMPT];

        if (at == prompts * (rounds - 1))
            s.hits = 0;
        for (uint32_t i = 0; i < PROMPT; i++)
            ids[i] = which * PROMPT + i;
        assert_int_equal(evict_ask(s.e, &(struct evict_run){ids, PROMPT, EVICT_NO_ID}, at), MC_OK);
        for (uint32_t i = 0; i < PROMPT; i++)
            parent = use_block(&s, which * PROMPT + i, parent, at);
    }
    evict_destroy(s.e);
    free(s.slot_of);
    free(s.block_in);
    return s.hits / (double)(prompts * PROMPT);
}

static void default_sees_what_an_lru_does_not(void **state)
{
    assert_true(hits_beside_scan("lru", 800, 20) == 0);
    assert_true(hits_beside_scan("mooncake", 800, 20) > 0.15);
}

/* Above 64 Ki objects, where shadows are a sample. */
static void default_sees_it_by_a_sample(void **state)
{
    assert_true(hits_beside_scan("lru", 70000, 3) == 0);
    assert_true(hits_beside_scan("mooncake", 70000, 30) > 0.15);
}

/* ---- pools of ids ---- */

static unsigned asks;

static enum mc_status count_ask(struct evict *e, const struct evict_run *run, uint64_t now)
{
    asks++;
    return MC_OK;
}

/* What is renewed stays as long as what is touched; the policy is asked by touches and uses only. */
static void renewing_asks_nothing(void **state)
{
    struct evict_policy counted = evict_lru;
    struct idpool *pool = NULL;
    const uint64_t ids[] = {1, 2, 3, 4};

    counted.ask = count_ask;
    asks = 0;
    assert_int_equal(idpool_create(&counted, 2, &pool), MC_OK);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(idpool_use(pool, &(struct evict_run){&ids[i], 1, EVICT_NO_ID}, i), MC_OK);
    idpool_renew(pool, 1, 2);
    assert_int_equal(asks, 2);
    assert_int_equal(idpool_use(pool, &(struct evict_run){&ids[2], 1, EVICT_NO_ID}, 3), MC_OK);
    assert_true(idpool_has(pool, 1) && !idpool_has(pool, 2));
    idpool_touch(pool, 1, 4);
    assert_int_equal(asks, 4);
    assert_int_equal(idpool_use(pool, &(struct evict_run){&ids[3], 1, EVICT_NO_ID}, 5), MC_OK);
    assert_true(idpool_has(pool, 1) && !idpool_has(pool, 3));
    idpool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_has_names),
        cmocka_unit_test(lru_goes_by_last_use),
        cmocka_unit_test(chain_is_eaten_from_its_end),
        cmocka_unit_test(parked_parent_is_warmed_by_a_read),
        cmocka_unit_test(pins_hold_and_inner_objects_go_last),
        cmocka_unit_test(promises_and_soft_pins_go_later),
        cmocka_unit_test(rules_hold_for_every_policy),
        cmocka_unit_test(default_sees_what_an_lru_does_not),
        cmocka_unit_test(default_sees_it_by_a_sample),
        cmocka_unit_test(renewing_asks_nothing),
    };
    return cmocka_run_group_tests_name("evict", tests, NULL, NULL);
}
