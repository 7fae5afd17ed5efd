/* proto_impl.h - what the files of the Store's messages share: rows that say how a type's bodies are written and read.
 *
 * Threads: any. */
#ifndef STORE_PROTO_IMPL_H
#define STORE_PROTO_IMPL_H

#include "store/proto.h"

typedef void proto_put_fn(const struct store_msg *m, struct buf *b);
typedef void proto_get_fn(struct cur *c, struct store_msg *m);

struct proto_row {
    uint16_t type;
    proto_put_fn *put, *put_reply; /* NULL: that body is empty */
    proto_get_fn *get, *get_reply;
};

/* Both end with a row of type 0. */
extern const struct proto_row proto_node_rows[];   /* 0x02xx */
extern const struct proto_row proto_master_rows[]; /* 0x03xx */

/* Fields that messages of both kinds have. An empty slice is left out. */
void proto_slice_put(struct buf *body, uint16_t id, struct slice s);
/* A list of at most `max` records of `size` bytes. */
struct slice proto_list_get(struct field *f, size_t size, size_t max, const char *name);
void proto_verdicts_put(const struct store_msg *m, struct buf *b); /* a body of nothing else */
void proto_verdicts_get(struct cur *c, struct store_msg *m);
void proto_key_put(struct buf *body, uint16_t id, const struct store_key *key);
void proto_key_get(struct field *f, struct store_key *key, const char *name);

#endif
