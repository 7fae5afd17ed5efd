/* fit_test.c - goal: coefficients are found again from noisy times, never negative, and follow a change. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>

#include "base/rng.h"
#include "worker/fit.h"

static const double guess[FIT_TERMS] = {5e-3, 2e-3, 1e-7};

static void feed(struct fit *fit, struct rng *rng, const double c[FIT_TERMS], int samples, double noise)
{
    for (int i = 0; i < samples; i++) {
        double n = 64.0 * (double)(1 + rng_below(rng, 4)), behind = 64.0 * (double)rng_below(rng, 60);
        double x[FIT_TERMS] = {1, n, n * (behind + n / 2)};

        fit_add(fit, x, (c[0] * x[0] + c[1] * x[1] + c[2] * x[2]) * (1 + noise * (rng_double(rng) - 0.5)));
    }
}

static void assert_predicts(const struct fit *fit, const double c[FIT_TERMS], double within)
{
    for (double n = 64; n <= 256; n += 64) {
        for (double behind = 0; behind < 4000; behind += 640) {
            double x[FIT_TERMS] = {1, n, n * (behind + n / 2)}, want = c[0] + c[1] * x[1] + c[2] * x[2];

            assert_true(fabs(fit_predict(fit, x) - want) < within * want);
        }
    }
}

static void guess_before_samples(void **state)
{
    struct fit fit;

    fit_init(&fit, guess);
    assert_predicts(&fit, guess, 1e-9);
    assert_int_equal(fit.samples, 0);
}

static void found_again(void **state)
{
    const double c[FIT_TERMS] = {3e-3, 1e-3, 4e-7};
    struct fit fit;
    struct rng rng;

    rng_seed(&rng, 7);
    fit_init(&fit, guess);
    feed(&fit, &rng, c, 40, 0.1);
    assert_predicts(&fit, c, 0.1);
}

/* The machine became three times faster: after a few half-lives that is what is predicted. */
static void follows_a_change(void **state)
{
    const double slow[FIT_TERMS] = {3e-3, 3e-3, 4e-7}, fast[FIT_TERMS] = {1e-3, 1e-3, 1e-7};
    struct fit fit;
    struct rng rng;

    rng_seed(&rng, 8);
    fit_init(&fit, guess);
    feed(&fit, &rng, slow, 200, 0.1);
    assert_predicts(&fit, slow, 0.1);
    feed(&fit, &rng, fast, 4 * FIT_HALF_LIFE, 0.1);
    assert_predicts(&fit, fast, 0.15);
}

static void never_negative(void **state)
{
    struct fit fit;
    struct rng rng;

    rng_seed(&rng, 9);
    for (int round = 0; round < 200; round++) {
        fit_init(&fit, guess);
        for (int i = 0; i < 50; i++) {
            double x[FIT_TERMS] = {1, rng_double(&rng) * 1000, rng_double(&rng) * 1e6};

            fit_add(&fit, x, rng_double(&rng) + 1e-6); /* no law at all */
            for (int t = 0; t < FIT_TERMS; t++)
                assert_true(fit.c[t] >= 0 && isfinite(fit.c[t]));
        }
    }
}

/* One sample of a stopped process among good ones. */
static void outlier(void **state)
{
    const double c[FIT_TERMS] = {3e-3, 1e-3, 1e-7};
    struct fit fit;
    struct rng rng;
    double x[FIT_TERMS] = {1, 256, 256.0 * 128};

    rng_seed(&rng, 10);
    fit_init(&fit, guess);
    feed(&fit, &rng, c, 60, 0.05);
    fit_add(&fit, x, 20);
    assert_predicts(&fit, c, 0.15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(guess_before_samples), cmocka_unit_test(found_again),
        cmocka_unit_test(follows_a_change), cmocka_unit_test(never_negative), cmocka_unit_test(outlier)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
