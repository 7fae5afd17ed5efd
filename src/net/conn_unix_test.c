/* conn_unix_test.c - Unix sockets: descriptors that are passed, socket files, directories. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "net/conn_ends_test.h"

static bool all_came(void *arg)
{
    return server.frames == 2 && server.fds == 1;
}

static void test_pass_descriptor(void **state)
{
    int memfd = memfd_create("test", MFD_CLOEXEC);
    struct stat a, b;
    struct conn_msg before = {.type = 0x7001};

    assert_true(memfd >= 0);
    open_unix();
    server.echo = false;
    assert_int_equal(conn_send(client.conn, &before), MC_OK);
    assert_int_equal(conn_send_fd(client.conn, 17, slice_str("which"), memfd), MC_OK);
    assert_int_equal(conn_send(client.conn, &before), MC_OK);
    assert_int_equal(fstat(memfd, &a), 0);
    close(memfd);
    assert_true(run_until(loop, all_came, NULL, WAIT_MS));
    assert_int_equal(server.last.type, 0x7001);
    assert_int_equal(fstat(server.fd, &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    close(server.fd);
}

/* Descriptors that no frame announces are held in a small number only, and closed with the connection. */
static void test_too_many_descriptors(void **state)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    char byte = 'M';
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    struct addr addr = {.kind = ADDR_UNIX};
    int three[3] = {0, 1, 2}, fd;
    unsigned before;

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_OK);
    fd = raw_connect_again();
    before = open_descriptors();
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(three));
    memcpy(CMSG_DATA(cmsg), three, sizeof(three));
    for (int i = 0; i < 20 && !hung_up(&fd); i++) {
        sendmsg(fd, &msg, MSG_NOSIGNAL);
        run_for(loop, 5);
        assert_true(open_descriptors() <= before + 1 + 8);
    }
    assert_true(hung_up(&fd));
    assert_int_equal(open_descriptors(), before);
    close(fd);
}

static void test_descriptor_over_tcp(void **state)
{
    open_tcp();
    assert_int_equal(conn_send_fd(client.conn, 1, slice_of(NULL, 0), 0), MC_ENOSUP);
}

static void test_unix_directory_must_be_private(void **state)
{
    struct addr addr = {.kind = ADDR_UNIX};

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_EPERM);
    assert_null(listener);
    assert_int_equal(chmod(dir, 0700), 0);
}

static void test_unix_stale_socket_is_replaced(void **state)
{
    struct addr addr = {.kind = ADDR_UNIX};
    struct sockaddr_storage sa;
    struct listener *second = NULL;
    socklen_t len;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    assert_int_equal(addr_resolve(&addr, &sa, &len), MC_OK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    close(fd);
    open_unix();
    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &second), MC_EEXIST);
    exchange(3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_pass_descriptor),
        CONN_TEST(test_too_many_descriptors),
        CONN_TEST(test_descriptor_over_tcp),
        CONN_TEST(test_unix_directory_must_be_private),
        CONN_TEST(test_unix_stale_socket_is_replaced),
    };

    return cmocka_run_group_tests_name("conn unix", tests, NULL, NULL);
}
