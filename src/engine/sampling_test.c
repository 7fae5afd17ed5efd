/* sampling_test.c - Philox against the vectors of its authors; each filter against its definition; the draw against the
 * distribution it must have; and a stream continued by another sampler. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mooncake/sampling.h"

enum { VOCAB = 50 };

/* kat_vectors of Random123. */
static void philox_vectors(void **state)
{
    static const uint32_t zero[4], ones[4] = {~0u, ~0u, ~0u, ~0u};
    static const uint32_t pi[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, key[2] = {0xa4093822, 0x299f31d0};
    static const uint32_t want[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    uint32_t out[4];

    mc_philox4x32(zero, zero, out);
    assert_memory_equal(out, want[0], 16);
    mc_philox4x32(ones, ones, out);
    assert_memory_equal(out, want[1], 16);
    mc_philox4x32(pi, key, out);
    assert_memory_equal(out, want[2], 16);
}

static void uniform(void **state)
{
    double sum = 0;

    for (uint64_t i = 0; i < 10000; i++) {
        double u = mc_sampling_uniform(42, i);

        assert_true(u >= 0 && u < 1);
        sum += u;
    }
    assert_true(fabs(sum / 10000 - 0.5) < 0.01);
    assert_true(mc_sampling_uniform(1, 0) != mc_sampling_uniform(2, 0));
    assert_true(mc_sampling_uniform(1, 0) != mc_sampling_uniform(1ull << 32, 0));
    assert_true(mc_sampling_uniform(1, 1) != mc_sampling_uniform(1, 1ull << 32));
}

/* logits[i] = -i / 4: token 0 is the likeliest, each next one exp(-1/4) as likely. */
static void staircase(float *logits)
{
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)-i / 4;
}

static struct mc_sampler *sampler(const struct mc_sampling *params)
{
    struct mc_sampler *s;

    assert_int_equal(mc_sampler_create(params, VOCAB, &s), MC_OK);
    return s;
}

/* Share of each token in 20,000 draws. */
static void shares(const struct mc_sampling *params, const float *logits, double share[VOCAB])
{
    struct mc_sampler *s = sampler(params);

    memset(share, 0, VOCAB * sizeof *share);
    for (uint64_t i = 0; i < 20000; i++)
        share[mc_sampler_pick(s, logits, i)] += 1.0 / 20000;
    mc_sampler_destroy(s);
}

static void draws_follow_the_distribution(void **state)
{
    struct mc_sampling p;
    float logits[VOCAB];
    double share[VOCAB], sum = 0;

    staircase(logits);
    mc_sampling_init(&p);
    p.temperature = 0.5f; /* each next one exp(-1/2) as likely */
    p.seed = 9;
    shares(&p, logits, share);
    for (int i = 0; i < VOCAB; i++)
        sum += exp(-i / 2.0);
    for (int i = 0; i < VOCAB; i++)
        assert_true(fabs(share[i] - exp(-i / 2.0) / sum) < 0.012);
}

static int support(const double share[VOCAB])
{
    int last = 0;

    for (int i = 0; i < VOCAB; i++)
        if (share[i] > 0)
            last = i + 1;
    return last;
}

static void filters(void **state)
{
    struct mc_sampling p;
    float logits[VOCAB];
    double share[VOCAB];

    staircase(logits);
    mc_sampling_init(&p);
    p.top_k = 7;
    shares(&p, logits, share);
    assert_int_equal(support(share), 7);
    mc_sampling_init(&p);
    p.min_p = 0.3f; /* exp(-i/4) >= 0.3: i <= 4 */
    shares(&p, logits, share);
    assert_int_equal(support(share), 5);
    mc_sampling_init(&p);
    p.top_p = 0.5f; /* 1 - exp(-n/4) >= 0.5: n >= 2.77 */
    shares(&p, logits, share);
    assert_int_equal(support(share), 3);
    mc_sampling_init(&p);
    p.top_p = 1e-6f;
    shares(&p, logits, share);
    assert_int_equal(support(share), 1);
}

/* Filters over a large vocabulary against the plain way: sort everything, then count. */
static int by_logit(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

static void large_vocabulary(void **state)
{
    enum { MANY = 5000 };
    static float logits[MANY], sorted[MANY];
    struct mc_sampling p;
    struct mc_sampler *s;
    struct rng rng;

    rng_seed(&rng, 99);
    for (int round = 0; round < 40; round++) {
        float least_k, least_p;
        double sum = 0, part = 0;
        size_t n = 0;

        for (int i = 0; i < MANY; i++)
            sorted[i] = logits[i] = (float)(rng_double(&rng) * rng_double(&rng) * 12);
        qsort(sorted, MANY, sizeof *sorted, by_logit);
        mc_sampling_init(&p);
        p.top_k = 1 + (uint32_t)rng_below(&rng, 900);
        p.top_p = (float)(0.05 + 0.9 * rng_double(&rng));
        p.seed = rng_u64(&rng);
        for (uint32_t i = 0; i < p.top_k; i++)
            sum += exp((double)(sorted[i] - sorted[0]));
        while (n < p.top_k && part < sum * (double)p.top_p)
            part += exp((double)(sorted[n++] - sorted[0]));
        least_k = sorted[p.top_k - 1];
        least_p = sorted[n - 1];
        assert_int_equal(mc_sampler_create(&p, MANY, &s), MC_OK);
        float lowest = INFINITY;
        for (uint64_t i = 0; i < 3000; i++)
            lowest = fminf(lowest, logits[mc_sampler_pick(s, logits, i)]);
        assert_true(lowest >= least_p - 1e-6f && least_p >= least_k);
        mc_sampler_destroy(s);
    }
}

static void greedy(void **state)
{
    struct mc_sampling p;
    struct mc_sampler *s;
    float logits[VOCAB];

    staircase(logits);
    mc_sampling_init(&p);
    p.temperature = 0;
    s = sampler(&p);
    assert_int_equal(mc_sampler_pick(s, logits, 0), 0);
    logits[20] = logits[10] = 5; /* a tie goes to the lower id */
    assert_int_equal(mc_sampler_pick(s, logits, 1), 10);
    logits[10] = NAN;
    assert_int_equal(mc_sampler_pick(s, logits, 2), 20);
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i == 30 ? -INFINITY : NAN;
    assert_in_range(mc_sampler_pick(s, logits, 3), 0, VOCAB - 1);
    mc_sampler_destroy(s);
}

static void bias(void **state)
{
    const struct mc_logit_bias ban[] = {{0, -100}, {1, -100}, {40, 20}};
    struct mc_sampling p;
    struct mc_sampler *s;
    float logits[VOCAB];
    double share[VOCAB];

    staircase(logits);
    mc_sampling_init(&p);
    p.temperature = 0;
    p.bias = ban;
    p.bias_count = 3;
    s = sampler(&p);
    assert_int_equal(mc_sampler_pick(s, logits, 0), 40);
    mc_sampler_destroy(s);
    p.bias_count = 2;
    p.temperature = 1;
    shares(&p, logits, share);
    assert_true(share[0] == 0 && share[1] == 0 && share[2] > 0);
    /* everything banned: something is picked all the same */
    struct mc_logit_bias all[VOCAB];
    for (uint32_t i = 0; i < VOCAB; i++)
        all[i] = (struct mc_logit_bias){i, -100};
    p.bias = all;
    p.bias_count = VOCAB;
    s = sampler(&p);
    assert_int_equal(mc_sampler_pick(s, logits, 0), 0);
    mc_sampler_destroy(s);
}

static void penalties(void **state)
{
    struct mc_sampling p;
    struct mc_sampler *s;
    float logits[VOCAB];
    const uint32_t prompt[] = {0, 0, 0, 999};

    staircase(logits); /* 0, -0.25, -0.5, ... */
    mc_sampling_init(&p);
    p.temperature = 0;
    p.presence_penalty = 0.3f;
    s = sampler(&p);
    mc_sampler_prompt(s, prompt, 4); /* a prompt is not punished */
    assert_int_equal(mc_sampler_pick(s, logits, 0), 0);
    mc_sampler_accept(s, 0); /* -0.3: behind token 1 */
    assert_int_equal(mc_sampler_pick(s, logits, 1), 1);
    mc_sampler_accept(s, 0); /* presence counts once: still -0.3, before token 2 */
    mc_sampler_accept(s, 1); /* -0.55 */
    assert_int_equal(mc_sampler_pick(s, logits, 2), 0);
    mc_sampler_destroy(s);

    mc_sampling_init(&p);
    p.temperature = 0;
    p.frequency_penalty = 0.2f;
    s = sampler(&p);
    mc_sampler_accept(s, 0);
    assert_int_equal(mc_sampler_pick(s, logits, 1), 0); /* -0.2 */
    mc_sampler_accept(s, 0);
    assert_int_equal(mc_sampler_pick(s, logits, 2), 1); /* -0.4 */
    mc_sampler_destroy(s);

    mc_sampling_init(&p);
    p.temperature = 0;
    p.repetition_penalty = 2;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = i == 0 ? 3.0f : i == 1 ? 2.0f : -1.0f;
    s = sampler(&p);
    assert_int_equal(mc_sampler_pick(s, logits, 0), 0);
    mc_sampler_prompt(s, prompt, 4); /* 3 / 2 */
    assert_int_equal(mc_sampler_pick(s, logits, 0), 1);
    for (uint32_t i = 0; i < 40; i++) /* the table grows */
        mc_sampler_accept(s, i);
    assert_int_equal(mc_sampler_pick(s, logits, 0), 0);
    mc_sampler_destroy(s);
}

/* The same seed on two samplers, the second taking over in the middle, gives one stream. */
static void continued_elsewhere(void **state)
{
    struct mc_sampling p;
    struct mc_sampler *one, *two;
    uint32_t tokens[200];
    float logits[VOCAB];
    struct rng rng;

    mc_sampling_init(&p);
    p.temperature = 0.9f;
    p.top_p = 0.95f;
    p.top_k = 20;
    p.frequency_penalty = 0.1f;
    p.repetition_penalty = 1.1f;
    p.seed = 0x123456789abcdefull;
    one = sampler(&p);
    rng_seed(&rng, 1);
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)(rng_double(&rng) * 6 - 3);
    for (uint64_t i = 0; i < 200; i++) {
        tokens[i] = mc_sampler_pick(one, logits, i);
        mc_sampler_accept(one, tokens[i]);
    }
    two = sampler(&p);
    for (uint64_t i = 0; i < 100; i++)
        mc_sampler_accept(two, tokens[i]);
    for (uint64_t i = 100; i < 200; i++) {
        assert_int_equal(mc_sampler_pick(two, logits, i), tokens[i]);
        mc_sampler_accept(two, tokens[i]);
    }
    mc_sampler_destroy(one);
    mc_sampler_destroy(two);
}

static void checks(void **state)
{
    const struct mc_logit_bias outside = {VOCAB, 1};
    struct mc_sampling p;
    struct mc_sampler *s;

#define BAD(change, name)                                                                                              \
    do {                                                                                                               \
        mc_sampling_init(&p);                                                                                          \
        assert_null(mc_sampling_check(&p, VOCAB));                                                                     \
        change;                                                                                                        \
        assert_string_equal(mc_sampling_check(&p, VOCAB), name);                                                       \
        assert_int_equal(mc_sampler_create(&p, VOCAB, &s), MC_EINVAL);                                                 \
    } while (0)
    BAD(p.temperature = -1, "temperature");
    BAD(p.temperature = NAN, "temperature");
    BAD(p.top_p = 0, "top_p");
    BAD(p.min_p = 1.5f, "min_p");
    BAD(p.repetition_penalty = 0, "repetition_penalty");
    BAD(p.frequency_penalty = 3, "frequency_penalty");
    BAD(p.presence_penalty = -3, "presence_penalty");
    BAD((p.bias = &outside, p.bias_count = 1), "logit_bias");
}

/* As cold as it gets without being 0: the best, and no division by nothing. */
static void tiny_temperature(void **state)
{
    static const float colds[] = {1e-45f, 1e-38f, 1e-6f};
    struct mc_sampling p;
    struct mc_sampler *s;
    float logits[VOCAB];

    staircase(logits);
    for (size_t i = 0; i < 3; i++) {
        mc_sampling_init(&p);
        p.temperature = colds[i];
        s = sampler(&p);
        for (uint64_t k = 0; k < 100; k++)
            assert_int_equal(mc_sampler_pick(s, logits, k), 0);
        mc_sampler_destroy(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_vectors),
        cmocka_unit_test(uniform),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(filters),
        cmocka_unit_test(large_vocabulary),
        cmocka_unit_test(greedy),
        cmocka_unit_test(bias),
        cmocka_unit_test(penalties),
        cmocka_unit_test(continued_elsewhere),
        cmocka_unit_test(checks),
        cmocka_unit_test(tiny_temperature),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
