/* errors.c - see errors.h. */
#include "compat/store/errors.h"

int compat_error(enum mc_status status)
{
    switch (status) {
    case MC_OK: return COMPAT_OK;
    case MC_EINVAL:
    case MC_ETOOBIG:
    case MC_EMISMATCH:
    case MC_ECLOSED: return COMPAT_INVALID_PARAMS;
    case MC_ENOENT: return COMPAT_NOT_FOUND;
    case MC_ENOSPC:
    case MC_EBUSY:
    case MC_AGAIN: return COMPAT_NO_SPACE;
    case MC_EPERM: return COMPAT_HAS_LEASE;
    case MC_ECORRUPT: return COMPAT_CHECKSUM;
    case MC_ETIMEDOUT: return COMPAT_RPC_TIMEOUT;
    case MC_EPEERDOWN:
    case MC_EREFUSED:
    case MC_EVERSION:
    case MC_EPROTO: return COMPAT_RPC_FAIL;
    case MC_ENOSUP: return COMPAT_NOT_SUPPORTED;
    default: return COMPAT_INTERNAL;
    }
}

static int miss_error(enum mc_miss miss)
{
    switch (miss) {
    case MC_MISS_CORRUPT: return COMPAT_CHECKSUM;
    case MC_MISS_TIMEOUT: return COMPAT_RPC_TIMEOUT;
    case MC_MISS_MISMATCH: return COMPAT_INVALID_PARAMS;
    case MC_MISS_MASTER_DOWN: return COMPAT_RPC_FAIL;
    default: return COMPAT_NOT_FOUND;
    }
}

int compat_op_error(const struct mc_store_op *op)
{
    enum mc_status status = op->result.status;

    if (status == MC_OK)
        return COMPAT_OK;
    if (op->opcode == MC_GET && op->result.miss != MC_MISS_NONE)
        return miss_error(op->result.miss);
    if (op->opcode == MC_EXISTS && status == MC_ENOENT)
        return COMPAT_NOT_FOUND;
    return compat_error(status);
}
