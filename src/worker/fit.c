/* fit.c - non-negative least squares of three terms: small enough to try every set of terms that may be zero. */
#include "worker/fit.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Weight of the guess: a ridge that holds down a term which no sample has told about yet. */
#define FIT_GUESS_WEIGHT 0.005
/* A sample this many times the prediction is an accident of the machine, not of the engine. */
#define FIT_OUTLIER 4.0
/* Samples that are believed as they are, before there is a prediction worth cutting by. */
#define FIT_TRUST 8

/* Solve the normal equations over the terms in `mask` (Gauss, at most 3x3). False: they do not determine them. */
static bool solve(const struct fit *fit, unsigned mask, double c[FIT_TERMS])
{
    double m[FIT_TERMS][FIT_TERMS + 1];
    int term[FIT_TERMS], n = 0;

    for (int i = 0; i < FIT_TERMS; i++) {
        c[i] = 0;
        if (mask & 1u << i)
            term[n++] = i;
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++)
            m[i][j] = fit->a[term[i]][term[j]];
        m[i][n] = fit->b[term[i]];
    }
    for (int i = 0; i < n; i++) {
        if (!(m[i][i] > 1e-12 * fit->a[term[i]][term[i]]))
            return false;
        for (int k = i + 1; k < n; k++) {
            double f = m[k][i] / m[i][i];

            for (int j = i; j <= n; j++)
                m[k][j] -= f * m[i][j];
        }
    }
    for (int i = n - 1; i >= 0; i--) {
        double sum = m[i][n];

        for (int j = i + 1; j < n; j++)
            sum -= m[i][j] * c[term[j]];
        c[term[i]] = sum / m[i][i];
        if (!(c[term[i]] >= 0))
            return false;
    }
    return true;
}

/* c'Ac - 2b'c: the squared error but for a constant. */
static double error_of(const struct fit *fit, const double c[FIT_TERMS])
{
    double error = 0;

    for (int i = 0; i < FIT_TERMS; i++) {
        error -= 2 * fit->b[i] * c[i];
        for (int j = 0; j < FIT_TERMS; j++)
            error += fit->a[i][j] * c[i] * c[j];
    }
    return error;
}

static void refit(struct fit *fit)
{
    double best = INFINITY, c[FIT_TERMS];

    for (unsigned mask = 1; mask < 1u << FIT_TERMS; mask++) {
        if (solve(fit, mask, c) && error_of(fit, c) < best) {
            best = error_of(fit, c);
            memcpy(fit->c, c, sizeof(c));
        }
    }
}

void fit_init(struct fit *fit, const double guess[FIT_TERMS])
{
    memset(fit, 0, sizeof(*fit));
    for (int i = 0; i < FIT_TERMS; i++) {
        /* One relative sample each that says "this term alone is guess[i]". */
        double x = guess[i] > 0 ? 1 / guess[i] : 1;

        fit->a[i][i] = FIT_GUESS_WEIGHT * x * x;
        fit->b[i] = guess[i] > 0 ? FIT_GUESS_WEIGHT * x : 0;
        fit->c[i] = guess[i];
    }
}

double fit_predict(const struct fit *fit, const double x[FIT_TERMS])
{
    return fit->c[0] * x[0] + fit->c[1] * x[1] + fit->c[2] * x[2];
}

void fit_add(struct fit *fit, const double x[FIT_TERMS], double seconds)
{
    const double keep = exp2(-1.0 / FIT_HALF_LIFE);
    double predicted = fit_predict(fit, x);

    if (!(seconds > 0))
        return;
    if (fit->samples >= FIT_TRUST && seconds > FIT_OUTLIER * predicted)
        seconds = FIT_OUTLIER * predicted;
    for (int i = 0; i < FIT_TERMS; i++) {
        for (int j = 0; j < FIT_TERMS; j++)
            fit->a[i][j] = keep * fit->a[i][j] + x[i] / seconds * (x[j] / seconds);
        fit->b[i] = keep * fit->b[i] + x[i] / seconds;
    }
    fit->samples++;
    refit(fit);
}
