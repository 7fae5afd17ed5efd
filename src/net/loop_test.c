/* loop_test.c - order, timers, posting from threads, hang-ups, and having been stopped.
 *
 * Times are compared with generous upper limits: the machine may be busy. Lower limits are exact. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "net/net_test.h"

static struct loop *loop;

static int setup(void **state)
{
    loop = loop_create("test");
    return loop ? 0 : -1;
}

static int teardown(void **state)
{
    loop_destroy(loop);
    return 0;
}

/* --- tasks --- */

static char trail[64];
static size_t trail_len;

struct mark {
    struct loop_task task;
    char letter;
};

static void mark_run(struct loop *l, struct loop_task *task)
{
    assert_ptr_equal(l, loop);
    assert_true(loop_in_thread(l));
    trail[trail_len++] = container_of(task, struct mark, task)->letter;
    trail[trail_len] = 0;
}

static void mark_init(struct mark *mark, char letter)
{
    loop_task_init(&mark->task, mark_run);
    mark->letter = letter;
}

static void test_order(void **state)
{
    struct mark marks[5];

    trail_len = 0;
    for (int i = 0; i < 5; i++)
        mark_init(&marks[i], (char)('a' + i));
    loop_defer(loop, &marks[3].task);
    loop_defer(loop, &marks[4].task);
    assert_true(loop_post(loop, &marks[0].task));
    assert_true(loop_post(loop, &marks[1].task));
    assert_false(loop_post(loop, &marks[0].task)); /* queued already */
    assert_true(loop_post(loop, &marks[2].task));
    loop_defer_cancel(loop, &marks[3].task);
    run_for(loop, 5);
    assert_string_equal(trail, "abce");
    assert_true(loop_post(loop, &marks[0].task));
    run_for(loop, 5);
    assert_string_equal(trail, "abcea");
}

static unsigned defer_count;

static void defer_again(struct loop *l, struct loop_task *task)
{
    if (++defer_count < 5)
        loop_defer(l, task);
}

static void test_defer_again(void **state)
{
    struct loop_task task;

    defer_count = 0;
    loop_task_init(&task, defer_again);
    loop_defer(loop, &task);
    run_for(loop, 5);
    assert_int_equal(defer_count, 5);
}

static void test_tasks_run_at_destroy(void **state)
{
    struct loop *other = loop_create("other"), *saved = loop;
    struct mark mark;

    trail_len = 0;
    mark_init(&mark, 'x');
    loop_post(other, &mark.task);
    loop = other;
    loop_destroy(other);
    loop = saved;
    assert_string_equal(trail, "x");
}

#define THREADS 4
#define POSTS   20000

struct ball {
    struct loop_task task;
    unsigned count;
};

static struct ball balls[THREADS][8];
static _Atomic unsigned balls_run;

static void ball_run(struct loop *l, struct loop_task *task)
{
    struct ball *ball = container_of(task, struct ball, task);

    ball->count++;
    balls_run++;
}

static void *ball_thrower(void *arg)
{
    struct ball *mine = arg;
    unsigned thrown = 0;

    while (thrown < POSTS)
        if (loop_post(loop, &mine[thrown % 8].task))
            thrown++;
        else
            sched_yield();
    return NULL;
}

static void test_posting_threads(void **state)
{
    pthread_t threads[THREADS];
    unsigned sum = 0;

    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < 8; i++)
            loop_task_init(&balls[t][i].task, ball_run);
    assert_int_equal(loop_thread_start(loop), MC_OK);
    assert_false(loop_in_thread(loop));
    for (int t = 0; t < THREADS; t++)
        assert_int_equal(pthread_create(&threads[t], NULL, ball_thrower, balls[t]), 0);
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    loop_thread_stop(loop);
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < 8; i++)
            sum += balls[t][i].count;
    assert_int_equal(sum, THREADS * POSTS);
    assert_int_equal(balls_run, THREADS * POSTS);
}

static void add_one(struct loop *l, void *arg)
{
    assert_true(loop_in_thread(l));
    ++*(int *)arg;
}

static void test_call(void **state)
{
    int n = 0;

    loop_call(loop, add_one, &n);
    assert_int_equal(loop_thread_start(loop), MC_OK);
    for (int i = 0; i < 1000; i++)
        loop_call(loop, add_one, &n);
    loop_thread_stop(loop);
    assert_int_equal(n, 1001);
}

/* --- timers --- */

struct alarm {
    struct loop_timer timer;
    uint64_t set_ns, rang_ns;
    unsigned rings, again;
    char letter;
};

static void alarm_ring(struct loop *l, struct loop_timer *timer)
{
    struct alarm *alarm = container_of(timer, struct alarm, timer);

    assert_false(loop_timer_pending(timer));
    alarm->rang_ns = now_ns();
    alarm->rings++;
    trail[trail_len++] = alarm->letter;
    trail[trail_len] = 0;
    if (alarm->rings <= alarm->again)
        loop_timer_set(l, timer, 0); /* in the past */
}

static void alarm_set(struct alarm *alarm, char letter, uint64_t after_us)
{
    *alarm = (struct alarm){.letter = letter};
    loop_timer_init(&alarm->timer, alarm_ring);
    alarm->set_ns = now_ns() + after_us * 1000;
    assert_int_equal(loop_timer_set(loop, &alarm->timer, alarm->set_ns), MC_OK);
}

static void test_timers(void **state)
{
    struct alarm alarms[5];
    uint64_t late = 0;

    trail_len = 0;
    alarm_set(&alarms[0], 'c', 30000);
    alarm_set(&alarms[1], 'a', 10000);
    alarm_set(&alarms[2], 'b', 20000);
    alarm_set(&alarms[3], 'x', 5000);
    alarm_set(&alarms[4], 'd', 1000);
    loop_timer_cancel(loop, &alarms[3].timer);
    loop_timer_cancel(loop, &alarms[3].timer);
    loop_timer_set(loop, &alarms[4].timer, alarms[4].set_ns += 39 * NS_PER_MS);
    run_for(loop, 80);
    assert_string_equal(trail, "abcd");
    for (int i = 0; i < 5; i++) {
        if (i == 3)
            continue;
        assert_true(alarms[i].rang_ns >= alarms[i].set_ns);
        if (alarms[i].rang_ns - alarms[i].set_ns > late)
            late = alarms[i].rang_ns - alarms[i].set_ns;
    }
    print_message("latest timer was %llu us late\n", (unsigned long long)late / 1000);
}

static void test_timer_in_the_past(void **state)
{
    struct alarm alarm;
    struct mark mark;

    trail_len = 0;
    mark_init(&mark, 'T');
    alarm_set(&alarm, 'a', 0);
    alarm.again = 20; /* must not keep tasks from running */
    loop_post(loop, &mark.task);
    run_for(loop, 30);
    assert_int_equal(alarm.rings, 21);
    assert_non_null(strchr(trail, 'T'));
    assert_true(trail[trail_len - 1] == 'a');
}

/* --- idle --- */

static void not_expected(struct loop *l, struct loop_gap *gap, uint64_t gap_ns)
{
    fail();
}

/* Of the loop's own thread: a sanitizer has threads too. */
static void usage_of(struct loop *l, void *arg)
{
    assert_int_equal(getrusage(RUSAGE_THREAD, arg), 0);
}

/* Also while somebody watches for gaps: with no timer set nothing ticks, and half a second of sleep is not taken for a stop. */
static void test_idle_uses_no_cpu(void **state)
{
    struct loop_gap gap = {.fn = not_expected};
    struct rusage before, after;
    long us;

    loop_gap_watch(loop, &gap);
    assert_int_equal(loop_thread_start(loop), MC_OK);
    loop_call(loop, usage_of, &before);
    usleep(600000);
    loop_call(loop, usage_of, &after);
    loop_thread_stop(loop);
    loop_gap_unwatch(loop, &gap);
    us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000 +
         after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec;
    assert_true(us < 5000);
    assert_true(after.ru_nvcsw - before.ru_nvcsw < 4); /* a tick of 100 ms would make six */
}

/* --- descriptors --- */

struct watch {
    struct loop_io io;
    unsigned seen, calls;
    bool stop;
};

static void watch_event(struct loop *l, struct loop_io *io, unsigned events)
{
    struct watch *watch = container_of(io, struct watch, io);
    char byte;

    watch->seen |= events;
    watch->calls++;
    if (events & LOOP_READ)
        (void)!recv(io->fd, &byte, 1, MSG_DONTWAIT);
    if (events & LOOP_WRITE)
        loop_io_want(io, io->want & ~(unsigned)LOOP_WRITE);
    if (watch->stop)
        loop_io_stop(io);
}

static void test_io(void **state)
{
    struct watch watch = {0};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(loop_io_start(loop, &watch.io, fds[0], 0, watch_event), MC_OK);
    assert_int_equal(write(fds[1], "ab", 2), 2);
    run_for(loop, 5);
    assert_int_equal(watch.calls, 0);
    loop_io_want(&watch.io, LOOP_READ | LOOP_WRITE);
    run_for(loop, 5);
    assert_int_equal(watch.seen, LOOP_READ | LOOP_WRITE);
    assert_true(watch.calls == 2 || watch.calls == 3); /* level triggered: two bytes, one at a time */
    watch.stop = true;
    assert_int_equal(write(fds[1], "c", 1), 1);
    run_for(loop, 5);
    assert_int_equal(watch.io.fd, -1);
    loop_io_stop(&watch.io);
    close(fds[0]);
    close(fds[1]);
}

/* Noticed although nothing is read, once, without spinning. */
static void hang_up(bool reset)
{
    struct linger linger = {1, 0};
    struct addr addr = loopback();
    struct sockaddr_storage sa;
    struct watch watch = {0};
    int listener = socket(AF_INET, SOCK_STREAM, 0), near, far = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len;

    addr_resolve(&addr, &sa, &len);
    assert_int_equal(bind(listener, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    addr_of_socket(listener, &addr);
    addr_resolve(&addr, &sa, &len);
    assert_int_equal(connect(far, (struct sockaddr *)&sa, len), 0);
    near = accept(listener, NULL, NULL);
    assert_int_equal(loop_io_start(loop, &watch.io, near, LOOP_CLOSED, watch_event), MC_OK);
    run_for(loop, 5);
    assert_int_equal(watch.calls, 0);
    if (reset)
        setsockopt(far, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(far);
    run_for(loop, 20);
    assert_int_equal(watch.seen, LOOP_CLOSED);
    assert_int_equal(watch.calls, 1);
    loop_io_stop(&watch.io);
    close(near);
    close(listener);
}

static void test_hang_up(void **state)
{
    hang_up(false);
    hang_up(true);
}

/* --- having been stopped --- */

struct gap_seen {
    struct loop_gap gap;
    uint64_t gap_ns;
    unsigned count;
    unsigned reads_before;
};

static struct watch gap_watch;

static void gap_event(struct loop *l, struct loop_gap *gap, uint64_t gap_ns)
{
    struct gap_seen *seen = container_of(gap, struct gap_seen, gap);

    seen->count++;
    seen->gap_ns = gap_ns;
    seen->reads_before = gap_watch.calls;
}

static void nothing(struct loop *l, struct loop_gap *gap, uint64_t gap_ns)
{
}

static bool gap_was_seen(void *arg)
{
    return ((struct gap_seen *)arg)->count > 0 && gap_watch.calls > 0;
}

/* A child stops us, writes to our socket, and lets us go on. */
static void test_gap(void **state)
{
    struct gap_seen seen = {.gap.fn = gap_event};
    struct loop_gap other = {.fn = nothing};
    int fds[2], status;
    pid_t parent = getpid(), child;

    gap_watch = (struct watch){0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(loop_io_start(loop, &gap_watch.io, fds[0], LOOP_READ, watch_event), MC_OK);
    loop_gap_watch(loop, &seen.gap);
    loop_gap_watch(loop, &other);
    run_for(loop, 300);
    assert_int_equal(seen.count, 0); /* sleeping is no gap */
    child = fork();
    if (child == 0) {
        usleep(30000);
        kill(parent, SIGSTOP);
        usleep(300000);
        (void)!write(fds[1], "x", 1);
        kill(parent, SIGCONT);
        _exit(0);
    }
    assert_true(run_until(loop, gap_was_seen, &seen, 3000));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(seen.count, 1);
    assert_true(seen.gap_ns >= LOOP_GAP_NS);
    assert_int_equal(seen.reads_before, 0); /* the watcher ran before any socket was read */
    loop_gap_unwatch(loop, &other);
    loop_gap_unwatch(loop, &seen.gap);
    loop_io_stop(&gap_watch.io);
    close(fds[0]);
    close(fds[1]);
}

struct writer {
    struct loop_task task;
    int fd, error;
};

static void write_broken(struct loop *l, struct loop_task *task)
{
    struct writer *writer = container_of(task, struct writer, task);

    writer->error = write(writer->fd, "x", 1) < 0 ? errno : 0;
}

/* A broken pipe while the loop runs must not kill us, nor afterwards. */
static void test_sigpipe_is_a_status(void **state)
{
    struct writer writer;
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    close(fds[0]);
    writer.fd = fds[1];
    loop_task_init(&writer.task, write_broken);
    loop_post(loop, &writer.task);
    run_for(loop, 2);
    close(fds[1]);
    assert_int_equal(writer.error, EPIPE);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_order),
        T(test_defer_again),
        T(test_tasks_run_at_destroy),
        T(test_posting_threads),
        T(test_call),
        T(test_timers),
        T(test_timer_in_the_past),
        T(test_idle_uses_no_cpu),
        T(test_io),
        T(test_hang_up),
        T(test_gap),
        T(test_sigpipe_is_a_status),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
