/* block_id.c - what a block of tokens is called: recipe "mc-block-1".
 *
 *   SHA-256( "mc-block-1" | fingerprint 32 B (first block) or parent id 16 B | salt length u16 | salt | n u32 | n tokens u32 )
 *   the id is its first 128 bits; integers little-endian
 *
 * The previous id carries everything before, so equal ids mean equal fingerprint, salt and prefix. The golden vectors in
 * the test hold this still: changing a byte of it orphans every stored block. */
#include <assert.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "mooncake/kvcache.h"

static const char recipe[] = "mc-block-1";

/* Tokens as little-endian bytes: on such machines they are that already. */
static const void *tokens_le(const uint32_t *tokens, size_t count, uint8_t *scratch)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    (void)count;
    (void)scratch;
    return tokens;
#else
    for (size_t i = 0; i < count; i++)
        le32_put(scratch + 4 * i, tokens[i]);
    return scratch;
#endif
}

enum mc_status mc_block_id_next(const struct mc_fingerprint *fp, const struct mc_block_id *parent, const void *salt,
    size_t salt_size, const uint32_t *tokens, size_t token_count, struct mc_block_id *id)
{
    uint8_t salt_length[2], count[4], digest[SHA256_SIZE];
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint8_t scratch[1];
#else
    uint8_t scratch[4 * MC_BLOCK_TOKENS_MAX];
#endif

    if (token_count == 0 || token_count > MC_BLOCK_TOKENS_MAX)
        return MC_EINVAL;
    if (salt_size > MC_SALT_SIZE_MAX)
        return MC_ETOOBIG;
    le16_put(salt_length, (uint16_t)salt_size);
    le32_put(count, (uint32_t)token_count);
    const struct slice parts[] = {
        slice_of(recipe, sizeof recipe - 1),
        parent ? slice_of(parent->bytes, MC_BLOCK_ID_SIZE) : slice_of(fp->bytes, MC_FINGERPRINT_SIZE),
        slice_of(salt_length, sizeof salt_length),
        slice_of(salt, salt_size),
        slice_of(count, sizeof count),
        slice_of(tokens_le(tokens, token_count, scratch), 4 * token_count),
    };
    sha256_parts(parts, sizeof parts / sizeof parts[0], digest);
    memcpy(id->bytes, digest, MC_BLOCK_ID_SIZE);
    return MC_OK;
}

static bool block_tokens_good(uint32_t n)
{
    return n >= MC_BLOCK_TOKENS_MIN && n <= MC_BLOCK_TOKENS_MAX && (n & (n - 1)) == 0;
}

enum mc_status mc_block_chain_init(struct mc_block_chain *chain, const struct mc_fingerprint *fp, uint32_t block_tokens,
    const void *salt, size_t salt_size)
{
    if (!block_tokens_good(block_tokens))
        return MC_EINVAL;
    if (salt_size > MC_SALT_SIZE_MAX)
        return MC_ETOOBIG;
    memset(chain, 0, sizeof *chain);
    chain->fp = *fp;
    chain->block_tokens = block_tokens;
    chain->salt = salt;
    chain->salt_size = salt_size;
    return MC_OK;
}

size_t mc_block_chain_extend(
    struct mc_block_chain *chain, const uint32_t *tokens, size_t token_count, struct mc_block_id *ids, size_t ids_max)
{
    size_t full = token_count / chain->block_tokens;
    size_t count = 0;

    while (count < ids_max && chain->blocks < full) {
        enum mc_status st = mc_block_id_next(&chain->fp, chain->blocks ? &chain->last : NULL, chain->salt,
            chain->salt_size, tokens + (size_t)chain->blocks * chain->block_tokens, chain->block_tokens, &ids[count]);

        assert(st == MC_OK); /* init checked all that could fail */
        (void)st;
        chain->last = ids[count++];
        chain->blocks++;
    }
    return count;
}

uint32_t mc_reuse_tokens_max(uint32_t token_count, uint32_t block_tokens)
{
    uint32_t unit = block_tokens > 64 ? block_tokens : 64;

    return token_count == 0 ? 0 : (token_count - 1) / unit * unit;
}

void mc_block_id_text(const struct mc_block_id *id, char dst[33])
{
    hex_encode(dst, id->bytes, MC_BLOCK_ID_SIZE);
}
