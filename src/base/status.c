/* status.c - names of the status codes. The numbers are part of the wire format; the words are for people only. */
#include "mooncake/status.h"

const char *mc_status_str(enum mc_status status)
{
    switch (status) {
    case MC_OK: return "ok";
    case MC_AGAIN: return "try again";
    case MC_PENDING: return "pending";
    case MC_EINVAL: return "invalid argument";
    case MC_ENOENT: return "not found";
    case MC_EEXIST: return "exists already";
    case MC_ENOSPC: return "no space";
    case MC_ECANCELED: return "cancelled";
    case MC_ETIMEDOUT: return "timed out";
    case MC_ESTALE: return "stale";
    case MC_ECORRUPT: return "corrupt";
    case MC_EPERM: return "not permitted";
    case MC_EMISMATCH: return "mismatch";
    case MC_EBUSY: return "busy";
    case MC_ETOOBIG: return "too big";
    case MC_ECLOSED: return "closed";
    case MC_EPROTO: return "protocol error";
    case MC_EVERSION: return "no common version";
    case MC_EPEERDOWN: return "peer down";
    case MC_EREFUSED: return "refused";
    case MC_ENOMEM: return "out of memory";
    case MC_ESYS: return "system error";
    case MC_ENOSUP: return "not supported";
    }
    return "unknown status";
}
