/* gate.c - who is inside of a client: each call, with the memory it uses. See client_impl.h. */
#include <unistd.h>

#include "compat/store/client_impl.h"

bool compat_is_ours(const struct compat_client *client)
{
    return client->pid == getpid();
}

bool compat_enter(struct compat_client *client, struct compat_call *call, uintptr_t from, uintptr_t to)
{
    bool open;

    if (!client || !compat_is_ours(client))
        return false;
    call->from = from;
    call->to = to;
    pthread_mutex_lock(&client->lock);
    open = client->state == COMPAT_OPEN;
    if (open) {
        call->store = client->store;
        list_push_back(&client->calls, &call->link);
    }
    pthread_mutex_unlock(&client->lock);
    return open;
}

void compat_leave(struct compat_client *client, struct compat_call *call)
{
    pthread_mutex_lock(&client->lock);
    list_del(&call->link);
    pthread_cond_broadcast(&client->left);
    pthread_mutex_unlock(&client->lock);
}
