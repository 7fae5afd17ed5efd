/* flags.c - see flags.h. */
#include "compat/master/flags.h"

#include <errno.h>
#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/options.h"

enum kind { TEXT, NUMBER, SWITCH, DURATION };
enum fate {
    TAKEN,  /* goes to `offset` */
    TUNES,  /* has no effect */
    ABSENT, /* refused, unless its value is one of `off` */
};

#define AT(field)   TAKEN, offsetof(struct master_flags, field), sizeof(((struct master_flags *)0)->field)
#define WITHOUT(is) ABSENT, 0, 0, is

static const struct row {
    const char *name;
    enum kind kind;
    enum fate fate;
    size_t offset, size;
    const char *off;  /* ABSENT: values that ask for nothing, separated by '|' */
    const char *help; /* ABSENT: what is not there */
} rows[] = {
    {"rpc_port", NUMBER, AT(rpc_port), NULL, "port of the Store (50051)"},
    {"port", NUMBER, AT(rpc_port), NULL, "the same"},
    {"rpc_address", TEXT, AT(rpc_address), NULL, "address of the Store (127.0.0.1)"},
    {"metrics_port", NUMBER, AT(metrics_port), NULL, "port of the admin HTTP (9003)"},
    {"metrics_host", TEXT, AT(metrics_host), NULL, "its address (127.0.0.1)"},
    {"enable_metric_reporting", SWITCH, AT(admin), NULL, "the admin HTTP (true)"},
    {"default_kv_lease_ttl", DURATION, AT(lease_ms), NULL, "how long exists and get promise: 10000, 10s (10000)"},
    {"enable_http_metadata_server", SWITCH, AT(metadata), NULL, "a metadata server in this process (false)"},
    {"http_metadata_server_port", NUMBER, AT(metadata_port), NULL, "its port (8080)"},
    {"http_metadata_server_host", TEXT, AT(metadata_host), NULL, "its address (127.0.0.1)"},
    {"insecure", SWITCH, AT(insecure), NULL,
        "allow addresses that mean every interface; nothing is authenticated (false)"},
    {"state_dir", TEXT, AT(state_dir), NULL,
        "where the term is kept (master-PORT in $XDG_STATE_HOME/mooncake); none: nowhere"},
    {"help", SWITCH, AT(help), NULL, "print this"},
    {"version", SWITCH, AT(version), NULL, "print the version"},
    {"config_path", TEXT, TUNES, 0, 0, NULL, "YAML or JSON with these names"},

    {"rpc_thread_num", NUMBER, TUNES},
    {"max_threads", NUMBER, TUNES},
    {"rpc_conn_timeout_seconds", NUMBER, TUNES},
    {"rpc_enable_tcp_no_delay", SWITCH, TUNES},
    {"default_kv_soft_pin_ttl", DURATION, TUNES},
    {"max_kv_soft_pin_ttl", DURATION, TUNES},
    {"eviction_ratio", TEXT, TUNES},
    {"eviction_high_watermark_ratio", TEXT, TUNES},
    {"nof_eviction_ratio", TEXT, TUNES},
    {"nof_eviction_high_watermark_ratio", TEXT, TUNES},
    {"put_start_discard_timeout_sec", NUMBER, TUNES},
    {"put_start_release_timeout_sec", NUMBER, TUNES},
    {"client_ttl", NUMBER, TUNES},
    {"client_live_ttl_sec", NUMBER, TUNES},
    {"memory_allocator", TEXT, TUNES},
    {"cluster_id", TEXT, TUNES},
    {"max_total_finished_tasks", NUMBER, TUNES},
    {"max_total_pending_tasks", NUMBER, TUNES},
    {"max_total_processing_tasks", NUMBER, TUNES},
    {"pending_task_timeout_sec", NUMBER, TUNES},
    {"processing_task_timeout_sec", NUMBER, TUNES},
    {"max_retry_attempts", NUMBER, TUNES},
    {"offloading_queue_limit", NUMBER, TUNES},
    {"offload_cap_ratio", TEXT, TUNES},
    {"promotion_admission_threshold", NUMBER, TUNES},
    {"promotion_queue_limit", NUMBER, TUNES},
    {"promotion_max_per_heartbeat", NUMBER, TUNES},
    {"enable_disk_eviction", SWITCH, TUNES},
    {"dynamic_replication_heat_window_seconds", NUMBER, TUNES},
    {"dynamic_replication_admission_qps_threshold", TEXT, TUNES},
    {"dynamic_replication_max_memory_replicas", NUMBER, TUNES},
    {"ha_backend_type", TEXT, TUNES},
    {"oplog_poll_interval_ms", NUMBER, TUNES},
    {"oplog_batch_max_entries", NUMBER, TUNES},
    {"batch_oplog_retry_timeout_sec", NUMBER, TUNES},
    {"pod_name", TEXT, TUNES},
    {"pod_namespace", TEXT, TUNES},
    {"snapshot_interval_seconds", NUMBER, TUNES},
    {"snapshot_child_timeout_seconds", NUMBER, TUNES},
    {"snapshot_retention_count", NUMBER, TUNES},
    {"snapshot_object_store_type", TEXT, TUNES},
    {"snapshot_catalog_store_type", TEXT, TUNES},
    {"snapshot_backup_dir", TEXT, TUNES},
    {"tenant_quota_connector_type", TEXT, TUNES},
    {"kv_events_backend_id", TEXT, TUNES},
    {"kv_events_emit_legacy_compat", SWITCH, TUNES},
    {"kv_events_emit_object_key", SWITCH, TUNES},
    {"kv_events_queue_capacity", NUMBER, TUNES},
    {"nof_heartbeat_interval_sec", NUMBER, TUNES},
    {"nof_heartbeat_probe_timeout_ms", NUMBER, TUNES},
    {"nof_heartbeat_failures_threshold", NUMBER, TUNES},
    {"cxl_path", TEXT, TUNES},
    {"cxl_size", TEXT, TUNES},
    {"global_file_segment_size", TEXT, TUNES},

    {"rpc_interface", TEXT, WITHOUT(""), "listening by the name of an interface (give its address as rpc_address)"},
    {"allow_evict_soft_pinned_objects", SWITCH, WITHOUT("true"), "soft pins that are never evicted (use hard pins)"},
    {"allocation_strategy", TEXT, WITHOUT("random|free_ratio_first|local_first"), "this way to choose a segment"},
    {"enable_cxl", SWITCH, WITHOUT("false"), "CXL memory"},
    {"enable_offload", SWITCH, WITHOUT("false"), "copies on SSD"},
    {"offload_on_evict", SWITCH, WITHOUT("false"), "copies on SSD"},
    {"offload_force_evict", SWITCH, WITHOUT("false"), "copies on SSD"},
    {"promotion_on_hit", SWITCH, WITHOUT("false"), "copies on SSD"},
    {"root_fs_dir", TEXT, WITHOUT(""), "copies in a file system"},
    {"quota_bytes", NUMBER, WITHOUT("0"), "copies in a file system"},
    {"dynamic_replication_mode", TEXT, WITHOUT("off"), "copies of hot keys made by the master"},
    {"enable_ha", SWITCH, WITHOUT("false"),
        "several masters (a new one at the same address takes over by itself: nothing is lost with the old one)"},
    {"ha_backend_connstring", TEXT, WITHOUT(""), "several masters"},
    {"etcd_endpoints", TEXT, WITHOUT(""), "several masters"},
    {"enable_oplog", SWITCH, WITHOUT("false"), "a log of operations (the index is rebuilt from the nodes)"},
    {"enable_snapshot", SWITCH, WITHOUT("false"), "snapshots (the index is rebuilt from the nodes)"},
    {"enable_snapshot_restore", SWITCH, WITHOUT("false"), "snapshots (the index is rebuilt from the nodes)"},
    {"enable_metadata_cleanup_on_timeout", SWITCH, WITHOUT("false"), "cleaning the metadata server"},
    {"enable_multi_tenants", SWITCH, WITHOUT("false"), "quotas of tenants"},
    {"tenant_quota_connector_uri", TEXT, WITHOUT(""), "quotas of tenants"},
    {"enable_kv_events", SWITCH, WITHOUT("false"), "KV events"},
    {"kv_events_bind_endpoint", TEXT, WITHOUT(""), "KV events"},
};

enum { ROWS = sizeof(rows) / sizeof(*rows), FILE_MAX = 1 << 20 };

struct parse {
    struct master_flags *flags;
    struct buf *message;
    bool named[ROWS]; /* as without effect */
    const char *where;
};

static enum mc_status bad(struct parse *p, const char *name, const char *value, const char *what)
{
    buf_printf(p->message, "%s: --%s=%s: %s\n", p->where, name, value, what);
    return MC_EINVAL;
}

/* ---- values ---- */

static bool switch_of(const char *text, bool *out)
{
    *out = strcasecmp(text, "true") == 0 || strcmp(text, "1") == 0 || strcasecmp(text, "yes") == 0 ||
           strcasecmp(text, "t") == 0;
    return *out || strcasecmp(text, "false") == 0 || strcmp(text, "0") == 0 || strcasecmp(text, "no") == 0 ||
           strcasecmp(text, "f") == 0;
}

/* Plain numbers are milliseconds. */
static bool duration_of(const char *text, uint32_t *ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};
    char *end;
    double value = strtod(text, &end);

    for (size_t i = 0; end != text && i < sizeof(units) / sizeof(*units); i++)
        if (strcmp(end, units[i].unit) == 0 && value >= 0 && value * units[i].ms < UINT32_MAX) {
            *ms = (uint32_t)(value * units[i].ms);
            return true;
        }
    return false;
}

static bool number_of(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return end != text && *end == '\0' && !errno && *text != '-';
}

static enum mc_status take(struct parse *p, const struct row *row, const char *value)
{
    char *field = (char *)p->flags + row->offset;
    uint64_t number;
    uint32_t ms;
    bool on;

    switch (row->kind) {
    case TEXT:
        if (strlen(value) >= row->size)
            return bad(p, row->name, value, "too long");
        strcpy(field, value);
        return MC_OK;
    case SWITCH:
        if (!switch_of(value, &on))
            return bad(p, row->name, value, "expected true or false");
        memcpy(field, &on, sizeof(on));
        return MC_OK;
    case DURATION:
        if (!duration_of(value, &ms))
            return bad(p, row->name, value, "expected milliseconds, or a number with ms, s, m or h");
        memcpy(field, &ms, sizeof(ms));
        return MC_OK;
    default:
        if (!number_of(value, &number) || number > 65535) /* the numbers that are taken are ports */
            return bad(p, row->name, value, "expected a port, 0 to 65535");
        ms = (uint32_t)number;
        memcpy(field, &ms, sizeof(ms));
        return MC_OK;
    }
}

/* Is the value one of those that ask for nothing? */
static bool asks_nothing(const struct row *row, const char *value)
{
    const char *at = row->off;
    bool on, off_on;

    if (row->kind == SWITCH)
        return switch_of(value, &on) && switch_of(row->off, &off_on) && on == off_on;
    for (;;) {
        size_t len = strcspn(at, "|");

        if (strlen(value) == len && memcmp(at, value, len) == 0)
            return true;
        if (!at[len])
            return false;
        at += len + 1;
    }
}

static enum mc_status apply(struct parse *p, size_t i, const char *value)
{
    const struct row *row = &rows[i];
    bool on;
    uint64_t number;
    uint32_t ms;

    if (row->fate == TAKEN)
        return take(p, row, value);
    if ((row->kind == SWITCH && !switch_of(value, &on)) || (row->kind == NUMBER && !number_of(value, &number)) ||
        (row->kind == DURATION && !duration_of(value, &ms)))
        return bad(p, row->name, value, "no such value");
    if (row->fate == ABSENT && !asks_nothing(row, value)) {
        buf_printf(p->message, "%s: --%s=%s: not there yet: %s\n", p->where, row->name, value, row->help);
        return MC_EINVAL;
    }
    p->named[i] = row->fate == TUNES && strcmp(row->name, "config_path") != 0;
    return MC_OK;
}

/* ---- names ---- */

static size_t find(const char *name, size_t len)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0)
            return i;
    return ROWS;
}

static enum mc_status unknown(struct parse *p, const char *name)
{
    size_t best = strlen(name) / 3 + 1;
    const char *near = NULL;

    for (size_t i = 0; i < ROWS; i++) {
        size_t distance = edit_distance(name, rows[i].name);

        if (distance < best || (distance == best && !near)) {
            best = distance;
            near = rows[i].name;
        }
    }
    buf_printf(p->message, "%s: no flag is called '%s'", p->where, name);
    if (near)
        buf_printf(p->message, "; did you mean '%s'?", near);
    buf_printf(p->message, "\n");
    return MC_EINVAL;
}

static bool is_word(const char *text)
{
    bool on;

    return strlen(text) > 1 && switch_of(text, &on);
}

/* argv[*at] and, when its value stands apart, the one behind it. */
static enum mc_status argument(struct parse *p, int argc, char **argv, int *at)
{
    const char *text = argv[*at], *value;
    char name[128];
    size_t len, i;

    if (text[0] != '-' || !text[1]) {
        buf_printf(p->message, "%s: '%s' is no flag\n", p->where, text);
        return MC_EINVAL;
    }
    text += text[1] == '-' ? 2 : 1;
    len = strcspn(text, "=");
    value = text[len] ? text + len + 1 : NULL;
    snprintf(name, sizeof(name), "%.*s", (int)len, text);
    for (char *c = name; *c; c++) /* both ways to write it are in use */
        *c = *c == '-' ? '_' : *c;
    i = find(name, strlen(name));
    if (i == ROWS && !value && strncmp(name, "no", 2) == 0) {
        i = find(name + 2, strlen(name) - 2);
        value = "false";
        if (i < ROWS && rows[i].kind != SWITCH)
            i = ROWS;
    }
    if (i == ROWS)
        return unknown(p, name);
    if (!value && rows[i].kind == SWITCH)
        value = *at + 1 < argc && is_word(argv[*at + 1]) ? argv[++*at] : "true";
    if (!value) {
        if (*at + 1 == argc)
            return bad(p, name, "", "a value is missing");
        value = argv[++*at];
    }
    return apply(p, i, value);
}

/* ---- the file ---- */

static enum mc_status json_file(struct parse *p, json_t *object)
{
    const char *name;
    json_t *value;
    enum mc_status status = MC_OK;

    json_object_foreach(object, name, value)
    {
        char text[64];
        const char *shown = text;
        size_t i = find(name, strlen(name));

        if (json_is_string(value))
            shown = json_string_value(value);
        else if (json_is_boolean(value))
            shown = json_is_true(value) ? "true" : "false";
        else if (json_is_integer(value))
            snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(value));
        else
            snprintf(text, sizeof(text), "%.17g", json_number_value(value));
        status = i == ROWS ? unknown(p, name) : apply(p, i, shown);
        if (status != MC_OK)
            break;
    }
    return status;
}

static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (end > text && strchr(" \t\r\n", end[-1]))
        *--end = '\0';
    text += strspn(text, " \t");
    if ((*text == '"' || *text == '\'') && end > text + 1 && end[-1] == *text) {
        end[-1] = '\0';
        text++;
    }
    return text;
}

/* The YAML these files are written in: one `name: value` a line. */
static enum mc_status yaml_file(struct parse *p, char *text)
{
    char *save, *line = strtok_r(text, "\n", &save);
    enum mc_status status = MC_OK;

    for (; line && status == MC_OK; line = strtok_r(NULL, "\n", &save)) {
        char *comment = strstr(line, " #"), *colon, *name, *value;
        size_t i;

        if (comment)
            *comment = '\0';
        name = trim(line);
        if (!*name || *name == '#' || strcmp(name, "---") == 0)
            continue;
        colon = strchr(name, ':');
        if (!colon) {
            buf_printf(p->message, "%s: '%s' is no 'name: value'\n", p->where, name);
            return MC_EINVAL;
        }
        *colon = '\0';
        value = trim(colon + 1);
        name = trim(name);
        i = find(name, strlen(name));
        status = i == ROWS ? unknown(p, name) : apply(p, i, value);
    }
    return status;
}

static enum mc_status read_file(struct parse *p, const char *path)
{
    char *text;
    size_t len;
    enum mc_status status = options_read_file(NULL, path, &text, &len);

    p->where = path;
    if (status != MC_OK) {
        buf_printf(p->message, "--config_path=%s: it cannot be read\n", path);
        return MC_EINVAL;
    }
    json_t *object = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(object)) {
        status = json_file(p, object);
    } else {
        char *ended = strndup(text, len);

        status = ended ? yaml_file(p, ended) : MC_ENOMEM;
        free(ended);
    }
    json_decref(object);
    free(text);
    return status;
}

/* Where the file is has to be known before anything else. */
static const char *config_path(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i] + strspn(argv[i], "-");

        if (text - argv[i] > 2 || strncmp(text, "config_path", 11) != 0)
            continue;
        if (text[11] == '=')
            return text + 12;
        if (!text[11] && i + 1 < argc)
            return argv[i + 1];
    }
    return NULL;
}

/* ---- all of it ---- */

static void name_idle(const struct parse *p)
{
    bool any = false;

    for (size_t i = 0; i < ROWS; i++) {
        if (!p->named[i])
            continue;
        buf_printf(p->message, "%s%s", any ? ", " : "flags without effect here: ", rows[i].name);
        any = true;
    }
    if (any)
        buf_printf(p->message, "\n");
}

enum mc_status master_flags_parse(int argc, char **argv, struct master_flags *out, struct buf *message)
{
    struct parse p = {.flags = out, .message = message};
    const char *path = config_path(argc, argv);
    enum mc_status status = MC_OK;

    *out = (struct master_flags){.rpc_port = 50051,
        .metrics_port = 9003,
        .metadata_port = 8080,
        .lease_ms = 10000,
        .rpc_address = "127.0.0.1",
        .metrics_host = "127.0.0.1",
        .metadata_host = "127.0.0.1",
        .admin = true};
    if (path && *path)
        status = read_file(&p, path);
    p.where = "command line";
    for (int i = 1; i < argc && status == MC_OK; i++)
        status = argument(&p, argc, argv, &i);
    if (status == MC_OK)
        name_idle(&p);
    return status;
}

void master_flags_help(struct buf *out)
{
    static const struct {
        enum fate fate;
        const char *head;
    } groups[] = {{TAKEN, ""}, {TUNES, "\nTaken without effect (this master does it by itself):\n"},
        {ABSENT, "\nNot there yet (refused when it asks for something):\n"}};

    buf_printf(out, "mooncake_master - the master of the Store, with the flags of the existing Mooncake\n\n");
    for (size_t g = 0; g < sizeof(groups) / sizeof(*groups); g++) {
        buf_printf(out, "%s", groups[g].head);
        for (size_t i = 0; i < ROWS; i++)
            if (rows[i].fate == groups[g].fate)
                buf_printf(out, "  --%-44s %s\n", rows[i].name, rows[i].help ? rows[i].help : "");
    }
}
