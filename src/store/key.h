/* key.h - the key of one object (one part of a block, or a name) as all of the Store uses it.
 *
 * `id` identifies the key among those of the same kind, namespace, group and shard: a block's id, or for names the first 16
 * bytes of SHA-256(name), so that tables compare fixed-size keys; headers and messages carry the name itself too.
 *
 *     text   0123456789abcdef0123456789abcdef            block
 *            0123456789abcdef0123456789abcdef@2:1/4      block, group 2, shard 1 of 4
 *            name:models%2Fa                             named; '%', ',' and bytes outside of 0x21..0x7e as %XX
 *            name@0:1/4:abc                              named with group and shard
 *
 *     wire   u8 kind | u16 group | u16 shard | u16 shards | id 16 B (block) or u16 length, bytes (named)
 *
 * The namespace is not part of text or wire form: messages and tools say it once, apart.
 * Pure. Threads: any. */
#ifndef STORE_KEY_H
#define STORE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/slice.h"
#include "mooncake/store.h"

enum {
    KEY_TEXT_MAX = 3 * MC_NAME_MAX + 32, /* longest text with its NUL */
    KEY_WIRE_MAX = 9 + MC_NAME_MAX,
};

struct store_key {
    uint8_t id[16];
    uint32_t ns;
    uint16_t group;
    uint16_t shard;
    uint16_t shards;   /* at least 1 */
    uint8_t kind;      /* enum mc_key_kind */
    struct slice name; /* names only; lent by whoever gave the key */
};

/* Same object? Names are compared by their digest. */
static inline bool store_key_eq(const struct store_key *a, const struct store_key *b)
{
    return memcmp(a->id, b->id, 16) == 0 && a->ns == b->ns && a->group == b->group && a->shard == b->shard &&
           a->shards == b->shards && a->kind == b->kind;
}

/* May it be a key?
 *   MC_EINVAL  unknown kind, shard >= shards, empty name     MC_ETOOBIG  name longer than MC_NAME_MAX */
enum mc_status store_key_valid(const struct mc_key *key);

/* Of a key as its caller wrote it: without the digest, which is dearer. For tables of one process. */
uint64_t store_key_quick_hash(const struct mc_key *key);

/* The key a caller of store.h wrote, checked as store_key_valid() and with its digest; the name stays lent. */
enum mc_status store_key_from(uint32_t ns, const struct mc_key *key, struct store_key *out);

/* The other way; the name stays lent. */
struct mc_key store_key_public(const struct store_key *key);

/* Hash of everything that store_key_eq() compares, keyed: for tables. */
uint64_t store_key_hash(const struct store_key *key, uint64_t seed);

/* Which of `shards` index shards keeps the key: from namespace and id alone, so that all parts of a block are on one shard.
 * Part of the protocol. */
uint32_t store_key_shard(const struct store_key *key, uint32_t shards);

/* Text with a NUL; cut to fit `size` (at least 1). Returns `dst`. */
const char *store_key_text(const struct store_key *key, char *dst, size_t size);

/* The opposite, ns 0. Bytes of a name are unescaped into `name`, which key->name then points into.
 * MC_EINVAL, MC_ETOOBIG: *why (static text, may be NULL) says what is wrong. */
enum mc_status store_key_parse(struct slice text, struct store_key *key, char name[MC_NAME_MAX], const char **why);

/* Wire form. Reading checks the limits, sets the digest, and leaves ns 0; the name is lent from the range under the cursor; a
 * failure is sticky in the cursor under the name `field`. */
void store_key_put(struct buf *buf, const struct store_key *key);
void store_key_get(struct cur *cur, struct store_key *key, const char *field);
void store_key_check(
    struct cur *cur, const char *field); /* checks the same, makes no digest: for lists that are walked later */

#endif
