/* crc_fold.h - body of the two back ends that fold with carry-less multiplication (crc_clmul.c, crc_clmul512.c), included after
 * defining
 *   WIDE_TARGET        function attributes
 *   VEC, VEC_LEN       register type and its bytes
 *   VEC_LOAD(p) VEC_STORE(p, v) VEC_STREAM(p, v)
 *   VEC_FIRST(reg)     register with the uint32_t in its lowest bits, else zero
 *   VEC_XOR(a, b)
 *   VEC_KEY(low, high) {low, high} in every 16-byte lane
 *   VEC_FOLD(acc, next, key)   lanes of acc times key, plus next
 *   VEC_LANE(v, i)     16-byte lane, i a constant; LANES of them
 *
 * Four accumulators; in each step every 16-byte lane is multiplied by x^(8 * STEP_LEN) mod P and the next STEP_LEN bytes are added.
 * It keeps up with the memory, so the fused copy costs about nothing over memcpy. At the end the four accumulators are folded
 * into one, its lanes into one lane, and those 16 bytes have, from a zero register, the CRC of everything before; the crc32
 * instruction finishes.
 *
 *   reflected fold of a lane by D bits:  low * x^(D+32)  ^  high * x^(D-32)    (constants shifted left by one, as the product of
 *   two reflected polynomials is one bit short)
 *
 * Copies of STREAM_MIN or more use streaming stores: such a block does not fit beside anything else in the cache. */

#define WIDE_INLINE  static inline __attribute__((always_inline)) WIDE_TARGET
#define STEP_LEN     (4 * VEC_LEN)
#define WIDE_MIN     (2 * STEP_LEN)
#define STREAM_MIN   (4u << 20)
#define PREFETCH_LEN 1024

struct fold_key {
    uint64_t low, high; /* what the halves of a lane are multiplied by */
};

static struct fold_key key_step, key_vec, key_lane;

static struct fold_key key_of(unsigned bytes)
{
    unsigned bits = 8 * bytes;

    return (struct fold_key){(uint64_t)crc_x_to(bits + 32) << 1, (uint64_t)crc_x_to(bits - 32) << 1};
}

static void keys_make(void)
{
    key_step = key_of(STEP_LEN);
    key_vec = key_of(VEC_LEN);
    key_lane = key_of(16);
}

enum store_kind { STORE_NONE, STORE_PLAIN, STORE_STREAM };

/* Load once; what is stored is what is hashed. The asm hides where the value came from, so that it cannot be loaded again. */
WIDE_INLINE VEC move(uint8_t *to, const uint8_t *from, enum store_kind kind)
{
    VEC value = VEC_LOAD(from);

    __asm__("" : "+v"(value));
    if (kind == STORE_PLAIN)
        VEC_STORE(to, value);
    else if (kind == STORE_STREAM)
        VEC_STREAM(to, value);
    return value;
}

WIDE_INLINE __m128i fold_lane(__m128i acc, __m128i next)
{
    __m128i k = _mm_set_epi64x((long long)key_lane.high, (long long)key_lane.low);
    __m128i low = _mm_clmulepi64_si128(acc, k, 0x00), high = _mm_clmulepi64_si128(acc, k, 0x11);

    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

WIDE_INLINE uint32_t fold_end(const VEC acc[4])
{
    const VEC k = VEC_KEY(key_vec.low, key_vec.high);
    VEC v = acc[0];
    __m128i x;

#pragma GCC unroll 4
    for (int i = 1; i < 4; i++)
        v = VEC_FOLD(v, acc[i], k);
    x = fold_lane(VEC_LANE(v, 0), VEC_LANE(v, 1));
#if LANES == 4
    x = fold_lane(x, VEC_LANE(v, 2));
    x = fold_lane(x, VEC_LANE(v, 3));
#endif
    return (uint32_t)_mm_crc32_u64(
        _mm_crc32_u64(0, (uint64_t)_mm_extract_epi64(x, 0)), (uint64_t)_mm_extract_epi64(x, 1));
}

/* len: at least STEP_LEN; whole steps are done, *done says how many bytes. */
WIDE_INLINE uint32_t wide(
    uint32_t reg, uint8_t *to, const uint8_t *from, size_t len, enum store_kind kind, size_t *done)
{
    const VEC k = VEC_KEY(key_step.low, key_step.high);
    size_t at = STEP_LEN;
    VEC acc[4];

#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        acc[i] = move(kind ? to + VEC_LEN * i : NULL, from + VEC_LEN * i, kind);
    acc[0] = VEC_XOR(acc[0], VEC_FIRST(reg));
    for (; len - at >= STEP_LEN; at += STEP_LEN) {
        if (kind == STORE_STREAM)
            for (int line = 0; line < STEP_LEN; line += 64)
                _mm_prefetch((const char *)from + at + PREFETCH_LEN + line, _MM_HINT_NTA);
#pragma GCC unroll 4 /* else gcc keeps the accumulators in memory: half the speed */
        for (int i = 0; i < 4; i++) {
            VEC next = move(kind ? to + at + VEC_LEN * i : NULL, from + at + VEC_LEN * i, kind);

            acc[i] = VEC_FOLD(acc[i], next, k);
        }
    }
    if (kind == STORE_STREAM)
        _mm_sfence(); /* streaming stores are weakly ordered: whoever is told "copied" must see them */
    *done = at;
    return fold_end(acc);
}

static WIDE_TARGET uint32_t wide_crc(uint32_t reg, const void *data, size_t len)
{
    const uint8_t *from = data;
    size_t done;

    if (len < WIDE_MIN)
        return crc_sse42_ops.crc(reg, from, len);
    reg = wide(reg, NULL, from, len, STORE_NONE, &done);
    return crc_sse42_ops.crc(reg, from + done, len - done);
}

static WIDE_TARGET uint32_t wide_copy(uint32_t reg, void *dst, const void *src, size_t len)
{
    const uint8_t *from = src;
    uint8_t *to = dst;
    size_t done, head;

    if (len < WIDE_MIN)
        return crc_sse42_ops.copy(reg, to, from, len);
    if (len < STREAM_MIN) {
        reg = wide(reg, to, from, len, STORE_PLAIN, &done);
    } else {
        head = -(uintptr_t)to & 63; /* streaming stores want aligned addresses and whole lines */
        reg = crc_sse42_ops.copy(reg, to, from, head);
        to += head;
        from += head;
        len -= head;
        reg = wide(reg, to, from, len, STORE_STREAM, &done);
    }
    return crc_sse42_ops.copy(reg, to + done, from + done, len - done);
}
