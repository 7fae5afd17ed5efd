/* inbox.c - notes for the engine thread. */
#include "worker/inbox.h"

#include <time.h>

#include "base/clock.h"

void inbox_init(struct inbox *inbox)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&inbox->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&inbox->bell, &attr);
    pthread_condattr_destroy(&attr);
    list_init(&inbox->notes);
    inbox->kicked = false;
}

void inbox_fini(struct inbox *inbox)
{
    pthread_cond_destroy(&inbox->bell);
    pthread_mutex_destroy(&inbox->lock);
}

void inbox_post(struct inbox *inbox, struct note *note, note_fn *fn)
{
    note->fn = fn;
    pthread_mutex_lock(&inbox->lock);
    list_push_back(&inbox->notes, &note->link);
    pthread_cond_signal(&inbox->bell);
    pthread_mutex_unlock(&inbox->lock);
}

void inbox_kick(struct inbox *inbox)
{
    pthread_mutex_lock(&inbox->lock);
    inbox->kicked = true;
    pthread_cond_signal(&inbox->bell);
    pthread_mutex_unlock(&inbox->lock);
}

bool inbox_run(struct inbox *inbox, struct worker *worker)
{
    struct list taken;
    struct list *link;
    bool any;

    list_init(&taken);
    pthread_mutex_lock(&inbox->lock);
    any = inbox->kicked || !list_empty(&inbox->notes);
    inbox->kicked = false;
    list_splice_back(&taken, &inbox->notes);
    pthread_mutex_unlock(&inbox->lock);

    while ((link = list_pop_front(&taken))) {
        struct note *note = list_entry(link, struct note, link);

        note->fn(worker, note);
    }
    return any;
}

void inbox_wait(struct inbox *inbox, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};

    pthread_mutex_lock(&inbox->lock);
    while (list_empty(&inbox->notes) && !inbox->kicked) {
        if (until_ns == DEADLINE_NONE)
            pthread_cond_wait(&inbox->bell, &inbox->lock);
        else if (pthread_cond_timedwait(&inbox->bell, &inbox->lock, &until) != 0)
            break;
    }
    pthread_mutex_unlock(&inbox->lock);
}
