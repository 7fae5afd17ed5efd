/* gate.c - who may come in: threads of this process into an engine, and what a peer may send. */
#include <unistd.h>

#include "compat/engine/impl.h"

#define WINDOW 512 /* requests in flight on one connection: twice what a link of the Transfer Engine uses */

enum mc_status ce_enter(struct ce_engine *engine)
{
    if (engine->pid != getpid())
        return MC_ENOSUP;
    pthread_mutex_lock(&engine->done_lock);
    engine->users++;
    pthread_mutex_unlock(&engine->done_lock);
    if (!atomic_load(&engine->closing))
        return MC_OK;
    ce_leave(engine);
    return MC_ECLOSED;
}

void ce_leave(struct ce_engine *engine)
{
    pthread_mutex_lock(&engine->done_lock);
    if (--engine->users == 0)
        pthread_cond_broadcast(&engine->done_cond);
    pthread_mutex_unlock(&engine->done_lock);
}

struct conn_limits ce_conn_limits(void)
{
    return (struct conn_limits){.body_max = CE_NOTE_MAX + 4096, .payload_max = 16u << 20, .credits = WINDOW};
}
