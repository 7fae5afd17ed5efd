/* outbox.c - see outbox_test.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "store/outbox_test.h"

enum mc_status outbox_send(struct outbox *out, uint32_t peer, const struct store_msg *msg)
{
    struct outbox_entry *entry = &out->entries[out->count++];
    struct frame frame = {
        .type = msg->type, .flags = msg->reply ? FRAME_REPLY : 0, .status = msg->status, .request = msg->request};
    const char *bad;

    assert_true(out->count < OUTBOX_MAX);
    entry->peer = peer;
    buf_init(&entry->body, FRAME_BODY_MAX);
    store_msg_encode(msg, &entry->body);
    frame.body = buf_slice(&entry->body);
    assert_int_equal(store_msg_decode(&frame, &entry->msg, &bad), MC_OK);
    return MC_OK;
}

static bool is(const struct outbox_entry *entry, uint32_t peer, uint16_t type)
{
    return entry->peer == peer && entry->msg.type == type;
}

const struct store_msg *outbox_find(const struct outbox *out, uint32_t peer, uint16_t type)
{
    for (uint32_t i = out->count; i > 0; i--)
        if (is(&out->entries[i - 1], peer, type))
            return &out->entries[i - 1].msg;
    return NULL;
}

uint32_t outbox_count(const struct outbox *out, uint32_t peer, uint16_t type)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < out->count; i++)
        n += is(&out->entries[i], peer, type);
    return n;
}

void outbox_clear(struct outbox *out)
{
    for (uint32_t i = 0; i < out->count; i++)
        buf_fini(&out->entries[i].body);
    out->count = 0;
}
