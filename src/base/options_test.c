/* options_test.c - the four sources, their order, every kind of value, and that each mistake is one message which names the place and
 * the nearest word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"

struct opts {
    uint64_t memory, ttl;
    int64_t count;
    double ratio;
    bool prefault, quiet;
    int mode;
    const char *listen, *token;
    struct opt_list peers;
};

static const char *const modes[] = {"fast", "safe", "auto", NULL};
static const struct opt_row rows[] = {
    {"memory", OPT_SIZE, offsetof(struct opts, memory), "1G", .min = 1 << 20, .max = 1ull << 40, .group = "Store",
        .help = "memory given to the cache", .short_name = 'm'},
    {"lease-ttl", OPT_MS, offsetof(struct opts, ttl), "5s", .min = 1, .group = "Store",
        .help = "how long a promise holds"},
    {"count", OPT_INT, offsetof(struct opts, count), "-3", .min = -10, .max = 10, .help = "a number"},
    {"ratio", OPT_FLOAT, offsetof(struct opts, ratio), "0.5", .max = 1, .help = "a ratio"},
    {"prefault", OPT_BOOL, offsetof(struct opts, prefault), "yes", .help = "touch all memory"},
    {"quiet", OPT_BOOL, offsetof(struct opts, quiet), "no", .short_name = 'q', .help = "say little"},
    {"mode", OPT_ENUM, offsetof(struct opts, mode), "auto", .choices = modes, .help = "how"},
    {"listen", OPT_STRING, offsetof(struct opts, listen), NULL, .unit = "ADDR", .help = "where"},
    {"token", OPT_STRING, offsetof(struct opts, token), "s3cret", .flags = OPT_SECRET | OPT_ONLY_ARGV, .help = "who"},
    {"peer", OPT_LIST, offsetof(struct opts, peers), "a,b", .help = "others"},
};
static const struct opt_row other_rows[] = {
    {"web-port", OPT_INT, 0, "80", .help = "of another command"},
};

static struct opts opts;
static struct options *options;
static struct buf message;
static const char *config_file;

static enum mc_status read_config(void *arg, const char *path, char **text, size_t *len)
{
    if (strcmp(path, "node.conf") != 0)
        return MC_ENOENT;
    *len = strlen(config_file);
    *text = strdup(config_file);
    return MC_OK;
}

static enum mc_status parse(const char *const *argv, const char *const *envp)
{
    struct options_input input = {.argv = argv, .envp = envp, .read_file = read_config};

    while (argv && argv[input.argc])
        input.argc++;
    options_destroy(options);
    buf_fini(&message);
    buf_init(&message, 10000);
    memset(&opts, 0xee, sizeof(opts));
    options = options_create("mooncake node", "Keep the memory of this host.");
    options_add(options, rows, sizeof(rows) / sizeof(rows[0]), &opts);
    options_add(options, other_rows, 1, NULL);
    options_positional(options, "[FILE...]", 0, 2);
    return options_parse(options, &input, &message);
}

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NONE      ((const char *const[]){NULL})

static int teardown(void **state)
{
    options_destroy(options);
    options = NULL;
    buf_fini(&message);
    return 0;
}

static void test_defaults(void **state)
{
    assert_int_equal(parse(NONE, NONE), MC_OK);
    assert_int_equal(opts.memory, 1 << 30);
    assert_int_equal(opts.ttl, 5000);
    assert_int_equal(opts.count, -3);
    assert_true(opts.ratio == 0.5);
    assert_true(opts.prefault);
    assert_int_equal(opts.mode, 2);
    assert_null(opts.listen);
    assert_int_equal(opts.peers.count, 2);
    assert_string_equal(opts.peers.items[1], "b");
    assert_false(options_given(options, "memory"));
    assert_string_equal(buf_cstr(&message), "");
}

static void test_command_line(void **state)
{
    const char *const *args;

    assert_int_equal(parse(ARGV("--memory", "64M", "--lease-ttl=1.5m", "file1", "--no-prefault", "-q", "--mode", "safe",
                               "--count", "-5", "--listen=", "--peer", "x,y", "--peer=z", "--", "--file2"),
                         NONE),
        MC_OK);
    assert_int_equal(opts.memory, 64 << 20);
    assert_int_equal(opts.ttl, 90000);
    assert_false(opts.prefault);
    assert_true(opts.quiet);
    assert_int_equal(opts.mode, 1);
    assert_int_equal(opts.count, -5);
    assert_string_equal(opts.listen, "");
    assert_int_equal(opts.peers.count, 2);
    assert_string_equal(opts.peers.items[0], "x,y");
    assert_int_equal(options_args(options, &args), 2);
    assert_string_equal(args[1], "--file2");
    assert_true(options_given(options, "memory"));
    assert_int_equal(parse(ARGV("-m2G", "--prefault=off", "--quiet=1"), NONE), MC_OK);
    assert_true(opts.memory == 2ull << 30);
    assert_false(opts.prefault);
}

static void test_order_of_sources(void **state)
{
    const char *const env[] = {
        "MOONCAKE_MEMORY=3G", "MOONCAKE_LEASE_TTL=3s", "MOONCAKE_PEER=e1,,e2", "PATH=/bin", NULL};

    config_file =
        "# a comment\nmemory = 2G\nlease-ttl = 2s   # why\ncount=2\r\n\n listen = \"a # b\"\npeer = c\nweb-port = 1\n";
    assert_int_equal(parse(ARGV("--config", "node.conf", "--memory=4G"), env), MC_OK);
    assert_true(opts.memory == 4ull << 30);
    assert_int_equal(opts.ttl, 3000);
    assert_int_equal(opts.count, 2);
    assert_string_equal(opts.listen, "a # b");
    assert_int_equal(opts.peers.count, 2);
    assert_string_equal(opts.peers.items[1], "e2");
    assert_string_equal(buf_cstr(&message), "");
    assert_int_equal(parse(NONE, ARGV("MOONCAKE_CONFIG=node.conf")), MC_OK);
    assert_true(opts.memory == 2ull << 30);
}

static void bad(const char *const *argv, const char *const *envp, const char *expect)
{
    assert_int_equal(parse(argv, envp), MC_EINVAL);
    assert_string_equal(buf_cstr(&message), expect);
}

static void test_mistakes_on_the_command_line(void **state)
{
    bad(ARGV("--memroy=1G"), NONE, "unknown option --memroy=1G; did you mean --memory?\n");
    bad(ARGV("--xyzzy"), NONE, "unknown option --xyzzy\n");
    bad(ARGV("-z"), NONE, "unknown option -z\n");
    bad(ARGV("--memory"), NONE, "--memory needs a value\n");
    bad(ARGV("--memory", "--quiet"), NONE, "--memory needs a value\n");
    bad(ARGV("--memory", "12Q"), NONE, "--memory: '12Q' is not a size (write 4096, 64K, 512M, 8G or 2T)\n");
    bad(ARGV("--memory", "99999999999T"), NONE, "--memory: '99999999999T' is too large\n");
    bad(ARGV("--memory", "1K"), NONE, "--memory: 1K is out of range: must be from 1M to 1T\n");
    bad(ARGV("--lease-ttl", "0"), NONE, "--lease-ttl: 0 is out of range: must be at least 1ms\n");
    bad(ARGV("--lease-ttl", "5 years"), NONE, "--lease-ttl: '5 years' is not a time (write 250ms, 2s, 5m or 1h)\n");
    bad(ARGV("--mode", "save"), NONE, "--mode: 'save' is not one of fast|safe|auto; did you mean 'safe'?\n");
    bad(ARGV("--mode", "x"), NONE, "--mode: 'x' is not one of fast|safe|auto\n");
    bad(ARGV("--count", "1e3"), NONE, "--count: '1e3' is not a whole number\n");
    bad(ARGV("--ratio", "nan"), NONE, "--ratio: 'nan' is not a number\n");
    bad(ARGV("--ratio", "2"), NONE, "--ratio: 2 is out of range: must be from 0 to 1\n");
    bad(ARGV("--quiet=maybe"), NONE, "--quiet: 'maybe' is neither yes nor no\n");
    bad(ARGV("--no-memory"), NONE, "unknown option --no-memory; did you mean --memory?\n");
    bad(ARGV("--web-port", "1"), NONE, "option --web-port belongs to another command than mooncake node\n");
    bad(ARGV("a", "b", "c"), NONE, "unexpected argument 'c'\n");
}

static void bad_config(const char *text, const char *expect)
{
    config_file = text;
    bad(ARGV("--config=node.conf"), NONE, expect);
}

static void test_mistakes_in_the_file(void **state)
{
    bad_config("memory = 1G\n\nmemroy = 1\n", "node.conf:3: unknown option 'memroy'; did you mean 'memory'?\n");
    bad_config("memory = x\n", "node.conf:1: memory: 'x' is not a size (write 4096, 64K, 512M, 8G or 2T)\n");
    bad_config("memory 1G\n", "node.conf:1: 'memory 1G' is not of the form name = value\n");
    bad_config("memory = 1G\nmemory = 2G\n", "node.conf:2: memory: was already set in line 1\n");
    bad_config("token = x\n", "node.conf:1: token: may be given on the command line only\n");
    bad(ARGV("--config=none"), NONE, "cannot read config file none: not found\n");
}

static void test_environment(void **state)
{
    bad(NONE, ARGV("MOONCAKE_MEMORY=1"), "MOONCAKE_MEMORY: 1 is out of range: must be from 1M to 1T\n");
    assert_int_equal(
        parse(NONE, ARGV("MOONCAKE_MEMROY=1G", "MOONCAKE_WEB_PORT=5", "MOONCAKE_=x", "MOONCAKE_FOO")), MC_OK);
    assert_string_equal(buf_cstr(&message), "unknown variable MOONCAKE_MEMROY; did you mean MOONCAKE_MEMORY?\n");
}

static void test_help(void **state)
{
    struct buf out;

    buf_init(&out, 100000);
    assert_int_equal(parse(ARGV("--memory=1", "--help"), NONE), MC_OK);
    assert_true(options_help_wanted(options));
    options_print_help(options, &out, 70);
    assert_non_null(strstr(buf_cstr(&out), "usage: mooncake node [options] [FILE...]\n"));
    assert_non_null(
        strstr(buf_cstr(&out), "\nStore:\n  -m, --memory SIZE           memory given to the cache (from 1M to\n"
                               "                              1T, default 1G)\n"));
    assert_non_null(strstr(buf_cstr(&out), "--mode fast|safe|auto"));
    assert_non_null(strstr(buf_cstr(&out), "--[no-]prefault"));
    for (const char *line = buf_cstr(&out); *line; line = strchr(line, '\n') + 1)
        assert_true(strcspn(line, "\n") <= 90);
    buf_reset(&out);
    options_print_markdown(options, &out);
    assert_non_null(strstr(buf_cstr(&out),
        "| `--memory` | SIZE | `1G` | `MOONCAKE_MEMORY` | memory given to the cache (from 1M to 1T) |"));
    assert_non_null(strstr(buf_cstr(&out), "fast\\|safe\\|auto"));
    buf_fini(&out);
}

static void test_values(void **state)
{
    struct buf out;

    buf_init(&out, 100000);
    assert_int_equal(parse(ARGV("--memory=64M", "--token=abc"), ARGV("MOONCAKE_COUNT=4")), MC_OK);
    options_print_values(options, &out);
    assert_non_null(strstr(buf_cstr(&out), "memory = 64M                             # command line\n"));
    assert_non_null(strstr(buf_cstr(&out), "count = 4                                # MOONCAKE_COUNT\n"));
    assert_non_null(strstr(buf_cstr(&out), "token = ***"));
    assert_null(strstr(buf_cstr(&out), "abc"));
    assert_null(strstr(buf_cstr(&out), "web-port"));
    buf_fini(&out);
}

static void test_needs_args(void **state)
{
    struct options_input input = {0};

    parse(NONE, NONE);
    options_destroy(options);
    options = options_create("mooncake kv", "x");
    options_positional(options, "KEY", 1, 1);
    assert_int_equal(options_parse(options, &input, &message), MC_EINVAL);
    assert_string_equal(buf_cstr(&message), "mooncake kv needs KEY\n");
}

static void test_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0}, {"4096", 4096}, {"64K", 65536}, {"64 KiB", 65536}, {"1.5g", 3ull << 29},
        {"16TiB", 1ull << 44}, {"12b", 12}, {"18446744073709551615", UINT64_MAX}};
    static const char *const wrong[] = {"", "K", "-1", "1KK", "1.K", "1e3", "0x10", " 1"};
    uint64_t value;
    char text[24];

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(size_parse(good[i].text, &value), MC_OK);
        assert_int_equal(value, good[i].bytes);
        size_format(value, text);
        assert_int_equal(size_parse(text, &value), MC_OK);
        assert_int_equal(value, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(size_parse(wrong[i], &value), MC_EINVAL);
    assert_int_equal(size_parse("18446744073709551616", &value), MC_ETOOBIG);
    assert_int_equal(size_parse("17179869184G", &value), MC_ETOOBIG);
    assert_int_equal(duration_parse("1h", &value), MC_OK);
    duration_format(value, text);
    assert_string_equal(text, "1h");
    duration_format(90000, text);
    assert_string_equal(text, "90s");
    size_format(0, text);
    assert_string_equal(text, "0");
}

static void test_edit_distance(void **state)
{
    assert_int_equal(edit_distance("memory", "memroy"), 1);
    assert_int_equal(edit_distance("", "abc"), 3);
    assert_int_equal(edit_distance("kitten", "sitting"), 3);
    assert_int_equal(edit_distance("same", "same"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_defaults, teardown),
        cmocka_unit_test_teardown(test_command_line, teardown),
        cmocka_unit_test_teardown(test_order_of_sources, teardown),
        cmocka_unit_test_teardown(test_mistakes_on_the_command_line, teardown),
        cmocka_unit_test_teardown(test_mistakes_in_the_file, teardown),
        cmocka_unit_test_teardown(test_environment, teardown),
        cmocka_unit_test_teardown(test_help, teardown),
        cmocka_unit_test_teardown(test_values, teardown),
        cmocka_unit_test_teardown(test_needs_args, teardown),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_edit_distance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
