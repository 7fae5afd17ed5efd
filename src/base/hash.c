/* hash.c - SipHash-1-3 for tables; SHA-256 of libcrypto with the algorithm fetched once (a fetch per 300-byte block would
 * cost more than the hash); random bytes from the kernel. */
#include "base/hash.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
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

static EVP_MD *sha256_md; /* written once under md_once, never freed */
static pthread_once_t md_once = PTHREAD_ONCE_INIT;

static void md_fetch(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL); /* a library of ours may be unloaded, and hooks nobody's exit */
    sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!sha256_md)
        abort(); /* a libcrypto without SHA-256: nothing in this program can work */
}

static const EVP_MD *md(void)
{
    pthread_once(&md_once, md_fetch);
    return sha256_md;
}

/* The state is libcrypto's context; the struct exists so that its header is needed only here. */
static EVP_MD_CTX *ctx_of(struct sha256_state *state)
{
    return (EVP_MD_CTX *)(void *)state;
}

struct sha256_state *sha256_create(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();

    if (ctx && EVP_DigestInit_ex(ctx, md(), NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        ctx = NULL;
    }
    return (struct sha256_state *)(void *)ctx;
}

void sha256_destroy(struct sha256_state *state)
{
    EVP_MD_CTX_free(ctx_of(state));
}

void sha256_reset(struct sha256_state *state)
{
    /* Same algorithm again: reuses the state, allocates nothing. */
    if (EVP_DigestInit_ex(ctx_of(state), NULL, NULL) != 1)
        abort();
}

void sha256_add(struct sha256_state *state, const void *data, size_t len)
{
    if (EVP_DigestUpdate(ctx_of(state), data, len) != 1)
        abort();
}

void sha256_finish(struct sha256_state *state, uint8_t out[SHA256_SIZE])
{
    if (EVP_DigestFinal_ex(ctx_of(state), out, NULL) != 1)
        abort();
}

/* One context per thread: hashing a block must neither allocate nor fail. */
static pthread_key_t ctx_key;
static pthread_once_t ctx_once = PTHREAD_ONCE_INIT;

static void ctx_free(void *ctx)
{
    sha256_destroy(ctx);
}

static void ctx_key_make(void)
{
    if (pthread_key_create(&ctx_key, ctx_free) != 0)
        abort();
}

static struct sha256_state *thread_state(void)
{
    struct sha256_state *state;

    pthread_once(&ctx_once, ctx_key_make);
    state = pthread_getspecific(ctx_key);
    if (state) {
        sha256_reset(state);
        return state;
    }
    state = sha256_create();
    if (!state || pthread_setspecific(ctx_key, state) != 0)
        abort(); /* a few hundred bytes at the first use of a thread: documented as "cannot fail" */
    return state;
}

void sha256_parts(const struct slice *parts, size_t count, uint8_t out[SHA256_SIZE])
{
    struct sha256_state *state = thread_state();

    for (size_t i = 0; i < count; i++)
        if (parts[i].len)
            sha256_add(state, parts[i].ptr, parts[i].len);
    sha256_finish(state, out);
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
