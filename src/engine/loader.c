/* loader.c - find and open the plug-in of an engine.
 *
 * The file is engine-<name>.so, looked for in: the path given (a file or a folder); else beside the binary and where the
 * build tree keeps it; else $XDG_CACHE_HOME/mooncake/engine, where tools/fetch-engine puts it. A plug-in is never closed:
 * llama.cpp leaves threads and registered back ends behind. */
#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/xdg.h"
#include "engine/impl.h"
#include "kvcache/errtext.h"

static void host_log(int level, const char *line)
{
    if (level >= LOG_LEVEL_ERROR && level < LOG_LEVELS)
        log_at((enum log_level)level, "%s", line);
}

static const struct mc_engine_host host = {.abi = MC_ENGINE_ABI, .log = host_log};

static bool is_file(const char *path)
{
    struct stat stat_;

    return stat(path, &stat_) == 0 && S_ISREG(stat_.st_mode);
}

/* <folder><sub>/engine-<name>.so, if it is there. */
static bool try_folder(const char *folder, const char *sub, const char *name, char *path, size_t size)
{
    int n = snprintf(path, size, "%s%s/engine-%s.so", folder, sub, name);

    return n > 0 && (size_t)n < size && is_file(path);
}

/* Folder of the running binary, without a final slash. */
static bool binary_folder(char *folder, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", folder, size - 1);
    char *slash;

    if (n <= 0)
        return false;
    folder[n] = 0;
    slash = strrchr(folder, '/');
    if (!slash)
        return false;
    *slash = 0;
    return true;
}

static bool find_default(const char *name, char *path, size_t size)
{
    /* installed beside it; build/mooncake; build/src/cli/mooncake and the tests; prefix/bin/mooncake */
    static const char *const subs[] = {"", "/src/engine/llama", "/../engine/llama", "/llama", "/../lib/mooncake"};
    char folder[PATH_MAX];

    if (binary_folder(folder, sizeof folder))
        for (size_t i = 0; i < sizeof subs / sizeof subs[0]; i++)
            if (try_folder(folder, subs[i], name, path, size))
                return true;
    return xdg_path(XDG_CACHE, "engine", folder, sizeof folder) == MC_OK && try_folder(folder, "", name, path, size);
}

enum mc_status engine_plugin_load(
    const char *name, const char *engine_path, const struct mc_engine_ops **ops, char *err, size_t err_size)
{
    char path[PATH_MAX + 64];
    mc_engine_plugin_fn *plugin;
    enum mc_status st;
    void *handle;

    if (!name[0] || strlen(name) > 32 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != strlen(name)) {
        errtext(err, err_size, "engine '%s' is not known: synthetic, llama", name);
        return MC_ENOENT;
    }
    if (engine_path && is_file(engine_path)) {
        snprintf(path, sizeof path, "%s%s", strchr(engine_path, '/') ? "" : "./", engine_path);
    } else if (engine_path ? !try_folder(engine_path, "", name, path, sizeof path)
                           : !find_default(name, path, sizeof path)) {
        errtext(err, err_size, "engine '%s': no engine-%s.so %s%s; tools/fetch-engine gets it", name, name,
            engine_path ? "in " : "beside the binary nor in the cache", engine_path ? engine_path : "");
        return MC_ENOENT;
    }
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        errtext(err, err_size, "engine '%s': %s", name, dlerror());
        return MC_ESYS;
    }
    *(void **)&plugin = dlsym(handle, MC_ENGINE_PLUGIN_SYMBOL);
    if (!plugin) {
        errtext(err, err_size, "engine '%s': %s has no symbol %s", name, path, MC_ENGINE_PLUGIN_SYMBOL);
        st = MC_EVERSION;
        goto undo_handle;
    }
    st = plugin(&host, ops);
    if (st != MC_OK) {
        errtext(err, err_size, "engine '%s': %s is of another version than this binary (%u)", name, path, host.abi);
        goto undo_handle;
    }
    if (strcmp((*ops)->name, name) != 0) {
        errtext(err, err_size, "engine '%s': %s holds engine '%s'", name, path, (*ops)->name);
        st = MC_EVERSION;
        goto undo_handle;
    }
    log_debug("engine %s loaded from %s", name, path);
    return MC_OK;
undo_handle:
    dlclose(handle);
    return st;
}
