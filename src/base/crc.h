/* crc.h - CRC32C (Castagnoli), alone and fused with a copy.
 *
 * The checksum of the wire and of every stored chunk. `crc` arguments and results are in the usual form: start with 0, feed
 * the result of one call into the next to go on. crc32c("123456789") = 0xE3069283.
 *
 * The back end is chosen once, at the first call, from what the processor has. All are tested against crc32c_oracle().
 * Threads: any. */
#ifndef BASE_CRC_H
#define BASE_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/* Copy `len` bytes and return the CRC32C of the bytes that were *stored* in dst: each word is loaded once into a register,
 * and that register is both hashed and stored; so a source that changes meanwhile gives a checksum that matches the
 * destination, never one that matches neither. The ranges must not overlap. Large copies use streaming stores (they do
 * not push everything else out of the cache). */
uint32_t crc32c_copy(uint32_t crc, void *dst, const void *src, size_t len);

/* CRC of A followed by B, from crc_a = crc32c(0, A), crc_b = crc32c(0, B), and the length of B in bytes. */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

/* One bit at a time, from the definition: what the fast ones are compared with. */
uint32_t crc32c_oracle(uint32_t crc, const void *data, size_t len);

enum crc_backend { CRC_AUTO, CRC_TABLE, CRC_SSE42, CRC_VPCLMUL, CRC_VPCLMUL512, CRC_ARMV8, CRC_BACKENDS };

/* Can this processor (and build) run it? CRC_AUTO and CRC_TABLE always. */
bool crc_backend_usable(enum crc_backend backend);
const char *crc_backend_name(enum crc_backend backend);

/* For tests and benchmarks: use this one from now on, in every thread. False (and no change) when it is not usable. */
bool crc_backend_force(enum crc_backend backend);

/* The one in use (never CRC_AUTO). */
enum crc_backend crc_backend_used(void);

#endif
