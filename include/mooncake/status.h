/* status.h - what a call says when it returns.
 *
 * 0 is done, a positive value is "not yet", a negative value is a failure. Failures are grouped by what has to be
 * replaced before trying again: nothing but the request, the connection, the peer, or this process' set-up.
 * The function that first knows the cause logs it once; callers pass the status up unchanged.
 *
 * Values are part of the wire format (docs/wire.md): never renumber, only append.
 * Threads: everything here may be called from any thread. */
#ifndef MOONCAKE_STATUS_H
#define MOONCAKE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Visible outside a shared library built from this tree. */
#define MC_API __attribute__((visibility("default")))

enum mc_status {
    MC_OK = 0,

    /* not yet */
    MC_AGAIN = 1,   /* a queue or pool is full: nothing was started, try after something completed */
    MC_PENDING = 2, /* started, not finished */

    /* the request failed; the same connection and peer serve the next one */
    MC_EINVAL = -1,     /* an argument is out of its documented range */
    MC_ENOENT = -2,     /* no such key, region, peer name or model */
    MC_EEXIST = -3,     /* already there, and the call asked for "new" */
    MC_ENOSPC = -4,     /* no space could be made (object larger than the segments, or everything is pinned) */
    MC_ECANCELED = -5,  /* cancelled by the caller */
    MC_ETIMEDOUT = -6,  /* the deadline passed; see the call for what may and may not have happened */
    MC_ESTALE = -7,     /* the location was right once: evicted, replaced, or its owner restarted */
    MC_ECORRUPT = -8,   /* bytes do not match their checksum, and the header still stands */
    MC_EPERM = -9,      /* region read-only, pin refused, foreign tenant */
    MC_EMISMATCH = -10, /* fingerprint record, geometry or length differ from what is registered */
    MC_EBUSY = -11,     /* a limit was met: tell the user to come back (HTTP 429) */
    MC_ETOOBIG = -12,   /* longer than a documented limit */

    /* the connection is gone; a new one may work */
    MC_ECLOSED = -32,  /* closed by us or by the peer */
    MC_EPROTO = -33,   /* malformed frame, bad checksum on the wire, unexpected message */
    MC_EVERSION = -34, /* no common protocol version */

    /* the peer is gone */
    MC_EPEERDOWN = -64, /* killed, unreachable, or under suspicion: an immediate answer, not a timeout */
    MC_EREFUSED = -65,  /* the peer answers, but not as who we asked for (UUID, epoch, role) */

    /* our own process */
    MC_ENOMEM = -96, /* memory or descriptors exhausted */
    MC_ESYS = -97,   /* a system call failed in a way nothing above describes; errno was logged */
    MC_ENOSUP = -98, /* not supported by this build, kernel or transport */
};

/* One lower-case word or two ("timed out"). Never NULL, also for values not in the list. Static storage. */
MC_API const char *mc_status_str(enum mc_status status);

#ifdef __cplusplus
}
#endif
#endif
