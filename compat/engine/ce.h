/* ce.h - the Transfer Engine as callers of the existing Mooncake know it: raw remote addresses, names "host:port".
 *
 * Two interfaces stand on this one: compat/include/transfer_engine_c.h (C, by c_api.c) and mooncake.engine (Python). What it adds
 * to include/mooncake/transfer.h is the way from "length bytes at address A of the process called host:port" to regions and
 * peers: each engine tells whoever asks what it has registered (struct ce_area), and the asker keeps that answer until an
 * address is not in it, a region turns out to be gone, or somebody else answers under the name.
 *
 * What a caller may rely on. A synchronous transfer that has returned, with whatever status, writes nothing any more at either
 * end. Within its time it is tried again: over other links, after the peer changed its registrations, after the network
 * was away. It is given up early only when that is certain to be of no use: the peer's process is gone (its port refuses, or
 * another process has it), the address is registered nowhere, the arguments are wrong.
 *
 * Threads: every function from any thread, many at once, on one engine; none may be called after ce_destroy() began. In a forked
 * child an engine of the parent does nothing: every call fails with MC_ENOSUP, ce_destroy() returns at once.
 * Deadlines: MC_TRANSFER_TIMEOUT seconds (30, at least 5) and a nanosecond per byte, where no other is said. The first look-up
 * of a host name comes on top, and takes as long as the machine's resolver does. */
#ifndef COMPAT_ENGINE_CE_H
#define COMPAT_ENGINE_CE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/transfer.h"

struct ce_engine;
struct ce_call;

/* Limits, each answered with a status and not with a crash. */
enum {
    CE_REGISTRATIONS_MAX = 60000, /* different (address, length) of one engine */
    CE_PEERS_MAX = 4096,          /* names in use; beyond that the one unused for longest goes */
    CE_NOTE_MAX = 1 << 20,        /* bytes of name and message of a notification together */
    CE_NOTES_MAX = 65536,         /* notifications nobody has taken yet; and 64 MiB */
    CE_IDS_MAX = 65536,           /* asynchronous batches nobody has asked about; then the oldest is forgotten */
};

/* ---- an engine ---- */

struct ce_opts {
    const char *host;     /* as peers are to call us: address or name, "[v6]" or bare v6, with or without ":port" */
    uint16_t port;        /* wanted, over the one in `host`; 0: that one, else a free one of MC_MIN_RPC_PORT..MAX */
    const char *name;     /* with a metadata service: as peers are to call us; NULL: `host`, as it was written */
    const char *metadata; /* "P2PHANDSHAKE": peers are called by where they listen. "http://host:port/metadata" or
                           * "etcd://host:port": by any name, which the service there knows */
    const char *protocol; /* "tcp": any way that needs no RDMA; "rdma": only with MC_FORCE_TCP=1, then tcp */
    const char *device;   /* names of RDMA devices: of no use without RDMA, so ignored with tcp */
    bool without_pool;    /* nothing is registered at first: managed buffers get a mapping of their own each */
};

/* Start an engine: listener and loop thread. Addresses other than loopback are warned about once: whoever reaches them may read
 * and write what is registered. `*out` is given.
 *   MC_EINVAL  an argument or environment variable is wrong, or the host is no address of ours (logged)
 *   MC_ENOSUP  protocol or metadata service that is not there (logged)   MC_EEXIST the port is taken   MC_ESYS  MC_ENOMEM */
enum mc_status ce_create(const struct ce_opts *opts, struct ce_engine **out);

/* Ends calls under way with MC_ECLOSED and waits until their threads have left. NULL is harmless. */
void ce_destroy(struct ce_engine *engine);

/* False in a forked child. */
bool ce_usable(const struct ce_engine *engine);

uint16_t ce_port(const struct ce_engine *engine);

/* As peers call us: "host:port" (brackets for IPv6), or our name at the metadata service. Lent until destroy. */
const char *ce_session(const struct ce_engine *engine);

/* ---- memory ---- */

/* Let peers read and write [addr, addr+len) until it is unregistered. Ranges may overlap; the same range registered twice is
 * unregistered twice. MC_EINVAL, MC_ENOMEM (CE_REGISTRATIONS_MAX). */
enum mc_status ce_register(struct ce_engine *engine, void *addr, uint64_t len);

/* Take back one registration that begins at addr, of several the shortest. When this returns no peer reads or writes the range by
 * it. MC_ENOENT: none begins there. */
enum mc_status ce_unregister(struct ce_engine *engine, void *addr);

/* All or none. Unregistering goes on after an address that is not registered, and then says MC_ENOENT. */
enum mc_status ce_register_all(struct ce_engine *engine, void *const *addrs, const uint64_t *lens, size_t n);
enum mc_status ce_unregister_all(struct ce_engine *engine, void *const *addrs, size_t n);

/* Registered memory from a pool of 2 GiB, committed when touched; longer ones, and all without a pool, get a region of their own.
 * NULL: no room. */
void *ce_managed_alloc(struct ce_engine *engine, uint64_t len);
enum mc_status ce_managed_free(struct ce_engine *engine, void *addr);

/* ---- transfers ---- */

struct ce_op {
    enum mc_opcode opcode;
    enum mc_status status; /* out */
    void *local;
    uint64_t remote; /* address in the peer's process */
    uint64_t len;
};

/* A message that a peer's application finds in its inbox. Bytes, not text: zeros are allowed. */
struct ce_note {
    const void *name, *msg;
    size_t name_len, msg_len;
};

/* Move n ranges to or from the peer called `target`, then (if note is not NULL) notify it. Returns when done or failed for good.
 * Statuses: MC_OK; MC_ENOENT an address is not registered there; MC_EPEERDOWN nobody there any more; MC_ETIMEDOUT;
 * MC_EINVAL; MC_ECLOSED; MC_EBUSY the inbox stayed full; others of transfer.h. */
enum mc_status ce_transfer(
    struct ce_engine *engine, const char *target, struct ce_op *ops, size_t n, const struct ce_note *note);

/* The same without waiting, except for the first contact with a peer (at most 5 s). `ops` and note are copied. MC_OK: *out is
 * given, end it with ce_call_free(). Otherwise nothing was started. */
enum mc_status ce_submit(struct ce_engine *engine, const char *target, const struct ce_op *ops, size_t n,
    const struct ce_note *note, struct ce_call **out);

/* MC_PENDING, or how it ended. With `timeout_ms` waits that long; UINT32_MAX: until it ended. */
enum mc_status ce_call_wait(struct ce_call *call, uint32_t timeout_ms);

/* Of one operation: MC_PENDING until the whole call has ended. */
enum mc_status ce_call_op(struct ce_call *call, size_t i);

/* Cancels it first when it runs. */
void ce_call_free(struct ce_call *call);

/* ---- the same by number, as Python callers hold them ---- */

/* ce_submit() under a number that is never 0; 0: failed. */
uint64_t ce_ids_start(struct ce_engine *engine, const char *target, const struct ce_op *ops, size_t n);

/* MC_PENDING or the end of it. An id that has ended stays known for a while; one never given out is MC_ENOENT. */
enum mc_status ce_ids_check(struct ce_engine *engine, uint64_t id);
enum mc_status ce_ids_wait(struct ce_engine *engine, uint64_t id);

/* ---- peers ---- */

/* Find the peer and learn what it has registered (at most 5 s). */
enum mc_status ce_open(struct ce_engine *engine, const char *target);

/* Does it answer now? (at most 5 s) */
enum mc_status ce_probe(struct ce_engine *engine, const char *target);

/* Address of what the peer registered first of what it has registered now. MC_ENOENT: nothing. Asks anew. */
enum mc_status ce_first_address(struct ce_engine *engine, const char *target, uint64_t *addr);

/* Forget what peers have registered: it is asked again when needed. */
void ce_forget(struct ce_engine *engine);

/* One line per peer, or a JSON array; given (free). NULL: no memory. */
char *ce_show_peers(struct ce_engine *engine, bool json);

/* ---- notifications ---- */

enum mc_status ce_notify(struct ce_engine *engine, const char *target, const struct ce_note *note);

struct ce_notes {
    struct ce_note *note;
    size_t count;
};

/* Take all that came. MC_OK (also when there is none) or MC_ENOMEM; end with ce_notes_free(). */
enum mc_status ce_notes_take(struct ce_engine *engine, struct ce_notes *out);
void ce_notes_free(struct ce_notes *notes);

/* ---- the machine ---- */

/* {"cpu:0": [[preferred devices], [others]], ...}; given (free). There are no RDMA devices, so all lists are empty. */
char *ce_topology(void);

#endif
