/* client_impl.h - the inside of a compat_client, shared by the files of this folder. */
#ifndef COMPAT_STORE_CLIENT_IMPL_H
#define COMPAT_STORE_CLIENT_IMPL_H

#include <pthread.h>
#include <sys/types.h>

#include "base/list.h"
#include "compat/store/client.h"
#include "store/node/node.h"

enum { COMPAT_PUT_AGAIN = 2 }; /* how often a put whose outcome is open is done again */

enum compat_state { COMPAT_EMPTY, COMPAT_SETTING_UP, COMPAT_OPEN, COMPAT_CLOSING };

/* A call that is inside; on the caller's stack. */
struct compat_call {
    struct list link; /* client->calls */
    struct mc_store *store;
    uintptr_t from, to; /* all memory it reads and writes lies in there; from == to: none of the caller's */
};

struct compat_region {
    uintptr_t addr;
    uint64_t size;
};

struct compat_session {
    struct list link; /* client->sessions */
    struct mc_store_part *part;
    bool busy; /* a call works on it */
    size_t name_len;
    char name[MC_NAME_MAX];
};

/* settings.c: what the arguments and the environment mean. */
struct compat_plan {
    char listen[300], master[300], name_host[256];
    uint16_t port; /* 0: take one of the range */
    uint16_t port_min, port_max;
    uint32_t tries, connect_ms;
    const char *transport;
    uint32_t ns;
};

struct compat_client {
    pthread_mutex_t lock;
    pthread_cond_t left; /* a call left, or a state changed */
    pid_t pid;           /* who set it up; another one is a child in which no thread of ours lives */
    /* guarded by lock */
    enum compat_state state;
    struct list calls, sessions, segments;
    struct compat_region *regions; /* by address */
    size_t region_count, region_max;
    /* set while nobody is inside, read by who is */
    struct mc_store *store;
    struct store_node *node; /* of setup; NULL: without a segment */
    struct compat_plan plan;
    uint64_t local_buffer;
    uint32_t put_ms, get_ms, ask_ms;
    void *pool; /* of setup_dummy(); its use is guarded by lock */
    uint64_t pool_size, pool_used;
    char hostname[COMPAT_HOST_MAX];
};

/* False in a child of fork(), where the lock may be held by a thread that does not exist. Takes no lock. */
bool compat_is_ours(const struct compat_client *client);

/* Enter with the memory this call will use; false: not set up. Leave after true. */
bool compat_enter(struct compat_client *client, struct compat_call *call, uintptr_t from, uintptr_t to);
void compat_leave(struct compat_client *client, struct compat_call *call);

/* Widen [*from, *to) by a piece of memory; start with UINTPTR_MAX and 0. */
static inline void compat_hull(uintptr_t *from, uintptr_t *to, const void *addr, uint64_t len)
{
    uintptr_t at = (uintptr_t)addr;

    if (len == 0)
        return;
    *from = at < *from ? at : *from;
    *to = at + len > *to ? at + len : *to;
}

/* settings.c */
int compat_plan(const struct compat_setup *setup, struct compat_plan *plan);
uint32_t compat_env_u32(const char *name, uint32_t fallback);

/* segments.c: a node of this process, not yet serving, in memory of its own or in what is lent; until the master and the client
 * know it; on close. */
enum mc_status compat_node_create(const struct compat_plan *plan, uint64_t memory, void *lent, uint16_t port,
    const char *name, struct store_node **out);
enum mc_status compat_node_wait(struct mc_store *store, const struct store_node *node, uint32_t timeout_ms);
void compat_segments_drop(struct compat_client *client);

/* dummy.c */
void compat_pool_free(struct compat_client *client);

/* sessions.c, on close: nobody is inside. */
void compat_sessions_drop(struct compat_client *client);

/* calls.c: the meta of a put; `meta` borrows `own`, which holds a copy of what the config names. */
int compat_meta(struct compat_client *client, struct mc_store *store, const struct compat_config *config,
    struct mc_object_meta *meta, char own[COMPAT_HOST_MAX]);
int compat_key_check(const struct compat_key *key);
int compat_put_check(const struct compat_client *client, const struct compat_put *put, unsigned flags);
int compat_put_error(struct mc_store *store, const struct mc_store_op *op);
void compat_put_op(
    struct mc_store_op *op, const struct compat_put *put, const struct mc_object_meta *meta, unsigned flags);
void compat_put_each(struct compat_client *client, struct mc_store *store, struct compat_put *puts, size_t n,
    const struct mc_object_meta *meta, unsigned flags);

/* groups.c: one id for each put; "" is none. */
void compat_put_groups(struct compat_client *client, struct mc_store *store, struct compat_put *puts, size_t n,
    const char *const *groups, const struct mc_object_meta *meta, unsigned flags);

#endif
