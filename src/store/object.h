/* object.h - what lies in memory for each stored object: header, name, chunk table, payload. docs/wire.md has it too.
 *
 *     0    magic u32 | layout u16 | kind u8 | 0 u8 | header_len u32 | header_crc u32
 *     16   generation u64 | version u64 | length u64
 *     40   flags u32 | chunks u32 | ns u32 | group u16 | shard u16 | shards u16 | name_len u16 | depth u32
 *     64   id 16 B | parent 16 B
 *     96   tokens u32 | planes u32 | geometry u64 | created_ms u64 (wall, when sealed) | 0 u64
 *     128  name (name_len bytes, padded with zeros to 8) | chunk table: chunks x { length u32, crc32c u32 } | zeros to 64
 *     header_len   payload, `length` bytes
 *
 * All little-endian. header_crc is the CRC32C of the first header_len bytes with header_crc itself as zero, so header, name
 * and chunk table stand or fall together. header_len is a multiple of 64: the payload is aligned as the object is.
 * A chunk is at most MC_CHUNK_MAX long, never empty, and never crosses a plane; their lengths sum to `length`.
 *
 * Life in a segment: payload first, header last; the object is then told to others. Before the space is given back the
 * owner calls object_kill(): so a reader with an old location sees either the whole old object or a header that no
 * longer stands, and can tell `stale` from `corrupt`.
 *
 * Reading: header and payload are read at once and in any order; object_parse() the header, compare it with what was
 * asked for (object_is()), compare the checksum of what was *stored*. Then, and only then, the bytes are right.
 * Pure. Threads: any; object_kill() and object_seal() write memory that readers may be copying: they order their stores. */
#ifndef STORE_OBJECT_H
#define STORE_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/store.h"
#include "store/key.h"

enum {
    OBJECT_ALIGN = 64,
    OBJECT_FIXED = 128,       /* bytes before the name */
    OBJECT_PLANES_MAX = 8192, /* planes a put may name */
    OBJECT_CHUNKS_MAX = MC_OBJECT_MAX / MC_CHUNK_MAX + OBJECT_PLANES_MAX,
    OBJECT_HEADER_MAX = OBJECT_FIXED + MC_NAME_MAX + 8 + 8 * OBJECT_CHUNKS_MAX + OBJECT_ALIGN,
    OBJECT_HEADER_SMALL = 4096, /* headers up to this fit the buffers on hot paths */
};

#define OBJECT_MAGIC 0x314f434du /* "MCO1" */

/* Flags beyond enum mc_object_flags (which take the low 16 bits). */
enum object_flags {
    OBJECT_FLAGS_PUBLIC = 0xffff,
    OBJECT_DEAD = 1 << 16, /* replaced or removed: kept only until its space is given back */
};

/* What a header says. `key.name` and `table` are lent from the bytes it was parsed from. */
struct object_header {
    struct store_key key;
    uint64_t generation; /* of the node; never used twice */
    uint64_t version;    /* named keys: master term and counter; blocks: 0 */
    uint64_t length;     /* payload */
    uint32_t header_len;
    uint32_t header_crc;
    uint32_t flags;
    uint32_t chunks;
    uint32_t depth, tokens, planes;
    uint8_t parent[16];
    uint64_t geometry;
    uint64_t created_ms;
    const uint8_t *table;
};

struct object_chunk {
    uint32_t length;
    uint32_t crc32c;
};

/* ---- building (the owner) ---- */

/* How an object of that key, length and meta is cut. Start here: it says how much space is needed.
 *   MC_EINVAL   planes do not sum to the length, a plane of no bytes, more than OBJECT_PLANES_MAX, key out of limits
 *   MC_ETOOBIG  longer than MC_OBJECT_MAX */
struct object_plan {
    uint64_t length;
    uint32_t header_len;
    uint32_t chunks;
    uint32_t planes;             /* 0 and NULL: one plane */
    const uint64_t *plane_bytes; /* borrowed */
};
enum mc_status object_plan(const struct store_key *key, uint64_t length, const uint64_t *plane_bytes, uint32_t planes,
    struct object_plan *plan);

/* Bytes in memory: header_len + length. */
static inline uint64_t object_size(const struct object_plan *plan)
{
    return plan->header_len + plan->length;
}

/* Lengths of the chunks in order: start with a zeroed walk; false at the end. */
struct object_walk {
    uint32_t plane;
    uint64_t in_plane; /* bytes of this plane behind us */
    uint64_t offset;   /* of the chunk just returned */
    uint32_t length;
    uint32_t index;
};
bool object_walk_next(const struct object_plan *plan, struct object_walk *walk);

/* Write the header in front of a payload that is in place. `crcs` has plan->chunks checksums of what was stored. Fields of
 * `header` used: key, generation, version, flags, depth, tokens, parent, geometry, created_ms. `dst` has plan->header_len
 * bytes, is aligned to 8; the first 16 bytes are written last. */
void object_seal(void *dst, const struct object_plan *plan, const struct object_header *header, const uint32_t *crcs);

/* The object is given up: after this nobody who reads its header takes it for alive. Idempotent; any bytes may be there. */
void object_kill(void *dst);

/* Replaced or removed but still there for whoever pins it: set OBJECT_DEAD and make the CRC fit again. Only for bytes that
 * object_parse() accepts, else MC_ECORRUPT and nothing changes. */
enum mc_status object_stamp_dead(void *dst, size_t size);

/* Give a sealed object its version (the master's commit decides it) before it is told to anybody. As above. */
enum mc_status object_set_version(void *dst, size_t size, uint64_t version);

/* ---- reading (anybody): bytes are hostile ---- */

/* Parse `size` bytes that should begin with a header (more may follow). *header is set on success only.
 *   MC_ESTALE    killed, or never an object: magic is not there
 *   MC_ECORRUPT  CRC or any field does not fit; `size` is less than header_len */
enum mc_status object_parse(const void *bytes, size_t size, struct object_header *header);

/* Length of header, name and table from the first OBJECT_FIXED bytes, unchecked but within limits; 0 when it cannot be. */
uint32_t object_header_len(const void *bytes, size_t size);

/* Is this the object that was asked for? key always; generation unless 0. OBJECT_DEAD: no. MC_OK or MC_ESTALE. */
enum mc_status object_is(const struct object_header *header, const struct store_key *key, uint64_t generation);

struct object_chunk object_chunk(const struct object_header *header, uint32_t index);

/* CRC32C of the whole payload, from the table: compare with the combined checksums of a whole read, however it was cut. */
uint32_t object_payload_crc(const struct object_header *header);

/* The run of whole chunks that covers [offset, offset + length) of the payload: what has to be read to verify a range.
 * MC_EINVAL: outside the payload. An empty range gives an empty run. */
struct object_cover {
    uint64_t offset; /* of the first chunk */
    uint64_t length; /* of the run */
    uint32_t first, count;
};
enum mc_status object_cover(
    const struct object_header *header, uint64_t offset, uint64_t length, struct object_cover *cover);

/* CRC32C of chunks [first, first + count) as one range. */
uint32_t object_cover_crc(const struct object_header *header, const struct object_cover *cover);

/* Check bytes in memory: the whole payload, or a covering run. MC_OK or MC_ECORRUPT. */
enum mc_status object_verify(const struct object_header *header, const void *payload);
enum mc_status object_verify_cover(
    const struct object_header *header, const struct object_cover *cover, const void *bytes);

#endif
