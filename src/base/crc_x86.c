/* crc_x86.c - two back ends for x86-64.
 *
 * sse4.2: the crc32 instruction, three streams.
 *
 * vpclmul: carry-less multiplication of 256-bit registers folds 128 bytes at a time. Four accumulators of 32 bytes each; every
 * 16-byte half is multiplied by x^1024 (mod P) and the next 128 bytes are added. It keeps up with the memory, so the fused
 * copy costs about nothing over memcpy. At the end the eight halves are folded into one, whose 16 bytes have, from a zero
 * register, the CRC of everything before; the crc32 instruction finishes.
 *
 *   reflected fold of a 128-bit half by D bits:  lo * x^(D+32)  ^  hi * x^(D-32)    (constants shifted left by one, as the
 *   product of two reflected polynomials is one bit short)
 *
 * Copies of STREAM_MIN or more use streaming stores: such a block does not fit beside anything else in the cache. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "base/crc_impl.h"

#define CRC_TARGET      __attribute__((target("sse4.2")))
#define CRC_STEP8(r, w) ((uint32_t)_mm_crc32_u64(r, w))
#define CRC_STEP1(r, b) _mm_crc32_u8(r, b)
#include "base/crc_3way.h"

static bool sse42_usable(void)
{
    three_way_tables();
    return __builtin_cpu_supports("sse4.2");
}

static CRC_TARGET uint32_t sse42_crc(uint32_t reg, const void *data, size_t len)
{
    return run(reg, NULL, data, len);
}

static CRC_TARGET uint32_t sse42_copy(uint32_t reg, void *dst, const void *src, size_t len)
{
    return run(reg, dst, src, len);
}

const struct crc_ops crc_sse42_ops = {
    .name = "sse4.2",
    .usable = sse42_usable,
    .crc = sse42_crc,
    .copy = sse42_copy,
};

/* --- vpclmulqdq --- */

#define WIDE_TARGET  __attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2")))
#define WIDE_INLINE  static inline __attribute__((always_inline)) WIDE_TARGET
#define STEP_LEN     128
#define WIDE_MIN     256
#define STREAM_MIN   (4u << 20)
#define PREFETCH_LEN 1024

static uint64_t fold_1024[2], fold_128[2]; /* {for the low half, for the high half} */

static void fold_constants(uint64_t out[2], unsigned bits)
{
    out[0] = (uint64_t)crc_x_to(bits + 32) << 1;
    out[1] = (uint64_t)crc_x_to(bits - 32) << 1;
}

static bool vpclmul_usable(void)
{
    three_way_tables();
    fold_constants(fold_1024, 1024);
    fold_constants(fold_128, 128);
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("vpclmulqdq");
}

enum store_kind { STORE_NONE, STORE_PLAIN, STORE_STREAM };

/* Load once; what is stored is what is hashed. */
WIDE_INLINE __m256i move32(uint8_t *to, const uint8_t *from, enum store_kind kind)
{
    __m256i value = _mm256_loadu_si256((const __m256i *)(const void *)from);

    __asm__("" : "+x"(value));
    if (kind == STORE_PLAIN)
        _mm256_storeu_si256((__m256i *)(void *)to, value);
    else if (kind == STORE_STREAM)
        _mm256_stream_si256((__m256i *)(void *)to, value);
    return value;
}

WIDE_INLINE __m256i fold32(__m256i acc, __m256i next, __m256i k)
{
    __m256i low = _mm256_clmulepi64_epi128(acc, k, 0x00), high = _mm256_clmulepi64_epi128(acc, k, 0x11);

    return _mm256_xor_si256(_mm256_xor_si256(low, high), next);
}

WIDE_INLINE __m128i fold16(__m128i acc, __m128i next)
{
    __m128i k = _mm_set_epi64x((long long)fold_128[1], (long long)fold_128[0]);
    __m128i low = _mm_clmulepi64_si128(acc, k, 0x00), high = _mm_clmulepi64_si128(acc, k, 0x11);

    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

WIDE_INLINE uint32_t fold_end(const __m256i acc[4])
{
    __m128i x = _mm256_castsi256_si128(acc[0]);

    x = fold16(x, _mm256_extracti128_si256(acc[0], 1));
    for (int i = 1; i < 4; i++) {
        x = fold16(x, _mm256_castsi256_si128(acc[i]));
        x = fold16(x, _mm256_extracti128_si256(acc[i], 1));
    }
    return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_extract_epi64(x, 0)),
        (uint64_t)_mm_extract_epi64(x, 1));
}

/* len: at least STEP_LEN; whole steps are done, *done says how many bytes. */
WIDE_INLINE uint32_t wide(uint32_t reg, uint8_t *to, const uint8_t *from, size_t len, enum store_kind kind, size_t *done)
{
    const __m256i k = _mm256_set_epi64x((long long)fold_1024[1], (long long)fold_1024[0], (long long)fold_1024[1],
        (long long)fold_1024[0]);
    __m256i acc[4];
    size_t at = STEP_LEN;

    for (int i = 0; i < 4; i++)
        acc[i] = move32(kind ? to + 32 * i : NULL, from + 32 * i, kind);
    acc[0] = _mm256_xor_si256(acc[0], _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)reg)));
    for (; len - at >= STEP_LEN; at += STEP_LEN) {
        if (kind == STORE_STREAM) {
            _mm_prefetch((const char *)from + at + PREFETCH_LEN, _MM_HINT_NTA);
            _mm_prefetch((const char *)from + at + PREFETCH_LEN + 64, _MM_HINT_NTA);
        }
        for (int i = 0; i < 4; i++)
            acc[i] = fold32(acc[i], move32(kind ? to + at + 32 * i : NULL, from + at + 32 * i, kind), k);
    }
    if (kind == STORE_STREAM)
        _mm_sfence(); /* streaming stores are weakly ordered: whoever is told "copied" must see them */
    *done = at;
    return fold_end(acc);
}

static WIDE_TARGET uint32_t vpclmul_crc(uint32_t reg, const void *data, size_t len)
{
    const uint8_t *from = data;
    size_t done;

    if (len < WIDE_MIN)
        return sse42_crc(reg, from, len);
    reg = wide(reg, NULL, from, len, STORE_NONE, &done);
    return sse42_crc(reg, from + done, len - done);
}

static WIDE_TARGET uint32_t vpclmul_copy(uint32_t reg, void *dst, const void *src, size_t len)
{
    const uint8_t *from = src;
    uint8_t *to = dst;
    size_t done, head;

    if (len < WIDE_MIN)
        return sse42_copy(reg, to, from, len);
    if (len < STREAM_MIN) {
        reg = wide(reg, to, from, len, STORE_PLAIN, &done);
    } else {
        head = -(uintptr_t)to & 63; /* streaming stores want aligned addresses and whole lines */
        reg = sse42_copy(reg, to, from, head);
        to += head;
        from += head;
        len -= head;
        reg = wide(reg, to, from, len, STORE_STREAM, &done);
    }
    return sse42_copy(reg, to + done, from + done, len - done);
}

const struct crc_ops crc_vpclmul_ops = {
    .name = "vpclmulqdq",
    .usable = vpclmul_usable,
    .crc = vpclmul_crc,
    .copy = vpclmul_copy,
};

#else
typedef int crc_x86_is_empty_here; /* ISO C wants a declaration in every file */
#endif
