/* transports.c - the list of transports, in order of preference, and their set-up for one engine. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transfer/core.h"
#include "transfer/fault/fault.h"

static const struct transport_ops *const all[] = {&shm_memfd_ops, &shm_vm_ops, &tcp_ops};
#define ALL (sizeof(all) / sizeof(all[0]))
static_assert(ALL <= TRANSPORTS_MAX, "an engine may use all of them");

static void ops_assert(const struct transport_ops *ops)
{
    assert(ops->name && ops->fit && ops->submit);
    assert(ops->caps & (TRANSPORT_READ | TRANSPORT_WRITE));
    assert(!(ops->caps & TRANSPORT_LINKS) == !ops->cut);
}

/* "shm" is both ways of sharing memory. */
static bool name_means(struct slice name, const struct transport_ops *ops)
{
    return slice_eq_str(name, ops->name) || slice_eq_str(name, "auto") ||
           (slice_eq_str(name, "shm") && (ops->caps & TRANSPORT_SAME_HOST));
}

static enum mc_status add(struct mc_te *te, const struct transport_ops *ops, bool asked)
{
    struct transport *transport = &te->transports[te->transport_count];

    for (unsigned i = 0; i < te->transport_count; i++)
        if (te->transports[i].ops->path == ops->path)
            return MC_OK;
    ops_assert(ops);
    if (ops->probe && ops->probe() != MC_OK) {
        if (!asked)
            return MC_OK;
        log_error("transfer: transport %s does not work on this kernel", ops->name);
        return MC_ENOSUP;
    }
    *transport = (struct transport){.ops = ops, .te = te};
    te->transport_count++;
    return te->fault ? fault_wrap(te->fault, transport) : MC_OK;
}

static enum mc_status add_named(struct mc_te *te, struct slice name)
{
    bool exact = false;
    bool known = false;

    for (unsigned i = 0; i < ALL; i++) {
        enum mc_status status;

        if (!name_means(name, all[i]))
            continue;
        known = true;
        exact = slice_eq_str(name, all[i]->name);
        status = add(te, all[i], exact);
        if (status != MC_OK)
            return status;
    }
    if (!known)
        log_error("transfer: unknown transport %.*s: use auto, tcp, shm, shm-memfd, shm-vm or a list of them",
            SLICE_FMT(name));
    return known ? MC_OK : MC_EINVAL;
}

enum mc_status transports_init(struct mc_te *te, const char *names)
{
    for (const char *at = names; *at;) {
        size_t len = strcspn(at, ",");
        enum mc_status status = add_named(te, slice_of(at, len));

        if (status != MC_OK)
            return status;
        at += len + (at[len] == ',');
    }
    if (te->transport_count)
        return MC_OK;
    log_error("transfer: no transport of \"%s\" works here", names);
    return MC_ENOSUP;
}

void transports_fini(struct mc_te *te)
{
    for (unsigned i = 0; i < te->transport_count; i++)
        if (te->transports[i].ops->fini)
            te->transports[i].ops->fini(&te->transports[i]);
}
