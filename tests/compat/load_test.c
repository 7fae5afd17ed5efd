/* load_test.c - a C interface of compat/ is loaded, used, forked beside, and unloaded: nobody notices.
 *
 *     load_test LIBRARY
 *
 * Goal: loading starts no thread, opens no descriptor and changes no signal; neither that nor a use of it hooks anything into exit,
 * fork or signals; a forked child that does not use it ends as if it were not there. Method: the library comes by dlopen(), and
 * what would hook something in is this program's: a call to it is counted. */
#include <dirent.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int hooks; /* since the last look; what loaders and libc do by themselves is not seen here */
static bool watching;

#define VISIBLE __attribute__((visibility("default")))

VISIBLE int __cxa_atexit(void (*function)(void *), void *arg, void *module);
VISIBLE int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *module);

static void hook(const char *what)
{
    if (!watching)
        return;
    printf("hooked in: %s\n", what);
    hooks++;
}

VISIBLE int __cxa_atexit(void (*function)(void *), void *arg, void *module)
{
    hook("at exit");
    return 0;
}

VISIBLE int on_exit(void (*function)(int, void *), void *arg)
{
    hook("at exit");
    return 0;
}

VISIBLE int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *module)
{
    hook("at fork");
    return 0;
}

struct state {
    int threads, descriptors;
    void (*signals[NSIG])(int);
};

static int entries(const char *path)
{
    DIR *dir = opendir(path);
    int count = 0;

    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

static struct state look(void)
{
    struct state state = {.threads = entries("/proc/self/task"), .descriptors = entries("/proc/self/fd")};

    for (int i = 1; i < NSIG; i++) {
        struct sigaction action;

        if (sigaction(i, NULL, &action) == 0)
            state.signals[i] = action.sa_handler;
    }
    return state;
}

static int failures;

static void check(bool good, const char *what)
{
    if (good)
        return;
    printf("not so: %s\n", what);
    failures++;
}

static void check_same(const struct state *before, const char *when)
{
    struct state now = look();

    check(now.threads == before->threads && now.descriptors == before->descriptors, when);
    check(memcmp(now.signals, before->signals, sizeof(now.signals)) == 0, when);
    check(hooks == 0, when);
}

/* A child that does nothing with the library; ended by exit(), with everything that has been hooked in. */
static void check_fork(void)
{
    int status = -1;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(20);
        exit(3);
    }
    waitpid(child, &status, 0);
    check(WIFEXITED(status) && WEXITSTATUS(status) == 3, "a forked child ends as it wants");
}

typedef void *create_fn(const char *, const char *, const char *, uint64_t, int);
typedef void *make_fn(void);
typedef void end_fn(void *);

/* dlsym() gives data; the bytes are those of a function. */
#define FUNCTION(type, library, name, out)                                                                             \
    do {                                                                                                               \
        void *symbol_ = dlsym(library, name);                                                                          \
        memcpy(&(out), &symbol_, sizeof(symbol_));                                                                     \
    } while (0)

static void use_engine(void *library, create_fn *create)
{
    end_fn *destroy;
    void *engine = create("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);

    FUNCTION(end_fn, library, "destroyTransferEngine", destroy);
    check(engine != NULL, "an engine");
    check_fork();
    destroy(engine);
}

static void use_store(void *library)
{
    make_fn *create;
    end_fn *destroy;
    int (*put)(void *, const char *, const void *, size_t, const void *);
    void *store;

    FUNCTION(make_fn, library, "mooncake_store_create", create);
    FUNCTION(end_fn, library, "mooncake_store_destroy", destroy);
    FUNCTION(end_fn, library, "mooncake_store_put", put);
    store = create();
    check(put(store, "k", "v", 1, NULL) == -600, "a store that is not set up says so");
    check_fork();
    destroy(store);
}

int main(int argc, char **argv)
{
    struct state before = look();
    create_fn *create;
    void *library;

    watching = true;
    library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        printf("%s\n", argc == 2 ? dlerror() : "usage: load_test LIBRARY");
        return 2;
    }
    check_same(&before, "loading changes nothing");
    check_fork();
    FUNCTION(create_fn, library, "createTransferEngine", create);
    if (create)
        use_engine(library, create);
    else
        use_store(library);
    check_same(&before, "after a use everything is as before");
    dlclose(library);
    check_same(&before, "after unloading, too");
    printf("%d failures\n", failures);
    return failures != 0;
}
