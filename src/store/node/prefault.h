/* prefault.h - commits a node's memory in the background, so that the first puts do not pay for it.
 *
 * A thread that rests three quarters of the time touches the segments piece by piece: first where small and large objects go first, then
 * the rest. It stops early when the machine runs short of memory (what is left is committed by use), and ends when done.
 * Huge pages are asked for where the kernel gives them for shared memory. Threads: start and stop from one, progress from any. */
#ifndef STORE_NODE_PREFAULT_H
#define STORE_NODE_PREFAULT_H

#include <stdbool.h>
#include <stdint.h>

#include "store/node/node_core.h"

struct prefault;

/* `memory` is borrowed until stop. NULL: no thread (logged); that costs speed only. */
struct prefault *prefault_start(const struct node_memory *memory, uint32_t segments);
void prefault_stop(struct prefault *prefault); /* NULL is allowed */

double prefault_progress(const struct prefault *prefault); /* 0..1; 1 for NULL */

/* Does this kernel give huge pages to shared memory that asks for them? Asks for [addr, addr + len) if so. */
bool prefault_huge_pages(void *addr, uint64_t len);

#endif
