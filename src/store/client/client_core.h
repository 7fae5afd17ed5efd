/* client_core.h - the client's side: calls in, verified results out. Pure (store/port.h).
 *
 * A call is memory of the caller's (the shell's), borrowed from client_core_start() until it comes out of
 * client_core_done(): exactly once, with everything it lent untouched from then on. Nothing completes inside start.
 *
 *   get      locate (cache, else lookups of all waiting calls in one message) -> read header and payload in one batch ->
 *            verify -> done; wrong: forget the location, ask once more, next copy, then a miss with its reason
 *   put      choose a node -> NODE_PUT -> reply; a failure before the deadline: another node
 *   health   up -> suspect (silence while something is awaited, or the master says so) -> one trial per 100 ms, all others get
 *            a miss at once -> up with the first sign of life
 *
 * Threads: one. */
#ifndef STORE_CLIENT_CORE_H
#define STORE_CLIENT_CORE_H

#include "base/heap.h"
#include "base/list.h"
#include "mooncake/store.h"
#include "store/object.h"
#include "store/port.h"

struct client_core;

struct client_limits {      /* 0: the default */
    uint32_t locations_max; /* 1,048,576 cached locations */
    uint32_t nodes_max;     /* 1024 */
    uint32_t suspect_ms;    /* 400: silence while waiting */
    uint32_t trial_ms;      /* 100: one trial of a suspect per this long */
    uint32_t lease_ms;      /* 5000: promise of exists and prefix; MC_LEASE_MASTER: the master's */
    bool get_promises;      /* gets that ask the master promise too */
    uint32_t attempts_max;  /* 4 tries of one operation */
    uint32_t inline_max;    /* STORE_INLINE_MAX, and at most that: bytes of a put that travel in its message */
    uint32_t ns;
};

struct client_bugs {
    bool skip_generation; /* reads are accepted without looking at generation and key */
    bool skip_crc;        /* ... and without looking at checksums */
};

enum client_call_kind {
    CALL_OP = 1, /* put, upsert, get, exists, remove: `op` */
    CALL_EXISTS, /* many of those at once, in one message: `exists` */
    CALL_PREFIX,
    CALL_WHERE,
    CALL_PIN, /* pins.keys -> pins.token */
    CALL_VIEW,
    CALL_PART_BEGIN, /* part.key, length, meta -> part.handle */
    CALL_PART_WRITE,
    CALL_PART_COMMIT,
    CALL_LIST,
    CALL_MODEL,
    CALL_BUNDLE, /* bundle_of.ops: puts that are seen together */
};

enum {
    CLIENT_COPIES = MC_REPLICAS_MAX,
    CLIENT_EXISTS_MAX = 1024,
};

struct client_call {
    /* set by the caller */
    enum client_call_kind kind;
    uint64_t deadline_ns;
    uint8_t trace[TRACE_SIZE];
    void *user;
    union {
        struct mc_store_op *op; /* result goes into op->result */
        struct {
            struct mc_store_op *ops; /* those whose result is MC_PENDING are asked about, and have one afterwards */
            uint32_t n;              /* up to CLIENT_EXISTS_MAX */
        } exists;
        struct {
            const uint8_t (*ids)[16];
            uint32_t n, lease_ms;
            uint16_t group, shard, shards;
            struct mc_prefix out;
            struct mc_prefix_node *nodes; /* may be NULL */
            uint32_t nodes_max, nodes_n;
        } prefix;
        struct {
            struct mc_key key;
            struct mc_location *rows;
            uint32_t rows_max, rows_n;
        } where;
        struct {
            const struct mc_key *keys;
            uint32_t n, pin_ms;
            uint64_t token; /* out */
        } pins;
        struct {
            struct mc_key key;
            uint32_t pin_ms;
            struct mc_view out;
        } view;
        struct {
            struct mc_key key;                 /* begin */
            const struct mc_object_meta *meta; /* begin; may be NULL */
            uint64_t length;                   /* begin: of the object; write: of the data */
            uint64_t handle;                   /* out of begin, in of the others */
            uint64_t offset;                   /* write */
            const void *data;                  /* write */
            struct mc_store_result result;     /* commit */
        } part;
        struct {
            struct slice prefix;
            uint64_t cursor; /* in and out */
            uint32_t max;
            struct buf *text; /* entries as lines are appended */
        } list;
        struct {
            struct slice name, record;
            struct buf *other; /* receives the record that is there on MC_EMISMATCH */
        } model;
        struct {
            struct mc_store_op *ops; /* of names, MC_PUT or MC_UPSERT; what they want in replicas the first one says */
            uint32_t n;              /* 1 to MC_BUNDLE_MAX */
        } bundle_of;                 /* each has the status of the call */
    };

    /* out, all kinds */
    enum mc_status status; /* CALL_OP: as op->result.status; CALL_EXISTS: of those that have got none of their own */

    /* the core's own */
    struct client_private *priv;
    struct put_bundle *member_of; /* whose member this is: an op the core itself has started; NULL for all others */
    struct list link;
};

enum mc_status client_core_create(
    const struct client_limits *limits, const struct store_port *port, uint64_t seed, struct client_core **out);
void client_core_destroy(struct client_core *core); /* no call may be running: client_core_close() first */
void client_core_set_bugs(struct client_core *core, struct client_bugs bugs);

/* MC_OK: it will come out of client_core_done(). MC_AGAIN: too much in flight; MC_EINVAL: op out of its limits. */
enum mc_status client_core_start(struct client_core *core, uint64_t now, struct client_call *call);
/* Give it up: it comes out with MC_ECANCELED; when this returns nothing touches its memory any more. */
void client_core_cancel(struct client_core *core, uint64_t now, struct client_call *call);
/* How a call ended that was not started, or is done: its status, also that of its operations which have none yet. */
void client_call_end(struct client_call *call, enum mc_status status);
/* Next completed call, NULL: none. Asked by the shell after each event, and after start and cancel. */
struct client_call *client_core_done(struct client_core *core);
/* Complete every call with MC_ECLOSED. */
void client_core_close(struct client_core *core, uint64_t now);

/* Do not wait. */
void client_core_part_abort(struct client_core *core, uint64_t now, uint64_t handle);
void client_core_unpin(struct client_core *core, uint64_t now, uint64_t token);
void client_core_view_release(struct client_core *core, uint64_t now, struct mc_view *view);

void client_core_on_peer_up(
    struct client_core *core, uint64_t now, uint32_t peer, const uint8_t uuid[16], uint32_t epoch);
void client_core_on_peer_down(struct client_core *core, uint64_t now, uint32_t peer);
void client_core_on_message(struct client_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void client_core_on_io(struct client_core *core, uint64_t now, uint64_t cookie, enum mc_status status);
void client_core_on_tick(struct client_core *core, uint64_t now);
uint64_t client_core_wake(const struct client_core *core);
/* This process was stopped for a while: silence until now says nothing about others. */
void client_core_on_gap(struct client_core *core, uint64_t now);

/* Would a get ask this node? Not while it is suspect or gone. */
bool client_core_usable(const struct client_core *core, uint32_t peer);

/* Is an answer of this peer (STORE_PEER_MASTER, or a node) awaited? */
bool client_core_awaits(const struct client_core *core, uint32_t peer);

void client_core_stats(const struct client_core *core, struct mc_store_stats *out);

/* Members as last told by the master, one by one: *at starts at 0. */
bool client_core_member(const struct client_core *core, uint32_t *at, struct store_member *out);

#endif
