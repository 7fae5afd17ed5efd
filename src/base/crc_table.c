/* crc_table.c - eight look-ups per eight bytes ("slicing by 8"), for processors without a CRC instruction. */
#include <string.h>

#include "base/crc_impl.h"
#include "base/cursor.h"

static uint32_t tables[8][256];

static bool table_usable(void)
{
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t reg = value;

        for (int bit = 0; bit < 8; bit++)
            reg = reg & 1 ? reg >> 1 ^ CRC_POLY : reg >> 1;
        tables[0][value] = reg;
    }
    for (int slice = 1; slice < 8; slice++)
        for (uint32_t value = 0; value < 256; value++) {
            uint32_t before = tables[slice - 1][value];

            tables[slice][value] = before >> 8 ^ tables[0][before & 0xff];
        }
    return true;
}

static uint32_t step8(uint32_t reg, uint64_t word)
{
    uint32_t low = reg ^ (uint32_t)word, high = (uint32_t)(word >> 32);

    return tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^ tables[4][low >> 24] ^
           tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^ tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
}

static uint32_t step1(uint32_t reg, uint8_t byte)
{
    return reg >> 8 ^ tables[0][(reg ^ byte) & 0xff];
}

static uint32_t table_crc(uint32_t reg, const void *data, size_t len)
{
    const uint8_t *at = data;

    for (; len >= 8; len -= 8, at += 8)
        reg = step8(reg, le64_get(at));
    for (; len; len--)
        reg = step1(reg, *at++);
    return reg;
}

static uint32_t table_copy(uint32_t reg, void *dst, const void *src, size_t len)
{
    const uint8_t *from = src;
    uint8_t *to = dst;

    for (; len >= 8; len -= 8, from += 8, to += 8) {
        uint64_t word = le64_get(from);

        le64_put(to, word);
        reg = step8(reg, word);
    }
    for (; len; len--) {
        uint8_t byte = *from++;

        *to++ = byte;
        reg = step1(reg, byte);
    }
    return reg;
}

const struct crc_ops crc_table_ops = {
    .name = "table",
    .usable = table_usable,
    .crc = table_crc,
    .copy = table_copy,
};
