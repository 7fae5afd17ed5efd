/* hash.h - hashing: 64-bit keyed for tables, SHA-256 for block ids, and random bytes from the system.
 *
 * Threads: any; a struct sha256 belongs to one thread at a time. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "mooncake/status.h"

/* SipHash-1-3 keyed by `seed`. For tables whose keys come from outside use hash_seed(); for what several processes must
 * agree about (index shards) use a fixed seed: the function is part of the protocol and will not change. */
uint64_t hash64(const void *data, size_t len, uint64_t seed);

/* A seed drawn once per process. */
uint64_t hash_seed(void);

/* Mixes 64 bits into 64 well-spread bits; a bijection, not keyed: for numbers that we made ourselves. */
static inline uint64_t hash_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

#define SHA256_SIZE 32

/* SHA-256 (libcrypto) of one range, and of several as if they stood one after the other. Cannot fail. */
void sha256(const void *data, size_t len, uint8_t out[SHA256_SIZE]);
void sha256_parts(const struct slice *parts, size_t count, uint8_t out[SHA256_SIZE]);

/* Incremental. create -> add... -> finish (gives the digest; the state may then be reset and used again) -> destroy.
 * sha256_create() is NULL when memory is out. */
struct sha256_state;
struct sha256_state *sha256_create(void);
void sha256_destroy(struct sha256_state *state);
void sha256_reset(struct sha256_state *state);
void sha256_add(struct sha256_state *state, const void *data, size_t len);
void sha256_finish(struct sha256_state *state, uint8_t out[SHA256_SIZE]);

/* Random bytes fit for keys and identifiers (getrandom). Does not fail; may block early at boot. */
void random_bytes(void *out, size_t len);

/* Lower-case hex, 2 * len characters and a NUL. */
void hex_encode(char *out, const void *bytes, size_t len);

/* The opposite; MC_EINVAL unless text is exactly 2 * len hex digits. */
enum mc_status hex_decode(void *out, size_t len, const char *text);

#endif
