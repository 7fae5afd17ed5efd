/* memory_store.h - the Store's client interface over a table in this process, with faults at will.
 *
 * The worker is tested with the real Store as well (tests/worker/store_test.c); this one exists for what the real one does only
 * by accident: to be slow by so many milliseconds, to lose the third block, to be full, to hang. Objects belong to the
 * process: all handles see them, as if one node served all. Each handle has its own thread, as the real client has. */
#ifndef TESTS_WORKER_MEMORY_STORE_H
#define TESTS_WORKER_MEMORY_STORE_H

#include <stdbool.h>
#include <stdint.h>

struct memory_store_faults {
    _Atomic uint32_t delay_ms;   /* every batch and query takes so long */
    _Atomic bool dead;           /* everything fails at once with MC_EPEERDOWN */
    _Atomic bool hang;           /* nothing is answered before its deadline */
    _Atomic bool full;           /* puts fail with MC_ENOSPC */
    _Atomic uint32_t lose_every; /* each n-th get is a miss `evicted`; 0: none */
    _Atomic uint32_t hang_after; /* batches of gets after the n-th are not answered before their deadline; 0: all are */
    _Atomic bool other_record;   /* another fingerprint record is registered */
};
extern struct memory_store_faults memory_store_faults;

struct memory_store_counts {
    uint64_t objects, decode_objects; /* decode: flag MC_OBJ_DECODE */
    uint64_t puts, gets, hits, pins, unpins;
    uint64_t queries, get_batches; /* that arrived */
};
void memory_store_counts(struct memory_store_counts *out);

/* Is this object there, and when was it committed (CLOCK_MONOTONIC)? */
bool memory_store_has(const uint8_t id[16], uint64_t *committed_ns);

/* Forget all objects, faults and counts. No handle may be in use. */
void memory_store_reset(void);

#endif
