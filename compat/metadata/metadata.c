/* metadata.c - see metadata.h. */
#include "compat/metadata/metadata.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/hashmap.h"
#include "net/http.h"

enum { KEYS_MAX = 1 << 20, KEY_MAX = 4096, BODY_MAX = 16 << 20 };

struct metadata {
    struct http_server *http;
    struct hashmap entries;
    uint64_t seed;
};

struct entry {
    struct hnode node;
    size_t key_len, value_len;
    char bytes[]; /* key, value */
};

static bool entry_is(const struct hnode *node, const void *key)
{
    const struct entry *entry = container_of(node, struct entry, node);
    const struct slice *name = key;

    return entry->key_len == name->len && memcmp(entry->bytes, name->ptr, name->len) == 0;
}

static struct entry *find(struct metadata *metadata, struct slice key)
{
    struct hnode *node = hashmap_find(&metadata->entries, hash64(key.ptr, key.len, metadata->seed), entry_is, &key);

    return node ? container_of(node, struct entry, node) : NULL;
}

static void drop(struct metadata *metadata, struct entry *entry)
{
    hashmap_del(&metadata->entries, &entry->node);
    free(entry);
}

static struct slice value_of(const struct entry *entry)
{
    return slice_of(entry->bytes + entry->key_len, entry->value_len);
}

static void say(struct http_req *req, int code, const char *text)
{
    http_reply(req, code, "text/plain", slice_str(text));
}

/* The key of the request; answered with 400 when there is none. */
static bool key_of(struct http_req *req, struct slice *key)
{
    const char *text = http_query(req, "key");

    if (text && *text && strlen(text) <= KEY_MAX) {
        *key = slice_str(text);
        return true;
    }
    say(req, 400, "Missing key parameter");
    return false;
}

static void http_get(struct http_req *req)
{
    struct metadata *metadata = http_user(req);
    struct slice key;
    struct entry *entry;

    if (!http_query(req, "key")) { /* "is it there?": start scripts ask so */
        say(req, 200, "ok");
        return;
    }
    if (!key_of(req, &key))
        return;
    entry = find(metadata, key);
    if (entry)
        http_reply(req, 200, "application/json", value_of(entry));
    else
        say(req, 404, "metadata not found");
}

static void http_put(struct http_req *req)
{
    struct metadata *metadata = http_user(req);
    struct slice key, body = http_body(req);
    struct entry *old, *entry;

    if (!key_of(req, &key))
        return;
    old = find(metadata, key);
    if (old && memmem(key.ptr, key.len, "rpc_meta", 8) && !slice_eq(value_of(old), body)) {
        say(req, 400, "Duplicate rpc_meta key not allowed");
        return;
    }
    entry = old || metadata->entries.count < KEYS_MAX ? malloc(sizeof(*entry) + key.len + body.len) : NULL;
    if (!entry) {
        say(req, 503, "no room for another key");
        return;
    }
    if (old)
        drop(metadata, old);
    entry->key_len = key.len;
    entry->value_len = body.len;
    memcpy(entry->bytes, key.ptr, key.len);
    if (body.len)
        memcpy(entry->bytes + key.len, body.ptr, body.len);
    hashmap_add(&metadata->entries, &entry->node, hash64(key.ptr, key.len, metadata->seed));
    say(req, 200, "metadata updated");
}

static void http_delete(struct http_req *req)
{
    struct metadata *metadata = http_user(req);
    struct slice key;
    struct entry *entry;

    if (!key_of(req, &key))
        return;
    entry = find(metadata, key);
    if (entry)
        drop(metadata, entry);
    say(req, entry ? 200 : 404, entry ? "metadata deleted" : "metadata not found");
}

static void http_health(struct http_req *req)
{
    say(req, 200, "OK");
}

static const struct http_route routes[] = {
    {"GET", "/metadata", http_get},
    {"PUT", "/metadata", http_put, BODY_MAX},
    {"DELETE", "/metadata", http_delete},
    {"GET", "/health", http_health},
};

enum mc_status metadata_start(struct loop *loop, const struct addr *addr, struct metadata **out)
{
    struct metadata *metadata = calloc(1, sizeof(*metadata));
    struct http_opts opts = {
        .addr = *addr, .routes = routes, .route_count = sizeof(routes) / sizeof(*routes), .user = metadata};
    enum mc_status status;

    if (!metadata)
        return MC_ENOMEM;
    if (hashmap_init(&metadata->entries, 0, KEYS_MAX) != MC_OK) {
        free(metadata);
        return MC_ENOMEM;
    }
    metadata->seed = hash_seed();
    status = http_server_create(loop, &opts, &metadata->http);
    if (status != MC_OK) {
        metadata_stop(metadata);
        return status;
    }
    *out = metadata;
    return MC_OK;
}

void metadata_stop(struct metadata *metadata)
{
    struct hashmap_iter it = {0};
    struct hnode *node;

    if (!metadata)
        return;
    if (metadata->http)
        http_server_destroy(metadata->http);
    while ((node = hashmap_next(&metadata->entries, &it)) != NULL)
        drop(metadata, container_of(node, struct entry, node));
    hashmap_fini(&metadata->entries);
    free(metadata);
}

const struct addr *metadata_addr(const struct metadata *metadata)
{
    return http_server_addr(metadata->http);
}
