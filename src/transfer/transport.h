/* transport.h - what a transport must do to carry xfers; the engine core drives it through one table.
 *
 * A transport is listed in transports.c. For each xfer the core asks the transports of the engine in order of preference whether
 * they fit, and gives the xfer to the first that says yes; one that says "wait" holds the xfer until te_pump_later().
 *
 * Context: every slot is called on the engine's loop, with no lock held; none may block. A slot may call xfer_end() and
 * te_pump_later(), never peer_pump().
 *
 * Later transports (rdma, device memory) come in here: registration gives keys (region rows carry what a transport needs, a key
 * has a kind), capabilities are declared, several links per peer are the transport's own business. */
#ifndef TRANSFER_TRANSPORT_H
#define TRANSFER_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "mooncake/transfer.h"

struct mc_te;
struct mc_peer;
struct xfer;
struct transport;
struct loop_io;

enum transport_caps {
    TRANSPORT_READ = 1,      /* carries MC_READ */
    TRANSPORT_WRITE = 2,     /* carries MC_WRITE */
    TRANSPORT_CHECKSUM = 4,  /* detects damaged bytes by itself: fault may corrupt */
    TRANSPORT_SAME_HOST = 8, /* only between processes of one host */
    TRANSPORT_LINKS = 16,    /* has connections that can be cut: `cut` is there */
};

enum transport_fit {
    FIT_NO,   /* never for this xfer, as things stand */
    FIT_WAIT, /* not decided yet (a session is being set up, a descriptor is on its way) */
    FIT_YES,
};

struct transport_ops {
    const char *name;
    enum mc_path path;
    uint32_t caps;

    /* Can this kernel do it at all? MC_OK or MC_ENOSUP. May be NULL: always. */
    enum mc_status (*probe)(void);

    /* Could it carry this xfer to this peer now? Must be cheap; may start what FIT_WAIT waits for. */
    enum transport_fit (*fit)(struct transport *self, struct mc_peer *peer, const struct xfer *xfer);

    /* Start (or carry out) the xfer. The core has taken it from its lists; parts and memory are borrowed until xfer_end() or
     * cancel(). MC_OK: it ends by xfer_end(), also inside this call. MC_AGAIN: full, nothing was started, the transport
     * calls te_pump_later() when there is room. Other statuses: it failed, xfer_end() is not called. */
    enum mc_status (*submit)(struct transport *self, struct mc_peer *peer, struct xfer *xfer);

    /* Take a flying xfer back: when this returns the transport has forgotten it and this process moves no byte of it any more.
     * For MC_WRITE it also makes sure that the peer will not (cuts the connection); returns the time (CLOCK_MONOTONIC, ns) before
     * which a copy that is under way inside the peer's kernel may still end, or 0. NULL: no xfer is flying when `submit` has
     * returned. */
    uint64_t (*cancel)(struct transport *self, struct mc_peer *peer, struct xfer *xfer);

    /* The descriptor by which the answer to a flying xfer comes, for a thread that waits for it in place of the loop's. NULL slot,
     * or NULL: there is none. */
    struct loop_io *(*answers)(const struct xfer *xfer);

    /* Cut one connection to the peer, as a broken network would. NULL without TRANSPORT_LINKS. For fault. */
    void (*cut)(struct transport *self, struct mc_peer *peer);

    /* Before the engine goes. May be NULL. */
    void (*fini)(struct transport *self);
};

/* One transport of one engine. */
struct transport {
    const struct transport_ops *ops;
    struct mc_te *te;
    struct transport *inner; /* wrappers only */
    void *state;             /* the transport's own */
};

extern const struct transport_ops tcp_ops, shm_memfd_ops, shm_vm_ops;

/* Set up te->transports from "auto" or a list of names ("shm" means both shm ones). MC_OK, MC_EINVAL (unknown name; logged),
 * MC_ENOSUP (a named one does not work here; logged), MC_ENOMEM. */
enum mc_status transports_init(struct mc_te *te, const char *names);
void transports_fini(struct mc_te *te);

#endif
