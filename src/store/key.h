/* key.h - keys of objects: comparison, hashing, text, wire form.
 *
 * A struct mc_key names an object within a namespace; a struct store_key carries the namespace too and is what the rooms
 * of the Store pass around. `name` of a named key is borrowed by both.
 *
 * Canonical form, so that equal keys compare equal: shards 0 is 1; a block key has no name; a named key has a zero id.
 * key_check() says whether a key is within the limits, key_canonical() brings it into that form.
 *
 *     text   0123456789abcdef0123456789abcdef      block
 *            0123456789abcdef0123456789abcdef@2:1/4   block, group 2, shard 1 of 4  ("@2:0/1" when only the group)
 *            name:models%2Fa b                     named; '%', bytes below 0x21 and above 0x7e as %XX
 *            name@0:1/4:abc                        named with group and shard
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

#include "base/buf.h"
#include "base/cursor.h"
#include "mooncake/store.h"

enum {
    KEY_TEXT_MAX = 3 * MC_NAME_MAX + 32, /* longest text with its NUL */
    KEY_WIRE_MAX = 9 + MC_NAME_MAX,
};

struct store_key {
    uint32_t ns;
    struct mc_key key;
};

static inline struct store_key store_key_of(uint32_t ns, const struct mc_key *key)
{
    return (struct store_key){.ns = ns, .key = *key};
}

/* MC_OK, or MC_EINVAL: unknown kind, shard >= shards, empty name; MC_ETOOBIG: name longer than MC_NAME_MAX. */
enum mc_status key_check(const struct mc_key *key);

/* Canonical form of a checked key. */
struct mc_key key_canonical(const struct mc_key *key);

/* Both canonical. */
bool key_equal(const struct mc_key *a, const struct mc_key *b);
bool store_key_equal(const struct store_key *a, const struct store_key *b);

/* Hash of everything (namespace, kind, group, shard, shards, id or name), keyed: for tables. */
uint64_t store_key_hash(const struct store_key *key, uint64_t seed);

/* Which index shard keeps the key: of `shards` many, from namespace and id or name alone, so that all parts of a block are
 * on one shard. Part of the protocol. */
uint32_t store_key_shard(const struct store_key *key, uint32_t shards);

/* Text with a NUL; cut to fit `size`, always terminated. Returns `dst`. */
const char *key_text(const struct mc_key *key, char *dst, size_t size);

/* The opposite. Bytes of a name are unescaped into `name` (MC_NAME_MAX bytes), which key->name then points into.
 * MC_EINVAL and *why (static text, may be NULL) says what is wrong; MC_ETOOBIG the name is too long. */
enum mc_status key_parse(const char *text, size_t len, struct mc_key *key, char name[MC_NAME_MAX], const char **why);

/* Wire form. Reading checks limits and gives the canonical form; the name is lent from the range under the cursor;
 * failure is sticky in the cursor under the name `field`. */
void key_put(struct buf *buf, const struct mc_key *key);
void key_get(struct cur *cur, struct mc_key *key, const char *field);

#endif
