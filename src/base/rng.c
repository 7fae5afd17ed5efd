/* rng.c - xoshiro256** 1.0 of Blackman and Vigna (public domain), from its published definition. */
#include "base/rng.h"

#include <math.h>
#include <string.h>

uint64_t rng_splitmix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void rng_seed(struct rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++)
        rng->s[i] = rng_splitmix(&seed);
}

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t rng_u64(struct rng *rng)
{
    uint64_t *s = rng->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    uint64_t reject = -bound % bound, x; /* the first 2^64 mod bound values would make small results likelier */

    do
        x = rng_u64(rng);
    while (x < reject);
    return x % bound;
}

double rng_double(struct rng *rng)
{
    return (double)(rng_u64(rng) >> 11) * 0x1p-53;
}

bool rng_chance(struct rng *rng, double p)
{
    return rng_double(rng) < p;
}

double rng_exponential(struct rng *rng, double mean)
{
    return -mean * log1p(-rng_double(rng));
}

void rng_bytes(struct rng *rng, void *out, size_t len)
{
    uint8_t *at = out;

    while (len > 0) {
        uint64_t x = rng_u64(rng);
        size_t n = len < sizeof(x) ? len : sizeof(x);

        for (size_t i = 0; i < n; i++)
            at[i] = (uint8_t)(x >> (8 * i));
        at += n;
        len -= n;
    }
}
