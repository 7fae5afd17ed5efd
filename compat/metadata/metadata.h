/* metadata.h - the HTTP metadata server of the existing Transfer Engine: names and what engines publish under them.
 *
 *     GET | PUT | DELETE /metadata?key=K     GET /metadata     GET /health
 *
 * In memory only: engines publish again. A key of the kind `rpc_meta` belongs to who put it first: another body is refused.
 * Threads: the loop's. */
#ifndef COMPAT_METADATA_METADATA_H
#define COMPAT_METADATA_METADATA_H

#include "net/addr.h"
#include "net/loop.h"

struct metadata;

/* MC_OK: `*out` is given. MC_EEXIST (the address is taken; logged), MC_EINVAL, MC_ENOMEM, MC_ESYS. */
enum mc_status metadata_start(struct loop *loop, const struct addr *addr, struct metadata **out);
void metadata_stop(struct metadata *metadata); /* NULL is allowed */
const struct addr *metadata_addr(const struct metadata *metadata);

#endif
