/* fit.h - coefficients of time from measurements: least squares over three terms, none of them negative.
 *
 *     seconds = c0 * x0 + c1 * x1 + c2 * x2
 *
 * Errors count relative to the measured time, old measurements fade (a half-life of FIT_HALF_LIFE samples), and an outlier
 * (a stopped process, a cold page) is cut to what it could at most have been. Pure; threads: the caller's. */
#ifndef WORKER_FIT_H
#define WORKER_FIT_H

#include <stdint.h>

enum { FIT_TERMS = 3, FIT_HALF_LIFE = 64 };

struct fit {
    double a[FIT_TERMS][FIT_TERMS], b[FIT_TERMS]; /* normal equations of the faded, relative samples */
    double c[FIT_TERMS];
    uint32_t samples;
};

/* Begin with a guess, which fades as samples come. */
void fit_init(struct fit *fit, const double guess[FIT_TERMS]);
void fit_add(struct fit *fit, const double x[FIT_TERMS], double seconds);
double fit_predict(const struct fit *fit, const double x[FIT_TERMS]);

#endif
