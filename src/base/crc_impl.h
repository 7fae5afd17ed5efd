/* crc_impl.h - private to crc*.c: the table of a back end, and arithmetic modulo the polynomial.
 *
 * Inside the back ends a CRC is the bare register: not inverted before and after. */
#ifndef BASE_CRC_IMPL_H
#define BASE_CRC_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRC_POLY 0x82f63b78u /* Castagnoli, bit-reflected */

struct crc_ops {
    const char *name;
    bool (*usable)(void); /* also builds the tables; called once, before the two others */
    uint32_t (*crc)(uint32_t reg, const void *data, size_t len);
    uint32_t (*copy)(uint32_t reg, void *dst, const void *src, size_t len);
};

extern const struct crc_ops crc_table_ops, crc_sse42_ops, crc_clmul_ops, crc_clmul512_ops, crc_armv8_ops;

/* a * b modulo the polynomial, bit-reflected: 1 is 0x80000000. */
uint32_t crc_mul(uint32_t a, uint32_t b);

/* x^n modulo the polynomial. */
uint32_t crc_x_to(uint64_t n);

/* Tables that move a register over `len` zero bytes by four look-ups: reg' = t[0][r & 255] ^ t[1][r >> 8 & 255] ^ ... */
void crc_shift_table(uint32_t table[4][256], uint64_t len);

static inline uint32_t crc_shift(const uint32_t table[4][256], uint32_t reg)
{
    return table[0][reg & 0xff] ^ table[1][reg >> 8 & 0xff] ^ table[2][reg >> 16 & 0xff] ^ table[3][reg >> 24];
}

#endif
