/* hash.c - SipHash-1-3 for tables; SHA-256 of libcrypto; random bytes from the kernel.
 *
 * SHA-256 is called at libcrypto's lower level, which OpenSSL 3 calls deprecated and keeps: a name of a key is hashed at the
 * client and at the master, and through EVP the digest of 10 bytes takes 92 ns in place of 56, as it allocates and frees a state
 * each time. It needs no start of the library either, and so no hook at its end. */
#define OPENSSL_API_COMPAT 0x10101000L /* the functions below, without a warning for each */
#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/cursor.h"

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

/* The 128-bit key of SipHash is the seed and its mix: 64 secret bits are plenty against flooding a table. */
uint64_t hash64(const void *data, size_t len, uint64_t seed)
{
    const uint8_t *at = data;
    uint64_t k0 = seed, k1 = hash_mix(seed + 0x9e3779b97f4a7c15ull), last = (uint64_t)len << 56;
    uint64_t v[4] = {
        k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull, k0 ^ 0x6c7967656e657261ull, k1 ^ 0x7465646279746573ull};
    size_t words = len / 8;

    for (; words; words--, at += 8)
        sip_word(v, le64_get(at));
    for (size_t i = 0; i < len % 8; i++)
        last |= (uint64_t)at[i] << (8 * i);
    sip_word(v, last);
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t process_seed;
static pthread_once_t seed_once = PTHREAD_ONCE_INIT;

static void seed_draw(void)
{
    random_bytes(&process_seed, sizeof(process_seed));
}

uint64_t hash_seed(void)
{
    pthread_once(&seed_once, seed_draw);
    return process_seed;
}

/* --- SHA-256 --- */

/* The state is libcrypto's; the struct exists so that its header is needed only here. Its functions say 1 and cannot fail. */
struct sha256_state {
    SHA256_CTX ctx;
};

struct sha256_state *sha256_create(void)
{
    struct sha256_state *state = malloc(sizeof(*state));

    if (state)
        sha256_reset(state);
    return state;
}

void sha256_destroy(struct sha256_state *state)
{
    free(state);
}

void sha256_reset(struct sha256_state *state)
{
    SHA256_Init(&state->ctx);
}

void sha256_add(struct sha256_state *state, const void *data, size_t len)
{
    SHA256_Update(&state->ctx, data, len);
}

void sha256_finish(struct sha256_state *state, uint8_t out[SHA256_SIZE])
{
    SHA256_Final(out, &state->ctx);
}

void sha256_parts(const struct slice *parts, size_t count, uint8_t out[SHA256_SIZE])
{
    struct sha256_state state;

    sha256_reset(&state);
    for (size_t i = 0; i < count; i++)
        if (parts[i].len)
            sha256_add(&state, parts[i].ptr, parts[i].len);
    sha256_finish(&state, out);
}

void sha256(const void *data, size_t len, uint8_t out[SHA256_SIZE])
{
    struct slice part = slice_of(data, len);

    sha256_parts(&part, 1, out);
}

void random_bytes(void *out, size_t len)
{
    uint8_t *at = out;

    while (len > 0) {
        ssize_t n = getrandom(at, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            abort(); /* ENOSYS or EFAULT: no identifier we would make up instead is better than stopping */
        at += n;
        len -= (size_t)n;
    }
}

void hex_encode(char *out, const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *at = bytes;

    for (size_t i = 0; i < len; i++) {
        out[2 * i] = digits[at[i] >> 4];
        out[2 * i + 1] = digits[at[i] & 15];
    }
    out[2 * len] = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum mc_status hex_decode(void *out, size_t len, const char *text)
{
    uint8_t *to = out;

    if (strlen(text) != 2 * len)
        return MC_EINVAL;
    for (size_t i = 0; i < 2 * len; i++)
        if (hex_digit(text[i]) < 0)
            return MC_EINVAL;
    for (size_t i = 0; i < len; i++)
        to[i] = (uint8_t)(hex_digit(text[2 * i]) << 4 | hex_digit(text[2 * i + 1]));
    return MC_OK;
}
