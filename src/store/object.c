/* object.c - see object.h. */
#include "store/object.h"

#include <assert.h>

#include "base/crc.h"

/* Offsets of the fixed part. */
enum {
    AT_MAGIC = 0,
    AT_LAYOUT = 4,
    AT_KIND = 6,
    AT_ZERO8 = 7,
    AT_HEADER_LEN = 8,
    AT_HEADER_CRC = 12,
    AT_GENERATION = 16,
    AT_VERSION = 24,
    AT_LENGTH = 32,
    AT_FLAGS = 40,
    AT_CHUNKS = 44,
    AT_NS = 48,
    AT_GROUP = 52,
    AT_SHARD = 54,
    AT_SHARDS = 56,
    AT_NAME_LEN = 58,
    AT_DEPTH = 60,
    AT_ID = 64,
    AT_PARENT = 80,
    AT_TOKENS = 96,
    AT_PLANES = 100,
    AT_GEOMETRY = 104,
    AT_CREATED = 112,
    AT_ZERO64 = 120,
};

#define LAYOUT 1

static_assert(AT_ZERO64 + 8 == OBJECT_FIXED, "the name follows the fixed part");

static uint32_t round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

static uint32_t table_at(uint32_t name_len)
{
    return OBJECT_FIXED + round_up(name_len, 8);
}

static uint32_t header_len_of(uint32_t name_len, uint32_t chunks)
{
    return round_up(table_at(name_len) + 8 * chunks, OBJECT_ALIGN);
}

/* ---- building ---- */

static uint32_t chunks_of(uint64_t bytes)
{
    return (uint32_t)((bytes + MC_CHUNK_MAX - 1) / MC_CHUNK_MAX);
}

enum mc_status object_plan(const struct store_key *key, uint64_t length, const uint64_t *plane_bytes, uint32_t planes,
    struct object_plan *plan)
{
    uint32_t chunks = 0;
    uint64_t sum = 0;

    if (length > MC_OBJECT_MAX)
        return MC_ETOOBIG;
    if (planes > OBJECT_PLANES_MAX || key->name.len > MC_NAME_MAX)
        return MC_EINVAL;
    for (uint32_t i = 0; i < planes; i++) {
        if (plane_bytes[i] == 0 || plane_bytes[i] > length - sum)
            return MC_EINVAL;
        sum += plane_bytes[i];
        chunks += chunks_of(plane_bytes[i]);
    }
    if (planes > 0 && sum != length)
        return MC_EINVAL;
    if (planes == 0)
        chunks = chunks_of(length);
    *plan = (struct object_plan){
        .length = length,
        .header_len = header_len_of((uint32_t)key->name.len, chunks),
        .chunks = chunks,
        .planes = planes,
        .plane_bytes = plane_bytes,
    };
    return MC_OK;
}

bool object_walk_next(const struct object_plan *plan, struct object_walk *walk)
{
    uint64_t plane_len = plan->length;

    if (walk->length > 0) {
        walk->offset += walk->length;
        walk->in_plane += walk->length;
        walk->index++;
    }
    if (walk->offset >= plan->length) {
        walk->length = 0;
        return false;
    }
    if (plan->planes > 0) {
        if (walk->in_plane == plan->plane_bytes[walk->plane]) {
            walk->plane++;
            walk->in_plane = 0;
        }
        plane_len = plan->plane_bytes[walk->plane];
    }
    uint64_t left = plane_len - walk->in_plane;
    walk->length = left < MC_CHUNK_MAX ? (uint32_t)left : MC_CHUNK_MAX;
    return true;
}

/* CRC of a header whose own CRC counts as zero. */
static uint32_t header_crc(const uint8_t *bytes, uint32_t header_len)
{
    static const uint8_t zero[4];
    uint32_t crc = crc32c(0, bytes, AT_HEADER_CRC);

    crc = crc32c(crc, zero, sizeof(zero));
    return crc32c(crc, bytes + AT_HEADER_CRC + 4, header_len - AT_HEADER_CRC - 4);
}

/* The first 8 bytes in one store, behind everything written before: a reader that sees them sees the rest, or finds that
 * the CRC does not fit. */
static void store_head(uint8_t *dst, uint64_t head)
{
    __atomic_store_n((uint64_t *)(void *)dst, head, __ATOMIC_RELEASE);
}

void object_seal(void *dst, const struct object_plan *plan, const struct object_header *header, const uint32_t *crcs)
{
    uint8_t *at = dst;
    const struct store_key *key = &header->key;
    uint32_t table = table_at((uint32_t)key->name.len);
    struct object_walk walk = {0};
    uint8_t head[8];

    assert((uintptr_t)dst % 8 == 0);
    assert(plan->header_len == header_len_of((uint32_t)key->name.len, plan->chunks));

    object_kill(dst);
    memset(at + 8, 0, plan->header_len - 8);
    le32_put(at + AT_HEADER_LEN, plan->header_len);
    le64_put(at + AT_GENERATION, header->generation);
    le64_put(at + AT_VERSION, header->version);
    le64_put(at + AT_LENGTH, plan->length);
    le32_put(at + AT_FLAGS, header->flags);
    le32_put(at + AT_CHUNKS, plan->chunks);
    le32_put(at + AT_NS, key->ns);
    le16_put(at + AT_GROUP, key->group);
    le16_put(at + AT_SHARD, key->shard);
    le16_put(at + AT_SHARDS, key->shards);
    le16_put(at + AT_NAME_LEN, (uint16_t)key->name.len);
    le32_put(at + AT_DEPTH, header->depth);
    memcpy(at + AT_ID, key->id, 16);
    memcpy(at + AT_PARENT, header->parent, 16);
    le32_put(at + AT_TOKENS, header->tokens);
    le32_put(at + AT_PLANES, plan->planes ? plan->planes : 1);
    le64_put(at + AT_GEOMETRY, header->geometry);
    le64_put(at + AT_CREATED, header->created_ms);
    if (key->name.len > 0)
        memcpy(at + OBJECT_FIXED, key->name.ptr, key->name.len);
    while (object_walk_next(plan, &walk)) {
        le32_put(at + table + 8 * walk.index, walk.length);
        le32_put(at + table + 8 * walk.index + 4, crcs[walk.index]);
    }

    le32_put(head + AT_MAGIC, OBJECT_MAGIC);
    le16_put(head + AT_LAYOUT, LAYOUT);
    head[AT_KIND] = key->kind;
    head[AT_ZERO8] = 0;
    /* The CRC covers the first 8 bytes too: computed as if they were there. */
    static const uint8_t zero[4];
    uint32_t crc = crc32c(crc32c(0, head, sizeof(head)), at + 8, 4);
    crc = crc32c(crc, zero, sizeof(zero));
    crc = crc32c(crc, at + AT_GENERATION, plan->header_len - AT_GENERATION);
    le32_put(at + AT_HEADER_CRC, crc);
    uint64_t word;
    memcpy(&word, head, sizeof(word));
    store_head(at, word);
}

void object_kill(void *dst)
{
    store_head(dst, 0);
    /* What is written into this space later must not be seen before the kill. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Change one field of a standing header. A reader in the middle sees a CRC that does not fit, reads again, and finds either. */
static enum mc_status rewrite(void *dst, size_t size, uint32_t flags, const uint64_t *version)
{
    struct object_header header;
    uint8_t *at = dst;
    enum mc_status status = object_parse(dst, size, &header);

    if (status != MC_OK)
        return MC_ECORRUPT;
    le32_put(at + AT_FLAGS, header.flags | flags);
    if (version)
        le64_put(at + AT_VERSION, *version);
    le32_put(at + AT_HEADER_CRC, header_crc(at, header.header_len));
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return MC_OK;
}

enum mc_status object_stamp_dead(void *dst, size_t size)
{
    return rewrite(dst, size, OBJECT_DEAD, NULL);
}

enum mc_status object_set_version(void *dst, size_t size, uint64_t version)
{
    return rewrite(dst, size, 0, &version);
}

/* ---- reading ---- */

uint32_t object_header_len(const void *bytes, size_t size)
{
    const uint8_t *at = bytes;

    if (size < OBJECT_FIXED || le32_get(at + AT_MAGIC) != OBJECT_MAGIC || le16_get(at + AT_LAYOUT) != LAYOUT)
        return 0;
    uint32_t len = le32_get(at + AT_HEADER_LEN), chunks = le32_get(at + AT_CHUNKS);
    uint32_t name_len = le16_get(at + AT_NAME_LEN);

    if (name_len > MC_NAME_MAX || chunks > OBJECT_CHUNKS_MAX || len != header_len_of(name_len, chunks))
        return 0;
    return len;
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
    uint8_t any = 0;

    for (size_t i = 0; i < len; i++)
        any |= bytes[i];
    return any == 0;
}

/* Do the lengths in the table make up the payload? */
static bool table_fits(const struct object_header *header)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < header->chunks; i++) {
        struct object_chunk chunk = object_chunk(header, i);

        if (chunk.length == 0 || chunk.length > MC_CHUNK_MAX)
            return false;
        sum += chunk.length;
    }
    return sum == header->length;
}

static bool key_fits(const struct store_key *key)
{
    if (key->shards == 0 || key->shard >= key->shards)
        return false;
    if (key->kind == MC_KEY_BLOCK)
        return key->name.len == 0;
    return key->kind == MC_KEY_NAMED && key->name.len > 0;
}

enum mc_status object_parse(const void *bytes, size_t size, struct object_header *header)
{
    const uint8_t *at = bytes;

    if (size < 4 || le32_get(at + AT_MAGIC) != OBJECT_MAGIC)
        return MC_ESTALE;
    uint32_t len = object_header_len(bytes, size);
    if (len == 0 || len > size || header_crc(at, len) != le32_get(at + AT_HEADER_CRC))
        return MC_ECORRUPT;

    uint32_t name_len = le16_get(at + AT_NAME_LEN), table = table_at(name_len);
    struct object_header made = {
        .key = {.ns = le32_get(at + AT_NS),
            .group = le16_get(at + AT_GROUP),
            .shard = le16_get(at + AT_SHARD),
            .shards = le16_get(at + AT_SHARDS),
            .kind = at[AT_KIND],
            .name = slice_of(at + OBJECT_FIXED, name_len)},
        .generation = le64_get(at + AT_GENERATION),
        .version = le64_get(at + AT_VERSION),
        .length = le64_get(at + AT_LENGTH),
        .header_len = len,
        .header_crc = le32_get(at + AT_HEADER_CRC),
        .flags = le32_get(at + AT_FLAGS),
        .chunks = le32_get(at + AT_CHUNKS),
        .depth = le32_get(at + AT_DEPTH),
        .tokens = le32_get(at + AT_TOKENS),
        .planes = le32_get(at + AT_PLANES),
        .geometry = le64_get(at + AT_GEOMETRY),
        .created_ms = le64_get(at + AT_CREATED),
        .table = at + table,
    };
    memcpy(made.key.id, at + AT_ID, 16);
    memcpy(made.parent, at + AT_PARENT, 16);
    uint32_t table_end = table + 8 * made.chunks;
    if (!key_fits(&made.key) || at[AT_ZERO8] != 0 || le64_get(at + AT_ZERO64) != 0 || made.length > MC_OBJECT_MAX ||
        !table_fits(&made) || !all_zero(at + OBJECT_FIXED + name_len, table - OBJECT_FIXED - name_len) ||
        !all_zero(at + table_end, len - table_end))
        return MC_ECORRUPT;
    *header = made;
    return MC_OK;
}

enum mc_status object_is(const struct object_header *header, const struct store_key *key, uint64_t generation)
{
    if (header->flags & OBJECT_DEAD || (generation != 0 && header->generation != generation))
        return MC_ESTALE;
    if (!store_key_eq(&header->key, key))
        return MC_ESTALE;
    /* The digest is 128 bits; the name is there, so it is compared too where the caller has it. */
    if (key->kind == MC_KEY_NAMED && key->name.len > 0 && !slice_eq(header->key.name, key->name))
        return MC_ESTALE;
    return MC_OK;
}

struct object_chunk object_chunk(const struct object_header *header, uint32_t index)
{
    assert(index < header->chunks);
    return (struct object_chunk){le32_get(header->table + 8 * index), le32_get(header->table + 8 * index + 4)};
}

uint32_t object_cover_crc(const struct object_header *header, const struct object_cover *cover)
{
    uint32_t crc = 0;

    for (uint32_t i = cover->first; i < cover->first + cover->count; i++) {
        struct object_chunk chunk = object_chunk(header, i);

        crc = i == cover->first ? chunk.crc32c : crc32c_combine(crc, chunk.crc32c, chunk.length);
    }
    return crc;
}

uint32_t object_payload_crc(const struct object_header *header)
{
    return object_cover_crc(header, &(struct object_cover){.count = header->chunks});
}

enum mc_status object_cover(
    const struct object_header *header, uint64_t offset, uint64_t length, struct object_cover *cover)
{
    struct object_cover made = {0};
    uint64_t at = 0;

    if (offset > header->length || length > header->length - offset)
        return MC_EINVAL;
    for (uint32_t i = 0; i < header->chunks && length > 0 && at < offset + length; i++) {
        uint32_t chunk_len = object_chunk(header, i).length;

        if (at + chunk_len > offset) {
            if (made.count == 0) {
                made.first = i;
                made.offset = at;
            }
            made.count++;
            made.length += chunk_len;
        }
        at += chunk_len;
    }
    *cover = made;
    return MC_OK;
}

enum mc_status object_verify_cover(
    const struct object_header *header, const struct object_cover *cover, const void *bytes)
{
    const uint8_t *at = bytes;

    for (uint32_t i = cover->first; i < cover->first + cover->count; i++) {
        struct object_chunk chunk = object_chunk(header, i);

        if (crc32c(0, at, chunk.length) != chunk.crc32c)
            return MC_ECORRUPT;
        at += chunk.length;
    }
    return MC_OK;
}

enum mc_status object_verify(const struct object_header *header, const void *payload)
{
    return object_verify_cover(
        header, &(struct object_cover){.length = header->length, .count = header->chunks}, payload);
}
