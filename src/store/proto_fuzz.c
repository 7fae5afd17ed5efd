/* proto_fuzz.c - any bytes as any message of the Store: what is accepted can be walked, and encodes to what decodes the same.
 * The first two bytes choose the type, the third is the reply flag. */
#include <stdlib.h>

#include "store/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink; /* what was walked is used */

static void walk(const struct store_msg *msg)
{
    struct store_entry entry;
    struct store_member member;
    struct store_key key;
    struct cur c;

    switch (msg->type) {
    case MSG_NODE_COMMIT:
    case MSG_NODE_INVENTORY:
        c = cur_of_slice(msg->reply ? (struct slice){0} : msg->commit.entries);
        while (store_entry_next(&c, &entry))
            sink += entry.length;
        for (uint32_t i = 0; msg->reply && i < store_verdict_count(msg->verdicts); i++)
            sink += store_verdict_at(msg->verdicts, i).version;
        break;
    case MSG_MASTER_LOOKUP:
    case MSG_MASTER_PREFIX:
        for (uint32_t i = 0; msg->reply && i < store_loc_count(msg->found.locs); i++)
            sink += store_row_at(msg->found.rows, store_loc_at(msg->found.locs, i).node).epoch;
        c = cur_of_slice(!msg->reply && msg->type == MSG_MASTER_LOOKUP ? msg->lookup.keys : (struct slice){0});
        while (store_key_next(&c, 1, &key))
            sink += key.id[0];
        break;
    case MSG_MASTER_SUBSCRIBE:
    case MSG_MASTER_MEMBERS:
        c = cur_of_slice(msg->reply == (msg->type == MSG_MASTER_SUBSCRIBE) ? msg->members.list : (struct slice){0});
        while (store_member_next(&c, &member))
            sink += member.epoch;
        break;
    case MSG_NODE_PUT:
        for (uint32_t i = 0; !msg->reply && i < store_span_count(msg->put.spans); i++)
            sink += store_span_at(msg->put.spans, i).length;
        break;
    case MSG_NODE_BUNDLE:
        for (uint32_t i = 0; msg->reply && i < store_verdict_count(msg->verdicts); i++)
            sink += store_verdict_at(msg->verdicts, i).version;
        for (uint32_t i = 0; !msg->reply && i < store_u64_count(msg->bundle.generations); i++)
            sink += store_u64_at(msg->bundle.generations, i);
        break;
    case MSG_NODE_INFO:
        for (uint32_t i = 0; !msg->reply && i < store_segment_count(msg->segments); i++)
            sink += store_segment_at(msg->segments, i).size;
        break;
    default: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame frame = {0};
    struct store_msg msg;
    struct buf body, again;
    const char *bad = NULL;

    if (size < 3)
        return 0;
    frame.type = le16_get(data);
    frame.flags = data[2] & 1 ? FRAME_REPLY : 0;
    frame.body = slice_of(data + 3, size - 3);
    if (store_msg_decode(&frame, &msg, &bad) != MC_OK) {
        if (!bad)
            abort(); /* a refusal names the field */
        return 0;
    }
    walk(&msg);
    buf_init(&body, FRAME_BODY_MAX);
    buf_init(&again, FRAME_BODY_MAX);
    store_msg_encode(&msg, &body);
    frame.body = buf_slice(&body);
    if (store_msg_decode(&frame, &msg, &bad) != MC_OK)
        abort();
    store_msg_encode(&msg, &again);
    if (!slice_eq(buf_slice(&body), buf_slice(&again)))
        abort();
    buf_fini(&body);
    buf_fini(&again);
    return 0;
}
