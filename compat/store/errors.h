/* errors.h - the numbers that callers of the existing Mooncake Store test for, and how ours become them.
 *
 * The values are theirs, not ours: engines compare with -200, -704, -706 and with zero, and nothing else of an error reaches
 * them. Only those are listed that this library gives out.
 * Pure. Threads: any. */
#ifndef COMPAT_STORE_ERRORS_H
#define COMPAT_STORE_ERRORS_H

#include "mooncake/status.h"
#include "mooncake/store.h"

enum {
    COMPAT_OK = 0,
    COMPAT_INTERNAL = -1,
    COMPAT_SEGMENT_NOT_FOUND = -101,
    COMPAT_NO_SPACE = -200,       /* NO_AVAILABLE_HANDLE: engines take it as "full, come back" */
    COMPAT_INVALID_KEY = -400,    /* longer than names of ours can be */
    COMPAT_INVALID_PARAMS = -600, /* also: not set up, or closed */
    COMPAT_NOT_FOUND = -704,
    COMPAT_EXISTS = -705, /* only where a session is begun: a put of a key that is there is success */
    COMPAT_HAS_LEASE = -706,
    COMPAT_TRANSFER_FAIL = -800,
    COMPAT_CHECKSUM = -801,
    COMPAT_RPC_FAIL = -900,
    COMPAT_RPC_TIMEOUT = -901,
    COMPAT_NOT_SUPPORTED = -1012,
};

/* A failure that is about no particular object. */
int compat_error(enum mc_status status);

/* What became of one operation: 0, or the number for why not. Of a get that found nothing the reason decides: whatever
 * means "not there any more" is COMPAT_NOT_FOUND, also when its owner is gone. */
int compat_op_error(const struct mc_store_op *op);

#endif
