/* outbox_test.h - where the messages go that a core under test sends: its port's send() puts them here, decoded from their own bytes.
 *
 * Include after <cmocka.h>. Threads: the test's one. */
#ifndef STORE_OUTBOX_TEST_H
#define STORE_OUTBOX_TEST_H

#include "base/buf.h"
#include "store/proto.h"

enum { OUTBOX_MAX = 256 };

struct outbox {
    struct outbox_entry {
        uint32_t peer;
        struct store_msg msg; /* points into body */
        struct buf body;
    } entries[OUTBOX_MAX];
    uint32_t count;
};

/* Encode, decode, keep. A message that does not survive that fails the test, and so does one too many. Always MC_OK. */
enum mc_status outbox_send(struct outbox *out, uint32_t peer, const struct store_msg *msg);

/* The last message of that type to that peer (lent until outbox_clear()); NULL: there is none. */
const struct store_msg *outbox_find(const struct outbox *out, uint32_t peer, uint16_t type);

/* How many there are. */
uint32_t outbox_count(const struct outbox *out, uint32_t peer, uint16_t type);

void outbox_clear(struct outbox *out);

#endif
