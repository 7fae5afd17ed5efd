/* meta.c - see meta.h: one table of operations for each kind of service, and what they have in common. */
#include "compat/engine/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/http.h>
#include <openssl/evp.h>

#include "base/buf.h"
#include "base/log.h"
#include "compat/engine/http_once.h"
#include "net/json.h"

struct service {
    /* Keep `value` under a key that is not there yet. MC_OK, MC_EEXIST, or the service's failure (logged). */
    enum mc_status (*put)(const struct ce_settings *set, const char *key, const char *value);
    /* MC_OK and the value, MC_ENOENT, or its failure. */
    enum mc_status (*get)(const struct ce_settings *set, const char *key, struct buf *value);
    enum mc_status (*remove)(const struct ce_settings *set, const char *key);
};

/* The first member that answers. */
static enum mc_status ask(const struct ce_settings *set, enum http_once_method method, const char *target,
    const char *body, int *code, struct buf *answer)
{
    enum mc_status status = MC_EINVAL;
    char host[ADDR_TEXT_MAX];

    for (unsigned i = 0; i < set->meta_count; i++) {
        struct addr numeric;

        addr_format(&set->meta[i], host);
        status = ce_numeric(&set->meta[i], set->ip6, &numeric);
        if (status == MC_OK)
            status = http_once(&numeric, host, method, target, body, code, answer);
        if (status == MC_OK)
            return MC_OK;
        log_error(
            "engine: metadata service %s: %s", host, status == MC_EPEERDOWN ? "no answer" : mc_status_str(status));
    }
    return status;
}

static enum mc_status unexpected(int code)
{
    log_error("engine: metadata service: HTTP %d", code);
    return MC_EPROTO;
}

/* ---- http:// ---- */

static enum mc_status http_ask(const struct ce_settings *set, enum http_once_method method, const char *key,
    const char *body, int *code, struct buf *answer)
{
    char *encoded = evhttp_encode_uri(key);
    enum mc_status status = MC_ENOMEM;
    struct buf target;

    buf_init(&target, 16384);
    if (encoded)
        buf_printf(&target, "%s?key=%s", set->meta_path, encoded);
    if (encoded && buf_status(&target) == MC_OK)
        status = ask(set, method, buf_cstr(&target), body, code, answer);
    free(encoded);
    buf_fini(&target);
    return status;
}

static enum mc_status http_put(const struct ce_settings *set, const char *key, const char *value)
{
    struct buf answer;
    enum mc_status status;
    int code;

    buf_init(&answer, HTTP_ONCE_ANSWER_MAX);
    status = http_ask(set, HTTP_ONCE_PUT, key, value, &code, &answer);
    buf_fini(&answer);
    if (status != MC_OK || code == 200)
        return status;
    return code == 400 ? MC_EEXIST : unexpected(code);
}

static enum mc_status http_get(const struct ce_settings *set, const char *key, struct buf *value)
{
    int code;
    enum mc_status status = http_ask(set, HTTP_ONCE_GET, key, NULL, &code, value);

    if (status != MC_OK || code == 200)
        return status;
    return code == 404 ? MC_ENOENT : unexpected(code);
}

static enum mc_status http_remove(const struct ce_settings *set, const char *key)
{
    struct buf answer;
    enum mc_status status;
    int code;

    buf_init(&answer, HTTP_ONCE_ANSWER_MAX);
    status = http_ask(set, HTTP_ONCE_DELETE, key, NULL, &code, &answer);
    buf_fini(&answer);
    return status;
}

/* ---- etcd:// ---- */

/* Keys and values travel as base64. Given (free); NULL: no memory. */
static char *base64(const char *text)
{
    size_t len = strlen(text);
    char *out = malloc(4 * (len / 3 + 1) + 1);

    if (out)
        EVP_EncodeBlock((unsigned char *)out, (const unsigned char *)text, (int)len);
    return out;
}

static enum mc_status base64_decode(const char *text, struct buf *out)
{
    size_t len = strlen(text), pad = 0;
    uint8_t *at = len && len % 4 == 0 && len < HTTP_ONCE_ANSWER_MAX ? buf_reserve(out, len) : NULL;

    while (at && pad < 2 && text[len - 1 - pad] == '=')
        pad++;
    if (!at || EVP_DecodeBlock(at, (const unsigned char *)text, (int)len) < 0)
        return MC_EPROTO;
    buf_commit(out, len / 4 * 3 - pad);
    return buf_status(out);
}

/* Post `request` (given) to the gateway; its answer, given. */
static enum mc_status etcd_ask(const struct ce_settings *set, const char *target, json_t *request, json_t **out)
{
    char *body = request ? json_dumps(request, JSON_COMPACT) : NULL;
    struct buf answer;
    enum mc_status status = MC_ENOMEM;
    char why[128];
    int code = 0;

    json_decref(request);
    buf_init(&answer, HTTP_ONCE_ANSWER_MAX);
    if (body)
        status = ask(set, HTTP_ONCE_POST, target, body, &code, &answer);
    free(body);
    if (status == MC_OK && code != 200)
        status = unexpected(code);
    if (status == MC_OK) {
        *out = json_parse(buf_slice(&answer), why, sizeof(why));
        if (!*out) {
            log_error("engine: metadata service: %s", why);
            status = MC_EPROTO;
        }
    }
    buf_fini(&answer);
    return status;
}

static enum mc_status etcd_put(const struct ce_settings *set, const char *key, const char *value)
{
    char *k = base64(key), *v = base64(value);
    json_t *request =
        k && v ? json_pack("{s:[{s:s, s:s, s:s, s:s}], s:[{s:{s:s, s:s}}]}", "compare", "result", "EQUAL", "target",
                     "CREATE", "key", k, "create_revision", "0", "success", "request_put", "key", k, "value", v)
               : NULL;
    json_t *answer;
    enum mc_status status = etcd_ask(set, "/v3/kv/txn", request, &answer);

    free(k);
    free(v);
    if (status != MC_OK)
        return status;
    status = json_is_true(json_object_get(answer, "succeeded")) ? MC_OK : MC_EEXIST; /* false is left out */
    json_decref(answer);
    return status;
}

static enum mc_status etcd_get(const struct ce_settings *set, const char *key, struct buf *value)
{
    char *k = base64(key);
    const char *found;
    json_t *answer;
    enum mc_status status = etcd_ask(set, "/v3/kv/range", k ? json_pack("{s:s}", "key", k) : NULL, &answer);

    free(k);
    if (status != MC_OK)
        return status;
    found = json_string_value(json_object_get(json_array_get(json_object_get(answer, "kvs"), 0), "value"));
    status = found ? base64_decode(found, value) : MC_ENOENT;
    json_decref(answer);
    return status;
}

static enum mc_status etcd_remove(const struct ce_settings *set, const char *key)
{
    char *k = base64(key);
    json_t *answer;
    enum mc_status status = etcd_ask(set, "/v3/kv/deleterange", k ? json_pack("{s:s}", "key", k) : NULL, &answer);

    free(k);
    if (status == MC_OK)
        json_decref(answer);
    return status;
}

static const struct service services[] = {
    [CE_SERVICE_HTTP] = {http_put, http_get, http_remove},
    [CE_SERVICE_ETCD] = {etcd_put, etcd_get, etcd_remove},
};

/* ---- names ---- */

static enum mc_status key_of(const char *name, struct buf *key)
{
    const char *cluster = getenv("MC_METADATA_CLUSTER_ID");
    bool has = cluster && *cluster;

    buf_init(key, 4096);
    buf_printf(key, "mooncake/%s%srpc_meta/%s", has ? cluster : "", has ? "/" : "", name);
    return buf_status(key);
}

static enum mc_status value_parse(const struct buf *value, const char *name, struct addr *at)
{
    char why[128];
    json_t *object = json_parse(buf_slice(value), why, sizeof(why));
    const char *host = json_string_value(json_object_get(object, "ip_or_host_name")), *bad;
    json_int_t port = json_integer_value(json_object_get(object, "rpc_port"));
    enum mc_status status = MC_EPROTO;

    if (host && port > 0 && port <= UINT16_MAX && addr_parse(host, (uint16_t)port, at, &bad) == MC_OK &&
        at->kind != ADDR_UNIX) {
        at->port = (uint16_t)port;
        status = MC_OK;
    } else {
        log_error("engine: metadata service: what it says of %.200s is no address", name);
    }
    json_decref(object);
    return status;
}

enum mc_status ce_meta_find(const struct ce_settings *set, const char *name, struct addr *at)
{
    struct buf key, value;
    enum mc_status status = key_of(name, &key);

    buf_init(&value, HTTP_ONCE_ANSWER_MAX);
    if (status == MC_OK)
        status = services[set->service].get(set, buf_cstr(&key), &value);
    if (status == MC_OK)
        status = value_parse(&value, name, at);
    buf_fini(&key);
    buf_fini(&value);
    return status;
}

static enum mc_status put(const struct ce_settings *set, const char *name, const struct addr *at)
{
    json_t *object = json_pack("{s:s, s:i}", "ip_or_host_name", at->host, "rpc_port", (int)at->port);
    char *value = object ? json_dumps(object, JSON_COMPACT) : NULL;
    struct buf key;
    enum mc_status status = key_of(name, &key);

    json_decref(object);
    if (status == MC_OK)
        status = value ? services[set->service].put(set, buf_cstr(&key), value) : MC_ENOMEM;
    buf_fini(&key);
    free(value);
    return status;
}

/* Nobody: the port refuses. Anything else may be somebody. */
static bool nobody_listens(const struct ce_settings *set, const struct addr *at)
{
    struct sockaddr_storage sa;
    struct addr numeric;
    socklen_t len;
    bool refused;
    int fd;

    if (ce_numeric(at, set->ip6, &numeric) != MC_OK || addr_resolve(&numeric, &sa, &len) != MC_OK)
        return false;
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &(struct timeval){.tv_sec = 1}, sizeof(struct timeval));
    refused = connect(fd, (struct sockaddr *)&sa, len) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

enum mc_status ce_meta_publish(const struct ce_settings *set, const char *name, const struct addr *at)
{
    struct addr there;
    enum mc_status status = put(set, name, at);

    if (status != MC_EEXIST)
        return status;
    status = ce_meta_find(set, name, &there); /* left over from a predecessor that was killed? */
    if (status == MC_OK && addr_equal(&there, at))
        return MC_OK;
    if (status == MC_OK && nobody_listens(set, &there)) {
        ce_meta_withdraw(set, name);
        return put(set, name, at);
    }
    if (status == MC_OK || status == MC_ENOENT) {
        log_error("engine: metadata service: the name %.200s is somebody else's", name);
        status = MC_EEXIST;
    }
    return status;
}

void ce_meta_withdraw(const struct ce_settings *set, const char *name)
{
    struct buf key;

    if (key_of(name, &key) == MC_OK)
        services[set->service].remove(set, buf_cstr(&key));
    buf_fini(&key);
}
