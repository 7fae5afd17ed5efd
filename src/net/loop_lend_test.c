/* loop_lend_test.c - a thread borrows a loop that runs in another one: who runs what, and who is woken by what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sys/socket.h>

#include "net/net_test.h"

static struct loop *loop;
static pthread_t home; /* the loop's own thread */

static void note_home(struct loop *l, void *arg)
{
    home = pthread_self();
}

static int setup(void **state)
{
    loop = loop_create("test");
    assert_int_equal(loop_thread_start(loop), MC_OK);
    loop_call(loop, note_home, NULL);
    return 0;
}

static int teardown(void **state)
{
    loop_thread_stop(loop);
    loop_destroy(loop);
    return 0;
}

/* The loop's thread may still be on its way to sleep. */
static void borrow(void)
{
    while (!loop_borrow(loop))
        sched_yield();
}

/* ---- who runs what ---- */

struct job {
    struct loop_task task;
    pthread_t ran_by;
    _Atomic unsigned runs;
};

static void job_run(struct loop *l, struct loop_task *task)
{
    struct job *job = container_of(task, struct job, task);

    assert_true(loop_in_thread(l));
    job->ran_by = pthread_self();
    job->runs++;
}

static void nothing(struct loop *l, void *arg)
{
}

static void test_deferred(void **state)
{
    struct job mine = {.runs = 0}, homely = {.runs = 0};

    loop_task_init(&mine.task, job_run);
    loop_task_init(&homely.task, job_run);
    homely.task.home = true;
    assert_false(loop_in_thread(loop));
    borrow();
    assert_true(loop_in_thread(loop));
    assert_false(loop_borrow(loop)); /* not twice */
    loop_defer(loop, &homely.task);
    loop_defer(loop, &mine.task);
    loop_return(loop);
    assert_false(loop_in_thread(loop));
    assert_int_equal(mine.runs, 1);
    assert_true(pthread_equal(mine.ran_by, pthread_self()));
    while (!homely.runs) /* the loop's thread was woken for it */
        sched_yield();
    loop_call(loop, nothing, NULL);
    assert_true(pthread_equal(homely.ran_by, home));
}

static void test_never_lent(void **state)
{
    struct loop *idle = loop_create("idle");

    assert_false(loop_borrow(idle)); /* nobody runs it */
    loop_destroy(idle);
    borrow();
    assert_non_null(loop_event_base(loop)); /* from now on libevent waits */
    loop_return(loop);
    loop_call(loop, nothing, NULL);
    loop_call(loop, nothing, NULL);
    assert_false(loop_borrow(loop));
}

/* ---- leading ---- */

struct end {
    struct loop_io io;
    int far;
    pthread_t ran_by;
    _Atomic unsigned calls;
};

static void end_ready(struct loop *l, struct loop_io *io, unsigned events)
{
    struct end *end = container_of(io, struct end, io);
    char byte;

    assert_true(loop_in_thread(l));
    if (recv(io->fd, &byte, 1, MSG_DONTWAIT) != 1)
        return;
    end->ran_by = pthread_self();
    end->calls++;
}

static void end_open(struct loop *l, void *arg)
{
    struct end *end = arg;
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    end->far = fds[1];
    assert_int_equal(loop_io_start(l, &end->io, fds[0], LOOP_READ, end_ready), MC_OK);
}

static void end_close(struct loop *l, void *arg)
{
    struct end *end = arg;
    int fd = end->io.fd;

    loop_io_stop(&end->io);
    close(fd);
}

/* After `after_us`, so that the leader sleeps by then most of the time; both orders are right. */
struct later {
    pthread_t thread;
    void (*fn)(struct loop *l, void *arg);
    void *arg;
};

static void *later_run(void *arg)
{
    struct later *later = arg;

    usleep(2000);
    loop_call(loop, later->fn, later->arg);
    return NULL;
}

static void later(struct later *l, void (*fn)(struct loop *l, void *arg), void *arg)
{
    *l = (struct later){.fn = fn, .arg = arg};
    assert_int_equal(pthread_create(&l->thread, NULL, later_run, l), 0);
}

static void write_far(struct loop *l, void *arg)
{
    assert_int_equal(write(((struct end *)arg)->far, "x", 1), 1);
}

static void test_lead(void **state)
{
    struct end end = {.calls = 0}, other = {.calls = 0};
    struct loop_io *ios[] = {&end.io};
    struct later writer;

    loop_call(loop, end_open, &end);
    loop_call(loop, end_open, &other);
    borrow();
    assert_true(loop_lead_begin(loop, ios, 1));
    later(&writer, write_far, &end);
    write_far(loop, &other); /* not led: the loop's thread takes it meanwhile */
    while (!end.calls)
        assert_true(loop_lead_wait(loop));
    assert_true(pthread_equal(end.ran_by, pthread_self()));
    loop_return(loop);
    pthread_join(writer.thread, NULL);
    while (!other.calls)
        sched_yield();
    write_far(loop, &end); /* it is the loop's thread's again */
    while (end.calls < 2)
        sched_yield();
    loop_call(loop, end_close, &end);
    loop_call(loop, end_close, &other);
    assert_true(pthread_equal(end.ran_by, home));
    assert_true(pthread_equal(other.ran_by, home));
    close(end.far);
    close(other.far);
}

static void kick(struct loop *l, void *arg)
{
    *(bool *)arg = true;
    loop_lead_kick(l);
}

/* What a leader waits for may come by another way, and his descriptors may go while he waits for them. */
static void test_lead_kicked(void **state)
{
    struct end end = {.calls = 0};
    struct loop_io *ios[] = {&end.io};
    struct later closer, kicker;
    bool kicked = false;

    loop_call(loop, end_open, &end);
    borrow();
    assert_true(loop_lead_begin(loop, ios, 1));
    later(&closer, end_close, &end);
    while (end.io.fd >= 0)
        assert_true(loop_lead_wait(loop));
    later(&kicker, kick, &kicked);
    while (!kicked)
        assert_true(loop_lead_wait(loop));
    loop_return(loop);
    pthread_join(closer.thread, NULL);
    pthread_join(kicker.thread, NULL);
    assert_int_equal(end.calls, 0);
    close(end.far);
}

static void want_less(struct loop *l, void *arg)
{
    loop_io_want(arg, 0);
}

/* A leader waits for what is wanted now, not for what was wanted when he began. */
static void test_want_changes(void **state)
{
    struct end end = {.calls = 0};
    struct loop_io *ios[] = {&end.io};
    struct later changer;

    loop_call(loop, end_open, &end);
    borrow();
    assert_true(loop_lead_begin(loop, ios, 1));
    later(&changer, want_less, &end.io);
    while (end.io.want)
        assert_true(loop_lead_wait(loop));
    write_far(loop, &end);
    loop_return(loop);
    pthread_join(changer.thread, NULL);
    loop_call(loop, nothing, NULL);
    loop_call(loop, nothing, NULL); /* a whole turn in between */
    assert_int_equal(end.calls, 0);
    loop_call(loop, end_close, &end);
    close(end.far);
}

/* ---- many ---- */

#define BORROWERS 4
#define ROUNDS    2000

static unsigned count_owned; /* by whoever owns the loop */

static void *borrower(void *arg)
{
    for (int i = 0; i < ROUNDS;) {
        if (!loop_borrow(loop)) {
            sched_yield();
            continue;
        }
        count_owned++;
        loop_return(loop);
        i++;
    }
    return NULL;
}

static void count_one(struct loop *l, void *arg)
{
    count_owned++;
}

static void test_one_owner(void **state)
{
    pthread_t threads[BORROWERS];

    count_owned = 0;
    for (int i = 0; i < BORROWERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, borrower, NULL), 0);
    for (int i = 0; i < ROUNDS; i++)
        loop_call(loop, count_one, NULL);
    for (int i = 0; i < BORROWERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(count_owned, (BORROWERS + 1) * ROUNDS);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_deferred),
        T(test_never_lent),
        T(test_lead),
        T(test_lead_kicked),
        T(test_want_changes),
        T(test_one_owner),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
