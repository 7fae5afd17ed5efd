/* proto_examples.h - one full message of each kind: what the golden files and the fuzzer's first inputs are made of. */
#ifndef WORKER_PROTO_EXAMPLES_H
#define WORKER_PROTO_EXAMPLES_H

#include "base/buf.h"

enum { PROTO_EXAMPLES = 10 };

/* Encode example `index`; its name ("register"). */
const char *proto_example(unsigned index, struct buf *out);

/* Decode a body as the kind of example `index`, encode what came of it to `again` when it was good. */
enum mc_status proto_example_decode(unsigned index, struct slice body, struct buf *again, const char **bad);

#endif
