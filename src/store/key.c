/* key.c - see key.h. */
#include "store/key.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"

/* Seed of what all processes must agree about. */
#define SHARD_SEED 0x6d632d7368617264ull /* "mc-shard" */

static void name_digest(struct slice name, uint8_t id[16])
{
    uint8_t digest[SHA256_SIZE];

    sha256(name.ptr, name.len, digest);
    memcpy(id, digest, 16);
}

enum mc_status store_key_valid(const struct mc_key *key)
{
    uint16_t shards = key->shards ? key->shards : 1;

    if (key->shard >= shards)
        return MC_EINVAL;
    if (key->kind == MC_KEY_BLOCK)
        return MC_OK;
    if (key->kind != MC_KEY_NAMED || !key->name || key->name_len == 0)
        return MC_EINVAL;
    return key->name_len <= MC_NAME_MAX ? MC_OK : MC_ETOOBIG;
}

uint64_t store_key_quick_hash(const struct mc_key *key)
{
    bool block = key->kind == MC_KEY_BLOCK;
    uint64_t part = key->kind | (uint64_t)key->group << 8 | (uint64_t)key->shard << 24 | (uint64_t)key->shards << 40;

    return hash64(block ? (const void *)key->id : key->name, block ? 16 : key->name_len, hash_mix(part));
}

enum mc_status store_key_from(uint32_t ns, const struct mc_key *key, struct store_key *out)
{
    enum mc_status status = store_key_valid(key);

    if (status != MC_OK)
        return status;
    *out = (struct store_key){
        .ns = ns, .group = key->group, .shard = key->shard, .shards = key->shards ? key->shards : 1, .kind = key->kind};
    if (key->kind == MC_KEY_BLOCK) {
        memcpy(out->id, key->id, 16);
    } else {
        out->name = slice_of(key->name, key->name_len);
        name_digest(out->name, out->id);
    }
    return MC_OK;
}

struct mc_key store_key_public(const struct store_key *key)
{
    struct mc_key out = {.kind = key->kind, .group = key->group, .shard = key->shard, .shards = key->shards};

    if (key->kind == MC_KEY_BLOCK) {
        memcpy(out.id, key->id, 16);
    } else {
        out.name = (const char *)key->name.ptr;
        out.name_len = (uint32_t)key->name.len;
    }
    return out;
}

void mc_key_block(struct mc_key *key, const uint8_t id[16])
{
    *key = (struct mc_key){.kind = MC_KEY_BLOCK, .shards = 1};
    memcpy(key->id, id, 16);
}

void mc_key_named(struct mc_key *key, const char *name, size_t len)
{
    *key = (struct mc_key){.kind = MC_KEY_NAMED, .shards = 1, .name = name};
    key->name_len =
        len > UINT32_MAX ? UINT32_MAX : (uint32_t)len; /* far beyond MC_NAME_MAX: refused where it is used */
}

uint64_t store_key_hash(const struct store_key *key, uint64_t seed)
{
    uint8_t bytes[16 + 4 + 6 + 1];

    memcpy(bytes, key->id, 16);
    le32_put(bytes + 16, key->ns);
    le16_put(bytes + 20, key->group);
    le16_put(bytes + 22, key->shard);
    le16_put(bytes + 24, key->shards);
    bytes[26] = key->kind;
    return hash64(bytes, sizeof(bytes), seed);
}

uint32_t store_key_shard(const struct store_key *key, uint32_t shards)
{
    uint8_t bytes[20];

    memcpy(bytes, key->id, 16);
    le32_put(bytes + 16, key->ns);
    return shards ? (uint32_t)(hash64(bytes, sizeof(bytes), SHARD_SEED) % shards) : 0;
}

/* ---- text ---- */

static bool plain(uint8_t c)
{
    return c > 0x20 && c < 0x7f && c != '%' && c != ',';
}

const char *store_key_text(const struct store_key *key, char *dst, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    char part[32] = "", hex[33];
    struct buf out;

    buf_init_fixed(&out, dst, size);
    if (key->group != 0 || key->shards > 1)
        snprintf(part, sizeof(part), "@%u:%u/%u", key->group, key->shard, key->shards);
    if (key->kind == MC_KEY_BLOCK) {
        hex_encode(hex, key->id, 16);
        buf_printf(&out, "%s%s", hex, part);
        return dst;
    }
    buf_printf(&out, "name%s:", part);
    for (size_t i = 0; i < key->name.len; i++) {
        uint8_t c = key->name.ptr[i];
        const char escaped[3] = {'%', digits[c >> 4], digits[c & 15]};

        if (plain(c))
            buf_append_char(&out, (char)c);
        else
            buf_append(&out, escaped, 3);
    }
    return dst;
}

/* What is left of a text, eaten from the front. */
struct eater {
    struct slice left;
};

static bool eat(struct eater *in, char c)
{
    if (in->left.len == 0 || in->left.ptr[0] != (uint8_t)c)
        return false;
    in->left = slice_of(in->left.ptr + 1, in->left.len - 1);
    return true;
}

static bool eat_u16(struct eater *in, uint16_t *value)
{
    uint32_t sum = 0;
    size_t n = 0;

    for (; n < in->left.len && n < 5 && in->left.ptr[n] >= '0' && in->left.ptr[n] <= '9'; n++)
        sum = sum * 10 + (in->left.ptr[n] - '0');
    if (n == 0 || sum > UINT16_MAX)
        return false;
    in->left = slice_of(in->left.ptr + n, in->left.len - n);
    *value = (uint16_t)sum;
    return true;
}

/* "@group:shard/shards", or nothing. */
static bool eat_part(struct eater *in, struct mc_key *key)
{
    if (!eat(in, '@'))
        return true;
    return eat_u16(in, &key->group) && eat(in, ':') && eat_u16(in, &key->shard) && eat(in, '/') &&
           eat_u16(in, &key->shards) && key->shard < key->shards;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static enum mc_status unescape(struct slice text, char name[MC_NAME_MAX], size_t *len, const char **why)
{
    size_t n = 0;

    for (size_t i = 0; i < text.len; i++) {
        int c = text.ptr[i];

        if (c == '%') {
            int high = i + 2 < text.len ? hex_digit(text.ptr[i + 1]) : -1;
            int low = i + 2 < text.len ? hex_digit(text.ptr[i + 2]) : -1;

            if (high < 0 || low < 0) {
                *why = "'%' is not followed by two hex digits";
                return MC_EINVAL;
            }
            c = high << 4 | low;
            i += 2;
        }
        if (n == MC_NAME_MAX) {
            *why = "name is longer than 1024 bytes";
            return MC_ETOOBIG;
        }
        name[n++] = (char)c;
    }
    *len = n;
    return MC_OK;
}

enum mc_status store_key_parse(struct slice text, struct store_key *key, char name[MC_NAME_MAX], const char **why)
{
    static const char part_bad[] = "part is not written as @group:shard/shards";
    const char *unused;
    struct mc_key made = {.shards = 1};
    struct eater in = {text};

    why = why ? why : &unused;
    if (text.len >= 5 && memcmp(text.ptr, "name", 4) == 0) {
        size_t len = 0;

        in.left = slice_of(text.ptr + 4, text.len - 4);
        made.kind = MC_KEY_NAMED;
        if (!eat_part(&in, &made) || !eat(&in, ':')) {
            *why = part_bad;
            return MC_EINVAL;
        }
        enum mc_status status = unescape(in.left, name, &len, why);
        if (status != MC_OK)
            return status;
        if (len == 0) {
            *why = "name is empty";
            return MC_EINVAL;
        }
        made.name = name;
        made.name_len = (uint32_t)len;
        return store_key_from(0, &made, key);
    }

    char hex[33];
    made.kind = MC_KEY_BLOCK;
    if (text.len >= 32) {
        memcpy(hex, text.ptr, 32);
        hex[32] = '\0';
    }
    if (text.len < 32 || hex_decode(made.id, 16, hex) != MC_OK) {
        *why = "a key is 32 hex digits (block) or name:...";
        return MC_EINVAL;
    }
    in.left = slice_of(text.ptr + 32, text.len - 32);
    if (!eat_part(&in, &made) || in.left.len != 0) {
        *why = part_bad;
        return MC_EINVAL;
    }
    return store_key_from(0, &made, key);
}

/* ---- wire ---- */

void store_key_put(struct buf *buf, const struct store_key *key)
{
    uint8_t head[9]; /* a question may have hundreds of keys: one append each */

    head[0] = key->kind;
    le16_put(head + 1, key->group);
    le16_put(head + 3, key->shard);
    le16_put(head + 5, key->shards);
    if (key->kind == MC_KEY_BLOCK) {
        buf_append(buf, head, 7);
        buf_append(buf, key->id, 16);
    } else {
        le16_put(head + 7, (uint16_t)key->name.len);
        buf_append(buf, head, 9);
        buf_append_slice(buf, key->name);
    }
}

static void key_read(struct cur *cur, struct mc_key *key, const char *field)
{
    *key = (struct mc_key){.kind = cur_u8(cur, field)};
    key->group = cur_u16(cur, field);
    key->shard = cur_u16(cur, field);
    key->shards = cur_u16(cur, field);
    if (key->kind == MC_KEY_BLOCK) {
        cur_copy(cur, key->id, 16, field);
    } else {
        struct slice name = cur_bytes(cur, cur_u16(cur, field), field);

        key->name = (const char *)name.ptr;
        key->name_len = (uint32_t)name.len;
    }
    if (cur_status(cur) == MC_OK && store_key_valid(key) != MC_OK)
        cur_fail(cur, field);
}

void store_key_get(struct cur *cur, struct store_key *key, const char *field)
{
    struct mc_key made;

    key_read(cur, &made, field);
    if (cur_status(cur) != MC_OK || store_key_from(0, &made, key) != MC_OK)
        *key = (struct store_key){.kind = MC_KEY_BLOCK, .shards = 1};
}

void store_key_check(struct cur *cur, const char *field)
{
    struct mc_key made;

    key_read(cur, &made, field);
}
