/* env.c - see env.h. The tables have every variable that the existing Mooncake documents. A name that ends in _ is a prefix. */
#include "compat/env/env.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"

/* Have their meaning: compat/engine/settings.h, compat/store/settings.c, level_set(). */
static const char *const used[] = {
    "MC_FORCE_TCP",
    "MC_TCP_BIND_ADDRESS",
    "MC_USE_IPV6",
    "MC_MIN_RPC_PORT",
    "MC_MAX_RPC_PORT",
    "MC_MIN_PRC_PORT",
    "MC_MAX_PRC_PORT",
    "MC_TRANSFER_TIMEOUT",
    "MC_METADATA_CLUSTER_ID",
    "MC_LOG_LEVEL",
    "MC_STORE_CLIENT_MIN_PORT",
    "MC_STORE_CLIENT_MAX_PORT",
    "MC_STORE_CLIENT_SETUP_RETRIES",
    "MC_RPC_TIMEOUT_MS",
    "MC_RPC_CONNECT_TIMEOUT_MS",
    NULL,
};

/* Tune what is built differently here, or choose devices that are not there: of the Store, ... */
static const char *const store_ignored[] = {
    "MC_STORE_",
    "MC_RPC_",
    "MC_MMAP_ARENA_POOL_SIZE",
    "MC_DISABLE_MMAP_ARENA",
    "MOONCAKE_STORE_CHECKSUM",
    NULL,
};

/* ... and of the Transfer Engine, which the Store has one of. */
static const char *const engine_ignored[] = {
    "MC_FORCE_HCA",
    "MC_FORCE_MNNVL",
    "MC_INTRANODE_NVLINK",
    "MC_INTRA_NVLINK",
    "MC_USE_NVLINK_IPC",
    "MC_MS_AUTO_DISC",
    "MC_USE_TENT",
    "MC_USE_TEV1",
    "MC_TENT_CONF",
    "MC_RDMA_BIND_ADDRESS",
    "MC_LEGACY_RPC_PORT_BINDING",
    "MC_HANDSHAKE_PORT",
    "MC_HANDSHAKE_LISTEN_BACKLOG",
    "MC_HANDSHAKE_MAX_LENGTH",
    "MC_HANDSHAKE_CONNECT_TIMEOUT",
    "MC_DISABLE_METACACHE",
    "MC_TE_METADATA_REFRESH_INTERVAL_SECONDS",
    "MC_REDIS_",
    "MC_GID_INDEX",
    "MC_AUTO_GID_MAX_RETRIES",
    "MC_IB_PORT",
    "MC_IB_TC",
    "MC_IB_SL",
    "MC_MTU",
    "MC_PKEY_INDEX",
    "MC_MAX_WR",
    "MC_MAX_SGE",
    "MC_MAX_INLINE",
    "MC_MAX_CQE_PER_CTX",
    "MC_NUM_CQ_PER_CTX",
    "MC_NUM_QP_PER_EP",
    "MC_MAX_EP_PER_CTX",
    "MC_WORKERS_PER_CTX",
    "MC_SLICE_SIZE",
    "MC_SLICE_TIMEOUT",
    "MC_RETRY_CNT",
    "MC_FRAGMENT_RATIO",
    "MC_PATH_ROUNDROBIN",
    "MC_MAX_MR_SIZE",
    "MC_MIN_REG_SIZE",
    "MC_TRACK_RDMA_POSTED_SLICES",
    "MC_NIC_PEER_AFFINITY",
    "MC_ENABLE_HCA_PEER_AFFINITY",
    "MC_ENABLE_DEST_DEVICE_AFFINITY",
    "MC_TE_FILTERS",
    "MC_TE_FILTERS_EXCLUDE",
    "MC_MS_FILTERS",
    "MC_CUSTOM_TOPO_JSON",
    "MC_TCP_SLICE_SIZE",
    "MC_TCP_PROTO",
    "MC_TCP_STATUS_TIMEOUT_SEC",
    "MC_TCP_ENABLE_CONNECTION_POOL",
    "MC_TCP_LANES_PER_PEER",
    "MC_TCP_MAX_CONNECTIONS_PER_PEER",
    "MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER",
    "MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER",
    "MC_TCP_ADMISSION_TIMEOUT_MS",
    "MC_LOG_DIR",
    "MC_TE_METRIC",
    "MC_TE_METRIC_INTERVAL_SECONDS",
    NULL,
};

static bool listed(const char *const *list, const char *name, size_t len)
{
    for (; *list; list++) {
        size_t n = strlen(*list);
        bool prefix = (*list)[n - 1] == '_';

        if (prefix ? len > n && strncmp(*list, name, n) == 0 : len == n && strncmp(*list, name, n) == 0)
            return true;
    }
    return false;
}

static void level_set(void)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
        {"TRACE", LOG_LEVEL_DEBUG}, {"INFO", LOG_LEVEL_INFO}, {"WARNING", LOG_LEVEL_WARN}, {"ERROR", LOG_LEVEL_ERROR}};
    const char *text = getenv("MC_LOG_LEVEL");

    for (size_t i = 0; text && !getenv("MOONCAKE_LOG") && i < sizeof(levels) / sizeof(levels[0]); i++)
        if (strcasecmp(text, levels[i].name) == 0)
            log_set_level(levels[i].level);
}

/* Has the variable no meaning, and is it for that part to say so? */
static bool without_meaning(enum compat_part part, const char *name, size_t len)
{
    return !listed(used, name, len) &&
           (listed(engine_ignored, name, len) || (part == COMPAT_PART_STORE && listed(store_ignored, name, len)));
}

static bool unknown_name(const char *name, size_t len)
{
    return strncmp(name, "MC_", 3) == 0 && !listed(used, name, len) && !listed(engine_ignored, name, len) &&
           !listed(store_ignored, name, len);
}

void compat_env_tell(enum compat_part part)
{
    static const char *const names[] = {[COMPAT_PART_ENGINE] = "engine", [COMPAT_PART_STORE] = "store"};
    static atomic_bool told;
    struct buf without, unknown;

    if (atomic_exchange(&told, true))
        return;
    level_set();
    buf_init(&without, 4096);
    buf_init(&unknown, 4096);
    for (char **var = environ; var && *var; var++) {
        size_t len = strcspn(*var, "=");

        if (without_meaning(part, *var, len))
            buf_printf(&without, " %.*s", (int)len, *var);
        else if (unknown_name(*var, len))
            buf_printf(&unknown, " %.*s", (int)len, *var);
    }
    if (without.len)
        log_info("%s: set, and without meaning here:%s", names[part], buf_cstr(&without));
    if (unknown.len)
        log_warn("%s: variables nobody knows:%s", names[part], buf_cstr(&unknown));
    buf_fini(&without);
    buf_fini(&unknown);
}
