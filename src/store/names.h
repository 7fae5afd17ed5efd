/* names.h - where a node's names lie, for readers on its host: a page in shared memory that they map and only read.
 *
 *     head    magic, layout, number of words, whose clock | until: the node's word counts before that time
 *     word    8 of them are a set, 64 bytes; a name belongs to the set its hash says
 *             tag 24 bits of the hash | segment 8 | offset / 64, 32        0: free
 *
 * A word is a hint and nothing more: the header in the segment says what lies there (object.h), and every reader asks it. So there is
 * nothing to keep in step, no lock and no retry: a word is written in one store and read in one load. A name that finds its set full
 * takes the place of another, which is then looked up at the master as if there were no directory. Nothing ever moves.
 *
 * Members of a bundle are in no directory: words come one by one, and they are seen together (docs/decisions/036-bundles.md).
 *
 * `until` is what makes the node's own word enough. A header that stands says that *the node* knows of nothing newer; that nobody was
 * told of anything newer holds only while the master cannot have given up on the node (a lease: docs/decisions/049-near-names.md). The
 * reader loads `until` first, then looks at the header, and then at the clock: if it is not yet `until`, the object was the one its
 * name means at the moment when its header was seen.
 *
 * Memory: a word for each 2 KiB of the node's (8 bytes: 0.4 %), at most NAMES_WORDS_MAX, committed as it is first written.
 * Threads: add and remove by one (the node's loop), extend by one (its heart); reading by any, of any process. */
#ifndef STORE_NAMES_H
#define STORE_NAMES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NAMES_WAYS = 8,            /* words of a set: a cache line */
    NAMES_BYTES_A_WORD = 2048, /* of the node's memory */
    NAMES_WORDS_MAX = 1 << 22, /* 32 MiB: twice the objects a node holds at most */
};

struct names;

/* Bytes of the directory of a node with that much memory. */
size_t names_size(uint64_t capacity);

/* In memory of that size, zeroed and aligned to 64. It begins empty, and the node's word does not count. */
struct names *names_init(void *memory, size_t size);

/* The object at `offset` of `segment` has a name of that hash (store_key_hash() with seed 0). What does not fit into a word is left out.
 * Removing what is not there does nothing. */
void names_add(struct names *names, uint64_t hash, uint32_t segment, uint64_t offset);
void names_remove(struct names *names, uint64_t hash, uint32_t segment, uint64_t offset);

/* The node's word counts until then, on names_clock(). An earlier time than before changes nothing. */
void names_extend(struct names *names, uint64_t until_ns);

/* CLOCK_BOOTTIME: the same for all processes of the host, and it goes on while that is suspended. */
uint64_t names_clock(void);

/* ---- reading ---- */

/* What a reader has mapped; it keeps to what it checked when it opened it. */
struct names_view {
    const struct names *names; /* NULL: none */
    uint64_t sets_mask;
};

/* False: this is not a directory of this build, or it is kept by another clock than ours (a time namespace). */
bool names_open(const void *addr, uint64_t size, struct names_view *out);

/* Load it before the header is looked at. */
uint64_t names_until(const struct names_view *view);

struct names_place {
    uint32_t segment;
    uint64_t offset;
};

/* Where objects of that hash may lie. Returns how many. */
unsigned names_find(const struct names_view *view, uint64_t hash, struct names_place places[NAMES_WAYS]);

#endif
