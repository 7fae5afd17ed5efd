/* conn_ends_test.h - two ends of a connection in one loop, and what the tests of connections do with them.
 *
 *     CONN_TEST(test_x)       in the list of tests: with set-up and teardown of everything below
 *     open_tcp(); open_unix();       a listener, `client` dialled to it, `server` accepted (`listen_opts`, `dial_opts` before)
 *     run_until(loop, both_closed, NULL, WAIT_MS)
 *     fd = raw_connect();     a plain socket in place of the client
 *
 * Waiting is for a condition and ends with it; WAIT_MS only says when a test has failed.
 * Include after <cmocka.h>. Threads: the test's one. */
#ifndef NET_CONN_ENDS_TEST_H
#define NET_CONN_ENDS_TEST_H

#include "net/conn.h"
#include "net/net_test.h"

#define BIG     (3u * 1024 * 1024 + 12345)
#define WAIT_MS 20000

/* One side, and what it saw. */
struct side {
    struct conn *conn;
    bool ready, closed;
    enum mc_status status;
    char refusal[512];

    unsigned frames, pieces, payload_ends, writables, fds;
    struct frame last;
    uint8_t body[1 << 20];
    size_t body_len;
    enum mc_status payload_status;
    bool payload_body_ok; /* the body was still the same at the end of the payload */

    uint8_t *dst;             /* where payload goes, NULL = thrown away */
    size_t dst_len, dst_step; /* dst_step: give at most so much per question */
    uint64_t asked_max;
    uint64_t through_buffer; /* bytes that came through the connection's own buffer */
    unsigned abort_after;    /* abort when so many pieces have come */
    int fd;
    bool echo;    /* answer requests with their body */
    bool unknown; /* or know no message at all */
    unsigned queue_again;

    unsigned sent;
    enum mc_status sent_status;
};

extern struct side server, client;
extern struct loop *loop;
extern struct listener *listener;
extern struct hello server_hello, client_hello;
extern struct listener_opts listen_opts;
extern struct conn_opts dial_opts;
extern char dir[64];

extern const struct conn_ops ends_ops; /* what both sides have */

int ends_setup(void **state);
int ends_teardown(void **state);
#define CONN_TEST(name) cmocka_unit_test_setup_teardown(name, ends_setup, ends_teardown)

void open_tcp(void);
void open_unix(void);

/* For messages: counts in `arg`, a struct side. */
void on_sent(void *arg, enum mc_status status);

/* Memory for the payload that comes to a side. */
void give_dst(struct side *side, size_t len);

/* Random bytes, the same for the same length; free() them. */
uint8_t *noise(size_t len);

/* A request with such a body and its echo. */
void exchange(size_t body_len);

/* Conditions for run_until(). */
bool settled(void *arg);
bool client_has_frame(void *arg);
bool client_was_sent(void *arg);
bool server_payload_over(void *arg);
bool both_closed(void *arg);
bool hung_up(void *arg);         /* the plain socket *(int *)arg, reading away what came */
bool descriptors_are(void *arg); /* that many, *(unsigned *)arg, are open in this process */
unsigned open_descriptors(void);

/* ---- a plain socket that plays the dialler ---- */

int raw_connect(void);       /* listens first */
int raw_connect_again(void); /* to the same listener */
void raw_frame(int fd, struct frame frame, const void *body);
void raw_hello(int fd);

/* Type of the first frame that comes, 0 = none; of a REFUSE the text too. */
uint16_t raw_answer(int fd, char *refusal, size_t size);

#endif
