/* crc_arm.c - the crc32c instructions of ARMv8, three streams as on x86.
 *
 * Written in assembler, because compilers of 2022 offer the intrinsics only when the whole file is built for such a processor. */
#if defined(__aarch64__)

#include <string.h>
#include <sys/auxv.h>

#include "base/crc_impl.h"

#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

static inline uint32_t step8(uint32_t reg, uint64_t word)
{
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(reg) : "r"(word));
    return reg;
}

static inline uint32_t step1(uint32_t reg, uint8_t byte)
{
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(reg) : "r"((uint32_t)byte));
    return reg;
}

#define CRC_TARGET
#define CRC_STEP8(r, w) step8(r, w)
#define CRC_STEP1(r, b) step1(r, b)
#include "base/crc_3way.h"

static bool armv8_usable(void)
{
    three_way_tables();
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

static uint32_t armv8_crc(uint32_t reg, const void *data, size_t len)
{
    return run(reg, NULL, data, len);
}

static uint32_t armv8_copy(uint32_t reg, void *dst, const void *src, size_t len)
{
    return run(reg, dst, src, len);
}

const struct crc_ops crc_armv8_ops = {
    .name = "armv8",
    .usable = armv8_usable,
    .crc = armv8_crc,
    .copy = armv8_copy,
};

#else
typedef int crc_arm_is_empty_here; /* ISO C wants a declaration in every file */
#endif
