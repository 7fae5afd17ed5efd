/* crc_arm.c - the crc32c instructions of ARMv8, three streams as on x86. */
#if defined(__aarch64__)

#include <arm_acle.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/crc_impl.h"

#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

#define CRC_TARGET      __attribute__((target("+crc")))
#define CRC_STEP8(r, w) __crc32cd(r, w)
#define CRC_STEP1(r, b) __crc32cb(r, b)
#include "base/crc_3way.h"

static bool armv8_usable(void)
{
    three_way_tables();
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
}

static CRC_TARGET uint32_t armv8_crc(uint32_t reg, const void *data, size_t len)
{
    return run(reg, NULL, data, len);
}

static CRC_TARGET uint32_t armv8_copy(uint32_t reg, void *dst, const void *src, size_t len)
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
