/* pins.c - a helper thread for the Store's calls that block. */
#include "worker/pins.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

enum { PIN_CALL_MS = 1000, REGISTER_RETRY_MS = 1000, REGISTER_AGAIN_MS = 5000 };

struct pin {
    struct list link;
    const void *owner;
    uint64_t request;
    struct mc_key *keys;
    uint32_t count, hold_ms;
    uint64_t until_ns;
    uint64_t token;
    bool released; /* while it was being pinned, or before */
};

static void pin_free(struct pin *pin)
{
    free(pin->keys);
    free(pin);
}

/* Pin it, without the lock: the call takes a round trip or its deadline. It stays in its list, where a release finds it. */
static void pin_work(struct pins *pins, struct pin *pin)
{
    enum mc_status status;

    pthread_mutex_unlock(&pins->lock);
    status = mc_store_pin(pins->store, pin->keys, pin->count, pin->hold_ms, PIN_CALL_MS, &pin->token);
    if (status != MC_OK)
        log_debug("pin of %u blocks: %s", pin->count, mc_status_str(status));
    pthread_mutex_lock(&pins->lock);
    list_del(&pin->link);
    if (status == MC_OK) {
        list_push_back(&pins->held, &pin->link);
    } else {
        pins->count--;
        pin_free(pin);
    }
}

/* Let go of what was released or is over. Returns when the next one is over. */
static uint64_t held_sweep(struct pins *pins)
{
    uint64_t now = now_ns(), next = DEADLINE_NONE;
    struct list over;
    struct list *link;

    list_init(&over);
    list_for_each_safe (it, tmp, &pins->held) {
        struct pin *pin = list_entry(it, struct pin, link);

        if (pin->released || now >= pin->until_ns) {
            list_del(&pin->link);
            list_push_back(&over, &pin->link);
        } else {
            next = deadline_min(next, pin->until_ns);
        }
    }
    if (list_empty(&over))
        return next;
    pthread_mutex_unlock(&pins->lock);
    while ((link = list_pop_front(&over))) {
        struct pin *pin = list_entry(link, struct pin, link);

        mc_store_unpin(pins->store, pin->token);
        pin_free(pin);
        pthread_mutex_lock(&pins->lock);
        pins->count--;
        pthread_mutex_unlock(&pins->lock);
    }
    pthread_mutex_lock(&pins->lock);
    return next;
}

static void register_work(struct pins *pins)
{
    enum mc_status status;
    char field[64] = "";

    pthread_mutex_unlock(&pins->lock);
    status = mc_store_register_model(pins->store, pins->model, pins->record, pins->record_size, PIN_CALL_MS, field);
    if (status == MC_OK && !pins->registered)
        log_info("model %s: fingerprint record registered", pins->model);
    else if (status == MC_EMISMATCH && pins->registered)
        log_warn(
            "model %s: a new master was told another fingerprint record first, field %s differs; blocks stay apart, "
            "but two kinds of workers serve one name",
            pins->model, field);
    else if (status == MC_EMISMATCH)
        pins->mismatch(pins->arg, field);
    pthread_mutex_lock(&pins->lock);
    pins->registered |= status == MC_OK;
    pins->register_ns = status == MC_EMISMATCH
                            ? DEADLINE_NONE
                            : deadline_after_ms(now_ns(), pins->registered ? REGISTER_AGAIN_MS : REGISTER_RETRY_MS);
}

static void wait_until(struct pins *pins, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_S), .tv_nsec = (long)(until_ns % NS_PER_S)};

    if (until_ns == DEADLINE_NONE)
        pthread_cond_wait(&pins->bell, &pins->lock);
    else
        pthread_cond_timedwait(&pins->bell, &pins->lock, &until);
}

static void *pins_main(void *arg)
{
    struct pins *pins = arg;

    pthread_mutex_lock(&pins->lock);
    pins->register_ns = deadline_after_ms(now_ns(), REGISTER_RETRY_MS);
    while (!pins->stop) {
        uint64_t next = held_sweep(pins);
        struct pin *pin = list_first(&pins->todo, struct pin, link);

        if (now_ns() >= pins->register_ns) {
            register_work(pins);
        } else if (pin && pin->released) {
            list_del(&pin->link);
            pins->count--;
            pin_free(pin);
        } else if (pin) {
            pin_work(pins, pin);
        } else if (pins->rung || pins->stop) {
            pins->rung = false;
        } else {
            wait_until(pins, deadline_min(next, pins->register_ns));
        }
    }
    pthread_mutex_unlock(&pins->lock);
    return NULL;
}

enum mc_status pins_start(struct pins *pins, struct mc_store *store)
{
    pthread_condattr_t attr;

    pins->store = store;
    list_init(&pins->todo);
    list_init(&pins->held);
    pthread_mutex_init(&pins->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pins->bell, &attr);
    pthread_condattr_destroy(&attr);
    if (pthread_create(&pins->thread, NULL, pins_main, pins) != 0) {
        log_error("worker: cannot start the pin thread: %m");
        return MC_ESYS;
    }
    pthread_setname_np(pins->thread, "pins");
    pins->started = true;
    return MC_OK;
}

void pins_stop(struct pins *pins)
{
    struct list *link;

    if (!pins->started)
        return;
    pthread_mutex_lock(&pins->lock);
    pins->stop = true;
    pthread_cond_signal(&pins->bell);
    pthread_mutex_unlock(&pins->lock);
    pthread_join(pins->thread, NULL);
    /* What is still pinned ends with the Store client's connection. */
    list_splice_back(&pins->todo, &pins->held);
    while ((link = list_pop_front(&pins->todo)))
        pin_free(list_entry(link, struct pin, link));
    pthread_cond_destroy(&pins->bell);
    pthread_mutex_destroy(&pins->lock);
    pins->started = false;
}

void pins_add(
    struct pins *pins, const void *owner, uint64_t request, struct mc_key *keys, uint32_t count, uint32_t hold_ms)
{
    struct pin *pin = pins->started ? calloc(1, sizeof(*pin)) : NULL;
    bool taken = false;

    if (pin) {
        *pin = (struct pin){.owner = owner, .request = request, .keys = keys, .count = count, .hold_ms = hold_ms};
        pin->until_ns = now_ns() + hold_ms * NS_PER_MS;
        pthread_mutex_lock(&pins->lock);
        taken = pins->count < PINS_MAX;
        if (taken) {
            pins->count++;
            list_push_back(&pins->todo, &pin->link);
            pins->rung = true;
            pthread_cond_signal(&pins->bell);
        }
        pthread_mutex_unlock(&pins->lock);
    }
    if (!taken) {
        free(pin);
        free(keys);
    }
}

static void release_in(struct list *pins, const void *owner, uint64_t request)
{
    list_for_each (it, pins) {
        struct pin *pin = list_entry(it, struct pin, link);

        if (pin->owner == owner && pin->request == request)
            pin->released = true;
    }
}

void pins_release(struct pins *pins, const void *owner, uint64_t request)
{
    if (!pins->started)
        return;
    pthread_mutex_lock(&pins->lock);
    release_in(&pins->todo, owner, request);
    release_in(&pins->held, owner, request);
    pins->rung = true;
    pthread_cond_signal(&pins->bell);
    pthread_mutex_unlock(&pins->lock);
}
