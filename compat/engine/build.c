/* build.c - from "address and length" to operations on regions.
 *
 * Neighbours at both ends become one operation already here: an operation costs 104 bytes and a look-up, a slice of a KV page
 * that follows the one before costs nothing. The Transfer Engine merges again where ranges of one batch meet. */
#include <stdlib.h>

#include "compat/engine/impl.h"

void ce_build_init(struct ce_build *build)
{
    build->ops = build->few;
    build->firsts = build->few_firsts;
    build->room = BUILD_FEW;
    build->count = 0;
}

void ce_build_fini(struct ce_build *build)
{
    if (build->ops != build->few) {
        free(build->ops);
        free(build->firsts);
    }
    ce_build_init(build);
}

/* Most calls need few; those that need more need many. */
static enum mc_status make_room(struct ce_build *build)
{
    struct mc_op *ops = malloc(BUILD_OPS * sizeof(*ops));
    uint32_t *firsts = malloc((BUILD_OPS + 1) * sizeof(*firsts));

    if (!ops || !firsts) {
        free(ops);
        free(firsts);
        return MC_ENOMEM;
    }
    for (uint32_t i = 0; i < build->count; i++) {
        ops[i] = build->few[i];
        firsts[i] = build->few_firsts[i];
    }
    build->ops = ops;
    build->firsts = firsts;
    build->room = BUILD_OPS;
    return MC_OK;
}

/* Does it go on where the last one ends, at both ends? `last` stands for the ce_op just before. */
static bool goes_on(const struct mc_op *last, const struct ce_op *op, const struct ce_spot *spot)
{
    return last->opcode == op->opcode && (uint8_t *)last->local + last->len == op->local &&
           spot->addr + last->offset + last->len == op->remote && op->remote + op->len <= spot->end &&
           op->len <= INT64_MAX - last->len;
}

enum mc_status ce_build_take(
    struct ce_build *build, const struct ce_desc *desc, struct ce_op *ops, size_t n, size_t *at)
{
    const struct ce_spot *spot = NULL;
    size_t i;

    build->count = 0;
    for (i = *at; i < n; i++) {
        struct ce_op *op = &ops[i];
        struct mc_op *last = build->count ? &build->ops[build->count - 1] : NULL;

        if (op->status != MC_PENDING) {
            if (last)
                break; /* what one operation stands for must lie side by side */
            continue;
        }
        if (last && goes_on(last, op, spot)) {
            last->len += op->len;
            continue;
        }
        if (!spot || op->remote < spot->addr || op->remote > spot->end || op->len > spot->end - op->remote)
            spot = ce_desc_find(desc, op->remote, op->len);
        if (!spot) {
            if (last)
                break; /* what stands before it first */
            *at = i;
            return MC_ENOENT;
        }
        if (build->count == build->room) {
            if (build->room == BUILD_OPS)
                break;
            if (make_room(build) != MC_OK)
                return MC_ENOMEM;
        }
        build->firsts[build->count] = (uint32_t)i;
        build->ops[build->count++] = (struct mc_op){
            .opcode = op->opcode,
            .status = MC_PENDING, /* stays so when the batch could not even be submitted */
            .local = op->local,
            .len = op->len,
            .region = spot->key,
            .offset = op->remote - spot->addr,
        };
    }
    build->firsts[build->count] = (uint32_t)i;
    *at = i;
    return MC_OK;
}

/* Of two failures the one that leaves less hope. */
static enum mc_status worse(enum mc_status a, enum mc_status b)
{
    static const enum mc_status order[] = {MC_OK, MC_ENOENT, MC_AGAIN, MC_EPEERDOWN};
    unsigned x = 0, y = 0;

    while (x < sizeof(order) / sizeof(order[0]) && order[x] != a)
        x++;
    while (y < sizeof(order) / sizeof(order[0]) && order[y] != b)
        y++;
    return x >= y ? a : b;
}

static enum mc_status remedy(enum mc_status status)
{
    switch (status) {
    case MC_ENOENT:
    case MC_ESTALE: return MC_ENOENT;
    case MC_EPEERDOWN:
    case MC_ECLOSED:
    case MC_EPROTO: return MC_EPEERDOWN;
    case MC_EBUSY:
    case MC_ENOMEM: return MC_AGAIN;
    default: return status;
    }
}

enum mc_status ce_build_settle(struct ce_build *build, enum mc_status status, struct ce_op *ops)
{
    enum mc_status worst = MC_OK;

    for (uint32_t i = 0; i < build->count; i++) {
        enum mc_status one = build->ops[i].status;

        if (one != MC_OK) {
            worst = worse(worst, remedy(one == MC_PENDING ? status : one));
            continue;
        }
        for (uint32_t k = build->firsts[i]; k < build->firsts[i + 1]; k++)
            ops[k].status = MC_OK;
    }
    build->count = 0;
    return worst;
}
