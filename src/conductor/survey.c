/* survey.c - the Store's nodes, asked once a second while anybody is interested.
 *
 * Two parties: the thread fills `rows` and posts the task; the loop reads them and says `taken`. So there is one buffer and
 * no copy is written while it is read. */
#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "conductor/survey.h"

#define INTEREST_NS (10 * NS_PER_S) /* after the last poke; then every IDLE_MS only */
#define IDLE_MS     30000

struct survey {
    struct mc_store *store;
    struct loop *loop;
    survey_fn *fn;
    void *arg;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;         /* guarded by lock, as are */
    bool given;        /* the loop has not taken the last answer yet */
    uint64_t until_ns; /* interest ends */
    struct loop_task task;
    enum mc_status status; /* written by the thread while !given, read by the loop while given */
    struct mc_node_info rows[SURVEY_NODES_MAX];
    uint32_t count;
};

static void on_loop(struct loop *loop, struct loop_task *task)
{
    struct survey *survey = container_of(task, struct survey, task);

    if (survey->fn)
        survey->fn(survey->arg, survey->status, survey->rows, survey->count);
    pthread_mutex_lock(&survey->lock);
    survey->given = false;
    pthread_mutex_unlock(&survey->lock);
}

static void ask(struct survey *survey)
{
    survey->count = SURVEY_NODES_MAX;
    survey->status = mc_store_nodes(survey->store, SURVEY_MS / 2, survey->rows, &survey->count);
    if (survey->status != MC_OK)
        survey->count = 0;
}

static void nap(struct survey *survey)
{
    uint64_t now = now_ns(), ms = survey->until_ns > now ? SURVEY_MS : IDLE_MS, at = now + ms * NS_PER_MS;
    struct timespec until = {.tv_sec = (time_t)(at / NS_PER_S), .tv_nsec = (long)(at % NS_PER_S)};

    pthread_cond_timedwait(&survey->wake, &survey->lock, &until);
}

static void *survey_main(void *arg)
{
    struct survey *survey = arg;

    pthread_mutex_lock(&survey->lock);
    while (!survey->stop) {
        if (!survey->given) {
            pthread_mutex_unlock(&survey->lock);
            ask(survey);
            pthread_mutex_lock(&survey->lock);
            survey->given = true;
            loop_post(survey->loop, &survey->task);
        }
        if (!survey->stop)
            nap(survey);
    }
    pthread_mutex_unlock(&survey->lock);
    return NULL;
}

struct survey *survey_start(struct mc_store *store, struct loop *loop, survey_fn *fn, void *arg)
{
    struct survey *survey = calloc(1, sizeof *survey);
    pthread_condattr_t monotonic;

    if (!survey)
        return NULL;
    survey->store = store;
    survey->loop = loop;
    survey->fn = fn;
    survey->arg = arg;
    survey->until_ns = now_ns() + INTEREST_NS;
    loop_task_init(&survey->task, on_loop);
    pthread_mutex_init(&survey->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&survey->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&survey->thread, NULL, survey_main, survey) == 0)
        return survey;
    log_error("no thread for the survey of the Store: %m");
    pthread_cond_destroy(&survey->wake);
    pthread_mutex_destroy(&survey->lock);
    free(survey);
    return NULL;
}

void survey_poke(struct survey *survey)
{
    bool asleep;

    if (!survey)
        return;
    pthread_mutex_lock(&survey->lock);
    asleep = survey->until_ns < now_ns();
    survey->until_ns = now_ns() + INTEREST_NS;
    if (asleep)
        pthread_cond_signal(&survey->wake);
    pthread_mutex_unlock(&survey->lock);
}

void survey_stop(struct survey *survey)
{
    if (!survey)
        return;
    pthread_mutex_lock(&survey->lock);
    survey->stop = true;
    pthread_cond_signal(&survey->wake);
    pthread_mutex_unlock(&survey->lock);
    pthread_join(survey->thread, NULL);
    survey->fn = NULL;
}

void survey_free(struct survey *survey)
{
    if (!survey)
        return;
    pthread_cond_destroy(&survey->wake);
    pthread_mutex_destroy(&survey->lock);
    free(survey);
}
