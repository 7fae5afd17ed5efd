/* work.h - what the files about the clients' work share: operations, contents, what is known of the world's calm. */
#ifndef SIM_WORK_H
#define SIM_WORK_H

#include "sim.h"

enum { CALM_MS = 1500, SILENT_MS = 1000, BLOCK_VALUE = 1 << 24, BUNDLE_VALUE = 1 << 25 };

enum what { WHOLE, RANGES, PREFIX, PIN, VIEW, PART_BEGIN, PART_WRITE, PART_COMMIT, MODEL, BUNDLE, LOOK, MEMBER, OTHER };

struct op {
    struct client_call call;
    struct mc_store_op sop;
    struct proc *client;
    enum what what;
    bool named, must_find, final, calm, hasty;
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
    struct mc_prefix_node nodes[NODES_MAX];
    char name[16];
    uint64_t planes[3];
    char record[16];
    struct buf other; /* MODEL: the record that is there */
    struct mc_object_meta meta;
    uint64_t part;
    uint64_t at;
    bool damaged;
    struct bundle_put *put; /* BUNDLE */
    struct look *look;      /* LOOK: of which this is a part */
};

/* Something is out of order until then; calm is when nothing has been for CALM_MS. Returns `ns`. */
uint64_t disturbed_for(struct world *world, uint64_t ns);
bool calm(const struct world *world);

/* Contents are functions of a value's number. */
/* Blocks 0..PARTED-1 are whole; the others are, SHARDS at a time, parts of one. */
void block_key(struct world *world, uint32_t block, struct mc_key *key);
uint64_t length_of(uint32_t value);
void fill(uint8_t *dst, uint32_t value, uint64_t from, uint64_t len);
bool is_content(const uint8_t *bytes, uint32_t value, uint64_t from, uint64_t len);

/* near.c: do it from the memory of a node of this host. False: nothing was done. */
bool near_get(struct op *op);

/* An operation to be filled in, and its start; work_done() gets it at its end. */
struct op *op_new(struct proc *client, bool named, uint32_t key);
void op_go(struct op *op);

/* Start an operation. */
void go_get(struct proc *client, bool named, uint32_t key, bool final);
void go_simple(struct proc *client, enum mc_store_opcode opcode, bool named, uint32_t key, bool must_find);
void go_must_get(struct proc *client, uint32_t block); /* ... and it has to be a hit, while all is calm */
/* Of the plain blocks, or of those in parts: `shard` is the part that is wanted, but only blocks of which all parts are there count. */
void go_prefix(struct proc *client, bool parted, uint16_t shard, uint32_t n, bool final);
void go_model(struct proc *client, uint32_t model, uint32_t record, bool final);
/* The next step of a put in parts. False: it is over. */
bool part_goes_on(struct world *world, struct op *op);

/* Bundles: put one, look whether it is there, read a member; and what came of it. */
void go_bundle(struct proc *client, uint32_t bundle);
void go_look(struct proc *client, uint32_t bundle, bool must_find);
void go_member(struct proc *client, uint32_t bundle, uint32_t member);
void judge_bundle(struct world *world, struct op *op);
void judge_look(struct world *world, struct op *op);
void judge_member(struct world *world, struct op *op);

void judge_refusal(struct world *world, const struct op *op);

#endif
