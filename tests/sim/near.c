/* near.c - gets of names from a node's memory by clients of its host (src/store/client/near.h), who ask nobody. The memory is as it is,
 * whatever the node does: it may work, stand still, be cut off or be dead. */
#include <string.h>

#include "store/object.h"
#include "work.h"

/* What lies there, if it is the object of that key and whole. */
static bool look(const struct proc *node, const struct names_place *place, const struct store_key *key, struct op *op)
{
    const uint8_t *at = node->memory[place->segment] + place->offset;
    struct object_header header;

    if (object_parse(at, node->memory_size - place->offset, &header) != MC_OK || object_is(&header, key, 0) != MC_OK ||
        object_verify(&header, at + header.header_len) != MC_OK)
        return false;
    memcpy(op->data, at + header.header_len, header.length);
    op->sop.result = (struct mc_store_result){.status = MC_OK, .length = header.length, .version = header.version};
    memcpy(op->sop.result.node, node->uuid, 16);
    return true;
}

bool near_get(struct op *op)
{
    struct world *world = op->client->world;
    struct store_key key;

    store_key_from(7, &op->sop.key, &key);
    for (uint32_t i = 1; i <= world->nodes_n; i++) {
        const struct proc *node = &world->procs[i];
        struct names_place places[NAMES_WAYS];
        uint64_t until;
        unsigned n;

        if (!same_host(node, op->client))
            continue;
        until = names_until(&node->view);
        n = names_find(&node->view, store_key_hash(&key, 0), places);
        for (unsigned at = 0; at < n; at++)
            if (look(node, &places[at], &key, op) && world->now < until)
                return true;
    }
    return false;
}
