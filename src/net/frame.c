/* frame.c - encode and decode frame and piece headers and the handshake. Pure.
 *
 * Decoding checks the checksum before anything else is believed, and limits before anything is allocated. */
#include "net/frame.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/hash.h"

#define HEADER_CRC_AT (FRAME_HEADER_SIZE - 4)

void frame_encode(const struct frame *frame, uint8_t out[FRAME_HEADER_SIZE])
{
    struct frame_wire wire;

    le32_put(wire.magic, FRAME_MAGIC);
    le16_put(wire.version, FRAME_VERSION);
    le16_put(wire.type, frame->type);
    le32_put(wire.flags, frame->flags);
    le32_put(wire.deadline_ms, frame->deadline_ms);
    le64_put(wire.request, frame->request);
    memcpy(wire.trace, frame->trace, sizeof(wire.trace));
    le32_put(wire.body_len, frame->body_len);
    le32_put(wire.body_crc, frame->body_crc);
    le64_put(wire.payload_len, frame->payload_len);
    le32_put(wire.status, (uint32_t)(int32_t)frame->status);
    le32_put(wire.header_crc, crc32c(0, &wire, HEADER_CRC_AT));
    memcpy(out, &wire, sizeof(wire));
}

enum mc_status frame_decode(
    const uint8_t in[FRAME_HEADER_SIZE], uint32_t body_max, struct frame *frame, const char **bad)
{
    struct cur c = cur_of(in, FRAME_HEADER_SIZE);
    uint16_t version;

    *bad = NULL;
    if (cur_u32(&c, "magic") != FRAME_MAGIC) {
        *bad = "magic";
        return MC_EPROTO;
    }
    version = cur_u16(&c, "version");
    if (crc32c(0, in, HEADER_CRC_AT) != le32_get(in + HEADER_CRC_AT)) {
        *bad = "header crc";
        return MC_EPROTO;
    }
    if (version != FRAME_VERSION) {
        *bad = "frame version";
        return MC_EVERSION;
    }
    *frame = (struct frame){.type = cur_u16(&c, "type"), .flags = 0};
    frame->flags = cur_u32(&c, "flags");
    frame->deadline_ms = cur_u32(&c, "deadline");
    frame->request = cur_u64(&c, "request");
    cur_copy(&c, frame->trace, TRACE_SIZE, "trace");
    frame->body_len = cur_u32(&c, "body length");
    frame->body_crc = cur_u32(&c, "body crc");
    frame->payload_len = cur_u64(&c, "payload length");
    frame->status = (enum mc_status)(int32_t)cur_u32(&c, "status");
    if (frame->body_len > body_max || frame->body_len > FRAME_BODY_MAX)
        cur_fail(&c, "body length");
    if (frame->flags & ~(uint32_t)(FRAME_REPLY | FRAME_MORE))
        cur_fail(&c, "flags");
    if (frame->status > MC_AGAIN) /* whoever hears "pending" would wait for ever */
        cur_fail(&c, "status");
    *bad = c.bad;
    return cur_status(&c);
}

void piece_encode(const struct piece *piece, uint8_t out[PIECE_HEADER_SIZE])
{
    le32_put(out, piece->len);
    le32_put(out + 4, piece->crc);
    le32_put(out + 8, (uint32_t)(int32_t)piece->status);
    le32_put(out + 12, crc32c(0, out, 12));
}

enum mc_status piece_decode(const uint8_t in[PIECE_HEADER_SIZE], uint64_t left, struct piece *piece, const char **bad)
{
    struct cur c = cur_of(in, PIECE_HEADER_SIZE);

    piece->len = cur_u32(&c, "piece length");
    piece->crc = cur_u32(&c, "piece crc");
    piece->status = (enum mc_status)(int32_t)cur_u32(&c, "piece status");
    if (crc32c(0, in, 12) != cur_u32(&c, "piece header crc"))
        cur_fail(&c, "piece header crc");
    if (piece->status > 0)
        cur_fail(&c, "piece status");
    if (piece->status < 0 ? piece->len != 0 : piece->len == 0 || piece->len > PIECE_MAX || piece->len > left)
        cur_fail(&c, "piece length");
    *bad = c.bad;
    return cur_status(&c);
}

/* --- handshake --- */

enum hello_field {
    HELLO_PROTOCOL_MIN = 1,
    HELLO_PROTOCOL_MAX = 2,
    HELLO_FEATURES = 3,
    HELLO_ROLE = 4,
    HELLO_UUID = 5,
    HELLO_EPOCH = 6,
    HELLO_HOST_ID = 7,
    HELLO_TENANT = 8,
    HELLO_BUILD = 9,
    HELLO_RECIPE = 10,
    HELLO_AUTH_METHOD = 11,
    HELLO_AUTH = 12,
    HELLO_CREDITS = 13,
    HELLO_BODY_LIMIT = 14,
    HELLO_PAYLOAD_LIMIT = 15,
};

enum refuse_field { REFUSE_STATUS = 1, REFUSE_TEXT = 2 };

#define REFUSE_TEXT_MAX 512

static const char *const role_names[ROLES] = {
    "none", "client", "node", "master", "worker", "conductor", "heartbeat", "bulk", "engine", "tool"};

const char *role_name(enum hello_role role)
{
    return (unsigned)role < ROLES ? role_names[role] : "unknown";
}

static uint16_t version_or(uint16_t said, uint16_t ours)
{
    return said ? said : ours;
}

void hello_encode(const struct hello *hello, struct buf *body)
{
    put_field_u16(body, HELLO_PROTOCOL_MIN, version_or(hello->protocol_min, PROTOCOL_MIN));
    put_field_u16(body, HELLO_PROTOCOL_MAX, version_or(hello->protocol_max, PROTOCOL_MAX));
    put_field_u64(body, HELLO_FEATURES, hello->features);
    put_field_u16(body, HELLO_ROLE, (uint16_t)hello->role);
    put_field_bytes(body, HELLO_UUID, hello->uuid, UUID_SIZE);
    put_field_u32(body, HELLO_EPOCH, hello->epoch);
    put_field_text(body, HELLO_HOST_ID, hello->host_id);
    put_field_text(body, HELLO_TENANT, hello->tenant);
    put_field_text(body, HELLO_BUILD, hello->build);
    put_field_bytes(body, HELLO_RECIPE, hello->recipe, sizeof(hello->recipe));
    put_field_text(body, HELLO_AUTH_METHOD, hello->auth_method[0] ? hello->auth_method : "none");
    if (hello->auth_len)
        put_field_bytes(body, HELLO_AUTH, hello->auth, hello->auth_len);
    put_field_u32(body, HELLO_CREDITS, hello->credits);
    put_field_u32(body, HELLO_BODY_LIMIT, hello->body_max);
    put_field_u64(body, HELLO_PAYLOAD_LIMIT, hello->payload_max);
}

static void hello_field(struct field *f, struct hello *hello)
{
    struct slice auth;

    switch (f->id) {
    case HELLO_PROTOCOL_MIN: hello->protocol_min = field_u16(f, "protocol min"); break;
    case HELLO_PROTOCOL_MAX: hello->protocol_max = field_u16(f, "protocol max"); break;
    case HELLO_FEATURES: hello->features = field_u64(f, "features"); break;
    case HELLO_ROLE: hello->role = (enum hello_role)field_u16(f, "role"); break;
    case HELLO_UUID: field_copy(f, hello->uuid, UUID_SIZE, "uuid"); break;
    case HELLO_EPOCH: hello->epoch = field_u32(f, "epoch"); break;
    case HELLO_HOST_ID: field_text(f, hello->host_id, sizeof(hello->host_id), "host id"); break;
    case HELLO_TENANT: field_text(f, hello->tenant, sizeof(hello->tenant), "tenant"); break;
    case HELLO_BUILD: field_text(f, hello->build, sizeof(hello->build), "build"); break;
    case HELLO_RECIPE: field_copy(f, hello->recipe, sizeof(hello->recipe), "recipe"); break;
    case HELLO_AUTH_METHOD: field_text(f, hello->auth_method, sizeof(hello->auth_method), "auth method"); break;
    case HELLO_AUTH:
        auth = field_bytes(f, 0, HELLO_AUTH_MAX, "auth");
        hello->auth_len = (uint16_t)auth.len;
        if (auth.len)
            memcpy(hello->auth, auth.ptr, auth.len);
        break;
    case HELLO_CREDITS: hello->credits = field_u32(f, "credits"); break;
    case HELLO_BODY_LIMIT: hello->body_max = field_u32(f, "body limit"); break;
    case HELLO_PAYLOAD_LIMIT: hello->payload_max = field_u64(f, "payload limit"); break;
    default: field_unknown(f);
    }
}

enum mc_status hello_decode(struct slice body, struct hello *hello, const char **bad)
{
    struct cur c = cur_of_slice(body);
    struct field f;

    *hello = (struct hello){0};
    while (field_next(&c, &f))
        hello_field(&f, hello);
    if (hello->protocol_min == 0 || hello->protocol_max < hello->protocol_min)
        cur_fail(&c, "protocol range");
    *bad = c.bad;
    return cur_status(&c);
}

void refuse_encode(enum mc_status status, const char *text, struct buf *body)
{
    size_t len = strlen(text);

    put_field_u32(body, REFUSE_STATUS, (uint32_t)(int32_t)status);
    put_field_bytes(body, REFUSE_TEXT, text, len < REFUSE_TEXT_MAX ? len : REFUSE_TEXT_MAX - 1);
}

enum mc_status refuse_decode(struct slice body, enum mc_status *status, char *text, size_t size)
{
    struct cur c = cur_of_slice(body);
    char full[REFUSE_TEXT_MAX] = "";
    struct field f;

    *status = MC_EREFUSED;
    while (field_next(&c, &f)) {
        switch (f.id) {
        case REFUSE_STATUS: *status = (enum mc_status)(int32_t)field_u32(&f, "status"); break;
        case REFUSE_TEXT: field_text(&f, full, sizeof(full), "text"); break;
        default: field_unknown(&f);
        }
    }
    if (*status >= 0)
        *status = MC_EREFUSED; /* whatever a peer says, a refusal is a failure */
    snprintf(text, size, "%s", full);
    return cur_status(&c);
}

const char *build_of(const struct hello *hello)
{
    return hello->build[0] ? hello->build : "unknown build";
}

static enum mc_status check_version(
    const struct hello *ours, const struct hello *theirs, uint16_t *protocol, struct buf *why)
{
    uint16_t our_min = version_or(ours->protocol_min, PROTOCOL_MIN);
    uint16_t our_max = version_or(ours->protocol_max, PROTOCOL_MAX);
    uint16_t top = our_max < theirs->protocol_max ? our_max : theirs->protocol_max;

    if (top >= our_min && top >= theirs->protocol_min) {
        *protocol = top;
        return MC_OK;
    }
    buf_printf(why, "no common protocol version: here %u to %u (%s), there %u to %u (%s): update the older one",
        our_min, our_max, build_of(ours), theirs->protocol_min, theirs->protocol_max, build_of(theirs));
    return MC_EVERSION;
}

static enum mc_status check_identity(const struct hello *theirs, const struct hello_expect *expect, struct buf *why)
{
    char want[UUID_TEXT], got[UUID_TEXT];

    if (expect->uuid_set && memcmp(expect->uuid, theirs->uuid, UUID_SIZE) != 0) {
        buf_printf(
            why, "wrong uuid: expected %s, found %s", uuid_format(expect->uuid, want), uuid_format(theirs->uuid, got));
        return MC_EREFUSED;
    }
    if (expect->epoch_set && expect->epoch != theirs->epoch) {
        buf_printf(why, "wrong epoch: expected %u, found %u", expect->epoch, theirs->epoch);
        return MC_EREFUSED;
    }
    if (expect->roles && ((unsigned)theirs->role >= ROLES || !(expect->roles & 1u << theirs->role))) {
        buf_printf(why, "role %s does not belong here: is it the address of another process?", role_name(theirs->role));
        return MC_EREFUSED;
    }
    return MC_OK;
}

static enum mc_status check_recipe(
    const struct hello *ours, const struct hello *theirs, const struct hello_expect *expect, struct buf *why)
{
    static const uint8_t any[32];
    const uint8_t *want = expect->recipe_set ? expect->recipe : ours->recipe;
    char here[17], there[17];

    if (memcmp(want, theirs->recipe, 32) == 0)
        return MC_OK;
    if (!expect->recipe_set && (memcmp(want, any, 32) == 0 || memcmp(theirs->recipe, any, 32) == 0))
        return MC_OK;
    hex_encode(here, want, 8);
    hex_encode(there, theirs->recipe, 8);
    buf_printf(why, "different hash recipe: here %s, there %s", here, there);
    return MC_EMISMATCH;
}

enum mc_status hello_check(const struct hello *ours, const struct hello *theirs, const struct hello_expect *expect,
    uint16_t *protocol, struct buf *why)
{
    static const struct hello_expect anybody;
    const char *our_auth = ours->auth_method[0] ? ours->auth_method : "none";
    const char *their_auth = theirs->auth_method[0] ? theirs->auth_method : "none";
    enum mc_status status = check_version(ours, theirs, protocol, why);

    expect = expect ? expect : &anybody;
    if (status == MC_OK)
        status = check_identity(theirs, expect, why);
    if (status == MC_OK && strcmp(our_auth, their_auth) != 0) {
        buf_printf(why, "authentication method '%s' is not '%s'", their_auth, our_auth);
        status = MC_EPERM;
    }
    if (status == MC_OK && expect->tenant && strcmp(expect->tenant, theirs->tenant) != 0) {
        buf_printf(why, "tenant '%s' is not '%s'", theirs->tenant, expect->tenant);
        status = MC_EPERM;
    }
    return status == MC_OK ? check_recipe(ours, theirs, expect, why) : status;
}

const char *uuid_format(const uint8_t uuid[UUID_SIZE], char out[UUID_TEXT])
{
    static const int groups[] = {4, 2, 2, 2, 6};
    char *to = out;

    for (int g = 0; g < 5; g++) {
        hex_encode(to, uuid, (size_t)groups[g]);
        uuid += groups[g];
        to += 2 * groups[g];
        *to++ = '-';
    }
    to[-1] = 0;
    return out;
}

enum mc_status uuid_parse(const char *text, uint8_t uuid[UUID_SIZE])
{
    char hex[2 * UUID_SIZE + 1];
    size_t n = 0;

    if (strlen(text) != UUID_TEXT - 1)
        return MC_EINVAL;
    for (int i = 0; i < UUID_TEXT - 1; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash != (text[i] == '-'))
            return MC_EINVAL;
        if (!dash)
            hex[n++] = text[i];
    }
    hex[n] = 0;
    return hex_decode(uuid, UUID_SIZE, hex);
}
