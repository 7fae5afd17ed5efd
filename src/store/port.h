/* port.h - what the pure cores of the Store (index, node, client) ask of the world around them.
 *
 * A core takes events with the time they happened, changes its own state, and calls the actions below. It has no clock, no
 * socket, no thread and no global: a shell gives it all of that, and tests/sim gives it a made-up one.
 *
 * Rules for both sides:
 *   - Actions are called inside the core's event functions, on the same thread, and never call back into the core: results
 *     come later as events.
 *   - A message handed to send() is lent for the call (the shell encodes it at once).
 *   - After each event the shell asks ..._core_wake() and calls ..._core_on_tick() at that time.
 *   - Peers are small numbers. STORE_PEER_MASTER is the master, for node and client. Others: with servers the shell numbers
 *     its connections from 1 (a number may be used again after on_peer_down); a client's core numbers the nodes itself and
 *     asks for a connection by connect().
 *   - An action is NULL where its core does not use it (see the group heads).
 * Times are nanoseconds of one monotonic clock. Threads: one core, one thread. */
#ifndef STORE_PORT_H
#define STORE_PORT_H

#include <stdint.h>

#include "mooncake/status.h"
#include "store/proto.h"

enum { STORE_PEER_MASTER = 0 };

/* A piece of a one-sided read: `len` bytes at `offset` of a node's segment to `dst`; *crc is what was stored there. */
struct store_read {
    uint32_t segment;
    uint64_t offset, len;
    void *dst;
    uint32_t crc; /* out */
};

/* A piece of a pull into the node's own memory: `len` bytes at `offset` of the peer's region to `dst`. */
struct store_pull {
    const uint8_t *region; /* STORE_REGION_KEY bytes */
    uint64_t offset, len;
    void *dst;
    uint32_t crc; /* out: of what was stored */
};

struct store_port {
    void *ctx;

    /* all cores */

    /* Queue a message. Anything but MC_OK: it was not sent (MC_AGAIN queue full, MC_EPEERDOWN, MC_ECLOSED). */
    enum mc_status (*send)(void *ctx, uint32_t peer, const struct store_msg *msg);
    /* One line for the log; `who` is the kind of core, level as in base/log.h. May be NULL. */
    void (*log)(const char *who, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

    /* node */

    /* Start to pull `count` pieces as one batch; `pulls` and what they point to is borrowed until node_core_on_io(cookie), which
     * follows exactly once after MC_OK. */
    enum mc_status (*pull)(void *ctx, uint64_t cookie, uint32_t peer, struct store_pull *pulls, uint32_t count);
    /* Stop it: on_io follows with MC_ECANCELED or what it came to; until then `dst` may be written. */
    void (*pull_cancel)(void *ctx, uint64_t cookie);

    /* client */

    /* Keep a connection to this node as `peer` from now on (on_peer_up / on_peer_down tell); called again when address or
     * epoch changed. */
    void (*connect)(void *ctx, uint32_t peer, const struct store_member *member);
    /* Forget it. No more events of this peer. */
    void (*disconnect)(void *ctx, uint32_t peer);
    /* The node told its segments: the shell keeps their region keys for read and map. */
    void (*segments)(void *ctx, uint32_t peer, struct slice segments);
    /* Start reading `count` pieces as one batch; `reads` and destinations are borrowed until client_core_on_io(cookie), which
     * follows exactly once after MC_OK. MC_ENOENT: segment unknown; MC_EPEERDOWN; MC_AGAIN. */
    enum mc_status (*read)(void *ctx, uint64_t cookie, uint32_t peer, struct store_read *reads, uint32_t count);
    /* Give it up: when this returns nothing is written any more, and on_io will not come. At most 50 ms. */
    void (*read_cancel)(void *ctx, uint64_t cookie);
    /* Make memory readable for pulls, until hide(); `region` is for the message. */
    enum mc_status (*expose)(void *ctx, const void *addr, uint64_t len, uint8_t region[STORE_REGION_KEY]);
    /* When this returns nobody reads it any more. */
    void (*hide)(void *ctx, const uint8_t region[STORE_REGION_KEY]);
    /* Map a range of a node of this host read-only. MC_ENOSUP: not on this host. */
    enum mc_status (*map)(void *ctx, uint32_t peer, uint32_t segment, uint64_t offset, uint64_t len, const void **addr);
    void (*unmap)(void *ctx, uint32_t peer, const void *addr);
    /* Is this node on our host / in our zone? Lower is nearer: 0 same host, 1 same zone, 2 elsewhere. */
    uint32_t (*distance)(void *ctx, const struct store_member *member);
    /* Do reads of this node cross a wire? Then one may be started before it is known whether it is wanted. NULL: none does. */
    bool (*far)(void *ctx, uint32_t peer);
};

#endif
