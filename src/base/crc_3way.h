/* crc_3way.h - body of the back ends that use a CRC instruction (crc_x86.c, crc_arm.c), included after defining
 *   CRC_TARGET        function attributes
 *   CRC_STEP8(r, w)   register after the 8 bytes of the uint64_t w
 *   CRC_STEP1(r, b)   register after one byte
 *
 * The instruction takes 3 cycles but one can start each cycle: three streams, a third of a block each, run side by side and are
 * put together by moving the first two registers over the zeros that stand for what follows them. Long blocks amortise the
 * eight look-ups, short ones serve the rest. */

#define LONG_LEN  8192
#define SHORT_LEN 256

static uint32_t long_shift[4][256], short_shift[4][256];

static void three_way_tables(void)
{
    crc_shift_table(long_shift, LONG_LEN);
    crc_shift_table(short_shift, SHORT_LEN);
}

static inline uint64_t load8(const uint8_t *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

static inline void store8(uint8_t *p, uint64_t word)
{
    memcpy(p, &word, sizeof(word));
}

/* `to` NULL: hash only. One load feeds both the store and the hash. The asm hides the word's origin, so that the compiler cannot
 * load it a second time. */
static inline CRC_TARGET uint32_t hash8(uint32_t reg, uint8_t *to, const uint8_t *from)
{
    uint64_t word = load8(from);

    __asm__("" : "+r"(word));
    if (to)
        store8(to, word);
    return CRC_STEP8(reg, word);
}

static inline __attribute__((always_inline)) CRC_TARGET uint32_t three_way(
    uint32_t reg, uint8_t *to, const uint8_t *from, size_t len, const uint32_t shift[4][256])
{
    uint32_t r1 = 0, r2 = 0;

    for (size_t i = 0; i < len; i += 8) {
        reg = hash8(reg, to ? to + i : NULL, from + i);
        r1 = hash8(r1, to ? to + len + i : NULL, from + len + i);
        r2 = hash8(r2, to ? to + 2 * len + i : NULL, from + 2 * len + i);
    }
    return crc_shift(shift, crc_shift(shift, reg) ^ r1) ^ r2;
}

static inline __attribute__((always_inline)) CRC_TARGET uint32_t run(
    uint32_t reg, uint8_t *to, const uint8_t *from, size_t len)
{
    size_t at = 0;

    for (; len - at >= 3 * LONG_LEN; at += 3 * LONG_LEN)
        reg = three_way(reg, to ? to + at : NULL, from + at, LONG_LEN, long_shift);
    for (; len - at >= 3 * SHORT_LEN; at += 3 * SHORT_LEN)
        reg = three_way(reg, to ? to + at : NULL, from + at, SHORT_LEN, short_shift);
    for (; len - at >= 8; at += 8)
        reg = hash8(reg, to ? to + at : NULL, from + at);
    for (; at < len; at++) {
        uint8_t byte = from[at];

        __asm__("" : "+r"(byte));
        if (to)
            to[at] = byte;
        reg = CRC_STEP1(reg, byte);
    }
    return reg;
}
