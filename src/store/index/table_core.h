/* table_core.h - the index itself: which key lies where. A data structure of its own, without messages and time-outs; the
 * master's core and the trace replayer use the same one.
 *
 *   slots    | tag u32, entry u32 | ...     flat, open addressing, power of two, linear probing; 8 B a slot
 *   entries  | key id, ns, part, version, promise, first copy, list of further copies | ...    slabs of 64 B-multiples
 *   copies   | node, segment, offset, length, generation, next copy of the entry, hash chain by (node, generation) | ...
 *
 * A copy is known by (owner, generation): owners tell what left by generation alone, and it is what rebuilds compare.
 * Copies that were removed or replaced while their owner could not be told stay as `doomed`: invisible to queries, and
 * dropped when the owner reports.
 * Memory: <= 200 B per object with one copy, plus names, at 1,000,000 objects (table_bytes); a ceiling in objects.
 *
 * Pure. Threads: the owner's only. */
#ifndef STORE_INDEX_TABLE_CORE_H
#define STORE_INDEX_TABLE_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"
#include "store/key.h"
#include "store/proto.h"

struct table;

#define TABLE_NONE UINT32_MAX

struct table_copy {
    uint64_t generation, offset;
    uint64_t version;
    uint64_t length;
    uint32_t segment, head;
    uint16_t owner; /* small number of the node */
    bool doomed;
};

/* objects_max bounds copies (and so entries). NULL: out of memory. */
struct table *table_create(uint32_t objects_max, uint64_t seed);
void table_destroy(struct table *table);

/* The entry of a key, or TABLE_NONE. An entry is there while it has copies (doomed ones too). Valid until it loses its last. */
uint32_t table_find(const struct table *table, const struct store_key *key);

/* Entries (or TABLE_NONE) of `count` <= TABLE_GROUP_MAX blocks that differ in their ids only: `key` with each of the ids. Much
 * faster than one after the other, since their cache misses overlap. */
enum { TABLE_GROUP_MAX = 16 };
void table_find_group(const struct table *table, const struct store_key *key, const uint8_t (*ids)[16], uint32_t count,
    uint32_t *entries);

/* Version of a named key's living copies, 0 when it has none (blocks: 0). */
uint64_t table_version(const struct table *table, uint32_t entry);

/* Until when somebody was promised the entry. */
uint64_t table_promised(const struct table *table, uint32_t entry);
void table_promise(struct table *table, uint32_t entry, uint64_t until);

/* Copies of an entry, one after the other: *at starts as TABLE_NONE. Doomed ones included. */
bool table_next(const struct table *table, uint32_t entry, uint32_t *at, struct table_copy *copy);

/* Who has living copies of it: the first owners as a bit each, copies of the others by their number. */
enum { TABLE_NEAR = 64 };
struct table_owners {
    uint64_t near; /* owners below TABLE_NEAR */
    uint32_t far;  /* copies at the others: walk with table_next() */
};
struct table_owners table_owners(const struct table *table, uint32_t entry);

/* Add a copy (the entry is made when it is the first). A living copy with this owner and generation that is there already is
 * left as it is. MC_OK, MC_EBUSY (ceiling), MC_ENOMEM. */
enum mc_status table_add(struct table *table, const struct store_key *key, const struct table_copy *copy);

/* Find by owner and generation: its entry, or TABLE_NONE; *at is the copy. */
uint32_t table_find_copy(const struct table *table, uint16_t owner, uint64_t generation, uint32_t *at);

/* Set or clear doomed; take out. Taking out the last copy takes the entry. */
void table_doom(struct table *table, uint32_t entry, uint32_t at);
void table_remove(struct table *table, uint32_t entry, uint32_t at);

/* Key of an entry; the name is lent until the entry goes. */
struct store_key table_key(const struct table *table, uint32_t entry);

/* Walk all copies of one owner in no order: *next starts as table_first_of(). The copy given last (*at) may be taken out before
 * the next call. */
uint32_t table_first_of(const struct table *table, uint16_t owner);
bool table_next_of(const struct table *table, uint32_t *next, uint32_t *at, uint32_t *entry, struct table_copy *copy);

/* Walk entries in order of their slot numbers from `from` on; TABLE_NONE at the end. Entries that come or go meanwhile may be seen
 * or not. */
uint32_t table_walk(const struct table *table, uint32_t from);

/* Marks for inventories: unmark all of an owner, mark what it reports, then what is unmarked is gone. */
void table_mark(struct table *table, uint32_t at, uint8_t mark);
uint8_t table_marked(const struct table *table, uint32_t at);

uint32_t table_entries(const struct table *table);
uint32_t table_copies(const struct table *table);                    /* living ones of all owners */
uint32_t table_copies_of(const struct table *table, uint16_t owner); /* living ones */
size_t table_bytes(const struct table *table);                       /* memory, names apart */
size_t table_name_bytes(const struct table *table);

#endif
