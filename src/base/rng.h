/* rng.h - random numbers from a seed, the same on every machine: for tests, simulations, benchmarks and jitter.
 *
 * xoshiro256**, seeded through splitmix64. Not for secrets (random_bytes).
 * Threads: a struct rng belongs to one thread. */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

/* One step of splitmix64: good for deriving independent seeds from one. */
uint64_t rng_splitmix(uint64_t *state);

void rng_seed(struct rng *rng, uint64_t seed);
uint64_t rng_u64(struct rng *rng);

/* Uniform in 0 .. bound-1, without bias. bound >= 1. */
uint64_t rng_below(struct rng *rng, uint64_t bound);

/* Uniform in [0, 1). */
double rng_double(struct rng *rng);

/* True with probability p. */
bool rng_chance(struct rng *rng, double p);

/* Exponentially distributed with that mean (gaps of a Poisson process). */
double rng_exponential(struct rng *rng, double mean);

void rng_bytes(struct rng *rng, void *out, size_t len);

#endif
