/* sessions.c - objects that are written a piece at a time (layer by layer), under their key until they are ended.
 *
 * A session is a part of our Store. It is used by one call at a time: another one that wants it meanwhile is told that there is
 * no such session, as if it had come a little later or earlier. */
#include <stdlib.h>
#include <string.h>

#include "compat/store/client_impl.h"

static struct compat_session *find(struct compat_client *client, const struct compat_key *key)
{
    list_for_each (it, &client->sessions) {
        struct compat_session *session = list_entry(it, struct compat_session, link);

        if (session->name_len == key->len && memcmp(session->name, key->name, key->len) == 0)
            return session;
    }
    return NULL;
}

/* NULL: there is none, or a call works on it. */
static struct compat_session *take(struct compat_client *client, const struct compat_key *key)
{
    struct compat_session *session;

    pthread_mutex_lock(&client->lock);
    session = find(client, key);
    if (session && session->busy)
        session = NULL;
    if (session)
        session->busy = true;
    pthread_mutex_unlock(&client->lock);
    return session;
}

static void give_back(struct compat_client *client, struct compat_session *session, bool ended)
{
    pthread_mutex_lock(&client->lock);
    session->busy = false;
    if (ended)
        list_del(&session->link);
    pthread_mutex_unlock(&client->lock);
    if (ended)
        free(session);
}

/* A place for it under its key, so that the same key is not begun twice. */
static struct compat_session *reserve(struct compat_client *client, const struct compat_key *key)
{
    struct compat_session *session = calloc(1, sizeof(*session));
    bool taken;

    if (!session)
        return NULL;
    session->busy = true;
    session->name_len = key->len;
    memcpy(session->name, key->name, key->len);
    pthread_mutex_lock(&client->lock);
    taken = find(client, key) != NULL;
    if (!taken)
        list_push_back(&client->sessions, &session->link);
    pthread_mutex_unlock(&client->lock);
    if (taken) {
        free(session);
        return NULL;
    }
    return session;
}

int compat_session_begin(
    struct compat_client *client, const struct compat_key *key, uint64_t size, const struct compat_config *config)
{
    struct compat_session *session;
    struct mc_object_meta meta;
    struct compat_call call;
    struct mc_location at;
    struct mc_key name;
    char own[COMPAT_HOST_MAX];
    uint32_t copies = 1;
    enum mc_status status = MC_EINVAL;
    int error = compat_key_check(key);

    if (error == COMPAT_OK && (size > MC_OBJECT_MAX || !compat_enter(client, &call, 0, 0)))
        error = COMPAT_INVALID_PARAMS;
    if (error != COMPAT_OK)
        return error;
    mc_key_named(&name, key->name, key->len);
    error = compat_meta(client, call.store, config, &meta, own);
    if (error == COMPAT_OK && mc_store_where(call.store, &name, client->ask_ms, &at, &copies) == MC_OK && copies > 0)
        error = COMPAT_EXISTS;
    session = error == COMPAT_OK ? reserve(client, key) : NULL;
    if (session) {
        status = mc_store_part_begin(call.store, &name, size, &meta, client->put_ms, &session->part);
        give_back(client, session, status != MC_OK);
    }
    compat_leave(client, &call);
    return error != COMPAT_OK ? error : compat_error(status);
}

int compat_session_write(
    struct compat_client *client, const struct compat_key *key, const struct mc_range *ranges, uint32_t n)
{
    uintptr_t from = UINTPTR_MAX, to = 0;
    struct compat_session *session;
    struct compat_call call;
    enum mc_status status = MC_EINVAL;

    for (uint32_t i = 0; i < n; i++) {
        if (!ranges[i].local && ranges[i].len)
            return COMPAT_INVALID_PARAMS;
        compat_hull(&from, &to, ranges[i].local, ranges[i].len);
    }
    if (!compat_enter(client, &call, from, to))
        return COMPAT_INVALID_PARAMS;
    session = take(client, key);
    if (session) {
        status = MC_OK;
        for (uint32_t i = 0; i < n && status == MC_OK; i++)
            status =
                mc_store_part_write(session->part, ranges[i].offset, ranges[i].local, ranges[i].len, client->put_ms);
        give_back(client, session, false);
    }
    compat_leave(client, &call);
    return compat_error(status);
}

int compat_session_end(struct compat_client *client, const struct compat_key *key, bool keep)
{
    struct mc_store_result result;
    struct compat_session *session;
    struct compat_call call;
    enum mc_status status = MC_EINVAL;

    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    session = take(client, key);
    if (session) {
        status = MC_OK;
        if (keep)
            status = mc_store_part_commit(session->part, client->put_ms, &result);
        else
            mc_store_part_abort(session->part);
        give_back(client, session, true);
    }
    compat_leave(client, &call);
    return compat_error(status);
}

void compat_sessions_drop(struct compat_client *client)
{
    struct list *it;

    while ((it = list_pop_front(&client->sessions)) != NULL) {
        struct compat_session *session = list_entry(it, struct compat_session, link);

        mc_store_part_abort(session->part);
        free(session);
    }
}
