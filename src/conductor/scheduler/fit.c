/* fit.c - what a worker needs for a piece of work, learned from what it measured.
 *
 * Online least squares over three features, kept as normal equations with forgetting:
 *
 *     A := f A + w x x'      b := f b + w x y      theta = argmin (theta' A theta - 2 b' theta), theta >= 0
 *
 * w = 1 / (y + SMOOTH)^2 makes it the relative error that counts: a short prompt must be predicted as well as a long one, or
 * every hit looks alike. The constraint theta >= 0 matters because a narrow mix of lengths cannot tell the features apart
 * and an unconstrained fit then buys a small error inside the mix with absurd times outside. With three terms
 * the exact constrained answer is the best of the eight fits that fix a subset to zero, so all are tried.
 *
 * The prior enters as PRIOR_WEIGHT measurements' worth of ridge towards its theta; it fades with forgetting, but a part of it
 * is put back at each step so that A never becomes singular.
 *
 * Threads: a struct mc_fit belongs to its owner. Everything is pure. */
#include <math.h>
#include <string.h>

#include "mooncake/scheduler.h"

enum { N = MC_FIT_TERMS };

#define FORGET       0.98 /* half the weight is gone after 34 measurements: a shared machine changes within minutes */
#define PRIOR_WEIGHT 1e-3 /* of one measurement, per term */
#define SMOOTH_MS    1.0  /* times below this are noise of clocks and wake-ups */
#define ERROR_GAIN   0.1

/* features: a constant; thousands of tokens; millions of token pairs. Of one order, so the equations stay well conditioned */
#define TOKEN_UNIT 1e-3
#define PAIR_UNIT  1e-6

/* SmolLM2-135M on two cores: about 300 tokens/s of prefill, 20 ms a step (docs/decisions/060-scheduler-shape.md) */
const double mc_fit_prefill_prior[N] = {5.0, 2500.0, 150.0};
const double mc_fit_decode_prior[N] = {12.0, 6.0, 1.0};

void mc_fit_prefill_x(uint32_t length, uint32_t hit, double x[N])
{
    double n = length, h = hit < length ? hit : length;

    x[0] = 1;
    x[1] = (n - h) * TOKEN_UNIT;
    x[2] = (n * n - h * h) * PAIR_UNIT;
}

void mc_fit_decode_x(uint32_t batch, uint64_t kv_tokens, double x[N])
{
    x[0] = 1;
    x[1] = batch;
    x[2] = (double)kv_tokens * TOKEN_UNIT;
}

double mc_fit_predict(const struct mc_fit *fit, const double x[N])
{
    double y = 0;

    for (int i = 0; i < N; i++)
        y += fit->theta[i] * x[i];
    return y;
}

double mc_fit_prefill_ms(const struct mc_fit *fit, uint32_t length, uint32_t hit)
{
    double x[N];

    mc_fit_prefill_x(length, hit, x);
    return mc_fit_predict(fit, x);
}

double mc_fit_decode_ms(const struct mc_fit *fit, uint32_t batch, uint64_t kv_tokens)
{
    double x[N];

    mc_fit_decode_x(batch, kv_tokens, x);
    return mc_fit_predict(fit, x);
}

void mc_fit_init(struct mc_fit *fit, const double prior[N])
{
    memset(fit, 0, sizeof *fit);
    for (int i = 0; i < N; i++) {
        fit->theta[i] = prior[i];
        fit->ridge[i] =
            PRIOR_WEIGHT / (prior[i] * prior[i]); /* changing theta[i] by all of itself costs PRIOR_WEIGHT */
        fit->normal[i][i] = fit->ridge[i];
        fit->moment[i] = fit->ridge[i] * prior[i];
    }
}

/* Solve the equations of the terms in `mask`, the others being zero. False when they are singular. Gauss-Jordan with a
 * diagonal pivot is enough: the matrix is symmetric and positive definite. */
static bool solve_subset(const struct mc_fit *fit, unsigned mask, double theta[N])
{
    double a[N][N + 1];
    int index[N], n = 0;

    for (int i = 0; i < N; i++) {
        theta[i] = 0;
        if (mask & 1u << i)
            index[n++] = i;
    }
    for (int r = 0; r < n; r++) {
        for (int c = 0; c < n; c++)
            a[r][c] = fit->normal[index[r]][index[c]];
        a[r][n] = fit->moment[index[r]];
    }
    for (int p = 0; p < n; p++) {
        if (a[p][p] < 1e-30)
            return false;
        for (int r = 0; r < n; r++) {
            double factor = a[r][p] / a[p][p];

            for (int c = p; r != p && c <= n; c++)
                a[r][c] -= factor * a[p][c];
        }
    }
    for (int r = 0; r < n; r++)
        theta[index[r]] = a[r][n] / a[r][r];
    return true;
}

/* theta' A theta - 2 b' theta: the squared error less a constant. */
static double loss(const struct mc_fit *fit, const double theta[N])
{
    double sum = 0;

    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            sum += theta[i] * fit->normal[i][j] * theta[j];
        sum -= 2 * fit->moment[i] * theta[i];
    }
    return sum;
}

static bool all_nonnegative(const double theta[N])
{
    for (int i = 0; i < N; i++) {
        if (!(theta[i] >= 0)) /* also NaN */
            return false;
    }
    return true;
}

static void solve(struct mc_fit *fit)
{
    double best = INFINITY, theta[N], found[N];

    for (unsigned mask = 1; mask < 1u << N; mask++) {
        if (!solve_subset(fit, mask, theta) || !all_nonnegative(theta) || loss(fit, theta) >= best)
            continue;
        best = loss(fit, theta);
        memcpy(found, theta, sizeof found);
    }
    if (isfinite(best))
        memcpy(fit->theta, found, sizeof found);
}

void mc_fit_observe(struct mc_fit *fit, const double x[N], double y)
{
    double weight = 1 / ((y + SMOOTH_MS) * (y + SMOOTH_MS)), sum = 0;

    for (int i = 0; i < N; i++)
        sum += x[i];
    if (!isfinite(sum) || !isfinite(y) || y <= 0 || weight <= 0)
        return;

    fit->error += ERROR_GAIN * (fabs(mc_fit_predict(fit, x) - y) / y - fit->error);
    fit->samples++;
    for (int i = 0; i < N; i++) {
        double keep = (1 - FORGET) * fit->ridge[i];

        for (int j = 0; j < N; j++)
            fit->normal[i][j] = FORGET * fit->normal[i][j] + weight * x[i] * x[j];
        fit->normal[i][i] += keep;
        fit->moment[i] = FORGET * fit->moment[i] + weight * x[i] * y + keep * fit->theta[i];
    }
    solve(fit);
}
