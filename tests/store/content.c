/* content.c - see content.h. */
#include "content.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/rng.h"

void fill(void *dst, uint64_t len, uint64_t seed)
{
    struct rng rng;

    rng_seed(&rng, seed);
    rng_bytes(&rng, dst, len);
}

bool filled(const void *src, uint64_t len, uint64_t seed)
{
    uint8_t *want = malloc(len ? len : 1);
    bool same;

    if (!want)
        return false;
    fill(want, len, seed);
    same = memcmp(src, want, len) == 0;
    free(want);
    return same;
}

struct mc_key block(uint64_t number)
{
    struct mc_key key;
    uint8_t id[16];
    uint64_t halves[2] = {hash_mix(number), hash_mix(~number)};

    memcpy(id, halves, 16);
    mc_key_block(&key, id);
    return key;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define BUILD_FACTOR 5
#else
#define BUILD_FACTOR 1
#endif

double crowd(void)
{
    double load = 1;

    getloadavg(&load, 1);
    load /= (double)sysconf(_SC_NPROCESSORS_ONLN);
    return BUILD_FACTOR * (load > 1 ? load : 1);
}
