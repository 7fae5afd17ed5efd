/* xdg_test.c - directories are made with the right modes, and refused when they are not private; small files survive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/scratch_test.h"
#include "base/xdg.h"

static char root[SCRATCH_PATH];

static void ignore(void *arg, enum log_level level, const char *text)
{
}

static int setup(void **state)
{
    log_capture(ignore, NULL);
    scratch_dir(root);
    return 0;
}

static int teardown(void **state)
{
    log_capture(NULL, NULL);
    return 0;
}

static unsigned mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void test_paths(void **state)
{
    char path[256], expect[256];

    setenv("HOME", root, 1);
    unsetenv("XDG_CACHE_HOME");
    setenv("XDG_STATE_HOME", "relative/is/ignored", 1);
    assert_int_equal(xdg_path(XDG_CACHE, "models/x", path, sizeof(path)), MC_OK);
    snprintf(expect, sizeof(expect), "%s/.cache/mooncake/models/x", root);
    assert_string_equal(path, expect);
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(xdg_path(XDG_STATE, NULL, path, sizeof(path)), MC_OK);
    snprintf(expect, sizeof(expect), "%s/.local/state/mooncake", root);
    assert_string_equal(path, expect);
    assert_int_equal(xdg_path(XDG_STATE, NULL, path, 5), MC_ETOOBIG);
    unsetenv("HOME");
    assert_int_equal(xdg_path(XDG_CACHE, NULL, path, sizeof(path)), MC_ENOENT);
    setenv("HOME", root, 1);
}

static void test_runtime(void **state)
{
    char path[256], link_path[256];

    setenv("XDG_RUNTIME_DIR", root, 1);
    assert_int_equal(xdg_path(XDG_RUNTIME, NULL, path, sizeof(path)), MC_OK);
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(chmod(path, 0750), 0);
    assert_int_equal(xdg_path(XDG_RUNTIME, NULL, path, sizeof(path)), MC_EPERM);
    assert_int_equal(rmdir(path), 0);
    snprintf(link_path, sizeof(link_path), "%s/elsewhere", root);
    assert_int_equal(mkdir(link_path, 0700), 0);
    assert_int_equal(symlink(link_path, path), 0);
    assert_int_equal(xdg_path(XDG_RUNTIME, NULL, path, sizeof(path)), MC_EPERM);
    assert_int_equal(unlink(path), 0);
}

static void test_files(void **state)
{
    char path[256], *text;
    size_t len;

    snprintf(path, sizeof(path), "%s/file", root);
    assert_int_equal(path_read(path, 100, &text, &len), MC_ENOENT);
    assert_int_equal(path_write_atomic(path, "hello", 5), MC_OK);
    assert_int_equal(path_write_atomic(path, "hello again", 11), MC_OK);
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(path_read(path, 100, &text, &len), MC_OK);
    assert_string_equal(text, "hello again");
    free(text);
    assert_int_equal(path_read(path, 11, &text, &len), MC_OK);
    free(text);
    assert_int_equal(path_read(path, 10, &text, &len), MC_ETOOBIG);
    assert_int_equal(path_read(root, 10, &text, &len), MC_ESYS);
    assert_int_equal(path_read("/proc/self/status", 100000, &text, &len), MC_OK);
    free(text);
    snprintf(path, sizeof(path), "%s/no/such/dir", root);
    assert_int_equal(path_write_atomic(path, "x", 1), MC_ESYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_runtime),
        cmocka_unit_test(test_files),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
