/* addr_test.c - the address parser against a table of what users write, and sockets on loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "net/addr.h"

static void test_good(void **state)
{
    static const struct {
        const char *text;
        enum addr_kind kind;
        const char *host;
        uint16_t port;
        const char *printed;
        bool loopback;
    } cases[] = {
        {"10.0.0.7:7001", ADDR_IP4, "10.0.0.7", 7001, "10.0.0.7:7001", false},
        {"127.1.2.3", ADDR_IP4, "127.1.2.3", 99, "127.1.2.3:99", true},
        {"[::1]:7001", ADDR_IP6, "::1", 7001, "[::1]:7001", true},
        {"[::]:0", ADDR_IP6, "::", 0, "[::]:0", false},
        {"::1", ADDR_IP6, "::1", 99, "[::1]:99", true},
        {"[fe80::1%lo]:1", ADDR_IP6, "fe80::1%lo", 1, "[fe80::1%lo]:1", false},
        {"::ffff:127.0.0.1", ADDR_IP6, "::ffff:127.0.0.1", 99, "[::ffff:127.0.0.1]:99", true},
        {"node-a.lan:65535", ADDR_NAME, "node-a.lan", 65535, "node-a.lan:65535", false},
        {"localhost", ADDR_NAME, "localhost", 99, "localhost:99", true},
        {"my_container:80", ADDR_NAME, "my_container", 80, "my_container:80", false},
        {":8080", ADDR_IP4, "127.0.0.1", 8080, "127.0.0.1:8080", true},
        {"", ADDR_IP4, "127.0.0.1", 99, "127.0.0.1:99", true},
        {"unix:/run/x.sock", ADDR_UNIX, "/run/x.sock", 0, "unix:/run/x.sock", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[ADDR_TEXT_MAX];
        struct addr addr, again;
        const char *why = NULL;

        assert_int_equal(addr_parse(cases[i].text, 99, &addr, &why), MC_OK);
        assert_null(why);
        assert_int_equal(addr.kind, cases[i].kind);
        assert_string_equal(addr.host, cases[i].host);
        assert_int_equal(addr.port, cases[i].port);
        assert_string_equal(addr_format(&addr, text), cases[i].printed);
        assert_int_equal(addr_is_loopback(&addr), cases[i].loopback);
        assert_int_equal(addr_parse(text, 1, &again, NULL), MC_OK);
        assert_true(addr_equal(&addr, &again));
    }
}

static void test_bad(void **state)
{
    static const char *const cases[] = {
        "10.0.0.7:", "10.0.0.7:70000", "10.0.0.7:-1", "10.0.0.7:7x", "1.2.3", "1.2.3.4.5", "256.1.1.1", "[::1",
        "[::1]7001", "[::1]:", "[1.2.3.4]:80", "[]:80", "::g", "1:2:3", "a b", "a/b", "-x", "a..b", "unix", "UNIX:7",
        ".a", "unix:", "host:1:2", "[::1%]:1", "::%[[]", "::1%a b",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", /* a label of 65 */
    };
    char lengthy[400];
    struct addr addr;
    const char *why;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        why = NULL;
        if (addr_parse(cases[i], 99, &addr, &why) == MC_OK)
            fail_msg("'%s' was accepted", cases[i]);
        assert_non_null(why);
    }
    memset(lengthy, 'a', sizeof(lengthy));
    lengthy[399] = 0;
    assert_int_equal(addr_parse(lengthy, 99, &addr, &why), MC_EINVAL);
    memcpy(lengthy, "unix:/", 6);
    assert_int_equal(addr_parse(lengthy, 99, &addr, &why), MC_EINVAL);
    assert_int_equal(addr_parse("nobody", 99, &addr, NULL), MC_OK);
}

static void test_sockets(void **state)
{
    static const char *const texts[] = {"127.0.0.1:0", "[::1]:0", "localhost:0"};

    for (size_t i = 0; i < 3; i++) {
        struct sockaddr_storage sa;
        struct addr addr, bound;
        socklen_t len;
        int fd;

        assert_int_equal(addr_parse(texts[i], 0, &addr, NULL), MC_OK);
        assert_true(addr_is_numeric(&addr));
        assert_int_equal(addr_resolve(&addr, &sa, &len), MC_OK);
        fd = socket(sa.ss_family, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr *)&sa, len) == 0) { /* there may be no IPv6 here */
            assert_int_equal(addr_of_socket(fd, &bound), MC_OK);
            assert_true(bound.port != 0);
            assert_true(addr_is_loopback(&bound));
        }
        close(fd);
    }
}

static void test_names(void **state)
{
    struct addr addr = {.kind = ADDR_NAME, .port = 1, .host = "no-such-host.invalid"};
    struct sockaddr_storage sa;
    socklen_t len;

    assert_false(addr_is_numeric(&addr));
    assert_int_equal(addr_resolve(&addr, &sa, &len), MC_ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
