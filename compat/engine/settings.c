/* settings.c - see settings.h. */
#include "compat/engine/settings.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"

#define TIMEOUT_S     30
#define TIMEOUT_S_MIN 5
#define TIMEOUT_S_MAX 86000
#define PORT_MIN      15000
#define PORT_MAX      17000

bool ce_env_on(const char *name)
{
    const char *text = getenv(name);

    return text && *text && strcmp(text, "0") != 0 && strcasecmp(text, "false") != 0 && strcasecmp(text, "off") != 0;
}

/* The first of two variables that is set, as a number; `absent` when neither is or it is none. */
static long env_number(const char *name, const char *misspelt, long absent, long min, long max)
{
    const char *text = getenv(name);
    char *end;
    long value;

    if (!text && misspelt)
        text = getenv(name = misspelt);
    if (!text || !*text)
        return absent;
    value = strtol(text, &end, 10);
    if (*end || value < min || value > max) {
        long kept = *end ? absent : value < min ? min : max;

        log_warn("engine: %s is '%s', must be a number from %ld to %ld: %ld is used", name, text, min, max, kept);
        return kept;
    }
    return value;
}

/* "host", "host:port", "[v6]", "[v6]:port", "v6". */
static enum mc_status name_parse(const char *what, const char *text, struct addr *out)
{
    const char *why = "it is empty";
    enum mc_status status = MC_EINVAL;

    if (text && *text) {
        status = addr_parse(text, 0, out, &why);
        if (status != MC_OK) {
            status = addr_parse(text, 1, out, &why);
            if (status == MC_OK)
                out->port = 0;
        }
        if (status == MC_OK && out->kind == ADDR_UNIX) {
            why = "must be a host";
            status = MC_EINVAL;
        }
    }
    if (status != MC_OK)
        log_error("engine: %s '%s': %s", what, text ? text : "", why);
    return status;
}

static enum mc_status resolve(const char *host, int family, struct addr *out)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM}, *found = NULL;
    enum mc_status status = MC_ENOENT;
    uint16_t port = out->port;

    if (getaddrinfo(host, NULL, &hints, &found) == 0 && found)
        status = addr_from_sockaddr(found->ai_addr, found->ai_addrlen, out);
    if (found)
        freeaddrinfo(found);
    out->port = port;
    return status;
}

/* "localhost" is not looked up: what it means must not depend on a file. Without MC_USE_IPV6 names are IPv4 where they can be. */
enum mc_status ce_numeric(const struct addr *addr, bool ip6, struct addr *out)
{
    *out = *addr;
    if (addr->kind != ADDR_NAME)
        return addr->kind == ADDR_UNIX ? MC_EINVAL : MC_OK;
    if (strcasecmp(addr->host, "localhost") == 0) {
        out->kind = ip6 ? ADDR_IP6 : ADDR_IP4;
        strcpy(out->host, ip6 ? "::1" : "127.0.0.1");
        return MC_OK;
    }
    if (resolve(addr->host, ip6 ? AF_INET6 : AF_INET, out) == MC_OK)
        return MC_OK;
    return resolve(addr->host, AF_UNSPEC, out);
}

bool ce_is_wildcard(const struct addr *addr)
{
    return strcmp(addr->host, "0.0.0.0") == 0 || strcmp(addr->host, "::") == 0;
}

static enum mc_status bind_set(struct ce_settings *set)
{
    const char *text = getenv("MC_TCP_BIND_ADDRESS");
    struct addr from = set->name;

    if (text && *text) {
        enum mc_status status = name_parse("MC_TCP_BIND_ADDRESS", text, &from);

        if (status != MC_OK)
            return status;
    }
    if (ce_numeric(&from, set->ip6, &set->bind) != MC_OK) {
        log_error("engine: host %s is not known here: pass an address of this machine, or set MC_TCP_BIND_ADDRESS",
            from.host);
        return MC_ENOENT;
    }
    if (ce_is_wildcard(&set->bind) && !ce_env_on("MOONCAKE_INSECURE")) {
        log_error("engine: %s would let everybody read and write registered memory: name one address, or set "
                  "MOONCAKE_INSECURE=1",
            set->bind.host);
        return MC_EINVAL;
    }
    return MC_OK;
}

static enum mc_status member_add(const char *text, size_t len, uint16_t port, struct ce_settings *set, const char **why)
{
    char member[ADDR_TEXT_MAX];

    *why = "it is too long";
    if (len >= sizeof(member) || set->meta_count == CE_SERVICE_MEMBERS)
        return MC_EINVAL;
    snprintf(member, sizeof(member), "%.*s", (int)len, text);
    return addr_parse(member, port, &set->meta[set->meta_count++], why);
}

/* "http://host:port/path". */
static enum mc_status http_set(const char *url, struct ce_settings *set, const char **why)
{
    const char *host = url + strlen("http://"), *path = strchr(host, '/');
    size_t len = path ? (size_t)(path - host) : strlen(host);

    if (!path || !path[1])
        path = "/metadata";
    *why = "it is too long";
    if (strlen(path) >= sizeof(set->meta_path))
        return MC_EINVAL;
    strcpy(set->meta_path, path);
    set->service = CE_SERVICE_HTTP;
    return member_add(host, len, 80, set, why);
}

/* "etcd://host:port,host:port". */
static enum mc_status etcd_set(const char *url, struct ce_settings *set, const char **why)
{
    enum mc_status status = MC_OK;

    set->service = CE_SERVICE_ETCD;
    for (const char *at = url + strlen("etcd://"); status == MC_OK && *at;) {
        size_t len = strcspn(at, ",");

        status = member_add(at, len, 2379, set, why);
        at += len + (at[len] == ',');
    }
    if (status == MC_OK && set->meta_count == 0) {
        *why = "it names no member";
        status = MC_EINVAL;
    }
    return status;
}

static enum mc_status metadata_set(const char *text, struct ce_settings *set)
{
    const char *why = "not supported: P2PHANDSHAKE, http:// and etcd:// are";
    enum mc_status status = MC_ENOSUP;

    if (text && strcmp(text, "P2PHANDSHAKE") == 0)
        return MC_OK;
    if (text && strncmp(text, "http://", strlen("http://")) == 0)
        status = http_set(text, set, &why);
    else if (text && strncmp(text, "etcd://", strlen("etcd://")) == 0)
        status = etcd_set(text, set, &why);
    if (status != MC_OK)
        log_error("engine: metadata service '%s': %s", text ? text : "", why);
    return status;
}

/* With a service a name is any text, and where we listen is not said by it but by its host, if it has one. */
static enum mc_status names_set(const struct ce_opts *opts, struct ce_settings *set)
{
    const char *name = opts->name ? opts->name : opts->host;
    enum mc_status status = name_parse("host", opts->host, &set->name);

    if (status != MC_OK)
        return status;
    if (set->service)
        set->name.port = 0;
    if (opts->port)
        set->name.port = opts->port;
    if (strlen(name) >= sizeof(set->text)) {
        log_error("engine: the name is longer than %zu bytes", sizeof(set->text) - 1);
        return MC_EINVAL;
    }
    strcpy(set->text, name);
    return MC_OK;
}

static enum mc_status protocol_set(const char *text, struct ce_settings *set)
{
    set->tcp_only = ce_env_on("MC_FORCE_TCP");
    if (text && (set->tcp_only || strcmp(text, "tcp") == 0))
        return MC_OK;
    if (text && strcmp(text, "rdma") == 0)
        log_error("engine: protocol rdma: there is no RDMA in this build; pass 'tcp', or set MC_FORCE_TCP=1");
    else
        log_error("engine: protocol '%s' is not supported: only tcp is", text ? text : "");
    return MC_ENOSUP;
}

enum mc_status ce_settings_read(const struct ce_opts *opts, struct ce_settings *out)
{
    struct ce_settings set = {.ip6 = ce_env_on("MC_USE_IPV6"), .pool = !opts->without_pool};
    enum mc_status status = metadata_set(opts->metadata, &set);

    if (status == MC_OK)
        status = protocol_set(opts->protocol, &set);
    if (status == MC_OK)
        status = names_set(opts, &set);
    if (status == MC_OK)
        status = bind_set(&set);
    if (status != MC_OK)
        return status;
    set.timeout_ms = 1000 * (uint32_t)env_number("MC_TRANSFER_TIMEOUT", NULL, TIMEOUT_S, TIMEOUT_S_MIN, TIMEOUT_S_MAX);
    set.port_min = (uint16_t)env_number("MC_MIN_RPC_PORT", "MC_MIN_PRC_PORT", PORT_MIN, 1, 65535);
    set.port_max = (uint16_t)env_number("MC_MAX_RPC_PORT", "MC_MAX_PRC_PORT", PORT_MAX, 1, 65535);
    if (set.port_max < set.port_min) {
        log_error("engine: MC_MIN_RPC_PORT %u is above MC_MAX_RPC_PORT %u", set.port_min, set.port_max);
        return MC_EINVAL;
    }
    *out = set;
    return MC_OK;
}
