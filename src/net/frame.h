/* frame.h - the frame header, the piece header, and the handshake body. Pure: bytes in, structs out. docs/wire.md is the
 * specification.
 *
 *     | frame header 64 B | body | piece header 16 B | data <= 256 KiB | piece header | data | ...
 *
 * Header and piece header carry their own CRC32C, the header also that of the body, each piece that of its data.
 *
 * Threads: any. */
#ifndef NET_FRAME_H
#define NET_FRAME_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "mooncake/status.h"
#include "net/messages.h"

#define FRAME_MAGIC       0x3143434du /* "MCC1" */
#define FRAME_VERSION     1           /* of the frame layout; the protocol's is agreed on in the handshake */
#define FRAME_HEADER_SIZE 64
#define FRAME_BODY_MAX    (16u << 20)
#define PIECE_HEADER_SIZE 16
#define PIECE_MAX         (256u << 10)
#define TRACE_SIZE        16
#define UUID_SIZE         16

enum frame_flags {
    FRAME_REPLY = 1, /* answers the request of the same id; `status` says how it went */
    FRAME_MORE = 2,  /* with REPLY: not the last frame of this answer */
};

/* The header as it lies on the wire; only frame.c touches it, through little-endian accessors. */
struct frame_wire {
    uint8_t magic[4];
    uint8_t version[2];
    uint8_t type[2];
    uint8_t flags[4];
    uint8_t deadline_ms[4]; /* left; DEADLINE_MS_NONE = no deadline */
    uint8_t request[8];     /* 0 = wants no answer */
    uint8_t trace[16];
    uint8_t body_len[4];
    uint8_t body_crc[4];
    uint8_t payload_len[8];
    uint8_t status[4];     /* of a reply, enum mc_status as i32; 0 in requests */
    uint8_t header_crc[4]; /* over the 60 bytes before */
};
static_assert(sizeof(struct frame_wire) == FRAME_HEADER_SIZE, "one cache line on the wire");

/* A header, decoded. `body` is set by the connection once the body has come. */
struct frame {
    uint16_t type;
    uint32_t flags;
    enum mc_status status;
    uint32_t deadline_ms; /* as sent */
    uint64_t deadline_ns; /* the same on our clock, from when the header was read */
    uint64_t request;
    uint8_t trace[TRACE_SIZE];
    uint32_t body_len, body_crc;
    uint64_t payload_len;
    struct slice body;
};

/* A cursor over the body. */
static inline struct cur frame_body(const struct frame *frame)
{
    return cur_of_slice(frame->body);
}

/* Write the 64 bytes. body_crc is taken from the struct (crc32c of the body; 0 for an empty one). */
void frame_encode(const struct frame *frame, uint8_t out[FRAME_HEADER_SIZE]);

/* MC_OK, or MC_EPROTO / MC_EVERSION with *bad naming the field. body_max bounds body_len. deadline_ns is not set. */
enum mc_status frame_decode(
    const uint8_t in[FRAME_HEADER_SIZE], uint32_t body_max, struct frame *frame, const char **bad);

/* Header of a payload piece. status MC_OK: `len` bytes follow. status < 0: the sender gives the payload up for that reason;
 * len is 0, nothing more comes for this frame. */
struct piece {
    uint32_t len;
    uint32_t crc; /* of the data */
    enum mc_status status;
};

void piece_encode(const struct piece *piece, uint8_t out[PIECE_HEADER_SIZE]);

/* left: how much of the payload is still to come. MC_OK or MC_EPROTO with *bad. */
enum mc_status piece_decode(const uint8_t in[PIECE_HEADER_SIZE], uint64_t left, struct piece *piece, const char **bad);

/* --- handshake --- */

/* Protocol versions this build speaks. */
#define PROTOCOL_MIN 1
#define PROTOCOL_MAX 1

enum hello_role {
    ROLE_NONE = 0,
    ROLE_CLIENT, /* a library user without memory of its own */
    ROLE_NODE,   /* control connection of or to a node */
    ROLE_MASTER,
    ROLE_WORKER,
    ROLE_CONDUCTOR,
    ROLE_HEARTBEAT, /* to a master: this connection carries only heartbeats */
    ROLE_BULK,      /* payload connection, apart from control */
    ROLE_ENGINE,    /* peer of the raw Transfer Engine */
    ROLE_TOOL,      /* kv, top, doctor */
    ROLES
};
const char *role_name(enum hello_role role);

#define HELLO_HOST_MAX   64
#define HELLO_TENANT_MAX 64
#define HELLO_BUILD_MAX  48
#define HELLO_AUTH_MAX   1024

/* What one side says of itself. Zeroed = not said. */
struct hello {
    uint16_t protocol_min, protocol_max; /* 0 = those of this build */
    uint64_t features;                   /* what this side can do; both sides' AND is what is used */
    enum hello_role role;
    uint8_t uuid[UUID_SIZE];
    uint32_t epoch;
    char host_id[HELLO_HOST_MAX + 1]; /* equal host id = same host (to be proved by a memfd nonce) */
    char tenant[HELLO_TENANT_MAX + 1];
    char build[HELLO_BUILD_MAX + 1]; /* for messages; empty = "mooncake 0.1.0", of this build */
    uint8_t recipe[32];              /* hash-recipe fingerprint; zero = any */
    char auth_method[17];            /* "none" */
    uint16_t auth_len;
    uint8_t auth[HELLO_AUTH_MAX];
    uint32_t credits;     /* requests we accept in flight on this connection */
    uint32_t body_max;    /* longest body we accept */
    uint64_t payload_max; /* longest payload we accept */
};

void hello_encode(const struct hello *hello, struct buf *body);

/* MC_OK, MC_EPROTO with *bad, MC_ENOSUP (a must-understand field is unknown). */
enum mc_status hello_decode(struct slice body, struct hello *hello, const char **bad);

/* REFUSE body. `text` is cut at 512 bytes. */
void refuse_encode(enum mc_status status, const char *text, struct buf *body);
enum mc_status refuse_decode(struct slice body, enum mc_status *status, char *text, size_t size);

/* What one side demands of the other. Zeroed = anybody. */
struct hello_expect {
    bool uuid_set, epoch_set, recipe_set;
    uint8_t uuid[UUID_SIZE];
    uint32_t epoch;
    uint8_t recipe[32];
    uint32_t roles; /* bit mask 1 << role; 0 = any */
    const char *tenant;
};

/* The build it names, or "unknown build". */
const char *build_of(const struct hello *hello);

/* Do the two fit? MC_OK and *protocol is the version to speak. Else MC_EVERSION, MC_EREFUSED (uuid, epoch, role), MC_EPERM
 * (tenant, authentication method) or MC_EMISMATCH (recipe), with `why` naming both sides' values. */
enum mc_status hello_check(const struct hello *ours, const struct hello *theirs, const struct hello_expect *expect,
    uint16_t *protocol, struct buf *why);

/* 8-4-4-4-12 hex. */
#define UUID_TEXT 37
const char *uuid_format(const uint8_t uuid[UUID_SIZE], char out[UUID_TEXT]);
enum mc_status uuid_parse(const char *text, uint8_t uuid[UUID_SIZE]);

#endif
