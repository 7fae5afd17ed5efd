/* queue.c - the queue in front of all workers: whose turn it is.
 *
 * Every placement goes through conductor->queue. A pass asks for one after the other in the order of the policy's rank. Once somebody
 * has to wait, those of the same model behind him wait, too, or whoever fits in would starve whoever does not; unless he waits for
 * one worker by choice while others are free. Before all of them: answers that have begun, whose clients are reading; prompts without
 * tokens yet, since nothing is known of their work; and those nobody was there for, who have a second only. */
#include <math.h>

#include "base/clock.h"
#include "conductor/request_impl.h"

#define RETRY_MS 1000
#define AGAIN_MS 2.0 /* at least so long between passes that nothing but time brings about */

static double rank(const struct request *request, uint64_t now)
{
    const struct conductor *c = request->conductor;
    struct mc_sched_waiting waiting = {.work_ms = request->work_ms,
        .waited_ms = (double)(now - request->started_ns) / NS_PER_MS,
        .slo_ttft_ms = c->opts.slo_ttft_ms};

    return request->answer_count || !request->tokens || request->nobody_ns ? INFINITY : c->policy->rank(&waiting);
}

/* Of those whose turn has not been in this pass, and whose model is not held. */
static struct request *first_in_line(struct conductor *c)
{
    uint64_t now = loop_now_ns(c->loop);
    struct request *best = NULL;
    double highest = 0;

    list_for_each (it, &c->queue) {
        struct request *request = list_entry(it, struct request, queued);

        if (request->pass == c->pass || request->model->held_pass == c->pass)
            continue;
        double its = rank(request, now);
        if (!best || its > highest) {
            best = request;
            highest = its;
        }
    }
    return best;
}

/* Nobody turns a prompt into tokens to refuse it then. */
static bool is_too_many(const struct request *request)
{
    const struct conductor *c = request->conductor;

    return !request->tokens && request->model->held_pass + 1 == c->pass && c->queue_count > c->opts.queue_max;
}

static void refuse_full(struct request *request, double retry_after_ms)
{
    request_refuse(request, retry_after_ms, "the queue is full: %u requests wait", request->conductor->opts.queue_max);
}

/* Of those who found no room in this pass the last to come are too many. */
static void refuse_last(struct conductor *c)
{
    for (struct list *it = c->queue.prev, *before; it != &c->queue && c->queue_count > c->opts.queue_max; it = before) {
        struct request *request = list_entry(it, struct request, queued);

        before = it->prev;
        if (request->queued_pass == c->pass && !request->answer_count)
            refuse_full(request, request->retry_after_ms);
    }
}

void conductor_pump(struct conductor *c)
{
    struct request *request;

    c->pass++;
    loop_timer_cancel(c->loop, &c->again);
    fleet_promises_drop(c->fleet);
    while ((request = first_in_line(c)) != NULL) {
        struct fleet_model *model = request->model; /* the request may be gone after its turn */

        request->pass = c->pass;
        if (is_too_many(request))
            refuse_full(request, RETRY_MS);
        else if (request_place(request) == TURN_HELD)
            model->held_pass = c->pass;
    }
    list_for_each_safe (it, next, &c->queue) {
        request = list_entry(it, struct request, queued);
        if (request->pass != c->pass)
            request_wait(request, RETRY_MS);
    }
    refuse_last(c);
    fleet_promises_drop(c->fleet);
}

void conductor_pump_in(struct conductor *c, double ms)
{
    uint64_t at = loop_now_ns(c->loop) + (uint64_t)(fmax(ms, AGAIN_MS) * NS_PER_MS);

    if (!loop_timer_pending(&c->again) || at < c->again_ns) {
        c->again_ns = at;
        (void)loop_timer_set(c->loop, &c->again, at); /* reserved when it was created */
    }
}

void request_queue(struct request *request)
{
    struct conductor *c = request->conductor;

    request->nobody_ns = request->queued_ns = 0;
    request->work_ms = request->tokens ? request_work_ms(request) : 0;
    request_move(request, REQ_QUEUED);
    loop_defer(c->loop, &c->pump);
}
