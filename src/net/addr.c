/* addr.c - parse, print and resolve addresses. The parser touches nothing but its text. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static enum mc_status no(const char **why, const char *text)
{
    if (why)
        *why = text;
    return MC_EINVAL;
}

static bool port_parse(const char *text, uint16_t *port)
{
    unsigned value = 0;

    if (!*text || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        value = value * 10 + (unsigned)(*text - '0');
    }
    *port = (uint16_t)value;
    return value <= 65535;
}

static bool is_ip4(const char *host)
{
    struct in_addr in;

    return inet_pton(AF_INET, host, &in) == 1;
}

/* Name of an interface, as the kernel would take it, but without what would confuse the printed form. */
static bool is_zone(const char *zone)
{
    size_t len = strspn(zone, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    return len > 0 && len < IF_NAMESIZE && !zone[len];
}

/* With an optional %zone. */
static bool is_ip6(const char *host)
{
    char bare[INET6_ADDRSTRLEN];
    const char *zone = strchr(host, '%');
    size_t len = zone ? (size_t)(zone - host) : strlen(host);
    struct in6_addr in6;

    if (len >= sizeof(bare) || (zone && !is_zone(zone + 1)))
        return false;
    memcpy(bare, host, len);
    bare[len] = 0;
    return inet_pton(AF_INET6, bare, &in6) == 1;
}

/* Letters, digits, '-' and '_' in labels of 1 to 63, as host files and container networks use them. */
static bool is_name(const char *host)
{
    size_t label = 0;
    bool letter = false;

    for (const char *p = host; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
            continue;
        }
        if (!(isascii(c) && isalnum(c)) && c != '-' && c != '_')
            return false;
        letter = letter || !isdigit(c);
        if (++label > 63)
            return false;
    }
    return letter && host[0] != '-'; /* all digits and dots: a mistyped IPv4 address, not a name */
}

static enum mc_status host_set(struct addr *addr, const char *host, const char **why)
{
    if (is_ip4(host))
        addr->kind = ADDR_IP4;
    else if (is_ip6(host))
        addr->kind = ADDR_IP6;
    else if (strcasecmp(host, "unix") == 0)
        return no(why, "a host cannot be called 'unix': write unix:/path for a socket");
    else if (is_name(host))
        addr->kind = ADDR_NAME;
    else
        return no(why, "host is neither an IPv4 address, an IPv6 address nor a name");
    strcpy(addr->host, host); /* the caller checked the length */
    return MC_OK;
}

static enum mc_status unix_parse(const char *path, struct addr *addr, const char **why)
{
    struct sockaddr_un un;

    if (!*path)
        return no(why, "path of the unix socket is empty");
    if (strlen(path) >= sizeof(un.sun_path))
        return no(why, "path of the unix socket is longer than 107 bytes");
    *addr = (struct addr){.kind = ADDR_UNIX};
    strcpy(addr->host, path);
    return MC_OK;
}

/* Split "host:port" forms. *port is NULL when the text has none. False: brackets or colons are wrong. */
static bool split(char *text, char **host, char **port)
{
    char *colon = strchr(text, ':'), *end;

    *port = NULL;
    *host = text;
    if (text[0] == '[') {
        end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        *end = 0;
        *host = text + 1;
        *port = end[1] ? end + 2 : NULL;
        return strchr(*host, ':') != NULL; /* brackets are for IPv6 */
    }
    if (!colon || strchr(colon + 1, ':'))
        return true; /* none, or a bare IPv6 address */
    *colon = 0;
    *port = colon + 1;
    return true;
}

enum mc_status addr_parse(const char *text, uint16_t port_default, struct addr *addr, const char **why)
{
    char copy[ADDR_HOST_MAX + 10];
    char *host, *port;
    struct addr out = {.port = port_default};
    enum mc_status status;

    if (strncmp(text, "unix:", 5) == 0)
        return unix_parse(text + 5, addr, why);
    if (strlen(text) >= sizeof(copy))
        return no(why, "address is too long");
    strcpy(copy, text);
    if (!split(copy, &host, &port))
        return no(why, "brackets belong around an IPv6 address: [::1]:7001");
    if (strlen(host) > ADDR_HOST_MAX)
        return no(why, "host name is too long");
    if (port && !port_parse(port, &out.port))
        return no(why, "port is not a number from 0 to 65535");
    status = host_set(&out, *host ? host : "127.0.0.1", why);
    if (status == MC_OK)
        *addr = out;
    return status;
}

const char *addr_format(const struct addr *addr, char out[ADDR_TEXT_MAX])
{
    switch (addr->kind) {
    case ADDR_UNIX: snprintf(out, ADDR_TEXT_MAX, "unix:%s", addr->host); break;
    case ADDR_IP6: snprintf(out, ADDR_TEXT_MAX, "[%s]:%u", addr->host, addr->port); break;
    case ADDR_IP4:
    case ADDR_NAME: snprintf(out, ADDR_TEXT_MAX, "%s:%u", addr->host, addr->port); break;
    }
    return out;
}

static bool is_localhost(const struct addr *addr)
{
    return addr->kind == ADDR_NAME && strcasecmp(addr->host, "localhost") == 0;
}

bool addr_is_loopback(const struct addr *addr)
{
    struct in6_addr in6;

    switch (addr->kind) {
    case ADDR_UNIX: return true;
    case ADDR_IP4: return strncmp(addr->host, "127.", 4) == 0;
    case ADDR_NAME: return is_localhost(addr);
    case ADDR_IP6:
        if (inet_pton(AF_INET6, addr->host, &in6) != 1)
            return false;
        return IN6_IS_ADDR_LOOPBACK(&in6) || (IN6_IS_ADDR_V4MAPPED(&in6) && in6.s6_addr[12] == 127);
    }
    return false;
}

bool addr_equal(const struct addr *a, const struct addr *b)
{
    return a->kind == b->kind && strcmp(a->host, b->host) == 0 && (a->kind == ADDR_UNIX || a->port == b->port);
}

bool addr_is_numeric(const struct addr *addr)
{
    return addr->kind != ADDR_NAME || is_localhost(addr);
}

static enum mc_status resolve_name(const struct addr *addr, struct sockaddr_storage *out, socklen_t *len)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    char port[8];

    if (addr->kind == ADDR_IP6)
        hints.ai_flags |= AI_NUMERICHOST; /* getaddrinfo knows how to read %zone */
    snprintf(port, sizeof(port), "%u", addr->port);
    if (getaddrinfo(addr->host, port, &hints, &found) != 0)
        return MC_ENOENT;
    memcpy(out, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return MC_OK;
}

enum mc_status addr_resolve(const struct addr *addr, struct sockaddr_storage *out, socklen_t *len)
{
    struct sockaddr_in *in = (struct sockaddr_in *)(void *)out;
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)out;

    memset(out, 0, sizeof(*out));
    if (addr->kind == ADDR_UNIX) {
        if (strlen(addr->host) >= sizeof(un->sun_path))
            return MC_ETOOBIG;
        un->sun_family = AF_UNIX;
        strcpy(un->sun_path, addr->host);
        *len = sizeof(*un);
        return MC_OK;
    }
    if (addr->kind == ADDR_IP4 || is_localhost(addr)) {
        in->sin_family = AF_INET;
        in->sin_port = htons(addr->port);
        *len = sizeof(*in);
        return inet_pton(AF_INET, addr->kind == ADDR_IP4 ? addr->host : "127.0.0.1", &in->sin_addr) == 1 ? MC_OK
                                                                                                         : MC_EINVAL;
    }
    return resolve_name(addr, out, len);
}

static void unix_from(const struct sockaddr *sa, socklen_t len, struct addr *out)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)(const void *)sa;
    size_t path = len > offsetof(struct sockaddr_un, sun_path) ? len - offsetof(struct sockaddr_un, sun_path) : 0;

    *out = (struct addr){.kind = ADDR_UNIX};
    snprintf(out->host, sizeof(out->host), "%.*s", (int)path, un->sun_path);
}

enum mc_status addr_from_sockaddr(const struct sockaddr *sa, socklen_t len, struct addr *out)
{
    char port[8];

    if (len >= sizeof(sa_family_t) && sa->sa_family == AF_UNIX) {
        unix_from(sa, len, out);
        return MC_OK;
    }
    if (len < sizeof(sa_family_t) || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
        return MC_EINVAL;
    *out = (struct addr){.kind = sa->sa_family == AF_INET ? ADDR_IP4 : ADDR_IP6};
    if (getnameinfo(sa, len, out->host, sizeof(out->host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return MC_EINVAL;
    port_parse(port, &out->port);
    return MC_OK;
}

enum mc_status addr_of_socket(int fd, struct addr *out)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);

    if (getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
        return MC_ESYS;
    return addr_from_sockaddr((struct sockaddr *)&sa, len, out) == MC_OK ? MC_OK : MC_ESYS;
}

enum mc_status addr_of_peer(int fd, struct addr *out)
{
    struct sockaddr_storage sa;
    socklen_t len = sizeof(sa);

    if (getpeername(fd, (struct sockaddr *)&sa, &len) != 0)
        return MC_ESYS;
    return addr_from_sockaddr((struct sockaddr *)&sa, len, out) == MC_OK ? MC_OK : MC_ESYS;
}
