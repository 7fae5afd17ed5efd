/* wire.h - bodies of the messages between two of these engines (0x05xx); docs/wire.md is the specification. Pure.
 *
 * Threads: any. */
#ifndef COMPAT_ENGINE_WIRE_H
#define COMPAT_ENGINE_WIRE_H

#include "base/buf.h"
#include "base/slice.h"
#include "mooncake/transfer.h"

#define CE_LAYOUT    1  /* of the areas in an answer */
#define CE_AREA_SIZE 80 /* address 8, length 8, key 64 */
#define CE_AREAS_MAX 65536

/* CE_DESCRIBE: what have you registered? `known`: the version of the answer I hold, 0 = none. */
void ce_wire_ask_encode(uint64_t known, struct buf *body);
enum mc_status ce_wire_ask_decode(struct slice body, uint64_t *known, const char **bad);

/* The answer's body; its payload is `count` areas, none when `same`. */
struct ce_wire_answer {
    uint64_t version; /* grows with each change; never 0 */
    uint64_t first;   /* address registered first of those there now; 0 = none */
    uint32_t count;
    bool same; /* nothing changed since `known` */
};
void ce_wire_answer_encode(const struct ce_wire_answer *in, struct buf *body);
enum mc_status ce_wire_answer_decode(struct slice body, struct ce_wire_answer *out, const char **bad);

struct ce_area {
    uint64_t addr, len;
    struct mc_region_key key;
};
void ce_wire_area_put(const struct ce_area *in, uint8_t out[CE_AREA_SIZE]);

/* MC_EPROTO: empty, or beyond the end of the address space. */
enum mc_status ce_wire_area_get(const uint8_t in[CE_AREA_SIZE], struct ce_area *out);

/* CE_NOTIFY. `id` is the same when the message is sent again because its answer was lost. */
struct ce_wire_note {
    uint64_t id;
    struct slice name, msg; /* decode: lent from the body */
};
void ce_wire_note_encode(const struct ce_wire_note *in, struct buf *body);
enum mc_status ce_wire_note_decode(struct slice body, struct ce_wire_note *out, const char **bad);

#endif
