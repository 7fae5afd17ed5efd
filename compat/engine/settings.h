/* settings.h - from what a caller passes to initialise, and the environment, to what the engine does.
 *
 *   MC_FORCE_TCP           tcp only, whatever protocol is asked for
 *   MC_TCP_BIND_ADDRESS    listen there in place of the host we are called by
 *   MC_MIN_RPC_PORT, MC_MAX_RPC_PORT   range of ports to choose from (15000 to 17000; MC_MIN_PRC_PORT... is read too)
 *   MC_TRANSFER_TIMEOUT    seconds, at least 5; default 30
 *   MC_USE_IPV6            names are looked up as IPv6
 *   MC_METADATA_CLUSTER_ID part of the keys at a metadata service
 *   MOONCAKE_INSECURE      allows to listen on every address (0.0.0.0, ::)
 *
 * Threads: any (reads the environment). */
#ifndef COMPAT_ENGINE_SETTINGS_H
#define COMPAT_ENGINE_SETTINGS_H

#include "compat/engine/ce.h"
#include "net/addr.h"

enum ce_service { CE_SERVICE_NONE, CE_SERVICE_HTTP, CE_SERVICE_ETCD };

#define CE_SERVICE_MEMBERS 8

struct ce_settings {
    struct addr name;         /* as peers call us without a metadata service; port 0: not wished for */
    char text[ADDR_TEXT_MAX]; /* with one: any text */
    enum ce_service service;  /* which one, and where: */
    unsigned meta_count;
    struct addr meta[CE_SERVICE_MEMBERS];
    char meta_path[256];
    struct addr bind; /* numeric; the port is chosen later */
    bool tcp_only, ip6, pool;
    uint32_t timeout_ms;
    uint16_t port_min, port_max;
};

/* MC_OK, MC_EINVAL, MC_ENOSUP, MC_ENOENT (name not known): logged. Looks names up: may block. */
enum mc_status ce_settings_read(const struct ce_opts *opts, struct ce_settings *out);

/* A numeric address for that one, in the family wanted. MC_OK, MC_ENOENT. May block. */
enum mc_status ce_numeric(const struct addr *addr, bool ip6, struct addr *out);

/* Every address of the machine? */
bool ce_is_wildcard(const struct addr *addr);

/* Set, and neither empty, 0, false nor off? */
bool ce_env_on(const char *name);

#endif
