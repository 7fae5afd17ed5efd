/* client_impl.h - what the files of the client's core share. */
#ifndef STORE_CLIENT_IMPL_H
#define STORE_CLIENT_IMPL_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/hashmap.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/rng.h"
#include "store/client/client_core.h"

enum {
    CALLS_MAX = 65536,
    CACHED_PLACES = 2, /* copies kept for each cached key */
    GET_READS = 8,     /* pieces of a read without an allocation of its own */
    PUT_REGIONS = 4,
    LOOKUP_KEYS = 1024, /* keys in one lookup message */
    TOUCH_BATCH = 64,
    TOUCH_MS = 100,
    EARLY_MAX = 1 << 20, /* a read that may be in vain is not longer: less than a millisecond of a link */
    WAIT_NODE_MS = 500,  /* how long calls wait for a first connection */
    LOST_MS = 10000,     /* neither connected nor in the list of the master: given up */
    BACKOFF_MS = 5,      /* a queue or pool over there was full */
    PARTS_MAX = 4096,
    BUNDLE_PUTS = 64, /* of one bundle under way: inline they are 4 MiB */
    VIEW_PIN_MS = 5000,
};

struct client_private;
struct request;

/* The end of a request: its answer, or NULL and why there is none. The request is idle again. */
typedef void request_done_fn(struct client_core *core, uint64_t now, struct request *request, enum mc_status status,
    const struct store_msg *msg);

struct request {
    struct hnode node; /* by id, while under way */
    struct list link;  /* of its peer's */
    uint64_t id;
    uint32_t peer;
    bool quick; /* silence for suspect_ms means something (nothing large is moved first) */
    uint64_t sent_at;
    request_done_fn *done;
};

enum health { PEER_CONNECTING, PEER_OK, PEER_SUSPECT, PEER_GONE };

/* A node (or, as peer 0, the master). */
struct cpeer {
    bool used;
    bool unlisted; /* the master's last full list does not have it */
    bool lost;     /* the master has not reached it since we know it: it costs no connection until he does */
    enum health health;
    struct store_member member;
    uint64_t heard;
    uint64_t since;      /* of the present health */
    uint64_t trial_at;   /* suspects: the next trial goes then */
    struct request ping; /* asks for nothing but an answer */
    struct list requests;
    struct list reads; /* privates with a read under way */
    struct buf touches;
    uint64_t touch_at;
    uint32_t distance;
};

/* One copy of an object, as far as this client knows. */
struct place {
    uint64_t offset, length, generation, version;
    uint32_t epoch, segment, head;
    uint16_t peer;
};

struct cached {
    struct hnode node;
    struct list lru;
    struct store_key key; /* without name */
    uint64_t floor;       /* named: no older version than this was seen */
    uint8_t n;
    struct place places[CACHED_PLACES];
};

/* A read of where a name was last, started with the question where it is now. */
enum early {
    EARLY_NONE,
    EARLY_READING,
    EARLY_READ, /* its bytes are there, and nobody has looked at them */
};

enum stage {
    STAGE_NEW,
    STAGE_LOCATE, /* waits for the next lookup message, or its answer */
    STAGE_READ,
    STAGE_EDGES,  /* second read: chunks that a range cuts */
    STAGE_REHEAD, /* something did not fit: header once more */
    STAGE_ASK,    /* a request is under way */
    STAGE_WAIT,   /* for a connection, or a little */
};

struct client_private {
    struct client_call *call;
    struct list link;      /* core->live */
    struct list queue;     /* runnable, lookups waiting, or lookup's list */
    struct list read_link; /* of the peer */
    struct heap_node deadline, retry;
    struct request request;
    enum stage stage;
    enum mc_miss miss;   /* last reason */
    enum mc_status last; /* last failure of a put */
    struct store_key key;
    uint32_t key_index; /* in the lookup message */
    uint32_t asks, tries;
    bool maybe_stale;
    bool no_cache; /* the cache was tried */
    uint32_t promise_ms;
    struct store_key *keys; /* of CALL_EXISTS, as its ops; `key` is one after the other of them */

    /* get */
    struct place places[CLIENT_COPIES];
    uint32_t place_count, place_at;
    enum early early; /* while STAGE_LOCATE */
    struct place early_place;
    bool reading;
    uint32_t read_count;
    struct store_read *reads;
    uint8_t *head;
    uint8_t *bounce;
    struct object_header header;
    struct store_read reads_few[GET_READS];
    uint8_t head_few[OBJECT_HEADER_SMALL];
    uint32_t head_crc; /* of the header bytes as first read */

    /* put, part */
    uint8_t (*regions)[STORE_REGION_KEY];
    uint32_t region_count;
    uint8_t regions_few[PUT_REGIONS][STORE_REGION_KEY];
    uint32_t peers_tried[CLIENT_COPIES + 8];
    uint32_t peers_tried_count;
    uint32_t copies; /* made so far */
    uint64_t length;
    uint64_t written; /* part write */
    uint64_t waiting_since;
    struct put_bundle *bundle; /* of a CALL_BUNDLE that runs */

    /* pin, view */
    uint64_t token;
    uint32_t pin_peer_at;
    struct place *pin_places;
    uint32_t pin_count;
};

/* The puts of a CALL_BUNDLE; client_bundle_core.c. */
struct put_bundle {
    struct client_private *p; /* of the call */
    uint64_t number;          /* names it at the node */
    uint32_t peer;            /* who keeps them back; 0: not chosen yet */
    uint32_t next, running;   /* members: the next to start; under way */
    enum mc_status failed;    /* of the first member that did */
    bool ending;              /* members end because it does */
    struct bundle_member {
        struct client_call call;
        struct place place; /* where it is kept back */
        bool kept;
    } members[];
};

struct lookup {
    struct request request;
    struct list waiting; /* privates; key_index is their place in the message */
};

struct part {
    struct list link;
    uint64_t handle, part;
    uint32_t peer;
    uint32_t epoch;
    bool existed;
    uint64_t version;
    struct store_key key;
    uint8_t name[MC_NAME_MAX];
};

/* A pin that is held: renewed while it is a view's. */
struct held {
    struct list link;
    struct heap_node renew;
    uint64_t token;
    uint32_t pin_ms;
    const void *base; /* of a view's mapping */
    uint32_t peers[CLIENT_COPIES * 8];
    uint32_t peer_count;
};

struct client_core {
    struct client_limits limits;
    struct client_bugs bugs;
    struct store_port port;
    struct rng rng;
    struct cpeer *peers;
    uint32_t peers_top;
    struct hashmap requests, cache;
    struct list lru;
    struct list live, runnable, done;
    struct list lookups_waiting;
    struct list parts, helds;
    struct heap deadlines, retries, renews;
    struct pool call_pool, cache_pool, lookup_pool, part_pool, held_pool;
    struct buf scratch, data;
    uint64_t seed, next_request, next_token, next_part;
    uint64_t wake;
    struct request subscribe;
    uint64_t subscribe_at; /* to be asked then; DEADLINE_NONE */
    bool subscribed, closing;
    uint64_t created_at;
    struct mc_store_stats stats;
};

/* client_core.c */
void client_end(struct client_core *core, struct client_private *p, enum mc_status status); /* the call is complete */
void client_retry_at(struct client_core *core, struct client_private *p, uint64_t at);      /* run it again then */
void client_run(struct client_core *core, uint64_t now, struct client_private *p);
static inline void client_wake_at(struct client_core *core, uint64_t at)
{
    if (at < core->wake)
        core->wake = at;
}

/* client_peers_core.c */
enum mc_status client_ask(struct client_core *core, uint64_t now, uint32_t peer, struct request *request,
    struct store_msg *msg, uint64_t deadline_ns, request_done_fn *done);
void client_request_drop(struct client_core *core, struct request *request); /* its answer is not wanted any more */
bool client_peer_usable(const struct client_core *core, uint32_t peer);
bool client_master_up(struct client_core *core, uint64_t now);
uint32_t client_peer_find(const struct client_core *core, const uint8_t uuid[16]); /* 0: not known */
void client_peer_heard(struct client_core *core, uint64_t now, uint32_t peer);
void client_requests_end(struct client_core *core, uint64_t now, enum mc_status status);
void client_peers_tick(struct client_core *core, uint64_t now);
uint64_t client_peers_wake(const struct client_core *core);
void client_on_members(struct client_core *core, uint64_t now, const struct store_members *members);
void client_touch(struct client_core *core, uint64_t now, uint32_t peer, uint64_t generation);
uint32_t client_choose(struct client_core *core, uint64_t now, const struct client_private *p, const char *wanted);
bool client_any_connecting(const struct client_core *core, uint64_t now);
bool client_connecting(const struct client_core *core, uint64_t now, const char *wanted); /* UUID in hex, or name */

/* client_locate_core.c */
struct cached *client_cached(struct client_core *core, const struct store_key *key);
struct cached *client_cache(
    struct client_core *core, const struct store_key *key); /* made when not there; may be NULL */
void client_cache_place(struct client_core *core, const struct store_key *key, const struct place *place);
void client_uncache(struct client_core *core, const struct store_key *key, uint64_t generation); /* 0: all places */
void client_locate(struct client_core *core, uint64_t now, struct client_private *p, uint32_t promise_ms);
void client_exists_run(struct client_core *core, uint64_t now, struct client_private *p);
/* What an existence question says about the places found. The rest of *r is set. */
enum mc_status client_exists_result(
    const struct client_core *core, const struct client_private *p, struct mc_store_result *r);
void client_lookups_flush(struct client_core *core, uint64_t now);
bool client_place_of(
    struct client_core *core, const struct store_found *found, const struct store_loc *loc, struct place *out);
void client_prefix_run(struct client_core *core, uint64_t now, struct client_private *p);
void client_where_fill(struct client_core *core, struct client_private *p);
/* Called when a key's places are known (or why not); does what the call wanted them for. */
void client_located(struct client_core *core, uint64_t now, struct client_private *p);

/* client_get_core.c */
void client_get_run(struct client_core *core, uint64_t now, struct client_private *p);
void client_get_early(struct client_core *core, uint64_t now, struct client_private *p); /* the master has been asked */
void client_get_located(struct client_core *core, uint64_t now, struct client_private *p);
void client_get_on_io(struct client_core *core, uint64_t now, struct client_private *p, enum mc_status status);
void client_get_fini(struct client_core *core, struct client_private *p);
void client_get_miss(struct client_core *core, struct client_private *p, enum mc_status status, enum mc_miss miss);

/* client_put_core.c */
void client_put_run(struct client_core *core, uint64_t now, struct client_private *p);
void client_part_run(struct client_core *core, uint64_t now, struct client_private *p);
void client_tried_add(struct client_private *p, uint32_t peer);
bool client_refused(enum mc_status status); /* a node's word: nothing was stored there, and another one may have room */
void client_put_fini(struct client_core *core, struct client_private *p);

/* client_bundle_core.c */
void client_bundle_run(struct client_core *core, uint64_t now, struct client_private *p);
void client_bundle_fini(
    struct client_core *core, struct client_private *p); /* its members end; what is kept back is given up */
uint32_t client_bundle_peer(struct client_core *core, uint64_t now, struct put_bundle *bundle, const char *wanted);
void client_bundle_taken(struct put_bundle *bundle, uint32_t peer); /* this node is asked to take them */
void client_bundle_kept(struct client_core *core, struct client_private *p, const struct place *place);
void client_bundle_ended(struct client_core *core, struct client_call *member);

/* client_pin_core.c */
void client_pin_run(struct client_core *core, uint64_t now, struct client_private *p);
void client_view_located(struct client_core *core, uint64_t now, struct client_private *p);
void client_renews_tick(struct client_core *core, uint64_t now);

#endif
