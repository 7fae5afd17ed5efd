/* crc.c - choice of the back end, arithmetic, and the oracle.
 *
 * The back end is looked up once (pthread_once) and read through an atomic pointer: relaxed is enough, because every value it can
 * have is a constant whose tables were built before by pthread_once in this or in the storing thread, with release/acquire. */
#include "base/crc.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/crc_impl.h"

/* Preferred order: last usable wins. */
static const struct crc_ops *const backends[CRC_BACKENDS] = {
    [CRC_TABLE] = &crc_table_ops,
#if defined(__x86_64__)
    [CRC_SSE42] = &crc_sse42_ops,
    [CRC_VPCLMUL] = &crc_clmul_ops,
    [CRC_VPCLMUL512] = &crc_clmul512_ops,
#endif
#if defined(__aarch64__)
    [CRC_ARMV8] = &crc_armv8_ops,
#endif
};

static bool usable[CRC_BACKENDS]; /* written once, under probe_once */
static pthread_once_t probe_once = PTHREAD_ONCE_INIT;
static _Atomic(const struct crc_ops *) used;

static void probe(void)
{
    const struct crc_ops *best = NULL;

    for (int i = 0; i < CRC_BACKENDS; i++) {
        usable[i] = backends[i] && backends[i]->usable();
        if (usable[i])
            best = backends[i];
    }
    atomic_store_explicit(&used, best, memory_order_release);
}

static const struct crc_ops *ops(void)
{
    /* Acquire: the tables of the back end were written before the pointer. */
    const struct crc_ops *now = atomic_load_explicit(&used, memory_order_acquire);

    if (now)
        return now;
    pthread_once(&probe_once, probe);
    return atomic_load_explicit(&used, memory_order_acquire);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    return ~ops()->crc(~crc, data, len);
}

uint32_t crc32c_copy(uint32_t crc, void *dst, const void *src, size_t len)
{
    return ~ops()->copy(~crc, dst, src, len);
}

bool crc_backend_usable(enum crc_backend backend)
{
    ops();
    return backend == CRC_AUTO || (backend < CRC_BACKENDS && usable[backend]);
}

const char *crc_backend_name(enum crc_backend backend)
{
    return backend == CRC_AUTO                           ? "auto"
           : backend < CRC_BACKENDS && backends[backend] ? backends[backend]->name
                                                         : "none";
}

bool crc_backend_force(enum crc_backend backend)
{
    if (!crc_backend_usable(backend))
        return false;
    if (backend == CRC_AUTO)
        probe();
    else
        atomic_store_explicit(&used, backends[backend], memory_order_release);
    return true;
}

enum crc_backend crc_backend_used(void)
{
    const struct crc_ops *now = ops();

    for (int i = 0; i < CRC_BACKENDS; i++)
        if (backends[i] == now)
            return (enum crc_backend)i;
    return CRC_TABLE;
}

uint32_t crc32c_oracle(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *at = data;

    crc = ~crc;
    for (; len; len--) {
        crc ^= *at++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ CRC_POLY : crc >> 1;
    }
    return ~crc;
}

uint32_t crc_mul(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? b >> 1 ^ CRC_POLY : b >> 1;
    }
    return product;
}

uint32_t crc_x_to(uint64_t n)
{
    uint32_t result = 1u << 31, square = 1u << 30; /* 1 and x */

    for (; n; n >>= 1) {
        if (n & 1)
            result = crc_mul(square, result);
        square = crc_mul(square, square);
    }
    return result;
}

void crc_shift_table(uint32_t table[4][256], uint64_t len)
{
    uint32_t factor = crc_x_to(8 * len);

    for (int byte = 0; byte < 4; byte++)
        for (uint32_t value = 0; value < 256; value++)
            table[byte][value] = crc_mul(factor, value << (8 * byte));
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
    /* Bits instead of bytes would overflow at 2^61; the order of x is 2^31 - 1, so the exponent may be reduced. */
    uint64_t bits = len_b % 0x7fffffffu * 8;

    return crc_mul(crc_x_to(bits), crc_a) ^ crc_b;
}
