/* proto.h - the messages of the Store: what client, node and master say to each other. docs/wire-store.md.
 *
 * A struct store_msg is one frame: type, request id, status and deadline travel in the frame header, the rest as fields of
 * the body. A reply has the type of its request. Lists of records (locations, entries, keys, generations) stay packed as
 * they lie on the wire, in a slice, and are walked with the functions below; so neither side allocates per record.
 *
 * Decoding checks every bound: a message that was accepted can be walked without failures. All slices of a decoded
 * message are lent from the body. Threads: any. */
#ifndef STORE_PROTO_H
#define STORE_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/cursor.h"
#include "base/slice.h"
#include "mooncake/status.h"
#include "net/frame.h"
#include "store/key.h"

enum {
    STORE_INLINE_MAX = 64 << 10,      /* payload of a put that travels in the message itself */
    STORE_SPANS_MAX = 64,             /* source pieces of one put that is pulled */
    STORE_KEYS_MAX = 16384,           /* keys in one lookup, ids in one prefix query */
    STORE_RECORDS_MAX = 65536,        /* records in one other list */
    STORE_BUNDLE_MAX = MC_BUNDLE_MAX, /* objects of one bundle */
    STORE_SEGMENTS_MAX = 4096,        /* segments of one node, and its directory */
    STORE_SEGMENT_NAMES = STORE_SEGMENTS_MAX - 1,
    STORE_NODES_MAX = 1024,         /* nodes of one cluster */
    STORE_PART_WRITE_MAX = 4 << 20, /* bytes of one part write message */
    STORE_REGION_KEY = 64,
};

/* ---- records ---------------------------------------------------------------------------------------------------- */

/* Where one copy of an object lies, in answers of the master. 48 bytes packed. */
enum { STORE_LOC_SIZE = 48 };
struct store_loc {
    uint32_t key;  /* index into the keys of the query */
    uint16_t node; /* index into the node rows of the answer */
    uint8_t tier;  /* 0 DRAM */
    uint8_t flags; /* 0 */
    uint32_t segment;
    uint32_t head; /* bytes of header and chunk table at `offset`; the payload follows */
    uint64_t offset;
    uint64_t length; /* of the payload */
    uint64_t generation;
    uint64_t version; /* named keys */
};
void store_loc_put(struct buf *list, const struct store_loc *loc);
struct store_loc store_loc_at(struct slice list, uint32_t index);
static inline uint32_t store_loc_count(struct slice list)
{
    return (uint32_t)(list.len / STORE_LOC_SIZE);
}

/* A node named in an answer. 28 bytes packed. */
enum { STORE_ROW_SIZE = 28 };
struct store_row {
    uint8_t uuid[16];
    uint32_t epoch;
    uint32_t state; /* enum store_node_state */
    uint32_t lead;  /* prefix: how many blocks from the first on it holds without a hole */
};
void store_row_put(struct buf *list, const struct store_row *row);
struct store_row store_row_at(struct slice list, uint32_t index);
static inline uint32_t store_row_count(struct slice list)
{
    return (uint32_t)(list.len / STORE_ROW_SIZE);
}

/* What a node tells the master of one object: in commits and inventories. Walked with a cursor. */
enum store_entry_flags {
    STORE_REPLACE = 1, /* upsert: the version before it dies */
    STORE_REPLICA = 2, /* a further copy of version `version` (named) */
    STORE_SOFT_PIN = 4,
    STORE_DECODE = 8,
};
struct store_entry {
    struct store_key key;
    uint64_t generation, version, offset, length;
    uint32_t segment, head, flags;
};
void store_entry_put(struct buf *list, const struct store_entry *entry);
bool store_entry_next(struct cur *list, struct store_entry *entry); /* false at the end or (sticky) when malformed */
bool store_entry_check_next(struct cur *list); /* the same without an entry: digests of names are dear, and made once */

/* Verdict of the master on one entry of a commit, in their order. 12 bytes packed.
 *   MC_OK      indexed, as `version`          MC_EEXIST  named: lost against `version`, free it (the caller is told success)
 *   MC_EBUSY   the index is full: free it     MC_ESTALE  replica of a version that is gone: free it */
enum { STORE_VERDICT_SIZE = 12 };
struct store_verdict {
    enum mc_status status;
    uint64_t version;
};
void store_verdict_put(struct buf *list, const struct store_verdict *verdict);
struct store_verdict store_verdict_at(struct slice list, uint32_t index);
static inline uint32_t store_verdict_count(struct slice list)
{
    return (uint32_t)(list.len / STORE_VERDICT_SIZE);
}

/* Lists of plain numbers and of keys. */
static inline uint32_t store_u64_count(struct slice list)
{
    return (uint32_t)(list.len / 8);
}
static inline uint64_t store_u64_at(struct slice list, uint32_t index)
{
    return le64_get(list.ptr + 8 * (size_t)index);
}
/* Keys are packed as key.h says (store_key_put). False at the end. */
bool store_key_next(struct cur *list, uint32_t ns, struct store_key *key);
bool store_key_check_next(struct cur *list); /* the same without a key */

/* Ledger of a node: every object it ever accepted is in exactly one of the rows below the first. */
enum store_ledger_row {
    LEDGER_ACCEPTED,
    LEDGER_PRESENT,
    LEDGER_IN_FLIGHT, /* allocated, not yet committed (or known to be unindexed) */
    LEDGER_REMOVED,
    LEDGER_REPLACED, /* upsert, or a newer version was found at a rebuild */
    LEDGER_EVICTED_SPACE,
    LEDGER_EVICTED_WATERMARK,
    LEDGER_ABORTED_WRITER, /* its connection went, or its source did */
    LEDGER_ABORTED_IDLE,   /* parts: 10 s without a write */
    LEDGER_ABORTED_LOST,   /* named: another put was first */
    LEDGER_ABORTED_MASTER, /* named: no verdict */
    LEDGER_ABORTED_DEADLINE,
    LEDGER_ABORTED_CALLER, /* part abort, bad request */
    LEDGER_ROWS
};
struct store_count {
    uint64_t objects, bytes;
};
struct store_ledger {
    struct store_count row[LEDGER_ROWS];
};
const char *store_ledger_name(enum store_ledger_row row);
/* accepted == sum of the others, in objects and bytes? */
bool store_ledger_exact(const struct store_ledger *ledger);

enum store_node_state { NODE_UP, NODE_SUSPECT, NODE_UNREACHABLE, NODE_DRAINING };

/* A node as the membership table shows it. */
struct store_member {
    uint8_t uuid[16];
    uint32_t epoch;
    uint8_t state;  /* enum store_node_state */
    bool ephemeral; /* embedded: its UUID will not come back */
    char name[64];
    char address[128];
    char host_id[65];
    char zone[33];
    uint64_t capacity, used, objects, puts, evictions, hits;
};
void store_member_put(struct buf *list, const struct store_member *member);
bool store_member_next(struct cur *list, struct store_member *member);

/* Is it the node somebody means, who says a UUID in hex (32 digits) or a name? */
bool store_member_is(const struct store_member *member, struct slice meant);

struct store_segment {
    uint32_t id;
    uint64_t size;
    uint8_t region[STORE_REGION_KEY];
};
enum { STORE_SEGMENT_SIZE = 4 + 8 + STORE_REGION_KEY };
void store_segment_put(struct buf *list, const struct store_segment *segment);
struct store_segment store_segment_at(struct slice list, uint32_t index);
static inline uint32_t store_segment_count(struct slice list)
{
    return (uint32_t)(list.len / STORE_SEGMENT_SIZE);
}

/* Source pieces of a put: region key, offset in it, length. They lie one after the other in the object. */
struct store_span {
    uint8_t region[STORE_REGION_KEY];
    uint64_t offset, length;
};
enum { STORE_SPAN_SIZE = STORE_REGION_KEY + 16 };
void store_span_put(struct buf *list, const struct store_span *span);
struct store_span store_span_at(struct slice list, uint32_t index);
static inline uint32_t store_span_count(struct slice list)
{
    return (uint32_t)(list.len / STORE_SPAN_SIZE);
}

/* ---- messages --------------------------------------------------------------------------------------------------- */

/* What a put says of its object beside bytes. */
struct store_meta {
    uint8_t parent[16];
    uint32_t depth, tokens;
    uint64_t geometry;
    uint32_t flags;      /* enum mc_object_flags */
    struct slice planes; /* u64 sizes packed; empty: one plane */
};

/* client -> node: NODE_PUT, PART_BEGIN (no source). Exactly one of `data` and `spans` for a put of length > 0. */
struct store_put {
    struct store_key key;
    struct store_meta meta;
    uint64_t length;
    uint32_t flags; /* STORE_REPLACE, STORE_REPLICA (of `version`) */
    uint64_t version;
    uint64_t bundle; /* not 0, named only: it is kept back, hidden, until NODE_BUNDLE says so under this number */
    struct slice data;
    struct slice spans;
};
/* its reply, and that of PART_BEGIN (only `part`) and PART_COMMIT */
struct store_put_reply {
    bool existed, unindexed;
    uint64_t version;
    uint64_t part; /* names the part for the messages that follow on this connection */
    struct store_loc loc;
    bool has_loc;
};
struct store_part { /* PART_WRITE, PART_COMMIT, PART_ABORT */
    uint64_t part;
    uint64_t offset;
    struct slice data;
    struct slice spans;
};
struct store_pin {  /* NODE_PIN; NODE_UNPIN has only the token. Reply has no body: all of them or none */
    uint64_t token; /* chosen by the client, unique on its connection; the same again renews */
    uint32_t pin_ms;
    struct slice generations;
};
struct
    store_bundle { /* NODE_BUNDLE: what this client has kept back there under `number`. Reply: verdicts in their order */
    uint64_t number;
    struct slice generations; /* exactly these; none: give it up */
};

struct store_register {       /* node -> master, first on its control connection */
    struct store_member self; /* state is ignored */
    uint64_t term_max;        /* highest master term it has seen */
};
struct store_welcome { /* its reply: inventory follows, then commits */
    uint64_t term;
    uint64_t instance; /* random per start of the master */
    uint32_t forget_ms;
};
struct
    store_beat { /* node -> master, every 200 ms on its own connection. Its request is the node's time when it was sent, so the
                     * reply says from when the authority in it counts */
    uint8_t uuid[16];
    uint32_t epoch;
    bool draining;
    uint64_t capacity, used, objects, puts, evictions, hits, pinned, unindexed;
    struct store_ledger ledger;
};
struct
    store_commit { /* node -> master: NODE_COMMIT, NODE_INVENTORY. Reply of a commit: verdicts; of an inventory: none */
    struct slice entries;
    bool last;  /* inventory: that was everything */
    bool whole; /* commit: all of it or nothing */
};
struct store_gone { /* node -> master: these left by the node's own decision; no reply */
    struct slice generations;
};
struct store_drop { /* master -> node: free these. The reply, when their headers are dead, names them again */
    struct slice generations;
    bool replaced; /* else removed */
};
struct store_promise { /* master -> node, no reply */
    uint32_t ms;
    struct slice generations;
};

struct store_lookup { /* client -> master: MASTER_LOOKUP */
    uint32_t ns;
    struct slice keys;
    uint32_t count;      /* of keys; set when decoded */
    uint32_t promise_ms; /* 0: promise nothing */
};
struct store_prefix { /* client -> master: MASTER_PREFIX */
    uint32_t ns;
    uint16_t group, shard, shards;
    uint32_t promise_ms;
    bool no_locations; /* count and node rows are enough */
    struct slice ids;  /* 16 bytes each */
};
struct store_found {     /* reply of both */
    uint32_t blocks;     /* prefix */
    uint64_t bytes;      /* prefix: of the parts asked for */
    bool rebuilding;     /* not every known node has reported yet */
    struct slice rows;   /* struct store_row */
    struct slice locs;   /* struct store_loc; prefix: key = block index */
    struct slice misses; /* lookup: one byte per key, enum mc_miss */
};
struct store_remove { /* client -> master. Reply: no body; MC_ENOENT, MC_EPERM (promised) */
    struct store_key key;
    bool force;
    struct slice node; /* only the copies there: a node as store_member_is() knows it; empty: all */
};
struct store_members { /* reply of MASTER_SUBSCRIBE, then notices */
    uint64_t term;
    bool full;              /* else only those that changed */
    struct slice list;      /* struct store_member */
    struct slice forgotten; /* 16-byte UUIDs */
};
struct store_model { /* client -> master; reply: MC_EMISMATCH with the record that is there */
    struct slice name, record;
};
struct store_list { /* client -> master; reply: entries and the next cursor */
    uint32_t ns;
    struct slice prefix;
    uint64_t cursor;
    uint32_t max;
    struct slice entries; /* their `segment` is an index into `rows` (the node of one copy) */
    struct slice rows;
};

/* type (net/messages.h): MSG_NODE_...: to a node, or of a node to its clients; MSG_MASTER_...: to or of the master */
struct store_msg {
    uint16_t type;
    bool reply;
    enum mc_status status; /* of a reply; with a failure the body is empty, except where said above */
    uint64_t request;      /* 0: wants no reply */
    uint32_t deadline_ms;  /* left; DEADLINE_MS_NONE */
    uint8_t trace[TRACE_SIZE];
    union {
        struct slice segments; /* NODE_INFO: node -> client, when it connected: struct store_segment */
        struct store_put put;
        struct store_put_reply put_reply;
        struct store_part part;
        struct store_pin pin;
        struct store_bundle bundle;
        struct slice touch; /* NODE_TOUCH: generations, no reply */
        struct store_register reg;
        struct store_welcome welcome;
        struct store_beat beat;
        uint32_t
            authority_ms; /* reply of NODE_BEAT: the node's word on the names it holds counts for so long; 0: it does not */
        struct store_commit commit;
        struct slice verdicts;
        struct store_gone gone;
        struct store_drop drop;
        struct store_promise promise;
        struct store_lookup lookup;
        struct store_prefix prefix;
        struct store_found found;
        struct store_remove remove;
        struct store_members members;
        struct store_model model;
        struct store_list list;
    };
};

/* Write the body of `msg` (header fields are the frame's). Look at buf_status(). */
void store_msg_encode(const struct store_msg *msg, struct buf *body);

/* Read a frame of a Store type. MC_OK; MC_ENOSUP: a type that is not ours or a must-understand field; MC_EPROTO: *bad names
 * the field. */
enum mc_status store_msg_decode(const struct frame *frame, struct store_msg *msg, const char **bad);

/* The answer to `request`: type and request id, everything else zero. */
struct store_msg store_msg_reply(const struct store_msg *request, enum mc_status status);

#endif
