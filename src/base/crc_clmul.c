/* crc_clmul.c - vpclmulqdq on 256-bit registers (AVX2). See crc_fold.h. */
#if defined(__x86_64__)

#include <immintrin.h>

#include "base/crc_impl.h"

#define WIDE_TARGET        __attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2,crc32")))
#define VEC                __m256i
#define VEC_LEN            32
#define LANES              2
#define VEC_LOAD(p)        _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define VEC_STORE(p, v)    _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define VEC_STREAM(p, v)   _mm256_stream_si256((__m256i *)(void *)(p), v)
#define VEC_FIRST(reg)     _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)(reg)))
#define VEC_XOR(a, b)      _mm256_xor_si256(a, b)
#define VEC_KEY(low, high) _mm256_set_epi64x((long long)(high), (long long)(low), (long long)(high), (long long)(low))
#define VEC_FOLD(acc, next, key)                                                                                       \
    _mm256_xor_si256(                                                                                                  \
        _mm256_xor_si256(_mm256_clmulepi64_epi128(acc, key, 0x00), _mm256_clmulepi64_epi128(acc, key, 0x11)), next)
#define VEC_LANE(v, i) _mm256_extracti128_si256(v, i)
#include "base/crc_fold.h"

static bool clmul_usable(void)
{
    keys_make();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("vpclmulqdq");
}

const struct crc_ops crc_clmul_ops = {
    .name = "vpclmulqdq",
    .usable = clmul_usable,
    .crc = wide_crc,
    .copy = wide_copy,
};

#else
typedef int crc_clmul_is_empty_here; /* ISO C wants a declaration in every file */
#endif
