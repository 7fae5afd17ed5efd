/* work.h - what the files about the clients' work share: operations, contents, what is known of the world's calm. */
#ifndef SIM_WORK_H
#define SIM_WORK_H

#include "sim.h"

enum { CALM_MS = 1500, BLOCK_VALUE = 1 << 24 };

enum what { WHOLE, RANGES, PREFIX, PIN, VIEW, PART_BEGIN, PART_WRITE, PART_COMMIT, OTHER };

struct op {
    struct client_call call;
    struct mc_store_op sop;
    struct proc *client;
    enum what what;
    bool named, must_find, final, calm;
    uint32_t key, value;
    uint64_t started, stops;
    uint64_t required, known, seen;
    uint32_t exempts;
    uint64_t length;
    uint8_t *data;
    struct mc_span span[2];
    struct mc_range range[3];
    struct mc_key keys[8];
    uint8_t ids[BLOCKS][16];
    char name[16];
    uint64_t planes[3];
    struct mc_object_meta meta;
    uint64_t part;
    uint64_t at;
    bool damaged;
};

/* Something is out of order until then; calm is when nothing has been for CALM_MS. Returns `ns`. */
uint64_t disturbed_for(struct world *world, uint64_t ns);
bool calm(const struct world *world);

/* Contents are functions of a value's number. */
uint64_t length_of(uint32_t value);
bool is_content(const uint8_t *bytes, uint32_t value, uint64_t from, uint64_t len);

/* Start an operation; work_done() gets it at its end. */
void go_get(struct proc *client, bool named, uint32_t key, bool final);
void go_simple(struct proc *client, enum mc_store_opcode opcode, bool named, uint32_t key, bool must_find);
/* The next step of a put in parts. False: it is over. */
bool part_goes_on(struct world *world, struct op *op);

#endif
