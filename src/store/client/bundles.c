/* bundles.c - puts that are seen together: a job for each bundle, and one who waits for all of them. */
#include <assert.h>
#include <stdlib.h>

#include "base/clock.h"
#include "store/client/shell.h"

struct bundle_jobs {
    struct waiter waiter;
    uint32_t left;
    struct job jobs[];
};

static void bundle_finish(struct job *job)
{
    struct bundle_jobs *all = job->call.user;

    if (--all->left == 0)
        waiter_tell(job->store, &all->waiter);
}

enum mc_status mc_store_put_bundles(
    struct mc_store *store, struct mc_store_op *ops, const uint32_t *sizes, uint32_t n, uint32_t deadline_ms)
{
    struct bundle_jobs *all = n && n <= MC_STORE_OPS_MAX ? calloc(1, sizeof(*all) + n * sizeof(*all->jobs)) : NULL;
    uint64_t deadline = deadline_after_ms(now_ns(), deadline_ms);
    enum mc_status status;
    struct list jobs;

    if (!all)
        return n && n <= MC_STORE_OPS_MAX ? MC_ENOMEM : MC_EINVAL;
    assert(!loop_in_thread(store->loop));
    list_init(&jobs);
    all->left = n;
    for (uint32_t i = 0; i < n; ops += sizes[i++]) {
        struct job *job = &all->jobs[i];

        *job = (struct job){.store = store,
            .finish = bundle_finish,
            .call = {.kind = CALL_BUNDLE, .deadline_ns = deadline, .user = all, .bundle_of = {ops, sizes[i]}}};
        list_push_back(&jobs, &job->link);
    }
    status = job_submit(store, &jobs, n);
    if (status == MC_OK)
        shell_wait(store, &all->waiter, true);
    free(all);
    return status;
}
