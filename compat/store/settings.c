/* settings.c - what the arguments of setup and the environment mean to ours. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/crc.h"
#include "base/log.h"
#include "compat/store/client_impl.h"
#include "net/addr.h"

enum {
    PORT_MIN = 12300,
    PORT_MAX = 14300,
    PORT_TRIES = 20,
    PORT_NONE = 1, /* what addr_parse() is told to put where none is written; nobody listens there */
    MASTER_PORT = 50051,
};

uint32_t compat_env_u32(const char *name, uint32_t fallback)
{
    const char *text = getenv(name);
    char *end;
    unsigned long value;

    if (!text || !*text)
        return fallback;
    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || *end || value == 0 || value > UINT32_MAX) {
        log_warn("compat: %s=%s is no number above 0; %u is used", name, text, fallback);
        return fallback;
    }
    return (uint32_t)value;
}

static bool env_true(const char *name)
{
    const char *text = getenv(name);

    return text && (strcmp(text, "1") == 0 || strcasecmp(text, "true") == 0 || strcasecmp(text, "on") == 0);
}

/* "tcp" is: whatever is best without RDMA; the existing one copies in process as well. */
static int plan_transport(const char *protocol, struct compat_plan *plan)
{
    bool force = env_true("MC_FORCE_TCP");

    plan->transport = force ? "tcp" : "auto";
    if (force || !protocol || !*protocol || strcmp(protocol, "tcp") == 0)
        return COMPAT_OK;
    log_error("compat: protocol %s: this build has tcp only (and shared memory on one host); "
              "ask for tcp, or set MC_FORCE_TCP=1",
        protocol);
    return COMPAT_INVALID_PARAMS;
}

static int plan_master(const char *text, struct compat_plan *plan)
{
    struct addr addr;
    const char *why;

    if (text && strstr(text, "://")) {
        log_error("compat: master %s: a master that is found through etcd, redis or kubernetes is not there yet; "
                  "give its host:port",
            text);
        return COMPAT_NOT_SUPPORTED;
    }
    if (!text || !*text)
        text = "127.0.0.1";
    if (addr_parse(text, MASTER_PORT, &addr, &why) != MC_OK) {
        log_error("compat: master %s: %s", text, why);
        return COMPAT_INVALID_PARAMS;
    }
    addr_format(&addr, plan->master);
    return COMPAT_OK;
}

static bool is_wildcard(const struct addr *addr)
{
    return strcmp(addr->host, "0.0.0.0") == 0 || strcmp(addr->host, "::") == 0;
}

/* Whoever reaches the listener may read and write the pool: an address the user wrote is his word, all of them is not. */
static int plan_listen(const struct addr *addr, struct compat_plan *plan)
{
    static _Atomic bool warned;
    const char *text = getenv("MC_TCP_BIND_ADDRESS"), *why;
    struct addr listen = *addr;
    char shown[ADDR_TEXT_MAX];

    if (text && *text && addr_parse(text, PORT_NONE, &listen, &why) != MC_OK) {
        log_error("compat: MC_TCP_BIND_ADDRESS %s: %s", text, why);
        return COMPAT_INVALID_PARAMS;
    }
    listen.port = plan->port;
    addr_format(&listen, shown);
    if (is_wildcard(&listen) && !env_true("MOONCAKE_INSECURE")) {
        log_error("compat: %s would listen on every interface without authentication; name one address, or set "
                  "MOONCAKE_INSECURE=1",
            shown);
        return COMPAT_INVALID_PARAMS;
    }
    if (!addr_is_loopback(&listen) && !warned) {
        warned = true;
        log_warn("compat: %s is reachable from outside and unauthenticated: keep it on a trusted network", listen.host);
    }
    snprintf(plan->listen, sizeof(plan->listen), "%s", listen.host);
    return COMPAT_OK;
}

static int plan_name(const struct compat_setup *setup, struct compat_plan *plan)
{
    const char *text = setup->local_hostname, *why;
    struct addr addr;

    if (!text || !*text || addr_parse(text, PORT_NONE, &addr, &why) != MC_OK || addr.kind == ADDR_UNIX) {
        log_error("compat: local_hostname %s: expected host or host:port", text ? text : "(none)");
        return COMPAT_INVALID_PARAMS;
    }
    if (strlen(addr.host) + sizeof("[]:65535") > COMPAT_HOST_MAX) {
        log_error("compat: local_hostname %s is too long", text);
        return COMPAT_INVALID_PARAMS;
    }
    plan->port = addr.port == PORT_NONE ? 0 : addr.port;
    plan->port_min = (uint16_t)compat_env_u32("MC_STORE_CLIENT_MIN_PORT", PORT_MIN);
    plan->port_max = (uint16_t)compat_env_u32("MC_STORE_CLIENT_MAX_PORT", PORT_MAX);
    if (plan->port_max < plan->port_min)
        plan->port_max = plan->port_min;
    plan->tries = compat_env_u32("MC_STORE_CLIENT_SETUP_RETRIES", PORT_TRIES);
    snprintf(plan->name_host, sizeof(plan->name_host), "%s", addr.host);
    return setup->global_segment_size ? plan_listen(&addr, plan) : COMPAT_OK;
}

/* Keys of tenants are kept apart; the number is the same on every host. */
static uint32_t namespace_of(const char *tenant)
{
    uint32_t ns;

    if (!tenant || !*tenant || strcmp(tenant, "default") == 0)
        return 0;
    ns = crc32c(0, tenant, strlen(tenant));
    return ns ? ns : 1;
}

int compat_plan(const struct compat_setup *setup, struct compat_plan *plan)
{
    int error;

    *plan = (struct compat_plan){.ns = namespace_of(setup->tenant)};
    plan->connect_ms = compat_env_u32("MC_RPC_CONNECT_TIMEOUT_MS", COMPAT_ASK_MS);
    error = plan_transport(setup->protocol, plan);
    if (error == COMPAT_OK)
        error = plan_master(setup->master, plan);
    if (error == COMPAT_OK)
        error = plan_name(setup, plan);
    return error;
}
