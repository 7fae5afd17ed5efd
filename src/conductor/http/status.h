/* status.h - the state of the cluster as the Conductor sees it, for the page and `mooncake top`. */
#ifndef CONDUCTOR_HTTP_STATUS_H
#define CONDUCTOR_HTTP_STATUS_H

#include <jansson.h>

#include "conductor/conductor_impl.h"

/* Given. {"models","workers","tiers","requests","cache","history","policy","slo","store"} */
json_t *status_json(struct conductor *conductor);

#endif
