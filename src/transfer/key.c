/* key.c - the 64 bytes that name a region.
 *
 *     | magic 4 | version 1 | kind 1 | flags 1 | 0 | uuid 16 | epoch 4 | segment 4 | id 8 | len 8 | base 8 | 0 4 | crc 4 |
 *
 * The checksum is against accidents (a truncated copy, a wrong column of a database); that a key was not made up rests on the
 * 48 random bits of the id, which the owner looks up.
 * Threads: any. */
#include <string.h>

#include "base/crc.h"
#include "base/cursor.h"
#include "transfer/te.h"

#define KEY_MAGIC   0x4b52434du /* "MCRK" */
#define KEY_VERSION 1
#define KEY_CRC_AT  60

void te_key_encode(const struct te_key *in, struct mc_region_key *out)
{
    uint8_t *p = out->bytes;

    memset(p, 0, sizeof(out->bytes));
    le32_put(p, KEY_MAGIC);
    p[4] = KEY_VERSION;
    p[5] = in->kind;
    p[6] = in->flags;
    memcpy(p + 8, in->uuid, sizeof(in->uuid));
    le32_put(p + 24, in->epoch);
    le32_put(p + 28, in->segment);
    le64_put(p + 32, in->id);
    le64_put(p + 40, in->len);
    le64_put(p + 48, in->base);
    le32_put(p + KEY_CRC_AT, crc32c(0, p, KEY_CRC_AT));
}

static const char *key_check(const struct te_key *key)
{
    if (key->kind > TE_KIND_MEMFD)
        return "kind";
    if (key->flags & ~(MC_REGION_READ | MC_REGION_WRITE))
        return "flags";
    if (key->id == 0)
        return "id";
    if (key->len == 0 || key->len > INT64_MAX)
        return "length";
    if (key->base > INT64_MAX - key->len)
        return "base";
    return NULL;
}

enum mc_status te_key_decode(const struct mc_region_key *in, struct te_key *out, const char **bad)
{
    struct cur cur = cur_of(in->bytes, sizeof(in->bytes));
    struct te_key key = {0};
    const char *wrong;

    if (cur_u32(&cur, "magic") != KEY_MAGIC)
        cur_fail(&cur, "magic");
    if (cur_u8(&cur, "version") != KEY_VERSION)
        cur_fail(&cur, "version");
    key.kind = cur_u8(&cur, "kind");
    key.flags = cur_u8(&cur, "flags");
    if (cur_u8(&cur, "padding") != 0)
        cur_fail(&cur, "padding");
    cur_copy(&cur, key.uuid, sizeof(key.uuid), "uuid");
    key.epoch = cur_u32(&cur, "epoch");
    key.segment = cur_u32(&cur, "segment");
    key.id = cur_u64(&cur, "id");
    key.len = cur_u64(&cur, "length");
    key.base = cur_u64(&cur, "base");
    if (cur_u32(&cur, "padding") != 0)
        cur_fail(&cur, "padding");
    if (cur_u32(&cur, "checksum") != crc32c(0, in->bytes, KEY_CRC_AT))
        cur_fail(&cur, "checksum");
    wrong = key_check(&key);
    if (cur_status(&cur) != MC_OK)
        wrong = cur.bad;
    if (wrong) {
        if (bad)
            *bad = wrong;
        return MC_EINVAL;
    }
    *out = key;
    return MC_OK;
}
