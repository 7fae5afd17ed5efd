/* link.h - connections that speak the Store's messages, for the shells around the cores.
 *
 *   link        dialled: connects by itself, and again after it broke (10, 20, .. 200 ms, with jitter), until closed
 *   store_link_table  accepted: the connections of a listener, numbered from 1 as the cores want their peers
 *
 * A link is up between on_up and on_down; on_message comes only in between. What cannot be decoded ends the connection with one
 * log line that names peer and field. Requests that nobody knows are answered as such.
 *
 * Threads: the loop's only. Callbacks never run inside a call of this header, except that store_link_close() and
 * store_link_table_destroy() run on_down of what is still up. */
#ifndef STORE_LINK_H
#define STORE_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/rng.h"
#include "net/conn.h"
#include "store/proto.h"

/* Where servers listen by default. */
enum { STORE_MASTER_PORT = 7400, STORE_MASTER_ADMIN_PORT = 7401, STORE_NODE_PORT = 7402 };

/* ---- dialled ---- */

struct store_link;

struct store_link_ops {
    void (*on_up)(struct store_link *link, const struct hello *peer);
    void (*on_down)(struct store_link *link, enum mc_status why);
    void (*on_message)(struct store_link *link, const struct store_msg *msg);
};

struct store_link_opts {
    struct addr addr;
    const struct hello *self;          /* copied */
    const struct hello_expect *expect; /* copied; NULL: anybody */
    const struct store_link_ops *ops;  /* borrowed */
    void *user;
};

/* Begins to connect. NULL: out of memory. */
struct store_link *store_link_open(struct loop *loop, const struct store_link_opts *opts);
void store_link_close(struct store_link *link); /* NULL is allowed */

/* Expect this and connect there from the next attempt on; a standing connection stays. */
void store_link_move(struct store_link *link, const struct addr *addr, const struct hello_expect *expect);
/* Cut the connection; it is opened again. */
void store_link_cut(struct store_link *link, enum mc_status why);

bool store_link_up(const struct store_link *link);
/* For one who borrows the loop; NULL: it is not up. */
struct loop_io *store_link_io(const struct store_link *link);
void *store_link_user(const struct store_link *link);
const struct addr *store_link_addr(const struct store_link *link);
/* Why it is down: of the last attempt, MC_OK while up or at first. `text` (may be NULL): that of a refusal, "" if none. */
enum mc_status store_link_error(const struct store_link *link, const char **text);

/* MC_OK: queued. MC_EPEERDOWN: not up. MC_AGAIN, MC_ECLOSED, MC_ENOMEM, MC_ETOOBIG as conn_send(). */
enum mc_status store_link_send(struct store_link *link, const struct store_msg *msg);

/* Queued but not begun: forget it (we were stopped, it is old). */
void store_link_drop_queued(struct store_link *link);

/* ---- accepted ---- */

struct store_link_table;

struct store_link_table_ops {
    void (*on_up)(void *user, uint32_t peer, const struct hello *hello);
    void (*on_down)(void *user, uint32_t peer);
    void (*on_message)(void *user, uint32_t peer, const struct store_msg *msg);
};

/* Numbers 1..peers_max - 1. NULL: out of memory. */
struct store_link_table *store_link_table_create(
    uint32_t peers_max, const struct store_link_table_ops *ops, void *user);
/* Aborts what is still connected. */
void store_link_table_destroy(struct store_link_table *table);

/* Table of a listener's connections until its on_hello() has given them to their owner. */
extern const struct conn_ops store_undecided_ops;

/* In on_hello() of a listener: take the connection. MC_OK, MC_EBUSY (all numbers are in use; `why` says so), MC_ENOMEM. */
enum mc_status store_link_table_accept(struct store_link_table *table, struct conn *conn, struct buf *why);

enum mc_status store_link_table_send(struct store_link_table *table, uint32_t peer, const struct store_msg *msg);
/* NULL: no such peer, or not up. */
const struct hello *store_link_table_hello(const struct store_link_table *table, uint32_t peer);
void store_link_table_cut(struct store_link_table *table, uint32_t peer, enum mc_status why);
void store_link_table_drop_queued(struct store_link_table *table);
uint32_t store_link_table_count(const struct store_link_table *table);

/* Anything of the caller's beside a peer; NULL at first. */
void store_link_table_set_data(struct store_link_table *table, uint32_t peer, void *data);
void *store_link_table_data(const struct store_link_table *table, uint32_t peer);

/* ---- both ---- */

/* The cores' port.log (store/port.h): a line of base/log.h that begins with `who`. Any thread. */
void store_log(const char *who, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* What this process says of itself. */
void store_hello(struct hello *self, enum hello_role role, const uint8_t uuid[16], uint32_t epoch, const char *host_id);

#endif
