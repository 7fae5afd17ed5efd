/* batch_build.c - the ops of a batch are cut into xfers, by the thread that submits it.
 *
 *   ops      | a | b | c (4 MiB)         |     a and b lie side by side on both sides: one part
 *   parts    | a+b |  c  |  c  |  c  | c |
 *   xfers    | x1        | x2  | x3  | x4|     at most XFER_BYTES and XFER_PARTS each, one direction and kind of memory */
#include <stdlib.h>
#include <string.h>

#include "transfer/core.h"

/* What decides whether two ops may travel in one xfer. */
struct op_class {
    enum mc_opcode opcode;
    uint8_t kind;
};

struct builder {
    struct mc_batch *batch;
    struct xfer *xfer; /* being filled */
    struct op_class class;
    const struct mc_region_key *raw; /* the key decoded last: batches mostly name one region */
    struct te_key key;
    enum mc_status key_status;
};

static bool class_equal(const struct op_class *a, const struct op_class *b)
{
    return a->opcode == b->opcode && a->kind == b->kind;
}

static enum mc_status key_fits_peer(struct mc_peer *peer, const struct te_key *key)
{
    bool fits;

    pthread_mutex_lock(&peer->id_lock);
    fits = !peer->known || (memcmp(peer->uuid, key->uuid, UUID_SIZE) == 0 && peer->epoch == key->epoch);
    pthread_mutex_unlock(&peer->id_lock);
    return fits ? MC_OK : MC_ENOENT;
}

static enum mc_status builder_key(struct builder *b, const struct mc_op *op)
{
    if (b->raw && memcmp(b->raw, &op->region, sizeof(op->region)) == 0)
        return b->key_status;
    b->raw = &op->region;
    b->key_status = te_key_decode(&op->region, &b->key, NULL);
    if (b->key_status == MC_OK)
        b->key_status = key_fits_peer(b->batch->peer, &b->key);
    return b->key_status;
}

static enum mc_status op_check(struct builder *b, const struct mc_op *op)
{
    enum mc_status status = builder_key(b, op);

    if (status != MC_OK)
        return status;
    if (op->offset > b->key.len || op->len > b->key.len - op->offset)
        return MC_EINVAL;
    if (!(b->key.flags & (op->opcode == MC_READ ? MC_REGION_READ : MC_REGION_WRITE)))
        return MC_EPERM;
    return MC_OK;
}

/* Begin a new xfer, with room for what is left of the batch from op `i` on. */
static enum mc_status builder_begin(struct builder *b, const struct op_class *class, uint32_t i)
{
    uint32_t left = b->batch->op_count - i;
    uint32_t room = left < XFER_PARTS ? left : XFER_PARTS;
    struct xfer *xfer = malloc(sizeof(*xfer) + room * sizeof(struct part));

    if (!xfer)
        return MC_ENOMEM;
    memset(xfer, 0, sizeof(*xfer));
    list_init(&xfer->link);
    xfer->batch = b->batch;
    xfer->opcode = class->opcode;
    xfer->kind = class->kind;
    list_push_back(&b->batch->xfers, &xfer->order);
    b->batch->xfers_left++;
    b->xfer = xfer;
    b->class = *class;
    return MC_OK;
}

/* Join the range to the last part, when it goes on there at both ends. */
static bool part_extend(struct xfer *xfer, const struct mc_op *op, uint64_t id, uint64_t done, uint32_t i, uint32_t len)
{
    struct part *last = xfer->part_count ? &xfer->parts[xfer->part_count - 1] : NULL;

    if (!last || op->crc32c || xfer->batch->ops[last->op].crc32c || last->region != id ||
        last->offset + last->len != op->offset + done || last->local + last->len != (uint8_t *)op->local + done)
        return false;
    last->len += len;
    last->ops = i - last->op + 1;
    return true;
}

static enum mc_status builder_op(struct builder *b, const struct mc_op *op, uint32_t i)
{
    struct op_class class = {op->opcode, b->key.kind};

    for (uint64_t done = 0; done < op->len;) {
        struct xfer *xfer = b->xfer;
        uint32_t len;

        if (!xfer || !class_equal(&class, &b->class) || xfer->bytes == XFER_BYTES || xfer->part_count == XFER_PARTS) {
            enum mc_status status = builder_begin(b, &class, i);

            if (status != MC_OK)
                return status;
            xfer = b->xfer;
        }
        len = XFER_BYTES - xfer->bytes;
        if (op->len - done < len)
            len = (uint32_t)(op->len - done);
        if (!part_extend(xfer, op, b->key.id, done, i, len))
            xfer->parts[xfer->part_count++] = (struct part){
                .local = (uint8_t *)op->local + done,
                .region = b->key.id,
                .offset = op->offset + done,
                .len = len,
                .op = i,
                .ops = 1,
                .segment = b->key.segment,
            };
        xfer->want_crc |= op->crc32c != NULL;
        xfer->bytes += len;
        done += len;
    }
    return MC_OK;
}

void batch_unbuild(struct mc_batch *batch)
{
    list_for_each_safe (it, tmp, &batch->xfers)
        free(list_entry(it, struct xfer, order));
    list_init(&batch->xfers);
}

enum mc_status batch_build(struct mc_batch *batch)
{
    struct builder b = {.batch = batch};

    for (uint32_t i = 0; i < batch->op_count; i++) {
        struct mc_op *op = &batch->ops[i];
        enum mc_status status = op_check(&b, op);

        op->status = MC_PENDING;
        if (status != MC_OK) {
            op->status = status;
            if (batch->first == MC_OK)
                batch->first = status;
            continue;
        }
        if (op->crc32c)
            *op->crc32c = 0;
        status = builder_op(&b, op, i);
        if (status != MC_OK)
            return status;
        batch->bytes += op->len;
    }
    return MC_OK;
}
