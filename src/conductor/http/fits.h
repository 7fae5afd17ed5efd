/* fits.h - what a model's workers have measured, as coefficients for `mooncake replay --fit`.
 *
 * Threads: the loop's only. */
#ifndef CONDUCTOR_HTTP_FITS_H
#define CONDUCTOR_HTTP_FITS_H

#include <jansson.h>

#include "conductor/fleet/fleet.h"

/* Given. {"prefill_base_ms","prefill_token_ms","prefill_pair_ms","decode_base_ms","decode_sequence_ms","decode_kv_token_ns",
 * "kv_token_bytes"} and remarks that begin with '#': means over the workers, weighted by their measurements. What nobody has measured
 * is left out; NULL: nothing was measured yet. */
json_t *fits_json(struct fleet *fleet, const struct fleet_model *model);

#endif
