/* addr.h - network addresses as users write them.
 *
 *     10.0.0.7:7001   [fe80::1]:7001   ::1   node-a.lan:7001   localhost   :7001   unix:/run/user/1000/mooncake/node.sock
 *
 * Parsing is pure (no name look-up). A port of 0 in a listener means "any". No host (":7001") means loopback: to listen on
 * all interfaces one has to write 0.0.0.0 or [::].
 * Threads: any. addr_resolve() may block on DNS for names; nothing else blocks. */
#ifndef NET_ADDR_H
#define NET_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "mooncake/status.h"

enum addr_kind { ADDR_IP4, ADDR_IP6, ADDR_NAME, ADDR_UNIX };

#define ADDR_HOST_MAX 253                  /* longest DNS name */
#define ADDR_TEXT_MAX (ADDR_HOST_MAX + 10) /* of addr_format, with the NUL */

struct addr {
    enum addr_kind kind;
    uint16_t port;                /* not of ADDR_UNIX */
    char host[ADDR_HOST_MAX + 1]; /* numeric form without brackets (IPv6 with %zone), name, or path of the socket */
};

/* port_default is used when the text has no port; 0 = the text must have one, unless port_optional.
 * MC_OK, or MC_EINVAL and *why says what is wrong ("port is not a number from 0 to 65535"): static text. why may be NULL. */
enum mc_status addr_parse(const char *text, uint16_t port_default, struct addr *addr, const char **why);

/* The form addr_parse() reads. Returns `out`. */
const char *addr_format(const struct addr *addr, char out[ADDR_TEXT_MAX]);

/* Loopback or unix: only this machine can reach it. Names: only "localhost". */
bool addr_is_loopback(const struct addr *addr);

bool addr_equal(const struct addr *a, const struct addr *b);

/* Needs no name look-up: addr_resolve() will not block. ("localhost" is known to be 127.0.0.1.) */
bool addr_is_numeric(const struct addr *addr);

/* Socket address to connect or bind to; the first one DNS gives for names.
 * MC_OK, MC_ENOENT (no such name), MC_ETOOBIG (path of the unix socket), MC_EINVAL. */
enum mc_status addr_resolve(const struct addr *addr, struct sockaddr_storage *out, socklen_t *len);

/* The opposite; MC_EINVAL for other families. */
enum mc_status addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr *out);

/* Address a socket is bound to (so port 0 is read back), or its peer's. MC_OK or MC_ESYS. */
enum mc_status addr_of_socket(int fd, struct addr *out);
enum mc_status addr_of_peer(int fd, struct addr *out);

#endif
