/* fault.c - see fault.h.
 *
 * A delayed or dropped xfer is "flying" for the core and held here; what we hold is in state->held so that cancel finds it. */
#include "transfer/fault/fault.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct fault {
    struct rng rng;
    double drop, delay, cut, corrupt;
    uint32_t delay_ms;
};

/* An xfer that is held back; in the place of xfer->slot. */
struct held {
    struct list link;
    struct loop_timer timer;
    struct transport *self;
    struct mc_peer *peer;
    struct xfer *xfer;
};

struct wrap {
    struct transport inner;
    struct transport_ops ops;
    struct fault *fault;
    struct list held;
};

/* ---- specification ---- */

static bool number(const char *text, size_t len, double max, double *out)
{
    char copy[32], *end;

    if (len == 0 || len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = 0;
    *out = strtod(copy, &end);
    return *end == 0 && *out >= 0 && *out <= max;
}

static bool item(struct fault *fault, const char *at, size_t len)
{
    const char *eq = memchr(at, '=', len);
    struct slice name;
    double value;

    if (!eq)
        return false;
    name = slice_of(at, (size_t)(eq - at));
    if (slice_eq_str(name, "seed")) {
        if (!number(eq + 1, len - name.len - 1, 9e15, &value))
            return false;
        rng_seed(&fault->rng, (uint64_t)value);
        return true;
    }
    if (slice_eq_str(name, "delay_ms")) {
        if (!number(eq + 1, len - name.len - 1, 60000, &value))
            return false;
        fault->delay_ms = (uint32_t)value;
        if (fault->delay == 0)
            fault->delay = 1;
        return true;
    }
    if (!number(eq + 1, len - name.len - 1, 1, &value))
        return false;
    if (slice_eq_str(name, "drop"))
        fault->drop = value;
    else if (slice_eq_str(name, "delay"))
        fault->delay = value;
    else if (slice_eq_str(name, "cut"))
        fault->cut = value;
    else if (slice_eq_str(name, "corrupt"))
        fault->corrupt = value;
    else
        return false;
    return true;
}

enum mc_status fault_create(const char *spec, struct fault **out)
{
    struct fault *fault = calloc(1, sizeof(*fault));

    if (!fault)
        return MC_ENOMEM;
    rng_seed(&fault->rng, 1);
    for (const char *at = spec; *at;) {
        size_t len = strcspn(at, ",");

        if (!item(fault, at, len)) {
            log_error("transfer: fault %.*s: use seed=N, drop|delay|cut|corrupt=0..1, delay_ms=N", (int)len, at);
            free(fault);
            return MC_EINVAL;
        }
        at += len + (at[len] == ',');
    }
    *out = fault;
    return MC_OK;
}

void fault_destroy(struct fault *fault)
{
    free(fault);
}

bool fault_corrupts(struct fault *fault, size_t len, size_t *bit)
{
    if (!fault || fault->corrupt == 0 || !rng_chance(&fault->rng, fault->corrupt))
        return false;
    *bit = (size_t)rng_below(&fault->rng, (uint64_t)len * 8);
    return true;
}

/* ---- the wrapper ---- */

static void held_free(struct held *held)
{
    loop_timer_cancel(held->self->te->loop, &held->timer);
    list_del(&held->link);
    held->xfer->slot = NULL;
    free(held);
}

static enum transport_fit fault_fit(struct transport *self, struct mc_peer *peer, const struct xfer *xfer)
{
    struct wrap *wrap = self->state;

    return wrap->inner.ops->fit(&wrap->inner, peer, xfer);
}

/* To the inner transport; from now on it is the inner one's to cancel. */
static enum mc_status pass_on(struct wrap *wrap, struct mc_peer *peer, struct xfer *xfer)
{
    enum mc_status status;
    bool cut = (wrap->inner.ops->caps & TRANSPORT_LINKS) && rng_chance(&wrap->fault->rng, wrap->fault->cut);

    xfer->via = &wrap->inner;
    status = wrap->inner.ops->submit(&wrap->inner, peer, xfer);
    if (status == MC_OK && cut)
        wrap->inner.ops->cut(&wrap->inner, peer);
    return status;
}

static void delay_over(struct loop *loop, struct loop_timer *timer)
{
    struct held *held = container_of(timer, struct held, timer);
    struct wrap *wrap = held->self->state;
    struct mc_peer *peer = held->peer;
    struct xfer *xfer = held->xfer;
    enum mc_status status;

    held_free(held);
    if (wrap->inner.ops->fit(&wrap->inner, peer, xfer) != FIT_YES) {
        xfer_requeue(xfer);
        return;
    }
    status = pass_on(wrap, peer, xfer);
    if (status == MC_AGAIN)
        xfer_requeue(xfer);
    else if (status != MC_OK)
        xfer_end(xfer, status);
}

static enum mc_status hold(struct transport *self, struct mc_peer *peer, struct xfer *xfer, uint32_t ms)
{
    struct wrap *wrap = self->state;
    struct held *held = calloc(1, sizeof(*held));

    if (!held)
        return MC_ENOMEM;
    *held = (struct held){.self = self, .peer = peer, .xfer = xfer};
    loop_timer_init(&held->timer, delay_over);
    list_push_back(&wrap->held, &held->link);
    xfer->slot = held;
    if (ms == 0 || loop_timer_set(self->te->loop, &held->timer, deadline_after_ms(now_ns(), ms)) == MC_OK)
        return MC_OK;
    held_free(held);
    return MC_ENOMEM;
}

static enum mc_status fault_submit(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    struct wrap *wrap = self->state;
    struct fault *fault = wrap->fault;

    if (rng_chance(&fault->rng, fault->drop))
        return hold(self, peer, xfer, 0);
    if (fault->delay_ms && rng_chance(&fault->rng, fault->delay))
        return hold(self, peer, xfer, 1 + (uint32_t)rng_below(&fault->rng, fault->delay_ms));
    return pass_on(wrap, peer, xfer);
}

static uint64_t fault_cancel(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    held_free(xfer->slot);
    return 0;
}

static void fault_fini(struct transport *self)
{
    struct wrap *wrap = self->state;

    while (!list_empty(&wrap->held))
        held_free(list_first(&wrap->held, struct held, link));
    if (wrap->inner.ops->fini)
        wrap->inner.ops->fini(&wrap->inner);
    free(wrap);
}

static void fault_cut(struct transport *self, struct mc_peer *peer)
{
    struct wrap *wrap = self->state;

    wrap->inner.ops->cut(&wrap->inner, peer);
}

/* The table is the inner one's in name, path and capabilities, so that nobody sees a difference but in what happens. */
enum mc_status fault_wrap(struct fault *fault, struct transport *transport)
{
    struct wrap *wrap = calloc(1, sizeof(*wrap));

    if (!wrap)
        return MC_ENOMEM;
    wrap->inner = *transport;
    wrap->fault = fault;
    list_init(&wrap->held);
    wrap->ops = (struct transport_ops){
        .name = transport->ops->name,
        .path = transport->ops->path,
        .caps = transport->ops->caps,
        .fit = fault_fit,
        .submit = fault_submit,
        .cancel = fault_cancel,
        .cut = transport->ops->cut ? fault_cut : NULL,
        .fini = fault_fini,
    };
    transport->inner = &wrap->inner;
    transport->ops = &wrap->ops;
    transport->state = wrap;
    return MC_OK;
}
