/* heart.c - see heart.h. */
#include "store/node/heart.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/link.h"

struct heart {
    struct loop *loop;
    struct store_link *link;
    struct names *names;
    struct loop_timer timer;
    struct loop_task now;
    pthread_mutex_t lock;
    struct store_beat beat; /* guarded by lock */
    bool set;               /* guarded by lock */
};

static void send_beat(struct heart *heart)
{
    struct store_msg msg = {.type = MSG_NODE_BEAT, .request = names_clock(), .deadline_ms = DEADLINE_MS_NONE};

    pthread_mutex_lock(&heart->lock);
    msg.beat = heart->beat;
    bool set = heart->set;
    pthread_mutex_unlock(&heart->lock);
    /* What cannot be sent now is not worth sending later. */
    if (set && store_link_up(heart->link))
        store_link_send(heart->link, &msg);
}

static void on_timer(struct loop *loop, struct loop_timer *timer)
{
    struct heart *heart = container_of(timer, struct heart, timer);

    send_beat(heart);
    loop_timer_set(loop, timer, deadline_after_ms(loop_now_ns(loop), HEART_MS));
}

static void on_now(struct loop *loop, struct loop_task *task)
{
    send_beat(container_of(task, struct heart, now));
}

static void on_up(struct store_link *link, const struct hello *peer)
{
    send_beat(store_link_user(link));
}

static void on_down(struct store_link *link, enum mc_status why)
{
}

static void on_message(struct store_link *link, const struct store_msg *msg)
{
    struct heart *heart = store_link_user(link);

    if (msg->type != MSG_NODE_BEAT || !msg->reply || msg->status != MC_OK)
        return;
    names_extend(heart->names, msg->request + msg->authority_ms * NS_PER_MS);
    if (msg->authority_ms == 0) /* it is about to know us, or waits for us to kill something */
        loop_timer_set(heart->loop, &heart->timer, deadline_after_ms(loop_now_ns(heart->loop), HEART_EAGER_MS));
}

static const struct store_link_ops ops = {.on_up = on_up, .on_down = on_down, .on_message = on_message};

struct heart *heart_start(const struct addr *master, const struct hello *self, struct names *names)
{
    struct heart *heart = calloc(1, sizeof(*heart));
    struct store_link_opts opts = {.addr = *master, .self = self, .ops = &ops, .user = heart};

    if (!heart)
        return NULL;
    heart->names = names;
    pthread_mutex_init(&heart->lock, NULL);
    loop_timer_init(&heart->timer, on_timer);
    loop_task_init(&heart->now, on_now);
    heart->loop = loop_create("mc-heart");
    if (!heart->loop)
        goto undo_alloc;
    heart->link = store_link_open(heart->loop, &opts);
    if (!heart->link)
        goto undo_loop;
    if (loop_timer_set(heart->loop, &heart->timer, now_ns()) != MC_OK)
        goto undo_link;
    if (loop_thread_start(heart->loop) != MC_OK)
        goto undo_timer;
    return heart;

undo_timer:
    loop_timer_cancel(heart->loop, &heart->timer);
undo_link:
    store_link_close(heart->link);
undo_loop:
    loop_destroy(heart->loop);
undo_alloc:
    pthread_mutex_destroy(&heart->lock);
    free(heart);
    return NULL;
}

void heart_stop(struct heart *heart)
{
    if (!heart)
        return;
    loop_thread_stop(heart->loop);
    loop_timer_cancel(heart->loop, &heart->timer);
    store_link_close(heart->link);
    loop_destroy(heart->loop);
    pthread_mutex_destroy(&heart->lock);
    free(heart);
}

void heart_set(struct heart *heart, const struct store_beat *beat, bool now)
{
    pthread_mutex_lock(&heart->lock);
    bool first = !heart->set;
    heart->beat = *beat;
    heart->set = true;
    pthread_mutex_unlock(&heart->lock);
    if (first || now)
        loop_post(heart->loop, &heart->now);
}
