/* fit_test.c - the online fit finds the law behind measurements, survives narrow and hostile ones, and follows a change.
 *
 * Method: a known law, measured with seeded noise; predictions are compared with the law, also far outside of what was shown. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mooncake/scheduler.h"

static double law(double scale, uint32_t length, uint32_t hit)
{
    double n = length, h = hit;

    return scale * (8 + 1.1 * (n - h) + 40e-6 * (n * n - h * h));
}

static void learn(struct mc_fit *fit, struct rng *rng, double scale, int count, uint32_t longest)
{
    for (int i = 0; i < count; i++) {
        uint32_t length = 16 + (uint32_t)rng_below(rng, longest);
        uint32_t hit = rng_chance(rng, 0.5) ? (uint32_t)rng_below(rng, length) / 64 * 64 : 0;
        double x[MC_FIT_TERMS];

        mc_fit_prefill_x(length, hit, x);
        mc_fit_observe(fit, x, law(scale, length, hit) * (0.9 + 0.2 * rng_double(rng)));
    }
}

static void assert_near(const struct mc_fit *fit, double scale, uint32_t length, uint32_t hit, double tolerance)
{
    double predicted = mc_fit_prefill_ms(fit, length, hit), truth = law(scale, length, hit);

    if (fabs(predicted - truth) > tolerance * truth)
        fail_msg("length %u hit %u: predicted %.1f ms, truth %.1f ms", length, hit, predicted, truth);
}

static void finds_the_law(void **state)
{
    struct rng rng;
    struct mc_fit fit;

    rng_seed(&rng, 7);
    mc_fit_init(&fit, mc_fit_prefill_prior);
    learn(&fit, &rng, 1, 400, 4000);
    assert_near(&fit, 1, 2000, 0, 0.08);
    assert_near(&fit, 1, 2000, 1536, 0.12);
    assert_near(&fit, 1, 64, 0, 0.2);
    assert_near(&fit, 1, 8000, 0, 0.2); /* twice as long as anything shown */
    assert_true(fit.error < 0.15);
    assert_int_equal(fit.samples, 400);
}

static void follows_a_change(void **state)
{
    struct rng rng;
    struct mc_fit fit;

    rng_seed(&rng, 8);
    mc_fit_init(&fit, mc_fit_prefill_prior);
    learn(&fit, &rng, 1, 300, 4000);
    learn(&fit, &rng, 3, 300, 4000); /* somebody took two thirds of the machine */
    assert_near(&fit, 3, 2000, 0, 0.12);
}

/* One length only: features cannot be told apart. The fit must be right there and sane elsewhere. */
static void stays_sane_on_one_length(void **state)
{
    struct mc_fit fit;
    double x[MC_FIT_TERMS];

    mc_fit_init(&fit, mc_fit_prefill_prior);
    mc_fit_prefill_x(1000, 0, x);
    for (int i = 0; i < 200; i++)
        mc_fit_observe(&fit, x, 1000);
    assert_true(fabs(mc_fit_prefill_ms(&fit, 1000, 0) - 1000) < 20);
    assert_true(mc_fit_prefill_ms(&fit, 2000, 0) > 1500);
    assert_true(mc_fit_prefill_ms(&fit, 2000, 0) < 4500);
    assert_true(mc_fit_prefill_ms(&fit, 100, 0) < 600);
}

static void is_never_negative(void **state)
{
    struct rng rng;
    struct mc_fit fit;

    rng_seed(&rng, 9);
    mc_fit_init(&fit, mc_fit_prefill_prior);
    for (int i = 0; i < 500; i++) {
        double x[MC_FIT_TERMS];

        mc_fit_prefill_x(1 + (uint32_t)rng_below(&rng, 2000), 0, x);
        mc_fit_observe(&fit, x, 1 + (double)rng_below(&rng, 1000)); /* noise without any law */
        for (int k = 0; k < MC_FIT_TERMS; k++)
            assert_true(fit.theta[k] >= 0 && isfinite(fit.theta[k]));
    }
}

static void ignores_nonsense(void **state)
{
    struct mc_fit fit, before;
    double x[MC_FIT_TERMS] = {1, NAN, 1}, good[MC_FIT_TERMS] = {1, 1, 1};

    mc_fit_init(&fit, mc_fit_prefill_prior);
    before = fit;
    mc_fit_observe(&fit, x, 5);
    mc_fit_observe(&fit, good, -1);
    mc_fit_observe(&fit, good, 0);
    mc_fit_observe(&fit, good, INFINITY);
    assert_memory_equal(&fit, &before, sizeof fit);
}

static void fits_decode_steps(void **state)
{
    struct rng rng;
    struct mc_fit fit;

    rng_seed(&rng, 10);
    mc_fit_init(&fit, mc_fit_decode_prior);
    for (int i = 0; i < 300; i++) {
        uint32_t batch = 1 + (uint32_t)rng_below(&rng, 16);
        uint64_t kv = batch * (100 + rng_below(&rng, 2000));
        double x[MC_FIT_TERMS];

        mc_fit_decode_x(batch, kv, x);
        mc_fit_observe(&fit, x, 20 + 2.0 * batch + 0.001 * (double)kv);
    }
    assert_true(fabs(mc_fit_decode_ms(&fit, 8, 8000) - 44) < 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_law),
        cmocka_unit_test(follows_a_change),
        cmocka_unit_test(stays_sane_on_one_length),
        cmocka_unit_test(is_never_negative),
        cmocka_unit_test(ignores_nonsense),
        cmocka_unit_test(fits_decode_steps),
    };

    return cmocka_run_group_tests_name("fit", tests, NULL, NULL);
}
